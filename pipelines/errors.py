"""Faults of a pipeline file: place, sentence, remedy.

`PipelineError` carries every fault of a file at once; the author of the YAML must act. A `Mark` is
the place of a key or value in the file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from paddock.engine.system.records import Struct

MOST_LINE_COLUMNS = 160  # what a terminal shows without wrapping into nonsense
COLUMNS_BEFORE_MARK = 60  # how much of an overlong line is kept before the place


class Mark(Struct, frozen=True):
    """A stretch of one line. `line` and `column` count from 1, `snippet` is the whole line."""

    file: str
    line: int
    column: int
    length: int
    snippet: str

    def shown(self) -> tuple[str, str]:
        """Return the line and the carets beneath it; a long line is cut around the place."""
        start, text = self.column - 1, self.snippet
        lead = ""
        if len(text) > MOST_LINE_COLUMNS:
            cut = max(0, start - COLUMNS_BEFORE_MARK)
            lead = "…" if cut else ""
            tail = "…" if cut + MOST_LINE_COLUMNS < len(text) else ""
            text = lead + text[cut : cut + MOST_LINE_COLUMNS] + tail
            start = start - cut + len(lead)
        end = min(start + max(self.length, 1), max(len(text), start + 1))
        padding = "".join(
            "\t" if char == "\t" else " " * _columns_of(char) for char in text[:start]
        )
        return text, padding + "^" * max(1, sum(_columns_of(char) for char in text[start:end]))


def _columns_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


class MustBe(ValueError):
    """A value that breaks a rule of its key. The message follows the key's name: "must be …"."""


MOST_LISTED_NAMES = 19  # the keys of a step; with more, only the nearest name is shown


class Fault(Struct, frozen=True):
    """One thing that is wrong. `mark` is None where there is no file (an `-i` value)."""

    message: str
    remedy: str = ""
    mark: Mark | None = None

    def render(self) -> str:
        lines = [self.message]
        if self.mark is not None:
            text, carets = self.mark.shown()
            lines = [f"{self.mark.file}:{self.mark.line}:{self.mark.column}: {self.message}"]
            lines += [f"{self.mark.line:>8} | {text}".rstrip(), f"{'':>8} | {carets}"]
        if self.remedy:
            lines.append(f"  {self.remedy}")
        return "\n".join(lines)

    def in_one_line(self) -> str:
        place = f"{self.mark.file}:{self.mark.line}:{self.mark.column}: " if self.mark else ""
        return f"{place}{self.message} {self.remedy}".strip()

    def as_json(self) -> dict[str, str | int | None]:
        mark = self.mark
        return {
            "file": mark.file if mark else None,
            "line": mark.line if mark else None,
            "column": mark.column if mark else None,
            "message": self.message,
            "remedy": self.remedy,
        }


class PipelineError(Exception):
    """The YAML or its inputs are wrong: every fault, in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        def place(fault: Fault) -> tuple[int, int]:
            return (fault.mark.line, fault.mark.column) if fault.mark else (1 << 30, 0)

        self.faults = tuple(sorted(faults, key=place))
        super().__init__("\n".join(fault.render() for fault in self.faults))

    @classmethod
    def of(cls, message: str, remedy: str = "", mark: Mark | None = None) -> PipelineError:
        return PipelineError([Fault(message, remedy, mark)])


def text_without_places(error: Exception) -> str:
    """Return the faults of an error in a text that no one wrote; empty: it has none."""
    faults: Iterable[Fault] = getattr(error, "faults", ())  # also `ModelFaults` has them
    return " ".join(dict.fromkeys(f"{fault.message} {fault.remedy}".strip() for fault in faults))


def kind_of(value: Any) -> str:
    """Return how a message names the kind of a value of YAML or JSON."""
    kinds = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    kinds |= {list: "a list", dict: "a mapping", type(None): "null"}
    return kinds.get(type(value), "something else")


def did_you_mean(
    word: str, names: Iterable[str], none: str = "There are none.", *, asks: bool = True
) -> str:
    """Return a remedy: the known names, and if it `asks` the nearest; `none` if there are none.

    >>> did_you_mean("wirter", ["writer", "vec"])
    "Known: 'writer', 'vec'. Did you mean 'writer'?"
    """
    names = tuple(dict.fromkeys(names))
    if not names:
        return none
    near = nearest_name(word, names)
    if near and len(names) > MOST_LISTED_NAMES:
        return f"Did you mean '{near}'?"
    listed = "Known: " + ", ".join(f"'{name}'" for name in names) + "."
    return f"{listed} Did you mean '{near}'?" if near and asks else listed


def nearest_name(word: str, names: Iterable[str]) -> str | None:
    return _nearest_cached(word, tuple(names))


@lru_cache(maxsize=256)  # the same wrong word often occurs many times
def _nearest_cached(word: str, names: tuple[str, ...]) -> str | None:
    found = get_close_matches(word, names, n=1, cutoff=0.6)
    return found[0] if found else None
