"""Where something stands in a file: the place of every key and value, for faults to point at."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

WIDEST_LINE = 160  # what a terminal shows without wrapping into nonsense
BEFORE = 60  # how much of an overlong line is kept before the place


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of one line. `line` and `column` count from 1, `snippet` is the whole line."""

    file: str
    line: int
    column: int
    length: int
    snippet: str

    def shown(self) -> tuple[str, str]:
        """Give the line and the carets beneath it, an overlong line cut around the place."""
        start, text = self.column - 1, self.snippet
        lead = ""
        if len(text) > WIDEST_LINE:
            cut = max(0, start - BEFORE)
            lead = "…" if cut else ""
            tail = "…" if cut + WIDEST_LINE < len(text) else ""
            text = lead + text[cut : cut + WIDEST_LINE] + tail
            start = start - cut + len(lead)
        end = min(start + max(self.length, 1), max(len(text), start + 1))
        padding = "".join("\t" if char == "\t" else " " * _width(char) for char in text[:start])
        return text, padding + "^" * max(1, sum(_width(char) for char in text[start:end]))


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
