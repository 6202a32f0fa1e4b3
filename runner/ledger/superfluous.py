"""Which replies of a ledger no item needs: those of documents that are gone, of earlier versions.

Knows the tables by small portable queries, and removes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .objects import Objects


class Database(Protocol):
    """What statements are carried out on."""

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Carry out a statement with named values (`:name`, letters alone), and give its rows."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """A call that no item needs."""

    hash: str
    at: float
    n_bytes: int
    """Of its texts in the row."""
    objects: tuple[str, ...]


def superfluous(database: Database, before: float) -> Iterator[Call]:
    """Yield the calls that no item needs and that were made before a time, the oldest first.

    An item needs those that its entry was made of. Those that an earlier version of it made are
    not needed once all of its entry's calls are known to be of the run that wrote it.
    """
    oldest = database.rows("select min(at) from calls", {})[0][0]
    if oldest is None or oldest >= before:
        return
    nested = _nested(database)
    for row in database.rows(_CALLS, {"before": before}):
        hash_, scope, key, run, at, size, *objects = row[:8]
        found, entry_run, n_calls, gone, n_made = row[8:]
        call = Call(hash_, at, int(size or 0), tuple(filter(None, objects)))
        if found is None:
            prefix = nested.get(scope)
            if prefix is None or not _has_item(database, scope, key[len(prefix) :]):
                yield call
        elif gone is not None or (run != entry_run and int(n_made or 0) >= n_calls):
            yield call


def used(database: Database, objects: Objects) -> frozenset[str]:
    """Give the calls of which the items that are there were made, whoever made them first."""
    found: set[str] = set()
    for text, object_ in database.rows(_MADE, {}):
        kept = objects.get(object_) if object_ is not None else text
        for step in json.loads(kept)["steps"] if kept else ():
            found.update(call[0] for call in step["calls"])
    return frozenset(found)


def _nested(database: Database) -> dict[str, str]:
    """Give what stands before the keys of calls in scopes of blocks within blocks."""
    found: dict[str, str] = {}
    for scope, inputs in database.rows("select scope, inputs from scopes", {}):
        outer = json.loads(inputs)[1:]
        if outer:
            found[scope] = "".join(f"{key}/" for key in outer)
    return found


def _has_item(database: Database, scope: str, key: str) -> bool:
    query = "select 1 from items where scope = :scope and key = :key and gone is null"
    return bool(database.rows(query, {"scope": scope, "key": key}))


_MADE = """
select p.made, p.made_object from provenance p
left join items i on i.scope = p.scope and i.key = p.key
where i.gone is null
"""

# A top-level step's calls have no key; its entry has the step's id for one.
_CALLS = """
select c.hash, c.scope, c.key, c.run, c.at,
       length(coalesce(c.request, '')) + length(coalesce(c.reply, '')),
       c.request_object, c.reply_object,
       i.key, i.run, i.calls, i.gone, made.n
from calls c
left join items i
  on i.scope = c.scope and i.key = case when c.key = '' then c.step else c.key end
left join (select scope, key, run, count(*) as n from calls group by scope, key, run) made
  on made.scope = c.scope and made.key = c.key and made.run = i.run
where c.at < :before
order by c.at
"""
