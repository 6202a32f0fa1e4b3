"""Make a model of GGUF files that came without a manifest. Knows no network.

The config is what Ollama writes beside a model; llama.cpp reads everything from the file itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from paddock.engine.gguf import Header, read_header
from paddock.engine.store.layout import Store
from paddock.engine.store.manifests import (
    CONFIG,
    MODEL,
    PROJECTOR,
    Layer,
    Manifest,
    go_json,
    make_manifest,
)

from .errors import Unusable


@dataclass(frozen=True, slots=True)
class Parcel:
    """What belongs to one model, by digests of blobs that are in the store."""

    model: str
    projectors: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = field(default=())
    """Media types and digests of templates, systems and parameters that came along."""


def pack(store: Store, parcel: Parcel) -> Manifest:
    """Write the config's blob and give the manifest; reads and writes the disk.

    Raises:
        ModelBroken: a file is no whole GGUF file, with the blob's path.
        StoreFull, StoreReadOnly: the config could not be written.
    """
    header = check_model(store.blob_path(parcel.model))
    layers = [_layer(store, MODEL, parcel.model)]
    for digest in parcel.projectors:
        read_header(store.blob_path(digest))
        layers.append(_layer(store, PROJECTOR, digest))
    layers += [_layer(store, kind, digest) for kind, digest in parcel.texts]
    config = store.add_blob(go_json(_config(header, [layer.digest for layer in layers])))
    return make_manifest(_layer(store, CONFIG, config), layers)


def check_model(path: Path) -> Header:
    """Read a model's header, and refuse what is one file of several.

    Raises:
        ModelBroken: it is no whole GGUF file.
        Unusable: it is a part of a model.
    """
    header = read_header(path)
    n_files = header.values.get("split.count", 1)
    if isinstance(n_files, int) and n_files > 1:
        raise Unusable(path.name, f"it is one of {n_files} files of a split model; {JOIN_THEM}")
    return header


JOIN_THEM = (
    "Paddock reads models from one file. Choose another quantisation, or join the files with "
    "llama.cpp's `llama-gguf-split --merge` and pull the result by its path"
)


def human(n_weights: int) -> str:
    """Write a model's size as its makers do.

    >>> human(134_515_008), human(7_241_732_096), human(70_553_706_496), human(22_713_216)
    ('135M', '7.2B', '70.6B', '23M')
    """
    if n_weights >= 1_000_000_000:
        return f"{n_weights / 1e9:.1f}B"
    if n_weights >= 1_000_000:
        return f"{n_weights / 1e6:.0f}M"
    return f"{n_weights / 1e3:.0f}K" if n_weights >= 1000 else str(n_weights)


def _layer(store: Store, kind: str, digest: str) -> Layer:
    return Layer(kind, digest, store.blobs.size_bytes(digest))


def _config(header: Header, digests: list[str]) -> dict[str, object]:
    return {
        "model_format": "gguf",
        "model_family": header.architecture,
        "model_families": [header.architecture],
        "model_type": human(header.n_weights),
        "file_type": header.file_type,
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
