"""Housekeeping: apply retention to ledgers and logs, in this process (`paddock clean`) or daily in a subprocess (`paddock up`).

The subprocess has the lowest priority: the memory that a large ledger takes is freed with it, and
nothing that it waits for holds up a run.
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

from paddock.runner.settings import Settings, read_settings

from .entries import LedgerError
from .retention import RetentionLimits, SweepResult, sweep_ledger
from .run_history import LedgerFolder

SUBPROCESS_TIMEOUT_S = 3600.0
_TERMINATE_TIMEOUT_S = 5.0
_LOW_PRIORITY = 19
_MAIN_CODE = (
    "import sys; from paddock.runner.cli.application import main; sys.argv[0] = 'paddock'; main()"
)


@dataclass(frozen=True, slots=True)
class CleanResult:
    """What went, of all ledgers; `faults` say what could not be cleaned."""

    swept: SweepResult
    faults: tuple[str, ...] = ()


def clean_ledgers(
    places: Iterable[LedgerFolder], *, older_than_s: float | None = None, is_dry: bool = False
) -> CleanResult:
    """Clean ledgers, each by the settings that hold beside it."""
    swept = SweepResult()
    faults: list[str] = []
    for place in places:
        settings = read_settings(place.folder)
        limits = retention_limits(settings, time.time(), older_than_s)
        try:
            swept += sweep_ledger(place.state, settings.ledger_url, limits, is_dry=is_dry)
        except LedgerError as error:
            faults.append(str(error))
    return CleanResult(swept, tuple(faults))


def retention_limits(
    settings: Settings, now: float, older_than_s: float | None = None
) -> RetentionLimits:
    """Return what may go; an age that is given by hand stands for those of the settings."""
    unattended = settings.unattended
    limits = RetentionLimits(
        runs_before=now - unattended.keep_runs_s,
        calls_before=now - unattended.keep_calls_s,
        max_bytes=unattended.max_ledger_bytes,
    )
    if older_than_s is None:
        return limits
    return replace(limits, runs_before=now - older_than_s, calls_before=now - older_than_s)


async def clean_in_subprocess(settings: Settings, folders: Sequence[Path]) -> tuple[str, ...]:
    """Clean the ledgers below some folders; gives what a person should know of it.

    Prefect's own runs and events are let go by its server (see `tracking`).
    """
    if not folders:
        return ()
    words = [sys.executable, "-c", _MAIN_CODE, "clean", "--json", *map(str, folders)]
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
        async with asyncio.timeout(SUBPROCESS_TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        return (
            f"cleaning the ledgers took longer than {SUBPROCESS_TIMEOUT_S:g} s, and was ended.",
        )
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TERMINATE_TIMEOUT_S):
                    await process.communicate()
    return _reported_faults(out, err)


def _reported_faults(out: bytes, err: bytes) -> tuple[str, ...]:
    """Return the faults that the process told."""
    try:
        found: Any = json.loads(out)
        return tuple(str(fault) for fault in found["faults"])
    except (ValueError, KeyError, TypeError):
        last = " ".join(err.decode("utf-8", "replace").split())[-500:]
        return (f"the ledgers could not be cleaned: {last or 'it said nothing'}.",)
