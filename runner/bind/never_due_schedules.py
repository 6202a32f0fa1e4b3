"""Schedules that never come, or give inputs that the pipeline does not take, are its faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cronsim import CronSim, CronSimError

from paddock.pipelines.errors import Fault
from paddock.pipelines.model import Pipeline

from .inputs import paths_outside, read_inputs

_REFERENCE_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def schedule_faults(pipeline: Pipeline) -> Iterator[Fault]:
    for index, schedule in enumerate(pipeline.on.schedule if pipeline.on else ()):
        why = never_due(schedule.cron)
        if why is not None:
            mark = pipeline.mark(("on", "schedule", index, "cron"))
            what = f"the schedule '{schedule.cron}' never comes."
            yield Fault(what, f"Check its {why}.", mark)
        base = Path(pipeline.document.file).absolute().parent
        given = read_inputs(pipeline, schedule.inputs, base=base, cwd=base)
        own = [fault for fault in given.faults if fault.mark is None]  # others: what it lacks
        own += paths_outside(pipeline, schedule.inputs, given.values, base, "the pipeline's folder")
        mark = pipeline.mark(("on", "schedule", index, "inputs"))
        yield from (replace(fault, mark=mark) for fault in own)


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
