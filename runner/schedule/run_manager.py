"""Run manager of `paddock up`: carry out what `start_decisions` decides.

Start, hold, stop and restart the runs of the queue's orders. Knows triggers by their protocol
alone. Lives in one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from paddock.engine.system.records import SelectiveFields, Struct, field, replace
from paddock.engine.system.tasks import TaskSet
from paddock.engine.wire import from_plain
from paddock.pipelines.errors import PipelineError
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.run_locks import LockHolder
from paddock.runner.progress.prefect_view import SUSPENDED
from paddock.runner.progress.report import Report, Status
from paddock.runner.workers.fork_server import ForkServer
from paddock.runner.workers.order import Order, OrderEnd, OrderOutcome

from .cron import due as due_moments
from .order_queue import OrderQueue
from .run_processes import PrefectPlace, RunExecutor, RunProcess, RunTask, StopRequest
from .start_decisions import (
    ActiveRun,
    DueRun,
    Restart,
    RunRule,
    StopReason,
    dispatch,
    restart_of_crashed,
    restart_of_stopped,
)
from .triggered_pipeline import TriggeredPipeline

GENTLE_S = 900.0  # an item may be a long document; after this time it is cut off and done again
AT_ONCE_S = 20.0
CLOCK_WAS_WRONG = timedelta(days=2)  # a restart waits for minutes at most
ABANDON_S = 0.3  # a commit takes some milliseconds
MOST_OF_PROCESS = 200
"""Orders that one process carries out: what libraries leak ends with it."""

log = logging.getLogger("paddock.up")


class _Admission(Struct, frozen=True):
    """Whether a pipeline, as its file was then, takes an order."""

    pipeline: TriggeredPipeline
    refusal: str
    """Why it does not; empty: it does."""
    group: str


class ManagedRun(Struct):
    order: str
    """Its id."""
    pipeline: TriggeredPipeline
    group: str
    process: RunProcess
    run: str = ""
    """Its name in the ledger."""
    stopped: StopReason | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Its name in the ledger; until that is known, its order's."""
        return self.run or "-"

    def active(self) -> ActiveRun:
        is_stopping = self.stopped is not None
        return ActiveRun(self.order, self.name, self.pipeline.key, self.group, is_stopping)


def stop_now(process: RunProcess) -> None:
    process.halt(StopRequest("", is_gentle=False))


def is_superseded_by_schedule(order: Order, pipeline: TriggeredPipeline, now: datetime) -> bool:
    """Return whether a later run of the same schedule does the rest of this one.

    Of missed runs `catch_up: latest` wants one; an interrupted run counts as missed.
    """
    if pipeline.rule.on_conflict == "skip":  # then the later one was skipped
        return False
    since = datetime.fromtimestamp(order.due_at, UTC)
    return any(
        timed.catch_up == "latest" and bool(due_moments(timed, since, now))
        for timed in pipeline.schedules
        if timed.key == order.trigger
    )


def end_of(
    outcome: OrderOutcome | None, stopped: StopReason | None, crash: str
) -> tuple[OrderEnd, str]:
    """Return how a run ended, and its message; `outcome`: None if its process was killed."""
    if outcome is None:
        return ("interrupted", "") if stopped is not None else ("crashed", crash)
    report = outcome.report
    if report is None:
        return "failed", outcome.message
    counts = ", ".join(f"{n} {state}" for state, n in report.counts.items() if n)
    is_cancelled = report.status == "interrupted" and outcome.is_cancelled
    end: OrderEnd = "cancelled" if is_cancelled else report.status
    return end, report.message or counts or report.effects_in_words()


class ManagerOptions(SelectiveFields, Struct, frozen=True):
    hidden = ("auth_string",)

    max_runs: int
    max_restarts: int
    forks: ForkServer = field(default_factory=ForkServer)
    """Starts the processes of runs."""
    flags: Mapping[str, object] = field(default_factory=dict)
    """The command line's settings, for runs."""
    auth_string: str = ""
    """Password of our own Prefect server; empty for another server."""


class Surroundings(Protocol):
    """What a manager asks, and reports to: `Up`, and worlds of tests. Marked ones block."""

    def trigger_keys(self, pipeline: str) -> Collection[str]: ...

    def group_holders(
        self, names: Collection[str], unwanted: Collection[str] = ()
    ) -> Mapping[str, LockHolder]:
        """Return who has the turn in some groups, and ask unwanted orders to stop. Blocks."""

    def place_in_prefect(self, pipeline: TriggeredPipeline) -> PrefectPlace:
        """Return where Prefect shows a run; empty while no server answers."""

    def known_end(self, pipeline: TriggeredPipeline, order: str) -> tuple[str, Report] | None:
        """Return the run and the end of an order by the ledger; None: it was killed. Blocks."""

    def has_progressed(self, pipeline: TriggeredPipeline, run: str) -> bool:
        """Return whether another start of a crashed run may get further. Blocks."""

    def ledger_fault(self, folder: Path) -> str:
        """Return why a folder's ledger could not be used when it was last checked."""

    async def check_ledger(self, pipeline: TriggeredPipeline) -> str:
        """Return why a pipeline's ledger cannot be used now."""

    async def report_crashes(self, pipeline: TriggeredPipeline, crash: str, run: str) -> None:
        """Report that a run crashed once too often, and how."""

    def note_ended(self, order: Order) -> None: ...


class RunManager:
    def __init__(self, queue: OrderQueue, around: Surroundings, options: ManagerOptions) -> None:
        self.pipelines: dict[str, TriggeredPipeline] = {}
        """Served pipelines by their keys."""
        self.jobs: dict[str, ManagedRun] = {}
        self.is_stopping = False
        self.wants_rest = False
        """A window has closed: idle models may be unloaded."""
        self.missing: dict[str, tuple[str, ...]] = {}
        """By pipeline: why its last run did not count missing documents as deleted."""
        self.faults: dict[str, str] = {}
        """By pipeline: why its last run could not begin, such as consent that has lapsed."""
        self.executor = RunExecutor(self, options.forks)
        self._queue = queue
        self._around = around
        self._options = options
        self._idle: dict[RunProcess, TriggeredPipeline] = {}
        """Processes that can be given another order, each with its pipeline."""
        self._admissions: dict[str, _Admission] = {}
        """By order."""
        self._ending = TaskSet()
        self._telling = TaskSet()

    # --- one round

    async def round(self) -> None:
        for left in [*self._queue.orders.values()]:
            if left.state == "running" and left.id not in self.jobs:
                self._take_over(left)
        if self.is_stopping:
            return
        now = datetime.now(UTC)
        due = [run for each in [*self._queue.orders.values()] if (run := self._due(each, now))]
        rules = {
            key: replace(pipeline.rule, fault=self._around.ledger_fault(pipeline.file.parent))
            for key, pipeline in self.pipelines.items()
        }
        active = await self._other_turns(due, rules)
        active += [job.active() for job in self.jobs.values()]
        for decision in dispatch(due, active, rules, now, self._options.max_runs):
            order = self._queue.orders.get(decision.id)
            if decision.act in ("cancel", "pause"):
                if decision.id in self.jobs:
                    reason: StopReason = "window" if decision.act == "pause" else "cancelled"
                    self.stop_job(self.jobs[decision.id], reason, decision.message)
                else:
                    await asyncio.to_thread(self._around.group_holders, (), [decision.id])
            elif order is None or order.state != "waiting":
                continue  # a person has ended it meanwhile
            elif decision.act == "start":
                await self._start(order)
            elif decision.act == "skip":
                self.skip(order, decision.message)
            else:
                self._hold(order, decision.message)
        self._dismiss_idle()

    def _dismiss_idle(self) -> None:
        for process in self._idle:
            process.finish()
        self._idle.clear()

    def _hold(self, order: Order, message: str) -> None:
        if order.message != message:  # in memory alone: it changes with each run before it
            self._queue.orders[order.id] = replace(order, message=message)

    def _due(self, order: Order, now: datetime) -> DueRun | None:
        """Return a waiting order that is due, for its pipeline as its file is now."""
        pipeline = self.pipelines.get(order.pipeline)
        if order.state != "waiting" or pipeline is None or order.id in self.jobs:
            return None
        wait_s = max(order.not_before, order.due_at) - now.timestamp()
        if 0 < wait_s < CLOCK_WAS_WRONG.total_seconds():
            return None
        admission = self._admissions.get(order.id)
        if admission is None or admission.pipeline is not pipeline:
            refusal = pipeline.refusal(order, self._around.trigger_keys(pipeline.key))
            group = ""
            if not refusal:
                try:
                    group = pipeline.group(order.inputs)
                except PipelineError as error:
                    refusal = error.faults[0].message
            admission = self._admissions[order.id] = _Admission(pipeline, refusal, group)
        if admission.refusal and order.is_promised:
            self._hold(order, f"cannot run: {admission.refusal}")
            return None
        if admission.refusal:
            self.skip(order, admission.refusal)
            return None
        at = datetime.fromtimestamp(order.due_at, UTC)
        is_paused = self._queue.is_paused(order)
        return DueRun(order.id, pipeline.key, order.trigger, at, admission.group, is_paused)

    async def _other_turns(
        self, due: Sequence[DueRun], rules: Mapping[str, RunRule]
    ) -> list[ActiveRun]:
        """Return the runs that are not ours and have the turn of a group in which a run is due.

        A run that had a process before may meet its own turn, which outlives it for a while.
        """
        groups = {run.group for run in due if rules[run.pipeline].has_turns}
        groups -= {run.group for run in due if self._queue.orders[run.id].mark}
        groups -= {job.group for job in self.jobs.values()}
        if not groups:
            return []
        try:
            holders = await asyncio.to_thread(self._around.group_holders, groups)
        except LedgerError:  # its run says so
            return []
        return [
            ActiveRun(group, holder.run, "", group, is_ours=False)
            for group, holder in holders.items()
        ]

    def skip(self, order: Order, message: str) -> None:
        name = Path(order.pipeline).name
        log.info("%s: order %s (%s) is skipped: %s", name, order.id, order.trigger, message)
        self._end(order, "skipped", message)

    # --- starting

    async def _start(self, order: Order) -> None:
        admission = self._admissions[order.id]
        pipeline = admission.pipeline
        place = self._around.place_in_prefect(pipeline)
        process = next((each for each, of in self._idle.items() if of is pipeline), None)
        if process is not None:
            del self._idle[process]
            process.give_order(order, place)
        else:
            options = self._options
            task = RunTask(order, place, pipeline.text, options.flags, options.auth_string)
            self._queue.note(order.id, state="running", mark="", message="")
            try:
                process = await self.executor.start(task)
            except OSError as error:
                log.warning("%s: %s", pipeline.pipeline.name, error)
                self._queue.note(order.id, state="waiting", message=str(error))
                return
        self._queue.note(
            order.id, state="running", mark=process.mark, message="", run="", is_stopped=False
        )
        self.jobs[order.id] = ManagedRun(order.id, pipeline, admission.group, process)

    def _take_over(self, order: Order) -> None:
        """Follow the process of an order that a killed `up` left at work, or note its end."""
        pipeline = self.pipelines.get(order.pipeline)
        if pipeline is None:
            return
        try:
            group = pipeline.group(order.inputs)
        except PipelineError:
            group = order.id
        process = self.executor.adopt(order.mark) if order.mark else None
        job = ManagedRun(order.id, pipeline, group, process or RunProcess(0), order.run)
        self.jobs[order.id] = job
        if process is not None:
            log.info("%s: run %s of order %s continued by itself", pipeline.pipeline.name,
                     order.run, order.id)  # fmt: skip
        else:
            job.stopped = "shutdown" if order.is_stopped else None
            self._follow_end(job, None, "its process is gone")

    # --- what processes report

    def _job_of(self, process: RunProcess) -> ManagedRun | None:
        return next((job for job in self.jobs.values() if job.process is process), None)

    def began(self, process: RunProcess, run: str) -> None:
        if (job := self._job_of(process)) is not None:
            job.run = run
            order = self._queue.note(job.order, run=run)
            name = job.pipeline.pipeline.name
            log.info("%s: run %s of order %s has begun (%s)", name, run, order.id, order.trigger)

    def shown_as(self, process: RunProcess, flow_run: str) -> None:
        if (job := self._job_of(process)) is not None:
            self._queue.note(job.order, flow_run=flow_run)

    def ended(self, process: RunProcess, outcome: Mapping[str, Any]) -> None:
        if (job := self._job_of(process)) is not None:
            self._follow_end(job, from_plain(OrderOutcome, outcome), "")

    def over(self, process: RunProcess, crash: str) -> None:
        """Take the end of a process; what it still had at work has crashed."""
        self._idle.pop(process, None)
        if (job := self._job_of(process)) is not None:
            self._follow_end(job, None, crash)
        self._queue.changed.set()

    # --- ending

    def stop_job(self, job: ManagedRun, why: StopReason, message: str) -> None:
        """Ask a run to drain; after a while stop it at once, then kill it."""
        if job.stopped is not None:
            return
        job.stopped = why
        name = job.pipeline.pipeline.name
        log.info("%s: run %s of order %s stops: %s", name, job.name, job.order, message)
        statuses: dict[str, Status] = {"cancelled": "interrupted", "suspended": "suspended"}
        status = statuses.get(why, "budget")

        async def drain() -> None:
            job.process.halt(StopRequest(message, is_gentle=True, status=status))
            await asyncio.sleep(GENTLE_S)
            stop_now(job.process)
            await asyncio.sleep(AT_ONCE_S)
            job.process.kill()

        task = asyncio.create_task(drain())
        job.tasks.add(task)
        task.add_done_callback(job.tasks.discard)

    def _follow_end(self, job: ManagedRun, outcome: OrderOutcome | None, crash: str) -> None:
        for task in job.tasks:
            task.cancel()
        self._ending.start(self._ended(job, outcome, crash))

    async def _ended(self, job: ManagedRun, outcome: OrderOutcome | None, crash: str) -> None:
        try:
            await self._judge_end(job, outcome, crash)
        except Exception:  # an error at one run's end must not stop the others
            log.exception("the end of run %s could not be handled", job.name)
        finally:
            self.jobs.pop(job.order, None)
            if job.process.can_take_orders and job.process.n_orders < MOST_OF_PROCESS:
                self._idle[job.process] = job.pipeline
            else:
                job.process.finish()
            self._queue.changed.set()

    async def _judge_end(self, job: ManagedRun, outcome: OrderOutcome | None, crash: str) -> None:
        """Note what becomes of an order whose run, or whose run's process, has ended.

        1. The run is suspended in Prefect: the order waits until it is resumed there.
        2. It crashed, or its ledger cannot be used now: it starts again later, unless that happened
           too often.
        3. It was stopped by its window, or as `paddock up` ends: it goes on.
        4. The order has ended; after 2 and 3 too, where its pipeline is gone or a later run of its
           schedule does the rest.
        """
        order, key = self._queue.orders[job.order], job.pipeline.key
        name, now = job.pipeline.pipeline.name, datetime.now(UTC)
        if outcome is None:  # it may have ended normally while no `up` was there
            known = await asyncio.to_thread(self._around.known_end, job.pipeline, order.id)
            if known is not None:
                job.run = known[0]
                outcome = OrderOutcome(known[1])
        end, message = end_of(outcome, job.stopped, crash)
        if end == "failed" and (fault := await self._around.check_ledger(job.pipeline)):
            end, message = "crashed", fault.rstrip(".")
        if end == "suspended" and job.stopped is None:  # 1
            self._queue.note(order.id, state="suspended", message=SUSPENDED)
            log.info("%s: run %s of order %s is suspended; it goes on when it is resumed in "
                     "Prefect", name, job.name, order.id)  # fmt: skip
            return
        if end == "crashed":  # 2
            restart = await self._restart_of_crashed(job, order, message, now)
        else:  # 3
            restart = restart_of_stopped(end, job.stopped, order.attempt, now)
        level = logging.ERROR if end in ("crashed", "failed") else logging.INFO
        log.log(level, "%s: run %s of order %s %s: %s", name, job.name, order.id, end, message)
        report = outcome.report if outcome is not None else None
        if report is not None:
            missing = (item.error or "" for item in report.items if item.state == "missing")
            self.missing[key] = tuple(missing)
        self.wants_rest = self.wants_rest or job.stopped == "window"
        is_wanted = key in self.pipelines or order.is_promised
        if restart and is_wanted and not is_superseded_by_schedule(order, job.pipeline, now):
            log.info("%s: order %s is queued again for %s: %s", name, order.id,
                     f"{restart.at.astimezone():%H:%M:%S}", restart.message)  # fmt: skip
            self._queue.note(
                order.id, state="waiting", message=restart.message, attempt=restart.attempt,
                not_before=restart.at.timestamp(),
            )  # fmt: skip
            return
        if end == "crashed" and restart is None:
            log.error(
                "%s: order %s is not started again: its run crashed too often.", name, order.id
            )
            alert = self._around.report_crashes(job.pipeline, message, job.name)
            self._telling.start(alert)
        self.faults.pop(key, None)
        if report is None and end == "failed":
            self.faults[key] = message
        self._end(order, end, message, is_shown=outcome is not None and outcome.is_shown)  # 4

    async def _restart_of_crashed(
        self, job: ManagedRun, order: Order, crash: str, now: datetime
    ) -> Restart | None:
        """Return when a crashed run starts again.

        A start that made progress is not counted: such a run comes to its end, since the ledger
        bounds how often an item may end it (`RunStore.has_progressed`).
        """
        has_progressed = bool(job.run) and await asyncio.to_thread(
            self._around.has_progressed, job.pipeline, job.run
        )
        n_starts = 1 if has_progressed else order.attempt
        return restart_of_crashed(crash, n_starts, self._options.max_restarts, now)

    def _end(self, order: Order, end: OrderEnd, message: str, *, is_shown: bool = False) -> None:
        self._admissions.pop(order.id, None)
        never_began = not (order.run or order.flow_run)
        over = self._queue.note(order.id, state="ended", end=end, message=message,
                                ended_at=time.time(), is_told=is_shown or never_began)  # fmt: skip
        self._around.note_ended(over)

    async def stop(self, within_s: float) -> None:
        """Stop all runs in bounded time; the next start continues them."""
        self.is_stopping = True
        for job in list(self.jobs.values()):
            if job.stopped is None:
                job.stopped = "shutdown"
                self._queue.note(job.order, is_stopped=True)
            for task in job.tasks:
                task.cancel()
            job.process.halt(StopRequest("`paddock up` was stopped", is_gentle=True))
        self._dismiss_idle()
        for share, act in ((0.4, stop_now), (0.3, RunProcess.kill), (0.2, None)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s * share):
                    while self.jobs:  # noqa: ASYNC110 - no event tells that the last one has ended
                        await asyncio.sleep(0.05)
            for job in list(self.jobs.values()):
                if act is not None:
                    act(job.process)
        self._dismiss_idle()

    def abandon(self) -> None:
        """Kill every process, after a moment in which they record that no item is the cause."""
        for job in self.jobs.values():
            if job.stopped != "cancelled":
                self._queue.note(job.order, is_stopped=True)
            stop_now(job.process)
        self._queue.write_now()
        time.sleep(ABANDON_S if self.jobs else 0)
        for job in self.jobs.values():
            job.process.kill()
