"""Explain where an output came from, and what changed since, for `paddock why`.

Reads ledgers and runs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system.records import replace
from paddock.engine.system.text import is_utf8, listed
from paddock.engine.system.units import iso_time
from paddock.runner.config.setting_specs import SettingsError
from paddock.runner.core.calls import model_pools
from paddock.runner.core.calls.run_models import RunModels
from paddock.runner.core.outputs.vector_rows import database_tables
from paddock.runner.core.run_records import ItemSource
from paddock.runner.core.traces.dependencies import (
    FileRead,
    OutputWithin,
    UsedRules,
    dependencies_of,
)
from paddock.runner.core.traces.scopes import ItemKey
from paddock.runner.core.traces.world import World
from paddock.runner.folders.state_folders import find_ledgers, ledgers_around
from paddock.runner.ledger.entries import Entry, LedgerError
from paddock.runner.ledger.filed_store import FiledStore
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.output_conditions import FileCondition, condition_of
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.run_history import LedgerFolder, open_for_reading
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Reason, Why, quoted
from paddock.runner.review.answer_records import review_outcome, reviews_of_item
from paddock.runner.settings import read_settings
from paddock.steps.vectors.open_stores import OpenStores

from .change_wording import no_longer_written
from .current_pipelines import CurrentPipelines
from .path_lineage import FileState, LineageChange, LineageFile, LineageStep, Origin, PathLineage
from .recorded_items import ItemOutput, RecordedItem, RecordedItems, RecordedSteps, WrittenPath

if TYPE_CHECKING:
    from .bound_pipeline import RecordedPipeline

MAX_ORIGINS = 20
"""Of a folder, a store or a document; the rest are counted."""


def explain_path(path: Path, places: Sequence[Path] = ()) -> PathLineage:
    """Return where a file, a folder's files or a vector store's rows came from.

    The ledgers beside these pipelines, or below these folders, are asked; by default those around
    the path and the current folder, then those below it. A link that no ledger knows stands for
    what it leads to.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link itself may be the output
    faults, near, same = list[str](), list[str](), list[str]()
    # No ledger has a name that is not UTF-8.
    ledgers = _ledgers_around(path, places, faults.append) if is_utf8(str(path)) else ()
    for place in ledgers:
        try:
            with open_for_reading(place) as ledger:
                (answer,) = explain_in(ledger, place.folder.resolve(), [path])
        except (LedgerError, SettingsError) as error:
            faults.append(str(error))
            continue
        if answer.is_known:
            return replace(answer, faults=tuple(dict.fromkeys(faults)))
        near += answer.near
        same += answer.same_as
    if path.is_symlink() and not (target := Path(os.path.realpath(path))).is_symlink():
        return explain_path(target, places)
    near, same, faults = (list(dict.fromkeys(found)) for found in (near, same, faults))
    return PathLineage(str(path), near=tuple(near), same_as=tuple(same), faults=tuple(faults))


def explain_in(ledger: Ledger, base: Path, paths: Iterable[Path]) -> list[PathLineage]:
    """Return the lineage of absolute paths by one ledger; `base`: the folder of its pipelines."""
    with asyncio.Runner() as runner:
        known = _PathsInLedger(ledger, base, runner)
        return [known.answer(path) for path in paths]


def _ledgers_around(
    path: Path, places: Sequence[Path], note: Callable[[str], None]
) -> Iterator[LedgerFolder]:
    around = [] if places else ledgers_around([path, Path.cwd()], note)
    yield from around
    below = find_ledgers(places or [Path.cwd()], note)
    yield from (place for place in below if place not in around)


class _PathsInLedger:
    def __init__(self, ledger: Ledger, base: Path, runner: asyncio.Runner) -> None:
        self._ledger, self._runner = ledger, runner
        self._items = RecordedItems(ledger, base)
        self._steps = RecordedSteps(ledger, self._items)
        self._filed = FiledStore(ledger)
        self._index = OutputIndex(ledger, base, set())
        settings = read_settings(base)
        models = RunModels(model_pools.LookupPool(settings).facts)
        stores = OpenStores(base)
        self._world = World(self._index, stores, database_tables(self._index), models)
        self._pipelines = CurrentPipelines(self._world, settings)

    def answer(self, path: Path) -> PathLineage:
        """Return the lineage of a path.

        1. A file that an item wrote, where no document was moved to since: its origin.
        2. A vector store, or within one: the origins of its items.
        3. A folder of outputs: the origins of its files.
        4. A document, here or where it was before it was moved here: what read it.
        5. A folder of documents, or of those that were moved there: what read them.
        6. A document that was moved on since, known by its content: what read it.
        7. Unknown: outputs with a similar name, or the same content as before a rename.
        """
        items, filed, is_folder = self._items, self._filed, path.is_dir()
        try:  # as the ledger stores it: with its real folder
            stored = self._index.stored(path.parent.resolve() / path.name)
        except (OSError, RuntimeError):
            stored = self._index.stored(path)
        written = items.written_at(stored)
        if written is not None and not filed.came_from(stored, since=written.at):  # 1
            return self._written(path, [written])
        if rows := items.kept_in(stored):  # 2
            return self._written(path, rows)
        if is_folder and (files := items.written_below(stored)):  # 3
            return self._written(path, files)
        if readers := items.readers_of([stored, *filed.came_from(stored)]):  # 4
            return self._read(path, readers)
        if is_folder:  # 5
            moved = filed.came_from_below(f"{stored}/")
            if readers := items.documents_below(stored) or items.readers_of(moved):
                return self._read(path, readers)
        same_as: Sequence[str] = ()
        if path.is_file():
            with contextlib.suppress(OSError):
                content = self._world.digest(str(path))
                if readers := filed.of_content(content):  # 6
                    return self._read(path, readers)
                same_as = items.same_as(content)
        near, same = (map(self._index.absolute, p) for p in (items.near(stored), same_as))
        return PathLineage(str(path), near=tuple(near), same_as=tuple(same))  # 7

    def _written(self, path: Path, written: Sequence[WrittenPath]) -> PathLineage:
        outputs = map(self._items.output, written[:MAX_ORIGINS])
        origins = tuple(self._runner.run(self._origin(output)) for output in outputs)
        return PathLineage(str(path), origins, n_more=len(written[MAX_ORIGINS:]))

    def _read(self, path: Path, readers: Sequence[ItemKey]) -> PathLineage:
        uses = tuple(
            self._use_in_words(self._items.item(*reader)) for reader in readers[:MAX_ORIGINS]
        )
        return PathLineage(str(path), read_by=uses, n_more=len(readers[MAX_ORIGINS:]))

    async def _origin(self, output: ItemOutput) -> Origin:
        item, written, absolute = output.item, output.written, self._index.absolute
        owner, entry = item.owner, item.entry
        steps, others = self._explaining_steps(output)
        source, reads = files_now(item, self._index.base, self._world.digest)
        if not output.is_current:  # it was made of another one, or of another content
            source = None
        pipeline = self._pipelines.of(item)
        bound = None if isinstance(pipeline, Reason) else pipeline
        notes = [] if bound is None else [*bound.notes(item)]
        if tools := _untraced_tools(steps):
            notes.append(Why.TOOLS_UNCHECKED(quoted(tools)))
        changes = await self._changes(output, others, bound, source)
        return Origin(
            path=absolute(written.path),
            pipeline=self._index.base / owner.file,
            step=owner.step,
            key=item.shown_key,
            item=str(item),
            run=written.run,
            at=written.at,
            state=ItemState.DONE if entry is None else entry.state,
            error=None if entry is None else entry.error,
            condition=self._condition(output),
            source=source,
            reads=reads,
            looked_in=tuple(map(absolute, item.looked_in)),
            kept_in=tuple(map(absolute, item.kept_in)),
            steps=tuple(steps),
            made_of=item.made_of,
            outputs=tuple(map(absolute, item.outputs)),
            changes=tuple(dict.fromkeys(changes)),
            notes=tuple(map(str, notes)),
            n_rows=written.n_rows,
            reviewed=reviews_of_item(self._ledger, owner.scope_id, item.key),
            read_by_rules=dict(self._read_by_rules(entry)),
        )

    def _read_by_rules(self, entry: Entry | None) -> Iterator[tuple[str, str]]:
        store = ReviewStore(self._ledger)
        for used in dependencies_of(entry, UsedRules):
            for name, reading in used.field_readings().items():
                if not reading.decision:
                    yield name, "as its e-invoice states it"
                    continue
                how = f"read behind '{reading.label}'" if reading.label else "the same in each"
                review = store.get(reading.decision)
                review = review and review.standing
                on = "" if review is None else f" on {iso_time(review.decided_at or 0)[:10]}"
                yield name, f"{how}, as decided{on} ({reading.decision})"

    def _explaining_steps(self, output: ItemOutput) -> tuple[list[LineageStep], list[RecordedItem]]:
        """Return the steps that explain an output, and the other items that some of them are of.

        An item that only writes what steps before it answered is explained by these.
        """
        item, others = output.item, list[RecordedItem]()
        steps = self._steps.of(item, None if output.is_current else output.written.run)
        if not any(step.calls for step in steps):
            for name in item.made_of:
                others += self._items.steps_read(item.owner, name)
            steps += chain.from_iterable(map(self._steps.of, others))
        return steps, others

    def _condition(self, output: ItemOutput) -> FileCondition:
        written = output.written
        if written.n_rows is None:
            return condition_of(self._index, output.item.owner.scope_id, written.path)
        return "same" if Path(self._index.absolute(written.path)).exists() else "missing"

    async def _changes(
        self,
        output: ItemOutput,
        others: Sequence[RecordedItem],
        pipeline: RecordedPipeline | None,
        source: LineageFile | None,
    ) -> list[LineageChange]:
        """Return the changes since an output, and `others` that explain it, were made.

        1. What became of its document.
        2. Why it is no output of its item any more, by the ledger.
        3. What changed of the item's rule and of what it depended on, and which steps that it read
           have newer results; the same of the others.
        4. What a plan says besides.
        """
        item, changes = output.item, list[LineageChange]()
        if source is not None and source.state != "same":  # 1
            why = Why.DOCUMENT_CHANGED if source.state == "changed" else Why.DOCUMENT_GONE
            changes.append(LineageChange(why(self._index.stored(source.path))))
        if not output.is_current:  # 2
            changes.append(no_longer_written(output))
        for done in (item, *others):  # 3
            name = done.owner.step.removeprefix(item.owner.prefix)
            subject = "it" if done is item else f"'{name}'"
            changes += await self._pipelines.changes(done, subject)
            for step in done.made_of:
                if n_newer := self._items.count_newer(done.owner, step, done.at):
                    newer = Why.NEWER_RESULTS(step, n_newer)
                    changes.append(LineageChange(newer if n_newer > 1 else Why.NEWER_RESULT(step)))
        explained = {done.owner.step for done in (item, *others)}
        if pipeline is not None:  # 4
            changes += await pipeline.changes_by_plan(output, explained, has_changed=bool(changes))
        return changes

    def _use_in_words(self, item: RecordedItem) -> str:
        entry, scope_id = item.entry, item.owner.scope_id
        facts = [str(item)]
        if entry is not None and entry.error:
            facts.append(f"{entry.state}: {entry.error}")
        if entry is not None and entry.is_filed:
            facts.append(" at ".join(["filed", *self._filed.targets(scope_id, item.key)]))
        reviews = ReviewStore(self._ledger).of_scope(scope_id, [item.key])
        facts += [f"'{step}' {review_outcome(head)}" for (_, step), head in sorted(reviews.items())]
        within = (output.path for output in dependencies_of(entry, OutputWithin))
        stores = [f"rows in {path}" for path in item.kept_in]
        outputs = listed([*item.outputs, *within, *stores], MAX_ORIGINS)
        return ", ".join(facts) + (f" → {outputs}" if outputs else "")


def _untraced_tools(steps: Sequence[LineageStep]) -> list[str]:
    names = {call.model or "run" for step in steps for call in step.calls if call.kind == "tool"}
    if names:
        from paddock.steps.tools.builtin_tools import BUILT_IN_FUNCTIONS  # 4 modules that few need

        names -= {name for name, tool in BUILT_IN_FUNCTIONS.items() if tool.is_traced}
    return sorted(names)


def files_now(
    item: RecordedItem, base: Path, digest: Callable[[str], str]
) -> tuple[LineageFile | None, tuple[LineageFile, ...]]:
    def now(file: ItemSource | FileRead) -> LineageFile:
        path = str(base / file.path)
        state: FileState = "changed" if os.path.lexists(path) else "gone"
        with contextlib.suppress(OSError):
            state = "same" if digest(path) == file.sha256 else state
        return LineageFile(path, file.sha256, state)

    source, reads = item.source, dependencies_of(item.entry, FileRead)
    return None if source is None else now(source), tuple(map(now, reads))
