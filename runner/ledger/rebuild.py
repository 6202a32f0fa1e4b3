"""Make the states of items again from the log of their events, and say whether they were equal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from paddock.engine.system.records import Struct
from paddock.runner.settings import read_settings

from .database import queries
from .database.ledger_tables import COLUMNS, Execute, LedgerDatabase, Row
from .forgetting import without_runs
from .item_events import fold
from .ledger import open_existing, storage_of
from .run_history import LedgerFolder

Place = tuple[str, str]


class Rebuilt(Struct, frozen=True):
    n_items: int
    n_events: int
    different: tuple[str, ...] = ()
    """Keys of items whose state was another one than their events come to."""


def rebuild(place: LedgerFolder) -> Rebuilt | None:
    """Replace the states in a ledger that differ from its log; None: there is no ledger.

    Raises:
        LedgerError: a run works on the folder (`Locked`), or the ledger cannot be used.
    """
    with without_runs(place):
        database = open_existing(storage_of(place.state, read_settings(place.folder).ledger_url))
        if database is None:
            return None
        with closing(database):
            return _rebuild(database)


def _rebuild(database: LedgerDatabase) -> Rebuilt:
    n_events, names = 0, COLUMNS["items"]

    def logged() -> Iterator[Row]:
        nonlocal n_events
        for row in database.rows(queries.STATE_EVENTS, {}):
            n_events += 1
            yield dict(zip(queries.STATE_COLUMNS, row, strict=True))

    blank = dict.fromkeys(names)
    states = {
        place: {**blank, "scope": place[0], "key": place[1], **state}
        for place, state in fold(logged()).items()
    }
    found = (dict(zip(names, row, strict=True)) for row in database.rows(queries.STATES, {}))
    known = {(row["scope"], row["key"]): row for row in found}
    different = sorted(p for p in {**states, **known} if states.get(p) != known.get(p))
    insert = queries.insert_row("items", names)

    def replace(execute: Execute) -> None:
        for scope, key in different:
            execute(queries.DROP_ITEM, {"scope": scope, "key": key})
            if (state := states.get((scope, key))) is not None:
                execute(insert, state)

    if different:
        database.in_transaction(replace)
    return Rebuilt(len(states), n_events, tuple(key for _, key in different))
