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
from dataclasses import dataclass, field
from typing import Any

from .border import Border
from .journey import Journey
from .report import Report
from .session import Session
from .shown import Past

FIRST_CALL_S = 1.0  # who imports takes the processor from who prepares the first model call
END_S = 30.0
GRACE_S = 1.0  # whether Prefect is there is known at once; while it starts nobody waits for it
HASTY_S = 15.0  # after a Ctrl-C; the second one ends at once
CANCEL_S = 5.0
MOST_TRIES, PAUSE_S = 5, 2.0


@dataclass(eq=False)
class _Sight:
    """What Prefect has seen of a run."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    flow_run: str = ""
    is_whole: bool = False
    """It took the end, too."""
    n_tries: int = 0
    why: str = ""
    is_near: bool = False
    """Prefect answers, and is being imported or told of the run."""


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
    sight = _Sight()
    showing = asyncio.create_task(_show(journey, prefect, sight))
    try:
        return await journey.ended()
    finally:
        await _finish(showing, journey, sight, prefect, stop)


async def _show(journey: Journey, prefect: Prefect, sight: _Sight) -> None:
    """Bring Prefect in and have it follow the journey; again where it went away before it began."""
    await _first_call(journey)

    async def began(flow_run: str) -> None:
        sight.flow_run = flow_run
        sight.begun.set()
        await prefect.began(flow_run)

    while not sight.begun.is_set() and sight.n_tries < MOST_TRIES:
        await asyncio.sleep(PAUSE_S if sight.n_tries else 0)
        sight.n_tries += 1
        try:
            url = await prefect.url()
            sight.is_near = True
            flow = await _imported(url)
            await flow.follow(journey, url or None, began)
        except Exception as error:  # Prefect's, httpx's, websockets', anyio's: said at the end
            sight.is_near = False
            sight.why = str(error) or type(error).__name__
        else:
            sight.is_whole = True


async def _first_call(journey: Journey) -> None:
    """Wait until the first model call is on its way, or there is nothing to wait for."""
    first: asyncio.Event | None = getattr(journey.session.toolbox.pool, "first_call", None)
    if first is not None:
        called = asyncio.create_task(first.wait())
        await asyncio.wait(
            {called, journey.work}, timeout=FIRST_CALL_S, return_when=asyncio.FIRST_COMPLETED
        )
        called.cancel()


async def _imported(url: str) -> Any:
    """Import what knows Prefect, in a thread, so that the work goes on."""
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
            module = _import(environ, url)
        except Exception as error:  # told to whoever waits
            failed = error
        with suppress(RuntimeError):  # the loop is closed: the run is over
            loop.call_soon_threadsafe(tell, module, failed)

    # Not a daemon: an interpreter that ends in the middle of an import may crash.
    threading.Thread(target=work, args=(dict(os.environ),), name="import of prefect").start()
    return await imported


def _import(environ: dict[str, str], url: str) -> Any:
    try:
        if url:  # what sends its events asks nobody but the environment of the import
            os.environ["PREFECT_API_URL"] = url
        return importlib.import_module("paddock.runner.flow")
    finally:
        # What we ship for Prefect is for this process alone, not for what it starts.
        for name in [name for name in os.environ if name.startswith(("PREFECT_", "DO_NOT_TRACK"))]:
            if name in environ:
                os.environ[name] = environ[name]
            else:
                del os.environ[name]


async def _finish(
    showing: asyncio.Task[None],
    journey: Journey,
    sight: _Sight,
    prefect: Prefect,
    stop: asyncio.Event,
) -> None:
    """Let Prefect take the end, within bounds; what it did not take is left to whoever can."""
    if prefect.later is not None and not sight.is_near:
        begun = asyncio.create_task(sight.begun.wait())
        await asyncio.wait({showing, begun}, timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
    if prefect.later is None or sight.is_near:
        await asyncio.wait({showing}, timeout=HASTY_S if stop.is_set() else END_S)
    if not showing.done():
        showing.cancel()
        await asyncio.wait({showing}, timeout=CANCEL_S)
    if sight.is_whole or journey.work.cancelled() or journey.work.exception() is not None:
        return  # an exception is the YAML's fault, and said to whoever waits
    past = Past.of(journey.session, journey.work.result(), sight.flow_run)
    if prefect.later is None or not await prefect.later(past):
        why = sight.why or "it was not there in time"
        journey.session.tally.note(f"Prefect does not show all of this run: {why}")
