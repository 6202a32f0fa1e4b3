"""The log of items: what happens to one is an event, and its state is a fold of its events.

Events are only appended. `items` has the fold of each item, so that a run need not read them all;
`paddock doctor --rebuild` makes it again from the log. What later events replace of an item
is removed by retention, and all of it when a person asks to forget a document.

An item is named by its scope and key. Where its document lies, and what is in that, are facts of
its events. Numbers order events, clocks do not: one may go back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum, auto
from typing import TYPE_CHECKING

from .entries import FILED

if TYPE_CHECKING:
    from .database.ledger_tables import Row

FILED_COLUMNS = ("name", "path", "sha256", "target", "made_by", "outdated_by")
"""What is known of the document of a filed item, and of the rule as it was done last."""
NOT_FILED: Row = dict.fromkeys(FILED_COLUMNS)
UNKNOWN: Row = dict.fromkeys(("state", "run", "at", "gone", "hash", "parts", *FILED_COLUMNS))
"""The state of what is known only for the outputs that it made."""


class EventKind(StrEnum):
    BEGAN = auto()
    """A run began its steps. Its end folds that away: else the run died, or is at work."""
    MOVED = auto()
    """A file is about to be moved from `origin` to `target`; without a scope it was moved."""
    ENDED = auto()
    """It was done, failed or waits: with its parts, result, dependencies, outputs and calls."""
    ACTED = auto()
    """A step outside of blocks that each run does again, and so has no state, wrote or sent."""
    LEFT = auto()
    """Its document is no longer where it was listed, since it was moved away."""
    RETURNED = auto()
    """Its document is listed again."""
    GONE = auto()
    """A run found that its document was deleted."""
    VERIFIED = auto()
    """It is equivalent by another rule, or would come out otherwise by that."""
    FORGOTTEN = auto()
    """Nothing of it counts; what its outputs were made of stays while there are some."""


def changes(event: Row) -> Row:
    """Return the columns of an item's state that an event sets, with its number as the `last`."""
    set_by_kind = _set_by_kind(event)
    return {**set_by_kind, "last": event["n"]} if set_by_kind else {}


def _set_by_kind(event: Row) -> Row:
    """Return the columns that an event sets by its kind.

    1. Began, or a file is about to be moved: none.
    2. Ended: this result counts, by these parts; its document is there.
    3. Left: it is filed where its document went, if that is known.
    4. Returned: its document is there again; what it was filed as stays known.
    5. Gone: since this run; it is not filed.
    6. Verified: what it says of rule and parts.
    7. Forgotten: nothing counts, but how its outputs were made.
    8. Acted: no result counts, and how its outputs were made is this.
    """
    match event["kind"]:
        case EventKind.BEGAN | EventKind.MOVED:  # 1
            return {}
        case EventKind.ENDED:  # 2
            of_end = {"ended": event["n"], "state": event["state"], "gone": None}
            return {**of_end, **_when(event), "hash": None, "parts": None}
        case EventKind.LEFT:  # 3
            return {"gone": FILED, **{name: event.get(name) for name in FILED_COLUMNS}}
        case EventKind.RETURNED:  # 4
            return {"gone": None, **_when(event)}
        case EventKind.GONE:  # 5
            return {"gone": event["run"], **_when(event), **NOT_FILED}
        case EventKind.VERIFIED:  # 6
            columns = ("hash", "parts", "made_by", "outdated_by")
            return {name: event[name] for name in columns if event.get(name) is not None}
        case EventKind.FORGOTTEN:  # 7
            return UNKNOWN
        case EventKind.ACTED:  # 8
            return {**UNKNOWN, "ended": event["n"]}
    raise ValueError(event["kind"])


def _when(event: Row) -> Row:
    return {"run": event["run"], "at": event["at"]}


def fold(events: Iterable[Row]) -> dict[tuple[str, str], Row]:
    """Return the state of each item that has one, by scope and key, by events in their order."""
    states: dict[tuple[str, str], Row] = {}
    for event in events:
        place = event["scope"], event["key"]
        changed = changes(event)
        if changed:
            states[place] = {**states.get(place, {}), **changed}
    return {place: state for place, state in states.items() if "ended" in state}


def superseded(events: Sequence[Row]) -> Iterator[int]:
    """Yield the numbers of an item's events that say nothing any more: later ones replace that.

    Where files were moved, and what is in flight, is asked of the events themselves.
    """
    replaced = set[str]()
    for event in reversed(events):
        changed = _set_by_kind(event)
        if changed and changed.keys() <= replaced:
            yield event["n"]
        else:
            replaced |= changed.keys()
