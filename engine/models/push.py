"""Push a model to a registry: its blobs first, then the manifest that makes them a model.

A blob that the registry has is skipped, one of a related repository is mounted, any other is sent
in pieces: POST for a place, PATCH for each piece, PUT with the digest. After a cut the registry is
asked how much it has; what it forgot is sent again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx

from paddock.engine.errors import BlobMissing, InvalidName, ManifestBroken, ModelNotFound

from .download import run_to_end_in_thread
from .manifests import Manifest, ManifestLayer
from .model_names import ModelName, parse_name
from .model_store import ModelStore
from .oci_registry import RegistryClient
from .transfer import ProgressLine, ReportProgress, TransferOptions, TransferRefused
from .transfer_client import (
    TRANSIENT_STATUSES,
    RequestBody,
    TransferClient,
    TransferRetries,
    check_response,
    host_of,
    parse_url,
    progress_lines,
)

_READ_BYTES = 1024 * 1024
_UPLOADED_RANGE = re.compile(r"(?:bytes=)?(\d+)-(\d+)")

# What registries answer when a place is gone, or has another length than we believe.
_UPLOAD_LOST_STATUSES = frozenset({400, 404, 409, 416})


class BlobUpload:
    """One blob's way to a registry."""

    def __init__(
        self,
        registry: RegistryClient,
        store: ModelStore,
        layer: ManifestLayer,
        report: ReportProgress,
    ) -> None:
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
        if not await run_to_end_in_thread(self._path.is_file):
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
            place = _upload_url(response)
            if place:
                await self._connection.read("DELETE", place, auth=self._registry.auth)
        return response.status_code == 201

    async def _send_all(self) -> None:
        """Send what the registry lacks until it has all; a place that it forgot is made anew."""
        host = host_of(httpx.URL(self._registry.base))
        retries = TransferRetries(host, self._connection.options, was_there=True)
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
            except _UploadLost as lost:
                if not await retries.wait_for(lost.response, is_passing=True):
                    check_response(lost.response, host)
            else:
                return
            place = await self._resume(place)

    async def _begin(self) -> str:
        self._sent = 0
        url = f"{self._registry.base}/blobs/uploads/"
        response = await self._connection.read("POST", url, content=b"", auth=self._registry.auth)
        check_response(response, f"{self._registry.name.host}/{self._registry.repository}")
        place = _upload_url(response)
        if not place:
            raise TransferRefused(
                self._registry.name.host, response.status_code, "no place to send to"
            )
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
            named_by=parse_url(self._registry.base),
        ) as response:
            await response.aread()
        self._accept(response, _UPLOAD_LOST_STATUSES)
        self._sent = end
        self._tell(end)
        return _upload_url(response) or place

    def _piece(self, begin: int, end: int) -> RequestBody:
        async def pieces() -> AsyncIterator[bytes]:
            at = begin
            while at < end:
                piece = await run_to_end_in_thread(
                    _read_piece, self._path, at, min(_READ_BYTES, end - at)
                )
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
            named_by=parse_url(self._registry.base),
        ) as response:
            await response.aread()
        self._accept(response, frozenset({404}))

    def _accept(self, response: httpx.Response, forgotten: frozenset[int]) -> None:
        """Accept a 2xx; what may end well another time is `_UploadLost`, anything else is an error."""
        if response.status_code in TRANSIENT_STATUSES | forgotten:
            raise _UploadLost(response)
        check_response(response, self._layer.digest)

    async def _resume(self, place: str) -> str:
        """Ask how much has arrived; gives the place to go on at, or empty: begin again."""
        if not place:
            return ""
        try:
            async with self._connection.open("GET", place, auth=self._registry.auth) as response:
                await response.aread()
        except httpx.HTTPError:
            return place  # the next try will tell
        told = _UPLOADED_RANGE.fullmatch(response.headers.get("range", ""))
        if response.status_code != 204 or told is None:
            return ""
        # An empty place is told as `0-0`, as is one with a single byte.
        self._sent = int(told[2]) + 1 if int(told[2]) > 0 else 0
        return _upload_url(response) or place

    def _tell(self, completed: int) -> None:
        label = f"pushing {self._layer.digest.partition(':')[2][:12]}"
        self._report(ProgressLine(label, self._layer.digest, self._layer.size_bytes, completed))


class _UploadLost(Exception):
    """The registry no longer wants this upload as it stands."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(str(response.status_code))
        self.response = response


def _upload_url(response: httpx.Response) -> str:
    """Return where the upload goes on; registries say it relatively or in full."""
    told = response.headers.get("docker-upload-location") or response.headers.get("location")
    try:
        return str(response.url.join(told)) if told else ""
    except (httpx.InvalidURL, ValueError):
        return ""


def _read_piece(path: Path, at: int, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(n_bytes)


_DEFAULT_OPTIONS = TransferOptions()


async def push(
    store: ModelStore, name: str | ModelName, *, options: TransferOptions = _DEFAULT_OPTIONS
) -> AsyncGenerator[ProgressLine, None]:
    """Send a model; gives lines from `retrieving manifest` to `success`.

    Leaving before the end stops the work at once. Blobs that arrived stay there, so the next push
    goes on at the layer where this one stopped.

    Raises:
        InvalidName: before the first line.
        ModelNotFound: it is not in the store.
        TransferError: after the last line; the registry's model is what it was.
    """
    meant = name if isinstance(name, ModelName) else parse_name(name)
    told = progress_lines(lambda report: _push(store, meant, options, report))
    try:
        async for line in told:
            yield line
    finally:
        await told.aclose()


async def _push(
    store: ModelStore, name: ModelName, options: TransferOptions, report: ReportProgress
) -> None:
    report(ProgressLine("retrieving manifest"))
    manifest = await run_to_end_in_thread(_manifest_to_push, store, name)
    async with TransferClient(options, report) as connection:
        registry = RegistryClient(connection, name)
        report(ProgressLine("pushing model"))
        for layer in manifest.blobs:
            sister = await run_to_end_in_thread(_mount_source, store, name, layer)
            await BlobUpload(registry, store, layer, report).send(sister)
        report(ProgressLine("pushing manifest"))
        await registry.put_manifest(manifest)
    report(ProgressLine("success"))


def _manifest_to_push(store: ModelStore, name: ModelName) -> Manifest:
    manifest = store.manifest(name)
    if manifest is None:
        raise ModelNotFound(name.short, [one.short for one in store.names()])
    return manifest


def _mount_source(store: ModelStore, name: ModelName, layer: ManifestLayer) -> str | None:
    """Return a repository of the same registry that should have a blob already.

    The layer says where it was taken from; a model that was copied here says it by sharing it.
    """
    with suppress(InvalidName):
        if layer.source:
            source = parse_name(layer.source)
            if _shares_blob(source, name):
                return f"{source.namespace}/{source.model}"
    for one in store.names():
        if _shares_blob(one, name):
            with suppress(ManifestBroken):
                there = store.manifest(one)
                if there is not None and layer.digest in {own.digest for own in there.blobs}:
                    return f"{one.namespace}/{one.model}"
    return None


def _shares_blob(one: ModelName, name: ModelName) -> bool:
    return (
        one.host.lower() == name.host.lower()
        and one.key.rpartition(":")[0] != (name.key.rpartition(":")[0])
    )
