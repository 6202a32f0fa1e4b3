"""Run the service behind a socket, and end it in good order. Knows no command line.

The first SIGTERM or Ctrl-C closes the door: what runs may finish within `stop_timeout_s`, then it
is cancelled. A second one ends at once.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from paddock.engine.api.app import make_app
from paddock.engine.api.connections import protocol
from paddock.engine.api.service import Companion, Service
from paddock.engine.errors import EngineError
from paddock.engine.settings import ServiceSettings

BACKLOG = 2048


class PortTaken(EngineError):
    """Another program listens there already."""

    def __init__(self, host: str, port: int, *, is_ollama: bool) -> None:
        self.host = host
        self.port = port
        self.is_ollama = is_ollama
        who = "Ollama listens there" if is_ollama else "another program listens there"
        super().__init__(f"{host}:{port} is taken: {who} already.")


class CannotListen(EngineError):
    """The address is not one of this machine's, or the port needs more rights."""

    def __init__(self, host: str, port: int, why: str) -> None:
        self.host = host
        self.port = port
        self.why = why
        super().__init__(f"cannot listen on {host}:{port}: {why}")


def listen(host: str, port: int) -> socket.socket:
    """Take the port; 0: any free one.

    Raises:
        PortTaken: somebody has it.
        CannotListen: it cannot be had at all.
    """
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
    """Ask whoever listens whether it says what Ollama says."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    try:
        with socket.create_connection((near, port), timeout=1.0) as wire:
            wire.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return b"Ollama is running" in wire.recv(4096)
    except OSError:
        return False


class Server(uvicorn.Server):
    """uvicorn's server, whose signals are ours to handle; companions live as long as it.

    Each of our HTTP services is one: the same deadlines and bounds hold at every door.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServiceSettings,
        *,
        stop_s: float,
        companions: Sequence[Companion] = (),
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol(header_s=settings.header_timeout_s, idle_s=settings.idle_timeout_s),
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="none",
                server_header=False,
                proxy_headers=False,  # who asks is decided by the connection, not by its claims
                timeout_keep_alive=int(settings.idle_timeout_s),
                timeout_graceful_shutdown=max(1, round(stop_s)),
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        self._companions = companions

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the door, then begin what works beside the requests."""
        await super().startup(sockets)
        for one in self._companions:
            await one.start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what works beside the requests, so that these have the rest of the time."""
        for one in self._companions:
            await one.stop()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `serve` handles them."""
        yield


def make_server(service: Service) -> Server:
    """Set uvicorn up for the service."""
    settings, app = service.settings, make_app(service)
    return Server(app, settings, stop_s=settings.stop_timeout_s, companions=app.state.companions)


async def serve(
    service: Service,
    door: socket.socket | None = None,
    when_ready: Callable[[socket.socket], None] | None = None,
) -> None:
    """Answer until a signal says to end, then end in good order.

    Raises:
        PortTaken, CannotListen: nothing was served.
    """
    door = door or listen(service.settings.host, service.settings.port)
    server = make_server(service)

    def end(*_: int | FrameType | None) -> None:
        server.force_exit = server.should_exit
        server.should_exit = service.is_stopping = True

    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for one in signals:
        with suppress(NotImplementedError):  # Windows: Ctrl-C is raised where the loop runs
            loop.add_signal_handler(one, end)
    try:
        if when_ready is not None:
            when_ready(door)
        await server.serve(sockets=[door])
    finally:
        for one in signals:
            with suppress(NotImplementedError):
                loop.remove_signal_handler(one)
        door.close()
