"""Chunks of a run, carried out at once, and shown to whoever keeps up with them. Knows no Prefect.

The work never waits for being shown: a chunk goes on, and exactly once, whether its Prefect task
could be made, could be ended, or neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from .observer import ItemState, Silent

MOST_WAITING = 1000  # of 4 or 50 items each; a Prefect that is so far behind does not keep up


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Items of a block that are being carried out."""

    block: str
    label: str
    work: asyncio.Future[str]
    """Ends with how it went, in words."""


class Chunks:
    """Implements `paddock.runner.blocks.ChunkRunner`; iterate it to see the chunks begin."""

    def __init__(self) -> None:
        self._begun: asyncio.Queue[Chunk | None] = asyncio.Queue(MOST_WAITING + 1)
        self.n_unseen = 0
        """Chunks that nobody was quick enough to be shown."""

    async def __call__(
        self, block: str, keys: Sequence[str], work: Callable[[], Awaitable[str]]
    ) -> None:
        """Carry out a chunk."""
        label = keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
        running = asyncio.ensure_future(work())
        if self._begun.qsize() < MOST_WAITING:
            self._begun.put_nowait(Chunk(block, label, running))
        else:
            self.n_unseen += 1
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.wait({running})
            raise

    def close(self) -> None:
        """Say that there are no more."""
        self._begun.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield the chunks as they begin, until closed."""
        while (chunk := await self._begun.get()) is not None:
            yield chunk


class Progress(Silent):
    """Counts items as they end."""

    def __init__(self) -> None:
        self.n_items = 0
        self.n_ended = 0

    @property
    def percent(self) -> float:
        """How much is done; a run without items is done."""
        return min(100.0, 100.0 * self.n_ended / self.n_items) if self.n_items else 100.0

    def step(self, step: str, total: int | None, fresh: int) -> None:
        """Count a step's items."""
        self.n_items += total or 0
        self.n_ended += fresh

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        """Count what ended."""
        if state != "running" and "/" not in key:
            self.n_ended += 1
