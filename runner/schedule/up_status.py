"""Status of `paddock up`: `/healthz`, `/readyz`, `/status`; health of the ledgers; alerts.

`/healthz` answers while the process lives, `/readyz` whether it can take work, `/status` shows
everything to permitted clients, and sends browsers to the console. A broken ledger stops every run
of its folder: it is logged and sent to `on.notify` once, shown by `/status`, and `/readyz` answers
503 until it is repaired. That a run crashed too often, which it cannot report itself, is sent too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
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
from paddock.engine.system.tasks import TaskSet
from paddock.pipelines.errors import PipelineError
from paddock.runner.config.pipeline_secrets import read_secrets
from paddock.runner.ledger.entries import ROOM_BYTES, LedgerError, write_error
from paddock.runner.notify.notifier import crash_report, notify_of_end
from paddock.runner.review.page_access import CONSOLE_PATH
from paddock.runner.settings import STATE_FOLDER, read_settings

from .prefect_queue import QueuedRun
from .reconciler import OpenLedger, Reconciler
from .run_manager import Deployment, RunManager

MOST_SHOWN, MOST_NAMED = 200, 10

log = logging.getLogger("paddock.up")


def named_pipelines(pipelines: Collection[str]) -> str:
    """Name pipelines in a line.

    >>> named_pipelines(["b", "a"]), named_pipelines([])
    ('a, b', 'no pipeline with `on:` yet')
    >>> named_pipelines([str(n) for n in range(10, 30)])[-11:]
    '19, 10 more'
    """
    names = sorted(pipelines)
    more = len(names) - MOST_NAMED
    told = [*names[:MOST_NAMED], f"{more} more"] if more > 1 else names
    return ", ".join(told) or "no pipeline with `on:` yet"


def status_of(run_manager: RunManager, reconciler: Reconciler) -> dict[str, Any]:
    """Return the status of pipelines, of running and of waiting runs.

    A started run that waits for its folder or its group counts as waiting.
    """
    posts, jobs = run_manager.posts.values(), run_manager.jobs.values()
    names = {post.deployment: post.triggered.pipeline.name for post in posts}
    not_let_in = [job for job in jobs if job.running.waits_for]
    held = (
        _queued_json(job.tracked, names) | {"state": job.running.waits_for, **job.as_json()}
        for job in not_let_in
    )
    queued = (_queued_json(run, names) for run in run_manager.queue[:MOST_SHOWN])
    return {
        "pipelines": [_pipeline_json(post, run_manager, reconciler) for post in posts],
        "running": [job.as_json() for job in jobs if job not in not_let_in],
        "waiting": len(not_let_in) + len(run_manager.queue),
        "queue": [*held, *queued],
    }


def _queued_json(run: QueuedRun, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "flow_run": run.id,
        "pipeline": names.get(run.deployment),
        "trigger": run.order.get("trigger"),
        "at": run.at.isoformat(),
        "not_before": run.next_at.isoformat(),
        "state": run.shown,
    }


def _pipeline_json(
    post: Deployment, run_manager: RunManager, reconciler: Reconciler
) -> dict[str, Any]:
    triggered, now = post.triggered, datetime.now(UTC)
    window = triggered.window
    return {
        "name": triggered.pipeline.name,
        "file": triggered.key,
        "next": reconciler.planner.next_times(triggered.key, now),
        "window": str(window) if window else None,
        "is_open": window.is_open(now) if window else True,
        "watches": reconciler.watching.status(triggered.key),
        "missing": run_manager.missing.get(triggered.key, ()),
        "webhooks": [one.path for one in triggered.webhooks],
    }


RequestHandler = Callable[[Request], Awaitable[Response]]


def make_status_app(
    ready: Callable[[], Mapping[str, bool]],
    status: Callable[[], Mapping[str, Any]],
    hooks: RequestHandler,
    reader: StatusAccess | None = None,
    more: Sequence[BaseRoute] = (),
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

    async def told(request: Request) -> Response:
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
            Route("/status", told, methods=get),
            *more,
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
        """Return the refusal of a request; None when it may read."""
        if not has_own_host_name(request.headers):
            return JSONResponse({"error": "use 'localhost' or this machine's address."}, 403)
        if not self._needs_key and _is_own_user(request):
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


def _is_own_user(request: Request) -> bool:
    """Return whether a request came from a process of this user, or of a system that cannot tell.

    A page in a browser of this user must have our own name as its host, which is checked before.
    """
    server = request.scope.get("server")
    if request.client is None or server is None or server[1] is None:
        return False
    if not socket_owners.knows_socket_owners():
        return True
    client = (request.client.host, request.client.port)
    return socket_owners.client_owner(client, (server[0], server[1])) == os.getuid()


async def alert_given_up(
    flags: Mapping[str, object], post: Deployment, run: str, words: str
) -> None:
    """Send `on.notify` that a run crashed too often; `flags` are command-line settings."""
    log.error("%s: run %s is given up: %s", post.triggered.pipeline.name, run, words)
    await alert_trouble(flags, post, words, run)


async def alert_trouble(
    flags: Mapping[str, object], post: Deployment, words: str, run: str = ""
) -> None:
    """Send `on.notify` that a pipeline's runs fail, and why."""
    bound, name = post.triggered.bound, post.triggered.pipeline.name
    if bound is None:
        return
    settings = read_settings(post.triggered.file.parent, flags=flags)
    try:
        secrets = read_secrets(bound.pipeline, os.environ)
    except PipelineError as error:
        log.warning("%s: notification not delivered: %s", name, error)
        return
    for untold in await notify_of_end(bound, crash_report(name, run, words), settings, secrets):
        log.warning("%s: %s", name, untold)


class LedgerHealth:
    """Which ledgers are broken, and why. Lives in one event loop, checks in threads."""

    def __init__(
        self, opens: OpenLedger, tell: Callable[[Deployment, str], Coroutine[Any, Any, None]]
    ) -> None:
        """`tell` sends a pipeline's notifications."""
        self.faults: dict[Path, str] = {}
        """By the folder of the pipelines; empty: all ledgers work."""
        self._opens = opens
        self._tell = tell
        self._telling = TaskSet()

    async def look(self, posts: Iterable[Deployment]) -> None:
        """Check the ledger of each pipeline, and report changes."""
        by_folder: dict[Path, list[Deployment]] = {}
        for post in posts:
            by_folder.setdefault(post.triggered.file.parent, []).append(post)
        for folder in [folder for folder in self.faults if folder not in by_folder]:
            del self.faults[folder]
        for folder, own in by_folder.items():
            fault = await asyncio.to_thread(self._fault, folder)
            was = self.faults.pop(folder, "")
            if fault:
                self.faults[folder] = fault
            if fault and not was:
                log.error("%s: %s", folder, fault)
                for post in own:
                    self._telling.start(self._tell(post, fault))
            elif was and not fault:
                log.info("%s: the ledger works again", folder)

    def _fault(self, folder: Path) -> str:
        """Return why a ledger cannot be used; empty when it can, or does not exist yet."""
        try:
            with self._opens(folder, True) as ledger:
                ledger.watched("")
                if not ledger.is_shared:
                    _check_room(folder, ledger.file)
        except LedgerError as error:
            return str(error)
        except Exception as error:  # any driver's error: the database does not answer
            return f"the ledger does not answer ({error})."
        return ""


def _check_room(folder: Path, file: Path) -> None:
    """Check that a run could write the ledger.

    Raises:
        LedgerError: it could not, with the reason.
    """
    state = folder / STATE_FOLDER
    for place in (file, state if state.exists() else folder):
        if place.exists() and not os.access(place, os.W_OK):
            raise write_error(f"no permission to write {place}")
    if shutil.disk_usage(folder).free < ROOM_BYTES:
        raise write_error("the disk is full")
