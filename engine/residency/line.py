"""Those who wait outside for one model, each priority in its own order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.request import Priority

from .resident import Ask

_ORDER: tuple[Priority, ...] = ("interactive", "normal", "batch")


@dataclass(slots=True, eq=False)
class Caller:
    """One request outside; `place` will be the resident that takes it."""

    ask: Ask
    since: float
    place: asyncio.Future[Any]


@dataclass(slots=True)
class Line:
    """The callers of one model."""

    _callers: dict[Priority, deque[Caller]] = field(
        default_factory=lambda: {priority: deque() for priority in _ORDER}
    )

    def __len__(self) -> int:
        """Count those who wait."""
        return sum(len(callers) for callers in self._callers.values())

    def __iter__(self) -> Iterator[Caller]:
        """Give all, the more urgent first, each priority in its order of arrival."""
        return (caller for priority in _ORDER for caller in self._callers[priority])

    def add(self, caller: Caller) -> None:
        """Let one wait."""
        self._callers[caller.ask.priority].append(caller)

    def remove(self, caller: Caller) -> None:
        """Take one out, if it is still there."""
        callers = self._callers[caller.ask.priority]
        if caller in callers:
            callers.remove(caller)

    def first_of_each(self) -> Iterator[Caller]:
        """Give the first of each priority anew until no more are taken from it."""
        for priority in _ORDER:
            callers = self._callers[priority]
            while callers:
                first = callers[0]
                yield first
                if callers and callers[0] is first:
                    break

    @property
    def since(self) -> float:
        """Since when the first has waited."""
        return min(callers[0].since for callers in self._callers.values() if callers)

    @property
    def is_interactive(self) -> bool:
        """Whether a person waits."""
        return bool(self._callers["interactive"])

    @property
    def n_ctx_tokens(self) -> int:
        """The longest context that anybody wants."""
        return max(caller.ask.facts.n_ctx_tokens for caller in self)

    def fail(self, error: EngineError, n_ctx_tokens: int = 0) -> None:
        """Send away everybody, or only those who want at least so long a context."""
        for caller in [c for c in self if c.ask.facts.n_ctx_tokens >= n_ctx_tokens]:
            self.remove(caller)
            if not caller.place.done():
                caller.place.set_exception(error)
