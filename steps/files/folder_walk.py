"""The walk through a folder: what is found, what was left out, and why."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from paddock.engine.system import no_links
from paddock.engine.system.no_links import facts_of, identity_of_stat, open_folder
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import is_utf8, listed
from paddock.steps.base import StepError
from paddock.steps.paths import os_refusal, printable
from paddock.steps.temporary_names import is_temporary

from .globs import Globs

VECTOR_TABLE_SUFFIX = ".lance"
"""Suffix of folders with a table of vectors, which hold no documents."""


class FoundFile(Struct, frozen=True):
    relpath: str
    path: str
    real: str
    """The same path without links."""
    size_bytes: int
    mtime_s: float
    mtime_ns: int

    @classmethod
    def of(cls, relpath: str, path: str, real: str, facts: os.stat_result) -> FoundFile:
        # All that `facts` has takes half a kilobyte
        return cls(relpath, path, real, facts.st_size, facts.st_mtime, facts.st_mtime_ns)


class _WalkEntry(Struct, frozen=True):
    relpath: str
    """Of the root: empty."""
    path: str
    real: str
    """The same path without links."""
    is_named: bool
    """Whether `include` names a folder that it is in."""


class LeftOutNames(Struct):
    too_large: list[str] = field(default_factory=list)
    hollow: list[str] = field(default_factory=list)
    not_utf8: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    not_followed: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    temporary: list[str] = field(default_factory=list)
    """Without hidden ones."""


_BLOCK_BYTES = 512  # of `st_blocks`, whatever a block of the disk has
# Anyone who may write into the folder makes a file of holes in no time; to hash it takes minutes.
# File systems that compress make text up to 30 times smaller.
_LEAST_HOLLOW_BYTES, _MOST_PACKING = 64 * 1024**2, 100


class FolderWalk(Struct):
    root: Path
    include: Globs
    exclude: Globs
    left_out: frozenset[str]
    max_bytes: int
    allowed: tuple[Path, ...]
    """Folders that symbolic links may lead to; empty if they are not followed."""
    found: list[FoundFile] = field(default_factory=list)
    without: LeftOutNames = field(default_factory=LeftOutNames)
    _links: list[_WalkEntry] = field(default_factory=list)
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def files(self, newest: int | None) -> list[FoundFile]:
        """Walk; return the wanted files in the order of `relpath`.

        Raises:
            StepError: the root is missing, not a folder, or unreadable.
        """
        # Walk real folders first, then targets of links. So a file that is reached both ways keeps
        # its own name, and cycles end.
        try:
            self._folder(_WalkEntry("", str(self.root), str(self.root), False))
        except FileNotFoundError as error:
            raise StepError(
                f"the folder '{printable(self.root)}' does not exist.",
                remedy="Correct `root`, or create the folder.",
                kind="io",
            ) from error
        except NotADirectoryError as error:
            what = f"'{printable(self.root)}' is a file, not a folder."
            raise StepError(what, remedy="Correct `root`.") from error
        except OSError as error:
            what = f"the folder '{printable(self.root)}' cannot be read"
            raise os_refusal(what, error) from error
        while self._links:
            links, self._links = sorted(self._links, key=lambda link: link.path), []
            for link in links:
                self._follow(link)
        if newest is not None:
            self.found.sort(key=lambda file: (-file.mtime_ns, file.relpath))
            del self.found[newest:]
        self.found.sort(key=lambda file: file.relpath)
        return self.found

    def notes(self) -> list[str]:
        other_case = [path for path in self.without.unmatched if self._differs_in_case(path)]
        kinds = (
            (self.without.too_large, f"left out, larger than max_bytes ({self.max_bytes:,})"),
            (self.without.hollow, "left out, nearly nothing of the size is on the disk"),
            (other_case, "left out, `include` has the suffix in another case"),
            (self.without.not_utf8, "left out, the name is not UTF-8"),
            (self.without.unreadable, "left out, the folder cannot be read"),
            (
                self.without.not_followed,
                "left out, symbolic links outside the allowed folders, or broken",
            ),
        )
        return [f"{listed_names(names)} {what}." for names, what in kinds if names]

    def _differs_in_case(self, relpath: str) -> bool:
        """Return whether a file would match with its suffix in small letters, or in capitals."""
        stem, dot, suffix = relpath.rpartition(".")
        others = {stem + dot + suffix.lower(), stem + dot + suffix.upper()} - {relpath}
        wants, refuses = self.include.names_file, self.exclude.names_file
        if wants(relpath) or refuses(relpath):
            return False  # it is left out by `exclude`
        return any(wants(other) and not refuses(other) for other in others)

    def _folder(self, top: _WalkEntry) -> None:
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                handle = open_folder(folder.real)
            except OSError:
                if not folder.relpath:
                    raise
                self.without.unreadable.append(f"{folder.relpath}/")
                continue
            try:
                if (own := identity_of_stat(os.fstat(handle))) in self._seen:
                    continue
                self._seen.add(own)
                with os.scandir(handle) as listing:
                    below = (self._entry(entry, folder) for entry in listing)
                    waiting += [place for place in below if place is not None]
            finally:
                os.close(handle)

    def _entry(self, entry: os.DirEntry[str], folder: _WalkEntry) -> _WalkEntry | None:
        """Handle one entry; return a folder to descend into."""
        relpath = f"{folder.relpath}/{entry.name}" if folder.relpath else entry.name
        if is_temporary(entry.name):
            self.without.temporary += [] if entry.name.startswith(".") else [relpath]
            return None
        path = os.path.join(folder.path, entry.name)  # noqa: PTH118 - the hot path
        is_same = folder.real == folder.path
        real = path if is_same else os.path.join(folder.real, entry.name)  # noqa: PTH118
        place = _WalkEntry(relpath, path, real, folder.is_named)
        if not is_utf8(entry.name):
            self.without.not_utf8.append(relpath)
        elif entry.is_symlink():
            if self.allowed:
                self._links.append(place)
        elif entry.is_dir(follow_symlinks=False):
            return self._descended(place)
        elif entry.is_file(follow_symlinks=False):
            self._file(place, partial(entry.stat, follow_symlinks=False))
        return None

    def _descended(self, place: _WalkEntry) -> _WalkEntry | None:
        relpath = place.relpath
        if relpath.endswith(VECTOR_TABLE_SUFFIX):
            return None
        if self.exclude.names_folder(relpath) or self.include.refuses_folder(relpath):
            return None
        return replace(place, is_named=place.is_named or self.include.names_folder(relpath))

    def _file(self, place: _WalkEntry, facts: Callable[[], os.stat_result]) -> None:
        relpath = place.relpath
        if place.path in self.left_out:
            return
        is_included = self.include.names_file(relpath, in_named_folder=place.is_named)
        if not is_included or self.exclude.names_file(relpath):
            self.without.unmatched.append(relpath)
            return
        try:
            known = facts()
        except OSError:
            return  # gone since it was listed
        size = known.st_size
        on_disk = getattr(known, "st_blocks", size) * _BLOCK_BYTES
        if size > self.max_bytes:
            self.without.too_large.append(relpath)
        elif size > _LEAST_HOLLOW_BYTES and on_disk * _MOST_PACKING < size:
            self.without.hollow.append(relpath)
        else:
            self.found.append(FoundFile.of(relpath, place.path, place.real, known))

    def _follow(self, link: _WalkEntry) -> None:
        try:
            target = no_links.resolve(link.path, self.allowed)
            target.lstat()
        except (OSError, RuntimeError):
            self.without.not_followed.append(link.relpath)
            return
        place = replace(link, real=str(target))
        if not any(target.is_relative_to(folder) for folder in self.allowed):
            self.without.not_followed.append(link.relpath)
        elif target.is_dir():
            if (folder := self._descended(place)) is not None:
                self._folder(folder)
        elif target.is_file() and str(target) not in self.left_out:
            self._file(place, lambda: facts_of(target))


def listed_names(names: list[str]) -> str:
    return listed([f"'{printable(name)}'" for name in sorted(names)], 3)
