"""What becomes of items whose source is gone, and of the files that were made of them.

`deletes: prune` of the watch on their folder removes those files, never one that somebody has
edited or that belongs to another item. Which sources are gone is decided in `sources`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from paddock.steps.roots import OutsideRoots

from . import former_outputs
from .binding.bound import BoundBlock, BoundStep
from .block_run import BlockRun
from .evidence import of_items_within
from .former_outputs import Former
from .keeping import held_by, keeping_of, rows
from .ledger.entries import Entry
from .report import ItemReport
from .sources import Doubt
from .tools import Toolbox
from .work import Work

_MOST_NAMES = 3
_GONE = "what they were made of is gone"


@dataclass(frozen=True, slots=True)
class _Made:
    """A file that an item wrote."""

    scope: str
    key: str
    stored: str


@dataclass
class _Removal:
    """What was removed, what was kept, and what could not be removed."""

    removed: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    """How many rows were removed, by store."""


class Pruning:
    """Decides for the deleted items of a block, and removes what is to be removed."""

    def __init__(self, work: Work, toolbox: Toolbox) -> None:
        self._work = work
        self._bound = toolbox.bound
        self._tally = toolbox.tally
        self._prunes = toolbox.options.prune
        self._keeping = keeping_of(toolbox)

    async def settled(self, run: BlockRun) -> Sequence[Entry]:
        """Do with items whose source is gone what the watch on their folder says.

        Return those with which nothing more is to be done; the ledger counts them as gone.
        """
        entries: list[Entry] = []
        if run.work.deleted:
            entries += await self._finished(run)
        if run.work.dropped:
            entries += await self._left_out(run)
        for doubt in (*run.work.doubts, *await self._long_gone(run)):
            self._tally.note(doubt.text)
            shown = run.shown(doubt.folder)
            self._tally.item(ItemReport(run.block.id, shown, "missing", error=doubt.text))
        if not run.outer:
            await self._former_of_block(run)
        for entry in entries:
            gone = replace(entry, gone=self._tally.run)
            self._work.ledger.record(run.work.scope, gone, self._tally.run)
        return entries

    async def _finished(self, run: BlockRun) -> Sequence[Entry]:
        """Remove what was made of deleted items, or name what is left of them."""
        deleted, renamed = run.work.deleted, self._renamed(run)
        watched = any(source.watch is not None for source in run.work.missing.sources)
        if self._prunes or any(source.prunes for source in run.work.missing.sources):
            doomed = [*deleted]
        else:
            doomed = [entry for entry in deleted if entry.key in renamed]
        if not watched:
            kept = [entry for entry in deleted if entry not in doomed]
            left = await asyncio.to_thread(self._left_of, self._made_of(run, kept))
            self._tell_kept([*left, *await self._keeping.left_of(kept)])
        removal = await self._removed(run, doomed)
        self._tell(removal, renamed)
        return [entry for entry in deleted if not self._keeps(entry, removal)]

    async def _left_out(self, run: BlockRun) -> Sequence[Entry]:
        """Do with items that `where` leaves out now what the caller says: no watch removes them."""
        entries = run.work.dropped
        why = "`where` leaves out what they were made of"
        if not self._prunes:
            left = await asyncio.to_thread(self._left_of, self._made_of(run, entries))
            self._tell_kept([*left, *await self._keeping.left_of(entries)], why)
            return entries
        removal = await self._removed(run, entries)
        self._tell(removal, {}, why)
        return [entry for entry in entries if not self._keeps(entry, removal)]

    async def _former_of_block(self, run: BlockRun) -> None:
        """Remove what done items left at former paths, or say that it is there."""
        ledger, scope = self._work.ledger, run.work.scope
        entries = await ledger.ask(ledger.entries, scope)
        present = [entries[item.key] for item in run.work.items if item.key in entries]
        former = await asyncio.to_thread(
            former_outputs.of_block,
            self._work.index,
            run.block,
            self._work.bound.input_types,
            scope,
            present,
        )
        is_watched = any(source.prunes for source in run.work.missing.sources)
        # A step that writes nothing any more may be at fault: then a person decides.
        writes = {entry.key for entry in present if former_outputs.paths_now(entry)}
        await self.former(former, prunes=is_watched and all(one.key in writes for one in former))

    async def former_of_step(self, step: BoundStep, scope: str, now: Iterable[str]) -> None:
        """Do so with what a top-level step left; `now` are the paths that it writes today."""
        if not former_outputs.names_items_alone([step], self._work.bound.input_types):
            return
        now, key = set(now), step.id
        index = self._work.index
        rows = [(scope, key, row.path) for row in index.rows_of(scope, key) if row.path not in now]
        if rows:
            await self.former(await asyncio.to_thread(former_outputs.left_of, index, rows, now))

    async def former(self, former: Sequence[Former], *, prunes: bool = False) -> None:
        """Remove files at former paths where that is asked, else say that they are there."""
        if not former:
            return
        if not (prunes or self._prunes):
            self._tally.note(former_outputs.in_words(former))
            return
        removal = _Removal()
        made = [_Made(one.scope, one.key, one.stored) for one in former]
        await asyncio.to_thread(self._remove_all, made, removal)
        self._tell(removal, {}, "they are written elsewhere now")

    async def _long_gone(self, run: BlockRun) -> Sequence[Doubt]:
        """Remove what was kept of documents that earlier runs found gone, where that is asked.

        Return why it is not removed, where a person is asked first.
        """
        gone = run.work.gone
        if not gone:
            return ()
        n_left = await self._n_left(run, gone)
        n_known = len(run.work.items) + n_left
        doubt = self._work.sources.many(run.work.missing, n_left, n_known, prunes=True)
        if doubt is not None:
            return (doubt,)
        self._tell(await self._removed(run, gone), {})
        return ()

    async def _n_left(self, run: BlockRun, entries: Sequence[Entry]) -> int:
        """Return of how many items something is left, a file or rows in a store."""
        n_left = 0
        for entry in entries:
            files = await asyncio.to_thread(self._left_of, self._made_of(run, [entry]))
            n_left += bool(files or await self._keeping.left_of([entry]))
        return n_left

    async def _removed(self, run: BlockRun, entries: Sequence[Entry]) -> _Removal:
        removal = _Removal()
        await asyncio.to_thread(self._remove_all, self._made_of(run, entries), removal)
        removal.rows, refused = await self._keeping.forget(entries)
        removal.refused |= refused
        return removal

    def _made_of(self, run: BlockRun, entries: Iterable[Entry]) -> list[_Made]:
        return [
            one
            for entry in entries
            for one in self._made(run.block, run.work.scope, entry, (*run.outer, entry.key))
        ]

    def _left_of(self, made: Iterable[_Made]) -> list[str]:
        """Give which of these files are still there. Blocking: looks at each."""
        index = self._work.index
        return [
            one.stored
            for one in made
            if index.is_only_of(one.scope, one.key, one.stored)
            and index.condition(one.scope, one.stored) != "missing"
        ]

    def _renamed(self, run: BlockRun) -> dict[str, str]:
        """Give old key → new key of the documents that were renamed and are done."""
        failed = {index for index, _ in run.failed}
        return {
            item.renamed_from: item.key
            for item in run.work.items
            if item.renamed_from is not None
            and (item.index in run.ended or item.verdict.state in ("fresh", "held"))
            and item.index not in failed
        }

    def _keeps(self, entry: Entry, removal: _Removal) -> bool:
        """Tell whether something of an item could not be removed, and is tried again."""
        stores = (held.path for held in held_by(entry))
        return any(path in removal.refused for path in (*_outputs(entry), *stores))

    # --- removing

    def _made(
        self, block: BoundBlock, scope: str, entry: Entry, outer: tuple[str, ...]
    ) -> Iterator[_Made]:
        """Give what an item wrote, and what the items within it wrote for it."""
        for stored in _outputs(entry):
            yield _Made(scope, entry.key, stored)
        yield from (_Made(*made) for made in of_items_within(entry))
        for inner in _own_blocks(block):
            inner_scope = self._work.scope_id(inner.id, outer)
            for one in self._work.ledger.entries(inner_scope).values():
                yield from self._made(inner, inner_scope, one, (*outer, one.key))

    def _remove_all(self, made: Iterable[_Made], removal: _Removal) -> None:
        """Remove what is only theirs. Blocking: looks at each file."""
        for one in made:
            self._remove(one.scope, one.key, one.stored, removal)

    def _remove(self, scope: str, key: str, stored: str, removal: _Removal) -> None:
        index = self._work.index
        if not index.is_only_of(scope, key, stored):
            return
        path = Path(index.absolute(stored))
        condition = index.condition(scope, stored)
        if condition == "missing":
            return
        if condition == "edited" or path.is_symlink():
            removal.edited.append(stored)
            return
        try:
            self._bound.roots.resolve(str(path))
            path.unlink(missing_ok=True)
        except (OSError, OutsideRoots) as error:
            removal.refused[stored] = getattr(error, "strerror", None) or str(error)
        else:
            removal.removed.append(stored)

    def _tell(self, removal: _Removal, renamed: Mapping[str, str], why: str = _GONE) -> None:
        note = self._tally.note
        self._tally.removed(len(removal.removed) + sum(removal.rows.values()))
        if renamed:
            pairs = [f"{old} → {new}" for old, new in renamed.items()]
            note(f"renamed, so what was made of them goes by the new name: {_some(pairs)}")
        if removal.removed:
            note(f"removed, since {why}: {_some(removal.removed)}")
        for store, n_rows in removal.rows.items():
            if n_rows:
                note(f"removed, since {why}: {rows(n_rows)} of '{store}'")
        kept = "its source is gone" if why == _GONE else why
        if removal.edited:
            note(f"edited by hand, and kept though {kept}: {_some(removal.edited)}")
        for stored, fault in removal.refused.items():
            note(f"'{stored}' cannot be removed ({fault}), though {kept}")

    def _tell_kept(self, left: Sequence[str], why: str = _GONE) -> None:
        """Say what is left of documents that are gone, where nobody has decided about it."""
        if left:
            self._tally.note(f"kept, though {why}: {_some(left)} (`--prune` removes)")


def _own_blocks(block: BoundBlock) -> Iterable[BoundBlock]:
    """Give the blocks directly in the body of a block."""
    return (node for node in block.body if isinstance(node, BoundBlock))


def _outputs(entry: Entry) -> Sequence[str]:
    return json.loads(entry.outputs) if entry.outputs else ()


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(sorted(names)[:_MOST_NAMES])
    left = len(names) - _MOST_NAMES
    return f"{listed} and {left:,} more" if left > 0 else listed
