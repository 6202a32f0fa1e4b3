"""Read where a model is to come from: a registry, Hugging Face, an address, a file. Pure.

smollm2:135m   registry.example/team/mini:v1      a registry
hf:owner/repo[:quant]   hf:owner/repo/mini-Q8_0.gguf   hf.co/owner/repo:Q4_K_M   Hugging Face
https://example.org/models/mini-Q4_K_M.gguf       an address
./mini-Q4_K_M.gguf                                a file
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from paddock.engine.errors import InvalidName
from paddock.engine.store.names import ModelName, parse_name

from .quants import label

_HUB_HOSTS = ("hf.co", "huggingface.co", "www.huggingface.co")
_FILE_STEPS = ("resolve", "blob", "raw")


@dataclass(frozen=True, slots=True)
class FromRegistry:
    """A model of an OCI registry, under its own name."""

    name: ModelName

    def __str__(self) -> str:
        """Say whom it will be asked from."""
        return self.name.full


@dataclass(frozen=True, slots=True)
class FromHub:
    """A GGUF file of a repository at Hugging Face."""

    name: ModelName
    repository: str
    wanted: str = ""
    """A quantisation or a file; empty: chosen."""
    revision: str | None = None

    def __str__(self) -> str:
        """Say whom it will be asked from."""
        return f"huggingface.co/{self.repository}"


@dataclass(frozen=True, slots=True)
class FromAddress:
    """A GGUF file behind a URL."""

    name: ModelName
    url: str

    def __str__(self) -> str:
        """Say whom it will be asked from."""
        return self.url


@dataclass(frozen=True, slots=True)
class FromFile:
    """A GGUF file of this machine."""

    name: ModelName
    path: Path

    def __str__(self) -> str:
        """Say what will be read."""
        return str(self.path)


Source = FromRegistry | FromHub | FromAddress | FromFile


def read_source(text: str, as_name: str | None = None) -> Source:
    """Tell what a person means; `as_name`: what the model is to be called here.

    >>> str(read_source("hf:bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0").name)
    'hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0'
    >>> str(read_source("hf:bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Q8_0.gguf").name)
    'hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0'
    >>> str(read_source("https://example.org/a/Mini-2B-Q4_K_M.gguf?download=true").name)
    'mini-2b:Q4_K_M'

    Raises:
        InvalidName: it is neither.
    """
    own = parse_name(as_name) if as_name else None
    try:
        return _read(text, own)
    except (ValueError, RuntimeError) as error:  # urlsplit's, and a home that nobody has
        raise InvalidName(text, str(error)) from error


def _read(text: str, own: ModelName | None) -> Source:
    if text.startswith("hf:"):
        return _hub("hf.co", text.removeprefix("hf:").lstrip("/"), own)
    if text.startswith("file://"):
        return _file(unquote(urlsplit(text).path), own)
    if text.startswith(("http://", "https://")):
        return _address(text, own)
    host, _, rest = text.partition("/")
    if host.lower() in _HUB_HOSTS:
        return _hub(host, rest, own)
    if text.endswith(".gguf") or text.startswith((".", "/", "~")) or "\\" in text:
        return _file(text, own)
    if own is not None:
        raise InvalidName(text, "a model of a registry keeps its name; copy it afterwards")
    return FromRegistry(parse_name(text))


def name_of_file(file: str) -> ModelName:
    """Make a model's name of a file's.

    >>> name_of_file("SmolLM2-135M-Instruct.Q4_1.gguf").short
    'smollm2-135m-instruct:Q4_1'
    >>> name_of_file("my model (1).gguf").short
    'my-model-1:latest'
    """
    stem = file[:-5] if file.lower().endswith(".gguf") else file
    tag = label(file)
    if tag and stem.upper().endswith(tag) and len(stem) > len(tag) + 1:
        stem = stem[: -len(tag) - 1]
    else:
        tag = ""
    model = re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).strip("-.")[:80]
    return parse_name(f"{model}:{tag}" if tag else model)


def _hub(host: str, rest: str, own: ModelName | None) -> FromHub:
    """Read `owner/repo[:quant]`, `owner/repo/file.gguf`, or the path of a page of the hub."""
    path, _, wanted = rest.partition(":")
    steps = [unquote(step) for step in path.strip("/").split("/")]
    if len(steps) < 2 or not all(steps):
        raise InvalidName(f"{host}/{rest}", "a repository there is owner/repo")
    repository, revision = "/".join(steps[:2]), None
    if len(steps) > 4 and steps[2] in _FILE_STEPS:
        revision, wanted = steps[3], "/".join(steps[4:])
    elif len(steps) == 4 and steps[2] == "tree":
        revision = steps[3]
    elif len(steps) > 2 and steps[-1].lower().endswith(".gguf") and not wanted:
        wanted = "/".join(steps[2:])
        return FromHub(own or _named(host, repository, label(wanted)), repository, wanted, None)
    elif len(steps) > 2:
        raise InvalidName(f"{host}/{rest}", "a repository there is owner/repo")
    tag = (label(wanted) or "latest") if "/" in wanted or revision else wanted or "latest"
    return FromHub(own or _named(host, repository, tag), repository, wanted, revision)


def _named(host: str, repository: str, tag: str) -> ModelName:
    return parse_name(f"{host}/{repository}:{tag or 'latest'}")


def _address(text: str, own: ModelName | None) -> Source:
    parts = urlsplit(text)
    if not parts.hostname or parts.port == 0:  # a port that is none raises
        raise InvalidName(text, "an address needs a host")
    if parts.username is not None:
        raise InvalidName(text.replace(parts.netloc, "…"), "an address may hold no password")
    if (parts.hostname or "").lower() in _HUB_HOSTS:
        return _hub("hf.co", parts.path.lstrip("/"), own)
    file = unquote(parts.path.rsplit("/", 1)[-1])
    if file.lower().endswith(".gguf"):
        return FromAddress(own or name_of_file(file), text)
    if own is not None:
        raise InvalidName(text, "an address of a model ends with .gguf")
    return FromRegistry(parse_name(text))


def _file(text: str, own: ModelName | None) -> FromFile:
    path = Path(text).expanduser()
    return FromFile(own or name_of_file(path.name), path)
