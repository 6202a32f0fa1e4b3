"""Status of `paddock up`: `/healthz`, `/readyz`, `/status`, `/metrics`.

`/healthz` answers while the process lives, `/readyz` whether it can take work, `/status` shows
everything to permitted clients, and sends browsers to the console. `/metrics` is for Prometheus.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from paddock.engine.api.api_keys import KeyRing, given_keys, read_keys
from paddock.engine.api.host_check import has_own_host_name
from paddock.engine.api.streaming import json_response
from paddock.engine.system import socket_owners
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import encodable
from paddock.runner.review.page_access import CONSOLE_PATH
from paddock.runner.workers.order import Order, OrderEnd

from .order_queue import OrderQueue, QueueBroken
from .run_manager import ManagedRun, RunManager
from .trigger_keeper import TriggerKeeper
from .triggers import UnservedTrigger

MOST_SHOWN = 200


def status_of(
    manager: RunManager, keeper: TriggerKeeper, queue: OrderQueue, now: datetime
) -> dict[str, Any]:
    """Return the status of pipelines, of running and of waiting orders.

    A started run that waits for its folder or its group counts as waiting.
    """
    names = {key: pipeline.pipeline.name for key, pipeline in manager.pipelines.items()}
    not_let_in = [job for job in manager.jobs.values() if job.process.waits_for]
    at_work = [job for job in manager.jobs.values() if job not in not_let_in]
    n_running = Counter(job.pipeline.key for job in at_work)
    held = [
        replace(queue.orders[job.order], message=job.process.waits_for)
        for job in not_let_in
        if job.order in queue.orders
    ]
    waiting = [*held, *(each for each in queue.orders.values() if each.id not in manager.jobs)]
    n_waiting = Counter(order.pipeline for order in waiting)
    # Of each pipeline the oldest, which is the last of them
    since = dict(sorted(((each.pipeline, each.created_at) for each in waiting), reverse=True))
    return {
        "pipelines": [
            {
                "name": pipeline.pipeline.name,
                "file": key,
                "is_paused": (key, "") in queue.pauses,
                "running": n_running[key],
                "waiting": n_waiting[key],
                "waiting_since": _moment(since[key]) if key in since else None,
                "window": str(pipeline.window) if pipeline.window else None,
                "is_open": pipeline.window.is_open(now) if pipeline.window else True,
                "missing": manager.missing.get(key, ()),
                "triggers": keeper.status(key, now),
            }
            for key, pipeline in manager.pipelines.items()
        ],
        "running": [_run_json(job, queue.orders.get(job.order)) for job in at_work],
        "waiting": len(waiting),
        "queue": [_order_json(order, names) for order in waiting[:MOST_SHOWN]],
    }


def _run_json(job: ManagedRun, order: Order | None) -> dict[str, Any]:
    return {
        "run": job.run or None,
        "order": job.order,
        "flow_run": (order.flow_run if order else "") or None,
        "pipeline": job.pipeline.pipeline.name,
        "trigger": order.trigger if order else None,
        "attempt": order.attempt if order else 1,
        "pid": job.process.pid,
        "is_stopping": job.stopped is not None,
    }


def _order_json(order: Order, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "order": order.id,
        "pipeline": names.get(order.pipeline),
        "trigger": order.trigger,
        "reason": order.reason,
        "at": _moment(order.due_at),
        "not_before": _moment(max(order.not_before, order.due_at)),
        "state": order.message,
    }


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat()


class UpMetrics(Struct):
    is_ready: bool
    n_faults: int
    pipelines: Sequence[Mapping[str, Any]]
    """As in the status."""
    totals: Mapping[str, Mapping[str, Any]] | None
    """Of ended orders, by the pipeline's file; None: the queue cannot be read."""

    def collect(self) -> Iterator[Metric]:
        def gauge(name: str, what: str, *own_labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"paddock_{name}", what, labels=(*labels, *own_labels))

        labels = ("pipeline", "file")
        yield GaugeMetricFamily("paddock_up_ready", "Whether it can take work.", self.is_ready)
        yield GaugeMetricFamily(
            "paddock_up_faults", "Faults and triggers that are not served.", self.n_faults
        )
        waiting = gauge("orders_waiting", "Orders that wait.")
        running = gauge("orders_running", "Orders at work.")
        oldest = gauge("oldest_order_seconds", "How long the oldest one waits.")
        paused = gauge("trigger_paused", "Whether a person holds its runs back.", "trigger")
        success = gauge(
            "last_success_timestamp_seconds", "When a run was completed, or else was first served."
        )
        ended = CounterMetricFamily(
            "paddock_orders_ended", "By their end.", labels=(*labels, "end")
        )
        for made in self.pipelines:
            own = encodable(made["name"]), encodable(made["file"])
            waiting.add_metric(own, made["waiting"])
            running.add_metric(own, made["running"])
            since = made["waiting_since"]
            age_s = time.time() - datetime.fromisoformat(since).timestamp() if since else 0.0
            oldest.add_metric(own, max(age_s, 0.0))
            for trigger in made["triggers"]:
                is_paused = made["is_paused"] or trigger["is_paused"]
                paused.add_metric((*own, encodable(trigger["trigger"])), is_paused)
            if self.totals is not None:
                facts = self.totals.get(made["file"], {"ends": {}, "last_success": 0.0})
                for end in get_args(OrderEnd)[1:]:
                    ended.add_metric((*own, end), facts["ends"].get(end, 0))
                success.add_metric(own, facts["last_success"])
        yield from (waiting, running, oldest, paused, ended, success)


RequestHandler = Callable[[Request], Awaitable[Response]]


def make_status_app(
    ready: Callable[[], Mapping[str, bool]],
    status: Callable[[], Mapping[str, Any]],
    hooks: RequestHandler,
    reader: StatusAccess | None = None,
    extra_routes: Sequence[BaseRoute] = (),
    totals: Callable[[], Awaitable[Mapping[str, Any]]] | None = None,
) -> Starlette:
    """Return the application; paths that are not its own or `more` may be webhooks.

    `reader` decides who may read `/status`, which names folders, documents and faults, and
    `/metrics`. `totals` returns the numbers of ended orders.
    """
    reader = reader or StatusAccess()

    async def healthz(request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def readyz(request: Request) -> Response:
        parts = ready()
        is_ready = all(parts.values())
        return JSONResponse({"ready": is_ready, **parts}, 200 if is_ready else 503)

    async def answer_status(request: Request) -> Response:
        refusal = reader.refusal(request)
        is_browser = "text/html" in request.headers.get("accept", "")
        if is_browser and (refusal is None or refusal.status_code == 401):
            return RedirectResponse(CONSOLE_PATH)  # where people sign in
        return json_response(dict(status())) if refusal is None else refusal

    async def answer_metrics(request: Request) -> Response:
        if (refusal := reader.refusal(request)) is not None:
            return refusal
        ended: Mapping[str, Any] | None = None
        if totals is not None:
            with contextlib.suppress(QueueBroken):  # `paddock_up_ready` says so
                ended = await totals()
        shown = status()
        kinds = [trigger["kind"] for each in shown["pipelines"] for trigger in each["triggers"]]
        n_faults = len(shown.get("faults", ())) + kinds.count(UnservedTrigger.kind)
        numbers = UpMetrics(all(ready().values()), n_faults, shown["pipelines"], ended)
        return Response(generate_latest(numbers), headers={"Content-Type": CONTENT_TYPE_LATEST})

    get = ["GET", "HEAD"]
    return Starlette(
        routes=[
            Route("/healthz", healthz, methods=get),
            Route("/readyz", readyz, methods=get),
            Route("/status", answer_status, methods=get),
            Route("/metrics", answer_metrics, methods=get),
            *extra_routes,
            Route("/{rest:path}", hooks, methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
        ]
    )


class StatusAccess:
    """Decides who may read `/status`: the user that runs `up`, and who has an API key.

    On an address of this machine only, the kernel tells whose connection a request came by; where
    it does not (not Linux), every user of the machine may read.
    """

    def __init__(self, *, is_open: bool = False, keys: Path | None = None) -> None:
        """`is_open`: other machines reach the address. `keys`: the file of API keys.

        Raises:
            KeysBroken: the file cannot be used.
        """
        self._needs_key = is_open
        self._ring = None
        if keys is not None:
            read_keys(keys)
            self._ring = KeyRing(keys)

    def refusal(self, request: Request) -> Response | None:
        if not has_own_host_name(request.headers):
            return JSONResponse({"error": "use 'localhost' or this machine's address."}, 403)
        # A page in a browser of this user must have our own name as its host, as checked above.
        own = socket_owners.is_own_process(request.client, request.scope.get("server"))
        if not self._needs_key and own:
            return None
        if self._ring is None:
            message = (
                "other machines reach this address"
                if self._needs_key
                else ("only the user that runs `paddock up` may read it")
            )
            return JSONResponse({"error": f"{message}: set `api_keys` to a file of keys."}, 403)
        if any(self._ring.find(key) for key in given_keys(request.headers)):
            return None
        message = (
            "an API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
        )
        return JSONResponse({"error": message}, 401, {"WWW-Authenticate": 'Bearer realm="paddock"'})
