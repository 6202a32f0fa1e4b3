"""Open and close what a run or a plan needs: ledger, locks, claims, pool, tools, journal, name."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Container, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paddock.engine.request import Pool
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.protected_files import ProtectedFiles
from paddock.runner.bind.subpipelines import all_plans, progress_line_names
from paddock.runner.config.pipeline_secrets import Secrets
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger, has_folder_identity
from paddock.runner.ledger.outputs import OutputIndex
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.events import LineWriter, MultiObserver, Observer, RunJournal
from paddock.runner.progress.report import Report
from paddock.runner.settings import Settings
from paddock.steps.readers.reader_pool import ReaderLimits, ReaderPool
from paddock.steps.vectors.open_stores import OpenStores

from .cleanup import sweep_temporary_files
from .concurrency import WorkClaims, group_turn, open_claims
from .fingerprints import canonical_json
from .model_pools import open_pools
from .retry_and_quarantine import CrashSuspects
from .run_records import RunStats
from .staleness import RunOptions, Work
from .step_context import CallTape, Toolbox, open_tool_runtime

if TYPE_CHECKING:
    from paddock.runner.daemon.run_session import DaemonSession

    from .speed_estimates import SpeedBook

_ADJECTIVES = (
    "amber bold brave bright brisk calm clear clever crisp deft eager early fair fleet fond gentle "
    "glad golden grand happy hardy honest jolly keen kind light lively loyal lucid merry mild neat "
    "nimble patient plain prompt proud quick quiet rapid ready sharp silent sleek smart snug sound "
    "steady still sunny swift tidy true vivid warm wise witty young zesty"
)
_NOUNS = (
    "badger bear beaver bison bittern crane curlew deer dingo dove eagle egret falcon ferret finch "
    "fox gannet gecko gull hare hawk heron ibex jay kestrel kite lark linnet lynx magpie marten "
    "merlin mole newt ocelot osprey otter owl petrel pika plover puffin quail rabbit raven robin "
    "seal shrew sparrow stoat stork swallow swan tern thrush toad trout vole weasel wren"
)


def new_run_name(taken: Container[str]) -> str:
    """Return a name that is not taken.

    >>> new_run_name(()).count("-")
    1
    """
    choice = random.SystemRandom().choice
    name = f"{choice(_ADJECTIVES.split())}-{choice(_NOUNS.split())}"
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


STATE_FOLDER = ".paddock"


@dataclass(frozen=True, slots=True)
class RunSession:
    """One run's or plan's open things."""

    bound: BoundPlan
    work: Work
    toolbox: Toolbox
    began: float
    speeds: SpeedBook | None = None
    """For a plan, what was measured of the models; None where another's pool serves."""
    counts_exactly: bool = True
    """For a plan, whether tokens are counted on this machine: no text is sent elsewhere."""

    @property
    def tally(self) -> RunStats:
        """The run's numbers."""
        return self.toolbox.tally

    def begin(self) -> None:
        """Note that the run has started, in the ledger and for the observer."""
        self._note({"ended": None, "status": "running", "summary": None})
        tally = self.tally
        tally.observer.began(tally.run, tally.pipeline, [*progress_line_names(self.bound.nodes)])
        stats = getattr(self.toolbox.pool, "stats", None)
        if stats is not None:
            tally.observer.pool(stats)

    def end(self, report: Report) -> None:
        """Note how the run ended."""
        summary = {name: value for name, value in report.as_json().items() if name != "items"}
        summary["steps"] = report.steps
        summary["done"] = [len(report.written), report.n_removed, len(report.acted)]
        summary["returns"] = None  # may be large, and may hold what the author wants kept nowhere
        row: dict[str, Any] = {"ended": time.time(), "status": report.status}
        row["summary"] = json.dumps(summary)
        row["message"] = report.message
        if self.work.ledger.error is None:
            self._note(row)
        self.tally.observer.ended(report)

    def loads(self) -> Mapping[str, Mapping[str, float]]:
        """Return how often each model was loaded, and how long that took."""
        stats = getattr(self.toolbox.pool, "stats", None)  # other pools need not count
        loads = stats().loads if stats is not None else {}
        return {
            name: {"loads": count.loads, "load_s": round(count.load_s, 3)}
            for name, count in loads.items()
        }

    def _given(self) -> str:
        """Write down what the run was given by hand, so that another can go on with it."""
        hidden = self.bound.given & self.bound.secret_inputs
        kept = {name: self.bound.inputs[name] for name in self.bound.given - hidden}
        told = {"inputs": self.tally.secrets.redacted(kept), "hidden": sorted(hidden)}
        return canonical_json(told)

    def _note(self, row: Mapping[str, Any]) -> None:
        tally, file = self.tally, self.bound.file
        head: dict[str, Any] = {"run": tally.run, "pipeline": tally.pipeline, "file": file.name}
        head |= {"host": socket.gethostname(), "pid": os.getpid()}
        head |= {"trigger": self.work.options.trigger, "given": self._given()}
        shares = self.toolbox.shares
        job = shares.joined.job if shares is not None else self.work.options.job
        if job and job != tally.run:
            head |= {"parent": job}
        self.work.ledger.record_run({**head, "started": self.began, **row})


@asynccontextmanager
async def open_session(
    bound: BoundPlan,
    settings: Settings,
    observer: Observer,
    options: RunOptions,
    *,
    pool: Pool | None = None,
    here: DaemonSession | None = None,
    secrets: Secrets | None = None,
    stop: asyncio.Event,
    stop_gate: StopGate | None = None,
    wait_s: float | None = None,
    is_plan: bool = False,
    tape: CallTape | None = None,
    keeps_turn: bool = True,
) -> AsyncIterator[RunSession]:
    """Open a session. A run has its group's turn and holds its scope's lock; a plan only reads.

    `pool` serves in place of any other; `here` finds or starts this machine's service; `tape`
    stands before tools where a test runs, which waits for no group (`keeps_turn`).

    Raises:
        LedgerError: the ledger cannot be used, or (`Locked`) another run works on the same scope.
        EngineError: a model that the pipeline names cannot be used.
    """
    state = bound.roots.base / STATE_FOLDER
    secrets = secrets or Secrets()
    async with AsyncExitStack() as stack:
        ledger = stack.enter_context(Ledger(state, is_readonly=is_plan, url=settings.ledger_url))
        run = await _reserved_run_name(bound, ledger, is_plan=is_plan)
        has_died = False
        if not is_plan:
            lines = stack.enter_context(LineWriter(state / "runs" / f"{run}.jsonl"))
            observer = MultiObserver(
                observer, RunJournal(lines, secrets.redact, trigger=options.trigger)
            )
        tally = RunStats(run, bound.name, observer, state / "runs" / f"{run}.log", secrets)
        ledger.listen(_thread_safe_note(tally.note))
        shares: WorkClaims | None = None
        stop_gate = stop_gate or StopGate()

        def is_over() -> bool:
            return stop.is_set() or stop_gate.is_closed

        if ledger.is_shared and not is_plan:
            stack.callback(_release_run_name, ledger, run)
            shares = await stack.enter_async_context(
                open_claims(
                    ledger, _job_place(bound, options), run, options.job, settings.unattended
                )
            )
            n = shares.joined.n_others
            if n:
                others = "another machine" if n == 1 else f"{n} other machines"
                tally.note(f"working together with {others}")
        if keeps_turn and not is_plan:
            waiting = group_turn(
                bound, settings, shares, run, stop_gate,
                deadline_s=wait_s, is_over=is_over, note=tally.note,
            )  # fmt: skip
            await stack.enter_async_context(waiting)
        if shares is not None and bound.budget.is_set:
            await shares.counting(run, settings.unattended.dead_after_s)
        if shares is None and not is_plan:
            if has_folder_identity(state):
                tally.note(
                    "other machines know this folder by a ledger in PostgreSQL; "
                    "this run uses the file beside it, since PADDOCK_LEDGER names none"
                )
            from paddock.runner.ledger import (
                run_locks,  # `plan` holds no lock, and filelock takes 0.05 s to import
            )

            lock = run_lock_name(bound)
            held = run_locks.hold_lock(
                state / "locks", lock, run=run, deadline_s=wait_s, note=tally.note,
                is_over=is_over,
            )  # fmt: skip
            has_died = await stack.enter_async_context(held)
        scopes = await ledger.ask(ledger.scopes_of, bound.file.name)
        index = await ledger.ask(OutputIndex, ledger, bound.roots.base, scopes)
        if shares is not None:
            stack.push_async_callback(_bury_dead_machines, shares, index)
        if has_died:
            stack.push_async_callback(asyncio.to_thread, sweep_temporary_files, index)
        digests, served = await stack.enter_async_context(
            open_pools(
                bound,
                settings,
                given=pool,
                here=here,
                is_plan=is_plan,
                secrets=secrets,
                stop=stop,
                is_patient=options.trigger != "hand",
                note=tally.note,
            )
        )
        hands = None if is_plan else await stack.enter_async_context(open_tool_runtime(tally))
        readers = ReaderPool(ReaderLimits(settings.read_timeout_s, settings.read_memory_bytes))
        stack.push_async_callback(asyncio.to_thread, readers.close)
        stores = OpenStores(bound.roots.base, tally.note)
        stack.push_async_callback(stores.close)
        runs = shares.runs if shares else None
        if shares is None and options.job:  # it goes on with a run that crashed

            async def runs() -> frozenset[str]:
                return ledger.runs_of(options.job)

        work = Work(bound, ledger, index, digests, options, runs, stores=stores)
        suspects = None
        if not is_plan:
            suspects = CrashSuspects(ledger, run, settings.unattended.dead_after_s)
            await suspects.look()
        toolbox = Toolbox(
            bound, served, ledger, index, digests, tally, options, shares, stores, hands, tape,
            shares.fence if shares is not None else None, suspects, readers=readers,
            own=ProtectedFiles.of(
                ((one.pipeline, one.roots.base) for one in all_plans(bound)), bound.folders
            ),
        )  # fmt: skip
        speeds = _speed_book(settings) if is_plan and pool is None else None
        counts_exactly = pool is not None or not settings.pool_urls
        yield RunSession(bound, work, toolbox, time.time(), speeds, counts_exactly)


def _speed_book(settings: Settings) -> SpeedBook:
    from .speed_estimates import SpeedBook  # only a plan foretells; it reads models' files

    return SpeedBook(settings.pool)


def _thread_safe_note(note: Callable[[str], None]) -> Callable[[str], None]:
    """Let another thread note something."""
    loop = asyncio.get_running_loop()

    def tell(text: str) -> None:
        loop.call_soon_threadsafe(note, text)

    return tell


async def _reserved_run_name(bound: BoundPlan, ledger: Ledger, *, is_plan: bool) -> str:
    """Return the run a name that no other has, on whatever machine."""
    while True:
        run = new_run_name(await ledger.ask(ledger.run_names))
        if is_plan or not ledger.is_shared:
            return run
        if await ledger.ask(ledger.reserve_run, run, bound.name, bound.file.name):
            return run


def _release_run_name(ledger: Ledger, run: str) -> None:
    """Give back the name of a run that never began: what it was given was not written."""
    with suppress(LedgerError):
        ledger.rows("delete from runs where run = :run and given is null", run=run)


async def _bury_dead_machines(shares: WorkClaims, index: OutputIndex) -> None:
    """Remove what machines left behind that died meanwhile; their items are done by now."""
    if await shares.bury():
        await asyncio.to_thread(sweep_temporary_files, index)


def _job_place(bound: BoundPlan, options: RunOptions) -> str:
    """Name what machines do together: the same file and folders, and the same wishes."""
    wishes = [sorted(options.only), sorted(options.force), options.retry_failed, options.no_cache]
    wishes += [options.refresh, options.prune] if options.refresh or options.prune else []
    wishes += ["take"] if options.takes_over else []
    return hashlib.sha256(canonical_json([run_lock_name(bound), wishes]).encode()).hexdigest()[:32]


def run_lock_name(bound: BoundPlan) -> str:
    """Return the name of a run's lock: one for all scopes of a file with the same folders."""
    places = {
        name: str(value)
        for name, value in bound.inputs.items()
        if bound.input_types.get(name) in ("dir", "path")
    }
    return hashlib.sha256(canonical_json([bound.file.name, places]).encode()).hexdigest()[:32]
