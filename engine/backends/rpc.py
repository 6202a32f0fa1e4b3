"""RPC: a pool in another process, over a Unix socket or over the network.

`PoolCodec` is the wire format, used by this client and by the server (`engine.api.pool_server`).
Images and vectors travel as base64; no pickle, so nothing can be executed. A request is
idempotent: when its connection breaks, it is sent again to the pool that serves by then. Knows no
settings and starts nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticSerializationError

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
    Reply,
    Tool,
    Usage,
)
from paddock.engine.sampling_values import checked_sampling
from paddock.engine.system import http
from paddock.engine.system.hosts import PoolAddress
from paddock.engine.system.light_http import (
    IDLE_CONNECTION_S,
    ConnectionBroken,
    UnexpectedStatus,
    UnixClient,
)
from paddock.engine.system.tasks import end
from paddock.engine.system.text import split_lines

from .base import Answer, OpenAnswers

if TYPE_CHECKING:
    import httpx

PREFIX = "/paddock/pool"
MEDIA_TYPE = "application/x-ndjson"

_T = TypeVar("_T")


class _JsonValue(BaseModel, Generic[_T]):
    """One value with its types, as JSON and back."""

    model_config = ConfigDict(
        ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants"
    )
    value: _T


@dataclass(frozen=True, slots=True)
class CountRequest:
    """Texts or turns whose tokens are counted."""

    model: ModelSpec
    texts: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    """Tools that the messages may call; a part of the prompt."""


@dataclass(frozen=True, slots=True)
class WireLine:
    """One line of an answer. Without anything it is a sign of life."""

    chunk: Chunk | None = None
    reply: Reply | None = None
    facts: ModelFacts | None = None
    embedded: EmbedReply | None = None
    vectors: bytes = b""
    """Of `embedded`: one after the other, as float64."""
    n_dimensions: int = 0
    stats: PoolStats | None = None
    number: float | None = None
    numbers: tuple[int, ...] | None = None
    error: dict[str, Any] | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.chunk is None and self != _BEAT_LINE


_BEAT_LINE = WireLine()
BEAT = b"{}\n"


class PoolCodec:
    """Writes and reads; made once for each side, since its parts take some milliseconds to make."""

    def __init__(self) -> None:
        self._requests: dict[type, Any] = {
            ChatRequest: _JsonValue[ChatRequest],
            EmbedRequest: _JsonValue[EmbedRequest],
            CountRequest: _JsonValue[CountRequest],
            ModelSpec: _JsonValue[ModelSpec],
        }
        self._line = _JsonValue[WireLine]

    def write(self, request: ChatRequest | EmbedRequest | CountRequest | ModelSpec) -> bytes:
        return _dump_json(self._requests[type(request)](value=request))

    def read(self, kind: type[_T], body: bytes) -> _T:
        """Read a request of this kind; raise `ValueError` where it is none."""
        request: _T = self._requests[kind].model_validate_json(body).value
        return request

    def write_line(self, line: WireLine) -> bytes:
        if line.embedded is not None and line.embedded.vectors:
            rows = line.embedded.vectors
            packed = array("d", [value for row in rows for value in row]).tobytes()
            bare = replace(line.embedded, vectors=())
            line = replace(line, embedded=bare, vectors=packed, n_dimensions=len(rows[0]))
        return _dump_json(self._line(value=line)) + b"\n"

    def line(self, raw: bytes) -> WireLine:
        """Read a line of an answer; raises `ValueError` where it is none."""
        if raw.strip() == BEAT.strip():
            return _BEAT_LINE
        line = self._line.model_validate_json(raw).value
        if line.facts is not None:
            # Sampling values get their types again, which the facts' identity counts.
            params = checked_sampling(line.facts.params)
            return replace(line, facts=replace(line.facts, params=params))
        if line.embedded is None or not line.n_dimensions:
            return line
        values, width = array("d", line.vectors), line.n_dimensions
        rows = (values[start : start + width] for start in range(0, len(values), width))
        whole = replace(line.embedded, vectors=tuple(map(tuple, rows)))
        return replace(line, embedded=whole, vectors=b"")


def _dump_json(model: BaseModel) -> bytes:
    try:
        return model.model_dump_json(exclude_defaults=True).encode()
    except (PydanticSerializationError, UnicodeEncodeError):
        # Halves of characters, which are no Unicode; a tokenizer could not read them either.
        fields = model.model_dump(exclude_defaults=True)
        return json.dumps(fields, default=_as_text, ensure_ascii=False).encode(errors="replace")


def _as_text(value: object) -> str:
    if isinstance(value, bytes):
        return base64.urlsafe_b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


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
    said = body.decode("utf-8", "replace").strip()[:300]
    if status in (502, 503, 504):
        return ConnectionBroken(f"status {status}: {said}")
    return EngineError(f"the pool at {where} refused the request (status {status}): {said}")


MAX_ATTEMPTS = 4
STATS_EVERY_S = 1.0

RETRY_LINE = WireLine(number=-1.0)
"""Stands between two attempts; no pool says it."""


FindPool = Callable[[PoolAddress | None], Awaitable[PoolAddress]]
"""Returns the pool's address; its argument has just failed. Raises `EngineError`: there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class _ConnectedPool:
    """A place, and the connections to it."""

    place: PoolAddress
    link: PoolConnection


class RemotePool:
    """Implements `paddock.engine.request.Pool`. Use it as `async with RemotePool(…) as pool`."""

    def __init__(self, find: FindPool) -> None:
        self._find = find
        self._wire = PoolCodec()
        self._seat: _ConnectedPool | None = None
        self._old: list[_ConnectedPool] = []
        self._finding = asyncio.Lock()
        self._answers = OpenAnswers()
        self._stats = PoolStats((), {})
        self._first_loads: dict[str, LoadCount] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._used: set[str] = set()
        self.first_call = asyncio.Event()
        """Set when the first answer or vector is asked for."""

    async def __aenter__(self) -> RemotePool:
        """Connect, and keep the statistics up to date from now on."""
        self._stats = await self._asked_stats()
        self._first_loads = dict(self._stats.loads)
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            await end(self._watching)
        await self._answers.close()
        for seat in (*self._old, *([self._seat] if self._seat else ())):
            await seat.link.aclose()

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
        line = await self._ask("facts", self._wire.write(model), model.ref)
        assert line.facts is not None
        return line.facts

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        asked = CountRequest(model, messages=tuple(messages), tools=tuple(tools))
        return (await self._numbers(asked))[0]

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        return await self._numbers(CountRequest(model, tuple(texts)))

    async def load(self, model: ModelSpec) -> float:
        return (await self._ask("load", self._wire.write(model), model.ref)).number or 0.0

    async def unload(self, ref: str) -> bool:
        return bool((await self._ask("unload", self._wire.write(ModelSpec(ref)), ref)).number)

    def chat(self, request: ChatRequest) -> Answer:
        self.first_call.set()
        self._used.add(request.model.ref)
        return self._answers.start(request, self._serve)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        self.first_call.set()
        self._used.add(request.model.ref)
        line = await self._ask("embed", self._wire.write(request), request.model.ref)
        assert line.embedded is not None
        await self._after_load(line.embedded.usage)
        return line.embedded

    async def _numbers(self, asked: CountRequest) -> list[int]:
        line = await self._ask("count", self._wire.write(asked), asked.model.ref)
        return list(line.numbers or ())

    async def _serve(self, answer: Answer) -> Reply:
        """Answer one chat; retry it from the start unless a part was read."""
        request = answer.request
        lines = self._lines("chat", self._wire.write(request), request.model.ref)
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
                    answer.forget()
        raise AssertionError

    async def _ask(self, verb: str, body: bytes, ref: str) -> WireLine:
        """Return an answer's last line."""
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
            seat = await self._seated()
            try:
                async with aclosing(self._sent(seat, verb, body)) as lines:
                    async for line in lines:
                        if line.error is not None:
                            raise read_error(line.error)
                        yield line
                        if line.is_last:
                            return
            except ConnectionBroken as error:
                why = str(error)
            await self._lost(seat)
            yield RETRY_LINE
        raise WorkerLost(ref, f"the service that has it went away {MAX_ATTEMPTS} times ({why})")

    async def _sent(
        self, seat: _ConnectedPool, verb: str, body: bytes
    ) -> AsyncGenerator[WireLine, None]:
        rest = b""
        async with aclosing(_post(seat.link, seat.place, f"{PREFIX}/{verb}", body)) as pieces:
            async for piece in pieces:
                lines, rest = split_lines(rest, piece)
                for raw in lines:
                    yield self._wire.line(raw)
        raise ConnectionBroken("its answer broke off")

    async def _seated(self) -> _ConnectedPool:
        """Return where to ask, connected."""
        async with self._finding:
            if self._seat is None:
                place = await self._find(None)
                self._seat = _ConnectedPool(place, _connect(place))
            return self._seat

    async def _lost(self, seat: _ConnectedPool) -> None:
        """Find another place, once for all whose connection broke."""
        async with self._finding:
            if self._seat is not seat:
                return
            place = await self._find(seat.place)
            # Answers may still come over the old one; it is closed in the end.
            self._old.append(seat)
            self._seat = _ConnectedPool(place, _connect(place))

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
            await asyncio.sleep(STATS_EVERY_S)
            try:
                self._stats = await self._asked_stats()
            except EngineError:
                return  # the next request raises it


def _counted_since(now: LoadCount, before: LoadCount | None) -> LoadCount:
    """Return what was counted since then; a service that is newer than that counts from nothing."""
    if before is None or now.loads < before.loads:
        return now
    return LoadCount(now.loads - before.loads, now.load_s - before.load_s)
