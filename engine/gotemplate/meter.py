"""What one carrying-out of a template may cost: a template is code from elsewhere."""

from __future__ import annotations

import time

from .errors import GoTemplateError

# As generous as the bounds of the pipelines' expressions: a conversation of 1,000 turns takes
# some 50,000 steps, and a second goes by after about a million.
MAX_STEPS = 2_000_000
DEADLINE_S = 5.0
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
            GoTemplateError: too many, or too late.
        """
        self._n_steps += 1
        if self._n_steps % _LOOK_EVERY:
            return
        if self._n_steps > MAX_STEPS:
            raise GoTemplateError(self.line, f"it takes more than {MAX_STEPS:,} steps")
        if time.monotonic() > self._deadline:
            raise GoTemplateError(self.line, f"it takes longer than {DEADLINE_S:g} s")

    def printed(self, text: str) -> None:
        """Account for a part of the output."""
        self._n_chars += len(text)
        if self._n_chars > MAX_CHARS:
            raise GoTemplateError(self.line, f"it prints more than {MAX_CHARS:,} characters")

    def making(self, n_chars: int) -> None:
        """Account for a text, if possible before it is made."""
        self._n_all_chars += n_chars
        if n_chars > MAX_CHARS or self._n_all_chars > MAX_ALL_CHARS:
            raise GoTemplateError(self.line, "it makes too large texts")

    def enter(self) -> None:
        """Go one level deeper."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise GoTemplateError(self.line, f"it goes deeper than {MAX_DEPTH} levels")

    def leave(self) -> None:
        """Come back."""
        self._depth -= 1
