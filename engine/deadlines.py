"""Two clocks for a running request: the whole of it, and the time without a step."""

from __future__ import annotations

import asyncio
from types import TracebackType

from paddock.engine.errors import DeadlineExceeded


class Deadlines:
    """An asynchronous context that is left with `DeadlineExceeded` when a clock runs out.

    Both clocks start with the first `step`: waiting in a queue does not count. A prompt that is
    being read makes steps as well as an answer that grows.
    """

    def __init__(self, total_s: float | None, idle_s: float | None) -> None:
        self._total_s = total_s
        self._idle_s = idle_s
        self._total = asyncio.timeout(None)
        self._idle = asyncio.timeout(None)
        self._has_started = False

    def step(self) -> None:
        """Note that the request has moved."""
        now = asyncio.get_running_loop().time()
        if self._idle_s is not None and not self._idle.expired():
            self._idle.reschedule(now + self._idle_s)
        if self._total_s is not None and not self._has_started:
            self._total.reschedule(now + self._total_s)
        self._has_started = True

    async def __aenter__(self) -> Deadlines:
        """Begin to watch."""
        await self._total.__aenter__()
        await self._idle.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching; say which clock ran out."""
        try:
            await self._idle.__aexit__(kind, error, trace)
        except TimeoutError as late:
            await self._total.__aexit__(type(late), late, late.__traceback__)
            raise DeadlineExceeded("idle", self._idle_s or 0.0) from None
        try:
            await self._total.__aexit__(kind, error, trace)
        except TimeoutError:
            raise DeadlineExceeded("total", self._total_s or 0.0) from None
