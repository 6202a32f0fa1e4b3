"""Clean ledgers and logs: by hand as `paddock clean`, once a day by itself in `paddock up`.

`tidy` does it in a process of its own, at the lowest priority: what it reads of a large ledger
leaves with it, and nothing that it waits for holds up a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.retention import Limits, Swept, sweep
from paddock.runner.settings import Settings, read_settings

from .places import Place

DEADLINE_S = 3600.0
_END_S = 5.0
_LOW_PRIORITY = 19
_ENTRANCE = "import sys; from paddock.runner.cli import main; sys.argv[0] = 'paddock'; main()"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What went, of all ledgers; `faults` say what could not be cleaned."""

    swept: Swept
    faults: tuple[str, ...] = ()


def clean(
    places: Iterable[Place], *, older_than_s: float | None = None, is_dry: bool = False
) -> Cleaned:
    """Clean ledgers, each by the settings that hold beside it."""
    swept = Swept()
    faults: list[str] = []
    for place in places:
        settings = read_settings(place.folder)
        limits = limits_of(settings, time.time(), older_than_s)
        try:
            swept += sweep(place.state, settings.ledger_url, limits, is_dry=is_dry)
        except LedgerError as error:
            faults.append(str(error))
    return Cleaned(swept, tuple(faults))


def limits_of(settings: Settings, now: float, older_than_s: float | None = None) -> Limits:
    """Give what may go; an age that is given by hand stands for those of the settings."""
    unattended = settings.unattended
    limits = Limits(
        runs_before=now - unattended.keep_runs_s,
        calls_before=now - unattended.keep_calls_s,
        max_bytes=unattended.max_ledger_bytes,
    )
    if older_than_s is None:
        return limits
    return replace(limits, runs_before=now - older_than_s, calls_before=now - older_than_s)


async def tidy(settings: Settings, folders: Sequence[Path]) -> tuple[str, ...]:
    """Clean the ledgers below some folders; gives what a person should know of it.

    Prefect's own runs and events are let go by its server (see `tracking`).
    """
    if not folders:
        return ()
    words = [sys.executable, "-c", _ENTRANCE, "clean", "--json", *map(str, folders)]
    environ = {**os.environ, "PADDOCK_HOME": str(settings.state_dir)}
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return (f"the ledgers could not be cleaned ({error.strerror or error}).",)
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, process.pid, _LOW_PRIORITY)
    try:
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate()
    except TimeoutError:
        return (f"cleaning the ledgers took longer than {DEADLINE_S:g} s, and was ended.",)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await process.communicate()
    return _told(out, err)


def _told(out: bytes, err: bytes) -> tuple[str, ...]:
    """Give the faults that the process told."""
    try:
        found: Any = json.loads(out)
        return tuple(str(fault) for fault in found["faults"])
    except (ValueError, KeyError, TypeError):
        last = " ".join(err.decode("utf-8", "replace").split())[-500:]
        return (f"the ledgers could not be cleaned: {last or 'it said nothing'}.",)
