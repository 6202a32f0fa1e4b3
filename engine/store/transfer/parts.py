"""A blob that is still coming: its file beside its future name, and how far each part of it is.

Knows no network. `sha256-…-partial` has the whole blob's length from the start, and `…-partial-0`
and so on say in JSON what has arrived. The form is Ollama's own, so that what either of us began
the other one finishes. A state is written after its bytes, in place and always in the same length,
so a process killed at any moment leaves at worst a state that says too little.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .disk import keeping

_MAX_PARTS = 16
_STATE_BYTES = 160  # four numbers of 20 digits and their names


@dataclass(slots=True)
class Part:
    """A stretch of a blob, and how much of it has arrived, from its beginning."""

    number: int
    offset: int
    size_bytes: int
    completed_bytes: int = 0

    @property
    def begins_at(self) -> int:
        """Where the next byte goes."""
        return self.offset + self.completed_bytes

    @property
    def ends_at(self) -> int:
        """The first byte that is no longer of this part."""
        return self.offset + self.size_bytes

    @property
    def is_done(self) -> bool:
        """Whether all of it has arrived."""
        return self.completed_bytes >= self.size_bytes


class Partial:
    """The files of one blob that is coming. Whoever has it holds the blob's lock."""

    def __init__(self, blob: Path, total_bytes: int, min_part_bytes: int) -> None:
        self.path = blob.with_name(f"{blob.name}-partial")
        self.total_bytes = total_bytes
        self._min_part_bytes = min_part_bytes
        self.parts: list[Part] = []

    @property
    def completed_bytes(self) -> int:
        """How much has arrived."""
        return sum(part.completed_bytes for part in self.parts)

    @property
    def is_done(self) -> bool:
        """Whether all has arrived, right or wrong."""
        return self.path.is_file() and all(part.is_done for part in self.parts)

    def begin(self) -> None:
        """Go on with what is there, or start anew if that does not fit together.

        Raises:
            RanFull, StoreReadOnly: the disk refuses.
        """
        found = sorted(states(self.path), key=lambda part: part.offset)
        if _covers(found, self.total_bytes) and _has_size(self.path, self.total_bytes):
            self.parts = found
        else:
            self.restart()

    def restart(self, *, in_one_piece: bool = False) -> None:
        """Forget what is there, and lay out the parts again.

        Raises:
            RanFull, StoreReadOnly: the disk refuses.
        """
        self.discard()
        self.parts = (
            [Part(0, 0, self.total_bytes)] if in_one_piece and self.total_bytes
            else laid_out(self.total_bytes, self._min_part_bytes)
        )  # fmt: skip
        with keeping(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("wb") as file:
                file.truncate(self.total_bytes)  # a hole: it takes room only as bytes arrive
            for part in self.parts:
                self._write_state(part)

    def write(self, part: Part, content: bytes) -> None:
        """Put the next bytes of a part in their place.

        Raises:
            RanFull, StoreReadOnly: the disk refuses; what was there stays.
        """
        with keeping(self.path.parent):
            with self.path.open("r+b", buffering=0) as file:
                file.seek(part.begins_at)
                view = memoryview(content)
                while view:  # a disk that is nearly full takes a part first
                    view = view[file.write(view) :]
            part.completed_bytes += len(content)
            self._write_state(part)

    def sync(self) -> None:
        """Bring all bytes to the disk itself, before the file gets a name that vouches for them.

        Raises:
            RanFull, StoreReadOnly: the disk refuses.
        """
        with keeping(self.path.parent), self.path.open("r+b") as file:
            os.fsync(file.fileno())

    def name(self, blob: Path) -> None:
        """Give the whole file its name, and remove the states.

        Raises:
            RanFull, StoreReadOnly: the disk refuses.
        """
        with keeping(self.path.parent):
            self.path.replace(blob)
        self.discard()

    def discard(self) -> None:
        """Remove everything of it."""
        for path in (self.path, *_state_paths(self.path)):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _write_state(self, part: Part) -> None:
        state = {
            "N": part.number,
            "Offset": part.offset,
            "Size": part.size_bytes,
            "Completed": part.completed_bytes,
        }
        handle = os.open(f"{self.path}-{part.number}", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.write(handle, json.dumps(state).encode().ljust(_STATE_BYTES - 1) + b"\n")
        finally:
            os.close(handle)


def laid_out(total_bytes: int, min_part_bytes: int) -> list[Part]:
    """Cut a blob into parts: as many as can have `min_part_bytes`, and 16 at most.

    >>> [(part.offset, part.size_bytes) for part in laid_out(10, 4)]
    [(0, 5), (5, 5)]
    """
    n_parts = max(1, min(_MAX_PARTS, total_bytes // max(1, min_part_bytes)))
    edges = [total_bytes * n // n_parts for n in range(n_parts + 1)]
    spans = enumerate(pairwise(edges))
    return [Part(n, begin, end - begin) for n, (begin, end) in spans if end > begin]


def arrived_bytes(blob: Path) -> int:
    """Tell how much of a blob has arrived that perhaps another process is bringing."""
    return sum(part.completed_bytes for part in states(blob.with_name(f"{blob.name}-partial")))


def states(partial: Path) -> Iterator[Part]:
    """Read what the states say; one that cannot be read says nothing."""
    for path in _state_paths(partial):
        try:
            told = json.loads(path.read_bytes())
            part = Part(*(int(told[key]) for key in ("N", "Offset", "Size", "Completed")))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if 0 <= part.completed_bytes <= part.size_bytes and path.name.endswith(f"-{part.number}"):
            yield part


def _state_paths(partial: Path) -> list[Path]:
    return [
        path
        for path in partial.parent.glob(f"{partial.name}-*")
        if path.name.removeprefix(f"{partial.name}-").isdecimal()
    ]


def _covers(parts: list[Part], total_bytes: int) -> bool:
    """Tell whether parts, sorted, follow each other without gaps to the very end."""
    at = 0
    for part in parts:
        if part.offset != at:
            return False
        at = part.ends_at
    return at == total_bytes


def _has_size(path: Path, size_bytes: int) -> bool:
    with suppress(OSError):
        return path.stat().st_size == size_bytes
    return False
