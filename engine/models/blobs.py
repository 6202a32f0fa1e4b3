"""Blobs of the model store, its locks, and its errors for a full or read-only disk.

A blob gets its name only when its digest is verified. Until then it has a temporary name; the file
is removed when its writer fails, and swept later when its process was killed. A lock is a file
next to manifests and blobs. Readers take no lock, because manifests and blobs appear by a rename.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

from paddock.engine.errors import (
    BadDigest,
    BlobMissing,
    DigestMismatch,
    EngineError,
    StoreFull,
    StoreReadOnly,
)
from paddock.engine.system.disk_space import free_disk_bytes, is_disk_full
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.files import (
    TemporaryFile,
    is_part_held,
    remove_stale_files,
    sha256_of,
    sync_file,
    sync_folder,
)
from paddock.engine.system.units import DAY_S, HOUR_S

LOCKS_FOLDER = ".locks"


@contextmanager
def store_lock(root: Path, what: str, wait_s: float = -1.0) -> Iterator[None]:
    """Hold the lock for `what` on the store at `root`, against threads and other processes.

    Negative `wait_s`: wait without limit.

    Raises:
        EngineError: another one holds it, and `wait_s` is over.
        StoreReadOnly: the folder cannot be written.
    """
    path = root / LOCKS_FOLDER / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.lock"
    with ExitStack() as stack:
        try:
            with store_write_errors(root):  # users may share a store, so its locks are not private
                stack.enter_context(lock_now(path, wait_s=wait_s, poll_s=0.02, mode=None))
        except LockTaken:
            raise EngineError(f"another process is at {what}; wait for it") from None
        yield


@contextmanager
def store_write_errors(folder: Path) -> Iterator[None]:
    """Turn a disk's write error into one that says what to do.

    Raises:
        StoreFull: the disk is full.
        StoreReadOnly: no permission, or no such disk.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise StoreFull(str(folder), free_disk_bytes(folder)) from error
        raise StoreReadOnly(str(folder), error.strerror or str(error)) from error


_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_BLOB = re.compile(r"sha256-[0-9a-f]{64}")
_READ_BYTES = 1024 * 1024

# Age after which an unchanged temporary file is abandoned; a download can be resumed, so it is kept
# for longer.
_ABANDONED_FILE_S = HOUR_S
_ABANDONED_DOWNLOAD_S = 7 * DAY_S
_INCOMPLETE_FILES = (
    (re.compile(r"\..*\.part"), _ABANDONED_FILE_S),
    (re.compile(r"sha256-[0-9a-f]{64}-partial(-\d+)?"), _ABANDONED_DOWNLOAD_S),
)


class BlobStore:
    """The blobs of one store, in `root`/blobs.

    What is no digest, and so could be any path, raises BadDigest; reading what does not exist,
    BlobMissing; writing, StoreFull or StoreReadOnly, and then nothing of it is kept.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs"

    def path(self, digest: str) -> Path:
        return self.folder / f"sha256-{digest_hex(digest)}"

    def has(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def size_bytes(self, digest: str) -> int:
        try:
            return self.path(digest).stat().st_size
        except OSError:
            raise BlobMissing(digest) from None

    def read(self, digest: str) -> bytes:
        try:
            return self.path(digest).read_bytes()
        except OSError:
            raise BlobMissing(digest) from None

    def digests(self) -> tuple[str, ...]:
        return tuple(name.replace("-", ":") for name in self._names() if _BLOB.fullmatch(name))

    def writer(self, digest: str | None = None) -> BlobWriter:
        expected = f"sha256:{digest_hex(digest)}" if digest else None
        with store_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            return BlobWriter(TemporaryFile(self.folder / "blob"), expected)

    def add(self, source: BinaryIO | bytes, digest: str | None = None) -> str:
        """Write a blob completely or not at all; return its digest."""
        with self.writer(digest) as writer:
            if isinstance(source, bytes):
                writer.write(source)
            else:
                while piece := source.read(_READ_BYTES):
                    writer.write(piece)
            return writer.commit()

    def adopt(self, path: Path) -> str:
        """Turn a complete temporary file of this folder into a blob; return its digest."""
        with store_write_errors(self.folder):
            digest = f"sha256:{sha256_of(path)}"
            sync_file(path)
            path.replace(self.path(digest))
        sync_folder(self.folder)
        return digest

    def temporary_path(self) -> Path:
        with store_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f".{os.getpid()}-{secrets.token_hex(6)}.part"

    def remove(self, digest: str) -> int:
        path = self.path(digest)
        with suppress(FileNotFoundError), store_write_errors(self.folder):
            size_bytes = path.stat().st_size
            path.unlink()
            return size_bytes
        return 0

    def sweep(self) -> None:
        """Remove temporary files of killed processes and abandoned downloads."""
        remove_stale_files(self.folder)
        for name in self._names():
            path = self.folder / name
            for pattern, max_age_s in _INCOMPLETE_FILES:
                with suppress(OSError):
                    is_old = (
                        pattern.fullmatch(name) and (time.time() - path.stat().st_mtime) > max_age_s
                    )
                    if is_old and not is_part_held(path):
                        path.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        with suppress(OSError):
            return sorted(os.listdir(self.folder))  # noqa: PTH208 - only the names are needed
        return []


class BlobWriter:
    """Writes one blob: `write` its pieces, then `commit`; leaving without commit removes it."""

    def __init__(self, file: TemporaryFile, expected: str | None) -> None:
        self._file = file
        self._folder = file.file.parent
        self._expected = expected
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self.is_new = False
        """After `commit`: whether there was no such blob before."""

    def write(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.size_bytes += len(piece)
        with store_write_errors(self._folder):
            self._file.write(piece)

    def commit(self) -> str:
        """Rename the file to its blob's name; return the digest.

        Raises:
            DigestMismatch: the content has another digest.
        """
        digest = f"sha256:{self._hash.hexdigest()}"
        if self._expected is not None and digest != self._expected:
            raise DigestMismatch(self._expected, digest)
        with store_write_errors(self._folder):
            self._file.sync()
            blob = self._folder / digest.replace(":", "-")
            self.is_new = not blob.exists()
            self._file.replace(blob)
        sync_folder(self._folder)
        return digest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


def digest_hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise BadDigest(digest)
    return match[1].lower()
