"""Schedules that can never come, found before anything waits for them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from paddock.pipelines.errors import Fault
from paddock.pipelines.tree import Pipeline

_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def faults(pipeline: Pipeline) -> Iterator[Fault]:
    """Give a fault for each schedule that never comes."""
    for index, schedule in enumerate(pipeline.on.schedule if pipeline.on else ()):
        why = never(schedule.cron)
        if why is not None:
            mark = pipeline.mark(("on", "schedule", index, "cron"))
            what = f"the schedule '{schedule.cron}' never comes."
            yield Fault(what, f"Check its {why}.", mark)


def never(cron: str) -> str | None:
    """Tell which field keeps a cron expression from ever coming; None: it comes.

    >>> never("0 6 * * 1-5"), never("0 0 31 2 *")
    (None, 'day of the month')
    """
    if cron.startswith("@"):
        return None
    from cronsim import CronSim, CronSimError

    try:
        next(CronSim(cron, _SOME_DAY))
    except CronSimError as error:
        return str(error).removeprefix("Bad ").replace("day-of-", "day of the ")
    except StopIteration:
        return "day and month"
    return None
