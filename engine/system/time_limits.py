"""Time limits in which waiting for a free place does not count.

A step or a tool has its time for its own work. Waiting for a resource that others hold, such as a
reader process, is not its work: `not_counted` stops the clock of every limit around it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

_ACTIVE_LIMITS: ContextVar[tuple[asyncio.Timeout, ...]] = ContextVar("time limits", default=())


@asynccontextmanager
async def time_limit(seconds: float | None) -> AsyncIterator[None]:
    """Bound what happens inside, as `asyncio.timeout` does; None: no bound.

    Raises:
        TimeoutError: it took longer.
    """
    async with asyncio.timeout(seconds) as limit:
        token = _ACTIVE_LIMITS.set((*_ACTIVE_LIMITS.get(), limit))
        try:
            yield
        finally:
            _ACTIVE_LIMITS.reset(token)


@contextmanager
def clock_stopped() -> Iterator[None]:
    """Stop the clock of the limits around this; they go on where they were."""
    clock = asyncio.get_running_loop().time
    began = clock()
    stopped = [
        (limit, ends) for limit in _ACTIVE_LIMITS.get() if (ends := limit.when()) is not None
    ]
    for limit, _ in stopped:
        limit.reschedule(None)
    try:
        yield
    finally:
        for limit, ends in stopped:
            if not limit.expired():
                limit.reschedule(ends + clock() - began)
