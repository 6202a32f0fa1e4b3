"""Look at a folder as it is now: all of it, or some paths in it. Blocking; knows no clock.

Links to folders are not followed, so there are no circles; links to files are looked through.
A folder that cannot be read is told, and nothing is concluded about what lies in it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .filesystems import Folder, folder_at
from .filter import Filter
from .spec import Seen


@dataclass
class Listing:
    """What lies below a root at a time."""

    root: Folder
    """Which folder lay at the root: another one was mounted there, unmounted or made again."""
    files: dict[str, Seen] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    """Folders that could not be read, with a slash at the end."""
    n_folders: int = 0

    def is_known(self, relpath: str, before: Folder | None = None) -> bool:
        """Return whether the absence of a path from `files` says that it is not there.

        `before` is the folder in which it was seen: nothing is known below a mount that is gone.
        """
        lost = () if before is None else before.lost(self.root)
        hidden = (*self.unreadable, *(f"{point}/" for point in lost))
        return not any(relpath.startswith(folder) for folder in hidden)


def listed(root: Path, wanted: Filter) -> Listing:
    """List every file that counts.

    Raises:
        OSError: the root is not there, no folder, or cannot be read.
    """
    listing = Listing(folder_at(root))
    waiting = [(str(root), "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            waiting += _entries(folder, prefix, wanted, listing)
            listing.n_folders += 1
        except OSError as error:
            if not prefix:
                raise
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                listing.unreadable.append(prefix)
    return listing


def _entries(folder: str, prefix: str, wanted: Filter, listing: Listing) -> list[tuple[str, str]]:
    """Take in what lies directly in a folder; gives the folders to go into."""
    below: list[tuple[str, str]] = []
    files = listing.files
    with os.scandir(folder) as entries:
        for entry in entries:
            relpath = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if wanted.wants_folder(relpath):
                    below.append((entry.path, f"{relpath}/"))
            elif wanted.wants_file(relpath):
                seen = seen_at(entry.path, relpath)
                if seen is not None:
                    files[relpath] = seen
    return below


def looked(root: Path, relpaths: Iterable[str], wanted: Filter) -> dict[str, Seen | None]:
    """Look at some paths; a folder among them stands for all that lies in it. None: not there."""
    found: dict[str, Seen | None] = {}
    for relpath in relpaths:
        path = f"{root}{os.sep}{relpath}"
        if _is_folder(path):
            found.update(_below(root, relpath, wanted))
        elif wanted.wants(relpath):
            found[relpath] = seen_at(path, relpath)
        elif not os.path.lexists(path):
            found[relpath] = None
    return found


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _below(root: Path, relpath: str, wanted: Filter) -> dict[str, Seen]:
    parts = relpath.split("/")
    if not all(wanted.wants_folder("/".join(parts[: end + 1])) for end in range(len(parts))):
        return {}
    listing = Listing(Folder(""))
    waiting = [(f"{root}{os.sep}{relpath}", f"{relpath}/")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            waiting += _entries(folder, prefix, wanted, listing)
        except OSError:
            continue  # the next look at the whole tells it
    return listing.files


def seen_at(path: str, relpath: str) -> Seen | None:
    """Look at one file. None: it is not there, or no file."""
    try:
        facts = os.stat(path)  # noqa: PTH116 - 100,000 times in a look
    except (OSError, ValueError):
        return None  # gone since it was listed, or a link that leads nowhere
    if not stat.S_ISREG(facts.st_mode):
        return None
    return Seen(relpath, facts.st_size, facts.st_mtime_ns, facts.st_ino)
