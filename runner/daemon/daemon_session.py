"""A run's session with the local daemon: its lease, and the address of its model pool.

Reconnects when the daemon goes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from paddock.engine.errors import EngineError
from paddock.engine.system.server_address import PoolAddress
from paddock.engine.system.tasks import end
from paddock.runner.settings import Settings

from . import daemon_files
from .daemon_client import DaemonLease, ensure_daemon, hold_lease
from .daemon_files import DaemonError, DaemonInfo, paths_of

MOST_RECONNECTS = 10  # more often than that, no daemon will stay up


class DaemonSession:
    """One run's connection to the local daemon. Made by `daemon_session`."""

    def __init__(self, settings: Settings, pipeline: str, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._tell = tell
        self._moving = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._daemon_lease: DaemonLease | None = None
        self._n_moves = 0
        self._is_refused = False
        self._staying: asyncio.Task[None] | None = None

    @property
    def daemon(self) -> DaemonInfo:
        assert self._daemon_lease is not None
        return self._daemon_lease.daemon

    @property
    def is_there(self) -> bool:
        return self._daemon_lease is not None

    async def start(self) -> bool:
        """Find or start the daemon, once; return whether it runs. If not, report the reason."""
        async with self._moving:
            if self._daemon_lease is None and not self._is_refused:
                try:
                    await self.attach()
                except DaemonError as error:
                    self._is_refused = True
                    self._tell(f"{error}\n  The run continues without it.")
        return self.is_there

    async def attach(self) -> None:
        """Find or start the daemon, and take a lease.

        Raises:
            DaemonError: there is none, and none starts.
        """
        daemon = await ensure_daemon(self._settings, self._tell)
        await self._stack.aclose()
        self._daemon_lease = await self._stack.enter_async_context(
            hold_lease(daemon, pipeline=self._pipeline)
        )
        if self._staying is None:
            self._staying = asyncio.create_task(self.stay())

    async def detach(self) -> None:
        if self._staying is not None:
            await end(self._staying)
        await self._stack.aclose()

    async def stay(self) -> None:
        """Keep a lease, with a new daemon when one dies, until cancelled or out of attempts."""
        while self._daemon_lease is not None:
            await self._daemon_lease.broken.wait()
            try:
                await self._move(self._daemon_lease)
            except DaemonError as error:
                self._tell(str(error))
                return

    async def place(self, broken: PoolAddress | None) -> PoolAddress:
        """Return where the pool is served; implements `paddock.engine.backends.rpc.FindPool`.

        Raises:
            EngineError: the daemon does not come back.
        """
        lease = self._daemon_lease
        assert lease is not None
        if broken is not None and not await asyncio.to_thread(
            daemon_files.is_listening, lease.daemon.socket
        ):
            try:
                await self._move(lease)
            except DaemonError as error:
                raise EngineError(str(error)) from None
        return PoolAddress(socket=self.daemon.socket)

    async def _move(self, gone: DaemonLease) -> None:
        """Connect to a running daemon, once for all tasks that found the old one gone."""
        async with self._moving:
            if self._daemon_lease is not gone:
                return
            self._n_moves += 1
            if self._n_moves > MOST_RECONNECTS:
                raise DaemonError(
                    f"The local service went away {MOST_RECONNECTS} times in this run."
                )
            self._tell("The local service went away; the run continues with another one.")
            await self.attach()


@asynccontextmanager
async def daemon_session(
    settings: Settings, *, pipeline: str, tell: Callable[[str], None]
) -> AsyncIterator[DaemonSession]:
    """Yield a run's session with the local daemon, which starts when it is needed."""
    session = DaemonSession(settings, pipeline, tell)
    try:
        if await asyncio.to_thread(is_daemon_running, settings):
            await session.start()
        yield session
    finally:
        await session.detach()


def is_daemon_running(settings: Settings) -> bool:
    return daemon_files.daemon_at(paths_of(settings)) is not None
