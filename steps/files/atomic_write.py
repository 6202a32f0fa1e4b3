"""Atomic writes: a temporary file next to the target, then a rename.

The writer holds a lock on the temporary file until it is in place. A temporary file that no
process holds was left by one that was killed, on whichever machine, and can be removed. Knows no
step.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from paddock.steps.paths import MOST_NAME_BYTES

TEMPORARY_SUFFIX = ".paddock-tmp"
_PIECE_BYTES = 1 << 20
# A file is made and then locked; whoever looks in between must not take it for one that was left.
_YOUNG_S = 1.0
_IS_WINDOWS = os.name == "nt"


class TemporaryFile:
    """A whole file under a hidden name, synced, and held by us."""

    def __init__(self, file: Path, handle: int) -> None:
        self.file = file
        self._handle: int | None = handle
        self._is_in_place = False

    @classmethod
    def written(cls, path: Path, data: bytes, mode: int | None = None) -> TemporaryFile:
        """Write and sync a hidden file in the folder of `path`; it is gone again if that fails.

        Raises:
            OSError: the system refused it.
        """
        return cls._made(path, (data,), mode)

    @classmethod
    def copied(cls, path: Path, source: Path) -> tuple[TemporaryFile, str, int]:
        """Copy and sync a file of any size to a hidden one; gives it, its sha256 and its size.

        Raises:
            OSError: the system refused it.
        """
        digest, n_bytes = hashlib.sha256(), 0

        def pieces() -> Iterator[bytes]:
            nonlocal n_bytes
            with source.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    n_bytes += len(piece)
                    yield piece

        facts = source.stat()
        aside = cls._made(path, pieces(), stat.S_IMODE(facts.st_mode))
        with contextlib.suppress(OSError):  # a file system without times is no reason to refuse
            os.utime(aside.file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        return aside, digest.hexdigest(), n_bytes

    @classmethod
    def _made(cls, path: Path, pieces: Iterable[bytes], mode: int | None) -> TemporaryFile:
        file = path.with_name(_hidden_name(path.name))
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        aside = cls(file, handle)
        try:
            _is_locked(handle)
            for piece in pieces:
                _write_all(handle, piece)
            if mode is not None:
                os.fchmod(handle, mode)
            os.fsync(handle)
        except BaseException:
            aside.close()
            raise
        return aside

    def replace(self, path: Path) -> None:
        """Bring it into place, at once and as a whole.

        Raises:
            OSError: the system refused it.
        """
        if _IS_WINDOWS:  # an open file cannot be renamed there
            self._let_go()
        self.file.replace(path)
        self._is_in_place = True

    def close(self) -> None:
        """Let it go; it is removed unless it was brought into place."""
        self._let_go()
        if not self._is_in_place:
            self.file.unlink(missing_ok=True)

    def _let_go(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all, its folder, too; a link stays one.

    Into what is no file (`/dev/stdout`, a pipe) it is written as it is: nothing takes its place.

    Raises:
        OSError: it cannot be written; names the file that was asked for.
    """
    data = text.encode("utf-8", "backslashreplace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_stream(path):
            with path.open("wb") as stream:
                stream.write(data)
            return
        place = path.resolve()
        aside = TemporaryFile.written(place, data)
        try:
            aside.replace(place)
        finally:
            aside.close()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def remove_stale_files(folder: Path) -> list[Path]:
    """Remove the files aside that nobody will bring into place; what cannot be looked at stays.

    Gives those that went. Files inside deeper folders are not looked for.
    """
    return [file for file in _temporary_files(folder) if _is_stale(file) and _remove(file)]


def _temporary_files(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_ours = entry.name.startswith(".") and entry.name.endswith(TEMPORARY_SUFFIX)
            if is_ours and entry.is_file(follow_symlinks=False):
                yield Path(entry.path)


def _is_stale(file: Path) -> bool:
    """Return whether nobody holds a file."""
    try:
        handle = os.open(file, os.O_RDWR)  # a lock over the network asks for the right to write
    except OSError:
        return False
    try:
        is_young = abs(time.time() - os.fstat(handle).st_mtime) < _YOUNG_S
        return not is_young and _is_locked(handle)
    finally:
        os.close(handle)


def _is_locked(handle: int) -> bool:
    """Lock a file, without waiting; tells whether that went well. The lock goes with the handle."""
    if _IS_WINDOWS:  # there an open file cannot be removed, which is all that is needed
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # somebody else holds it, or the file system knows no locks
        return False
    return True


def _remove(file: Path) -> bool:
    try:
        file.unlink()
    except OSError:
        return False
    return True


def _hidden_name(name: str) -> str:
    """Name the file aside: hidden from scans, and no longer than `name` needs."""
    tail = f".{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    whole = os.fsencode(name)
    if len(whole) > MOST_NAME_BYTES:
        return name  # lets the system refuse it in its own words
    return "." + whole[: MOST_NAME_BYTES - 1 - len(tail)].decode("utf-8", "ignore") + tail


def _write_all(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]
