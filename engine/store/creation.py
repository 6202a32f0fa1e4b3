"""Make a model from a recipe: its layers, its config, its manifest. Loads nothing.

In the order and the words of Ollama (github.com/ollama/ollama, server/create.go), so that its
clients can follow. Nothing gets the new name before all of it is there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from paddock.engine.errors import BadRequest, EngineError, RecipeRefused
from paddock.engine.gguf import read_header
from paddock.engine.request import Message

from . import manifests
from .cards import quantization
from .contents import read_contents
from .draft import Draft
from .found import Finder
from .intake import add_files, described
from .layout import Store
from .manifests import make_manifest
from .names import ModelName, parse_name
from .parameters import KINDS, SETTINGS
from .progress import Progress, Report
from .quantising import SOURCES, format_named, quantised
from .recipe import Recipe

_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_SEMVER = re.compile(r"v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")
_WORDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false",
          "texts": "a text or a list of texts"}  # fmt: skip


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
    draft = Draft(store)
    try:
        _fill(finder, recipe, draft, report)
        config = draft.written(manifests.CONFIG, draft.config.dump(draft.layers))
        for status in (*draft.statuses, *_left_out(recipe)):
            report(Progress(status))
        report(Progress("writing manifest"))
        there = store.put_manifest(name, make_manifest(config, draft.layers))
    except BaseException:
        with suppress(EngineError):
            store.prune(draft.made, keep=finder.kept())
        raise
    store.prune([*before, *draft.made], keep=finder.kept())  # what was only a step on the way goes
    report(Progress("success"))
    return there


def copy(store: Store, finder: Finder, source: ModelName, destination: ModelName) -> None:
    """Give a model a second name. A model outside the store gets a copy of its file in it.

    Raises:
        ModelNotFound: there is no such model here.
        StoreFull, StoreReadOnly, ModelBroken: nothing was made.
    """
    if store.find(source) is not None:
        store.copy(source, destination)
    else:
        create(store, finder, Recipe(destination.full, base=source.full), lambda _: None)


def _fill(finder: Finder, recipe: Recipe, draft: Draft, report: Report) -> None:
    """Bring a model's layers together."""
    _begin(finder, recipe, draft, report)
    if recipe.adapters:
        add_files(draft, recipe.adapters, report, wanted=manifests.ADAPTER)
    if recipe.quantize:
        _quantise(draft, format_named(recipe.quantize), report)
    _overlay(draft, recipe)


def _check(recipe: Recipe) -> None:
    """Refuse what can be refused before anything is written."""
    if not recipe.base and not recipe.files:
        raise RecipeRefused("neither 'from' or 'files' was specified")
    for file, source in {**recipe.files, **recipe.adapters}.items():
        if not file or _ABSOLUTE.match(file) or ".." in re.split(r"[/\\]", file):
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
        is_endless = isinstance(value, float) and not math.isfinite(value)
        is_good = kind is None or is_whole or (is_number and not is_endless)
    if not is_good and kind is not None:
        raise RecipeRefused(f"parameter '{key}' must be {_WORDS[kind]}, not {value!r}")


def _check_template(source: str) -> None:
    from paddock.engine.dialogue.templates import read_template  # brings Jinja2: 40 ms

    try:
        read_template(source)
    except BadRequest as error:
        raise RecipeRefused(f"template error: {error}") from error


def _begin(finder: Finder, recipe: Recipe, draft: Draft, report: Report) -> None:
    """Start from another model, or from files."""
    if not recipe.base:
        add_files(draft, recipe.files, report, wanted=manifests.MODEL)
        if not any(layer.media_type == manifests.MODEL for layer in draft.layers):
            raise RecipeRefused("no files provided to convert")
        return
    # A name and never a path: the recipe may come from another machine.
    found = finder.named(parse_name(recipe.base))
    if found.manifest is not None:
        draft.config = read_contents(draft.store.blobs, found.manifest).config
        for layer in found.manifest.layers:
            # What weights are told to be made from is their name in the store.
            draft.add(replace(layer, source=found.name), is_new=False)
        if not draft.config.model_format:  # its maker told nothing of it
            draft.config = described(draft.config, finder.files.header(*found.split))
        return
    files = {path.name: path for path in (*found.weights, found.projector) if path}
    add_files(draft, files, report, wanted=manifests.MODEL, source=found.name)
    if found.params:
        draft.add_json(manifests.PARAMS, dict(sorted(found.params.items())))


def _quantise(draft: Draft, target: str, report: Report) -> None:
    """Replace the model's layer by one in another format."""
    number, layer = next(
        (number, layer)
        for number, layer in enumerate(draft.layers)
        if layer.media_type == manifests.MODEL
    )
    path = draft.store.blob_path(layer.digest)
    header = read_header(path)
    if header.n_parts > 1:
        raise RecipeRefused(
            "quantization needs a model in one file; join its parts with llama.cpp's "
            "`llama-gguf-split --merge`"
        )
    now = quantization(header)
    if now not in SOURCES:
        raise RecipeRefused("quantization is only supported for F16, BF16 and F32 models")
    if now == target:
        return
    status = f"quantizing {now} model to {target}"
    report(Progress(status))
    known = set(draft.store.blobs.digests())
    digest = quantised(draft.store.blobs, path, header, target, report, status)
    size_bytes = draft.store.blobs.size_bytes(digest)
    draft.layers[number] = replace(layer, digest=digest, size_bytes=size_bytes)
    draft.statuses[number] = f"creating new layer {digest}"
    if digest not in known:
        draft.made.append(digest)
    report(Progress("verifying conversion"))
    draft.config = described(draft.config, read_header(draft.store.blob_path(digest)))


def _overlay(draft: Draft, recipe: Recipe) -> None:
    """Lay what the recipe says over what the base says."""
    if recipe.template:
        draft.drop(manifests.TEMPLATE, manifests.PROMPT)
        draft.add_text(manifests.TEMPLATE, recipe.template)
    if recipe.system:
        draft.drop(manifests.SYSTEM)
        draft.add_text(manifests.SYSTEM, recipe.system)
    for text in dict.fromkeys(recipe.licenses):
        if text not in _licenses(draft):
            draft.add_text(manifests.LICENSE, text)
    known = {key: _plain(key, value) for key, value in recipe.parameters.items() if key in KINDS}
    if known:
        params = {**_params(draft), **known}
        draft.drop(manifests.PARAMS)
        draft.add_json(manifests.PARAMS, dict(sorted(params.items())))
    if recipe.messages:
        draft.drop(manifests.MESSAGES)
        draft.add_json(manifests.MESSAGES, [_turn(one) for one in recipe.messages])
    draft.config = replace(
        draft.config,
        # A template of one's own goes before the base's renderer, which knows another one.
        renderer=recipe.renderer or ("" if recipe.template else draft.config.renderer),
        parser=recipe.parser or draft.config.parser,
        requires=recipe.requires.removeprefix("v") or draft.config.requires,
    )


def _left_out(recipe: Recipe) -> Iterator[str]:
    """Yield what is said of parameters that change nothing."""
    for key in recipe.parameters:
        if key not in KINDS:
            yield f"parameter {key!r} is not known and was left out"
        elif key in SETTINGS:
            yield f"parameter {key!r} has no effect: it is set by PADDOCK_{SETTINGS[key]}"


def _plain(key: str, value: Any) -> Any:
    """Write a parameter as Ollama stores it."""
    if KINDS[key] == "texts":
        return [value] if isinstance(value, str) else list(value)
    return int(value) if KINDS[key] == "integer" else value


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _licenses(draft: Draft) -> tuple[str, ...]:
    """Give the licences that the draft has so far."""
    return read_contents(draft.store.blobs, make_manifest(None, draft.layers)).licenses


def _params(draft: Draft) -> dict[str, Any]:
    """Give the parameters that the draft has so far."""
    return dict(read_contents(draft.store.blobs, make_manifest(None, draft.layers)).params)
