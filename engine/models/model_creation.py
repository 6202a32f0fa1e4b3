"""Create a model from a recipe: layers, config, manifest, and quantised weights.

Order and status lines are Ollama's (github.com/ollama/ollama, server/create.go), for its clients.
The manifest is written last. llama.cpp's quantiser runs in a process of its own
(`llama.quantise`) and writes to a temporary file, which becomes a blob when it is complete.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from paddock.engine.chat.known_templates import is_go_template, jinja_template
from paddock.engine.chat.template_trials import TemplateTrials
from paddock.engine.errors import BadRequest, EngineError, RecipeRefused, StoreFull
from paddock.engine.gguf import TYPE_BLOCKS, TYPE_NAMES, GgufHeader, GgufTensor, read_header
from paddock.engine.system.disk_space import free_disk_bytes
from paddock.engine.system.frame_processes import ordered_process
from paddock.engine.system.processes import python_command
from paddock.engine.system.records import replace

from . import manifests
from .blobs import BlobStore
from .gguf_import import NewModel, add_gguf_files
from .manifests import StoredModel, make_manifest, read_stored_model
from .model_cards import config_of_header, weights_format
from .model_finder import ModelFinder
from .model_names import ModelName, parse_name
from .model_recipe import ModelRecipe
from .model_store import ModelStore
from .modelfile import PARAMETER_KINDS, POOL_SETTINGS
from .transfer import ProgressLine, ReportProgress

QUANTISATION_FORMATS = (
    "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1", "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1",
    "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "IQ4_NL", "IQ4_XS", "F16", "BF16", "F32",
)  # fmt: skip

_QUANTISER_COMMAND = python_command("-m", "paddock.engine.llama.quantise")
_FORMAT_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
_SPARE_BYTES = 16 * 1024 * 1024
# llama.cpp makes mixtures of formats; these are upper bounds of their bytes for each weight.
_MOST_BYTES_EACH = {
    "Q2_K": 0.5, "Q3_K": 0.65, "Q4_K": 0.8, "Q5_K": 0.9, "IQ4_XS": 0.8, "IQ4_NL": 0.7,
}  # fmt: skip


def parse_format(name: str) -> str:
    canonical = _FORMAT_ALIASES.get(name.upper(), name.upper())
    if canonical not in QUANTISATION_FORMATS:
        known = ", ".join(QUANTISATION_FORMATS)
        raise RecipeRefused(f"unsupported quantization type {name!r} - supported types are {known}")
    return canonical


def quantise_to_blob(
    blobs: BlobStore,
    source: Path,
    header: GgufHeader,
    format_name: str,
    report: ReportProgress,
    status: str,
) -> str:
    """Write `source` in a format of `QUANTISATION_FORMATS`; return the new blob's digest.

    `report` is called regularly; if it raises, the quantiser is stopped and its file removed.

    Raises:
        StoreFull: the disk is too full; raised before anything is written where possible.
        EngineError: llama.cpp refuses or fails.
    """
    total = copy_bytes(header, format_name.removesuffix("_S").removesuffix("_M").removesuffix("_L"))
    _check_disk_space(blobs, total)
    target = blobs.temporary_path()
    try:
        order = {
            "source": str(source),
            "target": str(target),
            "format": format_name,
            "n_threads": 0,
        }
        why = _run_quantiser(order, target, lambda done: _report_bytes(report, status, total, done))
        if why:
            _check_disk_space(blobs, 0)
            raise EngineError(f"{source.name} cannot be written in {format_name}: {why}")
        digest = blobs.adopt(target)
    finally:
        target.unlink(missing_ok=True)
    _report_bytes(report, status, total, total)
    return digest


def copy_bytes(header: GgufHeader, format_name: str) -> int:
    """Return an upper bound of a model's size in another format."""
    each = _MOST_BYTES_EACH.get(format_name)
    if each is None:
        kind = next(kind for kind, name in TYPE_NAMES.items() if name == format_name)
        per_block, block_bytes = TYPE_BLOCKS[kind]
        each = block_bytes / per_block
    return int(sum(tensor.n_weights * _bytes_each(tensor, each) for tensor in header.tensors))


def _bytes_each(tensor: GgufTensor, each: float) -> float:
    """Return bytes for each weight: vectors stay, the vocabulary's matrices get 6 bits or more."""
    if len(tensor.axes) == 1:
        return 4.0
    return each if tensor.name.startswith("blk.") else max(each, 210 / 256)


def _report_bytes(report: ReportProgress, status: str, total: int, done: int) -> None:
    report(ProgressLine(status, total=total, completed=min(done, total)))


def _check_disk_space(blobs: BlobStore, needed: int) -> None:
    free = free_disk_bytes(blobs.folder)
    if needed + _SPARE_BYTES > free:
        raise StoreFull(str(blobs.folder), free)


def _run_quantiser(
    order: dict[str, object], target: Path, on_progress: Callable[[int], None]
) -> str:
    """Run the quantiser's process; return its error, or an empty text."""

    def report_size() -> None:
        with suppress(FileNotFoundError):
            on_progress(target.stat().st_size)

    with ordered_process(_QUANTISER_COMMAND, order) as quantiser:
        answer = quantiser.next_answer(report_size)
        if answer is None:
            return quantiser.exit_reason()
        why = str(answer["why"])
        return f"{why}{quantiser.last_line()}" if why else ""


_ABSOLUTE_PATH = re.compile(r"[/\\]|[A-Za-z]:[/\\]")
_SEMVER = re.compile(r"v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")


def create_model(
    store: ModelStore, finder: ModelFinder, recipe: ModelRecipe, report: ReportProgress
) -> ModelName:
    """Create a model; return its name as it is spelled in the store.

    `report` is called for every step, in this thread; if it raises, the old model stays.

    Raises:
        ModelNotFound: the base is not on this machine; the caller may pull it and try again.
        InvalidName, RecipeRefused, BadDigest, BlobMissing: the recipe is invalid.
        ModelBroken, StoreFull, StoreReadOnly, EngineError: nothing was created.
    """
    name = parse_name(recipe.name)
    # Raise the errors of a recipe that are known before anything is written
    if not recipe.base and not recipe.files:
        raise RecipeRefused("neither 'from' or 'files' was specified")
    for file, source in {**recipe.files, **recipe.adapters}.items():
        if not file or _ABSOLUTE_PATH.match(file) or ".." in re.split(r"[/\\]", file):
            raise RecipeRefused("file path must be relative")
        if isinstance(source, str) and re.fullmatch(r"sha256[:-][0-9a-fA-F]{64}", source) is None:
            raise RecipeRefused("invalid digest format")
    if len(recipe.adapters) > 1:
        raise RecipeRefused("only one adapter is currently supported")
    if recipe.quantize:
        parse_format(recipe.quantize)
    if recipe.requires and _SEMVER.fullmatch(recipe.requires) is None:
        raise RecipeRefused("requires must be a valid semver (e.g. 0.14.0)")
    for key, value in recipe.parameters.items():
        try:
            _stored_parameter(key, value)
        except ValueError as error:
            raise RecipeRefused(f"parameter '{key}' must be {error}, not {value!r}") from None
    recipe = replace(recipe, template=_stored_template(store, recipe.template))
    before = store.digests(name)
    model = NewModel(store)
    try:
        _add_base(finder, recipe, model, report)
        if recipe.adapters:
            add_gguf_files(model, recipe.adapters, report, expected_type=manifests.ADAPTER_TYPE)
        if recipe.quantize:
            _quantise(model, parse_format(recipe.quantize), report)
        _apply_recipe(model, recipe)
        config = model.written(manifests.CONFIG_TYPE, model.config.dump(model.layers))
        for status in (*model.statuses, *_notes(recipe)):
            report(ProgressLine(status))
        report(ProgressLine("writing manifest"))
        stored = store.put_manifest(name, make_manifest(config, model.layers))
    except BaseException:
        with suppress(EngineError):
            store.prune(model.made, keep=finder.needed_digests())
        raise
    # Removes what only the old model needed, and intermediate files.
    store.prune([*before, *model.made], keep=finder.needed_digests())
    report(ProgressLine("success"))
    return stored


def copy_model(
    store: ModelStore, finder: ModelFinder, source: ModelName, destination: ModelName
) -> None:
    """Add a second name for a model; a model outside the store is copied into it."""
    if store.find(source) is not None:
        store.copy(source, destination)
    else:
        create_model(store, finder, ModelRecipe(destination.full, base=source.full), lambda _: None)


def _add_base(
    finder: ModelFinder, recipe: ModelRecipe, model: NewModel, report: ReportProgress
) -> None:
    if not recipe.base:
        add_gguf_files(model, recipe.files, report, expected_type=manifests.MODEL_TYPE)
        if not any(layer.media_type == manifests.MODEL_TYPE for layer in model.layers):
            raise RecipeRefused("no files provided to convert")
        return
    # Never a path: the recipe may come from another machine.
    found = finder.named(parse_name(recipe.base))
    if found.manifest is not None:
        model.config = found.own.config
        for layer in found.manifest.layers:
            # `source` is the base's name in the store.
            model.add(replace(layer, source=found.name), is_new=False)
        if not model.config.model_format:  # the base's config is empty
            model.config = config_of_header(
                model.config, finder.files.header(found.path, found.own.parts)
            )
        return
    files = {path.name: path for path in (*found.own.weights, found.own.projector) if path}
    add_gguf_files(model, files, report, expected_type=manifests.MODEL_TYPE, source=found.name)
    if found.own.params:
        model.add_json(manifests.PARAMS_TYPE, dict(sorted(found.own.params.items())))


def _quantise(model: NewModel, target: str, report: ReportProgress) -> None:
    number, layer = next(
        (number, layer)
        for number, layer in enumerate(model.layers)
        if layer.media_type == manifests.MODEL_TYPE
    )
    path = model.store.blobs.path(layer.digest)
    header = read_header(path)
    if header.n_parts > 1:
        raise RecipeRefused(
            "quantization needs a model in one file; join its parts with llama.cpp's "
            "`llama-gguf-split --merge`"
        )
    now = weights_format(header)
    if now not in ("F16", "BF16", "F32"):
        raise RecipeRefused("quantization is only supported for F16, BF16 and F32 models")
    if now == target:
        return
    status = f"quantizing {now} model to {target}"
    report(ProgressLine(status))
    known = set(model.store.blobs.digests())
    digest = quantise_to_blob(model.store.blobs, path, header, target, report, status)
    size_bytes = model.store.blobs.size_bytes(digest)
    model.layers[number] = replace(layer, digest=digest, size_bytes=size_bytes)
    model.statuses[number] = f"creating new layer {digest}"
    if digest not in known:
        model.made.append(digest)
    report(ProgressLine("verifying conversion"))
    model.config = config_of_header(model.config, read_header(model.store.blobs.path(digest)))


def _apply_recipe(model: NewModel, recipe: ModelRecipe) -> None:
    if recipe.template:
        model.drop(manifests.TEMPLATE_TYPE, manifests.PROMPT_TYPE)
        model.add_text(manifests.TEMPLATE_TYPE, recipe.template)
    if recipe.system:
        model.drop(manifests.SYSTEM_TYPE)
        model.add_text(manifests.SYSTEM_TYPE, recipe.system)
    for text in dict.fromkeys(recipe.licenses):
        if text not in _contents(model).licenses:
            model.add_text(manifests.LICENSE_TYPE, text)
    given = recipe.parameters.items()
    known = {key: _stored_parameter(key, value) for key, value in given if key in PARAMETER_KINDS}
    if known:
        params = {**_contents(model).params, **known}
        model.drop(manifests.PARAMS_TYPE)
        model.add_json(manifests.PARAMS_TYPE, dict(sorted(params.items())))
    if recipe.messages:
        model.drop(manifests.MESSAGES_TYPE)
        model.add_json(
            manifests.MESSAGES_TYPE,
            [{"role": message.role, "content": message.content} for message in recipe.messages],
        )
    model.config = replace(
        model.config,
        # A new template replaces the base's renderer, which belongs to the old template.
        renderer=recipe.renderer or ("" if recipe.template else model.config.renderer),
        parser=recipe.parser or model.config.parser,
        requires=recipe.requires.removeprefix("v") or model.config.requires,
    )


def _stored_template(store: ModelStore, template: str) -> str:
    """Return a recipe's template as it is stored: in Jinja, or as a package of the store has it."""
    digest = f"sha256:{hashlib.sha256(template.encode()).hexdigest()}"
    if not template or any(digest in store.digests(name) for name in store.names()):
        return template  # as `show` prints it
    try:
        with closing(TemplateTrials()) as trials:
            jinja = jinja_template(template)
            trials.compute({"template": {"source": jinja, "bos": "", "eos": ""}})
    except BadRequest as error:
        raise RecipeRefused(f"template error: {error}") from error
    return jinja


def _notes(recipe: ModelRecipe) -> Iterator[str]:
    """Yield a status line for each part of a recipe without effect."""
    if is_go_template(recipe.template):
        yield "the template is in Go's language: the model's file's own is used, or its family's"
    for key in recipe.parameters:
        if key not in PARAMETER_KINDS:
            yield f"parameter {key!r} is not known and was left out"
        elif key in POOL_SETTINGS:
            yield f"parameter {key!r} has no effect: it is set by PADDOCK_{POOL_SETTINGS[key]}"


def _stored_parameter(key: str, value: Any) -> Any:
    typed = PARAMETER_KINDS[key].typed(value) if key in PARAMETER_KINDS else value
    return list(typed) if isinstance(typed, tuple) else typed


def _contents(model: NewModel) -> StoredModel:
    return read_stored_model(model.store.blobs, make_manifest(None, model.layers))
