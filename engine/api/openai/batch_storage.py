"""Files and batches of the Batch API on disk. Blocks: not for the event loop.

Each is a JSON document with data files, written atomically, so neither a power cut nor `kill -9`
leaves an incomplete one. Only this user may read them: they hold prompts. Every client of the
service sees all files and batches. A batch is validating, then in_progress, finalizing, completed;
or failed, expired, cancelled.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from paddock.engine.models.blobs import store_write_errors
from paddock.engine.system.files import (
    PRIVATE_FILE,
    TemporaryFile,
    private_folder,
    read_json_object,
    write_json_atomically,
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
            lists = {name: tuple(one) for name, one in value.items() if isinstance(one, list)}
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
        """Return the path of a batch's results."""
        return self.path(batch_id, "results")

    def lock(self, batch_id: str) -> Path:
        """Return the path of the lock of the process that runs a batch."""
        return self.path(batch_id, "lock")

    def begin(self, record: BatchRecord, lines: Path) -> None:
        """Add a batch with its own copy of its lines: their file may be deleted."""
        with store_write_errors(self.folder):
            private_folder(self.folder)
            _link_or_copy(lines, self.source(record.id))
        self.write(record)

    def close(self, batch_id: str) -> None:
        """Delete the files that only a running batch needs."""
        for path in (self.source(batch_id), self.results(batch_id), self.lock(batch_id)):
            path.unlink(missing_ok=True)


def with_status(record: BatchRecord, status: BatchStatus) -> BatchRecord:
    """Return a batch with a new status, reached now."""
    return replace(record, status=status, reached={**record.reached, status: int(time.time())})


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        copy, _, _ = TemporaryFile.copied(target, source)
        try:
            copy.replace(target)
        finally:
            copy.close()
