"""Where an output came from, and what changed since."""
