"""What our own Prefect server keeps of runs: for how long, and that a killed one has ended."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system import http
from paddock.engine.system.process_marks import is_process_alive
from paddock.runner.progress.prefect_view import RUN_TAG

from .prefect_auth import CLIENT_VARIABLE, own_auth_string
from .prefect_client import ask, client_options

if TYPE_CHECKING:
    import httpx

MIN_RETENTION_S = 3601.0  # Prefect accepts nothing below an hour
HEARTBEAT_RETENTION_S = 86_400.0  # two a minute and run: most of the events, useless after the run
_ARRIVES_S = 30.0  # within it, what a run sent at its end has arrived


def retention_settings(keep_s: float) -> dict[str, str]:
    """Return the environment for this retention; by default the server keeps runs for ever."""
    keep_s = max(keep_s, MIN_RETENTION_S)
    heartbeats = f'{{"prefect.flow-run.heartbeat": {min(keep_s, HEARTBEAT_RETENTION_S):.0f}}}'
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"{keep_s:.0f}",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": heartbeats,
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"PT{keep_s:.0f}S",  # an ISO 8601 duration
    }


def own_client(url: str, state_dir: Path) -> httpx.AsyncClient:
    password = {CLIENT_VARIABLE: own_auth_string(state_dir)}
    return http.client(**client_options(url, password), trust_env=False)


async def end_orphans(api_url: str, state_dir: Path) -> None:
    """Show as crashed what no process is at any more, but for runs of `up`, which it starts again.

    These are runs by hand whose process was killed, with their tasks, and tasks of runs that have
    ended, whose own end did not arrive while the server was away.

    Raises:
        HttpFailure, PrefectRefusal: the server does not answer.
    """
    at_work = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    state = {"type": "CRASHED", "name": "Crashed", "message": "Its process was killed."}
    async with own_client(api_url, state_dir) as api:
        by_hand = {"flow_runs": {**at_work, "deployment_id": {"is_null_": True}}}
        for run in await ask(api, "POST", "/flow_runs/filter", by_hand):
            if not (mark := run["infrastructure_pid"]) or is_process_alive(mark):
                continue
            of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}, "task_runs": at_work}
            tasks = await ask(api, "POST", "/task_runs/filter", of_run)
            places = [f"/task_runs/{task['id']}" for task in tasks]
            for place in [*places, f"/flow_runs/{run['id']}"]:
                await ask(api, "POST", f"{place}/set_state", {"state": state, "force": True})
        before = datetime.fromtimestamp(time.time() - _ARRIVES_S, UTC).isoformat()
        ended = {"any_": ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]}
        over = {"end_time": {"before_": before}, "state": {"type": ended}}
        left = {"flow_runs": over | {"tags": {"all_": [RUN_TAG]}}, "task_runs": at_work}
        state["message"] = "Its end did not arrive here; the ledger knows what it did."
        for task in await ask(api, "POST", "/task_runs/filter", left):
            path = f"/task_runs/{task['id']}/set_state"
            await ask(api, "POST", path, {"state": state, "force": True})
