"""A manifest: which blobs make up a model. Text to values and back; knows no files.

As the registry's protocol has it (Docker's image manifest, version 2), with Ollama's media types.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
MODEL = "application/vnd.ollama.image.model"
PROJECTOR = "application/vnd.ollama.image.projector"
ADAPTER = "application/vnd.ollama.image.adapter"
TEMPLATE = "application/vnd.ollama.image.template"
PROMPT = "application/vnd.ollama.image.prompt"
"""What a template's layer was called in 2023."""
SYSTEM = "application/vnd.ollama.image.system"
PARAMS = "application/vnd.ollama.image.params"
MESSAGES = "application/vnd.ollama.image.messages"
LICENSE = "application/vnd.ollama.image.license"


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob and what it is for."""

    media_type: str
    digest: str
    """`sha256:` and 64 hexadecimal digits."""
    size_bytes: int
    source: str = ""
    """The model that it was taken from (`from` in the manifest)."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model's parts."""

    config: Layer | None
    """None in some old manifests and in hand-made ones."""
    layers: tuple[Layer, ...]
    raw: bytes
    """As it was read, or as it is written: its digest is the model's."""

    @property
    def digest(self) -> str:
        """Give the sha256 of the manifest itself, hexadecimal."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """Every layer and the config."""
        return (*self.layers, self.config) if self.config else self.layers

    @property
    def size_bytes(self) -> int:
        """What all its blobs take together."""
        return sum(layer.size_bytes for layer in self.blobs)

    def all_of(self, *media_types: str) -> tuple[Layer, ...]:
        """Give the layers of these types, in the manifest's order."""
        return tuple(layer for layer in self.layers if layer.media_type in media_types)

    def first_of(self, *media_types: str) -> Layer | None:
        """Give the first layer of these types."""
        return next(iter(self.all_of(*media_types)), None)


def make_manifest(config: Layer | None, layers: Iterable[Layer]) -> Manifest:
    """Write a manifest of these parts, byte for byte as Ollama does."""
    told = tuple(layers)
    content: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST}
    if config is not None:
        content["config"] = _as_json(config)
    content["layers"] = [_as_json(layer) for layer in told]
    return Manifest(config, told, go_json(content))


def parse_manifest(raw: bytes) -> Manifest:
    """Read a manifest.

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
        _layer(config) if has_config else None,
        tuple(_layer(one) for one in content["layers"]),
        raw,
    )


def _layer(value: object) -> Layer:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a layer")  # noqa: TRY004
    digest, size = value.get("digest"), value.get("size", 0)
    if not isinstance(digest, str) or not isinstance(size, int) or size < 0:
        raise ValueError(f"a layer's digest is {digest!r} and its size {size!r}")
    return Layer(str(value.get("mediaType", "")), digest, size, str(value.get("from") or ""))


def _as_json(layer: Layer) -> dict[str, Any]:
    told: dict[str, Any] = {
        "mediaType": layer.media_type,
        "digest": layer.digest,
        "size": layer.size_bytes,
    }
    return {**told, "from": layer.source} if layer.source else told


def go_json(value: object) -> bytes:
    r"""Write JSON as Go's encoder does: compact, `<>&` escaped, a line's end behind it.

    >>> go_json({"a": "<ä>"}).decode()
    '{"a":"\\u003cä\\u003e"}\n'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text.encode("utf-8", errors="replace") + b"\n"
