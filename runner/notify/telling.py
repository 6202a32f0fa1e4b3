"""Tell how a run ended when it ends, also by an error: what stands around every unattended run.

Imports the room's types relatively, since `verbs` does so, and mypy would see each of them twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..report import Report  # noqa: TID252
from .tell import cannot_be_told, crashed, tell_of

if TYPE_CHECKING:
    from ..binding.bound import BoundPlan  # noqa: TID252
    from ..observer import Observer  # noqa: TID252
    from ..secrets import Secrets  # noqa: TID252
    from ..settings import Settings  # noqa: TID252


@dataclass
class Outcome:
    """How a run ended, as soon as somebody knows."""

    report: Report | None = None


@asynccontextmanager
async def telling(
    bound: BoundPlan,
    settings: Settings,
    observer: Observer,
    secrets: Secrets,
    stop: asyncio.Event,
    *,
    wanted: bool,
) -> AsyncIterator[Outcome]:
    """Give what takes the report of the run within, and tell of it at the end.

    An error that ends the run is told as its failure, and rises. What could not be told, the
    observer is.
    """
    outcome = Outcome()
    if not wanted or bound.pipeline.on is None or not bound.pipeline.on.notify:
        yield outcome
        return
    for words in cannot_be_told(bound, settings):
        observer.note(words)
    try:
        yield outcome
    except Exception as error:
        if not stop.is_set():
            words = str(error) or type(error).__name__
            report = crashed(bound.name, "", words)
            await _tell(bound, report, settings, observer, secrets)
        raise
    if outcome.report is not None:
        await _tell(bound, outcome.report, settings, observer, secrets)


async def _tell(
    bound: BoundPlan, report: Report, settings: Settings, observer: Observer, secrets: Secrets
) -> None:
    for words in await tell_of(bound, report, None, settings, secrets):
        observer.note(words)
