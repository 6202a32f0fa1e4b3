"""What one carrying-out of a template may cost: a template is code from elsewhere."""

from __future__ import annotations

import time

from .errors import GoTemplateExhausted

# A conversation of 1,000 turns takes some 50,000 steps; a million take about a second, in which
# the same worker hears nobody else.
MAX_STEPS = 1_000_000
DEADLINE_S = 3.0
MAX_CHARS = 32 * 1024 * 1024  # of one text, the output included
MAX_ALL_CHARS = 128 * 1024 * 1024  # of all texts that are made
MAX_DEPTH = 100  # of blocks and templates within each other; 6 frames of Python each at most
_LOOK_EVERY = 256  # steps between two looks at the clock


class Meter:
    """Counts steps, characters and depth; `line` is where the template stands."""

    __slots__ = ("_deadline", "_depth", "_n_all_chars", "_n_chars", "_n_steps", "line")

    def __init__(self) -> None:
        self.line = 1
        self._n_steps = 0
        self._n_chars = 0
        self._n_all_chars = 0
        self._depth = 0
        self._deadline = time.monotonic() + DEADLINE_S

    def step(self) -> None:
        """Count one step.

        Raises:
            GoTemplateExhausted: too many, or too late.
        """
        self._n_steps += 1
        if self._n_steps % _LOOK_EVERY:
            return
        if self._n_steps > MAX_STEPS:
            raise GoTemplateExhausted(self.line, f"it takes more than {MAX_STEPS:,} steps")
        if time.monotonic() > self._deadline:
            raise GoTemplateExhausted(self.line, f"it takes longer than {DEADLINE_S:g} s")

    def printed(self, text: str) -> None:
        """Account for a part of the output."""
        self._n_chars += len(text)
        if self._n_chars > MAX_CHARS:
            raise GoTemplateExhausted(self.line, f"it prints more than {MAX_CHARS:,} characters")

    def making(self, n_chars: int) -> None:
        """Account for a text, if possible before it is made."""
        self._n_all_chars += n_chars
        if n_chars > MAX_CHARS or self._n_all_chars > MAX_ALL_CHARS:
            raise GoTemplateExhausted(self.line, "it makes too large texts")

    def enter(self) -> None:
        """Go one level deeper."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise GoTemplateExhausted(self.line, f"it goes deeper than {MAX_DEPTH} levels")

    def leave(self) -> None:
        """Come back."""
        self._depth -= 1
