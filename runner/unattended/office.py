"""Carry out what `dispatch` decides: start runs, hold them, see to their ends.

The queue is Prefect's. Knows no files and no clocks of schedules: others say which pipelines
stand ready, and submit runs. Lives in one loop; what asks Prefect may fail for a while and is done
again in the next round.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from paddock.pipelines.errors import PipelineError
from paddock.runner.report import Report
from paddock.runner.signing import Signer

from .admission import Refused, admitted
from .child import Task
from .dispatch import Active, Close, Due, Hold, Rule, Skip, Start, dispatch
from .endings import Done, Ending, GoOn, Stopped, follow
from .executor import End, Executor, Running, is_elsewhere
from .jobs import Job, Post, at_once, brought_to_end, by_force, is_superseded, tell_end
from .tracked import AGAIN, HELD, MOST_READ, Board, Gone, Tracked, TrackedError

ABANDON_S = 0.3  # a commit takes some milliseconds

log = logging.getLogger("paddock.up")


Ended = Callable[[Job | None, str, Report | None], Awaitable[None]]
"""Told when a submitted run is over for good: its job, a status, its report where it gave one."""


class Office:
    """Everything that is at work or waits for it."""

    def __init__(
        self,
        board: Board,
        signer: Signer,
        *,
        max_runs: int,
        max_restarts: int,
        flags: Mapping[str, object],
        given_up: Callable[[Post, str, str], Coroutine[Any, Any, None]],
        has_progressed: Callable[[Post, str], bool] = lambda post, run: False,
        known_end: Callable[[Post, str], Report | None] = lambda post, run: None,
        auth_string: str = "",
    ) -> None:
        """Take what it works with; it starts nothing yet.

        `has_progressed` says of a run that crashed whether the next start may get further,
        `known_end` how a run ended by its ledger, None where it does not say,
        `auth_string` is of our own Prefect server; it is empty where the server is another's.
        """
        self.posts: dict[str, Post] = {}
        """By the pipeline's key."""
        self.jobs: dict[str, Job] = {}
        """By the flow run's id."""
        self.queue: list[Tracked] = []
        """What waited in the last round."""
        self.wake = asyncio.Event()
        """Set when there may be something to do at once."""
        self.is_stopping = False
        self.wants_rest = False
        """A window has closed: what is in memory may go."""
        self.missing: dict[str, tuple[str, ...]] = {}
        """By pipeline: why its last run did not take missing documents for deleted."""
        self.lacks_deployments = False
        """Somebody deleted a deployment of ours: they have to be made anew."""
        self.executor = Executor(self._began)
        self._board = board
        self._signer = signer
        self._auth_string = auth_string
        self._max_runs, self._max_restarts = max_runs, max_restarts
        self._flags = dict(flags)
        self._given_up = given_up
        self._has_progressed = has_progressed
        self._known_end = known_end
        self._waiting: dict[str, Ended] = {}
        self._following: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._owed: list[Callable[[], Awaitable[None]]] = []

    # --- what others ask for

    async def submit(
        self,
        post: Post,
        trigger: str,
        key: str,
        *,
        inputs: Mapping[str, Any] | None = None,
        at: datetime | None = None,
        words: str = "",
        ended: Ended | None = None,
        **more: Any,
    ) -> Tracked:
        """Put a run into the queue; `ended` is told when it is over for good, restarts included.

        Raises:
            TrackedError: Prefect does not take it now.
        """
        file = str(post.standing.file)
        parameters = {"path": file, "inputs": dict(inputs or {}), "trigger": trigger, **more}
        due = at or datetime.now(UTC)
        try:
            made = await self._board.submit(
                post.deployment, parameters, key=key, at=due, words=words
            )
            while made.phase == "ended" and (next_ := await self._board.successor(made.id)):
                made = next_  # it was started again since
        except Gone:
            self.lacks_deployments = True
            self.wake.set()
            raise
        if ended is not None and made.phase != "ended":
            self._waiting[made.id] = ended
        if at is None:
            self.wake.set()
        return made

    def n_waiting(self, post: Post) -> int:
        """Return how many runs of a pipeline waited in the last round."""
        return sum(run.deployment == post.deployment for run in self.queue)

    # --- one round

    async def round(self) -> None:
        """Look at the queue once, and act.

        Raises:
            TrackedError: Prefect is away.
        """
        await self._pay()
        by_id = {post.deployment: post for post in self.posts.values()}
        ours = set(self.jobs)  # one that ends while this is read is none that somebody left
        found = await self._board.open_runs(by_id)
        runs = [run for one in found if (run := await self._admitted(one, by_id)) is not None]
        for run in runs:
            if run.phase in ("running", "cancelling") and run.id not in (ours | self.jobs.keys()):
                await self._found(run, by_id[run.deployment])
            elif run.phase == "cancelling" and run.id in self.jobs:
                self.stop_job(self.jobs[run.id], "cancelled", "it was cancelled in Prefect")
        self.queue = [run for run in runs if run.phase == "waiting" and run.id not in self.jobs]
        if len(found) < MOST_READ:
            await self._hear_of({run.id for run in found}, by_id)
        if self.is_stopping:
            return
        await self._decide(by_id)

    async def _admitted(self, run: Tracked, by_id: Mapping[str, Post]) -> Tracked | None:
        """Return a run with the parameters that count; None: it was refused."""
        if run.id in self.jobs:
            return run
        post = by_id[run.deployment]
        try:
            parameters = admitted(
                run.parameters, run.key, post.standing, self._signer,
                is_own_server=bool(self._auth_string),
            )  # fmt: skip
        except Refused as error:
            name = post.standing.pipeline.name
            log.warning("%s: run '%s' of Prefect is refused: %s", name, run.name, error)
            await self._board.failed(run.id, f"Refused: {error}")
            await self._tell(run.id, None, "failed", None)
            return None
        process = self._signer.process(run.id, run.process)
        return replace(run, parameters=parameters, process=process)

    async def _hear_of(self, open_: Collection[str], by_id: Mapping[str, Post]) -> None:
        """Tell of runs that ended without having begun: somebody cancelled or deleted them."""
        for id_ in [one for one in self._waiting if one not in open_ and one not in self.jobs]:
            run = await self._board.read(id_)
            if run is None or run.phase == "ended":
                await self._tell(id_, None, run.end if run else "interrupted", None)
            elif run.deployment not in by_id:  # its deployment was deleted
                await self._board.skip(id_, "its deployment is no longer there")
                await self._tell(id_, None, "skipped", None)

    async def _decide(self, by_id: Mapping[str, Post]) -> None:
        now = datetime.now(UTC)
        waiting = {run.id: run for run in self.queue if run.is_held or run.at <= now}
        due = [one for run in waiting.values() if (one := await self._due(run, by_id)) is not None]
        groups = {one.id: one.group for one in due}
        active = [
            Active(id_, job.running.run or job.tracked.name, job.post.standing.key, job.group,
                   is_ending=job.stopped is not None)
            for id_, job in self.jobs.items()
        ]  # fmt: skip
        rules: dict[str, Rule] = {key: post.standing.rule for key, post in self.posts.items()}
        for decision in dispatch(due, active, rules, now, self._max_runs):
            match decision:
                case Start(id_):
                    run = waiting[id_]
                    await self._start(run, by_id[run.deployment], groups[id_])
                case Hold(id_, words, until):
                    if waiting[id_].shown != f"{HELD}: {words}":
                        await self._board.hold(id_, words, until)
                case Skip(id_, words):
                    await self.leave_out(waiting[id_], by_id[waiting[id_].deployment], words)
                case Close(id_, words, is_again):
                    self.stop_job(self.jobs[id_], "window" if is_again else "cancelled", words)

    async def _due(self, run: Tracked, by_id: Mapping[str, Post]) -> Due | None:
        post = by_id[run.deployment]
        try:
            group = post.standing.group(run.parameters.get("inputs") or {})
        except PipelineError as error:
            await self.leave_out(run, post, error.faults[0].message)
            return None
        trigger = str(run.parameters.get("trigger", ""))
        return Due(run.id, post.standing.key, trigger, run.at, group, run.is_held)

    async def leave_out(self, run: Tracked, post: Post, words: str) -> None:
        """Take a run that waits out of the queue for good."""
        log.info("%s: a run is left out: %s", post.standing.pipeline.name, words)
        await self._board.skip(run.id, words)
        await self._tell(run.id, None, "skipped", None)

    # --- starting

    async def _start(self, run: Tracked, post: Post, group: str) -> None:
        """Start a run, and show who carries it out."""
        await self._board.claim(run.id)
        standing = post.standing
        task = Task(
            run.id,
            run.parameters,
            standing.text,
            self._flags,
            self._board.api_url,
            self._auth_string,
            standing.agreed,
        )
        try:
            running = await self.executor.start(task)
        except OSError as error:
            log.warning("%s: %s", post.standing.pipeline.name, error)
            await self._board.hold(run.id, str(error), None)
            return
        job = Job(run, post, group, running)
        self._take(job)
        await self._board.started(run.id, running.mark)

    def _take(self, job: Job) -> None:
        self.jobs[job.tracked.id] = job
        task = asyncio.create_task(self._follow(job))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _found(self, run: Tracked, post: Post) -> None:
        """See to a run that another `paddock up` began, which was killed."""
        if is_elsewhere(run.process):
            return
        running = self.executor.adopt(run.process) if run.process else None
        try:
            group = post.standing.group(run.parameters.get("inputs") or {})
        except PipelineError:
            group = run.id
        if running is not None:
            log.info("%s: run %s went on by itself", post.standing.pipeline.name, run.name)
            running.run = run.name
            self._take(Job(run, post, group, running, is_adopted=True))
            return
        running = Running(0)
        running.ended.set_result(End())
        self._take(Job(run, post, group, running))

    def _began(self, running: Running) -> None:
        for job in self.jobs.values():
            if job.running is running:
                trigger = job.tracked.parameters.get("trigger", "")
                name = job.post.standing.pipeline.name
                log.info("%s: run %s has begun (%s)", name, running.run, trigger)

    # --- ending

    def stop_job(self, job: Job, why: Stopped, words: str) -> None:
        """Tell a run to stop: at an item's border, at once when that takes long, then by force."""
        if job.stopped is not None:
            return
        job.stopped = why
        log.info("%s: run %s is to stop: %s", job.post.standing.pipeline.name,
                 job.running.run or job.tracked.name, words)  # fmt: skip
        task = asyncio.create_task(
            brought_to_end(job.running, words, is_cancelled=why == "cancelled")
        )
        job.tasks.add(task)
        task.add_done_callback(job.tasks.discard)

    async def _follow(self, job: Job) -> None:
        """Wait for a run's end and see to what follows."""
        end = await asyncio.shield(job.running.ended)
        for task in job.tasks:
            task.cancel()

        async def see_to_it() -> None:
            await self._settle(job, end)

        try:
            await see_to_it()
        except TrackedError as error:
            log.warning("%s; it is told later how run %s ended.", error, job.running.run)
            self._owed.append(see_to_it)
        except Exception:  # one run's end must not leave the others waiting for it
            log.exception("the end of run %s could not be seen to", job.running.run)
            self.jobs.pop(job.tracked.id, None)
        finally:
            self.wake.set()

    async def _pay(self) -> None:
        """Do what could not be done while Prefect was away."""
        while self._owed:
            try:
                await self._owed[0]()
            except TrackedError:
                raise
            except Exception:
                log.exception("the end of a run could not be seen to")
            self._owed.pop(0)

    async def _settle(self, job: Job, end: End) -> None:
        """Write down how a run ended, and start it again if that is due."""
        shown = await self._board.read(job.tracked.id)
        if end.crash is not None and job.stopped is None:
            # It may have ended in order while neither `up` nor Prefect was there to be told.
            run = job.running.run or job.tracked.name
            report = await asyncio.to_thread(self._known_end, job.post, run)
            end = end if report is None else End(report, has_spoken=True)
        ending = self._ending(job, end, shown)
        if ending.crash is not None:
            run = job.running.run or job.tracked.name
            got_on = await asyncio.to_thread(self._has_progressed, job.post, run)
            ending = replace(ending, has_progressed=got_on)
        if shown is not None and shown.phase != "ended":
            await self._show(job, end, ending)
        now = datetime.now(UTC)
        next_ = follow(ending, now, max_restarts=self._max_restarts)
        if isinstance(next_, GoOn) and is_superseded(job, now):
            next_ = Done()
        if isinstance(next_, GoOn):
            await self._again(job, next_)
        self.jobs.pop(job.tracked.id, None)
        if end.report is not None:
            missing = (item.error or "" for item in end.report.items if item.state == "missing")
            self.missing[job.post.standing.key] = tuple(missing)
        self.wants_rest = self.wants_rest or job.stopped == "window"
        tell_end(job, end, ending, next_)
        if isinstance(next_, Done):
            run = job.running.run or job.tracked.name
            if next_.is_given_up:
                telling = asyncio.create_task(self._given_up(job.post, run, ending.crash or ""))
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)
            status = "crashed" if ending.crash else ending.status
            job.running.run = run
            await self._tell(job.tracked.id, job, status, end.report)

    def _ending(self, job: Job, end: End, shown: Tracked | None) -> Ending:
        """Tell how a run ended: by its own words, else by what Prefect has of it."""
        crash, status = end.crash, str(end.report.status) if end.report else "failed"
        told = shown.end if shown is not None else ""
        if crash is not None and job.is_adopted and told not in ("", "crashed"):
            crash, status = None, told
        if crash is not None and job.stopped is not None:
            crash, status = None, "interrupted"  # it was ended by force
        return Ending(job.attempt, crash, status, job.stopped)

    async def _show(self, job: Job, end: End, ending: Ending) -> None:
        """Give a flow run its last state, where its process could not."""
        if ending.crash is not None:
            await self._board.crashed(job.tracked.id, ending.crash)
        elif end.report is not None and end.report.status in ("completed", "quarantined"):
            await self._board.completed(job.tracked.id, end.report.message or "")
        elif ending.status in ("interrupted", "budget"):
            await self._board.cancelled(job.tracked.id, "It was told to stop.")
        else:
            message = end.report.message if end.report else end.words
            await self._board.failed(job.tracked.id, message or "")

    async def _again(self, job: Job, next_: GoOn) -> None:
        """Put a run into the queue again, as a fresh one that goes on with it."""
        old = job.tracked
        parameters = {**old.parameters, "attempt": next_.attempt, "parent": old.id}
        parameters["root"] = old.parameters.get("root") or old.id
        # The ledger knows by it what all starts have done together.
        parameters["job"] = old.parameters.get("job") or job.running.run or old.name
        made = await self._board.submit(
            job.post.deployment, parameters, key=f"{old.id}{AGAIN}", at=next_.at, words=next_.words
        )
        if old.id in self._waiting:
            self._waiting[made.id] = self._waiting.pop(old.id)

    async def _tell(self, id_: str, job: Job | None, status: str, report: Report | None) -> None:
        """Tell whoever submitted a run that it is over."""
        ended = self._waiting.pop(id_, None)
        if ended is not None:
            await ended(job, status, report)

    async def stop(self, within_s: float) -> None:
        """End everything at work in bounded time; it goes on at the next start."""
        self.is_stopping = True
        for job in list(self.jobs.values()):
            if job.stopped is None:
                job.stopped = "shutdown"
            for task in job.tasks:
                task.cancel()
            job.running.halt("`paddock up` was ended", is_gentle=True, is_passed_on=True)
        for share, act in ((0.4, at_once), (0.3, by_force), (0.2, None)):
            if not self._following:
                break
            await asyncio.wait(self._following, timeout=within_s * share)
            for job in list(self.jobs.values()):
                if act is not None:
                    act(job.running)

    def abandon(self) -> None:
        """End every process by force, after a moment to note that no item is the reason."""
        for job in self.jobs.values():
            at_once(job.running)
        time.sleep(ABANDON_S if self.jobs else 0)
        for job in self.jobs.values():
            by_force(job.running)
