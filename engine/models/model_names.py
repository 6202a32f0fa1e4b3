"""Model names, and file names with a quantisation. Pure.

A name is `[host/][namespace/]model[:tag]`. Its grammar is Ollama's (github.com/ollama/ollama,
types/model/name.go): no part can be a path step like `..`, so a valid name is a safe path under
`manifests/`.
"""

from __future__ import annotations

import re

from paddock.engine.errors import InvalidName
from paddock.engine.system.records import SelectiveFields, Struct
from paddock.engine.system.text import shorten

DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_NAME_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


class ModelName(SelectiveFields, Struct, frozen=True):
    """A model's full name; names that differ in case alone are equal, see `key`."""

    uncompared = ("scheme",)

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = ""
    """`http` or `https` if the name was written as a URL; not part of the name itself."""

    @property
    def short(self) -> str:
        """The name without the default host and namespace, always with the tag."""
        name = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{name}"
        return name if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{name}"

    @property
    def full(self) -> str:
        """The name with all parts: `registry.ollama.ai/library/smol:latest`."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def key(self) -> str:
        return self.full.lower()

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Host, namespace, model, tag: the steps of the manifest's path."""
        return self.host, self.namespace, self.model, self.tag

    def __str__(self) -> str:
        return self.short


def is_path(ref: str) -> bool:
    """Return whether a reference is the path of a file.

    >>> is_path("./mini.gguf"), is_path("mini.gguf"), is_path("team/mini:v1.gguf"), is_path("mini")
    (True, True, False, False)
    """
    # With a tag it is a name, whatever the tag ends with.
    is_file = ref.lower().endswith(".gguf") and ":" not in ref.rsplit("/", 1)[-1]
    return is_file or ref.startswith((".", "/", "~")) or "\\" in ref


def parse_name(text: str) -> ModelName:
    """Parse a name; missing parts are the defaults.

    >>> parse_name("smollm2").full
    'registry.ollama.ai/library/smollm2:latest'
    >>> parse_name("localhost:5000/team/mini:v1").short
    'localhost:5000/team/mini:v1'

    Raises:
        InvalidName: with the name and the invalid part.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme = ""
        rest = text
    elif scheme not in ("http", "https"):
        raise InvalidName(text, f"'{scheme}' is no way to reach a registry")
    path, tag = rest, DEFAULT_TAG
    if ":" in rest.rsplit("/", 1)[-1]:  # a colon before the last slash belongs to a port
        path, _, tag = rest.rpartition(":")
    steps = path.rsplit("/", 2)
    if found and len(steps) < 3:
        raise InvalidName(text, "an address needs host/namespace/model")
    host, namespace, model = (*(DEFAULT_HOST, DEFAULT_NAMESPACE)[: 3 - len(steps)], *steps)
    for what, part, form in (
        ("host", host, _HOST),
        ("namespace", namespace, _NAMESPACE),
        ("model", model, _NAME_PART),
        ("tag", tag, _NAME_PART),
    ):
        if form.fullmatch(part) is None:
            raise InvalidName(text, f"its {what} cannot be {shorten(part, 41)!r}")
    return ModelName(host, namespace, model, tag, scheme)


def canonical_name(ref: str) -> str:
    """Return a name so that all ways to write it are the same; a path unchanged."""
    try:
        return parse_name(ref).key
    except InvalidName:
        return ref


def shown_name(ref: str) -> str:
    """Return a name with its tag, as APIs list it; a path unchanged."""
    try:
        return parse_name(ref).short
    except InvalidName:
        return ref


_QUANTISATION = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q[1-8](?:_[0-9A-Z]+)*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|F16|F32))"
    r"(?=$|[-._/])",
    re.IGNORECASE,
)


def quantisation_label(name: str) -> str:
    """Return the quantisation in a file's name, in capitals; empty: there is none.

    >>> [quantisation_label(name) for name in ("a-Q4_K_M.gguf", "tiny.q8_0.gguf", "model.gguf")]
    ['Q4_K_M', 'Q8_0', '']
    >>> quantisation_label("Q6_K/a-Q6_K-00001-of-00002.gguf"), quantisation_label("UD-IQ2_XXS.gguf")
    ('Q6_K', 'UD-IQ2_XXS')
    """
    found = _QUANTISATION.findall(file_stem(name))
    return str(found[-1]).upper() if found else ""


def file_stem(name: str) -> str:
    return name[:-5] if name.lower().endswith(".gguf") else name
