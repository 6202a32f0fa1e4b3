"""Runs that go on with what people decided, as soon as they decided.

Decisions are made on pages, in terminals and by other processes, and all of them are rows of a
ledger, so the ledgers are read every few seconds. One run goes on with all decisions of one
pipeline and its inputs, and is submitted once for the same decisions.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.system.retry import Backoff
from paddock.engine.system.text import canonical_json, counted
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.report import Report
from paddock.runner.review.decisions import LedgerReviews

from .run_manager import Deployment, ManagedRun, RunManager

log = logging.getLogger("paddock.up")

TRIGGER = "review"
_AGAIN = Backoff(10.0, 600.0)  # a run that was skipped or ended early

_T = TypeVar("_T")
AskReviews = Callable[[Callable[[Sequence[LedgerReviews]], _T]], Awaitable[_T]]
"""Calls a function with the reviews of all ledgers, in their thread."""


@dataclass(frozen=True, slots=True)
class DecidedRun:
    """A run that decisions wait for."""

    file: Path
    given: str
    """The recorded inputs of the run that asked, as JSON."""
    decisions: tuple[tuple[str, float], ...]
    """Id and time of each."""

    @property
    def place(self) -> tuple[Path, str]:
        return self.file, self.given

    @property
    def digest(self) -> str:
        """The same for the same decisions."""
        return hashlib.sha256(canonical_json(self.decisions).encode()).hexdigest()[:16]

    def inputs(self) -> dict[str, Any] | None:
        """Return the inputs that were given; None if one of them is secret, so not recorded."""
        given = json.loads(self.given)
        return None if given.get("hidden") else dict(given.get("inputs") or {})


def decided_runs(all_reviews: Sequence[LedgerReviews]) -> list[DecidedRun]:
    """Return the runs for what was decided, or has expired, and was not gone on with."""
    found: dict[tuple[Path, str], list[tuple[str, float]]] = {}
    for reviews in all_reviews:
        folder = reviews.ledger.folder.parent
        places: dict[str, tuple[Path, str]] = {}
        """By run: its pipeline's file, and its inputs."""
        for review in reviews.undone():
            if review.run not in places:
                row = RunStore(reviews.ledger).run(review.run)  # old runs are forgotten
                file = row.file if row else review.subject.pipeline
                places[review.run] = (folder / file, (row.given if row else None) or "{}")
            at = review.decided_at or review.expires_at or 0.0
            found.setdefault(places[review.run], []).append((review.id, at))
    return [DecidedRun(*place, tuple(sorted(some))) for place, some in sorted(found.items())]


@dataclass(slots=True)
class _Submitted:
    """What became of the last run for a place."""

    digest: str = ""
    is_running: bool = False
    n_failures: int = 0
    not_before: float = 0.0


class ReviewRuns:
    """Submits runs for decisions. `look` is called repeatedly, in one event loop."""

    def __init__(self, run_manager: RunManager, ask: AskReviews[list[DecidedRun]]) -> None:
        self._run_manager = run_manager
        self._ask = ask
        self._last: dict[tuple[Path, str], _Submitted] = {}

    async def look(self) -> None:
        """Submit a run for each pipeline whose decisions no run has gone on with.

        Raises:
            QueueError: Prefect is away; the next call submits what is missing.
            LedgerError: a ledger cannot be read.
        """
        deployments = {
            deployment.triggered.file.resolve(): deployment
            for deployment in self._run_manager.deployments.values()
        }
        # While a run of the pipeline goes on, `on_conflict` may skip or cancel others.
        busy = {job.deployment.triggered.key for job in self._run_manager.jobs.values()}
        for due in await self._ask(decided_runs):
            deployment = deployments.get(due.file.resolve())
            if deployment is not None and deployment.triggered.key not in busy:
                await self._submit(deployment, due)

    async def _submit(self, deployment: Deployment, due: DecidedRun) -> None:
        last = self._last.setdefault(due.place, _Submitted())
        if last.is_running or time.monotonic() < last.not_before:
            return
        if last.digest == due.digest and not last.n_failures:  # a run was made, and left them
            return
        if last.digest != due.digest:
            last.n_failures = 0
        inputs, name = due.inputs(), deployment.triggered.pipeline.name
        if inputs is None:
            last.digest = due.digest
            log.warning(
                "%s: decisions wait for a run with its secret inputs: run it by hand.", name
            )
            return

        async def ended(job: ManagedRun | None, status: str, report: Report | None) -> None:
            _note_end(last, status)

        made = await self._run_manager.submit(
            deployment,
            TRIGGER,
            f"{deployment.id}:{TRIGGER}:{due.digest}:{last.n_failures}",
            inputs=inputs,
            words=f"goes on with {counted(len(due.decisions), 'decision')}",
            ended=ended,
        )
        last.digest, last.is_running = due.digest, made.phase != "ended"
        if made.phase == "ended":  # it ran before `paddock up` was started again
            _note_end(last, made.end)


def _note_end(last: _Submitted, status: str) -> None:
    """Note a run's end: one that did its work is not repeated for the same decisions."""
    last.is_running = False
    if status in ("completed", "quarantined", "failed"):
        last.n_failures = 0
        return
    last.n_failures += 1
    last.not_before = time.monotonic() + _AGAIN.pause_s(last.n_failures)
