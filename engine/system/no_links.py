"""Open, rename and remove files without following links, for paths that others may change.

A path of a pipeline or of a document is checked first (`steps.base.Roots.resolve` returns it
without links) and used later. Between the two, a user who may write to one of its folders can put
a link there. Nothing here follows one, in any part of an absolute path: the kernel refuses it
(`openat2` of Linux), or the path is walked folder by folder. What is opened for reading is a
regular file: a pipe, a socket or a device is refused at once.

Mounts are passed: an owner may mount a share or another folder below an allowed one, and only the
system's administrator can mount, so it is no way to put another file in place of one.

What only decides whether a file is looked at again (size, times, a digest in the ledger) may be
read by name: nothing of the file gets into an output, and the next run looks once more. Programs
that a pipeline starts open by name what their words name, so they follow links.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

_MOST_LINKS = 40  # as Linux has it
_OPENAT2 = 437  # on every architecture but Alpha
_AT_FDCWD = -100
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS = 0x02, 0x04
_HOW = struct.Struct("QQQ")  # struct open_how: flags, mode, resolve
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
_IN_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
# A folder is passed through by those who may not list it.
_PASS = _IN_FOLDER | getattr(os, "O_PATH", getattr(os, "O_SEARCH", os.O_RDONLY))
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class NotRegularFile(OSError):
    """A folder, a pipe, a socket or a device in place of a file."""

    def __init__(self, path: str | Path, mode: int = 0) -> None:
        self.is_folder = stat.S_ISDIR(mode)
        number = errno.EISDIR if self.is_folder else errno.EINVAL
        super().__init__(number, f"it is {self.what}", str(path))

    @property
    def what(self) -> str:
        return "a folder" if self.is_folder else "a device or a pipe"


def open_file(path: str | Path, *, follows_links: bool = False) -> BufferedReader:
    """Open a regular file for reading; never wait for it.

    Raises:
        NotRegularFile: it is a folder, a pipe, a socket or a device.
        OSError: it cannot be opened; ELOOP: a link is in its path.
    """
    handle = open_regular(path, follows_links=follows_links)
    return BufferedReader(FileIO(handle))  # `open` would ask whether it is a terminal


def open_regular(
    path: str | Path, *, follows_links: bool = False, folder: int | None = None
) -> int:
    """Return the descriptor of a file, as `open_file`; the caller closes it.

    `folder`: descriptor of the folder in which `path` is a name: the kernel has less to look up.
    """
    flags, name = os.O_RDONLY | _NO_WAIT, os.fspath(path)
    try:
        if folder is not None:
            handle = _open_at(folder, name, flags, name)
        else:
            handle = os.open(path, flags) if follows_links else _open(name, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise NotRegularFile(path) from error
        raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise NotRegularFile(path, mode)
    return handle


def open_named(path: str | Path) -> BufferedReader:
    """Open a regular file that a person names or a search has found; its links are followed.

    A link that another user may have put there leads to that user's files only.

    Raises:
        NotRegularFile, OSError: as of `open_file`.
    """
    try:
        return open_file(resolve(str(Path.cwd() / path)))
    except RuntimeError as error:
        raise OSError(errno.ELOOP, "its links form a cycle", str(path)) from error


def read_file(path: str | Path, most_bytes: int) -> bytes:
    """Return a regular file's content; of a larger one the first `most_bytes + 1` bytes.

    Raises:
        OSError: as of `open_file`.
    """
    with open_file(path) as file:
        return file.read(most_bytes + 1)


def open_folder(path: str | Path) -> int:
    """Return the descriptor of a folder that is to be listed; the caller closes it.

    Raises:
        OSError: it cannot be opened; ELOOP: a link is in its path.
    """
    return _open(os.fspath(path), os.O_RDONLY | _IN_FOLDER)


def made_folder(path: str | Path) -> int:
    """Make a folder, with its parents, if it is missing; return its descriptor for `dir_fd`.

    The caller closes it.

    Raises:
        OSError: it cannot be opened or made; ELOOP: a link is in its path.
    """
    whole = os.fspath(path)
    try:
        return _open(whole, _PASS)
    except FileNotFoundError:
        parent, name = os.path.split(whole)
        if not name:
            raise
    with folder(parent, is_made=True) as above, suppress(FileExistsError):
        os.mkdir(name, dir_fd=above)
    return _open(whole, _PASS)


@contextmanager
def folder(path: str | Path, *, is_made: bool = False) -> Iterator[int]:
    """Yield a folder's descriptor, for `dir_fd`; `is_made`: make it, with its parents.

    Raises:
        OSError: it cannot be opened or made; ELOOP: a link is in its path.
    """
    handle = made_folder(path) if is_made else _open(os.fspath(path), _PASS)
    try:
        yield handle
    finally:
        os.close(handle)


class HeldFolder:
    """An open folder for a library or a program that takes paths only.

    On Linux, `path` leads to it whatever its name leads to meanwhile; elsewhere it is its name.
    """

    def __init__(self, path: Path, *, is_made: bool = False) -> None:
        """Open it; `is_made`: make it, with its parents, if it is missing.

        Raises:
            OSError: as of `folder`.
        """
        self._handle = made_folder(path) if is_made else _open(os.fspath(path), _PASS)
        by_handle = Path(f"/proc/self/fd/{self._handle}")
        self.path = by_handle if by_handle.exists() else path

    def close(self) -> None:
        os.close(self._handle)


def facts_of(path: Path) -> os.stat_result:
    """Return the facts of a file; of a link its own.

    Raises:
        OSError: there is none; ELOOP: a link is in the path of its folder.
    """
    with folder(path.parent) as parent:
        return os.stat(path.name, dir_fd=parent, follow_symlinks=False)


def identity_of_stat(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def remove(path: Path, only: tuple[int, int] | None = None) -> bool:
    """Remove a file; return False if another one is there than `only` (see `identity_of_stat`).

    Raises:
        OSError: the system refused it; ELOOP: a link is in the path of its folder.
    """
    with folder(path.parent) as parent:
        if only is not None:
            facts = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
            if identity_of_stat(facts) != only:
                return False
        os.unlink(path.name, dir_fd=parent)
    return True


def remove_empty_folder(path: Path) -> None:
    """Remove an empty folder.

    Raises:
        OSError: it is not empty, or the system refused it; ELOOP: a link is in its folder's path.
    """
    with folder(path.parent) as parent:
        os.rmdir(path.name, dir_fd=parent)


def resolve(path: str, roots: Collection[Path] | None = None) -> Path:
    """Return a path without links, also of what does not exist yet; `roots` are without links.

    A link within one of `roots` is followed if it is ours or the system's. Another user's link is
    followed to what belongs to that user: it must not choose among the files of ours. Without
    `roots` that holds for each folder in which other users may make links.

    Raises:
        OSError: ELOOP: a link is another user's.
        RuntimeError: the links form a cycle.
    """
    at = os.sep
    owners = set[int]()
    n_links = 0
    names = path.split(os.sep)[::-1]  # noqa: PTH206 - links may be in it
    while names:
        name = names.pop()
        if name in ("", "."):
            continue
        if name == "..":
            at = os.path.dirname(at)  # noqa: PTH120
            continue
        below = os.path.join(at, name)  # noqa: PTH118
        link = _link_at(below)
        if link is None:
            at = below
            continue
        target, owner = link
        n_links += 1
        if n_links > _MOST_LINKS:
            raise RuntimeError(f"the links of '{path}' form a cycle")  # as `Path.resolve`
        is_judged = _may_others_link(at) if roots is None else any(
            Path(at).is_relative_to(root) for root in roots
        )  # fmt: skip
        if is_judged:
            owners.add(owner)
        at = os.sep if target.startswith(os.sep) else at
        names += target.split(os.sep)[::-1]  # noqa: PTH206
    found = Path(at)
    others = owners - {0, *([os.geteuid()] if hasattr(os, "geteuid") else owners)}
    if others and others != {_owner_of_nearest(found)}:
        why = "a part of its path is another user's symbolic link"
        raise OSError(errno.ELOOP, why, path)
    return found


def _link_at(path: str) -> tuple[str, int] | None:
    """Return where a link leads to, and its owner; None: it is no link."""
    try:
        facts = os.lstat(path)
        if not stat.S_ISLNK(facts.st_mode):
            return None
        target = os.readlink(path)  # noqa: PTH115
        again = os.lstat(path)
    except OSError:
        return None
    if identity_of_stat(facts) != identity_of_stat(again):
        raise _refusal(errno.ELOOP, path)  # it is being changed
    return target, facts.st_uid


def _may_others_link(folder: str) -> bool:
    """Return whether another user than the system's and ours may make links in a folder."""
    facts = os.stat(folder)  # noqa: PTH116 - as its neighbours
    is_ours = not hasattr(os, "geteuid") or facts.st_uid in (0, os.geteuid())
    return not is_ours or bool(facts.st_mode & 0o022)


def _owner_of_nearest(path: Path) -> int:
    for candidate in (path, *path.parents):
        with suppress(OSError):
            return candidate.lstat().st_uid
    return -1


def _open(path: str, flags: int) -> int:
    if not os.path.isabs(path):  # noqa: PTH117 - the hot path
        raise ValueError(f"'{path}' is not an absolute path")
    return _by_kernel(path, flags) if _has_openat2() else _by_parts(path, flags)


def _by_kernel(path: str, flags: int) -> int:
    how = _HOW.pack(flags, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path)
    if b"\0" in name:
        raise ValueError("embedded null character")
    while True:
        handle: int = _libc().syscall(_OPENAT2, _AT_FDCWD, name, how, _HOW.size)
        if handle >= 0:
            return handle
        number = ctypes.get_errno()
        if number not in (errno.EINTR, errno.EAGAIN):
            raise _refusal(number, path)


def _by_parts(path: str, flags: int) -> int:
    """Open a path folder by folder, where the kernel cannot refuse links in all of it."""
    *folders, last = [name for name in path.split(os.sep) if name] or ["."]  # noqa: PTH206
    at = os.open(os.sep, _PASS)
    try:
        for name in folders:
            below = _open_at(at, name, _PASS, path)
            os.close(at)
            at = below
        return _open_at(at, last, flags, path)
    finally:
        os.close(at)


def _open_at(folder: int, name: str, flags: int, path: str) -> int:
    try:
        return os.open(name, flags | _NO_FOLLOW, dir_fd=folder)
    except OSError as error:
        number = error.errno or 0
        if number in (errno.ENOTDIR, errno.EMLINK) and _is_link(folder, name):
            number = errno.ELOOP  # some systems name it otherwise
        raise _refusal(number, path) from error


def _refusal(number: int, path: str) -> OSError:
    why = "a part of its path is a symbolic link" if number == errno.ELOOP else os.strerror(number)
    return OSError(number, why, path)


def _is_link(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _has_openat2() -> bool:
    """Return whether the kernel has `openat2`, and the container's filter lets it pass."""
    if sys.platform != "linux" or platform.machine() == "alpha":
        return False
    try:
        os.close(_by_kernel(os.sep, _PASS))
    except OSError:
        return False
    return True
