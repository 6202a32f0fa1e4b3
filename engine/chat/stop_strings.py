"""Stop strings: an answer ends before one, and what may begin one is held back. Pure."""

from __future__ import annotations

from functools import lru_cache


class StopStringFilter:
    """Ends a growing text before the first stop string.

    What may be the beginning of a stop string is held back until it is certain.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = tuple(mark for mark in stop if mark)
        self._held = ""
        self.stopped_by = ""

    @property
    def is_stopped(self) -> bool:
        return bool(self.stopped_by)

    def add(self, new: str, *, is_end: bool = False) -> str:
        if not self._stop:
            return new
        if self.is_stopped:
            return ""
        text = self._held + new
        found = [(at, mark) for mark in self._stop if (at := text.find(mark)) >= 0]
        if found:
            at, self.stopped_by = min(found, key=lambda pair: pair[0])
            self._held = ""
            return text[:at]
        n_held = 0 if is_end else partial_mark_length(text, self._stop)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]


def partial_mark_length(text: str, marks: tuple[str, ...]) -> int:
    """Return how many characters at the end of a text may begin one of the marks.

    >>> partial_mark_length("a <too", ("<tool>", "<think>"))
    4
    """
    longest, firsts = _mark_extent(marks)
    tail = text[len(text) - min(longest, len(text)) :]
    for at, character in enumerate(tail):
        if character in firsts and any(mark.startswith(tail[at:]) for mark in marks):
            return len(tail) - at
    return 0


@lru_cache(maxsize=64)
def _mark_extent(marks: tuple[str, ...]) -> tuple[int, frozenset[str]]:
    """Return the longest incomplete mark's length, and the first characters of all marks."""
    longest = max((len(mark) for mark in marks), default=1) - 1
    return longest, frozenset(mark[0] for mark in marks)
