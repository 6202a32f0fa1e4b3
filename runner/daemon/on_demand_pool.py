"""A run's pool in this machine's service, which starts at the first model call."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from paddock.engine.request import Pool
from paddock.runner.core.calls.model_pools import OnDemandPool
from paddock.runner.settings import Settings

from .daemon_session import DaemonSession


class ServicePool(OnDemandPool):
    """The service's pool; one inside this process where there is no service."""

    def __init__(self, settings: Settings, session: DaemonSession) -> None:
        super().__init__(settings)
        self._session = session

    async def __aenter__(self) -> ServicePool:
        """Use the service if it is running."""
        if self._session.daemon is not None:
            await self._opened()
        return self

    async def _source(self) -> AbstractAsyncContextManager[Pool]:
        if not await self._session.start():
            return await super()._source()
        from paddock.engine.backends.rpc import RemotePool  # brings numpy, which a plan lacks

        return RemotePool(self._session.place)
