"""How large a request's body may be, and how slowly it may come. Knows nothing of what is in it.

Whatever the handler makes of a broken-off body, the client is told the true reason.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .journal import Journal
from .refusals import refuse

_GIB = 1024**3

# A model's file, streamed to the disk: larger than any that one machine serves.
MAX_BLOB_BYTES = 2048 * _GIB
# What OpenAI takes for a batch is 200 MB; also streamed.
MAX_FILE_BYTES = _GIB

# After the first `idle_s` a body must have come as fast as this on average: a client that sends
# a byte now and then would else hold its connection for ever. (Apache's mod_reqtimeout: 500.)
_LEAST_BYTES_PER_S = 1000


def limit_of(path: str, max_body_bytes: int) -> int:
    """Tell how many bytes a request for this path may bring.

    >>> limit_of("/api/chat", 64), limit_of("/v1/files", 64) > 64
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
        self, app: ASGIApp, *, max_body_bytes: int, idle_s: float, journal: Journal
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._idle_s = idle_s
        self._journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a body through as it comes, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = limit_of(scope["path"], self._max_body_bytes)
        told = Headers(scope=scope).get("content-length", "")
        if told.isascii() and told.isdigit() and int(told[:20]) > limit:
            return await self._refuse(scope, receive, send, _too_large(limit))
        body = _Body(receive, send, limit, self._idle_s)
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


class _Body:
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
        whole_s = self._idle_s + self._n_bytes / _LEAST_BYTES_PER_S - elapsed_s
        return max(0.0, min(self._idle_s, whole_s))

    async def send(self, message: Message) -> None:
        if self.fault and not self.is_answered:
            return  # what the handler says of a body that ended early
        self.is_answered = True
        await self._send(message)
