"""Ledgers of the version before: what they know is carried over, and they are kept.

Version 6 had one row for each item, for its lineage, for each move and for each item in flight. Of
these the events are made that would have come to the same. A file is replaced by a new one and lies
beside it then; in PostgreSQL the schema is renamed. What a kill interrupts begins again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def carried_rows(select: Execute) -> Iterator[Pending]:
    """Yield the rows of this version for those of the one before, a table or a scope at a time."""
    for table, columns in COLUMNS.items():
        if table not in (*_OF_ITEMS, "meta"):
            found = _rows(select, table, columns, "", {})
            yield {table: {tuple(row[name] for name in KEYS[table]): row for row in found}}
    numbers = EventNumbers()
    scopes = "select scope from items union select scope from provenance"
    for (scope,) in select(f"{scopes} union select scope from attempts order by 1", {}):
        at = "where scope = :scope order by at", {"scope": scope}
        names: Sequence[str] = ("key", *_ITEM_COLUMNS, "run", "at", "gone", *FILED_COLUMNS)
        items = {row["key"]: row for row in _rows(select, "items", names, *at)}
        names = ("key", "run", "at", "spec", "source", "made", "made_object")
        lineage = {row["key"]: row for row in _rows(select, "provenance", names, *at)}
        events = list[Row]()
        for key in {**items, **lineage}:
            events += _events_of(items.get(key), lineage.get(key))
        names = ("key", "run", "hash", "at", "around_scope", "around_key")
        began = _rows(select, "attempts", names, *at)
        events += [{**row, "kind": EventKind.BEGAN} for row in began]
        yield _numbered(events, scope, numbers)
    moves = ("path", "sha256", "target", "scope", "key", "at")
    moved = _rows(select, "moves", moves, "order by at", {})
    for row in moved:
        row["origin"] = row.pop("path")
    yield _numbered([{"run": "", **row, "kind": EventKind.MOVED} for row in moved], "", numbers)


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
        yield {**lineage, **{n: made[n] for n in ("key", "run", "at")}, "kind": EventKind.ACTED}
        return
    at = {name: item[name] for name in ("key", "run", "at")}
    ended = at if made is None else {name: made[name] for name in ("key", "run", "at")}
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


def _numbered(events: Iterable[Row], scope: str, numbers: EventNumbers) -> Pending:
    numbered = [{"scope": scope, **event, "n": numbers.next()} for event in events]
    for event in numbered:
        if event["kind"] == EventKind.BEGAN:
            event["n"] = -event["n"]
    states = fold(event for event in numbered if event["scope"])
    return {
        "events": {(event["n"],): {**event, "kind": str(event["kind"])} for event in numbered},
        "items": {at: {"scope": at[0], "key": at[1], **state} for at, state in states.items()},
    }


def _rows(
    select: Execute, table: str, columns: Sequence[str], where: str, values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    found = select(f"select {', '.join(columns)} from {table} {where}", values)
    return [dict(zip(columns, row, strict=True)) for row in found]
