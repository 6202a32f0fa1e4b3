"""Walk through a folder: glob patterns, wanted files, and what was left out and why.

Patterns are those of .gitignore, with braces.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from paddock.engine.system.text import listed
from paddock.steps.base import StepError
from paddock.steps.paths import os_refusal, printable


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
        """Return whether this folder matches."""
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
    facts: os.stat_result


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
        """Handle one entry; return a folder to descend into."""
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
        if relpath.endswith(VECTOR_TABLE_SUFFIX):
            return None
        if self.exclude.names_folder(relpath) or self.include.refuses_folder(relpath):
            return None
        return path, f"{relpath}/", is_named or self.include.names_folder(relpath)

    def _file(self, path: str, relpath: str, is_named: bool) -> None:
        if path in self.left_out:
            return
        is_included = self.include.names_file(relpath, in_named_folder=is_named)
        if not is_included or self.exclude.names_file(relpath):
            self.unmatched.append(relpath)
            return
        try:
            facts = Path(path).stat()
        except OSError:
            return  # gone since it was listed
        if self.max_bytes is not None and facts.st_size > self.max_bytes:
            self.too_large.append(relpath)
        else:
            self.found.append(FoundFile(relpath, path, facts))

    def _link(self, path: str, relpath: str, is_named: bool) -> None:
        """Follow a link to a target within the allowed folders."""
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


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


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
