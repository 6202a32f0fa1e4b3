"""The pool of this machine's service, which is started when a model is first needed.

A run whose items are all fresh asks no model: it starts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Stream,
    Tool,
)

from .settings import Settings

if TYPE_CHECKING:
    from paddock.engine.pool import PoolStats

    from .residence.tenancy import Tenant

Facts = Callable[[ModelSpec], Awaitable[ModelFacts]]


class OnDemandPool:
    """Implements `paddock.engine.request.Pool`; await `ready` before `chat`.

    Where no service can be had, it is a pool inside this process.
    """

    def __init__(self, settings: Settings, tenant: Tenant, facts: Facts) -> None:
        """`facts` tells what is known of a model as long as there is no pool."""
        self._settings = settings
        self._tenant = tenant
        self._facts = facts
        self._stack = AsyncExitStack()
        self._pool: Any = None
        self._opening: asyncio.Task[Pool] | None = None
        self.first_call = asyncio.Event()
        """Set when the first answer or vector is asked for."""

    async def __aenter__(self) -> OnDemandPool:
        """Use a service that runs already."""
        if self._tenant.is_there:
            await self._opened()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what was opened."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        await self._stack.aclose()

    async def ready(self, model: ModelSpec) -> None:
        """Open the pool, unless it is."""
        await self._opened()

    def stats(self) -> PoolStats:
        """Tell what is resident; nothing as long as there is no pool."""
        from paddock.engine.residency.stats import PoolStats

        stats: PoolStats = PoolStats((), {}) if self._pool is None else self._pool.stats()
        return stats

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model without loading it."""
        return await (self._facts if self._pool is None else self._pool.facts)(model)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count the prompt's tokens, the model's chat template included."""
        return await (await self._opened()).count_chat(model, messages, tools)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens."""
        return await (await self._opened()).count_texts(model, texts)

    def chat(self, request: ChatRequest) -> Stream:
        """Queue a request; errors come out of the stream."""
        self.first_call.set()
        stream: Stream = self._pool.chat(request)
        return stream

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts."""
        self.first_call.set()
        return await (await self._opened()).embed(request)

    async def _opened(self) -> Pool:
        """Return the pool, opened once for all callers; one that is cancelled stops nothing."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Pool:
        pool: Any
        if await self._tenant.start():
            from paddock.engine.remote.pool import RemotePool

            pool = RemotePool(self._tenant.place)
        else:
            from paddock.engine.pool import LocalPool

            pool = LocalPool(self._settings.pool)
        self._pool = await self._stack.enter_async_context(pool)
        return self._pool  # type: ignore[no-any-return]
