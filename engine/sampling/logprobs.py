"""Log probabilities of chosen tokens. Pure NumPy.

They are taken after bias and, in greedy answers, after penalties: the likeliest token is then the
one that is chosen. Constraint and temperature come later, so answers can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from paddock.engine.arrays import Logits
from paddock.engine.request import TokenLogprob

from .candidates import likeliest


class RowLogprobs:
    """A row's log probabilities; the row must not change before `of`."""

    def __init__(self, row: Logits, n_top: int, piece: Callable[[int], bytes]) -> None:
        self._row = row
        self._piece = piece
        highest = float(row.max())
        shares = row - np.float32(highest)
        np.exp(shares, out=shares)
        self._norm = highest + math.log(float(shares.sum()))
        self._top = likeliest(row, n_top).tokens[:n_top].tolist() if n_top else []

    def of(self, token: int) -> TokenLogprob:
        """Tell of a chosen token, with the likeliest ones beside it."""
        top = tuple(self._told(other) for other in self._top)
        text, logprob, raw = self._told(token)
        return TokenLogprob(text, logprob, raw, top)

    def _told(self, token: int) -> tuple[str, float, bytes]:
        raw = self._piece(token)
        return raw.decode(errors="replace"), float(self._row[token]) - self._norm, raw
