"""RPC: a pool in another process, over a Unix socket or over the network.

Requests and lines of answers are JSON (`engine.wire`), for this client and for the server
(`engine.api.pool_server`). There is no pickle, so nothing can be executed. A request is idempotent:
when its connection breaks, it is sent again to the pool that serves by then. Knows no settings and
starts nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError, WorkerLost, read_error
from paddock.engine.memory.pool_stats import LoadCount, PoolStats
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Reply,
    Tool,
    Usage,
)
from paddock.engine.sampling_values import checked_sampling
from paddock.engine.system import http
from paddock.engine.system.light_http import (
    IDLE_CONNECTION_S,
    ConnectionBroken,
    UnexpectedStatus,
    UnixClient,
)
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.server_address import PoolAddress
from paddock.engine.system.tasks import end
from paddock.engine.system.text import completed_lines
from paddock.engine.wire import read_json, write_json

from .answer import Answer, OpenAnswers

if TYPE_CHECKING:
    import httpx

PREFIX = "/paddock/pool/3"  # the number of the wire's form: another Paddock answers 404
MEDIA_TYPE = "application/x-ndjson"


class CountRequest(Struct, frozen=True, omit_defaults=True):
    model: ModelSpec
    texts: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()


class WireLine(Struct, frozen=True, omit_defaults=True):
    """One line of an answer. Without anything it is a sign of life."""

    chunk: Chunk | None = None
    reply: Reply | None = None
    facts: ModelFacts | None = None
    embedded: EmbedReply | None = None
    stats: PoolStats | None = None
    number: float | None = None
    numbers: tuple[int, ...] | None = None
    error: dict[str, Any] | None = None

    @property
    def is_last(self) -> bool:
        return self.chunk is None and self != _BEAT_LINE


_BEAT_LINE = WireLine()
BEAT = b"{}\n"


def write_line(line: WireLine) -> bytes:
    return write_json(line) + b"\n"


def read_line(raw: bytes) -> WireLine:
    line = read_json(WireLine, raw)
    if line.facts is None:
        return line
    # Sampling values get their types again, which the facts' identity counts.
    return replace(line, facts=replace(line.facts, params=checked_sampling(line.facts.params)))


SILENCE_S = 60.0  # the server sends a heartbeat every 5 s

if TYPE_CHECKING:
    PoolConnection = UnixClient | httpx.AsyncClient


def _connect(place: PoolAddress) -> PoolConnection:
    if place.socket is not None:
        return UnixClient(place.socket, silence_s=SILENCE_S)
    headers = http.bearer_headers(place.key)
    return http.client(place.url, headers=headers, timeout_s=SILENCE_S, idle_s=IDLE_CONNECTION_S)


async def _post(
    connection: PoolConnection, place: PoolAddress, path: str, body: bytes
) -> AsyncGenerator[bytes, None]:
    """Send a body and yield the answer as it comes; closing it ends the request.

    Raises:
        ConnectionBroken: the connection broke, or nothing came for too long.
        EngineError: the server is no pool, or refuses.
    """
    if isinstance(connection, UnixClient):
        try:
            async with aclosing(connection.stream("POST", path, body)) as pieces:
                async for piece in pieces:
                    yield piece
        except UnexpectedStatus as refused:
            raise _refusal(str(place.socket), refused.status, refused.body) from None
        return
    try:
        with http.http_failures(place.url):
            async with connection.stream("POST", path, content=body) as answer:
                if answer.status_code != 200:
                    raise _refusal(place.url, answer.status_code, await answer.aread())
                async for piece in answer.aiter_raw():
                    yield piece
    except http.HttpFailure as error:
        raise ConnectionBroken(str(error)) from None


def _refusal(where: str, status: int, body: bytes) -> Exception:
    reason = body.decode("utf-8", "replace").strip()[:300]
    if status in (502, 503, 504):
        return ConnectionBroken(f"status {status}: {reason}")
    return EngineError(f"the pool at {where} refused the request (status {status}): {reason}")


MAX_ATTEMPTS = 4
STATS_EVERY_S = 1.0

RETRY_LINE = WireLine(number=-1.0)
"""Stands between two attempts; no pool says it."""


FindPool = Callable[[PoolAddress | None], Awaitable[PoolAddress]]
"""Returns the pool's address; its argument has just failed. Raises `EngineError`: there is none."""


class _ConnectedPool(Struct, frozen=True, eq=False):
    place: PoolAddress
    link: PoolConnection


class RemotePool(Pool):
    """A pool in another process. Use it as `async with RemotePool(…) as pool`."""

    def __init__(self, find: FindPool) -> None:
        self._find = find
        self._connected: _ConnectedPool | None = None
        self._old: list[_ConnectedPool] = []
        self._finding = asyncio.Lock()
        self._answers = OpenAnswers()
        self._stats = PoolStats((), {})
        self._first_loads: dict[str, LoadCount] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._used: set[str] = set()

    async def __aenter__(self) -> RemotePool:
        """Connect, and keep the statistics up to date from now on."""
        self._stats = await self._read_stats()
        self._first_loads = dict(self._stats.loads)
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            await end(self._watching)
        await self._answers.close()
        for connected in (*self._old, *([self._connected] if self._connected else ())):
            await connected.link.aclose()

    def stats(self) -> PoolStats:
        """Return what was resident a moment ago; loads are of this pool's own time and models."""
        before = self._first_loads or {}
        loads = {
            name: _counted_since(count, before.get(name))
            for name, count in self._stats.loads.items()
            if name in self._used
        }
        loads |= {name: LoadCount() for name in self._used if name not in loads}
        return replace(self._stats, loads=loads)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        line = await self._request("facts", write_json(model), model.ref)
        assert line.facts is not None
        return line.facts

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        request = CountRequest(model, messages=tuple(messages), tools=tuple(tools))
        return (await self._numbers(request))[0]

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        return await self._numbers(CountRequest(model, tuple(texts)))

    async def load(self, model: ModelSpec) -> float:
        return (await self._request("load", write_json(model), model.ref)).number or 0.0

    async def unload(self, ref: str) -> bool:
        return bool((await self._request("unload", write_json(ModelSpec(ref)), ref)).number)

    def chat(self, request: ChatRequest) -> Answer:
        self._used.add(request.model.ref)
        return self._answers.start(request, self._serve)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        self._used.add(request.model.ref)
        line = await self._request("embed", write_json(request), request.model.ref)
        assert line.embedded is not None
        await self._after_load(line.embedded.usage)
        return line.embedded

    async def _numbers(self, request: CountRequest) -> list[int]:
        line = await self._request("count", write_json(request), request.model.ref)
        return list(line.numbers or ())

    async def _serve(self, answer: Answer) -> Reply:
        request = answer.request
        lines = self._lines("chat", write_json(request), request.model.ref)
        async with aclosing(lines):
            async for line in lines:
                if line.reply is not None:
                    await self._after_load(line.reply.usage)
                    return line.reply
                if line.chunk is not None:
                    answer.add(line.chunk)
                elif line == RETRY_LINE and answer.was_read:
                    reason = "its service went away in the middle of an answer"
                    raise WorkerLost(request.model.ref, reason)
                elif line == RETRY_LINE:
                    answer.drop_chunks()
        raise AssertionError

    async def _request(self, verb: str, body: bytes, ref: str) -> WireLine:
        async with aclosing(self._lines(verb, body, ref)) as lines:
            async for line in lines:
                if line.is_last and line != RETRY_LINE:
                    return line
        raise AssertionError

    async def _lines(self, verb: str, body: bytes, ref: str) -> AsyncGenerator[WireLine, None]:
        """Yield an answer's lines; after a break `RETRY_LINE`, and then from the first one.

        Raises:
            EngineError: what the pool said.
            WorkerLost: the connection broke too often.
        """
        why = ""
        for _ in range(MAX_ATTEMPTS):
            async with self._finding:
                if self._connected is None:
                    place = await self._find(None)
                    self._connected = _ConnectedPool(place, _connect(place))
                connected = self._connected
            try:
                async with aclosing(self._sent(connected, verb, body)) as lines:
                    async for line in lines:
                        if line.error is not None:
                            raise read_error(line.error)
                        yield line
                        if line.is_last:
                            return
            except ConnectionBroken as error:
                why = str(error)
            await self._lost(connected)
            yield RETRY_LINE
        raise WorkerLost(ref, f"the service that has it went away {MAX_ATTEMPTS} times ({why})")

    async def _sent(
        self, connected: _ConnectedPool, verb: str, body: bytes
    ) -> AsyncGenerator[WireLine, None]:
        rest = b""
        async with aclosing(
            _post(connected.link, connected.place, f"{PREFIX}/{verb}", body)
        ) as pieces:
            async for piece in pieces:
                lines, rest = completed_lines(rest, piece)
                for raw in lines:
                    yield read_line(raw)
        raise ConnectionBroken("its answer broke off")

    async def _lost(self, connected: _ConnectedPool) -> None:
        """Find another place, once for all whose connection broke."""
        async with self._finding:
            if self._connected is not connected:
                return
            place = await self._find(connected.place)
            # Answers may still come over the old one; it is closed in the end.
            self._old.append(connected)
            self._connected = _ConnectedPool(place, _connect(place))

    async def _read_stats(self) -> PoolStats:
        line = await self._request("stats", b"", "")
        assert line.stats is not None
        return line.stats

    async def _after_load(self, usage: Usage) -> None:
        """Know what is resident as soon as an answer waited for it; the watch is a second late."""
        if usage.load_s and self._watching is not None:
            with suppress(EngineError):  # the answer is there all the same
                self._stats = await self._read_stats()

    async def _watch(self) -> None:
        """Keep what is resident up to date; a fresh service begins to count at nothing."""
        while True:
            await asyncio.sleep(STATS_EVERY_S)
            try:
                self._stats = await self._read_stats()
            except EngineError:
                return  # the next request raises it


def _counted_since(now: LoadCount, before: LoadCount | None) -> LoadCount:
    """Return what was counted since then; a service that is newer than that counts from nothing."""
    if before is None or now.loads < before.loads:
        return now
    return LoadCount(now.loads - before.loads, now.load_s - before.load_s)
