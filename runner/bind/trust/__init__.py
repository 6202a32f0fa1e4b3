"""Reach and permissions of a pipeline, and the files that no step may write."""
