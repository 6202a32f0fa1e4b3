"""Repetition: whether an answer says the same tokens over and over, and goes in circles.

Legitimate text repeats, too: a table's rows, a list of zeros, spaces in code. So a loop must be
long and repeat often before it counts, and only identical tokens do.
"""

from __future__ import annotations

from array import array

import numpy as np

CHECK_EVERY_TOKENS = 32
"""Tokens between two checks: 0.02 ms each, so less than 1 µs a token."""
LONGEST_LOOP_TOKENS = 512
LEAST_LOOP_TURNS = 4
LEAST_LOOP_SPAN = 192
LEAST_SHORT_LOOP_SPAN = 384  # 192 zeros of a list, 384 line breaks
SHORT_LOOP_TOKENS = 4
"""Tokens of a loop that may be intended."""
PREFILTER_TOKENS = 8
"""Tokens that must match before a period is checked in full."""


class RepetitionDetector:
    def __init__(self) -> None:
        self._tokens = array("i")
        self._next_check = LEAST_LOOP_SPAN

    def feed(self, token: int) -> int:
        """Add a token; return the length of the loop that it closes, mostly 0."""
        self._tokens.append(token)
        if len(self._tokens) < self._next_check:
            return 0
        self._next_check += CHECK_EVERY_TOKENS
        # Backwards: the newest token first.
        tokens = np.frombuffer(self._tokens, np.intc)[
            : -LEAST_LOOP_TURNS * LONGEST_LOOP_TOKENS - 1 : -1
        ]
        most = min(LONGEST_LOOP_TOKENS, len(tokens) - PREFILTER_TOKENS)
        periods = np.flatnonzero(tokens[1 : most + 1] == tokens[0]) + 1
        for offset in range(1, PREFILTER_TOKENS):
            periods = periods[tokens[periods + offset] == tokens[offset]]
        for period in periods[:LEAST_LOOP_TURNS].tolist():
            others = np.flatnonzero(tokens[period:] != tokens[: len(tokens) - period])
            n_same = int(others[0]) if len(others) else len(tokens) - period
            span = n_same + int(period)
            if span >= max(LEAST_LOOP_TURNS * period, LEAST_LOOP_SPAN):
                # The shortest period decides: six zeros are no longer loop than one.
                is_long = period > SHORT_LOOP_TOKENS or span >= LEAST_SHORT_LOOP_SPAN
                return int(period) if is_long else 0
        return 0

    def reset(self) -> None:
        self._tokens = array("i")
        self._next_check = LEAST_LOOP_SPAN

    def last(self, n_tokens: int) -> list[int]:
        return self._tokens[-n_tokens:].tolist()
