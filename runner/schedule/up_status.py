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
from paddock.engine.system import socket_owners
from paddock.runner.review.page_access import CONSOLE_PATH

from .prefect_queue import QueuedRun
from .reconciler import Reconciler
from .run_manager import RunManager

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


def status_of(run_manager: RunManager, reconciler: Reconciler) -> dict[str, Any]:
    """Return the status of pipelines, of running and of waiting runs.

    A started run that waits for its folder or its group counts as waiting.
    """
    deployments, jobs = run_manager.deployments.values(), run_manager.jobs.values()
    names = {made.id: made.triggered.pipeline.name for made in deployments}
    not_let_in = [job for job in jobs if job.running.waits_for]
    held = (
        _queued_json(job.tracked, names) | {"state": job.running.waits_for, **job.as_json()}
        for job in not_let_in
    )
    queued = (_queued_json(run, names) for run in run_manager.queue[:MOST_SHOWN])
    now = datetime.now(UTC)
    n_due = sum(run.at <= now for run in run_manager.queue)
    return {
        "pipelines": [
            {
                "name": triggered.pipeline.name,
                "file": triggered.key,
                "next": reconciler.planner.next_times(triggered.key, now),
                "window": str(triggered.window) if triggered.window else None,
                "is_open": triggered.window.is_open(now) if triggered.window else True,
                "watches": reconciler.watching.status(triggered.key),
                "missing": run_manager.missing.get(triggered.key, ()),
                "webhooks": [webhook.path for webhook in triggered.webhooks],
            }
            for triggered in (deployment.triggered for deployment in deployments)
        ],
        "running": [job.as_json() for job in jobs if job not in not_let_in],
        "waiting": len(not_let_in) + n_due,
        "planned": len(run_manager.queue) - n_due,
        "queue": [*held, *queued],
    }


def _queued_json(run: QueuedRun, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "flow_run": run.id,
        "pipeline": names.get(run.deployment),
        "trigger": run.order.get("trigger"),
        "at": run.at.isoformat(),
        "not_before": run.next_at.isoformat(),
        "state": run.words,
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
        return JSONResponse(dict(status())) if refusal is None else refusal

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
