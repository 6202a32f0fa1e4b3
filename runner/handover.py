"""Hand over what one pipeline file did to another file, which may lie in another folder.

The other file then owns the outputs: they are neither computed again nor taken for somebody else's.
Item hashes know no file and no folder, so entries stay fresh where the steps are the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .evidence import HELD, held_mark, is_of_a_file
from .freshness import canonical
from .ledger.ledger import Ledger
from .ledger.outputs import Index
from .session import STATE_FOLDER
from .settings import read_settings

_COLUMNS: Mapping[str, str] = {
    "items": "scope, key, hash, parts, state, error, returns, returns_object, reads, outputs, "
    "has_inner_failures, seconds, calls, tokens, run, at, gone, attempts, was",
    "outputs": "scope, path, key, sha256, intended, size, mtime_ns, run, at",
    "provenance": "scope, key, run, at, spec, source, made, made_object",
    "calls": "hash, kind, model, digest, served_digest, request, request_object, reply, "
    "reply_object, done_reason, usage, scope, step, key, run, at",
}


def hand_over(giver: Path, taker: Path) -> int:
    """Move the entries, outputs and calls of one pipeline file to another; return how many entries.

    Entries that the other one has already stay as they are. Runs stay in the giver's history.

    Raises:
        LedgerError: a ledger cannot be read or written; the giver still has everything then.
    """
    giver, taker = giver.resolve(), taker.resolve()
    with ExitStack() as stack:
        mine = stack.enter_context(_ledger(giver))
        is_same = giver.parent == taker.parent
        theirs = mine if is_same else stack.enter_context(_ledger(taker))
        return _Handover(giver, mine, taker, theirs).done()


def _ledger(file: Path) -> Ledger:
    return Ledger(file.parent / STATE_FOLDER, url=read_settings(file.parent).ledger_url)


class _Handover:
    def __init__(self, giver: Path, mine: Ledger, taker: Path, theirs: Ledger) -> None:
        self._file, self._taker = giver.name, taker.name
        self._mine, self._theirs = mine, theirs
        self._from = Index(mine, giver.parent, set())
        self._to = Index(theirs, taker.parent, set())

    def done(self) -> int:
        n_items = 0
        scopes = list(self._rows("scopes", "scope, step, inputs", "file", self._file))
        for scope, step, inputs in scopes:
            new = self._scope(step, inputs)
            known = self._theirs.entries(new)
            for row in self._of("items", scope):
                if row["key"] not in known:
                    self._put("items", row, new, **self._item(row))
                    n_items += 1
            for row in self._of("outputs", scope):
                if row["key"] not in known:
                    self._put("outputs", row, new, path=self._path(row["path"]))
            for row in self._of("provenance", scope):
                if row["key"] not in known:
                    self._put("provenance", row, new, **self._made(row))
            for row in self._of("calls", scope):
                self._put("calls", row, new)
        asyncio.run(self._theirs.durable())
        for scope, _, _ in scopes:
            self._drop(scope)
        return n_items

    # --- reading and writing rows

    def _rows(self, table: str, columns: str, name: str, value: str) -> Iterator[Any]:
        query = f"select {columns} from {table} where {name} = :value"
        yield from self._mine.rows(query, value=value)

    def _of(self, table: str, scope: str) -> Iterator[dict[str, Any]]:
        columns = _COLUMNS[table]
        for row in self._rows(table, columns, "scope", scope):
            yield dict(zip(columns.split(", "), row, strict=True))

    def _put(self, table: str, row: dict[str, Any], scope: str, **changed: Any) -> None:
        """Write a row for the taker, with the objects that it names."""
        for name, value in row.items():
            if name.endswith("_object") and value is not None:
                kept = self._mine.objects.get(value)
                if kept is not None:
                    self._theirs.objects.put(kept)
        self._theirs.put(table, {**row, "scope": scope, **changed})

    def _drop(self, scope: str) -> None:
        """Leave nothing with the giver: a file belongs to one pipeline."""
        for table, name in (("items", "key"), ("provenance", "key"), ("outputs", "path")):
            for row in self._of(table, scope):
                self._mine.drop(table, {"scope": scope, name: row[name]})
        self._mine.drop("scopes", {"scope": scope})

    # --- what is relative to a folder

    def _scope(self, step: str, inputs: str) -> str:
        """Note the taker's scope in place of one of the giver's (see `Work.scope_id`)."""
        places = [
            {name: self._path(path) for name, path in place.items()}
            if isinstance(place, dict)
            else place
            for place in json.loads(inputs)
        ]
        text = canonical(places)
        scope = hashlib.sha256(f"{self._taker}\n{step}\n{text}".encode()).hexdigest()
        self._theirs.record_scope(scope, self._taker, step, text)
        return scope

    def _path(self, stored: str) -> str:
        return self._to.stored(self._from.absolute(stored))

    def _item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        outputs = None if row["outputs"] is None else json.loads(row["outputs"])
        reads = None if row["reads"] is None else self._reads(json.loads(row["reads"]))
        return {
            "has_inner_failures": bool(row["has_inner_failures"]),  # SQLite has numbers
            "outputs": outputs and json.dumps([self._path(path) for path in outputs]),
            "reads": reads and json.dumps(reads),
        }

    def _reads(self, reads: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for name, mark in reads.items():
            if mark[0] == HELD:
                found |= held_mark(self._path(mark[1]), mark[2])
            else:
                found[self._path(name) if is_of_a_file(mark) else name] = mark
        return found

    def _made(self, row: Mapping[str, Any]) -> dict[str, Any]:
        made = self._mine.value(row["made"], row["made_object"])
        source = None if row["source"] is None else self._path(row["source"])
        if source is not None and made.get("source"):
            made = {**made, "source": {**made["source"], "path": source}}
        if row["spec"] is not None:
            for (text,) in self._rows("specs", "text", "spec", row["spec"]):
                self._theirs.put("specs", {"spec": row["spec"], "text": text})
        inline, object_ = self._theirs.keep(made)
        return {"source": source, "made": inline, "made_object": object_}
