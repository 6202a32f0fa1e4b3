"""Reconcile deployments, planned cron runs, watches and webhooks with the pipeline files.

Planned runs also lie in Prefect, where people see them; the same moment twice is the same run. A
decision of a review continues its item at once: decisions are made on pages, in terminals and by
other processes, and all of them are rows of a ledger, so the ledgers are read every few seconds.
One run goes on with all decisions of one pipeline and its inputs, and is submitted once for the
same decisions.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from paddock.engine.system.retry import Backoff
from paddock.engine.system.text import canonical_json, counted
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.triggers import WebhookKeys
from paddock.runner.config import pipeline_secrets
from paddock.runner.core.concurrency import rendered_value
from paddock.runner.core.run_options import RunOptions
from paddock.runner.folders.file_filter import WatchSpec, watch_specs
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews import Review
from paddock.runner.progress.report import Report
from paddock.runner.review.decisions import ReviewDesk
from paddock.runner.watch.batches import BatchOutcome, BatchStatus, WatchBatch, batch_outcome
from paddock.runner.watch.handled_files import WatchLedger
from paddock.runner.watch.watch_loop import FolderWatch
from paddock.runner.workers.pipeline_flow import flow_of

from .cron import CronSchedule, missed, upcoming
from .discovery import FolderLocks
from .prefect_queue import PrefectQueue, QueuedRun
from .run_manager import Deployment, ManagedRun, RunManager
from .triggered_pipeline import TriggeredPipeline
from .webhooks import (
    MOST_INPUT_BYTES,
    AcceptedCall,
    CallReceipt,
    WebhookQueue,
    WebhookQueueFull,
    Webhooks,
    webhook_table,
)

SCHEDULE_PREFIX = "schedule "
MOST_AT_ONCE = 50  # each costs Prefect 30 ms, and others wait

log = logging.getLogger("paddock.up")


@dataclass
class _SchedulePlan:
    deployment: str
    owed: list[datetime] = field(default_factory=list)
    """Moments whose runs are not in the queue yet, the oldest first."""
    planned: datetime | None = None
    """The last moment whose run was planned."""


class SchedulePlanner:
    """Keeps planned runs in the queue. `plan` is called repeatedly."""

    def __init__(self, queue: PrefectQueue, run_manager: RunManager) -> None:
        self._prefect_queue = queue
        self._run_manager = run_manager
        self._plans: dict[tuple[str, str], _SchedulePlan] = {}

    async def plan(self, now: datetime | None = None) -> None:
        """Plan runs for every pipeline in service.

        Raises:
            QueueError: Prefect is away; the next call plans what is missing.
        """
        now = now or datetime.now(UTC)
        posts = self._run_manager.posts
        wanted = {(key, one.key) for key, post in posts.items() for one in post.triggered.schedules}
        for gone in self._plans.keys() - wanted:
            del self._plans[gone]
        for key, post in list(posts.items()):
            for timed in post.triggered.schedules:
                await self._one(key, post, timed, now)

    def next_times(self, key: str, now: datetime) -> list[str]:
        """Return the next times of a pipeline's schedules, for people."""
        post = self._run_manager.posts.get(key)
        times = (upcoming(one, now, 1) for one in post.triggered.schedules) if post else ()
        return sorted(f"{at.isoformat()}" for some in times for at in some)

    async def _one(self, key: str, post: Deployment, timed: CronSchedule, now: datetime) -> None:
        plan = self._plans.get((key, timed.key))
        if plan is None or plan.deployment != post.deployment:
            plan = await self._begun(post, timed, now)
            self._plans[key, timed.key] = plan
        await self._add_owed(plan, timed, now)
        for _ in range(min(MOST_AT_ONCE, len(plan.owed))):
            await self._submit(post, timed, plan.owed[0])
            plan.planned = plan.owed.pop(0)

    async def _add_owed(self, plan: _SchedulePlan, timed: CronSchedule, now: datetime) -> None:
        last = plan.owed[-1] if plan.owed else plan.planned
        ahead = upcoming(timed, now)
        if last is not None and last < now:  # the machine slept, or its clock was set forward
            plan.owed += await asyncio.to_thread(missed, timed, last, now)
        elif last is not None and ahead and last > ahead[-1]:
            last = None  # the clock was set back; runs in the queue are not queued twice
        plan.owed += [moment for moment in ahead if last is None or moment > last]

    async def _begun(self, post: Deployment, timed: CronSchedule, now: datetime) -> _SchedulePlan:
        """Return the plan of a new schedule, with the moments missed while `up` was not running."""
        last = await self._prefect_queue.last_before(post.deployment, timed.key, now)
        plan = _SchedulePlan(post.deployment)
        if last is not None:
            plan.owed = await asyncio.to_thread(missed, timed, last, now)
        if plan.owed:
            log.info("%s: %d run(s) of `%s` were missed", post.triggered.pipeline.name,
                     len(plan.owed), timed.cron)  # fmt: skip
        return plan

    async def _submit(self, post: Deployment, timed: CronSchedule, moment: datetime) -> None:
        key = f"{post.deployment}:{timed.key}:{moment.isoformat()}"
        await self._run_manager.submit(
            post, timed.key, key, at=moment, words="planned by its schedule"
        )

    async def forget(self, post: Deployment, runs: Collection[QueuedRun]) -> None:
        """Delete planned runs of schedules that a pipeline no longer has."""
        for run in outdated_runs(post, runs):
            await self._prefect_queue.delete(run.id)


def outdated_runs(post: Deployment, runs: Collection[QueuedRun]) -> Iterator[QueuedRun]:
    """Yield the waiting runs of schedules that a pipeline no longer has."""
    keys = {timed.key for timed in post.triggered.schedules}
    for run in runs:
        trigger = str(run.order.get("trigger", ""))
        is_ours = run.deployment == post.deployment and run.phase == "waiting"
        if is_ours and trigger.startswith(SCHEDULE_PREFIX) and trigger not in keys:
            yield run


WATCH_END_S = 8.0  # a watch writes its state within 5 s


OpenLedger = Callable[[Path, bool], Ledger]
"""Opens the ledger of a pipeline's folder; True: read-only."""


@dataclass
class _RunningWatch:
    watch: FolderWatch
    task: asyncio.Task[None]
    stop: asyncio.Event


class WatchManager:
    """All watches by pipeline. Lives in one event loop."""

    def __init__(self, run_manager: RunManager, opens: OpenLedger, max_attempts: int) -> None:
        self._run_manager = run_manager
        self._opens = opens
        self._max_attempts = max_attempts
        self._kept: dict[str, dict[WatchSpec, _RunningWatch]] = {}

    async def put(self, post: Deployment) -> None:
        """Start a pipeline's watches, and stop those that it no longer has."""
        bound = post.triggered.bound
        specs = watch_specs(bound) if bound is not None else ()
        kept = self._kept.setdefault(post.triggered.key, {})
        await _end_watches([kept.pop(spec) for spec in list(kept) if spec not in specs])
        for spec in specs:
            if spec not in kept:
                kept[spec] = self._begun(post.triggered, spec)

    async def drop(self, key: str) -> None:
        await _end_watches(list(self._kept.pop(key, {}).values()))

    async def stop(self) -> None:
        everything = [kept for many in self._kept.values() for kept in many.values()]
        self._kept.clear()
        await _end_watches(everything)

    def status(self, key: str) -> list[dict[str, Any]]:
        return [kept.watch.status() for kept in self._kept.get(key, {}).values()]

    def _begun(self, triggered: TriggeredPipeline, spec: WatchSpec) -> _RunningWatch:
        folder = triggered.file.parent

        def opens(is_readonly: bool) -> Ledger:
            return self._opens(folder, is_readonly)

        async def submit(batch: WatchBatch) -> None:
            await self._submit(triggered.key, watch, batch)

        watch = FolderWatch(
            spec,
            WatchLedger(spec.name, spec.root, triggered.file, opens),
            submit,
            note=log.warning,
            max_attempts=self._max_attempts,
        )
        stop = asyncio.Event()
        task = asyncio.create_task(watch.run(stop))
        task.add_done_callback(_log_if_broken)
        return _RunningWatch(watch, task, stop)

    async def _submit(self, key: str, watch: FolderWatch, batch: WatchBatch) -> None:
        post = self._run_manager.posts[key]

        async def ended(job: ManagedRun | None, status: str, report: Report | None) -> None:
            run = job.running.run if job else ""
            outcome = await asyncio.to_thread(self._outcome, post, run, status, report)
            await watch.done(batch, outcome)

        made = await self._run_manager.submit(
            post,
            f"watch {watch.spec.root.name}",
            batch.idempotency_key,
            words=_batch_text(batch),
            ended=ended,
            retry_failed=batch.retries_failed,
        )
        if made.phase == "ended":  # it ran before `paddock up` was killed
            outcome = await asyncio.to_thread(self._outcome, post, made.name, made.end, None)
            await watch.done(batch, outcome)

    def _outcome(
        self, post: Deployment, run: str, status: str, report: Report | None
    ) -> BatchOutcome:
        """Return how a run ended, with each item's outcome from the ledger."""
        otherwise: BatchStatus = status  # type: ignore[assignment]
        if not run:
            return BatchOutcome(run, otherwise)
        try:
            with self._opens(post.triggered.file.parent, True) as ledger:
                return batch_outcome(ledger, run, otherwise, (report and report.message) or "")
        except LedgerError as error:
            return BatchOutcome(run, "crashed", message=str(error))


async def _end_watches(kept: list[_RunningWatch]) -> None:
    for one in kept:
        one.stop.set()
    tasks = {one.task for one in kept}
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=WATCH_END_S)
        for task in late:
            task.cancel()


def _log_if_broken(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("a watch has ended: %r", task.exception())


def _batch_text(batch: WatchBatch) -> str:
    names = [seen.relpath for seen in batch.files] or list(batch.gone)
    more = len(batch.files) + len(batch.gone) - 1
    return names[0] + (f" and {more} more" if more > 0 else "") if names else "nothing"


TRIGGER = "review"
_AGAIN = Backoff(10.0, 600.0)  # a run that was skipped or ended early

_T = TypeVar("_T")
AskDesks = Callable[[Callable[[Sequence[ReviewDesk]], _T]], Awaitable[_T]]
"""Calls a function with the open desks, in their thread."""


@dataclass(frozen=True, slots=True)
class DecidedRun:
    """A run that decisions wait for."""

    file: Path
    given: str
    """The recorded inputs of the run that asked, as JSON."""
    decisions: tuple[tuple[str, float], ...]
    """Id and time of each."""

    @property
    def place(self) -> tuple[Path, str]:
        return self.file, self.given

    @property
    def digest(self) -> str:
        """The same for the same decisions."""
        return hashlib.sha256(canonical_json(self.decisions).encode()).hexdigest()[:16]

    def inputs(self) -> dict[str, Any] | None:
        """Return the inputs that were given; None if one of them is secret, so not recorded."""
        given = json.loads(self.given)
        return None if given.get("hidden") else dict(given.get("inputs") or {})


def decided_runs(desks: Sequence[ReviewDesk]) -> list[DecidedRun]:
    """Return the runs for what was decided, or has expired, and was not gone on with."""
    found: dict[tuple[Path, str], list[tuple[str, float]]] = {}
    for desk in desks:
        folder = desk.ledger.folder.parent
        for file, given, review in _asked(desk):
            at = review.decided_at or review.expires_at or 0.0
            found.setdefault((folder / file, given), []).append((review.id, at))
    return [DecidedRun(*place, tuple(sorted(some))) for place, some in sorted(found.items())]


def _asked(desk: ReviewDesk) -> Iterator[tuple[str, str, Review]]:
    """Yield each review that a run can go on with, and the file and inputs of the run."""
    runs: dict[str, tuple[str, str]] = {}
    for review in desk.undone():
        if review.run not in runs:
            row = desk.ledger.run(review.run)  # old runs are forgotten
            file = row.file if row else str(review.subject.get("pipeline") or "")
            runs[review.run] = (file, (row.given if row else None) or "{}")
        yield (*runs[review.run], review)


@dataclass(slots=True)
class _Submitted:
    """What became of the last run for a place."""

    digest: str = ""
    is_running: bool = False
    n_failures: int = 0
    not_before: float = 0.0


class ReviewRuns:
    """Submits runs for decisions. `look` is called repeatedly, in one event loop."""

    def __init__(self, run_manager: RunManager, ask: AskDesks[list[DecidedRun]]) -> None:
        self._run_manager = run_manager
        self._ask = ask
        self._last: dict[tuple[Path, str], _Submitted] = {}

    async def look(self) -> None:
        """Submit a run for each pipeline whose decisions no run has gone on with.

        Raises:
            QueueError: Prefect is away; the next call submits what is missing.
            LedgerError: a ledger cannot be read.
        """
        posts = {post.triggered.file.resolve(): post for post in self._run_manager.posts.values()}
        for due in await self._ask(decided_runs):
            post = posts.get(due.file.resolve())
            if post is not None and not self._is_busy(post):
                await self._submit(post, due)

    def _is_busy(self, post: Deployment) -> bool:
        """Return whether a run of the pipeline goes on: `on_conflict` may skip or cancel others."""
        jobs = self._run_manager.jobs.values()
        return any(job.post.triggered.key == post.triggered.key for job in jobs)

    async def _submit(self, post: Deployment, due: DecidedRun) -> None:
        last = self._last.setdefault(due.place, _Submitted())
        if last.is_running or time.monotonic() < last.not_before:
            return
        if last.digest == due.digest and not last.n_failures:  # a run was made, and left them
            return
        if last.digest != due.digest:
            last.n_failures = 0
        inputs, name = due.inputs(), post.triggered.pipeline.name
        if inputs is None:
            last.digest = due.digest
            log.warning(
                "%s: decisions wait for a run with its secret inputs: run it by hand.", name
            )
            return

        async def ended(job: ManagedRun | None, status: str, report: Report | None) -> None:
            _note_end(last, status)

        made = await self._run_manager.submit(
            post,
            TRIGGER,
            f"{post.deployment}:{TRIGGER}:{due.digest}:{last.n_failures}",
            inputs=inputs,
            words=f"goes on with {counted(len(due.decisions), 'decision')}",
            ended=ended,
        )
        last.digest, last.is_running = due.digest, made.phase != "ended"
        if made.phase == "ended":  # it ran before `paddock up` was started again
            _note_end(last, made.end)


def _note_end(last: _Submitted, status: str) -> None:
    """Note a run's end: one that did its work is not repeated for the same decisions."""
    last.is_running = False
    if status in ("completed", "quarantined", "failed"):
        last.n_failures = 0
        return
    last.n_failures += 1
    last.not_before = time.monotonic() + _AGAIN.pause_s(last.n_failures)


MOST_HANDED_OVER = 50
"""Waiting runs of a pipeline in Prefect at which its webhook calls stay in their own table."""
MOST_TOGETHER = 200
"""Calls of one run. A run of its own costs Prefect and a process 1 to 3 s of processor time."""

MOST_LOOKED_AT = 500


def calls_together(
    calls: Sequence[AcceptedCall], group_of: Callable[[AcceptedCall], str]
) -> list[list[AcceptedCall]]:
    """Return the calls that can be one run: of one trigger and concurrency group, in their order.

    Runs of one group go one after the other in any case. Prefect takes a bounded size.
    """
    found: dict[tuple[str, str], list[AcceptedCall]] = {}
    sizes = Counter[tuple[str, str]]()
    full: set[tuple[str, str]] = set()
    for call in calls:
        kind = (call.trigger, group_of(call))
        size = len(json.dumps(dict(call.inputs))) + len(call.id)
        some = found.setdefault(kind, [])
        is_full = len(some) >= MOST_TOGETHER or sizes[kind] + size > MOST_INPUT_BYTES / 2
        if some and (is_full or kind in full):
            full.add(kind)  # a later small one must not come before
            continue
        some.append(call)
        sizes[kind] += size
    return list(found.values())


class Reconciler:
    """Keeps the pipelines in service, with their schedules, watches and webhooks."""

    def __init__(
        self,
        queue: PrefectQueue,
        run_manager: RunManager,
        watching: WatchManager,
        folder_locks: FolderLocks,
        calls: WebhookQueue,
        *,
        is_open: bool,
    ) -> None:
        """`is_open`: other machines can reach the address for webhooks."""
        self.hooks = Webhooks(self._called)
        self.planner = SchedulePlanner(queue, run_manager)
        self.watching = watching
        self._prefect_queue = queue
        self._run_manager = run_manager
        self._folder_locks = folder_locks
        self._calls = calls
        self._is_open = is_open
        self._warned: set[str] = set()

    async def reconcile(
        self, wanted: Mapping[str, TriggeredPipeline], *, is_forced: bool = False
    ) -> None:
        """Put these pipelines in service, and no others; `is_forced`: even those that seem to be.

        Raises:
            QueueError: Prefect is away; another call does the rest.
        """
        posts = self._run_manager.posts
        for key in [key for key in posts if key not in wanted]:
            await self._withdraw(posts[key], wanted)
        for key, triggered in wanted.items():
            if is_forced or key not in posts or posts[key].triggered is not triggered:
                await self._put(key, triggered)
        self.serve_hooks([post.triggered for post in posts.values()])

    def serve_hooks(self, triggered: Sequence[TriggeredPipeline]) -> None:
        """Accept webhook calls of these pipelines, and no others; not all are in service yet."""
        hooks, told = webhook_table(triggered, self._secret)
        self.hooks.hooks = hooks
        for words in told:
            self.warn(words)

    def warn(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            log.warning("%s", words)

    async def _put(self, key: str, triggered: TriggeredPipeline) -> None:
        """Put a pipeline in service, or replace its old form."""
        posts, pipeline = self._run_manager.posts, triggered.pipeline
        schema = None
        try:
            flow = flow_of(triggered.file, RunOptions(text=triggered.text))
            schema = flow.parameters.model_dump()
        except Exception as error:  # of Prefect or Pydantic; its runs say so as well
            self.warn(f"{key}: Prefect's form for a run does not show its inputs: {error}")
        made = await self._prefect_queue.deploy(
            key, pipeline.name, triggered.version, pipeline.description, schema
        )
        old, post = posts.get(key), Deployment(triggered, made)
        if old is not None and old.deployment != made:  # it has another name now
            await self._prefect_queue.undeploy(old.deployment)
        await self.planner.forget(post, await self._prefect_queue.open_runs([made]))
        posts[key] = post
        await self.watching.put(post)

    async def _withdraw(self, post: Deployment, wanted: Mapping[str, TriggeredPipeline]) -> None:
        """Take a pipeline out of service; a running run continues to its end."""
        key = post.triggered.key
        await self.watching.drop(key)
        for run in await self._prefect_queue.open_runs([post.deployment]):
            if run.phase == "waiting":
                await self._run_manager.skip_run(run, post, "its pipeline no longer exists")
        await self._prefect_queue.undeploy(post.deployment)
        self._run_manager.posts.pop(key, None)
        folder = post.triggered.file.parent.resolve()
        if not any(one.file.parent.resolve() == folder for one in wanted.values()):
            self._folder_locks.release(folder)

    async def forget_gone(self, folders: Sequence[Path]) -> None:
        """Delete deployments of files below our folders that no longer exist.

        Raises:
            QueueError: Prefect is away.
        """
        for id_, file in (await self._prefect_queue.deployments()).items():
            if await asyncio.to_thread(_is_file_gone, Path(file), folders):
                await self._prefect_queue.undeploy(id_)

    async def _called(self, call: AcceptedCall) -> CallReceipt:
        """Store a webhook's call.

        Raises:
            WebhookQueueFull: too many calls of this pipeline wait.
            WebhookQueueBroken: it cannot be written.
        """
        if self._run_manager.is_stopping:
            raise WebhookQueueFull("`paddock up` is stopping.")
        if self._calls.is_full(call.pipeline):
            raise WebhookQueueFull("too many calls of this pipeline wait already.")
        return await self._calls.put(call)

    async def hand_over(self) -> None:
        """Submit stored calls to Prefect, the oldest first.

        Those that wait together are one run where that changes nothing; calls that a newer one
        replaces, or that are skipped, are runs of their own. A run has the key of its first call,
        so calls that are submitted again after a crash are the same run. Prefect gets a few at a
        time: with hundreds of waiting runs each of its answers takes seconds.

        Raises:
            QueueError: Prefect is away; another call does the rest.
            WebhookQueueBroken: the table cannot be read or written.
        """
        self._calls.arrived.clear()
        for key in [key for key, n in self._calls.waiting.items() if n > 0]:
            post = self._run_manager.posts.get(key)
            if post is None:  # its file may come back
                continue
            n_free = MOST_HANDED_OVER - self._run_manager.n_waiting(post)
            if n_free <= 0:
                continue
            if post.triggered.rule.on_conflict != "queue":
                for call in await self._calls.oldest(key, n_free):
                    await self._submit_calls(post, [call])
                continue
            waiting = self._waiting_groups(post)
            group_of = partial(_group_of, post)
            for some in calls_together(await self._calls.oldest(key, MOST_LOOKED_AT), group_of):
                # The others wait here, to be one run when this one has begun.
                if (some[0].trigger, group_of(some[0])) not in waiting and n_free > 0:
                    n_free -= 1
                    await self._submit_calls(post, some)

    def _waiting_groups(self, post: Deployment) -> set[tuple[str, str]]:
        """Return triggers and groups of a pipeline's runs that have not begun."""
        runs = (run for run in self._run_manager.queue if run.deployment == post.deployment)
        return {
            (str(run.order.get("trigger")), _group_or_own(post, run.order.get("inputs")))
            for run in runs
        }

    async def _submit_calls(self, post: Deployment, calls: Sequence[AcceptedCall]) -> None:
        first = calls[0]
        more: dict[str, Any] = {}
        if calls[1:]:
            more["calls"] = [{"id": call.id, "inputs": dict(call.inputs)} for call in calls]
        made = await self._run_manager.submit(
            post,
            first.trigger,
            f"{post.deployment}:{first.id}",
            inputs=dict(first.inputs),
            at=datetime.fromtimestamp(first.received_at, UTC),
            words="called by its webhook",
            **more,
        )
        # After a crash it may be the run that was made before, with fewer calls.
        taken = {str(call["id"]) for call in made.order.get("calls") or ()} | {first.id}
        await self._calls.queued([call for call in calls if call.id in taken], made.id)
        if made.phase == "waiting":
            self._run_manager.queue.append(made)
        self._run_manager.wake.set()

    def _secret(self, triggered: TriggeredPipeline, webhook: WebhookKeys) -> str | None:
        at = ("on", "webhook", triggered.webhooks.index(webhook), "secret")
        if webhook.secret is None:
            if not self._is_open:
                return None
            what = f"webhook '{webhook.path}' has no secret, and other machines may call it."
            raise PipelineError([Fault(what, "Add a `secret`.", triggered.pipeline.mark(at[:-1]))])
        scope: dict[str, object] = {"inputs": {}}
        if "secrets" in webhook.secret:
            scope["secrets"] = pipeline_secrets.read_secrets(triggered.pipeline, os.environ).values
        return str(rendered_value(triggered.pipeline, webhook.secret, scope, at))


def _group_of(post: Deployment, call: AcceptedCall) -> str:
    return _group_or_own(post, call.inputs)


def _group_or_own(post: Deployment, inputs: Mapping[str, Any] | None) -> str:
    """Return the concurrency group of a run; one whose inputs are no longer right has its own."""
    try:
        return post.triggered.group(inputs or {})
    except PipelineError:
        return f"inputs {json.dumps(dict(inputs or {}), sort_keys=True)}"


def _is_file_gone(file: Path, folders: Sequence[Path]) -> bool:
    """Return whether a file is gone rather than its whole folder."""
    is_ours = any(file.is_relative_to(folder.absolute()) for folder in folders)
    return is_ours and not file.exists() and file.parent.exists()
