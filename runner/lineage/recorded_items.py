"""Items as a ledger has them: by the paths that they wrote, read or are, and by their stores.

Nothing looks at the disk here. All paths are as the ledger stores them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.runner.core.run_records import WROTE, CallRecord, ItemSource, read_lineage
from paddock.runner.core.traces.dependencies import (
    FolderListed,
    RowsKept,
    StoreSearched,
    current_paths,
    dependencies_of,
)
from paddock.runner.core.traces.past_items import spec_references
from paddock.runner.core.traces.scopes import ItemKey
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import CallRow, Entry, LineageRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore

from .path_lineage import LineageCall, LineageStep

MAX_ORIGINS = 20
"""Of a folder or a store; the rest are counted."""
MAX_SIMILAR, MAX_COMPARED_NAMES = 3, 20_000


@dataclass(frozen=True, slots=True)
class ScopeOwner:
    """The step or block that a scope of the ledger stands for, in its folders."""

    scope_id: str
    file: str
    """Name of the outermost pipeline's file; empty: the ledger does not know the scope."""
    step: str
    """With the ids of the steps that run the pipelines around it."""
    inputs: tuple[Mapping[str, str] | str, ...]
    """Folders of each pipeline, outermost first; then the keys of the outer items."""

    @property
    def outer(self) -> tuple[str, ...]:
        """Keys of the outer items, for a nested block."""
        return tuple(key for key in self.inputs if isinstance(key, str))


@dataclass(frozen=True, kw_only=True)
class RecordedItem:
    """What the ledger knows of one item, and the path by which it was found."""

    base: Path
    """The folder that stored paths are relative to."""
    owner: ScopeOwner
    key: str
    path: str
    """A file or store that it wrote, or a file that it read."""
    run: str
    """The run that wrote the path; of one that was only read, the last that did the item."""
    at: float
    entry: Entry | None
    """None for a step without one, which runs each time, or which an older Paddock ran."""
    lineage: LineageRow | None
    spec: Mapping[str, Any]
    """The rule with which it was done, as recorded; empty: not known."""
    n_rows: int | None = None
    """Number of its rows, where the path is a store."""
    is_current: bool = True
    """Whether the path is an output of the item as that was done last."""

    @property
    def shown_key(self) -> str:
        """Its key with those of the items around it."""
        return "/".join((*self.owner.outer, self.key))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The files that it wrote."""
        if self.entry is not None:
            return self.entry.output_paths
        is_document = self.lineage is not None and self.lineage.source == self.path
        return () if is_document else (self.path,)

    @property
    def document(self) -> ItemSource | None:
        """The document of the output; None: there is none, or the output is an earlier one."""
        if self.lineage is None or not self.is_current:
            return None
        return read_lineage(self.lineage.made)[0]

    @property
    def read_steps(self) -> tuple[str, ...]:
        """The steps and blocks around it whose outputs it read, by name."""
        own = {*self.spec.get("steps", {}), *self.spec.get("blocks", {})}
        read = {path[1] for path in spec_references(self.spec) if path[0] == "steps" and path[1:]}
        return tuple(sorted(read - own))

    @property
    def searched_paths(self) -> tuple[str, ...]:
        """Folders that it listed and stores that it searched, absolute."""
        searched = dependencies_of(self.entry, FolderListed, StoreSearched)
        return tuple(str(self.base / dep.name) for dep in searched)

    @property
    def containing_stores(self) -> tuple[str, ...]:
        """Vector stores with rows of it, absolute."""
        return tuple(str(self.base / rows.store) for rows in dependencies_of(self.entry, RowsKept))


class RecordedItems:
    """Finds the items of one ledger."""

    def __init__(self, ledger: Ledger, base: Path) -> None:
        self._ledger = ledger
        self._base = base
        self._lineage = LineageStore(ledger)

    def of_item(self, scope_id: str, key: str) -> RecordedItem | None:
        """Return an item as it was done last; None: the ledger has none."""
        item = self._item(scope_id, key)
        return None if item.entry is None else item

    def writer_of(self, path: str) -> RecordedItem | None:
        """Return the item that wrote a path last."""
        rows = self._ledger.rows(queries.WRITERS, path=path)
        if not rows:
            return None
        scope_id, key, run, at = rows[0]
        return self._item(scope_id, key, path, (run, at))

    def writers_below(self, folder: str) -> tuple[Sequence[RecordedItem], int]:
        """Return the items that wrote the first files of a folder, and the number of others."""
        rows = self._rows_below(queries.PATHS_BELOW, folder)
        found = [self.writer_of(path) for (path,) in rows[:MAX_ORIGINS]]
        return [item for item in found if item is not None], max(0, len(rows) - MAX_ORIGINS)

    def items_in(self, store: str) -> tuple[Sequence[RecordedItem], int]:
        """Return the first items with rows in a vector store, and the number of others."""
        rows = sorted(self._lineage.rows_in(store), key=lambda row: (row.scope, row.key))
        first = rows[:MAX_ORIGINS]
        found = [self._item(r.scope, r.key, store, (r.run, r.at), r.n_rows) for r in first]
        return found, len(rows) - len(first)

    def store_around(self, path: str) -> str | None:
        """Return the vector store that contains a path, or None."""
        stores = self._lineage.stores()
        return next((store for store in stores if path.startswith(f"{store}/")), None)

    def readers_below(self, folder: str) -> tuple[Sequence[RecordedItem], int]:
        """Return the first items whose documents are in a folder, and the number of others."""
        rows = self._rows_below(queries.ITEMS_WITH_SOURCE_BELOW, folder)
        found = [self._item(id_, key, folder) for id_, key in rows[:MAX_ORIGINS]]
        return found, max(0, len(rows) - MAX_ORIGINS)

    def readers_of(
        self, paths: Iterable[str], among: Container[ItemKey] | None = None
    ) -> tuple[Sequence[RecordedItem], int]:
        """Return the first items that read one of some files, and the number of others.

        `among`: the items that count; None: all.
        """
        readers = dict[ItemKey, str]()
        for path in paths:
            found = {(row.scope, row.key) for row in self._lineage.of_source(path)}
            rows = self._ledger.rows(queries.ITEMS_THAT_READ, name=f"{json.dumps(path)}:")
            for reader in sorted(found.union((id_, key) for id_, key in rows)):
                if among is None or reader in among:
                    readers.setdefault(reader, path)
        first = [*readers.items()][:MAX_ORIGINS]
        items = [self._item(scope_id, key, path) for (scope_id, key), path in first]
        return items, len(readers) - len(items)

    def same_as(self, sha256: str) -> Sequence[str]:
        """Return the first paths that were written with a content."""
        rows = self._ledger.rows(queries.PATHS_OF_CONTENT, digest=sha256, most=MAX_SIMILAR)
        return [row[0] for row in rows]

    def near(self, path: str) -> Sequence[str]:
        """Return the first outputs with the same file name, then those with a similar path."""
        rows = self._ledger.rows(queries.SOME_PATHS, most=MAX_COMPARED_NAMES)
        names, own_name = [row[0] for row in rows], Path(path).name
        same = [name for name in names if Path(name).name == own_name]
        return [*same, *difflib.get_close_matches(path, names, n=MAX_SIMILAR)][:MAX_SIMILAR]

    def read_step(self, owner: ScopeOwner, step: str) -> RecordedItem | None:
        """Return the item of a step outside of blocks that an owner's items read."""
        items = [self._item(scope_id, step) for scope_id in self._scopes_read(owner, step)]
        return next((item for item in items if item.entry is not None), None)

    def newer(self, owner: ScopeOwner, step: str, at: float) -> int:
        """Count the items of a block, or the step, that an owner's read, done after a time."""
        scopes = self._scopes_read(owner, step)
        ((n_newer,),) = self._ledger.rows_of_keys(queries.COUNT_NEWER_ITEMS, scopes, "scope", at=at)
        return int(n_newer)

    def _scopes_read(self, owner: ScopeOwner, step: str) -> list[str]:
        """Return the scope of a step of the same pipeline, folders and outer items; or none."""
        n_pipelines = len(owner.inputs) - len(owner.outer)
        name = ".".join((*owner.step.split(".")[: max(0, n_pipelines - 1)], step))
        rows = self._ledger.rows(queries.SCOPES_OF_STEP, file=owner.file, step=name)
        found = ((scope_id, tuple(json.loads(inputs))) for scope_id, _, _, inputs in rows)
        return [scope_id for scope_id, inputs in found if owner.inputs[: len(inputs)] == inputs]

    def _rows_below(self, query: str, folder: str) -> Sequence[Sequence[Any]]:
        prefix = "" if folder == str(self._base) else f"{folder}/"
        return self._ledger.rows(query, n=len(prefix), prefix=prefix)

    def _item(
        self,
        scope_id: str,
        key: str,
        path: str = "",
        written: tuple[str, float] | None = None,
        n_rows: int | None = None,
    ) -> RecordedItem:
        """Return an item with a path of it; `written`: by which run, and when.

        1. A path that it did not write: the item as it was done last.
        2. An output of it as it was done last: the same, by that run.
        3. An output of it as an earlier run did it, and not since: by the earlier run.
        """
        entry = self._ledger.entries(scope_id, [key]).get(key)
        lineage = self._lineage.of_item(scope_id, key)
        is_current = True  # 1
        if written is not None and entry is not None:  # 2, 3
            stores = {rows.store for rows in dependencies_of(entry, RowsKept)}
            is_current = path in current_paths(entry) | stores
        elif written is not None:  # of a step without an entry
            is_current = lineage is None or path in lineage.made.get(WROTE, [path])
        last, (run, at) = lineage or entry, written or ("", 0.0)
        if is_current and last is not None:
            run, at = last.run, last.at
        digest = None if lineage is None else lineage.spec
        spec = json.loads((digest and self._lineage.spec(digest)) or "{}")
        rows = self._ledger.rows(queries.SCOPE, scope=scope_id)
        _, file, step, inputs = rows[0] if rows else (scope_id, "", "", "[]")
        return RecordedItem(
            base=self._base, owner=ScopeOwner(scope_id, file, step, tuple(json.loads(inputs))),
            key=key, path=path, run=run, at=at, entry=entry, lineage=lineage,
            spec=spec if isinstance(spec, dict) else {}, n_rows=n_rows, is_current=is_current,
        )  # fmt: skip

    def steps(self, item: RecordedItem) -> tuple[LineageStep, ...]:
        """Return the steps of an item with their calls, in the order of running.

        1. Those of its lineage.
        2. It has none, or one of a later run, since it was interrupted or done again: the calls
           that the ledger kept for it, as one step.
        """
        if item.lineage is not None and item.is_current:  # 1
            steps, run = list[LineageStep](), item.lineage.run
            for step in read_lineage(item.lineage.made)[1]:
                reply = item.spec.get("steps", {}).get(step.id, {}).get("reply")
                check = reply.get("check") if isinstance(reply, dict) else None
                checks = (check,) if isinstance(check, str) else tuple(map(str, check or ()))
                calls = tuple(self._call(call, run) for call in step.calls)
                steps.append(
                    LineageStep(step.id, step.uses, step.model, step.seconds, checks, calls)
                )
            return tuple(steps)
        is_of_block = item.entry is not None and item.key != item.owner.step  # 2
        shown_key = item.shown_key if is_of_block else ""
        hashes = self._lineage.calls_of(item.owner.scope_id, shown_key)
        kept = filter(None, [self._ledger.call(hash_, is_whole=True) for hash_ in hashes])
        calls = tuple(
            _kept_call(c, c.run, None) for c in kept if item.is_current or c.run == item.run
        )
        return (LineageStep(item.owner.step, calls=calls),) if calls else ()

    def _call(self, call: CallRecord, run: str) -> LineageCall:
        kept = self._ledger.call(call.hash, is_whole=True)
        if kept is not None:
            return _kept_call(kept, run, call)
        usage = {"prompt_tokens": call.prompt, "completion_tokens": call.completion}
        return LineageCall(
            hash=call.hash, kind=call.kind, is_known=call.is_known, at=call.began,
            seconds=call.seconds, run=run, usage=usage, is_gone=True,
        )  # fmt: skip


def _kept_call(kept: CallRow, run: str, call: CallRecord | None) -> LineageCall:
    """Return a call with its texts; `call`: what the lineage knows of it."""
    is_known, at, seconds = False, kept.at, None
    if call is not None:
        is_known, at, seconds = call.is_known, call.began, call.seconds
    reply = "" if kept.kind == "embed" else kept.reply.decode("utf-8", "replace")
    return LineageCall(
        hash=kept.hash, kind=kept.kind, model=kept.model, digest=kept.digest,
        served_digest=kept.served_digest, is_known=is_known, at=at, seconds=seconds, run=run,
        request=_loaded_request(kept.request), reply=reply, done_reason=kept.done_reason,
        usage=kept.usage.get("usage", {}),
    )  # fmt: skip


def _loaded_request(request: str) -> Mapping[str, Any]:
    """Return a recorded request; another value than a mapping as `{"request": …}`."""
    try:
        found = json.loads(request)
    except ValueError:
        found = request
    return found if isinstance(found, Mapping) else {"request": found}
