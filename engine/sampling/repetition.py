"""Notice that an answer goes in circles: the same tokens, over and over. Pure NumPy.

What is legitimate repeats, too: a table's rows, a list of zeros, spaces in code. So a circle must
be long and turn often before it counts as one, and only the very same tokens do.
"""

from __future__ import annotations

from array import array

import numpy as np

EVERY = 32
"""Tokens between two looks: 0.02 ms each, so less than 1 µs a token."""
LONGEST = 512
"""Tokens of the longest circle that is looked for."""
TURNS = 4
SPAN = 192
SPAN_OF_SHORT = 384  # 192 zeros of a list, 384 line breaks
SHORT = 4
"""Tokens of a circle that may well be meant."""
SURE = 8
"""Tokens that must be the same before a distance is measured out."""


class Circles:
    """Looks at one answer's tokens as they come."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._next_look = SPAN

    def feed(self, token: int) -> int:
        """Add a token; gives the length of the circle that it closes, mostly 0."""
        self._tokens.append(token)
        if len(self._tokens) < self._next_look:
            return 0
        self._next_look += EVERY
        return self._look()

    def forget(self) -> None:
        """Begin anew: what was said so far is forgiven."""
        self._tokens = array("i")
        self._next_look = SPAN

    def before(self, period: int) -> int:
        """Give the token that would go on with the circle."""
        return self._tokens[-period]

    def last(self, n_tokens: int) -> list[int]:
        """Give the last tokens."""
        return self._tokens[-n_tokens:].tolist()

    def _look(self) -> int:
        # Backwards: the newest token first.
        tokens = np.frombuffer(self._tokens, np.intc)[: -TURNS * LONGEST - 1 : -1]
        most = min(LONGEST, len(tokens) - SURE)
        periods = np.flatnonzero(tokens[1 : most + 1] == tokens[0]) + 1
        for offset in range(1, SURE):
            periods = periods[tokens[periods + offset] == tokens[offset]]
        for period in periods[:TURNS].tolist():
            others = np.flatnonzero(tokens[period:] != tokens[: len(tokens) - period])
            n_same = int(others[0]) if len(others) else len(tokens) - period
            span = n_same + int(period)
            if span >= max(TURNS * period, SPAN):
                # The shortest decides: six zeros are no longer circle than one.
                return int(period) if period > SHORT or span >= SPAN_OF_SHORT else 0
        return 0
