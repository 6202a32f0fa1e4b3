"""List the files under a root, each with the hash of its content."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import ClassVar

from pydantic import Field, field_validator

from paddock.engine.request import Role
from paddock.pipelines.quantities import SizeBytes

from .globs import BadPattern, Globs
from .places import place, refusal, shown
from .step import Output, Params, StepError, Tools

_HASH_PIECE_BYTES = 1 << 20


class FilesScanParams(Params):
    """Parameters of `files.scan`."""

    root: str = Field(min_length=1, description="The folder.")
    include: list[str] = Field(
        default=["**/*"],
        min_length=1,
        description="Patterns as in .gitignore, with braces, to list.",
    )
    exclude: list[str] = Field(default=[], description="Patterns to leave out, folders included.")
    newest: int | None = Field(
        default=None, ge=1, description="List only so many, those changed last."
    )
    max_bytes: SizeBytes | None = Field(
        default=None, description="Leave out larger files, and say so."
    )
    follow_links: bool = Field(
        default=False,
        description="Also list what symbolic links lead to, within the allowed folders.",
    )

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, value: list[str]) -> list[str]:
        try:
            Globs.of(value)
        except BadPattern as error:
            raise ValueError(str(error)) from error
        return value


class ScannedFile(Output):
    """One file. `relpath` has forward slashes; `modified` is ISO 8601 in UTC."""

    path: str
    relpath: str
    name: str
    stem: str
    suffix: str
    size: int
    modified: str
    sha256: str | None
    """None for a file that cannot be read: the step that reads it says why."""


class FilesScanOutput(Output):
    """Outputs of `files.scan`: the files, sorted by `relpath`."""

    files: list[ScannedFile]


class FilesScan:
    """List the files under a root; hidden ones and the pipeline's own outputs are left out."""

    params: ClassVar[type[FilesScanParams]] = FilesScanParams
    output: ClassVar[type[FilesScanOutput]] = FilesScanOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = True
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: FilesScanParams) -> Sequence[str]:
        """Name nothing: the listing itself is looked at anew in each run."""
        return ()

    async def run(self, params: FilesScanParams, tools: Tools) -> FilesScanOutput:
        """List them.

        Raises:
            StepError: the root is missing, no folder, or outside the allowed folders.
        """
        root = place(tools.roots, params.root)
        scan = _Scan(
            root=root,
            include=Globs.of(params.include),
            exclude=Globs.of(params.exclude),
            left_out=frozenset(map(str, tools.outputs.owned())),
            max_bytes=params.max_bytes,
            allowed=tools.roots.allowed if params.follow_links else (),
        )
        files = await asyncio.to_thread(scan.files, params.newest)
        for note in scan.notes():
            tools.log.note(f"{shown(params.root)}: {note}")
        return FilesScanOutput(files=files)


@dataclass(frozen=True, slots=True)
class _Found:
    relpath: str
    path: str
    facts: os.stat_result


@dataclass
class _Scan:
    """One walk through a folder. Used by one thread."""

    root: Path
    include: Globs
    exclude: Globs
    left_out: frozenset[str]
    max_bytes: int | None
    allowed: tuple[Path, ...]
    """Where symbolic links may lead; empty if they are not followed."""
    found: list[_Found] = field(default_factory=list)
    links: list[tuple[str, str, bool]] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)
    too_large: list[str] = field(default_factory=list)
    not_utf8: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    not_followed: list[str] = field(default_factory=list)

    def files(self, newest: int | None) -> list[ScannedFile]:
        """Walk, then hash what is wanted, in the order of `relpath`."""
        self._walk()
        if newest is not None:
            self.found.sort(key=lambda one: (-one.facts.st_mtime_ns, one.relpath))
            del self.found[newest:]
        self.found.sort(key=lambda one: one.relpath)
        return [file for one in self.found if (file := _scanned(one)) is not None]

    def notes(self) -> list[str]:
        """Say what was left out, one sentence each kind."""
        limit = f"larger than max_bytes ({self.max_bytes:,})" if self.max_bytes else ""
        kinds = (
            (self.too_large, "left out, " + limit),
            (self.not_utf8, "left out, the name is not UTF-8"),
            (self.unreadable, "left out, the folder cannot be read"),
            (self.not_followed, "left out, symbolic links outside the allowed folders, or broken"),
        )
        return [f"{_some(names)} {what}." for names, what in kinds if names]

    def _walk(self) -> None:
        """Go through the real folders first, then through what links lead to.

        So a file that is there in both ways keeps its own name, and circles end.
        """
        try:
            self._folder(str(self.root), "", False)
        except OSError as error:
            raise _root_refusal(self.root, error) from error
        while self.links:
            links, self.links = sorted(self.links), []
            for path, relpath, is_named in links:
                self._link(path, relpath, is_named)

    def _folder(self, top: str, prefix: str, is_named: bool) -> None:
        """Collect what is below a folder; `prefix` is its relpath with a slash."""
        waiting = [(top, prefix, is_named)]
        while waiting:
            folder, prefix, is_named = waiting.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = list(listing)
                facts = Path(folder).stat()
            except OSError:
                if not prefix:
                    raise
                self.unreadable.append(prefix)
                continue
            if (facts.st_dev, facts.st_ino) in self.seen:
                continue
            self.seen.add((facts.st_dev, facts.st_ino))
            for entry in entries:
                below = self._entry(entry, prefix, is_named)
                if below is not None:
                    waiting.append(below)

    def _entry(
        self, entry: os.DirEntry[str], prefix: str, is_named: bool
    ) -> tuple[str, str, bool] | None:
        """Look at one entry; gives a folder to go into."""
        if entry.name.startswith("."):
            return None
        relpath = prefix + entry.name
        if not _is_utf8(entry.name):
            self.not_utf8.append(relpath)
        elif entry.is_symlink():
            if self.allowed:
                self.links.append((entry.path, relpath, is_named))
        elif entry.is_dir(follow_symlinks=False):
            return self._below(entry.path, relpath, is_named)
        elif entry.is_file(follow_symlinks=False):
            self._file(entry.path, relpath, is_named)
        return None

    def _below(self, path: str, relpath: str, is_named: bool) -> tuple[str, str, bool] | None:
        if self.exclude.names_folder(relpath):
            return None
        return path, f"{relpath}/", is_named or self.include.names_folder(relpath)

    def _file(self, path: str, relpath: str, is_named: bool) -> None:
        if path in self.left_out or self.exclude.names_file(relpath):
            return
        if not self.include.names_file(relpath, in_named_folder=is_named):
            return
        try:
            facts = Path(path).stat()
        except OSError:
            return  # gone since it was listed
        if self.max_bytes is not None and facts.st_size > self.max_bytes:
            self.too_large.append(relpath)
        else:
            self.found.append(_Found(relpath, path, facts))

    def _link(self, path: str, relpath: str, is_named: bool) -> None:
        """Follow a link that leads to something within the allowed folders."""
        try:
            target = Path(path).resolve(strict=True)
        except (OSError, RuntimeError):
            self.not_followed.append(relpath)
            return
        if not any(target.is_relative_to(folder) for folder in self.allowed):
            self.not_followed.append(relpath)
        elif target.is_dir():
            below = self._below(path, relpath, is_named)
            if below is not None:
                self._folder(*below)
        elif target.is_file() and str(target) not in self.left_out:
            self._file(path, relpath, is_named)


def _scanned(one: _Found) -> ScannedFile | None:
    """Hash a file; nothing if it has vanished meanwhile."""
    try:
        sha256: str | None = _sha256(one.path)
    except FileNotFoundError:
        return None
    except OSError:
        sha256 = None
    name = PurePosixPath(one.relpath)
    # Made without validation: these are our own values, and there may be ten thousand.
    return ScannedFile.model_construct(
        path=one.path,
        relpath=one.relpath,
        name=name.name,
        stem=name.stem,
        suffix=name.suffix,
        size=one.facts.st_size,
        modified=_iso(one.facts.st_mtime),
        sha256=sha256,
    )


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - three times as fast as Path here
        while piece := file.read(_HASH_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _iso(seconds: float) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):  # a clock that was never set
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _some(names: list[str], most: int = 3) -> str:
    """Name a few, count the rest."""
    names = sorted(names)
    listed = ", ".join(f"'{shown(name)}'" for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")


def _root_refusal(root: Path, error: OSError) -> StepError:
    if isinstance(error, FileNotFoundError):
        return StepError(
            f"The folder '{shown(root)}' is not there.",
            remedy="Correct `root`, or make the folder.",
            kind="io",
        )
    if isinstance(error, NotADirectoryError):
        return StepError(f"'{shown(root)}' is a file, not a folder.", remedy="Correct `root`.")
    return refusal(f"The folder '{shown(root)}' cannot be read", error)
