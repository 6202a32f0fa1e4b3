"""One server as `spread` sees it: whether it is up, how busy it is, and what it has in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from paddock.engine.elsewhere.any_server import Server
from paddock.engine.elsewhere.choice import Seen
from paddock.engine.elsewhere.faults import Away, Later
from paddock.engine.errors import EngineError
from paddock.engine.request import ModelFacts, ModelSpec

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
PULSE_ANSWER_S = 10.0
MOST_MISSES = 3

Key = tuple[str, str, int | None]
"""A model as it is asked for: name, role, context."""

_T = TypeVar("_T")


class Member:
    """What is known of a server, kept by whoever asks it. Lives in one event loop."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.reason = ""
        """Why it was down last."""
        self.n_running = 0
        self.down_since: float | None = None
        """By the loop's clock; None: it is up."""
        self.facts: dict[Key, ModelFacts] = {}
        """Of the models that it has been seen to have."""
        self._fallen = asyncio.Event()
        self._paused_until = 0.0
        self._n_pauses = 0
        self._n_misses = 0
        self._n_slots: dict[Key, int | None] = {}
        self._resident: dict[Key, bool | None] = {}

    @property
    def is_up(self) -> bool:
        """Whether it answered last time."""
        return self.down_since is None

    def seen(self, key: Key, *, failed_before: bool) -> Seen:
        """Tell how it is, for the choice."""
        is_open = asyncio.get_running_loop().time() >= self._paused_until
        return Seen(
            self.is_up and is_open and key in self.facts,
            self.n_running,
            self._n_slots.get(key),
            self._resident.get(key),
            failed_before,
        )

    async def look(self, spec: ModelSpec, *, anew: bool = False) -> ModelFacts:
        """Ask for a model.

        Raises:
            Away, Later, EngineError: as the server says.
        """
        facts = await self.server.facts(spec, anew=anew)
        self._n_slots[key_of(spec)] = await self.server.n_slots(spec)
        return facts

    def n_parallel(self, key: Key) -> int:
        """Return how many requests of a model it computes at once; 0: it does not tell."""
        return self._n_slots.get(key) or self.facts[key].n_parallel

    def fell(self, reason: str) -> bool:
        """Note that it is gone, for all that run there too; tells whether that is new."""
        if not self.is_up:
            return False
        self.reason = reason
        self.down_since = asyncio.get_running_loop().time()
        self._fallen.set()
        return True

    def rose(self) -> None:
        """Note that it is back."""
        self.down_since = None
        self._fallen = asyncio.Event()
        self._paused_until, self._n_pauses, self._n_misses = 0.0, 0, 0

    def pause(self, after_s: float | None) -> float:
        """Leave it alone for a while; gives how long."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._paused_until:
            self._n_pauses += 1
        pause_s = pause_after(self._n_pauses) if after_s is None else after_s
        self._paused_until = max(self._paused_until, loop.time() + pause_s)
        return pause_s

    def succeeded(self) -> None:
        """Note that it took a request."""
        self._n_pauses = 0

    async def pulse(self, specs: list[ModelSpec]) -> bool:
        """See whether it still answers, and what it has in memory; tells whether it fell by it."""
        if not await self.server.is_alive(PULSE_ANSWER_S):
            self._n_misses += 1
            is_gone = self._n_misses >= MOST_MISSES
            return is_gone and self.fell(f"{self.server.url} does not answer any more")
        self._n_misses = 0
        for spec in specs:
            if key_of(spec) in self.facts:
                with suppress(Away, Later, EngineError):
                    self._resident[key_of(spec)] = await self.server.is_resident(spec)
        return False

    async def while_up(self, work: Awaitable[_T]) -> _T:
        """Wait for what is asked there, until the server is known to be gone.

        Raises:
            Away: it is gone.
        """
        task = asyncio.ensure_future(work)
        fallen = asyncio.create_task(self._fallen.wait())
        try:
            await asyncio.wait({task, fallen}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Away(self.reason, was_sent=True)
            return task.result()
        finally:
            for one in (task, fallen):
                one.cancel()
            await asyncio.wait({task, fallen})
            if not task.cancelled():
                task.exception()  # seen


def key_of(spec: ModelSpec) -> Key:
    """Give what a model is known by at a server."""
    return spec.ref, spec.role, spec.n_ctx_tokens


def pause_after(n_failures: int) -> float:
    """Give how long to wait after so many failures in a row.

    >>> [pause_after(n) for n in (1, 2, 3, 20)]
    [0.5, 1.0, 2.0, 30.0]
    """
    return min(FIRST_PAUSE_S * 2.0 ** min(n_failures - 1, 10), LONGEST_PAUSE_S)
