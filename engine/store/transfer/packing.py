"""Make a model of GGUF files that came without a manifest. Knows no network.

The config is what Ollama writes beside a model; llama.cpp reads everything from the file itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from paddock.engine.gguf import Header, read_header
from paddock.engine.store.contents import Config
from paddock.engine.store.intake import described
from paddock.engine.store.layout import Store
from paddock.engine.store.manifests import (
    CONFIG,
    MODEL,
    PROJECTOR,
    Layer,
    Manifest,
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
    config = described(Config(), header)
    layers = [_layer(store, MODEL, parcel.model)]
    for digest in parcel.projectors:
        family = read_header(store.blob_path(digest)).architecture
        config = replace(config, model_families=(*config.model_families, family))
        layers.append(_layer(store, PROJECTOR, digest))
    layers += [_layer(store, kind, digest) for kind, digest in parcel.texts]
    digest = store.add_blob(config.dump(layers))
    return make_manifest(_layer(store, CONFIG, digest), layers)


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


def _layer(store: Store, kind: str, digest: str) -> Layer:
    return Layer(kind, digest, store.blobs.size_bytes(digest))
