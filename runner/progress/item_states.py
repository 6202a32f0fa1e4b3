"""State of an item in verdicts, entries, reports and displays, and its phase.

A state is what others read: ledgers, journals and JSON have the values. A phase is known during a
run alone. A new state is a member and its place in the sets; one in which an item waits has its
words in `WAITS`, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum, auto

from paddock.engine.system.records import Struct


class Phase(Enum):
    """Where an item of a block is within a run, or a step that has a trace.

    An item that is still `TO_DO` at the end was left by the stop gate.
    """

    TO_DO = auto()
    DONE = auto()
    SKIPPED = auto()
    """None of its steps ran, or it failed under `on_error: skip`."""
    FAILED = auto()
    """It is quarantined, or the next run tries it again."""
    WAITING = auto()
    """It is in a state of `WAITS`: nothing behind its step runs."""
    UNASKED = auto()
    """A person would have to decide, and the run was told to ask no one."""


OPEN = (Phase.WAITING, Phase.UNASKED)
"""It has no result yet, and each run looks whether it is due."""


class ItemState(StrEnum):
    """What an item is, or a step that has a trace, by its verdict, its entry or its report."""

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

    # As displays show it
    RUNNING = "running"

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
    BLOCKED = "blocked"
    """It would write a path that is another item's."""

    # Of what the block's list has no longer
    FILED = "filed"
    """It is done, and its document was moved away."""
    DELETED = "deleted"
    MISSING = "missing"
    """A folder whose documents count as deleted only after a person confirms it."""

    __hash__ = str.__hash__  # that of Enum is a function of Python: sets of states take three times

    def __repr__(self) -> str:
        return repr(self.value)  # a report's counts are printed


_S = ItemState


class Wait(Struct, frozen=True):
    """What items in a state of their own wait for, in words."""

    singular: str
    plural: str
    is_for_people: bool
    """Whether it ends as a person decides; else as what the item depends on changes."""

    def verb(self, n: int) -> str:
        return self.singular if n == 1 else self.plural


WAITS: Mapping[ItemState, Wait] = {
    _S.WAITING: Wait("waits for review", "wait for review", is_for_people=True),
    _S.BLOCKED: Wait(
        "waits for another item's path", "wait for another item's path", is_for_people=False
    ),
}
"""Where an item has no result yet, and each run looks whether it is due."""
BAD = frozenset((_S.FAILED, _S.QUARANTINED))

# Of entries in the ledger
WHOLE = frozenset((_S.DONE, _S.SKIPPED))
"""What the item keeps is what this run made of it, and it may be filed."""
DECIDED = WHOLE | {_S.QUARANTINED}
"""What earlier runs made of the item no longer applies."""
UNDECIDED = frozenset((_S.FAILED, *WAITS))
"""Another run or a person decides on what it made."""
STORED = DECIDED | UNDECIDED
"""All that an entry may have."""

# Of items in reports and plans
REPORTED: tuple[ItemState, ...] = (
    _S.NEW, _S.CHANGED, _S.STALE, _S.FRESH, _S.HELD, _S.SKIPPED, _S.UNSAMPLED, _S.FAILED,
    _S.QUARANTINED, *WAITS, _S.FILED, _S.DELETED, _S.MISSING,
)  # fmt: skip
"""In the order of their counts."""
LISTED = tuple(state for state in REPORTED if state is not _S.FILED)
"""Of items in a block's list."""
OF_LIST = (_S.DONE, _S.SKIPPED, _S.FAILED, _S.QUARANTINED, *WAITS)
"""How they ended: these of a block's `counts` are equal in each run with nothing changed."""
OF_RUN = tuple(state for state in LISTED if state not in OF_LIST)
"""What a run found and did: the others of its `counts`, which no step should read."""
WORK = (_S.NEW, _S.CHANGED, _S.STALE)
"""What a run does."""
WITH_RESULT = frozenset((*WORK, _S.FRESH, _S.HELD))
UNCHANGED = frozenset((_S.FRESH, _S.SKIPPED, *WAITS))
"""What a block's `changed` does not have."""

# Of what observers are told
APART = (_S.SKIPPED, *WAITS, _S.QUARANTINED, _S.FAILED)
"""Ends that are counted apart from `done`, in their order."""
WITHOUT_RESULT = frozenset((*APART, _S.DELETED))
"""What a table lacks rows of."""
SHOWN = frozenset((_S.RUNNING, _S.DONE, _S.FRESH, *APART))


def end_of(reported: ItemState) -> ItemState:
    """Return how an item is shown that ended: what was done is reported as what it was."""
    return reported if reported in APART else _S.DONE
