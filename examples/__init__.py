"""Pipelines, documents and small models that run out of the box; data, not code."""
