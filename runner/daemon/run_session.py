"""A run's session with the local daemon: lease, address of its model pool, Prefect updates.

Reconnect when it goes away. Runs whose end Prefect does not show yet are kept as files (the
backlog) until a daemon shows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from paddock.engine.backends.rpc import PoolAddress
from paddock.engine.errors import EngineError
from paddock.engine.system import files
from paddock.runner.progress.prefect_view import crashed_end
from paddock.runner.settings import Settings

from . import daemon_files
from .daemon_client import DaemonLease, ensure_daemon, hold_lease, request_daemon
from .daemon_files import DaemonError, DaemonInfo, daemon_folder, paths_of

MOST_KEPT_RUNS = 100  # some days of hourly runs that found nothing to do
_UPDATE_KEYS = {"id", "pid", "pipeline", "run", "parameters", "began", "tasks", "percent", "end"}


def keep_run(state_dir: Path, update: dict[str, Any]) -> None:
    """Write down that a run began or how it ended. Raise OSError where that cannot be written."""
    folder = _backlog_folder(state_dir)
    files.private_folder(folder)
    daemon_files.write_record(folder / f"{update['id']}.json", update)
    for old in sorted(folder.glob("*.json"), key=_mtime, reverse=True)[MOST_KEPT_RUNS:]:
        old.unlink(missing_ok=True)


def kept_runs(state_dir: Path) -> list[dict[str, Any]]:
    """Return the runs that have ended and are not shown yet, the oldest first.

    One without an end whose process is gone has crashed, together with the service that knew it.
    """
    from paddock.runner.ledger.run_history import is_process_alive

    found = [daemon_files.read_record(file) for file in _backlog_folder(state_dir).glob("*.json")]
    whole = [one for one in found if one.keys() >= _UPDATE_KEYS]
    for one in whole:
        if one["end"] is None and not is_process_alive(one["pid"], one["began"]):
            one["end"] = crashed_end(one["pid"])
    return sorted((one for one in whole if one["end"]), key=lambda one: float(one["began"]))


def forget_run(state_dir: Path, id_: str) -> None:
    """Remove a run that is shown."""
    (_backlog_folder(state_dir) / f"{id_}.json").unlink(missing_ok=True)


def _mtime(file: Path) -> float:
    """Return when a file was written; one that is gone by now counts as old."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _backlog_folder(state_dir: Path) -> Path:
    return daemon_folder(state_dir) / "unshown"


MOST_RECONNECTS = 10  # a service that goes away so often in one run will not stay


class DaemonSession:
    """One run at the local service. Made by `daemon_session`."""

    def __init__(
        self, settings: Settings, pipeline: str, wants_prefect: bool, tell: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._wants_prefect = wants_prefect
        self._tell = tell
        self._moving = asyncio.Lock()
        self._stack = AsyncExitStack()
        self._daemon_lease: DaemonLease | None = None
        self._n_moves = 0
        self._is_refused = False
        self._staying: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[bool] | None = None

    @property
    def residence(self) -> DaemonInfo:
        """The service as it is now."""
        assert self._daemon_lease is not None
        return self._daemon_lease.residence

    @property
    def is_there(self) -> bool:
        """Whether the run has the service."""
        return self._daemon_lease is not None

    async def start(self) -> bool:
        """Find or start the service, once; return whether it is there. If not, it is told why."""
        async with self._moving:
            if self._daemon_lease is None and not self._is_refused:
                try:
                    await self.attach()
                except DaemonError as error:
                    self._is_refused = True
                    self._tell(f"{error}\n  This run goes on without it.")
        return self.is_there

    async def attach(self) -> None:
        """Find or start the service, and hold a lease of it.

        Raises:
            NoResidence: there is none, and none starts.
        """
        residence = await ensure_daemon(
            self._settings, wants_prefect=self._wants_prefect, tell=self._tell
        )
        await self._stack.aclose()
        self._daemon_lease = await self._stack.enter_async_context(
            hold_lease(residence, pipeline=self._pipeline)
        )
        if self._staying is None:
            self._staying = asyncio.create_task(self.stay())

    async def detach(self) -> None:
        """Give the lease back."""
        tasks = {task for task in (self._staying, self._starting) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._stack.aclose()

    async def stay(self) -> None:
        """Hold a lease over the deaths of services, until cancelled or given up."""
        while self._daemon_lease is not None:
            await self._daemon_lease.broken.wait()
            try:
                await self._move(self._daemon_lease)
            except DaemonError as error:
                self._tell(str(error))
                return

    async def place(self, broken: PoolAddress | None) -> PoolAddress:
        """Return where the pool is asked; implements `paddock.engine.backends.rpc.FindPool`.

        Raises:
            EngineError: the service does not come back.
        """
        lodging = self._daemon_lease
        assert lodging is not None
        if broken is not None and not await asyncio.to_thread(
            daemon_files.is_listening, lodging.residence.socket
        ):
            try:
                await self._move(lodging)
            except DaemonError as error:
                raise EngineError(str(error)) from None
        return PoolAddress(socket=self.residence.socket)

    async def mirror(self, update: dict[str, Any]) -> bool:
        """Have the service show how the run goes; implements `paddock.runner.prefect.run_tracking.SendUpdate`.

        A run with items to do starts the service for it. Where there is none, or it does not
        answer, the end of a run is written down for the next one.
        """
        end = update["end"]
        if self._daemon_lease is None and update["has_work"] and self._starting is None:
            self._starting = asyncio.create_task(self.start())
        if self._starting is not None and end is not None:
            await asyncio.wait({self._starting})
        if self._daemon_lease is not None:
            update |= {"lease": self._daemon_lease.id}
            try:
                told = await request_daemon(self.residence, "/mirror", update)
                return bool(told.get("is_new"))
            except DaemonError:
                pass
        if end is not None:
            self._keep(update)
        return True

    def _keep(self, update: dict[str, Any]) -> None:
        try:
            keep_run(self._settings.state_dir, update)
        except OSError as error:
            self._tell(f"Prefect does not show the end of this run: {error}")

    async def _move(self, gone: DaemonLease) -> None:
        """Move to a service that runs, once for all who found the old one gone."""
        async with self._moving:
            if self._daemon_lease is not gone:
                return
            self._n_moves += 1
            if self._n_moves > MOST_RECONNECTS:
                raise DaemonError(
                    f"The local service went away {MOST_RECONNECTS} times in this run."
                )
            self._tell("The local service went away; the run goes on with another one.")
            await self.attach()


@asynccontextmanager
async def daemon_session(
    settings: Settings, *, pipeline: str, wants_prefect: bool, tell: Callable[[str], None]
) -> AsyncIterator[DaemonSession]:
    """Yield a run's stay at the local service, which is started once it is needed."""
    tenant = DaemonSession(settings, pipeline, wants_prefect, tell)
    try:
        if await asyncio.to_thread(is_daemon_running, settings):
            await tenant.start()
        yield tenant
    finally:
        await tenant.detach()


def is_daemon_running(settings: Settings) -> bool:
    """Return whether a service that fits these settings runs."""
    return daemon_files.daemon_at(paths_of(settings)) is not None
