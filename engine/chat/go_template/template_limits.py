"""Errors of a Go template, and the limits on its execution: steps, time, depth, output.

Templates are untrusted code. The Jinja sandbox has the same limits.
"""

from __future__ import annotations

import time


class GoTemplateError(Exception):
    """A template that cannot be parsed or executed."""

    def __init__(self, line: int, why: str) -> None:
        self.line = line
        self.why = why
        super().__init__(f"line {line}: {why}")


class GoTemplateSyntaxError(GoTemplateError):
    """A template that cannot be parsed."""


class GoTemplateExhausted(GoTemplateError):
    """A template that exceeds a limit."""


# A conversation of 1,000 turns takes some 50,000 steps; a million take about a second, in which
# the worker does nothing else.
MAX_TEMPLATE_STEPS = 1_000_000
TEMPLATE_DEADLINE_S = 3.0
MAX_TEXT_CHARS = 32 * 1024 * 1024  # of one text, the output included
MAX_OUTPUT_CHARS = 128 * 1024 * 1024  # of all texts that are made
MAX_DEPTH = 100  # of nested blocks and templates; each takes at most 6 Python frames
_CHECK_EVERY_STEPS = 256  # steps between two looks at the clock


class TemplateMeter:
    """Counts steps, characters and depth; `line` is the line in execution."""

    __slots__ = ("_deadline", "_depth", "_n_all_chars", "_n_chars", "_n_steps", "line")

    def __init__(self) -> None:
        self.line = 1
        self._n_steps = 0
        self._n_chars = 0
        self._n_all_chars = 0
        self._depth = 0
        self._deadline = time.monotonic() + TEMPLATE_DEADLINE_S

    def step(self) -> None:
        """Count one step.

        Raises:
            GoTemplateExhausted: too many, or too late.
        """
        self._n_steps += 1
        if self._n_steps % _CHECK_EVERY_STEPS:
            return
        if self._n_steps > MAX_TEMPLATE_STEPS:
            raise GoTemplateExhausted(self.line, f"it takes more than {MAX_TEMPLATE_STEPS:,} steps")
        if time.monotonic() > self._deadline:
            raise GoTemplateExhausted(self.line, f"it takes longer than {TEMPLATE_DEADLINE_S:g} s")

    def printed(self, text: str) -> None:
        """Count a part of the output."""
        self._n_chars += len(text)
        if self._n_chars > MAX_TEXT_CHARS:
            raise GoTemplateExhausted(
                self.line, f"it prints more than {MAX_TEXT_CHARS:,} characters"
            )

    def making(self, n_chars: int) -> None:
        """Count a text, if possible before it is made."""
        self._n_all_chars += n_chars
        if n_chars > MAX_TEXT_CHARS or self._n_all_chars > MAX_OUTPUT_CHARS:
            raise GoTemplateExhausted(self.line, "it makes too large texts")

    def enter(self) -> None:
        """Enter a block."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise GoTemplateExhausted(self.line, f"it goes deeper than {MAX_DEPTH} levels")

    def leave(self) -> None:
        """Leave a block."""
        self._depth -= 1
