"""Alerts of `paddock up`: a broken ledger, a full disk, a run that crashed too often.

A ledger that cannot be used holds every run of its folder: that is logged and sent to `on.notify`
once, shown by `/status`, and `/readyz` answers 503 until it is repaired. That a run crashed too
often, which it cannot report itself, is sent too.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.system.tasks import TaskSet
from paddock.pipelines.errors import PipelineError
from paddock.runner.config.pipeline_secrets import read_secrets
from paddock.runner.ledger.database.sqlite_file import refuse_full_disk
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.notify.run_end_notices import send_end_notices
from paddock.runner.progress.report import Report
from paddock.runner.settings import read_settings

from .trigger_keeper import OpenLedger
from .triggered_pipeline import TriggeredPipeline

log = logging.getLogger("paddock.up")


async def alert_trouble(
    flags: Mapping[str, object], pipeline: TriggeredPipeline, message: str, run: str = ""
) -> None:
    """Send `on.notify` that a pipeline's runs fail, and why; `flags` are the command line's.

    `run`: the one that crashed; without it no run can begin.
    """
    bound, name = pipeline.bound, pipeline.pipeline.name
    if bound is None:
        return
    settings = read_settings(pipeline.file.parent, flags=flags)
    try:
        secrets = read_secrets(bound.pipeline, os.environ)
    except PipelineError as error:
        log.warning("%s: notification not delivered: %s", name, error)
        return
    report = Report(run, name, "failed", {}, message=message)
    ended = send_end_notices(bound, report, settings, secrets, is_of_runs=bool(run))
    for untold in await ended:
        log.warning("%s: %s", name, untold)


class LedgerHealth:
    """Which ledgers are broken, and why. Lives in one event loop, checks in threads."""

    def __init__(
        self,
        opens: OpenLedger,
        tell: Callable[[TriggeredPipeline, str], Coroutine[Any, Any, None]],
        home: Path,
    ) -> None:
        """`tell` sends a pipeline's notifications; `home` is the folder of this user's state."""
        self.faults: dict[Path, str] = {}
        """By the folder of the pipelines; empty: all ledgers work."""
        self._opens = opens
        self._tell = tell
        self._home = home
        self._telling = TaskSet()

    async def check_ledgers(self, pipelines: Iterable[TriggeredPipeline]) -> None:
        by_folder: dict[Path, list[TriggeredPipeline]] = {}
        for pipeline in pipelines:
            by_folder.setdefault(pipeline.file.parent, []).append(pipeline)
        for folder in [folder for folder in self.faults if folder not in by_folder]:
            del self.faults[folder]
        for folder, own in by_folder.items():
            await self.fault_of(folder, own)

    async def fault_of(self, folder: Path, pipelines: Sequence[TriggeredPipeline]) -> str:
        """Return why a ledger cannot be used now; empty when it can, or does not exist yet."""
        fault = await asyncio.to_thread(self._fault, folder)
        was = self.faults.pop(folder, "")
        if fault:
            self.faults[folder] = fault
        if fault and not was:
            log.error("%s: %s", folder, fault)
            for pipeline in pipelines:
                self._telling.start(self._tell(pipeline, fault))
        elif was and not fault:
            log.info("%s: the ledger works again", folder)
        return fault

    def _fault(self, folder: Path) -> str:
        try:
            with self._opens(folder, True) as ledger:
                ledger.watched("")
                ledger.storage.refuse_unwritable()
            refuse_full_disk(self._home)
        except LedgerError as error:
            return str(error)
        except Exception as error:  # any driver's error: the database does not answer
            return f"the ledger does not answer ({error})."
        return ""
