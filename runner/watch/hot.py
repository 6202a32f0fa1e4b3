"""A hot folder: documents are claimed by a rename and end up in `done/` or `failed/`. Blocking.

Nothing is copied and nothing is replaced: a rename happens wholly or not at all, a name that is
taken gets a number. What lies in `processing/` after a kill is simply taken up again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .filter import Filter
from .listing import listed
from .spec import DONE, FAILED, PROCESSING, Seen, WatchSpec

_MOST_NUMBERS = 100_000


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of some moves."""

    files: Mapping[str, Seen]
    refused: Mapping[str, str]
    """Path → why; it stays where it is."""


def claim(spec: WatchSpec, settled: Mapping[str, Seen], before: Collection[str]) -> Moved:
    """Move what has settled into `processing/`; `before` is what lies there already.

    A file that has changed since it settled, or that is not there any more, is left out.
    """
    claimed: dict[str, Seen] = {}
    refused: dict[str, str] = {}
    for relpath, seen in settled.items():
        source, target = spec.root / relpath, spec.processing / relpath
        try:
            if relpath in before:
                claimed[relpath] = seen
            elif _is_there(target):
                refused[relpath] = "a file of that name lies in 'processing' already"
            elif _looks_like(source, seen):
                target.parent.mkdir(parents=True, exist_ok=True)
                source.rename(target)
                claimed[relpath] = seen
        except OSError as error:
            refused[relpath] = error.strerror or type(error).__name__
    _sweep(spec.root, claimed)
    return Moved(claimed, refused)


def found(spec: WatchSpec, wanted: Filter) -> dict[str, Seen]:
    """Give what lies in `processing/`: what was being worked on when everything ended."""
    try:
        return listed(spec.processing, wanted).files
    except OSError:
        return {}


def finish(spec: WatchSpec, relpaths: Iterable[str], failed: Mapping[str, str]) -> Moved:
    """Move what has been worked on into `done/`, or into `failed/` with the reason beside it."""
    moved: dict[str, Seen] = {}
    refused: dict[str, str] = {}
    for relpath in relpaths:
        source = spec.processing / relpath
        folder = spec.root / (FAILED if relpath in failed else DONE)
        try:
            if _is_there(source):
                target = _free(folder / relpath)
                if relpath in failed:
                    # First the reason: after a kill between the two the document is tried again.
                    _write_reason(target, failed[relpath])
                source.rename(target)
            moved[relpath] = Seen(relpath, 0, 0)
        except OSError as error:
            refused[relpath] = error.strerror or type(error).__name__
    _sweep(spec.processing, moved)
    return Moved(moved, refused)


def prepare(spec: WatchSpec) -> None:
    """Make the three folders, so that people see where things go.

    Raises:
        OSError: they cannot be made.
    """
    for name in (PROCESSING, DONE, FAILED):
        (spec.root / name).mkdir(exist_ok=True)


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _looks_like(path: Path, seen: Seen) -> bool:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return False
    return (facts.st_size, facts.st_mtime_ns, facts.st_ino) == (*seen.identity, seen.inode)


def _free(path: Path) -> Path:
    """Make the folder, and give a name in it that nobody has: `a.txt`, `a.2.txt`, `a.3.txt`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not _is_there(path):
        return path
    for number in range(2, _MOST_NUMBERS):
        other = path.with_name(f"{path.stem}.{number}{path.suffix}")
        if not _is_there(other):
            return other
    raise FileExistsError(0, f"{_MOST_NUMBERS:,} files have that name")


def _write_reason(target: Path, reason: str) -> None:
    """Write why beside a failed document; its own folder's name says the rest."""
    target.with_name(f"{target.name}.reason.txt").write_text(f"{reason}\n", "utf-8")


def _sweep(root: Path, relpaths: Iterable[str]) -> None:
    """Remove the folders that a move has left empty, never the root."""
    for relpath in {os.path.dirname(one) for one in relpaths}:  # noqa: PTH120 - relative text
        folder = relpath
        while folder:
            try:
                (root / folder).rmdir()
            except OSError:
                break
            folder = os.path.dirname(folder)  # noqa: PTH120
