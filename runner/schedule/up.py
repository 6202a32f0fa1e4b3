"""`paddock up`: serve folders of pipelines until stopped.

Connects the parts; each knows little of the others. Triggers put orders into the queue, one loop
starts their runs, another scans the files. Nothing waits for Prefect, which shows what ran.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute

from paddock.engine.api.server import PortTaken, listen, serving
from paddock.engine.system.hosts import is_loopback
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.tasks import (
    StopRequested,
    run_unless_stopped,
    task_group,
    wait_for_event,
)
from paddock.engine.system.text import counted, listed
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.model import Pipeline
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.core.known_pipelines import known_pipeline
from paddock.runner.core.other_runs.concurrency_groups import group_holders
from paddock.runner.core.run_options import RunOptions
from paddock.runner.daemon.daemon_client import ask_daemon
from paddock.runner.daemon.daemon_files import DaemonError, running_daemons
from paddock.runner.daemon.prefect_auth import own_auth_string, password_file
from paddock.runner.daemon.prefect_server import keep_own_server
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.retention import clean_in_subprocess
from paddock.runner.ledger.run_locks import LockHolder
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.report import Report
from paddock.runner.review.page_access import CONSOLE_PATH, PAGE_PATH, PageAccess
from paddock.runner.review.page_server import FolderReviews, asks_people, mounted_page, token_file
from paddock.runner.settings import STATE_FOLDER, Settings
from paddock.runner.workers.fork_server import ForkServer
from paddock.runner.workers.order import Order

from .discovery import PipelineChanges, PipelineFinder
from .folder_locks import FolderLocks, FolderTaken
from .order_queue import OrderQueue, QueueBroken
from .pipeline_triggers import triggers_of
from .prefect_link import PrefectLink
from .run_manager import ManagerOptions, RunManager
from .run_processes import PrefectPlace
from .systemd_notify import notify_reloaded, notify_systemd, watchdog_interval_s
from .trigger_keeper import TriggerKeeper
from .triggered_pipeline import TriggeredPipeline
from .up_alerts import LedgerHealth, alert_trouble
from .up_status import StatusAccess, make_status_app, status_of


class UpError(Exception):
    """It cannot start or continue: the reason, and what to do."""


LOOK_S = 2.0
LOOK_SHARE = 20  # scans take at most a twentieth of the time
ROUND_S = 1.0  # the longest between two rounds; an order wakes the loop at once
AWAY_S = 3.0
STUCK_S = 120.0
"""A longer round is stuck, and systemd gets no heartbeat."""
LEDGERS_S = 30.0
TIDY_FIRST_S, TIDY_S = 900.0, 86_400.0

log = logging.getLogger("paddock.up")


class UpOptions(Struct):
    folders: Sequence[Path]
    settings: Settings
    forks: ForkServer
    flags: dict[str, object] = field(default_factory=dict)
    ready: Callable[[str], None] = lambda text: None
    """Called once everything has started."""
    pages: Callable[[PageAccess, Up], Sequence[BaseRoute]] = lambda access, up: ()
    """Returns the routes of more pages behind the review page's access."""
    is_attended: bool = False
    """Whether a person started it and is present: their permissions cover all existing files."""


class Up:
    """One `paddock up`. `stop` ends it in order, `reload` starts a scan at once."""

    def __init__(self, options: UpOptions) -> None:
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()
        self._options = options
        self._settings = options.settings
        self._finder = PipelineFinder(
            [folder.absolute() for folder in options.folders],
            options.flags,
            consents=Consents(options.settings.state_dir),
            is_attended=options.is_attended,
        )
        self._folder_locks = FolderLocks(options.settings.state_dir)
        self._queue = OrderQueue(options.settings.state_dir)
        self._served: dict[str, TriggeredPipeline] = {}
        self._round_at = time.monotonic()
        self._has_changed = True
        self._is_starting = True
        """Triggers of pipelines that are here may not have begun yet."""
        self._kept: dict[str, str] = {}
        """By pipelines that are not served: what is to be said about their promised orders."""
        self._kill_runs: Callable[[], None] | None = None
        """Set once runs may have been started."""

    async def run(self) -> None:
        """Serve the folders until `stop` is set.

        Raises:
            UpError: it cannot start, or its address is in use.
            FolderTaken: another process serves one of the folders.
            CannotListen: its address is not available.
        """
        address = self._settings.unattended.address
        try:
            listener = listen(address.host, address.port)
        except PortTaken:
            raise UpError(
                f"{address.host}:{address.port} is taken, maybe by another `paddock up`.\n"
                f"  Choose another address: paddock up --listen {address.host}:{address.port + 1}"
            ) from None
        try:
            self._take_in(await asyncio.to_thread(self._finder.scan_folders), is_first=True)
            async with self._opened(listener):
                await self._once()
                self._options.ready(self._start_text(listener))
                notify_systemd("READY=1")
                await self._keep()
                notify_systemd("STOPPING=1")
        except StopRequested:  # before everything had started
            notify_systemd("STOPPING=1")
        finally:
            listener.close()
            self._folder_locks.close()

    def abandon(self) -> None:
        """Kill every run's process at once: there is no time to drain."""
        if self._kill_runs is not None:
            self._kill_runs()

    @asynccontextmanager
    async def _opened(self, listener: socket.socket) -> AsyncIterator[None]:
        """Open pool, queue and sockets; close them in bounded time."""
        settings, unattended = self._settings, self._settings.unattended
        flags, loop = self._options.flags, asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            url = os.environ.get("PREFECT_API_URL", "").strip()
            auth_string = "" if url else await asyncio.to_thread(self._password)
            await self._queue.open()
            stack.push_async_callback(self._queue.close)
            self._link = PrefectLink(
                self._queue, lambda: self._run_manager.pipelines, is_own_server=not url,
                auth_string=auth_string, folders=self._options.folders,
                forks=self._options.forks,
            )  # fmt: skip
            if url:
                self._link.move(url)
            self._ledgers = LedgerHealth(
                self._open_ledger, partial(alert_trouble, flags), settings.state_dir
            )
            is_open = not is_loopback(listener.getsockname()[0])
            served = partial(replace, max_attempts=unattended.max_attempts, is_open=is_open)
            self._keeper = TriggerKeeper(
                self._queue,
                self._open_ledger,
                lambda pipeline: triggers_of(served(pipeline)),
                self._missing_reason,
            )
            options = ManagerOptions(
                max_runs=unattended.max_runs,
                max_restarts=unattended.max_restarts,
                forks=self._options.forks,
                flags=flags,
                auth_string=auth_string,
            )
            self._run_manager = RunManager(self._queue, self, options)
            self._kill_runs = self._run_manager.abandon
            keys = settings.service.api_keys_file
            reader = StatusAccess(is_open=is_open, keys=keys)
            all_reviews = FolderReviews(
                lambda: self._pipeline_folders(asks_people),
                settings.ledger_url,
                lambda ledger: loop.call_soon_threadsafe(self._keeper.note_decided, ledger),
            )
            page = await stack.enter_async_context(
                mounted_page(all_reviews, settings.state_dir, keys=keys, is_open=is_open)
            )
            routes = [*page.routes(), *self._options.pages(page.access, self)]
            app = make_status_app(
                self._ready, self.status, self._keeper.answer, reader, routes, self._queue.totals
            )
            stack.push_async_callback(self._closed)
            await stack.enter_async_context(serving(app, listener, settings.service))
            yield

    def _missing_reason(self) -> str:
        if self._is_starting:
            return "`paddock up` is starting."
        if self._finder.lacks_pipelines():
            return (
                "a pipeline that is not in service, as it is faulty or not allowed, may have this."
            )
        return ""

    def _password(self) -> str:
        try:
            return own_auth_string(self._settings.state_dir)
        except OSError as error:
            raise UpError(f"The password of Prefect's server cannot be kept: {error}") from None

    def _pipeline_folders(
        self, chosen: Callable[[Pipeline], bool] = lambda pipeline: True
    ) -> list[Path]:
        pipelines = self._served.values()
        return sorted({pipeline.file.parent for pipeline in pipelines if chosen(pipeline.pipeline)})

    async def _closed(self) -> None:
        within_s = self._settings.service.stop_timeout_s
        await self._run_manager.stop(within_s * 0.6)
        await self._keeper.stop()

    # --- the loops

    async def _keep(self) -> None:
        loops = (self._keep_queue, self._keep_looking, self._keep_beating, self._keep_tidy,
                 self._keep_ledgers, self._keep_prefect, self._link.keep)  # fmt: skip

        async def keep_all() -> None:
            async with task_group() as group:  # an unexpected error ends them all
                for loop in loops:
                    group.create_task(loop())

        with contextlib.suppress(StopRequested):
            await run_unless_stopped(keep_all(), self.stop)

    async def _keep_looking(self) -> None:
        while True:
            began = time.monotonic()
            self._take_in(await asyncio.to_thread(self._finder.scan_folders))
            wait_s = max(LOOK_S, LOOK_SHARE * (time.monotonic() - began))
            if await wait_for_event(self.reload, wait_s):
                self.reload.clear()
                notify_reloaded()

    async def _keep_queue(self) -> None:
        while True:
            await wait_for_event(self._queue.changed, ROUND_S)
            try:
                await self._once()
            except QueueBroken:  # `status` says so, and calls are refused
                await asyncio.sleep(AWAY_S)
            except Exception:  # an unexpected error ends this round, not the service
                log.exception("a round failed")
                await asyncio.sleep(AWAY_S)
            self._round_at = time.monotonic()

    async def _once(self) -> None:
        self._queue.changed.clear()
        await self._queue.flush()
        await self._queue.read_pauses()
        if self._has_changed:
            self._has_changed = False
            try:
                await self._reconcile(dict(self._served))
            except BaseException:
                self._has_changed = True
                raise
        await self._run_manager.round()
        if self._run_manager.wants_rest and not self._run_manager.jobs:
            self._run_manager.wants_rest = False
            for daemon in await asyncio.to_thread(running_daemons, self._settings.state_dir):
                with contextlib.suppress(DaemonError):
                    if daemon.kind == "background":
                        await asyncio.to_thread(ask_daemon, daemon, "/rest", {})

    async def _reconcile(self, served: dict[str, TriggeredPipeline]) -> None:
        """Put these pipelines in service, and no others; a running run continues to its end.

        Raises:
            QueueBroken: another call does the rest.
        """
        manager = self._run_manager
        gone = [pipeline for key, pipeline in manager.pipelines.items() if key not in served]
        for pipeline in gone:
            await self._keeper.drop(pipeline.key)
            for order in [*self._queue.orders.values()]:
                is_left = order.pipeline == pipeline.key and order.state != "running"
                if is_left and not order.is_promised:
                    manager.skip(order, "its pipeline no longer exists")
            folder = pipeline.file.parent.resolve()
            if not any(other.file.parent.resolve() == folder for other in served.values()):
                self._folder_locks.release(folder)
        at_work = {job.pipeline.key for job in manager.jobs.values()}
        await self._queue.serve({*served, *at_work})
        await self._follow_renames(served.values())
        new = [key for key, each in served.items() if manager.pipelines.get(key) is not each]
        manager.pipelines.clear()
        manager.pipelines.update(served)
        for key in new:
            await self._keeper.put(served[key])
        self._is_starting = False
        await self._hand_over()
        self._link.wake.set()
        self._queue.changed.set()

    async def _follow_renames(self, served: Iterable[TriggeredPipeline]) -> None:
        """Hold back the pipelines whose file had another name when a person paused them."""
        for was in await self._queue.paused_files():
            own = (p for p in served if p.bound and p.file.parent.resolve() == was.parent)
            for pipeline in own if not was.exists() else ():
                if was.name in await asyncio.to_thread(self._known_names, pipeline):
                    await self._queue.move_pauses(was, pipeline.file)
                    log.info("%s is %s now, and paused", was, pipeline.file)

    def _known_names(self, pipeline: TriggeredPipeline) -> Collection[str]:
        """Return the names by which the ledger knows a pipeline; none: it does not."""
        assert pipeline.bound is not None
        with contextlib.suppress(LedgerError, PipelineError):
            with self._open_ledger(pipeline.file.parent, True) as ledger:
                known = known_pipeline(ledger, pipeline.bound, RunOptions())
            return {known.file, known.row.name}
        return ()

    async def _hand_over(self) -> None:
        """Hand promised orders of a file that was renamed to who has their trigger now.

        Those of a file that is not served are kept, and reported.
        """
        counts = Counter[str]()
        for (key, trigger), n in (await self._queue.count_orders_elsewhere()).items():
            folders = map(Path.absolute, self._options.folders)
            if not any(Path(key).is_relative_to(folder) for folder in folders):
                continue  # of another `paddock up`
            heirs = [heir for heir in self._served if self._keeper.has(heir, trigger)]
            if heirs and not await asyncio.to_thread(Path(key).exists):
                n = await self._queue.hand_to(heirs[0], key, trigger)
                log.info("%s: %s of %s go to %s", trigger, counted(n, "order"), key, heirs[0])
            else:
                counts[key] += n
        kept = {
            key: f"{counted(n, 'accepted order')} of {key} cannot run: it is not in service."
            for key, n in counts.items()
        }
        for key, message in kept.items():
            if self._kept.get(key) != message:
                log.warning("%s They are kept, and run when its file is as it was.", message)
        self._kept = kept

    async def _keep_prefect(self) -> None:
        """Keep this machine's own Prefect server, unless another one is named."""
        if os.environ.get("PREFECT_API_URL", "").strip():
            return
        keep_s = self._settings.unattended.keep_tracking_s
        await keep_own_server(self._settings.state_dir, keep_s, self._link.move)

    async def _keep_beating(self) -> None:
        """Send systemd's heartbeat while rounds finish in time."""
        every_s = watchdog_interval_s()
        while True:
            await asyncio.sleep(min(every_s or 10.0, 10.0))
            if time.monotonic() - self._round_at < STUCK_S:
                n, jobs = len(self._served), len(self._run_manager.jobs)
                notify_systemd(f"WATCHDOG=1\nSTATUS={n} pipelines, {jobs} runs running")

    async def _keep_ledgers(self) -> None:
        while True:
            await self._ledgers.check_ledgers(list(self._run_manager.pipelines.values()))
            await asyncio.sleep(LEDGERS_S)

    async def _keep_tidy(self) -> None:
        await asyncio.sleep(TIDY_FIRST_S)
        while True:
            for message in await clean_in_subprocess(self._settings, self._pipeline_folders()):
                log.warning("%s", message)
            await asyncio.sleep(TIDY_S)

    # --- files

    def _take_in(self, changes: PipelineChanges, *, is_first: bool = False) -> None:
        """Apply the changes of a scan.

        Raises:
            FolderTaken: at the first scan, another process serves one of the folders.
        """
        for message in changes.messages:
            log.warning("%s", message)
        served: dict[str, TriggeredPipeline] = {}
        for pipeline in changes.triggered:
            try:
                self._folder_locks.take(pipeline.file.parent.resolve())
            except FolderTaken as error:
                if is_first:
                    raise
                self._keeper.warn(str(error))
                continue
            served[pipeline.key] = pipeline
        for pipeline in changes.added:
            if not is_first and pipeline.key in served:
                what = "has changed" if pipeline.key in self._served else "is new"
                log.info("%s: %s %s", pipeline.pipeline.name, pipeline.file, what)
        for gone in self._served.keys() - served.keys():
            log.info("%s: %s has no triggers any more", self._served[gone].pipeline.name, gone)
        if served != self._served:
            self._served = served
            self._has_changed = True
            self._queue.changed.set()

    def _open_ledger(self, folder: Path, is_readonly: bool) -> Ledger:
        url = self._settings.ledger_url
        return Ledger(folder / STATE_FOLDER, is_readonly=is_readonly, url=url)

    # --- surroundings of the run manager

    def trigger_keys(self, pipeline: str) -> Collection[str]:
        return self._keeper.keys(pipeline)

    def group_holders(
        self, names: Collection[str], unwanted: Collection[str] = ()
    ) -> Mapping[str, LockHolder]:
        return group_holders(self._settings, names, unwanted)

    def place_in_prefect(self, pipeline: TriggeredPipeline) -> PrefectPlace:
        deployment = self._link.deployment_of(pipeline.key) if self._link.is_there else ""
        return PrefectPlace(self._link.api_url, deployment) if deployment else PrefectPlace()

    def has_progressed(self, pipeline: TriggeredPipeline, run: str) -> bool:
        """Return whether a crashed run made progress, or died of one item."""
        try:
            with self._open_ledger(pipeline.file.parent, True) as ledger:
                return RunStore(ledger).has_progressed(run)
        except LedgerError:
            return False

    def known_end(self, pipeline: TriggeredPipeline, order: str) -> tuple[str, Report] | None:
        """Return how an order ended, with its run, by the ledger; None: it was killed."""
        try:
            with self._open_ledger(pipeline.file.parent, True) as ledger:
                rows = RunStore(ledger).runs_that_continue([order])
        except LedgerError:
            return None
        if not rows or rows[-1].status not in ("completed", "quarantined", "failed"):
            return None
        return rows[-1].run, Report.of_summary(json.loads(rows[-1].summary or "{}"))

    def ledger_fault(self, folder: Path) -> str:
        return self._ledgers.faults.get(folder, "")

    async def check_ledger(self, pipeline: TriggeredPipeline) -> str:
        return await self._ledgers.fault_of(pipeline.file.parent, [pipeline])

    async def report_crashes(self, pipeline: TriggeredPipeline, crash: str, run: str) -> None:
        await alert_trouble(self._options.flags, pipeline, crash, run)

    def note_ended(self, order: Order) -> None:
        self._keeper.note_ended(order)
        self._link.note_ended(order)

    # --- status

    def _ready(self) -> dict[str, bool]:
        return {
            "running": time.monotonic() - self._round_at < STUCK_S
            and not (self.stop.is_set() or self._is_starting),
            "ledgers": not self._ledgers.faults,
            "queue": not self._queue.fault,
        }

    async def pause(self, file: Path, trigger: str, *, is_paused: bool) -> bool:
        """Hold back the runs of a pipeline, or of one trigger of it; or no longer.

        Return False if it is not served.

        Raises:
            QueueBroken: the change cannot be stored.
        """
        keys = (key for key, served in self._served.items() if served.file.resolve() == file)
        key = next(keys, None)
        if key is None or (trigger and not self._keeper.has(key, trigger)):
            return False
        await self._queue.pause(key, trigger, is_paused=is_paused)
        self._link.wake.set()
        return True

    def status(self) -> dict[str, Any]:
        facts = status_of(self._run_manager, self._keeper, self._queue, datetime.now(UTC))
        ledgers = self._ledgers.faults.items()
        return {
            "pid": os.getpid(),
            "folders": [str(folder) for folder in self._options.folders],
            "queue_file": str(self._queue.file),
            "prefect": self._link.api_url,
            "is_prefect_there": bool(self._link.is_there),
            "faults": {
                **self._run_manager.faults,
                **self._finder.faults(),
                **{str(folder): message for folder, message in ledgers},
                **({"queue": self._queue.fault} if self._queue.fault else {}),
                **{f"orders of {key}": why for key, why in self._kept.items()},
            },
            **facts,
        }

    def _start_text(self, listener: socket.socket) -> str:
        host, port = listener.getsockname()[:2]
        names = sorted(pipeline.pipeline.name for pipeline in self._served.values())
        address = f"http://{host}:{port}"
        api = os.environ.get("PREFECT_API_URL", "").strip().removesuffix("/api")
        if api:
            prefect = f"; {api} shows the runs."
        else:
            prefect = (
                ".\n  Prefect's page shows the runs once its server is up: `paddock status` has "
                f"its address, {password_file(self._settings.state_dir)} its password."
            )
        needs = "It needs"
        review = ""
        if self._pipeline_folders(asks_people):
            needs = "They need"
            review = f"\n  {address}{PAGE_PATH} shows what waits for review."
        return (
            f"Paddock serves {listed(names, 10) or 'no pipeline with `on:` yet'}.\n"
            f"  {address}/status shows its state{prefect}\n"
            f"  {address}{CONSOLE_PATH} shows pipelines and runs.{review} "
            f"{needs} the token in {token_file(self._settings.state_dir)}."
        )
