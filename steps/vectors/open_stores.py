"""Vector stores of a run: each path is opened once, and one writer commits in batches.

Writers queue. One batch is one commit, under the store's file lock; readers see the table as of
the last commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from paddock.engine.request import REQUEST_TEXTS
from paddock.engine.system.file_locks import LockTaken, lock_soon
from paddock.engine.system.records import Struct, field
from paddock.engine.system.tasks import run_to_end
from paddock.steps.base import EmbedModel, ItemName, SearchHit, StepError, Vector, VectorRow
from paddock.steps.item_rows import RowSum

from . import store_manifest
from .row_changes import RowsToDrop, RowsToKeep, row_owner
from .store_manifest import StoreFormat, StoreManifest, refuse_other_model
from .table_writer import PendingWrite, TableWriter
from .where_filter import ColumnKind, InvalidFilter, Where, sql_condition

if TYPE_CHECKING:
    from .lance_table import LanceTable

T = TypeVar("T")

MOST_BATCH_ITEMS, MOST_BATCH_ROWS = 64, 20_000
"""The most of one commit: it is in memory, and lost with a kill."""
LOCK_TIMEOUT_S = 120.0
"""The longest wait for another program's commit; the largest take some seconds."""
_POLL_S = 0.05


class _WaitingSearch(Struct, eq=False):
    vectors: Sequence[Vector]
    found: list[list[SearchHit]] | None = None


class _SearchQueue(Struct, eq=False):
    """Searches that may be one pass over the rows, and the turn of the one that does it."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: list[_WaitingSearch] = field(default_factory=list)

    def batch(self, search: _WaitingSearch) -> list[_WaitingSearch]:
        """Return a search and others that have nothing found, up to the texts of one request."""
        batch, n_vectors = list[_WaitingSearch](), 0
        for other in self.waiting:
            n_vectors += len(other.vectors) if other.found is None else 0
            if other is search or (other.found is None and n_vectors <= REQUEST_TEXTS):
                batch.append(other)
        return batch


class StoreWriter:
    """A store's rows, for all tasks of one process. A `TableWriter` does the blocking work.

    Methods raise `StepError` where the store cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        """`path` is absolute and without links; no link that is put there is followed."""
        self.path = path
        self._writer = TableWriter(path)
        self._turn = asyncio.Lock()
        self._waiting: list[PendingWrite] = []
        self._searches: dict[str, _SearchQueue] = {}
        """By what searches of one pass share."""

    @property
    def label(self) -> StoreFormat | None:
        return self._writer.table.label if self._writer.table is not None else None

    @property
    def sums(self) -> dict[str, RowSum]:
        return self._writer.sums

    @property
    def has_written(self) -> bool:
        return self._writer.n_commits > 0

    def content(self) -> str:
        """The digest of its content; empty without a table."""
        return self._writer.content()

    def manifest(self) -> StoreManifest | None:
        return self._writer.manifest()

    async def open(self) -> bool:
        async with self._turn:
            if self._writer.table is None:
                await run_to_end(self._writer.open)
        return self._writer.table is not None

    async def renew(self) -> None:
        """Read writes of other programs."""
        async with self._turn:
            await run_to_end(self._writer.newest_table)

    # --- writing

    async def replace(self, target: RowsToKeep, label: StoreFormat) -> int:
        pending = PendingWrite(target, label)
        self._waiting.append(pending)
        try:
            while not pending.written.done():
                async with self._turn:
                    if not pending.written.done():
                        await self._write_some()
        finally:
            if pending in self._waiting:
                self._waiting.remove(pending)
            pending.written.cancel()
        return pending.written.result()

    async def drop(self, owners: Sequence[str]) -> int:
        found = [owner for owner in owners if owner in self.sums]
        if not found or self._writer.table is None:
            return 0
        n_rows = sum(self.sums[owner].n_rows for owner in found)
        async with self._turn, self._held():
            await run_to_end(lambda: self._writer.drop([RowsToDrop(owner) for owner in found]))
        return n_rows

    async def keep_only(self, owner: str) -> None:
        """Drop rows of an owner's steps that no longer write to this store."""
        if self._writer.has_only_kept(owner):
            return
        async with self._turn, self._held():
            await run_to_end(lambda: self._writer.drop_others(owner))

    async def close(self) -> None:
        """Compact the table and write the manifest."""
        try:
            if self._writer.table is not None and self._writer.is_changed:
                async with self._turn, self._held():
                    await run_to_end(self._writer.finish)
        finally:
            self.release()

    async def _write_some(self) -> None:
        try:
            async with self._held():
                batch = self._next_batch()
                if batch:
                    await run_to_end(lambda: self._writer.write(batch))
                await asyncio.sleep(0)  # waiting tasks run first
        except StepError as error:
            for pending in self._next_batch():
                if not pending.written.done():
                    pending.written.set_exception(error)

    def _next_batch(self) -> list[PendingWrite]:
        """Take the next batch: each step of an owner once, and a limited number of rows."""
        batch: list[PendingWrite] = []
        taken: set[tuple[str, str]] = set()
        n_rows = 0
        for pending in list(self._waiting):
            name = (pending.target.owner, pending.target.step)
            n_rows += len(pending.target.rows)
            if batch and (
                name in taken or n_rows > MOST_BATCH_ROWS or len(batch) >= MOST_BATCH_ITEMS
            ):
                break
            taken.add(name)
            batch.append(pending)
            self._waiting.remove(pending)
        return batch

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as held:
            try:
                lock = self._writer.folder(is_made=True) / store_manifest.LOCK_NAME
                await held.enter_async_context(
                    lock_soon(lock, wait_s=LOCK_TIMEOUT_S, poll_s=_POLL_S, mode=None)
                )
            except LockTaken:
                raise StepError(
                    f"another program has been writing to the store '{self.path}' for "
                    f"{LOCK_TIMEOUT_S:.0f} s.",
                    remedy="Wait until it is done, then run the same command again.",
                    kind="io",
                ) from None
            except OSError as error:
                why = error.strerror or error
                raise StepError(
                    f"the store '{self.path}' cannot be written ({why}).", kind="io"
                ) from error
            yield

    # --- reading

    async def read(self, look: Callable[[LanceTable], T]) -> T:
        """Return what `look` finds in the latest version of the table."""
        table = self._writer.table
        if table is None:
            raise StepError(f"the store '{self.path}' is not there.", kind="io")

        def read_latest() -> T:
            table.renew()
            return look(table)

        try:
            return await asyncio.to_thread(read_latest)
        except StepError:  # another program may have removed the version that was being read
            return await asyncio.to_thread(read_latest)

    async def nearest(
        self, vectors: Sequence[Vector], k: int, where: Where
    ) -> list[list[SearchHit]]:
        """Search by vectors; what waits at the same moment is one pass over the rows."""
        search = _WaitingSearch(vectors)
        kind = repr((k, where))
        queue = self._searches.setdefault(kind, _SearchQueue())
        queue.waiting.append(search)
        try:
            async with queue.turn:
                if search.found is None:
                    await asyncio.sleep(0)  # items that begin together ask together
                    batch = queue.batch(search)
                    every = [vector for other in batch for vector in other.vectors]
                    hits = await self.read(
                        lambda table: table.nearest(
                            every, k, checked_condition(where, table.columns)
                        )
                    )
                    for other in batch:
                        other.found = [hits.pop(0) for _ in other.vectors]
        finally:
            queue.waiting.remove(search)
            if not queue.waiting:
                del self._searches[kind]
        assert search.found is not None
        return search.found

    async def matching(self, text: str, k: int, where: Where) -> list[SearchHit]:
        """Search by words; the index is updated first if rows have changed."""
        table = self._writer.table
        if table is None or not self.sums:
            return []
        if await self.lacks_word_index():
            async with self._turn, self._held():
                await run_to_end(lambda: self._writer.index_words(table))
        return await self.read(
            lambda table: table.matching(text, k, checked_condition(where, table.columns))
        )

    async def lacks_word_index(self) -> bool:
        if (table := self._writer.table) is None:
            return False
        return await asyncio.to_thread(self._writer.lacks_word_index, table)

    def release(self) -> None:
        self._writer.release()


_LONGEST_VECTOR = 65_536


class StoreHandle(Struct, frozen=True):
    """Implements `paddock.steps.base.VectorStore` for one model."""

    writer: StoreWriter
    model: EmbedModel
    home: Path
    requested_dimensions: int | None = None
    """As the step asks for them; None for the model's own."""

    @property
    def path(self) -> Path:
        return self.writer.path

    @property
    def dimensions(self) -> int | None:
        label = self.writer.label
        return self.requested_dimensions if label is None else label.dimensions

    @property
    def n_rows(self) -> int:
        return sum(row_sum.n_rows for row_sum in self.writer.sums.values())

    async def known(self, item: ItemName, made: str = "") -> Mapping[str, Vector]:
        owner = row_owner(item, self.path, self.home)
        if owner not in self.writer.sums:
            return {}
        return await self.writer.read(lambda table: table.vectors(owner, item.step, made))

    async def replace(self, item: ItemName, rows: Sequence[VectorRow]) -> int:
        owner = row_owner(item, self.path, self.home)
        if not rows and owner not in self.writer.sums:
            return 0
        lengths = {len(row.vector) for row in rows}
        if self.requested_dimensions:
            lengths.add(self.requested_dimensions)
        if len(lengths) > 1 or not lengths <= {*range(1, _LONGEST_VECTOR + 1)}:
            found = ", ".join(f"{length:,}" for length in sorted(lengths))
            raise StepError(f"vectors of {found} dimensions cannot be kept in one store.")
        label = StoreFormat(self.model, max(lengths, default=0))
        target = await asyncio.to_thread(RowsToKeep.of, owner, item, rows)
        return await self.writer.replace(target, label)

    async def nearest(
        self, vectors: Sequence[Vector], k: int, where: Where = None
    ) -> list[list[SearchHit]]:
        if not self.writer.sums or not vectors:
            return [[] for _ in vectors]
        assert self.writer.label is not None  # there are rows
        for n_dimensions in {len(vector) for vector in vectors}:
            refuse_other_model(self.path, self.writer.label, StoreFormat(self.model, n_dimensions))
        return await self.writer.nearest(vectors, k, where)

    async def matching(self, text: str, k: int, where: Where = None) -> list[SearchHit]:
        return await self.writer.matching(text, k, where)


class OpenStores(Struct, eq=False):
    """Implements `VectorStores` and `ItemRows`; one for a run, closed at its end."""

    _home: Path
    _note: Callable[[str], None] = lambda text: None
    _are_filled: bool = False
    """A step of the run fills stores: one that is not there yet is empty."""
    _writers: dict[Path, StoreWriter] = field(default_factory=dict)
    _manifests: dict[Path, tuple[str, StoreManifest]] = field(default_factory=dict)

    async def open(
        self, path: Path, dimensions: int | None, model: EmbedModel, *, is_new_allowed: bool = True
    ) -> StoreHandle:
        _refuse_non_store(path)
        is_known = path in self._writers
        writer = await self._writer(path)
        if writer.label is not None:
            refuse_other_model(path, writer.label, StoreFormat(model, dimensions or 0))
        elif not is_new_allowed and self._are_filled:
            if not is_known:
                self._note(f"There is no store '{path}' yet: a search in it finds nothing.")
        elif not is_new_allowed:
            remedy = "First run the step that fills it (`embed` with `store`), or correct the path."
            raise StepError(f"there is no store '{path}'.", remedy=remedy, kind="io")
        return StoreHandle(writer, model, self._home, dimensions)

    async def _writer(self, path: Path) -> StoreWriter:
        writer = self._writers.setdefault(path, StoreWriter(path))
        await writer.open()
        return writer

    # --- what stores hold

    async def probe(self, path: Path) -> None:
        """Read a store's content for `holds` and `content`; an unreadable one counts as empty."""
        if path in self._writers:
            with contextlib.suppress(StepError):  # the step that uses it reports it
                await self._writers[path].renew()
            return
        state = store_manifest.table_state(path)
        if path in self._manifests and self._manifests[path][0] == state:
            return
        self._manifests.pop(path, None)
        found = await self._found(path) if state else None
        if found is not None:
            self._manifests[path] = (state, found)

    async def _found(self, path: Path) -> StoreManifest | None:
        known = await asyncio.to_thread(store_manifest.read_manifest, path)
        if known is not None:
            return known
        writer = StoreWriter(path)
        try:
            await writer.open()
        except StepError:
            return None
        finally:
            writer.release()
        return writer.manifest()

    def holds(self, path: Path, owner: str) -> RowSum:
        if path in self._writers:
            return self._writers[path].sums.get(owner, RowSum())
        known = self._manifests.get(path)
        return RowSum() if known is None else known[1].sums.get(owner, RowSum())

    def content(self, path: Path) -> str:
        """Return the digest of a store's content; empty if there is none."""
        if path in self._writers:
            return self._writers[path].content()
        if path not in self._manifests:
            return ""
        found = self._manifests[path][1]
        return store_manifest.content_digest(found.label, found.whole)

    def owner(self, item: ItemName, path: Path) -> str:
        return row_owner(item, path, self._home)

    # --- what items no longer have

    async def keep_only(self, path: Path, item: ItemName) -> None:
        owner = self.owner(item, path)
        writer = await self._writer(path)
        await writer.keep_only(owner)

    async def remove_items(self, path: Path, items: Iterable[ItemName]) -> int:
        owners = [self.owner(item, path) for item in items]
        if not store_manifest.is_store(path):
            return 0
        writer = await self._writer(path)
        return await writer.drop(owners)

    async def close(self) -> None:
        for writer in self._writers.values():
            try:
                await writer.close()
            except StepError as error:
                if writer.has_written:  # a reader leaves nothing behind
                    self._note(f"{error}")


def checked_condition(where: Where, columns: Mapping[str, ColumnKind]) -> str:
    try:
        return sql_condition(where, columns)
    except InvalidFilter as error:
        raise StepError(f"`where`: {error}.") from error


def _refuse_non_store(path: Path) -> None:
    if store_manifest.is_store(path) or not path.exists():
        return
    if not path.is_dir():
        raise StepError(f"'{path}' is a file; a store is a folder.", remedy="Use another path.")
    own = (store_manifest.MANIFEST_NAME, store_manifest.LOCK_NAME)
    others = [entry.name for entry in path.iterdir() if not entry.name.startswith(own)]
    if others:
        raise StepError(
            f"the folder '{path}' holds other things ('{min(others)}') and is not a store.",
            remedy="Use a folder of its own for the store, such as 'index.lance'.",
        )
