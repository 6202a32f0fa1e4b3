"""Explain where an output came from, and what changed since, for `paddock why`.

Reads ledgers and runs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from paddock.engine.system.files import sha256_of
from paddock.runner.core.calls import model_pools
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.traces.world import World
from paddock.runner.folders.state_folders import find_ledgers, ledgers_around
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.filed_store import FiledStore
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.run_history import LedgerFolder, open_for_reading
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Why, quoted
from paddock.runner.review.answer_records import review_outcome, reviews_of_item
from paddock.runner.settings import read_settings
from paddock.steps.vectors.open_stores import OpenStores

from .changes_since import document_changes, document_now, files_read_now, no_longer_written
from .path_lineage import DocumentUse, LineageChange, LineageFile, Origin, PathLineage
from .pipeline_now import CurrentPipelines, PipelineNow
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


class _PathInLedger:
    """What one ledger knows of a path: first what wrote it, then what it is kept in, or read by."""

    def __init__(self, ledger: Ledger, base: Path, path: Path) -> None:
        self._ledger = ledger
        self._path = path
        self._items = RecordedItems(ledger, base)
        self._filed = FiledStore(ledger)
        self._index = OutputIndex(ledger, base, set())
        settings = read_settings(base)
        models = RunModels(model_pools.LookupPool(settings).facts)
        self._pipelines = CurrentPipelines(World(self._index, OpenStores(base), models), settings)

    async def answer(self) -> PathLineage:
        """Return what the path is.

        1. A file that an item wrote, and no document that was moved there: its origin.
        2. A vector store, or within one: the origins of its items.
        3. A folder of outputs: the origins of its files.
        4. A document, here or where it was before it was moved here: what read it.
        5. A folder of documents: what read them.
        6. A document that was moved on since, known by its content: what read it.
        7. Unknown: outputs with a similar name, or the same content as before a rename.
        """
        try:  # as the ledger stores it: with its real folder
            real = self._path.parent.resolve() / self._path.name
        except (OSError, RuntimeError):
            real = self._path
        path, is_folder = self._index.stored(real), self._path.is_dir()
        writer, moved_from = self._items.writer_of(path), self._filed.came_from(path)
        if writer is not None and not moved_from:  # 1
            return PathLineage(str(self._path), (await self._origin(writer),))
        items, n_more = self._items.items_in(self._items.store_around(path) or path)  # 2
        if not items and is_folder:
            items, n_more = self._items.writers_below(path)  # 3
        if items:
            origins = tuple([await self._origin(item) for item in items])
            return PathLineage(str(self._path), origins, n_more=n_more)
        readers, n_more = self._items.readers_of((path, *moved_from))  # 4
        if not readers and is_folder:
            readers, n_more = self._items.readers_below(path)  # 5
        same_as: Sequence[str] = ()
        with contextlib.suppress(OSError):
            if not readers and self._path.is_file():
                content = sha256_of(self._path)
                filed = self._filed.of_content(content)
                paths, among = dict.fromkeys(row[2] for row in filed), {row[:2] for row in filed}
                readers, n_more = self._items.readers_of(paths, among)  # 6
                same_as = self._items.same_as(content)
        if readers:
            uses = tuple(map(self._use, readers))
            return PathLineage(str(self._path), read_by=uses, n_more=n_more)
        near, same = (map(self._index.absolute, p) for p in (self._items.near(path), same_as))
        return PathLineage(str(self._path), near=tuple(near), same_as=tuple(same))  # 7

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
        pipeline = await self._pipelines.of(item)
        notes = [*pipeline.notes(item)]
        if tools:
            notes.append(Why.TOOLS_UNCHECKED(", ".join(quoted(sorted(tools)))))
        if item.n_rows is None:
            condition = self._index.condition(owner.scope_id, item.path)
        else:
            condition = "same" if os.path.exists(absolute(item.path)) else "missing"  # noqa: ASYNC240, PTH110
        document = document_now(item)
        changes = await self._changes(item, others, pipeline, document)
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
            document=document,
            reads=files_read_now(item),
            searched_paths=item.searched_paths,
            containing_stores=item.containing_stores,
            steps=tuple(steps),
            read_steps=item.read_steps,
            outputs=tuple(map(absolute, item.outputs)),
            changes=tuple(dict.fromkeys(changes)),
            notes=tuple(map(str, notes)),
            n_rows=item.n_rows,
            reviewed=reviews_of_item(self._ledger, owner.scope_id, item.key),
        )

    async def _changes(
        self,
        item: RecordedItem,
        others: Sequence[RecordedItem],
        pipeline: PipelineNow,
        document: LineageFile | None,
    ) -> list[LineageChange]:
        """Return what changed since an item was done, as were `others` that explain it.

        1. What became of its document.
        2. Why the path is no longer an output of it: by the ledger, else by a plan.
        3. What changed of its rule and of what it depended on, and which steps that it read have
           newer results; the same of the others.
        4. Which nodes before it have work to do, by a plan.
        5. Where nothing of that is found: why a run would do it again, by a plan.
        """
        changes = document_changes(document, self._index)  # 1
        if item.is_current:  # 2
            changes += await pipeline.why_no_longer_applies(item)
        else:
            changes.append(no_longer_written(item))
        for done, subject in ((item, "it"), *((other, f"'{other.key}'") for other in others)):  # 3
            changes += await (await self._pipelines.of(done)).changes(done, subject)
            for step in done.read_steps:
                if n_newer := self._items.newer(done.owner, step, done.at):
                    newer = Why.NEWER_RESULTS(step, n_newer)
                    changes.append(LineageChange(newer if n_newer > 1 else Why.NEWER_RESULT(step)))
        explained = {done.owner.step for done in (item, *others)}
        changes += await pipeline.changes_before(item, explained)  # 4
        return changes or await pipeline.changes_by_plan(item)  # 5

    def _use(self, item: RecordedItem) -> DocumentUse:
        """Return what an item made of a document."""
        entry, owner = item.entry, item.owner
        notes = [f"{entry.state}: {entry.error}"] if entry is not None and entry.error else []
        if entry is not None and entry.is_filed:
            notes.append(" at ".join(["filed", *self._filed.targets(owner.scope_id, item.key)]))
        reviews = ReviewStore(self._ledger).of_scope(owner.scope_id, [item.key])
        notes += [f"'{step}' {review_outcome(head)}" for (_, step), head in sorted(reviews.items())]
        stores = (f"rows in {self._index.stored(path)}" for path in item.containing_stores)
        return DocumentUse(item.shown_key, owner.step, tuple(notes), (*item.outputs, *stores))
