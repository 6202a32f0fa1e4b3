"""What is known of each batch, on disk, so that it outlives the process that runs it.

Knows no HTTP and no pool. The states are OpenAI's: validating, then in_progress, then finalizing,
then completed; or failed, expired, cancelled.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from paddock.engine.store.locks import writing

from .documents import Documents

Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
OVER = ("failed", "completed", "expired", "cancelled")
_ID = re.compile(r"batch_[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class BatchFacts:
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
    status: Status = "validating"
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
        return self.status in OVER

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


class BatchBook:
    """The batches of one service. Blocks: not for the event loop."""

    def __init__(self, state_dir: Path) -> None:
        self.documents = Documents(state_dir / "batches")

    def source(self, batch_id: str) -> Path:
        """Tell where a batch's own copy of its lines lies."""
        return self.documents.path(batch_id, "lines")

    def results(self, batch_id: str) -> Path:
        """Tell where its results are gathered."""
        return self.documents.path(batch_id, "results")

    def lock(self, batch_id: str) -> Path:
        """Tell which file the process that runs it holds locked."""
        return self.documents.path(batch_id, "lock")

    def begin(self, facts: BatchFacts, lines: Path) -> None:
        """Enter a batch with its own copy of its lines, whatever becomes of their file.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        with writing(self.documents.folder):
            aside = self.documents.aside()
            try:
                _link_or_copy(lines, aside)
                self.documents.place(aside, self.source(facts.id))
            finally:
                aside.unlink(missing_ok=True)
        self.write(facts)

    def write(self, facts: BatchFacts) -> None:
        """Note how a batch stands.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        self.documents.write(facts.id, asdict(facts))

    def find(self, batch_id: str) -> BatchFacts | None:
        """Give a batch."""
        if _ID.fullmatch(batch_id) is None:
            return None
        value = self.documents.read(batch_id)
        return None if value is None else _facts(value)

    def list(self) -> list[BatchFacts]:
        """Give every batch, the newest first."""
        every = [facts for value in self.documents.all() if (facts := _facts(value)) is not None]
        return sorted(every, key=lambda facts: facts.created_ns, reverse=True)

    def close(self, batch_id: str) -> None:
        """Take away what only a batch that runs needs."""
        for path in (self.source(batch_id), self.results(batch_id), self.lock(batch_id)):
            path.unlink(missing_ok=True)


def moved(facts: BatchFacts, status: Status) -> BatchFacts:
    """Give a batch that has come into another state now."""
    return replace(facts, status=status, reached={**facts.reached, status: int(time.time())})


def _facts(value: Mapping[str, Any]) -> BatchFacts | None:
    try:
        return BatchFacts(**{**value, "errors": tuple(value.get("errors", ()))})
    except TypeError:  # another version's
        return None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # a disk that knows no links
        shutil.copyfile(source, target)
