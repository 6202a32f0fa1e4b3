"""Give a run the local service: the one that runs, else one that is started here. Knows no pool."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from paddock.engine.system import private
from paddock.runner.settings import Settings

from . import find, orders
from .lodging import asked
from .place import NoResidence, Place, log_of, made, place_of
from .record import Residence

START_S = 30.0  # takes 1 to 2 s; on a machine with much else to do, more
LOOK_S = 0.02

Tell = Callable[[str], None]


async def ensure(
    settings: Settings, *, wants_prefect: bool = True, tell: Tell | None = None
) -> Residence:
    """Give the service that fits these settings, started if need be, its door open.

    Prefect's server is on its way then, if it is wanted; `prefect_api_url` says where it will be.

    Raises:
        NoResidence: it does not start; with what it said.
    """
    place = made(place_of(settings))
    residence = await asyncio.to_thread(find.at, place)
    if residence is None:
        residence = await _started(settings, place, wants_prefect, tell)
        await _retire_others(residence)
    if wants_prefect:
        told = await asked(residence, "/prefect", {})
        residence = residence.with_prefect(str(told.get("url", "")))
    return residence


async def _started(
    settings: Settings, place: Place, wants_prefect: bool, tell: Tell | None
) -> Residence:
    """Start one, unless somebody else does at the same time."""
    from filelock import FileLock, Timeout

    deadline = time.monotonic() + START_S
    lock = FileLock(place.starting, mode=private.FILE, blocking=False)
    while time.monotonic() < deadline:
        with suppress(Timeout), lock:
            residence = find.at(place)
            return residence or await _spawned(settings, place, wants_prefect, deadline, tell)
        await asyncio.sleep(5 * LOOK_S)
        residence = find.at(place)
        if residence is not None:
            return residence
    raise NoResidence(_late(settings))


async def _spawned(
    settings: Settings, place: Place, wants_prefect: bool, deadline: float, tell: Tell | None
) -> Residence:
    """Start a process of its own and wait for its door."""
    last_words = place.folder / f"{place.name}.err"
    text = orders.write(orders.Order(settings, wants_prefect))
    pid = await asyncio.to_thread(_spawn, text, last_words)
    while time.monotonic() < deadline:
        residence = find.at(place)
        if residence is not None:
            if tell is not None:
                tell(_news(residence, settings))
            return residence
        status = _status(pid)
        if status is not None and not find.at(place):  # else another was a moment quicker
            raise NoResidence(_died(last_words, status, settings))
        await asyncio.sleep(LOOK_S)
    os.kill(pid, signal.SIGKILL)
    raise NoResidence(_late(settings))


def _spawn(text: str, last_words: Path) -> int:
    """Start the process in a session of its own, so that no Ctrl-C reaches it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "paddock.runner.residence.background", text],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(last_words), flags, 0o600),
        ],
        setsid=True,
    )


def _status(pid: int) -> int | None:
    """Give how our child ended; None: it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


async def _retire_others(residence: Residence) -> None:
    """Ask services of other versions, or with other settings, to end once nobody needs them."""
    for other in await asyncio.to_thread(find.everyone, residence.state_dir):
        if other.socket != residence.socket and other.kind == "background":
            with suppress(NoResidence):
                await asked(other, "/retire", {})


def _news(residence: Residence, settings: Settings) -> str:
    from paddock.runner.display.console import duration

    idle = duration(settings.unattended.service_idle_s)
    return (
        f"Started the local service (process {residence.pid}), which keeps models in memory for "
        f"the next runs and ends when idle for {idle}: paddock service status"
    )


def _died(last_words: Path, status: int, settings: Settings) -> str:
    lines = last_words.read_text("utf-8", "replace").strip().splitlines()
    why = lines[-1].strip() if lines else f"it ended with status {status}"
    return (
        f"The local service did not start: {why}\n"
        f"  {log_of(settings.state_dir)} has more; `run --local` needs none."
    )


def _late(settings: Settings) -> str:
    return (
        f"The local service did not start within {START_S:g} s.\n"
        f"  {log_of(settings.state_dir)} may say why; `run --local` needs none."
    )
