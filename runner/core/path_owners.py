"""Which item a path belongs to: the one that wrote it, as long as that has a row.

`open_block` asks before the items of a block begin, in a run and in a plan; `claim` as a file is
written, since some paths are known only then. What goes, goes before what is written: a path is
free once the item that wrote it is deleted or left out, its step is gone or skipped, or it writes
elsewhere, by the end of this run too. Pruning keeps what was claimed in this run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from paddock.engine.errors import EngineError
from paddock.engine.system.records import Struct, field
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.bind.bound import BoundBlock, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import OutputRow, ScopeOwner
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.item_states import WHOLE, ItemState
from paddock.runner.progress.reasons import Reason, Why, quoted
from paddock.steps.base import StepError
from paddock.steps.effects import Destination

from .expected_paths import ExpectedPaths, paths_of_work, written_within
from .failures import OutputTaken
from .traces.dependencies import OutputWithin, TakenPath, current_paths, dependencies_of
from .traces.verdicts import Case, ItemVerdict

if TYPE_CHECKING:
    from paddock.runner.ledger.ledger import Ledger
    from paddock.runner.ledger.output_index import OutputIndex

    from .item_judge import Judge
    from .traces.block_work import BlockWork
    from .traces.scopes import ItemKey


class BlockPaths(Struct, frozen=True):
    """Where do the items of a block, or a step outside of blocks, write, as this run judged it?"""

    work: BlockWork
    expected: Sequence[ExpectedPaths]
    of_items: Mapping[str, Mapping[str, str]]
    """By the keys of items with work to do: by their spelling, stored paths that they write."""
    unknown: Collection[str]
    """Keys of those that may write others."""

    @classmethod
    def of(cls, judge: Judge, work: BlockWork, scope: Scope) -> BlockPaths:
        index, expected = judge.world.index, paths_of_work(judge.bound, work, scope)
        of_items = {item.key: dict[str, str]() for item in work.items if item.verdict.is_work}
        is_told = {known.step.id for known in expected}
        unknown = set[str]()
        for step in work.block.body:
            if isinstance(step, BoundStep) and step.given(Destination) is not None:
                is_late = step.id not in is_told and not step.takes_document
                unknown |= of_items.keys() if is_late else set()
        for known in expected:
            unknown |= of_items.keys() - known.texts.keys()
            for key, text in known.texts.items() if known.effect.is_claimed else ():
                stored = index.stored(text)
                of_items[key][index.normal_spelling(stored)] = stored
        return cls(work, expected, of_items, unknown)

    def takers(self, judge: Judge, scope: Scope) -> dict[str, dict[str, str]]:
        """Return by its spelling, for each path, the keys of items that would write it.

        With each, the path as it is stored. What waited for a path that is known late waits while
        that is another's.
        """
        takers, index, work = dict[str, dict[str, str]](), judge.world.index, self.work
        for item in work.items:
            if item.key in self.of_items:
                is_late = item.verdict.case is Case.WAITS
                late = dependencies_of(item.entry, TakenPath) if is_late else ()
                inner = item.scope_in(work.block, scope)
                within = written_within(work.block.body, inner, judge.bound)
                foreseen = (*(path.path for path in late), *map(index.stored, within))
                for stored in (*self.of_items[item.key].values(), *foreseen):
                    of_path = takers.setdefault(index.normal_spelling(stored), {})
                    of_path.setdefault(item.key, stored)
        return takers

    def gives_up(self, key: str, row: OutputRow, index: OutputIndex) -> bool:
        """Return whether an item leaves a path that it, or one within it, wrote."""
        missing = self.work.missing
        if key in self.of_items:
            is_known = row.scope == self.work.scope_id and key not in self.unknown
            return is_known and index.normal_spelling(row.path) not in self.of_items[key]
        gone = (*missing.deleted, *missing.dropped)
        return key in missing.pruned or any(entry.key == key for entry in gone)


class PathOwners(Struct):
    """Whose is a path now, for a run with its sub-pipelines, and who has to wait for it?"""

    names: Collection[str]
    """Of the steps and blocks of the whole pipeline."""
    making_way: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of several items only one removes what is in the way of all."""
    _judged: dict[str, BlockPaths] = field(default_factory=dict)
    """By scope."""
    _adopted: dict[ItemKey, ItemKey] = field(default_factory=dict)
    """Filed items of blocks that have another name now, under that."""
    _scopes: dict[str, Scope] = field(default_factory=dict)
    """By the steps that lead to a pipeline: what its last outermost block saw."""

    async def open_block(
        self, judge: Judge, work: BlockWork, scope: Scope, around: tuple[ItemKey, ...]
    ) -> Sequence[ExpectedPaths]:
        """Claim the paths of a block's items, and return them; let items wait for those of others.

        1. Items that are not done again keep their paths.
        2. A path that no other item wrote, or would write, is claimed. So is one whose owner the
           item is, or that it had begun to write.
        3. Of several items that would write a path without an owner, all wait.
        """
        block, index, scope_id = self._note(judge, work, scope), judge.world.index, work.scope_id
        if not around:
            self._scopes[judge.scopes.prefix] = scope
        for item in work.items:  # 1
            if item.entry is not None and not item.verdict.is_work:
                for stored in current_paths(item.entry):
                    index.claims.setdefault(index.normal_spelling(stored), (scope_id, item.key))
        blocked = dict[str, Reason]()
        for at, keys in block.takers(judge, scope).items():
            own = [(scope_id, key) for key in keys]
            writers = {(row.scope, row.key) for row in index.rows_at(at)}
            owner = index.claims.get(at)
            if owner is None and not writers <= {own[0]}:
                owner = await self._owner(judge, at, around)
            if owner is None:  # 2
                begun = [item for item in own if item in writers]
                owner = next(iter(begun or own[: len(own) == 1]), None)
            if owner in own and at in block.of_items[owner[1]]:
                index.claims[at] = owner
            for key, stored in () if owner in around else keys.items():
                if owner is None:  # 3
                    others = quoted(other for other in keys if other != key)
                    blocked.setdefault(key, Why.PATH_SHARED(stored, others))
                elif owner != (scope_id, key):
                    blocked.setdefault(key, self._taken(judge, stored, owner, scope_id))
        for item in work.items:
            if item.key in blocked:
                why = (blocked[item.key],)
                item.verdict = ItemVerdict(ItemState.BLOCKED, why, Case.WAITS)
        return block.expected

    def _note(self, judge: Judge, work: BlockWork, scope: Scope) -> BlockPaths:
        self._adopted |= {was: (work.scope_id, key) for was, key in work.filed.former.items()}
        block = self._judged[work.scope_id] = BlockPaths.of(judge, work, scope)
        return block

    async def claim(self, judge: Judge, items: tuple[ItemKey, ...], stored: str) -> None:
        """Claim a path for an item that is about to write it; `items`: those around it, and itself.

        Raises:
            OutputTaken: it is another item's.
            StepError: an item around it has written it.
        """
        own, index = items[-1], judge.world.index
        at, rows = index.normal_spelling(stored), index.rows_at(stored)
        owner = index.claims.setdefault(at, own)
        if owner == own and any((row.scope, row.key) != own for row in rows):
            owner = await self._owner(judge, at, items[:-1]) or own
        index.claims[at] = owner
        if owner != own and owner in items:
            what = f"two blocks, for '{owner[1]}', would write the same file '{stored}'."
            raise StepError(what, remedy="Make the path differ.")
        if owner != own:
            raise OutputTaken(self._taken(judge, stored, owner, own[0]))

    async def owner_of(
        self, judge: Judge, stored: str, around: tuple[ItemKey, ...]
    ) -> ItemKey | None:
        """Return the item that has a path in this run; else the one that keeps it.

        Not one of `around`, unless that has it in this run.
        """
        claimed = judge.world.index.claims.get(judge.world.index.normal_spelling(stored))
        return claimed or await self._owner(judge, stored, around)

    def gives_way(self, judge: Judge, row: OutputRow, items: tuple[ItemKey, ...]) -> bool:
        """Return whether an output that no item keeps goes for one of the last of `items`.

        It is of these, or of the last one's former name, or a watch removes such outputs.
        """
        ledger, (scope_id, key) = judge.world.ledger, items[-1]
        holder = _outermost(ledger, row)
        own, of_row = self._judged.get(scope_id), self._judged.get(row.scope)
        former = None if own is None else own.work.missing.renamed.get(key)
        sources = () if of_row is None else of_row.work.missing.sources
        is_own = {(row.scope, row.key), holder} & {*items, (scope_id, former)}
        return bool(is_own) or any(source.prunes for source in sources)

    async def _owner(
        self, judge: Judge, stored: str, around: tuple[ItemKey, ...]
    ) -> ItemKey | None:
        """Return the item that keeps a path, of those that wrote it; None: the path is free.

        Not one of `around`, which write again.
        """
        for row in judge.world.index.rows_at(stored):
            if row.size is None or row.scope not in judge.world.index.own_scopes:
                continue  # a file of the user's, or of another pipeline
            holder: ItemKey | None = (row.scope, row.key)
            if row.scope not in self._judged:
                holder = _outermost(judge.world.ledger, row)
            if holder is None or holder in around:
                continue
            if await self._keeps(judge, holder, row):
                return self._adopted.get(holder, holder)
        return None

    async def _keeps(self, judge: Judge, holder: ItemKey, row: OutputRow) -> bool:
        """Return whether an item keeps a path that it, or one within it, wrote.

        1. Not if it has no row: it is deleted, or was killed before it was recorded.
        2. Nor if it is done, and writes elsewhere.
        3. Its block, or step, is judged in this run: that tells.
        4. The pipeline lacks that, or its folders by these names: what a block took over is kept.
        5. It is yet to be opened: it is judged now, or not at all if it is skipped.
        6. It is left out this time, or not known before it runs: the item goes with its document.
        """
        ledger, scopes, (scope_id, key) = judge.world.ledger, judge.scopes, holder
        entry = ledger.entries(scope_id, [key]).get(key)
        if entry is None or entry.is_deleted:  # 1
            return False
        if entry.state in WHOLE and row.path not in current_paths(entry):  # 2
            return False
        if (judged := self._judged.get(scope_id)) is not None:  # 3
            return not judged.gives_up(key, row, judge.world.index)
        owner = _scope_owner(ledger, scope_id)
        if owner.step not in self.names or owner.folders[0].keys() != scopes.folders[0].keys():
            return holder in self._adopted  # 4
        scope = self._scopes.get(scopes.prefix, Scope.of({}))
        for node in (node for node in judge.bound.nodes if scopes.id_of(node.id) == scope_id):  # 5
            with suppress(ExpressionError, PipelineError, EngineError):
                if node.if_ is not None and not node.if_.evaluate(scope):
                    return False
                if isinstance(node, BoundBlock):
                    work = await judge.block(node, scope)
                else:
                    work = await judge.step(node, scope)
                judged = self._note(judge, work, scope)
                return not judged.gives_up(key, row, judge.world.index)
        lineage = LineageStore(ledger).of_item(scope_id, key)  # 6
        source = None if lineage is None else lineage.source
        return entry.is_filed or source is None or judge.world.is_there(source)

    def _taken(self, judge: Judge, stored: str, owner: ItemKey, scope_id: str) -> Reason:
        (scope, key), of_step = owner, ""
        if scope in self._judged:
            step, folders = self._judged[scope].work.block.id, judge.scopes.folders[:1]
        else:
            of_scope = _scope_owner(judge.world.ledger, scope)
            step, folders = of_scope.step, of_scope.folders[:1]
        if scope != scope_id:
            of_step = f" of '{step}'"
        if folders != judge.scopes.folders[:1]:
            of_step += f" in {', '.join(folders[0].values())}"
        who = f"step '{key}'" if step == key else f"item '{key}'{of_step}"
        return Why.PATH_TAKEN(stored, who)


def _scope_owner(ledger: Ledger, scope_id: str) -> ScopeOwner:
    rows = ledger.rows(queries.SCOPE, scope=scope_id)  # none: of this run, and not durable
    return ScopeOwner.of(*rows[0]) if rows else ScopeOwner(scope_id, "", "", ({},), ())


def _outermost(ledger: Ledger, row: OutputRow) -> ItemKey | None:
    """Return the outermost item within which one wrote a path; that itself if none is around it.

    None: the one around it was never recorded with it, as where a run was killed.
    """
    writer, has_outer = (row.scope, row.key), bool(_scope_owner(ledger, row.scope).outer)
    name = f"{json.dumps(row.path)}:"
    for item in ledger.rows(queries.ITEMS_THAT_READ, name=name) if has_outer else ():
        made = dependencies_of(ledger.entries(item[0], [item[1]])[item[1]], OutputWithin)
        is_within = any((out.path, out.scope_id, out.key) == (row.path, *writer) for out in made)
        if is_within and not _scope_owner(ledger, item[0]).outer:
            return item[0], item[1]
    return None if has_outer else writer
