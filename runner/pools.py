"""Open the pool that a bound plan's models are asked from, and look every model up.

Knows no step and no ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from paddock.engine.errors import EngineError
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    ModelFacts,
    ModelSpec,
    Pool,
    Stream,
)

from .binding.bound import BoundPlan
from .body import steps_of
from .calls import Digests
from .settings import Settings


@asynccontextmanager
async def opened_pool(
    bound: BoundPlan,
    settings: Settings,
    *,
    given: Pool | None = None,
    is_plan: bool = False,
) -> AsyncIterator[tuple[Digests, Pool]]:
    """Give the models' digests and the pool; every named model is looked up before the start.

    `given` serves instead of any other; a plan only looks up and gets no pool of its own.

    Raises:
        EngineError: a model that the pipeline names cannot be used.
    """
    specs = models_of(bound)
    if given is not None or not specs:
        pool: Pool = given or NoPool()
        yield await _looked_up(Digests(pool.facts), specs), pool
        return
    from paddock.engine.models import ModelFinder, with_context

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)

    async def facts(spec: ModelSpec) -> ModelFacts:
        found = await asyncio.to_thread(finder.find, spec.ref, settings.pool.n_ctx_tokens)
        return with_context(found, spec.n_ctx_tokens)

    digests = await _looked_up(Digests(facts), specs)
    if is_plan:
        yield digests, NoPool()
        return
    from paddock.engine.pool import LocalPool

    async with LocalPool(settings.pool, models=finder) as local:
        yield digests, local


def models_of(bound: BoundPlan) -> dict[str, ModelSpec]:
    """Give the models that a plan's steps name, by their references."""
    models = (step.model for step in steps_of(bound.nodes))
    return {spec.ref: spec for spec in models if spec is not None}


async def _looked_up(digests: Digests, specs: dict[str, ModelSpec]) -> Digests:
    for spec in specs.values():
        await digests.of(spec)
    return digests


class NoPool:
    """The pool of pipelines that name no model."""

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Refuse."""
        raise self._refusal(model)

    async def count_chat(self, model: ModelSpec, messages: object) -> int:
        """Refuse."""
        raise self._refusal(model)

    async def count_texts(self, model: ModelSpec, texts: object) -> list[int]:
        """Refuse."""
        raise self._refusal(model)

    def chat(self, request: ChatRequest) -> Stream:
        """Refuse."""
        raise self._refusal(request.model)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Refuse."""
        raise self._refusal(request.model)

    @staticmethod
    def _refusal(model: ModelSpec) -> EngineError:
        return EngineError(f"model '{model.ref}' is asked for by a step that declares no model.")
