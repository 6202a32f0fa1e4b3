"""Responses: JSON, NDJSON, server-sent events; cancellation when a client disconnects.

The first piece of a stream is awaited for a second before the headers are sent, so that an error
which comes at once has its status. From then on a ping is sent whenever nothing was for a while:
proxies give up on a silent server. A disconnect closes the iterator at once, which must cancel the
answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from paddock.engine.api.errors import ApiError, ClientGone, api_error, shutting_down
from paddock.engine.system.hardware import give_back_memory
from paddock.engine.system.tasks import StopRequested, end, run_unless_stopped

_T = TypeVar("_T")

ResponseHeaders = Mapping[str, str] | Callable[[], Mapping[str, str]] | None
"""A stream's headers, or a function that returns them once its first piece is there."""

LARGE_BYTES, GIVE_BACK_S = 1024 * 1024, 5.0

HEADERS_S = 1.0
PING_S = 15.0  # proxies wait for 30 to 60 s
PING_COMMENT = b": ping\n\n"

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"

# httpx, and with it Ollama's own client for Python, ends a line of text at these, too.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def dumps(value: Any) -> bytes:
    """Return compact JSON in UTF-8, on one line for every client."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_LINE_ENDS).encode("utf-8", "replace")


def vectors_json(vectors: Sequence[Sequence[float]]) -> bytes:
    """Return vectors as JSON, with the nine digits of a float32; 0.1 ms for 384 numbers.

    >>> vectors_json([(0.3333333432674408, 1e-8), (-1.0, 0.0)])
    b'[[0.333333343,1e-08],[-1,0]]'
    """
    form = "[" + ",".join(["%.9g"] * len(vectors[0])) + "]"
    return ("[" + ",".join([form % tuple(vector) for vector in vectors]) + "]").encode()


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a value, or bytes that are JSON already."""
    raw = value if isinstance(value, bytes) else dumps(value)
    if len(raw) >= LARGE_BYTES:  # when it is sent, and what it was made of is freed
        asyncio.get_running_loop().call_later(GIVE_BACK_S, give_back_memory)
    return Response(raw, status, headers, "application/json; charset=utf-8")


FOREVER = timedelta(microseconds=(2**63 - 1) // 1000)
"""Go's longest duration, 292 years: what Ollama adds to now for a model that stays for ever."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """Return a timestamp with microseconds: Python's `fromisoformat` refuses more digits.

    >>> rfc3339(datetime(2026, 8, 1, 12, 0, tzinfo=UTC))
    '2026-08-01T12:00:00.000000Z'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def expires_at(expires_s: float | None) -> str:
    """Return the timestamp of `expires_s` from now; None: for ever."""
    return rfc3339(utc_now() + (FOREVER if expires_s is None else timedelta(seconds=expires_s)))


def nanoseconds(seconds: float) -> int:
    """Return seconds as whole nanoseconds.

    >>> nanoseconds(0.25)
    250000000
    """
    return round(seconds * 1_000_000_000)


def sse_event(data: Mapping[str, Any] | str, name: str = "") -> bytes:
    r"""Return a server-sent event.

    >>> sse_event("[DONE]")
    b'data: [DONE]\n\n'
    """
    head = f"event: {name}\n".encode() if name else b""
    body = data.encode() if isinstance(data, str) else dumps(data)
    return head + b"data: " + body + b"\n\n"


async def while_connected(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of `work`; cancel it when the client disconnects. The body must be read."""
    try:
        return await run_unless_stopped(work, _wait_for_disconnect(request.receive))
    except StopRequested:
        raise ClientGone from None
    except asyncio.CancelledError:
        if is_being_cancelled():
            raise
        raise shutting_down() from None


async def ndjson_response(
    request: Request,
    items: AsyncGenerator[Mapping[str, Any], None],
    headers: ResponseHeaders = None,
    ping: Callable[[], Mapping[str, Any]] | None = None,
) -> Response:
    """Return a stream of JSON lines; an error after the first line ends it as `{"error": …}`.

    `ping` returns a line that says nothing: clients parse every line, so none may be empty.
    """

    async def lines() -> AsyncGenerator[bytes, None]:
        async with aclosing(items):
            async for item in items:
                yield dumps(item) + b"\n"

    def last(error: ApiError) -> bytes:
        return dumps({"error": error.message}) + b"\n"

    def ping_line() -> bytes:
        return dumps(ping()) + b"\n" if ping is not None else b""

    return await stream_response(request, lines(), NDJSON, last, headers, ping_line)


async def sse_response(
    request: Request,
    events: AsyncGenerator[bytes, None],
    on_error: Callable[[ApiError], bytes],
    headers: ResponseHeaders = None,
    ping: bytes = PING_COMMENT,
) -> Response:
    """Return a stream of server-sent events; `on_error` returns the last event of a failure."""

    def stream_headers() -> dict[str, str]:
        return {
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
            **_resolved_headers(headers),
        }

    return await stream_response(request, events, SSE, on_error, stream_headers, lambda: ping)


async def stream_response(
    request: Request,
    pieces: AsyncGenerator[bytes, None],
    media_type: str,
    on_error: Callable[[ApiError], bytes],
    headers: ResponseHeaders = None,
    ping: Callable[[], bytes] = bytes,
) -> Response:
    """Return a stream of pieces; what the first one raises within `HEADERS_S` is raised here."""
    first = asyncio.ensure_future(anext(pieces, b""))

    async def begun() -> None:
        await asyncio.wait({first}, timeout=HEADERS_S)
        if first.done():
            first.result()

    try:
        await while_connected(request, begun())
    except BaseException:
        await end(first)
        await pieces.aclose()
        raise
    return _StreamedResponse(first, pieces, media_type, on_error, _resolved_headers(headers), ping)


def _resolved_headers(headers: ResponseHeaders) -> dict[str, str]:
    return dict((headers() if callable(headers) else headers) or {})


async def _wait_for_disconnect(receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _StreamedResponse(Response):
    """Sends pieces until they end or fail, or the client disconnects."""

    def __init__(
        self,
        first: asyncio.Future[bytes],
        rest: AsyncGenerator[bytes, None],
        media_type: str,
        on_error: Callable[[ApiError], bytes],
        headers: Mapping[str, str],
        ping: Callable[[], bytes],
    ) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.init_headers(headers)
        self._first = first
        self._rest = rest
        self._on_error = on_error
        self._ping = ping
        self._sent_at = 0.0
        """When the last piece was sent, by the event loop's clock."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        pump = asyncio.ensure_future(self._pump(send, start))
        pings = asyncio.ensure_future(self._send_pings(send))
        gone = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            await end(pings)
            if pump.done():
                await self._finish(send, pump.result())
        except asyncio.CancelledError:  # by the server, when the time to stop is up
            await end(pump, pings)
            await self._finish(send, shutting_down())
            raise
        finally:
            await end(gone, pump, pings, self._first)
            await self._rest.aclose()

    async def _pump(self, send: Send, start: Message) -> ApiError | None:
        """Send everything but the end; return the error that the stream must carry."""
        await send(start)
        try:
            await self._send_piece(send, await self._first)
            async for piece in self._rest:
                await self._send_piece(send, piece)
        except asyncio.CancelledError:
            if is_being_cancelled():
                raise
            return shutting_down()  # the answer was cancelled, not this task
        except Exception as error:  # the status is sent already
            return api_error(error)
        return None

    async def _send_pings(self, send: Send) -> None:
        clock = asyncio.get_running_loop()
        self._sent_at = clock.time()
        while True:
            await asyncio.sleep(self._sent_at + PING_S - clock.time())
            if clock.time() >= self._sent_at + PING_S:
                await self._send_piece(send, self._ping())

    async def _finish(self, send: Send, error: ApiError | None) -> None:
        if error is not None:
            await self._send_piece(send, self._on_error(error))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_piece(self, send: Send, piece: bytes) -> None:
        self._sent_at = asyncio.get_running_loop().time()
        if piece:  # a client that reads nothing is ended by `DeadlineProtocol`
            await send({"type": "http.response.body", "body": piece, "more_body": True})
