"""Open all that a run or a plan needs, and close it again: ledger, lock, pool, tools."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paddock.engine.request import Pool
from paddock.steps.readers.reader_pool import ReaderLimits, ReaderPool
from paddock.steps.stores.opened import OpenStores

from .binding.bound import BoundPlan
from .body import plans_of, watched
from .border import Border
from .crash_suspects import CrashSuspects
from .freshness import canonical
from .journal import Journal, Lines
from .ledger.entries import LedgerError
from .ledger.identity import has_identity
from .ledger.ledger import Ledger
from .ledger.outputs import Index
from .leftovers import sweep
from .names import run_name
from .observer import Observer, Several
from .own_files import OwnFiles
from .pools import opened_pool
from .report import Report
from .secrets import Secrets
from .settings import Settings
from .shares import Shares, shared
from .tally import Tally
from .taping import Taping
from .tools import Toolbox
from .toolsets import opened_hands
from .turns import turn
from .work import Options, Work

if TYPE_CHECKING:
    from .residence.tenancy import Tenant
    from .speed import SpeedBook

STATE_FOLDER = ".paddock"


@dataclass(frozen=True, slots=True)
class Session:
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
    def tally(self) -> Tally:
        """The run's numbers."""
        return self.toolbox.tally

    def begin(self) -> None:
        """Note that the run has started, in the ledger and for the observer."""
        self._note({"ended": None, "status": "running", "summary": None})
        tally = self.tally
        tally.observer.began(tally.run, tally.pipeline, [*watched(self.bound.nodes)])
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
        """Tell how often each model was loaded, and how long that took."""
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
        return canonical(told)

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
async def opened(
    bound: BoundPlan,
    settings: Settings,
    observer: Observer,
    options: Options,
    *,
    pool: Pool | None = None,
    here: Tenant | None = None,
    secrets: Secrets | None = None,
    stop: asyncio.Event,
    border: Border | None = None,
    wait_s: float | None = None,
    is_plan: bool = False,
    tape: Taping | None = None,
    keeps_turn: bool = True,
) -> AsyncIterator[Session]:
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
        run = await _named(bound, ledger, is_plan=is_plan)
        has_died = False
        if not is_plan:
            lines = stack.enter_context(Lines(state / "runs" / f"{run}.jsonl"))
            observer = Several(observer, Journal(lines, secrets.redact, trigger=options.trigger))
        tally = Tally(run, bound.name, observer, state / "runs" / f"{run}.log", secrets)
        ledger.listen(_in_this_loop(tally.note))
        shares: Shares | None = None
        border = border or Border()

        def is_over() -> bool:
            return stop.is_set() or border.is_closed

        if ledger.is_shared and not is_plan:
            stack.callback(_unreserved, ledger, run)
            shares = await stack.enter_async_context(
                shared(ledger, _place(bound, options), run, options.job, settings.unattended)
            )
            n = shares.joined.n_others
            if n:
                others = "another machine" if n == 1 else f"{n} other machines"
                tally.note(f"working together with {others}")
        if keeps_turn and not is_plan:
            waiting = turn(
                bound, settings, shares, run, border,
                deadline_s=wait_s, is_over=is_over, note=tally.note,
            )  # fmt: skip
            await stack.enter_async_context(waiting)
        if shares is not None and bound.budget.is_set:
            await shares.counting(run, settings.unattended.dead_after_s)
        if shares is None and not is_plan:
            if has_identity(state):
                tally.note(
                    "other machines know this folder by a ledger in PostgreSQL; "
                    "this run uses the file beside it, since PADDOCK_LEDGER names none"
                )
            from .ledger import locks  # `plan` holds no lock, and filelock takes 0.05 s to import

            lock = held_name(bound)
            held = locks.held(
                state / "locks", lock, run=run, deadline_s=wait_s, note=tally.note,
                is_over=is_over,
            )  # fmt: skip
            has_died = await stack.enter_async_context(held)
        scopes = await ledger.ask(ledger.scopes_of, bound.file.name)
        index = await ledger.ask(Index, ledger, bound.roots.base, scopes)
        if shares is not None:
            stack.push_async_callback(_cleared, shares, index)
        if has_died:
            stack.push_async_callback(asyncio.to_thread, sweep, index)
        digests, served = await stack.enter_async_context(
            opened_pool(
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
        hands = None if is_plan else await stack.enter_async_context(opened_hands(tally))
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
            own=OwnFiles.of(
                ((one.pipeline, one.roots.base) for one in plans_of(bound)), bound.folders
            ),
        )  # fmt: skip
        speeds = _speeds(settings) if is_plan and pool is None else None
        counts_exactly = pool is not None or not settings.pool_urls
        yield Session(bound, work, toolbox, time.time(), speeds, counts_exactly)


def _speeds(settings: Settings) -> SpeedBook:
    from .speed import SpeedBook  # only a plan foretells; it reads models' files

    return SpeedBook(settings.pool)


def _in_this_loop(note: Callable[[str], None]) -> Callable[[str], None]:
    """Let another thread note something."""
    loop = asyncio.get_running_loop()

    def tell(text: str) -> None:
        loop.call_soon_threadsafe(note, text)

    return tell


async def _named(bound: BoundPlan, ledger: Ledger, *, is_plan: bool) -> str:
    """Give the run a name that no other has, on whatever machine."""
    while True:
        run = run_name(await ledger.ask(ledger.run_names))
        if is_plan or not ledger.is_shared:
            return run
        if await ledger.ask(ledger.reserve_run, run, bound.name, bound.file.name):
            return run


def _unreserved(ledger: Ledger, run: str) -> None:
    """Give back the name of a run that never began: what it was given was not written."""
    with suppress(LedgerError):
        ledger.rows("delete from runs where run = :run and given is null", run=run)


async def _cleared(shares: Shares, index: Index) -> None:
    """Remove what machines left behind that died meanwhile; their items are done by now."""
    if await shares.bury():
        await asyncio.to_thread(sweep, index)


def _place(bound: BoundPlan, options: Options) -> str:
    """Name what machines do together: the same file and folders, and the same wishes."""
    wishes = [sorted(options.only), sorted(options.force), options.retry_failed, options.no_cache]
    wishes += [options.refresh, options.prune] if options.refresh or options.prune else []
    wishes += ["take"] if options.takes_over else []
    return hashlib.sha256(canonical([held_name(bound), wishes]).encode()).hexdigest()[:32]


def held_name(bound: BoundPlan) -> str:
    """Give the name of a run's lock: one for all scopes of a file with the same folders."""
    places = {
        name: str(value)
        for name, value in bound.inputs.items()
        if bound.input_types.get(name) in ("dir", "path")
    }
    return hashlib.sha256(canonical([bound.file.name, places]).encode()).hexdigest()[:32]
