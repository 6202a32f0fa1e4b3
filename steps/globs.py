"""Patterns as in .gitignore, with braces: which relative paths they name. Knows no file system."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


class BadPattern(ValueError):
    """A pattern that cannot be understood."""


@dataclass(frozen=True, slots=True)
class _Rule:
    wants: bool
    """False for a pattern that begins with `!`."""
    is_of_folders: bool
    itself: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Globs:
    """A list of patterns; the last one that matches decides.

    A pattern without a slash matches at any depth, one with a slash from the root on. What lies
    in a folder that matches, matches as well. Paths have forward slashes.
    """

    rules: tuple[_Rule, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Globs:
        """Compile patterns.

        Raises:
            BadPattern: with the pattern and the reason.
        """
        return cls(tuple(_rule(pattern) for pattern in patterns))

    def names_folder(self, path: str) -> bool:
        """Tell whether this folder itself is named."""
        return self._decide(path, is_folder=True)

    def refuses_folder(self, path: str) -> bool:
        """Tell whether this folder is left out by a pattern with `!`."""
        return not self._decide(path, is_folder=True, otherwise=True)

    def names_file(self, path: str, *, in_named_folder: bool = False) -> bool:
        """Tell whether this file is named, by itself or because its folder is."""
        return self._decide(path, is_folder=False, otherwise=in_named_folder)

    def _decide(self, path: str, *, is_folder: bool, otherwise: bool = False) -> bool:
        for rule in reversed(self.rules):
            if (is_folder or not rule.is_of_folders) and rule.itself.match(path):
                return rule.wants
        return otherwise


def _rule(pattern: str) -> _Rule:
    from wcmatch import _wcparse, glob

    text = pattern.strip()
    wants = not text.startswith("!")
    text = re.sub(r"^\./", "/", text.removeprefix("!"))
    is_of_folders = text.endswith("/")
    text = text.rstrip("/")
    if not text:
        raise BadPattern(f"'{pattern}' is no pattern")
    text = text.lstrip("/") if "/" in text else f"**/{text}"
    flags = glob.GLOBSTAR | glob.BRACE | glob.DOTGLOB | glob.CASE | glob.FORCEUNIX
    try:
        yes, _ = glob.translate(text, flags=flags)
        return _Rule(wants, is_of_folders, re.compile("|".join(f"(?:{one})" for one in yes)))
    except (ValueError, re.error, _wcparse.PatternLimitException) as error:
        raise BadPattern(f"pattern '{pattern}' cannot be understood: {error}") from error
