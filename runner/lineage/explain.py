"""Explain where an output came from, and what changed since, for `paddock why`.

Reads ledgers and runs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from paddock.engine.system.text import is_utf8, listed
from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.core.calls import model_pools
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.run_records import ItemSource
from paddock.runner.core.traces.dependencies import FileRead, OutputWithin, dependencies_of
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

from .change_wording import no_longer_written
from .path_lineage import FileState, LineageChange, LineageFile, LineageStep, Origin, PathLineage
from .pipeline_now import CurrentPipelines, PipelineNow
from .recorded_items import MAX_ORIGINS, ItemOutput, RecordedItem, RecordedItems


def explain_path(path: Path, given: Sequence[Path] = ()) -> PathLineage:
    """Return where a file, a folder's files or a vector store's rows came from.

    `given` are pipelines or folders; by default the ledgers around the path and the current folder
    are searched, then those below it. A link that no ledger knows stands for what it leads to.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link itself may be the output
    faults, near, same = list[str](), list[str](), list[str]()
    # No ledger has a name that is not UTF-8.
    places = _ledgers_around(path, given, faults.append) if is_utf8(str(path)) else ()
    for place in places:
        try:
            with open_for_reading(place) as ledger:
                answer = asyncio.run(_PathInLedger(ledger, place.folder.resolve(), path).answer())
                if answer.is_known:
                    return answer
                near += answer.near
                same += answer.same_as
        except (LedgerError, SettingsError) as error:
            faults.append(str(error))
    if path.is_symlink() and not (target := Path(os.path.realpath(path))).is_symlink():
        return explain_path(target, given)
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
        self._world = World(self._index, OpenStores(base), models)
        self._pipelines = CurrentPipelines(self._world, settings)

    async def answer(self) -> PathLineage:
        """Return what the path is.

        1. A file that an item wrote, and no document that was moved there: its origin.
        2. A vector store, or within one: the origins of its items.
        3. A folder of outputs: the origins of its files.
        4. A document, here or where it was before it was moved here: what read it.
        5. A folder of documents, or of those that were moved there: what read them.
        6. A document that was moved on since, known by its content: what read it.
        7. Unknown: outputs with a similar name, or the same content as before a rename.
        """
        try:  # as the ledger stores it: with its real folder
            real = self._path.parent.resolve() / self._path.name
        except (OSError, RuntimeError):
            real = self._path
        path, is_folder = self._index.stored(real), self._path.is_dir()
        output, moved_from = self._items.output_at(path), self._filed.came_from(path)
        if output is not None and not moved_from:  # 1
            return PathLineage(str(self._path), (await self._origin(output),))
        outputs, n_more = self._items.outputs_in(self._items.store_around(path) or path)  # 2
        if not outputs and is_folder:
            outputs, n_more = self._items.outputs_below(path)  # 3
        if outputs:
            origins = tuple([await self._origin(output) for output in outputs])
            return PathLineage(str(self._path), origins, n_more=n_more)
        readers, n_more = self._items.readers_of((path, *moved_from))  # 4
        if not readers and is_folder:
            readers, n_more = self._items.readers_below(path)  # 5
            if not readers:
                readers, n_more = self._items.readers_of(self._filed.came_from_below(f"{path}/"))
        same_as: Sequence[str] = ()
        with contextlib.suppress(OSError):
            if not readers and self._path.is_file():
                content = self._world.digest(str(self._path))
                filed = self._filed.of_content(content)
                paths, among = dict.fromkeys(row[2] for row in filed), {row[:2] for row in filed}
                readers, n_more = self._items.readers_of(paths, among)  # 6
                same_as = self._items.same_as(content)
        if readers:
            uses = tuple(map(self._use, readers))
            return PathLineage(str(self._path), read_by=uses, n_more=n_more)
        near, same = (map(self._index.absolute, p) for p in (self._items.near(path), same_as))
        return PathLineage(str(self._path), near=tuple(near), same_as=tuple(same))  # 7

    async def _origin(self, output: ItemOutput) -> Origin:
        """Return where an output comes from, and what changed since.

        A step that only writes what steps before it answered is explained by these.
        """
        item, absolute = output.item, self._index.absolute
        owner, entry = item.owner, item.entry
        steps = self._items.steps(item, None if output.is_current else output.run)
        others = list[RecordedItem]()
        if not any(step.calls for step in steps):
            for name in item.read_steps:
                others += self._items.steps_read(owner, name)
            steps += chain.from_iterable(map(self._items.steps, others))
        document, reads = files_now(item, self._world.digest)
        if not output.is_current:  # it was made of another one, or of another content
            document = None
        if output.n_rows is None:
            condition = self._index.condition(owner.scope_id, output.path)
        else:
            condition = "same" if os.path.exists(absolute(output.path)) else "missing"  # noqa: ASYNC240, PTH110
        pipeline = await self._pipelines.of(item)
        notes = [*pipeline.notes(item)]
        if tools := _untraced_tools(steps):
            notes.append(Why.TOOLS_UNCHECKED(quoted(tools)))
        changes = await self._changes(output, others, pipeline, document)
        return Origin(
            path=absolute(output.path),
            pipeline=item.base / owner.file,
            step=owner.step,
            key=item.shown_key,
            item=str(item),
            run=output.run,
            at=output.at,
            state=ItemState.DONE if entry is None else entry.state,
            error=None if entry is None else entry.error,
            condition=condition,
            document=document,
            reads=reads,
            searched_paths=item.searched_paths,
            containing_stores=item.containing_stores,
            steps=tuple(steps),
            read_steps=item.read_steps,
            outputs=tuple(map(absolute, item.outputs)),
            changes=tuple(dict.fromkeys(changes)),
            notes=tuple(map(str, notes)),
            n_rows=output.n_rows,
            reviewed=reviews_of_item(self._ledger, owner.scope_id, item.key),
        )

    async def _changes(
        self,
        output: ItemOutput,
        others: Sequence[RecordedItem],
        pipeline: PipelineNow,
        document: LineageFile | None,
    ) -> list[LineageChange]:
        """Return what changed since an output was made, as were `others` that explain it.

        1. What became of its document.
        2. Why it is no output of its item any more, by the ledger.
        3. What changed of the item's rule and of what it depended on, and which steps that it read
           have newer results; the same of the others.
        4. What a plan says besides.
        """
        item, changes = output.item, list[LineageChange]()
        if document is not None and document.state != "same":  # 1
            why = Why.DOCUMENT_CHANGED if document.state == "changed" else Why.DOCUMENT_GONE
            changes.append(LineageChange(why(self._index.stored(document.path))))
        if not output.is_current:  # 2
            changes.append(no_longer_written(output))
        for done in (item, *others):  # 3
            name = done.owner.step.removeprefix(item.owner.prefix)
            subject = "it" if done is item else f"'{name}'"
            changes += await (await self._pipelines.of(done)).changes(done, subject)
            for step in done.read_steps:
                if n_newer := self._items.newer(done.owner, step, done.at):
                    newer = Why.NEWER_RESULTS(step, n_newer)
                    changes.append(LineageChange(newer if n_newer > 1 else Why.NEWER_RESULT(step)))
        explained = {done.owner.step for done in (item, *others)}
        has_changed = bool(changes)
        by_plan = await pipeline.changes_by_plan(output, explained, has_changed=has_changed)  # 4
        return changes + by_plan

    def _use(self, item: RecordedItem) -> str:
        """Return what an item made of a document: how it ended, where that went, who decided."""
        entry, scope_id = item.entry, item.owner.scope_id
        facts = [str(item)]
        if entry is not None and entry.error:
            facts.append(f"{entry.state}: {entry.error}")
        if entry is not None and entry.is_filed:
            facts.append(" at ".join(["filed", *self._filed.targets(scope_id, item.key)]))
        reviews = ReviewStore(self._ledger).of_scope(scope_id, [item.key])
        facts += [f"'{step}' {review_outcome(head)}" for (_, step), head in sorted(reviews.items())]
        within = (output.path for output in dependencies_of(entry, OutputWithin))
        stores = [f"rows in {self._index.stored(path)}" for path in item.containing_stores]
        outputs = listed([*item.outputs, *within, *stores], MAX_ORIGINS)
        return ", ".join(facts) + (f" → {outputs}" if outputs else "")


def _untraced_tools(steps: Sequence[LineageStep]) -> list[str]:
    """Return the tools and commands that were called and may have read what no entry records."""
    names = {call.model or "run" for step in steps for call in step.calls if call.kind == "tool"}
    if names:
        from paddock.steps.tools.builtin_tools import BUILT_IN_FUNCTIONS  # 4 modules that few need

        names -= {name for name, tool in BUILT_IN_FUNCTIONS.items() if tool.is_traced}
    return sorted(names)


def files_now(
    item: RecordedItem, digest: Callable[[str], str]
) -> tuple[LineageFile | None, tuple[LineageFile, ...]]:
    """Return an item's document, and the files that it read, compared with what is there now."""

    def now(file: ItemSource | FileRead) -> LineageFile:
        path = str(item.base / file.path)
        state: FileState = "changed" if os.path.lexists(path) else "gone"
        with contextlib.suppress(OSError):
            state = "same" if digest(path) == file.sha256 else state
        return LineageFile(path, file.sha256, state)

    document, reads = item.document, dependencies_of(item.entry, FileRead)
    return None if document is None else now(document), tuple(map(now, reads))
