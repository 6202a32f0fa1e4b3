"""A pool as other machines may ask it: models by their names, never by the path of a file.

Whoever may ask for an answer may not therefore have files of this machine read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paddock.engine.api.openai.wishes import ref_of
from paddock.engine.errors import BadRequest
from paddock.engine.remote.door import AskedPool
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Stream,
    Tool,
)
from paddock.engine.residency.stats import PoolStats


class NamedPool:
    """Implements `AskedPool` over another one. Raises `InvalidName` where a path is named."""

    def __init__(self, pool: AskedPool) -> None:
        self._pool = pool

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model, but not where its files lie."""
        facts = await self._pool.facts(_named(model))
        return replace(facts, path=facts.name)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens."""
        return await self._pool.count_chat(_named(model), messages, tools)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens."""
        return await self._pool.count_texts(_named(model), texts)

    def chat(self, request: ChatRequest) -> Stream:
        """Queue a request."""
        return self._pool.chat(replace(request, model=_named(request.model)))

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts."""
        return await self._pool.embed(replace(request, model=_named(request.model)))

    async def load(self, model: ModelSpec) -> float:
        """Bring a model into memory."""
        return await self._pool.load(_named(model))

    async def unload(self, ref: str) -> bool:
        """Let a model go."""
        return await self._pool.unload(ref_of(ref))

    def stats(self) -> PoolStats:
        """Tell what is resident, but not in which processes."""
        stats = self._pool.stats()
        return replace(stats, resident=tuple(replace(one, pid=None) for one in stats.resident))


def _named(model: ModelSpec) -> ModelSpec:
    if model.adapters:
        raise BadRequest("adapters can only be laid over a model on the machine that has them")
    return replace(model, ref=ref_of(model.ref))
