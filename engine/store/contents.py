"""What a stored model is made of: its config and its small layers, read. Loads nothing.

The config's fields are Ollama's (github.com/ollama/ollama, types/model/config.go); ones that are
not known here are kept, so that a model made from another has them too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.engine.errors import BadDigest, ModelBroken
from paddock.engine.request import Message

from . import manifests
from .blobs import Blobs
from .manifests import Layer, Manifest, go_json

_FIELDS = (
    "model_format", "model_family", "model_families", "model_type", "file_type", "renderer",
    "parser", "requires",
)  # fmt: skip
_REQUIRED = ("architecture", "os", "rootfs")


@dataclass(frozen=True, slots=True)
class Config:
    """What a model's config blob says."""

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] = ()
    model_type: str = ""
    """How many weights, such as `7.2B`."""
    file_type: str = ""
    """The weights' format, such as `Q4_K_M`."""
    renderer: str = ""
    """A program of Ollama's that writes prompts in place of a template; not one of ours."""
    parser: str = ""
    requires: str = ""
    """The least version of Ollama that it needs."""
    more: Mapping[str, Any] = field(default_factory=dict)

    def dump(self, layers: Iterable[Layer]) -> bytes:
        """Write it as Ollama does, with the digests of a model's layers."""
        families = list(self.model_families) or None
        told: dict[str, Any] = {
            "model_format": self.model_format,
            "model_family": self.model_family,
            "model_families": families,
            "model_type": self.model_type,
            "file_type": self.file_type,
        }
        optional = {"renderer": self.renderer, "parser": self.parser, "requires": self.requires}
        told |= {name: value for name, value in optional.items() if value}
        told |= self.more
        told |= {"architecture": "amd64", "os": "linux"}
        told["rootfs"] = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
        return go_json(told)


@dataclass(frozen=True, slots=True)
class Contents:
    """A stored model's parts, its weights as paths."""

    model: Path
    config: Config = field(default_factory=Config)
    projector: Path | None = None
    adapters: tuple[Path, ...] = ()
    template: str | None = None
    system: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    licenses: tuple[str, ...] = ()
    parent: str = ""
    """The model that it was made from, if its maker said so."""
    parts: tuple[Path, ...] = ()
    """Of a split model: the files after the first one, in order."""

    @property
    def own_template(self) -> str | None:
        """The template that goes before the file's own; None: the file's own is used.

        Prompts of a model with a renderer are not made with its template.
        """
        return None if self.config.renderer else self.template or None


def read_contents(blobs: Blobs, manifest: Manifest) -> Contents:
    """Read what a manifest names.

    Raises:
        ModelBroken: a blob is missing, or nonsense; with its path.
    """
    model = manifest.first_of(manifests.MODEL)
    if model is None:
        raise ModelBroken("its manifest", "it names no model file in the GGUF format")
    texts = {
        kind: [_text(blobs, layer) for layer in manifest.all_of(kind)]
        for kind in (manifests.SYSTEM, manifests.LICENSE)
    }
    template = manifest.first_of(manifests.TEMPLATE, manifests.PROMPT)
    projector = manifest.first_of(manifests.PROJECTOR)
    return Contents(
        model=_path(blobs, model),
        parts=tuple(_path(blobs, layer) for layer in manifest.all_of(manifests.MODEL)[1:]),
        config=_config(blobs, manifest.config),
        projector=_path(blobs, projector) if projector else None,
        adapters=tuple(_path(blobs, layer) for layer in manifest.all_of(manifests.ADAPTER)),
        template=_text(blobs, template) if template else None,
        system="\n".join(texts[manifests.SYSTEM]),
        params=_params(blobs, manifest),
        messages=_messages(blobs, manifest),
        licenses=tuple(texts[manifests.LICENSE]),
        parent=model.source if not model.source.startswith("sha256:") else "",
    )


def parse_config(raw: bytes) -> Config:
    """Read a config blob.

    Raises:
        ValueError: it is no JSON object.
    """
    told = json.loads(raw)
    if not isinstance(told, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - bad content, not a bad call
    families = told.get("model_families")

    def text(name: str) -> str:
        return str(told.get(name) or "")

    return Config(
        model_format=text("model_format"),
        model_family=text("model_family"),
        model_families=tuple(map(str, families)) if isinstance(families, list) else (),
        model_type=text("model_type"),
        file_type=text("file_type"),
        renderer=text("renderer"),
        parser=text("parser"),
        requires=text("requires"),
        more={name: told[name] for name in told if name not in (*_FIELDS, *_REQUIRED)},
    )


def _config(blobs: Blobs, layer: Layer | None) -> Config:
    if layer is None:
        return Config()
    try:
        return parse_config(_raw(blobs, layer))
    except (ValueError, RecursionError) as error:
        raise ModelBroken(str(blobs.path(layer.digest)), f"the config: {error}") from None


def _params(blobs: Blobs, manifest: Manifest) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for layer in manifest.all_of(manifests.PARAMS):
        told = _json(blobs, layer)
        if not isinstance(told, dict):
            raise ModelBroken(str(blobs.path(layer.digest)), "the parameters are not an object")
        params |= told
    return params


def _messages(blobs: Blobs, manifest: Manifest) -> tuple[Message, ...]:
    messages = []
    for layer in manifest.all_of(manifests.MESSAGES):
        told = _json(blobs, layer)
        turns = told if isinstance(told, list) else []
        messages += [
            Message(str(one.get("role", "")), str(one.get("content", "")))
            for one in turns
            if isinstance(one, dict)
        ]
    return tuple(messages)


def _json(blobs: Blobs, layer: Layer) -> Any:
    try:
        return json.loads(_raw(blobs, layer))
    except (ValueError, RecursionError) as error:
        raise ModelBroken(str(blobs.path(layer.digest)), f"it is not JSON: {error}") from None


def _text(blobs: Blobs, layer: Layer) -> str:
    return _raw(blobs, layer).decode("utf-8", errors="replace")


def _raw(blobs: Blobs, layer: Layer) -> bytes:
    return _path(blobs, layer).read_bytes()


def _path(blobs: Blobs, layer: Layer) -> Path:
    """Give a blob's path.

    Raises:
        ModelBroken: it is not there.
    """
    try:
        path = blobs.path(layer.digest)
    except BadDigest:
        why = f"it names a blob {layer.digest!r}, which is no digest"
        raise ModelBroken("its manifest", why) from None
    if not path.is_file():
        raise ModelBroken(str(path), "this blob is missing; pull or create its model again")
    return path
