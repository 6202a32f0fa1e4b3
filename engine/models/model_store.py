"""The model store on disk, in Ollama's layout.

The layout is `manifests/host/namespace/model/tag` and `blobs/sha256-…`. A store of Ollama can be
used in place, even read-only. Newer versions of Ollama keep a manifest as a blob, link to it under
`manifests-v2` and the host `ollama.com`, and may list several manifests for one name. Both layouts
are read; manifests are written as plain files in `manifests`, which every version reads.

Every change to names or to the blobs they need holds one lock: no blob of a manifest is removed,
and no manifest is written before its blobs.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Literal

from paddock.engine.errors import BadDigest, BlobMissing, InvalidName, ManifestBroken, ModelNotFound
from paddock.engine.system.files import atomic_file, sha256_of
from paddock.engine.system.records import Struct
from paddock.engine.system.units import DAY_S

from .blobs import BlobStore, digest_hex, store_lock, store_write_errors
from .manifests import Manifest, parse_manifest
from .model_names import DEFAULT_HOST, ModelName, parse_name

_MANIFEST_LIST_TYPE = "application/vnd.ollama.manifest.list.v2+json"
_NEWER_HOST = "ollama.com"

# Of several manifests for one name, those for Ollama's own engine and llama.cpp are usable.
_USABLE_RUNNERS = ("llamacpp", "ollama", "")

_DIGEST_TEXT = re.compile(rb"sha256:[0-9a-f]{64}")


class ManifestFiles:
    """The files of one store's manifests.

    One that cannot be read raises ManifestBroken; a disk that refuses, StoreFull or StoreReadOnly,
    and then the old manifest is unchanged.
    """

    def __init__(self, root: Path, blobs: BlobStore) -> None:
        self._root = root
        self._folder = root / "manifests"
        self._newer = root / "manifests-v2"
        self._blobs = blobs

    def all(self) -> Iterator[tuple[ModelName, Path]]:
        """Yield every name and its file; files with invalid names are skipped."""
        seen: set[str] = set()
        for folder in (self._newer, self._folder):
            for path in _entries_below(folder, 4):
                name = _name_of_path(path)
                if name is not None and name.key not in seen and path.is_file():
                    seen.add(name.key)
                    yield name, path

    def find(self, name: ModelName) -> tuple[ModelName, Path] | None:
        """Return a name as it is spelled in the store, and its file; None: there is none."""
        older = self._folder.joinpath(*name.parts)
        for path in (self._newer.joinpath(*_newer_parts(name)), older):
            if path.is_file():
                return name, path
        for known, path in self.all():
            if known.key == name.key:
                return known, path
        return None

    def read(self, path: Path) -> Manifest:
        """Read a manifest; of a list, the first usable one. FileNotFoundError: it was removed."""
        try:
            raw = path.read_bytes()
            return self._choose_from_list(raw) or parse_manifest(raw)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ManifestBroken(str(path), error.strerror or str(error)) from error
        except ValueError as error:
            raise ManifestBroken(str(path), str(error)) from None

    def digests(self, path: Path) -> set[str]:
        """Return every digest in a manifest, with its own and those of a list's parts.

        Even a broken manifest counts, because its blobs may be needed.
        """
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise ManifestBroken(str(path), error.strerror or str(error)) from error
        named = {f"sha256:{hashlib.sha256(raw).hexdigest()}", *_digests_in(raw)}
        if _MANIFEST_LIST_TYPE.encode() in raw:
            for digest in tuple(named):
                with suppress(OSError):
                    part = self._blobs.path(digest)
                    if part.stat().st_size < 1024 * 1024:
                        named |= _digests_in(part.read_bytes())
        return named

    def write(self, name: ModelName, raw: bytes) -> None:
        path = self._folder.joinpath(*name.parts)
        with store_write_errors(self._root):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Written in the top folder: any file in a model's own folder counts as a tag.
            with atomic_file(path, mode=None, is_durable=True, folder=self._folder) as file:
                file.write(raw)
            self._newer.joinpath(*_newer_parts(name)).unlink(missing_ok=True)

    def remove(self, name: ModelName) -> None:
        for folder in (self._newer, self._folder):
            for path in list(_entries_below(folder, 4)):
                found = _name_of_path(path)
                if found is not None and found.key == name.key:
                    with store_write_errors(self._root):
                        path.unlink(missing_ok=True)
                    _drop_empty(path.parent, folder)

    def _choose_from_list(self, raw: bytes) -> Manifest | None:
        if _MANIFEST_LIST_TYPE.encode() not in raw:
            return None
        listed = [
            entry for entry in json.loads(raw).get("manifests", []) if isinstance(entry, dict)
        ]
        for runner in _USABLE_RUNNERS:
            for entry in listed:
                if str(entry.get("runner") or "").lower() != runner:
                    continue
                if isinstance(entry.get("layers"), list):
                    part = json.dumps(entry).encode()
                else:
                    part = self._blobs.path(str(entry.get("digest"))).read_bytes()
                chosen = parse_manifest(part)
                return Manifest(chosen.config, chosen.layers, raw)
        raise ValueError("it has no part for llama.cpp, only for other engines")


def _name_of_path(path: Path) -> ModelName | None:
    host, namespace, model, tag = path.parts[-4:]
    if host == _NEWER_HOST:
        host = DEFAULT_HOST
    with suppress(InvalidName):
        return parse_name(f"{host}/{namespace}/{model}:{tag}")
    return None


def _newer_parts(name: ModelName) -> tuple[str, str, str, str]:
    host = _NEWER_HOST if name.host.lower() == DEFAULT_HOST else name.host
    return host, name.namespace, name.model, name.tag


def _digests_in(raw: bytes) -> set[str]:
    return {digest.decode() for digest in _DIGEST_TEXT.findall(raw.replace(b"sha256-", b"sha256:"))}


def _entries_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the entries that many levels below a folder.

    `glob` of Python 3.11 raises if a folder is removed meanwhile, as when a model is deleted.
    """
    try:
        entries = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for path in entries:
        if depth == 1:
            yield path
        else:
            yield from _entries_below(path, depth - 1)


def _drop_empty(folder: Path, top: Path) -> None:
    with suppress(OSError):  # not empty
        while folder != top:
            folder.rmdir()
            folder = folder.parent


_NAMES_LOCK = "the models' names"

# A blob without a manifest may get one soon: uploaded for a `create`, or part of a running pull.
_MIN_PRUNE_AGE_S = DAY_S


class BlobFault(Struct, frozen=True):
    digest: str
    path: str
    kind: Literal["missing", "corrupt", "unreadable"]
    names: tuple[str, ...]
    found: str = ""
    """Of a corrupt one: the digest of its content."""

    def __str__(self) -> str:
        needed = f", needed by {', '.join(self.names)}" if self.names else ""
        what = {"missing": "is missing", "unreadable": "cannot be read"}.get(
            self.kind, f"is corrupt: its content has the digest {self.found}"
        )
        return f"{self.path} {what}{needed}"


class ModelStore:
    """One folder of models.

    An unknown model raises ModelNotFound, one without all its blobs BlobMissing, a manifest that
    cannot be read ManifestBroken, a disk that refuses StoreFull or StoreReadOnly.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = BlobStore(root)
        self._manifests = ManifestFiles(root, self.blobs)

    # Names and manifests

    def names(self) -> list[ModelName]:
        """Return every name, sorted, also those with a broken manifest."""
        return sorted((name for name, _ in self._manifests.all()), key=lambda name: name.full)

    def find(self, name: ModelName) -> ModelName | None:
        found = self._manifests.find(name)
        return found[0] if found else None

    def manifest(self, name: ModelName) -> Manifest | None:
        found = self._manifests.find(name)
        with suppress(FileNotFoundError):
            return self._manifests.read(found[1]) if found else None
        return None

    def manifest_path(self, name: ModelName) -> Path | None:
        found = self._manifests.find(name)
        return found[1] if found else None

    def digests(self, name: ModelName) -> set[str]:
        found = self._manifests.find(name)
        with suppress(ManifestBroken):
            return self._manifests.digests(found[1]) if found else set()
        return set()

    def modified_at(self, name: ModelName) -> datetime.datetime:
        path = self.manifest_path(name)
        with suppress(OSError):
            if path is not None:
                mtime = path.stat().st_mtime
                return datetime.datetime.fromtimestamp(mtime, datetime.UTC).astimezone()
        raise self._unknown(name)

    def put_manifest(self, name: ModelName, manifest: Manifest) -> ModelName:
        """Write or replace a model; return its name as it is spelled in the store."""
        with self.lock(_NAMES_LOCK):
            for layer in manifest.blobs:
                if not self.blobs.has(layer.digest):
                    raise BlobMissing(layer.digest)
            stored = self.find(name) or self._with_known_case(name)
            self._manifests.write(stored, manifest.raw)
        return stored

    def copy(self, source: ModelName, target: ModelName) -> None:
        manifest = self.manifest(source)
        if manifest is None:
            raise self._unknown(source)
        if self.find(source) != self.find(target):
            self.put_manifest(target, manifest)

    def delete(self, name: ModelName, keep: Collection[str] = ()) -> list[str]:
        """Remove a model and the blobs that only it needs; return their digests.

        `keep`: digests of blobs that are needed otherwise, such as by tuned copies.
        """
        with self.lock(_NAMES_LOCK):
            found = self._manifests.find(name)
            if found is None:
                raise self._unknown(name)
            digests = self.digests(name)
            self._manifests.remove(found[0])
            return self._remove_unnamed(digests, keep)

    # Blobs

    def prune(
        self,
        digests: Iterable[str] | None = None,
        *,
        keep: Collection[str] = (),
        min_age_s: float = _MIN_PRUNE_AGE_S,
    ) -> list[str]:
        """Remove blobs that no manifest names; return their digests.

        With `digests` only those, such as a replaced manifest's. Otherwise every unnamed blob that
        is older than `min_age_s`, and files of killed writers. `keep` as in `delete`.
        """
        with self.lock(_NAMES_LOCK):
            if digests is not None:
                return self._remove_unnamed(digests, keep)
            self.blobs.sweep()
            old = [digest for digest in self.blobs.digests() if self._age_s(digest) >= min_age_s]
            return self._remove_unnamed(old, keep)

    def check(self, name: ModelName | None = None) -> list[BlobFault]:
        users: dict[str, tuple[str, ...]] = {}
        for user, path in sorted(self._manifests.all(), key=lambda pair: pair[0].full):
            with suppress(FileNotFoundError, ManifestBroken, BadDigest):
                for layer in self._manifests.read(path).blobs:
                    digest = f"sha256:{digest_hex(layer.digest)}"
                    if user.short not in users.get(digest, ()):
                        users[digest] = (*users.get(digest, ()), user.short)
        if name is None:
            digests = {digest: users[digest] for digest in users}
            digests |= {digest: users.get(digest, ()) for digest in self.blobs.digests()}
        else:
            manifest = self.manifest(name)
            if manifest is None:
                raise self._unknown(name)
            named = (f"sha256:{digest_hex(layer.digest)}" for layer in manifest.blobs)
            digests = {digest: users.get(digest, ()) for digest in named}
        faults = (self._fault(digest, names) for digest, names in digests.items())
        return [fault for fault in faults if fault is not None]

    def lock(self, what: str, wait_s: float = -1.0) -> AbstractContextManager[None]:
        return store_lock(self.root, what, wait_s)

    # Parts

    def _unknown(self, name: ModelName) -> ModelNotFound:
        return ModelNotFound(name.short, [known.short for known in self.names()])

    def _with_known_case(self, name: ModelName) -> ModelName:
        for known in self.names():
            ours, theirs = name.parts, known.parts
            if [part.lower() for part in ours[:3]] == [part.lower() for part in theirs[:3]]:
                return ModelName(known.host, known.namespace, known.model, name.tag)
        return name

    def _remove_unnamed(self, digests: Iterable[str], keep: Collection[str]) -> list[str]:
        try:
            named = {
                digest
                for _, path in self._manifests.all()
                for digest in self._manifests.digests(path)
            }
        except ManifestBroken:
            return []  # an unreadable manifest may need any blob
        kept = named | {f"sha256:{digest.removeprefix('sha256:')}" for digest in keep}
        removed = []
        for digest in dict.fromkeys(digests):
            with suppress(BadDigest):
                whole = f"sha256:{digest_hex(digest)}"
                if whole not in kept and self.blobs.has(whole):
                    self.blobs.remove(whole)
                    removed.append(whole)
        return sorted(removed)

    def _age_s(self, digest: str) -> float:
        with suppress(OSError):
            return time.time() - self.blobs.path(digest).stat().st_mtime
        return 0.0

    def _fault(self, digest: str, names: tuple[str, ...]) -> BlobFault | None:
        path = str(self.blobs.path(digest))
        try:
            found = f"sha256:{sha256_of(self.blobs.path(digest))}"
        except FileNotFoundError:
            return BlobFault(digest, path, "missing", names)
        except OSError:
            return BlobFault(digest, path, "unreadable", names)
        return None if found == digest else BlobFault(digest, path, "corrupt", names, found)
