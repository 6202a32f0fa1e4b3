"""A run's pool in this machine's service, which starts at the first model call."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from paddock.engine.memory.pool_stats import PoolStats
from paddock.engine.request import ChatRequest, ForwardingPool, ModelFacts, ModelSpec, Pool, Stream
from paddock.runner.core.model_pools import LookupPool, local_pool
from paddock.runner.settings import Settings

from .daemon_session import DaemonSession


class OnDemandPool(ForwardingPool):
    """A pool that opens at its first use; await `ready` before `chat`.

    Without a service, it opens a pool inside this process.
    """

    def __init__(self, settings: Settings, session: DaemonSession) -> None:
        self._settings = settings
        self._session = session
        self._facts = LookupPool(settings).facts
        """Looks models up while there is no pool."""
        self._stack = AsyncExitStack()
        self._pool: Any = None
        self._opening: asyncio.Task[Pool] | None = None

    async def __aenter__(self) -> OnDemandPool:
        """Use the service if it is running."""
        if self._session.is_there:
            await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        await self._stack.aclose()

    async def ready(self, model: ModelSpec) -> None:
        await self._opened()

    def stats(self) -> PoolStats:
        """Return the pool's stats; empty while there is no pool."""
        stats: PoolStats = PoolStats((), {}) if self._pool is None else self._pool.stats()
        return stats

    async def facts(self, model: ModelSpec) -> ModelFacts:
        return await (self._facts if self._pool is None else self._pool.facts)(model)

    def chat(self, request: ChatRequest) -> Stream:
        stream: Stream = self._pool.chat(request)
        return stream

    async def pool_of(self, model: ModelSpec) -> Pool:
        return await self._opened()

    async def _opened(self) -> Pool:
        """Return the pool, opened once for all callers; a cancelled caller stops nothing."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Pool:
        pool: Any
        if await self._session.start():
            from paddock.engine.backends.rpc import RemotePool  # brings numpy, which a plan lacks

            pool = RemotePool(self._session.place)
        else:
            pool = local_pool(self._settings)
        self._pool = await self._stack.enter_async_context(pool)
        return self._pool  # type: ignore[no-any-return]
