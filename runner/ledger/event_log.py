"""Append to the log of items' events: numbers of a process, and events in a transaction."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any

from .database import queries
from .database.ledger_tables import Execute
from .item_events import EventKind, changes

_COUNTER_BITS = 32


class EventNumbers:
    """The numbers of a process's events: greater than all that it finds, and its own alone."""

    def __init__(self, last: Sequence[Sequence[Any]] = ()) -> None:
        """`last`: the rows of `LAST_EVENT`."""
        self._counter = max([0, *(int(n or 0) for (n,) in last)]) >> _COUNTER_BITS
        self._mark = secrets.randbits(_COUNTER_BITS - 1)

    def next(self) -> int:
        """Return the next number: the counter, then the process's mark, above which others fit."""
        self._counter += 1
        return self._counter << _COUNTER_BITS | self._mark


def append_in(
    execute: Execute, kind: EventKind, scope: str, key: str, last: int, **columns: Any
) -> None:
    """Append an event of an item, and change its state, in a transaction.

    `last`: the number of the event that changed its state last. A run may be at work, and have
    numbers of its own: whatever it appends later has a greater one.
    """
    event = {"n": last + 1, "scope": scope, "key": key, "kind": kind, "run": "", "at": time.time()}
    event |= columns
    execute(queries.insert_row("events", event), event)
    if changed := changes(event):
        execute(queries.change_item(changed), {**changed, "scope": scope, "key": key})


def verify_again(execute: Execute, listed: str, texts: Iterable[str]) -> None:
    """Have filed items verified by the next run in whose dependencies one of the texts stands."""
    query = queries.FILED_THAT_READ.format(listed=listed)
    for scope, key, last in execute(query, {"keys": json.dumps(sorted(texts))}):
        append_in(execute, EventKind.VERIFIED, scope, key, last, made_by="")
