"""What can be told of a model without loading it: `show`, `list`, and what it can be asked for.

Knows no HTTP. A stored model's config says most of it, as whoever made it wrote it down; what it
leaves out, and everything about files that lie elsewhere, comes from the GGUF file's header.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.engine.errors import InvalidName, ModelBroken
from paddock.engine.gguf import TYPE_NAMES, Header, read_arrays
from paddock.engine.request import Message, ModelFacts

from . import manifests
from .contents import Config, Contents
from .found import Finder, Found
from .layout import Store
from .manifests import Layer, go_json, make_manifest
from .modelfile import Command, write_modelfile
from .names import parse_name
from .parameters import each, print_parameters

# What is told elsewhere, or is a page of text.
_LEFT_OUT = ("general.name", "tokenizer.chat_template")
_TEMPLATE = "tokenizer.chat_template"

# Embedding models announce how they pool; these do so by their architecture alone.
_RANK = 4  # LLAMA_POOLING_TYPE_RANK
_EMBEDDERS = ("bert", "nomic-bert", "jina-bert", "modern-bert", "t5encoder", "gemma-embedding")


@dataclass(frozen=True, slots=True)
class Details:
    """A model in a few words, by Ollama's names."""

    format: str
    family: str
    families: tuple[str, ...]
    parameter_size: str
    """Such as `7.2B`."""
    quantization_level: str
    """Such as `Q4_K_M`."""
    context_length: int = 0
    """Tokens that it was trained on; 0: not known."""
    embedding_length: int = 0
    parent_model: str = ""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of the weights."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """All that is known of one model."""

    name: str
    digest: str
    """sha256 of its manifest, hexadecimal; of its file where there is no manifest."""
    size_bytes: int
    modified_at: datetime.datetime
    details: Details
    capabilities: tuple[str, ...]
    """Some of completion, tools, insert, vision, embedding, thinking."""
    origin: str
    """`store`, `package`, `bundled` or `path`."""
    license: str = ""
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
    """Of the GGUF file."""


def describe(finder: Finder, ref: str, *, is_verbose: bool = False) -> Card:
    """Tell everything of one model; `is_verbose`: its vocabulary too.

    Raises:
        InvalidName: `ref` cannot be a name.
        ModelNotFound: with the known names.
        ModelBroken: its manifest, or a file of it, cannot be used.
    """
    found = finder.locate(ref)
    header = finder.files.header(*found.split)
    own = _contents(found)
    abilities = _capabilities(finder, header, _template(own, header), found.projector is not None)
    projector = finder.files.header(found.projector) if found.projector else None
    return Card(
        name=_shown_name(found),
        digest=_digest(finder, found, header),
        size_bytes=_size(found),
        modified_at=_modified_at(finder.store, found),
        details=_details(own, header),
        capabilities=abilities,
        origin=found.origin,
        license="\n".join(own.licenses),
        modelfile=_modelfile(found, own),
        parameters=print_parameters(found.params),
        template=_shown_template(own, header, "insert" in abilities),
        system=own.system,
        messages=own.messages,
        model_info=_info(header, found.path, is_verbose),
        projector_info=_info(projector, found.projector, is_verbose)
        if projector and found.projector
        else None,
        tensors=tuple(
            TensorInfo(one.name, TYPE_NAMES.get(one.kind, f"type {one.kind}"), one.axes)
            for one in header.tensors
        ),
        renderer=own.config.renderer,
        parser=own.config.parser,
        requires=own.config.requires,
        path=str(found.path),
    )


def cards(finder: Finder) -> list[Card]:
    """Tell of every model what a list shows, newest first.

    One whose file is broken is listed by what its config says, so that it can be seen and
    removed; one whose manifest is broken is not.
    """
    listed: dict[str, Card] = {}
    for found in finder.everything():
        name = _shown_name(found).lower()
        if name not in listed:
            listed[name] = _row(finder, found)
    return sorted(listed.values(), key=lambda card: card.modified_at, reverse=True)


def capabilities(finder: Finder, facts: ModelFacts) -> tuple[str, ...]:
    """Tell what a model can be asked for, by its facts.

    Raises:
        ModelBroken: its file cannot be used.
    """
    header = finder.files.header(Path(facts.path), tuple(map(Path, facts.parts)))
    template = facts.template or str(header.values.get(_TEMPLATE, ""))
    return _capabilities(finder, header, template, facts.projector is not None)


def human_number(number: int) -> str:
    """Write a count of weights as Ollama does.

    >>> human_number(134_515_008), human_number(7_241_732_096), human_number(22_000_000)
    ('134.52M', '7.2B', '22M')
    """
    if number >= 10**9:
        billions = number / 10**9
        return f"{billions:.0f}B" if billions.is_integer() else f"{billions:.1f}B"
    if number >= 10**6:
        millions = number / 10**6
        return f"{millions:.0f}M" if millions.is_integer() else f"{millions:.2f}M"
    return f"{number / 1000:.0f}K" if number >= 1000 else str(number)


def quantization(header: Header) -> str:
    """Name the format of a file's weights; where it does not say, that of most of them."""
    if header.file_type != "unknown" or not header.tensors:
        return header.file_type
    counts: dict[int, int] = {}
    for tensor in header.tensors:
        counts[tensor.kind] = counts.get(tensor.kind, 0) + tensor.n_weights
    return TYPE_NAMES.get(max(counts, key=lambda kind: counts[kind]), "unknown")


def _row(finder: Finder, found: Found) -> Card:
    own = _contents(found)
    abilities: tuple[str, ...] = ()
    header = None
    try:
        header = finder.files.header(*found.split)
        template = _template(own, header)
        abilities = _capabilities(finder, header, template, found.projector is not None)
    except ModelBroken:
        pass
    return Card(
        name=_shown_name(found),
        digest=_digest(finder, found, header),
        size_bytes=_size(found),
        modified_at=_modified_at(finder.store, found),
        details=_details(own, header),
        capabilities=abilities,
        origin=found.origin,
        path=str(found.path),
    )


def _contents(found: Found) -> Contents:
    return found.contents or Contents(found.path)


def _shown_name(found: Found) -> str:
    """Return the name by which every API lists a model: with its tag. Of a file, its path."""
    try:
        return parse_name(found.name).short
    except InvalidName:
        return found.name


def _digest(finder: Finder, found: Found, header: Header | None) -> str:
    """Return the digest of a model's manifest, hexadecimal.

    A model of an installed package has none, so it is that of the manifest which its copy in the
    store would have. A file that is named by its path has the digest of its content.
    """
    if found.manifest:
        return found.manifest.digest
    weights = finder.files.digest(*found.split)
    if header is None or found.origin not in ("package", "bundled"):
        return weights
    told = _details(Contents(found.path), header)
    config = Config(
        told.format, told.family, told.families, told.parameter_size, told.quantization_level
    )
    size_bytes = found.path.stat().st_size
    layers = [Layer(manifests.MODEL, f"sha256:{weights}", size_bytes, found.name)]
    if found.params:
        params = go_json(dict(sorted(found.params.items())))
        layers.append(_layer_of(manifests.PARAMS, params))
    return make_manifest(_layer_of(manifests.CONFIG, config.dump(layers)), layers).digest


def _layer_of(media_type: str, raw: bytes) -> Layer:
    return Layer(media_type, f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw))


def _size(found: Found) -> int:
    if found.manifest:
        return found.manifest.size_bytes
    return sum(path.stat().st_size for path in (*found.weights, found.projector) if path)


def _modified_at(store: Store, found: Found) -> datetime.datetime:
    if found.stored_as is not None:
        return store.modified_at(found.stored_as)
    mtime = found.path.stat().st_mtime
    return datetime.datetime.fromtimestamp(mtime, datetime.UTC).astimezone()


def _details(own: Contents, header: Header | None) -> Details:
    told: Config = own.config
    if header is None:
        return Details(
            told.model_format,
            told.model_family,
            told.model_families,
            told.model_type,
            told.file_type,
            parent_model=own.parent,
        )
    family = told.model_family or header.architecture
    return Details(
        format=told.model_format or "gguf",
        family=family,
        families=told.model_families or (family,),
        parameter_size=told.model_type or human_number(header.n_weights),
        quantization_level=told.file_type or quantization(header),
        context_length=header.number("context_length"),
        embedding_length=header.number("embedding_length"),
        parent_model=own.parent,
    )


def _template(own: Contents, header: Header) -> str:
    """Give the template by which prompts are made; empty: the model has none of its own."""
    return own.own_template or str(header.values.get(_TEMPLATE, ""))


def _capabilities(finder: Finder, header: Header, template: str, sees: bool) -> tuple[str, ...]:
    if is_reranker(header):
        return ("rerank",)
    if is_embedder(header):
        return ("embedding",)
    by_template = finder.files.abilities(template)
    has = {
        "completion": True,
        "tools": "tools" in by_template,
        "insert": "insert" in by_template or header.filling is not None,
        "vision": sees,
        "thinking": "thinking" in by_template,
    }
    return tuple(name for name, is_so in has.items() if is_so)


def is_reranker(header: Header) -> bool:
    """Return whether a model scores documents for a query."""
    return header.number("pooling_type") == _RANK


def is_embedder(header: Header) -> bool:
    """Return whether a model gives vectors, or scores, and no text."""
    return header.number("pooling_type") > 0 or header.architecture.startswith(_EMBEDDERS)


def _shown_template(own: Contents, header: Header, inserts: bool) -> str:
    """Give the template as `show` tells it.

    Editors look for `.Suffix` in it to know whether a model fills in the middle; of one that does
    so by tokens of its vocabulary, that is said in the way they read.
    """
    template = own.template or str(header.values.get(_TEMPLATE, ""))
    if not inserts or ".Suffix" in template or header.filling is None:
        return template
    before, after, middle = header.filling
    inserted = f"{before}{{{{ .Prompt }}}}{after}{{{{ .Suffix }}}}{middle}"
    return f"{{{{- if .Suffix }}}}{inserted}{{{{- else }}}}{template}{{{{- end }}}}"


def _info(header: Header, path: Path, is_verbose: bool) -> dict[str, Any]:
    """Give a header's values; long arrays are empty unless they are asked for."""
    info: dict[str, Any] = {
        key: _plain(value) for key, value in header.values.items() if key not in _LEFT_OUT
    }
    info["general.parameter_count"] = header.n_weights
    arrays = read_arrays(path) if is_verbose else header.arrays
    for key in header.array_lengths:
        info[key] = [_plain(one) for one in arrays.get(key, ())]
    return info


def _plain(value: object) -> object:
    """Give what JSON can tell."""
    is_odd = isinstance(value, float) and not math.isfinite(value)
    return None if is_odd else value


def _modelfile(found: Found, own: Contents) -> str:
    """Write the Modelfile that would make this model again."""
    commands = [Command("FROM", str(found.path))]
    if found.projector:
        commands.append(Command("FROM", str(found.projector)))
    commands += [Command("ADAPTER", str(path)) for path in own.adapters]
    if own.template:  # the file brings its own itself
        commands.append(Command("TEMPLATE", own.template))
    if own.system:
        commands.append(Command("SYSTEM", own.system))
    commands += [Command("PARAMETER", _said(value), key) for key, value in each(found.params)]
    commands += [Command("MESSAGE", one.content, one.role) for one in own.messages]
    config = own.config
    for name, value in (("RENDERER", config.renderer), ("PARSER", config.parser),
                        ("REQUIRES", config.requires)):  # fmt: skip
        if value:
            commands.append(Command(name, value))
    commands += [Command("LICENSE", text) for text in own.licenses]
    return (
        '# Modelfile written by "paddock show"\n'
        "# To make a model from this one, replace the FROM lines by:\n"
        f"# FROM {found.name}\n\n{write_modelfile(commands)}"
    )


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
