"""Model names, file names with a quantisation, and sources to pull from. Pure.

A name is `[host/][namespace/]model[:tag]`. Its grammar is Ollama's (github.com/ollama/ollama,
types/model/name.go): no part can be a path step like `..`, so a valid name is a safe path under
`manifests/`. Sources:

    smollm2:135m   registry.example/team/mini:v1                                     a registry
    hf:owner/repo[:quant]   hf:owner/repo/mini-Q8_0.gguf   hf.co/owner/repo:Q4_K_M   Hugging Face
    https://example.org/models/mini-Q4_K_M.gguf                                      a URL
    ./mini-Q4_K_M.gguf                                                               a file
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from paddock.engine.errors import InvalidName
from paddock.engine.system.text import shorten

DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG = "registry.ollama.ai", "library", "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_NAME_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model's full name; names that differ in case alone are equal, see `key`."""

    host: str
    namespace: str
    model: str
    tag: str
    scheme: str = field(default="", compare=False)
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
        """A key that is equal for names of the same model."""
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
        scheme, rest = "", text
    elif scheme not in ("http", "https"):
        raise InvalidName(text, f"'{scheme}' is no way to reach a registry")
    path, tag = _split_tag(rest)
    steps = path.rsplit("/", 2)
    if found and len(steps) < 3:
        raise InvalidName(text, "an address needs host/namespace/model")
    host, namespace, model = _with_defaults(steps)
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


def _split_tag(text: str) -> tuple[str, str]:
    """Split off the tag; a colon before the last slash belongs to a port."""
    if ":" not in text.rsplit("/", 1)[-1]:
        return text, DEFAULT_TAG
    path, _, tag = text.rpartition(":")
    return path, tag


def _with_defaults(steps: list[str]) -> tuple[str, str, str]:
    if len(steps) == 1:
        return DEFAULT_HOST, DEFAULT_NAMESPACE, steps[0]
    if len(steps) == 2:
        return DEFAULT_HOST, steps[0], steps[1]
    return steps[0], steps[1], steps[2]


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
    found = _QUANTISATION.findall(_file_stem(name))
    return str(found[-1]).upper() if found else ""


def _file_stem(name: str) -> str:
    return name[:-5] if name.lower().endswith(".gguf") else name


_HUB_HOSTS = ("hf.co", "huggingface.co", "www.huggingface.co")
_HUB_FILE_STEPS = ("resolve", "blob", "raw")


@dataclass(frozen=True, slots=True)
class RegistrySource:
    """A model of an OCI registry, under its own name."""

    name: ModelName

    def __str__(self) -> str:
        return self.name.full


@dataclass(frozen=True, slots=True)
class HubSource:
    """A GGUF file of a repository at Hugging Face."""

    name: ModelName
    repository: str
    wanted: str = ""
    """A quantisation or a file; empty: the default."""
    revision: str | None = None

    def __str__(self) -> str:
        return f"huggingface.co/{self.repository}"


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A GGUF file at a URL."""

    name: ModelName
    url: str

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class FileSource:
    """A GGUF file on this machine."""

    name: ModelName
    path: Path

    def __str__(self) -> str:
        return str(self.path)


ModelSource = RegistrySource | HubSource | UrlSource | FileSource


def parse_source(text: str, as_name: str | None = None) -> ModelSource:
    """Return the source that a text names; `as_name`: the model's name on this machine.

    >>> str(parse_source("hf:bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0").name)
    'hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0'
    >>> str(parse_source("hf:bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Q8_0.gguf").name)
    'hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0'
    >>> str(parse_source("https://example.org/a/Mini-2B-Q4_K_M.gguf?download=true").name)
    'mini-2b:Q4_K_M'

    Raises:
        InvalidName: the text names no source.
    """
    own = parse_name(as_name) if as_name else None
    try:
        return _parse_any_source(text, own)
    except (ValueError, RuntimeError) as error:  # from urlsplit, and for an unknown home
        raise InvalidName(text, str(error)) from error


def _parse_any_source(text: str, own: ModelName | None) -> ModelSource:
    if text.startswith("hf:"):
        return _parse_hub_source("hf.co", text.removeprefix("hf:").lstrip("/"), own)
    if text.startswith("file://"):
        return _parse_file_source(unquote(urlsplit(text).path), own)
    if text.startswith(("http://", "https://")):
        return _parse_url_source(text, own)
    host, _, rest = text.partition("/")
    if host.lower() in _HUB_HOSTS:
        return _parse_hub_source(host, rest, own)
    if text.endswith(".gguf") or text.startswith((".", "/", "~")) or "\\" in text:
        return _parse_file_source(text, own)
    if own is not None:
        raise InvalidName(text, "a model of a registry keeps its name; copy it afterwards")
    return RegistrySource(parse_name(text))


def model_name_of_file(file: str) -> ModelName:
    """Return a model's name for a file.

    >>> model_name_of_file("SmolLM2-135M-Instruct.Q4_1.gguf").short
    'smollm2-135m-instruct:Q4_1'
    >>> model_name_of_file("my model (1).gguf").short
    'my-model-1:latest'
    """
    stem = _file_stem(file)
    tag = quantisation_label(file)
    if tag and stem.upper().endswith(tag) and len(stem) > len(tag) + 1:
        stem = stem[: -len(tag) - 1]
    else:
        tag = ""
    model = re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).strip("-.")[:80]
    return parse_name(f"{model}:{tag}" if tag else model)


def _parse_hub_source(host: str, rest: str, own: ModelName | None) -> HubSource:
    """Parse `owner/repo[:quant]`, `owner/repo/file.gguf`, or the path of a page on the hub."""
    path, _, wanted = rest.partition(":")
    steps = [unquote(step) for step in path.strip("/").split("/")]
    repository, revision = "/".join(steps[:2]), None
    is_file = "/" in wanted
    match steps if all(steps) else []:
        case [_, _]:
            pass
        case [_, _, step, commit, _, *_] if step in _HUB_FILE_STEPS:
            revision, wanted = commit, "/".join(steps[4:])
        case [_, _, "tree", commit]:
            revision = commit
        case [_, _, _, *_] if steps[-1].lower().endswith(".gguf") and not wanted:
            wanted, is_file = "/".join(steps[2:]), True
        case _:
            raise InvalidName(f"{host}/{rest}", "a repository there is owner/repo")
    tag = quantisation_label(wanted) if is_file or revision else wanted
    name = own or parse_name(f"{host}/{repository}:{tag or 'latest'}")
    return HubSource(name, repository, wanted, revision)


def _parse_url_source(text: str, own: ModelName | None) -> ModelSource:
    parts = urlsplit(text)
    if not parts.hostname or parts.port == 0:  # `port` raises for an invalid one
        raise InvalidName(text, "an address needs a host")
    if parts.username is not None:
        raise InvalidName(text.replace(parts.netloc, "…"), "an address may hold no password")
    if (parts.hostname or "").lower() in _HUB_HOSTS:
        return _parse_hub_source("hf.co", parts.path.lstrip("/"), own)
    file = unquote(parts.path.rsplit("/", 1)[-1])
    if file.lower().endswith(".gguf"):
        return UrlSource(own or model_name_of_file(file), text)
    if own is not None:
        raise InvalidName(text, "an address of a model ends with .gguf")
    return RegistrySource(parse_name(text))


def _parse_file_source(text: str, own: ModelName | None) -> FileSource:
    path = Path(text).expanduser()
    return FileSource(own or model_name_of_file(path.name), path)
