"""Outdated outputs: files and vector rows that nothing makes any more. Find, name, remove them.

What applies is what the entries of present items name, and what top-level steps wrote last
(`LiveOutputs`). All else that this pipeline wrote in these folders is outdated, whatever came
before: a condition that is false now, a failed item, another path, a renamed step, a deleted
document. An item that waits for review, or is tried again, is undecided: its outputs stay, as do
paths that name more than their item.

`deletes: prune` removes what was made from a deleted source, and what its folder's items no longer
make; `--prune` removes all that is outdated. Neither removes what was edited by hand; a run counts
and names what is kept. Vector rows are outputs like files.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from paddock.engine.system import files, no_links, text
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    blocks_of,
    callable_names,
    canonical_spec,
    find_node,
    owning_plan,
    paths_depend_on_item_alone,
    steps_of,
)
from paddock.runner.folders.deleted_files import is_mass_deletion
from paddock.runner.ledger.entries import Entry, OutputRow, StoredRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage import LineageStore
from paddock.runner.ledger.outputs import FileCondition, OutputIndex
from paddock.runner.progress.report import ItemReport
from paddock.steps.base import ItemName, OutsideRoots, StepError
from paddock.steps.vectors.open_stores import OpenStores

from .block_items import DeletionDoubt
from .block_work import BlockWork, OuterPipelines
from .dependencies import ROWS, WRITTEN, current_paths, nested_outputs
from .run_context import ItemOutputs, RunContext
from .run_records import WROTE

DONE_STATES = frozenset(("done", "skipped"))
"""States in which an item keeps only the rows of this run."""
ENDED_STATES = DONE_STATES | {"quarantined"}
"""States in which rows of earlier runs no longer apply."""


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Rows of an item in a vector store, as its entry says."""

    path: str
    """Path of the store, as stored in the ledger."""
    owner: str
    scope: str
    key: str
    sum: str

    @property
    def n_rows(self) -> int:
        return int(self.sum.partition(":")[0] or 0)

    def mark(self) -> tuple[str, list[Any]]:
        """Return the dependency mark for the item's entry."""
        return f"{self.path}#{self.owner}", [ROWS, self.path, self.owner, self.sum, self.scope,
                                             self.key]  # fmt: skip


def rows_held_by(entry: Entry | None) -> Iterator[HeldRows]:
    """Yield the rows of an item, and of the items within it."""
    marks = {} if entry is None else entry.marks(ROWS)
    for _, path, owner, whole, scope, key in marks.values():
        yield HeldRows(path, owner, scope, key, whole)


def _held_row(row: StoredRow) -> HeldRows:
    return HeldRows(row.path, "", row.scope, row.key, row.sha256)


class RowKeeper:
    """Keeps vector stores and the ledger consistent, for one run."""

    def __init__(self, context: RunContext) -> None:
        self._stores = context.stores
        self._index = context.index
        self._origins = LineageStore(context.ledger)
        self._stats = context.stats

    async def settle(
        self,
        scope: str,
        key: str,
        outputs: ItemOutputs,
        before: Entry | None,
        state: str,
    ) -> dict[str, list[Any]]:
        """Return the marks of an item's rows; drop rows that it no longer keeps.

        Raises:
            StepError: a store cannot be written.
        """
        name = ItemName(owner=f"{scope}\n{key}")
        old = {
            held.path: held
            for held in rows_held_by(before)
            if (held.scope, held.key) == (scope, key)
        }
        now: dict[str, HeldRows] = {}
        for path in outputs.kept:
            if state in ENDED_STATES:
                await self._stores.keep_only(path, name)
            owner = self._stores.owner(name, path)
            held = HeldRows(
                self._index.stored(path), owner, scope, key, self._stores.holds(path, owner)
            )
            now[held.path] = held
            self._origins.record_stored(
                StoredRow(scope, held.path, key, held.sum, held.n_rows), self._stats.run
            )
        for stored, held in now.items():
            if held.sum != (old[stored].sum if stored in old else ""):
                self._stats.wrote(self._index.absolute(stored))
        for stored in old.keys() - now.keys():
            if state in DONE_STATES:
                await self._drop([old[stored]])
            elif state not in ENDED_STATES:
                now[stored] = old[stored]
        return dict(held.mark() for held in now.values())

    async def forget_rows(self, rows: Iterable[HeldRows]) -> tuple[dict[str, int], dict[str, str]]:
        """Drop rows; return the number dropped, and the errors, by store."""
        dropped: dict[str, int] = {}
        refused: dict[str, str] = {}
        by_path: dict[str, list[HeldRows]] = {}
        for held in rows:
            by_path.setdefault(held.path, []).append(held)
        for path, several in by_path.items():
            try:
                dropped[path] = await self._drop(several)
            except StepError as error:
                refused[path] = str(error)
        return dropped, refused

    async def clear(self, bound: BoundPlan, place: Mapping[str, str], *, is_alone: bool) -> None:
        """Drop rows that belong to no step, before a run on these folders begins.

        Those are rows of renamed blocks and steps and, if no other machine runs, rows written just
        before a run was killed, which the ledger does not know: their item runs again.

        Raises:
            StepError: a store cannot be written.
        """
        names = frozenset(callable_names(bound.nodes))
        read = self._origins.stored_by
        stored = await self._index.ledger.ask(lambda: list(read(bound.file.name, place)))
        for path in sorted({row.path for _, _, row in stored}):
            here = [one for one in stored if one[2].path == path]
            n_rows = await self._drop(
                [_held_row(row) for step, _, row in here if step not in names]
            )
            if n_rows:
                self._stats.note(
                    f"removed, since no step keeps them: {text.counted(n_rows, 'row')} of '{path}'"
                )
            if is_alone:
                await self._drop([_held_row(row) for step, is_done, row in here if not is_done])

    def _path(self, held: HeldRows) -> Path:
        return Path(self._index.absolute(held.path))

    async def _drop(self, several: Sequence[HeldRows]) -> int:
        if not several:
            return 0
        path = self._path(several[0])
        names = [ItemName(owner=f"{held.scope}\n{held.key}") for held in several]
        n_rows = await self._stores.forget(path, names)
        for held in several:
            self._origins.drop_stored(StoredRow(held.scope, held.path, held.key, "", 0))
        return n_rows


GONE = "what they were made of is gone"
LEFT_OUT = "`where` leaves out what they were made of"
ELSEWHERE = "they are written elsewhere now"
NOT_MADE = "their items no longer make them"
SKIPPED = "their step is skipped"
NO_STEP = "no step makes them any more"

UNDECIDED_STATES = frozenset(("waiting", "failed"))
"""States of an item on whose outputs another run or a person decides."""


@dataclass(slots=True)
class LiveOutputs:
    """What applies now."""

    paths: set[str] = field(default_factory=set)
    rows: set[tuple[str, str, str]] = field(default_factory=set)
    """Scope, store and key."""
    writers: set[tuple[str, str]] = field(default_factory=set)
    """Scope and key of each item with a file."""

    def add(self, scope: str, entry: Entry) -> None:
        """Add the outputs of an item, and of those within it."""
        self.paths |= current_paths(entry)
        if entry.output_paths:
            self.writers.add((scope, entry.key))
        for mark in entry.marks(WRITTEN, ROWS).values():
            if mark[0] == WRITTEN:
                self.writers.add((mark[1], mark[2]))
            else:
                self.rows.add((mark[4], mark[1], mark[5]))


@dataclass(slots=True)
class NodeOutputs:
    """What of a top-level step or block applies, once it has ended."""

    node: BoundNode
    is_skipped: bool = False
    live: LiveOutputs = field(default_factory=LiveOutputs)
    done: set[str] = field(default_factory=set)
    """Keys of present items that ended; of a step its id."""
    undecided: set[str] = field(default_factory=set)
    gone: dict[str, str] = field(default_factory=dict)
    """Key → why, of items that are no longer there."""
    failing: set[str] = field(default_factory=set)
    """Keys of items in which others failed."""
    is_list_sure: bool = True
    """Whether an item that is not listed is surely gone."""
    writing: set[str] = field(default_factory=set)
    """Keys of items with a file, or with one of an item within."""
    work: BlockWork | None = None
    """The items of a block."""
    renamed: set[str] = field(default_factory=set)
    """Former keys of items that are done under another one."""

    @classmethod
    def of_block(
        cls, work: BlockWork, entries: Mapping[str, Entry], is_open: Collection[int]
    ) -> NodeOutputs:
        """Return what applies of a block; `is_open` are indexes of items that have work to do."""
        is_hot = any(source.is_hot for source in work.missing.sources)
        made = cls(work.step or work.block, is_list_sure=not (work.doubts or is_hot), work=work)
        for item in work.items:
            entry = entries.get(item.key)
            made.add_item(work.scope, item.key, entry, is_open=item.index in is_open)
            if item.renamed_from and item.key in made.done and entry and entry.state == "done":
                made.renamed.add(item.renamed_from)
        present = made.done | made.undecided
        deleted = {entry.key for entry in work.deleted}
        for key, entry in entries.items():
            if key in present:
                continue
            if key in work.left_out:
                made.gone[key] = LEFT_OUT
            elif key not in work.unsettled and (key in deleted or entry.gone is not None):
                made.gone[key] = GONE
            else:
                made.add_item(work.scope, key, entry, is_open=True)
        made.undecided |= work.unsettled
        return made

    @classmethod
    def of_step(
        cls, step: BoundStep, scope: str, paths: Iterable[str], stores: Iterable[str]
    ) -> NodeOutputs:
        """Return what applies of a step without an entry: what it wrote last."""
        made = cls(step, done={step.id})
        made.live.paths.update(paths)
        made.live.rows.update((scope, store, step.id) for store in stores)
        if made.live.paths:
            made.live.writers.add((scope, step.id))
        return made

    @classmethod
    def of_last_run(cls, step: BoundStep, scope: str, index: OutputIndex) -> NodeOutputs | None:
        """Return what applies of a step without an entry that is left as it is; None: not known."""
        origins = LineageStore(index.ledger)
        made = origins.made(scope, step.id)
        if made is None:  # a killed run may have written, and no other one
            written = [row.path for row in index.rows() if row.scope == scope]
            return cls.of_step(step, scope, written, ())
        if made.spec is None or origins.spec(made.spec) != canonical_spec(step):
            return None
        return cls.of_step(step, scope, made.made.get(WROTE, ()), ())

    def add_item(self, scope: str, key: str, entry: Entry | None, *, is_open: bool) -> None:
        """Add an item that is listed now; `is_open`: it is still to be done."""
        is_open = is_open or entry is None or entry.state in UNDECIDED_STATES
        (self.undecided if is_open else self.done).add(key)
        if entry is not None:
            self.live.add(scope, entry)
            if current_paths(entry):
                self.writing.add(key)
            if entry.has_inner_failures or entry.attempts:
                self.failing.add(key)


@dataclass(frozen=True, slots=True)
class OutdatedOutput:
    """A file, or an item's rows in a store, that nothing makes any more."""

    scope: str
    key: str
    stored: str
    """Path of the file, or of the store."""
    node: str
    """The top-level step or block that made it; empty: the pipeline no longer has it."""
    item: str
    """Key of the top-level item that it belongs to."""
    why: str
    is_edited: bool = False
    n_rows: int | None = None
    """Of rows in a store."""

    @property
    def name(self) -> str:
        """Return what people read."""
        if self.n_rows is None:
            return self.stored
        return f"{self.n_rows} {'row' if self.n_rows == 1 else 'rows'} of {self.stored}"


@dataclass(frozen=True, slots=True)
class _Place:
    """A scope of the pipeline."""

    step: str
    """Without the steps that lead to the pipeline."""
    node: str
    """The top-level step or block; empty: the pipeline no longer has it."""
    outer: tuple[str, ...]
    """Keys of the items around."""


class OutdatedFinder:
    """Finds the outdated outputs of one pipeline in its folders. Blocking."""

    def __init__(
        self,
        bound: BoundPlan,
        place: OuterPipelines,
        index: OutputIndex,
        stores: OpenStores,
        ends: Mapping[str, NodeOutputs],
    ) -> None:
        """`ends`: by its id, each top-level step or block that has ended."""
        self._bound = bound
        self._index = index
        self._stores = stores
        self._ends = ends
        self._ledger: Ledger = index.ledger
        self._origins = LineageStore(index.ledger)
        self._left = [node for node in bound.nodes if node.id not in ends]
        self._places = dict(self._scopes(place))
        self._rules: dict[str, bool] = {}

    def stores_to_look_at(self) -> set[Path]:
        """Return the stores whose contents `find` compares."""
        return {Path(self._index.absolute(row.path)) for row, _ in self._stored()}

    def find(self) -> list[OutdatedOutput]:
        """Return what is outdated and still there; `stores_to_look_at` have been looked at."""
        found = list(self._rows())
        paths = dict.fromkeys(
            row.path
            for row in self._index.rows()
            if row.scope in self._places and not self._is_live(row.path)
        )
        candidates = [one for path in paths if (one := self._file(path)) is not None]
        if candidates:  # compared as files, for case-insensitive disks
            live = (path for end in self._ends.values() for path in end.live.paths)
            absolute = self._index.absolute
            now = set(filter(None, (files.identity(absolute(path)) for path in live)))
            found += [one for one in candidates if files.identity(absolute(one.stored)) not in now]
        return sorted(found, key=lambda one: one.stored)

    # --- scopes

    def _scopes(self, place: OuterPipelines) -> Iterator[tuple[str, _Place]]:
        nodes = self._bound.nodes
        names = {name: node.id for node in nodes for name in callable_names([node])}
        n = len(place.places)
        query = "select scope, step, inputs from scopes where file = :file"
        for scope, step, written in self._ledger.rows(query, file=place.file):
            inputs = json.loads(written)
            if not step.startswith(place.steps) or inputs[:n] != list(place.places):
                continue
            name = step.removeprefix(place.steps)
            outer = tuple(key for key in inputs[n:] if isinstance(key, str))
            yield scope, _Place(name, names.get(name, ""), outer)

    def _why(self, scope: str, key: str) -> tuple[_Place, str, str] | None:
        """Return where an item's outputs belong, its top-level item, and why they are outdated."""
        place = self._places.get(scope)
        if place is None:
            return None
        top = place.outer[0] if place.outer else key
        if not place.node:
            is_own = key == place.step  # else it is of an item, which no top-level step makes
            makers = (is_own or isinstance(one, BoundBlock) or one.inner for one in self._left)
            return None if any(makers) else (place, top, NO_STEP)
        end = self._ends.get(place.node)
        why = None if end is None else self._why_of(end, place, scope, key, top)
        return None if why is None else (place, top, why)

    def _why_of(
        self, end: NodeOutputs, place: _Place, scope: str, key: str, top: str
    ) -> str | None:
        if end.is_skipped:
            return SKIPPED
        if not isinstance(end.node, BoundBlock) and place.step != end.node.id:
            return None  # the pipeline that the step runs decides
        if top in end.undecided:
            return None
        if top in end.gone:
            return end.gone[top]
        if top not in end.done:
            return GONE if end.is_list_sure else None
        if top in end.failing and self._is_tried_again(scope, key):
            return None
        return ELSEWHERE if (scope, key) in end.live.writers else NOT_MADE

    def _is_tried_again(self, scope: str, key: str) -> bool:
        entry = self._ledger.entries(scope, [key]).get(key)
        return entry is not None and entry.state in UNDECIDED_STATES

    # --- files

    def _is_live(self, path: str) -> bool:
        return any(path in end.live.paths for end in self._ends.values())

    def _file(self, path: str) -> OutdatedOutput | None:
        """Return a file that is outdated for all that ever wrote it; None: it is not, or gone."""
        whys = []
        for row in self._index.rows_at(path):
            why = self._why(row.scope, row.key)
            if why is None or not self._is_of_item_alone(row, why[0]):
                return None
            whys.append((row, *why))
        conditions = {self._index.condition(row.scope, path): row.scope for row, *_ in whys}
        if conditions.keys() <= {"missing"}:
            return None
        row, place, top, why_text = whys[-1]
        is_edited = not conditions.keys() & {"same", "interrupted"}
        return OutdatedOutput(row.scope, row.key, path, place.node, top, why_text, is_edited)

    def _is_of_item_alone(self, row: OutputRow, place: _Place) -> bool:
        """Return whether the path names nothing but its item, by the step that writes it."""
        if place.node:
            if place.step not in self._rules:
                self._rules[place.step] = self._names_item_alone(place.step)
            return self._rules[place.step]
        text = self._recorded_spec(row, place)
        if text is None:  # only killed runs wrote it, and none recorded an item of the step
            return True
        spec = json.loads(text)
        if place.outer:  # it may read steps around it
            spec["steps"] = self._steps_of_items() | spec["steps"]
        types = self._bound.input_types
        return paths_depend_on_item_alone(spec, types, is_within_item=bool(place.outer))

    def _recorded_spec(self, row: OutputRow, place: _Place) -> str | None:
        """Return the step as it made this item, else as it made another one last."""
        made = self._origins.made(row.scope, row.key)
        if made is not None and made.spec is not None:
            return self._origins.spec(made.spec)
        scopes = [scope for scope, one in self._places.items() if one.step == place.step]
        rows = [one for scope in scopes for one in self._origins.made_of(scope).values()]
        known = sorted((one.at, one.spec) for one in rows if one.spec is not None)
        return self._origins.spec(known[-1][1]) if known else None

    def _names_item_alone(self, name: str) -> bool:
        node = find_node(self._bound.nodes, name)
        if node is None:
            return False
        plan = owning_plan(self._bound, node)
        spec: dict[str, dict[str, Any]] = {"blocks": {}, "steps": {}}
        for top in plan.nodes:
            if any(one is node for one in (top, *steps_of([top]), *blocks_of([top]))):
                spec = json.loads(canonical_spec(top))
        return paths_depend_on_item_alone(spec, plan.input_types)

    def _steps_of_items(self) -> dict[str, Any]:
        blocks = [node for node in self._bound.nodes if isinstance(node, BoundBlock)]
        return {
            name: step
            for block in blocks
            for name, step in json.loads(canonical_spec(block))["steps"].items()
        }

    # --- rows

    def _stored(self) -> Iterator[tuple[StoredRow, tuple[_Place, str, str]]]:
        for row in self._origins.stored_by_scopes(self._places):
            if any((row.scope, row.path, row.key) in e.live.rows for e in self._ends.values()):
                continue
            why = self._why(row.scope, row.key)
            if why is not None:
                yield row, why

    def _rows(self) -> Iterator[OutdatedOutput]:
        for row, (place, top, why) in self._stored():
            path = Path(self._index.absolute(row.path))
            owner = self._stores.owner(ItemName(owner=f"{row.scope}\n{row.key}"), path)
            n_rows = int(self._stores.holds(path, owner).partition(":")[0] or 0)
            if n_rows:
                yield OutdatedOutput(
                    row.scope, row.key, row.path, place.node, top, why, n_rows=n_rows
                )


async def end_of_block(
    context: RunContext, work: BlockWork, is_open: Collection[int]
) -> NodeOutputs:
    """Return what applies of a block that has ended; `is_open`: indexes of items left undone."""
    ledger = context.ledger
    await ledger.durable()
    return NodeOutputs.of_block(work, await ledger.ask(ledger.entries, work.scope), is_open)


async def find_outdated(
    context: RunContext, ends: Mapping[str, NodeOutputs]
) -> list[OutdatedOutput]:
    """Return the outdated outputs of a pipeline; `ends`: its steps and blocks that have ended."""
    await context.ledger.durable()
    make = partial(OutdatedFinder, context.bound, context.judge.scopes_within, context.index)
    finder = await context.ledger.ask(make, context.stores, ends)
    await context.stores.look(finder.stores_to_look_at())
    return await context.ledger.ask(finder.find)


_MOST_NAMES = 3

_OutputFile = tuple[str, str, str]
"""Scope, key and stored path of a file that an item wrote."""


@dataclass
class _Removal:
    """What was removed, what was kept, and what failed."""

    removed: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    """Rows removed, by store."""


class OrphanCleaner:
    """Removes outputs of deleted items, and all that is outdated, where that is asked."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._index = context.index
        self._stats = context.stats
        self._prunes = context.options.prune
        self._row_keeper = RowKeeper(context)

    async def settled(self, work: BlockWork, done: Collection[int]) -> Sequence[Entry]:
        """Handle items whose source is gone, as the watch on their folder says.

        `done` are the indexes of items whose result stands. Return the entries that are handled;
        the ledger marks them as gone.
        """
        entries: list[Entry] = []
        if work.deleted:
            entries += await self._finished(work, done)
        if work.dropped:
            entries += await self._left_out(work)
        for doubt in work.doubts:
            self.doubt(work, doubt)
        reviews = self._context.judge.reviews
        await reviews.forget(work.scope, [entry.key for entry in entries])
        for entry in entries:
            gone = replace(entry, gone=self._stats.run)
            self._context.ledger.record(work.scope, gone, self._stats.run)
        return entries

    def doubt(self, work: BlockWork, doubt: DeletionDoubt) -> None:
        """Report why documents do not count as deleted."""
        self._stats.note(doubt.text)
        shown = work.shown(doubt.folder)
        self._stats.item(ItemReport(work.block.id, shown, "missing", error=doubt.text))

    async def _finished(self, work: BlockWork, done: Collection[int]) -> Sequence[Entry]:
        """Remove outputs of deleted items, where that is asked, and of renamed ones."""
        deleted, renamed = work.deleted, _renamed(work, done)
        if self._prunes or any(source.prunes for source in work.missing.sources):
            doomed = [*deleted]
        else:
            doomed = [entry for entry in deleted if entry.key in renamed]
        removal = await self._removed(work, doomed)
        self._tell(removal, renamed)
        return [entry for entry in deleted if not self._keeps(entry, removal)]

    async def _left_out(self, work: BlockWork) -> Sequence[Entry]:
        """Handle items that `where` now leaves out; only `--prune` removes their outputs."""
        entries = work.dropped
        if not self._prunes:
            return entries
        removal = await self._removed(work, entries)
        self._tell(removal, {}, LEFT_OUT)
        return [entry for entry in entries if not self._keeps(entry, removal)]

    async def sweep(
        self, outdated: Sequence[OutdatedOutput], ends: Mapping[str, NodeOutputs]
    ) -> None:
        """Remove outdated outputs where that is asked; count and name those that are kept."""
        by_node = {node: [one for one in outdated if one.node == node] for node in ["", *ends]}
        doomed = [
            one
            for node, several in by_node.items()
            for one in self._doomed(several, ends.get(node))
        ]
        for why in dict.fromkeys(one.why for one in doomed):
            removal = await self._removed_outdated([one for one in doomed if one.why == why])
            self._tell(removal, {}, why)
        kept = [one for one in outdated if one not in doomed]
        left = [one for one in outdated if one in kept or one.is_edited]
        self._stats.keeps({one.name: one.why for one in left})
        for note in kept_texts(kept):
            self._stats.note(note)

    def _doomed(
        self, outdated: Sequence[OutdatedOutput], end: NodeOutputs | None
    ) -> Sequence[OutdatedOutput]:
        """Return which outdated outputs of a top-level step or block are to be removed."""
        work = None if end is None else end.work
        if end is None or work is None or work.step is not None:
            return outdated if self._prunes else ()
        if self._prunes:
            doubt = self._long_gone(work, outdated)
            if doubt is not None:
                self.doubt(work, doubt)
            return [one for one in outdated if doubt is None or one.why != GONE]
        is_asked = any(source.prunes for source in work.missing.sources)
        if is_asked and (note := self._lost_by_most(work, end, outdated)) is not None:
            self._stats.note(note)
            is_asked = False
        whys = (ELSEWHERE, NOT_MADE) if is_asked else ()
        return [
            one
            for one in outdated
            if one.why in whys or (one.item in end.renamed and one.item in end.gone)
        ]

    def _long_gone(
        self, work: BlockWork, outdated: Sequence[OutdatedOutput]
    ) -> DeletionDoubt | None:
        """Return why outputs of documents that went earlier are kept: a person is asked first."""
        now = {entry.key for entry in work.deleted}
        n_left = len({one.item for one in outdated if one.why == GONE} - now)
        n_known = len(work.items) + n_left
        return self._context.judge.sources.many(work.missing, n_left, n_known, prunes=True)

    def _lost_by_most(
        self, work: BlockWork, end: NodeOutputs, outdated: Sequence[OutdatedOutput]
    ) -> str | None:
        """Return why a watch removes nothing: most items lost what was made of them at once."""
        lost = {one.item for one in outdated if one.why == NOT_MADE} - end.writing
        most = min(source.most for source in work.missing.sources if source.prunes)
        n_known = len(end.done)
        if self._context.options.is_confirmed or not is_mass_deletion(len(lost), n_known, most):
            return None
        return (
            f"{len(lost):,} of {n_known:,} items of '{work.block.id}' no longer make any output, "
            f"so what was made of them is kept. If that is right, run it with `--prune`."
        )

    async def _removed_outdated(self, doomed: Sequence[OutdatedOutput]) -> _Removal:
        made = [(o.scope, o.key, o.stored) for o in doomed if o.n_rows is None]
        removal = await asyncio.to_thread(self._remove_all, made, is_outdated=True)
        rows = [HeldRows(o.stored, "", o.scope, o.key, "") for o in doomed if o.n_rows is not None]
        removal.rows, refused = await self._row_keeper.forget_rows(rows)
        removal.refused |= refused
        return removal

    async def _removed(self, work: BlockWork, entries: Sequence[Entry]) -> _Removal:
        removal = await asyncio.to_thread(self._remove_all, self._made_of(work, entries))
        held = [one for entry in entries for one in rows_held_by(entry)]
        removal.rows, refused = await self._row_keeper.forget_rows(held)
        removal.refused |= refused
        return removal

    def _made_of(self, work: BlockWork, entries: Iterable[Entry]) -> list[_OutputFile]:
        return [
            one
            for entry in entries
            for one in self._made(work.block, work.scope, entry, (*work.outer, entry.key))
        ]

    def _keeps(self, entry: Entry, removal: _Removal) -> bool:
        """Return whether an output of an item could not be removed, so that it is tried again."""
        stores = (held.path for held in rows_held_by(entry))
        return any(path in removal.refused for path in (*entry.output_paths, *stores))

    # --- removing

    def _made(
        self, block: BoundBlock, scope: str, entry: Entry, outer: tuple[str, ...]
    ) -> Iterator[_OutputFile]:
        """Yield the files of an item, and of the items within it."""
        for stored in entry.output_paths:
            yield scope, entry.key, stored
        yield from nested_outputs(entry)
        for inner in block.body:
            if not isinstance(inner, BoundBlock):
                continue
            inner_scope = self._context.judge.scope_id(inner.id, outer)
            for one in self._context.ledger.entries(inner_scope).values():
                yield from self._made(inner, inner_scope, one, (*outer, one.key))

    def _remove_all(self, made: Iterable[_OutputFile], *, is_outdated: bool = False) -> _Removal:
        """Remove files; without `is_outdated` only those of these items alone. Blocking."""
        removal, index = _Removal(), self._index
        for scope, key, stored in made:
            condition, path = self._condition(stored), Path(index.absolute(stored))
            if condition == "missing":
                continue
            if not (is_outdated or index.is_only_of(scope, key, stored)):
                continue
            if condition == "edited" or path.is_symlink():
                removal.edited.append(stored)
                continue
            try:
                with suppress(FileNotFoundError):
                    no_links.remove(self._context.bound.roots.resolve(str(path)))
            except (OSError, OutsideRoots) as error:
                removal.refused[stored] = getattr(error, "strerror", None) or str(error)
            else:
                removal.removed.append(stored)
        return removal

    def _condition(self, stored: str) -> FileCondition:
        """Return a file's condition, by all items that ever wrote it. Blocking."""
        index = self._index
        conditions = {index.condition(row.scope, stored) for row in index.rows_at(stored)}
        order: tuple[FileCondition, ...] = ("same", "interrupted", "edited")
        return next((one for one in order if one in conditions), "missing")

    def _tell(self, removal: _Removal, renamed: Mapping[str, str], why: str = GONE) -> None:
        note = self._stats.note
        self._stats.removed(len(removal.removed) + sum(removal.rows.values()))
        if renamed:
            pairs = [f"{old} → {new}" for old, new in renamed.items()]
            note(f"renamed, so what was made of them goes by the new name: {_listed(pairs)}")
        if removal.removed:
            note(f"removed, since {why}: {_listed(removal.removed)}")
        for store, n_rows in removal.rows.items():
            if n_rows:
                note(f"removed, since {why}: {text.counted(n_rows, 'row')} of '{store}'")
        kept = "its source is gone" if why == GONE else why
        if removal.edited:
            note(f"edited by hand, and kept though {kept}: {_listed(removal.edited)}")
        for stored, fault in removal.refused.items():
            note(f"'{stored}' cannot be removed ({fault}), though {kept}")


def kept_texts(outdated: Iterable[OutdatedOutput]) -> Iterator[str]:
    """Yield notes on outdated outputs, and how to remove them, one for each reason.

    >>> pages = [OutdatedOutput("", "", f"out/{n}", "", "", "they moved", n > 1) for n in (1, 2)]
    >>> [text.partition(":")[0] for text in kept_texts(pages)]
    ['kept, though they moved', 'edited by hand, and kept though they moved']
    """
    by_why: dict[tuple[str, bool], list[str]] = {}
    for one in outdated:
        by_why.setdefault((one.why, one.is_edited), []).append(one.name)
    for (why, is_edited), names in by_why.items():
        if is_edited:
            yield f"edited by hand, and kept though {why}: {_listed(names)}"
        else:
            yield f"kept, though {why}: {_listed(names)} (`--prune` removes)"


def _renamed(work: BlockWork, done: Collection[int]) -> dict[str, str]:
    """Return old key → new key of renamed documents whose result stands."""
    return {
        item.renamed_from: item.key
        for item in work.items
        if item.renamed_from is not None and item.index in done
    }


def _listed(names: Iterable[str]) -> str:
    return text.listed(sorted(names), _MOST_NAMES)
