"""Turn token bytes into text: whole UTF-8 characters, and stop strings over token borders. Pure."""

from __future__ import annotations

import codecs
from functools import lru_cache


class Characters:
    """Bytes in any pieces, whole characters out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, piece: bytes) -> str:
        """Add bytes; return the characters that are whole now."""
        if not self._decoder.getstate()[0]:
            try:
                return piece.decode()
            except UnicodeDecodeError:
                pass  # it ends within a character
        return self._decoder.decode(piece)

    def close(self) -> str:
        """Give nothing: half a character, which a limit left behind, is left out."""
        self._decoder.reset()
        return ""


class StoppableText:
    """A growing text that ends before the first stop string.

    What might be the beginning of a stop string is held back until it is certain.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = tuple(mark for mark in stop if mark)
        self._held = ""
        self.stopped_by = ""
        """The stop string that was met."""

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met."""
        return bool(self.stopped_by)

    def add(self, new: str, *, is_end: bool = False) -> str:
        """Add to the text; return what is certain now, or all of it at the end."""
        if not self._stop:
            return new
        if self.is_stopped:
            return ""
        text = self._held + new
        found = [(at, mark) for mark in self._stop if (at := text.find(mark)) >= 0]
        if found:
            at, self.stopped_by = min(found, key=lambda one: one[0])
            self._held = ""
            return text[:at]
        n_held = 0 if is_end else n_doubtful(text, self._stop)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]


class AnswerText:
    """The text of one answer as it grows.

    >>> text = AnswerText(stop=("END",))
    >>> text.feed("né E".encode()[:2]), text.feed("né E".encode()[2:]), text.feed(b"Nx")
    ('n', 'é ', 'ENx')
    >>> text.feed(b"yEND"), text.is_stopped
    ('y', True)
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._characters = Characters()
        self._text = StoppableText(stop)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._text.is_stopped

    @property
    def stopped_by(self) -> str:
        """The stop string that was met."""
        return self._text.stopped_by

    def feed(self, piece: bytes) -> str:
        """Add a token's bytes; gives the text that is certain now."""
        return self._text.add(self._characters.feed(piece))

    def close(self) -> str:
        """Give what was held back, at the end of the answer."""
        return self._text.add(self._characters.close(), is_end=True)


def n_doubtful(text: str, marks: tuple[str, ...]) -> int:
    """Count the characters at the end of a text that may begin one of the marks.

    >>> n_doubtful("a <too", ("<tool>", "<think>"))
    4
    """
    longest, firsts = _extent(marks)
    tail = text[len(text) - min(longest, len(text)) :]
    for at, character in enumerate(tail):
        if character in firsts and any(mark.startswith(tail[at:]) for mark in marks):
            return len(tail) - at
    return 0


@lru_cache(maxsize=64)
def _extent(marks: tuple[str, ...]) -> tuple[int, frozenset[str]]:
    """Give how many characters a mark may have while it is not whole, and how marks begin."""
    longest = max((len(mark) for mark in marks), default=1) - 1
    return longest, frozenset(mark[0] for mark in marks)
