"""Hot folder: claim documents by renaming, then move them to `done/` or `failed/`. Blocks.

A claim moves a document into `processing/`. Nothing is copied or replaced: a rename is atomic, and
a taken name gets a number. After a kill, the content of `processing/` is taken up again. A program
that has a document open writes on wherever it is moved to, so an open one is neither claimed nor
finished, and one that changed after its claim is processed again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from paddock.engine.system import files, no_links
from paddock.engine.system.files import TemporaryFile
from paddock.engine.system.records import Struct, field
from paddock.runner.bind.watches import PROCESSING
from paddock.runner.folders.file_filter import DONE, FAILED, WatchFilter, WatchSpec
from paddock.runner.folders.file_versions import FileVersion, file_version_at
from paddock.runner.folders.folder_listing import list_folder
from paddock.runner.folders.unfinished_files import is_open_for_writing
from paddock.steps.paths import fitted_name, numbered_name

_MOST_NUMBERS = 100_000
_REASON_SUFFIX = ".reason.txt"
OPEN_REASON = "a program still has it open for writing"


class HotFolderMoves(Struct, frozen=True):
    files: Mapping[str, FileVersion]
    refused: Mapping[str, str]
    changed: Mapping[str, FileVersion] = field(default_factory=dict)
    """Files in `processing/` that changed since they were claimed."""


def claim_files(
    spec: WatchSpec,
    stable: Mapping[str, FileVersion],
    before: Collection[str],
    written: Collection[str] = (),
) -> HotFolderMoves:
    """Move settled files into `processing/`; `before` is what lies there already.

    A file that has changed since it settled, is open for writing, or is gone stays out. `written`
    are the files that the system reports as open for writing.
    """
    claimed: dict[str, FileVersion] = {}
    refused: dict[str, str] = {}
    changed: dict[str, FileVersion] = {}
    for relpath, seen in stable.items():
        source, target = spec.root / relpath, spec.processing / relpath
        try:
            if relpath in before:
                now = file_version_at(str(target), relpath)
                if now is None or now.is_same(seen):
                    claimed[relpath] = seen
                else:
                    changed[relpath] = now
            elif os.path.lexists(target):
                refused[relpath] = "a file of that name lies in 'processing' already"
            elif relpath in written or is_open_for_writing(source):
                refused[relpath] = OPEN_REASON
            elif (now := file_version_at(str(source), relpath)) is not None and now.is_same(seen):
                files.rename_without_links(source, target)
                claimed[relpath] = seen
        except OSError as error:
            refused[relpath] = error.strerror or type(error).__name__
    _remove_empty_folders(spec.root, claimed)
    return HotFolderMoves(claimed, refused, changed)


def claimed_files(spec: WatchSpec, watch_filter: WatchFilter) -> dict[str, FileVersion]:
    try:
        return list_folder(spec.processing, watch_filter).files
    except OSError:
        return {}


def finish_files(
    spec: WatchSpec,
    relpaths: Iterable[str],
    failed: Mapping[str, str],
    claimed: Mapping[str, FileVersion] | None = None,
    will_file: Callable[[Mapping[Path, Path]], None] = lambda places: None,
) -> HotFolderMoves:
    """Move processed files into `done/`, or into `failed/` with the reason next to it.

    A file that differs from `claimed`, or is open for writing, stays where it is. `will_file` is
    called with where each file lies, and where in `done/` it is about to go.
    """
    planned: dict[str, Path] = {}
    moved: dict[str, FileVersion] = {}
    refused: dict[str, str] = {}
    changed: dict[str, FileVersion] = {}
    for relpath in relpaths:
        source = spec.processing / relpath
        folder = spec.root / (FAILED if relpath in failed else DONE)
        try:
            now, before = file_version_at(str(source), relpath), (claimed or {}).get(relpath)
            if is_open_for_writing(source):
                refused[relpath] = OPEN_REASON
                continue
            if now is not None and before is not None and not now.is_same(before):
                changed[relpath] = now
                continue
            if os.path.lexists(source):
                planned[relpath] = _free_name(folder / relpath, {*planned.values()})
            else:
                moved[relpath] = FileVersion(relpath, 0, 0)
        except OSError as error:
            refused[relpath] = error.strerror or type(error).__name__
    filed = {spec.processing / name: to for name, to in planned.items() if name not in failed}
    if filed:
        will_file(filed)
    for relpath, target in planned.items():
        try:
            if relpath in failed:
                # The reason first: after a kill between the two, the document is tried again.
                reason = failed[relpath]
                beside = target.with_name(fitted_name(target.name, _REASON_SUFFIX))
                aside = TemporaryFile.written(beside, f"{reason}\n".encode(), follows_links=False)
                try:
                    aside.replace(beside)
                finally:
                    aside.close()
            files.rename_without_links(spec.processing / relpath, target)
            moved[relpath] = FileVersion(relpath, 0, 0)
        except OSError as error:
            refused[relpath] = error.strerror or type(error).__name__
    _remove_empty_folders(spec.processing, moved)
    return HotFolderMoves(moved, refused, changed)


def make_hot_folders(spec: WatchSpec) -> None:
    """Make the three folders, so that people see where files go.

    Raises:
        OSError: they cannot be made.
    """
    for name in (PROCESSING, DONE, FAILED):
        (spec.root / name).mkdir(exist_ok=True)


def _free_name(path: Path, taken: Collection[Path]) -> Path:
    """Make the folder, and return a free name in it: `a.txt`, `a.2.txt`, `a.3.txt`."""
    os.close(no_links.made_folder(path.parent))
    if path not in taken and not os.path.lexists(path):
        return path
    for number in range(2, _MOST_NUMBERS):
        other = path.with_name(numbered_name(path.name, f".{number}"))
        if other not in taken and not os.path.lexists(other):
            return other
    raise FileExistsError(0, f"{_MOST_NUMBERS:,} files have that name")


def _remove_empty_folders(root: Path, relpaths: Iterable[str]) -> None:
    """Remove the folders that a move has emptied, never the root."""
    for relpath in {os.path.dirname(path) for path in relpaths}:  # noqa: PTH120 - relative text
        folder = relpath
        while folder:
            try:
                no_links.remove_empty_folder(root / folder)
            except OSError:
                break
            folder = os.path.dirname(folder)  # noqa: PTH120
