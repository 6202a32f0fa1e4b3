"""Send one blob to a registry: known there, mounted from a sister model, or in pieces.

The order of requests is the distribution's: POST for a place, PATCH for each piece, PUT with the
digest. After a cut the registry is asked how much it has; what it forgot is sent again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from paddock.engine.errors import BlobMissing
from paddock.engine.store.layout import Store
from paddock.engine.store.manifests import Layer
from paddock.engine.store.progress import Progress, Report

from .answers import check_answer
from .connection import Body, address, host_of
from .disk import beside
from .errors import Refused
from .registry import Registry
from .retries import PASSING, Retries

_PIECE_BYTES = 1024 * 1024
_RANGE = re.compile(r"(?:bytes=)?(\d+)-(\d+)")

# What registries answer when a place is gone, or has another length than we believe.
_FORGOTTEN = frozenset({400, 404, 409, 416})


class Upload:
    """One blob's way to a registry."""

    def __init__(self, registry: Registry, store: Store, layer: Layer, report: Report) -> None:
        self._registry = registry
        self._connection = registry.connection
        self._path = store.blob_path(layer.digest)
        self._layer = layer
        self._report = report
        self._sent = 0

    async def send(self, mount_from: str | None) -> None:
        """Have the blob in the registry; `mount_from`: a repository there that should have it.

        Raises:
            BlobMissing: it is not here.
            Refused, Unreachable, Interrupted: it is not there.
        """
        if await self._registry.has_blob(self._layer.digest):
            self._tell(self._layer.size_bytes)
            return
        if not await beside(self._path.is_file):
            raise BlobMissing(self._layer.digest)
        if mount_from and await self._mounts(mount_from):
            self._tell(self._layer.size_bytes)
            return
        await self._send_all()
        self._tell(self._layer.size_bytes)

    async def _mounts(self, repository: str) -> bool:
        """Ask the registry to take the blob from another repository of its own."""
        params = httpx.QueryParams({"mount": self._layer.digest, "from": repository})
        url = f"{self._registry.base}/blobs/uploads/?{params}"
        response = await self._connection.read("POST", url, content=b"", auth=self._registry.auth)
        if response.status_code == 202:  # it will not, and has made a place instead
            place = _place(response)
            if place:
                await self._connection.read("DELETE", place, auth=self._registry.auth)
        return response.status_code == 201

    async def _send_all(self) -> None:
        """Send what the registry lacks until it has all; a place that it forgot is made anew."""
        host = host_of(httpx.URL(self._registry.base))
        retries = Retries(host, self._connection.options, was_there=True)
        place, furthest = "", 0
        while True:
            try:
                is_again = retries.n_failures > 0 and not place
                if is_again and await self._registry.has_blob(self._layer.digest):
                    return  # only the answer was lost
                place = place or await self._begin()
                while self._sent < self._layer.size_bytes:
                    place = await self._patch(place)
                    if self._sent > furthest:  # what is only sent again forgives nothing
                        furthest = self._sent
                        retries.forgive()
                await self._end(place)
            except httpx.HTTPError as error:
                await retries.wait(error)
            except _Lost as lost:
                if not await retries.wait_for(lost.response, is_passing=True):
                    check_answer(lost.response, host)
            else:
                return
            place = await self._resume(place)

    async def _begin(self) -> str:
        self._sent = 0
        url = f"{self._registry.base}/blobs/uploads/"
        response = await self._connection.read("POST", url, content=b"", auth=self._registry.auth)
        check_answer(response, f"{self._registry.name.host}/{self._registry.repository}")
        place = _place(response)
        if not place:
            raise Refused(self._registry.name.host, response.status_code, "no place to send to")
        return place

    async def _patch(self, place: str) -> str:
        """Send the next piece; gives the place of the one after it."""
        begin = self._sent
        end = min(begin + self._connection.options.push_bytes, self._layer.size_bytes)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - begin),
            "Content-Range": f"{begin}-{end - 1}",
        }
        async with self._connection.open(
            "PATCH",
            place,
            headers=headers,
            body=self._piece(begin, end),
            auth=self._registry.auth,
            named_by=address(self._registry.base),
        ) as response:
            await response.aread()
        self._accept(response, _FORGOTTEN)
        self._sent = end
        self._tell(end)
        return _place(response) or place

    def _piece(self, begin: int, end: int) -> Body:
        async def pieces() -> AsyncIterator[bytes]:
            at = begin
            while at < end:
                piece = await beside(_read, self._path, at, min(_PIECE_BYTES, end - at))
                if not piece:
                    raise BlobMissing(self._layer.digest)  # shorter than its manifest says
                at += len(piece)
                yield piece
                self._tell(at)

        return pieces

    async def _end(self, place: str) -> None:
        """Tell the registry what it must have now; it verifies that itself."""
        url = httpx.URL(place).copy_merge_params({"digest": self._layer.digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": "0"}
        async with self._connection.open(
            "PUT",
            str(url),
            headers=headers,
            auth=self._registry.auth,
            named_by=address(self._registry.base),
        ) as response:
            await response.aread()
        self._accept(response, frozenset({404}))

    def _accept(self, response: httpx.Response, forgotten: frozenset[int]) -> None:
        """Accept a 2xx; what may end well another time is `_Lost`, anything else is an error."""
        if response.status_code in PASSING | forgotten:
            raise _Lost(response)
        check_answer(response, self._layer.digest)

    async def _resume(self, place: str) -> str:
        """Ask how much has arrived; gives the place to go on at, or empty: begin again."""
        if not place:
            return ""
        try:
            async with self._connection.open("GET", place, auth=self._registry.auth) as response:
                await response.aread()
        except httpx.HTTPError:
            return place  # the next try will tell
        told = _RANGE.fullmatch(response.headers.get("range", ""))
        if response.status_code != 204 or told is None:
            return ""
        # An empty place is told as `0-0`, as is one with a single byte.
        self._sent = int(told[2]) + 1 if int(told[2]) > 0 else 0
        return _place(response) or place

    def _tell(self, completed: int) -> None:
        label = f"pushing {self._layer.digest.partition(':')[2][:12]}"
        self._report(Progress(label, self._layer.digest, self._layer.size_bytes, completed))


class _Lost(Exception):
    """The registry no longer wants this upload as it stands."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(str(response.status_code))
        self.response = response


def _place(response: httpx.Response) -> str:
    """Give where the upload goes on; registries say it relatively or in full."""
    told = response.headers.get("docker-upload-location") or response.headers.get("location")
    try:
        return str(response.url.join(told)) if told else ""
    except (httpx.InvalidURL, ValueError):
        return ""


def _read(path: Path, at: int, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(n_bytes)
