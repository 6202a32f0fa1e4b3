"""Run manager of `paddock up`: carry out what `start_decisions` decides.

Start, hold, stop and restart runs. The queue is Prefect's. Knows no files and no schedules:
`reconciler` deploys pipelines and submits runs. Lives in one event loop; what fails because
Prefect is away is retried in the next round.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from paddock.engine.system.light_dataclasses import dataclass, field, replace
from paddock.engine.system.process_marks import is_process_alive
from paddock.engine.system.tasks import TaskSet
from paddock.pipelines.errors import PipelineError
from paddock.runner.daemon.run_signatures import Signer
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.run_locks import LockHolder
from paddock.runner.progress.drain import STOP_REQUESTED
from paddock.runner.progress.prefect_view import SUSPENDED
from paddock.runner.progress.report import Report, Status
from paddock.runner.workers.flow_order import FlowOrder

from .cron import missed
from .prefect_queue import (
    MOST_READ,
    RETRY_STATE,
    DeletedInPrefect,
    PrefectQueue,
    QueuedRun,
    QueueError,
    ShownEnd,
)
from .run_endings import (
    NoRestart,
    RestartRun,
    RunEnding,
    StartRecord,
    StartRecords,
    StopReason,
    after_ending,
)
from .run_processes import ProcessEnd, RunExecutor, RunProcess, RunTask, StopRequest
from .signed_orders import NotAdmitted, admitted_order
from .start_decisions import (
    ActiveRun,
    DrainRun,
    DueRun,
    HoldRun,
    RunRule,
    SkipRun,
    StartRun,
    dispatch,
)
from .triggered_pipeline import TriggeredPipeline

GENTLE_S = 900.0  # an item may be a long document; after this time it is cut off and done again
AT_ONCE_S = 20.0
POLL_S = 20.0  # what Prefect has not been asked for within 60 s counts as not ready
CLOCK_WAS_WRONG = timedelta(days=2)  # a restart waits for minutes at most

log = logging.getLogger("paddock.up")


@dataclass(frozen=True)
class Deployment:
    """A pipeline in service, deployed in Prefect."""

    triggered: TriggeredPipeline
    id: str


@dataclass
class ManagedRun:
    """A running run."""

    tracked: QueuedRun
    deployment: Deployment
    group: str
    running: RunProcess
    attempt: int = 1
    """The number of starts since the run's last progress, from 1."""
    stopped: StopReason | None = None
    is_adopted: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Its name in the ledger; until that is known, Prefect's."""
        return self.running.run or self.tracked.name

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        """The webhook calls that it answers; the ledger knows the end of each."""
        return self.tracked.order.get("calls") or ()

    def active(self, id_: str) -> ActiveRun:
        is_stopping = self.stopped is not None
        return ActiveRun(id_, self.name, self.deployment.triggered.key, self.group, is_stopping)

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.running.run or None,
            "flow_run": self.tracked.id,
            "pipeline": self.deployment.triggered.pipeline.name,
            "trigger": self.tracked.order.get("trigger"),
            "attempt": self.attempt,
            "pid": self.running.pid,
            "is_stopping": self.stopped is not None,
            "waits_for": self.running.waits_for or None,
        }


def is_due(run: QueuedRun, triggered: TriggeredPipeline, now: datetime) -> bool:
    """Return whether a waiting run's time has come.

    Only schedules and people plan ahead: other runs that are due much later were queued while the
    machine's clock was wrong, and would wait for years.
    """
    if run.is_held or run.next_at <= now:
        return True
    ahead = (*(schedule.key for schedule in triggered.schedules), FlowOrder(path="").trigger)
    is_planned = run.order.get("trigger", ahead[-1]) in ahead and run.state != RETRY_STATE
    return not is_planned and run.next_at - now > CLOCK_WAS_WRONG


def stop_now(running: RunProcess) -> None:
    """Stop a run at once; items in flight are given up."""
    running.halt(StopRequest("", is_gentle=False))


def is_superseded_by_schedule(job: ManagedRun, now: datetime) -> bool:
    """Return whether a later run of the same schedule does the rest of this one.

    Of missed runs `catch_up: latest` wants one; an interrupted run counts as missed.
    """
    if job.deployment.triggered.rule.on_conflict == "skip":  # then the later one was skipped
        return False
    trigger = job.tracked.order.get("trigger")
    schedules = (
        schedule for schedule in job.deployment.triggered.schedules if schedule.key == trigger
    )
    return any(
        schedule.catch_up == "latest" and bool(missed(schedule, job.tracked.at, now))
        for schedule in schedules
    )


def _end_text(end: ProcessEnd, ending: RunEnding) -> str:
    if ending.crash is not None:
        return f"crashed: {ending.crash}"
    if end.report is None:
        return f"{ending.status}{': ' if end.words else ''}{end.words}"
    counts = ", ".join(f"{n} {state}" for state, n in end.report.counts.items() if n)
    words = counts or ("" if end.report.message else end.report.done_in_words())
    message = f": {end.report.message}" if end.report.message else ""
    return f"{end.report.status}{f' ({words})' if words else ''}{message}"


ABANDON_S = 0.3  # a commit takes some milliseconds


OnEnd = Callable[[ManagedRun | None, str, Report | None], Awaitable[None]]
"""Called when a submitted run is over for good: its job, a status, its report if there is one."""
OnOver = Callable[[QueuedRun, str], Awaitable[None]]
"""Called when a run is over for good, restarts included: the last start of it, and a status."""


@dataclass(frozen=True)
class ManagerOptions:
    """Options of `RunManager`."""

    max_runs: int
    max_restarts: int
    given_up: Callable[[Deployment, str, str], Coroutine[Any, Any, None]]
    """Called when a run crashed too often."""
    folder: Path
    """For what is kept on this machine over the end of `paddock up`."""
    flags: Mapping[str, object] = field(default_factory=dict)
    """The command line's settings, for runs."""
    has_progressed: Callable[[Deployment, str], bool] = lambda deployment, run: False
    """Returns whether another start of a crashed run may get further."""
    known_end: Callable[[Deployment, str], Report | None] = lambda deployment, run: None
    """Returns how a run ended by its ledger; None: unknown."""
    group_holders: Callable[..., Mapping[str, LockHolder]] = lambda names, unwanted=(): {}
    """Returns who has the turn in some groups, asks those of others to stop; see `core`."""
    auth_string: str = field(default="", repr=False)
    """Password of our own Prefect server; empty for another server."""
    faults: Mapping[Path, str] = field(default_factory=dict)
    """Why ledgers cannot be used, by their folder."""
    fault_of: Callable[[Path, Sequence[Deployment]], Awaitable[str]] | None = None
    """Looks at a folder's ledger, and returns why it cannot be used now."""


class RunManager:
    """All running and waiting runs."""

    def __init__(
        self, prefect_queue: PrefectQueue, signer: Signer | None, options: ManagerOptions
    ) -> None:
        """`signer`: of a server that others use; None: it is our own."""
        self.deployments: dict[str, Deployment] = {}
        """By the pipeline's key."""
        self.jobs: dict[str, ManagedRun] = {}
        """By the flow run's id."""
        self.queue: list[QueuedRun] = []
        """Runs that waited in the last round, each with why and until when."""
        self.wake = asyncio.Event()
        """Set when something may be due at once."""
        self.is_stopping = False
        self.wants_rest = False
        """A window has closed: idle models may be unloaded."""
        self.missing: dict[str, tuple[str, ...]] = {}
        """By pipeline: why its last run did not count missing documents as deleted."""
        self.lacks_deployments = False
        """A deployment of ours was deleted: deployments must be made again."""
        self.over: OnOver | None = None
        """Called when any run is over for good."""
        self.executor = RunExecutor(self._began)
        self._prefect_queue = prefect_queue
        self._signer = signer
        self._options = options
        self.folder = options.folder
        self._records = StartRecords(options.folder / "runs.json")
        self._orders: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
        """By the flow run's id: orders as they are written, and as they were verified."""
        self._waiting: dict[str, OnEnd] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._telling = TaskSet()
        self._unrecorded: list[Callable[[], Awaitable[None]]] = []
        self._polled_at = float("-inf")

    # --- called by others

    async def submit(
        self,
        deployment: Deployment,
        trigger: str,
        key: str,
        *,
        at: datetime | None = None,
        words: str = "",
        ended: OnEnd | None = None,
        **extra: Any,
    ) -> QueuedRun:
        """Put a run into the queue; `ended` is called when it is over for good, restarts included.

        `extra` are values of its order, such as `inputs`.

        Raises:
            QueueError: Prefect does not take it now.
        """
        file = str(deployment.triggered.file)
        order = {"path": file, "inputs": {}, "trigger": trigger, **extra}
        due = at or datetime.now(UTC)
        try:
            made = await self._prefect_queue.submit(
                deployment.id, order, key=key, at=due, words=words
            )
        except DeletedInPrefect:
            self.lacks_deployments = True
            self.wake.set()
            raise
        if ended is not None and made.phase != "ended":
            self._waiting[made.id] = ended
        if at is None:
            self.wake.set()
        return made

    def is_left(self, run: QueuedRun) -> bool:
        """Return whether a run waits, or was at work in a process that is gone."""
        if run.phase == "waiting":
            return True
        record = self._started(run)
        is_gone = record is not None and not is_process_alive(record.mark)
        return run.phase == "running" and run.id not in self.jobs and is_gone

    def _started(self, run: QueuedRun) -> StartRecord | None:
        """Return our last start of a run; None: whatever is at it is not ours."""
        is_own_server = self._signer is None
        return self._records.get(run.id) or (StartRecord() if is_own_server else None)

    def n_waiting(self, deployment: Deployment) -> int:
        """Return how many runs of a pipeline waited in the last round."""
        return sum(run.deployment == deployment.id for run in self.queue)

    # --- one round

    async def round(self) -> None:
        """Read the queue once, and act.

        Raises:
            QueueError: Prefect is away.
        """
        # Record the ends that failed while Prefect was away
        while self._unrecorded:
            try:
                await self._unrecorded[0]()
            except QueueError:
                raise
            except Exception:
                log.exception("the end of a run could not be handled")
            self._unrecorded.pop(0)
        by_id = {deployment.id: deployment for deployment in self.deployments.values()}
        if by_id and time.monotonic() - self._polled_at > POLL_S:
            await self._prefect_queue.poll(by_id)
            self._polled_at = time.monotonic()
        # A run that ends during this read was not left by a killed `up`; one that has begun is
        # shown as running until a person changes that.
        ours = {id_: bool(job.running.run) for id_, job in self.jobs.items()}
        found = await self._prefect_queue.open_runs(by_id)
        runs = [
            run
            for found_run in found
            if (run := await self._admitted(found_run, by_id)) is not None
        ]
        for run in runs:
            job, had_begun = self.jobs.get(run.id), ours.get(run.id)
            if job is None:  # a killed `up` left it
                if run.phase in ("running", "cancelling") and run.id not in ours:
                    await self._found(run, by_id[run.deployment])
            elif run.phase == "cancelling":
                self.stop_job(job, "cancelled", "it was cancelled in Prefect")
            elif run.phase in ("suspended", "waiting") and had_begun:
                self.stop_job(job, "suspended", SUSPENDED)
        self.queue = [run for run in runs if run.phase == "waiting" and run.id not in self.jobs]
        if len(found) < MOST_READ:
            there = {run.id for run in found}
            # Report runs that ended before they began: cancelled or deleted in Prefect
            for id_ in [id_ for id_ in self._waiting if id_ not in there and id_ not in self.jobs]:
                gone = await self._prefect_queue.read(id_)
                if gone is None or gone.phase == "ended":
                    await self._tell(id_, None, gone.end if gone else "interrupted", None, gone)
                elif gone.deployment not in by_id:  # its deployment was deleted
                    words = "its deployment no longer exists"
                    await self._prefect_queue.finish(id_, "skipped", words)
                    await self._tell(id_, None, "skipped", None, gone)
            self._orders = {id_: order for id_, order in self._orders.items() if id_ in there}
        if self.is_stopping:
            return
        now = datetime.now(UTC)
        waiting = {
            run.id: run for run in self.queue if is_due(run, by_id[run.deployment].triggered, now)
        }
        due = {
            id_: due_run for id_, run in waiting.items() if (due_run := await self._due(run, by_id))
        }
        # Each pipeline's rule, and what holds its runs now
        ids = {waiting[id_].deployment for id_ in due}
        paused = await self._prefect_queue.paused(ids) if ids else frozenset()
        rules = {
            key: replace(
                deployment.triggered.rule,
                is_paused=deployment.id in paused,
                fault=self._options.faults.get(deployment.triggered.file.parent, ""),
            )
            for key, deployment in self.deployments.items()
        }
        active = await self._other_turns([*due.values()], rules)
        active += [job.active(id_) for id_, job in self.jobs.items()]
        held: dict[str, HoldRun] = {}
        for decision in dispatch([*due.values()], active, rules, now, self._options.max_runs):
            if isinstance(decision, DrainRun) and decision.id not in self.jobs:
                await asyncio.to_thread(self._options.group_holders, (), [decision.id])
                continue
            if isinstance(decision, DrainRun):
                reason: StopReason = "window" if decision.is_again else "cancelled"
                self.stop_job(self.jobs[decision.id], reason, decision.words)
                continue
            run = waiting[decision.id]
            deployment = by_id[run.deployment]
            if isinstance(decision, StartRun):
                await self._start(run, deployment, due[run.id].group)
            elif isinstance(decision, SkipRun):
                await self.skip_run(run, deployment, decision.words)
            else:
                held[run.id] = decision
                # Prefect gets one state for all turns of others, and one when a window closes.
                if not run.is_held or (decision.until is not None and run.words != decision.words):
                    await self._prefect_queue.hold(run.id, decision.words)
        self.queue = [
            replace(run, words=why.words, next_at=why.until or run.next_at)
            if (why := held.get(run.id))
            else run
            for run in self.queue
            if run.id not in self.jobs
        ]

    async def _other_turns(
        self, due: Sequence[DueRun], rules: Mapping[str, RunRule]
    ) -> list[ActiveRun]:
        """Return the runs that are not ours and have the turn of a group in which a run is due.

        A run that had a process before may meet its own turn, which outlives it for a while.
        """
        begun = {run.group for run in due if self._records.get(run.id)}
        begun.update(job.group for job in self.jobs.values())
        have = {key for key, rule in rules.items() if rule.has_turns}
        turns = {run.group for run in due if run.pipeline in have}
        try:
            found = await asyncio.to_thread(self._options.group_holders, turns - begun)
        except LedgerError:  # its run says so
            return []
        return [ActiveRun(name, who.run, "", name, is_ours=False) for name, who in found.items()]

    async def _admitted(self, run: QueuedRun, by_id: Mapping[str, Deployment]) -> QueuedRun | None:
        """Return a run with its order, verified once; None when it was refused."""
        if run.id in self.jobs:
            return run
        deployment = by_id[run.deployment]
        written, order = self._orders.get(run.id, (None, {}))
        try:
            if written != run.order:
                order = admitted_order(run.order, run.key, deployment.triggered, self._signer)
                self._orders[run.id] = run.order, order
        except NotAdmitted as error:
            name = deployment.triggered.pipeline.name
            log.warning("%s: run '%s' of Prefect is refused: %s", name, run.name, error)
            await self._prefect_queue.finish(run.id, "failed", f"Refused: {error}")
            await self._tell(run.id, None, "failed", None, run)
            return None
        return replace(run, order=order)

    async def _due(self, run: QueuedRun, by_id: Mapping[str, Deployment]) -> DueRun | None:
        deployment = by_id[run.deployment]
        try:
            group = deployment.triggered.group(run.order.get("inputs") or {})
        except PipelineError as error:
            await self.skip_run(run, deployment, error.faults[0].message)
            return None
        trigger = str(run.order.get("trigger", ""))
        return DueRun(run.id, deployment.triggered.key, trigger, run.at, group, run.is_held)

    async def skip_run(self, run: QueuedRun, deployment: Deployment, words: str) -> None:
        log.info("%s: a run is skipped: %s", deployment.triggered.pipeline.name, words)
        await self._prefect_queue.finish(run.id, "skipped", words)
        self.queue = [other for other in self.queue if other.id != run.id]
        await self._tell(run.id, None, "skipped", None, run)

    # --- starting

    async def _start(self, run: QueuedRun, deployment: Deployment, group: str) -> None:
        record = self._records.note(run.id, mark="", run="", is_stopped=False)
        triggered = deployment.triggered
        task = RunTask(
            run.row,
            FlowOrder(**run.order),
            triggered.text,
            self._options.flags,
            self._prefect_queue.api_url,
            self._options.auth_string,
        )
        try:
            running = await self.executor.start(task)
        except OSError as error:
            log.warning("%s: %s", deployment.triggered.pipeline.name, error)
            await self._prefect_queue.hold(run.id, str(error))
            return
        self._records.note(run.id, mark=running.mark)
        self._take(ManagedRun(run, deployment, group, running, record.attempt))

    def _take(self, job: ManagedRun) -> None:
        self.jobs[job.tracked.id] = job
        task = asyncio.create_task(self._follow(job))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _found(self, run: QueuedRun, deployment: Deployment) -> None:
        record = self._started(run)
        if record is None:
            return
        running = self.executor.adopt(record.mark)
        try:
            group = deployment.triggered.group(run.order.get("inputs") or {})
        except PipelineError:
            group = run.id
        stopped: StopReason | None = "shutdown" if record.is_stopped else None
        if is_adopted := running is not None:
            stopped = None
            log.info("%s: run %s continued by itself", deployment.triggered.pipeline.name, run.name)
        else:
            running = RunProcess(0)
            running.ended.set_result(ProcessEnd())
            if run.phase == "cancelling":
                stopped = "cancelled"
        running.run = record.run
        self._take(ManagedRun(run, deployment, group, running, record.attempt, stopped, is_adopted))

    def _began(self, running: RunProcess) -> None:
        for job in self.jobs.values():
            if job.running is running:
                self._records.note(job.tracked.id, run=running.run)
                trigger = job.tracked.order.get("trigger", "")
                name = job.deployment.triggered.pipeline.name
                log.info("%s: run %s has begun (%s)", name, running.run, trigger)

    # --- ending

    def stop_job(self, job: ManagedRun, why: StopReason, words: str) -> None:
        """Ask a run to drain; after a while stop it at once, then kill it."""
        if job.stopped is not None:
            return
        job.stopped = why
        log.info("%s: run %s stops: %s", job.deployment.triggered.pipeline.name, job.name, words)
        statuses: dict[str, Status] = {"cancelled": "interrupted", "suspended": "suspended"}
        status = statuses.get(why, "budget")

        async def drain() -> None:
            job.running.halt(StopRequest(words, is_gentle=True, status=status))
            await asyncio.sleep(GENTLE_S)
            stop_now(job.running)
            await asyncio.sleep(AT_ONCE_S)
            job.running.kill()

        task = asyncio.create_task(drain())
        job.tasks.add(task)
        task.add_done_callback(job.tasks.discard)

    async def _follow(self, job: ManagedRun) -> None:
        end = await asyncio.shield(job.running.ended)
        for task in job.tasks:
            task.cancel()

        finish = partial(self._finish, job, end)
        try:
            await finish()
        except QueueError as error:
            log.warning("%s; the end of run %s is recorded later.", error, job.running.run)
            self._unrecorded.append(finish)
        except Exception:  # an error at one run's end must not stop the others
            log.exception("the end of run %s could not be handled", job.running.run)
            self.jobs.pop(job.tracked.id, None)
        finally:
            self.wake.set()

    async def _end_by_ledger(
        self, job: ManagedRun, end: ProcessEnd, shown: QueuedRun | None
    ) -> tuple[ProcessEnd, RunEnding]:
        """Return how a run ended, with what the ledger knows of a crash."""
        if end.crash is not None and job.stopped is None and not job.calls:
            # It may have ended normally while neither `up` nor Prefect was running.
            report = await asyncio.to_thread(self._options.known_end, job.deployment, job.name)
            end = end if report is None else ProcessEnd(report, has_spoken=True)
        crash, status = end.crash, str(end.report.status) if end.report else "failed"
        shown_end = shown.end if shown is not None else ""
        if crash is not None and job.is_adopted and shown_end not in ("", "crashed"):
            crash, status = None, shown_end
        if crash is not None and job.stopped is not None:
            crash, status = None, "interrupted"  # it was killed
        if crash is None and status == "failed" and self._options.fault_of is not None:
            folder = job.deployment.triggered.file.parent
            fault = await self._options.fault_of(folder, [job.deployment])
            crash = fault.rstrip(".") or None
        ending = RunEnding(job.attempt, crash, status, job.stopped)
        if ending.crash is not None:
            got_on = await asyncio.to_thread(self._options.has_progressed, job.deployment, job.name)
            ending = replace(ending, has_progressed=got_on)
        return end, ending

    async def _finish(self, job: ManagedRun, end: ProcessEnd) -> None:
        """Record how a run ended; the same flow run is started again if that is due."""
        id_, now = job.tracked.id, datetime.now(UTC)
        shown = await self._prefect_queue.read(id_)
        is_open = shown is not None and shown.phase != "ended"
        end, ending = await self._end_by_ledger(job, end, shown)
        if job.stopped == "suspended" and is_open:
            self.jobs.pop(id_, None)
            words = "%s: run %s is suspended; it goes on when it is resumed in Prefect"
            log.info(words, job.deployment.triggered.pipeline.name, job.name)
            return
        if ending.crash is not None and shown is not None:
            await self._prefect_queue.end_tasks(id_, ending.crash)
        next_ = after_ending(ending, now, max_restarts=self._options.max_restarts)
        if isinstance(next_, RestartRun) and (
            shown is None  # a person has deleted it
            or job.deployment.triggered.key not in self.deployments  # its file is gone
            or is_superseded_by_schedule(job, now)
        ):
            next_ = NoRestart()
        # One of the calls ends the process.
        is_split = isinstance(next_, NoRestart) and next_.is_given_up and bool(job.calls[1:])
        if is_split:
            order = {**job.tracked.order, "root": job.tracked.order.get("root") or id_}
            for number, call in enumerate(job.calls):
                await self._prefect_queue.submit(
                    self.deployments.get(job.deployment.triggered.key, job.deployment).id,
                    {**order, "calls": [call], "inputs": call["inputs"]},
                    key=f"{id_}:{number}", at=now, words="continues a run of several calls",
                )  # fmt: skip
        if isinstance(next_, RestartRun):
            await self._prefect_queue.hold(id_, next_.words, None if next_.at <= now else next_.at)
            self._records.note(id_, attempt=next_.attempt)
        elif is_open:
            # Set a flow run's final state, if its process could not
            state: ShownEnd = "failed"
            report, words = end.report, end.words or ""
            if ending.crash is not None:
                state, words = "crashed", ending.crash
            elif report is not None and report.status in ("completed", "quarantined"):
                state, words = "completed", report.message or ""
            elif ending.status in ("budget", "suspended"):
                state, words = "budget", (report and report.message) or STOP_REQUESTED
            elif ending.status == "interrupted":
                state, words = "interrupted", "It was asked to stop."
            elif report is not None:
                words = report.message or ""
            await self._prefect_queue.finish(id_, state, words)
        self.jobs.pop(id_, None)
        if end.report is not None:
            missing = (item.error or "" for item in end.report.items if item.state == "missing")
            self.missing[job.deployment.triggered.key] = tuple(missing)
        self.wants_rest = self.wants_rest or job.stopped == "window"
        name, run = job.deployment.triggered.pipeline.name, job.name
        is_error = ending.crash is not None or ending.status == "failed"
        level = logging.ERROR if is_error else logging.INFO
        log.log(level, "%s: run %s %s", name, run, _end_text(end, ending))
        if isinstance(next_, RestartRun):
            at = f"{next_.at.astimezone():%H:%M:%S}"
            log.info("%s: queued again for %s: %s", name, at, next_.words)
            return
        self._records.forget([id_])
        if is_split:
            log.info("%s: its calls are runs of their own now", name)
            return
        if next_.is_given_up:
            log.error("%s: run %s is not restarted.", name, run)
            self._telling.start(self._options.given_up(job.deployment, run, ending.crash or ""))
        job.running.run = run
        status = "crashed" if ending.crash else ending.status
        await self._tell(id_, job, status, end.report, job.tracked)

    async def _tell(
        self,
        id_: str,
        job: ManagedRun | None,
        status: str,
        report: Report | None,
        run: QueuedRun | None,
    ) -> None:
        ended = self._waiting.pop(id_, None)
        if ended is not None:
            await ended(job, status, report)
        if self.over is not None and run is not None:
            await self.over(run, status)

    async def stop(self, within_s: float) -> None:
        """Stop all runs in bounded time; the next start continues them."""
        self.is_stopping = True
        for job in list(self.jobs.values()):
            if job.stopped is None:
                job.stopped = "shutdown"
                self._records.note(job.tracked.id, is_stopped=True)
            for task in job.tasks:
                task.cancel()
            words = "`paddock up` was stopped"
            job.running.halt(StopRequest(words, is_gentle=True))
        for share, act in ((0.4, stop_now), (0.3, RunProcess.kill), (0.2, None)):
            if not self._following:
                break
            await asyncio.wait(self._following, timeout=within_s * share)
            for job in list(self.jobs.values()):
                if act is not None:
                    act(job.running)

    def abandon(self) -> None:
        """Kill every process, after a moment in which they record that no item is the cause."""
        for job in self.jobs.values():
            if job.stopped != "cancelled":
                self._records.note(job.tracked.id, is_stopped=True)
            stop_now(job.running)
        time.sleep(ABANDON_S if self.jobs else 0)
        for job in self.jobs.values():
            job.running.kill()
