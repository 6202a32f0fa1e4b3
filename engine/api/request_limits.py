"""Limits on requests, as middleware: a body's size and speed, and how many a caller may send.

A client gets the true reason (413, 408), whatever the handler answered to the incomplete body. The
rate is a token bucket per API key, or per address where there are no keys.
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
from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_log import RefusingMiddleware, RequestLog, client_address

_GIB = 1024**3

# A model file, streamed to the disk: larger than any that one machine serves.
MAX_BLOB_BYTES = 2048 * _GIB
# OpenAI's limit for a batch is 200 MB; also streamed.
MAX_FILE_BYTES = _GIB

# Least average speed of a body after the first `idle_s`: otherwise a client that sends a byte now
# and then would hold its connection for ever. (Apache's mod_reqtimeout: 500.)
_MIN_BYTES_PER_S = 1000


def body_limit_of(path: str, max_body_bytes: int) -> int:
    """Return the largest body of a request for this path.

    >>> body_limit_of("/api/chat", 64), body_limit_of("/v1/files", 64) > 64
    (64, True)
    """
    if path.startswith("/api/blobs/"):
        return max(MAX_BLOB_BYTES, max_body_bytes)
    if path == "/v1/files":
        return max(MAX_FILE_BYTES, max_body_bytes)
    return max_body_bytes


class BodyLimit(RefusingMiddleware):
    """Answers 413 to bodies that are too large, and 408 to those that come too slowly."""

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int, idle_s: float, request_log: RequestLog
    ) -> None:
        super().__init__(app, request_log=request_log)
        self._max_body_bytes = max_body_bytes
        self._idle_s = idle_s

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = body_limit_of(scope["path"], self._max_body_bytes)
        length = Headers(scope=scope).get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > limit:
            return await self._refuse("size", body_too_large(limit), scope, receive, send)
        body = _LimitedBody(receive, send, limit, self._idle_s)
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:
            if not body.error:
                raise
        if body.error and not body.is_answered:
            # The connection stays open: closed while the client sends, it would lose the answer.
            reason = "size" if body.error.status == 413 else "slow"
            await self._refuse(reason, body.error, scope, receive, send)


def body_too_large(limit: int) -> ApiError:
    message = f"request body too large: at most {limit} bytes are taken"
    return ApiError(413, message, {"x-should-retry": "false"})


class _LimitedBody:
    """Wraps `receive` and `send`; holds the handler's answer back once the body has an error."""

    def __init__(self, receive: Receive, send: Send, limit: int, idle_s: float) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._idle_s = idle_s
        self._began = asyncio.get_running_loop().time()
        self._n_bytes = 0
        self._is_whole = False
        self.error: ApiError | None = None
        self.is_answered = False

    async def receive(self) -> Message:
        if self._is_whole:
            return await self._receive()
        if self.error:
            raise ClientDisconnect
        # By `idle_s`, and by the least average speed of all that came so far
        elapsed_s = asyncio.get_running_loop().time() - self._began
        whole_s = self._idle_s + self._n_bytes / _MIN_BYTES_PER_S - elapsed_s
        timeout_s = max(0.0, min(self._idle_s, whole_s)) if self._idle_s else None
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._receive()
        except TimeoutError:
            text = f"the request's body came too slowly: {self._n_bytes} bytes so far"
            self.error = ApiError(408, text, {"x-should-retry": "false"})
            raise ClientDisconnect from None
        if message["type"] == "http.request":
            self._n_bytes += len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
            if self._n_bytes > self._limit:
                self.error = body_too_large(self._limit)
                raise ClientDisconnect
        return message

    async def send(self, message: Message) -> None:
        if self.error and not self.is_answered:
            return  # the handler's answer to an incomplete body
        self.is_answered = True
        await self._send(message)


# 0.5 MB. Of more callers, those with the oldest requests start again with a full bucket.
_N_BUCKETS = 4096

RATE_LIMITED_PREFIXES = ("/api/", "/v1/", "/paddock/", "/rerank")


class TokenBuckets:
    """One token bucket per caller; pure but for its clock."""

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
        """Tokens, and when the caller had so many; the longest unused first."""

    def __len__(self) -> int:
        return len(self._left)

    def take(self, caller: str) -> float:
        """Take one token; return 0, or in how many seconds there will be one."""
        now = self._clock()
        tokens, then = self._left.pop(caller, (self._full, now))
        tokens = min(self._full, tokens + (now - then) * self._per_s)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) / self._per_s
        self._left[caller] = (tokens if wait_s else tokens - 1, now)
        while len(self._left) > self._n_most:
            self._left.popitem(last=False)
        return wait_s


class RateLimit(RefusingMiddleware):
    """Answers 429 to callers beyond their rate: by key, or by address where there are no keys.

    Only requests to the APIs count, no health checks.
    """

    def __init__(self, app: ASGIApp, *, per_minute: int, request_log: RequestLog) -> None:
        super().__init__(app, request_log=request_log)
        self._per_minute = per_minute
        self._buckets = TokenBuckets(per_minute)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(RATE_LIMITED_PREFIXES):
            return await self._app(scope, receive, send)
        key = key_name_of(scope)
        wait_s = self._buckets.take(f"key {key}" if key else f"address {client_address(scope)}")
        if not wait_s:
            return await self._app(scope, receive, send)
        whose = "this API key" if key else "this address"
        message = f"too many requests: {whose} may send {self._per_minute} a minute"
        headers = {"Retry-After": str(math.ceil(wait_s))}
        error = ApiError(429, message, headers, code="rate_limit_exceeded")
        await self._refuse("rate", error, scope, receive, send)
