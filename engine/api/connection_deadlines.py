"""Deadlines of connections, for headers, silence and unread answers; requests of two lengths.

Uvicorn closes a connection that is idle between two requests, but waits for ever for the headers of
a request, for a client that sends nothing, and for a client that does not read its answer. The
application cannot see the first two and cannot end the third. h11 serves a request that has two
lengths: a proxy before it may have taken the other one (RFC 9112, 6.1 and 6.3).
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import h11
from uvicorn.config import HTTPProtocolType
from uvicorn.protocols.http.h11_impl import H11Protocol

# Interval of the checks: a connection is closed so much late at most.
_DEADLINE_CHECK_S = 1.0

_MOST_HEADER_BYTES = 64 * 1024

# Connections of one server without a request. One more closes the one that is idle for longest, so
# that silent connections do not shut out other clients. Most systems allow a process 1,024 files.
MOST_IDLE = 512


class OneLengthConnection(h11.Connection):
    """Refuses Transfer-Encoding beside Content-Length, and in HTTP/1.0, which does not have it."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            is_twice = b"content-length" in names or event.http_version < b"1.1"
            if is_twice and b"transfer-encoding" in names:
                raise h11.RemoteProtocolError("its length is stated twice")
        return event


class DeadlineProtocol(H11Protocol):
    """HTTP/1.1 with deadlines for a request's headers and for an answer that is not read."""

    def __init__(
        self,
        *args: Any,
        header_s: float,
        idle_s: float,
        idle: dict[DeadlineProtocol, None],
        **options: Any,
    ) -> None:
        """`idle`: the server's connections without a request, the longest idle first."""
        super().__init__(*args, **options)
        most_bytes = self.config.h11_max_incomplete_event_size or _MOST_HEADER_BYTES
        self.conn = OneLengthConnection(h11.SERVER, most_bytes)
        self._idle = idle
        self._header_s = header_s
        self._idle_s = idle_s
        self._quiet_since: float | None = None
        """Loop time since which headers are due."""
        self._stuck_since: float | None = None
        """Loop time since which the client has read nothing."""
        self._n_pending = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._quiet_since = self.loop.time()
        self._note_idle()
        self._start_timer()

    def _note_idle(self) -> None:
        self._idle.pop(self, None)
        if not self._is_serving:
            self._idle[self] = None
        if len(self._idle) > MOST_IDLE:
            first = next(iter(self._idle))
            del self._idle[first]
            first.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what came; start the deadline of a request that is not complete."""
        super().data_received(data)
        if self._timer is None:  # it is a websocket's now
            return
        self._note_idle()
        if self._is_serving:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = self.loop.time()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._end_deadlines()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_deadlines()
        super().connection_lost(exc)

    def _end_deadlines(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._idle.pop(self, None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note_idle()

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self) -> None:
        shortest_s = min(self._header_s or _DEADLINE_CHECK_S, self._idle_s or _DEADLINE_CHECK_S)
        self._timer = self.loop.call_later(min(_DEADLINE_CHECK_S, shortest_s / 2), self._check)

    def _check(self) -> None:
        now = self.loop.time()
        if not self._is_serving and _is_past_deadline(self._quiet_since, self._header_s, now):
            self._quiet_since = None
            self.transport.close()
        n_pending = self.transport.get_write_buffer_size()
        if not n_pending or n_pending != self._n_pending:
            self._stuck_since = now if n_pending else None
        self._n_pending = n_pending
        if _is_past_deadline(self._stuck_since, self._idle_s, now):
            # `close` would wait until the client has read the rest.
            self.transport.abort()
            return
        self._start_timer()


def _is_past_deadline(since: float | None, limit_s: float, now: float) -> bool:
    return bool(limit_s) and since is not None and now - since > limit_s


def deadline_protocol(
    *, header_s: float, idle_s: float
) -> type[asyncio.Protocol] | HTTPProtocolType:
    idle: dict[DeadlineProtocol, None] = {}
    made: Any = functools.partial(DeadlineProtocol, header_s=header_s, idle_s=idle_s, idle=idle)
    return made  # type: ignore[no-any-return]
