"""Where manifests lie: a file for each name, under `manifests` or a newer Ollama's `manifests-v2`.

Newer Ollamas keep a manifest as a blob and link to it, under the host `ollama.com`, and may list
several manifests for one name, each for another kind of engine. Both are read; what is written
here is a plain file in `manifests`, which every version of Ollama reads.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from paddock.engine.errors import InvalidName, ManifestBroken

from .blobs import Blobs
from .locks import bring_to_disk, writing
from .manifests import Manifest, parse_manifest
from .names import DEFAULT_HOST, ModelName, parse_name

_LIST = "application/vnd.ollama.manifest.list.v2+json"
_NEWER_HOST = "ollama.com"

# Which of several manifests for one name is ours: those for Ollama's own engine and llama.cpp.
_RUNNERS = ("llamacpp", "ollama", "")

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")


class Shelf:
    """The manifests' files of one store."""

    def __init__(self, root: Path, blobs: Blobs) -> None:
        self._root = root
        self._folder = root / "manifests"
        self._newer = root / "manifests-v2"
        self._blobs = blobs

    def all(self) -> Iterator[tuple[ModelName, Path]]:
        """Give every name and its file; what cannot be a name is none."""
        seen: set[str] = set()
        for folder in (self._newer, self._folder):
            for path in _below(folder, 4):
                name = _name(path)
                if name is not None and name.key not in seen and path.is_file():
                    seen.add(name.key)
                    yield name, path

    def find(self, name: ModelName) -> tuple[ModelName, Path] | None:
        """Give a name as it is spelled here, and its file; None: not there."""
        for path in (self._newer.joinpath(*_newer_parts(name)), self._place(name)):
            if path.is_file():
                return name, path
        return next(((one, path) for one, path in self.all() if one.key == name.key), None)

    def read(self, path: Path) -> Manifest:
        """Read a manifest; of a list, the one for us.

        Raises:
            FileNotFoundError: it went meanwhile.
            ManifestBroken: with its path and the reason.
        """
        try:
            raw = path.read_bytes()
            return self._chosen(raw) or parse_manifest(raw)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ManifestBroken(str(path), error.strerror or str(error)) from error
        except ValueError as error:
            raise ManifestBroken(str(path), str(error)) from None

    def digests(self, path: Path) -> set[str]:
        """Tell every digest that a manifest names, itself and those of a list's parts included.

        Whatever else is wrong with the file: what it names may be needed.

        Raises:
            ManifestBroken: it cannot be read, and may name anything.
        """
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise ManifestBroken(str(path), error.strerror or str(error)) from error
        named = {_digest(raw), *_named(raw)}
        if _LIST.encode() in raw:
            for digest in tuple(named):
                with suppress(OSError):
                    part = self._blobs.path(digest)
                    if part.stat().st_size < 1024 * 1024:
                        named |= _named(part.read_bytes())
        return named

    def write(self, name: ModelName, raw: bytes) -> None:
        """Make or replace a manifest by one rename.

        Raises:
            StoreFull, StoreReadOnly: the old one, if any, is untouched.
        """
        path = self._place(name)
        with writing(self._root):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not beside its place: whatever lies there counts as a model's tag.
            aside = self._folder / f".{os.getpid()}-{secrets.token_hex(6)}.part"
            try:
                with aside.open("xb") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(path)
            finally:
                with suppress(OSError):
                    aside.unlink(missing_ok=True)
            self._newer.joinpath(*_newer_parts(name)).unlink(missing_ok=True)
        bring_to_disk(path.parent)

    def remove(self, name: ModelName) -> None:
        """Remove a manifest, and the folders that it leaves empty.

        Raises:
            StoreReadOnly: it cannot be.
        """
        for folder in (self._newer, self._folder):
            for path in list(_below(folder, 4)):
                there = _name(path)
                if there is not None and there.key == name.key:
                    with writing(self._root):
                        path.unlink(missing_ok=True)
                    _drop_empty(path.parent, folder)

    def _place(self, name: ModelName) -> Path:
        return self._folder.joinpath(*name.parts)

    def _chosen(self, raw: bytes) -> Manifest | None:
        """Give the manifest of a list that is for us; None: it is no list.

        Raises:
            ValueError: none of them is.
        """
        if _LIST.encode() not in raw:
            return None
        listed = [one for one in json.loads(raw).get("manifests", []) if isinstance(one, dict)]
        for runner in _RUNNERS:
            for one in listed:
                if str(one.get("runner") or "").lower() != runner:
                    continue
                if isinstance(one.get("layers"), list):
                    part = json.dumps(one).encode()
                else:
                    part = self._blobs.path(str(one.get("digest"))).read_bytes()
                chosen = parse_manifest(part)
                return Manifest(chosen.config, chosen.layers, raw)
        raise ValueError("it has no part for llama.cpp, only for other engines")


def _name(path: Path) -> ModelName | None:
    host, namespace, model, tag = path.parts[-4:]
    if host == _NEWER_HOST:
        host = DEFAULT_HOST
    with suppress(InvalidName):
        return parse_name(f"{host}/{namespace}/{model}:{tag}")
    return None


def _newer_parts(name: ModelName) -> tuple[str, str, str, str]:
    host = _NEWER_HOST if name.host.lower() == DEFAULT_HOST else name.host
    return host, name.namespace, name.model, name.tag


def _named(raw: bytes) -> set[str]:
    return {digest.decode() for digest in _DIGEST.findall(raw.replace(b"sha256-", b"sha256:"))}


def _digest(raw: bytes) -> str:
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield what lies so many levels below a folder.

    Not `glob`: in Python 3.11 it raises where a folder goes meanwhile, as when a model is deleted.
    """
    try:
        held = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for path in held:
        if depth == 1:
            yield path
        else:
            yield from _below(path, depth - 1)


def _drop_empty(folder: Path, top: Path) -> None:
    with suppress(OSError):  # not empty
        while folder != top:
            folder.rmdir()
            folder = folder.parent
