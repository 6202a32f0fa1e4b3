"""Be the only one at something, without holding up the event loop while another one is at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

from paddock.engine.errors import EngineError, StoreFull, StoreReadOnly
from paddock.engine.store.layout import Store

from .disk import beside

_LOOK_AGAIN_S = 0.2


@asynccontextmanager
async def alone(store: Store, what: str, waiting: Callable[[], object]) -> AsyncIterator[None]:
    """Hold the store's lock of `what`; `waiting` is called now and then until it is ours.

    Raises:
        StoreReadOnly, StoreFull: the lock's file cannot be made.
    """
    while True:
        attempt = _Attempt(store.lock(what, 0.0))
        try:
            await beside(attempt.enter)
        except asyncio.CancelledError:
            attempt.leave()
            raise
        if attempt.is_ours:
            break
        waiting()
        await asyncio.sleep(_LOOK_AGAIN_S)
    try:
        yield
    finally:
        attempt.leave()


class _Attempt:
    """One look at a lock."""

    def __init__(self, lock: AbstractContextManager[None]) -> None:
        self.is_ours = False
        self._lock = lock

    def enter(self) -> None:
        try:
            self._lock.__enter__()
        except (StoreReadOnly, StoreFull):
            raise
        except EngineError:
            return  # another one has it
        self.is_ours = True

    def leave(self) -> None:
        """Give it back; a single system call, so done on the event loop."""
        if self.is_ours:
            self.is_ours = False
            self._lock.__exit__(None, None, None)
