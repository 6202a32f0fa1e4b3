"""Blobs of the model store, its locks, and what a disk's errors mean.

A file gets its name only when its digest is verified. An incomplete file has a name that nothing
looks for and is removed when its writer fails; what a killed process left is swept later. A lock
is a file next to manifests and blobs. Readers take no lock: a manifest gets its place by one
rename, and a blob by another.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from paddock.engine.errors import (
    BadDigest,
    BlobMissing,
    DigestMismatch,
    EngineError,
    StoreFull,
    StoreReadOnly,
)

LOCKS_FOLDER = ".locks"

# Also a limit on the size of files (`ulimit -f`) or a quota is a disk that is full.
_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def store_lock(root: Path, what: str, wait_s: float = -1.0) -> Iterator[None]:
    """Be the only one, in this process and others, that does `what` to the store at `root`.

    Threads of one process exclude each other too. Negative `wait_s`: wait as long as it takes.

    Raises:
        EngineError: another one has it and `wait_s` is over.
        StoreReadOnly: the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # 50 ms that `list` and `show` need not pay

    path = root / LOCKS_FOLDER / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.lock"
    with store_write_errors(root):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=wait_s, thread_local=False)
        try:
            lock.acquire(poll_interval=0.02)
        except Timeout:
            raise EngineError(f"another process is at {what}; wait for it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def store_write_errors(folder: Path) -> Iterator[None]:
    """Turn a disk's refusal to be written into an error that says what to do.

    Raises:
        StoreFull: no room.
        StoreReadOnly: no permission, or no such disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL_ERRNOS:
            raise StoreFull(str(folder), free_disk_bytes(folder)) from error
        raise StoreReadOnly(str(folder), error.strerror or str(error)) from error


def free_disk_bytes(folder: Path) -> int:
    """Return what is free on the disk of `folder`, which need not be there yet."""
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return 0


def fsync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_BLOB = re.compile(r"sha256-[0-9a-f]{64}")
_READ_BYTES = 1024 * 1024

# A file that is being written changes; one that did not for so long was left behind. What is left
# of a download can be gone on with, so it waits for longer.
_LEFT_BEHIND_S = 3600.0
_GIVEN_UP_S = 7 * 24 * 3600.0
_INCOMPLETE_FILES = (
    (re.compile(r"\..*\.part"), _LEFT_BEHIND_S),
    (re.compile(r"sha256-[0-9a-f]{64}-partial(-\d+)?"), _GIVEN_UP_S),
)


class BlobStore:
    """One store's blobs, under `root`/blobs."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "blobs"

    def path(self, digest: str) -> Path:
        """Return where a blob lies or would lie.

        Raises:
            BadDigest: so that a digest is never a path's step.
        """
        return self.folder / f"sha256-{digest_hex(digest)}"

    def has(self, digest: str) -> bool:
        """Return whether it is there.

        Raises:
            BadDigest: it is no digest.
        """
        return self.path(digest).is_file()

    def size_bytes(self, digest: str) -> int:
        """Return how large a blob is.

        Raises:
            BlobMissing: it is not there.
        """
        try:
            return self.path(digest).stat().st_size
        except OSError:
            raise BlobMissing(digest) from None

    def read(self, digest: str) -> bytes:
        """Read a small blob (a template, a config) whole.

        Raises:
            BlobMissing: it is not there.
        """
        try:
            return self.path(digest).read_bytes()
        except OSError:
            raise BlobMissing(digest) from None

    def digests(self) -> tuple[str, ...]:
        """Return every blob, as `sha256:…`."""
        return tuple(name.replace("-", ":") for name in self._names() if _BLOB.fullmatch(name))

    def writer(self, digest: str | None = None) -> BlobWriter:
        """Begin a blob; `digest`: what it must turn out to be.

        Raises:
            BadDigest: `digest` is none.
            StoreReadOnly: the folder cannot be written.
            StoreFull: no room even for its name.
        """
        expected = f"sha256:{digest_hex(digest)}" if digest else None
        return BlobWriter(self.aside(), expected)

    def add(self, source: BinaryIO | bytes, digest: str | None = None) -> str:
        """Write a blob whole or not at all; gives its digest.

        Raises:
            DigestMismatch: it is not what it should be.
            StoreFull, StoreReadOnly: nothing of it was kept.
        """
        with self.writer(digest) as writer:
            if isinstance(source, bytes):
                writer.write(source)
            else:
                while piece := source.read(_READ_BYTES):
                    writer.write(piece)
            return writer.commit()

    def adopt(self, path: Path) -> str:
        """Make a blob of a whole file that lies aside in this folder; gives its digest.

        Raises:
            StoreFull, StoreReadOnly: the file stays where it is.
        """
        with store_write_errors(self.folder):
            with path.open("rb+") as file:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
                os.fsync(file.fileno())
            path.replace(self.path(digest))
        fsync_folder(self.folder)
        return digest

    def aside(self) -> Path:
        """Return a name in this folder that nobody looks for.

        Raises:
            StoreReadOnly: the folder cannot be made.
        """
        with store_write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f".{os.getpid()}-{secrets.token_hex(6)}.part"

    def true_digest(self, digest: str) -> str:
        """Read a blob again and tell what its digest really is.

        Raises:
            OSError: it cannot be read.
        """
        with self.path(digest).open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"

    def remove(self, digest: str) -> int:
        """Remove a blob; gives the bytes that it had."""
        path = self.path(digest)
        with suppress(FileNotFoundError), store_write_errors(self.folder):
            size_bytes = path.stat().st_size
            path.unlink()
            return size_bytes
        return 0

    def sweep(self) -> None:
        """Remove what killed writers left half, and downloads that nobody went on with."""
        for name in self._names():
            path = self.folder / name
            for form, waits_s in _INCOMPLETE_FILES:
                with suppress(OSError):
                    if form.fullmatch(name) and time.time() - path.stat().st_mtime > waits_s:
                        path.unlink(missing_ok=True)

    def _names(self) -> list[str]:
        with suppress(OSError):
            return sorted(os.listdir(self.folder))  # noqa: PTH208 - names are what is wanted
        return []


class BlobWriter:
    """One blob on its way in: `write` its pieces, then `commit`; leaving without is giving up."""

    def __init__(self, aside: Path, expected: str | None) -> None:
        self._folder = aside.parent
        self._expected = expected
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self.is_new = False
        """After `commit`: whether there was no such blob before."""
        self._aside = aside
        with store_write_errors(self._folder):
            self._file = aside.open("xb", buffering=0)

    def write(self, piece: bytes) -> None:
        """Append.

        Raises:
            StoreFull, StoreReadOnly: it cannot be; what was written is gone.
        """
        self._hash.update(piece)
        self.size_bytes += len(piece)
        view = memoryview(piece)
        try:
            with store_write_errors(self._folder):
                while view:  # a disk that is nearly full takes a part first
                    view = view[self._file.write(view) :]
        except BaseException:
            self.give_up()
            raise

    def commit(self) -> str:
        """Return the blob its name; tells its digest.

        Raises:
            DigestMismatch: it is not what it should be; nothing of it was kept.
            StoreFull, StoreReadOnly: likewise.
        """
        digest = f"sha256:{self._hash.hexdigest()}"
        if self._expected is not None and digest != self._expected:
            self.give_up()
            raise DigestMismatch(self._expected, digest)
        try:
            with store_write_errors(self._folder):
                os.fsync(self._file.fileno())
                self._file.close()
                place = self._folder / digest.replace(":", "-")
                self.is_new = not place.exists()
                self._aside.replace(place)
        except BaseException:
            self.give_up()
            raise
        fsync_folder(self._folder)
        return digest

    def give_up(self) -> None:
        """Leave nothing; harmless after `commit`."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._aside.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing half."""
        self.give_up()


def digest_hex(digest: str) -> str:
    """Return the digits of `sha256:…` (or `sha256-…`), in small letters.

    Raises:
        BadDigest: it is no such thing.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise BadDigest(digest)
    return match[1].lower()
