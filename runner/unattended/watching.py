"""The folder watches of pipelines that stand ready: started, replaced, ended with their files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.report import Report
from paddock.runner.watch.book import LedgerBook
from paddock.runner.watch.outcome import outcome_of
from paddock.runner.watch.spec import Batch, Outcome, Status, WatchSpec
from paddock.runner.watch.specs import specs_of
from paddock.runner.watch.watch import FolderWatch

from .jobs import Job, Post
from .office import Office
from .standing import Standing

END_S = 8.0  # a watch writes what it knows within 5 s

log = logging.getLogger("paddock.up")

Opens = Callable[[Path, bool], Ledger]
"""Opens the ledger of a pipeline's folder; True: only to read."""


@dataclass
class _Kept:
    watch: FolderWatch
    task: asyncio.Task[None]
    stop: asyncio.Event


class Watching:
    """All watches, by pipeline. Lives in one loop."""

    def __init__(self, office: Office, opens: Opens, max_attempts: int) -> None:
        self._office = office
        self._opens = opens
        self._max_attempts = max_attempts
        self._kept: dict[str, dict[WatchSpec, _Kept]] = {}

    async def put(self, post: Post) -> None:
        """Watch what a pipeline's file names, and nothing else."""
        bound = post.standing.bound
        specs = specs_of(bound) if bound is not None else ()
        kept = self._kept.setdefault(post.standing.key, {})
        await _ended([kept.pop(spec) for spec in list(kept) if spec not in specs])
        for spec in specs:
            if spec not in kept:
                kept[spec] = self._begun(post.standing, spec)

    async def drop(self, key: str) -> None:
        """End the watches of a pipeline."""
        await _ended(list(self._kept.pop(key, {}).values()))

    async def stop(self) -> None:
        """End them all."""
        everything = [kept for many in self._kept.values() for kept in many.values()]
        self._kept.clear()
        await _ended(everything)

    def status(self, key: str) -> list[dict[str, Any]]:
        """Tell how the watches of a pipeline stand."""
        return [kept.watch.status() for kept in self._kept.get(key, {}).values()]

    def _begun(self, standing: Standing, spec: WatchSpec) -> _Kept:
        folder = standing.file.parent

        def opens(is_readonly: bool) -> Ledger:
            return self._opens(folder, is_readonly)

        async def submit(batch: Batch) -> None:
            await self._submit(standing.key, watch, batch)

        watch = FolderWatch(
            spec,
            LedgerBook(spec.name, spec.root, standing.file, opens),
            submit,
            note=log.warning,
            max_attempts=self._max_attempts,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(watch.run(stop))
        task.add_done_callback(_tell_if_broken)
        return _Kept(watch, task, stop)

    async def _submit(self, key: str, watch: FolderWatch, batch: Batch) -> None:
        """Put a batch into the queue as one run."""
        post = self._office.posts[key]

        async def ended(job: Job | None, status: str, report: Report | None) -> None:
            run = job.running.run if job else ""
            outcome = await asyncio.to_thread(self._outcome, post, run, status, report)
            await watch.done(batch, outcome)

        made = await self._office.submit(
            post,
            f"watch {watch.spec.root.name}",
            batch.idempotency_key,
            words=_words(batch),
            ended=ended,
            retry_failed=batch.retries_failed,
        )
        if made.phase == "ended":  # it ran before `paddock up` was killed
            outcome = await asyncio.to_thread(self._outcome, post, made.name, made.end, None)
            await watch.done(batch, outcome)

    def _outcome(self, post: Post, run: str, status: str, report: Report | None) -> Outcome:
        """Tell how a run ended: the ledger knows of each item."""
        otherwise: Status = status  # type: ignore[assignment]
        if not run:
            return Outcome(run, otherwise)
        try:
            with self._opens(post.standing.file.parent, True) as ledger:
                return outcome_of(ledger, run, otherwise, (report and report.message) or "")
        except LedgerError as error:
            return Outcome(run, "crashed", message=str(error))


async def _ended(kept: list[_Kept]) -> None:
    for one in kept:
        one.stop.set()
    tasks = {one.task for one in kept}
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=END_S)
        for task in late:
            task.cancel()


def _tell_if_broken(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a watch has ended: %r", task.exception())


def _words(batch: Batch) -> str:
    names = [seen.relpath for seen in batch.files] or list(batch.gone)
    more = len(batch.files) + len(batch.gone) - 1
    return names[0] + (f" and {more} more" if more > 0 else "") if names else "nothing"
