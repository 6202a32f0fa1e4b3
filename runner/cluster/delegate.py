"""Let the machines of a work pool carry out a pipeline, and wait for the end.

Each share is a flow run that a worker takes; what a share does of the items is decided by claims in
the ledger, so it does not matter how many there are, or which of them die. Who asks for them may
die, too: the shares are found again by the job's name. By plain HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from paddock.runner.border import Border
from paddock.runner.report import Report
from paddock.runner.signing import Signer
from paddock.runner.tracking import TrackingError

from .shares import Begin, Over, Share, decide

ENTRYPOINT = "paddock.runner.deployed.run_pipeline"
TAG = "paddock-share"
ANSWER_S = 30.0
LOOK_S = 1.0
AWAY_S = 300.0  # Prefect's server may restart; the shares go on meanwhile
LEAVE_S = 60.0
MOST_FOUND = 200

_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


@dataclass(frozen=True, slots=True)
class Job:
    """What the machines are asked to do together."""

    name: str
    """Of all its shares; each starts with the same, and those of a job taken up again are found."""
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
    signer: Signer,
    headers: Mapping[str, str],
    *,
    stop: asyncio.Event,
    border: Border | None = None,
    is_passed_on: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] = lambda _: None,
) -> Report:
    """Have a job done and tell how it ended; when `stop` is set, its shares are told to stop.

    Unless `is_passed_on` says that somebody else takes the job up soon: then they go on. `note` is
    told what it waits for, and nothing in words when machines are at work. `headers` are those that
    Prefect's API asks for, as from `prefect_auth`.

    Raises:
        TrackingError: Prefect's API cannot be used.
    """
    async with httpx.AsyncClient(
        base_url=api_url.rstrip("/"), headers=dict(headers), timeout=ANSWER_S
    ) as api:
        desk = _Desk(api, signer, job, note)
        ending = asyncio.create_task(_asked_to_end(stop, border))
        try:
            over = await desk.carry_out(ending)
            if over is None and is_passed_on():
                over = Over("interrupted", "The machines go on with it by themselves.")
            elif over is None:
                await desk.leave()
                over = Over("interrupted", "Interrupted; the same command continues.")
        finally:
            ending.cancel()
    return Report(job.name, job.path.name, over.status, {}, message=over.message or None)


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

    def __init__(
        self, api: httpx.AsyncClient, signer: Signer, job: Job, note: Callable[[str], None]
    ) -> None:
        self._api = api
        self._signer = signer
        self._job = job
        self._note = note
        self._made = _Made()
        self._deployment = ""
        self._own = uuid4().hex
        self._began = time.monotonic()
        self._answered = time.monotonic()

    async def _take_up(self) -> None:
        """Make the deployment of this file for the work pool, or find it, and the job's shares."""
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
        deployment = (await self._post("/deployments/", body))["id"]
        wanted = {
            "flow_runs": {"tags": {"all_": [TAG, self._job.name]}},
            "sort": "EXPECTED_START_TIME_ASC",
            "limit": MOST_FOUND,
        }
        found = await self._api.post("/flow_runs/filter", json=wanted)
        shares = [
            share
            for run in found.raise_for_status().json()
            if self._is_signed(run) and (share := _found(run))
        ]
        self._made.shares, self._deployment = shares, deployment
        if shares:
            self._note("its shares are there already; looking after them")

    def _is_signed(self, run: Mapping[str, Any]) -> bool:
        """Return whether a share was asked for by us: anyone may give a run the job's tag."""
        parameters, key = run.get("parameters") or {}, str(run.get("idempotency_key") or "")
        return self._signer.has_signed(parameters, key)

    async def carry_out(self, ending: asyncio.Task[None]) -> Over | None:
        """Look after the shares until the job is over; None: asked to end before."""
        while not ending.done():
            try:
                over = await self._once()
            except (httpx.HTTPError, ValueError) as error:
                self._still_patient(error)
            else:
                self._answered = time.monotonic()
                if over is not None:
                    await self._take_back("The job was done before this one began.")
                    return over
            await asyncio.wait({ending}, timeout=LOOK_S)
        return None

    async def _once(self) -> Over | None:
        if not self._deployment:
            await self._take_up()
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
        key = f"{begin.instead_of}:again" if begin.instead_of else f"{self._own}:{begin.number}"
        parameters = {
            "path": str(job.path),
            "inputs": dict(job.inputs),
            "trigger": job.trigger,
            "attempt": begin.attempt,
            "retry_failed": job.retry_failed,
            "share": begin.number,
            "parent": begin.instead_of,
            "job": job.name,
        }
        body = {
            "name": f"{job.name} {begin.number}",
            "parameters": self._signer.signed(parameters, key),
            "state": {"type": "SCHEDULED"},
            "tags": [TAG, job.name],
            "idempotency_key": key,
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
            if looked[-1].phase == "ended" and looked[-1].state == "Failed":
                self._note(f"share {share.number} failed: {looked[-1].message}")
        self._made.shares = looked

    async def _n_online(self) -> int:
        answer = await self._api.post(f"/work_pools/{self._job.work_pool}/workers/filter", json={})
        workers = answer.raise_for_status().json()
        n_online = len([worker for worker in workers if worker.get("status") == "ONLINE"])
        if not n_online and all(share.phase == "waiting" for share in self._made.shares):
            self._note(f"no worker of '{self._job.work_pool}' is online; waiting for one")
        elif any(share.phase == "running" for share in self._made.shares):
            self._note("")
        return n_online

    async def leave(self) -> None:
        """Tell the shares to stop, and wait until they have, in bounded time."""
        deadline = time.monotonic() + LEAVE_S
        with suppress(httpx.HTTPError, ValueError):  # then they go on to their end
            await self._look()
            await self._take_back("Interrupted before it began.")
            for share in self._made.shares:
                if share.phase == "running":
                    await self._set(share, "CANCELLING", "It was told to stop.")
            while time.monotonic() < deadline:
                await self._look()
                if all(share.phase == "ended" for share in self._made.shares):
                    return
                await asyncio.sleep(LOOK_S)

    async def _take_back(self, words: str) -> None:
        """Take back what no worker has begun."""
        with suppress(httpx.HTTPError):  # then it finds everything done
            for share in self._made.shares:
                if share.phase == "waiting":
                    await self._set(share, "CANCELLED", words)

    async def _set(self, share: Share, kind: str, words: str) -> None:
        wish = {"state": {"type": kind, "message": words}, "force": False}
        await self._api.post(f"/flow_runs/{share.id}/set_state", json=wish)

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


def _found(run: Mapping[str, Any]) -> Share | None:
    """Give a share that was asked for before; None: it has ended, or is to, and done no job."""
    facts, kind = run.get("parameters") or {}, (run.get("state") or {}).get("type")
    number, attempt = int(facts.get("share") or 0), int(facts.get("attempt") or 1)
    share = _share(Share(str(run["id"]), number, attempt, "waiting"), run)
    is_of_use = number > 0 and kind != "CANCELLING" and (share.phase != "ended" or share.is_done)
    return share if is_of_use else None


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
