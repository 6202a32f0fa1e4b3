"""The step `files.scan`: list the files under a root; and the walk through a folder behind it.

Patterns are those of .gitignore, with braces. The walk knows what was left out, and why.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

from pydantic import Field, field_validator

from paddock.engine.system import no_links
from paddock.engine.system.files import sha256_of
from paddock.engine.system.no_links import facts_of, identity, open_folder
from paddock.engine.system.tasks import in_left_thread
from paddock.engine.system.text import is_utf8, listed
from paddock.pipelines.quantities import SizeBytes
from paddock.steps.base import Output, Params, Step, StepError, Tools
from paddock.steps.paths import os_refusal, printable, resolve_path


class BadPattern(ValueError):
    """An invalid pattern."""


@dataclass(frozen=True, slots=True)
class _GlobRule:
    wants: bool
    """False for a pattern that begins with `!`."""
    is_of_folders: bool
    itself: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Globs:
    """A list of patterns; the last one that matches decides.

    A pattern without a slash matches at any depth, one with a slash from the root. Everything in a
    folder that matches is matched. Paths have forward slashes.
    """

    rules: tuple[_GlobRule, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Globs:
        """Compile patterns.

        Raises:
            BadPattern: with the pattern and the reason.
        """
        return cls(tuple(_parse_rule(pattern) for pattern in patterns))

    def names_folder(self, path: str) -> bool:
        return self._decide(path, is_folder=True)

    def refuses_folder(self, path: str) -> bool:
        """Return whether a pattern with `!` leaves out this folder."""
        return not self._decide(path, is_folder=True, otherwise=True)

    def names_file(self, path: str, *, in_named_folder: bool = False) -> bool:
        """Return whether this file or its folder matches."""
        return self._decide(path, is_folder=False, otherwise=in_named_folder)

    def _decide(self, path: str, *, is_folder: bool, otherwise: bool = False) -> bool:
        for rule in reversed(self.rules):
            if (is_folder or not rule.is_of_folders) and rule.itself.match(path):
                return rule.wants
        return otherwise


def _parse_rule(pattern: str) -> _GlobRule:
    from wcmatch import _wcparse, glob

    text = pattern.strip()
    wants = not text.startswith("!")
    text = re.sub(r"^\./", "/", text.removeprefix("!"))
    is_of_folders = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        raise BadPattern(f"'{pattern}' is not a pattern")
    text = text.lstrip("/") if "/" in text else f"**/{text}"
    flags = glob.GLOBSTAR | glob.BRACE | glob.DOTGLOB | glob.CASE | glob.FORCEUNIX
    try:
        yes, _ = glob.translate(text, flags=flags)
        return _GlobRule(wants, is_of_folders, re.compile("|".join(f"(?:{one})" for one in yes)))
    except (ValueError, re.error, _wcparse.PatternLimitException) as error:
        raise BadPattern(f"pattern '{pattern}' is invalid: {error}") from error


VECTOR_TABLE_SUFFIX = ".lance"
"""Suffix of folders with a table of vectors, which hold no documents."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that is wanted."""

    relpath: str
    path: str
    real: str
    """The same path without links."""
    facts: os.stat_result


@dataclass(frozen=True, slots=True)
class _Below:
    """A folder within the walk."""

    path: str
    real: str
    """The same path without links."""
    prefix: str
    """The beginning of its files' relpaths."""
    is_named: bool


@dataclass
class FolderWalk:
    """One walk through a folder. Used by one thread."""

    root: Path
    include: Globs
    exclude: Globs
    left_out: frozenset[str]
    max_bytes: int | None
    allowed: tuple[Path, ...]
    """Folders that symbolic links may lead to; empty if they are not followed."""
    found: list[FoundFile] = field(default_factory=list)
    links: list[tuple[str, str, bool]] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)
    too_large: list[str] = field(default_factory=list)
    not_utf8: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    not_followed: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    """Files that the patterns leave out."""

    def files(self, newest: int | None) -> list[FoundFile]:
        """Walk; return the wanted files in the order of `relpath`.

        Raises:
            StepError: the root is missing, not a folder, or unreadable.
        """
        self._walk()
        if newest is not None:
            self.found.sort(key=lambda one: (-one.facts.st_mtime_ns, one.relpath))
            del self.found[newest:]
        return sorted(self.found, key=lambda one: one.relpath)

    def notes(self) -> list[str]:
        """Return a sentence for each reason why files were left out."""
        limit = f"larger than max_bytes ({self.max_bytes:,})" if self.max_bytes else ""
        kinds = (
            (self.too_large, "left out, " + limit),
            (self.not_utf8, "left out, the name is not UTF-8"),
            (self.unreadable, "left out, the folder cannot be read"),
            (self.not_followed, "left out, symbolic links outside the allowed folders, or broken"),
        )
        return [f"{listed_names(names)} {what}." for names, what in kinds if names]

    def _walk(self) -> None:
        """Walk real folders first, then targets of links.

        So a file that is reached both ways keeps its own name, and cycles end.
        """
        try:
            self._folder(_Below(str(self.root), str(self.root), "", False))
        except OSError as error:
            raise _root_refusal(self.root, error) from error
        while self.links:
            links, self.links = sorted(self.links), []
            for path, relpath, is_named in links:
                self._link(path, relpath, is_named)

    def _folder(self, top: _Below) -> None:
        """Collect what is below a folder."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                handle = open_folder(folder.real)
            except OSError:
                if not folder.prefix:
                    raise
                self.unreadable.append(folder.prefix)
                continue
            try:
                waiting += self._listed(folder, handle)
            finally:
                os.close(handle)

    def _listed(self, folder: _Below, handle: int) -> list[_Below]:
        """List an open folder; return the folders to descend into."""
        own = identity(os.fstat(handle))
        if own in self.seen:
            return []
        self.seen.add(own)
        with os.scandir(handle) as listing:
            return [below for entry in listing if (below := self._entry(entry, folder))]

    def _entry(self, entry: os.DirEntry[str], folder: _Below) -> _Below | None:
        """Handle one entry; return a folder to descend into."""
        if entry.name.startswith("."):
            return None
        relpath = folder.prefix + entry.name
        path = os.path.join(folder.path, entry.name)  # noqa: PTH118 - the hot path
        real = os.path.join(folder.real, entry.name)  # noqa: PTH118
        if not is_utf8(entry.name):
            self.not_utf8.append(relpath)
        elif entry.is_symlink():
            if self.allowed:
                self.links.append((path, relpath, folder.is_named))
        elif entry.is_dir(follow_symlinks=False):
            return self._below(path, real, relpath, folder.is_named)
        elif entry.is_file(follow_symlinks=False):
            facts = partial(entry.stat, follow_symlinks=False)
            self._file((relpath, path, real), facts, is_named=folder.is_named)
        return None

    def _below(self, path: str, real: str, relpath: str, is_named: bool) -> _Below | None:
        if relpath.endswith(VECTOR_TABLE_SUFFIX):
            return None
        if self.exclude.names_folder(relpath) or self.include.refuses_folder(relpath):
            return None
        is_named = is_named or self.include.names_folder(relpath)
        return _Below(path, real, f"{relpath}/", is_named)

    def _file(
        self, place: tuple[str, str, str], facts: Callable[[], os.stat_result], *, is_named: bool
    ) -> None:
        """Keep a file that is wanted; `place` are its relpath, its path, and that without links."""
        relpath, path, real = place
        if path in self.left_out:
            return
        is_included = self.include.names_file(relpath, in_named_folder=is_named)
        if not is_included or self.exclude.names_file(relpath):
            self.unmatched.append(relpath)
            return
        try:
            found = FoundFile(relpath, path, real, facts())
        except OSError:
            return  # gone since it was listed
        if self.max_bytes is not None and found.facts.st_size > self.max_bytes:
            self.too_large.append(relpath)
        else:
            self.found.append(found)

    def _link(self, path: str, relpath: str, is_named: bool) -> None:
        """Follow a link to a target within the allowed folders."""
        try:
            target = no_links.resolve(path, self.allowed)
            target.lstat()
        except (OSError, RuntimeError):
            self.not_followed.append(relpath)
            return
        if not any(target.is_relative_to(folder) for folder in self.allowed):
            self.not_followed.append(relpath)
        elif target.is_dir():
            below = self._below(path, str(target), relpath, is_named)
            if below is not None:
                self._folder(below)
        elif target.is_file() and str(target) not in self.left_out:
            place = relpath, path, str(target)
            self._file(place, lambda: facts_of(target), is_named=is_named)


def listed_names(names: list[str]) -> str:
    """List a few names and count the rest."""
    return listed([f"'{printable(name)}'" for name in sorted(names)], 3)


def _root_refusal(root: Path, error: OSError) -> StepError:
    if isinstance(error, FileNotFoundError):
        return StepError(
            f"the folder '{printable(root)}' does not exist.",
            remedy="Correct `root`, or create the folder.",
            kind="io",
        )
    if isinstance(error, NotADirectoryError):
        return StepError(f"'{printable(root)}' is a file, not a folder.", remedy="Correct `root`.")
    return os_refusal(f"the folder '{printable(root)}' cannot be read", error)


# --- the step


class FilesScanParams(Params):
    """Parameters of `files.scan`."""

    root: str = Field(min_length=1, description="The folder.")
    include: list[str] = Field(
        default=["**/*"],
        min_length=1,
        description="Patterns of files to list, as in .gitignore, with braces.",
    )
    exclude: list[str] = Field(
        default=[], description="Patterns of files and folders to leave out."
    )
    newest: int | None = Field(
        default=None, ge=1, description="List only this many, the latest changed."
    )
    max_bytes: SizeBytes | None = Field(
        default=None, description="Leave out larger files, with a note."
    )
    follow_links: bool = Field(
        default=False,
        description="Also list what symbolic links lead to, within the allowed folders.",
    )

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if not pattern.strip("!/ "):
                raise ValueError(f"'{pattern}' is not a pattern")
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
    """None for an unreadable file: the step that reads it reports why."""


class FilesScanOutput(Output):
    """Outputs of `files.scan`: the files, sorted by `relpath`."""

    files: list[ScannedFile]


class FilesScan(Step[FilesScanParams, FilesScanOutput]):
    """List the files under a root; hidden ones and the pipeline's own outputs are left out."""

    params = FilesScanParams
    output = FilesScanOutput
    is_pure = True

    async def run(self, params: FilesScanParams, tools: Tools) -> FilesScanOutput:
        root, owned = resolve_path(tools.roots, params.root), tools.outputs.owned()
        files, notes = await in_left_thread(scan_folder, params, root, tools.roots.allowed, owned)
        for note in notes:
            tools.log.note(f"{printable(params.root)}: {note}")
        return FilesScanOutput(files=files)


def scan_folder(
    params: FilesScanParams, root: Path, allowed: tuple[Path, ...], owned: Collection[Path]
) -> tuple[list[ScannedFile], Sequence[str]]:
    """Walk and hash, in a thread; return the files and notes.

    Raises:
        StepError: the root is missing or not a folder, or a pattern is invalid.
    """
    walk = FolderWalk(
        root=root,
        include=_parse_globs(params.include),
        exclude=_parse_globs(params.exclude),
        left_out=frozenset(map(str, owned)),
        max_bytes=params.max_bytes,
        allowed=allowed if params.follow_links else (),
    )
    files = [file for one in walk.files(params.newest) if (file := _hashed_file(one)) is not None]
    hint = () if walk.found or walk.too_large else (_no_files_note(params, walk.unmatched),)
    return files, (*hint, *walk.notes())


def _no_files_note(params: FilesScanParams, unmatched: list[str]) -> str:
    if not unmatched:
        return "the folder has no files."
    n = "1 file is" if len(unmatched) == 1 else f"{len(unmatched):,} files are"
    patterns = f"`include` ({_quoted(params.include)})"
    if params.exclude:
        patterns += f" without `exclude` ({_quoted(params.exclude)})"
    return f"{n} there, and none matches {patterns}: {listed_names(unmatched)}."


def _quoted(patterns: Sequence[str]) -> str:
    return ", ".join(f"'{pattern}'" for pattern in patterns)


def _parse_globs(patterns: Sequence[str]) -> Globs:
    try:
        return Globs.of(patterns)
    except BadPattern as error:
        raise StepError(str(error)) from error


def _hashed_file(one: FoundFile) -> ScannedFile | None:
    """Hash a file; return None if it has vanished."""
    try:
        sha256: str | None = sha256_of(one.real, follows_links=False)
    except FileNotFoundError:
        return None
    except OSError:
        sha256 = None
    name = PurePosixPath(one.relpath)
    # Not validated: these are our own values, perhaps ten thousand.
    return ScannedFile.model_construct(
        path=one.path,
        relpath=one.relpath,
        name=name.name,
        stem=name.stem,
        suffix=name.suffix,
        size=one.facts.st_size,
        modified=_iso_time(one.facts.st_mtime),
        sha256=sha256,
    )


def _iso_time(seconds: float) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):  # a clock that was never set
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
