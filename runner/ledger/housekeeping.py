"""Housekeeping: apply retention to ledgers and logs.

`paddock clean` does so in its own process, `paddock up` daily in a subprocess of the lowest
priority: its memory is freed at its end, and it never blocks a run.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paddock.engine.system import processes
from paddock.runner.settings import Settings, read_settings

from .entries import LedgerError
from .retention import RetentionLimits, SweepResult, sweep_ledger
from .run_history import LedgerFolder

SUBPROCESS_TIMEOUT_S = 3600.0
MAX_OUTPUT_BYTES = 1024**2  # one JSON object
_LOW_PRIORITY = 19
_MAIN_CODE = (
    "import sys; from paddock.runner.cli.application import main; sys.argv[0] = 'paddock'; main()"
)


@dataclass(frozen=True, slots=True)
class CleanResult:
    """What was removed, and in `faults` errors of ledgers."""

    swept: SweepResult
    faults: tuple[str, ...] = ()


def clean_ledgers(
    places: Iterable[LedgerFolder], *, older_than_s: float | None = None, is_dry: bool = False
) -> CleanResult:
    """Clean ledgers, each by the settings of its folder."""
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
    """Return the limits of the settings; `older_than_s` replaces their ages."""
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
    """Clean the ledgers below these folders in a subprocess; return errors.

    Prefect's server removes its own old runs and events (see `prefect_retention`).
    """
    if not folders:
        return ()
    command = [sys.executable, "-c", _MAIN_CODE, "clean", "--json", *map(str, folders)]
    environ = {**os.environ, "PADDOCK_HOME": str(settings.state_dir)}
    try:
        async with asyncio.timeout(SUBPROCESS_TIMEOUT_S):
            ended = await processes.run(
                command, environ=environ, most_bytes=MAX_OUTPUT_BYTES, nice=_LOW_PRIORITY
            )
    except TimeoutError:
        return (
            f"cleaning the ledgers took longer than {SUBPROCESS_TIMEOUT_S:g} s and was stopped.",
        )
    except OSError as error:
        return (f"the ledgers could not be cleaned ({error.strerror or error}).",)
    return _reported_faults(ended.stdout, ended.stderr)


def _reported_faults(out: bytes, err: bytes) -> tuple[str, ...]:
    """Return the faults in the output of `paddock clean --json`."""
    try:
        found: Any = json.loads(out)
        return tuple(str(fault) for fault in found["faults"])
    except (ValueError, KeyError, TypeError):
        last = " ".join(err.decode("utf-8", "replace").split())[-500:]
        return (f"the ledgers could not be cleaned: {last or 'no message'}.",)
