"""Dry run of a plan: what a run would do, and how many model calls it would make."""
