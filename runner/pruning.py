"""What becomes of items whose source is gone, and of the files that were made of them.

`deletes: prune` of the watch on their folder removes those files, never one that somebody has
edited or that belongs to another item. A folder that is empty all at once may merely not be
mounted: then only what the watch itself has found gone, in two looks, is believed. Nothing below a
folder that cannot be listed counts as gone.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from paddock.pipelines.expressions import ExpressionError, Value
from paddock.steps.places import nearest
from paddock.steps.roots import OutsideRoots

from .binding.bound import BoundBlock, BoundStep
from .binding.watches import PROCESSING, BoundWatch
from .block_run import BlockRun
from .evidence import of_items_within
from .keeping import held_by, keeping_of, rows
from .ledger.entries import Entry
from .tools import Toolbox
from .watch.spec import UNKNOWN
from .work import Work

_MOST_NAMES = 3


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

        Gives those with which nothing more is to be done; the ledger counts them as gone.
        """
        entries = await self._finished(run) if run.work.deleted else ()
        await self._long_gone(run)
        for entry in entries:
            gone = replace(entry, gone=self._tally.run)
            self._work.ledger.record(run.work.scope, gone, self._tally.run)
        return entries

    async def _finished(self, run: BlockRun) -> Sequence[Entry]:
        found = None if run.outer else self._watch_of(run)
        renamed = self._renamed(run)
        deleted: Sequence[Entry] = [
            entry for entry in run.work.deleted if not self._is_out_of_sight(run, entry)
        ]
        if found is not None and found[1] == found[0].root / PROCESSING:
            return ()  # documents leave a hot folder when they are done
        doomed = [entry for entry in deleted if entry.key in renamed]
        if self._prunes:
            doomed = [*deleted]
        elif found is not None and found[0].keys.deletes == "prune":
            believed = self._believed(run, *found)
            doomed += [one for one in believed if one in deleted and one not in doomed]
            self._tell_doubted(len(deleted) - len(doomed), found[0])
            deleted = doomed
        elif found is None:
            kept = [entry for entry in deleted if entry not in doomed]
            left = await asyncio.to_thread(self._left_of, self._made_of(run, kept))
            self._tell_kept([*left, *await self._keeping.left_of(kept)])
        removal = await self._removed(run, doomed)
        self._tell(removal, renamed)
        return [entry for entry in deleted if not self._keeps(entry, removal)]

    async def _long_gone(self, run: BlockRun) -> None:
        """Remove what was kept of documents that earlier runs found gone, where that is asked."""
        gone = [entry for entry in run.work.gone if not self._is_out_of_sight(run, entry)]
        if gone:
            self._tell(await self._removed(run, gone), {})

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

    # --- deciding

    def _is_out_of_sight(self, run: BlockRun, entry: Entry) -> bool:
        """Return whether an item's file may still be there, in a folder that cannot be listed."""
        folders = ((root / entry.key).parent for root in self._roots(run))
        return any(not os.access(nearest(folder), os.R_OK | os.X_OK) for folder in folders)

    def _roots(self, run: BlockRun) -> Iterator[Path]:
        """Yield the folders that a block's items were listed in."""
        for step in self._bound.nodes:
            if not isinstance(step, BoundStep) or step.uses != "files.scan":
                continue
            if ("steps", step.id) not in {path[:2] for path in run.block.over.references}:
                continue
            root = self._root(step, run)
            if root is not None:
                yield root

    def _watch_of(self, run: BlockRun) -> tuple[BoundWatch, Path] | None:
        """Give the watch on the folder that a block's items were listed in, and that folder."""
        for root in self._roots(run):
            for watch in self._bound.watches:
                if root.is_relative_to(watch.root):
                    return watch, root
        return None

    def _root(self, step: BoundStep, run: BlockRun) -> Path | None:
        try:
            text = Value.of(step.params.value.data["root"]).render(run.scope)
            return self._bound.roots.resolve(str(text))
        except (ExpressionError, OutsideRoots, OSError, RuntimeError, ValueError):
            return None

    def _believed(self, run: BlockRun, watch: BoundWatch, root: Path) -> Sequence[Entry]:
        """Give the deleted items whose source surely is gone."""
        if run.work.items:
            return run.work.deleted
        seen = self._work.ledger.watched(watch.name)
        below = root.relative_to(watch.root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        return [one for one in run.work.deleted if seen.get(prefix + one.key) == UNKNOWN]

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

    def _tell(self, removal: _Removal, renamed: Mapping[str, str]) -> None:
        note = self._tally.note
        if renamed:
            pairs = [f"{old} → {new}" for old, new in renamed.items()]
            note(f"renamed, so what was made of them goes by the new name: {_some(pairs)}")
        if removal.removed:
            note(f"removed, since what they were made of is gone: {_some(removal.removed)}")
        for store, n_rows in removal.rows.items():
            if n_rows:
                note(f"removed, since what they were made of is gone: {rows(n_rows)} of '{store}'")
        if removal.edited:
            note(f"edited by hand, and kept though its source is gone: {_some(removal.edited)}")
        for stored, why in removal.refused.items():
            note(f"'{stored}' cannot be removed ({why}), though its source is gone")

    def _tell_kept(self, left: Sequence[str]) -> None:
        """Say what is left of documents that are gone, where nobody has decided about it."""
        if left:
            self._tally.note(
                f"kept, though what they were made of is gone: {_some(left)} (`--prune` removes)"
            )

    def _tell_doubted(self, n_doubted: int, watch: BoundWatch) -> None:
        if n_doubted:
            self._tally.note(
                f"nothing is left in '{watch.keys.path}': what was made of what it held "
                f"is kept, in case something is not mounted"
            )


def _own_blocks(block: BoundBlock) -> Iterable[BoundBlock]:
    """Give the blocks directly in the body of a block."""
    return (node for node in block.body if isinstance(node, BoundBlock))


def _outputs(entry: Entry) -> Sequence[str]:
    return json.loads(entry.outputs) if entry.outputs else ()


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(sorted(names)[:_MOST_NAMES])
    left = len(names) - _MOST_NAMES
    return f"{listed} and {left:,} more" if left > 0 else listed
