"""Who waits until a store has written what they want to keep, and who of them is served next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from .catalogue import Label
from .rows import Wish

BATCH_WISHES, BATCH_ROWS = 64, 20_000
"""So much is written in one commit at most: it is held in memory, and lost with a kill."""


@dataclass(eq=False)
class Waiting:
    """One wish. It is told how it ended from whichever thread; a loop owns it."""

    wish: Wish
    label: Label
    written: asyncio.Future[int] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """How many rows were written."""

    def succeed(self, n_rows: int) -> None:
        """Tell that it is written."""
        self._settle(lambda: self.written.set_result(n_rows))

    def fail(self, error: BaseException) -> None:
        """Tell why it is not."""
        self._settle(lambda: self.written.set_exception(error))

    def _settle(self, tell: Callable[[], None]) -> None:
        def told() -> None:
            if not self.written.done():
                tell()

        self.written.get_loop().call_soon_threadsafe(told)


class Line:
    """Those who wait, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []

    def join(self, wish: Wish, label: Label) -> Waiting:
        """Wait from now on."""
        waiting = Waiting(wish, label)
        self._waiting.append(waiting)
        return waiting

    def leave(self, waiting: Waiting) -> None:
        """Wait no longer."""
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        waiting.written.cancel()

    def batch(self) -> list[Waiting]:
        """Take who is served next: a step of an owner once, and a bounded number of rows."""
        batch: list[Waiting] = []
        taken: set[tuple[str, str]] = set()
        n_rows = 0
        for one in list(self._waiting):
            name = (one.wish.owner, one.wish.step)
            n_rows += len(one.wish.rows)
            if batch and (name in taken or n_rows > BATCH_ROWS or len(batch) >= BATCH_WISHES):
                break
            taken.add(name)
            batch.append(one)
            self._waiting.remove(one)
        return batch
