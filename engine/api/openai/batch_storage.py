"""Files and batches of the Batch API on disk. Blocks: not for the event loop.

Each is a JSON document with data files, written atomically, so neither a power cut nor `kill -9`
leaves an incomplete one. Only this user may read them: they hold prompts. Every client of the
service sees all files and batches. A batch is validating, then in_progress, finalizing, completed;
or failed, expired, cancelled.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

from paddock.engine.models.blobs import store_write_errors
from paddock.engine.system import files
from paddock.engine.system.files import sync_folder


class DocumentFolder:
    """One folder of documents, each under its id. Blocks: not for the event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, document_id: str, kind: str) -> Path:
        """Return the path of a document's data; ids are our own, so they are safe names."""
        return self.folder / f"{document_id}.{kind}"

    def read(self, document_id: str) -> dict[str, Any] | None:
        """Return a document; None where it is missing or unreadable."""
        try:
            value = json.loads(self.path(document_id, "json").read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def all(self) -> Iterator[dict[str, Any]]:
        """Yield every readable document, in no order."""
        for path in self.folder.glob("*.json"):
            found = self.read(path.stem)
            if found is not None:
                yield found

    def write(self, document_id: str, value: Mapping[str, Any]) -> None:
        """Write a document atomically.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        with store_write_errors(self.folder):
            temporary = self.temporary()
            try:
                with self.opened(temporary) as file:
                    file.write(json.dumps(value).encode())
                    flush_to_disk(file)
                self.place(temporary, self.path(document_id, "json"))
            finally:
                temporary.unlink(missing_ok=True)

    def temporary(self) -> Path:
        """Return the path of a new temporary file."""
        files.private_folder(self.folder)
        return self.folder / f"{secrets.token_hex(8)}.part"

    def opened(self, path: Path) -> IO[bytes]:
        """Open a file, which only this user may read, to append to it."""
        return files.open_private(path, "ab")

    def place(self, temporary: Path, path: Path) -> None:
        """Rename a flushed temporary file to `path`, durably."""
        temporary.replace(path)
        sync_folder(self.folder)

    def delete(self, document_id: str, *kinds: str) -> None:
        """Delete a document, then its data."""
        for kind in ("json", *kinds):
            with suppress(FileNotFoundError):
                self.path(document_id, kind).unlink()


def flush_to_disk(file: IO[bytes]) -> None:
    """Flush a file's data to the disk."""
    file.flush()
    os.fsync(file.fileno())


def append_durably(path: Path, data: bytes) -> None:
    """Append to a file and flush it to the disk; make the file if it is missing.

    Raises:
        EngineError: the disk is full, or cannot be written.
    """
    with store_write_errors(path.parent):
        files.private_folder(path.parent)
        with files.open_private(path, "ab") as file:
            file.write(data)
            flush_to_disk(file)


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


class FileStore:
    """The files of one service. Blocks: not for the event loop."""

    def __init__(self, state_dir: Path) -> None:
        self.documents = DocumentFolder(state_dir / "files")

    def add(self, record: FileRecord, data: Path) -> None:
        """Add a file; its flushed bytes are moved from `data`.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        self.documents.place(data, self.path(record.id))
        self.documents.write(record.id, asdict(record))

    def path(self, file_id: str) -> Path:
        """Return the path of a file's bytes."""
        return self.documents.path(file_id, "data")

    def find(self, file_id: str) -> FileRecord | None:
        """Return a file; an expired one is deleted, and None returned."""
        if _FILE_ID.fullmatch(file_id) is None:
            return None
        value = self.documents.read(file_id)
        record = None if value is None else _file_record(value)
        if record is None or not _is_expired(record):
            return record
        self.delete(file_id)
        return None

    def list(self) -> list[FileRecord]:
        """Return every file, the newest first; expired ones are deleted."""
        every = [
            record for value in self.documents.all() if (record := _file_record(value)) is not None
        ]
        for record in filter(_is_expired, every):
            self.delete(record.id)
        kept = [record for record in every if not _is_expired(record)]
        return sorted(kept, key=lambda record: record.created_ns, reverse=True)

    def delete(self, file_id: str) -> None:
        """Delete a file."""
        self.documents.delete(file_id, "data")


def _file_record(value: Mapping[str, Any]) -> FileRecord | None:
    try:
        return FileRecord(**value)
    except TypeError:  # written by another version
        return None


def _is_expired(record: FileRecord) -> bool:
    return record.expires_at is not None and record.expires_at <= time.time()


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
        """Whether its status is final."""
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


class BatchStore:
    """The batches of one service. Blocks: not for the event loop."""

    def __init__(self, state_dir: Path) -> None:
        self.documents = DocumentFolder(state_dir / "batches")

    def source(self, batch_id: str) -> Path:
        """Return the path of a batch's own copy of its lines."""
        return self.documents.path(batch_id, "lines")

    def results(self, batch_id: str) -> Path:
        """Return the path of a batch's results."""
        return self.documents.path(batch_id, "results")

    def lock(self, batch_id: str) -> Path:
        """Return the path of the lock of the process that runs a batch."""
        return self.documents.path(batch_id, "lock")

    def begin(self, record: BatchRecord, lines: Path) -> None:
        """Add a batch with its own copy of its lines: their file may be deleted.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        with store_write_errors(self.documents.folder):
            temporary = self.documents.temporary()
            try:
                _link_or_copy(lines, temporary)
                self.documents.place(temporary, self.source(record.id))
            finally:
                temporary.unlink(missing_ok=True)
        self.write(record)

    def write(self, record: BatchRecord) -> None:
        """Write a batch's record.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        self.documents.write(record.id, asdict(record))

    def find(self, batch_id: str) -> BatchRecord | None:
        """Return a batch."""
        if _BATCH_ID.fullmatch(batch_id) is None:
            return None
        value = self.documents.read(batch_id)
        return None if value is None else _batch_record(value)

    def list(self) -> list[BatchRecord]:
        """Return every batch, the newest first."""
        every = [
            record for value in self.documents.all() if (record := _batch_record(value)) is not None
        ]
        return sorted(every, key=lambda record: record.created_ns, reverse=True)

    def close(self, batch_id: str) -> None:
        """Delete the files that only a running batch needs."""
        for path in (self.source(batch_id), self.results(batch_id), self.lock(batch_id)):
            path.unlink(missing_ok=True)


def with_status(record: BatchRecord, status: BatchStatus) -> BatchRecord:
    """Return a batch with a new status, reached now."""
    return replace(record, status=status, reached={**record.reached, status: int(time.time())})


def _batch_record(value: Mapping[str, Any]) -> BatchRecord | None:
    try:
        return BatchRecord(**{**value, "errors": tuple(value.get("errors", ()))})
    except TypeError:  # written by another version
        return None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
