"""One row of logits: likeliest tokens, and bias. Pure NumPy.

Likeliest tokens: llama.cpp's chain begins by copying a row into 12 bytes a token (1.8 MB and 0.3 ms
at 151,936 tokens), and `top_k` then drops all but some 40. Here these are found in 40 µs, and the
chain gets nothing else. The result is the same, since later samplers see only what `top_k` leaves.
Where two of the likeliest are equal, llama.cpp itself must order them, and gets the whole row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits

# A row is reshaped to so many lines; one pass finds each column's maximum (15 µs at 151,936 tokens;
# 64 and 256 lines are slower by a tenth).
N_ROW_PARTS = 128
_LOWEST_LOGIT = np.finfo(np.float32).min


class Candidates(NamedTuple):
    """Tokens with their logits, the likeliest first; of equal ones, the lower id first."""

    tokens: NDArray[np.intp]
    logits: Logits

    @property
    def are_distinct(self) -> bool:
        return not (self.logits[1:] == self.logits[:-1]).any()

    def first(self, n: int) -> Candidates:
        return Candidates(self.tokens[:n], self.logits[:n])

    def allowed_by(self, mask: NDArray[np.uint8]) -> Candidates:
        tokens = self.tokens
        keep = (mask[tokens >> 3] >> (tokens & 7).astype(np.uint8) & 1).view(np.bool_)
        return Candidates(tokens[keep], self.logits[keep])


def top_candidates(row: Logits, n: int) -> Candidates:
    """Return the `n` likeliest tokens of a row, and those as likely as the last of them.

    Impossible tokens (minus infinity) are left out, so there may be fewer.
    """
    tokens = _likely_tokens(row, n)
    logits = row[tokens]
    if len(tokens) > n:
        bound = np.partition(logits, len(logits) - n)[len(logits) - n]
        keep = np.flatnonzero(logits >= bound)
        tokens, logits = tokens[keep], logits[keep]
    # Stable, and the tokens are in the order of their ids.
    order = np.argsort(-logits, kind="stable")
    return Candidates(tokens[order], logits[order])


def _likely_tokens(row: Logits, n: int) -> NDArray[np.intp]:
    """Return the ids, in order, of a superset of the `n` likeliest tokens."""
    n_columns = len(row) // N_ROW_PARTS
    if 4 * n > n_columns:
        bound = np.partition(row, len(row) - n)[len(row) - n] if n < len(row) else _LOWEST_LOGIT
        return np.flatnonzero(row >= max(bound, _LOWEST_LOGIT))
    body = row[: N_ROW_PARTS * n_columns].reshape(N_ROW_PARTS, n_columns)
    maxima = body.max(axis=0)
    # In each of n columns there is a logit of at least this.
    bound = max(np.partition(maxima, n_columns - n)[n_columns - n], _LOWEST_LOGIT)
    columns = np.flatnonzero(maxima >= bound)
    found = np.flatnonzero(body.take(columns, axis=1) >= bound)
    lines, places = np.divmod(found, max(1, len(columns)))
    tokens = lines * n_columns + columns[places]
    n_in_lines = N_ROW_PARTS * n_columns
    if n_in_lines == len(row):
        return tokens
    rest = np.flatnonzero(row[n_in_lines:] >= bound)
    return np.concatenate([tokens, rest + n_in_lines])


def allowed_tokens(row: Logits, mask: NDArray[np.uint8]) -> NDArray[np.intp]:
    bits = np.unpackbits(mask, count=len(row), bitorder="little")
    return np.flatnonzero(bits.view(np.bool_))


FORBIDDING_BIAS = -100.0


class LogitBias:
    """Add to the logits of some tokens; -100 or less forbids one.

    >>> row = np.zeros(4, np.float32)
    >>> LogitBias({1: 2.0, 3: -100.0, 99: 1.0}, 4).apply(row)
    >>> row.tolist()
    [0.0, 2.0, 0.0, -inf]
    """

    def __init__(self, bias: Mapping[int, float], n_vocab: int) -> None:
        # Ids beyond the vocabulary cannot be chosen anyway.
        known = {token: value for token, value in bias.items() if 0 <= token < n_vocab}
        self._tokens = np.fromiter(known, np.intp, len(known))
        values = [-np.inf if value <= FORBIDDING_BIAS else value for value in known.values()]
        self._values = np.array(values, np.float32)

    def apply(self, row: Logits) -> None:
        row[self._tokens] += self._values


FEW_FORBIDDEN_BYTES = 1024
"""Bytes of a mask that forbid a token: up to so many, their tokens are taken out of a pass over the
row; of more, the allowed tokens are gathered. A text of JSON has 310 such bytes, a number 6,143."""
N_PRESELECTED = 64
"""Likeliest tokens that are checked against a mask before all others are."""
_LEAST_SHARE = 1e-6
"""Of the likeliest token's: a smaller sum has too few digits, and is computed again."""


def log_sum_exp(logits: Logits, without: NDArray[np.intp] | None = None) -> float:
    """Return the logarithm of the sum of exponentials; minus infinity if all are impossible.

    Some tokens may be left out, by their ids.
    """
    highest = float(logits.max(initial=-np.inf))
    if highest == -math.inf:
        return highest
    shares = logits - np.float32(highest)
    np.exp(shares, out=shares)
    if without is None:
        return highest + math.log(_total(shares))
    shares[without] = 0
    total = _total(shares)
    if total < _LEAST_SHARE:  # what is left is far less likely than what was left out
        return log_sum_exp(np.delete(logits, without))
    return highest + math.log(total)


def _total(shares: Logits) -> float:
    n_in_lines = len(shares) // N_ROW_PARTS * N_ROW_PARTS
    lines = shares[:n_in_lines].reshape(N_ROW_PARTS, -1)
    return float(lines.sum(axis=0).sum()) + float(shares[n_in_lines:].sum())
