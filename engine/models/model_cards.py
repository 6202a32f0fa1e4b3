"""Model cards: what is known of a model without loading it, for `show` and `list`.

A stored model's config says most of it; the rest, and everything about files elsewhere, comes from
the GGUF header. Reading a header takes 8 to 50 ms and probing a template 2 to 15 ms, so headers,
digests and capabilities are cached by path, size, mtime and inode. Safe from any thread.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

from paddock.engine.errors import InvalidName, ModelBroken
from paddock.engine.gguf import TYPE_NAMES, GgufHeader, join_headers, read_arrays, read_header
from paddock.engine.request import Message, ModelFacts
from paddock.engine.system import files

from . import manifests
from .manifests import Manifest, ManifestLayer, ModelConfig, StoredModel, go_json, make_manifest
from .model_names import ModelName, parse_name
from .model_store import ModelStore
from .modelfile import ModelfileCommand, each_value, print_parameters, write_modelfile

_KeyT = TypeVar("_KeyT", bound=Hashable)
_ValueT = TypeVar("_ValueT")

# Some 100 kB each for large models. A list looks at all of them: were there fewer places than
# models, each would be read again every time (92 models: 1.1 s).
_MAX_CACHED = 256

FileStamp = tuple[str, int, int, int]
"""Path, size, mtime in ns, inode: equal ones are the same file, unchanged."""


class ModelFiles:
    """Reads files, each once."""

    def __init__(self, cache_dir: Path) -> None:
        self._digests = _DigestCache(cache_dir / "digests.json")
        self._headers: _LruCache[FileStamp, GgufHeader] = _LruCache()
        self._abilities: _LruCache[str, frozenset[str]] = _LruCache()

    def header(self, path: Path, parts: Sequence[Path] = ()) -> GgufHeader:
        """Read a model's header; `parts`: the files of a split model after the first.

        Raises:
            ModelBroken: it is not a whole GGUF file.
        """
        return join_headers([self._header(file) for file in (path, *parts)])

    def _header(self, path: Path) -> GgufHeader:
        try:
            mark = file_stamp(path)
        except OSError as error:
            why = error.strerror or str(error)
            raise ModelBroken(str(path), f"the file cannot be read: {why}") from error
        return self._headers.get(mark, lambda: read_header(path))

    def digest(self, path: Path, parts: Sequence[Path] = ()) -> str:
        """Return a file's sha256, hexadecimal; of a split model, that of its parts' digests.

        Raises:
            OSError: it cannot be read.
        """
        digests = [self._digests.of(file) for file in (path, *parts)]
        return hashlib.sha256("".join(digests).encode()).hexdigest() if parts else digests[0]

    def abilities(self, template: str) -> frozenset[str]:
        """Return what a chat template has words for: tools, insert, thinking."""
        from paddock.engine.chat.chat_template import template_capabilities  # Jinja2: 40 ms

        return self._abilities.get(template, lambda: frozenset(template_capabilities(template)))


def file_stamp(path: Path) -> FileStamp:
    """Return what changes when a file does.

    Raises:
        OSError: it is not there.
    """
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino


class _LruCache(Generic[_KeyT, _ValueT]):
    """The last few values that were made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[_KeyT, _ValueT] = OrderedDict()

    def get(self, key: _KeyT, make: Callable[[], _ValueT]) -> _ValueT:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > _MAX_CACHED:
                self._values.popitem(last=False)
        return value


class _DigestCache:
    """The sha256 of model files, kept by path, size, mtime and inode: a file is read once."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def of(self, path: Path) -> str:
        if path.parent.name == "blobs" and path.name.startswith("sha256-"):
            return path.name.removeprefix("sha256-")  # verified before it got its name
        name, *mark = file_stamp(path)
        known = self._read()
        entry = known.get(name)
        if entry is not None and entry[:3] == mark:
            return str(entry[3])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._write({**known, name: [*mark, digest]})
        return digest

    def _read(self) -> dict[str, list[object]]:
        try:
            data = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def _write(self, entries: dict[str, list[object]]) -> None:
        """Replace the cache; it is only a cache, so a folder that cannot be written is no fault."""
        aside = self._file.with_name(f"{self._file.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            files.private_folder(self._file.parent)
            files.write_private(aside, json.dumps(entries))
            aside.replace(self._file)
        except OSError:
            aside.unlink(missing_ok=True)


ModelOrigin = Literal["store", "package", "bundled", "path"]


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model's file and where it was found."""

    name: str
    path: Path
    origin: ModelOrigin
    projector: Path | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    """Its own parameters, by a Modelfile's names."""
    manifest: Manifest | None = None
    contents: StoredModel | None = None
    """Of a stored model: what its manifest names."""
    stored_as: ModelName | None = None
    parts: tuple[Path, ...] = ()
    """Of a split model: the files after the first one, in order."""

    @property
    def split(self) -> tuple[Path, tuple[Path, ...]]:
        """Return the first file of its weights, and the others."""
        return self.path, self.parts

    @property
    def weights(self) -> tuple[Path, ...]:
        """Return the files of its weights, in order."""
        return (self.path, *self.parts)


class ModelLookup(Protocol):
    """Who finds models: `paddock.engine.models.model_finder.ModelFinder`."""

    store: ModelStore
    files: ModelFiles

    def locate(self, ref: str) -> FoundModel:
        """Find a model.

        Raises:
            ModelNotFound: with the known names.
            ModelBroken: its manifest or a blob cannot be used.
        """
        ...

    def named(self, name: ModelName) -> FoundModel:
        """Find a model by its name, never by a path.

        Raises:
            ModelNotFound, ModelBroken: as `locate`.
        """
        ...

    def everything(self) -> Iterator[FoundModel]:
        """Yield every model that can be found; of equal names, the first is meant."""
        ...

    def kept(self) -> set[str]:
        """Return the digests of blobs that no manifest names and that are needed all the same."""
        ...


# What is told elsewhere, or is a page of text.
_HIDDEN_KEYS = ("general.name", "tokenizer.chat_template")
_TEMPLATE_KEY = "tokenizer.chat_template"

# Embedding models announce how they pool; these do so by their architecture alone.
_RANK_POOLING = 4  # LLAMA_POOLING_TYPE_RANK
_EMBEDDING_ARCHITECTURES = (
    "bert",
    "nomic-bert",
    "jina-bert",
    "modern-bert",
    "t5encoder",
    "gemma-embedding",
)


@dataclass(frozen=True, slots=True)
class ModelDetails:
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
class ModelCard:
    """All that is known of one model."""

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


def describe_model(finder: ModelLookup, ref: str, *, is_verbose: bool = False) -> ModelCard:
    """Tell everything of one model; `is_verbose`: its vocabulary too.

    Raises:
        InvalidName: `ref` cannot be a name.
        ModelNotFound: with the known names.
        ModelBroken: its manifest, or a file of it, cannot be used.
    """
    found = finder.locate(ref)
    header = finder.files.header(*found.split)
    own = _stored_or_bare(found)
    abilities = _capabilities_of(
        finder, header, _prompt_template(own, header), found.projector is not None
    )
    projector = finder.files.header(found.projector) if found.projector else None
    return ModelCard(
        name=_shown_name(found),
        digest=_model_digest(finder, found, header),
        size_bytes=_model_size_bytes(found),
        modified_at=_model_modified_at(finder.store, found),
        details=_model_details(own, header),
        capabilities=abilities,
        origin=found.origin,
        license="\n".join(own.licenses),
        modelfile=_modelfile_text(found, own),
        parameters=print_parameters(found.params),
        template=_shown_template(own, header, "insert" in abilities),
        system=own.system,
        messages=own.messages,
        model_info=_header_values(header, found.path, is_verbose),
        projector_info=_header_values(projector, found.projector, is_verbose)
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


def list_cards(finder: ModelLookup) -> list[ModelCard]:
    """Tell of every model what a list shows, newest first.

    One whose file is broken is listed by what its config says, so that it can be seen and
    removed; one whose manifest is broken is not.
    """
    listed: dict[str, ModelCard] = {}
    for found in finder.everything():
        name = _shown_name(found).lower()
        if name not in listed:
            listed[name] = _list_card(finder, found)
    return sorted(listed.values(), key=lambda card: card.modified_at, reverse=True)


def model_capabilities(finder: ModelLookup, facts: ModelFacts) -> tuple[str, ...]:
    """Return what a model can be asked for, by its facts.

    Raises:
        ModelBroken: its file cannot be used.
    """
    header = finder.files.header(Path(facts.path), tuple(map(Path, facts.parts)))
    template = facts.template or str(header.values.get(_TEMPLATE_KEY, ""))
    return _capabilities_of(finder, header, template, facts.projector is not None)


def weight_count_text(number: int) -> str:
    """Write a count of weights as Ollama does.

    >>> weight_count_text(134_515_008), weight_count_text(7_241_732_096), weight_count_text(22_000_000)
    ('134.52M', '7.2B', '22M')
    """
    if number >= 10**9:
        billions = number / 10**9
        return f"{billions:.0f}B" if billions.is_integer() else f"{billions:.1f}B"
    if number >= 10**6:
        millions = number / 10**6
        return f"{millions:.0f}M" if millions.is_integer() else f"{millions:.2f}M"
    return f"{number / 1000:.0f}K" if number >= 1000 else str(number)


def weights_format(header: GgufHeader) -> str:
    """Name the format of a file's weights; where it does not say, that of most of them."""
    if header.file_type != "unknown" or not header.tensors:
        return header.file_type
    counts: dict[int, int] = {}
    for tensor in header.tensors:
        counts[tensor.kind] = counts.get(tensor.kind, 0) + tensor.n_weights
    return TYPE_NAMES.get(max(counts, key=lambda kind: counts[kind]), "unknown")


def _list_card(finder: ModelLookup, found: FoundModel) -> ModelCard:
    own = _stored_or_bare(found)
    abilities: tuple[str, ...] = ()
    header = None
    try:
        header = finder.files.header(*found.split)
        template = _prompt_template(own, header)
        abilities = _capabilities_of(finder, header, template, found.projector is not None)
    except ModelBroken:
        pass
    return ModelCard(
        name=_shown_name(found),
        digest=_model_digest(finder, found, header),
        size_bytes=_model_size_bytes(found),
        modified_at=_model_modified_at(finder.store, found),
        details=_model_details(own, header),
        capabilities=abilities,
        origin=found.origin,
        path=str(found.path),
    )


def _stored_or_bare(found: FoundModel) -> StoredModel:
    return found.contents or StoredModel(found.path)


def _shown_name(found: FoundModel) -> str:
    """Return the name by which every API lists a model: with its tag. Of a file, its path."""
    try:
        return parse_name(found.name).short
    except InvalidName:
        return found.name


def _model_digest(finder: ModelLookup, found: FoundModel, header: GgufHeader | None) -> str:
    """Return the digest of a model's manifest, hexadecimal.

    A model of an installed package has none, so it is that of the manifest which its copy in the
    store would have. A file that is named by its path has the digest of its content.
    """
    if found.manifest:
        return found.manifest.digest
    weights = finder.files.digest(*found.split)
    if header is None or found.origin not in ("package", "bundled"):
        return weights
    told = _model_details(StoredModel(found.path), header)
    config = ModelConfig(
        told.format, told.family, told.families, told.parameter_size, told.quantization_level
    )
    size_bytes = found.path.stat().st_size
    layers = [ManifestLayer(manifests.MODEL_TYPE, f"sha256:{weights}", size_bytes, found.name)]
    if found.params:
        params = go_json(dict(sorted(found.params.items())))
        layers.append(_layer_of_bytes(manifests.PARAMS_TYPE, params))
    return make_manifest(_layer_of_bytes(manifests.CONFIG_TYPE, config.dump(layers)), layers).digest


def _layer_of_bytes(media_type: str, raw: bytes) -> ManifestLayer:
    return ManifestLayer(media_type, f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw))


def _model_size_bytes(found: FoundModel) -> int:
    if found.manifest:
        return found.manifest.size_bytes
    return sum(path.stat().st_size for path in (*found.weights, found.projector) if path)


def _model_modified_at(store: ModelStore, found: FoundModel) -> datetime.datetime:
    if found.stored_as is not None:
        return store.modified_at(found.stored_as)
    mtime = found.path.stat().st_mtime
    return datetime.datetime.fromtimestamp(mtime, datetime.UTC).astimezone()


def _model_details(own: StoredModel, header: GgufHeader | None) -> ModelDetails:
    told: ModelConfig = own.config
    if header is None:
        return ModelDetails(
            told.model_format,
            told.model_family,
            told.model_families,
            told.model_type,
            told.file_type,
            parent_model=own.parent,
        )
    family = told.model_family or header.architecture
    return ModelDetails(
        format=told.model_format or "gguf",
        family=family,
        families=told.model_families or (family,),
        parameter_size=told.model_type or weight_count_text(header.n_weights),
        quantization_level=told.file_type or weights_format(header),
        context_length=header.number("context_length"),
        embedding_length=header.number("embedding_length"),
        parent_model=own.parent,
    )


def _prompt_template(own: StoredModel, header: GgufHeader) -> str:
    """Return the template by which prompts are made; empty: the model has none of its own."""
    return own.own_template or str(header.values.get(_TEMPLATE_KEY, ""))


def _capabilities_of(
    finder: ModelLookup, header: GgufHeader, template: str, sees: bool
) -> tuple[str, ...]:
    if is_rerank_model(header):
        return ("rerank",)
    if is_embedding_model(header):
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


def is_rerank_model(header: GgufHeader) -> bool:
    """Return whether a model scores documents for a query."""
    return header.number("pooling_type") == _RANK_POOLING


def is_embedding_model(header: GgufHeader) -> bool:
    """Return whether a model gives vectors, or scores, and no text."""
    return header.number("pooling_type") > 0 or header.architecture.startswith(
        _EMBEDDING_ARCHITECTURES
    )


def _shown_template(own: StoredModel, header: GgufHeader, inserts: bool) -> str:
    """Return the template as `show` tells it.

    Editors look for `.Suffix` in it to know whether a model fills in the middle; of one that does
    so by tokens of its vocabulary, that is said in the way they read.
    """
    template = own.template or str(header.values.get(_TEMPLATE_KEY, ""))
    if not inserts or ".Suffix" in template or header.filling is None:
        return template
    before, after, middle = header.filling
    inserted = f"{before}{{{{ .Prompt }}}}{after}{{{{ .Suffix }}}}{middle}"
    return f"{{{{- if .Suffix }}}}{inserted}{{{{- else }}}}{template}{{{{- end }}}}"


def _header_values(header: GgufHeader, path: Path, is_verbose: bool) -> dict[str, Any]:
    """Return a header's values; long arrays are empty unless they are asked for."""
    info: dict[str, Any] = {
        key: _json_number(value) for key, value in header.values.items() if key not in _HIDDEN_KEYS
    }
    info["general.parameter_count"] = header.n_weights
    arrays = read_arrays(path) if is_verbose else header.arrays
    for key in header.array_lengths:
        info[key] = [_json_number(one) for one in arrays.get(key, ())]
    return info


def _json_number(value: object) -> object:
    """Return what JSON can tell."""
    is_odd = isinstance(value, float) and not math.isfinite(value)
    return None if is_odd else value


def _modelfile_text(found: FoundModel, own: StoredModel) -> str:
    """Write the Modelfile that would make this model again."""
    commands = [ModelfileCommand("FROM", str(found.path))]
    if found.projector:
        commands.append(ModelfileCommand("FROM", str(found.projector)))
    commands += [ModelfileCommand("ADAPTER", str(path)) for path in own.adapters]
    if own.template:  # the file brings its own itself
        commands.append(ModelfileCommand("TEMPLATE", own.template))
    if own.system:
        commands.append(ModelfileCommand("SYSTEM", own.system))
    commands += [
        ModelfileCommand("PARAMETER", _parameter_text(value), key)
        for key, value in each_value(found.params)
    ]
    commands += [ModelfileCommand("MESSAGE", one.content, one.role) for one in own.messages]
    config = own.config
    for name, value in (("RENDERER", config.renderer), ("PARSER", config.parser),
                        ("REQUIRES", config.requires)):  # fmt: skip
        if value:
            commands.append(ModelfileCommand(name, value))
    commands += [ModelfileCommand("LICENSE", text) for text in own.licenses]
    return (
        '# Modelfile written by "paddock show"\n'
        "# To make a model from this one, replace the FROM lines by:\n"
        f"# FROM {found.name}\n\n{write_modelfile(commands)}"
    )


def _parameter_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
