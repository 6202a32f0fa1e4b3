"""Retention in Prefect's server, which by default keeps flow runs for ever.

Settings that make the server remove old runs and events, and removal on request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from paddock.engine.system import http

if TYPE_CHECKING:
    import httpx

MIN_RETENTION_S = 3601.0  # Prefect accepts nothing below an hour
HEARTBEAT_RETENTION_S = 86_400.0  # two a minute and run: most of the events, useless after the run
BATCH_SIZE = 200
BUSY_TRIES = 20  # 503: its database is locked for a moment; Prefect's own client retries, too
BUSY_WAIT_S = 1.0


def retention_settings(keep_s: float) -> dict[str, str]:
    """Return the server's environment for this retention."""
    keep_s = max(keep_s, MIN_RETENTION_S)
    heartbeats = f'{{"prefect.flow-run.heartbeat": {min(keep_s, HEARTBEAT_RETENTION_S):.0f}}}'
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"{keep_s:.0f}",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_EVENT_RETENTION_OVERRIDES": heartbeats,
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"PT{keep_s:.0f}S",  # an ISO 8601 duration
    }


def delete_old_runs(
    api_url: str, before: float, headers: Mapping[str, str], *, is_dry: bool = False
) -> int:
    """Delete the runs that ended before a time from our own server; return their number.

    The server removes their logs and artefacts within a day.

    Raises:
        OSError: the server does not answer.
    """
    import httpx

    try:
        with http.blocking_client(api_url.rstrip("/"), headers=headers, trust_env=False) as client:
            if is_dry:
                counted = _request(client, "POST", "/flow_runs/count", json=_ended_before(before))
                return int(counted.raise_for_status().json())
            return sum(iter(lambda: _delete_batch(client, before), 0))
    except (httpx.HTTPError, ValueError) as error:
        raise OSError(None, f"Prefect's server does not answer ({error})", api_url) from error


def _delete_batch(client: httpx.Client, before: float) -> int:
    """Delete one batch and return its size; 0 if no run is left."""
    query = {**_ended_before(before), "limit": BATCH_SIZE, "sort": "END_TIME_DESC"}
    found = _request(client, "POST", "/flow_runs/filter", json=query).raise_for_status().json()
    for run in found:
        answer = _request(client, "DELETE", f"/flow_runs/{run['id']}")
        if answer.status_code not in (204, 404):
            answer.raise_for_status()
    return len(found)


def _request(client: httpx.Client, method: str, path: str, **asked: Any) -> httpx.Response:
    """Send a request; retry at most `BUSY_TRIES` times while the server's database is busy."""
    for _ in range(BUSY_TRIES - 1):
        answer = client.request(method, path, **asked)
        if answer.status_code != 503:
            return answer
        time.sleep(BUSY_WAIT_S)
    return client.request(method, path, **asked)


def _ended_before(before: float) -> dict[str, Any]:
    at = datetime.fromtimestamp(before, UTC).isoformat()
    ended = ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"]
    return {"flow_runs": {"end_time": {"before_": at}, "state": {"type": {"any_": ended}}}}
