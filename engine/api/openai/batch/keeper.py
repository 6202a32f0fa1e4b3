"""Runs batches beside the requests of clients, and takes them up again when the service starts.

Knows no HTTP. A batch is run by one process: it holds the batch's lock file, which the system
frees when it dies, however it dies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from paddock.engine.api.service import Companion, Service
from paddock.engine.errors import EngineError
from paddock.engine.system import private

from .book import BatchBook, BatchFacts, Status, moved
from .ending import finish
from .lines import BadLines, check_lines
from .running import Interrupted, run_lines
from .shelf import FileShelf

AT_ONCE = 4
"""Batches that are run side by side; others wait their turn."""
NOTED_S = 2.0
"""So often at most the counts of a running batch go to the disk, for other processes to see."""
AGAIN_S = 30.0
"""After a disk refused to be written, it is tried again."""

log = logging.getLogger(__name__)


def companions(service: Service) -> list[Companion]:
    """Give what works beside the requests of a service."""
    return [Batches(service)]


@dataclass(eq=False, slots=True)
class _Run:
    """One batch that this process runs."""

    facts: BatchFacts
    work: asyncio.Task[bool] | None = None
    """Runs its lines; tells whether its time was up."""
    carrier: asyncio.Task[None] | None = None
    is_called_off: bool = False
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Batches:
    """The batches of one service. Used in its event loop; started and stopped with it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        state_dir = service.settings.state_dir
        self.book = BatchBook(state_dir)
        self.shelf = FileShelf(state_dir)
        self._running: dict[str, _Run] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def start(self) -> None:
        """Take up what an earlier process left unfinished."""
        await asyncio.to_thread(self._sweep)
        for facts in reversed(await asyncio.to_thread(self.book.list)):
            if not facts.is_over:
                self._begin(facts)

    async def stop(self) -> None:
        """Hand back what runs: lines without a result are run again after the next start."""
        carriers = [run.carrier for run in self._running.values() if run.carrier is not None]
        for carrier in carriers:
            carrier.cancel()
        await asyncio.gather(*carriers, return_exceptions=True)

    async def create(self, facts: BatchFacts, lines: Path) -> None:
        """Enter a batch and begin to run it.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        await asyncio.to_thread(self.book.begin, facts, lines)
        self._begin(facts)

    async def find(self, batch_id: str) -> BatchFacts | None:
        """Give a batch as it stands now."""
        run = self._running.get(batch_id)
        return run.facts if run else await asyncio.to_thread(self.book.find, batch_id)

    async def list(self) -> list[BatchFacts]:
        """Give every batch as it stands now, the newest first."""
        listed = await asyncio.to_thread(self.book.list)
        return [self._running[one.id].facts if one.id in self._running else one for one in listed]

    async def cancel(self, batch_id: str) -> BatchFacts | None:
        """End a batch that this process runs; what is answered already stays. None: it does not."""
        run = self._running.get(batch_id)
        if run is None or run.facts.status not in ("validating", "in_progress"):
            return None
        run.is_called_off = True
        facts = run.facts = moved(run.facts, "cancelling")
        if run.work is not None:
            run.work.cancel()
        await self._note(run)
        return facts

    def _sweep(self) -> None:
        """Take away what killed uploads left half done."""
        for folder in (self.book.documents.folder, self.shelf.documents.folder):
            for path in folder.glob("*.part"):
                with suppress(OSError):
                    if path.stat().st_mtime < time.time() - 24 * 3600:
                        path.unlink()

    # One batch

    def _begin(self, facts: BatchFacts) -> None:
        run = _Run(facts)
        self._running[facts.id] = run
        run.carrier = asyncio.create_task(self._carry(run))

    async def _carry(self, run: _Run) -> None:
        """Carry one batch through, unless another process does."""
        lock = FileLock(self.book.lock(run.facts.id), mode=private.FILE, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            self._running.pop(run.facts.id, None)
            return
        try:
            while not await self._tried(run):  # noqa: ASYNC110 - a disk tells nobody of its room
                await asyncio.sleep(AGAIN_S)
        finally:
            self._running.pop(run.facts.id, None)
            lock.release()
        await asyncio.to_thread(self.book.close, run.facts.id)

    async def _tried(self, run: _Run) -> bool:
        """Try to bring a batch to its end; False: the disk did not let it."""
        try:
            await self._go_through(run)
        except BadLines as error:
            faults = tuple(asdict(one) for one in error.faults)
            return await self._failed(run, faults)
        except EngineError as error:
            log.warning("%s waits: %s", run.facts.id, error)
            return False
        except Interrupted:
            raise asyncio.CancelledError from None
        except Exception:
            log.exception("%s failed", run.facts.id)
            fault = {"code": "server_error", "message": "internal server error"}
            return await self._failed(run, (fault,))
        return True

    async def _failed(self, run: _Run, faults: tuple[Mapping[str, object], ...]) -> bool:
        run.facts = replace(run.facts, errors=faults)
        try:
            await self._move(run, "failed")
        except EngineError as error:
            log.warning("%s waits: %s", run.facts.id, error)
            return False
        return True

    async def _go_through(self, run: _Run) -> None:
        is_called_off = run.is_called_off or run.facts.status == "cancelling"
        is_late = False
        if not is_called_off and run.facts.status != "finalizing":
            run.work = asyncio.create_task(self._lines(run))
            try:
                is_late = await run.work
            except asyncio.CancelledError:
                if not run.is_called_off or _is_cancelled_itself():
                    run.work.cancel()
                    raise
                is_called_off = True
        if not is_called_off and not is_late:
            await self._move(run, "finalizing")
        book, shelf = self.book, self.shelf
        run.facts = await asyncio.to_thread(finish, book, shelf, run.facts, is_late=is_late)
        await self._move(
            run, "cancelled" if is_called_off else "expired" if is_late else "completed"
        )

    async def _lines(self, run: _Run) -> bool:
        """Check and run the lines; tells whether time was up before all had a result."""
        facts, book = run.facts, self.book
        source, results = book.source(facts.id), book.results(facts.id)
        async with self._turns:
            if facts.status == "validating":
                urls = (facts.endpoint,)
                total = await asyncio.to_thread(check_lines, source, urls)
                run.facts = replace(run.facts, total=total)
                await self._move(run, "in_progress")
            noted_at = time.monotonic()
            tallies = run_lines(self._service.pool, source, results, n_lines=run.facts.total)
            try:
                async with asyncio.timeout(facts.expires_at - time.time()) as limit:
                    async with aclosing(tallies):
                        async for tally in tallies:
                            n_good, n_bad = tally.completed, tally.failed
                            run.facts = replace(run.facts, completed=n_good, failed=n_bad)
                            if time.monotonic() - noted_at > NOTED_S:
                                await self._note(run)
                                noted_at = time.monotonic()
            except TimeoutError:
                if not limit.expired():
                    raise
                return True
        return False

    async def _move(self, run: _Run, status: Status) -> None:
        run.facts = moved(run.facts, status)
        await self._note(run)

    async def _note(self, run: _Run) -> None:
        """Bring how a batch stands now to the disk; never an older state after a newer one."""
        async with run.writing:
            await asyncio.to_thread(self.book.write, run.facts)


def _is_cancelled_itself() -> bool:
    """Tell whether this very task is being cancelled, and not one that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
