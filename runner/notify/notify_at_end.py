"""Around a run: notify of its end, also where an error ends it.

What sends notifications is imported where a pipeline asks for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from paddock.engine.system.records import Struct
from paddock.runner.config.mail_server import mail_server_faults
from paddock.runner.progress.report import Report

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundPlan
    from paddock.runner.config.pipeline_secrets import Secrets
    from paddock.runner.progress.events import Observer
    from paddock.runner.settings import Settings


class ReportedEnd(Struct):
    report: Report | None = None


@asynccontextmanager
async def notify_at_end(
    bound: BoundPlan, settings: Settings, observer: Observer, secrets: Secrets, stop: asyncio.Event
) -> AsyncIterator[ReportedEnd]:
    """Send the notifications at the end of a run, whose report is put into what is yielded.

    An error that ends the run is sent as its failure, and raised again. The observer gets what was
    not delivered.
    """
    outcome = ReportedEnd()
    if bound.pipeline.on is None or not bound.pipeline.on.notify:
        yield outcome
        return
    for words in mail_server_faults(bound.pipeline.on.notify, settings.unattended.smtp_url):
        observer.note(words)
    try:
        yield outcome
    except Exception as error:
        if not stop.is_set():
            words = str(error) or type(error).__name__
            report = Report("", bound.name, "failed", {}, message=words)
            await _note_undelivered(bound, report, settings, observer, secrets)
        raise
    if outcome.report is not None:
        await _note_undelivered(bound, outcome.report, settings, observer, secrets)


async def _note_undelivered(
    bound: BoundPlan, report: Report, settings: Settings, observer: Observer, secrets: Secrets
) -> None:
    from . import run_end_notices

    for words in await run_end_notices.send_end_notices(bound, report, settings, secrets):
        observer.note(words)
