"""Files and batches of the Batch API on disk. Blocks: not for the event loop.

Each is a JSON document with data beside it, written aside, flushed and renamed, so neither a power
cut nor `kill -9` leaves half of one. Only this user may read them: they hold prompts. Every client
of the service sees all files and batches. A batch is validating, then in_progress, finalizing,
completed; or failed, expired, cancelled.
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
        """Return where something of a document lies; ids are our own, so they are safe names."""
        return self.folder / f"{document_id}.{kind}"

    def read(self, document_id: str) -> dict[str, Any] | None:
        """Return a document, or None where there is none that can be read."""
        try:
            value = json.loads(self.path(document_id, "json").read_bytes())
        except (OSError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def all(self) -> Iterator[dict[str, Any]]:
        """Yield every document that can be read, in no order."""
        for path in self.folder.glob("*.json"):
            found = self.read(path.stem)
            if found is not None:
                yield found

    def write(self, document_id: str, value: Mapping[str, Any]) -> None:
        """Put a document in its place, or in that of an older one.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        with store_write_errors(self.folder):
            aside = self.aside()
            try:
                with self.opened(aside) as file:
                    file.write(json.dumps(value).encode())
                    flush_to_disk(file)
                self.place(aside, self.path(document_id, "json"))
            finally:
                aside.unlink(missing_ok=True)

    def aside(self) -> Path:
        """Return the path of a file that is not yet anything."""
        files.private_folder(self.folder)
        return self.folder / f"{secrets.token_hex(8)}.part"

    def opened(self, path: Path) -> IO[bytes]:
        """Open a new file, or an older one for more, that only this user may read."""
        return files.open_private(path, "ab")

    def place(self, aside: Path, path: Path) -> None:
        """Give a file that is on the disk its name."""
        aside.replace(path)
        sync_folder(self.folder)

    def delete(self, document_id: str, *kinds: str) -> None:
        """Take a document away, and then what belongs to it."""
        for kind in ("json", *kinds):
            with suppress(FileNotFoundError):
                self.path(document_id, kind).unlink()


def flush_to_disk(file: IO[bytes]) -> None:
    """Wait until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def append_durably(path: Path, data: bytes) -> None:
    """Write behind what a file has, and wait until it is on the disk; makes it if need be.

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
    """What is known of one file."""

    id: str
    filename: str
    purpose: str
    size_bytes: int
    created_ns: int
    """Nanoseconds since the epoch: several a second keep their order."""
    expires_at: int | None = None
    """Seconds since the epoch."""

    def value(self) -> dict[str, Any]:
        """Write it as OpenAI's API has it."""
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

    def add(self, facts: FileRecord, data: Path) -> None:
        """Take a file whose bytes lie whole on the disk in `data`, which is moved.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        self.documents.place(data, self.path(facts.id))
        self.documents.write(facts.id, asdict(facts))

    def path(self, file_id: str) -> Path:
        """Return where a file's bytes lie."""
        return self.documents.path(file_id, "data")

    def find(self, file_id: str) -> FileRecord | None:
        """Return a file that is there and has not expired; one that has is taken away."""
        if _FILE_ID.fullmatch(file_id) is None:
            return None
        value = self.documents.read(file_id)
        facts = None if value is None else _file_record(value)
        if facts is None or not _is_expired(facts):
            return facts
        self.delete(file_id)
        return None

    def list(self) -> list[FileRecord]:
        """Return every file that has not expired, the newest first."""
        every = [
            facts for value in self.documents.all() if (facts := _file_record(value)) is not None
        ]
        for facts in filter(_is_expired, every):
            self.delete(facts.id)
        kept = [facts for facts in every if not _is_expired(facts)]
        return sorted(kept, key=lambda facts: facts.created_ns, reverse=True)

    def delete(self, file_id: str) -> None:
        """Take a file away."""
        self.documents.delete(file_id, "data")


def _file_record(value: Mapping[str, Any]) -> FileRecord | None:
    try:
        return FileRecord(**value)
    except TypeError:  # another version's
        return None


def _is_expired(facts: FileRecord) -> bool:
    return facts.expires_at is not None and facts.expires_at <= time.time()


BatchStatus = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
FINAL_STATUSES = ("failed", "completed", "expired", "cancelled")
_BATCH_ID = re.compile(r"batch_[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One batch. Moments are seconds since the epoch."""

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
    """When it came into each state."""
    errors: tuple[Mapping[str, Any], ...] = ()
    """What is wrong with its lines."""
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    usage: Mapping[str, Any] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINAL_STATUSES

    @property
    def result_file_ids(self) -> tuple[str, str]:
        """What its output and its errors are to be called, however often it is finished anew."""
        own = self.id.removeprefix("batch_")
        return f"file-{own}00", f"file-{own}01"

    def value(self) -> dict[str, Any]:
        """Write it as OpenAI's API has it."""
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
        """Return where a batch's own copy of its lines lies."""
        return self.documents.path(batch_id, "lines")

    def results(self, batch_id: str) -> Path:
        """Return where its results are gathered."""
        return self.documents.path(batch_id, "results")

    def lock(self, batch_id: str) -> Path:
        """Return which file the process that runs it holds locked."""
        return self.documents.path(batch_id, "lock")

    def begin(self, facts: BatchRecord, lines: Path) -> None:
        """Enter a batch with its own copy of its lines, whatever becomes of their file.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        with store_write_errors(self.documents.folder):
            aside = self.documents.aside()
            try:
                _link_or_copy(lines, aside)
                self.documents.place(aside, self.source(facts.id))
            finally:
                aside.unlink(missing_ok=True)
        self.write(facts)

    def write(self, facts: BatchRecord) -> None:
        """Note how a batch stands.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        self.documents.write(facts.id, asdict(facts))

    def find(self, batch_id: str) -> BatchRecord | None:
        """Return a batch."""
        if _BATCH_ID.fullmatch(batch_id) is None:
            return None
        value = self.documents.read(batch_id)
        return None if value is None else _batch_record(value)

    def list(self) -> list[BatchRecord]:
        """Return every batch, the newest first."""
        every = [
            facts for value in self.documents.all() if (facts := _batch_record(value)) is not None
        ]
        return sorted(every, key=lambda facts: facts.created_ns, reverse=True)

    def close(self, batch_id: str) -> None:
        """Take away what only a batch that runs needs."""
        for path in (self.source(batch_id), self.results(batch_id), self.lock(batch_id)):
            path.unlink(missing_ok=True)


def with_status(facts: BatchRecord, status: BatchStatus) -> BatchRecord:
    """Return a batch that has come into another state now."""
    return replace(facts, status=status, reached={**facts.reached, status: int(time.time())})


def _batch_record(value: Mapping[str, Any]) -> BatchRecord | None:
    try:
        return BatchRecord(**{**value, "errors": tuple(value.get("errors", ()))})
    except TypeError:  # another version's
        return None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a disk that knows no links
        shutil.copyfile(source, target)
