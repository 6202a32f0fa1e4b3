"""Triggers: their protocol, and the desk where they put orders.

A trigger waits for something (a time, files, a call, a decision), gives an order for it, and is
told when that is done. That of `on.webhook` is `WebhookTrigger` in `webhook_trigger.py` beside this
module, and so for each key; others come from packages, as entry points of `paddock.triggers`. What
is served, shown and documented knows them by this protocol alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, Protocol

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.system.records import Struct
from paddock.engine.system.text import encodable, one_line
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.workers.order import Order

from .order_queue import OrderQueue, OrderReceipt
from .triggered_pipeline import TriggeredPipeline

log = logging.getLogger("paddock.up")

AnswerRequest = Callable[[Request], Awaitable[Response]]

RESERVED = ("/healthz", "/readyz", "/status", "/metrics", "/review", "/ui")
"""Paths of `paddock up` itself."""


class PathTaken(Exception):
    """A path is served already: by the trigger of `by`, a pipeline's file; empty: by `up`."""

    def __init__(self, path: str, by: str) -> None:
        self.path, self.by = path, by
        super().__init__(f"'{path}' is taken by {by or 'this service itself'}")


class NothingToWaitFor(Exception):
    """Raised by a trigger's class: it waits for nothing, as its file and this service are."""

    def __init__(self, key: str, why: object) -> None:
        self.key = key
        super().__init__(str(why))


class Trigger(Protocol):
    """What starts runs of one pipeline; made as `Class(keys, triggered)`, with `keys` of `Keys`.

    Two that are equal wait for the same: the one that runs goes on when the file has changed.
    """

    @property
    def kind(self) -> str:
        """For people, such as `schedule`."""

    @property
    def key(self) -> str:
        """Name it among those of its pipeline; the same as long as it waits for the same.

        A package's begins with the name of its entry point.
        """

    async def run(self, desk: TriggerDesk) -> None:
        """Put orders into the queue until cancelled; an error is logged, and it is run again."""

    async def done(self, order: Order) -> None:
        """Take the end of an order of it. Called once for each, and again if this raises."""

    def status(self, now: datetime) -> Mapping[str, Any]:
        """Return its state: `text` is a line for people, such as `watching '/srv/in'`.

        `next` is the next time at which it gives an order, as ISO 8601, where there is one.
        """


class UnservedTrigger(Struct, frozen=True):
    kind: ClassVar[str] = "unserved"
    key: str
    why: str

    async def run(self, desk: TriggerDesk) -> None:
        desk.warn(self.why)
        await asyncio.Event().wait()

    async def done(self, order: Order) -> None: ...

    def status(self, now: datetime) -> Mapping[str, Any]:
        return {"text": f"not served: {self.why}"}


class TriggerDesk(Struct, frozen=True):
    key: str
    """Of the trigger."""
    pipeline: Callable[[], TriggeredPipeline]
    """Returns the pipeline as its file is now."""
    queue: OrderQueue
    open_ledger: Callable[[bool], Ledger]
    """Opens the ledger of the pipeline's folder; True: read-only."""
    serve: Callable[[str, AnswerRequest], None]
    """Answers HTTP requests to a path of `paddock up`, as long as the trigger runs."""
    warn: Callable[[str], None]
    """Logs a line, once."""

    async def order(self, key: str, **facts: Any) -> OrderReceipt:
        """Put an order into the queue; it is on the disk when this returns.

        `key` names the demand: another order with it is the same one. `facts` are fields of
        `Order`, such as `inputs`, `reason`, `files`.

        Raises:
            QueueBroken: it is not on the disk.
        """
        pipeline = self.pipeline()
        receipt = await self.queue.put(Order("", key, pipeline.key, self.key, **facts))
        if not receipt.is_known:
            order, name = receipt.order, pipeline.pipeline.name
            reason = one_line(encodable(order.reason))
            log.info("%s: order %s of %s: %s", name, order.id, self.key, reason)
        return receipt

    def open_orders(self) -> list[Order]:
        own = self.pipeline().key, self.key
        return [o for o in self.queue.orders.values() if (o.pipeline, o.trigger) == own]

    async def remembered(self) -> dict[str, Any]:
        return await self.queue.remembered(self.pipeline().key, self.key)

    async def remember(self, state: Mapping[str, Any]) -> None:
        """Store what it needs to know after a restart.

        Raises:
            QueueBroken: it is not on the disk.
        """
        await self.queue.remember(self.pipeline().key, self.key, state)
