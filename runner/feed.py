"""Tell the local service how a run goes: it shows the run in Prefect. Imports no Prefect.

An update takes the service a millisecond, whatever Prefect's server does, so no run waits for that.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import astuple
from typing import Any

from .border import Border
from .chunks import Chunk, PrefectState
from .journey import Journey
from .report import Report
from .session import Session
from .shown import end_of, parameters_of, unfinished

EVERY_S = 1.0  # what is shown costs Prefect's server some milliseconds each time

Send = Callable[[dict[str, Any]], Awaitable[bool]]
"""Sends an update; returns whether the next one must hold all tasks, since this one was not taken
or its receiver knew nothing of the run."""


async def run(session: Session, stop: asyncio.Event, border: Border, send: Send) -> Report:
    """Carry out an open session and return the report; `send` is told how it goes.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    journey = Journey.begun(session, stop, border)
    feed = _Feed(journey, send)
    sending = asyncio.create_task(feed.follow())
    try:
        return await journey.ended()
    finally:
        sending.cancel()
        await asyncio.wait({sending})
        await feed.end()


class _Feed:
    """The updates of one run."""

    def __init__(self, journey: Journey, send: Send) -> None:
        self._journey = journey
        self._send = send
        session = journey.session
        self._head = {
            "id": uuid.uuid4().hex,
            "pid": os.getpid(),
            "pipeline": session.bound.name,
            "run": session.tally.run,
            "parameters": parameters_of(session.bound),
            "began": session.began,
        }
        self._chunks: list[Chunk] = []
        self._sent: dict[int, PrefectState] = {}
        """What the receiver knows, by number of the chunk."""
        self._reading = asyncio.create_task(self._read())

    async def follow(self) -> None:
        """Send what has changed, at most once in `EVERY_S`, until cancelled."""
        while True:
            await self._update()
            await asyncio.sleep(EVERY_S)

    async def end(self) -> None:
        """Send how the run ended, with all that is known of it."""
        await self._reading
        self._sent.clear()
        work = self._journey.work
        if work.cancelled():
            end = unfinished("CANCELLED", "Cancelled", "interrupted")
        elif (error := work.exception()) is not None:
            redact = self._journey.session.tally.secrets.redact
            end = unfinished("FAILED", "Failed", redact(str(error)))
        else:
            end = end_of(work.result())
        await self._update(end)

    async def _read(self) -> None:
        """Take the chunks as they begin, until the run has ended."""
        async for chunk in self._journey.chunks:
            self._chunks.append(chunk)

    async def _update(self, end: dict[str, Any] | None = None) -> None:
        states = {number: chunk.state() for number, chunk in enumerate(self._chunks)}
        changed = {n: state for n, state in states.items() if self._sent.get(n) != state}
        update = {
            **self._head,
            "tasks": {n: [self._chunks[n].name, *astuple(state)] for n, state in changed.items()},
            "percent": self._journey.percent,
            "has_work": any(chunk.label for chunk in self._chunks),
            "end": end,
        }
        # Rows are the pipeline's own values: what JSON has no word for is written as text.
        must_repeat = await self._send(json.loads(json.dumps(update, default=str)))
        self._sent = {} if must_repeat else states
