"""Pull a model into the store: from a registry, Hugging Face, a URL or a file.

Steps: get the manifest and the blobs, verify them, write the manifest, remove blobs that only the
replaced manifest needed. A model gets its name only after every blob is verified and its header
was read. The progress lines are Ollama's. Files of Hugging Face are downloaded like any other blob.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from paddock.engine.errors import BlobMissing, InvalidName, ManifestBroken, ModelBroken
from paddock.engine.gguf import read_header
from paddock.engine.model_file_parts import check_file, split_file_names
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import run_to_end
from paddock.engine.system.text import parse_shallow_json, shell_command

from .download import BlobDownload, RemoteBlob, check_disk_space, inspect_url, split_file_urls
from .gguf_import import ImportedFiles, check_model_files, make_imported_manifest
from .hugging_face import (
    HubAuth,
    HubFile,
    choose_model_files,
    choose_projector,
    hub_address,
    list_hub_files,
)
from .manifests import (
    ADAPTER_TYPE,
    MODEL_TYPE,
    PARAMS_TYPE,
    PROJECTOR_TYPE,
    SYSTEM_TYPE,
    TEMPLATE_TYPE,
    Manifest,
)
from .model_finder import neighbouring_projector
from .model_names import ModelName
from .model_store import ModelStore
from .oci_registry import RegistryClient
from .pull_sources import (
    FileSource,
    HubSource,
    ModelSource,
    RegistrySource,
    UrlSource,
    parse_source,
)
from .transfer import ProgressLine, ReportProgress, TransferOptions
from .transfer_client import TransferClient, TransferRequest, parse_url, progress_lines
from .transfer_errors import (
    OFFLINE_ADVICE,
    PROXY_ADVICE,
    HostUnreachable,
    NotPublished,
    NoUsableModel,
    check_response,
)

# Files for Ollama that a repository may have.
HUB_TEXT_FILES = ("template", "system", "params")


_COPY_BYTES = 4 * 1024 * 1024


async def import_file(store: ModelStore, path: Path, report: ReportProgress) -> ImportedFiles:
    files = await run_to_end(_files_of_model, path)
    n_bytes = await run_to_end(lambda: sum(file.stat().st_size for file in files))
    await run_to_end(check_disk_space, store.root, n_bytes)
    digests = [await _copy_to_blob(store, file, report) for file in files]
    n = len(split_file_names(path.name))
    return ImportedFiles(digests[0], tuple(digests[n:]), tuple(digests[1:n]))


def _files_of_model(path: Path) -> list[Path]:
    """Return the model's files and its projector, their headers checked."""
    if not path.is_file():
        raise NotPublished(str(path))
    check_file(path, str(path))
    parts = [path.with_name(name) for name in split_file_names(path.name)]
    check_model_files(parts)
    projector = neighbouring_projector(path)
    if projector is None:
        return parts
    read_header(projector)
    return [*parts, projector]


async def _copy_to_blob(store: ModelStore, path: Path, report: ReportProgress) -> str:
    total = await run_to_end(lambda: path.stat().st_size)
    with (
        await run_to_end(store.blobs.writer) as blob,
        await run_to_end(lambda: path.open("rb")) as file,
    ):
        while piece := await run_to_end(file.read, _COPY_BYTES):
            await run_to_end(blob.write, piece)
            report(ProgressLine(f"pulling {path.name}", "", total, blob.size_bytes))
        return await run_to_end(blob.commit)


_TEXT_FILE_TYPES = dict(zip(HUB_TEXT_FILES, (TEMPLATE_TYPE, SYSTEM_TYPE, PARAMS_TYPE), strict=True))
_MAX_TEXT_BYTES = 1024 * 1024


def pull(
    store: ModelStore,
    source: str | ModelName,
    *,
    options: TransferOptions,
    as_name: str | None = None,
) -> AsyncGenerator[ProgressLine, None]:
    """Pull a model; return its progress lines, from `pulling manifest` to `success`.

    `source` is a text for `pull_sources.parse_source`. If the caller stops early, the pull is
    cancelled and resumed by the next one.

    Raises:
        InvalidName: at once, also for a path, where paths are not accepted.
        TransferError, EngineError: after the last line; the model in the store is unchanged.
    """
    meant = RegistrySource(source) if isinstance(source, ModelName) else None
    found = meant or parse_source(str(source), as_name)
    if isinstance(found, FileSource) and not options.accepts_paths:
        raise InvalidName(
            str(source),
            "files can only be imported on this machine itself, with "
            f"`{shell_command('paddock', 'pull', source)}`",
        )
    return progress_lines(lambda report: _Pull(store, options, report).run(found))


class _Pull:
    def __init__(self, store: ModelStore, options: TransferOptions, report: ReportProgress) -> None:
        self.store = store
        self.options = options
        self.report = report

    async def run(self, source: ModelSource) -> None:
        self.report(ProgressLine("pulling manifest"))
        if self.options.is_offline and not isinstance(source, FileSource):
            is_registry = isinstance(source, RegistrySource)
            error = NotPublished("pull model manifest" if is_registry else str(source))
            await self._accept_local_copy(source.name, error)
            return
        match source:
            case RegistrySource(name):
                await self._from_registry(name)
            case HubSource():
                await self._from_hub(source)
            case UrlSource():
                async with TransferClient(self.options, self.report) as connection:
                    remote_blobs = [
                        await inspect_url(connection, url) for url in split_file_urls(source.url)
                    ]
                    digests = await self._download(connection, remote_blobs)
                imported = ImportedFiles(digests[0], parts=tuple(digests[1:]))
                await self._import(source.name, imported)
            case FileSource():
                # Import a file of this machine, and the projector in its folder
                imported = await import_file(self.store, source.path, self.report)
                self.report(ProgressLine("verifying sha256 digest"))
                await self._import(source.name, imported)

    async def _from_registry(self, name: ModelName) -> None:
        async with TransferClient(self.options, self.report) as connection:
            registry = RegistryClient(connection, name)
            try:
                manifest = await registry.manifest()
            except HostUnreachable as error:
                await self._accept_local_copy(name, error)
                return
            if manifest.first_of(MODEL_TYPE) is None:
                kinds = sorted({layer.media_type for layer in manifest.layers}) or ["nothing"]
                raise NoUsableModel(
                    name.short,
                    f"it has no GGUF model, but {', '.join(kinds[:4])}; it is for another "
                    f"engine, or runs only in a cloud",
                )
            blobs = {blob.digest: blob.size_bytes for blob in manifest.blobs}
            remote_blobs = [
                RemoteBlob(registry.blob_url(digest), size_bytes, digest, registry.auth)
                for digest, size_bytes in blobs.items()
            ]
            while True:
                await self._download(connection, remote_blobs)
                await run_to_end(self._check_headers, name, manifest)
                try:
                    await self._finish(name, manifest)
                except BlobMissing:
                    continue  # another process pruned a blob meanwhile; download it again
                return

    async def _from_hub(self, source: HubSource) -> None:
        hub = hub_address(self.options)
        # The hub's URL is a setting of this machine's owner, so http:// is intended.
        options = replace(self.options, insecure=self.options.insecure or hub.startswith("http://"))
        async with TransferClient(options, self.report) as connection:
            connection.check(parse_url(hub))
            try:
                files, auth = await asyncio.to_thread(
                    list_hub_files, source.repository, source.revision, options
                )
            except HostUnreachable as error:
                await self._accept_local_copy(source.name, error)
                return
            model = choose_model_files(files, source.requested, str(source))
            n_more = f" and {len(model) - 1} more" if len(model) > 1 else ""
            where = f"{parse_url(hub).host}/{source.repository}"
            self.report(ProgressLine(f"found {model[0].name}{n_more} at {where}"))
            projector = choose_projector(files)
            weights = [*model, projector] if projector else model
            remote_blobs = [
                RemoteBlob(file.url, file.size_bytes, file.digest, auth) for file in weights
            ]
            digests = await self._download(connection, remote_blobs)
            # Download a repository's files for Ollama: `template`, `system`, `params`
            texts = []
            for file in files:
                if file.name in _TEXT_FILE_TYPES and file.size_bytes <= _MAX_TEXT_BYTES:
                    content = await self._text(connection, auth, file)
                    digest = await run_to_end(self.store.blobs.add, content)
                    texts.append((_TEXT_FILE_TYPES[file.name], digest))
        n = len(model)
        imported = ImportedFiles(digests[0], tuple(digests[n:]), tuple(digests[1:n]), tuple(texts))
        await self._import(source.name, imported)

    async def _download(
        self, connection: TransferClient, remote_blobs: Sequence[RemoteBlob]
    ) -> list[str]:
        downloads = [
            BlobDownload(connection, self.store, blob, self.report) for blob in remote_blobs
        ]
        missing = await run_to_end(lambda: sum(download.missing_bytes() for download in downloads))
        await run_to_end(check_disk_space, self.store.root, missing)
        for download in downloads:
            await download.fetch()
        self.report(ProgressLine("verifying sha256 digest"))
        return [await download.finish() for download in downloads]

    async def _text(self, connection: TransferClient, auth: HubAuth, file: HubFile) -> bytes:
        response = await connection.read(TransferRequest("GET", file.url, auth=auth))
        check_response(response, file.url)
        if file.name == "params":
            try:
                parse_shallow_json(response.content)
            except ValueError as error:
                raise NoUsableModel(file.url, f"it is not JSON: {error}") from None
        return response.content

    async def _import(self, name: ModelName, imported: ImportedFiles) -> None:
        with self._refusing(name, [imported.model, *imported.parts, *imported.projectors]):
            manifest = await run_to_end(make_imported_manifest, self.store, imported)
        await self._finish(name, manifest)

    def _check_headers(self, name: ModelName, manifest: Manifest) -> None:
        with self._refusing(name, [layer.digest for layer in manifest.blobs]):
            check_model_files(
                [self.store.blobs.path(layer.digest) for layer in manifest.all_of(MODEL_TYPE)]
            )
            for layer in manifest.all_of(PROJECTOR_TYPE, ADAPTER_TYPE):
                read_header(self.store.blobs.path(layer.digest))

    @contextmanager
    def _refusing(self, name: ModelName, digests: Sequence[str]) -> Iterator[None]:
        """Remove these blobs if the block finds that they are no model."""
        try:
            yield
        except (ModelBroken, NoUsableModel) as error:
            self.store.prune(digests, keep=self.options.keep)
            raise NoUsableModel(name.short, error.why) from error

    async def _finish(self, name: ModelName, manifest: Manifest) -> None:
        old = await run_to_end(self._stored, name)
        self.report(ProgressLine("writing manifest"))
        await run_to_end(self.store.put_manifest, name, manifest)
        unused = {layer.digest for layer in old.blobs} if old is not None else set()
        unused -= {layer.digest for layer in manifest.blobs}
        if unused and self.options.prunes:
            self.report(ProgressLine("removing unused layers"))
            await run_to_end(lambda: self.store.prune(sorted(unused), keep=self.options.keep))
        self.report(ProgressLine("success"))

    def _stored(self, name: ModelName) -> Manifest | None:
        with suppress(ManifestBroken):
            return self.store.manifest(name)
        return None

    async def _accept_local_copy(self, name: ModelName, error: Exception) -> None:
        """Report success if the model is complete on this machine; otherwise raise `error`."""
        if isinstance(error, HostUnreachable) and error.advice != PROXY_ADVICE:
            raise error  # the network works; the error has its own advice
        if not await run_to_end(self._is_complete, name):
            if isinstance(error, HostUnreachable):
                raise HostUnreachable(error.host, error.why, OFFLINE_ADVICE) from error
            raise error
        if isinstance(error, HostUnreachable):
            self.report(
                ProgressLine(f"{error.host} cannot be reached; {name.short} is here already")
            )
        self.report(ProgressLine("success"))

    def _is_complete(self, name: ModelName) -> bool:
        found = self._stored(name)
        return found is not None and all(self.store.blobs.has(blob.digest) for blob in found.blobs)
