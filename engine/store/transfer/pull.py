"""Bring a model into the store, and tell how far it is in the lines that Ollama's clients know.

The order is theirs: manifest, blobs, verifying, writing, removing what the replaced manifest alone
used. A model has its name only when every blob of it is there, verified, and its header was read.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from paddock.engine.errors import BlobMissing, InvalidName, ManifestBroken, ModelBroken
from paddock.engine.gguf import read_header
from paddock.engine.store.layout import Store
from paddock.engine.store.manifests import (
    ADAPTER,
    MODEL,
    PARAMS,
    PROJECTOR,
    SYSTEM,
    TEMPLATE,
    Layer,
    Manifest,
)
from paddock.engine.store.names import ModelName
from paddock.engine.store.progress import Progress, Report

from .address import look_at, part_addresses
from .answers import check_answer
from .connection import Connection, address
from .disk import beside, check_room
from .download import Download, Wanted
from .errors import (
    BEHIND_A_PROXY,
    WITHOUT_A_NETWORK,
    NotPublished,
    Unreachable,
    Unusable,
)
from .file import take_file
from .huggingface import TEXT_FILES, HubFile, Listing, hub_address, list_files
from .options import TransferOptions
from .packing import Parcel, check_model, pack
from .quants import choose, choose_projector
from .registry import Registry
from .reports import lines
from .sources import FromAddress, FromFile, FromHub, FromRegistry, read_source

_DEFAULTS = TransferOptions()
_TEXT_KINDS = dict(zip(TEXT_FILES, (TEMPLATE, SYSTEM, PARAMS), strict=True))
_MAX_TEXT_BYTES = 1024 * 1024


async def pull(
    store: Store,
    source: str | ModelName,
    *,
    options: TransferOptions = _DEFAULTS,
    as_name: str | None = None,
) -> AsyncGenerator[Progress, None]:
    """Bring a model; gives lines from `pulling manifest` to `success`.

    `source` is what a person writes (see `sources.read_source`). Leaving before the end stops the
    work at once and keeps what arrived for the next time.

    Raises:
        InvalidName: before the first line; also for a path, where none are accepted.
        TransferError, EngineError: after the last line; the store is as it was.
    """
    meant = FromRegistry(source) if isinstance(source, ModelName) else None
    found = meant or read_source(str(source), as_name)
    if isinstance(found, FromFile) and not options.accepts_paths:
        raise InvalidName(
            str(source),
            f"a file is taken only by who sits at this machine, with `paddock pull {source}`",
        )
    work = _Pull(store, options)
    match found:
        case FromRegistry(name):
            told = lines(lambda report: work.from_registry(name, report))
        case FromHub():
            told = lines(lambda report: work.from_hub(found, report))
        case FromAddress():
            told = lines(lambda report: work.from_address(found, report))
        case FromFile():
            told = lines(lambda report: work.from_file(found, report))
    try:
        async for line in told:
            yield line
    finally:
        await told.aclose()


class _Pull:
    def __init__(self, store: Store, options: TransferOptions) -> None:
        self.store = store
        self.options = options

    async def from_registry(self, name: ModelName, report: Report) -> None:
        """Bring what a registry has under this name."""
        report(Progress("pulling manifest"))
        if self.options.is_offline:
            await self._be_content(name, report, NotPublished("pull model manifest"))
            return
        async with Connection(self.options, report) as connection:
            registry = Registry(connection, name)
            try:
                manifest = await registry.manifest()
            except Unreachable as error:
                await self._be_content(name, report, error)
                return
            _check_kinds(name, manifest)
            blobs = {one.digest: one.size_bytes for one in manifest.blobs}
            wanted = [
                Wanted(registry.blob_url(digest), size_bytes, digest, registry.auth)
                for digest, size_bytes in blobs.items()
            ]
            while True:
                await self._bring(connection, wanted, report)
                await beside(self._check_headers, name, manifest)
                try:
                    await self._finish(name, manifest, report)
                except BlobMissing:
                    continue  # another one pruned what we found here; it is brought again
                return

    async def from_hub(self, source: FromHub, report: Report) -> None:
        """Bring a GGUF file of a repository, and the projector that lies beside it."""
        report(Progress("pulling manifest"))
        if self.options.is_offline:
            await self._be_content(source.name, report, NotPublished(str(source)))
            return
        hub = hub_address(self.options)
        # The hub's address is the owner's own setting, as a local mirror's may be.
        options = replace(self.options, insecure=self.options.insecure or hub.startswith("http://"))
        async with Connection(options, report) as connection:
            connection.check(address(hub))
            try:
                listing = await list_files(source.repository, source.revision, options)
            except Unreachable as error:
                await self._be_content(source.name, report, error)
                return
            model = choose(listing.files, source.wanted, str(source))
            n_more = f" and {len(model) - 1} more" if len(model) > 1 else ""
            where = f"{address(hub).host}/{source.repository}"
            report(Progress(f"found {model[0].name}{n_more} at {where}"))
            projector = choose_projector(listing.files)
            files = [*model, projector] if projector else model
            wanted = [Wanted(one.url, one.size_bytes, one.digest, listing.auth) for one in files]
            digests = await self._bring(connection, wanted, report)
            texts = await self._texts(connection, listing)
        n = len(model)
        parcel = Parcel(digests[0], tuple(digests[n:]), tuple(digests[1:n]), texts)
        await self._pack(source.name, parcel, report)

    async def from_address(self, source: FromAddress, report: Report) -> None:
        """Bring the file behind a URL."""
        report(Progress("pulling manifest"))
        if self.options.is_offline:
            await self._be_content(source.name, report, NotPublished(source.url))
            return
        async with Connection(self.options, report) as connection:
            wanted = [await look_at(connection, url) for url in part_addresses(source.url)]
            digests = await self._bring(connection, wanted, report)
        await self._pack(source.name, Parcel(digests[0], parts=tuple(digests[1:])), report)

    async def from_file(self, source: FromFile, report: Report) -> None:
        """Take a file of this machine, and the projector that lies beside it."""
        report(Progress("pulling manifest"))
        parcel = await take_file(self.store, source.path, report)
        report(Progress("verifying sha256 digest"))
        await self._pack(source.name, parcel, report)

    # Parts

    async def _bring(
        self, connection: Connection, wanted: Sequence[Wanted], report: Report
    ) -> list[str]:
        """Bring blobs and verify them; gives their digests."""
        downloads = [Download(connection, self.store, one, report) for one in wanted]
        missing = await beside(lambda: sum(one.missing_bytes() for one in downloads))
        await beside(check_room, self.store.root, missing)
        for download in downloads:
            await download.bring()
        report(Progress("verifying sha256 digest"))
        return [await download.settle() for download in downloads]

    async def _texts(self, connection: Connection, listing: Listing) -> tuple[tuple[str, str], ...]:
        """Bring a repository's words for Ollama: `template`, `system`, `params`."""
        found = []
        for file in listing.files:
            if file.name in _TEXT_KINDS and file.size_bytes <= _MAX_TEXT_BYTES:
                content = await self._text(connection, listing, file)
                digest = await beside(self.store.add_blob, content)
                found.append((_TEXT_KINDS[file.name], digest))
        return tuple(found)

    async def _text(self, connection: Connection, listing: Listing, file: HubFile) -> bytes:
        response = await connection.read("GET", file.url, auth=listing.auth)
        check_answer(response, file.url)
        if file.name == "params":
            try:
                json.loads(response.content)
            except ValueError as error:
                raise Unusable(file.url, f"it is not JSON: {error}") from None
        return response.content

    async def _pack(self, name: ModelName, parcel: Parcel, report: Report) -> None:
        with self._refusing(name, [parcel.model, *parcel.parts, *parcel.projectors]):
            manifest = await beside(pack, self.store, parcel)
        await self._finish(name, manifest, report)

    def _check_headers(self, name: ModelName, manifest: Manifest) -> None:
        with self._refusing(name, [layer.digest for layer in manifest.blobs]):
            check_model([self.store.blob_path(layer.digest) for layer in manifest.all_of(MODEL)])
            for layer in manifest.all_of(PROJECTOR, ADAPTER):
                read_header(self.store.blob_path(layer.digest))

    @contextmanager
    def _refusing(self, name: ModelName, digests: Sequence[str]) -> Iterator[None]:
        """Keep nothing of what turns out to be no model."""
        try:
            yield
        except (ModelBroken, Unusable) as error:
            self.store.prune(digests, keep=self.options.keep)
            raise Unusable(name.short, error.why) from error

    async def _finish(self, name: ModelName, manifest: Manifest, report: Report) -> None:
        """Let the name mean the new manifest, and remove what only the old one used."""
        old = await beside(self._replaced, name)
        report(Progress("writing manifest"))
        await beside(self.store.put_manifest, name, manifest)
        unused = {layer.digest for layer in old} - {layer.digest for layer in manifest.blobs}
        if unused and self.options.prunes:
            report(Progress("removing unused layers"))
            await beside(lambda: self.store.prune(sorted(unused), keep=self.options.keep))
        report(Progress("success"))

    def _replaced(self, name: ModelName) -> tuple[Layer, ...]:
        with suppress(ManifestBroken):
            old = self.store.manifest(name)
            return old.blobs if old is not None else ()
        return ()

    async def _be_content(self, name: ModelName, report: Report, error: Exception) -> None:
        """Without a network, a model that is here and whole is success; else raise `error`."""
        if isinstance(error, Unreachable) and error.advice != BEHIND_A_PROXY:
            raise error  # there is a network, and something else to be done
        if not await beside(self._is_whole, name):
            if isinstance(error, Unreachable):
                raise Unreachable(error.host, error.why, WITHOUT_A_NETWORK) from error
            raise error
        if isinstance(error, Unreachable):
            report(Progress(f"{error.host} cannot be reached; {name.short} is here already"))
        report(Progress("success"))

    def _is_whole(self, name: ModelName) -> bool:
        with suppress(ManifestBroken):
            there = self.store.manifest(name)
            return there is not None and all(self.store.has_blob(one.digest) for one in there.blobs)
        return False


def _check_kinds(name: ModelName, manifest: Manifest) -> None:
    """Refuse, before anything is brought, what llama.cpp cannot read.

    Raises:
        Unusable: it holds no GGUF model.
    """
    if manifest.first_of(MODEL) is None:
        kinds = sorted({layer.media_type for layer in manifest.layers}) or ["nothing"]
        raise Unusable(
            name.short,
            f"there is no GGUF model in it, but {', '.join(kinds[:4])}; it is made for another "
            f"engine, or runs only in somebody's cloud",
        )
