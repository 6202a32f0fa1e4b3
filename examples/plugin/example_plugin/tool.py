"""A tool: a function with type hints and a docstring, for `tool` and for what agents call."""

from __future__ import annotations

from datetime import date


def days_between(first: date, last: date) -> int:
    """Count the days from one date to another.

    Args:
        first: The earlier date, such as 2026-05-02.
        last: The later date.
    """
    return (last - first).days


days_between.has_effects = False  # it changes nothing: its results may be kept, and agents trust it
