"""A store on disk, in Ollama's layout: `manifests/host/namespace/model/tag` and `blobs/sha256-…`.

Knows no models' contents. An existing store of Ollama's can be used in place, read-only ones too.
Whoever changes which blobs are named holds one lock, so that no blob goes that a manifest names,
and no manifest comes whose blobs are not there.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from paddock.engine.errors import BadDigest, BlobMissing, ManifestBroken, ModelNotFound

from .blobs import Blobs, BlobWriter, hex_of
from .locks import held
from .manifests import Manifest
from .names import ModelName
from .shelf import Shelf

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
        self._shelf = Shelf(root, self.blobs)

    # Names and manifests

    def names(self) -> list[ModelName]:
        """Tell every name that has a manifest, sorted; whether it can be read is not looked at."""
        return sorted((name for name, _ in self._shelf.all()), key=lambda name: name.full)

    def find(self, name: ModelName) -> ModelName | None:
        """Give the name as it is spelled in the store, whatever its case here; None: not there."""
        there = self._shelf.find(name)
        return there[0] if there else None

    def manifest(self, name: ModelName) -> Manifest | None:
        """Read a model's manifest; None where there is none.

        Raises:
            ManifestBroken: with its path and the reason.
        """
        there = self._shelf.find(name)
        with suppress(FileNotFoundError):
            return self._shelf.read(there[1]) if there else None
        return None

    def manifest_path(self, name: ModelName) -> Path | None:
        """Tell where a model's manifest lies; None where there is none."""
        there = self._shelf.find(name)
        return there[1] if there else None

    def digests(self, name: ModelName) -> set[str]:
        """Tell every digest that a model's manifest names; none where there is no manifest."""
        there = self._shelf.find(name)
        with suppress(ManifestBroken):
            return self._shelf.digests(there[1]) if there else set()
        return set()

    def modified_at(self, name: ModelName) -> datetime.datetime:
        """Tell when a model was last pulled, made or copied.

        Raises:
            ModelNotFound: it is not in the store.
        """
        path = self.manifest_path(name)
        with suppress(OSError):
            if path is not None:
                mtime = path.stat().st_mtime
                return datetime.datetime.fromtimestamp(mtime, datetime.UTC).astimezone()
        raise self._unknown(name)

    def put_manifest(self, name: ModelName, manifest: Manifest) -> ModelName:
        """Make or replace a model; gives its name as it is spelled in the store.

        Raises:
            BlobMissing: a layer's blob is not there.
            StoreFull, StoreReadOnly: the old one, if any, is untouched.
        """
        with self.lock(_NAMING):
            for layer in manifest.blobs:
                if not self.blobs.has(layer.digest):
                    raise BlobMissing(layer.digest)
            there = self.find(name) or self._spelled(name)
            self._shelf.write(there, manifest.raw)
        return there

    def copy(self, source: ModelName, target: ModelName) -> None:
        """Give a model a second name.

        Raises:
            ModelNotFound: there is no `source`.
            BlobMissing: it is not whole.
        """
        manifest = self.manifest(source)
        if manifest is None:
            raise self._unknown(source)
        if self.find(source) != self.find(target):
            self.put_manifest(target, manifest)

    def delete(self, name: ModelName, keep: Collection[str] = ()) -> list[str]:
        """Remove a model and the blobs that only it needed; gives their digests.

        `keep` holds digests of blobs that others than manifests need, such as tuned copies.

        Raises:
            ModelNotFound: it is not in the store.
            StoreReadOnly: it cannot be removed.
        """
        with self.lock(_NAMING):
            there = self._shelf.find(name)
            if there is None:
                raise self._unknown(name)
            digests = self.digests(name)
            self._shelf.remove(there[0])
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
        lain there unnamed for `min_age_s`, and what killed writers left. `keep` as in `delete`.
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
            ManifestBroken: a manifest cannot be read.
        """
        users = self._users()
        if name is None:
            digests = {one: users[one] for one in users}
            digests |= {one: users.get(one, ()) for one in self.blobs.digests()}
        else:
            manifest = self.manifest(name)
            if manifest is None:
                raise self._unknown(name)
            named = (f"sha256:{hex_of(layer.digest)}" for layer in manifest.blobs)
            digests = {one: users.get(one, ()) for one in named}
        faults = (self._fault(digest, names) for digest, names in digests.items())
        return [fault for fault in faults if fault is not None]

    def lock(self, what: str, wait_s: float = -1.0) -> AbstractContextManager[None]:
        """Be the only one, in this and other processes, that does `what` (see `locks.held`)."""
        return held(self.root, what, wait_s)

    # Parts

    def _unknown(self, name: ModelName) -> ModelNotFound:
        return ModelNotFound(name.short, [one.short for one in self.names()])

    def _spelled(self, name: ModelName) -> ModelName:
        """Give a new name with the case that its host, namespace and model have already."""
        for there in self.names():
            ours, theirs = name.parts, there.parts
            if [one.lower() for one in ours[:3]] == [one.lower() for one in theirs[:3]]:
                return ModelName(there.host, there.namespace, there.model, name.tag)
        return name

    def _users(self) -> dict[str, tuple[str, ...]]:
        """Tell for each blob that a model needs, which ones do.

        Raises:
            ManifestBroken: a file that cannot be read, and may name anything.
        """
        users: dict[str, tuple[str, ...]] = {}
        for name, path in sorted(self._shelf.all(), key=lambda one: one[0].full):
            with suppress(FileNotFoundError, ManifestBroken, BadDigest):
                for layer in self._shelf.read(path).blobs:
                    digest = f"sha256:{hex_of(layer.digest)}"
                    if name.short not in users.get(digest, ()):
                        users[digest] = (*users.get(digest, ()), name.short)
        return users

    def _remove_unnamed(self, digests: Iterable[str], keep: Collection[str]) -> list[str]:
        try:
            named = {one for _, path in self._shelf.all() for one in self._shelf.digests(path)}
        except ManifestBroken:
            return []  # what one that cannot be read names is not known, so all of it stays
        kept = named | {f"sha256:{digest.removeprefix('sha256:')}" for digest in keep}
        removed = []
        for digest in dict.fromkeys(digests):
            with suppress(BadDigest):
                whole = f"sha256:{hex_of(digest)}"
                if whole not in kept and self.blobs.has(whole):
                    self.blobs.remove(whole)
                    removed.append(whole)
        return sorted(removed)

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
