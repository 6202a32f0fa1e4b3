"""What a model is called: `[host/][namespace/]model[:tag]`, and what may stand in each part.

Knows no files. The grammar is Ollama's (github.com/ollama/ollama, types/model/name.go): a part may
never be a path's step, so a valid name is a safe place under `manifests/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from paddock.engine.errors import InvalidName

DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model's whole name; equal names may differ in their case, see `key`."""

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = field(default="", compare=False)
    """`http` or `https`, where the name was written as an address; no part of the name itself."""

    @property
    def short(self) -> str:
        """As people write it: without the default host and namespace, always with the tag."""
        name = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{name}"
        return name if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{name}"

    @property
    def full(self) -> str:
        """With everything: `registry.ollama.ai/library/smol:latest`."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def key(self) -> str:
        """What is the same for names that mean the same model."""
        return self.full.lower()

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Host, namespace, model, tag: the steps of the manifest's path."""
        return self.host, self.namespace, self.model, self.tag

    def __str__(self) -> str:
        """Give the short form."""
        return self.short


def is_path(ref: str) -> bool:
    """Return whether a model is named by the path of a file.

    >>> is_path("./mini.gguf"), is_path("mini.gguf"), is_path("team/mini:v1.gguf"), is_path("mini")
    (True, True, False, False)
    """
    # What is written with a tag is a name, whatever the tag ends with.
    is_file = ref.lower().endswith(".gguf") and ":" not in ref.rsplit("/", 1)[-1]
    return is_file or ref.startswith((".", "/", "~")) or "\\" in ref


def parse_name(text: str) -> ModelName:
    """Read a name; what it leaves out is the default's.

    >>> parse_name("smollm2").full
    'registry.ollama.ai/library/smollm2:latest'
    >>> parse_name("localhost:5000/team/mini:v1").short
    'localhost:5000/team/mini:v1'

    Raises:
        InvalidName: with the name and the part that cannot be.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "", text
    elif scheme not in ("http", "https"):
        raise InvalidName(text, f"'{scheme}' is no way to reach a registry")
    path, tag = _cut_tag(rest)
    steps = path.rsplit("/", 2)
    if found and len(steps) < 3:
        raise InvalidName(text, "an address needs host/namespace/model")
    host, namespace, model = _filled(steps)
    for what, part, form in (
        ("host", host, _HOST),
        ("namespace", namespace, _NAMESPACE),
        ("model", model, _PART),
        ("tag", tag, _PART),
    ):
        if form.fullmatch(part) is None:
            raise InvalidName(text, f"its {what} cannot be {_shortened(part)!r}")
    return ModelName(host, namespace, model, tag, scheme)


def _cut_tag(text: str) -> tuple[str, str]:
    """Part the tag from the rest; a colon before the last slash is a port's."""
    if ":" not in text.rsplit("/", 1)[-1]:
        return text, DEFAULT_TAG
    path, _, tag = text.rpartition(":")
    return path, tag


def _filled(steps: list[str]) -> tuple[str, str, str]:
    if len(steps) == 1:
        return DEFAULT_HOST, DEFAULT_NAMESPACE, steps[0]
    if len(steps) == 2:
        return DEFAULT_HOST, steps[0], steps[1]
    return steps[0], steps[1], steps[2]


def _shortened(part: str) -> str:
    return part if len(part) <= 40 else f"{part[:40]}…"
