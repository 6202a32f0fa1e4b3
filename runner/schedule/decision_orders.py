"""Decisions as a trigger: a run goes on with what people decided, as soon as they decided.

The page of `paddock up` wakes the trigger; any other process changes a file beside the ledger, by
`note_decided`. The ledger alone knows what was decided: it is read at the start as well, and every
half a minute, since a question may have expired. One order goes on with all decisions of the
pipeline and its inputs, and is given once for the same decisions.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import time
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from paddock.engine.system.records import Struct
from paddock.engine.system.retry import Backoff
from paddock.engine.system.tasks import wait_for_event
from paddock.engine.system.text import canonical_json, counted
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.reviews.review_store import decided_mark
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.workers.order import Order

from .order_queue import QueueBroken
from .triggers import TriggerDesk

LOOK_S, LOOK_ALL_S = 2.0, 30.0
"""Between two looks at the mark of other processes' decisions, and at what a ledger holds."""
_AGAIN = Backoff(10.0, 600.0)  # a run that was skipped or ended early
_DONE = ("completed", "quarantined", "failed", "cancelled")


class DecidedRun(Struct, frozen=True):
    recorded_inputs: str
    """Of the run that asked, as JSON."""
    decisions: tuple[tuple[str, float], ...]
    """Id and time of each."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(canonical_json(self.decisions).encode()).hexdigest()[:16]

    def inputs(self) -> dict[str, Any] | None:
        """Return the inputs that were given; None if one of them is secret, so not recorded."""
        recorded = json.loads(self.recorded_inputs)
        return None if recorded.get("hidden") else dict(recorded.get("inputs") or {})


def decided_runs(reviews: LedgerReviews, file: Path) -> list[DecidedRun]:
    """Return the runs for what was decided, undone or has expired, and not gone on with."""
    folder, file = reviews.ledger.folder.parent, file.resolve()
    run_row = cache(RunStore(reviews.ledger).run)
    decisions: dict[str, list[tuple[str, float]]] = {}
    """By the inputs of the run that asked."""
    for review in reviews.undone():
        row = run_row(review.run)  # old runs are forgotten
        asked_by = folder / (row.file if row else review.subject.pipeline)
        if asked_by.resolve() == file:
            inputs = (row.given if row else None) or "{}"
            decided_at = review.decided_at or review.expires_at or 0.0
            decisions.setdefault(inputs, []).append((review.id, decided_at))
    return [DecidedRun(inputs, tuple(sorted(own))) for inputs, own in sorted(decisions.items())]


class DecisionTrigger:
    kind: ClassVar[str] = "review"

    def __init__(self) -> None:
        self.decided = asyncio.Event()
        """Set when the ledger is to be read at once."""
        self._failures: dict[str, tuple[int, float]] = {}
        """By the decisions' digest: how often their order failed, and when to give it again."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DecisionTrigger)

    def __hash__(self) -> int:
        return hash(self.kind)

    @property
    def key(self) -> str:
        return self.kind

    def status(self, now: datetime) -> Mapping[str, Any]:
        return {"text": "decisions of people"}

    async def done(self, order: Order) -> None:
        self.decided.set()  # what was decided since waited for its end

    async def run(self, desk: TriggerDesk) -> None:
        ledger, mark, look_at, is_woken = desk.open_ledger(True), "", 0.0, True
        every_s = LOOK_ALL_S if ledger.storage.marks_decisions else LOOK_S
        while True:
            try:
                now_mark = await asyncio.to_thread(decided_mark, ledger)
                if is_woken or now_mark != mark or time.monotonic() >= look_at:
                    mark = now_mark
                    look_at = min(time.monotonic() + every_s, await self._look(desk))
            except (LedgerError, QueueBroken):  # the ledgers' and the queue's keepers say so
                look_at = 0.0
            is_woken = await wait_for_event(self.decided, LOOK_S)
            self.decided.clear()

    async def _look(self, desk: TriggerDesk) -> float:
        """Put the orders for what was decided; return when to look again, at the latest."""
        open_before = {*desk.queue.orders}
        decided = await asyncio.to_thread(_read_decided, desk)
        if not open_before <= desk.queue.orders.keys():
            return 0.0  # a run that ended meanwhile may have used them
        return min([await self._order(desk, due) for due in decided], default=math.inf)

    async def _order(self, desk: TriggerDesk, due: DecidedRun) -> float:
        """Put an order once for the same decisions; again where it was skipped or ended early.

        Return when to look at them again: never, if nothing is to be done before an order ends.
        """
        pipeline, inputs = desk.pipeline(), due.inputs()
        if inputs is None:
            name = pipeline.pipeline.name
            desk.warn(f"{name}: decisions wait for a run with its secret inputs: run it by hand.")
            return math.inf
        if any(order.inputs == inputs for order in desk.open_orders()):
            return math.inf
        orders = desk.queue.orders.values()
        if any(order.pipeline == pipeline.key and order.state == "running" for order in orders):
            return 0.0  # `on_conflict` may skip or cancel others
        n_failures, not_before = self._failures.get(due.digest, (0, 0.0))
        if time.monotonic() < not_before:
            return not_before
        last = await desk.order(
            f"{self.key} {due.digest}:{n_failures}",
            inputs=inputs,
            reason=f"goes on with {counted(len(due.decisions), 'decision')}",
        )
        if last.order.state != "ended" or last.order.end in _DONE:
            return math.inf
        n_failures += 1
        again_at = time.monotonic() + _AGAIN.pause_s(n_failures)
        self._failures[due.digest] = n_failures, again_at
        return again_at


def _read_decided(desk: TriggerDesk) -> list[DecidedRun]:
    with desk.open_ledger(True) as ledger:
        return decided_runs(LedgerReviews(ledger), desk.pipeline().file)
