"""Make tokens likelier or less likely, as a request asks. Pure NumPy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from paddock.engine.arrays import Logits

FORBIDS = -100.0


class Bias:
    """Added to the logits of some tokens; -100 and less forbids one.

    >>> row = np.zeros(4, np.float32)
    >>> Bias({1: 2.0, 3: -100.0, 99: 1.0}, 4).apply(row)
    >>> row.tolist()
    [0.0, 2.0, 0.0, -inf]
    """

    def __init__(self, bias: Mapping[int, float], n_vocab: int) -> None:
        # Ids beyond the vocabulary were meant for another model; they can never be chosen anyway.
        known = {token: value for token, value in bias.items() if 0 <= token < n_vocab}
        self._tokens = np.fromiter(known, np.intp, len(known))
        values = [-np.inf if value <= FORBIDS else value for value in known.values()]
        self._values = np.array(values, np.float32)

    def apply(self, row: Logits) -> None:
        """Change a row in place."""
        row[self._tokens] += self._values
