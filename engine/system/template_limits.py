"""Limits on templates, which are untrusted code: steps, time, and the size of what they make.

A template is metered from outside. No single operation may make more than one value's worth, so
nothing runs long between two checks of the clock (`template_sandbox`).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Namespace

DEADLINE_S = 3.0
# A conversation of 1,000 turns takes some 50,000 steps; a million take about a second, in which
# a worker does nothing else.
MAX_STEPS = 1_000_000
MAX_TEXT_CHARS = 32 * 1024 * 1024  # of one text
MAX_ALL_CHARS = 128 * 1024 * 1024  # of all texts that are made
MAX_VALUES = 1_000_000  # of one list or mapping, nested ones included
MAX_BITS = 4096  # of an integer
_CLOCK_CHECK_STEPS = 16  # steps between two checks of the clock, which take 50 ns

JINJA_INTERNALS = (Namespace, LoopContext, Macro)
"""Jinja2's own objects: not data."""

_WIDTH = re.compile(r"\d{4,}|\*|\{[^{}]*\{")
"""In a format: a large width, or one that comes from an argument."""

_T = TypeVar("_T")


class TemplateLimitExceeded(Exception):
    """A template exceeds a limit; the message is a clause, such as "it takes longer than 3 s"."""


class ProcessorTime:
    """Some seconds of the processor for one thread; a machine that stands still takes none of it.

    Its clock is read only when the seconds have passed for everyone: it takes ten times as long.
    """

    __slots__ = ("_ends", "_next_look")

    def __init__(self, seconds: float = DEADLINE_S) -> None:
        self._ends = time.thread_time() + seconds
        self._next_look = time.monotonic() + seconds

    def is_over(self) -> bool:
        """Return whether the seconds are used up; called by the thread that began them."""
        if (now := time.monotonic()) < self._next_look:
            return False
        left = self._ends - time.thread_time()
        self._next_look = now + left
        return left <= 0


class TemplateMeter:
    """Counts what one rendering takes.

    Every method raises `TemplateLimitExceeded` beyond a limit.
    """

    __slots__ = (
        "_max_nested_chars",
        "_max_steps",
        "_n_chars",
        "_n_steps",
        "_time",
        "max_output_chars",
    )

    def __init__(
        self,
        max_steps: int = MAX_STEPS,
        *,
        max_nested_chars: float = MAX_ALL_CHARS,
        max_output_chars: int = MAX_TEXT_CHARS,
    ) -> None:
        """Begin; `max_nested_chars` holds for each list and mapping."""
        self.max_output_chars = max_output_chars
        self._max_steps = max_steps
        self._max_nested_chars = max_nested_chars
        self._n_steps = 0
        self._n_chars = 0
        self._time: ProcessorTime | None = None
        """From the first check on: most templates end before it, and the clock is a system call."""

    def step(self) -> None:
        self._n_steps += 1
        if self._n_steps % _CLOCK_CHECK_STEPS == 0:
            self.check()

    def check(self) -> None:
        if self._n_steps > self._max_steps:
            raise TemplateLimitExceeded(f"it takes more than {self._max_steps:,} steps")
        if self._time is None:
            self._time = ProcessorTime()
        elif self._time.is_over():
            raise TemplateLimitExceeded(f"it takes longer than {DEADLINE_S:g} s")

    def add_text(self, n_chars: int) -> None:
        check_chars(n_chars)
        self._n_chars += n_chars
        if self._n_chars > MAX_ALL_CHARS:
            raise TemplateLimitExceeded(f"it makes more than {MAX_ALL_CHARS:,} characters in all")

    def check_output(self, n_chars: int) -> None:
        if n_chars > self.max_output_chars:
            raise TemplateLimitExceeded(f"it prints more than {self.max_output_chars:,} characters")

    def made(self, value: _T) -> _T:
        self.step()
        if isinstance(value, str):
            self.add_text(len(value))
        elif isinstance(value, list | tuple | dict):
            check_values(value, self._max_nested_chars)
            self.check()
        elif isinstance(value, int):
            check_bits(value.bit_length())
        return value


def check_bits(n_bits: int) -> None:
    if n_bits > MAX_BITS:
        raise TemplateLimitExceeded(f"it makes a number of more than {MAX_BITS:,} bits")


def check_values(value: Any, max_chars: float = MAX_ALL_CHARS) -> int:
    """Return how many values a list or mapping has; shared ones count each time, as in printing.

    Raises:
        TemplateLimitExceeded: there are too many, their texts are too long in all, or one is
            Jinja2's own.
    """
    count = 0
    n_chars = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        count += 1
        if isinstance(item, str):
            n_chars += len(item)
        elif isinstance(item, dict):
            waiting.extend(item.values())
            if max_chars < math.inf:
                n_chars += sum(len(key) for key in item if isinstance(key, str))
                waiting.extend(key for key in item if isinstance(key, tuple))
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, JINJA_INTERNALS):
            raise TemplateLimitExceeded(f"a {type(item).__name__} cannot be part of a value")
        if n_chars > max_chars:
            raise TemplateLimitExceeded(f"it makes more than {max_chars:,} characters in all")
        if count + len(waiting) > MAX_VALUES:
            raise TemplateLimitExceeded(
                f"it makes a list or mapping of more than {MAX_VALUES:,} values"
            )
    return count


def check_chars(n_chars: int) -> None:
    if n_chars > MAX_TEXT_CHARS:
        raise TemplateLimitExceeded(f"it makes a text of more than {MAX_TEXT_CHARS:,} characters")


def check_repeat(left: Any, right: Any) -> None:
    value, times = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(times, int):
        return
    if isinstance(value, str):
        check_chars(len(value) * times)
    elif isinstance(value, list | tuple) and check_values(value, math.inf) * times > MAX_VALUES:
        raise TemplateLimitExceeded(f"it makes a list of more than {MAX_VALUES:,} values")


def check_format(
    text: str, values: Iterable[Any], written: Callable[[Any], str], mark: str = "%"
) -> None:
    """Check the widths of a format, and the longest text that it can make of values."""
    if _WIDTH.search(text):
        raise TemplateLimitExceeded("a width in its format has more than three digits")
    longest = max((len(written(value)) for value in values), default=0)
    check_chars(len(text) + text.count(mark) * (1000 + longest))
