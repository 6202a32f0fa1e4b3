"""Carry out a run and show it on the Prefect server that `PREFECT_API_URL` names.

Imports no Prefect itself: that takes a second or two, for which the first model call does not wait.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .border import Border
from .journey import Journey
from .report import Report
from .session import Session

FIRST_CALL_S = 1.0  # the import takes the processor from what prepares the first model call
END_S = 30.0
HASTY_S = 15.0  # after a Ctrl-C; the second one ends at once
CANCEL_S = 5.0
MOST_TRIES, PAUSE_S = 5, 2.0


@dataclass(eq=False)
class _Shown:
    """What Prefect has of a run."""

    has_begun: bool = False
    is_whole: bool = False
    """It has the end, too."""
    why: str = ""
    """Why not."""


async def run(session: Session, stop: asyncio.Event, border: Border) -> Report:
    """Carry out an open session and return the report, whatever becomes of showing it.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    journey = Journey.begun(session, stop, border)
    shown = _Shown()
    showing = asyncio.create_task(_show(journey, shown))
    try:
        return await journey.ended()
    finally:
        await _finish(showing, journey, shown, stop)


async def _show(journey: Journey, shown: _Shown) -> None:
    """Import Prefect and have it follow the journey; again where it went away before it began."""
    await _first_call(journey)

    def began() -> None:
        shown.has_begun = True

    for n_tries in range(MOST_TRIES):
        if shown.has_begun:
            return
        await asyncio.sleep(PAUSE_S if n_tries else 0)
        try:
            flow = await _imported()
            await flow.follow(journey, began)
        except Exception as error:  # Prefect's, httpx's, websockets', anyio's: said at the end
            shown.why = str(error) or type(error).__name__
        else:
            shown.is_whole = True
            return


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

    # Not a daemon: an interpreter that ends in the middle of an import may crash.
    threading.Thread(target=work, args=(dict(os.environ),), name="import of prefect").start()
    return await imported


def _import(environ: dict[str, str]) -> Any:
    try:
        return importlib.import_module("paddock.runner.flow")
    finally:
        # What we ship for Prefect is for this process alone, not for what it starts.
        for name in [name for name in os.environ if name.startswith(("PREFECT_", "DO_NOT_TRACK"))]:
            if name in environ:
                os.environ[name] = environ[name]
            else:
                del os.environ[name]


async def _finish(
    showing: asyncio.Task[None], journey: Journey, shown: _Shown, stop: asyncio.Event
) -> None:
    """Wait for Prefect to record the end, within bounds."""
    await asyncio.wait({showing}, timeout=HASTY_S if stop.is_set() else END_S)
    if not showing.done():
        showing.cancel()
        await asyncio.wait({showing}, timeout=CANCEL_S)
    failed = journey.work.cancelled() or journey.work.exception() is not None
    if not shown.is_whole and not failed:  # else the error says more
        why = shown.why or "it was not there in time"
        journey.session.tally.note(f"Prefect does not show all of this run: {why}")
