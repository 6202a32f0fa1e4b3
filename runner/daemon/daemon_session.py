"""A run's session with the local daemon: its lease, and the address of its model pool.

Reconnects when the daemon goes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from paddock.engine.errors import EngineError
from paddock.engine.request import Pool
from paddock.engine.system.server_address import PoolAddress
from paddock.runner.core.calls.model_pools import OnDemandPool
from paddock.runner.settings import Settings

from . import daemon_files
from .daemon_client import AGAIN_S, ensure_daemon, hold_lease
from .daemon_files import DaemonError, DaemonGone, DaemonInfo

MOST_RECONNECTS = 10  # more often than that, no daemon will stay up


class DaemonSession:
    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._moving = asyncio.Lock()
        self._stack = AsyncExitStack()
        self.daemon: DaemonInfo | None = None
        """The one that it holds."""
        self._told_gone: DaemonInfo | None = None
        self._n_moves = 0

    async def attach(self) -> None:
        """Find or start the daemon, and take a lease.

        Raises:
            DaemonError: there is none, and none starts.
        """
        await self._stack.aclose()
        while True:
            daemon = await ensure_daemon(self._settings, self._tell)
            try:
                await self._stack.enter_async_context(hold_lease(daemon))
            except DaemonGone:  # killed since it was found, it may look alive for a moment
                self._note_gone(daemon)
                await asyncio.sleep(AGAIN_S)
            else:
                if self.daemon not in (None, daemon, self._told_gone):  # it seemed to listen still
                    self._note_gone(self.daemon)
                self.daemon = daemon
                return

    async def place(self, broken: PoolAddress | None) -> PoolAddress:
        """Return where the pool is served; implements `paddock.engine.backends.rpc.FindPool`.

        Raises:
            EngineError: the daemon does not come back.
        """
        assert self.daemon is not None
        if broken is not None:
            async with self._moving:
                try:
                    if not await asyncio.to_thread(daemon_files.is_listening, self.daemon.socket):
                        self._note_gone(self.daemon)
                    await self.attach()  # this one, another process's at its socket, or a new one
                except DaemonError as error:
                    raise EngineError(str(error)) from None
        return PoolAddress(socket=self.daemon.socket)

    def _note_gone(self, daemon: DaemonInfo) -> None:
        """Count a daemon that went away; report it once if it was the one held."""
        self._n_moves += 1
        if self._n_moves > MOST_RECONNECTS:
            raise DaemonError(f"The local service went away {MOST_RECONNECTS} times in this run.")
        if daemon == self.daemon != self._told_gone:
            self._told_gone = daemon
            self._tell("The local service went away; the run continues with another one.")

    async def detach(self) -> None:
        await self._stack.aclose()


class ServicePool(OnDemandPool):
    """The service's pool; one inside this process where there is no service."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        super().__init__(settings)
        self._session = DaemonSession(settings, tell)
        self._tell = tell

    async def __aexit__(self, *_: object) -> None:
        try:
            await super().__aexit__()
        finally:
            await self._session.detach()

    async def _source(self) -> AbstractAsyncContextManager[Pool]:
        try:
            await self._session.attach()
        except DaemonError as error:
            self._tell(f"{error}\n  The run continues without it.")
            return await super()._source()
        from paddock.engine.backends.rpc import RemotePool  # brings numpy, which a plan lacks

        return RemotePool(self._session.place)
