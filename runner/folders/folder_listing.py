"""List a watched folder.

Links to folders are not followed; a folder that cannot be read proves nothing. Blocks; knows no
clock.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from paddock.engine.system.light_dataclasses import dataclass, field

from .file_filter import WatchFilter
from .file_versions import FileVersion, file_version_at
from .folder_identity import FolderIdentity, folder_identity_at


@dataclass
class FolderListing:
    """The files below a root at a time."""

    root: FolderIdentity
    """Which folder lay at the root: it may have been mounted, unmounted or made again."""
    files: dict[str, FileVersion] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    """Folders that could not be read, with a slash at the end."""
    n_folders: int = 0

    def is_known(self, relpath: str, before: FolderIdentity | None = None) -> bool:
        """Return whether a path that `files` lacks is known to be absent.

        `before` is the folder in which it was seen: nothing is known below a lost mount.
        """
        lost = () if before is None else before.lost(self.root)
        hidden = (*self.unreadable, *(f"{point}/" for point in lost))
        return not any(relpath.startswith(folder) for folder in hidden)


def list_folder(root: Path, watch_filter: WatchFilter) -> FolderListing:
    """List every wanted file.

    Raises:
        OSError: the root is missing, not a folder, or cannot be read.
    """
    listing = FolderListing(folder_identity_at(root))
    _add_files(listing, str(root), "", watch_filter)
    return listing


def _add_files(listing: FolderListing, top: str, relpath: str, watch_filter: WatchFilter) -> None:
    """Add the files below a folder of this path, which ends in a slash; the root's is empty.

    Raises:
        OSError: the folder is missing, not a folder, or cannot be read.
    """
    waiting = [(top, relpath)]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if watch_filter.wants_folder(path):
                            waiting.append((entry.path, f"{path}/"))
                    elif watch_filter.wants_file(path):
                        seen = file_version_at(entry.path, path)
                        if seen is not None:
                            listing.files[path] = seen
            listing.n_folders += 1
        except OSError as error:
            if folder == top:
                raise
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                listing.unreadable.append(prefix)


def look_at_paths(
    root: Path, relpaths: Iterable[str], watch_filter: WatchFilter
) -> dict[str, FileVersion | None]:
    """Look at some paths; a folder stands for all files in it. None: it does not exist."""
    found: dict[str, FileVersion | None] = {}
    for relpath in relpaths:
        path = f"{root}{os.sep}{relpath}"
        try:
            is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
        except (OSError, ValueError):
            is_folder = False
        if is_folder:
            listing, parts = FolderListing(FolderIdentity("")), relpath.split("/")
            around = ("/".join(parts[: end + 1]) for end in range(len(parts)))
            if all(map(watch_filter.wants_folder, around)):
                with suppress(OSError):  # the next full listing finds it
                    _add_files(listing, path, f"{relpath}/", watch_filter)
            found.update(listing.files)
        elif watch_filter.wants(relpath):
            found[relpath] = file_version_at(path, relpath)
        elif not os.path.lexists(path):
            found[relpath] = None
    return found


def root_identity(root: Path) -> tuple[int, int]:
    """Return the (st_dev, st_ino) of a watch's root.

    Raises:
        OSError: it is missing, not a folder, or cannot be read.
    """
    facts = os.stat(root)  # noqa: PTH116 - in the thread that may hang
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
    return facts.st_dev, facts.st_ino
