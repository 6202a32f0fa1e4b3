"""The states of an item: one vocabulary of verdicts, entries, reports, journals and displays.

Ledgers, journals and JSON have the values. A new state is a member and its place in the sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class ItemState(StrEnum):
    """Where an item of a block is, or a step that calls a model. `NEXT` has the allowed steps.

                   ┌─▶ ELSEWHERE ─┐      ┌─▶ PUT_OFF ─┐
        TO_DO ─────┴──────────────┴──▶ RUNNING ◀──────┘
          └─────────────┬────────────────┴─▶ DONE, SKIPPED, FAILED, WAITING, UNASKED
                        └ of what the ledger says: fresh, or another machine has done it,
                          one that was PUT_OFF here, too

    An item that is still TO_DO, ELSEWHERE or RUNNING at the end was left by the stop gate.
    """

    # What `verify` finds. Who has done an item reports what it was.
    NEW = "new"
    """It was never done."""
    CHANGED = "changed"
    """Its content is another one."""
    STALE = "stale"
    """What else its result depends on is."""
    FRESH = "fresh"
    """It is done, and nothing is to do."""
    HELD = "held"
    """So it is, but edited outputs, or files that are not ours, are kept."""
    UNSAMPLED = "unsampled"
    """It has work to do, and is not in the sample."""

    # In a run
    TO_DO = "to do"
    ELSEWHERE = "elsewhere"
    """Another machine holds it, or has taken it over: it is waited for."""
    RUNNING = "running"
    PUT_OFF = "put off"
    """A larger model has to be asked, in the next pass over the block."""

    # How it ended
    DONE = "done"
    SKIPPED = "skipped"
    """None of its steps ran, it failed under `on_error: skip`, or it was not asked for."""
    FAILED = "failed"
    """The next run tries it again."""
    QUARANTINED = "quarantined"
    """It is tried again when it, or its steps, have changed, or with `--retry-failed`."""
    WAITING = "waiting"
    """A person has to decide on an answer."""
    UNASKED = "unasked"
    """A person would have to, and the run was told to ask no one."""

    # Of what the block's list has no longer
    FILED = "filed"
    """It is done, and its document was moved away."""
    DELETED = "deleted"
    MISSING = "missing"
    """A folder whose documents count as deleted only after a person confirms it."""

    def __repr__(self) -> str:
        return repr(self.value)  # a report's counts are printed


_S = ItemState
AWAITED = (_S.WAITING,)
"""It has no result yet, and each run looks whether it is due; nothing behind its step runs."""
OPEN = (*AWAITED, _S.UNASKED)
BAD = frozenset((_S.FAILED, _S.QUARANTINED))

# Of entries in the ledger
WHOLE = frozenset((_S.DONE, _S.SKIPPED))
"""What the item keeps is what this run made of it, and it may be filed."""
DECIDED = WHOLE | {_S.QUARANTINED}
"""What earlier runs made of the item no longer applies."""
UNDECIDED = frozenset((_S.FAILED, *AWAITED))
"""Another run or a person decides on what it made."""
STORED = DECIDED | UNDECIDED
"""All that an entry may have."""

# Of items in reports and plans
REPORTED: tuple[ItemState, ...] = (
    _S.NEW, _S.CHANGED, _S.STALE, _S.FRESH, _S.HELD, _S.SKIPPED, _S.UNSAMPLED, _S.FAILED,
    _S.QUARANTINED, *AWAITED, _S.FILED, _S.DELETED, _S.MISSING,
)  # fmt: skip
"""In the order of their counts."""
LISTED = tuple(state for state in REPORTED if state is not _S.FILED)
"""Of items in a block's list, which its `counts` have."""
WORK = (_S.NEW, _S.CHANGED, _S.STALE)
"""What a run does."""
WITH_RESULT = frozenset((*WORK, _S.FRESH, _S.HELD))
UNCHANGED = frozenset((_S.FRESH, _S.SKIPPED, *AWAITED))
"""What a block's `changed` does not have."""

# Of what observers are told
APART = (_S.SKIPPED, *AWAITED, _S.QUARANTINED, _S.FAILED)
"""Ends that are counted apart from `done`, in their order."""
WITHOUT_RESULT = frozenset((*APART, _S.DELETED))
"""What a table lacks rows of."""
SHOWN = frozenset((_S.RUNNING, _S.DONE, _S.FRESH, *APART))

_ENDS = frozenset((_S.DONE, _S.SKIPPED, _S.FAILED, *OPEN))
NEXT: Mapping[ItemState, frozenset[ItemState]] = {
    _S.TO_DO: _ENDS | {_S.RUNNING, _S.ELSEWHERE},
    _S.ELSEWHERE: _ENDS | {_S.RUNNING, _S.ELSEWHERE},
    _S.RUNNING: _ENDS | {_S.PUT_OFF, _S.ELSEWHERE},
    _S.PUT_OFF: _ENDS | {_S.RUNNING, _S.ELSEWHERE},
    **dict.fromkeys(_ENDS, frozenset[ItemState]()),
}


def end_of(reported: ItemState) -> ItemState:
    """Return how an item ended that is reported so: what was done is reported as what it was."""
    return reported if reported in APART else _S.DONE
