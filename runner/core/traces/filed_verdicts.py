"""Verdicts on filed items: which of them stay filed, and which are items of a run again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from paddock.runner.bind.bound import BoundBlock
from paddock.runner.bind.plan_walks import steps_of
from paddock.runner.ledger.filed_store import FiledRow
from paddock.runner.progress.item_states import WHOLE, ItemState
from paddock.runner.progress.reasons import Why

from .block_work import ItemWork, JudgedRule
from .dependencies import FileRead, MovedAway, World, dependencies_of
from .filed_items import BlockFiling, FiledItems
from .verify import Case, Filing, ItemVerdict, verify_filed


@dataclass(frozen=True, slots=True)
class FiledVerdicts:
    """Decides on the filed items of one block."""

    world: World
    rule: JudgedRule
    filing: BlockFiling
    decided: Collection[str]
    """Keys of items on which a person has decided since they were filed."""
    verify: Callable[[Sequence[ItemWork]], Awaitable[None]]
    """Sets the verdicts of items, whatever is asked of edited files and of other machines."""

    async def split(
        self, items: Sequence[ItemWork], results: Collection[str]
    ) -> tuple[list[ItemWork], FiledItems]:
        """Return the items to do, or that are done, and what stays filed.

        1. What is made of results of filed items (`results`) stays done, unless a run has to do it
           again, and can: it reads and moves no file that is no longer as it was.
        2. A filed document is looked at where the rule is another one than when it was done, a
           person has decided since, or the run is forced.
        3. If it came out otherwise by this very rule before, it would again.
        4. It is an item again where it has work to do and lies as it was filed. Of several with one
           name the last one can be: the others write the same outputs.
        """
        filing, index, rule = self.filing, self.world.index, self.rule
        request, made_by = rule.request, rule.made_by
        if not (results or filing.rows):
            return [*items], FiledItems()
        own, done, earlier = list[ItemWork](), dict[str, FiledRow](), set[str]()
        by_all = {index.stored(index.absolute(path)) for path in read_by_all(rule.block)}
        for item in items:  # 1
            becomes, entry = Filing.AGAIN, item.entry
            if item.key in results:
                can_repeat = partial(self._can_repeat, item, by_all)
                becomes = verify_filed(item.verdict, item.unchanged_entry is not None, can_repeat)
            if becomes is Filing.AGAIN or entry is None:
                own.append(item)
                continue
            row = FiledRow(item.key, item.key, returns=entry.returns)
            done[item.key] = row._replace(returns_object=entry.returns_object)
            earlier |= {item.key} if becomes is Filing.EARLIER else set()
        present = {item.key for item in own}
        rows = {key: row for key, row in filing.rows.items() if key not in present}
        new = {key: row for key, row in filing.new.items() if key not in present}
        doubtful = [  # 2
            row
            for row in rows.values()
            if row.path and request.asks_for(row.key)
            if request.is_forced or row.made_by != made_by or row.key in self.decided
        ]
        keys = [row.key for row in doubtful]
        entries = await index.ledger.ask(index.ledger.entries, rule.scope_id, keys) if keys else {}
        again, unverified = list[ItemWork](), list[ItemWork]()
        for row in doubtful:
            document, entry = filing.described(row), entries.get(row.key)
            item = ItemWork(0, row.key, document, entry=entry, filed=row)
            rule.set_parts(item, document, index.stored, is_listed=False)
            again.append(item)
            is_known = row.outdated_by == made_by and (entry is None or entry.state in WHOLE)
            if is_known and not request.is_forced and row.key not in self.decided:  # 3
                item.verdict = ItemVerdict(ItemState.STALE, (Why.EARLIER_VERSION(),), Case.PARTS)
            else:
                unverified.append(item)
        if unverified:
            await self.verify(unverified)
        by_age = sorted(rows.values(), key=lambda row: (len(row.key), row.key)) if again else ()
        last_of_name = {row.name: row.key for row in by_age if row.name not in present}
        found = await asyncio.to_thread(self._of_documents, again, {*last_of_name.values()})
        for item, (becomes, row) in zip(again, found, strict=True):
            if becomes is Filing.AGAIN:  # 4
                filing.names[row.key] = row.name
                own.append(item)
                continue
            earlier |= {row.key} if becomes is Filing.EARLIER else set()
            if row != rows[row.key]:
                rows[row.key] = new[row.key] = row
        away = await asyncio.to_thread(filing.away)
        return own, FiledItems(
            rows=rows | done,
            new=tuple(new.values()),
            earlier=frozenset(earlier),
            away=away.difference(item.key for item in own),
            taken_over=tuple(filing.taken_over),
        )

    def _can_repeat(self, item: ItemWork, by_all: Collection[str]) -> bool:
        """Return whether a run can do an item of filed results again; `by_all`: what all read."""
        entry = item.entry
        if entry is None or entry.state not in WHOLE:
            return True
        read = (dep for dep in dependencies_of(entry, FileRead) if dep.path not in by_all)
        is_lost = any(self.world.looked_at[dep] is not None for dep in read)
        return not (is_lost or dependencies_of(entry, MovedAway))

    def _of_documents(
        self, items: Iterable[ItemWork], latest: Collection[str]
    ) -> list[tuple[Filing, FiledRow]]:
        """Return what becomes of filed documents, and their rows then. Blocking.

        `latest`: keys of those that are the last one of their name. What is an item again gets its
        document where that lies.
        """
        found = []
        for item in items:
            row = item.filed
            assert row is not None
            is_same = row.made_by == self.rule.made_by
            becomes = verify_filed(item.verdict, is_same, partial(self._find, item, row, latest))
            if becomes is Filing.EARLIER:
                row = row._replace(outdated_by=self.rule.made_by)
            elif becomes is Filing.STAYS and not is_same:
                row = row._replace(made_by=self.rule.made_by, outdated_by="")
            found.append((becomes, row))
        return found

    def _find(self, item: ItemWork, row: FiledRow, latest: Collection[str]) -> bool:
        """Set an item to its document where it lies; return whether it is as it was filed."""
        item.item = self.filing.value(row) if row.key in latest else None
        return item.item is not None


def read_by_all(block: BoundBlock) -> list[str]:
    """Return the paths that a block's steps read for each item alike."""
    constants = (step for step in steps_of(block.body) if step.params.constant is not None)
    return [path for step in constants for path in step.kind().reads(step.params.constant)]
