"""Manifests: the blobs of a model, its config, and the content of its small layers.

Manifests follow Docker's image manifest, version 2, with Ollama's media types. Because their digest
matters, JSON is written byte for byte as Go's encoder does. The config's fields are Ollama's
(types/model/config.go); unknown fields are kept for models that are made from this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from paddock.engine.errors import BadDigest, ModelBroken
from paddock.engine.request import Message
from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import parse_shallow_json

from .blobs import BlobStore

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
MODEL_TYPE = "application/vnd.ollama.image.model"
PROJECTOR_TYPE = "application/vnd.ollama.image.projector"
ADAPTER_TYPE = "application/vnd.ollama.image.adapter"
TEMPLATE_TYPE = "application/vnd.ollama.image.template"
PROMPT_TYPE = "application/vnd.ollama.image.prompt"
"""The type of a template's layer in 2023."""
SYSTEM_TYPE = "application/vnd.ollama.image.system"
PARAMS_TYPE = "application/vnd.ollama.image.params"
MESSAGES_TYPE = "application/vnd.ollama.image.messages"
LICENSE_TYPE = "application/vnd.ollama.image.license"


class ManifestLayer(Struct, frozen=True):
    media_type: str
    digest: str
    """`sha256:` and 64 hexadecimal digits."""
    size_bytes: int
    source: str = ""
    """The model that it comes from (`from` in the manifest)."""


class Manifest(Struct, frozen=True):
    config: ManifestLayer | None
    """None in some old manifests and in hand-made ones."""
    layers: tuple[ManifestLayer, ...]
    raw: bytes
    """Its bytes; their digest is the model's."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def blobs(self) -> tuple[ManifestLayer, ...]:
        return (*self.layers, self.config) if self.config else self.layers

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self.blobs)

    def all_of(self, *media_types: str) -> tuple[ManifestLayer, ...]:
        return tuple(layer for layer in self.layers if layer.media_type in media_types)

    def first_of(self, *media_types: str) -> ManifestLayer | None:
        return next(iter(self.all_of(*media_types)), None)


def make_manifest(config: ManifestLayer | None, layers: Iterable[ManifestLayer]) -> Manifest:
    layers = tuple(layers)
    content: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE}
    if config is not None:
        content["config"] = _layer_json(config)
    content["layers"] = [_layer_json(layer) for layer in layers]
    return Manifest(config, layers, go_json(content))


def parse_manifest(raw: bytes) -> Manifest:
    """Parse a manifest.

    Raises:
        ValueError: it is none; with the reason.
    """
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("layers"), list):
        raise ValueError("it has no list of layers")  # noqa: TRY004 - bad content, not a bad call
    config = content.get("config")
    has_config = isinstance(config, dict) and bool(config.get("digest"))
    return Manifest(
        _parse_layer(config) if has_config else None,
        tuple(_parse_layer(layer) for layer in content["layers"]),
        raw,
    )


def _parse_layer(value: object) -> ManifestLayer:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a layer")  # noqa: TRY004
    digest, size = value.get("digest"), value.get("size", 0)
    if not isinstance(digest, str) or not isinstance(size, int) or size < 0:
        raise ValueError(f"a layer's digest is {digest!r} and its size {size!r}")
    return ManifestLayer(
        str(value.get("mediaType", "")), digest, size, str(value.get("from") or "")
    )


def _layer_json(layer: ManifestLayer) -> dict[str, Any]:
    value: dict[str, Any] = {
        "mediaType": layer.media_type,
        "digest": layer.digest,
        "size": layer.size_bytes,
    }
    return {**value, "from": layer.source} if layer.source else value


def go_json(value: object) -> bytes:
    r"""Return JSON as Go's encoder writes it: compact, `<>&` escaped, with a final newline.

    >>> go_json({"a": "<ä>"}).decode()
    '{"a":"\\u003cä\\u003e"}\n'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text.encode("utf-8", errors="replace") + b"\n"


_TEXT_FIELDS = (
    "model_format", "model_family", "model_type", "file_type", "renderer", "parser", "requires",
)  # fmt: skip
_KNOWN_FIELDS = frozenset((*_TEXT_FIELDS, "model_families", "architecture", "os", "rootfs"))


class ModelConfig(Struct, frozen=True):
    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] = ()
    model_type: str = ""
    """Number of its weights, such as `7.2B`."""
    file_type: str = ""
    """The weights' format, such as `Q4_K_M`."""
    renderer: str = ""
    """A program of Ollama's that writes prompts instead of a template; unknown to us."""
    parser: str = ""
    requires: str = ""
    """The oldest version of Ollama that it works with."""
    unknown_fields: Mapping[str, Any] = field(default_factory=dict)

    def dump(self, layers: Iterable[ManifestLayer]) -> bytes:
        value: dict[str, Any] = {
            "model_format": self.model_format,
            "model_family": self.model_family,
            "model_families": list(self.model_families) or None,
            "model_type": self.model_type,
            "file_type": self.file_type,
        }
        optional = {"renderer": self.renderer, "parser": self.parser, "requires": self.requires}
        value |= {name: text for name, text in optional.items() if text}
        value |= self.unknown_fields
        value |= {"architecture": "amd64", "os": "linux"}
        value["rootfs"] = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
        return go_json(value)


class StoredModel(Struct, frozen=True):
    model: Path
    config: ModelConfig = field(default_factory=ModelConfig)
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()
    template: str | None = None
    system: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    licenses: tuple[str, ...] = ()
    parent: str = ""
    parts: tuple[Path, ...] = ()
    """Of a split model: the files after the first one, in order."""

    @property
    def weights(self) -> tuple[Path, ...]:
        return (self.model, *self.parts)

    @property
    def own_template(self) -> str | None:
        """The template to use instead of the file's own; None: the file's own.

        A model with a renderer does not use its template.
        """
        return None if self.config.renderer else self.template or None


def read_stored_model(blobs: BlobStore, manifest: Manifest) -> StoredModel:
    """Read the parts of a manifest.

    Raises:
        ModelBroken: a blob is missing or invalid; with its path.
    """
    model = manifest.first_of(MODEL_TYPE)
    if model is None:
        raise ModelBroken("its manifest", "it names no model file in the GGUF format")
    texts = {
        kind: [_read_text(blobs, layer) for layer in manifest.all_of(kind)]
        for kind in (SYSTEM_TYPE, LICENSE_TYPE)
    }
    template = manifest.first_of(TEMPLATE_TYPE, PROMPT_TYPE)
    projector = manifest.first_of(PROJECTOR_TYPE)
    params: dict[str, Any] = {}
    for layer in manifest.all_of(PARAMS_TYPE):
        value = _read_json(blobs, layer)
        if not isinstance(value, dict):
            raise ModelBroken(str(blobs.path(layer.digest)), "the parameters are not an object")
        params |= value
    messages: list[Message] = []
    for layer in manifest.all_of(MESSAGES_TYPE):
        turns = _read_json(blobs, layer)
        messages += [
            Message(str(turn.get("role", "")), str(turn.get("content", "")))
            for turn in (turns if isinstance(turns, list) else ())
            if isinstance(turn, dict)
        ]
    return StoredModel(
        model=_layer_path(blobs, model),
        parts=tuple(_layer_path(blobs, layer) for layer in manifest.all_of(MODEL_TYPE)[1:]),
        config=_read_config(blobs, manifest.config),
        projector=_layer_path(blobs, projector) if projector else None,
        adapters=tuple(_layer_path(blobs, layer) for layer in manifest.all_of(ADAPTER_TYPE)),
        template=_read_text(blobs, template) if template else None,
        system="\n".join(texts[SYSTEM_TYPE]),
        params=params,
        messages=tuple(messages),
        licenses=tuple(texts[LICENSE_TYPE]),
        parent=model.source if not model.source.startswith("sha256:") else "",
    )


def parse_config(raw: bytes) -> ModelConfig:
    value = json.loads(raw)
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - bad content, not a bad call
    families = value.get("model_families")
    return ModelConfig(
        **{name: str(value.get(name) or "") for name in _TEXT_FIELDS},
        model_families=tuple(map(str, families)) if isinstance(families, list) else (),
        unknown_fields={
            name: field_value for name, field_value in value.items() if name not in _KNOWN_FIELDS
        },
    )


def _read_config(blobs: BlobStore, layer: ManifestLayer | None) -> ModelConfig:
    if layer is None:
        return ModelConfig()
    try:
        return parse_config(_read_layer(blobs, layer))
    except (ValueError, RecursionError) as error:
        raise ModelBroken(str(blobs.path(layer.digest)), f"the config: {error}") from None


def _read_json(blobs: BlobStore, layer: ManifestLayer) -> Any:
    try:
        return parse_shallow_json(_read_layer(blobs, layer))
    except ValueError as error:
        raise ModelBroken(str(blobs.path(layer.digest)), f"it is not JSON: {error}") from None


def _read_text(blobs: BlobStore, layer: ManifestLayer) -> str:
    return _read_layer(blobs, layer).decode("utf-8", errors="replace")


def _read_layer(blobs: BlobStore, layer: ManifestLayer) -> bytes:
    return _layer_path(blobs, layer).read_bytes()


def _layer_path(blobs: BlobStore, layer: ManifestLayer) -> Path:
    """Return a blob's path; raise ModelBroken where there is none."""
    try:
        path = blobs.path(layer.digest)
    except BadDigest:
        why = f"it names a blob {layer.digest!r}, which is no digest"
        raise ModelBroken("its manifest", why) from None
    if not path.is_file():
        raise ModelBroken(str(path), "this blob is missing; pull or create its model again")
    return path
