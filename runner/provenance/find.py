"""Find what a ledger knows of a path: who wrote it, what was made of it, what it holds as a store.

Reads rows; what has changed since is told by `since`, what was asked of models by `steps`.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddock.runner.ledger.entries import Entry, MadeRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.origins import Origins

MOST_ORIGINS = 20
"""Of a folder or a store; the rest are counted."""
MOST_NEAR, MOST_NAMES = 3, 20_000


@dataclass(frozen=True, slots=True)
class Place:
    """What a scope's hash stands for."""

    scope: str
    file: str
    step: str
    outer: tuple[str, ...]
    """The keys of the items around a nested block's."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The rows that tell of one item, and of one of its files."""

    place: Place
    key: str
    path: str
    """As it is stored."""
    run: str
    at: float
    entry: Entry | None
    """None for a step that has no entry, since it calls no model."""
    made: MadeRow | None
    outputs: tuple[str, ...]
    n_rows: int | None = None
    """Of a store."""


class Traces:
    """What one ledger knows of paths."""

    def __init__(self, ledger: Ledger, base: Path) -> None:
        self._ledger = ledger
        self._base = base
        self._origins = Origins(ledger)
        self._places: dict[str, Place] = {}

    def stored(self, path: Path) -> str:
        """Write a path as the ledger does."""
        return str(path).removeprefix(f"{self._base}{os.sep}").replace(os.sep, "/")

    def absolute(self, stored: str) -> str:
        """Give a stored path's absolute one."""
        return str(self._base / stored)

    def written(self, stored: str) -> Trace | None:
        """Give what wrote a file last."""
        query = "select scope, key, run, at from outputs where path = :path order by at desc"
        rows = self._ledger.rows(query, path=stored)
        if not rows:
            return None
        scope, key, run, at = rows[0]
        return self._trace(scope, key, stored, run, at)

    def below(self, stored: str) -> tuple[Sequence[Trace], int]:
        """Give what wrote the files of a folder, the first ones, and how many more there are."""
        query = "select path from outputs where substr(path, 1, :n) = :prefix order by path"
        prefix = self._prefix(stored)
        rows = self._ledger.rows(query, n=len(prefix), prefix=prefix)
        paths = list(dict.fromkeys(row[0] for row in rows))
        found = [self.written(path) for path in paths[:MOST_ORIGINS]]
        return [one for one in found if one is not None], max(0, len(paths) - MOST_ORIGINS)

    def in_store(self, stored: str) -> tuple[Sequence[Trace], int]:
        """Give what has rows in a vector store, the first ones, and how many more there are."""
        rows = sorted(self._origins.stored_in(stored), key=lambda row: (row.scope, row.key))
        found = [
            self._trace(row.scope, row.key, stored, row.run, row.at, row.n_rows)
            for row in rows[:MOST_ORIGINS]
        ]
        return found, max(0, len(rows) - MOST_ORIGINS)

    def store_around(self, stored: str) -> str | None:
        """Give the vector store that a path lies in; None for a path in none."""
        return next((one for one in self._origins.stores() if stored.startswith(f"{one}/")), None)

    def made_below(self, stored: str) -> tuple[Sequence[Trace], int]:
        """Give the items that a folder's documents are, the first ones, and how many more."""
        prefix = self._prefix(stored)
        query = "select scope, key from provenance where substr(source, 1, :n) = :prefix"
        rows = self._ledger.rows(f"{query} order by source, scope", n=len(prefix), prefix=prefix)
        found = [self._trace(scope, key, stored, "", 0.0) for scope, key in rows[:MOST_ORIGINS]]
        return found, max(0, len(rows) - MOST_ORIGINS)

    def made_of(self, stored: str) -> Sequence[Trace]:
        """Give the items that a document is, or that read it."""
        found = {(row.scope, row.key) for row in self._origins.made_from(stored)}
        mark = f"%{json.dumps(stored)}:%"
        query = "select scope, key from items where reads like :mark"
        found |= {(row[0], row[1]) for row in self._ledger.rows(query, mark=mark)}
        return [
            self._trace(scope, key, stored, "", 0.0) for scope, key in sorted(found)[:MOST_ORIGINS]
        ]

    def same_as(self, sha256: str) -> Sequence[str]:
        """Give the outputs that held this when they were written."""
        query = "select distinct path from outputs where sha256 = :digest order by path limit :most"
        return [row[0] for row in self._ledger.rows(query, digest=sha256, most=MOST_NEAR)]

    def near(self, stored: str) -> Sequence[str]:
        """Give outputs with a similar name."""
        query = "select distinct path from outputs limit :most"
        names = [row[0] for row in self._ledger.rows(query, most=MOST_NAMES)]
        by_name: dict[str, list[str]] = {}
        for name in names:
            by_name.setdefault(Path(name).name, []).append(name)
        same = by_name.get(Path(stored).name, [])
        return [*same, *difflib.get_close_matches(stored, names, n=MOST_NEAR)][:MOST_NEAR]

    def beside(self, place: Place, step: str) -> Trace | None:
        """Give what is known of a top-level step of the same pipeline and folders."""
        query = (
            "select scope from scopes where file = :file and step = :step and inputs = "
            "(select inputs from scopes where scope = :scope)"
        )
        rows = self._ledger.rows(query, file=place.file, step=step, scope=place.scope)
        traces = [self._trace(row[0], step, "", "", 0.0) for row in rows]
        return next((trace for trace in traces if trace.entry is not None), None)

    def newer(self, file: str, step: str, at: float) -> int:
        """Count the items of a block, or the step, that were done after a time."""
        query = (
            "select count(*) from items join scopes on scopes.scope = items.scope "
            "where scopes.file = :file and scopes.step = :step and items.at > :at"
        )
        return int(self._ledger.rows(query, file=file, step=step, at=at)[0][0])

    def _prefix(self, stored: str) -> str:
        """Give what the stored paths below a folder begin with."""
        return "" if stored == str(self._base) else f"{stored}/"

    def _trace(
        self, scope: str, key: str, stored: str, run: str, at: float, n_rows: int | None = None
    ) -> Trace:
        entry = self._entry(scope, key)
        made = self._origins.made(scope, key)
        if entry is not None:
            run, at = entry.run, entry.at
        elif made is not None:
            run, at = made.run, made.at
        outputs: tuple[str, ...] = (stored,) if not self._is_document(stored, made) else ()
        if entry is not None:
            outputs = tuple(json.loads(entry.outputs)) if entry.outputs else ()
        place = self._place(scope)
        return Trace(place, key, stored, run, at, entry, made, outputs, n_rows)

    @staticmethod
    def _is_document(stored: str, made: MadeRow | None) -> bool:
        return made is not None and made.source == stored

    def _entry(self, scope: str, key: str) -> Entry | None:
        columns = ", ".join(Entry.__slots__)
        query = f"select {columns} from items where scope = :scope and key = :key"
        rows = self._ledger.rows(query, scope=scope, key=key)
        return Entry(*rows[0]) if rows else None

    def _place(self, scope: str) -> Place:
        if scope not in self._places:
            query = "select file, step, inputs from scopes where scope = :scope"
            self._places[scope] = next(self._read_places(scope, query), Place(scope, "", "", ()))
        return self._places[scope]

    def _read_places(self, scope: str, query: str) -> Iterator[Place]:
        for file, step, inputs in self._ledger.rows(query, scope=scope):
            outer = tuple(key for key in json.loads(inputs) if isinstance(key, str))
            yield Place(scope, file, step, outer)
