"""A cron expression that never matches is a fault of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from paddock.pipelines.errors import Fault
from paddock.pipelines.model import Pipeline

_REFERENCE_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def schedule_faults(pipeline: Pipeline) -> Iterator[Fault]:
    for index, schedule in enumerate(pipeline.on.schedule if pipeline.on else ()):
        why = never_due(schedule.cron)
        if why is not None:
            mark = pipeline.mark(("on", "schedule", index, "cron"))
            what = f"the schedule '{schedule.cron}' never comes."
            yield Fault(what, f"Check its {why}.", mark)


def never_due(cron: str) -> str | None:
    """Return which field keeps a cron expression from ever coming; None: it comes.

    >>> never_due("0 6 * * 1-5"), never_due("0 0 31 2 *")
    (None, 'day of the month')
    """
    if cron.startswith("@"):
        return None

    try:
        next(CronSim(cron, _REFERENCE_DAY))
    except CronSimError as error:
        return str(error).removeprefix("Bad ").replace("day-of-", "day of the ")
    except StopIteration:
        return "day and month"
    return None
