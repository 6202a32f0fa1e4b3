"""A pool in another process, as steps see it. Knows no settings and starts nothing.

A request is idempotent, so one whose connection breaks is sent again, to whoever serves by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from paddock.engine.answer import Answer
from paddock.engine.errors import EngineError, WorkerLost
from paddock.engine.remote.links import Broken, Link, SocketLink, WebLink
from paddock.engine.remote.wire import PREFIX, Counting, Line, Wire, read_error
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Reply,
    Tool,
    Usage,
)
from paddock.engine.residency.counts import LoadCount
from paddock.engine.residency.stats import PoolStats

MAX_ATTEMPTS = 4
STATS_S = 1.0

AGAIN = Line(number=-1.0)
"""Stands between two attempts; no pool says it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pool is asked: over a socket in the file system, or over the network with a key."""

    url: str = "http://paddock"
    socket: Path | None = None
    key: str = ""


FindPlace = Callable[[Place | None], Awaitable[Place]]
"""Gives where to ask; what it is given has just failed. Raises `EngineError`: there is nobody."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seat:
    """A place, and the connections to it."""

    place: Place
    link: Link


class RemotePool:
    """Implements `paddock.engine.request.Pool`. Use it as `async with RemotePool(…) as pool`."""

    def __init__(self, find: FindPlace) -> None:
        self._find = find
        self._wire = Wire()
        self._seat: _Seat | None = None
        self._old: list[_Seat] = []
        self._finding = asyncio.Lock()
        self._answers: set[Answer] = set()
        self._stats = PoolStats((), {})
        self._first_loads: dict[str, LoadCount] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._used: set[str] = set()
        self.first_call = asyncio.Event()
        """Set when the first answer or vector is asked for."""

    async def __aenter__(self) -> RemotePool:
        """Connect; what is resident is asked for from now on."""
        self._stats = await self._asked_stats()
        self._first_loads = dict(self._stats.loads)
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what runs, and the connections."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        for answer in tuple(self._answers):
            answer.cancel()
        await asyncio.gather(*(answer.ended() for answer in self._answers))
        for seat in (*self._old, *([self._seat] if self._seat else ())):
            await seat.link.aclose()

    def stats(self) -> PoolStats:
        """Tell what was resident a moment ago; loads are of this pool's own time and models."""
        before = self._first_loads or {}
        loads = {
            name: _since(count, before.get(name))
            for name, count in self._stats.loads.items()
            if name in self._used
        }
        loads |= {name: LoadCount() for name in self._used if name not in loads}
        return replace(self._stats, loads=loads)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model without loading it."""
        line = await self._ask("facts", self._wire.write(model), model.ref)
        assert line.facts is not None
        return line.facts

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count the prompt's tokens, the model's chat template included."""
        asked = Counting(model, messages=tuple(messages), tools=tuple(tools))
        return (await self._numbers(asked))[0]

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens with the model's own tokenizer, without special tokens."""
        return await self._numbers(Counting(model, tuple(texts)))

    async def load(self, model: ModelSpec) -> float:
        """Bring a model into memory; gives the seconds that it took, 0 if it was there."""
        return (await self._ask("load", self._wire.write(model), model.ref)).number or 0.0

    async def unload(self, ref: str) -> bool:
        """Let a model go as soon as nobody uses it; tells whether it was there at all."""
        return bool((await self._ask("unload", self._wire.write(ModelSpec(ref)), ref)).number)

    def chat(self, request: ChatRequest) -> Answer:
        """Queue a request; errors come out of the stream."""
        self.first_call.set()
        self._used.add(request.model.ref)
        answer = Answer(request, self._serve)
        self._answers.add(answer)
        answer.when_ended(self._answers.discard)
        return answer

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts."""
        self.first_call.set()
        self._used.add(request.model.ref)
        line = await self._ask("embed", self._wire.write(request), request.model.ref)
        assert line.embedded is not None
        await self._after_load(line.embedded.usage)
        return line.embedded

    async def _numbers(self, asked: Counting) -> list[int]:
        line = await self._ask("count", self._wire.write(asked), asked.model.ref)
        return list(line.numbers or ())

    async def _serve(self, answer: Answer) -> Reply:
        """Carry one chat through, from its beginning again where nobody has read of it."""
        request = answer.request
        lines = self._lines("chat", self._wire.write(request), request.model.ref)
        async with aclosing(lines):
            async for line in lines:
                if line.reply is not None:
                    await self._after_load(line.reply.usage)
                    return line.reply
                if line.chunk is not None:
                    answer.add(line.chunk)
                elif line == AGAIN and answer.was_read:
                    reason = "its service went away in the middle of an answer"
                    raise WorkerLost(request.model.ref, reason)
                elif line == AGAIN:
                    answer.forget()
        raise AssertionError

    # asking

    async def _ask(self, verb: str, body: bytes, ref: str) -> Line:
        """Give an answer's last line."""
        async with aclosing(self._lines(verb, body, ref)) as lines:
            async for line in lines:
                if line.is_last and line != AGAIN:
                    return line
        raise AssertionError

    async def _lines(self, verb: str, body: bytes, ref: str) -> AsyncGenerator[Line, None]:
        """Yield an answer's lines; after a break `AGAIN`, and then from the first one.

        Raises:
            EngineError: what the pool said.
            WorkerLost: the connection broke too often.
        """
        why = ""
        for _ in range(MAX_ATTEMPTS):
            seat = await self._seated()
            try:
                async with aclosing(self._sent(seat, verb, body)) as lines:
                    async for line in lines:
                        if line.error is not None:
                            raise read_error(line.error)
                        yield line
                        if line.is_last:
                            return
            except Broken as error:
                why = str(error)
            await self._lost(seat)
            yield AGAIN
        raise WorkerLost(ref, f"the service that has it went away {MAX_ATTEMPTS} times ({why})")

    async def _sent(self, seat: _Seat, verb: str, body: bytes) -> AsyncGenerator[Line, None]:
        rest = b""
        async with aclosing(seat.link.post(f"{PREFIX}/{verb}", body)) as pieces:
            async for piece in pieces:
                *whole, rest = (rest + piece).split(b"\n")
                for raw in whole:
                    yield self._wire.line(raw)
        raise Broken("its answer broke off")

    async def _seated(self) -> _Seat:
        """Give where to ask, connected."""
        async with self._finding:
            if self._seat is None:
                place = await self._find(None)
                self._seat = _Seat(place, _link(place))
            return self._seat

    async def _lost(self, seat: _Seat) -> None:
        """Find another place, once for all whose connection broke."""
        async with self._finding:
            if self._seat is not seat:
                return
            place = await self._find(seat.place)
            # Answers may still come over the old one; it is closed in the end.
            self._old.append(seat)
            self._seat = _Seat(place, _link(place))

    # what is resident

    async def _asked_stats(self) -> PoolStats:
        line = await self._ask("stats", b"", "")
        assert line.stats is not None
        return line.stats

    async def _after_load(self, usage: Usage) -> None:
        """Know what is resident as soon as an answer waited for it; the watch is a second late."""
        if usage.load_s and self._watching is not None:
            with suppress(EngineError):  # the answer is there all the same
                self._stats = await self._asked_stats()

    async def _watch(self) -> None:
        """Keep what is resident up to date; a fresh service begins to count at nothing."""
        while True:
            await asyncio.sleep(STATS_S)
            try:
                self._stats = await self._asked_stats()
            except EngineError:
                return  # who asks for more than numbers is told


def _since(now: LoadCount, before: LoadCount | None) -> LoadCount:
    """Give what was counted since then; a service that is newer than that counts from nothing."""
    if before is None or now.loads < before.loads:
        return now
    return LoadCount(now.loads - before.loads, now.load_s - before.load_s)


def _link(place: Place) -> Link:
    if place.socket is not None:
        return SocketLink(place.socket)
    return WebLink(place.url, place.key)
