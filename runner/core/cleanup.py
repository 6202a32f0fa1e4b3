"""Clean up orphans: temporary files, vector rows, outputs at former paths or of deleted sources.

Vector rows are outputs like files: an item without them is stale, and they are removed with their
document. `deletes: prune` removes the files made from a deleted source, never one that was edited
by hand or belongs to another item. A former output is a file whose item writes to another path now.
Only paths that differ by the item alone count: a path that names an input, an answer or a date
belongs to another report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddock.engine.system import files, no_links, text
from paddock.pipelines.expressions import Value
from paddock.runner.bind.bound import BoundBlock, BoundPlan, BoundStep, callable_names
from paddock.runner.ledger.entries import Entry, StoredRow
from paddock.runner.ledger.lineage import LineageStore
from paddock.runner.ledger.outputs import FileCondition, OutputIndex
from paddock.runner.progress.report import ItemReport
from paddock.steps.base import ItemName, OutsideRoots, StepError

from .block_items import DeletionDoubt
from .fingerprints import HELD, ROWS, WRITTEN, nested_outputs
from .run_context import ItemOutputs, RunContext
from .staleness import BlockWork


def sweep_temporary_files(index: OutputIndex) -> int:
    """Remove stale temporary files from every folder that this pipeline wrote to; return how many.

    For the end of a run, which has written by then what the killed one was about to.
    """
    folders = {file.parent for file in index.owned()}
    return index.ledger.objects.sweep() + sum(
        len(files.remove_stale_files(folder)) for folder in sorted(folders)
    )


DONE_STATES = frozenset(("done", "skipped"))
"""States in which an item keeps only the rows of this run."""


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
            if state in DONE_STATES:
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
            else:
                now[stored] = old[stored]
        return dict(held.mark() for held in now.values())

    async def forget(self, entries: Iterable[Entry]) -> tuple[dict[str, int], dict[str, str]]:
        """Drop the rows of items; return the number dropped, and the errors, by store."""
        dropped: dict[str, int] = {}
        refused: dict[str, str] = {}
        by_path: dict[str, list[HeldRows]] = {}
        for entry in entries:
            for held in rows_held_by(entry):
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

    async def left_of(self, entries: Iterable[Entry]) -> list[str]:
        """Return which stores have rows of these items, and how many, in words."""
        several = [held for entry in entries for held in rows_held_by(entry)]
        await self._stores.look({self._path(held) for held in several})
        left: dict[str, int] = {}
        for held in several:
            if self._stores.holds(self._path(held), held.owner):
                left[held.path] = left.get(held.path, 0) + held.n_rows
        return [f"{text.counted(n_rows, 'row')} of {path}" for path, n_rows in left.items()]

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


_MOST_NAMES = 3
_OWN_STEPS = "paddock.steps."
_PATH_TYPES = ("dir", "path")
"""Input types whose values have outputs of their own."""


@dataclass(frozen=True, slots=True)
class FormerOutput:
    """A file at a path that its item no longer writes."""

    scope: str
    key: str
    stored: str
    is_edited: bool


def former_outputs_of_block(
    index: OutputIndex,
    block: BoundBlock,
    types: Mapping[str, str],
    scope: str,
    entries: Iterable[Entry],
) -> list[FormerOutput]:
    """Return the former outputs of a block's items, and of nested blocks. Blocking.

    Only of items that are done: a failed one may not have written yet. `types` are the types of
    the pipeline's inputs.
    """
    if not paths_depend_on_item_alone([block], types):
        return []
    done = [one for one in entries if one.state == "done" and not one.has_inner_failures]
    candidates = [
        one for entry in done for one in _former_outputs_of_item(index, block, scope, entry)
    ]
    if not candidates:
        return []
    return former_outputs_left(
        index, candidates, (path for entry in done for path in current_paths(entry))
    )


def paths_depend_on_item_alone(
    nodes: Iterable[BoundStep | BoundBlock],
    types: Mapping[str, str],
    own: frozenset[str] = frozenset(),
) -> bool:
    """Return whether output paths depend on nothing but the items.

    `dir` and `path` inputs may be named: the ledger has a scope for each. `own` are the variables
    of the blocks around. False for plug-in steps and sub-pipelines, where it is not known.
    """
    for node in nodes:
        if isinstance(node, BoundBlock):
            if not paths_depend_on_item_alone(node.body, types, own | {node.var, "loop"}):
                return False
        elif node.inner is not None or not node.kind.__module__.startswith(_OWN_STEPS):
            return False
        elif node.uses == "files.write":
            path = Value.of(node.params.value.data.get("path"))
            for read in path.references:
                is_place = (
                    read[0] == "inputs" and types.get(str(read[1:2] and read[1])) in _PATH_TYPES
                )
                if read[0] not in own and not is_place:
                    return False
    return True


def former_outputs_left(
    index: OutputIndex, candidates: Iterable[tuple[str, str, str]], now: Iterable[str]
) -> list[FormerOutput]:
    """Return which (scope, key, path) still exist and belong to no other item. Blocking.

    `now` are the current output paths; they are compared as files, for case-insensitive disks.
    """
    todays = set(filter(None, (files.identity(index.absolute(path)) for path in now)))
    found = []
    for scope, key, stored in candidates:
        condition = index.condition(scope, stored)
        is_alone = condition != "missing" and index.is_only_of(scope, key, stored)
        if is_alone and files.identity(index.absolute(stored)) not in todays:
            found.append(FormerOutput(scope, key, stored, condition == "edited"))
    return found


def current_paths(entry: Entry) -> set[str]:
    """Return the stored paths that an item, and those within it, last wrote or kept."""
    marks = entry.marks(WRITTEN, HELD).items()
    within = (path if mark[0] == WRITTEN else mark[1] for path, mark in marks)
    return {*entry.output_paths, *within}


def former_outputs_text(former: Collection[FormerOutput]) -> str:
    """Return a note on former outputs, and how to remove them.

    >>> one, edited = (FormerOutput("", "", f"out/{n}", n > 1) for n in (1, 2))
    >>> former_outputs_text([one, edited])
    '2 outputs at former paths remain: out/1, out/2; `paddock run --prune` removes them, but for \
the 1 that was edited'
    """
    n, n_edited = len(former), sum(one.is_edited for one in former)
    shown = _listed(one.stored for one in former)
    what = "1 output at a former path remains"
    if n > 1:
        what = f"{n:,} outputs at former paths remain"
    if n_edited == n:
        return f"{what}, edited by hand: {shown}"
    kept = f", but for the {n_edited:,} that {'was' if n_edited == 1 else 'were'} edited"
    them = "it" if n == 1 else "them"
    return f"{what}: {shown}; `paddock run --prune` removes {them}{kept if n_edited else ''}"


def _former_outputs_of_item(
    index: OutputIndex, block: BoundBlock, scope: str, entry: Entry
) -> Iterator[tuple[str, str, str]]:
    """Yield the paths of an item, and of those within it, that its entry does not name."""
    rows = list(index.rows_of(scope, entry.key))
    if not rows and not any(isinstance(node, BoundBlock) for node in block.body):
        return
    now = current_paths(entry)
    yield from ((scope, entry.key, row.path) for row in rows if row.path not in now)
    within: Mapping[tuple[str, str], None] = dict.fromkeys(
        (one_scope, key) for one_scope, key, _ in nested_outputs(entry)
    )
    for inner_scope, key in within:  # deleted items within are reported by themselves
        for row in index.rows_of(inner_scope, key):
            if row.path not in now:
                yield inner_scope, key, row.path


_SOURCE_GONE = "what they were made of is gone"


@dataclass(frozen=True, slots=True)
class _OutputFile:
    """A file that an item wrote."""

    scope: str
    key: str
    stored: str


@dataclass
class _Removal:
    """What was removed, what was kept, and what failed."""

    removed: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    """Rows removed, by store."""


class OrphanCleaner:
    """Removes the outputs of a block's deleted items, where that is asked."""

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
        for doubt in (*work.doubts, *await self._long_gone(work)):
            self._stats.note(doubt.text)
            shown = work.shown(doubt.folder)
            self._stats.item(ItemReport(work.block.id, shown, "missing", error=doubt.text))
        if not work.outer:
            await self._former_of_block(work)
        reviews = self._context.judge.reviews
        await reviews.forget(work.scope, [entry.key for entry in entries])
        for entry in entries:
            gone = replace(entry, gone=self._stats.run)
            self._context.ledger.record(work.scope, gone, self._stats.run)
        return entries

    async def _finished(self, work: BlockWork, done: Collection[int]) -> Sequence[Entry]:
        """Remove outputs of deleted items, or name those that are left."""
        deleted, renamed = work.deleted, _renamed(work, done)
        watched = any(source.watch is not None for source in work.missing.sources)
        if self._prunes or any(source.prunes for source in work.missing.sources):
            doomed = [*deleted]
        else:
            doomed = [entry for entry in deleted if entry.key in renamed]
        if not watched:
            kept = [entry for entry in deleted if entry not in doomed]
            self._tell_kept(await self._left_of(work, kept))
        removal = await self._removed(work, doomed)
        self._tell(removal, renamed)
        return [entry for entry in deleted if not self._keeps(entry, removal)]

    async def _left_out(self, work: BlockWork) -> Sequence[Entry]:
        """Handle items that `where` now leaves out; only `--prune` removes their outputs."""
        entries = work.dropped
        why = "`where` leaves out what they were made of"
        if not self._prunes:
            self._tell_kept(await self._left_of(work, entries), why)
            return entries
        removal = await self._removed(work, entries)
        self._tell(removal, {}, why)
        return [entry for entry in entries if not self._keeps(entry, removal)]

    async def _former_of_block(self, work: BlockWork) -> None:
        """Remove the former outputs of items that are done, or name them."""
        ledger, scope = self._context.ledger, work.scope
        entries = await ledger.ask(ledger.entries, scope)
        present = [entries[item.key] for item in work.items if item.key in entries]
        former = await asyncio.to_thread(
            former_outputs_of_block,
            self._index,
            work.block,
            self._context.bound.input_types,
            scope,
            present,
        )
        is_watched = any(source.prunes for source in work.missing.sources)
        # A step that no longer writes anything may be a mistake: a person decides.
        writes = {entry.key for entry in present if current_paths(entry)}
        await self.former(former, prunes=is_watched and all(one.key in writes for one in former))

    async def former_of_step(self, step: BoundStep, scope: str, now: Iterable[str]) -> None:
        """Handle the former outputs of a top-level step; `now` are its current paths."""
        if not paths_depend_on_item_alone([step], self._context.bound.input_types):
            return
        now, key = set(now), step.id
        index = self._index
        rows = [(scope, key, row.path) for row in index.rows_of(scope, key) if row.path not in now]
        if rows:
            await self.former(await asyncio.to_thread(former_outputs_left, index, rows, now))

    async def former(self, former: Sequence[FormerOutput], *, prunes: bool = False) -> None:
        """Remove former outputs where that is asked, else name them."""
        if not former:
            return
        if not (prunes or self._prunes):
            self._stats.note(former_outputs_text(former))
            return
        made = [_OutputFile(one.scope, one.key, one.stored) for one in former]
        removal = await asyncio.to_thread(self._remove_all, made)
        self._tell(removal, {}, "they are written elsewhere now")

    async def _long_gone(self, work: BlockWork) -> Sequence[DeletionDoubt]:
        """Remove outputs of documents that earlier runs found deleted, where that is asked.

        Return why they are kept, where a person is asked first.
        """
        gone = work.gone
        if not gone:
            return ()
        n_left = sum([bool(await self._left_of(work, [entry])) for entry in gone])
        n_known = len(work.items) + n_left
        doubt = self._context.judge.sources.many(work.missing, n_left, n_known, prunes=True)
        if doubt is not None:
            return (doubt,)
        self._tell(await self._removed(work, gone), {})
        return ()

    async def _removed(self, work: BlockWork, entries: Sequence[Entry]) -> _Removal:
        removal = await asyncio.to_thread(self._remove_all, self._made_of(work, entries))
        removal.rows, refused = await self._row_keeper.forget(entries)
        removal.refused |= refused
        return removal

    def _made_of(self, work: BlockWork, entries: Iterable[Entry]) -> list[_OutputFile]:
        return [
            one
            for entry in entries
            for one in self._made(work.block, work.scope, entry, (*work.outer, entry.key))
        ]

    async def _left_of(self, work: BlockWork, entries: Sequence[Entry]) -> list[str]:
        """Return which files of these items still exist, and which stores have rows of them."""
        made = self._made_of(work, entries)
        there = await asyncio.to_thread(
            lambda: [one.stored for one in made if self._condition(one) != "missing"]
        )
        return [*there, *await self._row_keeper.left_of(entries)]

    def _condition(self, one: _OutputFile) -> FileCondition:
        """Return a file's condition; `missing` where it is another item's as well. Blocking."""
        if not self._index.is_only_of(one.scope, one.key, one.stored):
            return "missing"
        return self._index.condition(one.scope, one.stored)

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
            yield _OutputFile(scope, entry.key, stored)
        yield from (_OutputFile(*made) for made in nested_outputs(entry))
        for inner in block.body:
            if not isinstance(inner, BoundBlock):
                continue
            inner_scope = self._context.judge.scope_id(inner.id, outer)
            for one in self._context.ledger.entries(inner_scope).values():
                yield from self._made(inner, inner_scope, one, (*outer, one.key))

    def _remove_all(self, made: Iterable[_OutputFile]) -> _Removal:
        """Remove files that belong to these items alone. Blocking."""
        removal = _Removal()
        for one in made:
            condition, path = self._condition(one), Path(self._index.absolute(one.stored))
            if condition == "missing":
                continue
            if condition == "edited" or path.is_symlink():
                removal.edited.append(one.stored)
                continue
            try:
                no_links.remove(self._context.bound.roots.resolve(str(path)))
            except FileNotFoundError:
                removal.removed.append(one.stored)
            except (OSError, OutsideRoots) as error:
                removal.refused[one.stored] = getattr(error, "strerror", None) or str(error)
            else:
                removal.removed.append(one.stored)
        return removal

    def _tell(self, removal: _Removal, renamed: Mapping[str, str], why: str = _SOURCE_GONE) -> None:
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
        kept = "its source is gone" if why == _SOURCE_GONE else why
        if removal.edited:
            note(f"edited by hand, and kept though {kept}: {_listed(removal.edited)}")
        for stored, fault in removal.refused.items():
            note(f"'{stored}' cannot be removed ({fault}), though {kept}")

    def _tell_kept(self, left: Sequence[str], why: str = _SOURCE_GONE) -> None:
        """Note outputs of deleted documents that nothing says how to handle."""
        if left:
            self._stats.note(f"kept, though {why}: {_listed(left)} (`--prune` removes)")


def _renamed(work: BlockWork, done: Collection[int]) -> dict[str, str]:
    """Return old key → new key of renamed documents whose result stands."""
    return {
        item.renamed_from: item.key
        for item in work.items
        if item.renamed_from is not None and item.index in done
    }


def _listed(names: Iterable[str]) -> str:
    return text.listed(sorted(names), _MOST_NAMES)
