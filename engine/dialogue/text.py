"""Turn token bytes into text: whole UTF-8 characters, and stop strings over token borders. Pure."""

from __future__ import annotations

import codecs


class AnswerText:
    """The text of one answer as it grows.

    What might be the beginning of a stop string is held back until it is certain.

    >>> text = AnswerText(stop=("END",))
    >>> text.feed("né E".encode()[:2]), text.feed("né E".encode()[2:]), text.feed(b"Nx")
    ('n', 'é ', 'ENx')
    >>> text.feed(b"yEND"), text.is_stopped
    ('y', True)
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self._stop = tuple(mark for mark in stop if mark)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.is_stopped = False

    def feed(self, piece: bytes) -> str:
        """Add a token's bytes; gives the text that is certain now."""
        return self._release(self._decoder.decode(piece), is_end=False)

    def close(self) -> str:
        """Give what was held back, at the end of the answer."""
        return self._release(self._decoder.decode(b"", final=True), is_end=True)

    def _release(self, new: str, *, is_end: bool) -> str:
        if self.is_stopped:
            return ""
        text = self._held + new
        found = [at for at in (text.find(mark) for mark in self._stop) if at >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        n_held = 0 if is_end else self._n_doubtful(text)
        self._held = text[len(text) - n_held :]
        return text[: len(text) - n_held]

    def _n_doubtful(self, text: str) -> int:
        """Count the characters at the end that may begin a stop string."""
        longest = max((len(mark) for mark in self._stop), default=1) - 1
        for n in range(min(longest, len(text)), 0, -1):
            if any(mark.startswith(text[-n:]) for mark in self._stop):
                return n
        return 0
