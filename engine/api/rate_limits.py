"""Rate limits, as middleware: how many requests a caller may send.

The rate is a token bucket per API key, or per address where there are no keys.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.engine.api.api_keys import key_name_of
from paddock.engine.api.errors import ApiError
from paddock.engine.api.request_log import RefusingMiddleware, RequestLog, client_address

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
