"""A schedule as a trigger: one order for each moment that is due, and for those missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from paddock.pipelines.triggers import ScheduleKeys
from paddock.runner.workers.order import Order

from .cron import due, upcoming
from .order_queue import QueueBroken
from .triggered_pipeline import TriggeredPipeline
from .triggers import TriggerDesk

LOOK_S = 20.0
"""The longest sleep: clocks are set, and machines sleep."""
AGAIN_S = 3.0
CLOCK_WAS_WRONG_S = 2 * 86_400.0


class ScheduleTrigger:
    kind: ClassVar[str] = "schedule"
    Keys = ScheduleKeys

    def __init__(
        self,
        keys: ScheduleKeys,
        triggered: TriggeredPipeline,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._timed = keys
        self._now = now

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScheduleTrigger) and other._timed == self._timed

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> str:
        return self._timed.key

    def status(self, now: datetime) -> Mapping[str, Any]:
        coming = upcoming(self._timed, now)
        at = coming[0].astimezone() if coming else None
        text = f"next {at:%Y-%m-%d %H:%M %Z}" if at else f"never: `{self._timed.cron}`"
        return {"text": text, "next": at.isoformat() if at else None}

    async def done(self, order: Order) -> None: ...

    async def run(self, desk: TriggerDesk) -> None:
        last = (await desk.remembered()).get("last")
        since = self._now() if last is None else datetime.fromtimestamp(last, UTC)
        while True:
            now = self._now()
            try:
                since = await self._order_due(desk, since, now, is_new=last is None)
                last = since.timestamp()
            except QueueBroken:  # `status` says so
                await asyncio.sleep(AGAIN_S)
                continue
            coming = upcoming(self._timed, self._now())
            wait_s = (coming[0] - self._now()).total_seconds() if coming else LOOK_S
            await asyncio.sleep(min(max(wait_s, 0.01), LOOK_S))

    async def _order_due(
        self, desk: TriggerDesk, since: datetime, now: datetime, *, is_new: bool
    ) -> datetime:
        """Put an order for each moment due since `since`; return the next `since`."""
        if (since - now).total_seconds() > CLOCK_WAS_WRONG_S:
            since = now  # else nothing would run for as long
        moments = await asyncio.to_thread(due, self._timed, since, now)
        for moment in moments:
            await desk.order(
                f"{self.key} {moment.isoformat()}",
                inputs=self._timed.inputs,
                reason=f"its time, {moment.astimezone():%Y-%m-%d %H:%M}, has come",
                due_at=moment.timestamp(),
            )
        if moments or is_new:
            since = max(since, now) if moments else since
            await desk.remember({"last": since.timestamp()})
        return since
