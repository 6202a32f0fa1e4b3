"""Remove outputs that no longer apply: files and vector rows, as `outdated_outputs` finds them.

`deletes: prune` removes what was made from a deleted source, and what its folder's items no longer
make; `--prune` removes all that is outdated. Neither removes what was edited by hand; a run counts
and names what is kept. Vector rows are outputs like files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from paddock.engine.system import text
from paddock.engine.system.records import Struct, field
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.folders.missing_files import is_mass_deletion
from paddock.runner.ledger.entries import Entry, StoredRow
from paddock.runner.ledger.item_events import EventKind
from paddock.runner.ledger.output_conditions import OURS, condition_of
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Outdated
from paddock.runner.progress.report import ItemReport
from paddock.steps.base import OutsideRoots, StepError
from paddock.steps.effects import output_at

from ..run_context import RunContext
from ..run_options import RunOptions
from ..traces.block_work import BlockWork
from ..traces.dependencies import OutputWithin, RowsKept, dependencies_of
from ..traces.reconcile import mass_doubt
from ..traces.source_folders import DeletionDoubt
from .outdated_outputs import ENDED, EndedNode, OutdatedOutput, kept_texts, listed_names
from .vector_rows import forget_rows

_OutputFile = tuple[str, str, str]
"""Scope, key and stored path of a file that an item wrote."""


class _Removal(Struct):
    removed: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    """Files that a person edited, which stay."""
    refused: dict[str, str] = field(default_factory=dict)
    """Path of a file or store → why it could not be removed, or changed."""
    n_rows: dict[str, int] = field(default_factory=dict)
    """Store → how many of its rows were removed."""


class Sweep(Struct, frozen=True):
    """What becomes of outdated outputs: a plan says it, a run does it."""

    removed: Sequence[OutdatedOutput]
    doubts: Sequence[tuple[BlockWork, DeletionDoubt]]
    """By block, why a person is asked first."""
    notes: Sequence[str]

    @classmethod
    def of(
        cls, outdated: Sequence[OutdatedOutput], ended: Mapping[str, EndedNode], options: RunOptions
    ) -> Sweep:
        """Decide which outdated outputs are removed.

        1. Nothing that a person edited.
        2. Rows that no step keeps, which a run drops before it begins (`clear_rows`).
        3. Of a step, or of what the pipeline no longer has: with `--prune`, all. Of a pipeline
           whose file is gone a person is asked first.
        4. Of a block with `--prune`: all; but where most documents are gone, a person is asked
           first about those that went in earlier runs.
        5. Without it: those of items that are done under another key.
        6. Where a watch prunes its folder, also rows of documents that are gone since the last
           run, and what their items no longer make, unless most items lost all they had. Files of
           these documents are `Pruner.removable`.
        """
        removed, doubts, notes = list[OutdatedOutput](), [], list[str]()
        for name in ("", *ended):
            of_node = [out for out in outdated if out.node == name]
            end = ended.get(name)
            work = None if end is None or end.work is None or end.work.step else end.work
            if end is None or work is None:  # 2, 3
                rows = (o for o in of_node if o.why is Outdated.NO_STEP and o.n_rows is not None)
                is_confirmed = options.is_confirmed
                pruned = (out for out in of_node if is_confirmed or not out.pipeline)
                removed += pruned if options.prune else rows
                continue
            sources, now = work.missing.sources, {entry.key for entry in work.missing.deleted}
            if options.prune:  # 4
                n_gone = len({out.item for out in of_node if out.why is Outdated.GONE} - now)
                doubt = mass_doubt(sources, n_gone, len(work.items) + n_gone, options)
                doubts += [] if doubt is None else [(work, doubt)]
                removed += (o for o in of_node if doubt is None or o.why is not Outdated.GONE)
                continue
            whys, rows_of = frozenset[Outdated](), set[str]()
            most = min((source.most for source in sources if source.prunes), default=None)
            if most is not None:  # 6
                rows_of = now
                lost = {o.item for o in of_node if o.why is Outdated.NOT_MADE} - end.made.keys
                n_lost, n_known = len(lost), sum(fate in ENDED for fate in end.fates.values())
                if options.is_confirmed or not is_mass_deletion(n_lost, n_known, most):
                    whys = frozenset((Outdated.ELSEWHERE, Outdated.NOT_MADE))
                else:
                    notes.append(
                        f"{n_lost:,} of {n_known:,} items of '{name}' no longer make any output, "
                        "so what was made of them is kept. If that is right, run it with `--prune`."
                    )
            for out in of_node:
                is_row_of_gone = out.n_rows is not None and out.item in rows_of
                if out.why in whys or is_row_of_gone or out.item in end.renamed:  # 5
                    removed.append(out)
        return cls([out for out in removed if not out.is_edited], doubts, notes)  # 1


class Pruner:
    """Removes outputs of deleted items, and all that is outdated, where that is asked."""

    def __init__(self, context: RunContext) -> None:
        self._context, self._index, self._stats = context, context.index, context.stats

    def _gone(
        self, work: BlockWork, renamed: Collection[str]
    ) -> Iterable[tuple[Sequence[Entry], Sequence[Entry], Outdated]]:
        """Return the items that a block's list no longer has, and those whose outputs are removed.

        1. Deleted items: where `--prune` or the watch on their folder asks for it; a renamed item
           in any case.
        2. Items that `where` excludes: with `--prune` alone.
        3. Filed items of which nothing is to be kept.
        """
        missing, ledger, prunes = work.missing, self._context.ledger, self._context.options.prune
        is_watched = any(source.prunes for source in missing.sources)
        deleted = [e for e in missing.deleted if prunes or is_watched or e.key in renamed]
        keys = sorted(missing.pruned)
        filed = [*ledger.entries(work.scope_id, keys).values()] if keys else []
        return (
            (missing.deleted, deleted, Outdated.GONE),  # 1
            (missing.dropped, missing.dropped if prunes else (), Outdated.EXCLUDED),  # 2
            (filed, filed, Outdated.GONE),  # 3
        )

    async def removable(self, work: BlockWork, done: Collection[int]) -> Mapping[str, Outdated]:
        """Return the stored paths of files that `handle_gone` would remove, and why."""
        found = dict[str, Outdated]()
        for _, doomed, why in self._gone(work, _renamed(work, done)):
            for file in self._files(work, doomed):
                scope_id, _, stored = file
                condition = await asyncio.to_thread(condition_of, self._index, scope_id, stored)
                if condition in OURS and self._index.is_only_of(*file):
                    found[stored] = why
        return found

    async def handle_gone(self, work: BlockWork, done: Collection[int]) -> Sequence[Entry]:
        """Remove outputs of items that a block's list no longer has; return entries marked as gone.

        `done` are the indexes of items whose result stands. An item of which an output cannot be
        removed stays as it is: the next run tries again. Why documents do not count as deleted is
        reported.
        """
        missing, ledger = work.missing, self._context.ledger
        renamed = _renamed(work, done)
        if renamed:
            pairs = listed_names(f"{old} → {new}" for old, new in renamed.items())
            self._stats.note(f"renamed, so what was made of them goes by the new name: {pairs}")
        handled, refused = list[Entry](), set[str]()
        for entries, doomed, why in self._gone(work, renamed):
            if entries:
                refused |= await self._remove_outputs(work, doomed, why)
                handled += [entry for entry in entries if entry.key not in refused]
        for doubt in missing.doubts:
            self._report(work, doubt)
        for entry in handled:
            ledger.append(EventKind.GONE, work.scope_id, entry.key, self._stats.run)
        return handled

    def _report(self, work: BlockWork, doubt: DeletionDoubt) -> None:
        message, shown = str(doubt.reason), work.shown_key(doubt.folder)
        self._stats.note(message)
        self._stats.item(ItemReport(work.block.id, shown, ItemState.MISSING, error=message))

    async def sweep(
        self, outdated: Sequence[OutdatedOutput], ended: Mapping[str, EndedNode]
    ) -> None:
        """Remove outdated outputs where that is asked; count and name those that are kept."""
        sweep, stuck = Sweep.of(outdated, ended, self._context.options), set[str]()
        for why in dict.fromkeys(out.why for out in sweep.removed):
            outputs = [out for out in sweep.removed if out.why is why]
            files = [(out.scope_id, out.key, out.stored) for out in outputs if out.n_rows is None]
            stores = (out for out in outputs if out.n_rows is not None)
            rows = [StoredRow(out.scope_id, out.stored, out.key) for out in stores]
            removal = await self._remove(files, rows, why, is_outdated=True)
            stuck.update(removal.edited, removal.refused)
        removed = {*sweep.removed}
        kept = [out for out in outdated if out not in removed]
        keeps = (out for out in outdated if out not in removed or out.stored in stuck)
        self._stats.add_outdated({out.name: out.why for out in keeps})
        for work, doubt in sweep.doubts:
            self._report(work, doubt)
        for note in (*sweep.notes, *kept_texts(kept)):
            self._stats.note(note)

    # --- removing

    async def _remove_outputs(
        self, work: BlockWork, entries: Sequence[Entry], why: Outdated
    ) -> set[str]:
        files = self._files(work, entries)
        rows = {entry.key: dependencies_of(entry, RowsKept) for entry in entries}
        kept = (row for of_item in rows.values() for row in of_item)
        stored = [StoredRow(row.scope_id, row.store, row.key) for row in kept]
        refused = (await self._remove(files, stored, why)).refused.keys()
        return {
            entry.key
            for entry in entries
            if not refused.isdisjoint((*entry.output_paths, *(r.store for r in rows[entry.key])))
        }

    def _files(self, work: BlockWork, entries: Sequence[Entry]) -> Sequence[_OutputFile]:
        found = (
            self._files_of(work.block, work.scope_id, entry, (*work.keys_around, entry.key))
            for entry in entries
        )
        return [*chain.from_iterable(found)]

    def _files_of(
        self, block: BoundBlock, scope_id: str, entry: Entry, keys_around: tuple[str, ...]
    ) -> Iterator[_OutputFile]:
        for stored in entry.output_paths:
            yield scope_id, entry.key, stored
        for output in dependencies_of(entry, OutputWithin):
            yield output.scope_id, output.key, output.path
        for inner in block.body:
            if not isinstance(inner, BoundBlock):
                continue
            inner_id = self._context.judge.scopes.id_of(inner.id, keys_around)
            for inner_entry in self._context.ledger.entries(inner_id).values():
                yield from self._files_of(
                    inner, inner_id, inner_entry, (*keys_around, inner_entry.key)
                )

    async def _remove(
        self,
        files: Iterable[_OutputFile],
        rows: Iterable[StoredRow],
        why: Outdated,
        *,
        is_outdated: bool = False,
    ) -> _Removal:
        removal = await asyncio.to_thread(self._remove_files, files, is_outdated=is_outdated)
        removal.n_rows, refused = await forget_rows(self._context, rows)
        removal.refused |= refused
        note = self._stats.note
        self._stats.count_removed(len(removal.removed) + sum(removal.n_rows.values()))
        if removal.removed:
            note(f"removed, since {why}: {listed_names(removal.removed)}")
        for store, n_rows in removal.n_rows.items():
            if n_rows:
                note(f"removed, since {why}: {text.counted(n_rows, 'row')} of '{store}'")
        kept = "its source is gone" if why is Outdated.GONE else why
        if removal.edited:
            note(f"edited by hand, and kept though {kept}: {listed_names(removal.edited)}")
        for stored, fault in removal.refused.items():
            note(f"'{stored}' cannot be removed ({fault}), though {kept}")
        return removal

    def _remove_files(self, files: Iterable[_OutputFile], *, is_outdated: bool) -> _Removal:
        """Remove files; without `is_outdated` only those of these items alone. Blocking."""
        removal, index, roots = _Removal(), self._index, self._context.bound.roots
        for scope_id, key, stored in files:
            path = Path(index.absolute(stored))  # by all items that ever wrote it
            conditions = {condition_of(index, row.scope, stored) for row in index.rows_at(stored)}
            if conditions <= {"missing"}:
                continue
            if not (is_outdated or index.is_only_of(scope_id, key, stored)):
                continue
            if conditions.isdisjoint(OURS) or path.is_symlink():
                removal.edited.append(stored)
                continue
            try:
                kind, place = output_at(str(path))
                kind.undo(str(roots.resolve(place)) if kind.is_path else place)
            except (OSError, OutsideRoots, StepError) as error:
                removal.refused[stored] = getattr(error, "strerror", None) or str(error)
            else:
                removal.removed.append(stored)
        return removal


def _renamed(work: BlockWork, done: Collection[int]) -> Mapping[str, str]:
    items = (item for item in work.items if item.index in done)
    return {item.renamed_from: item.key for item in items if item.renamed_from is not None}
