"""Remove outputs that no longer apply: files and vector rows, as `outdated_outputs` finds them.

`deletes: prune` removes what was made from a deleted source, and what its folder's items no longer
make; `--prune` removes all that is outdated. Neither removes what was edited by hand; a run counts
and names what is kept. Vector rows are outputs like files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from paddock.engine.system import no_links, text
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.folders.missing_files import is_mass_deletion
from paddock.runner.ledger.entries import Entry, StoredRow
from paddock.runner.ledger.filed_store import FiledStore
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Outdated
from paddock.runner.progress.report import ItemReport
from paddock.steps.base import OutsideRoots

from ..run_context import RunContext
from ..traces.block_work import BlockWork
from ..traces.dependencies import OutputWithin, RowsKept, dependencies_of
from ..traces.reconcile import mass_doubt
from ..traces.source_folders import DeletionDoubt
from .item_outputs import RowKeeper
from .outdated_outputs import EndedNode, OutdatedOutput, kept_texts, listed_names

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


class Pruner:
    """Removes outputs of deleted items, and all that is outdated, where that is asked."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._index = context.index
        self._stats = context.stats
        self._prunes = context.options.prune
        self._row_keeper = RowKeeper(context)

    async def handle_gone(self, work: BlockWork, done: Collection[int]) -> Sequence[Entry]:
        """Handle items whose source is gone, as the watch on their folder says.

        `done` are the indexes of items whose result stands. Return the entries that are handled;
        the ledger marks them as gone.
        """
        missing, ledger, entries = work.missing, self._context.ledger, list[Entry]()
        renamed = {
            item.renamed_from: item.key
            for item in work.items
            if item.renamed_from is not None and item.index in done
        }
        prunes = self._prunes or any(source.prunes for source in missing.sources)
        doomed = [entry for entry in missing.deleted if prunes or entry.key in renamed]
        dropped = missing.dropped if self._prunes else ()  # `where` leaves outputs where they are
        keys = sorted(missing.pruned)
        pruned = (
            (*(await ledger.ask(ledger.entries, work.scope_id, keys)).values(),) if keys else ()
        )
        none: Mapping[str, str] = {}
        for handled, removed, names, why in (
            (missing.deleted, doomed, renamed, Outdated.GONE),
            (missing.dropped, dropped, none, Outdated.EXCLUDED),
            (pruned, pruned, none, Outdated.GONE),
        ):
            if handled:
                removal = await self._removed(work, removed)
                self._note_removal(removal, names, why)
                entries += [entry for entry in handled if not self._is_refused(entry, removal)]
        for key in missing.pruned - ({entry.key for entry in pruned} - {e.key for e in entries}):
            FiledStore(ledger).drop(work.scope_id, key)
        for doubt in work.missing.doubts:
            self.doubt(work, doubt)
        for entry in entries:
            gone = replace(entry, gone=self._stats.run)
            self._context.ledger.record(work.scope_id, gone, self._stats.run)
        return entries

    def doubt(self, work: BlockWork, doubt: DeletionDoubt) -> None:
        """Report why documents do not count as deleted."""
        words = str(doubt.reason)
        self._stats.note(words)
        shown = work.shown_key(doubt.folder)
        self._stats.item(ItemReport(work.block.id, shown, ItemState.MISSING, error=words))

    async def sweep(
        self, outdated: Sequence[OutdatedOutput], ended: Mapping[str, EndedNode]
    ) -> None:
        """Remove outdated outputs where that is asked; count and name those that are kept."""
        doomed: list[OutdatedOutput] = []
        for node in ("", *ended):
            of_node = [output for output in outdated if output.node == node]
            doomed += self._doomed(of_node, ended.get(node))
        by_why: dict[Outdated, list[OutdatedOutput]] = {}
        for output in doomed:
            by_why.setdefault(output.why, []).append(output)
        for why, outputs in by_why.items():
            files = [(out.scope, out.key, out.stored) for out in outputs if out.n_rows is None]
            removal = await asyncio.to_thread(self._remove_all, files, is_outdated=True)
            rows = [
                StoredRow(out.scope, out.stored, out.key, "", out.n_rows)
                for out in outputs
                if out.n_rows is not None
            ]
            removal.rows, refused = await self._row_keeper.forget_rows(rows)
            removal.refused |= refused
            self._note_removal(removal, {}, why)
        removed = set(doomed)
        kept = [output for output in outdated if output not in removed]
        keeps = (output for output in outdated if output not in removed or output.is_edited)
        self._stats.keeps({output.name: output.why for output in keeps})
        for note in kept_texts(kept):
            self._stats.note(note)

    def _doomed(
        self, outdated: Sequence[OutdatedOutput], end: EndedNode | None
    ) -> Sequence[OutdatedOutput]:
        """Return which outdated outputs of a top-level step or block are to be removed."""
        work = None if end is None else end.work
        if end is None or work is None or work.step is not None:
            return outdated if self._prunes else ()
        if not self._prunes:
            # Those of renamed items, and where the watch on their folder says so, of others
            most = min((src.most for src in work.missing.sources if src.prunes), default=None)
            lost = {
                output.item for output in outdated if output.why == Outdated.NOT_MADE
            } - end.writing
            n_lost, n_known = len(lost), len(end.done)
            is_sure = self._context.options.is_confirmed
            if most is not None and not is_sure and is_mass_deletion(n_lost, n_known, most):
                self._stats.note(
                    f"{n_lost:,} of {n_known:,} items of '{work.block.id}' no longer make any "
                    "output, so what was made of them is kept. If that is right, run it with "
                    "`--prune`."
                )
                most = None
            whys = () if most is None else (Outdated.ELSEWHERE, Outdated.NOT_MADE)
            moved = end.renamed & end.gone.keys()
            return [output for output in outdated if output.why in whys or output.item in moved]
        # Why outputs of documents that went earlier are kept: a person is asked first
        now = {entry.key for entry in work.missing.deleted}
        n_gone = len({output.item for output in outdated if output.why == Outdated.GONE} - now)
        n_known = len(work.items) + n_gone
        doubt = mass_doubt(work.missing.sources, n_gone, n_known, self._context.options)
        if doubt is not None:
            self.doubt(work, doubt)
        return [output for output in outdated if doubt is None or output.why != Outdated.GONE]

    async def _removed(self, work: BlockWork, entries: Sequence[Entry]) -> _Removal:
        files = [
            file
            for entry in entries
            for file in self._made(work.block, work.scope_id, entry, (*work.outer, entry.key))
        ]
        removal = await asyncio.to_thread(self._remove_all, files)
        kept = (rows for entry in entries for rows in dependencies_of(entry, RowsKept))
        removal.rows, refused = await self._row_keeper.forget_rows(
            [StoredRow(rows.scope, rows.store, rows.key, "", 0) for rows in kept]
        )
        removal.refused |= refused
        return removal

    def _is_refused(self, entry: Entry, removal: _Removal) -> bool:
        """Return whether an output of an item could not be removed, so that it is tried again."""
        stores = (rows.store for rows in dependencies_of(entry, RowsKept))
        return any(path in removal.refused for path in (*entry.output_paths, *stores))

    # --- removing

    def _made(
        self, block: BoundBlock, scope: str, entry: Entry, outer: tuple[str, ...]
    ) -> Iterator[_OutputFile]:
        """Yield the files of an item, and of the items within it."""
        for stored in entry.output_paths:
            yield scope, entry.key, stored
        for output in dependencies_of(entry, OutputWithin):
            yield output.scope, output.key, output.path
        for inner in block.body:
            if not isinstance(inner, BoundBlock):
                continue
            inner_scope = self._context.judge.scopes.id(inner.id, outer)
            for inner_entry in self._context.ledger.entries(inner_scope).values():
                yield from self._made(inner, inner_scope, inner_entry, (*outer, inner_entry.key))

    def _remove_all(self, files: Iterable[_OutputFile], *, is_outdated: bool = False) -> _Removal:
        """Remove files; without `is_outdated` only those of these items alone. Blocking."""
        removal, index = _Removal(), self._index
        for scope, key, stored in files:
            path = Path(index.absolute(stored))  # by all items that ever wrote it
            conditions = {index.condition(row.scope, stored) for row in index.rows_at(stored)}
            if conditions <= {"missing"}:
                continue
            if not (is_outdated or index.is_only_of(scope, key, stored)):
                continue
            if conditions.isdisjoint(("same", "interrupted")) or path.is_symlink():
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

    def _note_removal(
        self, removal: _Removal, renamed: Mapping[str, str], why: Outdated = Outdated.GONE
    ) -> None:
        note = self._stats.note
        self._stats.removed(len(removal.removed) + sum(removal.rows.values()))
        if renamed:
            pairs = [f"{old} → {new}" for old, new in renamed.items()]
            note(f"renamed, so what was made of them goes by the new name: {listed_names(pairs)}")
        if removal.removed:
            note(f"removed, since {why}: {listed_names(removal.removed)}")
        for store, n_rows in removal.rows.items():
            if n_rows:
                note(f"removed, since {why}: {text.counted(n_rows, 'row')} of '{store}'")
        kept = "its source is gone" if why == Outdated.GONE else why
        if removal.edited:
            note(f"edited by hand, and kept though {kept}: {listed_names(removal.edited)}")
        for stored, fault in removal.refused.items():
            note(f"'{stored}' cannot be removed ({fault}), though {kept}")
