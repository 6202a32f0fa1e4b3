"""Explain where an output came from, and what changed since, for `paddock why`.

Reads ledgers and runs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import PipelineError
from paddock.runner.core.calls import model_pools
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.rule_sources import are_unchanged
from paddock.runner.core.traces.dependencies import FileRead, World, current_paths, dependencies_of
from paddock.runner.folders.state_folders import find_ledgers, ledgers_around
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.filed_store import FiledStore
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.review_store import ReviewStore
from paddock.runner.ledger.run_history import LedgerFolder, open_for_reading
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Reason, Why, quoted
from paddock.runner.review.answer_records import review_outcome, reviews_of_item
from paddock.runner.settings import read_settings
from paddock.steps.vectors.open_stores import OpenStores

from .dependency_changes import changes_by_same_rule, is_covered
from .path_lineage import DocumentUse, FileState, LineageChange, LineageFile, Origin, PathLineage
from .pipeline_now import PipelineNow
from .recorded_items import RecordedItem, RecordedItems

_WATCHED_TOOLS = {"calculator", "files.read"}
"""Tools that read nothing, or only files that are recorded."""


def explain_path(path: Path, given: Sequence[Path] = ()) -> PathLineage:
    """Return where a file, a folder's files or a vector store's rows came from.

    `given` are pipelines or folders; by default the ledgers around the path and the current folder
    are searched, then those below it.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link itself may be the output
    faults, near, same = list[str](), list[str](), list[str]()
    for place in _ledgers_around(path, given, faults.append):
        try:
            with open_for_reading(place) as ledger:
                answer = asyncio.run(_PathInLedger(ledger, place.folder.resolve(), path).answer())
                if answer.is_known:
                    return answer
                near += answer.near
                same += answer.same_as
        except LedgerError as error:
            faults.append(str(error))
    near, same, faults = (list(dict.fromkeys(found)) for found in (near, same, faults))
    return PathLineage(str(path), near=tuple(near), same_as=tuple(same), faults=tuple(faults))


def _ledgers_around(
    path: Path, given: Sequence[Path], note: Callable[[str], None]
) -> Iterator[LedgerFolder]:
    around = [] if given else ledgers_around([path, Path.cwd()], note)
    yield from around
    below = find_ledgers(given or [Path.cwd()], note)
    yield from (place for place in below if place not in around)


def document_now(item: RecordedItem) -> LineageFile | None:
    """Return the document of an item's output, compared with the file now."""
    source = item.document
    if source is None:
        return None
    path = item.base / source.path
    state: FileState = "gone"
    with contextlib.suppress(OSError):
        state = "same" if sha256_of(path) == source.sha256 else "changed"
    return LineageFile(str(path), source.sha256, state)


def files_read_now(item: RecordedItem) -> tuple[LineageFile, ...]:
    """Return the files that an item read, compared with those now."""
    found = []
    for read in dependencies_of(item.entry, FileRead):
        path = str(item.base / read.path)
        state: FileState = "changed" if os.path.lexists(path) else "gone"
        if read.is_at(path, lambda path: sha256_of(Path(path))):
            state = "same"
        found.append(LineageFile(path, read.sha256, state))
    return tuple(found)


class _PathInLedger:
    """What one ledger knows of a path: first what wrote it, then what it is kept in, or read by."""

    def __init__(self, ledger: Ledger, base: Path, path: Path) -> None:
        self._ledger = ledger
        self._path = path
        self._items = RecordedItems(ledger, base)
        self._filed = FiledStore(ledger)
        self._index = OutputIndex(ledger, base, set())
        self._settings = read_settings(base)
        models = RunModels(model_pools.LookupPool(self._settings).facts)
        self._world = World(self._index, OpenStores(base), models)
        self._pipelines: dict[str, PipelineNow | Reason] = {}
        """By file and inputs of a run; a reason: why nothing is known of it now."""
        self._are_unchanged: dict[str, bool] = {}
        """By run, whether its rules are made of the same now."""

    async def answer(self) -> PathLineage:
        """Return what the path is.

        1. A file that an item wrote: its origin.
        2. A vector store, or within one: the origins of its items.
        3. A folder: the origins of its files.
        4. A document, or a folder of them: what read it, also where it went since.
        5. Unknown: outputs with a similar name, or the same content as before a rename.
        """
        try:  # as the ledger stores it: with its real folder
            real = self._path.parent.resolve() / self._path.name
        except (OSError, RuntimeError):
            real = self._path
        stored, is_folder = self._index.stored(real), self._path.is_dir()
        came_from = self._filed.came_from(stored)
        item = self._items.writer_of(stored)
        if item is not None and not came_from:  # 1
            return PathLineage(str(self._path), (await self._origin(item),))
        items, n_more = self._items.items_in(self._items.store_around(stored) or stored)  # 2
        if not items and is_folder:
            items, n_more = self._items.writers_below(stored)  # 3
        if items:
            origins = tuple([await self._origin(item) for item in items])
            return PathLineage(str(self._path), origins, n_more=n_more)
        readers, n_more = self._items.readers_of((stored, *came_from))  # 4
        if not readers and is_folder:
            readers, n_more = self._items.readers_below(stored)
        same: Sequence[str] = ()
        with contextlib.suppress(OSError):
            if not readers and self._path.is_file():
                content = sha256_of(self._path)
                filed = self._filed.of_content(content)  # and were moved on since
                places = {(scope, key) for scope, key, _ in filed}
                paths = dict.fromkeys(path for _, _, path in filed)
                readers, n_more = self._items.readers_of(paths, among=places)
                same = self._items.same_as(content)
        if readers:
            uses = tuple(map(self._use, readers))
            return PathLineage(str(self._path), read_by=uses, n_more=n_more)
        near, same_as = (map(self._index.absolute, p) for p in (self._items.near(stored), same))
        return PathLineage(str(self._path), near=tuple(near), same_as=tuple(same_as))  # 5

    async def _origin(self, item: RecordedItem) -> Origin:
        """Return where an item's output comes from, and what changed since.

        A step that only writes what steps before it answered is explained by these.
        """
        entry, owner, absolute = item.entry, item.owner, self._index.absolute
        steps, others = [*self._items.steps(item)], list[RecordedItem]()
        if not any(step.calls for step in steps):
            found = (self._items.read_step(owner, name) for name in item.read_steps)
            others = [other for other in found if other is not None]
            steps += [step for other in others for step in self._items.steps(other)]
        calls = [call for step in steps for call in step.calls if call.kind == "tool"]
        tools = {call.model or "run" for call in calls} - _WATCHED_TOOLS
        pipeline = await self._pipeline(item)
        notes = [*pipeline.notes(item)] if isinstance(pipeline, PipelineNow) else []
        if tools:
            notes.append(Why.TOOLS_UNCHECKED(", ".join(quoted(sorted(tools)))))
        if item.n_rows is None:
            condition = self._index.condition(owner.scope, item.path)
        else:
            condition = "same" if self._path.exists() else "missing"
        source, reads = document_now(item), files_read_now(item)
        return Origin(
            path=absolute(item.path),
            pipeline=item.base / owner.file,
            step=owner.step,
            key=item.shown_key,
            run=item.run,
            at=item.at,
            state=ItemState.DONE if entry is None else entry.state,
            error=None if entry is None else entry.error,
            condition=condition,
            source=source,
            reads=reads,
            looked_in=item.searched_paths,
            kept_in=item.containing_stores,
            steps=tuple(steps),
            made_of=item.read_steps,
            outputs=tuple(map(absolute, item.outputs)),
            changes=tuple(dict.fromkeys(await self._changes(item, others, source, reads))),
            notes=tuple(map(str, notes)),
            n_rows=item.n_rows,
            reviewed=reviews_of_item(self._ledger, owner.scope, item.key),
        )

    async def _changes(
        self,
        item: RecordedItem,
        others: Sequence[RecordedItem],
        source: LineageFile | None,
        reads: Sequence[LineageFile],
    ) -> list[LineageChange]:
        """Return what changed since an item was done, as were `others` that explain it.

        1. What became of its document, and of the output itself.
        2. What it read, its rule, and what else it depended on; the same of the others.
        3. What of the steps before it is not up to date, by a plan.
        """
        pipeline = await self._pipeline(item)
        changes: list[LineageChange] = []  # 1
        if source is not None and source.state != "same":
            why = Why.DOCUMENT_CHANGED if source.state == "changed" else Why.DOCUMENT_GONE
            changes.append(LineageChange(why(self._index.stored(source.path))))
        outdated = None if item.is_current else _no_output(item)
        if item.is_current and isinstance(pipeline, PipelineNow):
            outdated = await pipeline.outdated(item)
        if outdated is not None:
            changes.append(LineageChange(outdated))
        explaining = ((other, f"'{other.key}'", files_read_now(other)) for other in others)
        for verified, subject, files in ((item, "it", reads), *explaining):  # 2
            for read in files:
                if read.state != "same":
                    why = Why.READ_CHANGED if read.state == "changed" else Why.READ_GONE
                    changes.append(LineageChange(why(subject, self._index.stored(read.path))))
            rule = await self._pipeline(verified)
            if rule is None:
                changes += await changes_by_same_rule(verified, self._world, subject)
            elif isinstance(rule, Reason):
                changes.append(LineageChange(rule))
            else:
                changes += await rule.changes(verified, subject)
            for step in verified.read_steps:
                if n_newer := self._items.newer(verified.owner, step, verified.at):
                    newer = Why.NEWER_RESULTS(step, n_newer)
                    changes.append(LineageChange(newer if n_newer > 1 else Why.NEWER_RESULT(step)))
        if isinstance(pipeline, PipelineNow):  # 3
            explained, has_changes = {i.owner.step for i in (item, *others)}, bool(changes)
            changes += await pipeline.changes_before(item, explained, has_changes=has_changes)
        return changes

    async def _pipeline(self, item: RecordedItem) -> PipelineNow | Reason | None:
        """Return an item's pipeline as it is now, with the inputs of the item's run.

        1. It was deleted, or the item's is not known: a reason.
        2. The item's rule is made of the same as in the run that did it: None, nothing is bound.
        3. It is invalid: a reason.
        4. It is bound, once for each file and inputs.
        """
        name, run = item.owner.file, self._ledger.run(item.run)
        file = item.base / name
        if not name or not file.exists():  # 1
            return Why.PIPELINE_GONE(name)
        sources = None if run is None else json.loads(run.summary or "{}").get("rules")
        is_of_entry = item.entry is not None and item.entry.run == item.run
        if sources and is_of_entry and is_covered(item, sources):  # 2
            if item.run not in self._are_unchanged:
                are_same = await are_unchanged(sources, self._world, self._settings)
                self._are_unchanged[item.run] = are_same
            if self._are_unchanged[item.run]:
                return None
        recorded = json.loads(run.given) if run is not None and run.given else {}
        id_ = canonical_json([name, recorded])
        if id_ not in self._pipelines:
            own_scopes = self._ledger.scopes_of(name)
            index = OutputIndex(self._ledger, self._index.base, own_scopes)
            world = World(index, self._world.stores, self._world.models)
            try:
                self._pipelines[id_] = PipelineNow(world, self._settings, file, recorded)  # 4
            except PipelineError as error:
                self._pipelines[id_] = Why.PIPELINE_INVALID(error.faults[0].message)  # 3
        return self._pipelines[id_]

    def _use(self, item: RecordedItem) -> DocumentUse:
        """Return what an item made of a document."""
        entry, owner = item.entry, item.owner
        notes = [f"{entry.state}: {entry.error}"] if entry is not None and entry.error else []
        if entry is not None and entry.is_filed:
            notes.append(" at ".join(["filed", *self._filed.targets(owner.scope, item.key)]))
        reviews = ReviewStore(self._ledger).of_scope(owner.scope, [item.key])
        notes += [f"'{step}' {review_outcome(head)}" for (_, step), head in sorted(reviews.items())]
        stores = (f"rows in {self._index.stored(path)}" for path in item.containing_stores)
        return DocumentUse(item.shown_key, owner.step, tuple(notes), (*item.outputs, *stores))


def _no_output(item: RecordedItem) -> Reason:
    """Return why a path is no output of its item as it was done last."""
    entry = item.entry
    if entry is None:
        return Why.WRITTEN_NO_MORE()
    if entry.state == ItemState.WAITING:
        return Why.EARLIER_ANSWER(entry.run)
    if entry.state == ItemState.FAILED:
        return Why.EARLIER_TRY(entry.run)
    if entry.state in (ItemState.SKIPPED, ItemState.QUARANTINED):
        return Why.ITEM_ENDED(entry.run, entry.state)
    paths = [] if item.n_rows is not None else sorted(current_paths(entry))
    if not paths:
        return Why.ITEM_WRITES_NOTHING(entry.run)
    return Why.ITEM_WRITES(entry.run, ", ".join(paths))
