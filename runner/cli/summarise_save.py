"""Results of `paddock summarise` that go over to the file that `--save` wrote.

They are neither computed again nor taken for another pipeline's. Item hashes contain no file and no
folder, so entries stay fresh if the steps are the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from paddock.engine.system.records import replace
from paddock.engine.system.text import canonical_json
from paddock.pipelines.yaml_source import text_digest
from paddock.runner.core.traces.dependencies import (
    Dependency,
    FileRead,
    KeptOutput,
    as_json,
    by_name,
    read_dependencies,
)
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.database.ledger_tables import COLUMNS
from paddock.runner.ledger.entries import PipelineRow, read_written
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.settings import STATE_FOLDER, read_settings


def transfer_results(source: Path, target: Path) -> int:
    """Move the entries, outputs and calls of one pipeline file to another; return the entry count.

    Existing entries of the target stay. Runs stay in the history of the source.

    Raises:
        LedgerError: a ledger cannot be read or written; the source still has everything then.
    """
    source, target = source.resolve(), target.resolve()
    with ExitStack() as stack:
        mine = stack.enter_context(_ledger(source))
        is_same = source.parent == target.parent
        theirs = mine if is_same else stack.enter_context(_ledger(target))
        return _ResultTransfer(source, mine, target, theirs).run()


def _ledger(file: Path) -> Ledger:
    return Ledger(file.parent / STATE_FOLDER, url=read_settings(file.parent).ledger_url)


class _ResultTransfer:
    def __init__(self, source: Path, mine: Ledger, target: Path, theirs: Ledger) -> None:
        self._file, self._target = source.name, target.name
        self._mine, self._theirs = mine, theirs
        self._from = OutputIndex(mine, source.parent, set())
        self._to = OutputIndex(theirs, target.parent, set())
        known = self._pipelines(theirs, self._target)
        self._name = known[0].name if known else self._target
        self._moved = {
            "items": self._item,
            "outputs": lambda row: {"path": self._path(row["path"])},
            "provenance": self._made,
        }

    def run(self) -> int:
        n_items = 0
        scopes = list(self._mine.rows(queries.SCOPES_OF_FILE, file=self._file))
        for scope, _, step, inputs in scopes:
            new = self._scope(step, inputs)
            known = self._theirs.entries(new)
            for table, moved in self._moved.items():
                rows = [row for row in self._of(table, scope) if row["key"] not in known]
                for row in rows:
                    self._put(table, row, new, **moved(row))
                n_items += len(rows) if table == "items" else 0
            for row in self._of("calls", scope):
                self._put("calls", row, new)
        asyncio.run(self._theirs.durable())
        for scope, *_ in scopes:
            self._drop(scope)
        if scopes:  # the file that was saved is a pipeline of its own, not the command's renamed
            text = text_digest(self._to.base.joinpath(self._target).read_bytes())
            self._theirs.put_row("pipelines", PipelineRow(self._name, self._target, text))
        for pipeline in self._pipelines(self._mine, self._file):
            self._mine.drop("pipelines", {"name": pipeline.name})
        return n_items

    def _pipelines(self, ledger: Ledger, file: str) -> list[PipelineRow]:
        rows = (PipelineRow(*row) for row in ledger.rows(queries.KNOWN_PIPELINES))
        return [row for row in rows if row.file == file]

    # --- reading and writing rows

    def _of(self, table: str, scope: str) -> Iterator[dict[str, Any]]:
        for row in self._mine.rows(queries.whole_rows_of_scope(table), scope=scope):
            yield dict(zip(COLUMNS[table], row, strict=True))

    def _put(self, table: str, row: dict[str, Any], scope: str, **changed: Any) -> None:
        """Write a row to the target's ledger, with the objects that it names."""
        for name, value in row.items():
            if name.endswith("_object") and value is not None:
                kept = self._mine.objects.get(value)
                if kept is not None:
                    self._theirs.objects.put(kept)
        self._theirs.put(table, {**row, "scope": scope, **changed})

    def _drop(self, scope: str) -> None:
        """Delete the rows of the source: a file belongs to one pipeline."""
        for table, name in (("items", "key"), ("provenance", "key"), ("outputs", "path")):
            for row in self._of(table, scope):
                self._mine.drop(table, {"scope": scope, name: row[name]})
        self._mine.drop("scopes", {"scope": scope})

    # --- what is relative to a folder

    def _scope(self, step: str, inputs: str) -> str:
        """Record and return the target's scope for one of the source (see `Work.scope_id`)."""
        places = [
            {name: self._path(path) for name, path in place.items()}
            if isinstance(place, dict)
            else place
            for place in json.loads(inputs)
        ]
        text = canonical_json(places)
        scope = hashlib.sha256(f"{self._name}\n{step}\n{text}".encode()).hexdigest()
        self._theirs.record_scope(scope, self._target, step, text)
        return scope

    def _path(self, stored: str) -> str:
        return self._to.stored(self._from.absolute(stored))

    def _item(self, row: Mapping[str, Any]) -> dict[str, Any]:
        written = {self._path(path): sha for path, sha in read_written(row["outputs"]).items()}
        found: list[Dependency] = read_dependencies(row["reads"])
        moved: list[Dependency] = []
        for dep in found:
            if isinstance(dep, FileRead | KeptOutput):
                moved.append(replace(dep, path=self._path(dep.path)))
            else:
                moved.append(dep)
        return {
            "has_inner_failures": bool(row["has_inner_failures"]),  # SQLite has numbers
            "outputs": json.dumps(written) if written else None,
            "reads": as_json(by_name(moved)),
        }

    def _made(self, row: Mapping[str, Any]) -> dict[str, Any]:
        made = self._mine.value(row["made"], row["made_object"])
        source = None if row["source"] is None else self._path(row["source"])
        if source is not None and made.get("source"):
            made = {**made, "source": {**made["source"], "path": source}}
        if row["spec"] is not None:
            for (text,) in self._mine.rows(queries.SPEC, spec=row["spec"]):
                self._theirs.put("specs", {"spec": row["spec"], "text": text})
        inline, object_ = self._theirs.keep(made)
        return {"source": source, "made": inline, "made_object": object_}
