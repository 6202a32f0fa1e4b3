"""Explain where an output came from, and what changed since, for `paddock why`.

Reads ledgers and runs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import PipelineError
from paddock.runner.core import model_pools
from paddock.runner.core.dependencies import World, current_paths
from paddock.runner.core.rule_sources import are_unchanged
from paddock.runner.core.run_models import RunModels
from paddock.runner.folders.state_folders import find_ledgers, ledgers_around
from paddock.runner.ledger.entries import LedgerError, RunRow
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

from .path_lineage import DocumentUse, LineageChange, Origin, PathLineage
from .pipeline_now import PipelineNow
from .recorded_items import RecordedItem, RecordedItems
from .rule_now import RuleNow, UnchangedRule

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
                answer = _PathInLedger(ledger, place.folder.resolve(), path).answer()
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
    if given:
        yield from find_ledgers(given, note)
        return
    around = ledgers_around([path, Path.cwd()], note)
    yield from around
    yield from (place for place in find_ledgers([Path.cwd()], note) if place not in around)


class _PathInLedger:
    """What one ledger knows of a path: first what wrote it, then what it is kept in, or read by."""

    def __init__(self, ledger: Ledger, base: Path, path: Path) -> None:
        self._ledger = ledger
        self._path = path
        self._items = RecordedItems(ledger, base)
        self._filed = FiledStore(ledger)
        self._index = OutputIndex(ledger, base, set())
        self._settings = read_settings(base)
        self._rules: dict[str, RuleNow] = {}
        """By the pipeline's file and the inputs of a run."""
        self._unchanged: dict[str, bool] = {}
        """Whether rules are as in a run."""

    def answer(self) -> PathLineage:
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
        item = self._items.written(stored)
        if item is not None and not came_from:  # 1
            return PathLineage(str(self._path), (self._origin(item),))
        items, n_more = self._items.in_store(self._items.store_around(stored) or stored)  # 2
        if not items and is_folder:
            items, n_more = self._items.below(stored)  # 3
        if items:
            return PathLineage(str(self._path), tuple(map(self._origin, items)), n_more=n_more)
        readers, n_more = self._items.readers_of((stored, *came_from))  # 4
        if not readers and is_folder:
            readers, n_more = self._items.made_below(stored)
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

    def _origin(self, item: RecordedItem) -> Origin:
        """Return where an item's output comes from, and what changed since.

        A step that only writes what steps before it answered is explained by these.
        """
        entry, owner, absolute = item.entry, item.owner, self._index.absolute
        steps, others = [*self._items.steps(item)], list[RecordedItem]()
        if not any(step.calls for step in steps):
            found = (self._items.read_step(owner, name) for name in item.made_of)
            others = [other for other in found if other is not None]
            steps += [step for other in others for step in self._items.steps(other)]
        calls = [call for step in steps for call in step.calls if call.kind == "tool"]
        tools = {call.model or "run" for call in calls} - _WATCHED_TOOLS
        notes = [*self._rule(item).notes(item)]
        if tools:
            notes.append(Why.TOOLS_UNCHECKED(", ".join(quoted(sorted(tools)))))
        if item.n_rows is None:
            condition = self._index.condition(owner.scope, item.path)
        else:
            condition = "same" if self._path.exists() else "missing"
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
            source=item.source,
            reads=item.read_files,
            looked_in=item.searched_paths,
            kept_in=item.containing_stores,
            steps=tuple(steps),
            made_of=item.made_of,
            outputs=tuple(map(absolute, item.outputs)),
            changes=tuple(dict.fromkeys(self._changes(item, others))),
            notes=tuple(map(str, notes)),
            n_rows=item.n_rows,
            reviewed=reviews_of_item(self._ledger, owner.scope, item.key),
        )

    def _changes(self, item: RecordedItem, others: Sequence[RecordedItem]) -> list[LineageChange]:
        """Return what changed since an item was done, as were `others` that explain it.

        1. What became of its document, and of the output itself.
        2. Its rule, and what it depended on; the same of the others.
        3. What of the steps before it is not up to date, by a plan.
        """
        rule, source = self._rule(item), item.source
        changes: list[LineageChange] = []  # 1
        if source is not None and source.state != "same":
            why = Why.DOCUMENT_CHANGED if source.state == "changed" else Why.DOCUMENT_GONE
            changes.append(LineageChange(why(self._index.stored(source.path))))
        outdated = rule.outdated(item) if item.is_current else _no_output(item)
        if outdated is not None:
            changes.append(LineageChange(outdated))
        for verified, subject in ((item, "it"), *((o, f"'{o.key}'") for o in others)):  # 2
            for read in verified.read_files:
                if read.state != "same":
                    why = Why.READ_CHANGED if read.state == "changed" else Why.READ_GONE
                    changes.append(LineageChange(why(subject, self._index.stored(read.path))))
            changes += self._rule(verified).changes(verified, subject)
            for step in verified.made_of:
                if n_newer := self._items.newer(verified.owner, step, verified.at):
                    newer = Why.NEWER_RESULTS(step, n_newer)
                    changes.append(LineageChange(newer if n_newer > 1 else Why.NEWER_RESULT(step)))
        explained = {item.owner.step, *(other.owner.step for other in others)}  # 3
        return changes + rule.changes_before(item, explained, has_changes=bool(changes))

    def _rule(self, item: RecordedItem) -> RuleNow:
        """Return what there is now of the rule of an item."""
        file = item.base / item.owner.file
        if not item.owner.file or not file.exists():
            return RuleNow(self._world, Why.PIPELINE_GONE(item.owner.file))
        row = self._ledger.run(item.run)
        if row is not None and self._is_unchanged(item, row):
            return UnchangedRule(self._world)
        recorded = json.loads(row.given) if row is not None and row.given else {}
        name = canonical_json([item.owner.file, recorded])
        if name not in self._rules:
            try:
                self._rules[name] = PipelineNow(self._world, self._settings, file, recorded)
            except PipelineError as error:
                why = Why.PIPELINE_INVALID(error.faults[0].message)
                self._rules[name] = RuleNow(self._world, why)
        return self._rules[name]

    @cached_property
    def _world(self) -> World:
        models = RunModels(model_pools.LookupPool(self._settings).facts)
        return World(self._index, OpenStores(self._index.base), models)

    def _is_unchanged(self, item: RecordedItem, row: RunRow) -> bool:
        """Return whether the rule of an item is made of the same as in the run that did it."""
        sources = json.loads(row.summary or "{}").get("rules")
        is_of_entry = item.entry is not None and item.entry.run == row.run
        if not sources or not is_of_entry or not UnchangedRule.covers(item, sources):
            return False
        if row.run not in self._unchanged:
            same = are_unchanged(sources, self._world, self._settings)
            self._unchanged[row.run] = asyncio.run(same)
        return self._unchanged[row.run]

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
