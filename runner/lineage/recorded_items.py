"""Items as a ledger has them: by the paths that they wrote, read or are; their steps and calls.

Nothing looks at the disk here. All paths are as the ledger stores them.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from paddock.engine.system.records import Struct
from paddock.pipelines.expressions import steps_read
from paddock.runner.core.run_records import CallRecord, ItemSource, read_lineage
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
from paddock.runner.ledger.entries import CallRow, Entry, LineageRow, ScopeOwner
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore

from .path_lineage import LineageCall, LineageStep

MAX_SIMILAR, MAX_COMPARED_NAMES = 3, 20_000


class RecordedItem(Struct, frozen=True):
    owner: ScopeOwner
    key: str
    entry: Entry | None
    """None for a step without one, which runs each time."""
    lineage: LineageRow | None
    spec: Mapping[str, Any]
    """The rule with which it was done, as recorded; empty: not known."""
    run: str
    """The run that did it; empty: not known."""
    at: float

    def __str__(self) -> str:
        keys, step = "/".join(self.keys), self.owner.step
        if not self.is_step:
            return f"item '{keys}' of '{step}'"
        return f"step '{step}' for item '{keys}'" if keys else f"step '{step}'"

    @property
    def is_step(self) -> bool:
        """Whether it is a step outside of blocks; where its spec is not known, its key says so."""
        return self.owner.id not in self.spec["blocks"] if self.spec else self.key == self.owner.id

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the items that are around it, outermost first, and of the item that it is."""
        return self.owner.outer if self.is_step else (*self.owner.outer, self.key)

    @property
    def shown_key(self) -> str:
        return "/".join((*self.owner.outer, self.key))

    @property
    def outputs(self) -> tuple[str, ...]:
        if self.entry is not None:
            return tuple(self.entry.output_paths)
        return tuple(read_lineage(self.lineage).wrote or ())

    @property
    def source(self) -> ItemSource | None:
        return read_lineage(self.lineage).source

    @property
    def made_of(self) -> tuple[str, ...]:
        own = {*self.spec.get("steps", {}), *self.spec.get("blocks", {})}
        return tuple(sorted(steps_read(spec_references(self.spec)) - own))

    @property
    def looked_in(self) -> tuple[str, ...]:
        found: list[FolderListed | StoreSearched]
        found = dependencies_of(self.entry, FolderListed, StoreSearched)
        return tuple(d.folder if isinstance(d, FolderListed) else d.path for d in found)

    @property
    def kept_in(self) -> tuple[str, ...]:
        return tuple(rows.store for rows in dependencies_of(self.entry, RowsKept))


class WrittenPath(NamedTuple):
    """A path that an item wrote in a run: a file, or a vector store with rows of it."""

    path: str
    scope_id: str
    key: str
    run: str
    at: float
    n_rows: int | None = None
    """Number of the item's rows, where the path is a store."""


class ItemOutput(NamedTuple):
    """A path with the item that wrote it."""

    written: WrittenPath
    """Of an output of the item as it was done last, with that run."""
    item: RecordedItem
    is_current: bool


class RecordedItems(Struct, frozen=True):
    _ledger: Ledger
    _base: Path
    """The folder of its pipelines, absolute."""

    def item(self, scope_id: str, key: str) -> RecordedItem:
        entry, store = self._ledger.entries(scope_id, [key]).get(key), LineageStore(self._ledger)
        lineage = store.of_item(scope_id, key)
        spec = None if lineage is None else store.spec(lineage.spec or "")
        rows = self._ledger.rows(queries.SCOPE, scope=scope_id)
        owner = ScopeOwner.of(*(rows[0] if rows else (scope_id, "", "", "[]")))
        last = lineage or entry
        run, at = ("", 0.0) if last is None else (last.run, last.at)
        return RecordedItem(owner, key, entry, lineage, json.loads(spec or "{}"), run, at)

    def written_at(self, path: str) -> WrittenPath | None:
        """Return a file as that was written last; None: the ledger knows no item that did."""
        rows = self._ledger.rows(queries.WRITERS, path=path)
        return WrittenPath(*rows[-1]) if rows else None

    def written_below(self, folder: str) -> list[WrittenPath]:
        rows = self._rows_below(queries.WRITERS_BELOW, folder)
        return [*{row[0]: WrittenPath(*row) for row in rows}.values()]

    def kept_in(self, path: str) -> list[WrittenPath]:
        lineage = LineageStore(self._ledger)
        stores = [store for store in lineage.stores() if f"{path}/".startswith(f"{store}/")]
        rows = itertools.chain.from_iterable(map(lineage.rows_in, stores))
        return [
            WrittenPath(row.path, row.scope, row.key, row.run, row.at, row.n_rows)
            for row in sorted(rows, key=attrgetter("scope", "key"))
        ]

    def output(self, written: WrittenPath) -> ItemOutput:
        """Return a path that an item wrote.

        It is an output of the item as that was done last, or of an earlier answer or try.
        """
        path, item = written.path, self.item(written.scope_id, written.key)
        if item.entry is not None:
            is_current = path in current_paths(item.entry) or path in item.kept_in
        else:
            wrote = read_lineage(item.lineage).wrote
            is_current = wrote is None or path in wrote
        if is_current and item.run:
            written = written._replace(run=item.run, at=item.at)
        return ItemOutput(written, item, is_current)

    def documents_below(self, folder: str) -> list[ItemKey]:
        return [(s, key) for _, s, key in self._rows_below(queries.ITEMS_WITH_SOURCE_BELOW, folder)]

    def readers_of(self, paths: Iterable[str]) -> list[ItemKey]:
        readers = dict[ItemKey, None]()
        for path in paths:
            found = {(row.scope, row.key) for row in LineageStore(self._ledger).of_source(path)}
            rows = self._ledger.rows(queries.ITEMS_THAT_READ, name=f"{json.dumps(path)}:")
            readers |= dict.fromkeys(sorted(found | {(scope_id, key) for scope_id, key in rows}))
        return [*readers]

    def same_as(self, sha256: str) -> Sequence[str]:
        rows = self._ledger.rows(queries.PATHS_OF_CONTENT, digest=sha256, most=MAX_SIMILAR)
        return [row[0] for row in rows]

    def near(self, path: str) -> Sequence[str]:
        rows = self._ledger.rows(queries.SOME_PATHS, most=MAX_COMPARED_NAMES)
        names, own_name = [row[0] for row in rows], Path(path).name
        same = [name for name in names if Path(name).name == own_name]
        similar = difflib.get_close_matches(path, names, n=MAX_SIMILAR)
        return [*dict.fromkeys([*same, *similar])][:MAX_SIMILAR]

    def steps_read(self, owner: ScopeOwner, name: str) -> list[RecordedItem]:
        """Return the items of a step outside of blocks that an owner's items read.

        Of one that runs a pipeline, those of the steps outside of blocks in it.
        """
        items = [self.item(scope_id, name) for scope_id in self._scopes_read(owner, name)]
        found = [item for item in items if item.entry is not None]
        return found or self.items_within(owner, name, owner.outer)

    def count_newer(self, owner: ScopeOwner, step: str, at: float) -> int:
        """Count the items of a block, or the step, that an owner's read, done after a time."""
        scopes = self._scopes_read(owner, step)
        ((n_newer,),) = self._ledger.rows_of_keys(queries.COUNT_NEWER_ITEMS, scopes, "scope", at=at)
        return int(n_newer)

    def items_within(
        self, owner: ScopeOwner, step: str, outer: tuple[str, ...]
    ) -> list[RecordedItem]:
        """Return the items of steps outside of blocks in the pipeline that a step runs, in order.

        Those of pipelines that it runs in turn, too. `outer`: keys of the items around it.
        """
        prefix, n = f"{owner.prefix}{step}.", len(owner.folders)
        at = {"file": owner.file, "prefix": prefix, "n": len(prefix)}
        rows = self._ledger.rows(queries.SCOPES_WITHIN, **at)
        items = [
            self.item(inner.scope_id, inner.id)
            for inner in itertools.starmap(ScopeOwner.of, rows)
            if (inner.folders[:n], inner.outer) == (owner.folders, outer)
        ]
        return sorted((item for item in items if item.entry is not None), key=attrgetter("at"))

    def _scopes_read(self, owner: ScopeOwner, step: str) -> list[str]:
        name = f"{owner.prefix}{step}"
        rows = self._ledger.rows(queries.SCOPES_OF_STEP, file=owner.file, step=name)
        return [
            read.scope_id
            for read in itertools.starmap(ScopeOwner.of, rows)
            if read.folders == owner.folders and read.outer == owner.outer[: len(read.outer)]
        ]

    def _rows_below(self, query: str, folder: str) -> Sequence[Sequence[Any]]:
        """Return the rows of a query whose first value is a path in a folder."""
        is_around = self._base.is_relative_to(folder)  # relative paths are in it, too
        prefix = "" if is_around else f"{folder}/"
        rows = self._ledger.rows(query, n=len(prefix), prefix=prefix)
        return [r for r in rows if not is_around or (self._base / r[0]).is_relative_to(folder)]


class RecordedSteps(Struct, frozen=True):
    _ledger: Ledger
    _items: RecordedItems

    def of(self, item: RecordedItem, earlier_run: str | None = None) -> list[LineageStep]:
        """Return the steps of an item with their calls, in the order of running.

        1. Those of its lineage; behind one that runs a pipeline, what that did.
        2. It has none, since it was interrupted, or none of an earlier run is kept: the calls that
           the ledger still has, as one step.
        """
        owner, steps = item.owner, list[LineageStep]()
        if item.lineage is None or earlier_run is not None:  # 2
            hashes = LineageStore(self._ledger).calls_of(owner.scope_id, "/".join(item.keys))
            kept = filter(None, [self._ledger.call(hash_, is_whole=True) for hash_ in hashes])
            calls = [_kept_call(c, c.run, None) for c in kept if earlier_run in (None, c.run)]
            return [LineageStep(owner.step, calls=tuple(calls))] if calls else []
        for step in read_lineage(item.lineage).steps:  # 1
            reply = item.spec.get("steps", {}).get(step.id, {}).get("reply")
            check = reply.get("check") if isinstance(reply, dict) else None
            checks = (check,) if isinstance(check, str) else tuple(map(str, check or ()))
            named = f"{owner.prefix}{step.id}", step.uses, step.model, step.seconds
            calls = [self._call(call, item.run) for call in step.calls]
            steps.append(LineageStep(*named, checks, tuple(calls)))
            for inner in self._items.items_within(owner, step.id, item.keys):
                steps += self.of(inner)
        return steps

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
    try:
        request = json.loads(kept.request)
    except ValueError:  # a secret that was removed may have stood in its syntax
        request = {"request": kept.request}
    reply = "" if kept.kind == "embed" else kept.reply.decode("utf-8", "replace")
    return LineageCall(
        hash=kept.hash, kind=kept.kind, model=kept.model, digest=kept.digest,
        served_digest=kept.served_digest, is_known=is_known, at=at, seconds=seconds, run=run,
        request=request, reply=reply, done_reason=kept.done_reason,
        usage=kept.usage.get("usage", {}),
    )  # fmt: skip
