"""Which files of a folder a watch wants: its globs, temporary names, outputs of the pipeline.

Pure values; touches no file. Temporary names are ignored: their writer renames the file when it is
complete.
"""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path

from paddock.engine.system.records import Struct
from paddock.engine.system.text import is_utf8
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.watches import PROCESSING
from paddock.steps.files.folder_walk import VECTOR_TABLE_SUFFIX
from paddock.steps.files.globs import Globs
from paddock.steps.temporary_names import is_temporary

ALL_FILES = ("**/*",)
DONE = "done"
FAILED = "failed"
HOT_FOLDERS = (PROCESSING, DONE, FAILED)
"""Folders of a hot folder that hold no unclaimed documents."""


class WatchSpec(Struct, frozen=True):
    name: str
    """Its identity in the ledger: the pipeline's file and the root."""
    root: Path
    """Absolute; need not exist yet."""
    include: tuple[str, ...] = ALL_FILES
    exclude: tuple[str, ...] = ()
    settle_s: float = 2.0
    batch_s: float = 10.0
    reconcile_s: float = 600.0
    is_hot: bool = False
    file: str = ""
    """The pipeline's file, as people name it."""
    ignored: tuple[Path, ...] = ()
    """Files and folders that are never looked at: the pipeline's own outputs."""

    @property
    def processing(self) -> Path:
        return self.root / PROCESSING


class WatchFilter:
    def __init__(self, spec: WatchSpec) -> None:
        """Compile the globs.

        Raises:
            BadPattern: one of them is not valid.
        """
        self._include = Globs.of(spec.include)
        self._exclude = Globs.of(spec.exclude)
        self._prefix = f"{spec.root}{os.sep}"
        self._ignored = frozenset(map(str, spec.ignored))
        self._is_hot = spec.is_hot
        self._takes_all = spec.include == ALL_FILES and not spec.exclude
        self.owned: Set[str] = frozenset()
        """Absolute paths that the pipeline wrote; each run may add some."""
        self._last = ("", False)

    def wants_folder(self, relpath: str) -> bool:
        if self._is_hot and relpath in HOT_FOLDERS:
            return False
        if is_temporary(relpath.rpartition("/")[2]) or self._is_ignored(relpath):
            return False
        if relpath.endswith(VECTOR_TABLE_SUFFIX):
            return False
        return not self._exclude.names_folder(relpath) and not self._include.refuses_folder(relpath)

    def wants_file(self, relpath: str) -> bool:
        folder, _, name = relpath.rpartition("/")
        # The step that lists files leaves names out that are not UTF-8: nothing would run
        if is_temporary(name) or not is_utf8(relpath):
            return False
        if self._is_ignored(relpath) or (self.owned and self._prefix + relpath in self.owned):
            return False
        if self._takes_all:  # the usual case: saves two matches for each of 100,000 files
            return True
        if self._exclude.names_file(relpath):
            return False
        return self._include.names_file(relpath, in_named_folder=self._names(folder))

    def wants(self, relpath: str) -> bool:
        parts = relpath.split("/")
        folders = ("/".join(parts[:end]) for end in range(1, len(parts)))
        return all(map(self.wants_folder, folders)) and self.wants_file(relpath)

    def _names(self, folder: str) -> bool:
        if not folder:
            return False
        # A listing asks about all files of one folder in turn: cache the last answer.
        if self._last[0] != folder:
            around, _, _ = folder.rpartition("/")
            is_named = self._include.names_folder(folder) or self._names(around)
            self._last = (folder, is_named)
        return self._last[1]

    def _is_ignored(self, relpath: str) -> bool:
        return bool(self._ignored) and self._prefix + relpath in self._ignored


def watch_specs(bound: BoundPlan) -> tuple[WatchSpec, ...]:
    file = bound.roots.base / bound.file.name
    return tuple(
        WatchSpec(
            name=watch.name,
            root=watch.root,
            include=tuple(watch.keys.include),
            exclude=tuple(watch.keys.exclude),
            settle_s=watch.keys.settle,
            batch_s=watch.keys.batch,
            reconcile_s=watch.keys.reconcile,
            file=str(file),
            is_hot=watch.keys.claim == "move",
            ignored=(*watch.own, file),
        )
        for watch in bound.watches
    )
