"""Outdated outputs: files and vector rows that nothing makes any more, found and named.

What applies is what the entries of present items name, and what top-level steps wrote last
(`EndedNode`). All else that this pipeline wrote in these folders is outdated, whatever the cause:
a condition that is false now, a failed item, another path, a renamed step, a deleted document. An
item that waits for review, or is tried again, is undecided: its outputs stay, as do paths that name
more than their item. `pruning` removes what is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from enum import Enum, auto
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system import files, text
from paddock.engine.system.records import Struct, field, replace
from paddock.runner.bind.bound import BoundBlock, BoundNode
from paddock.runner.bind.item_paths import find_in_plans, paths_depend_on_item_alone
from paddock.runner.bind.plan_walks import callable_names, nodes_of
from paddock.runner.bind.specs import whole_spec
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.output_conditions import OURS, condition_of
from paddock.runner.progress.item_states import UNDECIDED, ItemState
from paddock.runner.progress.reasons import Outdated
from paddock.steps.base import ItemName

from ..known_pipelines import scopes_of_gone
from ..run_records import read_lineage
from ..traces.dependencies import (
    Dependency,
    KeptOutput,
    OutputWithin,
    RowsKept,
    TakenPath,
    dependencies_of,
)
from ..traces.scopes import ItemKey, owner_of

if TYPE_CHECKING:
    from paddock.runner.ledger.entries import Entry, OutputRow, StoredRow

    from ..run_context import RunContext
    from ..traces.block_work import BlockWork


class Fate(Enum):
    """What becomes of what an item made, if it is not outdated."""

    DONE = auto()
    """It ended: all that it did not make again is outdated."""
    DONE_IN_PART = auto()
    """It ended; it, or what is within it, is tried again."""
    OPEN = auto()
    """It is still to be done, or it is not known whether it goes: nothing is outdated."""
    FILED = auto()
    """Its document was moved away: what it made stays."""

    @classmethod
    def of(cls, entry: Entry | None) -> Fate:
        if entry is None or entry.state in UNDECIDED:
            return cls.OPEN
        is_in_part = (
            entry.has_inner_failures or entry.n_failures or dependencies_of(entry, TakenPath)
        )
        return cls.DONE_IN_PART if is_in_part else cls.DONE


ENDED = frozenset((Fate.DONE, Fate.DONE_IN_PART))
_APPLY = ENDED | {Fate.OPEN}


class MadeOutputs(Struct, frozen=True):
    """What items made that applies."""

    paths: Collection[str] = ()
    """Stored paths of files."""
    rows: Collection[tuple[str, str, str]] = ()
    """Scope, store and key of the items whose rows in stores apply."""
    writers: Collection[ItemKey] = ()
    """Items that have a file, at any depth."""
    keys: Set[str] = frozenset()
    """Keys of items that have a file, or within which others have one."""

    @classmethod
    def of(cls, scope_id: str, entries: Iterable[Entry]) -> MadeOutputs:
        paths, rows, writers = set[str](), set[tuple[str, str, str]](), set[ItemKey]()
        keys = set[str]()
        for entry in entries:
            own = {*entry.output_paths}
            if own:
                writers.add((scope_id, entry.key))
            outputs: list[Dependency] = dependencies_of(entry, OutputWithin, KeptOutput, RowsKept)
            for dep in outputs:
                if isinstance(dep, RowsKept):
                    rows.add((dep.scope_id, dep.store, dep.key))
                elif isinstance(dep, OutputWithin):
                    writers.add((dep.scope_id, dep.key))
                if isinstance(dep, OutputWithin | KeptOutput):
                    own.add(dep.path)
            paths |= own
            if own:
                keys.add(entry.key)
        return cls(paths, rows, writers, keys)


class EndedNode(Struct, frozen=True):
    """What of a top-level step or block applies, once it has ended."""

    node: BoundNode
    fates: Mapping[str, Fate | Outdated] = field(default_factory=dict)
    """By the keys of its items; of a step by its id."""
    unlisted: Fate | Outdated = Outdated.GONE
    """The fate of all other items; `SKIPPED`: so is all of the node."""
    made: MadeOutputs = MadeOutputs()
    work: BlockWork | None = None
    """The items of a block, or of a step that has a trace."""
    renamed: Collection[str] = ()
    """Keys of gone items that are done under another one."""


class OutdatedOutput(Struct, frozen=True):
    """A file, or an item's rows in a store, that nothing makes any more."""

    scope_id: str
    key: str
    stored: str
    """Path of the file, or of the store."""
    node: str
    """The top-level step or block that made it; empty: the pipeline no longer has it."""
    item: str
    """Key of the top-level item that it belongs to."""
    why: Outdated
    is_edited: bool = False
    n_rows: int | None = None
    pipeline: str = ""
    """Name of the file of another pipeline that made it, where that is gone."""

    @property
    def name(self) -> str:
        if self.n_rows is None:
            return self.stored
        return f"{self.n_rows} {'row' if self.n_rows == 1 else 'rows'} of {self.stored}"


class _KnownScope(Struct, frozen=True):
    step: str
    """Without the steps that lead to the pipeline."""
    node: str
    """The top-level step or block; empty: the pipeline no longer has it."""
    keys_around: tuple[str, ...]
    """Keys of the items around."""
    gone: str = ""
    """Name of the file of another pipeline that is gone, if it is of one."""

    def top(self, key: str) -> str:
        return self.keys_around[0] if self.keys_around else key


class OutdatedFinder:
    """Finds the outdated outputs of one pipeline in its folders, and of those gone. Blocking."""

    def __init__(self, context: RunContext, ended: Mapping[str, EndedNode]) -> None:
        """`ended`: by its id, each top-level step or block that has ended."""
        self._bound, self._index, self._world = context.bound, context.index, context.world
        self._ended, self._ledger = ended, context.ledger
        self._lineage = LineageStore(context.ledger)
        self._rest = [node for node in context.bound.nodes if node.id not in ended]
        nodes = self._bound.nodes
        names = {name: node.id for node in nodes for name in callable_names([node])}
        self._scopes = {
            scope: _KnownScope(step, names.get(step, ""), keys_around)
            for scope, step, keys_around in context.judge.scopes.known()
        } | {
            owner.scope_id: _KnownScope(owner.step, "", owner.outer, owner.file)
            for owner in scopes_of_gone(context)
        }
        self._is_step_of_items: dict[str, bool] = {}
        """By step, whether the paths that it writes name nothing but an item."""

    def stores_to_look_at(self) -> set[Path]:
        return {Path(self._index.absolute(row.path)) for row, _ in self._stored}

    def find(self) -> list[OutdatedOutput]:
        """Return the outdated outputs that still exist; `stores_to_look_at` have been looked at."""
        outdated = list[OutdatedOutput]()
        for row, why in self._stored:
            path = Path(self._index.absolute(row.path))
            held = self._world.rows_at(path)
            owner = held.owner(ItemName(owner=owner_of((row.scope, row.key))), path)
            if n_rows := held.holds(path, owner).n_rows:
                outdated.append(replace(self._output(row, why), n_rows=n_rows))
        live = {path for end in self._ended.values() for path in end.made.paths}
        written = (row for row in self._index.rows() if row.scope in self._scopes)
        paths = dict.fromkeys(row.path for row in written if row.path not in live)
        candidates = [out for path in paths if (out := self._file(path)) is not None]
        if candidates:  # compared as files, for case-insensitive disks
            absolute = self._index.absolute
            now = set(filter(None, (files.identity_of_path(absolute(path)) for path in live)))
            outdated += [
                c for c in candidates if files.identity_of_path(absolute(c.stored)) not in now
            ]
        return sorted(outdated, key=lambda out: out.stored)

    def is_over(self, scope_id: str, key: str) -> bool:
        """Return whether nothing of an item is to be decided any more: it is outdated, or filed."""
        fate = self._fate(scope_id, key)
        if scope_id in self._scopes and self._scopes[scope_id].gone:
            return False  # the file may come back
        return fate is Fate.FILED or isinstance(fate, Outdated)

    def _output(self, row: OutputRow | StoredRow, why: Outdated) -> OutdatedOutput:
        known = self._scopes[row.scope]
        item = known.top(row.key)
        return OutdatedOutput(
            row.scope, row.key, row.path, known.node, item, why, pipeline=known.gone
        )

    def _fate(self, scope_id: str, key: str) -> Fate | Outdated:
        """Return the fate of those outputs of an item that do not apply.

        0. Another pipeline made it, whose file is gone.
        1. No step of the pipeline makes it any more, and all those that may have are walked.
        2. The walk has not reached its step or block.
        3. That is skipped.
        4. The pipeline that a step runs decides.
        5. Its item ended in part: it, or what is within it, is open if it is tried again.
        6. Its item is open, filed or gone; or it is not listed.
        7. It is done, and made something else.
        """
        known = self._scopes.get(scope_id)
        if known is None:
            return Fate.OPEN
        if known.gone:  # 0
            return Outdated.NO_PIPELINE
        if not known.node:  # 1
            is_own = key == known.step  # else it is of an item, which no top-level step makes
            makers = (is_own or isinstance(node, BoundBlock) or node.inner for node in self._rest)
            return Fate.OPEN if any(makers) else Outdated.NO_STEP
        end = self._ended.get(known.node)
        if end is None:  # 2
            return Fate.OPEN
        if end.unlisted is Outdated.SKIPPED:  # 3
            return end.unlisted
        if not isinstance(end.node, BoundBlock) and known.step != end.node.id:  # 4
            return Fate.OPEN
        fate = end.fates.get(known.top(key), end.unlisted)
        if fate is Fate.DONE_IN_PART:  # 5
            entry = self._ledger.entries(scope_id, [key]).get(key)
            is_open = entry is not None and entry.state in UNDECIDED
            fate = Fate.OPEN if is_open else Fate.DONE
        if fate is not Fate.DONE:  # 6
            return fate
        if known.keys_around:  # within its item, others may be filed
            entry = self._ledger.entries(scope_id, [key]).get(key)
            if entry is not None and entry.is_filed:
                return Fate.FILED
        is_written = (scope_id, key) in end.made.writers  # 7
        return Outdated.ELSEWHERE if is_written else Outdated.NOT_MADE

    # --- files

    def _file(self, path: str) -> OutdatedOutput | None:
        output, conditions = None, set[str]()
        for row in self._index.rows_at(path):
            why = self._fate(row.scope, row.key)
            if not isinstance(why, Outdated) or not self.is_of_item_alone(row):
                return None
            output = self._output(row, why)
            conditions.add(condition_of(self._index, row.scope, path))
        if output is None or conditions <= {"missing"}:
            return None
        return replace(output, is_edited=conditions.isdisjoint(OURS))

    def is_of_item_alone(self, row: OutputRow) -> bool:
        """Return whether the path names nothing but its item, by the step that writes it.

        Of a step that the pipeline no longer has, by how it wrote the item; where that was not
        recorded, by how it wrote another one last.
        """
        at = self._scopes.get(row.scope)
        if at is None:
            return False
        if at.gone:  # no value is left with which it would be made
            return True
        if at.node:
            if at.step not in self._is_step_of_items:
                self._is_step_of_items[at.step] = False
                if (found := find_in_plans(self._bound, at.step)) is not None:
                    plan, node = found
                    around = [top for top in plan.nodes if any(p is node for p in nodes_of([top]))]
                    spec = whole_spec(around[-1])
                    is_alone = paths_depend_on_item_alone(spec, plan.inputs_in_paths)
                    self._is_step_of_items[at.step] = is_alone
            return self._is_step_of_items[at.step]
        lineage = self._lineage.of_item(row.scope, row.key)
        if lineage is None or lineage.spec is None:  # else how the step made another one last
            scopes = [scope for scope, other in self._scopes.items() if other.step == at.step]
            rows = [row for scope in scopes for row in self._lineage.of_scope(scope).values()]
            known = (row for row in rows if row.spec is not None)
            lineage = max(known, key=attrgetter("at"), default=None)
        text = lineage and lineage.spec and self._lineage.spec(lineage.spec)
        if lineage is None or not text:  # only killed runs wrote it, and recorded no item
            return True
        spec = json.loads(text)
        if at.keys_around:  # it may read steps around it
            for block in (node for node in self._bound.nodes if isinstance(node, BoundBlock)):
                spec["steps"] = whole_spec(block)["steps"] | spec["steps"]
        inputs = self._bound.inputs_in_paths.union(read_lineage(lineage).inputs_by_item)
        return paths_depend_on_item_alone(spec, inputs, is_within_item=bool(at.keys_around))

    # --- rows

    @cached_property
    def _stored(self) -> list[tuple[StoredRow, Outdated]]:
        live = {row for end in self._ended.values() for row in end.made.rows}
        rows = self._lineage.rows_of_scopes(self._scopes)
        others = (row for row in rows if (row.scope, row.path, row.key) not in live)
        fates = ((row, self._fate(row.scope, row.key)) for row in others)
        return [(row, fate) for row, fate in fates if isinstance(fate, Outdated)]


async def ended_block(
    context: RunContext, work: BlockWork, is_open: Collection[int], expected: Collection[int] = ()
) -> EndedNode:
    """Return what applies of a block that has ended; `is_open`: indexes of items still to be done.

    `expected`: those of them that a run does, while planning.

    1. What filed items made stays, though the list lacks them.
    2. Items that later runs do are open.
    3. What listed items made applies.
    4. Of an item that `where` excludes, and of one that is deleted, nothing applies.
    5. Of any other that the list lacks it is not known whether it is gone, as in a hot folder.
    6. A gone item is renamed where the item with its content is done, or will be.
    """
    ledger, missing, keys = context.ledger, work.missing, [item.key for item in work.items]
    await ledger.durable()
    entries = ledger.listed_entries(work.scope_id, keys, with_results=False)
    fates: dict[str, Fate | Outdated] = dict.fromkeys(work.filed.rows, Fate.FILED)  # 1
    fates |= dict.fromkeys(work.unsettled, Fate.OPEN)  # 2
    for item in work.items:  # 3
        fates[item.key] = Fate.OPEN if item.index in is_open else Fate.of(entries.get(item.key))
    deleted = {entry.key for entry in missing.deleted}
    for key in entries.keys() - fates.keys():
        if key in work.excluded:  # 4
            fates[key] = Outdated.EXCLUDED
        elif key in deleted or entries[key].gone is not None:
            fates[key] = Outdated.GONE
        else:  # 5
            fates[key] = Fate.OPEN
    renamed = set[str]()
    for item in work.items:  # 6
        is_done = fates[item.key] in ENDED and entries[item.key].state == ItemState.DONE
        was = item.renamed_from
        if was and isinstance(fates.get(was), Outdated) and (is_done or item.index in expected):
            renamed.add(was)
    apply = (entry for key, entry in entries.items() if fates[key] in _APPLY)
    unlisted = Fate.OPEN if missing.doubts else Outdated.GONE
    made_outputs = MadeOutputs.of(work.scope_id, apply)
    return EndedNode(work.step or work.block, fates, unlisted, made_outputs, work, renamed)


async def find_outdated(
    context: RunContext, ended: Mapping[str, EndedNode]
) -> tuple[list[OutdatedOutput], list[ItemKey]]:
    """Return the outdated outputs of a pipeline; `ended`: its steps and blocks that have ended.

    And the items with a question or a new decision of which nothing is to be decided any more.
    """
    reviews = context.judge.reviews
    await context.ledger.durable()
    await reviews.load()
    live = {path for end in ended.values() for path in end.made.paths}
    is_live = all(row.path in live for row in context.index.rows())
    stores = LineageStore(context.ledger).stores()
    if is_live and not (reviews.items or stores):
        return [], []
    finder = OutdatedFinder(context, ended)
    for path in finder.stores_to_look_at():
        await context.world.rows_at(path).probe(path)
    over = [item for item in reviews.items if finder.is_over(*item)]
    return finder.find(), over


def kept_texts(outdated: Iterable[OutdatedOutput]) -> Iterator[str]:
    """Yield notes on outdated outputs, and how to remove them, one for each reason.

    >>> why = Outdated.SKIPPED
    >>> pages = [OutdatedOutput("", "", f"out/{n}", "", "", why, n > 1) for n in (1, 2)]
    >>> [text.partition(":")[0] for text in kept_texts(pages)]
    ['kept, though their step is skipped', 'edited by hand, and kept though their step is skipped']
    """
    by_why: dict[tuple[Outdated, bool, str], list[str]] = {}
    for output in outdated:
        place = output.why, output.is_edited, output.pipeline
        by_why.setdefault(place, []).append(output.name)
    for (reason, is_edited, pipeline), names in by_why.items():
        why = f"{reason} ('{pipeline}')" if pipeline else reason
        if is_edited:
            yield f"edited by hand, and kept though {why}: {listed_names(names)}"
        else:
            option = "--prune --yes" if pipeline else "--prune"
            yield f"kept, though {why}: {listed_names(names)} (`{option}` removes)"


def listed_names(names: Iterable[str]) -> str:
    return text.listed(sorted(names), 3)
