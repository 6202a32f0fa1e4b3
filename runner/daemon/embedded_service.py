"""Run the service in this process: for `paddock serve`, or in a thread for one command.

Imports the pool and the HTTP application, so only what runs a service imports it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from starlette.types import ASGIApp

from paddock.engine.api.app import make_app
from paddock.engine.api.pool_server import pool_routes
from paddock.engine.api.request_log import RequestLogEvents
from paddock.engine.api.server import HttpServer, make_server
from paddock.engine.api.service import Service
from paddock.engine.backends.local import LocalPool
from paddock.engine.models.model_store import ModelStore
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.distribution import own_version
from paddock.runner.settings import Settings

END_S = 15.0  # workers have 5 s to stop, then they are killed with this process
_MOST_LETTERS = 60


@asynccontextmanager
async def hosted_service(settings: Settings, *, is_owners: bool = False) -> AsyncIterator[Service]:
    """Open the pool and yield the handlers' state; `is_owners`: only this user can reach it."""
    async with LocalPool(settings.pool, events=RequestLogEvents()) as pool:
        yield Service(
            pool,
            ModelStore(settings.pool.models_dir),
            pool.models,
            settings.service,
            own_version(),
            extra_routes=pool_routes(pool, names_only=True),
            takes_paths=is_owners,
        )


def ollama_app(pool: LocalPool) -> ASGIApp:
    """Return Ollama's API over a pool, for its owner alone."""
    store = ModelStore(pool.settings.models_dir)
    service = Service(pool, store, pool.models, ServiceSettings(), own_version(), takes_paths=True)
    return make_app(service)


@contextmanager
def embedded_service(settings: Settings) -> Iterator[Path]:
    """Run the service in a thread of this process; yield its private socket."""
    # A socket's path has at most about a hundred letters; some temporary folders are longer.
    place = "/tmp" if len(tempfile.gettempdir()) > _MOST_LETTERS else None
    with tempfile.TemporaryDirectory(prefix="paddock-", dir=place) as folder:
        path = Path(folder) / "service"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen()
        # Only this process can reach it, so requests need no key. Batches of the real service stay
        # with that one.
        alone = replace(
            settings.service,
            host="127.0.0.1",
            api_keys_file=None,
            rate_per_minute=None,
            access_log=False,
            state_dir=Path(folder) / "state",
        )
        with _ServiceThread(replace(settings, service=alone), listener):
            yield path


class _ServiceThread:
    """A thread with its own event loop for the service."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._server: HttpServer | None = None
        self._error: BaseException | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    def __enter__(self) -> _ServiceThread:
        self._thread.start()
        self._is_up.wait()
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.force_exit = self._server.should_exit = True
        self._thread.join(END_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # raised again in `__enter__`
            self._error = error
        finally:
            self._is_up.set()
            with contextlib.suppress(OSError):
                self._listener.close()

    async def _serve(self) -> None:
        async with hosted_service(self._settings, is_owners=True) as service:
            self._server = make_server(service)
            self._is_up.set()
            await self._server.serve(sockets=[self._listener])
