"""Prefect's API as a cluster needs it: a work pool, and what tells of runs whose machine died.

By plain HTTP, since importing Prefect takes a second; knows no runs.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from paddock.runner.prefect_auth import headers_from

from .findings import Finding

ANSWER_S = 15.0
HEARTBEAT_S = 30
SILENT_S = 90
CLOCK_S = 5.0
N_LOOKS = 3
ZOMBIES = "Paddock: a run whose machine is silent has crashed"
_NEEDED = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": 200,
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": 200,
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": 500,
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": 200,
}


async def look(api_url: str, work_pool: str) -> list[Finding]:
    """Look at Prefect's server; makes the work pool and the automation where they lack."""
    if not api_url:
        words = "no API is named, so there is nothing from which workers could take runs."
        remedy = "Set PREFECT_API_URL=http://host:4200/api on every machine."
        return [Finding("Prefect", "wrong", words, remedy)]
    url = api_url.rstrip("/")
    try:
        async with httpx.AsyncClient(
            base_url=url, headers=headers_from(os.environ), timeout=ANSWER_S
        ) as api:
            version = await api.get("/admin/version")
            if version.status_code == httpx.codes.UNAUTHORIZED:
                words = f"its API at {url} asks for a password."
                remedy = "Set PREFECT_API_AUTH_STRING=user:password on every machine."
                return [Finding("Prefect", "wrong", words, remedy)]
            version.raise_for_status()
            return [
                Finding("Prefect", "ok", f"version {version.json()} at {url}"),
                *await _clock(api),
                *await _settings(api),
                await _pool(api, work_pool),
                await _automation(api),
            ]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        words = f"its API at {url} cannot be used ({error or type(error).__name__})."
        remedy = "Start it with `prefect server start --host 0.0.0.0`, or correct PREFECT_API_URL."
        return [Finding("Prefect", "wrong", words, remedy)]


async def _clock(api: httpx.AsyncClient) -> list[Finding]:
    """Compare this machine's clock with the server's, which may be late to tell it when busy."""
    off_s = [await _off_s(api) for _ in range(N_LOOKS)]
    if min(off_s) <= CLOCK_S:
        return []
    words = f"{min(off_s):.0f} s from this machine's; {CLOCK_S:g} s are allowed"
    remedy = "Set both clocks by NTP (systemd-timesyncd)."
    return [Finding("Prefect's clock", "wrong", words, remedy)]


async def _off_s(api: httpx.AsyncClient) -> float:
    """Tell by how many seconds the server's clock was surely off while it answered."""
    before = datetime.now(UTC)
    answer = await api.get("/health")
    after = datetime.now(UTC)
    told = answer.headers.get("date")
    if not told:
        return 0.0
    theirs = parsedate_to_datetime(told)
    return max(0.0, (before - theirs).total_seconds(), (theirs - after).total_seconds())


async def _settings(api: httpx.AsyncClient) -> list[Finding]:
    """Look at what a task costs the server: 15 to 18 ms of its processor as it comes, 4 to 5 so."""
    answer = await api.get("/admin/settings")
    if answer.status_code != httpx.codes.OK:
        return []
    services = answer.json().get("server", {}).get("services", {})
    found = {
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": ("task_run_recorder", "batch_size"),
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": (
            "task_run_recorder",
            "read_batch_size",
        ),
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": ("event_persister", "batch_size"),
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": (
            "event_persister",
            "read_batch_size",
        ),
    }
    small = {
        name: least for name, least in _NEEDED.items() if _number(services, *found[name]) < least
    }
    if not small:
        return [Finding("Prefect's settings", "ok", "tuned for many tasks")]
    wanted = " ".join(f"{name}={least}" for name, least in small.items())
    words = "each task costs its server about four times what it needs to"
    return [Finding("Prefect's settings", "warning", words, f"Start it with: {wanted}")]


def _number(services: dict[str, Any], service: str, name: str) -> int:
    value = (services.get(service) or {}).get(name)
    return value if isinstance(value, int) else 1_000_000  # another version, with other names


async def _pool(api: httpx.AsyncClient, name: str) -> Finding:
    if not name:
        words = "none is named."
        return Finding("work pool", "wrong", words, "Set PADDOCK_WORK_POOL=paddock.")
    there = await api.get(f"/work_pools/{name}")
    if there.status_code == httpx.codes.OK:
        kind, is_paused = there.json().get("type"), there.json().get("is_paused")
        if kind != "process":
            words = f"'{name}' is of type '{kind}'; workers of Paddock need type 'process'."
            return Finding("work pool", "wrong", words, "Set PADDOCK_WORK_POOL to another name.")
        if is_paused:
            remedy = f"prefect work-pool resume {name}"
            return Finding("work pool", "warning", f"'{name}' is paused", remedy)
        return Finding("work pool", "ok", f"'{name}'{await _workers(api, name)}")
    made = await api.post("/work_pools/", json={"name": name, "type": "process"})
    made.raise_for_status()
    return Finding("work pool", "made", f"'{name}'")


async def _workers(api: httpx.AsyncClient, name: str) -> str:
    answer = await api.post(f"/work_pools/{name}/workers/filter", json={})
    if answer.status_code != httpx.codes.OK:
        return ""
    online = [worker["name"] for worker in answer.json() if worker.get("status") == "ONLINE"]
    return f", workers online: {', '.join(sorted(online)) or 'none'}"


async def _automation(api: httpx.AsyncClient) -> Finding:
    """Make what marks a run as crashed of which nothing was heard for too long."""
    wish = {"automations": {"name": {"any_": [ZOMBIES]}}}
    there = await api.post("/automations/filter", json=wish)
    there.raise_for_status()
    words = f"a run that was silent for {SILENT_S} s is marked as crashed"
    if any(one.get("name") == ZOMBIES for one in there.json()):
        return Finding("lost machines", "ok", words)
    made = await api.post("/automations/", json=_zombies())
    made.raise_for_status()
    return Finding("lost machines", "made", words)


def _zombies() -> dict[str, Any]:
    ends = ("Completed", "Failed", "Cancelled", "Crashed", "Skipped")
    return {
        "name": ZOMBIES,
        "description": "Made by `paddock cluster init`.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
            "for_each": ["prefect.resource.id"],
            "after": ["prefect.flow-run.heartbeat"],
            "expect": [
                "prefect.flow-run.heartbeat",
                *(f"prefect.flow-run.{state}" for state in ends),
            ],
            "posture": "Proactive",
            "threshold": 1,
            "within": SILENT_S,
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "name": "Crashed",
                "message": f"Nothing was heard of it for {SILENT_S} s; its machine is lost.",
            }
        ],
    }
