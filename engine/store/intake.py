"""GGUF files on their way into a model: what they are, and that they are whole.

A file is a blob that is there already, named by its digest, or a path of this machine's, which is
copied. Its header is read before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from paddock.engine.errors import BlobMissing, ModelBroken, RecipeRefused
from paddock.engine.gguf import Header, joined, read_header

from . import manifests
from .cards import human_number, quantization
from .contents import Config
from .draft import Draft
from .layout import Store
from .manifests import Layer
from .progress import Progress, Report
from .recipe import Source

_PIECE_BYTES = 4 * 1024 * 1024


def add_files(
    draft: Draft,
    files: Mapping[str, Source],
    report: Report,
    *,
    wanted: str,
    source: str = "",
) -> None:
    """Add GGUF files, each as what its header says that it is.

    `wanted`: what they should be, a model (and what belongs to it) or an adapter; `source`: the
    model's name where they lie.

    Raises:
        RecipeRefused: they are something else, said by name.
        BlobMissing: one that was named by its digest was not sent before.
        StoreFull, StoreReadOnly: they cannot be copied.
    """
    headers: dict[str, Header] = {}
    for name in sorted(files):
        report(Progress("parsing GGUF"))
        given = files[name]
        path = given if isinstance(given, Path) else draft.store.blob_path(given)
        if not path.is_file() and isinstance(given, str):
            raise BlobMissing(given)
        headers[name] = _header(name, path)
    _check_parts(headers)
    for name in sorted(headers, key=lambda one: headers[one].part):
        given, header = files[name], headers[name]
        kind = _kind(header)
        _check_kind(name, header, kind, wanted, draft)
        if isinstance(given, Path):
            digest, is_new = _copied(draft.store, given, report)
            draft.made += [digest] if is_new else []
        else:
            digest, is_new = given.replace("-", ":").lower(), False
        size_bytes = draft.store.blobs.size_bytes(digest)
        draft.add(Layer(kind, digest, size_bytes, source), is_new=is_new)
        if kind == manifests.MODEL:
            parts = [one for one in headers.values() if one.n_parts > 1] or [header]
            whole = joined(sorted(parts, key=lambda one: one.part))
            draft.config = described(draft.config, whole)
        elif kind == manifests.PROJECTOR:
            draft.config = _with_family(draft.config, header.architecture)


def _header(name: str, path: Path) -> Header:
    """Read a file's header; what it is instead is said by name.

    Raises:
        RecipeRefused: it is not a whole GGUF file.
    """
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
        if error.why.startswith("this is not a GGUF file"):
            is_named = name.lower().endswith(".gguf")
            raise RecipeRefused(
                "supplied file was not in GGUF format" if is_named else "unknown type"
            ) from None
        raise RecipeRefused(f"supplied file was not in GGUF format: {name}: {error.why}") from None


def _kind(header: Header) -> str:
    """Tell for what a file is, by its header."""
    general = header.values.get("general.type")
    if general == "adapter" or "adapter.type" in header.values:
        return manifests.ADAPTER
    if general in ("mmproj", "projector") or header.architecture == "clip":
        return manifests.PROJECTOR
    return manifests.MODEL


def _check_kind(name: str, header: Header, kind: str, wanted: str, draft: Draft) -> None:
    if wanted == manifests.ADAPTER and kind != wanted:
        raise RecipeRefused(f"{name} is not a LoRA adapter")
    family = draft.config.model_family
    if kind == manifests.ADAPTER and family and header.architecture != family:
        raise RecipeRefused(
            f"{name} is an adapter for '{header.architecture}' models, and this one is '{family}'"
        )
    is_first = header.part == 0
    if kind == manifests.MODEL and is_first and any(one.media_type == kind for one in draft.layers):
        raise RecipeRefused(f"{name} is a second model file; a model has one")


def _check_parts(headers: Mapping[str, Header]) -> None:
    """Refuse a split model that is not whole.

    Raises:
        RecipeRefused: a part of it is missing, or there twice.
    """
    parts = {name: header for name, header in headers.items() if header.n_parts > 1}
    if why := wrong_parts([*parts.values()]):
        raise RecipeRefused(f"{min(parts)}: {why}")


def wrong_parts(headers: Sequence[Header]) -> str:
    """Return what is wrong with the parts of a split model; empty: they are all there."""
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


def _copied(store: Store, path: Path, report: Report) -> tuple[str, bool]:
    """Copy a file among the blobs; gives its digest, and whether it was not there before."""
    total = path.stat().st_size
    with path.open("rb") as file, store.new_blob() as writer:
        while piece := file.read(_PIECE_BYTES):
            writer.write(piece)
            report(Progress("copying file", total=total, completed=min(writer.size_bytes, total)))
        digest = writer.commit()
    return digest, writer.is_new


def described(config: Config, header: Header) -> Config:
    """Give a config that says what the weights are."""
    told = replace(
        config,
        model_format="gguf",
        model_family=header.architecture,
        model_type=human_number(header.n_weights),
        file_type=quantization(header),
    )
    return _with_family(told, header.architecture)


def _with_family(config: Config, family: str) -> Config:
    if family in config.model_families:
        return config
    return replace(config, model_families=(*config.model_families, family))
