"""Make a model of GGUF files that came without a manifest. Knows no network.

The config is what Ollama writes beside a model; llama.cpp reads everything from the file itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from paddock.engine.gguf import Header, joined, read_header
from paddock.engine.store.contents import Config
from paddock.engine.store.intake import described, wrong_parts
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
    parts: tuple[str, ...] = ()
    """Of a split model: the files after the first one, in order."""
    texts: tuple[tuple[str, str], ...] = field(default=())
    """Media types and digests of templates, systems and parameters that came along."""


def pack(store: Store, parcel: Parcel) -> Manifest:
    """Write the config's blob and give the manifest; reads and writes the disk.

    Raises:
        ModelBroken: a file is no whole GGUF file, with the blob's path.
        StoreFull, StoreReadOnly: the config could not be written.
    """
    weights = (parcel.model, *parcel.parts)
    config = described(Config(), check_model([store.blob_path(one) for one in weights]))
    layers = [_layer(store, MODEL, digest) for digest in weights]
    for digest in parcel.projectors:
        family = read_header(store.blob_path(digest)).architecture
        config = replace(config, model_families=(*config.model_families, family))
        layers.append(_layer(store, PROJECTOR, digest))
    layers += [_layer(store, kind, digest) for kind, digest in parcel.texts]
    digest = store.add_blob(config.dump(layers))
    return make_manifest(_layer(store, CONFIG, digest), layers)


def check_model(paths: Sequence[Path]) -> Header:
    """Read the header of a model, and refuse one of which parts are missing.

    Raises:
        ModelBroken: a file is no whole GGUF file.
        Unusable: it is a part of a model, or its parts are in another order.
    """
    headers = [read_header(path) for path in paths]
    parts = [header for header in headers if header.n_parts > 1 or len(headers) > 1]
    why = wrong_parts(parts)
    if not why and [header.part for header in headers] != [*range(len(headers))]:
        why = "its parts are not in their order"
    if why:
        raise Unusable(paths[0].name, why)
    return joined(headers)


def _layer(store: Store, kind: str, digest: str) -> Layer:
    return Layer(kind, digest, store.blobs.size_bytes(digest))
