"""What a model can be pulled from, as people name it. Pure.

smollm2:135m   registry.example/team/mini:v1                                     a registry
hf:owner/repo[:quant]   hf:owner/repo/mini-Q8_0.gguf   hf.co/owner/repo:Q4_K_M   Hugging Face
https://example.org/models/mini-Q4_K_M.gguf                                      a URL
./mini-Q4_K_M.gguf                                                               a file
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from paddock.engine.errors import InvalidName
from paddock.engine.system.records import Struct

from .model_names import ModelName, file_stem, parse_name, quantisation_label

_HUB_HOSTS = ("hf.co", "huggingface.co", "www.huggingface.co")


class RegistrySource(Struct, frozen=True):
    name: ModelName

    def __str__(self) -> str:
        return self.name.full


class HubSource(Struct, frozen=True):
    name: ModelName
    repository: str
    requested: str = ""
    """A quantisation or a file; empty: the default."""
    revision: str | None = None

    def __str__(self) -> str:
        return f"huggingface.co/{self.repository}"


class UrlSource(Struct, frozen=True):
    name: ModelName
    url: str

    def __str__(self) -> str:
        return self.url


class FileSource(Struct, frozen=True):
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
    except (ValueError, RuntimeError) as error:  # from urlsplit, and for an unknown home
        raise InvalidName(text, str(error)) from error


def model_name_of_file(file: str) -> ModelName:
    """Return a model's name for a file.

    >>> model_name_of_file("SmolLM2-135M-Instruct.Q4_1.gguf").short
    'smollm2-135m-instruct:Q4_1'
    >>> model_name_of_file("my model (1).gguf").short
    'my-model-1:latest'
    """
    stem = file_stem(file)
    tag = quantisation_label(file)
    if tag and stem.upper().endswith(tag) and len(stem) > len(tag) + 1:
        stem = stem[: -len(tag) - 1]
    else:
        tag = ""
    model = re.sub(r"[^a-z0-9_.-]+", "-", stem.lower()).strip("-.")[:80]
    return parse_name(f"{model}:{tag}" if tag else model)


def _parse_hub_source(host: str, rest: str, own: ModelName | None) -> HubSource:
    """Parse `owner/repo[:quant]`, `owner/repo/file.gguf`, or the path of a page on the hub."""
    path, _, requested = rest.partition(":")
    steps = [unquote(step) for step in path.strip("/").split("/")]
    repository = "/".join(steps[:2])
    revision = None
    is_file = "/" in requested
    match steps if all(steps) else []:
        case [_, _]:
            pass
        case [_, _, step, commit, _, *_] if step in ("resolve", "blob", "raw"):
            revision, requested = commit, "/".join(steps[4:])
        case [_, _, "tree", commit]:
            revision = commit
        case [_, _, _, *_] if steps[-1].lower().endswith(".gguf") and not requested:
            requested = "/".join(steps[2:])
            is_file = True
        case _:
            raise InvalidName(f"{host}/{rest}", "a repository there is owner/repo")
    tag = quantisation_label(requested) if is_file or revision else requested
    name = own or parse_name(f"{host}/{repository}:{tag or 'latest'}")
    return HubSource(name, repository, requested, revision)


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
