"""Carry a run out at once, and show it in Prefect as soon as that is there. Imports no Prefect.

Importing Prefect takes a second or two, and starting its server ten; the first model call waits for
neither. A run that is over before Prefect is there waits for it a while, so that it is shown.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from .border import Border
from .journey import Journey
from .report import Report
from .session import Session
from .tracking import TrackingError

FIRST_CALL_S = 1.0  # who imports takes the processor from who prepares the first model call
END_S = 30.0  # a server that starts for the first time: 13 s
HASTY_S = 5.0


@dataclass(frozen=True, slots=True)
class Prefect:
    """Where a run is shown."""

    url: Callable[[], Awaitable[str]]
    """Gives the API's address once it answers; empty: as the environment says. May raise
    `TrackingError`, whose words are noted."""
    began: Callable[[str], Awaitable[None]]
    """Is told the flow run's id."""


async def run(session: Session, stop: asyncio.Event, border: Border, prefect: Prefect) -> Report:
    """Carry out an open session and give the report; Prefect has no say in it.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    journey = Journey.begun(session, stop, border)
    showing = asyncio.create_task(_show(journey, prefect))
    try:
        return await journey.ended()
    finally:
        await _finish(showing, journey, stop)


async def _show(journey: Journey, prefect: Prefect) -> None:
    """Bring Prefect in, and have it follow the journey."""
    await _first_call(journey)
    try:
        flow, url = await asyncio.gather(_imported(), prefect.url())
        await flow.follow(journey, url or None, prefect.began)
    except TrackingError as error:
        journey.session.tally.note(f"Prefect does not show this run: {error}")


async def _first_call(journey: Journey) -> None:
    """Wait until the first model call is on its way, or there is nothing to wait for."""
    first: asyncio.Event | None = getattr(journey.session.toolbox.pool, "first_call", None)
    if first is not None:
        called = asyncio.create_task(first.wait())
        await asyncio.wait(
            {called, journey.work}, timeout=FIRST_CALL_S, return_when=asyncio.FIRST_COMPLETED
        )
        called.cancel()


async def _imported() -> Any:
    """Import what knows Prefect, in a thread, so that the work goes on."""
    with ThreadPoolExecutor(1, "prefect") as thread:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(thread, _import, dict(os.environ))


def _import(environ: dict[str, str]) -> Any:
    try:
        return importlib.import_module("paddock.runner.flow")
    finally:
        # What we ship for Prefect is for this process alone, not for what it starts.
        for name in set(os.environ) - set(environ):
            if name.startswith(("PREFECT_", "DO_NOT_TRACK")):
                del os.environ[name]


async def _finish(showing: asyncio.Task[None], journey: Journey, stop: asyncio.Event) -> None:
    """Let Prefect take the end, within bounds."""
    tally = journey.session.tally
    within_s = HASTY_S if stop.is_set() else END_S
    _, late = await asyncio.wait({showing}, timeout=within_s)
    if late:
        showing.cancel()
        await asyncio.wait({showing}, timeout=HASTY_S)
        tally.note(f"Prefect did not take the end of this run within {within_s:g} s.")
    elif not showing.cancelled() and showing.exception() is not None:
        tally.note(f"Prefect does not show all of this run: {showing.exception()}")
