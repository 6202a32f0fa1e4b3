"""Folder watches: events as hints, listings as the truth, settle time, retries, hot folders."""
