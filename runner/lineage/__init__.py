"""Lineage: where an output came from, and what changed since."""
