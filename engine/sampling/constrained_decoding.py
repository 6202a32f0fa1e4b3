"""Constrained decoding: walk one answer through its grammar, to a valid end, out of loops.

Before a token is taken, the shortest ending after it is known, in tokens (`EndingGuard`): a token
that would leave too few is not taken, and the known ending is written instead. So an answer whose
limit has room for any ending gets one. `LoopEscape` leads a JSON answer out of a loop: it closes
the text, list or object that repeats.
"""

from __future__ import annotations

import numpy as np

from paddock.engine.arrays import Logits
from paddock.engine.request import DoneReason

from .byte_grammar import ByteMatcher, EndingSearch
from .constraint import TokenMatcher
from .logits import Candidates, allowed_tokens, top_candidates

RISKED_TOKENS = 64
"""Where no end is found, though one is known from here: tokens that may be risked."""
UNCHECKED_TOKENS = 16
"""Tokens that are taken unseen where no end fits, then twice as many, and so on."""


class EndingGuard:
    """Watches over one answer's limit. Used by the owner thread alone."""

    def __init__(self, matcher: TokenMatcher, n_left: int) -> None:
        self._matcher = matcher
        self.place = matcher.spelling.copy()
        """Where the answer stands, byte by byte."""
        self._completer = EndingSearch(is_json=matcher.is_json, marks=matcher.marks)
        self.n_left = n_left
        """How many tokens the answer may still get."""
        self._end: bytes | None = None
        """Bytes that make the answer whole from where it stands; None: not looked for yet."""
        self._next: bytes | None = None
        self._script: list[int] | None = None
        self._n_blind = 0
        self._next_blind = UNCHECKED_TOKENS
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
        """Return whether a token leaves room for an end; `took` follows before it is asked again."""
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
        is_lost = after is None and (own is None or n_after > len(own) + RISKED_TOKENS)
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
        """Return whether no token can make the shortest end too long, whatever it opens."""
        if self._matcher.max_growth_bytes is None or self._spare <= self._matcher.max_growth_bytes:
            return False
        self._spare -= self._matcher.max_growth_bytes + 1
        return True

    def _is_blind(self) -> bool:
        self._n_blind -= self._n_blind > 0
        return self._n_blind > 0

    def _own_end(self) -> bytes | None:
        if self._end is None:
            self._end = self._completer.find(self.place)
        return self._end

    def _end_after(self, token: int) -> bytes | None:
        """Return an end behind a token: what is left of the known one, or a new one."""
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


_ANY_TEXT = frozenset(b'".az09')


class LoopEscape:
    """A way out of one circle, taken where it first opens."""

    def __init__(self, circle: bytes, n_tokens: int) -> None:
        self._is_in_text = b'"' not in circle
        # Where objects circle, it is their list that has no end.
        self._closers = b"]" if b"}" in circle else b"]}"
        self.n_left = 2 * n_tokens + 8
        """Tokens after which it is given up."""

    def instead(self, place: ByteMatcher, piece: bytes) -> bytes | None:
        """Return what is to be said instead of a token; None: the way is not open yet.

        Args:
            place: where the answer stands.
            piece: what the token would add; the way may open in its middle.
        """
        self.n_left -= 1
        place = place.copy()
        for n_said in range(len(piece) + 1):
            closer = self._closer(place.signs())
            if closer is not None:
                return piece[:n_said] + closer
            byte = piece[n_said : n_said + 1]
            if not place.allows(byte) or not place.take(byte):
                return None
        return None

    def _closer(self, signs: frozenset[int]) -> bytes | None:
        if signs >= _ANY_TEXT:
            return b'"' if self._is_in_text else None
        return next((bytes([sign]) for sign in self._closers if sign in signs), None)


MOST_LOOP_ESCAPES = 3
"""Circles that are led out of; with the next one the answer is ended."""
N_PRESELECTED = 64
"""So many of the likeliest tokens are looked through for allowed ones before all are."""
NO_TOKEN_LIMIT = 1 << 30


class ConstrainedAnswer:
    """One answer's constraint. Used by the owner thread alone."""

    def __init__(self, matcher: TokenMatcher, max_tokens: int | None) -> None:
        self.matcher = matcher
        self._closing = EndingGuard(matcher, max_tokens or NO_TOKEN_LIMIT)
        self._has_limit = max_tokens is not None
        self.is_shortened = False
        self.reason: DoneReason = "stop"
        self._n_circles = 0
        self._avoided: int | None = None
        self._detour: LoopEscape | None = None
        self._has_failed = False

    # What may be said

    @property
    def needs_mask(self) -> bool:
        """Whether a mask should be made for the next token."""
        is_settled = self._closing.is_active or self._has_failed
        return not (is_settled or self.matcher.has_mask or self.matcher.forced_tokens())

    def settled(self) -> int | None:
        """Return the next token where nothing is left to choose."""
        script = self._closing.script
        if script or self._has_failed or self._detour is not None:
            return script[0] if script else None
        forced = self.matcher.forced_tokens()
        return forced[0] if forced else None

    def likeliest(self, row: Logits, first: int) -> int:
        """Return the likeliest token that is allowed; `first` is the likeliest of all."""
        row, is_changed = self.without_avoided(row)
        if is_changed:
            first = int(row.argmax())
        if self.matcher.allows(first):
            return first
        mask = self.matcher.mask()
        few = top_candidates(row, N_PRESELECTED).allowed_by(mask)
        if len(few.tokens):
            return int(few.tokens[0])
        allowed = allowed_tokens(row, mask)
        return int(allowed[row[allowed].argmax()]) if len(allowed) else first

    def allowed(self, row: Logits, found: Candidates, n: int) -> Candidates:
        """Return the `n` likeliest tokens that are allowed, and those as likely as the last.

        `found` are the likeliest of all: mostly, enough of them are allowed.
        """
        mask = self.matcher.mask()
        few = found.allowed_by(mask)
        if len(few.tokens) >= n:
            return few
        allowed = allowed_tokens(row, mask)
        few = top_candidates(row[allowed], n)
        return Candidates(allowed[few.tokens], few.logits)

    def masked(self, row: Logits) -> Logits:
        """Return a copy of a row in which everything else is impossible."""
        allowed = allowed_tokens(row, self.matcher.mask())
        masked = np.full_like(row, -np.inf)
        masked[allowed] = row[allowed]
        if masked.max() == -np.inf:
            # A bias forbids all that is allowed: the constraint goes first.
            masked[allowed] = 0.0
        return masked

    def without_avoided(self, row: Logits) -> tuple[Logits, bool]:
        """Forbid the token that would go on with a circle, if there is another, in a copy."""
        avoided, self._avoided = self._avoided, None
        if avoided is None or not np.any(allowed_tokens(row, self.matcher.mask()) != avoided):
            return row, False
        row = row.copy()
        row[avoided] = -np.inf
        return row, True

    def forced(self) -> list[int]:
        """Return the tokens that must follow."""
        if self._closing.is_active:
            return list(self._closing.script)
        return [] if self._has_failed or self._detour else self.matcher.forced_tokens()

    # What is said

    def take(self, token: int) -> int:
        """Take a token into the answer, or the one that must be said in its place."""
        if self._detour is not None and not self._ends(token):
            token = self._led_out(self._detour, token)
        if self._has_limit and not self._closing.is_active and not self._ends(token):
            token = self._within_limit(token)
        if not self.matcher.take([token]):
            # llguidance knows no further; what was settled before is still right.
            self._has_failed = True
            self.reason = self.reason if self._closing.is_active else "length"
        if not self._ends(token):
            self._closing.took(token)
        return token

    def _ends(self, token: int) -> bool:
        return token in self.matcher.vocabulary.ends

    def _within_limit(self, token: int) -> int:
        if self._closing.allows(token) or not self._closing.begin():
            return token
        # The rest is settled, and what the model would have said is not.
        self.is_shortened = True
        return (self._closing.script or self.matcher.vocabulary.ends)[0]

    @property
    def is_over(self) -> bool:
        """Whether nothing can follow, or nothing may and all is whole."""
        if self._has_failed:
            return not self._closing.script
        if self.matcher.must_end:
            return True
        is_last = self._has_limit and self._closing.n_left <= 0
        is_told = self._closing.is_active and not self._closing.script
        if (is_last or is_told) and self.matcher.may_end:
            self.is_shortened = True
            return True
        return False

    # Circles

    def leave(self, circle: list[int]) -> bool:
        """Lead out of a circle; False where the answer can only be broken off."""
        if self._closing.is_active:
            return True
        self._n_circles += 1
        if self._n_circles > MOST_LOOP_ESCAPES or not self.matcher.is_json:
            self.reason = "repetition"
            self.is_shortened = self._closing.begin()
            return self.is_shortened and bool(self._closing.script)
        self._detour = LoopEscape(self.matcher.vocabulary.bytes_of(circle), len(circle))
        self._avoided = circle[0]
        return True

    def _led_out(self, detour: LoopEscape, token: int) -> int:
        """Return the token that closes what goes in circles, or the one that was meant."""
        said = detour.instead(self._closing.place, self.matcher.piece(token))
        if said is None:
            self._detour = detour if detour.n_left else None
            return token
        tokens = self.matcher.spell(said)
        if len(tokens) == 1:
            self._detour = self._avoided = None
        self.is_shortened = True
        return tokens[0]
