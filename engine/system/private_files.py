"""Private files: state that only this user may read.

State (ledgers, logs, locks, sockets, histories, consents) holds prompts, documents and keys, so its
folders have mode 0700 and its files 0600, whatever the umask. Permissions that an older version
left open are narrowed when a file is opened again. Only what belongs to this user is narrowed,
never a symbolic link, a folder shared with others (`/tmp`) or a home folder.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

FOLDER, PRIVATE_FILE = 0o700, 0o600
PRIVATE_UMASK = 0o077
"""For processes that write nothing but state."""
_OF_OTHERS = 0o077


def private_folder(path: Path) -> Path:
    """Return a folder for its owner alone; make it, with its parents, or narrow its mode.

    Raises:
        OSError: it cannot be made.
    """
    for missing in reversed([parent for parent in path.parents if not os.path.lexists(parent)]):
        with suppress(FileExistsError):  # another process was quicker
            missing.mkdir(FOLDER)
    path.mkdir(FOLDER, exist_ok=True)
    make_private(path)
    return path


def make_private(path: Path) -> None:
    """Remove the permissions of others from a file or folder of ours, if it exists."""
    with suppress(OSError):
        facts = path.lstat()
        is_plain = stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode)
        is_own = is_plain and hasattr(os, "getuid") and facts.st_uid == os.getuid()
        if not is_own or not facts.st_mode & _OF_OTHERS:
            return
        if stat.S_ISDIR(facts.st_mode) and _is_shared_folder(path, facts):
            return
        path.chmod(stat.S_IMODE(facts.st_mode) & ~_OF_OTHERS)


def open_private(path: Path, mode: str = "w", **options: Any) -> IO[Any]:
    """Open a file for writing, as `open` does, with mode 0600.

    Raises:
        OSError: it cannot be opened.
    """
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    opener = partial(os.open, mode=PRIVATE_FILE)
    file = open(path, mode, opener=opener, **options)  # noqa: SIM115 - `Path` has no opener
    make_private(path)
    return file


def write_private(path: Path, text: str) -> None:
    """Write a small file with mode 0600, in place.

    Raises:
        OSError: it cannot be written; the error names the file.
    """
    try:
        with open_private(path) as file:
            file.write(text)
    except OSError as error:
        error.filename = str(path)  # of a failed write the system names no file
        raise


def private_database(path: Path) -> Path:
    """Return an SQLite file with mode 0600; the files that SQLite makes beside it get the same.

    An existing file is not opened here: closing it would release the locks that this process
    holds on it (POSIX).

    Raises:
        OSError: it cannot be made.
    """
    if not path.exists():
        with suppress(FileExistsError):  # another process was quicker
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE_FILE))
    for name in ("", "-wal", "-shm", "-journal"):
        make_private(path.with_name(path.name + name))
    return path


def _is_shared_folder(path: Path, facts: os.stat_result) -> bool:
    """Return whether a folder is meant for others too, although state was put into it."""
    home = Path(os.path.expanduser("~")).resolve()  # noqa: PTH111 - without a home it stays `~`
    return bool(facts.st_mode & stat.S_ISVTX) or home.is_relative_to(path.resolve())
