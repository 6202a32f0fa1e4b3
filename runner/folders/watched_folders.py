"""The folders that a plan watches, and their files that no watch takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from paddock.runner.bind.bound import BoundPlan
from paddock.steps.files.folder_walk import is_temporary_path
from paddock.steps.files.globs import Globs

from .file_filter import ALL_FILES, HOT_FOLDERS, WatchSpec


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
