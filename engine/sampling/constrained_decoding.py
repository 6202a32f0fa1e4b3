"""Constrained decoding: walk one answer through its grammar, to a valid end, out of loops.

`LoopEscape` gets a JSON answer out of a loop: it closes the text, list or object that repeats.
`valid_ending` ends it before the token limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits
from paddock.engine.request import DoneReason

from .logits import N_PRESELECTED, Candidates, allowed_tokens, top_candidates
from .valid_ending import EndingGuard

if TYPE_CHECKING:
    from .constraint import ByteMatcher, TokenMatcher


_ANY_TEXT = frozenset(b'".az09')
FEW_ALLOWING_BYTES = 256
"""Bytes of a mask that allow a token: so few are looked at sooner than the likeliest tokens are
found. A number has some hundred, a text most of them."""


class LoopEscape:
    def __init__(self, loop: bytes, n_tokens: int) -> None:
        self._is_in_text = b'"' not in loop
        # Repeating objects are items of an endless list.
        self._closers = b"]" if b"}" in loop else b"]}"
        self.n_left = 2 * n_tokens + 8

    def replacement_of(self, byte_matcher: ByteMatcher, piece: bytes) -> bytes | None:
        """Return bytes to write instead of a token's `piece`, or None if nothing can close yet.

        The closing byte may come in the middle of the piece.
        """
        self.n_left -= 1
        byte_matcher = byte_matcher.copy()
        for n_kept in range(len(piece) + 1):
            closer = self._closer(byte_matcher.signs())
            if closer is not None:
                return piece[:n_kept] + closer
            byte = piece[n_kept : n_kept + 1]
            if not byte_matcher.allows(byte) or not byte_matcher.take(byte):
                return None
        return None

    def _closer(self, signs: frozenset[int]) -> bytes | None:
        if signs >= _ANY_TEXT:
            return b'"' if self._is_in_text else None
        return next((bytes([sign]) for sign in self._closers if sign in signs), None)


MOST_LOOP_ESCAPES = 3
"""Loops that are closed; the next one ends the answer."""
NO_TOKEN_LIMIT = 1 << 30


class ConstrainedAnswer:
    """One answer's constraint. Only the owner thread uses it."""

    def __init__(self, matcher: TokenMatcher, max_tokens: int | None) -> None:
        self.matcher = matcher
        self._ending_guard = EndingGuard(matcher, max_tokens or NO_TOKEN_LIMIT)
        self._has_limit = max_tokens is not None
        self.is_shortened = False
        self.reason: DoneReason = "stop"
        self._n_loops = 0
        self._avoided: int | None = None
        self._loop_escape: LoopEscape | None = None
        self._has_failed = False

    # Choosing the next token

    def prepare(self) -> bool:
        if self._has_limit:
            self._ending_guard.prepare()
        is_fixed = self._ending_guard.is_active or self._has_failed
        return not (is_fixed or self.matcher.has_mask or self.matcher.forced_tokens())

    def only_token(self) -> int | None:
        ending = self._ending_guard.ending
        if ending or self._has_failed or self._loop_escape is not None:
            return ending[0] if ending else None
        forced = self.matcher.forced_tokens()
        return forced[0] if forced else None

    @property
    def is_forced(self) -> bool:
        """Whether the grammar itself leaves one token only; an ending for the limit is a choice."""
        is_own = self._ending_guard.is_active or self._has_failed or self._loop_escape is not None
        return not is_own and bool(self.matcher.forced_tokens())

    def allowed_mask(self) -> NDArray[np.uint8] | None:
        return None if self._has_failed else self.matcher.mask()

    def likeliest(self, row: Logits, first: int) -> int:
        """Return the likeliest allowed token; `first` is the likeliest of all."""
        row, is_changed = self.without_avoided(row)
        if is_changed:
            first = int(row.argmax())
        if self.matcher.allows(first):
            return first
        mask = self.matcher.mask()
        if np.count_nonzero(mask) > FEW_ALLOWING_BYTES:
            few = top_candidates(row, N_PRESELECTED).allowed_by(mask)
            if len(few.tokens):
                return int(few.tokens[0])
        allowed = allowed_tokens(row, mask)
        return int(allowed[row[allowed].argmax()]) if len(allowed) else first

    def allowed(self, row: Logits, found: Candidates, n: int) -> Candidates:
        """Return the `n` likeliest allowed tokens, and those as likely as the last of them.

        `found` are the likeliest of all; mostly, enough of them are allowed.
        """
        mask = self.matcher.mask()
        few = found.allowed_by(mask)
        if len(few.tokens) >= n:
            return few
        allowed = allowed_tokens(row, mask)
        few = top_candidates(row[allowed], n)
        return Candidates(allowed[few.tokens], few.logits)

    def masked(self, row: Logits) -> Logits:
        allowed = allowed_tokens(row, self.matcher.mask())
        masked = np.full_like(row, -np.inf)
        masked[allowed] = row[allowed]
        if masked.max() == -np.inf:
            # A bias forbids all allowed tokens: the constraint wins.
            masked[allowed] = 0.0
        return masked

    def without_avoided(self, row: Logits) -> tuple[Logits, bool]:
        """Return a copy without the token that continues a loop, and True; or the row and False."""
        avoided = self._avoided
        self._avoided = None
        if avoided is None or not np.any(allowed_tokens(row, self.matcher.mask()) != avoided):
            return row, False
        row = row.copy()
        row[avoided] = -np.inf
        return row, True

    def forced(self) -> list[int]:
        if self._ending_guard.is_active:
            return list(self._ending_guard.ending)
        return [] if self._has_failed or self._loop_escape else self.matcher.forced_tokens()

    # Taking a token

    def take(self, token: int) -> int:
        """Take a token, or the one that must replace it; return which."""
        if self._loop_escape is not None and not self._ends(token):
            token = self._escape_loop(self._loop_escape, token)
        if self._has_limit and not self._ending_guard.is_active and not self._ends(token):
            token = self._within_limit(token)
        if not self.matcher.take([token]):
            # llguidance met a limit; an ending that was fixed before is still right.
            self._has_failed = True
            self.reason = self.reason if self._ending_guard.is_active else "length"
        if not self._ends(token):
            self._ending_guard.note(token)
        return token

    def _ends(self, token: int) -> bool:
        return token in self.matcher.vocabulary.ends

    def _within_limit(self, token: int) -> int:
        if self._ending_guard.consider(token) or not self._ending_guard.begin():
            return token
        self.is_shortened = True
        return (self._ending_guard.ending or self.matcher.vocabulary.ends)[0]

    @property
    def is_over(self) -> bool:
        if self._has_failed:
            return not self._ending_guard.ending
        if self.matcher.must_end:
            return True
        is_last = self._has_limit and self._ending_guard.n_left <= 0
        is_ending = self._ending_guard.is_active and not self._ending_guard.ending
        if (is_last or is_ending) and self.matcher.may_end:
            self.is_shortened = True
            return True
        return False

    # Loops

    def leave_loop(self, loop: list[int]) -> bool:
        """Start to leave a loop; return False if the answer can only be cut off."""
        if self._ending_guard.is_active:
            return True
        self._n_loops += 1
        if self._n_loops > MOST_LOOP_ESCAPES or not self.matcher.is_json:
            self.reason = "repetition"
            self.is_shortened = self._ending_guard.begin()
            return self.is_shortened and bool(self._ending_guard.ending)
        self._loop_escape = LoopEscape(self.matcher.vocabulary.bytes_of(loop), len(loop))
        self._avoided = loop[0]
        return True

    def _escape_loop(self, escape: LoopEscape, token: int) -> int:
        """Return the token that closes what repeats, or the given one."""
        replacement = escape.replacement_of(
            self._ending_guard.byte_matcher, self.matcher.piece(token)
        )
        if replacement is None:
            self._loop_escape = escape if escape.n_left else None
            return token
        tokens = self.matcher.spell(replacement)
        if len(tokens) == 1:
            self._loop_escape = self._avoided = None
        self.is_shortened = True
        return tokens[0]
