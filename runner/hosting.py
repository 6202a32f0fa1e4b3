"""Put a pool and a store together as the service, and run it inside this process for one command.

A command that finds no running service asks one of its own, over a socket that nobody else can
open: `paddock chat` is the same program with a service and without.
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
from typing import TYPE_CHECKING

from paddock.engine.store.names import is_path
from paddock.engine.system.distribution import own_version

from . import service as services
from .client import Client
from .settings import Settings

if TYPE_CHECKING:
    from paddock.engine.api.server import Server
    from paddock.engine.api.service import Service

END_S = 15.0  # workers have 5 s to stop; after it they are killed with this process
_MOST_LETTERS = 60


@asynccontextmanager
async def hosted(settings: Settings, *, is_owners: bool = False) -> AsyncIterator[Service]:
    """Open the pool and give what handlers need; `is_owners`: nobody else can ask it."""
    from paddock.engine.api.journal import JournalEars
    from paddock.engine.api.service import Service
    from paddock.engine.models import ModelFinder
    from paddock.engine.pool import LocalPool
    from paddock.engine.remote.door import routes
    from paddock.engine.remote.named import NamedPool
    from paddock.engine.store.layout import Store

    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    async with LocalPool(settings.pool, models=finder, events=JournalEars()) as pool:
        yield Service(
            pool,
            Store(settings.pool.models_dir),
            finder,
            settings.service,
            own_version(),
            doors=routes(NamedPool(pool)),
            takes_paths=is_owners,
        )


@contextmanager
def serving(settings: Settings, model: str = "") -> Iterator[Client]:
    """Give the service that is asked for a model, one inside this process where none runs.

    That is `paddock serve`, here or on another machine; without it, the service in the background.
    A file of this machine is never asked for over the network: other machines have no such file,
    and whoever may ask for answers may not have files read.

    Raises:
        ServiceError: another machine's is meant, and none answers.
    """
    client = None if is_path(model) else services.find(settings)
    client = client or services.background(settings)
    with client or embedded(settings) as one:
        yield one


@contextmanager
def embedded(settings: Settings) -> Iterator[Client]:
    """Run the service in a thread of this process, reached through a private socket alone."""
    import httpx

    # Nobody else can reach it, so nothing has to be asked of those who do.
    alone = replace(
        settings.service, host="127.0.0.1", api_keys_file=None, rate_per_minute=None,
        access_log=False,
    )  # fmt: skip
    # A socket's path has room for a hundred letters, fewer than some temporary folders' have.
    place = "/tmp" if len(tempfile.gettempdir()) > _MOST_LETTERS else None
    with tempfile.TemporaryDirectory(prefix="paddock-", dir=place) as folder:
        path = Path(folder) / "service"
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        door.bind(str(path))
        door.listen()
        # Nobody else can reach it, so nothing has to be asked of those who do; batches of the
        # service proper are not ours to go on with.
        alone = replace(
            settings.service,
            host="127.0.0.1",
            api_keys_file=None,
            rate_per_minute=None,
            access_log=False,
            state_dir=Path(folder) / "state",
        )
        with _Host(replace(settings, service=alone), door):
            transport = httpx.HTTPTransport(uds=str(path))
            with Client("http://localhost", transport=transport) as client:
                yield client


class _Host:
    """A thread with its own event loop, in which the service lives."""

    def __init__(self, settings: Settings, door: socket.socket) -> None:
        self._settings = settings
        self._door = door
        self._server: Server | None = None
        self._error: BaseException | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    def __enter__(self) -> _Host:
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
        except BaseException as error:  # told to whoever waits in `__enter__`
            self._error = error
        finally:
            self._is_up.set()
            with contextlib.suppress(OSError):
                self._door.close()

    async def _serve(self) -> None:
        from paddock.engine.api.server import make_server

        async with hosted(self._settings, is_owners=True) as service:
            self._server = make_server(service)
            self._is_up.set()
            await self._server.serve(sockets=[self._door])
