"""Whether a failed item is tried again by the next run, or quarantined. Pure.

A failure is transient where another try may succeed with nothing changed: a time-out, a lost
worker, a full queue, a disk or network folder that failed. A fault of the document itself is not.
"""

from __future__ import annotations

from paddock.runner.progress.item_states import ItemState

TRANSIENT_CAUSES = frozenset(("timeout", "worker", "busy", "io"))
MISSING_PACKAGE = "missing"
"""This machine lacks a package or a program; never counted against the item."""
NOT_REVIEWED = "review"
"""A review is due, and the run was told to ask no one; the next run may."""


def failure_state(n_before: int, most: int, cause: str) -> tuple[ItemState, int]:
    """Return the state of a failed item, and its failures in a row for transient causes.

    `failed` is retried by the next run; `quarantined` only when it, or its steps, have changed, or
    with `--retry-failed`.

    >>> [(str(state), n) for state, n in (failure_state(n, 3, "io") for n in (1, 2))]
    [('failed', 2), ('quarantined', 3)]
    >>> failure_state(1, 3, "other")[1], failure_state(0, 3, "missing")[1]
    (0, 1)
    """
    if cause in (MISSING_PACKAGE, NOT_REVIEWED):
        # Above zero: the item around it is retried as well.
        return ItemState.FAILED, max(n_before, 1)
    if cause not in TRANSIENT_CAUSES:
        return ItemState.QUARANTINED, 0
    n_now = n_before + 1
    return (ItemState.QUARANTINED if n_now >= most else ItemState.FAILED), n_now
