"""One call of a generating endpoint: what is asked of the engine, and how its answers are told.

Chat, completions and Responses each have a `Call`; whoever runs them (`generation`) needs no more.
"""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from paddock.engine.api.streaming import event
from paddock.engine.request import ChatRequest, Chunk, Priority, Reply

from .refusals import error_value

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: how urgent it is, and whether it waits outside a full queue."""

    priority: Priority = "interactive"
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an answer is known by."""

    id: str
    created: int
    """Seconds since the epoch."""

    @classmethod
    def new(cls, prefix: str) -> Stamp:
        """Make one for now."""
        return cls(new_id(prefix), int(time.time()))


def new_id(prefix: str) -> str:
    """Make an id as OpenAI's look: `chatcmpl-6f…`, `resp_6f…`."""
    return f"{prefix}{secrets.token_hex(12)}"


class Speaker(Protocol):
    """Tells answers while they come. Each method gives events in order, `fail` instead of `end`."""

    def begin(self) -> Iterator[bytes]:
        """Say that there will be an answer."""
        ...

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        """Tell a piece of one answer."""
        ...

    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        """Tell that one answer is whole."""
        ...

    def end(self) -> Iterator[bytes]:
        """Say that all are."""
        ...

    def fail(self, error: Exception) -> bytes:
        """Say that there will be no more, and why."""
        ...


@dataclass(frozen=True, slots=True)
class Call(ABC):
    """What one body asks for."""

    model: str
    """As the client named it."""
    requests: tuple[ChatRequest, ...]
    """For each prompt its choices, neighbours of one another."""
    n_choices: int
    streams: bool

    @abstractmethod
    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        """Write the whole answer; the replies are in the order of the requests."""

    @abstractmethod
    def speaker(self, stamp: Stamp) -> Speaker:
        """Give who writes the answer piece by piece."""

    @property
    @abstractmethod
    def prefix(self) -> str:
        """What the answer's id begins with."""


def choices_of(request: ChatRequest, n: int) -> tuple[ChatRequest, ...]:
    """Give one request for each of `n` choices, none of which repeats another's dice."""
    if n == 1 and "seed" in request.params:
        return (request,)
    given = request.params.get("seed")
    first = secrets.randbits(31) if given is None else int(given)
    return tuple(_seeded(request, first + number, is_first=number == 0) for number in range(n))


def _seeded(request: ChatRequest, seed: int, *, is_first: bool) -> ChatRequest:
    if is_first:  # a model's own seed goes before ours
        return replace(request, defaults={**request.defaults, "seed": seed})
    return replace(request, params={**request.params, "seed": seed})


def plain_event(data: Mapping[str, Any] | str) -> bytes:
    """Write an event without a name, as chat and completions have them."""
    return event(data)


def failed_event(error: Exception) -> bytes:
    """Write the event that ends a stream that went wrong."""
    return event(error_value(error))
