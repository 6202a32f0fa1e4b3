"""Log probabilities of a row, computed after bias and penalties. Pure NumPy.

The likeliest token is then the one that a greedy answer takes. Under a constraint they are those of
the allowed tokens alone, whose probabilities add up to 1. Temperature comes later, so answers can
be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits
from paddock.engine.request import LOWEST_LOGPROB, TokenLogprob

from .logits import FEW_FORBIDDEN_BYTES, N_PRESELECTED, allowed_tokens, log_sum_exp, top_candidates

_ALL_ALLOWED = 0xFF


class RowLogprobs:
    """A row's log probabilities; the row must not change before `of`.

    With a mask (as `TokenMatcher.mask`) they are those of the tokens that it allows.
    """

    def __init__(
        self,
        row: Logits,
        n_top: int,
        piece: Callable[[int], bytes],
        mask: NDArray[np.uint8] | None = None,
    ) -> None:
        self._row = row
        self._piece = piece
        if mask is None:
            self._norm = log_sum_exp(row)
            self._top = top_candidates(row, n_top).tokens[:n_top].tolist() if n_top else []
            return
        forbidding = np.flatnonzero(mask != _ALL_ALLOWED)
        if len(forbidding) > FEW_FORBIDDEN_BYTES:
            self._use_allowed(allowed_tokens(row, mask), n_top)
            return
        # The ids of the tokens that some bytes of a mask forbid
        bits = np.unpackbits(~mask[forbidding], bitorder="little")
        found = np.flatnonzero(bits.view(np.bool_))
        tokens: NDArray[np.intp] = 8 * forbidding[found >> 3] + (found & 7)
        self._norm = log_sum_exp(row, tokens[tokens < len(row)])
        likely = top_candidates(row, n_top + N_PRESELECTED).allowed_by(mask) if n_top else None
        self._top = likely.tokens[:n_top].tolist() if likely is not None else []
        if len(self._top) < n_top or self._norm == -math.inf:
            self._use_allowed(allowed_tokens(row, mask), n_top)

    def _use_allowed(self, allowed: NDArray[np.intp], n_top: int) -> None:
        logits = self._row[allowed]
        self._norm = log_sum_exp(logits)
        if len(allowed) and self._norm == -math.inf:
            # A bias forbids all allowed tokens: the constraint wins, and they are equally likely.
            self._row = np.full_like(self._row, -np.inf)
            self._row[allowed] = logits = np.zeros_like(logits)
            self._norm = math.log(len(allowed))
        if n_top:
            self._top = allowed[top_candidates(logits, n_top).tokens[:n_top]].tolist()
        else:
            self._top = []

    def of(self, token: int) -> TokenLogprob:
        """Return a token's log probability, with the likeliest alternatives."""
        return TokenLogprob(*self._logprob(token), map(self._logprob, self._top))

    def _logprob(self, token: int) -> tuple[bytes, float]:
        # Rounding may exceed 0; a token that leaves a loop is not always among the allowed ones.
        logprob = min(0.0, max(LOWEST_LOGPROB, float(self._row[token]) - self._norm))
        return self._piece(token), logprob
