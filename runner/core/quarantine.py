"""Whether a failed item is tried again by the next run, or quarantined. Pure.

A failure is transient where another try may succeed with nothing changed: a time-out, a lost
worker, a full queue, a disk or network folder that failed. A fault of the document itself is not.
"""

from __future__ import annotations

from typing import Literal

TRANSIENT_CAUSES = frozenset(("timeout", "worker", "busy", "io"))
MISSING_PACKAGE = "missing"
"""This machine lacks a package or a program; never counted against the item."""
NOT_REVIEWED = "review"
"""A review is due, and the run was told to ask no one; the next run may."""

FailureState = Literal["failed", "quarantined"]


def failure_state(n_before: int, most: int, cause: str) -> tuple[FailureState, int]:
    """Return the state of a failed item, and its failures in a row for transient causes.

    `failed` is retried by the next run; `quarantined` only when it, or its steps, have changed, or
    with `--retry-failed`.

    >>> failure_state(1, 3, "io"), failure_state(2, 3, "io"), failure_state(1, 3, "other")
    (('failed', 2), ('quarantined', 3), ('quarantined', 0))
    >>> failure_state(0, 3, "missing"), failure_state(2, 3, "missing")
    (('failed', 1), ('failed', 2))
    """
    if cause in (MISSING_PACKAGE, NOT_REVIEWED):
        return "failed", max(n_before, 1)  # above zero: the item around it is retried as well
    if cause not in TRANSIENT_CAUSES:
        return "quarantined", 0
    n_now = n_before + 1
    return ("quarantined" if n_now >= most else "failed"), n_now
