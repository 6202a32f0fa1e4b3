"""Limits on requests, as middleware: rate per caller, size and speed of the body.

The rate is a token bucket per API key, or per address where there are no keys. A client gets the
true reason (413, 408) whatever the handler made of the broken-off body.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddock.engine.api.api_keys import key_name_of
from paddock.engine.api.errors import refuse
from paddock.engine.api.request_log import RequestLog, client_address

_GIB = 1024**3

# A model's file, streamed to the disk: larger than any that one machine serves.
MAX_BLOB_BYTES = 2048 * _GIB
# What OpenAI takes for a batch is 200 MB; also streamed.
MAX_FILE_BYTES = _GIB

# After the first `idle_s` a body must have come as fast as this on average: a client that sends
# a byte now and then would else hold its connection for ever. (Apache's mod_reqtimeout: 500.)
_MIN_BYTES_PER_S = 1000


def body_limit_of(path: str, max_body_bytes: int) -> int:
    """Return how many bytes a request for this path may bring.

    >>> body_limit_of("/api/chat", 64), body_limit_of("/v1/files", 64) > 64
    (64, True)
    """
    if path.startswith("/api/blobs/"):
        return max(MAX_BLOB_BYTES, max_body_bytes)
    if path == "/v1/files":
        return max(MAX_FILE_BYTES, max_body_bytes)
    return max_body_bytes


class BodyLimit:
    """Answers 413 to bodies that are too large, and 408 to those that come too slowly."""

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, idle_s: float, journal: RequestLog
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._idle_s = idle_s
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a body through as it comes, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = body_limit_of(scope["path"], self._max_body_bytes)
        told = Headers(scope=scope).get("content-length", "")
        if told.isascii() and told.isdigit() and int(told[:20]) > limit:
            return await self._refuse(scope, receive, send, _too_large(limit))
        body = _LimitedBody(receive, send, limit, self._idle_s)
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:
            if not body.fault:
                raise
        if body.fault and not body.is_answered:
            await self._refuse(scope, receive, send, body.fault)

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, fault: tuple[int, str]
    ) -> None:
        status, message = fault
        self._journal.metrics.refused("size" if status == 413 else "slow")
        # The connection stays open: closed while the client still sends, it would lose the answer.
        await refuse(scope, receive, send, status, message, {"x-should-retry": "false"})


def _too_large(limit: int) -> tuple[int, str]:
    return 413, f"request body too large: at most {limit} bytes are taken"


class _LimitedBody:
    """One body on its way in, and the answer, which is held back once the body has a fault."""

    def __init__(self, receive: Receive, send: Send, limit: int, idle_s: float) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._idle_s = idle_s
        self._began = asyncio.get_running_loop().time()
        self._n_bytes = 0
        self._is_whole = False
        self.fault: tuple[int, str] | None = None
        """Status and message."""
        self.is_answered = False

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        if self.fault:
            raise ClientDisconnect
        try:
            async with asyncio.timeout(self._patience_s() if self._idle_s else None):
                message = await self._receive()
        except TimeoutError:
            self.fault = 408, f"the request's body came too slowly: {self._n_bytes} bytes so far"
            raise ClientDisconnect from None
        if message["type"] == "http.request":
            self._n_bytes += len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
            if self._n_bytes > self._limit:
                self.fault = _too_large(self._limit)
                raise ClientDisconnect
        return message

    def _patience_s(self) -> float:
        """How long the next part may take: it must come at all, and the whole fast enough."""
        elapsed_s = asyncio.get_running_loop().time() - self._began
        whole_s = self._idle_s + self._n_bytes / _MIN_BYTES_PER_S - elapsed_s
        return max(0.0, min(self._idle_s, whole_s))

    async def send(self, message: Message) -> None:
        if self.fault and not self.is_answered:
            return  # what the handler says of a body that ended early
        self.is_answered = True
        await self._send(message)


# So many callers are known at once, 0.5 MB; of more, those who asked the longest ago count anew.
_N_BUCKETS = 4096

RATE_LIMITED_PREFIXES = ("/api/", "/v1/", "/paddock/", "/rerank")
"""What begins the paths of requests that count."""


class TokenBuckets:
    """One bucket for each caller; pure but for its clock."""

    def __init__(
        self,
        per_minute: int,
        *,
        n_most: int = _N_BUCKETS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._full = float(per_minute)
        self._per_s = per_minute / 60
        self._n_most = n_most
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Tokens, and when it had so many; the longest unused first."""

    def __len__(self) -> int:
        """Count the callers that are known."""
        return len(self._left)

    def take(self, caller: str) -> float:
        """Take one token; gives 0, or in how many seconds there will be one."""
        now = self._clock()
        tokens, then = self._left.pop(caller, (self._full, now))
        tokens = min(self._full, tokens + (now - then) * self._per_s)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) / self._per_s
        self._left[caller] = (tokens if wait_s else tokens - 1, now)
        while len(self._left) > self._n_most:
            self._left.popitem(last=False)
        return wait_s


class RateLimit:
    """Answers 429 to callers beyond their rate: by key, or by address where there are no keys.

    Only what may cost something is counted: the APIs, not who looks whether the service lives.
    """

    def __init__(self, app: ASGIApp, *, per_minute: int, journal: RequestLog) -> None:
        self._app = app
        self._per_minute = per_minute
        self._buckets = TokenBuckets(per_minute)
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through or refuse."""
        if scope["type"] != "http" or not scope["path"].startswith(RATE_LIMITED_PREFIXES):
            return await self._app(scope, receive, send)
        key = key_name_of(scope)
        wait_s = self._buckets.take(f"key {key}" if key else f"address {client_address(scope)}")
        if not wait_s:
            return await self._app(scope, receive, send)
        self._journal.metrics.refused("rate")
        whose = "this API key" if key else "this address"
        message = f"too many requests: {whose} may send {self._per_minute} a minute"
        headers = {"Retry-After": str(math.ceil(wait_s))}
        await refuse(scope, receive, send, 429, message, headers, code="rate_limit_exceeded")
