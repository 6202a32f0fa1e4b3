"""How often one key may ask: a bucket of tokens for each, filled again at an even pace."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from .journal import Journal
from .keys import key_name_of
from .recording import client_of
from .refusals import refuse

# So many callers are known at once, 0.5 MB; of more, those who asked the longest ago count anew.
_N_BUCKETS = 4096

LIMITED = ("/api/", "/v1/", "/paddock/", "/rerank")
"""What begins the paths of requests that count."""


class Buckets:
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

    def __init__(self, app: ASGIApp, *, per_minute: int, journal: Journal) -> None:
        self._app = app
        self._per_minute = per_minute
        self._buckets = Buckets(per_minute)
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through or refuse."""
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            return await self._app(scope, receive, send)
        key = key_name_of(scope)
        wait_s = self._buckets.take(f"key {key}" if key else f"address {client_of(scope)}")
        if not wait_s:
            return await self._app(scope, receive, send)
        self._journal.metrics.refused("rate")
        whose = "this API key" if key else "this address"
        message = f"too many requests: {whose} may send {self._per_minute} a minute"
        headers = {"Retry-After": str(math.ceil(wait_s))}
        await refuse(scope, receive, send, 429, message, headers, code="rate_limit_exceeded")
