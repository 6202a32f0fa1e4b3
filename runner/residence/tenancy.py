"""A run's stay at the local service: its lease, its pool's place, Prefect's address.

A service that goes away in the middle of a run is found or started again, here alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.remote.pool import Place
from paddock.runner.settings import Settings

from . import find
from .ensure import ensure
from .lodging import Lodging, asked, lodge
from .place import NoResidence, place_of
from .record import Residence

MOST_RETURNS = 10  # a service that goes away so often in one run will not stay
PREFECT_S = 120.0
LOOK_S = 1.0


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
        self._flow_run = ""

    @property
    def residence(self) -> Residence:
        """The service as it is now."""
        assert self._lodging is not None
        return self._lodging.residence

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
        if self._flow_run:
            await self._lodging.tell(self._flow_run)

    async def move_out(self) -> None:
        """Give the lease back."""
        if self._lodging is not None and self._flow_run:
            await self._lodging.tell(self._flow_run, is_left=True)
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

    async def prefect_url(self) -> str:
        """Wait for Prefect's API and give its address.

        Raises:
            NoResidence: it does not answer in time; says why.
        """
        deadline, why = time.monotonic() + PREFECT_S, ""
        while time.monotonic() < deadline:
            with suppress(NoResidence):  # one that went away is being replaced
                assert self._lodging is not None
                told = await self._lodging.prefect(deadline - time.monotonic())
                if told.get("state") == "ready":
                    return str(told["url"])
                why = str(told.get("why", ""))
            await asyncio.sleep(LOOK_S)
        raise NoResidence(f"its server did not start within {PREFECT_S:g} s. {why}".strip())

    async def began(self, flow_run: str) -> None:
        """Note the Prefect run, which is crashed if this process goes without a farewell."""
        self._flow_run = flow_run
        if self._lodging is not None:
            await self._lodging.tell(flow_run)

    async def leave_word(self, past: dict[str, Any]) -> bool:
        """Have the service show a run that has ended, once Prefect is there; tells whether it will.

        Its rows can be large, and its values those of the pipeline: what JSON has no word for is
        written as text.
        """
        try:
            told = await asked(self.residence, "/past", json.loads(json.dumps(past, default=str)))
        except NoResidence:
            return False
        return bool(told.get("is_taken"))

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
    """Stay at the local service, which is started if need be.

    Raises:
        NoResidence: there is none, and none starts.
    """
    tenant = Tenant(settings, pipeline, wants_prefect, tell)
    await tenant.move_in()
    staying = asyncio.create_task(tenant.stay())
    try:
        yield tenant
    finally:
        staying.cancel()
        await asyncio.wait({staying})
        await tenant.move_out()


def is_there(settings: Settings) -> bool:
    """Tell whether a service that fits these settings runs."""
    return find.at(place_of(settings)) is not None
