"""Files that only their owner may read: state folders of 0700 with files of 0600.

The umask decides about documents that a pipeline writes. It does not decide about state (ledgers,
logs, locks, sockets, histories, consents), which holds prompts, documents and keys to this account.
What an older version left open to others is narrowed when it is opened again. Only what belongs to
this user is narrowed, never a symbolic link, a folder shared with others (`/tmp`) or a home folder.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

FOLDER, FILE = 0o700, 0o600
UMASK = 0o077
"""For processes that write nothing but state."""
_OF_OTHERS = 0o077


def folder(path: Path) -> Path:
    """Return a folder for its owner alone; it is made, with those above it, or narrowed.

    Raises:
        OSError: it cannot be made.
    """
    for missing in reversed([one for one in path.parents if not os.path.lexists(one)]):
        with suppress(FileExistsError):  # another process was quicker
            missing.mkdir(FOLDER)
    path.mkdir(FOLDER, exist_ok=True)
    narrow(path)
    return path


def narrow(path: Path) -> None:
    """Take from others what they may do with a file or folder of ours; one that is gone is none."""
    with suppress(OSError):
        facts = path.lstat()
        if not _is_ours(facts) or not facts.st_mode & _OF_OTHERS:
            return
        if stat.S_ISDIR(facts.st_mode) and _is_shared(path, facts):
            return
        path.chmod(stat.S_IMODE(facts.st_mode) & ~_OF_OTHERS)


def opened(path: Path, mode: str = "w", **how: Any) -> IO[Any]:
    """Open a file to write, as `open` does; made for its owner alone, and narrowed if it is there.

    Raises:
        OSError: it cannot be opened.
    """
    if "b" not in mode:
        how.setdefault("encoding", "utf-8")
    file = open(path, mode, opener=_opener, **how)  # noqa: SIM115 - `Path` has no opener
    narrow(path)
    return file


def write(path: Path, text: str) -> None:
    """Write a small file for its owner alone.

    Raises:
        OSError: it cannot be written.
    """
    with opened(path) as file:
        file.write(text)


def database(path: Path) -> Path:
    """Return an SQLite file for its owner alone; what SQLite makes next to it gets its mode.

    An existing file is not opened here: to close it would release the locks that this process
    holds on it (POSIX).

    Raises:
        OSError: it cannot be made.
    """
    if not path.exists():
        with suppress(FileExistsError):  # another process was quicker
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE))
    for name in ("", "-wal", "-shm", "-journal"):
        narrow(path.with_name(path.name + name))
    return path


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, FILE)


def _is_ours(facts: os.stat_result) -> bool:
    is_plain = stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode)
    return is_plain and hasattr(os, "getuid") and facts.st_uid == os.getuid()


def _is_shared(path: Path, facts: os.stat_result) -> bool:
    """Return whether a folder is meant for others too, although state was put into it."""
    home = Path(os.path.expanduser("~")).resolve()  # noqa: PTH111 - without a home it stays `~`
    return bool(facts.st_mode & stat.S_ISVTX) or home.is_relative_to(path.resolve())
