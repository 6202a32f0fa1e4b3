"""Remove outputs that no longer apply: files and vector rows, as `outdated_outputs` finds them.

`deletes: prune` removes what was made from a deleted source, and what its folder's items no longer
make; `--prune` removes all that is outdated. Neither removes what was edited by hand; a run counts
and names what is kept. Vector rows are outputs like files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from paddock.engine.system import no_links, text
from paddock.engine.system.light_dataclasses import dataclass, field, replace
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.folders.missing_files import is_mass_deletion
from paddock.runner.ledger.entries import Entry, StoredRow
from paddock.runner.ledger.filed_store import FiledStore
from paddock.runner.ledger.output_index import OURS
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Outdated
from paddock.runner.progress.report import ItemReport
from paddock.steps.base import OutsideRoots

from ..run_context import RunContext
from ..traces.block_work import BlockWork
from ..traces.dependencies import OutputWithin, RowsKept, dependencies_of
from ..traces.reconcile import mass_doubt
from ..traces.source_folders import DeletionDoubt
from .outdated_outputs import ENDED, EndedNode, OutdatedOutput, kept_texts, listed_names
from .vector_rows import forget_rows

_OutputFile = tuple[str, str, str]
"""Scope, key and stored path of a file that an item wrote."""


@dataclass(slots=True)
class _Removal:
    """What became of outputs that were to be removed."""

    removed: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    """Files that a person edited, which stay."""
    refused: dict[str, str] = field(default_factory=dict)
    """Path of a file or store → why it could not be removed, or changed."""
    n_rows: dict[str, int] = field(default_factory=dict)
    """Store → how many of its rows were removed."""


class Pruner:
    """Removes outputs of deleted items, and all that is outdated, where that is asked."""

    def __init__(self, context: RunContext) -> None:
        self._context, self._index, self._stats = context, context.index, context.stats

    async def handle_gone(self, work: BlockWork, done: Collection[int]) -> Sequence[Entry]:
        """Handle what a block's list has no more; return the entries that are marked as gone.

        `done` are the indexes of items whose result stands.

        1. Outputs of deleted items are removed where `--prune` or the watch on their folder asks
           for it; those of a renamed item in any case, once it is done under its new key.
        2. Outputs of items that `where` excludes are removed with `--prune` alone.
        3. Of filed items of which nothing is to be kept, the rows go, too.
        4. An item of which an output cannot be removed stays as it is: the next run tries again.
        5. Why documents do not count as deleted is reported.
        """
        missing, ledger, prunes = work.missing, self._context.ledger, self._context.options.prune
        renamed = {
            item.renamed_from: item.key
            for item in work.items
            if item.renamed_from is not None and item.index in done
        }
        if renamed:
            pairs = listed_names(f"{old} → {new}" for old, new in renamed.items())
            self._stats.note(f"renamed, so what was made of them goes by the new name: {pairs}")
        is_watched = any(source.prunes for source in missing.sources)
        deleted = [e for e in missing.deleted if prunes or is_watched or e.key in renamed]
        keys = sorted(missing.pruned)
        filed = await ledger.ask(ledger.entries, work.scope_id, keys) if keys else {}
        handled = list[Entry]()
        for entries, doomed, why in (
            (missing.deleted, deleted, Outdated.GONE),  # 1
            (missing.dropped, missing.dropped if prunes else (), Outdated.EXCLUDED),  # 2
            ([*filed.values()], [*filed.values()], Outdated.GONE),  # 3
        ):
            if entries:
                refused = await self._remove_outputs(work, doomed, why)
                handled += [entry for entry in entries if entry.key not in refused]  # 4
        for key in missing.pruned - (filed.keys() - {entry.key for entry in handled}):
            FiledStore(ledger).drop(work.scope_id, key)
        for doubt in missing.doubts:  # 5
            self._report(work, doubt)
        for entry in handled:
            ledger.record(work.scope_id, replace(entry, gone=self._stats.run), self._stats.run)
        return handled

    def _report(self, work: BlockWork, doubt: DeletionDoubt) -> None:
        words, shown = str(doubt.reason), work.shown_key(doubt.folder)
        self._stats.note(words)
        self._stats.item(ItemReport(work.block.id, shown, ItemState.MISSING, error=words))

    async def sweep(
        self, outdated: Sequence[OutdatedOutput], ended: Mapping[str, EndedNode]
    ) -> None:
        """Remove outdated outputs where that is asked; count and name those that are kept."""
        doomed: dict[Outdated, list[OutdatedOutput]] = {}
        for node in ("", *ended):
            of_node = [output for output in outdated if output.node == node]
            for output in self._doomed(of_node, ended.get(node)):
                doomed.setdefault(output.why, []).append(output)
        for why, outputs in doomed.items():
            files = [(out.scope_id, out.key, out.stored) for out in outputs if out.n_rows is None]
            stores = (out for out in outputs if out.n_rows is not None)
            rows = [StoredRow(out.scope_id, out.stored, out.key) for out in stores]
            await self._remove(files, rows, why, is_outdated=True)
        removed = {output for outputs in doomed.values() for output in outputs}
        kept = [output for output in outdated if output not in removed]
        keeps = (output for output in outdated if output not in removed or output.is_edited)
        self._stats.add_outdated({output.name: output.why for output in keeps})
        for note in kept_texts(kept):
            self._stats.note(note)

    def _doomed(
        self, outdated: Sequence[OutdatedOutput], end: EndedNode | None
    ) -> Sequence[OutdatedOutput]:
        """Return which outdated outputs of a top-level step or block are to be removed.

        1. Those of a step, or of what the pipeline no longer has: with `--prune`, all.
        2. Those of a block with `--prune`: all; but where most documents are gone, a person is
           asked first about those that went in earlier runs.
        3. Without it: those of items that are done under another key.
        4. Where a watch prunes its folder, also those that their items no longer make, unless most
           items lost all that they had.
        """
        work, options = None if end is None else end.work, self._context.options
        if end is None or work is None or work.step is not None:  # 1
            return outdated if options.prune else ()
        sources = work.missing.sources
        if options.prune:  # 2
            now = {entry.key for entry in work.missing.deleted}
            n_gone = len({out.item for out in outdated if out.why is Outdated.GONE} - now)
            doubt = mass_doubt(sources, n_gone, len(work.items) + n_gone, options)
            if doubt is None:
                return outdated
            self._report(work, doubt)
            return [output for output in outdated if output.why is not Outdated.GONE]
        whys = frozenset[Outdated]()  # 3
        most = min((source.most for source in sources if source.prunes), default=None)
        if most is not None:  # 4
            lost = {out.item for out in outdated if out.why is Outdated.NOT_MADE} - end.made.keys
            n_lost, n_known = len(lost), sum(fate in ENDED for fate in end.fates.values())
            if options.is_confirmed or not is_mass_deletion(n_lost, n_known, most):
                whys = frozenset((Outdated.ELSEWHERE, Outdated.NOT_MADE))
            else:
                self._stats.note(
                    f"{n_lost:,} of {n_known:,} items of '{work.block.id}' no longer make any "
                    "output, so what was made of them is kept. If that is right, run it with "
                    "`--prune`."
                )
        return [output for output in outdated if output.why in whys or output.item in end.renamed]

    # --- removing

    async def _remove_outputs(
        self, work: BlockWork, entries: Sequence[Entry], why: Outdated
    ) -> set[str]:
        """Remove the outputs of items; return the keys of those of which one cannot be removed."""
        found = (
            self._files_of(work.block, work.scope_id, entry, (*work.keys_around, entry.key))
            for entry in entries
        )
        files = await self._context.ledger.ask(lambda: [*chain.from_iterable(found)])
        rows = {entry.key: dependencies_of(entry, RowsKept) for entry in entries}
        kept = (row for of_item in rows.values() for row in of_item)
        stored = [StoredRow(row.scope_id, row.store, row.key) for row in kept]
        refused = (await self._remove(files, stored, why)).refused.keys()
        return {
            entry.key
            for entry in entries
            if not refused.isdisjoint((*entry.output_paths, *(r.store for r in rows[entry.key])))
        }

    def _files_of(
        self, block: BoundBlock, scope_id: str, entry: Entry, keys_around: tuple[str, ...]
    ) -> Iterator[_OutputFile]:
        """Yield the files of an item, and of the items within it."""
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
        """Remove files and rows, and note what became of them, and why."""
        removal = await asyncio.to_thread(self._remove_files, files, is_outdated=is_outdated)
        removal.n_rows, refused = await forget_rows(self._context, rows)
        removal.refused |= refused
        note = self._stats.note
        self._stats.removed(len(removal.removed) + sum(removal.n_rows.values()))
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
        removal, index = _Removal(), self._index
        for scope_id, key, stored in files:
            path = Path(index.absolute(stored))  # by all items that ever wrote it
            conditions = {index.condition(row.scope, stored) for row in index.rows_at(stored)}
            if conditions <= {"missing"}:
                continue
            if not (is_outdated or index.is_only_of(scope_id, key, stored)):
                continue
            if conditions.isdisjoint(OURS) or path.is_symlink():
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
