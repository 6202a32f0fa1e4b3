"""Writer of one vector store: write queue, group commit, lock, compaction.

One writer serves all tasks of a run.

Items that arrive while another one is being written are written together, in one commit: a store
of ten thousand documents has some hundred versions, not ten thousand. Across programs a lock on
the disk lets one write at a time; reading never waits. Knows no steps and no ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from paddock.steps.base import SearchHit, StepError

from . import store_manifest
from .lance_table import LanceTable, MissingTable
from .row_changes import RowChanges, RowsToDrop, RowsToKeep, RowSum, row_changes
from .store_manifest import StoreFormat, StoreManifest, refuse_other_model

MOST_BATCH_ITEMS, MOST_BATCH_ROWS = 64, 20_000
"""So much is written in one commit at most: it is held in memory, and lost with a kill."""


@dataclass(eq=False)
class PendingWrite:
    """One wish. It is told how it ended from whichever thread; a loop owns it."""

    wish: RowsToKeep
    label: StoreFormat
    written: asyncio.Future[int] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """How many rows were written."""

    def succeed(self, n_rows: int) -> None:
        """Tell that it is written."""
        self._settle(lambda: self.written.set_result(n_rows))

    def fail(self, error: BaseException) -> None:
        """Tell why it is not."""
        self._settle(lambda: self.written.set_exception(error))

    def _settle(self, tell: Callable[[], None]) -> None:
        def told() -> None:
            if not self.written.done():
                tell()

        self.written.get_loop().call_soon_threadsafe(told)


class WriteQueue:
    """Those who wait, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: list[PendingWrite] = []

    def join(self, wish: RowsToKeep, label: StoreFormat) -> PendingWrite:
        """Wait from now on."""
        waiting = PendingWrite(wish, label)
        self._waiting.append(waiting)
        return waiting

    def leave(self, waiting: PendingWrite) -> None:
        """Wait no longer."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        waiting.written.cancel()

    def batch(self) -> list[PendingWrite]:
        """Take who is served next: a step of an owner once, and a bounded number of rows."""
        batch: list[PendingWrite] = []
        taken: set[tuple[str, str]] = set()
        n_rows = 0
        for one in list(self._waiting):
            name = (one.wish.owner, one.wish.step)
            n_rows += len(one.wish.rows)
            if batch and (
                name in taken or n_rows > MOST_BATCH_ROWS or len(batch) >= MOST_BATCH_ITEMS
            ):
                break
            taken.add(name)
            batch.append(one)
            self._waiting.remove(one)
        return batch


T = TypeVar("T")

LOCK_TIMEOUT_S = 120.0
"""The longest a commit of another program is waited for; the largest take some seconds."""
_POLL_S = 0.05
_COMPACT_AFTER_COMMITS = 64
"""After so many commits their files are put together: a search opens each of them."""
_KEPT_VERSIONS = 12
"""So many may be left when a run ends."""
_OLD_S, _OLD_AT_END_S = 5.0, 0.001
"""How old a version is that goes. Who reads it elsewhere meanwhile reads again."""


class StoreWriter:
    """A store's rows, for all tasks of one process. Its blocking work is done in threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table: LanceTable | None = None
        self._sums: dict[str, RowSum] = {}
        self._version = -1
        self._content = (-1, "")
        self._indexed = ""
        self._is_changed = False
        self._n_commits = 0
        self._kept: dict[str, dict[str, RowSum]] = {}
        """What the steps of this run keep, by owner and step."""
        self._turn = asyncio.Lock()
        self._line = WriteQueue()

    @property
    def label(self) -> StoreFormat | None:
        """Whose vectors it holds; None as long as there is no table."""
        return self._table.label if self._table is not None else None

    @property
    def sums(self) -> dict[str, RowSum]:
        """What each owner has, as far as is known."""
        return self._sums

    @property
    def has_written(self) -> bool:
        """Whether this run has changed it."""
        return self._n_commits > 0

    def content(self) -> str:
        """Name what it holds; empty as long as there is no table."""
        if self._content[0] != self._version:
            known = self.catalogue()
            said = "" if known is None else store_manifest.content_digest(known.label, known.whole)
            self._content = (self._version, said)
        return self._content[1]

    def catalogue(self) -> StoreManifest | None:
        """Return what it holds, in short; None as long as there is no table."""
        if self._table is None:
            return None
        return StoreManifest(self._table.label, self._sums, self._indexed)

    async def open(self) -> bool:
        """Open the table; tells whether there is one.

        Raises:
            StepError: it cannot be read.
        """
        async with self._turn:
            if self._table is None:
                await _run_to_end(self._open)
        return self._table is not None

    async def renew(self) -> None:
        """Take in what other programs wrote.

        Raises:
            StepError: it cannot be read.
        """
        async with self._turn:
            await _run_to_end(self._renewed)

    # --- writing

    async def replace(self, wish: RowsToKeep, label: StoreFormat) -> int:
        """Keep exactly these rows for a step of an owner; gives how many were written.

        Raises:
            StepError: it cannot be written.
        """
        waiting = self._line.join(wish, label)
        try:
            while not waiting.written.done():
                async with self._turn:
                    if not waiting.written.done():
                        await self._write_some()
        finally:
            self._line.leave(waiting)
        return waiting.written.result()

    async def drop(self, owners: Sequence[str]) -> int:
        """Drop all rows of some owners; tells how many these were."""
        found = [owner for owner in owners if owner in self._sums]
        if not found or self._table is None:
            return 0
        n_rows = sum(self._sums[owner].n_rows for owner in found)
        async with self._turn, self._held():
            await _run_to_end(lambda: self._cut([RowsToDrop(owner) for owner in found]))
        return n_rows

    async def keep_only(self, owner: str) -> None:
        """Drop what an owner's other steps kept in earlier runs, and no longer do."""
        kept = self._kept.get(owner, {})
        if sum(kept.values(), RowSum()) == self._sums.get(owner, RowSum()):
            return
        async with self._turn, self._held():
            await _run_to_end(lambda: self._cut(self._others(owner, kept)))

    async def close(self) -> None:
        """Leave it in good order: few versions, and beside the table what it holds.

        Raises:
            StepError: that cannot be written; nothing is lost by it.
        """
        if self._table is None or not self._is_changed:
            return
        async with self._turn, self._held():
            await _run_to_end(self._leave)

    async def _write_some(self) -> None:
        """Write what waits, as one commit."""
        try:
            async with self._held():
                batch = self._line.batch()
                if batch:
                    await _run_to_end(lambda: self._try(batch))
                await asyncio.sleep(0)  # who is told of its end hears it before anybody goes on
        except StepError as error:
            for one in self._line.batch():
                if not one.written.done():
                    one.written.set_exception(error)

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        """Keep other programs from writing meanwhile.

        Raises:
            StepError: one has been writing for too long, or the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / store_manifest.LOCK_NAME, thread_local=False)
        last = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=0)
                break
            except Timeout:
                if time.monotonic() > last:
                    raise StepError(
                        f"another program has been writing to the store '{self.path}' for "
                        f"{LOCK_TIMEOUT_S:.0f} s.",
                        remedy="Wait until it is done, then run the same command again.",
                        kind="io",
                    ) from None
            except OSError as error:
                raise StepError(
                    f"the store '{self.path}' cannot be written ({error.strerror or error}).",
                    kind="io",
                ) from error
            await asyncio.sleep(_POLL_S)
        try:
            yield
        finally:
            lock.release()

    # --- reading

    async def read(self, look: Callable[[LanceTable], T]) -> T:
        """Look at the table as it is now, whoever wrote it last.

        Raises:
            StepError: it cannot be read.
        """
        table = self._table
        if table is None:
            raise StepError(f"the store '{self.path}' is not there.", kind="io")
        try:
            return await asyncio.to_thread(_read_table, table, look)
        except StepError:  # another program may have dropped the version that was being read
            return await asyncio.to_thread(_read_table, table, look)

    async def matching(self, text: str, k: int, where: str) -> list[SearchHit]:
        """Search by words, which are indexed before where rows have come or gone."""
        table = self._table
        if table is None or not self._sums:
            return []
        if await asyncio.to_thread(self._lacks_index, table):
            async with self._turn, self._held():
                await _run_to_end(lambda: self._index(table))
        return await self.read(lambda table: table.matching(text, k, where))

    # --- in a thread, one at a time

    def _open(self) -> None:
        try:
            table = LanceTable.open(self.path)
        except MissingTable:
            return
        known = store_manifest.read_manifest(self.path)
        self._sums = dict(known.sums) if known is not None else table.sums()
        self._indexed = known.indexed if known is not None else ""
        self._is_changed = known is None
        self._version = table.version
        self._table = table

    def _renewed(self) -> LanceTable | None:
        """Return the table as it is now; what another program wrote is taken in."""
        if self._table is None:
            self._open()
        table = self._table
        if table is not None and table.renew() != self._version:
            self._sums = table.sums()
            self._version = table.version
            self._is_changed = True
        return table

    def _try(self, batch: Sequence[PendingWrite]) -> None:
        """Write a batch; one by one where something of it cannot be written."""
        try:
            self._write(batch)
        except StepError as error:
            if len(batch) == 1 or error.is_fatal:
                for one in batch:
                    one.fail(error)
                return
            for one in batch:
                self._try([one])
        except BaseException as error:
            for one in batch:
                one.fail(error)
            raise

    def _write(self, batch: Sequence[PendingWrite]) -> None:
        table = self._renewed() or self._made(batch[0].label)
        for one in batch:
            refuse_other_model(self.path, table.label, one.label)
        wishes = [one.wish for one in batch]
        owners = {wish.owner for wish in wishes} & self._sums.keys()
        made = row_changes(wishes, table.known(owners) if owners else ())
        self._commit(table, made)
        n_written: dict[tuple[str, str], int] = {}
        for wish, _ in made.put:
            name = (wish.owner, wish.step)
            n_written[name] = n_written.get(name, 0) + 1
        for one in batch:
            wish = one.wish
            self._kept.setdefault(wish.owner, {})[wish.step] = RowSum.of(
                kept.print for kept in wish.rows
            )
            one.succeed(n_written.get((wish.owner, wish.step), 0))

    def _made(self, label: StoreFormat) -> LanceTable:
        self._table = LanceTable.make(self.path, label)
        self._sums = {}
        self._version = self._table.version
        return self._table

    def _commit(self, table: LanceTable, made: RowChanges) -> None:
        if made.is_nothing:
            return
        table.commit(made)
        for owner, whole in made.sums.items():
            if whole.n_rows:
                self._sums[owner] = whole
            else:
                self._sums.pop(owner, None)
        self._is_changed = True
        self._n_commits += 1
        if self._n_commits % _COMPACT_AFTER_COMMITS == 0:
            table.tidy(_OLD_S)
        self._version = table.version

    def _cut(self, cuts: Sequence[RowsToDrop]) -> None:
        table = self._renewed()
        if table is None or not cuts:
            return
        owners = {cut.owner for cut in cuts}
        dropped = {(cut.owner, cut.step) for cut in cuts}
        left: dict[str, RowSum] = dict.fromkeys(owners, RowSum())
        for one in table.known(owners):
            if dropped.isdisjoint({(one.owner, one.step), (one.owner, None)}):
                left[one.owner] += RowSum(int(one.print, 16), 1)
        self._commit(table, RowChanges(drop=list(cuts), sums=left))

    def _others(self, owner: str, kept: dict[str, RowSum]) -> list[RowsToDrop]:
        table = self._renewed()
        if table is None or owner not in self._sums:
            return []
        steps = {one.step for one in table.known([owner])} - kept.keys()
        return [RowsToDrop(owner, step) for step in sorted(steps)]

    def _lacks_index(self, table: LanceTable) -> bool:
        is_same = table.renew() == self._version and self._indexed == self.content()
        return not (is_same and table.are_words_indexed())

    def _index(self, table: LanceTable) -> None:
        self._renewed()
        if self._indexed == self.content() and table.are_words_indexed():
            return  # another task has done it meanwhile
        table.index_words()
        self._version = table.version
        self._indexed = self.content()
        self._is_changed = True

    def _leave(self) -> None:
        table = self._renewed()
        if table is None:
            return
        if table.n_versions() > _KEPT_VERSIONS:
            table.tidy(_OLD_AT_END_S)
            self._version = table.version
        store_manifest.write_manifest(
            self.path, StoreManifest(table.label, self._sums, self._indexed)
        )
        self._is_changed = False


def _read_table(table: LanceTable, look: Callable[[LanceTable], T]) -> T:
    table.renew()
    return look(table)


async def _run_to_end(work: Callable[[], T]) -> T:
    """Do it in a thread, and stay until it is done: what was begun cannot be taken back."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
