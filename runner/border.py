"""The gentle stop: once the border is closed, no new item begins; those in flight are finished.

Knows no signals and no pipeline: whoever has a reason closes it, or gives it a limit that is asked
before each item. `blocks` and `execute` ask it before they begin anything. Lives in one loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .report import Status

ASKED = "It was asked to stop at an item's border"

Limit = Callable[[int, int], str | None]
"""(items ended, items in flight) → the words with which the border closes, or None."""


class BorderReached(Exception):
    """Something was not begun, since the border is closed; what was in flight is finished."""


class Border:
    """Open until somebody closes it; what was said first stands."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()
        self._limits: list[Limit] = []
        self._n_begun = 0
        self._n_ended = 0
        self.words = ""
        """Why it was closed, a sentence without its full stop."""
        self.status: Status = "budget"
        """How the run that stops here ends; one that has finished all the same is `completed`."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing new may begin."""
        return self._closed.is_set()

    def close(self, words: str, status: Status = "budget") -> None:
        """Let nothing new begin; `words` say why, without a full stop."""
        if not self.is_closed:
            self.words, self.status = words, status
            self._closed.set()

    def left(self, n_items: int) -> str:
        """Say why a run stopped here, and what is left, as far as it is known."""
        items = "1 item is" if n_items == 1 else f"{n_items:,} items are"
        left = items if n_items else "Some steps are"
        return f"{self.words}. {left} left; the same command goes on."

    async def wait(self) -> None:
        """Wait until it is closed."""
        await self._closed.wait()

    def limit(self, reached: Limit) -> None:
        """Ask `reached` before each item."""
        self._limits.append(reached)

    def may_begin(self, *, is_whole: bool = True) -> bool:
        """Tell whether an item may begin; `is_whole`: it has no blocks with items of their own.

        The first whole item may begin whatever the limits say: a budget that is used up before
        anything is done would never get anywhere, however often the run is started again.
        """
        if self.is_closed:
            return False
        if self._n_begun:
            at = (self._n_ended, self._n_begun - self._n_ended)
            words = next(filter(None, (reached(*at) for reached in self._limits)), None)
            if words is not None:
                self.close(words)
                return False
        self._n_begun += is_whole
        return True

    def end(self, *, is_whole: bool = True) -> None:
        """Note that an item which was begun has ended, however it ended."""
        self._n_ended += is_whole
