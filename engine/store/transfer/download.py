"""Bring one blob: in parallel parts that go on where they were cut; verified before it is named.

Knows no registries: a blob has an address, and perhaps a digest. Two who bring the same one share
it: the second waits, tells the first one's progress, and finds it done.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from paddock.engine.errors import DigestMismatch
from paddock.engine.store.layout import Store
from paddock.engine.store.progress import Progress, Report

from .answers import check_answer
from .connection import Auth, Connection, host_of
from .disk import beside
from .errors import SourceChanged, TransferError, Unusable
from .locking import alone
from .parts import Part, Partial, arrived_bytes
from .retries import Retries

_FLUSH_BYTES = 1024 * 1024
_FLUSH_S = 0.2  # a slow line's bytes are kept this often
_TELL_S = 0.1
_HASH_BYTES = 32 * 1024 * 1024  # of one visit to a thread, so that it can be cancelled between two

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One blob that is to come."""

    url: str
    size_bytes: int
    digest: str = ""
    """`sha256:…`; empty: nobody has said it."""
    auth: Auth | None = None
    validator: str = ""
    """Where there is no digest: what the other side calls this very content (`If-Range`)."""

    def place(self, store: Store) -> Path:
        """Tell where it will lie, or beside which name its parts lie if that is not known."""
        if self.digest:
            return store.blob_path(self.digest)
        told = hashlib.sha256(f"{self.url} {self.validator} {self.size_bytes}".encode())
        return store.blob_path(f"sha256:{told.hexdigest()}")

    @property
    def label(self) -> str:
        """What the progress lines call it."""
        name = self.digest.partition(":")[2][:12] or self.url.rsplit("/", 1)[-1].partition("?")[0]
        return f"pulling {name}"


class _NoRanges(Exception):
    """The server gives whole files only."""


class Download:
    """One blob's way into the store."""

    def __init__(
        self, connection: Connection, store: Store, wanted: Wanted, report: Report
    ) -> None:
        self.wanted = wanted
        self._connection = connection
        self._store = store
        self._report = report
        self._place = wanted.place(store)
        self._what = f"bringing {self._place.name}"
        self._partial = Partial(self._place, wanted.size_bytes, connection.options.min_part_bytes)
        self._in_one_piece = False

    def missing_bytes(self) -> int:
        """Tell what is still to come; reads the disk."""
        if self._is_there():
            return 0
        return max(0, self.wanted.size_bytes - arrived_bytes(self._place))

    async def bring(self) -> None:
        """Have every part beside the blob's name, or the blob itself.

        Raises:
            Interrupted, Unreachable, Refused, NotPublished: what arrived is kept.
            RanFull, StoreReadOnly: likewise.
        """
        async with alone(self._store, self._what, self._tell_others_progress):
            if await beside(self._is_there):
                self._tell(self.wanted.size_bytes)
                return
            await beside(self._partial.begin)
            self._tell(self._partial.completed_bytes)
            telling = asyncio.create_task(self._keep_telling())
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
            async with alone(self._store, self._what, lambda: None):
                if await beside(self._is_there):
                    return self.wanted.digest
                await beside(self._partial.begin)
                if self._partial.is_done:
                    return await self._name()
            await self.bring()  # somebody took away what had come

    # Parts

    async def _name(self) -> str:
        digest = await self._digest()
        if self.wanted.digest and digest != self.wanted.digest.lower():
            await beside(self._partial.discard)
            raise DigestMismatch(self.wanted.digest, digest)
        await beside(self._partial.sync)
        await beside(self._partial.name, self._store.blob_path(digest))
        return digest

    async def _digest(self) -> str:
        digest = hashlib.sha256()
        with await beside(lambda: self._partial.path.open("rb")) as file:
            while piece := await beside(file.read, _HASH_BYTES):
                await beside(digest.update, piece)
        return f"sha256:{digest.hexdigest()}"

    async def _bring_parts(self) -> None:
        while not self._partial.is_done:
            try:
                await self._all_at_once()
            except _NoRanges:
                if self._in_one_piece:
                    raise SourceChanged(self.wanted.url) from None
                self._in_one_piece = True
                await beside(lambda: self._partial.restart(in_one_piece=True))

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

    async def _work(self, todo: deque[Part]) -> None:
        while todo:
            part = todo.popleft()
            retries = Retries(self._host, self._connection.options, was_there=True)
            while not part.is_done:
                try:
                    await self._ask(part, retries)
                except httpx.HTTPError as error:
                    await retries.wait(error)

    async def _ask(self, part: Part, retries: Retries) -> None:
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
                check_answer(response, self.wanted.url)

    def _range(self, part: Part) -> dict[str, str]:
        asked = {"Range": f"bytes={part.begins_at}-{part.ends_at - 1}"}
        return {**asked, "If-Range": self.wanted.validator} if self.wanted.validator else asked

    def _check(self, response: httpx.Response, part: Part, *, is_whole: bool) -> None:
        """Look whether the answer is what was asked for, before its bytes are put anywhere."""
        if response.status_code != 206:
            if not is_whole:
                raise _NoRanges
            length = response.headers.get("content-length")
            if length is not None and length != str(self.wanted.size_bytes):
                raise self._wrong_size(length)
            return
        told = _RANGE.match(response.headers.get("content-range", ""))
        if told is None or int(told[1]) != part.begins_at:
            raise _NoRanges
        if told[2] not in ("*", str(self.wanted.size_bytes)):
            raise self._wrong_size(told[2])

    def _wrong_size(self, found: str) -> TransferError:
        if not self.wanted.digest:
            return SourceChanged(self.wanted.url)
        return Unusable(
            self.wanted.url,
            f"it should have {self.wanted.size_bytes} bytes, and has {found}",
        )

    async def _take(self, response: httpx.Response, part: Part, retries: Retries) -> None:
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
                    await beside(self._partial.write, part, taken)
                    left, kept_at = left - len(taken), time.monotonic()
                    self._forgive(retries)
                if left <= 0:
                    return
        finally:
            if held:
                await beside(self._partial.write, part, bytes(held))
                self._forgive(retries)
        if not part.is_done:
            raise httpx.RemoteProtocolError("the answer ended early")

    def _forgive(self, retries: Retries) -> None:
        """Forget failures for what arrived, unless all of it would have to come again."""
        if not self._in_one_piece:
            retries.forgive()

    # Telling

    @property
    def _host(self) -> str:
        return host_of(httpx.URL(self.wanted.url))

    def _is_there(self) -> bool:
        return bool(self.wanted.digest) and self._store.has_blob(self.wanted.digest)

    def _tell_others_progress(self) -> None:
        with suppress(OSError):
            self._tell(arrived_bytes(self._place))

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(_TELL_S)
            self._tell(self._partial.completed_bytes)

    def _tell(self, completed: int) -> None:
        total = self.wanted.size_bytes
        self._report(Progress(self.wanted.label, self.wanted.digest, total, completed))
