"""The watches of `paddock up`: begun, ended and changed with the pipeline files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paddock.engine.system.light_dataclasses import dataclass
from paddock.runner.folders.file_filter import WatchSpec, watch_specs
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.report import Report
from paddock.runner.watch.batches import BatchOutcome, BatchStatus, WatchBatch, batch_outcome
from paddock.runner.watch.handled_files import WatchLedger
from paddock.runner.watch.watch_loop import FolderWatch

from .run_manager import Deployment, ManagedRun, RunManager
from .triggered_pipeline import TriggeredPipeline

log = logging.getLogger("paddock.up")

WATCH_END_S = 8.0  # a watch writes its state within 5 s

OpenLedger = Callable[[Path, bool], Ledger]
"""Opens the ledger of a pipeline's folder; True: read-only."""


@dataclass
class _RunningWatch:
    watch: FolderWatch
    task: asyncio.Task[None]
    stop: asyncio.Event


class WatchManager:
    """All watches by pipeline. Lives in one event loop."""

    def __init__(self, run_manager: RunManager, opens: OpenLedger, max_attempts: int) -> None:
        self._run_manager = run_manager
        self._opens = opens
        self._max_attempts = max_attempts
        self._kept: dict[str, dict[WatchSpec, _RunningWatch]] = {}

    async def put(self, deployment: Deployment) -> None:
        """Start a pipeline's watches, and stop those that it no longer has."""
        bound = deployment.triggered.bound
        specs = watch_specs(bound) if bound is not None else ()
        kept = self._kept.setdefault(deployment.triggered.key, {})
        await _end_watches([kept.pop(spec) for spec in list(kept) if spec not in specs])
        for spec in specs:
            if spec not in kept:
                kept[spec] = self._begun(deployment.triggered, spec)

    async def drop(self, key: str) -> None:
        await _end_watches(list(self._kept.pop(key, {}).values()))

    async def stop(self) -> None:
        everything = [kept for many in self._kept.values() for kept in many.values()]
        self._kept.clear()
        await _end_watches(everything)

    def status(self, key: str) -> list[dict[str, Any]]:
        return [kept.watch.status() for kept in self._kept.get(key, {}).values()]

    def _begun(self, triggered: TriggeredPipeline, spec: WatchSpec) -> _RunningWatch:
        folder = triggered.file.parent

        def opens(is_readonly: bool) -> Ledger:
            return self._opens(folder, is_readonly)

        async def submit(batch: WatchBatch) -> None:
            await self._submit(triggered.key, watch, batch)

        watch = FolderWatch(
            spec,
            WatchLedger(spec.name, spec.root, triggered.file, opens),
            submit,
            note=log.warning,
            max_attempts=self._max_attempts,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(watch.run(stop))

        def log_if_broken(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                log.error("a watch has ended: %r", task.exception())

        task.add_done_callback(log_if_broken)
        return _RunningWatch(watch, task, stop)

    async def _submit(self, key: str, watch: FolderWatch, batch: WatchBatch) -> None:
        deployment = self._run_manager.deployments[key]

        async def ended(job: ManagedRun | None, status: str, report: Report | None) -> None:
            run = job.running.run if job else ""
            outcome = await asyncio.to_thread(self._outcome, deployment, run, status, report)
            await watch.done(batch, outcome)

        names = [*(seen.relpath for seen in batch.files), *batch.gone] or [""]
        made = await self._run_manager.submit(
            deployment,
            f"watch {watch.spec.root.name}",
            batch.idempotency_key,
            words=names[0] + (f" and {len(names) - 1} more" if names[1:] else "") or "nothing",
            ended=ended,
            retry_failed=batch.retries_failed,
        )
        if made.phase == "ended":  # it ran before `paddock up` was killed
            outcome = await asyncio.to_thread(self._outcome, deployment, made.name, made.end, None)
            await watch.done(batch, outcome)

    def _outcome(
        self, deployment: Deployment, run: str, status: str, report: Report | None
    ) -> BatchOutcome:
        """Return how a run ended, with each item's outcome from the ledger."""
        otherwise: BatchStatus = status  # type: ignore[assignment]
        if not run:
            return BatchOutcome(run, otherwise)
        try:
            with self._opens(deployment.triggered.file.parent, True) as ledger:
                return batch_outcome(ledger, run, otherwise, (report and report.message) or "")
        except LedgerError as error:
            return BatchOutcome(run, "crashed", message=str(error))


async def _end_watches(kept: list[_RunningWatch]) -> None:
    for batch in kept:
        batch.stop.set()
    tasks = {batch.task for batch in kept}
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=WATCH_END_S)
        for task in late:
            task.cancel()
