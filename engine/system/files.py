"""Files: atomic writes, digests, JSON.

An atomic write goes to a temporary file beside the target, which is then renamed. The writer holds
a lock on it, so that one which no process holds, on any machine, is known to be stale. The umask
decides who may read documents that a pipeline writes; `private_files` are for this user alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, cast

from . import no_links
from .private_files import PRIVATE_FILE, open_private, private_folder

if sys.platform != "win32":
    import fcntl


MOST_NAME_BYTES = 255  # of ext4, xfs, btrfs, tmpfs, APFS and NTFS (there of UTF-16)
TEMPORARY_SUFFIX = ".paddock-tmp"
_PIECE_BYTES = 1 << 20
# A file is made and then locked; in between it must not be taken for a stale one.
_YOUNG_S = 1.0
_IS_WINDOWS = os.name == "nt"


def resolved(path: Path) -> Path | None:
    """Return a path without links; None: it is none: too long, a circle of links, a zero byte."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return None


class TemporaryFile:
    """A hidden file that becomes another one by a rename, or is removed; locked until then."""

    def __init__(
        self,
        target: Path,
        *,
        mode: int | None = None,
        like: os.stat_result | None = None,
        folder: Path | None = None,
        follows_links: bool = True,
    ) -> None:
        """Open it beside `target`, or in `folder`, which is on the same file system.

        `like`: of the file that it replaces, whose mode it gets, and its owner and group where the
        system allows that. Else `mode` is that of the target; None: as the umask has it. With
        `follows_links=False` the target's folder is made, and stays the one that was opened, even
        if a link replaces it.

        Raises:
            OSError: it cannot be made.
        """
        self.file = (folder or target.parent) / _temporary_name(target.name)
        self._folder = None if follows_links else no_links.made_folder(self.file.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        self._handle: int | None = None
        self._is_in_place = False
        with self._removed_on_error():
            first = PRIVATE_FILE if like is not None else 0o666 if mode is None else mode
            self._handle = os.open(self._name, flags, first, dir_fd=self._folder)
            _try_lock(self._handle)
            if like is not None:
                _make_alike(self._handle, like)
            elif mode is not None:  # the umask may have narrowed it
                os.fchmod(self._handle, mode)

    @classmethod
    def written(
        cls,
        target: Path,
        data: bytes,
        mode: int | None = None,
        *,
        like: os.stat_result | None = None,
        follows_links: bool = True,
        is_synced: bool = True,
    ) -> TemporaryFile:
        """Return a temporary file that holds `data`; `is_synced`: on the disk.

        Raises:
            OSError: the system refused it; nothing is left.
        """
        temporary = cls(target, mode=mode, like=like, follows_links=follows_links)
        with temporary._removed_on_error():
            temporary.write(data)
            if is_synced:
                temporary.sync()
        return temporary

    @classmethod
    def copied(
        cls, target: Path, source: BinaryIO, *, follows_links: bool = True
    ) -> tuple[TemporaryFile, str]:
        """Return a synced copy of an open file of any size, and its sha256.

        Raises:
            OSError: the system refused it; nothing is left.
        """
        digest = hashlib.sha256()
        facts = os.fstat(source.fileno())
        temporary = cls(target, mode=stat.S_IMODE(facts.st_mode), follows_links=follows_links)
        with temporary._removed_on_error():
            while piece := source.read(_PIECE_BYTES):
                digest.update(piece)
                temporary.write(piece)
            temporary.sync()
            with suppress(OSError):  # a file system without times is no reason to refuse
                times = facts.st_atime_ns, facts.st_mtime_ns
                os.utime(temporary._name, ns=times, dir_fd=temporary._folder)
        return temporary, digest.hexdigest()

    def write(self, data: bytes) -> None:
        assert self._handle is not None
        left = memoryview(data)
        while left:
            left = left[os.write(self._handle, left) :]

    def sync(self) -> None:
        assert self._handle is not None
        os.fsync(self._handle)

    def replace(self, target: Path) -> None:
        """Rename it to its target.

        Raises:
            OSError: the system refused it.
        """
        if _IS_WINDOWS:  # an open file cannot be renamed there
            self._release()
        if self._folder is None:
            self.file.replace(target)
        else:
            os.replace(self._name, target.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._is_in_place = True

    def close(self) -> None:
        self._release()
        if not self._is_in_place:
            with suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._folder)
            self._is_in_place = True
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    @property
    def _name(self) -> str:
        return str(self.file) if self._folder is None else self.file.name

    def _release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @contextmanager
    def _removed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise


@contextmanager
def atomic_file(
    target: Path,
    *,
    mode: int | None = PRIVATE_FILE,
    like: os.stat_result | None = None,
    is_durable: bool = False,
    folder: Path | None = None,
) -> Iterator[TemporaryFile]:
    """Yield a temporary file that replaces `target` when the block ends without an error.

    `mode`, `like`: as of `TemporaryFile`. `is_durable`: file and name outlast a power cut.

    Raises:
        OSError: the system refused it; `target` is untouched.
    """
    temporary = TemporaryFile(target, mode=mode, like=like, folder=folder)
    try:
        yield temporary
        if is_durable:
            temporary.sync()
        temporary.replace(target)
    finally:
        temporary.close()
    if is_durable:
        sync_folder(target.parent)


def write_atomically(
    path: Path, data: bytes | str, *, mode: int | None = PRIVATE_FILE, is_durable: bool = False
) -> None:
    """Write a whole file or nothing; make its folder, privately if the file is private.

    Raises:
        OSError: the system refused it; the old file is untouched.
    """
    if mode == PRIVATE_FILE:
        private_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, mode=mode, is_durable=is_durable) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json_atomically(
    path: Path, value: object, *, mode: int | None = PRIVATE_FILE, is_durable: bool = False
) -> None:
    write_atomically(path, json.dumps(value), mode=mode, is_durable=is_durable)


def write_json_in_place(path: Path, value: object) -> None:
    """Write over a file, where a full disk has no room for a second one; a kill may cut it."""
    with path.open("r+b") as file:
        file.write(json.dumps(value).encode())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def rename_without_links(source: Path, target: Path) -> None:
    """Rename a file, over another one if that is there; make the target's folder.

    Raises:
        OSError: the system refused it; ELOOP: a link is in the path of one of the folders.
    """
    with (
        no_links.folder(source.parent) as here,
        no_links.folder(target.parent, is_made=True) as there,
    ):
        os.replace(source.name, target.name, src_dir_fd=here, dst_dir_fd=there)


def write_output(path: Path, text: str) -> None:
    """Write a user's file atomically; a symbolic link stays one.

    A file that is there keeps mode and owner; a new one has the umask's mode. What is no file
    (`/dev/stdout`, a pipe) is written to directly.

    Raises:
        OSError: it cannot be written; names the path that was asked for.
    """
    data = text.encode("utf-8", "backslashreplace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_stream(path):
            with path.open("wb") as stream:
                stream.write(data)
        else:
            target = path.resolve()
            like = target.stat() if target.exists() else None
            with atomic_file(target, mode=None, like=like, is_durable=True) as file:
                file.write(data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def create_once(path: Path, text: str) -> None:
    """Write a private file unless there is one already; of several processes the first one wins.

    Raises:
        OSError: it cannot be written.
    """
    private_folder(path.parent)
    temporary = TemporaryFile.written(path, text.encode(), PRIVATE_FILE)
    try:
        os.link(temporary.file, path)  # unlike a rename it never replaces another's
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            temporary.replace(path)
    finally:
        temporary.close()


def identity_of_path(path: str | Path) -> tuple[int, int] | None:
    """Return device and inode, the same under every path of a file; None: it cannot be read."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - for 10,000 paths in a run
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def ignores_letter_case(folder: Path) -> bool:
    """Return whether names that differ in letter case are one file in a folder, by one it has."""
    with suppress(OSError):
        names = {*os.listdir(folder)}  # noqa: PTH208 - names alone
        others = (name.swapcase() for name in names if name.isascii())
        return os.path.lexists(folder / next(name for name in others if name not in names))
    return False


def content_stamp(facts: os.stat_result) -> tuple[int, int, int, int]:
    """Return size, mtime, ctime and inode, times in ns: equal ones mean unchanged bytes.

    A program may set the mtime back after it wrote, but not the ctime.
    """
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def existing_file(folder: Path, name: str) -> Path | None:
    """Return the file that a text names, resolved; None: there is none."""
    try:
        file = (folder / name).resolve()
        return file if file.is_file() else None
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, a circle of links
        return None


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return a regular file's text; never wait for a pipe.

    Raises:
        OSError: it cannot be read; `no_links.NotRegularFile`: it is a pipe or a device.
        UnicodeDecodeError: it is no text.
    """
    with TextIOWrapper(no_links.open_named(path), encoding) as file:
        return file.read()


def read_json(path: Path) -> Any | None:
    """Return the value of a JSON file; None where it is missing, unreadable or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; empty where `read_json` finds no object."""
    value = read_json(path)
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def sha256_of(path: str | Path, *, follows_links: bool = True, folder: int | None = None) -> str:
    """Return the sha256 of a regular file's content, hexadecimal; as `no_links.open_regular`.

    Raises:
        OSError: it cannot be read; `no_links.NotRegularFile`: it is a pipe or a device.
    """
    handle = no_links.open_regular(path, follows_links=follows_links, folder=folder)
    digest = hashlib.sha256()
    try:  # `hashlib.file_digest` clears 256 KB for each of 10,000 texts
        while data := os.read(handle, 65536):
            digest.update(data)
    finally:
        os.close(handle)
    return digest.hexdigest()


def sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def append_durably(path: Path, data: bytes) -> None:
    """Append to a private file and flush it to the disk; make the file if it is missing."""
    private_folder(path.parent)
    with open_private(path, "ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_stale_files(folder: Path, *, waits: bool = False) -> list[Path]:
    """Remove temporary files that no process holds; return their paths.

    Skips files that cannot be opened, and young ones, unless it `waits` a second for these.
    Subfolders are not searched.
    """
    removed = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            is_ours = entry.name.startswith(".") and entry.name.endswith(TEMPORARY_SUFFIX)
            file = Path(entry.path)
            if is_ours and entry.is_file(follow_symlinks=False) and _is_stale(file, waits):
                with suppress(OSError):
                    file.unlink()
                    removed.append(file)
    return removed


def rename_in(folder: int, name: str, target: str) -> None:
    """Rename an entry of an open folder.

    Raises:
        OSError: the system refused it.
    """
    os.rename(name, target, src_dir_fd=folder, dst_dir_fd=folder)


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _is_stale(file: Path, waits: bool) -> bool:
    try:
        young_for_s = _YOUNG_S - abs(time.time() - file.lstat().st_mtime)
    except OSError:
        return False
    if young_for_s > 0:
        if not waits or is_held(file):
            return False
        time.sleep(young_for_s)
    return not is_held(file)


@contextmanager
def held_file(path: Path) -> Iterator[Path]:
    """Make an empty file that is locked until it is removed at the end, or this process dies.

    Raises:
        OSError: it cannot be made, or is there.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _try_lock(handle)
        yield path
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)


def is_part_held(part: Path) -> bool:
    """Return whether a process is at work on `NAME.part….part`: it holds `NAME.part`."""
    return is_held(part.with_name(part.name.partition(".part")[0] + ".part"))


def is_held(file: Path) -> bool:
    """Return whether a process holds a file's lock, or might: this one cannot open it."""
    try:
        # A lock over the network needs the right to write.
        handle = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    """Lock an open file without waiting; return whether that succeeded.

    Closing the handle releases the lock.
    """
    if _IS_WINDOWS:  # there an open file cannot be removed, which is all that is needed
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process holds it, or the file system knows no locks
        return False
    return True


def _make_alike(handle: int, like: os.stat_result) -> None:
    """Set owner, group and mode of an open file to those of another one.

    Another group than that one has no rights.
    """
    mode = stat.S_IMODE(like.st_mode) & 0o777
    own = os.fstat(handle)
    if (own.st_uid, own.st_gid) != (like.st_uid, like.st_gid):
        for owner in (like.st_uid, -1):  # only the system's user may give a file away
            with suppress(OSError):
                os.fchown(handle, owner, like.st_gid)
                break
        else:
            mode &= ~0o070
    os.fchmod(handle, mode)


def _temporary_name(name: str) -> str:
    """Return a hidden name, which scans skip, no longer than the system allows."""
    tail = f".{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    whole = os.fsencode(name)
    if len(whole) > MOST_NAME_BYTES:
        return name  # lets the system refuse it in its own words
    return "." + whole[: MOST_NAME_BYTES - 1 - len(tail)].decode("utf-8", "ignore") + tail
