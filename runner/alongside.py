"""Carry a run out at once, and show it in Prefect as soon as that is there. Imports no Prefect.

Importing Prefect takes a second or two, and starting its server ten; the first model call waits for
neither. A run that is over before Prefect is there waits for it a while, so that it is shown.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .border import Border
from .journey import Journey
from .report import Report
from .session import Session
from .shown import Past
from .tracking import TrackingError

FIRST_CALL_S = 1.0  # who imports takes the processor from who prepares the first model call
END_S = 30.0
GRACE_S = 3.0  # for what is on its way: the import, or the flow run being made
HASTY_S = 5.0


@dataclass(frozen=True, slots=True)
class Prefect:
    """Where a run is shown."""

    url: Callable[[], Awaitable[str]]
    """Gives the API's address once it answers; empty: as the environment says. May raise
    `TrackingError`, whose words are noted."""
    began: Callable[[str], Awaitable[None]]
    """Is told the flow run's id."""
    later: Callable[[Past], Awaitable[bool]] | None = None
    """Takes a run that ended before Prefect was there, to be shown then; None: nobody does."""


async def run(session: Session, stop: asyncio.Event, border: Border, prefect: Prefect) -> Report:
    """Carry out an open session and give the report; Prefect has no say in it.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    journey = Journey.begun(session, stop, border)
    is_shown = asyncio.Event()
    showing = asyncio.create_task(_show(journey, prefect, is_shown))
    try:
        return await journey.ended()
    finally:
        if prefect.later is not None and not await _has_begun(showing, is_shown):
            await _hand_over(showing, journey, prefect.later)
        else:
            await _finish(showing, journey, stop)


async def _show(journey: Journey, prefect: Prefect, is_shown: asyncio.Event) -> None:
    """Bring Prefect in, and have it follow the journey."""
    await _first_call(journey)

    async def began(flow_run: str) -> None:
        is_shown.set()
        await prefect.began(flow_run)

    try:
        url = await prefect.url()
        flow = await _imported()
        await flow.follow(journey, url or None, began)
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
    """Import what knows Prefect, in a thread that nobody waits for at the end."""
    loop = asyncio.get_running_loop()
    imported: asyncio.Future[Any] = loop.create_future()

    def tell(module: Any, error: Exception | None) -> None:
        if imported.done():
            return
        if error is not None:
            imported.set_exception(error)
        else:
            imported.set_result(module)

    def work(environ: dict[str, str]) -> None:
        module, failed = None, None
        try:
            module = _import(environ)
        except Exception as error:  # told to whoever waits
            failed = error
        with suppress(RuntimeError):  # the loop is closed: the run is over
            loop.call_soon_threadsafe(tell, module, failed)

    threading.Thread(
        target=work, args=(dict(os.environ),), name="import of prefect", daemon=True
    ).start()
    return await imported


def _import(environ: dict[str, str]) -> Any:
    try:
        return importlib.import_module("paddock.runner.flow")
    finally:
        # What we ship for Prefect is for this process alone, not for what it starts.
        for name in set(os.environ) - set(environ):
            if name.startswith(("PREFECT_", "DO_NOT_TRACK")):
                del os.environ[name]


async def _has_begun(showing: asyncio.Task[None], is_shown: asyncio.Event) -> bool:
    """Tell whether a flow run was made, or would be made at once."""
    shown = asyncio.create_task(is_shown.wait())
    await asyncio.wait({showing, shown}, timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)
    shown.cancel()
    return is_shown.is_set() or showing.done()


async def _hand_over(
    showing: asyncio.Task[None], journey: Journey, later: Callable[[Past], Awaitable[bool]]
) -> None:
    """Leave it to others to show a run that has ended."""
    showing.cancel()
    await asyncio.wait({showing}, timeout=HASTY_S)
    if journey.work.cancelled() or journey.work.exception() is not None:
        return  # the YAML is wrong: said to whoever waits, and nothing was done
    if not await later(Past.of(journey.session, journey.work.result())):
        journey.session.tally.note("Prefect does not show this run: it was not there in time.")


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
