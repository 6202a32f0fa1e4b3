"""The table of a store in one process: rows written and dropped, its manifest, its word index.

All of it blocks, and runs in a thread, one call at a time. Writes of other programs are read first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system.no_links import HeldFolder
from paddock.engine.system.records import Struct, field
from paddock.engine.system.tasks import resolve_future
from paddock.steps.base import StepError
from paddock.steps.extras import NEEDS_LANCEDB
from paddock.steps.item_rows import RowSum

from . import store_manifest
from .row_changes import RowChanges, RowsToDrop, RowsToKeep, row_changes
from .store_manifest import MissingTable, StoreFormat, StoreManifest, refuse_other_model

if TYPE_CHECKING:
    from .lance_table import LanceTable

_COMPACT_AFTER_COMMITS = 64
"""Compact after this many commits: a search opens the files of each."""
_KEPT_VERSIONS = 12
"""This many may be left when a run ends."""
_OLD_S, _OLD_AT_END_S = 5.0, 0.001
"""The age of versions that are dropped. A program that still reads one reads again."""


class PendingWrite(Struct, eq=False):
    target: RowsToKeep
    label: StoreFormat
    written: asyncio.Future[int] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class TableWriter:
    """Methods raise `StepError` where the store cannot be read or written."""

    def __init__(self, path: Path) -> None:
        """`path` is absolute and without links; no link that is put there is followed."""
        self.path = path
        self.table: LanceTable | None = None
        self.sums: dict[str, RowSum] = {}
        self.is_changed = False
        """Whether the manifest is older than the table."""
        self.n_commits = 0
        self._folder: HeldFolder | None = None
        self._version = -1
        self._content = (-1, "")
        self._indexed = ""
        self._kept: dict[str, dict[str, RowSum]] = {}
        """Which steps of this run have written, by owner."""

    def content(self) -> str:
        """The digest of its content; empty without a table."""
        if self._content[0] != self._version:
            known = self.manifest()
            digest = (
                "" if known is None else store_manifest.content_digest(known.label, known.whole)
            )
            self._content = (self._version, digest)
        return self._content[1]

    def manifest(self) -> StoreManifest | None:
        if self.table is None:
            return None
        return StoreManifest(self.table.label, self.sums, self._indexed)

    def folder(self, *, is_made: bool = False) -> Path:
        """Return a path of the store's folder, opened at the first call.

        Raises:
            OSError: it cannot be opened or made.
        """
        if self._folder is None:
            self._folder = HeldFolder(self.path, is_made=is_made)
        return self._folder.path

    def release(self) -> None:
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def open(self) -> None:
        try:
            place = self.folder()
            table = _tables().open(place, self.path)
        except (MissingTable, FileNotFoundError):
            return
        except OSError as error:
            raise StepError(
                f"the store '{self.path}' cannot be read ({error.strerror}).", kind="io"
            ) from error
        known = store_manifest.read_manifest(place)
        self.sums = dict(known.sums) if known is not None else table.sums()
        self._indexed = known.indexed if known is not None else ""
        self.is_changed = known is None
        self._version = table.version
        self.table = table

    def newest_table(self) -> LanceTable | None:
        if self.table is None:
            self.open()
        table = self.table
        if table is not None and table.renew() != self._version:
            self.sums = table.sums()
            self._version = table.version
            self.is_changed = True
        return table

    def write(self, batch: Sequence[PendingWrite]) -> None:
        try:
            table = self.newest_table()
            if table is None:
                place = self.folder(is_made=True)
                table = self.table = _tables().make(place, self.path, batch[0].label)
                self.sums, self._version = {}, table.version
            for pending in batch:
                refuse_other_model(self.path, table.label, pending.label)
            targets = [pending.target for pending in batch]
            owners = {target.owner for target in targets} & self.sums.keys()
            made = row_changes(targets, table.known(owners) if owners else ())
            self._commit(table, made)
            n_written: dict[tuple[str, str], int] = {}
            for target, _ in made.put:
                name = (target.owner, target.step)
                n_written[name] = n_written.get(name, 0) + 1
            for pending in batch:
                target = pending.target
                self._kept.setdefault(target.owner, {})[target.step] = RowSum.of(
                    kept.print for kept in target.rows
                )
                resolve_future(pending.written, n_written.get((target.owner, target.step), 0))
        except StepError as error:
            if len(batch) == 1 or error.is_fatal:
                for pending in batch:
                    resolve_future(pending.written, error)
                return
            for pending in batch:
                self.write([pending])
        except BaseException as error:
            for pending in batch:
                resolve_future(pending.written, error)
            raise

    def _commit(self, table: LanceTable, made: RowChanges) -> None:
        if not made.put and not made.drop:
            return
        table.commit(made)
        for owner, whole in made.sums.items():
            if whole.n_rows:
                self.sums[owner] = whole
            else:
                self.sums.pop(owner, None)
        self.is_changed = True
        self.n_commits += 1
        if self.n_commits % _COMPACT_AFTER_COMMITS == 0:
            table.tidy(_OLD_S)
        self._version = table.version

    def drop(self, dropped: Sequence[RowsToDrop]) -> None:
        table = self.newest_table()
        if table is None or not dropped:
            return
        owners = {rows.owner for rows in dropped}
        names = {(rows.owner, rows.step) for rows in dropped}
        left: dict[str, RowSum] = dict.fromkeys(owners, RowSum())
        for row in table.known(owners):
            if names.isdisjoint({(row.owner, row.step), (row.owner, None)}):
                left[row.owner] += RowSum(int(row.print, 16), 1)
        self._commit(table, RowChanges(drop=list(dropped), sums=left))

    def has_only_kept(self, owner: str) -> bool:
        """Return whether an owner has no rows but those of steps that wrote in this run."""
        kept = self._kept.get(owner, {})
        return sum(kept.values(), RowSum()) == self.sums.get(owner, RowSum())

    def drop_others(self, owner: str) -> None:
        table = self.newest_table()
        if table is not None and owner in self.sums:
            steps = {row.step for row in table.known([owner])} - self._kept.get(owner, {}).keys()
            self.drop([RowsToDrop(owner, step) for step in sorted(steps)])

    def lacks_word_index(self, table: LanceTable) -> bool:
        is_same = table.renew() == self._version and self._indexed == self.content()
        return not (is_same and table.are_words_indexed())

    def index_words(self, table: LanceTable) -> None:
        self.newest_table()
        if self._indexed == self.content() and table.are_words_indexed():
            return  # another task has done it
        table.index_words()
        self._version = table.version
        self._indexed = self.content()
        self.is_changed = True

    def finish(self) -> None:
        table = self.newest_table()
        if table is None:
            return
        if table.n_versions() > _KEPT_VERSIONS:
            table.tidy(_OLD_AT_END_S)
            self._version = table.version
        store_manifest.write_manifest(
            self.folder(), StoreManifest(table.label, self.sums, self._indexed)
        )
        self.is_changed = False


def _tables() -> type[LanceTable]:
    try:
        from .lance_table import LanceTable
    except ImportError as error:
        raise StepError(NEEDS_LANCEDB[0], remedy=NEEDS_LANCEDB[1], is_fatal=True) from error
    return LanceTable
