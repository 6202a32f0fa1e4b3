"""Make a model from a recipe: its layers, its config, its manifest. Loads nothing.

In the order and the words of Ollama (github.com/ollama/ollama, server/create.go), so that its
clients can follow. Nothing gets the new name before all of it is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paddock.engine.errors import (
    BadRequest,
    BlobMissing,
    EngineError,
    ModelBroken,
    RecipeRefused,
)
from paddock.engine.gguf import Header, read_header
from paddock.engine.request import Message

from . import manifests
from .cards import human_number, quantization
from .contents import Config, read_contents
from .found import Finder
from .layout import Store
from .manifests import Layer, go_json, make_manifest
from .names import ModelName, parse_name
from .parameters import KINDS
from .progress import Progress, Report
from .quantising import SOURCES, format_named, quantised
from .recipe import Recipe, Source

_SEMVER = re.compile(r"v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")
_PIECE_BYTES = 4 * 1024 * 1024
_WORDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false",
          "texts": "a text or a list of texts"}  # fmt: skip


@dataclass(slots=True)
class _Draft:
    """A model on its way."""

    config: Config = field(default_factory=Config)
    layers: list[Layer] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    """What is said of each layer."""

    made: list[str] = field(default_factory=list)
    """Digests of blobs that were not there before: if nothing comes of it, they go."""

    def add(self, layer: Layer, *, is_new: bool) -> None:
        self.layers.append(layer)
        word = "creating new" if is_new else "using existing"
        self.statuses.append(f"{word} layer {layer.digest}")

    def drop(self, *media_types: str) -> None:
        kept = [
            (layer, status)
            for layer, status in zip(self.layers, self.statuses, strict=True)
            if layer.media_type not in media_types
        ]
        self.layers = [layer for layer, _ in kept]
        self.statuses = [status for _, status in kept]


def create(store: Store, finder: Finder, recipe: Recipe, report: Report) -> ModelName:
    """Make a model; gives its name as it is spelled in the store.

    `report` is told every step, in the thread that asked; when it raises, the work ends and the
    model stays what it was.

    Raises:
        InvalidName: of the new model or of its base.
        ModelNotFound: there is no such base here; whoever asked may pull it and try again.
        RecipeRefused: the recipe cannot be carried out, in Ollama's words where it has any.
        BadDigest, BlobMissing: a file that was named by its digest was not sent before.
        ModelBroken: the base is broken.
        StoreFull, StoreReadOnly: nothing was made.
        EngineError: llama.cpp cannot write the format.
    """
    name = parse_name(recipe.name)
    _check(recipe)
    before = store.digests(name)
    draft = _Draft()
    try:
        _fill(store, finder, recipe, draft, report)
        config = _stored(store, draft, manifests.CONFIG, draft.config.dump(draft.layers))
        for status in draft.statuses:
            report(Progress(status))
        report(Progress("writing manifest"))
        there = store.put_manifest(name, make_manifest(config, draft.layers))
    except BaseException:
        with suppress(EngineError):
            store.prune(draft.made, keep=finder.kept())
        raise
    store.prune(before, keep=finder.kept())
    report(Progress("success"))
    return there


def _fill(store: Store, finder: Finder, recipe: Recipe, draft: _Draft, report: Report) -> None:
    """Bring a model's layers together."""
    _begin(store, finder, recipe, draft, report)
    if recipe.adapters:
        _add_files(store, draft, recipe.adapters, report, wanted=manifests.ADAPTER)
    if recipe.quantize:
        _quantise(store, draft, format_named(recipe.quantize), report)
    _overlay(store, draft, recipe)


def _check(recipe: Recipe) -> None:
    """Refuse what can be refused before anything is written."""
    if not recipe.base and not recipe.files:
        raise RecipeRefused("neither 'from' or 'files' was specified")
    for file, source in {**recipe.files, **recipe.adapters}.items():
        parts = re.split(r"[/\\]", file)
        if not file or file.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            raise RecipeRefused("file path must be relative")
        if isinstance(source, str) and re.fullmatch(r"sha256[:-][0-9a-fA-F]{64}", source) is None:
            raise RecipeRefused("invalid digest format")
    if len(recipe.adapters) > 1:
        raise RecipeRefused("only one adapter is currently supported")
    if recipe.quantize:
        format_named(recipe.quantize)
    if recipe.requires and _SEMVER.fullmatch(recipe.requires) is None:
        raise RecipeRefused("requires must be a valid semver (e.g. 0.14.0)")
    for key, value in recipe.parameters.items():
        _check_parameter(key, value)
    if recipe.template:
        _check_template(recipe.template)


def _check_parameter(key: str, value: Any) -> None:
    kind = KINDS.get(key)
    numbers = (int,) if kind == "integer" else (int, float)
    if kind == "texts":
        texts = [value] if isinstance(value, str) else value
        is_good = isinstance(texts, list | tuple) and all(isinstance(one, str) for one in texts)
    elif kind == "boolean":
        is_good = isinstance(value, bool)
    else:
        is_whole = kind == "integer" and isinstance(value, float) and value.is_integer()
        is_number = isinstance(value, numbers) and not isinstance(value, bool)
        is_good = kind is None or is_whole or is_number
    if not is_good and kind is not None:
        raise RecipeRefused(f"parameter '{key}' must be {_WORDS[kind]}, not {value!r}")


def _check_template(source: str) -> None:
    from paddock.engine.dialogue.templates import read_template  # brings Jinja2: 40 ms

    try:
        read_template(source)
    except BadRequest as error:
        raise RecipeRefused(f"template error: {error}") from error


def _begin(store: Store, finder: Finder, recipe: Recipe, draft: _Draft, report: Report) -> None:
    """Start from another model, or from files."""
    if not recipe.base:
        _add_files(store, draft, recipe.files, report, wanted=manifests.MODEL)
        if not any(layer.media_type == manifests.MODEL for layer in draft.layers):
            raise RecipeRefused("no files provided to convert")
        return
    # A name and never a path: the recipe may come from another machine.
    found = finder.named(parse_name(recipe.base))
    if found.manifest is not None:
        draft.config = read_contents(store.blobs, found.manifest).config
        for layer in found.manifest.layers:
            # What weights are told to be made from is their name in the store.
            draft.add(replace(layer, source=found.name), is_new=False)
        return
    files = {path.name: path for path in (found.path, found.projector) if path}
    _add_files(store, draft, files, report, wanted=manifests.MODEL, source=found.name)
    if found.params:
        _add_json(store, draft, manifests.PARAMS, dict(sorted(found.params.items())))


def _add_files(
    store: Store,
    draft: _Draft,
    files: Mapping[str, Source],
    report: Report,
    *,
    wanted: str,
    source: str = "",
) -> None:
    """Add GGUF files, each as what its header says that it is."""
    for name in sorted(files):
        report(Progress("parsing GGUF"))
        given = files[name]
        path = given if isinstance(given, Path) else store.blob_path(given)
        if not path.is_file() and isinstance(given, str):
            raise BlobMissing(given)
        header = _header(name, path)
        kind = _kind(header)
        _check_kind(name, header, kind, wanted, draft)
        if isinstance(given, Path):
            digest, is_new = _copied(store, given, report)
            draft.made += [digest] if is_new else []
        else:
            digest, is_new = given.replace("-", ":").lower(), False
        size_bytes = store.blobs.size_bytes(digest)
        draft.add(Layer(kind, digest, size_bytes, source), is_new=is_new)
        if kind == manifests.MODEL:
            draft.config = _described(draft.config, header)
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
        with path.open("rb") as file:
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


def _check_kind(name: str, header: Header, kind: str, wanted: str, draft: _Draft) -> None:
    parts = header.values.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise RecipeRefused(
            f"{name} is one of {parts} parts of a split GGUF; join them first: "
            f"llama-gguf-split --merge"
        )
    if wanted == manifests.ADAPTER and kind != wanted:
        raise RecipeRefused(f"{name} is not a LoRA adapter")
    if kind == manifests.MODEL and any(one.media_type == kind for one in draft.layers):
        raise RecipeRefused(f"{name} is a second model file; a model has one")


def _copied(store: Store, path: Path, report: Report) -> tuple[str, bool]:
    """Copy a file among the blobs; gives its digest, and whether it was not there before."""
    total = path.stat().st_size
    with path.open("rb") as file, store.new_blob() as writer:
        while piece := file.read(_PIECE_BYTES):
            writer.write(piece)
            report(Progress("copying file", total=total, completed=min(writer.size_bytes, total)))
        digest = writer.commit()
    return digest, writer.is_new


def _described(config: Config, header: Header) -> Config:
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


def _quantise(store: Store, draft: _Draft, target: str, report: Report) -> None:
    """Replace the model's layer by one in another format."""
    number, layer = next(
        (number, layer)
        for number, layer in enumerate(draft.layers)
        if layer.media_type == manifests.MODEL
    )
    path = store.blob_path(layer.digest)
    header = read_header(path)
    now = quantization(header)
    if now not in SOURCES:
        raise RecipeRefused("quantization is only supported for F16, BF16 and F32 models")
    if now == target:
        return
    status = f"quantizing {now} model to {target}"
    report(Progress(status))
    known = set(store.blobs.digests())
    digest = quantised(store.blobs, path, header, target, report, status)
    size_bytes = store.blobs.size_bytes(digest)
    draft.layers[number] = replace(layer, digest=digest, size_bytes=size_bytes)
    draft.statuses[number] = f"creating new layer {digest}"
    if digest not in known:
        draft.made.append(digest)
    report(Progress("verifying conversion"))
    draft.config = _described(draft.config, read_header(store.blob_path(digest)))


def _overlay(store: Store, draft: _Draft, recipe: Recipe) -> None:
    """Lay what the recipe says over what the base says."""
    if recipe.template:
        draft.drop(manifests.TEMPLATE, manifests.PROMPT)
        _add_text(store, draft, manifests.TEMPLATE, recipe.template)
    if recipe.system:
        draft.drop(manifests.SYSTEM)
        _add_text(store, draft, manifests.SYSTEM, recipe.system)
    for text in recipe.licenses:
        _add_text(store, draft, manifests.LICENSE, text)
    known = {key: value for key, value in recipe.parameters.items() if key in KINDS}
    if known:
        params = {**_params(store, draft), **known}
        draft.drop(manifests.PARAMS)
        _add_json(store, draft, manifests.PARAMS, dict(sorted(params.items())))
    if recipe.messages:
        draft.drop(manifests.MESSAGES)
        _add_json(store, draft, manifests.MESSAGES, [_turn(one) for one in recipe.messages])
    draft.config = replace(
        draft.config,
        # A template of one's own goes before the base's renderer, which knows another one.
        renderer=recipe.renderer or ("" if recipe.template else draft.config.renderer),
        parser=recipe.parser or draft.config.parser,
        requires=recipe.requires.removeprefix("v") or draft.config.requires,
    )


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _params(store: Store, draft: _Draft) -> dict[str, Any]:
    """Give the parameters that the draft has so far."""
    return dict(read_contents(store.blobs, make_manifest(None, draft.layers)).params)


def _add_text(store: Store, draft: _Draft, media_type: str, text: str) -> None:
    raw = text.encode("utf-8", errors="replace")
    n_made = len(draft.made)
    layer = _stored(store, draft, media_type, raw)
    draft.add(layer, is_new=len(draft.made) > n_made)


def _add_json(store: Store, draft: _Draft, media_type: str, value: object) -> None:
    _add_text(store, draft, media_type, go_json(value).decode())


def _stored(store: Store, draft: _Draft, media_type: str, raw: bytes) -> Layer:
    """Write a small blob; what was not there before is noted in the draft."""
    with store.new_blob() as writer:
        writer.write(raw)
        digest = writer.commit()
    if writer.is_new:
        draft.made.append(digest)
    return Layer(media_type, digest, len(raw))
