"""A store on disk, in Ollama's layout: `manifests/host/namespace/model/tag` and `blobs/sha256-…`.

Knows no models' contents. An existing store of Ollama's can be used in place, read-only ones too.
Whoever changes which blobs are named holds one lock, so that no blob goes that a manifest names,
and no manifest comes whose blobs are not there.
"""

from __future__ import annotations

import datetime
import os
import secrets
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from paddock.engine.errors import (
    BadDigest,
    BlobMissing,
    InvalidName,
    ManifestBroken,
    ModelNotFound,
)

from .blobs import Blobs, BlobWriter, hex_of
from .locks import bring_to_disk, held, writing
from .manifests import Layer, Manifest, parse_manifest
from .names import ModelName, parse_name

_NAMING = "the models' names"

# A blob that nobody names may be on its way into a manifest: uploaded for a `create`, or a part
# of a model whose other parts are still coming.
_YOUNG_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Fault:
    """A blob that is not what its name says."""

    digest: str
    path: str
    kind: Literal["missing", "corrupt", "unreadable"]
    names: tuple[str, ...]
    """The models that need it."""
    found: str = ""
    """Of a corrupt one: the digest that it really has."""

    def __str__(self) -> str:
        """Say it in a line."""
        needed = f", needed by {', '.join(self.names)}" if self.names else ""
        what = {"missing": "is missing", "unreadable": "cannot be read"}.get(
            self.kind, f"is corrupt: its content has the digest {self.found}"
        )
        return f"{self.path} {what}{needed}"


class Store:
    """One folder of models."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = Blobs(root)
        self._manifests = root / "manifests"

    # Names and manifests

    def names(self) -> list[ModelName]:
        """Tell every name that has a manifest, sorted; whether it can be read is not looked at."""
        found = [name for name, _ in self._files()]
        return sorted(found, key=lambda name: name.full)

    def find(self, name: ModelName) -> ModelName | None:
        """Give the name as it is written in the store, whatever its case here; None: not there."""
        if self._place(name).is_file():
            return name
        return next((one for one, _ in self._files() if one.key == name.key), None)

    def manifest(self, name: ModelName) -> Manifest | None:
        """Read a model's manifest; None where there is none.

        Raises:
            ManifestBroken: with its path and the reason.
        """
        there = self.find(name)
        if there is None:
            return None
        path = self._place(there)
        try:
            return parse_manifest(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ManifestBroken(str(path), error.strerror or str(error)) from error
        except ValueError as error:
            raise ManifestBroken(str(path), str(error)) from None

    def modified_at(self, name: ModelName) -> datetime.datetime:
        """Tell when a model was last pulled, made or copied.

        Raises:
            ModelNotFound: it is not in the store.
        """
        try:
            stat = self._place(self._known(name)).stat()
        except OSError:
            raise self._unknown(name) from None
        return datetime.datetime.fromtimestamp(stat.st_mtime, datetime.UTC).astimezone()

    def manifest_path(self, name: ModelName) -> Path | None:
        """Tell where a model's manifest lies; None where there is none."""
        there = self.find(name)
        return self._place(there) if there else None

    def put_manifest(self, name: ModelName, manifest: Manifest) -> ModelName:
        """Make or replace a model; gives its name as it stands in the store.

        Raises:
            BlobMissing: a layer's blob is not there.
            StoreFull, StoreReadOnly: the old one, if any, is untouched.
        """
        with self.lock(_NAMING):
            for layer in manifest.blobs:
                if not self.blobs.has(layer.digest):
                    raise BlobMissing(layer.digest)
            there = self.find(name) or self._spelled(name)
            self._write(self._place(there), manifest.raw)
        return there

    def copy(self, source: ModelName, target: ModelName) -> None:
        """Give a model a second name.

        Raises:
            ModelNotFound: there is no `source`.
        """
        manifest = self.manifest(source)
        if manifest is None:
            raise self._unknown(source)
        if self.find(source) != self.find(target):
            self.put_manifest(target, manifest)

    def delete(self, name: ModelName, keep: Collection[str] = ()) -> list[str]:
        """Remove a model and the blobs that only it needed; gives their digests.

        Raises:
            ModelNotFound: it is not in the store.
            StoreReadOnly: it cannot be removed.
        """
        with self.lock(_NAMING):
            path = self._place(self._known(name))
            digests: list[str] = []
            with suppress(OSError, ValueError):
                digests = [layer.digest for layer in parse_manifest(path.read_bytes()).blobs]
            with writing(self.root):
                path.unlink()
            self._drop_empty(path.parent)
            return self._remove_unnamed(digests, keep)

    # Blobs

    def blob_path(self, digest: str) -> Path:
        """Tell where a blob lies or would lie.

        Raises:
            BadDigest: it is no digest.
        """
        return self.blobs.path(digest)

    def has_blob(self, digest: str) -> bool:
        """Tell whether a blob is there.

        Raises:
            BadDigest: it is no digest.
        """
        return self.blobs.has(digest)

    def new_blob(self, digest: str | None = None) -> BlobWriter:
        """Begin a blob that comes in pieces (see `BlobWriter`)."""
        return self.blobs.writer(digest)

    def add_blob(self, source: BinaryIO | bytes, digest: str | None = None) -> str:
        """Write a blob whole or not at all; gives its digest, `sha256:…`.

        Raises:
            DigestMismatch: it is not what it should be; nothing of it was kept.
            StoreFull, StoreReadOnly: likewise.
        """
        return self.blobs.add(source, digest)

    def prune(
        self,
        digests: Iterable[str] | None = None,
        *,
        keep: Collection[str] = (),
        min_age_s: float = _YOUNG_S,
    ) -> list[str]:
        """Remove blobs that no manifest names; gives their digests.

        With `digests` only those, as a replaced manifest named them. Else every blob that has
        lain there unnamed for `min_age_s`, and what killed writers left. `keep` holds digests of
        blobs that others than manifests need, such as tuned copies.
        """
        with self.lock(_NAMING):
            if digests is not None:
                return self._remove_unnamed(digests, keep)
            self.blobs.sweep()
            old = [one for one in self.blobs.digests() if self._age_s(one) >= min_age_s]
            return self._remove_unnamed(old, keep)

    def check(self, name: ModelName | None = None) -> list[Fault]:
        """Read every blob again, or those of one model, and tell what is wrong with them.

        Raises:
            ModelNotFound: there is no such model.
            ManifestBroken: its manifest cannot be read.
        """
        users = self._users()
        if name is None:
            digests = dict.fromkeys([*users, *self.blobs.digests()])
        else:
            manifest = self.manifest(name)
            if manifest is None:
                raise self._unknown(name)
            digests = dict.fromkeys(f"sha256:{hex_of(layer.digest)}" for layer in manifest.blobs)
        faults = (self._fault(digest, users.get(digest, ())) for digest in digests)
        return [fault for fault in faults if fault is not None]

    def lock(self, what: str, wait_s: float = -1.0) -> AbstractContextManager[None]:
        """Be the only one, in this and other processes, that does `what` (see `locks.held`)."""
        return held(self.root, what, wait_s)

    # Parts

    def _place(self, name: ModelName) -> Path:
        return self._manifests.joinpath(*name.parts)

    def _files(self) -> Iterator[tuple[ModelName, Path]]:
        """Give every manifest's name and file; what cannot be a name is none."""
        for path in self._manifests.glob("*/*/*/*"):
            host, namespace, model, tag = path.parts[-4:]
            with suppress(InvalidName):
                name = parse_name(f"{host}/{namespace}/{model}:{tag}")
                if path.is_file():
                    yield name, path

    def _known(self, name: ModelName) -> ModelName:
        there = self.find(name)
        if there is None:
            raise self._unknown(name)
        return there

    def _unknown(self, name: ModelName) -> ModelNotFound:
        return ModelNotFound(name.short, [one.short for one in self.names()])

    def _spelled(self, name: ModelName) -> ModelName:
        """Give a new name with the case that its host, namespace and model have already."""
        for there in self.names():
            ours, theirs = name.parts, there.parts
            if [one.lower() for one in ours[:3]] == [one.lower() for one in theirs[:3]]:
                return ModelName(there.host, there.namespace, there.model, name.tag)
        return name

    def _write(self, path: Path, raw: bytes) -> None:
        """Replace a manifest by one rename."""
        with writing(self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not beside its place: whatever lies there counts as a model's tag.
            aside = self._manifests / f".{os.getpid()}-{secrets.token_hex(6)}.part"
            try:
                with aside.open("xb") as file:
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(path)
            finally:
                with suppress(OSError):
                    aside.unlink(missing_ok=True)
        bring_to_disk(path.parent)

    def _drop_empty(self, folder: Path) -> None:
        with suppress(OSError):  # not empty
            while folder != self._manifests:
                folder.rmdir()
                folder = folder.parent

    def _users(self) -> dict[str, tuple[str, ...]]:
        """Tell for each blob that is named, by whom; what is no manifest names nothing.

        Raises:
            ManifestBroken: a file that cannot be read, and may name anything.
        """
        users: dict[str, tuple[str, ...]] = {}
        for name, path in self._files():
            layers: tuple[Layer, ...] = ()
            try:
                with suppress(FileNotFoundError, ValueError):
                    layers = parse_manifest(path.read_bytes()).blobs
            except OSError as error:
                raise ManifestBroken(str(path), error.strerror or str(error)) from error
            for layer in layers:
                with suppress(BadDigest):
                    digest = f"sha256:{hex_of(layer.digest)}"
                    users[digest] = (*users.get(digest, ()), name.short)
        return users

    def _remove_unnamed(self, digests: Iterable[str], keep: Collection[str]) -> list[str]:
        try:
            users = self._users()
        except ManifestBroken:
            return []  # what one that cannot be read names is not known, so all of it stays
        kept = {hex_of(digest) for digest in keep}
        removed = []
        for digest in dict.fromkeys(digests):
            with suppress(BadDigest):
                whole = f"sha256:{hex_of(digest)}"
                if whole not in users and hex_of(digest) not in kept and self.blobs.has(whole):
                    self.blobs.remove(whole)
                    removed.append(whole)
        return removed

    def _age_s(self, digest: str) -> float:
        with suppress(OSError):
            return time.time() - self.blobs.path(digest).stat().st_mtime
        return 0.0

    def _fault(self, digest: str, names: tuple[str, ...]) -> Fault | None:
        path = str(self.blobs.path(digest))
        try:
            found = self.blobs.true_digest(digest)
        except FileNotFoundError:
            return Fault(digest, path, "missing", names)
        except OSError:
            return Fault(digest, path, "unreadable", names)
        return None if found == digest else Fault(digest, path, "corrupt", names, found)
