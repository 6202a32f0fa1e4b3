"""Which paths below a watch's root count: globs, temporary names, its own outputs. Pure."""

from __future__ import annotations

import os
from collections.abc import Set

from paddock.steps.globs import Globs
from paddock.steps.walk import VECTOR_TABLE

from .names import is_temporary
from .spec import EVERYTHING, HOT_FOLDERS, WatchSpec


class Filter:
    """Decides for one watch. Paths below the root have forward slashes."""

    def __init__(self, spec: WatchSpec) -> None:
        """Compile the globs.

        Raises:
            BadPattern: one of them cannot be understood.
        """
        self._include = Globs.of(spec.include)
        self._exclude = Globs.of(spec.exclude)
        self._prefix = f"{spec.root}{os.sep}"
        self._ignored = frozenset(map(str, spec.ignored))
        self._is_hot = spec.is_hot
        self._takes_all = spec.include == EVERYTHING and not spec.exclude
        self.owned: Set[str] = frozenset()
        """Absolute paths that the pipeline wrote; the ledger tells more of them with each run."""
        self._last = ("", False)

    def wants_folder(self, relpath: str) -> bool:
        """Tell whether to go into a folder."""
        if self._is_hot and relpath in HOT_FOLDERS:
            return False
        if is_temporary(relpath.rpartition("/")[2]) or self._is_ignored(relpath):
            return False
        if relpath.endswith(VECTOR_TABLE):
            return False
        return not self._exclude.names_folder(relpath) and not self._include.refuses_folder(relpath)

    def wants_file(self, relpath: str) -> bool:
        """Tell whether a file in a wanted folder counts."""
        folder, _, name = relpath.rpartition("/")
        if is_temporary(name) or not _is_utf8(relpath):
            return False
        if self._is_ignored(relpath) or (self.owned and self._prefix + relpath in self.owned):
            return False
        if self._takes_all:  # as nearly always: spares two matches for each of 100,000 files
            return True
        if self._exclude.names_file(relpath):
            return False
        return self._include.names_file(relpath, in_named_folder=self._names(folder))

    def wants(self, relpath: str) -> bool:
        """Tell whether a file counts, every folder on the way to it included."""
        parts = relpath.split("/")
        folders = ("/".join(parts[:end]) for end in range(1, len(parts)))
        return all(map(self.wants_folder, folders)) and self.wants_file(relpath)

    def _names(self, folder: str) -> bool:
        """Tell whether a folder, or one around it, is named by `include`."""
        if not folder:
            return False
        # A listing asks for one file after another of the same folder: the last answer is kept.
        if self._last[0] != folder:
            around, _, _ = folder.rpartition("/")
            is_named = self._include.names_folder(folder) or self._names(around)
            self._last = (folder, is_named)
        return self._last[1]

    def _is_ignored(self, relpath: str) -> bool:
        return bool(self._ignored) and self._prefix + relpath in self._ignored


def _is_utf8(name: str) -> bool:
    # The step that lists files leaves such names out, so a run would find nothing to do.
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
