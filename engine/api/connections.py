"""One connection of the HTTP server, with deadlines that uvicorn has not.

Uvicorn closes a connection that rests between two requests. It waits for ever for the headers of a
request that has begun, for a client that opens a connection and says nothing, and for one that
takes nothing of its answer. The application cannot see the first two, nor end the third.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from uvicorn.config import HTTPProtocolType
from uvicorn.protocols.http.h11_impl import H11Protocol

# Deadlines are looked at so often; they end so much late at most.
_LOOK_S = 1.0

# So many connections of one server may be without a request. One more closes the one that has been
# so for longest, so that silent connections do not shut out other clients. A process may have
# 1,024 files on most systems.
MOST_IDLE = 512


class PatientProtocol(H11Protocol):
    """Speaks HTTP/1.1 as long as the other side goes on."""

    def __init__(
        self,
        *args: Any,
        header_s: float,
        idle_s: float,
        idle: dict[PatientProtocol, None],
        **more: Any,
    ) -> None:
        """`idle`: the server's connections without a request, the longest idle first."""
        super().__init__(*args, **more)
        self._idle = idle
        self._header_s = header_s
        self._idle_s = idle_s
        self._quiet_since: float | None = None
        """Since when headers are waited for."""
        self._stuck_since: float | None = None
        """Since when the same bytes wait to be taken."""
        self._n_pending = 0
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch."""
        super().connection_made(transport)
        self._quiet_since = self.loop.time()
        self._note_idle()
        self._plan()

    def _note_idle(self) -> None:
        """Keep the list of idle connections, and close the first of too many."""
        self._idle.pop(self, None)
        if not self._is_serving:
            self._idle[self] = None
        if len(self._idle) > MOST_IDLE:
            first = next(iter(self._idle))
            del self._idle[first]
            first.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take what came; a request that is not whole yet is due within its deadline."""
        super().data_received(data)
        self._note_idle()
        if self._is_serving:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        if self._look is not None:
            self._look.cancel()
        self._idle.pop(self, None)
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Note that it waits for its next request."""
        super().on_response_complete()
        self._note_idle()

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _plan(self) -> None:
        shortest_s = min(self._header_s or _LOOK_S, self._idle_s or _LOOK_S)
        self._look = self.loop.call_later(min(_LOOK_S, shortest_s / 2), self._look_after)

    def _look_after(self) -> None:
        now = self.loop.time()
        if not self._is_serving and _is_over(self._quiet_since, self._header_s, now):
            self._quiet_since = None
            self.transport.close()
        self._measure(now)
        if _is_over(self._stuck_since, self._idle_s, now):
            # Closing would wait until the bytes are taken.
            self.transport.abort()
            return
        self._plan()

    def _measure(self, now: float) -> None:
        """Note since when as many bytes wait as before: more are an answer that goes on."""
        n_pending = self.transport.get_write_buffer_size()
        if not n_pending or n_pending != self._n_pending:
            self._stuck_since = now if n_pending else None
        self._n_pending = n_pending


def _is_over(since: float | None, limit_s: float, now: float) -> bool:
    return bool(limit_s) and since is not None and now - since > limit_s


def protocol(*, header_s: float, idle_s: float) -> type[asyncio.Protocol] | HTTPProtocolType:
    """Give what uvicorn's `http` takes; a deadline of 0 is none."""
    idle: dict[PatientProtocol, None] = {}
    made: Any = functools.partial(PatientProtocol, header_s=header_s, idle_s=idle_s, idle=idle)
    return made  # type: ignore[no-any-return]
