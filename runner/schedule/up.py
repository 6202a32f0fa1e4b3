"""`paddock up`: serve folders of pipelines until stopped.

Connects the parts; each knows little of the others. One loop keeps the queue, another scans the
files. Prefect may be away for a while, or come back at another address: what failed is retried in
a later round.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute

from paddock.engine.api.server import PortTaken, listen, serving
from paddock.engine.system.hosts import is_loopback
from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.engine.system.tasks import StopRequested, task_group, unless, wait_for_event
from paddock.pipelines.model import Pipeline
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.core.other_runs.concurrency_groups import group_holders
from paddock.runner.daemon.daemon_client import request_daemon
from paddock.runner.daemon.daemon_files import DaemonError
from paddock.runner.daemon.daemon_server import serve_or_join
from paddock.runner.daemon.early_server import EarlyServer
from paddock.runner.daemon.prefect_auth import own_auth_string, password_file
from paddock.runner.daemon.prefect_server import PrefectServer
from paddock.runner.daemon.run_signatures import Signer, signer_for
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.retention import clean_in_subprocess
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.report import Report
from paddock.runner.review.page_access import CONSOLE_PATH, PAGE_PATH, PageAccess
from paddock.runner.review.page_server import FolderReviews, asks_people, mounted_page, token_file
from paddock.runner.settings import STATE_FOLDER, Settings
from paddock.runner.workers.queued_run import known_end, start_fork_server

from .discovery import PipelineChanges, PipelineFinder
from .folder_locks import FolderLocks, FolderTaken
from .prefect_queue import DeletedInPrefect, QueueError, open_queue
from .reconciler import Reconciler
from .run_manager import Deployment, ManagerOptions, RunManager
from .runs_after_review import ReviewRuns
from .systemd_notify import notify_reloaded, notify_systemd, watchdog_interval_s
from .triggered_pipeline import TriggeredPipeline
from .up_alerts import LedgerHealth, alert_given_up, alert_trouble
from .up_status import StatusAccess, make_status_app, named_pipelines, status_of
from .watch_manager import WatchManager
from .webhook_queue import WebhookQueue, WebhookQueueBroken
from .webhook_runs import WebhookRuns


class UpError(Exception):
    """It cannot start or continue: the reason, and what to do."""


def start_run_processes() -> None:
    """Start the process that runs are forked from, before this one has threads or a loop."""
    start_fork_server("paddock.runner.schedule.run_processes")


LOOK_S = 2.0
LOOK_SHARE = 20  # scans take at most a twentieth of the time
BUSY_S, IDLE_S = 1.0, 10.0  # between two rounds; a submitted run wakes the loop at once
PREFECT_S = 180.0  # on a busy machine
AWAY_S = 3.0
_PAUSES_S = 2.0  # a page waits for them
STUCK_S = 120.0
"""A longer round is stuck, and systemd gets no heartbeat."""
LEDGERS_S = 30.0
TIDY_FIRST_S, TIDY_S = 900.0, 86_400.0

log = logging.getLogger("paddock.up")


@dataclass
class UpOptions:
    """Options of `paddock up`."""

    folders: Sequence[Path]
    settings: Settings
    flags: dict[str, object] = field(default_factory=dict)
    ready: Callable[[str], None] = lambda text: None
    """Called once everything has started."""
    pages: Callable[[PageAccess, Up], Sequence[BaseRoute]] = lambda access, up: ()
    """Returns the routes of more pages behind the review page's access."""
    early: EarlyServer | None = None
    """What our own Prefect server becomes of."""
    is_attended: bool = False
    """Whether a person started it and is present: their permissions cover all existing files."""


class Up:
    """One `paddock up`. `stop` ends it in order, `reload` starts a scan at once."""

    def __init__(self, wishes: UpOptions) -> None:
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()
        self._wishes = wishes
        self._settings = wishes.settings
        self._finder = PipelineFinder(
            [folder.absolute() for folder in wishes.folders],
            wishes.flags,
            consents=Consents(wishes.settings.state_dir),
            is_attended=wishes.is_attended,
        )
        self._folder_locks = FolderLocks(wishes.settings.state_dir)
        self._calls = WebhookQueue(wishes.settings.state_dir)
        self._served: dict[str, TriggeredPipeline] = {}
        self._round_at = time.monotonic()
        self._is_prefect_there: bool | None = None
        self._server: PrefectServer | None = None
        """This machine's own Prefect server; None: `PREFECT_API_URL` names another."""
        self._has_changed = True
        self._in_place: Callable[[], None] | None = None
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
            self._take_in(await asyncio.to_thread(self._finder.look), is_first=True)
            async with self._opened(listener):
                self._in_place = lambda: self._wishes.ready(self._first_words(listener))
                await self._kept()
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
        """Open pool, Prefect, queue and sockets; close them in bounded time."""
        async with AsyncExitStack() as stack:
            url = await unless(self._reached(stack), self.stop)
            is_own = self._server is not None
            signer, auth_string = await asyncio.to_thread(self._keys, is_own_server=is_own)
            unattended, flags = self._settings.unattended, self._wishes.flags
            queue = await stack.enter_async_context(open_queue(url, signer, auth_string))
            self._prefect_queue = queue
            self._ledgers = LedgerHealth(self._open_ledger, partial(alert_trouble, flags))
            options = ManagerOptions(
                unattended.max_runs,
                unattended.max_restarts,
                partial(alert_given_up, flags),
                self._settings.state_dir / "up",
                flags,
                self._has_progressed,
                self._known_end,
                partial(group_holders, self._settings),
                auth_string,
                self._ledgers.faults,
                self._ledgers.fault_of,
            )
            self._run_manager = RunManager(queue, signer, options)
            self._kill_runs = self._run_manager.abandon
            watching = WatchManager(self._run_manager, self._open_ledger, unattended.max_attempts)
            is_open = not is_loopback(listener.getsockname()[0])
            self._webhook_runs = WebhookRuns(self._run_manager, self._calls)
            self._reconciler = Reconciler(
                queue,
                self._run_manager,
                watching,
                self._folder_locks,
                self._webhook_runs,
                is_open=is_open,
            )
            stack.push_async_callback(self._calls.close)
            await self._calls.open()
            hooks, keys = self._reconciler.hooks, self._settings.service.api_keys_file
            reader = StatusAccess(is_open=is_open, keys=keys)
            all_reviews = FolderReviews(
                lambda: self._pipeline_folders(asks_people), self._settings.ledger_url
            )
            page = await stack.enter_async_context(
                mounted_page(all_reviews, self._settings.state_dir, keys=keys, is_open=is_open)
            )
            self._review_runs = ReviewRuns(self._run_manager, page.ask)
            routes = [*page.routes(), *self._wishes.pages(page.access, self)]
            app = make_status_app(self._ready, self.status, hooks.answer, reader, routes)
            with contextlib.suppress(QueueError):
                await self._reconciler.forget_gone(self._wishes.folders, self._served)
            stack.push_async_callback(self._closed)
            # Before Prefect answers: a caller that gets 404 would not call again.
            self._reconciler.serve_hooks(list(self._served.values()))
            await stack.enter_async_context(serving(app, listener, self._settings.service))
            yield

    def _pipeline_folders(
        self, chosen: Callable[[Pipeline], bool] = lambda pipeline: True
    ) -> list[Path]:
        """Return the folders of the served pipelines, or of those that `chosen` accepts."""
        pipelines = self._served.values()
        return sorted({pipeline.file.parent for pipeline in pipelines if chosen(pipeline.pipeline)})

    def _keys(self, *, is_own_server: bool) -> tuple[Signer | None, str]:
        """Return the password of our own Prefect server, or the signer of runs. Blocks."""
        settings = self._settings
        try:
            if is_own_server:
                return None, own_auth_string(settings.state_dir)
            return signer_for(settings.state_dir), ""
        except OSError as error:
            raise UpError(f"Runs cannot be signed: {error}") from None

    async def _closed(self) -> None:
        """Stop the running runs in bounded time."""
        within_s = self._settings.service.stop_timeout_s
        await self._reconciler.watching.stop()
        await self._run_manager.stop(within_s * 0.6)
        with contextlib.suppress(Exception):  # the next start reports what is left
            async with asyncio.timeout(within_s * 0.1):
                await self._run_manager.round()
                await self._reconciler.planner.end()

    async def _reached(self, stack: AsyncExitStack) -> str:
        """Open the pool and, unless one is configured, Prefect's server; return its address."""
        url = os.environ.get("PREFECT_API_URL", "").strip()
        try:
            self._daemon = await stack.enter_async_context(serve_or_join(self._settings))
        except DaemonError as error:
            raise UpError(str(error)) from None
        if not url:
            keep_s = self._settings.unattended.keep_tracking_s
            server = PrefectServer(self._settings.state_dir, keep_s, early=self._wishes.early)
            self._server = await stack.enter_async_context(server)
            status = await server.ready(PREFECT_S)
            url = status.url
            if status.state != "ready":
                raise UpError(
                    f"Prefect's server did not start: {status.why or 'it took too long'}.\n"
                    f"  {server.log_file} may say why."
                )
        os.environ["PREFECT_API_URL"] = url
        return url

    # --- the loops

    async def _kept(self) -> None:
        loops = (self._keep_queue, self._keep_calls, self._keep_looking, self._keep_beating,
                 self._keep_tidy, self._keep_ledgers, self._keep_reviews)  # fmt: skip

        async def keep_all() -> None:
            async with task_group() as group:  # an unexpected error ends them all
                for loop in loops:
                    group.create_task(loop())

        with contextlib.suppress(StopRequested):
            await unless(keep_all(), self.stop)

    async def _keep_looking(self) -> None:
        """Scan the folders every two seconds, or less often if that is slow."""
        while True:
            began = time.monotonic()
            self._take_in(await asyncio.to_thread(self._finder.look))
            wait_s = max(LOOK_S, LOOK_SHARE * (time.monotonic() - began))
            if await wait_for_event(self.reload, wait_s):
                self.reload.clear()
                notify_reloaded()

    async def _keep_queue(self) -> None:
        while True:
            try:
                await self._once()
                self._prefect_is_there(None)
                # Report once that everything has started
                in_place, self._in_place = self._in_place, None
                if in_place is not None:
                    in_place()
                    notify_systemd("READY=1")
                if self._calls.waiting.total():  # runs have begun, so more calls can be submitted
                    self._calls.arrived.set()
            except QueueError as error:
                self._run_manager.lacks_deployments |= isinstance(error, DeletedInPrefect)
                self._prefect_is_there(error)
                url = self._server.status.url if self._server else self._prefect_queue.api_url
                if url != self._prefect_queue.api_url:  # it has restarted at another port
                    os.environ["PREFECT_API_URL"] = url
                    await self._prefect_queue.move(url)
                await asyncio.sleep(AWAY_S)
            except Exception:  # an unexpected error ends this round, not the service
                log.exception("a round failed")
                await asyncio.sleep(AWAY_S)
            self._round_at = time.monotonic()
            now = datetime.now(UTC)
            next_s = [(run.next_at - now).total_seconds() for run in self._run_manager.queue]
            is_busy = self._run_manager.jobs or any(seconds <= 0 for seconds in next_s)
            pause_s = BUSY_S if is_busy else max(0.01, min([IDLE_S, *next_s]))
            await wait_for_event(self._run_manager.wake, pause_s)

    async def _keep_calls(self) -> None:
        """Submit webhook calls as fast as Prefect takes them."""
        while True:
            await wait_for_event(self._calls.arrived, IDLE_S)
            try:
                await self._webhook_runs.hand_over()
            except QueueError:  # the queue's round reports this
                await asyncio.sleep(AWAY_S)
            except WebhookQueueBroken as error:
                self._reconciler.warn(str(error))
                await asyncio.sleep(AWAY_S)
            except Exception:  # an unexpected error ends this round, not the service
                log.exception("webhook calls could not be submitted")
                await asyncio.sleep(AWAY_S)

    async def _once(self) -> None:
        self._run_manager.wake.clear()
        if self._has_changed or self._run_manager.lacks_deployments:
            self._has_changed, is_forced = False, self._run_manager.lacks_deployments
            try:
                await self._reconciler.reconcile(self._served, is_forced=is_forced)
                self._run_manager.lacks_deployments = False
            except BaseException:
                self._has_changed = True
                raise
        await self._reconciler.planner.plan()
        await self._run_manager.round()
        if self._run_manager.wants_rest and not self._run_manager.jobs:
            self._run_manager.wants_rest = False
            with contextlib.suppress(DaemonError):
                await request_daemon(self._daemon, "/rest", {})

    async def _keep_beating(self) -> None:
        """Send systemd's heartbeat while rounds finish in time."""
        every_s = watchdog_interval_s()
        while True:
            await asyncio.sleep(min(every_s or 10.0, 10.0))
            if time.monotonic() - self._round_at < STUCK_S:
                n, jobs = len(self._run_manager.deployments), len(self._run_manager.jobs)
                notify_systemd(f"WATCHDOG=1\nSTATUS={n} pipelines, {jobs} runs running")

    async def _keep_ledgers(self) -> None:
        """Check regularly whether runs can read and write their ledgers."""
        while True:
            await self._ledgers.look(list(self._run_manager.deployments.values()))
            await asyncio.sleep(LEDGERS_S if self._run_manager.deployments else BUSY_S)

    async def _keep_reviews(self) -> None:
        """Submit runs for decisions as they are made."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._review_runs.look()
            except (QueueError, LedgerError):  # the queue's round or the ledgers' reports this
                await asyncio.sleep(AWAY_S)
            except Exception:  # a wrong row of one ledger must not end the service
                log.exception("decisions could not be looked at")
                await asyncio.sleep(LEDGERS_S)

    async def _keep_tidy(self) -> None:
        await asyncio.sleep(TIDY_FIRST_S)
        while True:
            for words in await clean_in_subprocess(self._settings, self._pipeline_folders()):
                log.warning("%s", words)
            await asyncio.sleep(TIDY_S)

    # --- files

    def _take_in(self, changes: PipelineChanges, *, is_first: bool = False) -> None:
        """Apply the changes of a scan.

        Raises:
            FolderTaken: at the first scan, another process serves one of the folders.
        """
        for words in changes.messages:
            log.warning("%s", words)
        served: dict[str, TriggeredPipeline] = {}
        for pipeline in changes.triggered:
            try:
                self._folder_locks.take(pipeline.file.parent.resolve())
            except FolderTaken as error:
                if is_first:
                    raise
                self._reconciler.warn(str(error))
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
            if not is_first:
                self._run_manager.wake.set()

    def _has_progressed(self, deployment: Deployment, run: str) -> bool:
        """Return whether a crashed run made progress, or died of one item."""
        try:
            with self._open_ledger(deployment.triggered.file.parent, True) as ledger:
                return RunStore(ledger).has_progressed(run)
        except LedgerError:
            return False

    def _known_end(self, deployment: Deployment, run: str) -> Report | None:
        """Return how a run ended normally, by its ledger; None: it was killed or stopped."""
        try:
            with self._open_ledger(deployment.triggered.file.parent, True) as ledger:
                row = RunStore(ledger).run(run)
        except LedgerError:
            return None
        is_ours = row is not None and row.pipeline == deployment.triggered.pipeline.name
        return known_end(row) if row is not None and is_ours else None

    def _open_ledger(self, folder: Path, is_readonly: bool) -> Ledger:
        url = self._settings.ledger_url
        return Ledger(folder / STATE_FOLDER, is_readonly=is_readonly, url=url)

    # --- status

    def _ready(self) -> dict[str, bool]:
        return {
            "prefect": bool(self._is_prefect_there),
            "running": time.monotonic() - self._round_at < STUCK_S and not self.stop.is_set(),
            "ledgers": not self._ledgers.faults,
            "webhooks": not self._calls.fault,
        }

    async def paused(self, file: Path, change: bool | None = None) -> bool | None:
        """Return whether a person holds back the runs of a pipeline, after a change, if any.

        None: it is not served.

        Raises:
            QueueError: Prefect is away.
        """
        served = self._run_manager.deployments.values()
        found = (made for made in served if made.triggered.file.resolve() == file)
        if (deployment := next(found, None)) is None:
            return None
        if change is not None:
            await self._prefect_queue.pause(deployment.id, is_paused=change)
            self._run_manager.wake.set()
        return bool(await self._prefect_queue.paused([deployment.id]))

    async def paused_files(self) -> Collection[Path]:
        """Return the pipelines whose runs a person holds back; none if Prefect is away or slow."""
        deployments = {made.id: made for made in self._run_manager.deployments.values()}
        with contextlib.suppress(QueueError, TimeoutError):
            async with asyncio.timeout(_PAUSES_S):
                found = await self._prefect_queue.paused(deployments) if deployments else ()
                return {deployments[id_].triggered.file.resolve() for id_ in found}
        return ()

    def status(self) -> dict[str, Any]:
        facts = status_of(self._run_manager, self._reconciler)
        return {
            "pid": os.getpid(),
            "folders": [str(folder) for folder in self._wishes.folders],
            "prefect": os.environ.get("PREFECT_API_URL", ""),
            "is_prefect_there": bool(self._is_prefect_there),
            "faults": {
                **self._finder.faults(),
                **{str(folder): words for folder, words in self._ledgers.faults.items()},
                **({"webhooks": self._calls.fault} if self._calls.fault else {}),
                **{f"webhook calls of {key}": why for key, why in self._webhook_runs.kept.items()},
            },
            **self._webhook_runs.call_counts(),
            **facts,
        }

    def _first_words(self, listener: socket.socket) -> str:
        host, port = listener.getsockname()[:2]
        what = named_pipelines([pipeline.pipeline.name for pipeline in self._served.values()])
        api = os.environ.get("PREFECT_API_URL", "").removesuffix("/api")
        password = password_file(self._settings.state_dir) if self._server is not None else None
        password_note = f"\n  That page needs the password in {password}." if password else ""
        address, has_questions = f"http://{host}:{port}", bool(self._pipeline_folders(asks_people))
        review = f"\n  {address}{PAGE_PATH} shows what waits for review." if has_questions else ""
        file = token_file(self._settings.state_dir)
        needs = f"{'They need' if has_questions else 'It needs'} the token in {file}."
        return (
            f"Paddock serves {what}.\n"
            f"  {address}/status shows its state; {api} shows the runs.{password_note}\n"
            f"  {address}{CONSOLE_PATH} shows pipelines and runs.{review} {needs}"
        )

    def _prefect_is_there(self, error: Exception | None) -> None:
        """Report once that Prefect is away, and once that it is back."""
        if error is not None and self._is_prefect_there is not False:
            words = "%s (%s). Running runs continue; no run starts until it is back."
            log.warning(words, error, os.environ.get("PREFECT_API_URL", ""))
        elif error is None and not self._is_prefect_there:
            log.info("Prefect answers.")
        self._is_prefect_there = error is None
