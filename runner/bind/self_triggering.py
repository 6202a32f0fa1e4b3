"""A pipeline that would trigger itself: its watch sees what its own steps write, for ever.

Output paths are compared as far as they depend on nothing but the inputs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.steps.files.globs import Globs

if TYPE_CHECKING:
    from paddock.pipelines.triggers import WatchKeys

UNKNOWN = "…"
"""In a path: what only a run shows."""
_WILD = re.compile(r"[*?]+|\[[^]]*\]")
_BRACES = re.compile(r"\{([^{},]*)[^{}]*\}")


def self_trigger_fault(keys: WatchKeys, step: str, written: str, folder: str) -> tuple[str, str]:
    """Return what is wrong with a watch that sees what a step writes, and the remedy.

    `folder` is where that is, below the watched one.
    """
    remedy = "Write into another folder, or leave these files out with `exclude`."
    if folder != "." and UNKNOWN not in folder:
        remedy = f'Write into another folder, or set `exclude: ["/{folder}/"]`.'
    what = (
        f"the watch on '{keys.path}' would see what step '{step}' writes, '{written}', and start "
        f"the pipeline again and again."
    )
    return what, remedy


def watch_sees(keys: WatchKeys, root: Path, path: Path) -> bool:
    """Return whether a watch on `root` would take a file for a document."""
    if not path.is_relative_to(root) or path == root:
        return False
    relpath = path.relative_to(root).as_posix()
    parts = relpath.split("/")
    if any(part.startswith(".") for part in parts):
        return False
    include, exclude = Globs.of(keys.include), Globs.of(keys.exclude)
    folders = ["/".join(parts[:end]) for end in range(1, len(parts))]
    if any(map(exclude.names_folder, folders)) or any(map(include.refuses_folder, folders)):
        return False
    is_named = any(map(include.names_folder, folders))
    return any(
        include.names_file(path, in_named_folder=is_named) and not exclude.names_file(path)
        for path in _possible_names(relpath, keys.include)
    )


def _possible_names(relpath: str, patterns: Sequence[str]) -> list[str]:
    """Return the path; of one whose suffix only a run shows, also with names that are asked for.

    >>> _possible_names("done/…", ["new/*.{md,txt}", "!*.bak"])
    ['done/…', 'done/….md']
    """
    folder, slash, name = relpath.rpartition("/")
    if not name.endswith(UNKNOWN):
        return [relpath]
    lasts = (glob.rstrip("/").rpartition("/")[2] for glob in patterns if not glob.startswith("!"))
    names = [_WILD.sub(UNKNOWN, _BRACES.sub(r"\1", last)) for last in lasts]
    return list(dict.fromkeys((relpath, *(f"{folder}{slash}{name}" for name in names))))
