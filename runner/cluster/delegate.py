"""Let the machines of a work pool carry out a pipeline, and wait for the end.

Each share is a flow run that a worker takes; what a share does of the items is decided by claims in
the ledger, so it does not matter how many there are, or which of them die. By plain HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from paddock.runner.border import Border
from paddock.runner.report import Report
from paddock.runner.tracking import TrackingError

from .shares import Begin, Over, Share, decide

ENTRYPOINT = "paddock.runner.deployed.run_pipeline"
TAG = "paddock-share"
ANSWER_S = 30.0
LOOK_S = 1.0
AWAY_S = 300.0  # Prefect's server may restart; the shares go on meanwhile
LEAVE_S = 60.0

_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


@dataclass(frozen=True, slots=True)
class Job:
    """What the machines are asked to do together."""

    name: str
    """Of all its shares; each starts with the same."""
    path: Path
    inputs: Mapping[str, Any]
    work_pool: str
    trigger: str = "hand"
    retry_failed: bool = False
    n_shares: int | None = None
    max_restarts: int = 3


@dataclass
class _Made:
    """The shares that were asked for."""

    shares: list[Share] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)


async def delegated(
    job: Job,
    api_url: str,
    *,
    stop: asyncio.Event,
    border: Border | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Report:
    """Have a job done and tell how it ended; when `stop` is set, its shares are told to stop.

    Raises:
        TrackingError: Prefect's API cannot be used.
    """
    async with httpx.AsyncClient(base_url=api_url.rstrip("/"), timeout=ANSWER_S) as api:
        desk = _Desk(api, job, note)
        await desk.deploy()
        ending = asyncio.create_task(_asked_to_end(stop, border))
        try:
            over = await desk.carry_out(ending)
        finally:
            ending.cancel()
    return Report("", job.path.name, over.status, {}, message=over.message or None)


async def _asked_to_end(stop: asyncio.Event, border: Border | None) -> None:
    waits: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
    if border is not None:
        waits.append(asyncio.create_task(border.wait()))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class _Desk:
    """Asks Prefect for shares and looks what became of them."""

    def __init__(self, api: httpx.AsyncClient, job: Job, note: Callable[[str], None]) -> None:
        self._api = api
        self._job = job
        self._note = note
        self._made = _Made()
        self._deployment = ""
        self._began = time.monotonic()
        self._answered = time.monotonic()

    async def deploy(self) -> None:
        """Make the deployment of this file for the work pool, or find it."""
        path = str(self._job.path)
        digest = hashlib.sha256(path.encode()).hexdigest()[:6]
        flow = await self._post("/flows/", {"name": "paddock-shares"})
        body = {
            "name": f"{self._job.path.parent.name} {self._job.path.name} {digest}",
            "flow_id": flow["id"],
            "entrypoint": ENTRYPOINT,
            "work_pool_name": self._job.work_pool,
            "parameters": {"path": path},
            "enforce_parameter_schema": False,
            "tags": [TAG],
        }
        self._deployment = (await self._post("/deployments/", body))["id"]

    async def carry_out(self, ending: asyncio.Task[None]) -> Over:
        """Look after the shares until the job is over."""
        while not ending.done():
            try:
                over = await self._once()
            except (httpx.HTTPError, ValueError) as error:
                self._still_patient(error)
            else:
                self._answered = time.monotonic()
                if over is not None:
                    return over
            await asyncio.wait({ending}, timeout=LOOK_S)
        await self._leave()
        return Over("interrupted", "Interrupted; the same command continues.")

    async def _once(self) -> Over | None:
        await self._look()
        elapsed_s = time.monotonic() - self._began
        decided = decide(
            self._made.shares,
            n_wanted=self._job.n_shares,
            n_online=await self._n_online(),
            elapsed_s=elapsed_s,
            max_restarts=self._job.max_restarts,
        )
        if isinstance(decided, Over):
            return decided
        for begin in decided:
            due = self._made.due.setdefault(begin.instead_of, elapsed_s + begin.pause_s)
            if not begin.instead_of or elapsed_s >= due:
                await self._begin(begin)
        return None

    def _still_patient(self, error: Exception) -> None:
        """Let Prefect be away for a while; the machines at work do not need it.

        Raises:
            TrackingError: for too long.
        """
        if time.monotonic() - self._answered > AWAY_S:
            raise TrackingError(
                f"Prefect's API went away ({error or type(error).__name__}). What the machines are "
                f"doing goes on; the same command looks for them again."
            ) from error
        self._note("Prefect's API does not answer; waiting for it")

    async def _begin(self, begin: Begin) -> None:
        job = self._job
        body = {
            "name": f"{job.name} {begin.number}",
            "parameters": {
                "path": str(job.path),
                "inputs": dict(job.inputs),
                "trigger": job.trigger,
                "attempt": begin.attempt,
                "retry_failed": job.retry_failed,
                "share": begin.number,
                "parent": begin.instead_of,
                "job": job.name,
            },
            "state": {"type": "SCHEDULED"},
            "tags": [TAG],
            "idempotency_key": (
                f"{begin.instead_of}:again" if begin.instead_of else f"{job.name}:{begin.number}"
            ),
        }
        made = await self._post(f"/deployments/{self._deployment}/create_flow_run", body)
        if begin.instead_of:
            self._note(f"share {begin.number} is started again (attempt {begin.attempt})")
        self._made.shares.append(Share(made["id"], begin.number, begin.attempt, "waiting"))

    async def _look(self) -> None:
        """Read every share that has not ended yet."""
        looked = []
        for share in self._made.shares:
            if share.phase == "ended":
                looked.append(share)
                continue
            answer = await self._api.get(f"/flow_runs/{share.id}")
            if answer.status_code == httpx.codes.NOT_FOUND:  # somebody deleted it
                looked.append(Share(share.id, share.number, share.attempt, "ended", "Cancelled"))
                continue
            looked.append(_share(share, answer.raise_for_status().json()))
        self._made.shares = looked

    async def _n_online(self) -> int:
        answer = await self._api.post(f"/work_pools/{self._job.work_pool}/workers/filter", json={})
        workers = answer.raise_for_status().json()
        n_online = len([worker for worker in workers if worker.get("status") == "ONLINE"])
        if not n_online and all(share.phase == "waiting" for share in self._made.shares):
            self._note(f"no worker of '{self._job.work_pool}' is online; waiting for one")
        return n_online

    async def _leave(self) -> None:
        """Tell the shares to stop, and wait until they have, in bounded time."""
        deadline = time.monotonic() + LEAVE_S
        for share in self._made.shares:
            if share.phase != "ended":
                kind = "CANCELLED" if share.phase == "waiting" else "CANCELLING"
                wish = {"state": {"type": kind}, "force": False}
                await self._api.post(f"/flow_runs/{share.id}/set_state", json=wish)
        while time.monotonic() < deadline:
            await self._look()
            if all(share.phase == "ended" for share in self._made.shares):
                return
            await asyncio.sleep(LOOK_S)

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Ask for something to be made.

        Raises:
            TrackingError: Prefect does not know the work pool, or refuses.
        """
        answer = await self._api.post(path, json=body)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise TrackingError(
                f"Prefect knows no work pool '{self._job.work_pool}'. "
                f"Make it with `paddock cluster init`."
            )
        if answer.is_client_error:
            raise TrackingError(f"Prefect's API refuses {path}: {answer.text[:300]}")
        return dict(answer.raise_for_status().json())


def _share(share: Share, run: Mapping[str, Any]) -> Share:
    state = run.get("state") or {}
    kind = str(state.get("type") or "")
    phase: Any = "ended" if kind in _ENDED else "waiting" if kind == "SCHEDULED" else "running"
    return Share(
        share.id,
        share.number,
        share.attempt,
        phase,
        str(state.get("name") or ""),
        str(state.get("message") or ""),
    )
