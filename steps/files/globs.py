"""Patterns of files, as in .gitignore, with braces."""

from __future__ import annotations

import re
from collections.abc import Iterable

from paddock.engine.system.records import Struct

ALL_FILES = "**/*"


class BadPattern(ValueError):
    """An invalid pattern."""


class _GlobRule(Struct, frozen=True):
    wants: bool
    """False for a pattern that begins with `!`."""
    is_of_folders: bool
    itself: re.Pattern[str]


class Globs(Struct, frozen=True):
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
        return not self._decide(path, is_folder=True, otherwise=True)

    def names_file(self, path: str, *, in_named_folder: bool = False) -> bool:
        return self._decide(path, is_folder=False, otherwise=in_named_folder)

    def names(self, path: str) -> bool:
        return any(not rule.is_of_folders and rule.itself.match(path) for rule in self.rules)

    def _decide(self, path: str, *, is_folder: bool, otherwise: bool = False) -> bool:
        for rule in reversed(self.rules):
            if (is_folder or not rule.is_of_folders) and rule.itself.match(path):
                return rule.wants
        return otherwise


def _parse_rule(pattern: str) -> _GlobRule:
    if pattern == ALL_FILES:  # the usual one: without the library
        return _GlobRule(wants=True, is_of_folders=False, itself=re.compile(""))
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
        included, _ = glob.translate(text, flags=flags)
        joined = "|".join(f"(?:{regex})" for regex in included)
        return _GlobRule(wants, is_of_folders, re.compile(joined))
    except (ValueError, re.error, _wcparse.PatternLimitException) as error:
        raise BadPattern(f"pattern '{pattern}' is invalid: {error}") from error
