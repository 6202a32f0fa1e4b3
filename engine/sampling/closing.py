"""Bring a constrained answer to a valid end before its limit cuts it.

Before a token is taken, the shortest end behind it is known, in tokens: one that would leave too
few is not taken, and what was known to end the answer from here is said instead. So an answer
whose limit holds any end at all gets one.
"""

from __future__ import annotations

from .completion import Completer
from .constraint import Matcher

ROOM = 64
"""Where no end is found, though one is known from here: tokens that may be risked."""
BLIND = 16
"""Tokens that are taken unseen where no end fits, then twice as many, and so on."""


class Closing:
    """Watches over one answer's limit. Used by the owner thread alone."""

    def __init__(self, matcher: Matcher, n_left: int) -> None:
        self._matcher = matcher
        self.place = matcher.spelling.copy()
        """Where the answer stands, byte by byte."""
        self._completer = Completer(is_json=matcher.is_json, marks=matcher.marks)
        self.n_left = n_left
        """How many tokens the answer may still get."""
        self._end: bytes | None = None
        """Bytes that make the answer whole from where it stands; None: not looked for yet."""
        self._next: bytes | None = None
        self._script: list[int] | None = None
        self._n_blind = 0
        self._next_blind = BLIND
        self._spare = 0
        """Tokens beyond the shortest end, as far as they are known."""

    @property
    def is_active(self) -> bool:
        """Whether the rest of the answer is settled."""
        return self._script is not None

    @property
    def script(self) -> list[int]:
        """The tokens that are still to be said, once the rest is settled."""
        return self._script or []

    def allows(self, token: int) -> bool:
        """Tell whether a token leaves room for an end; `took` follows before it is asked again."""
        n_after = self.n_left - 1
        if self._is_far() or self._is_blind():
            return True
        after = self._end_after(token)
        if after is not None and self._fits(after, n_after):
            self._next, self._spare = after, n_after - len(after)
            return True
        own = self._own_end()
        # No end from here fits: nothing can be saved, and the limit is told as such.
        is_hopeless = own is None or not self._fits(own, self.n_left)
        is_lost = after is None and (own is None or n_after > len(own) + ROOM)
        if is_lost or is_hopeless:
            self._n_blind = self._next_blind
            self._next_blind *= 2
        self._next = after
        return is_hopeless or is_lost

    def took(self, token: int) -> None:
        """Take note of what was said."""
        self.place.take(self._matcher.piece(token))
        self.n_left -= 1
        self._end, self._next = self._next, None
        if self._script and self._script[0] == token:
            self._script.pop(0)

    def begin(self) -> bool:
        """Settle the rest of the answer; False where no end is known."""
        end = self._own_end()
        if end is None or not self._fits(end, self.n_left):
            return False
        script = self._tokens(end)
        if not self._matcher.ends_with(script):
            return False  # a grammar over special tokens that text cannot spell
        self._script = script
        return True

    def _is_far(self) -> bool:
        """Tell whether no token can make the shortest end too long, whatever it opens."""
        if self._matcher.heft is None or self._spare <= self._matcher.heft:
            return False
        self._spare -= self._matcher.heft + 1
        return True

    def _is_blind(self) -> bool:
        self._n_blind -= self._n_blind > 0
        return self._n_blind > 0

    def _own_end(self) -> bytes | None:
        if self._end is None:
            self._end = self._completer.find(self.place)
        return self._end

    def _end_after(self, token: int) -> bytes | None:
        """Give an end behind a token: what is left of the known one, or a new one."""
        piece = self._matcher.piece(token)
        end = self._end
        if end and piece and end.startswith(piece):
            return end[len(piece) :]
        after = self.place.copy()
        if not after.take(piece):
            return None
        # Within a text the known end mostly still holds; a digit would change a number.
        if end and not end[:1].isalnum() and after.ends_with(end):
            return end
        return self._completer.find(after)

    def _tokens(self, text: bytes) -> list[int]:
        return self._matcher.spell(text)

    def _fits(self, end: bytes, n_tokens: int) -> bool:
        # A token is a byte at least, so most ends need not be counted.
        return len(end) <= n_tokens or len(self._tokens(end)) <= n_tokens
