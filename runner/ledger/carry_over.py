"""Ledgers of the version before: what they know is carried over, and they are kept.

Version 6 had one row for each item, for its lineage, for each move and for each item in flight. Of
these the events are made that would have come to the same. A file is replaced by a new one and lies
beside it then; in PostgreSQL the schema is renamed. What a kill interrupts begins again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from .database.ledger_tables import COLUMNS, KEYS, Execute, Pending, Row
from .entries import FILED
from .event_log import EventNumbers
from .item_events import FILED_COLUMNS, EventKind, fold

_OF_ITEMS = ("events", "items")
_ITEM_COLUMNS = (
    "hash", "parts", "error", "reads", "outputs", "has_inner_failures", "seconds", "calls",
    "tokens", "attempts", "was", "state", "returns", "returns_object",
)  # fmt: skip
_WHEN = ("scope", "key", "run", "at")
_BEGAN = ("scope", "key", "run", "hash", "at", "around_scope", "around_key")
_MOVED = ("path", "sha256", "target", "scope", "key", "at")
_BETWEEN = "where (scope, key) >= (:scope, :key) and (scope, key) <= (:last_scope, :last_key)"
_PAGE = 500  # of calls, each with a reply of a page or two, some megabytes


def carried_rows(select: Execute) -> Iterator[Pending]:
    """Yield the rows of this version for those of the one before, some at a time."""
    for table, columns in COLUMNS.items():
        for found in _pages(select, table, columns) if table not in (*_OF_ITEMS, "meta") else ():
            yield {table: {tuple(row[name] for name in KEYS[table]): row for row in found}}
    numbers = EventNumbers()
    places = "(select scope, key from items union select scope, key from provenance) as places"
    for page in _pages(select, places, ("scope", "key"), ("scope", "key")):
        first, last = page[0], page[-1]
        between = {"scope": first["scope"], "key": first["key"]}
        between |= {"last_scope": last["scope"], "last_key": last["key"]}
        names: Sequence[str] = ("scope", "key", *_ITEM_COLUMNS, "run", "at", "gone", *FILED_COLUMNS)
        items = {_place(row): row for row in _rows(select, "items", names, _BETWEEN, between)}
        names = ("scope", "key", "run", "at", "spec", "source", "made", "made_object")
        rows = _rows(select, "provenance", names, _BETWEEN, between)
        lineage = {_place(row): row for row in rows}
        events = (_events_of(items.get(at), lineage.get(at)) for at in map(_place, page))
        yield _numbered(chain.from_iterable(events), numbers)
    for page in _pages(select, "attempts", _BEGAN, ("scope", "key", "run")):
        yield _numbered(({**row, "kind": EventKind.BEGAN} for row in page), numbers)
    for page in _pages(select, "moves", _MOVED, ("path", "sha256")):
        moved = ({**row, "origin": row["path"], "path": None} for row in page)
        yield _numbered(({**row, "run": "", "kind": EventKind.MOVED} for row in moved), numbers)


def _events_of(item: Row | None, made: Row | None) -> Iterator[Row]:
    """Yield the events that would have come to an item's rows.

    1. Without a row it is a step that has no state, or one that is forgotten but for its lineage.
    2. It ended as its lineage says, or as its row does.
    3. It was filed, and perhaps came back.
    4. It is gone; or a later run found it as it was.
    """
    lineage = {} if made is None else {n: made[n] for n in ("spec", "made", "made_object")}
    lineage |= {} if made is None else {"path": made["source"]}
    if item is None:  # 1
        assert made is not None
        yield {**lineage, **{n: made[n] for n in _WHEN}, "kind": EventKind.ACTED}
        return
    at = {name: item[name] for name in _WHEN}
    ended = at if made is None else {name: made[name] for name in _WHEN}
    values = {name: item[name] for name in _ITEM_COLUMNS}
    values["has_inner_failures"] = bool(values["has_inner_failures"])
    yield {**ended, **lineage, **values, "kind": EventKind.ENDED}  # 2
    is_filed = item["gone"] == FILED
    if is_filed or item["name"] is not None:  # 3
        yield {**at, **{n: item[n] for n in FILED_COLUMNS}, "kind": EventKind.LEFT}
    if item["gone"] and not is_filed:  # 4
        yield {**at, "run": item["gone"], "kind": EventKind.GONE}
    elif not is_filed and (item["name"] is not None or ended["run"] != item["run"]):
        yield {**at, "kind": EventKind.RETURNED}


def _numbered(events: Iterable[Row], numbers: EventNumbers) -> Pending:
    numbered = [{**event, "n": numbers.next()} for event in events]
    for event in numbered:
        if event["kind"] == EventKind.BEGAN:
            event["n"] = -event["n"]
    states = fold(event for event in numbered if event["scope"])
    return {
        "events": {(event["n"],): {**event, "kind": str(event["kind"])} for event in numbered},
        "items": {at: {"scope": at[0], "key": at[1], **state} for at, state in states.items()},
    }


def _place(row: Row) -> tuple[str, str]:
    return row["scope"], row["key"]


def _pages(
    select: Execute, table: str, columns: Sequence[str], key: Sequence[str] = ()
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a table, some at a time, in the order of its key."""
    key = key or KEYS[table]
    names, after = ", ".join(key), dict[str, Any]()
    values = dict(zip(("first", "second", "third"), key, strict=False))  # a key has at most three
    while True:
        where = f"where ({names}) > ({', '.join(f':{name}' for name in values)}) " if after else ""
        page = _rows(select, table, columns, f"{where}order by {names} limit {_PAGE}", after)
        if not page:
            return
        yield page
        after = {name: page[-1][column] for name, column in values.items()}


def _rows(
    select: Execute, table: str, columns: Sequence[str], where: str, values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    found = select(f"select {', '.join(columns)} from {table} {where}", values)
    return [dict(zip(columns, row, strict=True)) for row in found]
