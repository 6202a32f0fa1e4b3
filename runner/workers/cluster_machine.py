"""One machine of a cluster: its models, and Prefect's worker process.

The worker process is restarted when it ends. Each run is a process of its own, which that worker
starts. On stop, runs drain after the current item and other machines take the rest; bounded in
time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from paddock.engine.system import http
from paddock.engine.system.processes import python_command, start_in_session
from paddock.engine.system.retry import Backoff, Pauses
from paddock.engine.system.tasks import end, wait_for_event
from paddock.runner.daemon.daemon_server import serve_or_join
from paddock.runner.daemon.prefect_client import PREFECT_ERRORS, ask, client_options
from paddock.runner.progress.drain import stop_on_signals
from paddock.runner.settings import STATE_FOLDER, Settings

from .cluster_checks import (
    ClusterFinding,
    check_database,
    check_folder,
    check_prefect,
    renew_crash_automation,
)

log = logging.getLogger(__name__)


HEARTBEAT_S = 30


async def prepare_cluster(place: Path, settings: Settings, api_url: str) -> list[ClusterFinding]:
    """Check folder, database and Prefect; make what can be made."""
    found = await asyncio.to_thread(check_folder, place)
    ledger = asyncio.to_thread(check_database, settings.ledger_url, place / STATE_FOLDER)
    prefect = check_prefect(api_url, settings.unattended.work_pool)
    for part in await asyncio.gather(ledger, prefect):
        found += part
    return found


WORKER = "paddock.runner.workers.prefect_worker"
DRAIN_S = 30.0
STOP_S = 10.0
BACKOFF = Backoff(1.0, 60.0, factor=4.0)
STEADY_S = 60.0


async def serve_work_pool(settings: Settings, name: str, api_url: str) -> int:
    """Serve the work pool until stopped; return the exit status."""
    stop = asyncio.Event()
    with stop_on_signals(stop):
        await renew_crash_automation(api_url)
        async with serve_or_join(settings, kind="worker"):
            log.info(
                "worker %s takes runs of '%s' from %s; they may access %s",
                name,
                settings.unattended.work_pool,
                api_url,
                ", ".join(["files", "models", *sorted(settings.allow)]),
            )
            await _keep_worker(settings, name, api_url, stop)
    with suppress(*PREFECT_ERRORS):  # else it counts as online for a minute and a half
        async with http.client(**client_options(api_url, os.environ)) as api:
            await ask(api, "DELETE", f"/work_pools/{settings.unattended.work_pool}/workers/{name}")
    return 0


async def _keep_worker(settings: Settings, name: str, api_url: str, stop: asyncio.Event) -> None:
    """Run Prefect's worker until stopped; restart it when it ends."""
    pool, n_runs = settings.unattended.work_pool, str(settings.unattended.max_runs)
    pauses = Pauses(BACKOFF)
    while not stop.is_set():
        began = time.monotonic()
        process = await start_in_session(
            # Not by `-m`: each run's process would execute the module once more.
            python_command("-c", f"from {WORKER} import main; main()", pool, name, n_runs),
            environ=worker_environment(os.environ, settings.state_dir, api_url),
            stdin=asyncio.subprocess.DEVNULL,
        )
        ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await end(stopped)
        if stop.is_set():
            await _drain_worker(process, ended)
            return
        if time.monotonic() - began > STEADY_S:
            pauses.succeeded()
        pause_s = pauses.failed()
        words = "Prefect's worker ended with status %s; restart in %g s"
        log.warning(words, process.returncode, pause_s)
        await wait_for_event(stop, pause_s)


def worker_environment(environ: Mapping[str, str], state_dir: Path, api_url: str) -> dict[str, str]:
    return {
        "PREFECT_WORKER_QUERY_SECONDS": "1",  # a job waits for it; costs the server some 10 ms
        "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",
        "DO_NOT_TRACK": "1",
        **environ,
        # A share without a heartbeat for three times as long is marked as crashed.
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_HOME": str(state_dir / "prefect-worker"),
        "PREFECT_API_URL": api_url,
        "PADDOCK_HOME": str(state_dir),
    }


async def _drain_worker(process: asyncio.subprocess.Process, ended: asyncio.Future[int]) -> None:
    """Drain the worker: it takes no runs, its runs finish their items, then all are killed."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGSTOP)  # it takes no more runs, and leaves its own alone
    runs = list[psutil.Process]()
    with suppress(psutil.Error):  # the children of the worker's fork server
        children = psutil.Process(process.pid).children()
        runs = [run for child in children for run in child.children()]
    if runs:
        log.info("waiting for %d runs to finish their current items", len(runs))
    for number, within_s in ((signal.SIGUSR1, DRAIN_S), (signal.SIGTERM, STOP_S)):
        for run in runs:
            with suppress(psutil.Error):
                run.send_signal(number)
        _, runs = await asyncio.to_thread(psutil.wait_procs, runs, within_s)
    with suppress(ProcessLookupError):
        process.terminate()
        process.send_signal(signal.SIGCONT)
    await asyncio.wait({ended}, timeout=STOP_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await ended
