"""Put the runs of schedules into the queue: what was missed, once, and the next few ahead.

What is ahead lies in Prefect, too, so that a person sees it there; the same moment twice gives the
same run. Knows no files.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from .jobs import Post
from .office import Office
from .schedules import Timed, missed, upcoming
from .tracked import Board, Tracked

PREFIX = "schedule "
MOST_AT_ONCE = 50  # each costs Prefect 30 ms, and others wait

log = logging.getLogger("paddock.up")


@dataclass
class _Plan:
    """What is known of one schedule."""

    deployment: str
    owed: list[datetime] = field(default_factory=list)
    """Moments whose runs are not in the queue yet, the oldest first."""
    planned: datetime | None = None
    """The last moment whose run was planned."""


class Planner:
    """Keeps the queue filled. `plan` is called again and again."""

    def __init__(self, board: Board, office: Office) -> None:
        self._board = board
        self._office = office
        self._plans: dict[tuple[str, str], _Plan] = {}

    async def plan(self, now: datetime | None = None) -> None:
        """Plan for every pipeline that stands ready.

        Raises:
            TrackedError: Prefect is away; what is missing is planned by the next call.
        """
        now = now or datetime.now(UTC)
        posts = self._office.posts
        wanted = {(key, one.key) for key, post in posts.items() for one in post.standing.schedules}
        for gone in self._plans.keys() - wanted:
            del self._plans[gone]
        for key, post in list(posts.items()):
            for timed in post.standing.schedules:
                await self._one(key, post, timed, now)

    def next_times(self, key: str, now: datetime) -> list[str]:
        """Give when a pipeline's schedules come next, for people."""
        post = self._office.posts.get(key)
        times = (upcoming(one, now, 1) for one in post.standing.schedules) if post else ()
        return sorted(f"{at.isoformat()}" for some in times for at in some)

    async def _one(self, key: str, post: Post, timed: Timed, now: datetime) -> None:
        plan = self._plans.get((key, timed.key))
        if plan is None or plan.deployment != post.deployment:
            plan = await self._begun(post, timed, now)
            self._plans[key, timed.key] = plan
        last = plan.owed[-1] if plan.owed else plan.planned
        ahead = upcoming(timed, now)
        if last is not None and last < now:  # the machine slept, or its clock was put forward
            plan.owed += await asyncio.to_thread(missed, timed, last, now)
        elif last is not None and ahead and last > ahead[-1]:
            last = None  # the clock was put back; what is in the queue already is not put twice
        plan.owed += [moment for moment in ahead if last is None or moment > last]
        for _ in range(min(MOST_AT_ONCE, len(plan.owed))):
            await self._submit(post, timed, plan.owed[0])
            plan.planned = plan.owed.pop(0)

    async def _begun(self, post: Post, timed: Timed, now: datetime) -> _Plan:
        """Find out what was missed while nobody was there."""
        last = await self._board.last_before(post.deployment, timed.key, now)
        plan = _Plan(post.deployment)
        if last is not None:
            plan.owed = await asyncio.to_thread(missed, timed, last, now)
        if plan.owed:
            log.info("%s: %d run(s) of `%s` were missed", post.standing.pipeline.name,
                     len(plan.owed), timed.cron)  # fmt: skip
        return plan

    async def _submit(self, post: Post, timed: Timed, moment: datetime) -> None:
        key = f"{post.deployment}:{timed.key}:{moment.isoformat()}"
        await self._office.submit(post, timed.key, key, at=moment, words="planned by its schedule")

    async def forget(self, post: Post, runs: Collection[Tracked]) -> None:
        """Take away what was planned by schedules that a pipeline no longer has."""
        for run in outdated(post, runs):
            await self._board.delete(run.id)


def outdated(post: Post, runs: Collection[Tracked]) -> Iterator[Tracked]:
    """Give the waiting runs of schedules that a pipeline no longer has."""
    keys = {timed.key for timed in post.standing.schedules}
    for run in runs:
        trigger = str(run.parameters.get("trigger", ""))
        is_ours = run.deployment == post.deployment and run.phase == "waiting"
        if is_ours and trigger.startswith(PREFIX) and trigger not in keys:
            yield run
