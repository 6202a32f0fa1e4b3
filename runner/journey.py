"""A run under way, whether or not Prefect is there to see it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from . import execute
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
        chunks, progress = Chunks(), Progress()
        session.tally.observer = Several(session.tally.observer, progress)
        work = asyncio.create_task(execute.run(session.work, session.toolbox, chunks, stop, border))
        work.add_done_callback(lambda _: chunks.close())
        return cls(session, chunks, progress, work)

    async def ended(self) -> Report:
        """Wait for the end; cancelling this wait cancels the work and waits for it."""
        try:
            return await asyncio.shield(self.work)
        except asyncio.CancelledError:
            self.work.cancel()
            await asyncio.wait({self.work})
            raise
