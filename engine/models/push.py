"""Push a model to a registry: its blobs first, then the manifest.

A blob that the registry has is skipped, one of a related repository is mounted, any other is
uploaded in pieces: POST for an upload URL, PATCH for each piece, PUT with the digest. After a cut
the registry is asked how much has arrived; lost bytes are sent again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx

from paddock.engine.errors import BlobMissing, InvalidName, ManifestBroken, ModelNotFound
from paddock.engine.system.tasks import run_to_end

from .manifests import ManifestLayer
from .model_names import ModelName, parse_name
from .model_store import ModelStore
from .oci_registry import RegistryClient
from .transfer import ProgressLine, ReportProgress, TransferOptions
from .transfer_client import (
    TRANSIENT_STATUSES,
    RequestBody,
    TransferClient,
    TransferRequest,
    TransferRetries,
    host_of,
    parse_url,
    progress_lines,
)
from .transfer_errors import TransferRefused, check_response

_READ_BYTES = 1024 * 1024
_UPLOADED_RANGE = re.compile(r"(?:bytes=)?(\d+)-(\d+)")

# Responses of registries when an upload is gone, or has another length than expected.
_UPLOAD_LOST_STATUSES = frozenset({400, 404, 409, 416})


class BlobUpload:
    def __init__(
        self,
        registry: RegistryClient,
        store: ModelStore,
        layer: ManifestLayer,
        report: ReportProgress,
    ) -> None:
        self._registry = registry
        self._connection = registry.connection
        self._path = store.blobs.path(layer.digest)
        self._layer = layer
        self._report = report
        self._sent = 0

    async def send(self, mount_from: str | None) -> None:
        """Upload the blob unless it exists; `mount_from`: a repository that may have it.

        Raises:
            BlobMissing: it is not on this machine.
            TransferRefused, HostUnreachable, TransferInterrupted: the upload failed.
        """
        if not await self._registry.has_blob(self._layer.digest):
            if not await run_to_end(self._path.is_file):
                raise BlobMissing(self._layer.digest)
            if not (mount_from and await self._mounts(mount_from)):
                await self._send_all()
        self._report_sent(self._layer.size_bytes)

    async def _mounts(self, repository: str) -> bool:
        """Ask the registry to mount the blob from another repository; return whether it did."""
        params = httpx.QueryParams({"mount": self._layer.digest, "from": repository})
        url = f"{self._registry.base}/blobs/uploads/?{params}"
        request = TransferRequest("POST", url, body=b"", auth=self._registry.auth)
        response = await self._connection.read(request)
        if response.status_code == 202:  # it did not, and began an upload instead
            url = _upload_url(response)
            if url:
                request = TransferRequest("DELETE", url, auth=self._registry.auth)
                await self._connection.read(request)
        return response.status_code == 201

    async def _send_all(self) -> None:
        host = host_of(httpx.URL(self._registry.base))
        retries = TransferRetries(host, self._connection.options, was_there=True)
        url, furthest = "", 0
        while True:
            try:
                is_again = retries.n_failures > 0 and not url
                if is_again and await self._registry.has_blob(self._layer.digest):
                    return  # only the response was lost
                url = url or await self._begin()
                while self._sent < self._layer.size_bytes:
                    url = await self._patch(url)
                    if self._sent > furthest:  # bytes that are sent again are no progress
                        furthest = self._sent
                        retries.reset_failures()
                # Complete the upload; the registry verifies the digest.
                target = httpx.URL(url).copy_merge_params({"digest": self._layer.digest})
                headers = {"Content-Type": "application/octet-stream", "Content-Length": "0"}
                response = await self._send("PUT", str(target), headers)
                self._accept(response, frozenset({404}))
            except httpx.HTTPError as error:
                await retries.wait(error)
            except _UploadLost as lost:
                if not await retries.wait_for(lost.response, is_passing=True):
                    check_response(lost.response, host)
            else:
                return
            url = await self._resume(url)

    async def _begin(self) -> str:
        self._sent = 0
        url = f"{self._registry.base}/blobs/uploads/"
        request = TransferRequest("POST", url, body=b"", auth=self._registry.auth)
        response = await self._connection.read(request)
        check_response(response, f"{self._registry.name.host}/{self._registry.repository}")
        url = _upload_url(response)
        if not url:
            raise TransferRefused(self._registry.name.host, response.status_code, "no upload URL")
        return url

    async def _patch(self, url: str) -> str:
        """Send the next piece; return the URL for the one after it."""
        begin = self._sent
        end = min(begin + self._connection.options.push_bytes, self._layer.size_bytes)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - begin),
            "Content-Range": f"{begin}-{end - 1}",
        }
        response = await self._send("PATCH", url, headers, self._piece(begin, end))
        self._accept(response, _UPLOAD_LOST_STATUSES)
        self._sent = end
        self._report_sent(end)
        return _upload_url(response) or url

    def _piece(self, begin: int, end: int) -> RequestBody:
        async def pieces() -> AsyncIterator[bytes]:
            at = begin
            while at < end:
                piece = await run_to_end(_read_piece, self._path, at, min(_READ_BYTES, end - at))
                if not piece:
                    raise BlobMissing(self._layer.digest)  # shorter than its manifest says
                at += len(piece)
                yield piece
                self._report_sent(at)

        return pieces

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: RequestBody | None = None
    ) -> httpx.Response:
        auth, base = self._registry.auth, parse_url(self._registry.base)
        request = TransferRequest(method, url, headers, body, auth, is_verified=True, named_by=base)
        return await self._connection.ask(request)

    def _accept(self, response: httpx.Response, forgotten: frozenset[int]) -> None:
        """Raise `_UploadLost` if trying again may help, and another error for any other non-2xx."""
        if response.status_code in TRANSIENT_STATUSES | forgotten:
            raise _UploadLost(response)
        check_response(response, self._layer.digest)

    async def _resume(self, url: str) -> str:
        """Ask how much has arrived; return the URL to continue at, or empty: begin again."""
        if not url:
            return ""
        try:
            request = TransferRequest("GET", url, auth=self._registry.auth, is_verified=True)
            response = await self._connection.ask(request)
        except httpx.HTTPError:
            return url  # the next try will show
        arrived = _UPLOADED_RANGE.fullmatch(response.headers.get("range", ""))
        if response.status_code != 204 or arrived is None:
            return ""
        # `0-0` means no bytes or a single one.
        self._sent = int(arrived[2]) + 1 if int(arrived[2]) > 0 else 0
        return _upload_url(response) or url

    def _report_sent(self, completed: int) -> None:
        label = f"pushing {self._layer.digest.partition(':')[2][:12]}"
        self._report(ProgressLine(label, self._layer.digest, self._layer.size_bytes, completed))


class _UploadLost(Exception):
    """The registry refused to continue this upload."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(str(response.status_code))
        self.response = response


def _upload_url(response: httpx.Response) -> str:
    url = response.headers.get("docker-upload-location") or response.headers.get("location")
    try:
        return str(response.url.join(url)) if url else ""
    except (httpx.InvalidURL, ValueError):
        return ""


def _read_piece(path: Path, at: int, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(n_bytes)


def push(
    store: ModelStore, name: str | ModelName, *, options: TransferOptions
) -> AsyncGenerator[ProgressLine, None]:
    """Push a model; return its progress lines, from `retrieving manifest` to `success`.

    If the caller stops early, the push is cancelled. Uploaded blobs stay, so the next push
    continues with the layer where this one stopped.

    Raises:
        InvalidName: at once.
        ModelNotFound: it is not in the store.
        TransferError: after the last line; the registry's model is unchanged.
    """
    parsed = name if isinstance(name, ModelName) else parse_name(name)
    return progress_lines(partial(_push, store, parsed, options))


async def _push(
    store: ModelStore, name: ModelName, options: TransferOptions, report: ReportProgress
) -> None:
    report(ProgressLine("retrieving manifest"))
    manifest = await run_to_end(store.manifest, name)
    if manifest is None:
        known = await run_to_end(store.names)
        raise ModelNotFound(name.short, [other.short for other in known])
    async with TransferClient(options, report) as connection:
        registry = RegistryClient(connection, name)
        report(ProgressLine("pushing model"))
        for layer in manifest.blobs:
            mount_from = await run_to_end(_mount_source, store, name, layer)
            await BlobUpload(registry, store, layer, report).send(mount_from)
        report(ProgressLine("pushing manifest"))
        await registry.put_manifest(manifest)
    report(ProgressLine("success"))


def _mount_source(store: ModelStore, name: ModelName, layer: ManifestLayer) -> str | None:
    """Return a repository of the same registry that should have a blob already.

    That is the layer's source, or another model on this machine with the same blob.
    """
    with suppress(InvalidName):
        if layer.source:
            source = parse_name(layer.source)
            if _is_other_repository(source, name):
                return f"{source.namespace}/{source.model}"
    for other in store.names():
        if _is_other_repository(other, name):
            with suppress(ManifestBroken):
                manifest = store.manifest(other)
                if manifest is not None and layer.digest in {own.digest for own in manifest.blobs}:
                    return f"{other.namespace}/{other.model}"
    return None


def _is_other_repository(other: ModelName, name: ModelName) -> bool:
    return (
        other.host.lower() == name.host.lower()
        and other.key.rpartition(":")[0] != (name.key.rpartition(":")[0])
    )
