"""The tasks of a run that Prefect shows: steps, blocks, and chunks of a block's items.

Knows no Prefect. The work never waits for being shown: it goes on, exactly once, whether its
Prefect task could be made, could be ended, or neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .border import BorderReached
from .observer import ItemState, Silent
from .report import STATES

Redact = Callable[[str], str]
MOST_WAITING = 1000  # of 4 or 50 items each; a Prefect that is so far behind does not keep up


@dataclass(frozen=True, slots=True)
class PrefectState:
    """The state of a run or a task; on Prefect's page `type` is the colour, `name` the text."""

    type: Literal["COMPLETED", "FAILED", "CANCELLED", "CRASHED", "RUNNING"]
    name: str
    message: str = ""


def completed(message: str) -> PrefectState:
    """Return the state of what succeeded: green."""
    return PrefectState("COMPLETED", "Completed", message)


def quarantined(message: str) -> PrefectState:
    """Return the state of what quarantined items that were not before: red, with its own name."""
    return PrefectState("FAILED", "Quarantined", message)


def counted(counts: Mapping[str, int]) -> str:
    """Return the numbers of items in words.

    >>> counted({"quarantined": 1, "new": 8, "fresh": 0})
    '8 new, 1 quarantined'
    """
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts.get(state))


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A top-level step or block, or some items of a block, while they are carried out."""

    block: str
    label: str
    """Names the items; empty for a whole step or block."""
    work: asyncio.Future[PrefectState]
    """Ends with the state to show."""
    redact: Redact
    """Keeps secrets out of what is shown of an error."""

    @property
    def name(self) -> str:
        """What Prefect's page calls it."""
        return f"{self.block}: {self.label}" if self.label else self.block

    def state(self) -> PrefectState:
        """Return the state that Prefect shows now."""
        if not self.work.done():
            return PrefectState("RUNNING", "Running")
        if self.work.cancelled():
            return PrefectState("CANCELLED", "Cancelled", "interrupted")
        error = self.work.exception()
        if isinstance(error, BorderReached):
            return PrefectState("CANCELLED", "Cancelled", "left for the next run")
        if error is not None:
            return PrefectState("FAILED", "Failed", self.redact(str(error)))
        return self.work.result()


class Chunks:
    """Implements `paddock.runner.blocks.ChunkRunner`; iterate it to see the chunks begin."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self._begun: asyncio.Queue[Chunk | None] = asyncio.Queue(MOST_WAITING + 1)
        self.n_unseen = 0
        """Chunks that came faster than they could be shown."""

    async def __call__(
        self, block: str, keys: Sequence[str], work: Callable[[], Awaitable[PrefectState]]
    ) -> None:
        """Carry out a chunk; without keys it is the whole of a step or block."""
        label = f"{keys[0]} and {len(keys) - 1} more" if keys[1:] else "".join(keys)
        running = asyncio.ensure_future(work())
        if self._begun.qsize() < MOST_WAITING:
            self._begun.put_nowait(Chunk(block, self._redact(label), running, self._redact))
        else:
            self.n_unseen += 1
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.wait({running})
            raise

    def close(self) -> None:
        """End the iteration."""
        self._begun.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield the chunks as they begin, until closed."""
        while (chunk := await self._begun.get()) is not None:
            yield chunk


class Progress(Silent):
    """How much of a run is done: the mean of its steps and blocks, so that it never goes back."""

    def __init__(self, steps: Iterable[str]) -> None:
        """`steps` are the names that the observer is told, as `body.watched` gives them."""
        self._n_items: dict[str, int] = dict.fromkeys(steps, 1)
        self._n_ended: dict[str, int] = dict.fromkeys(self._n_items, 0)

    @property
    def percent(self) -> float:
        """The share of the work that is done, from 0 to 100."""
        shares = [
            min(1.0, self._n_ended[step] / n) if n else 1.0 for step, n in self._n_items.items()
        ]
        return round(100.0 * sum(shares) / len(shares), 1) if shares else 0.0

    def step(self, step: str, total: int | None, fresh: int) -> None:
        """Take the number of a step's items."""
        if step in self._n_items:
            self._n_items[step] = 1 if total is None else total
            self._n_ended[step] = fresh

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        """Count what ended."""
        if step in self._n_items and state != "running":
            self._n_ended[step] += 1
