"""Cards of models for `show` and `list`: what is known of one without loading it.

Most of a card comes from a stored model's config; the rest, and everything about files elsewhere,
comes from the GGUF header. Safe from any thread.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddock.engine.chat.known_templates import insert_form
from paddock.engine.errors import ModelBroken, TrialTimeout
from paddock.engine.gguf import SUPPRESSED, TYPE_NAMES, GgufHeader, read_header
from paddock.engine.request import Message, ModelFacts
from paddock.engine.system.records import Struct, field, replace

from . import manifests
from .manifests import ManifestLayer, ModelConfig, StoredModel, go_json, make_manifest
from .model_finder import FoundModel, ModelFiles, ModelFinder, model_params, sampling_params
from .model_names import shown_name
from .modelfile import ModelfileCommand, each_value, print_parameters, value_text, write_modelfile

# Shown elsewhere, or a page of text.
_HIDDEN_KEYS = ("general.name", "tokenizer.chat_template")
_TEMPLATE_KEY = "tokenizer.chat_template"


class ModelDetails(Struct, frozen=True):
    """A model in short, under Ollama's names."""

    format: str
    family: str
    families: tuple[str, ...]
    parameter_size: str
    quantization_level: str
    """Such as `Q4_K_M`."""
    context_length: int = 0
    """Its training context in tokens; 0: unknown."""
    embedding_length: int = 0
    parent_model: str = ""


class TensorInfo(Struct, frozen=True):
    name: str
    type: str
    shape: tuple[int, ...]


class ModelCard(Struct, frozen=True):
    name: str
    digest: str
    """sha256 of its manifest, hexadecimal; of its file where there is no manifest."""
    size_bytes: int
    modified_at: datetime.datetime
    details: ModelDetails
    capabilities: tuple[str, ...]
    """Some of completion, tools, insert, vision, embedding, thinking."""
    origin: str
    """`store`, `package`, `bundled` or `path`."""
    license: str = ""
    of_file: Mapping[str, Any] = field(default_factory=dict)
    """Sampling values of the file itself, and how many tokens it forbids."""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    messages: tuple[Message, ...] = ()
    model_info: Mapping[str, Any] = field(default_factory=dict)
    projector_info: Mapping[str, Any] | None = None
    tensors: tuple[TensorInfo, ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    path: str = ""


def describe_model(finder: ModelFinder, ref: str, *, is_verbose: bool = False) -> ModelCard:
    found = finder.locate(ref)
    own, config = found.own, found.own.config
    header = finder.files.header(found.path, own.parts)
    card = _short_card(finder, found, header)
    projector = finder.files.header(own.projector) if own.projector else None
    given: list[tuple[str, object]] = [("FROM", found.path), ("FROM", own.projector)]
    given += [("ADAPTER", path) for path in own.adapters]
    given += [("TEMPLATE", own.template), ("SYSTEM", own.system)]  # the file's own needs none
    commands = [ModelfileCommand(name, str(value)) for name, value in given if value]
    commands += [
        ModelfileCommand("PARAMETER", value if isinstance(value, str) else value_text(value), key)
        for key, value in each_value(own.params)
    ]
    commands += [
        ModelfileCommand("MESSAGE", message.content, message.role) for message in own.messages
    ]
    for name, value in (("RENDERER", config.renderer), ("PARSER", config.parser),
                        ("REQUIRES", config.requires)):  # fmt: skip
        if value:
            commands.append(ModelfileCommand(name, value))
    commands += [ModelfileCommand("LICENSE", text) for text in own.licenses]
    modelfile_text = (
        '# Modelfile written by "paddock show"\n'
        "# To make a model from this one, replace the FROM lines by:\n"
        f"# FROM {found.name}\n\n{write_modelfile(commands)}"
    )
    return replace(
        card,
        license="\n".join(own.licenses),
        modelfile=modelfile_text,
        parameters=print_parameters(model_params(found, header)),
        template=_shown_template(own, header),
        system=own.system,
        messages=own.messages,
        model_info=_header_values(header, found.path, is_verbose),
        projector_info=_header_values(projector, own.projector, is_verbose)
        if projector and own.projector
        else None,
        tensors=tuple(
            TensorInfo(tensor.name, TYPE_NAMES.get(tensor.kind, f"type {tensor.kind}"), tensor.axes)
            for tensor in header.tensors
        ),
        renderer=config.renderer,
        parser=config.parser,
        requires=config.requires,
    )


def list_cards(finder: ModelFinder) -> list[ModelCard]:
    """Return a short card of every model, newest first.

    A model with a broken file is listed by its config, so that it can be removed; one with a
    broken manifest is not listed.
    """
    listed: dict[str, ModelCard] = {}
    for found in finder.everything():
        name = shown_name(found.name).lower()
        if name not in listed:
            try:
                list_card = _short_card(
                    finder, found, finder.files.header(found.path, found.own.parts)
                )
            except (ModelBroken, TrialTimeout):  # what its template supports is not known
                list_card = _short_card(finder, found, None)
            listed[name] = list_card
    return sorted(listed.values(), key=lambda card: card.modified_at, reverse=True)


def model_capabilities(finder: ModelFinder, facts: ModelFacts) -> tuple[str, ...]:
    path = Path(facts.path)
    header = finder.files.header(path, tuple(map(Path, facts.parts)))
    sees = facts.projector is not None
    return _capabilities_of(finder.files, path, header, facts.template, sees)


def weight_count_text(number: int) -> str:
    """Return a count of weights as Ollama writes it.

    >>> weight_count_text(134_515_008), weight_count_text(7_241_732_096)
    ('134.52M', '7.2B')
    """
    if number >= 10**9:
        billions = number / 10**9
        return f"{billions:.0f}B" if billions.is_integer() else f"{billions:.1f}B"
    if number >= 10**6:
        millions = number / 10**6
        return f"{millions:.0f}M" if millions.is_integer() else f"{millions:.2f}M"
    return f"{number / 1000:.0f}K" if number >= 1000 else str(number)


def weights_format(header: GgufHeader) -> str:
    if header.file_type != "unknown" or not header.tensors:
        return header.file_type
    counts: dict[int, int] = {}
    for tensor in header.tensors:
        counts[tensor.kind] = counts.get(tensor.kind, 0) + tensor.n_weights
    return TYPE_NAMES.get(max(counts, key=lambda kind: counts[kind]), "unknown")


def _short_card(finder: ModelFinder, found: FoundModel, header: GgufHeader | None) -> ModelCard:
    own = found.own
    sees = own.projector is not None
    abilities: tuple[str, ...] = ()
    of_file: dict[str, Any] = {}
    if header:
        abilities = _capabilities_of(finder.files, found.path, header, own.own_template, sees)
        of_file = sampling_params(header.sampling)
        if n_suppressed := header.array_lengths.get(SUPPRESSED):
            of_file["suppress_tokens"] = n_suppressed
    if found.manifest:
        n_bytes = found.manifest.size_bytes
    else:
        n_bytes = sum(path.stat().st_size for path in (*own.weights, own.projector) if path)
    if found.stored_as is not None:
        model_modified_at = finder.store.modified_at(found.stored_as)
    else:
        mtime = found.path.stat().st_mtime
        model_modified_at = datetime.datetime.fromtimestamp(mtime, datetime.UTC).astimezone()
    return ModelCard(
        name=shown_name(found.name),
        digest=_model_digest(finder, found, header),
        size_bytes=n_bytes,
        modified_at=model_modified_at,
        details=_model_details(own, header),
        capabilities=abilities,
        origin=found.origin,
        path=str(found.path),
        of_file=of_file,
    )


def _model_digest(finder: ModelFinder, found: FoundModel, header: GgufHeader | None) -> str:
    """Return the digest of a model's manifest, hexadecimal.

    A model of an installed package has no manifest; its digest is that of the manifest of a copy
    in the store. The digest of a file named by its path is that of its content.
    """
    if found.manifest:
        return found.manifest.digest
    weights = finder.files.digest(found.path, found.own.parts)
    if header is None or found.origin not in ("package", "bundled"):
        return weights
    config = config_of_header(ModelConfig(), header)
    size_bytes = found.path.stat().st_size
    layers = [ManifestLayer(manifests.MODEL_TYPE, f"sha256:{weights}", size_bytes, found.name)]
    if found.own.params:
        params = go_json(dict(sorted(found.own.params.items())))
        layers.append(_layer_of_bytes(manifests.PARAMS_TYPE, params))
    return make_manifest(_layer_of_bytes(manifests.CONFIG_TYPE, config.dump(layers)), layers).digest


def _layer_of_bytes(media_type: str, raw: bytes) -> ManifestLayer:
    return ManifestLayer(media_type, f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw))


def config_of_header(config: ModelConfig, header: GgufHeader) -> ModelConfig:
    described = replace(
        config,
        model_format="gguf",
        model_family=header.architecture,
        model_type=weight_count_text(header.n_weights),
        file_type=weights_format(header),
    )
    return with_family(described, header.architecture)


def with_family(config: ModelConfig, family: str) -> ModelConfig:
    if family in config.model_families:
        return config
    return replace(config, model_families=(*config.model_families, family))


def _model_details(own: StoredModel, header: GgufHeader | None) -> ModelDetails:
    config = own.config
    of_file = config_of_header(ModelConfig(), header) if header else ModelConfig()
    family = config.model_family or of_file.model_family
    return ModelDetails(
        format=config.model_format or of_file.model_format,
        family=family,
        families=config.model_families or ((family,) if header else ()),
        parameter_size=config.model_type or of_file.model_type,
        quantization_level=config.file_type or of_file.file_type,
        context_length=header.number("context_length") if header else 0,
        embedding_length=header.number("embedding_length") if header else 0,
        parent_model=own.parent,
    )


def _capabilities_of(
    files: ModelFiles, path: Path, header: GgufHeader, template: str | None, sees: bool
) -> tuple[str, ...]:
    if header.role != "chat":
        return ("rerank",) if header.role == "rerank" else ("embedding",)
    if header.decides_by:
        return ("decision",)
    by_template = files.capabilities(path, template, str(header.values.get(_TEMPLATE_KEY, "")))
    has = {
        "completion": True,
        "tools": "tools" in by_template,
        "insert": header.fill_in_middle_tokens is not None,
        "vision": sees,
        "thinking": "thinking" in by_template,
        "decision": True,
    }
    return tuple(name for name, is_so in has.items() if is_so)


def _shown_template(own: StoredModel, header: GgufHeader) -> str:
    """Return the template as `show` prints it, with `.Suffix` if the model fills in the middle."""
    template = own.template or str(header.values.get(_TEMPLATE_KEY, ""))
    if header.role != "chat" or ".Suffix" in template or header.fill_in_middle_tokens is None:
        return template
    return insert_form(*header.fill_in_middle_tokens, template)


def _header_values(header: GgufHeader, path: Path, is_verbose: bool) -> dict[str, Any]:
    """Return a header's values; long arrays are empty unless `is_verbose`."""
    info: dict[str, Any] = {
        key: _json_number(value) for key, value in header.values.items() if key not in _HIDDEN_KEYS
    }
    info["general.parameter_count"] = header.n_weights
    arrays = (read_header(path, has_all_arrays=True) if is_verbose else header).arrays
    for key in header.array_lengths:
        info[key] = [_json_number(number) for number in arrays.get(key, ())]
    return info


def _json_number(value: object) -> object:
    """Return a value for JSON, which has no infinite numbers."""
    is_odd = isinstance(value, float) and not math.isfinite(value)
    return None if is_odd else value
