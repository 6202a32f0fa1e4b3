"""Download a blob: in parallel parts, resumed where they were cut, and verified.

`sha256-…-partial` has the blob's full length from the start; `…-partial-0` and so on hold, in JSON,
the state of each part. The format is Ollama's, so either program can resume the other's download.
A state is written after its bytes, in place and always with the same length, so a process killed
at any moment leaves at worst a state with too few bytes. Of two processes that download the same
blob, the second waits for the first one's lock and reports its progress.
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
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import httpx

from paddock.engine.errors import DigestMismatch, EngineError, StoreFull, StoreReadOnly
from paddock.engine.model_file_parts import split_file_names
from paddock.engine.system.disk_space import free_disk_bytes
from paddock.engine.system.files import sync_file
from paddock.engine.system.records import Struct
from paddock.engine.system.tasks import run_to_end, running, task_group

from .blobs import store_write_errors
from .model_store import ModelStore
from .transfer import ProgressLine, ReportProgress
from .transfer_client import (
    HostAuth,
    TransferClient,
    TransferRequest,
    TransferRetries,
    host_of,
    with_body,
)
from .transfer_errors import (
    DiskRanFull,
    NotEnoughDiskSpace,
    NoUsableModel,
    SourceChanged,
    TransferError,
    check_response,
)

# Kept free for manifests, parts' states and other programs.
_RESERVE_BYTES = 16 * 1024 * 1024


@contextmanager
def resumable_write_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk into an error that says that the download can be resumed.

    Raises:
        DiskRanFull: with the free bytes.
        StoreReadOnly: no permission, or no such disk.
    """
    try:
        with store_write_errors(folder):
            yield
    except StoreFull as error:
        raise DiskRanFull(error.path, error.free_bytes) from error


def check_disk_space(folder: Path, needed_bytes: int) -> None:
    """Check the free space before a download.

    Raises:
        NotEnoughDiskSpace: with the needed and the free bytes.
    """
    free = free_disk_bytes(folder)
    if needed_bytes + _RESERVE_BYTES > free and needed_bytes > 0:
        raise NotEnoughDiskSpace(str(folder), needed_bytes, free)


_MAX_PARTS = 16
_STATE_BYTES = 160  # four numbers of 20 digits and their names


class BlobPart(Struct):
    number: int
    offset: int
    size_bytes: int
    completed_bytes: int = 0

    @property
    def begins_at(self) -> int:
        return self.offset + self.completed_bytes

    @property
    def ends_at(self) -> int:
        return self.offset + self.size_bytes

    @property
    def is_done(self) -> bool:
        return self.completed_bytes >= self.size_bytes


class PartialBlob:
    """The files of a partially downloaded blob. Its user must hold the blob's lock.

    What writes raises DiskRanFull or StoreReadOnly; earlier bytes are kept.
    """

    def __init__(self, blob: Path, total_bytes: int, min_part_bytes: int) -> None:
        self.path = blob.with_name(f"{blob.name}-partial")
        self.total_bytes = total_bytes
        self._min_part_bytes = min_part_bytes
        self.parts: list[BlobPart] = []

    @property
    def completed_bytes(self) -> int:
        return sum(part.completed_bytes for part in self.parts)

    @property
    def is_done(self) -> bool:
        return self.path.is_file() and all(part.is_done for part in self.parts)

    def begin(self) -> None:
        """Resume from the files, or start again if they are inconsistent."""
        found = sorted(read_part_states(self.path), key=lambda part: part.offset)
        begins, ends = [part.offset for part in found], [0, *(part.ends_at for part in found)]
        size_bytes = self.path.stat().st_size if self.path.is_file() else -1
        if [*begins, self.total_bytes] == ends and size_bytes == self.total_bytes:
            self.parts = found
        else:
            self.restart()

    def restart(self, *, in_one_piece: bool = False) -> None:
        self.discard()
        self.parts = (
            [BlobPart(0, 0, self.total_bytes)] if in_one_piece and self.total_bytes
            else split_into_parts(self.total_bytes, self._min_part_bytes)
        )  # fmt: skip
        with resumable_write_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("wb") as file:
                file.truncate(self.total_bytes)  # sparse: takes space only as bytes arrive
            for part in self.parts:
                self._write_state(part)

    def write(self, part: BlobPart, content: bytes) -> None:
        with resumable_write_errors(self.path.parent):
            with self.path.open("r+b", buffering=0) as file:
                file.seek(part.begins_at)
                view = memoryview(content)
                while view:  # a nearly full disk writes only a part at first
                    view = view[file.write(view) :]
            part.completed_bytes += len(content)
            self._write_state(part)

    def sync(self) -> None:
        with resumable_write_errors(self.path.parent):
            sync_file(self.path)

    def rename(self, blob: Path) -> None:
        with resumable_write_errors(self.path.parent):
            self.path.replace(blob)
        self.discard()

    def discard(self) -> None:
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
    """Split a blob into at most 16 parts of at least `min_part_bytes`.

    >>> [(part.offset, part.size_bytes) for part in split_into_parts(10, 4)]
    [(0, 5), (5, 5)]
    """
    n_parts = max(1, min(_MAX_PARTS, total_bytes // max(1, min_part_bytes)))
    edges = [total_bytes * n // n_parts for n in range(n_parts + 1)]
    spans = enumerate(pairwise(edges))
    return [BlobPart(n, begin, end - begin) for n, (begin, end) in spans if end > begin]


def arrived_bytes(blob: Path) -> int:
    """Return how many bytes of a blob have arrived, perhaps by another process."""
    return sum(
        part.completed_bytes for part in read_part_states(blob.with_name(f"{blob.name}-partial"))
    )


def read_part_states(partial: Path) -> Iterator[BlobPart]:
    for path in _state_paths(partial):
        try:
            state = json.loads(path.read_bytes())
            part = BlobPart(*(int(state[key]) for key in ("N", "Offset", "Size", "Completed")))
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


_LOCK_POLL_S = 0.2


@asynccontextmanager
async def hold_store_lock(
    store: ModelStore, what: str, on_wait: Callable[[], object]
) -> AsyncIterator[None]:
    """Hold the store's lock for `what`; `on_wait` is called regularly until it is acquired.

    Raises:
        StoreReadOnly, StoreFull: the lock file cannot be created.
    """
    with ExitStack() as stack:
        while True:
            try:
                await run_to_end(stack.enter_context, store.lock(what, 0.0))
                break
            except (StoreReadOnly, StoreFull):
                raise
            except EngineError:  # another process holds it
                on_wait()
            await asyncio.sleep(_LOCK_POLL_S)
        yield


_FLUSH_BYTES = 1024 * 1024
_FLUSH_S = 0.2  # bytes of a slow line are written this often
_REPORT_EVERY_S = 0.1
_HASH_BYTES = 32 * 1024 * 1024  # hashed at a time, so that it can be cancelled in between

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class RemoteBlob(Struct, frozen=True):
    url: str
    size_bytes: int
    digest: str = ""
    """`sha256:…`; empty: unknown."""
    auth: HostAuth | None = None
    validator: str = ""
    """Without a digest: the server's validator of this content (for `If-Range`)."""

    def place(self, store: ModelStore) -> Path:
        """Return the blob's path; without a digest, a path to name the partial files after."""
        if self.digest:
            return store.blobs.path(self.digest)
        key = hashlib.sha256(f"{self.url} {self.validator} {self.size_bytes}".encode())
        return store.blobs.path(f"sha256:{key.hexdigest()}")

    @property
    def label(self) -> str:
        name = self.digest.partition(":")[2][:12] or self.url.rsplit("/", 1)[-1].partition("?")[0]
        return f"pulling {name}"


class _ByteRange(Struct, frozen=True):
    start: int
    end: int | None
    """None: the whole file, which needs no `Range`."""

    def headers(self, validator: str) -> dict[str, str]:
        if self.end is None:
            return {}
        headers = {"Range": f"bytes={self.start}-{self.end - 1}"}
        return headers | ({"If-Range": validator} if validator else {})


class _RangesUnsupported(Exception):
    """The server ignores `Range`."""


class BlobDownload:
    def __init__(
        self,
        connection: TransferClient,
        store: ModelStore,
        blob: RemoteBlob,
        report: ReportProgress,
    ) -> None:
        self.blob = blob
        self._connection = connection
        self._store = store
        self._report = report
        self._place = blob.place(store)
        self._what = f"downloading {self._place.name}"
        self._partial = PartialBlob(self._place, blob.size_bytes, connection.options.min_part_bytes)
        self._in_one_piece = False

    def missing_bytes(self) -> int:
        return 0 if self._is_stored() else max(0, self.blob.size_bytes - arrived_bytes(self._place))

    async def fetch(self) -> None:
        """Download all parts, unless the blob is already in the store.

        Raises:
            TransferInterrupted, HostUnreachable, TransferRefused, NotPublished: what arrived is
                kept.
            DiskRanFull, StoreReadOnly: what arrived is kept.
        """
        async with hold_store_lock(self._store, self._what, self._report_other_process):
            if await run_to_end(self._is_stored):
                self._report_bytes(self.blob.size_bytes)
                return
            await run_to_end(self._partial.begin)
            self._report_bytes(self._partial.completed_bytes)
            async with running(self._report_until_done()):
                await self._fetch_parts()
            self._report_bytes(self._partial.completed_bytes)

    async def finish(self) -> str:
        """Verify the parts and rename them to the blob; return its digest.

        Raises:
            DigestMismatch: the file was removed.
        """
        while True:
            async with hold_store_lock(self._store, self._what, lambda: None):
                if await run_to_end(self._is_stored):
                    return self.blob.digest
                await run_to_end(self._partial.begin)
                if self._partial.is_done:
                    digest = await self._digest()
                    if self.blob.digest and digest != self.blob.digest.lower():
                        await run_to_end(self._partial.discard)
                        raise DigestMismatch(self.blob.digest, digest)
                    await run_to_end(self._partial.sync)
                    await run_to_end(self._partial.rename, self._store.blobs.path(digest))
                    return digest
            await self.fetch()  # another process removed the parts

    async def _digest(self) -> str:
        digest = hashlib.sha256()
        with await run_to_end(lambda: self._partial.path.open("rb")) as file:
            while piece := await run_to_end(file.read, _HASH_BYTES):
                await run_to_end(digest.update, piece)
        return f"sha256:{digest.hexdigest()}"

    async def _fetch_parts(self) -> None:
        while not self._partial.is_done:
            try:
                # Download the missing parts in parallel; the first failure cancels the others.
                todo = deque(part for part in self._partial.parts if not part.is_done)
                n_workers = min(self._connection.options.n_parts, len(todo))
                async with task_group() as group:
                    for _ in range(n_workers):
                        group.create_task(self._work(todo))
            except _RangesUnsupported:
                if self._in_one_piece:
                    raise SourceChanged(self.blob.url) from None
                self._in_one_piece = True
                await run_to_end(lambda: self._partial.restart(in_one_piece=True))

    async def _work(self, todo: deque[BlobPart]) -> None:
        host = host_of(httpx.URL(self.blob.url))
        while todo:
            part = todo.popleft()
            retries = TransferRetries(host, self._connection.options, was_there=True)
            while not part.is_done:
                try:
                    await self._request(part, retries)
                except httpx.HTTPError as error:
                    await retries.wait(error)

    async def _request(self, part: BlobPart, retries: TransferRetries) -> None:
        if self._in_one_piece:
            part.completed_bytes = 0  # the server always sends the whole file
        is_all_missing = part.size_bytes == self.blob.size_bytes and not part.completed_bytes
        is_whole = self._in_one_piece or is_all_missing
        byte_range = _ByteRange(part.begins_at, None if is_whole else part.ends_at)
        request = TransferRequest(
            "GET",
            self.blob.url,
            byte_range.headers(self.blob.validator),
            auth=self.blob.auth,
            is_verified=bool(self.blob.digest),
        )
        async with self._connection.open(request) as response:
            if response.is_success:
                self._check(response, byte_range)
                await self._receive(response, part, retries)
            elif not await retries.wait_for(response):
                if response.status_code == 416:
                    raise self._wrong_size("less")
                check_response(await with_body(response), self.blob.url)

    def _check(self, response: httpx.Response, byte_range: _ByteRange) -> None:
        """Check that a response is the requested range, before any byte is written."""
        if response.status_code != 206:
            if byte_range.end is not None:
                raise _RangesUnsupported
            length = response.headers.get("content-length")
            if length is not None and length != str(self.blob.size_bytes):
                raise self._wrong_size(length)
            return
        found = _CONTENT_RANGE.match(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != byte_range.start:
            raise _RangesUnsupported
        if found[2] not in ("*", str(self.blob.size_bytes)):
            raise self._wrong_size(found[2])

    def _wrong_size(self, found: str) -> TransferError:
        if not self.blob.digest:
            return SourceChanged(self.blob.url)
        return NoUsableModel(
            self.blob.url, f"it should have {self.blob.size_bytes} bytes, and has {found}"
        )

    async def _receive(
        self, response: httpx.Response, part: BlobPart, retries: TransferRetries
    ) -> None:
        unwritten = bytearray()
        written_at = time.monotonic()
        left = part.size_bytes - part.completed_bytes
        try:
            async for piece in response.aiter_raw():
                unwritten += piece[: left - len(unwritten)]
                is_due = time.monotonic() - written_at > _FLUSH_S
                if len(unwritten) >= _FLUSH_BYTES or len(unwritten) >= left or is_due:
                    content, unwritten = bytes(unwritten), bytearray()
                    await run_to_end(self._partial.write, part, content)
                    left, written_at = left - len(content), time.monotonic()
                    self._forgive(retries)
                if left <= 0:
                    return
        finally:
            if unwritten:
                await run_to_end(self._partial.write, part, bytes(unwritten))
                self._forgive(retries)
        if not part.is_done:
            raise httpx.RemoteProtocolError("the answer ended early")

    def _forgive(self, retries: TransferRetries) -> None:
        """Reset the failures, unless a retry would send the same bytes again."""
        if not self._in_one_piece:
            retries.reset_failures()

    # Progress

    def _is_stored(self) -> bool:
        return bool(self.blob.digest) and self._store.blobs.has(self.blob.digest)

    def _report_other_process(self) -> None:
        with suppress(OSError):
            self._report_bytes(arrived_bytes(self._place))

    async def _report_until_done(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_EVERY_S)
            self._report_bytes(self._partial.completed_bytes)

    def _report_bytes(self, completed: int) -> None:
        total = self.blob.size_bytes
        self._report(ProgressLine(self.blob.label, self.blob.digest, total, completed))


_GGUF_MAGIC = b"GGUF"
_FIRST_BYTES_RANGE = re.compile(r"bytes 0-3/(\d+)")


async def inspect_url(connection: TransferClient, url: str) -> RemoteBlob:
    """Request the first bytes of a file, and return how to download it.

    Raises:
        NotPublished, TransferRefused, HostUnreachable, TransferInterrupted: it is not available.
        HostNotTrusted, NotEncrypted: nothing was sent.
        NoUsableModel: it is no GGUF file, or its size is unknown.
    """
    begins = b""

    async def once() -> httpx.Response:
        nonlocal begins
        headers = {"Range": f"bytes=0-{len(_GGUF_MAGIC) - 1}"}
        async with connection.open(TransferRequest("GET", url, headers)) as response:
            if not response.is_success:
                return await with_body(response)
            begins = b""
            async for piece in response.aiter_raw():
                begins += piece
                if len(begins) >= len(_GGUF_MAGIC):
                    break  # a server without ranges would send the whole file
            return response

    response = await connection.ask_with_retries(url, once)
    check_response(response, url)
    if begins[: len(_GGUF_MAGIC)] != _GGUF_MAGIC:
        raise NoUsableModel(url, f"this is not a GGUF file (it begins with {begins[:4]!r})")
    found = _FIRST_BYTES_RANGE.match(response.headers.get("content-range", ""))
    length = found[1] if found else response.headers.get("content-length", "")
    if not length.isdecimal():
        raise NoUsableModel(url, "the server does not send the file's size")
    # A value for `If-Range`, which allows no weak ETag (RFC 9110, 13.1.5).
    validator: str = response.headers.get("etag", "")
    if not validator or validator.startswith("W/"):
        validator = response.headers.get("last-modified", "")
    return RemoteBlob(url, int(length), validator=validator)


def split_file_urls(url: str) -> list[str]:
    """Return the URLs of all files of a split model, by one of them.

    >>> split_file_urls("https://h/a-00001-of-00002.gguf?download=true")[1]
    'https://h/a-00002-of-00002.gguf?download=true'
    """
    path, mark, query = url.partition("?")
    folder, slash, name = path.rpartition("/")
    return [f"{folder}{slash}{part}{mark}{query}" for part in split_file_names(name)]
