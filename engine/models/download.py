"""Download a blob: in parallel parts, resumed where they were cut, and verified.

`sha256-…-partial` has the whole blob's length from the start, and `…-partial-0` and so on hold in
JSON what has arrived. The form is Ollama's, so either program can finish what the other began. A
state is written after its bytes, in place and always in the same length, so a process killed at
any moment leaves at worst a state that says too little. Two processes that download the same blob
share it: the second waits for the first one's lock and reports its progress.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ParamSpec, TypeVar

import httpx

from paddock.engine.errors import DigestMismatch, EngineError, StoreFull, StoreReadOnly
from paddock.engine.gguf import split_file_names

from .blobs import free_disk_bytes, store_write_errors
from .model_store import ModelStore
from .transfer import (
    DiskRanFull,
    NotEnoughDiskSpace,
    NoUsableModel,
    ProgressLine,
    ReportProgress,
    SourceChanged,
    TransferError,
)
from .transfer_client import HostAuth, TransferClient, TransferRetries, check_response, host_of

P = ParamSpec("P")
T = TypeVar("T")

# Left free for manifests, for the parts' states and for those who write there beside us.
_RESERVE_BYTES = 16 * 1024 * 1024


async def run_to_end_in_thread(do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `do` in a thread, to its end even if whoever asked is cancelled.

    So a file is never closed, and a lock never released, while a thread still writes.
    """
    work = asyncio.ensure_future(asyncio.to_thread(do, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue
        if not work.cancelled():
            work.exception()  # looked at, so that nobody is told of it later
        raise


@contextmanager
def resumable_write_errors(folder: Path) -> Iterator[None]:
    """Turn a disk that is full in the middle into an error that says that nothing is lost.

    Raises:
        RanFull: with what is free.
        StoreReadOnly: no permission, or no such disk.
    """
    try:
        with store_write_errors(folder):
            yield
    except StoreFull as error:
        raise DiskRanFull(error.path, error.free_bytes) from error


def check_disk_space(folder: Path, needed_bytes: int) -> None:
    """Look whether so much will fit, before anything is asked for.

    Raises:
        NotEnoughRoom: with both numbers.
    """
    free = free_disk_bytes(folder)
    if needed_bytes + _RESERVE_BYTES > free and needed_bytes > 0:
        raise NotEnoughDiskSpace(str(folder), needed_bytes, free)


_MAX_PARTS = 16
_STATE_BYTES = 160  # four numbers of 20 digits and their names


@dataclass(slots=True)
class BlobPart:
    """A stretch of a blob, and how much of it has arrived, from its beginning."""

    number: int
    offset: int
    size_bytes: int
    completed_bytes: int = 0

    @property
    def begins_at(self) -> int:
        """Where the next byte goes."""
        return self.offset + self.completed_bytes

    @property
    def ends_at(self) -> int:
        """The first byte that is no longer of this part."""
        return self.offset + self.size_bytes

    @property
    def is_done(self) -> bool:
        """Whether all of it has arrived."""
        return self.completed_bytes >= self.size_bytes


class PartialBlob:
    """The files of one blob that is coming. Whoever has it holds the blob's lock."""

    def __init__(self, blob: Path, total_bytes: int, min_part_bytes: int) -> None:
        self.path = blob.with_name(f"{blob.name}-partial")
        self.total_bytes = total_bytes
        self._min_part_bytes = min_part_bytes
        self.parts: list[BlobPart] = []

    @property
    def completed_bytes(self) -> int:
        """How much has arrived."""
        return sum(part.completed_bytes for part in self.parts)

    @property
    def is_done(self) -> bool:
        """Whether all has arrived, right or wrong."""
        return self.path.is_file() and all(part.is_done for part in self.parts)

    def begin(self) -> None:
        """Go on with what is there, or start anew if that does not fit together.

        Raises:
            RanFull, StoreReadOnly: the disk refuses.
        """
        found = sorted(read_part_states(self.path), key=lambda part: part.offset)
        if _cover_whole_blob(found, self.total_bytes) and _has_size(self.path, self.total_bytes):
            self.parts = found
        else:
            self.restart()

    def restart(self, *, in_one_piece: bool = False) -> None:
        """Forget what is there, and lay out the parts again.

        Raises:
            RanFull, StoreReadOnly: the disk refuses.
        """
        self.discard()
        self.parts = (
            [BlobPart(0, 0, self.total_bytes)] if in_one_piece and self.total_bytes
            else split_into_parts(self.total_bytes, self._min_part_bytes)
        )  # fmt: skip
        with resumable_write_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("wb") as file:
                file.truncate(self.total_bytes)  # a hole: it takes room only as bytes arrive
            for part in self.parts:
                self._write_state(part)

    def write(self, part: BlobPart, content: bytes) -> None:
        """Put the next bytes of a part in their place.

        Raises:
            RanFull, StoreReadOnly: the disk refuses; what was there stays.
        """
        with resumable_write_errors(self.path.parent):
            with self.path.open("r+b", buffering=0) as file:
                file.seek(part.begins_at)
                view = memoryview(content)
                while view:  # a disk that is nearly full takes a part first
                    view = view[file.write(view) :]
            part.completed_bytes += len(content)
            self._write_state(part)

    def sync(self) -> None:
        """Bring all bytes to the disk itself, before the file gets a name that vouches for them.

        Raises:
            RanFull, StoreReadOnly: the disk refuses.
        """
        with resumable_write_errors(self.path.parent), self.path.open("r+b") as file:
            os.fsync(file.fileno())

    def name(self, blob: Path) -> None:
        """Give the whole file its name, and remove the states.

        Raises:
            RanFull, StoreReadOnly: the disk refuses.
        """
        with resumable_write_errors(self.path.parent):
            self.path.replace(blob)
        self.discard()

    def discard(self) -> None:
        """Remove everything of it."""
        for path in (self.path, *_state_paths(self.path)):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _write_state(self, part: BlobPart) -> None:
        state = {
            "N": part.number,
            "Offset": part.offset,
            "Size": part.size_bytes,
            "Completed": part.completed_bytes,
        }
        handle = os.open(f"{self.path}-{part.number}", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(handle, json.dumps(state).encode().ljust(_STATE_BYTES - 1) + b"\n")
        finally:
            os.close(handle)


def split_into_parts(total_bytes: int, min_part_bytes: int) -> list[BlobPart]:
    """Cut a blob into parts: as many as can have `min_part_bytes`, and 16 at most.

    >>> [(part.offset, part.size_bytes) for part in split_into_parts(10, 4)]
    [(0, 5), (5, 5)]
    """
    n_parts = max(1, min(_MAX_PARTS, total_bytes // max(1, min_part_bytes)))
    edges = [total_bytes * n // n_parts for n in range(n_parts + 1)]
    spans = enumerate(pairwise(edges))
    return [BlobPart(n, begin, end - begin) for n, (begin, end) in spans if end > begin]


def arrived_bytes(blob: Path) -> int:
    """Return how much of a blob has arrived that perhaps another process is bringing."""
    return sum(
        part.completed_bytes for part in read_part_states(blob.with_name(f"{blob.name}-partial"))
    )


def read_part_states(partial: Path) -> Iterator[BlobPart]:
    """Read what the states say; one that cannot be read says nothing."""
    for path in _state_paths(partial):
        try:
            told = json.loads(path.read_bytes())
            part = BlobPart(*(int(told[key]) for key in ("N", "Offset", "Size", "Completed")))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if 0 <= part.completed_bytes <= part.size_bytes and path.name.endswith(f"-{part.number}"):
            yield part


def _state_paths(partial: Path) -> list[Path]:
    return [
        path
        for path in partial.parent.glob(f"{partial.name}-*")
        if path.name.removeprefix(f"{partial.name}-").isdecimal()
    ]


def _cover_whole_blob(parts: list[BlobPart], total_bytes: int) -> bool:
    """Return whether parts, sorted, follow each other without gaps to the very end."""
    at = 0
    for part in parts:
        if part.offset != at:
            return False
        at = part.ends_at
    return at == total_bytes


def _has_size(path: Path, size_bytes: int) -> bool:
    with suppress(OSError):
        return path.stat().st_size == size_bytes
    return False


_LOCK_POLL_S = 0.2


@asynccontextmanager
async def hold_store_lock(
    store: ModelStore, what: str, waiting: Callable[[], object]
) -> AsyncIterator[None]:
    """Hold the store's lock of `what`; `waiting` is called now and then until it is ours.

    Raises:
        StoreReadOnly, StoreFull: the lock's file cannot be made.
    """
    while True:
        attempt = _LockAttempt(store.lock(what, 0.0))
        try:
            await run_to_end_in_thread(attempt.enter)
        except asyncio.CancelledError:
            attempt.leave()
            raise
        if attempt.is_ours:
            break
        waiting()
        await asyncio.sleep(_LOCK_POLL_S)
    try:
        yield
    finally:
        attempt.leave()


class _LockAttempt:
    """One look at a lock."""

    def __init__(self, lock: AbstractContextManager[None]) -> None:
        self.is_ours = False
        self._lock = lock

    def enter(self) -> None:
        try:
            self._lock.__enter__()
        except (StoreReadOnly, StoreFull):
            raise
        except EngineError:
            return  # another one has it
        self.is_ours = True

    def leave(self) -> None:
        """Give it back; a single system call, so done on the event loop."""
        if self.is_ours:
            self.is_ours = False
            self._lock.__exit__(None, None, None)


_FLUSH_BYTES = 1024 * 1024
_FLUSH_S = 0.2  # a slow line's bytes are kept this often
_REPORT_EVERY_S = 0.1
_HASH_BYTES = 32 * 1024 * 1024  # of one visit to a thread, so that it can be cancelled between two

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class WantedBlob:
    """One blob that is to come."""

    url: str
    size_bytes: int
    digest: str = ""
    """`sha256:…`; empty: nobody has said it."""
    auth: HostAuth | None = None
    validator: str = ""
    """Where there is no digest: what the other side calls this very content (`If-Range`)."""

    def place(self, store: ModelStore) -> Path:
        """Return where it will lie, or beside which name its parts lie if that is not known."""
        if self.digest:
            return store.blob_path(self.digest)
        told = hashlib.sha256(f"{self.url} {self.validator} {self.size_bytes}".encode())
        return store.blob_path(f"sha256:{told.hexdigest()}")

    @property
    def label(self) -> str:
        """What the progress lines call it."""
        name = self.digest.partition(":")[2][:12] or self.url.rsplit("/", 1)[-1].partition("?")[0]
        return f"pulling {name}"


class _RangesUnsupported(Exception):
    """The server gives whole files only."""


class BlobDownload:
    """One blob's way into the store."""

    def __init__(
        self,
        connection: TransferClient,
        store: ModelStore,
        wanted: WantedBlob,
        report: ReportProgress,
    ) -> None:
        self.wanted = wanted
        self._connection = connection
        self._store = store
        self._report = report
        self._place = wanted.place(store)
        self._what = f"bringing {self._place.name}"
        self._partial = PartialBlob(
            self._place, wanted.size_bytes, connection.options.min_part_bytes
        )
        self._in_one_piece = False

    def missing_bytes(self) -> int:
        """Return what is still to come; reads the disk."""
        if self._is_there():
            return 0
        return max(0, self.wanted.size_bytes - arrived_bytes(self._place))

    async def bring(self) -> None:
        """Have every part beside the blob's name, or the blob itself.

        Raises:
            Interrupted, Unreachable, Refused, NotPublished: what arrived is kept.
            RanFull, StoreReadOnly: likewise.
        """
        async with hold_store_lock(self._store, self._what, self._report_other_process):
            if await run_to_end_in_thread(self._is_there):
                self._tell(self.wanted.size_bytes)
                return
            await run_to_end_in_thread(self._partial.begin)
            self._tell(self._partial.completed_bytes)
            telling = asyncio.create_task(self._report_until_done())
            try:
                await self._bring_parts()
            finally:
                telling.cancel()
            self._tell(self._partial.completed_bytes)

    async def settle(self) -> str:
        """Verify what came and give it its name; tells its digest.

        Raises:
            DigestMismatch: what came is removed.
        """
        while True:
            async with hold_store_lock(self._store, self._what, lambda: None):
                if await run_to_end_in_thread(self._is_there):
                    return self.wanted.digest
                await run_to_end_in_thread(self._partial.begin)
                if self._partial.is_done:
                    return await self._name()
            await self.bring()  # somebody took away what had come

    # Parts

    async def _name(self) -> str:
        digest = await self._digest()
        if self.wanted.digest and digest != self.wanted.digest.lower():
            await run_to_end_in_thread(self._partial.discard)
            raise DigestMismatch(self.wanted.digest, digest)
        await run_to_end_in_thread(self._partial.sync)
        await run_to_end_in_thread(self._partial.name, self._store.blob_path(digest))
        return digest

    async def _digest(self) -> str:
        digest = hashlib.sha256()
        with await run_to_end_in_thread(lambda: self._partial.path.open("rb")) as file:
            while piece := await run_to_end_in_thread(file.read, _HASH_BYTES):
                await run_to_end_in_thread(digest.update, piece)
        return f"sha256:{digest.hexdigest()}"

    async def _bring_parts(self) -> None:
        while not self._partial.is_done:
            try:
                await self._all_at_once()
            except _RangesUnsupported:
                if self._in_one_piece:
                    raise SourceChanged(self.wanted.url) from None
                self._in_one_piece = True
                await run_to_end_in_thread(lambda: self._partial.restart(in_one_piece=True))

    async def _all_at_once(self) -> None:
        """Let some workers take part after part; the first failure ends them all."""
        todo = deque(part for part in self._partial.parts if not part.is_done)
        n_workers = min(self._connection.options.n_parts, len(todo))
        workers = [asyncio.create_task(self._work(todo)) for _ in range(n_workers)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, todo: deque[BlobPart]) -> None:
        while todo:
            part = todo.popleft()
            retries = TransferRetries(self._host, self._connection.options, was_there=True)
            while not part.is_done:
                try:
                    await self._ask(part, retries)
                except httpx.HTTPError as error:
                    await retries.wait(error)

    async def _ask(self, part: BlobPart, retries: TransferRetries) -> None:
        """Ask once for what a part still lacks."""
        wants_all = self._in_one_piece or part.size_bytes == self.wanted.size_bytes
        if self._in_one_piece:
            part.completed_bytes = 0  # such a server always begins at the beginning
        is_whole = wants_all and part.completed_bytes == 0
        async with self._connection.open(
            "GET",
            self.wanted.url,
            headers={} if is_whole else self._range(part),
            auth=self.wanted.auth,
            is_verified=bool(self.wanted.digest),
        ) as response:
            if response.is_success:
                self._check(response, part, is_whole=is_whole)
                await self._take(response, part, retries)
            elif not await retries.wait_for(response):
                if response.status_code == 416:
                    raise self._wrong_size("less")
                await response.aread()
                check_response(response, self.wanted.url)

    def _range(self, part: BlobPart) -> dict[str, str]:
        asked = {"Range": f"bytes={part.begins_at}-{part.ends_at - 1}"}
        return {**asked, "If-Range": self.wanted.validator} if self.wanted.validator else asked

    def _check(self, response: httpx.Response, part: BlobPart, *, is_whole: bool) -> None:
        """Look whether the answer is what was asked for, before its bytes are put anywhere."""
        if response.status_code != 206:
            if not is_whole:
                raise _RangesUnsupported
            length = response.headers.get("content-length")
            if length is not None and length != str(self.wanted.size_bytes):
                raise self._wrong_size(length)
            return
        told = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        if told is None or int(told[1]) != part.begins_at:
            raise _RangesUnsupported
        if told[2] not in ("*", str(self.wanted.size_bytes)):
            raise self._wrong_size(told[2])

    def _wrong_size(self, found: str) -> TransferError:
        if not self.wanted.digest:
            return SourceChanged(self.wanted.url)
        return NoUsableModel(
            self.wanted.url,
            f"it should have {self.wanted.size_bytes} bytes, and has {found}",
        )

    async def _take(
        self, response: httpx.Response, part: BlobPart, retries: TransferRetries
    ) -> None:
        """Put an answer's bytes in their place; when it is cut, what came before is kept."""
        held = bytearray()
        kept_at = time.monotonic()
        left = part.size_bytes - part.completed_bytes
        try:
            async for piece in response.aiter_raw():
                held += piece[: left - len(held)]
                is_due = time.monotonic() - kept_at > _FLUSH_S
                if len(held) >= _FLUSH_BYTES or len(held) >= left or is_due:
                    taken, held = bytes(held), bytearray()
                    await run_to_end_in_thread(self._partial.write, part, taken)
                    left, kept_at = left - len(taken), time.monotonic()
                    self._forgive(retries)
                if left <= 0:
                    return
        finally:
            if held:
                await run_to_end_in_thread(self._partial.write, part, bytes(held))
                self._forgive(retries)
        if not part.is_done:
            raise httpx.RemoteProtocolError("the answer ended early")

    def _forgive(self, retries: TransferRetries) -> None:
        """Forget failures for what arrived, unless all of it would have to come again."""
        if not self._in_one_piece:
            retries.forgive()

    # Telling

    @property
    def _host(self) -> str:
        return host_of(httpx.URL(self.wanted.url))

    def _is_there(self) -> bool:
        return bool(self.wanted.digest) and self._store.has_blob(self.wanted.digest)

    def _report_other_process(self) -> None:
        with suppress(OSError):
            self._tell(arrived_bytes(self._place))

    async def _report_until_done(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            self._tell(self._partial.completed_bytes)

    def _tell(self, completed: int) -> None:
        total = self.wanted.size_bytes
        self._report(ProgressLine(self.wanted.label, self.wanted.digest, total, completed))


_GGUF_MAGIC = b"GGUF"
_FIRST_BYTES_RANGE = re.compile(r"bytes 0-3/(\d+)")


async def inspect_url(connection: TransferClient, url: str) -> WantedBlob:
    """Ask for the first bytes of a file, and learn from the answer how to bring the rest.

    Raises:
        NotPublished, Refused, Unreachable, Interrupted: there is nothing to bring.
        HostNotTrusted, NotEncrypted: it was not asked.
        Unusable: it is no GGUF file, or nobody says how large it is.
    """
    begins = b""

    async def once() -> httpx.Response:
        nonlocal begins
        headers = {"Range": f"bytes=0-{len(_GGUF_MAGIC) - 1}"}
        async with connection.open("GET", url, headers=headers, is_verified=False) as response:
            if not response.is_success:
                await response.aread()
                return response
            begins = b""
            async for piece in response.aiter_raw():
                begins += piece
                if len(begins) >= len(_GGUF_MAGIC):
                    break  # a server without ranges would send the whole file
            return response

    response = await connection.retried(url, once)
    check_response(response, url)
    if begins[: len(_GGUF_MAGIC)] != _GGUF_MAGIC:
        raise NoUsableModel(url, f"this is not a GGUF file (it begins with {begins[:4]!r})")
    told = _FIRST_BYTES_RANGE.match(response.headers.get("content-range", ""))
    length = told[1] if told else response.headers.get("content-length", "")
    if not length.isdecimal():
        raise NoUsableModel(url, "the server does not say how large the file is")
    return WantedBlob(url, int(length), validator=_content_validator(response))


def split_file_urls(url: str) -> list[str]:
    """Return the addresses of all files of a split model, of which one is named.

    >>> split_file_urls("https://h/a-00001-of-00002.gguf?download=true")[1]
    'https://h/a-00002-of-00002.gguf?download=true'
    """
    path, mark, query = url.partition("?")
    folder, slash, name = path.rpartition("/")
    return [f"{folder}{slash}{part}{mark}{query}" for part in split_file_names(name)]


def _content_validator(response: httpx.Response) -> str:
    """Return what changes when the file does; a weak tag may not be asked by (RFC 9110, 13.1.5)."""
    etag: str = response.headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return str(response.headers.get("last-modified", ""))
