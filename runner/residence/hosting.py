"""Hold the local service of a state folder in this process, or use the one that another holds.

Whoever has the lock opens the door: pool, Prefect's server, socket, record. Who does not get it
lodges with the holder, and takes over when that one ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import uvicorn
from filelock import FileLock, Timeout

from paddock.engine.pool import LocalPool
from paddock.engine.system import private
from paddock.engine.system.distribution import own_version
from paddock.runner.settings import Settings

from . import find, record
from .app import Desk, make_app
from .leases import Leases
from .lodging import lodge
from .mirror import Mirrors
from .place import NoResidence, Place, made, place_of
from .prefect_server import PrefectServer
from .record import Kind, Residence

BACKLOG = 1024
STOP_S = 5
OPEN_S = 30.0
TRY_S = 5.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def hosting(
    settings: Settings,
    *,
    kind: Kind = "up",
    pool: LocalPool | None = None,
    wants_prefect: bool = True,
) -> AsyncIterator[Residence]:
    """Give the local service for as long as this lasts, whoever holds it.

    Raises:
        NoResidence: its folder or socket cannot be used.
    """
    seat = _Seat(settings, kind, pool, wants_prefect)
    task = asyncio.create_task(seat.keep())
    try:
        yield await seat.ready(task)
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def offered(settings: Settings, pool: LocalPool) -> AsyncIterator[None]:
    """Open the door to a pool that serves already, while nobody else has it; Prefect when asked."""
    task = asyncio.create_task(_offer(settings, pool))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _offer(settings: Settings, pool: LocalPool) -> None:
    try:
        place = made(place_of(settings))
        while True:
            with suppress(Taken):
                async with held(settings, place, kind="serve", pool=pool):
                    await asyncio.Event().wait()
            await asyncio.sleep(TRY_S)
    except NoResidence as error:
        log.warning("runs here start a pool of their own: %s", error)


class _Seat:
    """A place at the door: the holder's, or a lodger's until the holder ends."""

    def __init__(
        self, settings: Settings, kind: Kind, pool: LocalPool | None, wants_prefect: bool
    ) -> None:
        self._settings = settings
        self._kind = kind
        self._pool = pool
        self._wants_prefect = wants_prefect
        self._place = made(place_of(settings))
        self._ready: asyncio.Future[Residence] = asyncio.get_running_loop().create_future()

    async def ready(self, keeping: asyncio.Task[None]) -> Residence:
        """Wait until somebody serves."""
        async with asyncio.timeout(OPEN_S):
            waited: set[asyncio.Future[Any]] = {self._ready, keeping}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            keeping.result()
        return self._ready.result()

    async def keep(self) -> None:
        """Serve, or lodge, until cancelled."""
        while True:
            try:
                async with held(
                    self._settings,
                    self._place,
                    kind=self._kind,
                    pool=self._pool,
                    wants_prefect=self._wants_prefect,
                ) as desk:
                    self._tell(desk.residence)
                    await asyncio.Event().wait()
            except Taken:
                await self._lodge()

    async def _lodge(self) -> None:
        """Use another's as long as it is there."""
        residence = find.at(self._place)
        if residence is not None:
            with suppress(NoResidence):
                async with lodge(residence, pipeline=f"paddock {self._kind}") as lodging:
                    if self._wants_prefect:
                        residence = residence.with_prefect(await lodging.prefect_url())
                    self._tell(residence)
                    await lodging.broken.wait()
        await asyncio.sleep(0.2)

    def _tell(self, residence: Residence) -> None:
        if not self._ready.done():
            self._ready.set_result(residence)


class Taken(Exception):
    """Another process holds the service."""


@asynccontextmanager
async def held(
    settings: Settings,
    place: Place,
    *,
    kind: Kind,
    pool: LocalPool | None = None,
    wants_prefect: bool = False,
    idle_s: float = float("inf"),
) -> AsyncIterator[Desk]:
    """Hold the service and answer at its door.

    Raises:
        Taken: another process holds it.
        NoResidence: the socket cannot be made.
    """
    lock = FileLock(place.lock, mode=private.FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise Taken from None
    async with AsyncExitStack() as stack:
        stack.callback(lock.release)
        prefect = await stack.enter_async_context(
            PrefectServer(settings.state_dir, place.folder, settings.unattended.keep_tracking_s)
        )
        url = prefect.want() if wants_prefect else ""
        if pool is None:
            pool = await stack.enter_async_context(LocalPool(settings.pool))
        residence = Residence(
            settings.state_dir, place.socket, url, own_version(), os.getpid(), kind,
            time.time(),
        )  # fmt: skip

        leases = Leases()
        mirrors = Mirrors(prefect, settings.state_dir)
        stack.push_async_callback(mirrors.close)
        if wants_prefect:
            mirrors.take_kept()
        desk = Desk(residence, pool, prefect, leases, idle_s, mirrors)
        # Before the door opens: whoever finds it open reads who is behind it.
        record.write(place.record, record.as_record(residence))
        stack.callback(place.record.unlink, missing_ok=True)
        await stack.enter_async_context(_door(place, desk))
        yield desk


@asynccontextmanager
async def _door(place: Place, desk: Desk) -> AsyncIterator[None]:
    """Answer at the socket until this ends; what is under way then is broken off."""
    place.socket.unlink(missing_ok=True)  # of one that was killed: we hold the lock
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(str(place.socket))  # in a folder that only its owner can enter
        place.socket.chmod(0o600)
    except OSError as error:
        raise NoResidence(
            f"No socket can be made at {place.socket}: {error.strerror}.\n"
            "  Set PADDOCK_HOME to a folder on a local disk; `run --local` needs none."
        ) from None
    door.listen(BACKLOG)
    server = _Server(
        uvicorn.Config(
            make_app(desk), lifespan="off", log_config=None, access_log=False, ws="none",
            server_header=False, timeout_graceful_shutdown=STOP_S, backlog=BACKLOG,
            timeout_keep_alive=60,
        )
    )  # fmt: skip
    serving = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield
    finally:
        desk.ends.set()
        place.socket.unlink(missing_ok=True)
        server.should_exit = True
        await asyncio.wait({serving}, timeout=STOP_S + 2)
        door.close()


class _Server(uvicorn.Server):
    """uvicorn's server, without its handling of signals: those are the process's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
