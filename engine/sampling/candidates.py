"""Find the few likeliest tokens of a row, and choose among them as among all. Pure NumPy.

llama.cpp's chain begins by copying a row into 12 bytes a token: 1.8 MB at 151,936 tokens, 0.3 ms.
With `top_k` it then drops all but some 40 of them. Those are found here in 40 µs, and the chain
gets nothing else. Its answer is the same, since what comes after `top_k` sees only what that
leaves; where two of the likeliest are equal, llama.cpp itself must order them, and it gets the
whole row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Logits

# A row is read as so many lines; each column's maximum is found in one pass (15 µs at 151,936
# tokens; 64 and 256 lines are slower by a tenth).
N_LINES = 128
_LOWEST = np.finfo(np.float32).min


class Candidates(NamedTuple):
    """Tokens with their logits, the likeliest first; of equal ones, the lower id first."""

    tokens: NDArray[np.intp]
    logits: Logits

    @property
    def are_distinct(self) -> bool:
        """Whether no two logits are equal, so that there is only one order."""
        return not (self.logits[1:] == self.logits[:-1]).any()

    def first(self, n: int) -> Candidates:
        """Return the `n` likeliest."""
        return Candidates(self.tokens[:n], self.logits[:n])

    def allowed_by(self, mask: NDArray[np.uint8]) -> Candidates:
        """Return those whose bit is set; the lowest bit of a byte comes first."""
        tokens = self.tokens
        keep = (mask[tokens >> 3] >> (tokens & 7).astype(np.uint8) & 1).view(np.bool_)
        return Candidates(tokens[keep], self.logits[keep])


def likeliest(row: Logits, n: int) -> Candidates:
    """Return the `n` likeliest tokens of a row, and those that are as likely as the last of them.

    Tokens that are impossible (minus infinity) are left out, so there may be fewer.
    """
    tokens = _at_least(row, n)
    logits = row[tokens]
    if len(tokens) > n:
        bound = np.partition(logits, len(logits) - n)[len(logits) - n]
        keep = np.flatnonzero(logits >= bound)
        tokens, logits = tokens[keep], logits[keep]
    # Stable, and the tokens are in the order of their ids.
    order = np.argsort(-logits, kind="stable")
    return Candidates(tokens[order], logits[order])


def _at_least(row: Logits, n: int) -> NDArray[np.intp]:
    """Return the ids, in order, of tokens among which the `n` likeliest are."""
    n_columns = len(row) // N_LINES
    if 4 * n > n_columns:
        bound = np.partition(row, len(row) - n)[len(row) - n] if n < len(row) else _LOWEST
        return np.flatnonzero(row >= max(bound, _LOWEST))
    body = row[: N_LINES * n_columns].reshape(N_LINES, n_columns)
    maxima = body.max(axis=0)
    # In each of n columns there is a logit of at least this.
    bound = max(np.partition(maxima, n_columns - n)[n_columns - n], _LOWEST)
    columns = np.flatnonzero(maxima >= bound)
    found = np.flatnonzero(body.take(columns, axis=1) >= bound)
    lines, places = np.divmod(found, max(1, len(columns)))
    tokens = lines * n_columns + columns[places]
    n_in_lines = N_LINES * n_columns
    if n_in_lines == len(row):
        return tokens
    rest = np.flatnonzero(row[n_in_lines:] >= bound)
    return np.concatenate([tokens, rest + n_in_lines])


def allowed_of(row: Logits, mask: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the ids of the tokens that a mask allows, in order."""
    bits = np.unpackbits(mask, count=len(row), bitorder="little")
    return np.flatnonzero(bits.view(np.bool_))
