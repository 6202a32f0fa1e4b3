"""Faults of a YAML file: what is wrong, where, and what to do. The author of the file must act."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

from .marks import Mark

MANY = 16  # names beyond which only the nearest is told


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `mark` is None where no file can be pointed at (an `-i` value)."""

    message: str
    remedy: str = ""
    mark: Mark | None = None

    def render(self) -> str:
        """Give the text a person reads: place, sentence, the line with a caret, what to do."""
        lines = [self.message]
        if self.mark is not None:
            text, carets = self.mark.shown()
            lines = [f"{self.mark.file}:{self.mark.line}:{self.mark.column}: {self.message}"]
            lines += [f"{self.mark.line:>8} | {text}".rstrip(), f"{'':>8} | {carets}"]
        if self.remedy:
            lines.append(f"  {self.remedy}")
        return "\n".join(lines)

    def in_one_line(self) -> str:
        """Give place, sentence and what to do, without the line itself."""
        place = f"{self.mark.file}:{self.mark.line}:{self.mark.column}: " if self.mark else ""
        return f"{place}{self.message} {self.remedy}".strip()

    def as_json(self) -> dict[str, str | int | None]:
        """Give the object of `validate --json`."""
        mark = self.mark
        return {
            "file": mark.file if mark else None,
            "line": mark.line if mark else None,
            "column": mark.column if mark else None,
            "message": self.message,
            "remedy": self.remedy,
        }


class PipelineError(Exception):
    """The YAML, or what was given to it, is wrong: every fault at once, in the file's order."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=_place))
        super().__init__("\n".join(fault.render() for fault in self.faults))


def _place(fault: Fault) -> tuple[int, int]:
    return (fault.mark.line, fault.mark.column) if fault.mark else (1 << 30, 0)


def known(word: str, names: Iterable[str]) -> str:
    """Tell which names there are, and the nearest.

    >>> known("wirter", ["writer", "vec"])
    "Known: 'writer', 'vec'. Did you mean 'writer'?"
    """
    names = tuple(dict.fromkeys(names))
    if not names:
        return "There are none."
    near = nearest(word, names)
    if near and len(names) > MANY:
        return f"Did you mean '{near}'?"
    listed = "Known: " + ", ".join(f"'{name}'" for name in names) + "."
    return f"{listed} Did you mean '{near}'?" if near else listed


def nearest(word: str, names: Iterable[str]) -> str | None:
    """Give the name that is most likely meant, if one is near enough."""
    return _nearest(word, tuple(names))


@lru_cache(maxsize=256)  # the same wrong word often stands in many places
def _nearest(word: str, names: tuple[str, ...]) -> str | None:
    found = get_close_matches(word, names, n=1, cutoff=0.6)
    return found[0] if found else None
