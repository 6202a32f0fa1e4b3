"""One request inside a worker: what comes back for it, and how it may end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paddock.engine.request import Chunk, DoneReason, Usage


class WorkerGone(Exception):
    """The process has ended with this request in it; `reason` is in plain words.

    `has_fallback`: the next one is started with a fallback of llama.cpp, so this death says
    nothing against the request.
    """

    def __init__(self, reason: str, *, has_fallback: bool = False) -> None:
        self.reason = reason
        self.has_fallback = has_fallback
        super().__init__(reason)


class LoadBroken(Exception):
    """The worker could not load the model; `why` is in plain words."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an answer ended."""

    reason: DoneReason
    usage: Usage
    is_shortened: bool
    tokens: tuple[int, ...] = ()
    """Ids of prompt and answer, where they were wanted."""
    stop: str = ""
    """The stop string that was met."""


class Ticket:
    """One request inside a worker: what comes back for it."""

    def __init__(
        self,
        on_chunk: Callable[[Chunk], None] | None = None,
        on_step: Callable[[], None] | None = None,
        on_shortened: Callable[[int], None] | None = None,
    ) -> None:
        self.result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.on_chunk = on_chunk
        self.on_step = on_step
        self.on_shortened = on_shortened
        """Hears what the prompt had before it was shortened; comes before any chunk."""
        self.has_started = False

    def fail(self, error: Exception) -> None:
        """End with an error, unless it has ended already."""
        if not self.result.done():
            self.result.set_exception(error)

    def give(self, result: Any) -> None:
        """End with a result, unless it has ended already."""
        if not self.result.done():
            self.result.set_result(result)
