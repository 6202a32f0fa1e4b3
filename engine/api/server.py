"""Run the service behind a socket: listen, deadlines of connections, signals, drain.

The first SIGTERM or Ctrl-C closes the socket: running requests may finish within `stop_timeout_s`,
then they are cancelled. A second signal ends the process at once.

Uvicorn closes a connection that is idle between two requests, but waits for ever for the headers of
a request, for a client that sends nothing, and for a client that does not read its answer. The
application cannot see the first two and cannot end the third.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import HTTPProtocolType
from uvicorn.protocols.http.h11_impl import H11Protocol

from paddock.engine.api.app import make_app
from paddock.engine.api.openai.batches import BatchRunner
from paddock.engine.api.service import Service
from paddock.engine.errors import EngineError
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.http import QuietServer

# Interval of the checks: a connection is closed so much late at most.
_DEADLINE_CHECK_S = 1.0

# Connections of one server without a request. One more closes the one that is idle for longest, so
# that silent connections do not shut out other clients. Most systems allow a process 1,024 files.
MOST_IDLE = 512


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
        """Update the list of idle connections; close the oldest of too many."""
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
        self._note_idle()
        if self._is_serving:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._idle.pop(self, None)
        super().connection_lost(exc)

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
        self._note_progress(now)
        if _is_past_deadline(self._stuck_since, self._idle_s, now):
            # `close` would wait until the client has read the rest.
            self.transport.abort()
            return
        self._start_timer()

    def _note_progress(self, now: float) -> None:
        """Note since when the number of unread bytes is the same."""
        n_pending = self.transport.get_write_buffer_size()
        if not n_pending or n_pending != self._n_pending:
            self._stuck_since = now if n_pending else None
        self._n_pending = n_pending


def _is_past_deadline(since: float | None, limit_s: float, now: float) -> bool:
    return bool(limit_s) and since is not None and now - since > limit_s


def deadline_protocol(
    *, header_s: float, idle_s: float
) -> type[asyncio.Protocol] | HTTPProtocolType:
    """Return a value for uvicorn's `http`; 0 stands for no deadline."""
    idle: dict[DeadlineProtocol, None] = {}
    made: Any = functools.partial(DeadlineProtocol, header_s=header_s, idle_s=idle_s, idle=idle)
    return made  # type: ignore[no-any-return]


BACKLOG = 2048
STOPPING = "paddock.stopping"
"""In a request's state: the event that ends streams which have no end of their own."""


class PortTaken(EngineError):
    """Another program listens on this port."""

    def __init__(self, host: str, port: int, *, is_ollama: bool) -> None:
        self.port = port
        self.is_ollama = is_ollama
        reason = "Ollama listens there" if is_ollama else "another program listens there"
        super().__init__(f"{host}:{port} is taken: {reason} already.")


class CannotListen(EngineError):
    """The address is not of this machine, or the port needs more rights."""

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(f"cannot listen on {host}:{port}: {why}")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0: any free one. Raises PortTaken or CannotListen."""
    try:
        infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM,
                                   flags=socket.AI_PASSIVE)  # fmt: skip
        family, kind, protocol, _, address = infos[0]
        server = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CannotListen(host, port, error.strerror or str(error)) from None
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        server.bind(address)
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(host, port, is_ollama=_is_ollama(host, port)) from None
        raise CannotListen(host, port, error.strerror or str(error)) from None
    return server


def _is_ollama(host: str, port: int) -> bool:
    """Return whether the program on the port answers as Ollama does."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    try:
        with socket.create_connection((near, port), timeout=1.0) as wire:
            wire.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return b"Ollama is running" in wire.recv(4096)
    except OSError:
        return False


class HttpServer(QuietServer, uvicorn.Server):
    """uvicorn's server with our deadlines and limits, for each of our HTTP services.

    The caller handles signals. `batches` are run as long as the server runs.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServiceSettings,
        *,
        stop_s: float,
        batches: BatchRunner | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=deadline_protocol(
                    header_s=settings.header_timeout_s, idle_s=settings.idle_timeout_s
                ),
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="none",
                server_header=False,
                proxy_headers=False,  # `client_address` decides which headers to believe
                timeout_keep_alive=int(settings.idle_timeout_s),
                timeout_graceful_shutdown=max(1, round(stop_s)),
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        self._batches = batches
        self._stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then start the batches."""
        self.lifespan.state[STOPPING] = self._stopping
        await super().startup(sockets)
        if self._batches is not None:
            await self._batches.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop the batches, so that requests have the rest of the time; then drain."""
        self._stopping.set()
        if self._batches is not None:
            await self._batches.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `serve` handles them."""
        yield


@asynccontextmanager
async def serving(
    app: ASGIApp, listener: socket.socket, settings: ServiceSettings, *, stop_s: float = 3
) -> AsyncIterator[None]:
    server = HttpServer(app, settings, stop_s=stop_s)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({task}, timeout=stop_s + 1)


def make_server(service: Service) -> HttpServer:
    settings, app = service.settings, make_app(service)
    return HttpServer(app, settings, stop_s=settings.stop_timeout_s, batches=app.state.batches)


async def serve(
    service: Service,
    listener: socket.socket | None = None,
    when_ready: Callable[[socket.socket], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain.

    Raises:
        PortTaken, CannotListen: nothing was served.
    """
    listener = listener or listen(service.settings.host, service.settings.port)
    server = make_server(service)

    def stop(*_: int | FrameType | None) -> None:
        server.force_exit = server.should_exit
        server.should_exit = service.is_stopping = True

    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for signum in signals:
        with suppress(NotImplementedError):  # Windows: Ctrl-C is raised where the loop runs
            loop.add_signal_handler(signum, stop)
    try:
        if when_ready is not None:
            when_ready(listener)
        await server.serve(sockets=[listener])
    finally:
        for signum in signals:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(signum)
        listener.close()
