"""Models of a run: digests, contexts, refusals, calls in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from weakref import WeakValueDictionary

from paddock.engine.backends.neutral_request import RefusalCheck
from paddock.engine.errors import EngineError
from paddock.engine.request import ModelFacts, ModelSpec
from paddock.engine.system.records import Struct, field, replace


class CallInFlight(Struct, weakref=True):
    """A call that some items make at the same time."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    has_failed: bool = False
    """Whether the model or its server failed: the items that wait then ask all at once."""


class RunModels(Struct, eq=False, dict=True):
    _facts: Callable[[ModelSpec], Awaitable[ModelFacts]]
    known: dict[tuple[str, str], ModelFacts] = field(default_factory=dict)
    """Models that were looked up, by pool and name."""
    in_flight: WeakValueDictionary[str, CallInFlight] = field(default_factory=WeakValueDictionary)
    _contexts: dict[tuple[str, str], int | None] = field(default_factory=dict)

    @cached_property
    def refusals(self) -> RefusalCheck:
        return RefusalCheck()

    async def of(self, spec: ModelSpec) -> str:
        """Return the sha256 of the file that a model's name stands for, also of a tuned copy.

        Raises:
            ModelNotFound, ModelBroken: it cannot be used.
        """
        name = spec.key
        if name not in self.known:
            facts = self.known[name] = await self._facts(spec)
            if spec.n_ctx_tokens is None:
                self._contexts[name] = facts.n_ctx_tokens
        return self.known[name].identity

    async def default_context(self, spec: ModelSpec) -> int | None:
        name = spec.key
        if name not in self._contexts:
            try:
                facts = await self._facts(replace(spec, n_ctx_tokens=None))
                self._contexts[name] = facts.n_ctx_tokens
            except EngineError:  # a server that does not tell it
                self._contexts[name] = None
        return self._contexts[name]
