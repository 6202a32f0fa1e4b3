"""Checks of an answer beyond its schema: expressions, and the functions that they call."""
