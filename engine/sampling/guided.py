"""Walk one answer through its constraint: masks, the end near the limit, ways out of circles."""

from __future__ import annotations

import numpy as np

from paddock.engine.arrays import Logits
from paddock.engine.request import DoneReason

from .candidates import Candidates, allowed_of, likeliest
from .closing import Closing
from .constraint import Matcher
from .detour import Detour

MOST_CIRCLES = 3
"""Circles that are led out of; with the next one the answer is ended."""
MORE = 64
"""So many of the likeliest tokens are looked through for allowed ones before all are."""
UNLIMITED = 1 << 30


class Guided:
    """One answer's constraint. Used by the owner thread alone."""

    def __init__(self, matcher: Matcher, max_tokens: int | None) -> None:
        self.matcher = matcher
        self._closing = Closing(matcher, max_tokens or UNLIMITED)
        self._has_limit = max_tokens is not None
        self.is_shortened = False
        self.reason: DoneReason = "stop"
        self._n_circles = 0
        self._avoided: int | None = None
        self._detour: Detour | None = None
        self._has_failed = False

    # What may be said

    @property
    def needs_mask(self) -> bool:
        """Whether a mask should be made for the next token."""
        is_settled = self._closing.is_active or self._has_failed
        return not (is_settled or self.matcher.has_mask or self.matcher.forced_tokens())

    def settled(self) -> int | None:
        """Give the next token where nothing is left to choose."""
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
        few = likeliest(row, MORE).allowed_by(mask)
        if len(few.tokens):
            return int(few.tokens[0])
        allowed = allowed_of(row, mask)
        return int(allowed[row[allowed].argmax()]) if len(allowed) else first

    def allowed(self, row: Logits, found: Candidates, n: int) -> Candidates:
        """Return the `n` likeliest tokens that are allowed, and those as likely as the last.

        `found` are the likeliest of all: mostly, enough of them are allowed.
        """
        mask = self.matcher.mask()
        few = found.allowed_by(mask)
        if len(few.tokens) >= n:
            return few
        allowed = allowed_of(row, mask)
        few = likeliest(row[allowed], n)
        return Candidates(allowed[few.tokens], few.logits)

    def masked(self, row: Logits) -> Logits:
        """Return a copy of a row in which everything else is impossible."""
        allowed = allowed_of(row, self.matcher.mask())
        masked = np.full_like(row, -np.inf)
        masked[allowed] = row[allowed]
        if masked.max() == -np.inf:
            # A bias forbids all that is allowed: the constraint goes first.
            masked[allowed] = 0.0
        return masked

    def without_avoided(self, row: Logits) -> tuple[Logits, bool]:
        """Forbid the token that would go on with a circle, if there is another, in a copy."""
        avoided, self._avoided = self._avoided, None
        if avoided is None or not np.any(allowed_of(row, self.matcher.mask()) != avoided):
            return row, False
        row = row.copy()
        row[avoided] = -np.inf
        return row, True

    def forced(self) -> list[int]:
        """Give the tokens that must follow."""
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
        if self._n_circles > MOST_CIRCLES or not self.matcher.is_json:
            self.reason = "repetition"
            self.is_shortened = self._closing.begin()
            return self.is_shortened and bool(self._closing.script)
        self._detour = Detour(self.matcher.vocabulary.bytes_of(circle), len(circle))
        self._avoided = circle[0]
        return True

    def _led_out(self, detour: Detour, token: int) -> int:
        """Give the token that closes what goes in circles, or the one that was meant."""
        said = detour.instead(self._closing.place, self.matcher.piece(token))
        if said is None:
            self._detour = detour if detour.n_left else None
            return token
        tokens = self.matcher.spell(said)
        if len(tokens) == 1:
            self._detour = self._avoided = None
        self.is_shortened = True
        return tokens[0]
