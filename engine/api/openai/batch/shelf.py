"""Uploaded files and the results of batches, on disk until they are deleted or expire.

Knows no HTTP. Everyone who may ask this service sees all of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .documents import Documents

_ID = re.compile(r"file-[0-9a-f]{24,26}")


@dataclass(frozen=True, slots=True)
class FileFacts:
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


class FileShelf:
    """The files of one service. Blocks: not for the event loop."""

    def __init__(self, state_dir: Path) -> None:
        self.documents = Documents(state_dir / "files")

    def add(self, facts: FileFacts, data: Path) -> None:
        """Take a file whose bytes lie whole on the disk in `data`, which is moved.

        Raises:
            EngineError: the disk is full, or cannot be written.
        """
        self.documents.place(data, self.path(facts.id))
        self.documents.write(facts.id, asdict(facts))

    def path(self, file_id: str) -> Path:
        """Tell where a file's bytes lie."""
        return self.documents.path(file_id, "data")

    def find(self, file_id: str) -> FileFacts | None:
        """Give a file that is there and has not expired; one that has is taken away."""
        if _ID.fullmatch(file_id) is None:
            return None
        value = self.documents.read(file_id)
        facts = None if value is None else _facts(value)
        if facts is None or not _is_over(facts):
            return facts
        self.delete(file_id)
        return None

    def list(self) -> list[FileFacts]:
        """Give every file that has not expired, the newest first."""
        every = [facts for value in self.documents.all() if (facts := _facts(value)) is not None]
        for facts in filter(_is_over, every):
            self.delete(facts.id)
        kept = [facts for facts in every if not _is_over(facts)]
        return sorted(kept, key=lambda facts: facts.created_ns, reverse=True)

    def delete(self, file_id: str) -> None:
        """Take a file away."""
        self.documents.delete(file_id, "data")


def _facts(value: Mapping[str, Any]) -> FileFacts | None:
    try:
        return FileFacts(**value)
    except TypeError:  # another version's
        return None


def _is_over(facts: FileFacts) -> bool:
    return facts.expires_at is not None and facts.expires_at <= time.time()
