"""List a watched folder, and the files of hot folders that no watch takes.

Links to folders are not followed; a folder that cannot be read proves nothing. Blocks; knows no
clock.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from paddock.engine.system.records import Struct, field
from paddock.runner.bind.bound import BoundPlan
from paddock.steps.files.globs import Globs
from paddock.steps.temporary_names import is_temporary_path

from .file_filter import ALL_FILES, HOT_FOLDERS, WatchFilter, watch_specs
from .file_versions import FileVersion, file_version_at


class FolderListing(Struct):
    files: dict[str, FileVersion] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    """Folders that could not be read, with a slash at the end."""
    n_folders: int = 0

    def is_known(self, relpath: str) -> bool:
        """Return whether a path that `files` lacks is known to be absent."""
        return not any(relpath.startswith(folder) for folder in self.unreadable)


def list_folder(root: Path, watch_filter: WatchFilter) -> FolderListing:
    """List every wanted file.

    Raises:
        OSError: the root is missing, not a folder, or cannot be read.
    """
    listing, waiting = FolderListing(), [(str(root), "")]
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
            if not prefix:
                raise
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                listing.unreadable.append(prefix)
    return listing


def root_identity(root: Path) -> tuple[int, int]:
    """Return the (st_dev, st_ino) of a watch's root.

    Raises:
        OSError: it is missing, not a folder, or cannot be read.
    """
    facts = os.stat(root)  # noqa: PTH116 - in the thread that may hang
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
    return facts.st_dev, facts.st_ino


def not_taken_by_watches(bound: BoundPlan) -> Iterator[str]:
    """Yield the files of hot folders that no pattern of their watch is about. Blocking."""
    for spec in watch_specs(bound):
        if not spec.is_hot or spec.include == ALL_FILES:
            continue
        include, exclude = Globs.of(spec.include), Globs.of(spec.exclude)
        for folder, folders, names in os.walk(spec.root):
            below = folder.removeprefix(str(spec.root)).replace(os.sep, "/").lstrip("/")
            inner = {name: (Path(below) / name).as_posix() for name in (*folders, *names)}
            left_out = [name for name in folders if exclude.names_folder(inner[name])]
            left_out += () if below else HOT_FOLDERS
            folders[:] = [name for name in folders if name not in left_out]
            for path in map(inner.__getitem__, names):
                is_named = include.names(path) or exclude.names(path)
                if not is_named and not is_temporary_path(path):
                    yield f"{spec.root}{os.sep}{path}"
