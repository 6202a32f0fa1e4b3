"""Run the service behind a socket: listen, signals, drain.

The first SIGTERM or Ctrl-C closes the socket: running requests may finish within `stop_timeout_s`,
then they are cancelled. A second signal ends the process at once.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from paddock.engine.api.connection_deadlines import deadline_protocol
from paddock.engine.errors import EngineError
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.http import QuietServer
from paddock.engine.system.processes import return_large_blocks

if TYPE_CHECKING:
    from paddock.engine.api.batches.batch_runner import BatchRunner
from paddock.engine.api.service import Service

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
    return_large_blocks()
    # 6 MB that `paddock up` does without
    app = importlib.import_module("paddock.engine.api.app").make_app(service)
    settings = service.settings
    return HttpServer(app, settings, stop_s=settings.stop_timeout_s, batches=app.state.batches)


async def serve(
    service: Service,
    listener: socket.socket | None = None,
    when_ready: Callable[[socket.socket], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain."""
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
