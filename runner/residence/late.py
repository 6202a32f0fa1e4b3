"""Show runs in Prefect that ended while its server was not there: nobody has to wait for it."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from typing import Any

from .leases import Leases
from .prefect_server import PrefectServer

ANSWER_S = 30.0
READY_S = 600.0
PAUSES_S = (
    1.0,
    4.0,
    15.0,
    60.0,
)  # a server that has just started, or has much to do, refuses now and then
MOST_WAITING = 100
_RUNNING = {"type": "RUNNING", "name": "Running"}

log = logging.getLogger(__name__)


class LateRuns:
    """Takes runs, and shows them one after the other once Prefect answers."""

    def __init__(self, server: PrefectServer, leases: Leases) -> None:
        self._server = server
        self._leases = leases
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, past: dict[str, Any]) -> bool:
        """Take a run to be shown; False: too many wait already."""
        if len(self._tasks) >= MOST_WAITING:
            return False
        task = asyncio.create_task(self._shown(past))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def close(self) -> None:
        """Give up what waits."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _shown(self, past: dict[str, Any]) -> None:
        with self._leases.request():  # the service stays until it is done
            for pause_s in (0.0, *PAUSES_S):
                await asyncio.sleep(pause_s)
                error = await self._refused(past)
                if error is None:
                    return
        log.warning("Prefect does not show run %s: %s", past.get("run"), error)

    async def _refused(self, past: dict[str, Any]) -> Exception | None:
        """Show a run; gives what kept it from being shown, None if nothing did."""
        import httpx

        told = await self._server.ready(READY_S)
        try:
            async with httpx.AsyncClient(
                base_url=told.url, timeout=ANSWER_S, trust_env=False
            ) as client:
                await _show(client, past)
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
            return error
        return None


async def _show(client: Any, past: dict[str, Any]) -> None:
    """Make the flow run, if there is none yet, give it its last state, and its table."""

    async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = (await client.post(f"{client.base_url}{path}", json=body)).raise_for_status()
        said = answer.json()
        return said if isinstance(said, dict) else {}

    # Prefect dates states itself.
    when = f"It ran from {_when(past['began'])} to {_when(past['ended'])}."
    outcome = {**past["outcome"], "message": f"{past['outcome']['message']}. {when}"}
    run = past.get("flow_run")
    if not run:
        flow = await post("flows/", {"name": past["pipeline"]})
        about = {"name": past["run"], "parameters": past["parameters"]}
        about["idempotency_key"] = past["run"]  # another try finds the one that was made
        run = (await post("flow_runs/", {**about, "flow_id": flow["id"]}))["id"]
        await post(f"flow_runs/{run}/set_state", {"state": _RUNNING, "force": True})
    await post(f"flow_runs/{run}/set_state", {"state": outcome, "force": True})
    artefact = {
        "key": past["key"],
        "type": "table",
        "description": past["description"],
        "data": json.dumps(past["rows"]),
        "flow_run_id": run,
    }
    await post("artifacts/", artefact)


def _when(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(" ", "seconds")
