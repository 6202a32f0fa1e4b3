"""Batches: files and records on disk, run in the background, resumed at start-up.

Each file or batch is a JSON document with data files, written atomically, so neither a power cut
nor `kill -9` leaves an incomplete one. Only this user may read them: they hold prompts. A batch is
validating, then in_progress, finalizing, completed; or failed, expired, cancelled.

One process runs a batch: it holds the batch's lock file, which the system releases when the process
dies. Results go at once to the files that they stay in, which are listed when the batch is over.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from paddock.engine.api.service import Service
from paddock.engine.errors import EngineError
from paddock.engine.models.blobs import store_write_errors
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.files import (
    TemporaryFile,
    read_json_object,
    remove_stale_files,
    write_json_atomically,
)
from paddock.engine.system.private_files import PRIVATE_FILE, private_folder
from paddock.engine.system.records import Struct, asdict, field, replace
from paddock.engine.system.tasks import StopRequested, TaskSet, run_unless_stopped
from paddock.engine.wire import from_plain, to_plain

from .batch_lines import (
    BatchInterrupted,
    InvalidBatchFile,
    answers_of,
    append_results,
    check_lines,
    expired_result,
    read_lines,
    read_results,
    recover_results,
    run_lines,
)


class FileRecord(Struct, frozen=True):
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
    "validating", "in_progress", "finalizing", "completed", "failed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
FINAL_STATUSES = ("failed", "completed", "expired", "cancelled")


class BatchRecord(Struct, frozen=True):
    """One batch. Times are seconds since the epoch."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_ns: int
    expires_at: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    output_expires_s: int | None = None
    status: BatchStatus = "validating"
    reached: Mapping[str, int] = field(default_factory=dict)
    errors: tuple[Mapping[str, Any], ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    usage: Mapping[str, Any] | None = None
    owner: str = ""

    @property
    def result_ids(self) -> tuple[str, str]:
        own = self.id.removeprefix("batch_")
        return f"file-{own}00", f"file-{own}01"

    def value(self) -> dict[str, Any]:
        counts = {"total": self.total, "completed": self.completed, "failed": self.failed}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": list(self.errors)} if self.errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_ns // 1_000_000_000,
            "expires_at": self.expires_at,
            **{f"{status}_at": self.reached.get(status) for status in get_args(BatchStatus)[1:]},
            "request_counts": counts,
            "usage": self.usage,
            "metadata": dict(self.metadata) or None,
        }


BATCH_ID = r"batch_[0-9a-f]{24}"
_Record = TypeVar("_Record", FileRecord, BatchRecord)


class RecordFolder(Generic[_Record]):
    """Records of one kind, each a JSON document with data files. Blocks: not for the event loop.

    What writes raises EngineError where the disk is full, or cannot be written.
    """

    def __init__(self, folder: Path, kind: type[_Record], id_form: str) -> None:
        self.folder = folder
        self.kind: type[_Record] = kind
        self._id_form = re.compile(id_form)

    def path(self, record_id: str, kind: str) -> Path:
        """Return the path of a record's data; ids are our own, so they are safe names."""
        return self.folder / f"{record_id}.{kind}"

    def write(self, record: _Record) -> None:
        with store_write_errors(self.folder):
            path = self.path(record.id, "json")
            write_json_atomically(path, to_plain(record), is_durable=True)

    def find(self, record_id: str, owner: str) -> _Record | None:
        """Return an owner's record; None where it is missing, unreadable or another's."""
        is_id = self._id_form.fullmatch(record_id) is not None
        record = self._read(self.path(record_id, "json")) if is_id else None
        return record if record is not None and record.owner in ("", owner) else None

    def list(self, owner: str | None = None) -> list[_Record]:
        every = [record for path in self.folder.glob("*.json") if (record := self._read(path))]
        found = [record for record in every if owner is None or record.owner in ("", owner)]
        return sorted(found, key=lambda record: record.created_ns, reverse=True)

    def _read(self, path: Path) -> _Record | None:
        try:
            return from_plain(self.kind, read_json_object(path))
        except ValueError:  # missing, or written by another version
            return None


class FileStore(RecordFolder[FileRecord]):
    """The files of one service; expired ones are deleted when they are met."""

    def __init__(self, state_dir: Path) -> None:
        super().__init__(state_dir / "files", FileRecord, r"file-[0-9a-f]{24,26}")

    def data_path(self, file_id: str) -> Path:
        return self.path(file_id, "data")

    def new_data(self, file_id: str) -> TemporaryFile:
        with store_write_errors(self.folder):
            private_folder(self.folder)
            return TemporaryFile(self.data_path(file_id), mode=PRIVATE_FILE)

    def add(self, record: FileRecord, data: TemporaryFile) -> None:
        with store_write_errors(self.folder):
            data.sync()
            data.replace(self.data_path(record.id))
        self.write(record)  # syncs the folder, too

    def delete(self, file_id: str) -> None:
        for kind in ("json", "data"):
            self.path(file_id, kind).unlink(missing_ok=True)

    def _read(self, path: Path) -> FileRecord | None:
        record = super()._read(path)
        if record is not None and record.expires_at and record.expires_at <= time.time():
            self.delete(record.id)
            return None
        return record


def with_status(record: BatchRecord, status: BatchStatus) -> BatchRecord:
    return replace(record, status=status, reached={**record.reached, status: int(time.time())})


def _finish(files: FileStore, record: BatchRecord, late_lines: Path | None) -> BatchRecord:
    """Make files of the results, unless they are empty; return the batch with their ids and counts.

    `late_lines`: where its time is up; those without a result get an error.
    """
    answers, errors = record.result_ids
    paths = files.data_path(answers), files.data_path(errors)
    done = recover_results(*paths)
    if late_lines is not None:
        late = list(read_lines(late_lines, done))
        append_results(paths[1], b"".join(map(expired_result, late)))
        done.update((line.custom_id, False) for line in late)
    found: dict[str, str] = {}
    for file_id, path, kind in zip((answers, errors), paths, ("output", "error"), strict=True):
        if size_bytes := path.stat().st_size if path.exists() else 0:
            now_ns, lasts_s = time.time_ns(), record.output_expires_s
            expires_at = None if lasts_s is None else now_ns // 1_000_000_000 + lasts_s
            name = f"{record.id}_{kind}.jsonl"
            purpose = "batch_output"
            files.write(
                FileRecord(file_id, name, purpose, size_bytes, now_ns, expires_at, record.owner)
            )
            found[kind] = file_id
    n_good = sum(done.values())
    return replace(
        record,
        total=max(record.total, len(done)),  # it may be late before it is checked
        completed=n_good,
        failed=len(done) - n_good,
        output_file_id=found.get("output"),
        error_file_id=found.get("error"),
        usage=_total_usage(paths[0]),
    )


def _total_usage(answers: Path) -> dict[str, Any]:
    total = Counter[str]()
    for _, result in read_results(answers):
        used = result["response"]["body"].get("usage") or {}
        inside = used.get("input_tokens_details") or used.get("prompt_tokens_details") or {}
        outside = used.get("output_tokens_details") or used.get("completion_tokens_details") or {}
        total["input"] += used.get("input_tokens", used.get("prompt_tokens", 0))
        total["output"] += used.get("output_tokens", used.get("completion_tokens", 0))
        total["cached"] += inside.get("cached_tokens", 0)
        total["reasoning"] += outside.get("reasoning_tokens", 0)
    return {
        "input_tokens": total["input"],
        "input_tokens_details": {"cached_tokens": total["cached"]},
        "output_tokens": total["output"],
        "output_tokens_details": {"reasoning_tokens": total["reasoning"]},
        "total_tokens": total["input"] + total["output"],
    }


BATCHES_AT_ONCE = 4
"""Concurrent batches; others wait."""
PROGRESS_SAVE_S = 0.5
"""Least interval at which a running batch writes its counts."""
DISK_RETRY_S = 30.0

log = logging.getLogger(__name__)


class _RunningBatch(Struct, eq=False):
    record: BatchRecord
    is_cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class BatchRunner:
    """Runs the batches of one service. Used in its event loop; started and stopped with it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        state_dir = service.settings.state_dir
        self.batches = RecordFolder(state_dir / "batches", BatchRecord, BATCH_ID)
        self.files = FileStore(state_dir)
        self._running: dict[str, _RunningBatch] = {}
        self._tasks = TaskSet()
        self._turns = asyncio.Semaphore(BATCHES_AT_ONCE)

    async def start(self) -> None:
        for folder in (self.batches.folder, self.files.folder):
            await asyncio.to_thread(remove_stale_files, folder)
        for batch in reversed(await asyncio.to_thread(self.batches.list)):
            if batch.status not in FINAL_STATUSES:
                self._begin(batch)

    async def stop(self) -> None:
        await self._tasks.close()

    async def create(self, record: BatchRecord, lines: Path) -> None:
        await asyncio.to_thread(self._store, record, lines)
        self._begin(record)

    def _store(self, record: BatchRecord, lines: Path) -> None:
        """Write a batch with its own copy of its lines: their file may be deleted."""
        with store_write_errors(self.batches.folder):
            private_folder(self.batches.folder)
            target = self.batches.path(record.id, "lines")
            try:
                target.hardlink_to(lines)
            except OSError:  # a file system without hard links
                with lines.open("rb") as file:
                    copy, _ = TemporaryFile.copied(target, file)
                copy.replace(target)
                copy.close()
        self.batches.write(record)

    async def cancel(self, batch_id: str) -> BatchRecord | None:
        """Cancel a batch of this process; None: it is none. Its results so far stay."""
        run = self._running.get(batch_id)
        if run is None or run.record.status not in ("validating", "in_progress"):
            return None
        run.is_cancelled.set()
        record = run.record = with_status(run.record, "cancelling")
        await self._note(run)
        return record

    def _begin(self, record: BatchRecord) -> None:
        run = self._running[record.id] = _RunningBatch(record)
        if record.status == "cancelling":
            run.is_cancelled.set()
        self._tasks.start(self._run_locked(run))

    async def _run_locked(self, run: _RunningBatch) -> None:
        """Run one batch to its end, unless another process does."""
        batch_id = run.record.id
        try:
            with lock_now(self.batches.path(batch_id, "lock")):
                while True:
                    try:
                        await self._run(run)
                        break
                    except EngineError as error:
                        log.warning("%s waits: %s", batch_id, error)
                        await asyncio.sleep(DISK_RETRY_S)
        except (LockTaken, OSError, BatchInterrupted):
            return
        finally:
            self._running.pop(batch_id, None)
        for kind in ("lines", "lock"):
            self.batches.path(batch_id, kind).unlink(missing_ok=True)

    async def _run(self, run: _RunningBatch) -> None:
        try:
            status = await self._answer(run)
            late = self.batches.path(run.record.id, "lines") if status == "expired" else None
            run.record = await asyncio.to_thread(_finish, self.files, run.record, late)
        except InvalidBatchFile as error:
            status = "failed"
            run.record = replace(run.record, errors=tuple(map(asdict, error.faults)))
        except (EngineError, BatchInterrupted):
            raise
        except Exception:
            log.exception("%s failed", run.record.id)
            status = "failed"
            fault = {"code": "server_error", "message": "internal server error"}
            run.record = replace(run.record, errors=(fault,))
        await self._move(run, status)

    async def _answer(self, run: _RunningBatch) -> BatchStatus:
        left_s = max(0.0, run.record.expires_at - time.time())
        try:
            await run_unless_stopped(self._lines(run), run.is_cancelled, asyncio.sleep(left_s))
        except StopRequested:
            return "cancelled" if run.is_cancelled.is_set() else "expired"
        await self._move(run, "finalizing")
        return "completed"

    async def _lines(self, run: _RunningBatch) -> None:
        record = run.record
        source = self.batches.path(record.id, "lines")
        paths = map(self.files.data_path, record.result_ids)
        async with self._turns:
            if record.status == "validating":
                total = await asyncio.to_thread(check_lines, source, (record.endpoint,))
                run.record = replace(run.record, total=total)
                await self._move(run, "in_progress")
            noted_at = time.monotonic()
            answer = answers_of(self._service.pool)
            steps = run_lines(answer, source, *paths, n_lines=run.record.total)
            async with aclosing(steps):
                async for progress in steps:
                    n_good, n_bad = progress.completed, progress.failed
                    run.record = replace(run.record, completed=n_good, failed=n_bad)
                    if time.monotonic() - noted_at > PROGRESS_SAVE_S:
                        await self._note(run)
                        noted_at = time.monotonic()

    async def _move(self, run: _RunningBatch, status: BatchStatus) -> None:
        run.record = with_status(run.record, status)
        await self._note(run)

    async def _note(self, run: _RunningBatch) -> None:
        async with run.writing:
            await asyncio.to_thread(self.batches.write, run.record)
