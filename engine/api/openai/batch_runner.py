"""Run batches in the background, resume them at start-up, write their output files.

One process runs a batch: it holds the batch's lock file, which the system frees when the process
dies. Finishing can be repeated: the files get the same names, so a process that was killed
meanwhile leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from paddock.engine.api.service import BackgroundService, Service
from paddock.engine.errors import EngineError
from paddock.engine.models.blobs import store_write_errors
from paddock.engine.system import files

from .batch_lines import (
    BatchInterrupted,
    InvalidBatchFile,
    check_lines,
    expired_result,
    is_answer,
    read_lines,
    read_results,
    recover_results,
    run_lines,
)
from .batch_storage import (
    BatchRecord,
    BatchStatus,
    BatchStore,
    FileRecord,
    FileStore,
    flush_to_disk,
    with_status,
)


def finish_batch(
    book: BatchStore, shelf: FileStore, facts: BatchRecord, *, is_late: bool
) -> BatchRecord:
    """Write the files of a batch whose run has ended, and give it with their ids and its counts.

    Args:
        book: where its results lie.
        shelf: gets the files, as far as there is anything in them.
        facts: the batch.
        is_late: whether its time is up; then lines without a result get that as their error.

    Raises:
        EngineError: the disk is full, or cannot be written.
    """
    results = book.results(facts.id)
    done = recover_results(results)
    late = _expired_results(book.source(facts.id), done) if is_late else ()
    output_id, error_id = facts.result_file_ids
    has_output = _write_result_file(
        shelf, facts, output_id, "output", _result_texts(results, wants=True)
    )
    errors = chain(_result_texts(results, wants=False), late)
    has_errors = _write_result_file(shelf, facts, error_id, "error", errors)
    n_late = facts.total - len(done) if is_late else 0
    n_good = sum(done.values())
    return replace(
        facts,
        completed=n_good,
        failed=len(done) - n_good + n_late,
        output_file_id=output_id if has_output else None,
        error_file_id=error_id if has_errors else None,
        usage=_total_usage(_answer_usages(results)),
    )


def _answer_usages(results: Path) -> Iterable[Mapping[str, Any]]:
    """Yield what each answer cost."""
    if not results.exists():
        return
    for _, result in read_results(results):
        if is_answer(result):
            usage = result["response"].get("body", {}).get("usage")
            if isinstance(usage, dict):
                yield usage


def _expired_results(source: Path, done: Mapping[str, bool]) -> Iterable[bytes]:
    return (expired_result(line) for line in read_lines(source, done))


def _result_texts(results: Path, *, wants: bool) -> Iterable[bytes]:
    if not results.exists():
        return
    for text, result in read_results(results):
        if is_answer(result) == wants:
            yield text


def _write_result_file(
    shelf: FileStore, facts: BatchRecord, file_id: str, kind: str, texts: Iterable[bytes]
) -> bool:
    """Write one file of results; nothing at all where it would be empty."""
    size = 0
    with store_write_errors(shelf.documents.folder):
        aside = shelf.documents.aside()
        try:
            with shelf.documents.opened(aside) as file:
                for text in texts:
                    size += file.write(text)
                flush_to_disk(file)
            if size:
                shelf.add(_result_file_record(facts, file_id, kind, size), aside)
        finally:
            aside.unlink(missing_ok=True)
    return size > 0


def _result_file_record(facts: BatchRecord, file_id: str, kind: str, size_bytes: int) -> FileRecord:
    now_ns = time.time_ns()
    lasts_s = facts.output_expires_s
    return FileRecord(
        file_id,
        f"{facts.id}_{kind}.jsonl",
        "batch_output",
        size_bytes,
        now_ns,
        None if lasts_s is None else now_ns // 1_000_000_000 + lasts_s,
    )


def _total_usage(usages: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up what answers cost, whichever endpoint gave them."""
    n_in = n_cached = n_out = n_reasoning = 0
    for usage in usages:
        n_in += usage.get("input_tokens", usage.get("prompt_tokens", 0))
        n_out += usage.get("output_tokens", usage.get("completion_tokens", 0))
        read = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
        said = usage.get("output_tokens_details") or usage.get("completion_tokens_details") or {}
        n_cached += read.get("cached_tokens", 0)
        n_reasoning += said.get("reasoning_tokens", 0)
    return {
        "input_tokens": n_in,
        "input_tokens_details": {"cached_tokens": n_cached},
        "output_tokens": n_out,
        "output_tokens_details": {"reasoning_tokens": n_reasoning},
        "total_tokens": n_in + n_out,
    }


BATCHES_AT_ONCE = 4
"""Batches that are run side by side; others wait their turn."""
PROGRESS_SAVE_S = 2.0
"""So often at most the counts of a running batch go to the disk, for other processes to see."""
DISK_RETRY_S = 30.0
"""After a disk refused to be written, it is tried again."""

log = logging.getLogger(__name__)


def background_services(service: Service) -> list[BackgroundService]:
    """Return what works beside the requests of a service."""
    return [BatchRunner(service)]


@dataclass(eq=False, slots=True)
class _RunningBatch:
    """One batch that this process runs."""

    facts: BatchRecord
    work: asyncio.Task[bool] | None = None
    """Runs its lines; tells whether its time was up."""
    carrier: asyncio.Task[None] | None = None
    is_called_off: bool = False
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class BatchRunner:
    """The batches of one service. Used in its event loop; started and stopped with it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        state_dir = service.settings.state_dir
        self.book = BatchStore(state_dir)
        self.shelf = FileStore(state_dir)
        self._running: dict[str, _RunningBatch] = {}
        self._turns = asyncio.Semaphore(BATCHES_AT_ONCE)

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

    async def create(self, facts: BatchRecord, lines: Path) -> None:
        """Enter a batch and begin to run it.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        await asyncio.to_thread(self.book.begin, facts, lines)
        self._begin(facts)

    async def find(self, batch_id: str) -> BatchRecord | None:
        """Return a batch as it stands now."""
        run = self._running.get(batch_id)
        return run.facts if run else await asyncio.to_thread(self.book.find, batch_id)

    async def list(self) -> list[BatchRecord]:
        """Return every batch as it stands now, the newest first."""
        listed = await asyncio.to_thread(self.book.list)
        return [self._running[one.id].facts if one.id in self._running else one for one in listed]

    async def cancel(self, batch_id: str) -> BatchRecord | None:
        """End a batch that this process runs; what is answered already stays. None: it does not."""
        run = self._running.get(batch_id)
        if run is None or run.facts.status not in ("validating", "in_progress"):
            return None
        run.is_called_off = True
        facts = run.facts = with_status(run.facts, "cancelling")
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

    def _begin(self, facts: BatchRecord) -> None:
        run = _RunningBatch(facts)
        self._running[facts.id] = run
        run.carrier = asyncio.create_task(self._carry(run))

    async def _carry(self, run: _RunningBatch) -> None:
        """Carry one batch through, unless another process does."""
        lock = FileLock(self.book.lock(run.facts.id), mode=files.PRIVATE_FILE, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            self._running.pop(run.facts.id, None)
            return
        try:
            while not await self._tried(run):  # noqa: ASYNC110 - a disk tells nobody of its room
                await asyncio.sleep(DISK_RETRY_S)
        finally:
            self._running.pop(run.facts.id, None)
            lock.release()
        await asyncio.to_thread(self.book.close, run.facts.id)

    async def _tried(self, run: _RunningBatch) -> bool:
        """Try to bring a batch to its end; False: the disk did not let it."""
        try:
            await self._go_through(run)
        except InvalidBatchFile as error:
            faults = tuple(asdict(one) for one in error.faults)
            return await self._failed(run, faults)
        except EngineError as error:
            log.warning("%s waits: %s", run.facts.id, error)
            return False
        except BatchInterrupted:
            raise asyncio.CancelledError from None
        except Exception:
            log.exception("%s failed", run.facts.id)
            fault = {"code": "server_error", "message": "internal server error"}
            return await self._failed(run, (fault,))
        return True

    async def _failed(self, run: _RunningBatch, faults: tuple[Mapping[str, object], ...]) -> bool:
        run.facts = replace(run.facts, errors=faults)
        try:
            await self._move(run, "failed")
        except EngineError as error:
            log.warning("%s waits: %s", run.facts.id, error)
            return False
        return True

    async def _go_through(self, run: _RunningBatch) -> None:
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
        run.facts = await asyncio.to_thread(finish_batch, book, shelf, run.facts, is_late=is_late)
        await self._move(
            run, "cancelled" if is_called_off else "expired" if is_late else "completed"
        )

    async def _lines(self, run: _RunningBatch) -> bool:
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
                            if time.monotonic() - noted_at > PROGRESS_SAVE_S:
                                await self._note(run)
                                noted_at = time.monotonic()
            except TimeoutError:
                if not limit.expired():
                    raise
                return True
        return False

    async def _move(self, run: _RunningBatch, status: BatchStatus) -> None:
        run.facts = with_status(run.facts, status)
        await self._note(run)

    async def _note(self, run: _RunningBatch) -> None:
        """Bring how a batch stands now to the disk; never an older state after a newer one."""
        async with run.writing:
            await asyncio.to_thread(self.book.write, run.facts)


def _is_cancelled_itself() -> bool:
    """Return whether this very task is being cancelled, and not one that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
