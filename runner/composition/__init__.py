"""One pipeline as a step of another."""
