"""What one rendering may cost: turns, characters, values and time, counted as it goes.

Knows no template: the sandbox tells it what is made. The bounds are generous for what pipelines
do (a digest of 10,000 results takes some 50,000 turns) and far below what hurts a machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Namespace

DEADLINE_S = 3.0
MAX_TURNS = 2_000_000  # about a second of loop turns, calls and filters
MAX_CHARS = 32 * 1024 * 1024  # of one text, the rendered output included
MAX_ALL_CHARS = 128 * 1024 * 1024  # of everything that one rendering makes
MAX_NODES = 1_000_000  # of one list or mapping, counted through what it shares
MAX_RANGE = 100_000
MAX_BITS = 4096  # of a whole number
LOOK_EVERY = 16  # turns between two looks at the clock (50 ns a look)

MACHINERY = (Namespace, LoopContext, Macro)
"""What a template is made with, and no data."""


class Refused(Exception):
    """The template asked for what it may not have; the text is a plain sentence."""


class Meter:
    """What one rendering has cost so far, and the names it was given."""

    __slots__ = ("_chars", "_deadline", "_turns", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = names
        self._turns = 0
        self._chars = 0
        self._deadline = time.monotonic() + DEADLINE_S

    def turn(self) -> None:
        """Count one turn of anything.

        Raises:
            Refused: too many, or too late.
        """
        self._turns += 1
        if self._turns % LOOK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """Look at the clock and at the number of turns."""
        if self._turns > MAX_TURNS:
            raise Refused(f"it takes more than {MAX_TURNS:,} steps")
        if time.monotonic() > self._deadline:
            raise Refused(f"it takes longer than {DEADLINE_S:g} s")

    def made(self, value: Any) -> Any:
        """Account for a value and hand it on."""
        self.turn()
        if isinstance(value, str):
            self.make_text(len(value))
        elif isinstance(value, list | tuple | dict):
            weight(value)
            self.look()
        return value

    def make_text(self, n_chars: int) -> None:
        """Account for a text, if possible before it is made."""
        if n_chars > MAX_CHARS:
            raise Refused(f"it makes a text of more than {MAX_CHARS:,} characters")
        self._chars += n_chars
        if self._chars > MAX_ALL_CHARS:
            raise Refused(f"it makes more than {MAX_ALL_CHARS:,} characters in all")
        if n_chars > 4096:
            self.look()


def weight(value: Any) -> int:
    """Count the values in a list or mapping, shared ones each time, as printing would meet them.

    Raises:
        Refused: there are too many, or something in it is no data.
    """
    count, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, MACHINERY):
            raise Refused("a namespace, macro or `loop` cannot be part of a value")
        count += 1
        if isinstance(item, dict):
            count += len(item)
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        if count + len(waiting) > MAX_NODES:
            raise Refused(f"it makes a list or mapping of more than {MAX_NODES:,} values")
    return count
