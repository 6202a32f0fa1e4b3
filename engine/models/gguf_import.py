"""Import GGUF files into a model: check kind and completeness, write config and layers.

A file is an existing blob, named by its digest, or a path on this machine, which is copied. Its
header is read before anything is written. The config is written for Ollama; llama.cpp reads
everything from the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from paddock.engine.errors import BlobMissing, ModelBroken, NotGguf, RecipeRefused
from paddock.engine.gguf import GgufHeader, join_headers, read_header
from paddock.engine.system.records import Struct, field, replace

from . import manifests
from .manifests import (
    CONFIG_TYPE,
    MODEL_TYPE,
    PROJECTOR_TYPE,
    Manifest,
    ManifestLayer,
    ModelConfig,
    go_json,
    make_manifest,
)
from .model_cards import config_of_header, with_family
from .model_recipe import RecipeFile
from .model_store import ModelStore
from .transfer import ProgressLine, ReportProgress
from .transfer_errors import NoUsableModel


class NewModel(Struct):
    store: ModelStore
    config: ModelConfig = field(default_factory=ModelConfig)
    layers: list[ManifestLayer] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)

    made: list[str] = field(default_factory=list)
    """Digests of new blobs, which are removed if the creation fails."""

    def add(self, layer: ManifestLayer, *, is_new: bool) -> None:
        self.layers.append(layer)
        word = "creating new" if is_new else "using existing"
        self.statuses.append(f"{word} layer {layer.digest}")

    def add_text(self, media_type: str, text: str) -> None:
        n_made = len(self.made)
        layer = self.written(media_type, text.encode("utf-8", errors="replace"))
        self.add(layer, is_new=len(self.made) > n_made)

    def add_json(self, media_type: str, value: object) -> None:
        self.add_text(media_type, go_json(value).decode())

    def written(self, media_type: str, raw: bytes) -> ManifestLayer:
        with self.store.blobs.writer() as writer:
            writer.write(raw)
            digest = writer.commit()
        if writer.is_new:
            self.made.append(digest)
        return ManifestLayer(media_type, digest, len(raw))

    def drop(self, *media_types: str) -> None:
        kept = [
            (layer, status)
            for layer, status in zip(self.layers, self.statuses, strict=True)
            if layer.media_type not in media_types
        ]
        self.layers = [layer for layer, _ in kept]
        self.statuses = [status for _, status in kept]


_COPY_BYTES = 4 * 1024 * 1024


def add_gguf_files(
    model: NewModel,
    files: Mapping[str, RecipeFile],
    report: ReportProgress,
    *,
    expected_type: str,
    source: str = "",
) -> None:
    """Add GGUF files as layers of the type that their headers name.

    `expected_type`: the type that they should have, a model (with its projector) or an adapter;
    `source`: the name of the model that they come from. RecipeRefused says what is wrong with a
    file.
    """
    headers: dict[str, GgufHeader] = {}
    for name in sorted(files):
        report(ProgressLine("parsing GGUF"))
        given = files[name]
        path = given if isinstance(given, Path) else model.store.blobs.path(given)
        if not isinstance(given, Path) and not path.is_file():
            raise BlobMissing(given)
        headers[name] = _read_header(name, path)
    split = {name: header for name, header in headers.items() if header.n_parts > 1}
    if why := split_model_fault([*split.values()]):
        raise RecipeRefused(f"{min(split)}: {why}")
    for name in sorted(headers, key=lambda key: headers[key].part):
        given, header = files[name], headers[name]
        general = header.values.get("general.type")
        if general == "adapter" or "adapter.type" in header.values:
            kind = manifests.ADAPTER_TYPE
        elif general in ("mmproj", "projector") or header.architecture == "clip":
            kind = manifests.PROJECTOR_TYPE
        else:
            kind = manifests.MODEL_TYPE
        if expected_type == manifests.ADAPTER_TYPE and kind != expected_type:
            raise RecipeRefused(f"{name} is not a LoRA adapter")
        family = model.config.model_family
        if kind == manifests.ADAPTER_TYPE and family and header.architecture != family:
            own = f"an adapter for '{header.architecture}' models"
            raise RecipeRefused(f"{name} is {own}, and this one is '{family}'")
        is_first_part = kind == manifests.MODEL_TYPE and header.part == 0
        if is_first_part and any(layer.media_type == kind for layer in model.layers):
            raise RecipeRefused(f"{name} is a second model file; a model has one")
        if isinstance(given, Path):
            digest, is_new = _copy_to_blob(model.store, given, report)
            model.made += [digest] if is_new else []
        else:
            digest = given.replace("-", ":").lower()
            is_new = False
        size_bytes = model.store.blobs.size_bytes(digest)
        model.add(ManifestLayer(kind, digest, size_bytes, source), is_new=is_new)
        if kind == manifests.MODEL_TYPE:
            parts = sorted(split.values() or [header], key=lambda part: part.part)
            model.config = config_of_header(model.config, join_headers(parts))
        elif kind == manifests.PROJECTOR_TYPE:
            model.config = with_family(model.config, header.architecture)


def _read_header(name: str, path: Path) -> GgufHeader:
    try:
        return read_header(path)
    except ModelBroken as error:
        begin = b""
        with suppress(OSError), path.open("rb") as file:
            begin = file.read(9)
        if begin[:4] == b"GGUF":
            raise RecipeRefused(f"{name}: {error.why}") from None
        if begin[8:9] == b"{" and begin[6:8] == b"\0\0":  # a length, then JSON
            what = "this is a safetensors file; convert it with llama.cpp's convert_hf_to_gguf.py"
            raise RecipeRefused(f"supplied file was not in GGUF format: {name}: {what}") from None
        if isinstance(error, NotGguf):
            is_named = name.lower().endswith(".gguf")
            raise RecipeRefused(
                "supplied file was not in GGUF format" if is_named else "unknown type"
            ) from None
        raise RecipeRefused(f"supplied file was not in GGUF format: {name}: {error.why}") from None


def split_model_fault(headers: Sequence[GgufHeader]) -> str:
    """Return what is wrong with the parts of a split model; empty: it is complete."""
    if not headers:
        return ""
    n_parts = headers[0].n_parts
    numbers = [header.part for header in headers]
    missing = [number + 1 for number in range(n_parts) if number not in numbers]
    if missing:
        return f"it is one of {n_parts} parts of a split model, and part {missing[0]} is missing"
    if len(numbers) != n_parts or any(header.n_parts != n_parts for header in headers):
        return "its parts belong to several models"
    return ""


def _copy_to_blob(store: ModelStore, path: Path, report: ReportProgress) -> tuple[str, bool]:
    total = path.stat().st_size
    with path.open("rb") as file, store.blobs.writer() as writer:
        while piece := file.read(_COPY_BYTES):
            writer.write(piece)
            report(
                ProgressLine("copying file", total=total, completed=min(writer.size_bytes, total))
            )
        digest = writer.commit()
    return digest, writer.is_new


class ImportedFiles(Struct, frozen=True):
    model: str
    projectors: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    """Of a split model: the files after the first one, in order."""
    texts: tuple[tuple[str, str], ...] = field(default=())
    """Media types and digests of its template, system text and parameters."""


def make_imported_manifest(store: ModelStore, imported: ImportedFiles) -> Manifest:
    """Write the config's blob and return the manifest; raises ModelBroken with the blob's path."""
    weights = (imported.model, *imported.parts)
    config = config_of_header(
        ModelConfig(), check_model_files([store.blobs.path(digest) for digest in weights])
    )
    layers = [_layer_of_blob(store, MODEL_TYPE, digest) for digest in weights]
    for digest in imported.projectors:
        family = read_header(store.blobs.path(digest)).architecture
        config = replace(config, model_families=(*config.model_families, family))
        layers.append(_layer_of_blob(store, PROJECTOR_TYPE, digest))
    layers += [_layer_of_blob(store, kind, digest) for kind, digest in imported.texts]
    digest = store.blobs.add(config.dump(layers))
    return make_manifest(_layer_of_blob(store, CONFIG_TYPE, digest), layers)


def check_model_files(paths: Sequence[Path]) -> GgufHeader:
    """Return the header of a model's files.

    Raises:
        ModelBroken: a file is not a complete GGUF file.
        NoUsableModel: parts are missing or not in their order.
    """
    headers = [read_header(path) for path in paths]
    parts = [header for header in headers if header.n_parts > 1 or len(headers) > 1]
    why = split_model_fault(parts)
    if not why and [header.part for header in headers] != [*range(len(headers))]:
        why = "its parts are not in their order"
    if why:
        raise NoUsableModel(paths[0].name, why)
    return join_headers(headers)


def _layer_of_blob(store: ModelStore, kind: str, digest: str) -> ManifestLayer:
    return ManifestLayer(kind, digest, store.blobs.size_bytes(digest))
