"""Planned runs of cron schedules, as they lie in Prefect, where people see them.

The same moment twice is the same run. Prefect's own schedules are not used: it loses the second of
two equal hours as clocks are put back, and what it starts with inputs is not signed, as a server
that others use asks for. While `paddock up` is stopped, its planned runs are not there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime

from paddock.engine.system import files
from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.engine.system.text import counted

from .cron import CronSchedule, is_moment, missed, upcoming
from .prefect_queue import PLANNED_STATE, PrefectQueue, QueuedRun
from .run_manager import Deployment, RunManager

SCHEDULE_PREFIX = "schedule "
MOST_AT_ONCE = 50  # each costs Prefect 30 ms, and others wait

log = logging.getLogger("paddock.up")


@dataclass
class _SchedulePlan:
    deployment: str
    owed: list[datetime] = field(default_factory=list)
    """Moments whose runs are not in the queue yet, the oldest first."""
    planned: datetime | None = None
    """The last moment whose run was planned."""


class SchedulePlanner:
    """Keeps planned runs in the queue. `plan` is called repeatedly."""

    def __init__(self, queue: PrefectQueue, run_manager: RunManager) -> None:
        self._prefect_queue = queue
        self._run_manager = run_manager
        self._file = run_manager.folder / "schedules.json"
        """When schedules ended with the last `paddock up`, by deployment and key."""
        self._plans: dict[tuple[str, str], _SchedulePlan] = {}

    async def plan(self, now: datetime | None = None) -> None:
        """Plan runs for every pipeline in service.

        Raises:
            QueueError: Prefect is away; the next call plans what is missing.
        """
        now = now or datetime.now(UTC)
        deployments = self._run_manager.deployments
        planned_keys = {
            (key, schedule.key)
            for key, deployment in deployments.items()
            for schedule in deployment.triggered.schedules
        }
        for gone in self._plans.keys() - planned_keys:
            del self._plans[gone]
        for key, deployment in list(deployments.items()):
            for timed in deployment.triggered.schedules:
                plan = self._plans.get((key, timed.key))
                if plan is None or plan.deployment != deployment.id:
                    plan = await self._begun(deployment, timed, now)
                    self._plans[key, timed.key] = plan
                last = plan.owed[-1] if plan.owed else plan.planned
                if last is not None and last > now and not is_moment(timed, last):
                    runs = await self._prefect_queue.open_runs([deployment.id])
                    await self.forget(deployment, runs, now)
                    plan.owed, last = [], None
                ahead = upcoming(timed, now)
                if last is not None and last < now:  # the machine slept, or its clock was set on
                    plan.owed += await asyncio.to_thread(missed, timed, last, now)
                elif last is not None and ahead and last > ahead[-1]:
                    last = None  # the clock was set back; runs in the queue are not queued twice
                plan.owed += [moment for moment in ahead if last is None or moment > last]
                for _ in range(min(MOST_AT_ONCE, len(plan.owed))):
                    moment = plan.owed[0]
                    await self._run_manager.submit(
                        deployment, timed.key, f"{deployment.id}:{timed.key}:{moment.isoformat()}",
                        inputs=dict(timed.inputs), at=moment, words="planned by its schedule",
                    )  # fmt: skip
                    plan.planned = plan.owed.pop(0)

    def next_times(self, key: str, now: datetime) -> list[str]:
        """Return the next times of a pipeline's schedules, for people."""
        deployment = self._run_manager.deployments.get(key)
        schedules = deployment.triggered.schedules if deployment else ()
        return sorted(at.isoformat() for timed in schedules for at in upcoming(timed, now, 1))

    async def _begun(
        self, deployment: Deployment, timed: CronSchedule, now: datetime
    ) -> _SchedulePlan:
        """Return the plan of a new schedule, with the moments missed while `up` was not running."""
        last = await self._prefect_queue.last_before(deployment.id, timed.key, now)
        ended = files.read_json_object(self._file).get(f"{deployment.id} {timed.key}")
        if isinstance(ended, float):
            last = max(filter(None, (last, datetime.fromtimestamp(ended, UTC))))
        plan = _SchedulePlan(deployment.id)
        if last is not None:
            plan.owed = await asyncio.to_thread(missed, timed, last, now)
        if plan.owed:
            owed = counted(len(plan.owed), "missed run")
            name = deployment.triggered.pipeline.name
            log.info("%s: %s of `%s` to catch up on", name, owed, timed.cron)
        return plan

    async def end(self) -> None:
        """Delete what is planned; the next start plans again, from this moment on.

        Raises:
            QueueError: Prefect is away; the next start finds them.
        """
        now = datetime.now(UTC)
        with suppress(OSError):  # a full disk: what was never run is not caught up on
            names = [f"{plan.deployment} {key}" for (_, key), plan in self._plans.items()]
            files.write_json_atomically(self._file, dict.fromkeys(names, now.timestamp()))
        for run in await self._prefect_queue.open_runs(
            {p.deployment for p in self._plans.values()}
        ):
            if run.state == PLANNED_STATE and run.at > now:
                await self._prefect_queue.delete(run.id)

    async def forget(
        self, deployment: Deployment, runs: Collection[QueuedRun], now: datetime | None = None
    ) -> None:
        """Delete planned runs of schedules, or of moments, that a pipeline no longer has.

        Without a zone of its own a schedule has other moments when the machine's changes.
        """
        now = now or datetime.now(UTC)
        schedules = {timed.key: timed for timed in deployment.triggered.schedules}
        for run in runs:
            trigger = str(run.order.get("trigger", ""))
            timed = schedules.get(trigger)
            is_ours = run.deployment == deployment.id and run.phase == "waiting"
            is_planned = run.state == PLANNED_STATE and run.at > now
            is_gone = is_planned and not is_moment(timed, run.at) if timed else True
            if is_ours and trigger.startswith(SCHEDULE_PREFIX) and is_gone:
                await self._prefect_queue.delete(run.id)
