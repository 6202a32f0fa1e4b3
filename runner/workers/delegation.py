"""Delegate a pipeline to the machines of a work pool, and wait for the end.

A job has shares; each is a flow run that some worker takes. Claims in the ledger decide which
items a share does, so their number does not matter, nor which of them die. The process that
delegates may die too: shares are found again by the job's name. `decide_shares` is pure. Prefect is
asked by plain HTTP: importing it takes 3 s of processor time, which each job would pay.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from paddock.engine.errors import EngineError
from paddock.engine.system.light_dataclasses import dataclass, field, replace
from paddock.engine.system.tasks import StopRequested, running, unless
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.input_values import PATH_TYPES
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind
from paddock.runner.bind.trust.permissions import NotPermitted
from paddock.runner.core.machines.machine_view import MachineView, as_json
from paddock.runner.core.run_names import new_run_name
from paddock.runner.daemon.prefect_client import (
    NOT_FOUND,
    PREFECT_ERRORS,
    PrefectRefusal,
    TrackingError,
    ask_again,
)
from paddock.runner.daemon.run_signatures import Signer, signer_for
from paddock.runner.ledger.entries import LedgerError, RunRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.ledger.sharing.coordination_queries import ALIVE_IN_JOB, SILENT_IN_JOB
from paddock.runner.progress.drain import INTERRUPTED, StopGate
from paddock.runner.progress.prefect_view import SHARE_TAG, prefect_name
from paddock.runner.progress.report import Report
from paddock.runner.settings import STATE_FOLDER, Settings
from paddock.steps.base import StepError

from .flow_order import as_parameters, deployment_name, entrypoint, order_of, without_defaults
from .job_shares import HELP_AFTER_S, JobEnd, JobShare, SharePhase, StartShare, decide_shares

REPORTED_ERRORS = (EngineError, LedgerError, PipelineError, StepError)
"""Errors with a message for people; others are shown with their traceback."""


def failure_message(error: Exception, machine: str) -> str:
    if not isinstance(error, NotPermitted):
        return f"on {machine}: {error}"
    wants = "; ".join(dict.fromkeys(f"{need.what} ('{need.name}')" for need in error.needs))
    return (
        f"The worker on {machine} does not allow what the pipeline wants to do: {wants}. Each "
        f"machine allows for itself: start `paddock worker --allow {error.names}` there, or write "
        f'`allow = "{error.names}"` into its ~/.config/paddock/paddock.toml.'
    )


LOOK_S = 0.25  # a look costs Prefect's server some 5 ms, however many shares there are
AWAY_S = 300.0  # Prefect's server may restart; the shares continue meanwhile
LEAVE_S = 60.0
MACHINES_S = 5.0
MOST_FOUND = 200
WORKER_LABEL = "prefect.worker.name"
ENDED_TYPES = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


@dataclass(frozen=True, slots=True)
class SharedJob:
    """A job for several machines."""

    name: str
    """Of all its shares; the same name finds the shares of an earlier attempt."""
    pipeline: str
    """The pipeline's name."""
    path: Path
    inputs: Mapping[str, Any]
    work_pool: str
    signer: Signer
    trigger: str = "hand"
    retry_failed: bool = False
    n_shares: int | None = None
    max_restarts: int = 3
    ledger_url: str = ""
    dead_after_s: float = 60.0
    view: MachineView = field(default_factory=MachineView)
    """What this machine sees; each share must see the same."""
    help_after_s: float = HELP_AFTER_S
    """For this long one machine works alone, unless `n_shares` says how many."""

    @classmethod
    def of(
        cls,
        path: Path,
        inputs: Mapping[str, Any],
        settings: Settings,
        *,
        name: str = "",
        text: str | None = None,
        **options: Any,
    ) -> SharedJob:
        """Return a job of a pipeline, whose inputs are checked, with paths made absolute. Blocks.

        Raises:
            PipelineError: the YAML or an input is wrong.
            LedgerError: the database with the key of signatures cannot be used.
        """
        plan, unattended = read_plan(path, text), settings.unattended
        bound = bind(plan, inputs, cwd=Path.cwd(), default_models=settings.default_models)
        places = {name for name, kind in bound.input_types.items() if kind in PATH_TYPES}
        given = {
            name: path if name in places and isinstance(path := bound.inputs[name], str) else value
            for name, value in inputs.items()
        }
        return cls(
            name or f"{new_run_name(())}-{os.getpid()}", bound.name, path, given,
            unattended.work_pool, signer_for(settings.state_dir, settings.ledger_url),
            max_restarts=unattended.max_restarts, ledger_url=settings.ledger_url,
            dead_after_s=unattended.dead_after_s, view=MachineView.of(bound), **options,
        )  # fmt: skip


async def delegate_job(
    api: httpx.AsyncClient,
    job: SharedJob,
    *,
    stop: asyncio.Event,
    stop_gate: StopGate | None = None,
    is_handed_over: Callable[[], bool] = lambda: False,
    note: Callable[[str], None] = lambda _: None,
) -> Report:
    """Carry out a job by Prefect's API; return its report. When `stop` is set, stop its shares.

    They continue if `is_handed_over` returns that another process takes over the job. `note` gets
    what the job waits for, and an empty text when machines are at work.

    Raises:
        TrackingError: Prefect's API cannot be used.
        LedgerError: the job is done, and the ledger cannot be read.
    """
    nonce = job.signer.nonce(job.name)
    seen = await asyncio.to_thread(job.view.write_nonces, nonce)
    delegation = _Delegation(api, job, as_json(job.view, seen), note)

    async def wait_for_stop() -> None:
        with suppress(StopRequested):
            await unless(stop.wait(), *([] if stop_gate is None else [stop_gate.wait()]))

    try:
        async with running(delegation.tell_of_machines()), running(wait_for_stop()) as ending:
            over = await delegation.carry_out(ending)
            if over is None and not is_handed_over():
                await delegation.leave()
                over = JobEnd("interrupted", INTERRUPTED)
    finally:
        if not is_handed_over():
            await asyncio.to_thread(job.view.remove_nonces, nonce)
    if over is None:
        over = JobEnd("interrupted", "The machines continue it by themselves.")
    if over.status == "completed":
        ended = await asyncio.to_thread(_ended_share, job)
        if ended is not None:
            return replace(
                ended, run=job.name, pipeline=job.path.name, message=over.message or None
            )
    return Report(job.name, job.path.name, over.status, {}, message=over.message or None)


def _ended_share(job: SharedJob) -> Report | None:
    """Return how a share of a job that is done ended. Blocks.

    Which one does not matter: each counts what all of them did.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with Ledger(job.path.parent / STATE_FOLDER, is_readonly=True, url=job.ledger_url) as ledger:
        found = (known_end(row) for row in RunStore(ledger).runs_that_continue([job.name]))
        return next((end for end in found if end is not None and end.status != "failed"), None)


def known_end(row: RunRow) -> Report | None:
    """Return how a run ended in order, by its ledger; None: it was killed or stopped."""
    if row.ended is None or row.status not in ("completed", "quarantined", "failed"):
        return None
    return Report.of_summary(json.loads(row.summary or "{}"))


class _Delegation:
    def __init__(
        self,
        api: httpx.AsyncClient,
        job: SharedJob,
        view: Mapping[str, Any],
        note: Callable[[str], None],
    ) -> None:
        self._ask = partial(ask_again, api)
        self._job = job
        self._view = view
        self._note = note
        self._shares: list[JobShare] = []
        self._due: dict[str, float] = {}
        """When the shares that continue another one start, by that one's id."""
        self._deployment = ""
        self._own = uuid4().hex
        self._began = time.monotonic()
        self._answered = time.monotonic()

    async def _take_up(self) -> None:
        """Find or make the deployment of this file, and find the job's shares."""
        file = str(self._job.path)
        name = f"{deployment_name(file)} shares"
        with self._refusals():
            flow = await self._ask("POST", "/flows/", {"name": prefect_name(self._job.pipeline)})
            deployment = await self._ask(
                "POST",
                "/deployments/",
                {
                    "name": name,
                    "flow_id": flow["id"],
                    "entrypoint": entrypoint(file),
                    "work_pool_name": self._job.work_pool,
                    "enforce_parameter_schema": False,
                    "tags": [SHARE_TAG],
                },
            )
            if deployment["paused"]:
                raise TrackingError(f"The deployment '{name}' is paused in Prefect: resume it.")
        found = await self._ask(
            "POST",
            "/flow_runs/filter",
            {
                "flow_runs": {"tags": {"all_": [SHARE_TAG, self._job.name]}},
                "sort": "EXPECTED_START_TIME_ASC",
                "limit": MOST_FOUND,
            },
        )
        # Anyone may give a run the job's tag.
        ours = (
            run
            for run in found
            if self._job.signer.has_signed(
                without_defaults(order_of(run["parameters"])), run["idempotency_key"] or ""
            )
        )
        for run in ours:
            facts = order_of(run["parameters"])
            number, attempt = int(facts.get("share") or 0), int(facts.get("attempt") or 1)
            share = _share_of_run(JobShare(run["id"], number, attempt, "waiting"), run)
            # Not those that have ended, or are ending, without finishing the job
            is_ending = run["state_type"] == "CANCELLING"
            if number > 0 and not is_ending and share.outcome in ("open", "done", "refused"):
                self._shares.append(share)
        self._deployment = deployment["id"]
        if self._shares:
            self._note("its shares exist already; following them")

    async def carry_out(self, ending: asyncio.Task[None]) -> JobEnd | None:
        """Follow the shares until the job is over; return None when stopped first."""
        while not ending.done():
            try:
                over = await self._once()
            except (*PREFECT_ERRORS, ValueError) as error:
                if time.monotonic() - self._answered > AWAY_S:
                    raise TrackingError(
                        f"Prefect's API went away ({error or type(error).__name__}). What the "
                        f"machines are doing continues; the same command finds them again."
                    ) from error
                self._note("Prefect's API does not answer; waiting for it")  # machines go on
            else:
                self._answered = time.monotonic()
                if over is not None and over.status == "interrupted":  # a share was cancelled
                    await self.leave()
                    return over
                if over is not None:
                    how = "done" if over.status == "completed" else "over"
                    await self._take_back(f"The job was {how} before this one began.")
                    return over
            await asyncio.wait({ending}, timeout=LOOK_S)
        return None

    async def tell_of_machines(self) -> None:
        """Note machines that are silent, and a database that is away, until cancelled."""
        noted: set[str] = set()
        while self._job.ledger_url:
            await asyncio.sleep(MACHINES_S)
            try:
                silent = await asyncio.to_thread(_machines, self._job, SILENT_IN_JOB, 0.5)
                after_s = self._job.dead_after_s
                words = f"is silent; after {after_s:g} s others take over its items"
                found = [f"{machine} {words}" for machine in silent]
            except LedgerError as error:
                found = [str(error)]
            for words in found:
                if words not in noted:
                    self._note(words)
            noted = set(found)

    async def _once(self) -> JobEnd | None:
        if not self._deployment:
            await self._take_up()
        await self._look()
        elapsed_s = time.monotonic() - self._began
        is_early = elapsed_s < self._job.help_after_s
        decided = decide_shares(
            self._shares,
            n_requested=self._job.n_shares,
            online=await self._online(is_early=is_early),
            is_early=is_early,
            max_restarts=self._job.max_restarts,
            n_at_work=await self._n_at_work(),
        )
        if isinstance(decided, JobEnd):
            return decided
        for begin in decided:
            due_s = self._due.setdefault(begin.instead_of, elapsed_s + begin.pause_s)
            if not begin.instead_of or elapsed_s >= due_s:
                await self._begin(begin)
        return None

    async def _begin(self, begin: StartShare) -> None:
        job = self._job
        key = f"{begin.instead_of}:again" if begin.instead_of else f"{self._own}:{begin.number}"
        order = {
            "path": str(job.path),
            "inputs": dict(job.inputs),
            "trigger": job.trigger,
            "attempt": begin.attempt,
            "retry_failed": job.retry_failed,
            "share": begin.number,
            "parent": begin.instead_of,
            "job": job.name,
            "view": self._view,
        }
        with self._refusals():
            made = await self._ask(
                "POST",
                f"/deployments/{self._deployment}/create_flow_run",
                {
                    "name": f"{job.name} {begin.number}",
                    "parameters": as_parameters(job.signer.signed(order, key)),
                    "state": {"type": "SCHEDULED"},
                    "tags": [SHARE_TAG, job.name],
                    "idempotency_key": key,
                },
            )
        if begin.instead_of:
            self._note(f"share {begin.number} restarts (attempt {begin.attempt})")
        self._shares.append(JobShare(made["id"], begin.number, begin.attempt, "waiting"))

    async def _look(self) -> None:
        """Read every share that has not ended yet, by one request."""
        alive = [share.id for share in self._shares if share.phase != "ended"]
        if not alive:
            return
        body = {"flow_runs": {"id": {"any_": alive}}, "limit": MOST_FOUND}
        found = {run["id"]: run for run in await self._ask("POST", "/flow_runs/filter", body)}
        for index, share in enumerate(self._shares):
            if share.phase == "ended":
                continue
            if (run := found.get(share.id)) is None:
                words = f"Share {share.number} was deleted in Prefect."
                now = replace(share, phase="ended", state="Cancelled", message=words)
            else:
                now = _share_of_run(share, run)
                if now.state == "Crashed":
                    got_on = await asyncio.to_thread(_has_progressed, self._job, run)
                    now = replace(now, has_progressed=got_on)
            self._shares[index] = now
            if now.state == "Failed":
                self._note(f"share {share.number} failed: {now.message}")
            if now.outcome == "refused":
                self._note(f"{now.machine or 'a machine'} takes no part: {now.message}")
            if now.is_suspended and not share.is_suspended:
                self._note(f"share {share.number} is suspended in Prefect; resume it there")

    async def _online(self, *, is_early: bool) -> frozenset[str]:
        """Return the workers that are online; none while that decides nothing."""
        if any(share.phase == "running" and not share.is_suspended for share in self._shares):
            self._note("")
        is_waiting = bool(self._shares) and all(share.phase == "waiting" for share in self._shares)
        has_refused = any(share.outcome == "refused" for share in self._shares)
        is_decided = self._job.n_shares or is_early
        if is_decided and not (is_waiting or has_refused):
            return frozenset()
        workers = await self._ask("POST", f"/work_pools/{self._job.work_pool}/workers/filter", {})
        online = frozenset(worker["name"] for worker in workers if worker["status"] == "ONLINE")
        if not online and is_waiting:
            self._note(f"no worker of '{self._job.work_pool}' is online; waiting for one")
        return online

    async def _n_at_work(self) -> int:
        """Return how many machines have not left the job, once one is through; else 0."""
        is_through = any(share.outcome == "done" for share in self._shares)
        is_alone = not any(share.phase == "running" for share in self._shares)
        if is_alone or not (is_through and self._job.ledger_url):
            return 0
        try:
            return len(await asyncio.to_thread(_machines, self._job, ALIVE_IN_JOB))
        except LedgerError:
            return 1  # not known; `tell_of_machines` says why

    async def leave(self) -> None:
        """Stop the shares, and wait for them in bounded time."""
        deadline = time.monotonic() + LEAVE_S
        # Otherwise they continue to their end.
        with suppress(*PREFECT_ERRORS, ValueError):
            await self._look()
            await self._take_back("Interrupted before it began.")
            for share in self._shares:
                if share.phase == "running":
                    await self._set(share, "CANCELLING", "It was asked to stop.")
            while time.monotonic() < deadline:
                await self._look()
                if all(share.phase == "ended" for share in self._shares):
                    return
                await asyncio.sleep(LOOK_S)

    async def _take_back(self, words: str) -> None:
        """Cancel shares that no worker has begun."""
        with suppress(*PREFECT_ERRORS):  # otherwise it finds everything done
            for share in self._shares:
                if share.phase == "waiting" or share.is_suspended:
                    await self._set(share, "CANCELLED", words)

    async def _set(self, share: JobShare, kind: str, words: str) -> None:
        body = {"state": {"type": kind, "message": words}, "force": False}
        try:
            await self._ask("POST", f"/flow_runs/{share.id}/set_state", body)
        except PrefectRefusal as error:
            if error.status != NOT_FOUND:
                raise

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except PrefectRefusal as error:
            if error.status == NOT_FOUND:
                raise TrackingError(
                    f"Prefect knows no work pool '{self._job.work_pool}'. "
                    "Make it with `paddock cluster init`."
                ) from error
            if not error.is_busy:
                raise TrackingError(f"Prefect's API refuses {error}") from error
            raise


def _machines(job: SharedJob, query: str, share: float = 1.0) -> list[str]:
    """Return the runs that take part in a job, by their last heartbeat. Blocks.

    It is compared to this share of the time after which one counts as dead.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with Ledger(job.path.parent / STATE_FOLDER, is_readonly=True, url=job.ledger_url) as ledger:
        rows = ledger.rows(query, job=job.name, ago_s=share * job.dead_after_s)
    return [f"run '{run}' on {host}" for run, host in rows]


def _has_progressed(job: SharedJob, run: Mapping[str, Any]) -> bool:
    """Return whether a crashed share made progress, or died of one item. Blocks."""
    state = job.path.parent / STATE_FOLDER
    try:
        with Ledger(state, is_readonly=True, url=job.ledger_url) as ledger:
            own = RunStore(ledger).run_of_process(job.name, int(run["infrastructure_pid"] or 0))
            return own is not None and RunStore(ledger).has_progressed(own)
    except (LedgerError, ValueError):
        return False


def _share_of_run(share: JobShare, run: Mapping[str, Any]) -> JobShare:
    kind = run["state_type"]
    phase: SharePhase = "waiting" if kind == "SCHEDULED" else "running"
    if kind in ENDED_TYPES:
        phase = "ended"
    message = (run["state"] or {}).get("message") or ""
    return replace(
        share, phase=phase, state=run["state_name"] or "", message=message,
        machine=str((run.get("labels") or {}).get(WORKER_LABEL, "")), is_suspended=kind == "PAUSED",
    )  # fmt: skip
