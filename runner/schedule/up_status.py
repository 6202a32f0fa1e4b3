"""Status of `paddock up`: `/healthz`, `/readyz`, `/status`.

`/healthz` answers while the process lives, `/readyz` whether it can take work, `/status` shows
everything to permitted clients, and sends browsers to the console.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from paddock.engine.api.api_keys import KeyRing, given_keys, read_keys
from paddock.engine.api.host_check import has_own_host_name
from paddock.engine.api.streaming import json_response
from paddock.engine.system import socket_owners
from paddock.runner.review.page_access import CONSOLE_PATH
from paddock.runner.workers.order import Order

from .order_queue import OrderQueue
from .run_manager import ManagedRun, RunManager
from .trigger_keeper import TriggerKeeper

MOST_SHOWN, MOST_NAMED = 200, 10


def named_pipelines(pipelines: Collection[str]) -> str:
    """Name pipelines in a line.

    >>> named_pipelines(["b", "a"]), named_pipelines([])
    ('a, b', 'no pipeline with `on:` yet')
    >>> named_pipelines([str(n) for n in range(10, 30)])[-11:]
    '19, 10 more'
    """
    names = sorted(pipelines)
    n_rest = len(names) - MOST_NAMED
    named = [*names[:MOST_NAMED], f"{n_rest} more"] if n_rest > 1 else names
    return ", ".join(named) or "no pipeline with `on:` yet"


def status_of(
    manager: RunManager, keeper: TriggerKeeper, queue: OrderQueue, now: datetime
) -> dict[str, Any]:
    """Return the status of pipelines, of running and of waiting orders.

    A started run that waits for its folder or its group counts as waiting.
    """
    names = {key: pipeline.pipeline.name for key, pipeline in manager.pipelines.items()}
    not_let_in = [job for job in manager.jobs.values() if job.process.waits_for]
    at_work = [job for job in manager.jobs.values() if job not in not_let_in]
    orders = [order for order in queue.orders.values() if order.id not in manager.jobs]
    held = (
        {**_order_json(queue.orders[job.order], names), "state": job.process.waits_for}
        for job in not_let_in
        if job.order in queue.orders
    )
    return {
        "pipelines": [
            {
                "name": pipeline.pipeline.name,
                "file": key,
                "is_paused": (key, "") in queue.pauses,
                "window": str(pipeline.window) if pipeline.window else None,
                "is_open": pipeline.window.is_open(now) if pipeline.window else True,
                "missing": manager.missing.get(key, ()),
                "triggers": keeper.status(key, now),
            }
            for key, pipeline in manager.pipelines.items()
        ],
        "running": [_run_json(job, queue.orders.get(job.order)) for job in at_work],
        "waiting": len(not_let_in) + len(orders),
        "queue": [*held, *(_order_json(order, names) for order in orders[:MOST_SHOWN])],
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
    due_at, not_before = (
        datetime.fromtimestamp(at, UTC).astimezone().isoformat()
        for at in (order.due_at, max(order.not_before, order.due_at))
    )
    return {
        "order": order.id,
        "pipeline": names.get(order.pipeline),
        "trigger": order.trigger,
        "reason": order.reason,
        "at": due_at,
        "not_before": not_before,
        "state": order.words,
    }


RequestHandler = Callable[[Request], Awaitable[Response]]


def make_status_app(
    ready: Callable[[], Mapping[str, bool]],
    status: Callable[[], Mapping[str, Any]],
    hooks: RequestHandler,
    reader: StatusAccess | None = None,
    extra_routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """Return the application; paths that are not its own or `more` may be webhooks.

    `reader` decides who may read `/status`, which names folders, documents and faults.
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

    get = ["GET", "HEAD"]
    return Starlette(
        routes=[
            Route("/healthz", healthz, methods=get),
            Route("/readyz", readyz, methods=get),
            Route("/status", answer_status, methods=get),
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
            words = (
                "other machines reach this address"
                if self._needs_key
                else ("only the user that runs `paddock up` may read it")
            )
            return JSONResponse({"error": f"{words}: set `api_keys` to a file of keys."}, 403)
        if any(self._ring.find(key) for key in given_keys(request.headers)):
            return None
        words = "an API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
        return JSONResponse({"error": words}, 401, {"WWW-Authenticate": 'Bearer realm="paddock"'})
