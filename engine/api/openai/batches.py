"""Batches: files and records on disk, run in the background, resumed at start-up.

Each file or batch is a JSON document with data files, written atomically, so neither a power cut
nor `kill -9` leaves an incomplete one. Only this user may read them: they hold prompts. Every
client of the service sees all files and batches. A batch is validating, then in_progress,
finalizing, completed; or failed, expired, cancelled.

One process runs a batch: it holds the batch's lock file, which the system releases when the process
dies. Finishing is idempotent: the files get the same names after a killed process, too.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from itertools import chain
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from paddock.engine.api.service import Service
from paddock.engine.api.streaming import is_being_cancelled
from paddock.engine.errors import EngineError
from paddock.engine.models.blobs import store_write_errors
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.files import (
    TemporaryFile,
    read_json_object,
    remove_stale_files,
    write_json_atomically,
)
from paddock.engine.system.light_dataclasses import asdict, dataclass, field, replace
from paddock.engine.system.private_files import PRIVATE_FILE, private_folder
from paddock.engine.system.tasks import end

from .batch_lines import (
    BatchInterrupted,
    InvalidBatchFile,
    answers_of,
    check_lines,
    expired_result,
    is_answer,
    read_lines,
    read_results,
    recover_results,
    run_lines,
)

_FILE_ID = re.compile(r"file-[0-9a-f]{24,26}")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One uploaded file or file of results."""

    id: str
    filename: str
    purpose: str
    size_bytes: int
    created_ns: int
    """Nanoseconds since the epoch: several a second keep their order."""
    expires_at: int | None = None
    """Seconds since the epoch."""
    owner: str = ""
    """Who stored it (see `batch_endpoints`); empty: it is everyone's."""

    def value(self) -> dict[str, Any]:
        """Return OpenAI's `file` object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size_bytes,
            "created_at": self.created_ns // 1_000_000_000,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
FINAL_STATUSES = ("failed", "completed", "expired", "cancelled")
_BATCH_ID = re.compile(r"batch_[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch. Times are seconds since the epoch."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_ns: int
    """Nanoseconds since the epoch: several a second keep their order."""
    expires_at: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    output_expires_s: int | None = None
    status: BatchStatus = "validating"
    reached: Mapping[str, int] = field(default_factory=dict)
    """When it reached each status."""
    errors: tuple[Mapping[str, Any], ...] = ()
    """The faults of its lines."""
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    usage: Mapping[str, Any] | None = None
    owner: str = ""
    """As of a file."""

    @property
    def is_over(self) -> bool:
        return self.status in FINAL_STATUSES

    @property
    def result_file_ids(self) -> tuple[str, str]:
        """The ids of its output and error file, the same each time it is finished."""
        own = self.id.removeprefix("batch_")
        return f"file-{own}00", f"file-{own}01"

    def value(self) -> dict[str, Any]:
        """Return OpenAI's `batch` object."""
        reached = self.reached
        errors = {"object": "list", "data": list(self.errors)} if self.errors else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_ns // 1_000_000_000,
            "in_progress_at": reached.get("in_progress"),
            "expires_at": self.expires_at,
            "finalizing_at": reached.get("finalizing"),
            "completed_at": reached.get("completed"),
            "failed_at": reached.get("failed"),
            "expired_at": reached.get("expired"),
            "cancelling_at": reached.get("cancelling"),
            "cancelled_at": reached.get("cancelled"),
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "usage": self.usage,
            "metadata": dict(self.metadata) or None,
        }


_Record = TypeVar("_Record", FileRecord, BatchRecord)


class _RecordFolder(Generic[_Record]):
    """Records of one kind, each a JSON document with data files. Blocks: not for the event loop.

    What writes raises EngineError where the disk is full, or cannot be written.
    """

    def __init__(self, folder: Path, kind: type[_Record], form: re.Pattern[str]) -> None:
        self.folder = folder
        self._kind: Callable[..., _Record] = kind
        self._form = form
        """Of the records' ids."""

    def path(self, record_id: str, kind: str) -> Path:
        """Return the path of a record's data; ids are our own, so they are safe names."""
        return self.folder / f"{record_id}.{kind}"

    def write(self, record: _Record) -> None:
        with store_write_errors(self.folder):
            path = self.path(record.id, "json")
            write_json_atomically(path, asdict(record), is_durable=True)

    def new_data(self, record_id: str) -> TemporaryFile:
        """Return a temporary file for a record's data."""
        with store_write_errors(self.folder):
            private_folder(self.folder)
            return TemporaryFile(self.path(record_id, "data"), mode=PRIVATE_FILE)

    def find(self, record_id: str) -> _Record | None:
        """Return a record; None where it is missing or unreadable."""
        if self._form.fullmatch(record_id) is None:
            return None
        return self._parse(read_json_object(self.path(record_id, "json")))

    def list(self) -> list[_Record]:
        """Return every record, the newest first."""
        read = (self._parse(read_json_object(path)) for path in self.folder.glob("*.json"))
        every = [record for record in read if record is not None]
        return sorted(every, key=lambda record: record.created_ns, reverse=True)

    def _parse(self, value: Mapping[str, Any]) -> _Record | None:
        try:
            lists = {name: tuple(entry) for name, entry in value.items() if isinstance(entry, list)}
            record: _Record = self._kind(**{**value, **lists})
        except TypeError:  # missing, or written by another version
            return None
        return record


class FileStore(_RecordFolder[FileRecord]):
    """The files of one service; expired ones are deleted when they are met."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir / "files", FileRecord, _FILE_ID)

    def add(self, record: FileRecord, data: TemporaryFile) -> None:
        """Add a file with its bytes, from `new_data`."""
        with store_write_errors(self.folder):
            data.sync()
            data.replace(self.data_path(record.id))
        self.write(record)  # syncs the folder, too

    def data_path(self, file_id: str) -> Path:
        return self.path(file_id, "data")

    def find(self, file_id: str) -> FileRecord | None:
        return self._kept(super().find(file_id))

    def list(self) -> list[FileRecord]:
        return [record for record in super().list() if self._kept(record)]

    def _kept(self, record: FileRecord | None) -> FileRecord | None:
        """Return a record; delete an expired one and return None."""
        if record is not None and record.expires_at and record.expires_at <= time.time():
            self.delete(record.id)
            return None
        return record

    def delete(self, file_id: str) -> None:
        for kind in ("json", "data"):
            self.path(file_id, kind).unlink(missing_ok=True)


class BatchStore(_RecordFolder[BatchRecord]):
    """The batches of one service."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir / "batches", BatchRecord, _BATCH_ID)

    def source(self, batch_id: str) -> Path:
        """Return the path of a batch's own copy of its lines."""
        return self.path(batch_id, "lines")

    def results(self, batch_id: str) -> Path:
        return self.path(batch_id, "results")

    def lock(self, batch_id: str) -> Path:
        """Return the path of the lock of the process that runs a batch."""
        return self.path(batch_id, "lock")

    def begin(self, record: BatchRecord, lines: Path) -> None:
        """Add a batch with its own copy of its lines: their file may be deleted."""
        with store_write_errors(self.folder):
            private_folder(self.folder)
            target = self.source(record.id)
            try:
                target.hardlink_to(lines)
            except OSError:  # a file system without hard links
                with lines.open("rb") as file:
                    copy, _, _ = TemporaryFile.copied(target, file)
                try:
                    copy.replace(target)
                finally:
                    copy.close()
        self.write(record)

    def close(self, batch_id: str) -> None:
        """Delete the files that only a running batch needs."""
        for path in (self.source(batch_id), self.results(batch_id), self.lock(batch_id)):
            path.unlink(missing_ok=True)


def with_status(record: BatchRecord, status: BatchStatus) -> BatchRecord:
    """Return a batch with a new status, reached now."""
    return replace(record, status=status, reached={**record.reached, status: int(time.time())})


def finish_batch(
    batches: BatchStore, files: FileStore, record: BatchRecord, *, is_late: bool
) -> BatchRecord:
    """Write the result files of a batch, but no empty ones; return it with their ids and counts.

    `is_late`: its time is up, so lines without a result get an error.
    """
    results = batches.results(record.id)
    done = recover_results(results)
    left = read_lines(batches.source(record.id), done) if is_late else ()
    output_id, error_id = record.result_file_ids
    answers = (text for text, result in read_results(results) if is_answer(result))
    has_output = _write_result_file(files, record, output_id, "output", answers)
    failed = (text for text, result in read_results(results) if not is_answer(result))
    errors = chain(failed, map(expired_result, left))
    has_errors = _write_result_file(files, record, error_id, "error", errors)
    n_late = record.total - len(done) if is_late else 0
    n_good = sum(done.values())
    return replace(
        record,
        completed=n_good,
        failed=len(done) - n_good + n_late,
        output_file_id=output_id if has_output else None,
        error_file_id=error_id if has_errors else None,
        usage=_total_usage(results),
    )


def _write_result_file(
    files: FileStore, record: BatchRecord, file_id: str, kind: str, texts: Iterable[bytes]
) -> bool:
    """Write one file of results, unless it is empty; return whether it was written."""
    n_bytes = 0
    data = files.new_data(file_id)
    try:
        with store_write_errors(files.folder):
            for text in texts:
                data.write(text)
                n_bytes += len(text)
        if n_bytes:
            now_ns = time.time_ns()
            lasts_s = record.output_expires_s
            result_file_record = FileRecord(
                file_id,
                f"{record.id}_{kind}.jsonl",
                "batch_output",
                n_bytes,
                now_ns,
                None if lasts_s is None else now_ns // 1_000_000_000 + lasts_s,
                record.owner,
            )
            files.add(result_file_record, data)
    finally:
        data.close()
    return n_bytes > 0


def _total_usage(results: Path) -> dict[str, Any]:
    """Return the sum of the answers' usage, of any endpoint."""
    n_in = n_cached = n_out = n_reasoning = 0
    for _, result in read_results(results):
        body: Mapping[str, Any] = result["response"].get("body", {}) if is_answer(result) else {}
        found = body.get("usage")
        usage: Mapping[str, Any] = found if isinstance(found, dict) else {}
        inside = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
        outside = usage.get("output_tokens_details") or usage.get("completion_tokens_details") or {}
        n_in += usage.get("input_tokens", usage.get("prompt_tokens", 0))
        n_out += usage.get("output_tokens", usage.get("completion_tokens", 0))
        n_cached += inside.get("cached_tokens", 0)
        n_reasoning += outside.get("reasoning_tokens", 0)
    return {
        "input_tokens": n_in,
        "input_tokens_details": {"cached_tokens": n_cached},
        "output_tokens": n_out,
        "output_tokens_details": {"reasoning_tokens": n_reasoning},
        "total_tokens": n_in + n_out,
    }


BATCHES_AT_ONCE = 4
"""Concurrent batches; others wait."""
PROGRESS_SAVE_S = 2.0
"""Least interval at which a running batch writes its counts, for other processes."""
DISK_RETRY_S = 30.0
"""Pause after a failed write."""

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _RunningBatch:
    """One batch that this process runs."""

    record: BatchRecord
    work: asyncio.Task[bool] | None = None
    """Runs its lines; returns whether its time is up."""
    task: asyncio.Task[None] | None = None
    is_cancelled: bool = False
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class BatchRunner:
    """Runs the batches of one service. Used in its event loop; started and stopped with it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        state_dir = service.settings.state_dir
        self.batches = BatchStore(state_dir)
        self.files = FileStore(state_dir)
        self._running: dict[str, _RunningBatch] = {}
        self._turns = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def start(self) -> None:
        """Resume what an earlier process left unfinished."""
        for folder in (self.batches.folder, self.files.folder):
            await asyncio.to_thread(remove_stale_files, folder)
        for record in reversed(await asyncio.to_thread(self.batches.list)):
            if not record.is_over:
                self._begin(record)

    async def stop(self) -> None:
        """Stop all batches; the next start resumes them."""
        tasks = [run.task for run in self._running.values() if run.task is not None]
        await end(*tasks)

    async def create(self, record: BatchRecord, lines: Path) -> None:
        await asyncio.to_thread(self.batches.begin, record, lines)
        self._begin(record)

    async def find(self, batch_id: str) -> BatchRecord | None:
        run = self._running.get(batch_id)
        return run.record if run else await asyncio.to_thread(self.batches.find, batch_id)

    async def list(self) -> list[BatchRecord]:
        """Return every batch in its current state, the newest first."""
        listed = await asyncio.to_thread(self.batches.list)
        return [
            self._running[record.id].record if record.id in self._running else record
            for record in listed
        ]

    async def cancel(self, batch_id: str) -> BatchRecord | None:
        """Cancel a batch of this process; None: it is none. Its results so far stay."""
        run = self._running.get(batch_id)
        if run is None or run.record.status not in ("validating", "in_progress"):
            return None
        run.is_cancelled = True
        record = run.record = with_status(run.record, "cancelling")
        if run.work is not None:
            run.work.cancel()
        await self._note(run)
        return record

    def _begin(self, record: BatchRecord) -> None:
        run = _RunningBatch(record)
        self._running[record.id] = run
        run.task = asyncio.create_task(self._run_locked(run))

    async def _run_locked(self, run: _RunningBatch) -> None:
        """Run one batch to its end, unless another process does."""
        try:
            with lock_now(self.batches.lock(run.record.id)):
                while not await self._try(run):  # noqa: ASYNC110 - free disk space sends no event
                    await asyncio.sleep(DISK_RETRY_S)
        except (LockTaken, OSError):
            return
        finally:
            self._running.pop(run.record.id, None)
        await asyncio.to_thread(self.batches.close, run.record.id)

    async def _try(self, run: _RunningBatch) -> bool:
        """Run a batch; return whether it reached its end, False after a failed write."""
        try:
            is_cancelled = run.is_cancelled or run.record.status == "cancelling"
            is_late = False
            if not is_cancelled and run.record.status != "finalizing":
                run.work = asyncio.create_task(self._lines(run))
                try:
                    is_late = await run.work
                except asyncio.CancelledError:
                    if not run.is_cancelled or is_being_cancelled():
                        run.work.cancel()
                        raise
                    is_cancelled = True
            if not is_cancelled and not is_late:
                await self._move(run, "finalizing")
            run.record = await asyncio.to_thread(
                finish_batch, self.batches, self.files, run.record, is_late=is_late
            )
            await self._move(
                run, "cancelled" if is_cancelled else "expired" if is_late else "completed"
            )
        except InvalidBatchFile as error:
            faults = tuple(asdict(fault) for fault in error.faults)
            return await self._failed(run, faults)
        except EngineError as error:
            log.warning("%s waits: %s", run.record.id, error)
            return False
        except BatchInterrupted:
            raise asyncio.CancelledError from None
        except Exception:
            log.exception("%s failed", run.record.id)
            fault = {"code": "server_error", "message": "internal server error"}
            return await self._failed(run, (fault,))
        return True

    async def _failed(self, run: _RunningBatch, faults: tuple[Mapping[str, object], ...]) -> bool:
        run.record = replace(run.record, errors=faults)
        try:
            await self._move(run, "failed")
        except EngineError as error:
            log.warning("%s waits: %s", run.record.id, error)
            return False
        return True

    async def _lines(self, run: _RunningBatch) -> bool:
        """Check and run the lines; return whether time is up before all have a result."""
        record, batches = run.record, self.batches
        source, results = batches.source(record.id), batches.results(record.id)
        async with self._turns:
            if record.status == "validating":
                total = await asyncio.to_thread(check_lines, source, (record.endpoint,))
                run.record = replace(run.record, total=total)
                await self._move(run, "in_progress")
            noted_at = time.monotonic()
            answer = answers_of(self._service.pool)
            steps = run_lines(answer, source, results, n_lines=run.record.total)
            try:
                async with asyncio.timeout(record.expires_at - time.time()) as limit:
                    async with aclosing(steps):
                        async for progress in steps:
                            n_good, n_bad = progress.completed, progress.failed
                            run.record = replace(run.record, completed=n_good, failed=n_bad)
                            if time.monotonic() - noted_at > PROGRESS_SAVE_S:
                                await self._note(run)
                                noted_at = time.monotonic()
            except TimeoutError:
                if not limit.expired():
                    raise
                return True
        return False

    async def _move(self, run: _RunningBatch, status: BatchStatus) -> None:
        run.record = with_status(run.record, status)
        await self._note(run)

    async def _note(self, run: _RunningBatch) -> None:
        """Write a batch's record; never an older state after a newer one."""
        async with run.writing:
            await asyncio.to_thread(self.batches.write, run.record)
