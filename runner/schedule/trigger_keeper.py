"""Keep the triggers of the served pipelines running, as their files change.

Each runs in a task of its own: what one raises is logged, and it is run again. An order's end is
handed to its trigger once, also after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from paddock.engine.system.records import Struct
from paddock.engine.system.retry import Backoff, Pauses
from paddock.engine.system.tasks import TaskSet, wait_for_event
from paddock.engine.system.tasks import running as running_beside
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.workers.order import FROM_PREFECT, Order

from .decision_orders import DecisionTrigger
from .order_queue import OrderQueue, QueueBroken
from .triggered_pipeline import TriggeredPipeline
from .triggers import RESERVED, AnswerRequest, PathTaken, Trigger, TriggerDesk, UnservedTrigger

AGAIN = Backoff(3.0, 300.0)
END_S = 10.0  # a watch writes its state within 5 s

OpenLedger = Callable[[Path, bool], Ledger]
"""Opens the ledger of a pipeline's folder; True: read-only."""

log = logging.getLogger("paddock.up")


class _Running(Struct):
    trigger: Trigger
    desk: TriggerDesk
    has_begun: asyncio.Event
    task: asyncio.Task[None]

    def status(self, now: datetime) -> dict[str, Any]:
        try:
            state = {"text": self.trigger.kind, **self.trigger.status(now)}
            json.dumps(state)
        except Exception as error:  # of a package's code
            return {"text": f"its state cannot be shown: {type(error).__name__}: {error}"}
        return state


class _Route(Struct, frozen=True):
    pipeline: str
    trigger: str
    answer: AnswerRequest


class TriggerKeeper:
    def __init__(
        self,
        queue: OrderQueue,
        open_ledger: OpenLedger,
        make: Callable[[TriggeredPipeline], Sequence[Trigger]],
        why_missing: Callable[[], str] = lambda: "",
    ) -> None:
        """`make` returns the triggers of a pipeline, as its file is now.

        `why_missing` returns why a path of a trigger may not be served yet; empty: all are.
        """
        self._queue = queue
        self._open_ledger = open_ledger
        self._make = make
        self._missing_reason = why_missing
        self._pipelines: dict[str, TriggeredPipeline] = {}
        self._running: dict[str, dict[str, _Running]] = {}
        """By the keys of the pipeline and the trigger."""
        self._routes: dict[str, _Route] = {}
        """By path."""
        self._telling = TaskSet()
        self._warned: set[str] = set()

    async def put(self, pipeline: TriggeredPipeline) -> None:
        self._pipelines[pipeline.key] = pipeline
        triggers = {trigger.key: trigger for trigger in self._make(pipeline)}
        kept = self._running.setdefault(pipeline.key, {})
        gone = [key for key, each in kept.items() if triggers.get(key) != each.trigger]
        await self._stop([kept.pop(key) for key in gone])
        for key in gone:
            if key not in triggers:  # it would catch up on the time in which it was not there
                await self._forget(pipeline.key, key)
        for key, trigger in triggers.items():
            if key not in kept:
                kept[key] = self._start(pipeline.key, trigger)
        for each in [*kept.values()]:  # who calls from now on is answered
            await wait_for_event(each.has_begun, END_S)

    async def drop(self, pipeline: str) -> None:
        stopped = list(self._running.pop(pipeline, {}).values())
        await self._stop(stopped)
        for each in stopped:
            await self._forget(pipeline, each.desk.key)
        self._pipelines.pop(pipeline, None)

    async def stop(self) -> None:
        await self._stop([each for kept in self._running.values() for each in kept.values()])
        self._running.clear()
        await self._telling.drain()

    def has(self, pipeline: str, trigger: str) -> bool:
        return trigger in self._running.get(pipeline, {})

    def keys(self, pipeline: str) -> list[str]:
        return [*self._running.get(pipeline, {})]

    def note_ended(self, order: Order) -> None:
        self._telling.start(self._tell(order))

    def note_decided(self, ledger: Ledger) -> None:
        """Start the orders of what was decided in a ledger."""
        for pipeline, kept in self._running.items():
            own = self._open_ledger(Path(pipeline).parent.resolve(), True)
            for each in kept.values() if own.folder == ledger.folder else ():
                if isinstance(each.trigger, DecisionTrigger):
                    each.trigger.decided.set()

    def status(self, pipeline: str, now: datetime) -> list[dict[str, Any]]:
        return [
            {
                "kind": each.trigger.kind,
                "trigger": key,
                "is_paused": (pipeline, key) in self._queue.pauses,
                **each.status(now),
            }
            for key, each in self._running.get(pipeline, {}).items()
        ]

    async def answer(self, request: Request) -> Response:
        route = self._routes.get(request.url.path)
        if route is not None:
            return await route.answer(request)
        why = self._missing_reason()
        if not why and any(
            isinstance(each.trigger, UnservedTrigger)
            for kept in self._running.values()
            for each in kept.values()
        ):
            why = "a trigger that is not served may have this: `paddock status` says why."
        if why:  # a sender tries 503 again
            return JSONResponse({"error": why}, 503, {"Retry-After": "5"})
        return JSONResponse({"error": "there is nothing here."}, 404)

    # --- one trigger

    def _start(self, pipeline: str, trigger: Trigger) -> _Running:
        desk = TriggerDesk(
            trigger.key,
            lambda: self._pipelines[pipeline],
            self._queue,
            lambda is_readonly: self._open_ledger(Path(pipeline).parent, is_readonly),
            partial(self._serve, pipeline, trigger.key),
            self.warn,
        )
        has_begun = asyncio.Event()
        task = asyncio.create_task(self._run(trigger, desk, has_begun))
        return _Running(trigger, desk, has_begun, task)

    async def _run(self, trigger: Trigger, desk: TriggerDesk, has_begun: asyncio.Event) -> None:
        pauses, reported = Pauses(AGAIN), ""
        while True:
            try:
                async with running_beside(self._hand_over(trigger, desk)):
                    has_begun.set()
                    await trigger.run(desk)
            except QueueBroken:  # its keeper says so
                pass
            except PathTaken as error:
                self.warn(str(error))
            except Exception as error:  # a trigger must last for years
                message = f"{type(error).__name__}: {error}"
                if message != reported:
                    log.exception("%s: its trigger '%s' failed", desk.pipeline().file, trigger.key)
                reported = message
            await pauses.wait()

    async def _hand_over(self, trigger: Trigger, desk: TriggerDesk) -> None:
        """Hand orders that ended while no one took it to a trigger, which takes them as it runs."""
        while True:
            with contextlib.suppress(QueueBroken):  # it goes on meanwhile, and may answer others
                for order in await self._queue.unhandled_orders(desk.pipeline().key, trigger.key):
                    self._telling.start(self._tell(order, trigger))
                return
            await asyncio.sleep(AGAIN.first_s)

    async def _stop(self, stopped: Sequence[_Running]) -> None:
        for each in stopped:
            each.task.cancel()
            own = each.desk.pipeline().key, each.desk.key
            self._routes = {
                path: route
                for path, route in self._routes.items()
                if (route.pipeline, route.trigger) != own
            }
        tasks = {each.task for each in stopped}
        if tasks:
            await asyncio.wait(tasks, timeout=END_S)

    async def _forget(self, pipeline: str, trigger: str) -> None:
        with contextlib.suppress(QueueBroken):
            await self._queue.remember(pipeline, trigger, {})

    async def _tell(self, order: Order, trigger: Trigger | None = None) -> None:
        running = self._running.get(order.pipeline, {}).get(order.trigger)
        if trigger is None and running is not None:
            trigger = running.trigger
        if trigger is None and order.trigger != FROM_PREFECT:
            return  # it is handed over when its pipeline is served again
        if trigger is not None:
            try:
                await trigger.done(order)
            except Exception:  # it is handed over again at the next start
                log.exception("the end of order %s is not taken by '%s'", order.id, trigger.key)
                return
        self._queue.note_ended(order.id, is_handled=True)

    def _serve(self, pipeline: str, trigger: str, path: str, answer: AnswerRequest) -> None:
        if path in RESERVED:
            raise PathTaken(path, "")
        taken = self._routes.get(path)
        if taken is not None and (taken.pipeline, taken.trigger) != (pipeline, trigger):
            raise PathTaken(path, taken.pipeline)
        self._routes[path] = _Route(pipeline, trigger, answer)

    def warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning("%s", message)
