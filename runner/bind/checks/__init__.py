"""Faults of a pipeline before a run: a module for each part of it."""
