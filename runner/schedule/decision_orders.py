"""Decisions as a trigger: a run goes on with what people decided, as soon as they decided.

Decisions are made on pages, in terminals and by other processes, and all of them are rows of a
ledger, so that is read every few seconds. One order goes on with all decisions of the pipeline and
its inputs, and is given once for the same decisions.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from paddock.engine.system import files
from paddock.engine.system.records import Struct
from paddock.engine.system.retry import Backoff
from paddock.engine.system.text import canonical_json, counted
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.workers.order import Order

from .order_queue import QueueBroken
from .triggers import TriggerDesk

LOOK_S, LOOK_ALL_S = 2.0, 30.0
"""Between two looks at a ledger's file, and at what it holds: a question may have expired."""
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
        """Do nothing: the queue tells how an order for the same decisions ended."""

    async def run(self, desk: TriggerDesk) -> None:
        looked_at = float("-inf")
        seen: tuple[object, ...] = ()
        while True:
            try:
                stamps = await asyncio.to_thread(_stamps, desk)
                if stamps != seen or time.monotonic() - looked_at > LOOK_ALL_S:
                    looked_at = time.monotonic()
                    seen, open_before = stamps, {*desk.queue.orders}
                    decided = await asyncio.to_thread(_read_decided, desk)
                    if not open_before <= desk.queue.orders.keys():
                        seen, decided = (), []  # a run that ended meanwhile may have used them
                    for due in decided:
                        await self._order(desk, due)
            except (LedgerError, QueueBroken):  # the ledgers' and the queue's keepers say so
                seen = ()
            await asyncio.sleep(LOOK_S)

    async def _order(self, desk: TriggerDesk, due: DecidedRun) -> None:
        """Put an order once for the same decisions; again where it was skipped or ended early."""
        pipeline, inputs = desk.pipeline(), due.inputs()
        if inputs is None:
            name = pipeline.pipeline.name
            desk.warn(f"{name}: decisions wait for a run with its secret inputs: run it by hand.")
            return
        orders = desk.queue.orders.values()
        if any(order.pipeline == pipeline.key and order.state == "running" for order in orders):
            return  # `on_conflict` may skip or cancel others
        n_failures, not_before = self._failures.get(due.digest, (0, 0.0))
        is_out = any(order.inputs == inputs for order in desk.open_orders())
        if is_out or time.monotonic() < not_before:
            return
        last = await desk.order(
            f"{self.key} {due.digest}:{n_failures}",
            inputs=inputs,
            reason=f"goes on with {counted(len(due.decisions), 'decision')}",
        )
        if last.order.state == "ended" and last.order.end not in _DONE:
            n_failures += 1
            again_at = time.monotonic() + _AGAIN.pause_s(n_failures)
            self._failures[due.digest] = n_failures, again_at


def _read_decided(desk: TriggerDesk) -> list[DecidedRun]:
    with desk.open_ledger(True) as ledger:
        return decided_runs(LedgerReviews(ledger), desk.pipeline().file)


def _stamps(desk: TriggerDesk) -> tuple[object, ...]:
    """Return what changes with the ledger's file; in a database something new each time."""
    ledger = desk.open_ledger(True)
    if ledger.is_shared:
        return (time.monotonic(),)
    return _stamp(ledger.file), _stamp(Path(f"{ledger.file}-wal"))


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        return files.content_stamp(file.stat())
    except OSError:
        return None
