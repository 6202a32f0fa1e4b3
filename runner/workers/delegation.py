"""Delegate a pipeline to the machines of a work pool, and wait for the end.

A job has shares; each is a flow run that some worker takes. Claims in the ledger decide which
items a share does, so their number does not matter, nor which of them die. The process that
delegates may die too: shares are found again by the job's name. `decide_shares` is pure.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import httpx

from paddock.engine.errors import EngineError
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.bind import bind, read_plan
from paddock.runner.bind.permissions import NotPermitted
from paddock.runner.core.retry_and_quarantine import next_restart
from paddock.runner.daemon.prefect_auth import Signer
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.prefect.run_tracking import TrackingError
from paddock.runner.progress.drain import STOP_REQUESTED, StopGate
from paddock.runner.progress.report import Report
from paddock.runner.settings import Settings
from paddock.steps.base import StepError

REPORTED_ERRORS = (EngineError, LedgerError, PipelineError, StepError)
"""Errors with a message for people; others are shown with their traceback."""


def failure_message(error: Exception, machine: str) -> str:
    """Return what failed, and on which machine."""
    if isinstance(error, NotPermitted):
        return _not_allowed(error, machine)
    return f"on {machine}: {error}"


def _not_allowed(error: NotPermitted, machine: str) -> str:
    wants = "; ".join(dict.fromkeys(f"{need.what} ('{need.name}')" for need in error.needs))
    names = error.names
    return (
        f"The worker on {machine} does not allow what the pipeline wants to do: {wants}. Each "
        f"machine allows for itself: start `paddock worker --allow {names}` there, or write "
        f'`allow = "{names}"` into its ~/.config/paddock/paddock.toml.'
    )


def absolute_inputs(file: Path, inputs: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Check the inputs of a pipeline; return them with absolute paths.

    Raises:
        PipelineError: the YAML or an input is wrong.
    """
    bound = bind(read_plan(file), inputs, cwd=Path.cwd(), default_models=settings.default_models)
    places = {name for name, kind in bound.input_types.items() if kind in ("dir", "path")}
    return {
        name: str(bound.inputs[name]) if name in places else value for name, value in inputs.items()
    }


HELP_AFTER_S = 10.0
"""For this long a job stays on one machine: a share costs 4 s of processor time to begin."""

MOST_SHARES = 32

SharePhase = Literal["waiting", "running", "ended"]


@dataclass(frozen=True, slots=True)
class JobShare:
    """One flow run of a job in Prefect."""

    id: str
    number: int
    attempt: int
    phase: SharePhase
    state: str = ""
    """The name of its state."""
    message: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it has finished the whole plan: then the job is done."""
        return self.phase == "ended" and self.state in ("Completed", "Quarantined")

    @property
    def is_spent(self) -> bool:
        """Whether it stopped because the budget is used up."""
        is_border = self.phase == "ended" and self.state == "Budget"
        return is_border and not self.was_sent_away

    @property
    def was_sent_away(self) -> bool:
        """Whether its worker was stopped, which says nothing about the job."""
        return self.phase == "ended" and (
            self.message.startswith(STOP_REQUESTED)
            or (self.state == "Cancelled" and self._was_interrupted)
        )

    @property
    def _was_interrupted(self) -> bool:
        return self.message.startswith("Interrupted")


@dataclass(frozen=True, slots=True)
class StartShare:
    """Start a share."""

    number: int
    attempt: int
    instead_of: str
    """The flow run that it continues; empty for a new one."""
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JobEnd:
    """The job is over."""

    status: Literal["completed", "failed", "budget", "interrupted"]
    message: str


def decide_shares(
    shares: Sequence[JobShare],
    *,
    n_wanted: int | None,
    n_online: int,
    elapsed_s: float,
    max_restarts: int,
) -> JobEnd | list[StartShare]:
    """Return what to do about a job: it is over, or these shares must start.

    `n_wanted` is the number of machines, None for all that are online once the job has run for a
    while.
    """
    latest = _latest_attempts(shares)
    done = next((share for share in latest if share.is_done), None)
    if done is not None:
        return JobEnd("completed", done.message)
    begins: list[StartShare] = []
    is_alive = False
    for share in latest:
        if share.phase != "ended":
            is_alive = True
            continue
        next_ = _next_attempt(share, max_restarts)
        if next_ is not None:
            begins.append(next_)
    n = n_wanted or (1 if elapsed_s < HELP_AFTER_S else max(1, min(n_online, MOST_SHARES)))
    if any(share.is_spent for share in latest):  # all shares have one budget
        return [] if is_alive else _job_end(latest)
    there = {share.number for share in latest}
    begins += [StartShare(number, 1, "") for number in range(1, n + 1) if number not in there]
    if is_alive or (begins and not _has_job_failed(latest)):
        return begins
    return _job_end(latest)


def _latest_attempts(shares: Sequence[JobShare]) -> list[JobShare]:
    """Return each share's last attempt, by number."""
    found: dict[int, JobShare] = {}
    for share in shares:
        found[share.number] = share
    return [found[number] for number in sorted(found)]


def _next_attempt(share: JobShare, max_restarts: int) -> StartShare | None:
    if share.was_sent_away:
        return StartShare(share.number, share.attempt, share.id)
    if share.state != "Crashed":
        return None
    once_more = next_restart(share.attempt, max_restarts)
    if once_more is None:
        return None
    return StartShare(share.number, once_more.attempt, share.id, once_more.pause_s)


def _has_job_failed(shares: Sequence[JobShare]) -> bool:
    return any(share.phase == "ended" and share.state == "Failed" for share in shares)


def _job_end(shares: Sequence[JobShare]) -> JobEnd:
    for state, status in (("Failed", "failed"), ("Budget", "budget"), ("Cancelled", "interrupted")):
        for share in shares:
            if share.state == state:
                return JobEnd(status, share.message)  # type: ignore[arg-type]
    crashed = shares[0]
    return JobEnd("failed", f"it crashed {crashed.attempt} times: {crashed.message}")


ENTRYPOINT = "paddock.runner.workers.deployed_flow.run_pipeline"
SHARE_TAG = "paddock-share"
ANSWER_S = 30.0
LOOK_S = 1.0
AWAY_S = 300.0  # Prefect's server may restart; the shares continue meanwhile
LEAVE_S = 60.0
MOST_FOUND = 200

_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


@dataclass(frozen=True, slots=True)
class SharedJob:
    """A job for several machines."""

    name: str
    """Of all its shares; the same name finds the shares of an earlier attempt."""
    path: Path
    inputs: Mapping[str, Any]
    work_pool: str
    trigger: str = "hand"
    retry_failed: bool = False
    n_shares: int | None = None
    max_restarts: int = 3


@dataclass
class _AskedShares:
    """The shares that were started."""

    shares: list[JobShare] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)


async def delegate_job(
    job: SharedJob,
    api_url: str,
    signer: Signer,
    headers: Mapping[str, str],
    *,
    stop: asyncio.Event,
    stop_gate: StopGate | None = None,
    is_handed_over: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] = lambda _: None,
) -> Report:
    """Carry out a job and return its report; when `stop` is set, stop its shares.

    They continue if `is_handed_over` returns that another process takes over the job. `note` gets
    what the job waits for, and an empty text when machines are at work. `headers` authenticate to
    Prefect's API, as from `prefect_auth`.

    Raises:
        TrackingError: Prefect's API cannot be used.
    """
    async with httpx.AsyncClient(
        base_url=api_url.rstrip("/"), headers=dict(headers), timeout=ANSWER_S
    ) as api:
        desk = _Delegation(api, signer, job, note)
        ending = asyncio.create_task(_wait_for_stop(stop, stop_gate))
        try:
            over = await desk.carry_out(ending)
            if over is None and is_handed_over():
                over = JobEnd("interrupted", "The machines continue it by themselves.")
            elif over is None:
                await desk.leave()
                over = JobEnd("interrupted", "Interrupted; the same command continues.")
        finally:
            ending.cancel()
    return Report(job.name, job.path.name, over.status, {}, message=over.message or None)


async def _wait_for_stop(stop: asyncio.Event, stop_gate: StopGate | None) -> None:
    waits: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
    if stop_gate is not None:
        waits.append(asyncio.create_task(stop_gate.wait()))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class _Delegation:
    """Starts shares in Prefect and follows them."""

    def __init__(
        self, api: httpx.AsyncClient, signer: Signer, job: SharedJob, note: Callable[[str], None]
    ) -> None:
        self._api = api
        self._signer = signer
        self._job = job
        self._note = note
        self._made = _AskedShares()
        self._deployment = ""
        self._own = uuid4().hex
        self._began = time.monotonic()
        self._answered = time.monotonic()

    async def _take_up(self) -> None:
        """Find or make the deployment of this file, and find the job's shares."""
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
            "tags": [SHARE_TAG],
        }
        deployment = (await self._post("/deployments/", body))["id"]
        wanted = {
            "flow_runs": {"tags": {"all_": [SHARE_TAG, self._job.name]}},
            "sort": "EXPECTED_START_TIME_ASC",
            "limit": MOST_FOUND,
        }
        found = await self._api.post("/flow_runs/filter", json=wanted)
        shares = [
            share
            for run in found.raise_for_status().json()
            if self._is_signed(run) and (share := _share_found(run))
        ]
        self._made.shares, self._deployment = shares, deployment
        if shares:
            self._note("its shares exist already; following them")

    def _is_signed(self, run: Mapping[str, Any]) -> bool:
        """Return whether we started a share: anyone may give a run the job's tag."""
        parameters, key = run.get("parameters") or {}, str(run.get("idempotency_key") or "")
        return self._signer.has_signed(parameters, key)

    async def carry_out(self, ending: asyncio.Task[None]) -> JobEnd | None:
        """Follow the shares until the job is over; return None when stopped first."""
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

    async def _once(self) -> JobEnd | None:
        if not self._deployment:
            await self._take_up()
        await self._look()
        elapsed_s = time.monotonic() - self._began
        decided = decide_shares(
            self._made.shares,
            n_wanted=self._job.n_shares,
            n_online=await self._n_online(),
            elapsed_s=elapsed_s,
            max_restarts=self._job.max_restarts,
        )
        if isinstance(decided, JobEnd):
            return decided
        for begin in decided:
            due = self._made.due.setdefault(begin.instead_of, elapsed_s + begin.pause_s)
            if not begin.instead_of or elapsed_s >= due:
                await self._begin(begin)
        return None

    def _still_patient(self, error: Exception) -> None:
        """Tolerate a while without Prefect; the machines at work do not need it.

        Raises:
            TrackingError: it is away for too long.
        """
        if time.monotonic() - self._answered > AWAY_S:
            raise TrackingError(
                f"Prefect's API went away ({error or type(error).__name__}). What the machines are "
                f"doing continues; the same command finds them again."
            ) from error
        self._note("Prefect's API does not answer; waiting for it")

    async def _begin(self, begin: StartShare) -> None:
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
            "tags": [SHARE_TAG, job.name],
            "idempotency_key": key,
        }
        made = await self._post(f"/deployments/{self._deployment}/create_flow_run", body)
        if begin.instead_of:
            self._note(f"share {begin.number} restarts (attempt {begin.attempt})")
        self._made.shares.append(JobShare(made["id"], begin.number, begin.attempt, "waiting"))

    async def _look(self) -> None:
        """Read every share that has not ended yet."""
        looked = []
        for share in self._made.shares:
            if share.phase == "ended":
                looked.append(share)
                continue
            answer = await self._api.get(f"/flow_runs/{share.id}")
            if answer.status_code == httpx.codes.NOT_FOUND:  # it was deleted
                looked.append(JobShare(share.id, share.number, share.attempt, "ended", "Cancelled"))
                continue
            looked.append(_share_of_run(share, answer.raise_for_status().json()))
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
        """Stop the shares, and wait for them in bounded time."""
        deadline = time.monotonic() + LEAVE_S
        with suppress(httpx.HTTPError, ValueError):  # otherwise they continue to their end
            await self._look()
            await self._take_back("Interrupted before it began.")
            for share in self._made.shares:
                if share.phase == "running":
                    await self._set(share, "CANCELLING", "It was asked to stop.")
            while time.monotonic() < deadline:
                await self._look()
                if all(share.phase == "ended" for share in self._made.shares):
                    return
                await asyncio.sleep(LOOK_S)

    async def _take_back(self, words: str) -> None:
        """Cancel shares that no worker has begun."""
        with suppress(httpx.HTTPError):  # otherwise it finds everything done
            for share in self._made.shares:
                if share.phase == "waiting":
                    await self._set(share, "CANCELLED", words)

    async def _set(self, share: JobShare, kind: str, words: str) -> None:
        wish = {"state": {"type": kind, "message": words}, "force": False}
        await self._api.post(f"/flow_runs/{share.id}/set_state", json=wish)

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object.

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


def _share_found(run: Mapping[str, Any]) -> JobShare | None:
    """Return an earlier share; None when it has ended, or is ending, without finishing the job."""
    facts, kind = run.get("parameters") or {}, (run.get("state") or {}).get("type")
    number, attempt = int(facts.get("share") or 0), int(facts.get("attempt") or 1)
    share = _share_of_run(JobShare(str(run["id"]), number, attempt, "waiting"), run)
    is_of_use = number > 0 and kind != "CANCELLING" and (share.phase != "ended" or share.is_done)
    return share if is_of_use else None


def _share_of_run(share: JobShare, run: Mapping[str, Any]) -> JobShare:
    state = run.get("state") or {}
    kind = str(state.get("type") or "")
    phase: Any = "ended" if kind in _ENDED else "waiting" if kind == "SCHEDULED" else "running"
    return JobShare(
        share.id,
        share.number,
        share.attempt,
        phase,
        str(state.get("name") or ""),
        str(state.get("message") or ""),
    )
