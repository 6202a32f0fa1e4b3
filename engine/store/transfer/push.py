"""Send a model to a registry: its blobs first, then the manifest that makes them a model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress

from paddock.engine.errors import InvalidName, ManifestBroken, ModelNotFound
from paddock.engine.store.layout import Store
from paddock.engine.store.manifests import Layer, Manifest
from paddock.engine.store.names import ModelName, parse_name
from paddock.engine.store.progress import Progress, Report

from .connection import Connection
from .disk import beside
from .options import TransferOptions
from .registry import Registry
from .reports import lines
from .upload import Upload

_DEFAULTS = TransferOptions()


async def push(
    store: Store, name: str | ModelName, *, options: TransferOptions = _DEFAULTS
) -> AsyncGenerator[Progress, None]:
    """Send a model; gives lines from `retrieving manifest` to `success`.

    Leaving before the end stops the work at once. Blobs that arrived stay there, so the next push
    goes on at the layer where this one stopped.

    Raises:
        InvalidName: before the first line.
        ModelNotFound: it is not in the store.
        TransferError: after the last line; the registry's model is what it was.
    """
    meant = name if isinstance(name, ModelName) else parse_name(name)
    told = lines(lambda report: _push(store, meant, options, report))
    try:
        async for line in told:
            yield line
    finally:
        await told.aclose()


async def _push(store: Store, name: ModelName, options: TransferOptions, report: Report) -> None:
    report(Progress("retrieving manifest"))
    manifest = await beside(_manifest, store, name)
    async with Connection(options, report) as connection:
        registry = Registry(connection, name)
        report(Progress("pushing model"))
        for layer in manifest.blobs:
            sister = await beside(_sister, store, name, layer)
            await Upload(registry, store, layer, report).send(sister)
        report(Progress("pushing manifest"))
        await registry.put_manifest(manifest)
    report(Progress("success"))


def _manifest(store: Store, name: ModelName) -> Manifest:
    manifest = store.manifest(name)
    if manifest is None:
        raise ModelNotFound(name.short, [one.short for one in store.names()])
    return manifest


def _sister(store: Store, name: ModelName, layer: Layer) -> str | None:
    """Give a repository of the same registry that should have a blob already.

    The layer says where it was taken from; a model that was copied here says it by sharing it.
    """
    with suppress(InvalidName):
        if layer.source:
            source = parse_name(layer.source)
            if _is_sister(source, name):
                return f"{source.namespace}/{source.model}"
    for one in store.names():
        if _is_sister(one, name):
            with suppress(ManifestBroken):
                there = store.manifest(one)
                if there is not None and layer.digest in {own.digest for own in there.blobs}:
                    return f"{one.namespace}/{one.model}"
    return None


def _is_sister(one: ModelName, name: ModelName) -> bool:
    return (
        one.host.lower() == name.host.lower()
        and one.key.rpartition(":")[0] != (name.key.rpartition(":")[0])
    )
