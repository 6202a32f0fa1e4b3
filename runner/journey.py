"""A run under way, whether or not Prefect is there to see it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from . import execute
from .body import watched
from .border import Border
from .chunks import Chunks, Progress
from .observer import Several
from .report import Report
from .session import Session


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """What is going on, and how it will have ended."""

    session: Session
    chunks: Chunks
    progress: Progress
    work: asyncio.Task[Report]
    """Raises `PipelineError` where the YAML turned out to be wrong for the data at hand."""

    @classmethod
    def begun(cls, session: Session, stop: asyncio.Event, border: Border) -> Journey:
        """Begin an open session's work in a task of its own."""
        chunks, progress = (
            Chunks(session.tally.secrets.redact),
            Progress(watched(session.bound.nodes)),
        )
        session.tally.observer = Several(session.tally.observer, progress)
        work = asyncio.create_task(execute.run(session.work, session.toolbox, chunks, stop, border))
        work.add_done_callback(lambda _: chunks.close())
        return cls(session, chunks, progress, work)

    @property
    def percent(self) -> float:
        """How much is done, from 0 to 100: all of it once the run has walked the whole plan."""
        if self.work.done() and not self.work.cancelled() and self.work.exception() is None:
            is_whole = self.work.result().status in ("completed", "quarantined")
            return 100.0 if is_whole else self.progress.percent
        return self.progress.percent

    async def ended(self) -> Report:
        """Wait for the end; cancelling this wait cancels the work and waits for it."""
        try:
            return await asyncio.shield(self.work)
        except asyncio.CancelledError:
            self.work.cancel()
            await asyncio.wait({self.work})
            raise
