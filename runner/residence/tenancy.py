"""A run's stay at the local service: its lease, its pool's place, Prefect's address.

A service that goes away in the middle of a run is found or started again, here alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.remote.pool import Place
from paddock.runner.settings import Settings

from . import find, unshown
from .ensure import ensure
from .lodging import Lodging, asked, lodge
from .place import NoResidence, place_of
from .record import Residence

MOST_RETURNS = 10  # a service that goes away so often in one run will not stay


class Tenant:
    """One run at the local service. Made by `tenancy`."""

    def __init__(
        self, settings: Settings, pipeline: str, wants_prefect: bool, tell: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._wants_prefect = wants_prefect
        self._tell = tell
        self._moving = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._lodging: Lodging | None = None
        self._n_moves = 0
        self._is_refused = False
        self._staying: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[bool] | None = None

    @property
    def residence(self) -> Residence:
        """The service as it is now."""
        assert self._lodging is not None
        return self._lodging.residence

    @property
    def is_there(self) -> bool:
        """Whether the run has the service."""
        return self._lodging is not None

    async def start(self) -> bool:
        """Find or start the service, once; return whether it is there. If not, it is told why."""
        async with self._moving:
            if self._lodging is None and not self._is_refused:
                try:
                    await self.move_in()
                except NoResidence as error:
                    self._is_refused = True
                    self._tell(f"{error}\n  This run goes on without it.")
        return self.is_there

    async def move_in(self) -> None:
        """Find or start the service, and hold a lease of it.

        Raises:
            NoResidence: there is none, and none starts.
        """
        residence = await ensure(self._settings, wants_prefect=self._wants_prefect, tell=self._tell)
        await self._stack.aclose()
        self._lodging = await self._stack.enter_async_context(
            lodge(residence, pipeline=self._pipeline)
        )
        if self._staying is None:
            self._staying = asyncio.create_task(self.stay())

    async def move_out(self) -> None:
        """Give the lease back."""
        tasks = {task for task in (self._staying, self._starting) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._stack.aclose()

    async def stay(self) -> None:
        """Hold a lease over the deaths of services, until cancelled or given up."""
        while self._lodging is not None:
            await self._lodging.broken.wait()
            try:
                await self._move(self._lodging)
            except NoResidence as error:
                self._tell(str(error))
                return

    async def place(self, broken: Place | None) -> Place:
        """Give where the pool is asked; implements `paddock.engine.remote.pool.FindPlace`.

        Raises:
            EngineError: the service does not come back.
        """
        lodging = self._lodging
        assert lodging is not None
        if broken is not None and not await asyncio.to_thread(
            find.is_open, lodging.residence.socket
        ):
            try:
                await self._move(lodging)
            except NoResidence as error:
                raise EngineError(str(error)) from None
        return Place(socket=self.residence.socket)

    async def mirror(self, update: dict[str, Any]) -> bool:
        """Have the service show how the run goes; implements `paddock.runner.feed.Send`.

        A run with items to do starts the service for it. Where there is none, or it does not
        answer, the end of a run is written down for the next one.
        """
        end = update["end"]
        if self._lodging is None and update["has_work"] and self._starting is None:
            self._starting = asyncio.create_task(self.start())
        if self._starting is not None and end is not None:
            await asyncio.wait({self._starting})
        if self._lodging is not None:
            update |= {"lease": self._lodging.id}
            try:
                told = await asked(self.residence, "/mirror", update)
                return bool(told.get("is_new"))
            except NoResidence:
                pass
        if end is not None:
            self._keep(update)
        return True

    def _keep(self, update: dict[str, Any]) -> None:
        try:
            unshown.keep(self._settings.state_dir, update)
        except OSError as error:
            self._tell(f"Prefect does not show the end of this run: {error}")

    async def _move(self, gone: Lodging) -> None:
        """Move to a service that runs, once for all who found the old one gone."""
        async with self._moving:
            if self._lodging is not gone:
                return
            self._n_moves += 1
            if self._n_moves > MOST_RETURNS:
                raise NoResidence(f"The local service went away {MOST_RETURNS} times in this run.")
            self._tell("The local service went away; the run goes on with another one.")
            await self.move_in()


@asynccontextmanager
async def tenancy(
    settings: Settings, *, pipeline: str, wants_prefect: bool, tell: Callable[[str], None]
) -> AsyncIterator[Tenant]:
    """Yield a run's stay at the local service, which is started once it is needed."""
    tenant = Tenant(settings, pipeline, wants_prefect, tell)
    try:
        if await asyncio.to_thread(is_there, settings):
            await tenant.start()
        yield tenant
    finally:
        await tenant.move_out()


def is_there(settings: Settings) -> bool:
    """Tell whether a service that fits these settings runs."""
    return find.at(place_of(settings)) is not None
