"""What can be told of where a file came from: plain data, and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from paddock.runner.ledger.outputs import Condition

FileState = Literal["same", "changed", "gone"]


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that went into an item."""

    path: str
    sha256: str
    state: FileState
    """What it is now."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model or a tool."""

    hash: str
    kind: str
    model: str
    digest: str
    """Of the model that was named."""
    served_digest: str
    """Of the file that answered."""
    is_known: bool
    """Whether an earlier call had the same request."""
    at: float
    seconds: float | None
    """None where an older version recorded it."""
    run: str
    """The run that asked."""
    request: Mapping[str, Any]
    reply: str
    done_reason: str | None
    usage: Mapping[str, Any]
    is_gone: bool = False
    """Whether its texts were cleaned away since."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an item."""

    id: str
    uses: str
    model: str | None
    seconds: float | None
    checks: tuple[str, ...]
    """What its reply had to fulfil."""
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as it was when the item was done."""

    what: str
    detail: tuple[str, ...] = ()
    """Lines of a difference."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one file, or what an item has in a store, came from."""

    path: str
    """Absolute."""
    pipeline: Path
    step: str
    """The block or top-level step."""
    key: str
    """The item's, with those around it; the step's id where it is none of a block."""
    run: str
    at: float
    state: str
    """Of the item: `done`, `quarantined`…; `done` for a step that has no entry."""
    error: str | None
    condition: Condition
    """Of the file now."""
    source: ReadFile | None
    reads: tuple[ReadFile, ...]
    looked_in: tuple[str, ...]
    """Folders that were listed for it alone, stores that it searched."""
    kept_in: tuple[str, ...]
    """The stores in which it has rows."""
    steps: tuple[Step, ...]
    made_of: tuple[str, ...]
    """The top-level steps and blocks whose outputs it reads."""
    outputs: tuple[str, ...]
    """All that the item wrote."""
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    """What cannot be known."""
    n_rows: int | None = None
    """How many rows of a store are its."""

    def as_json(self) -> dict[str, Any]:
        """Give the keys that machines read."""
        told = asdict(self)
        told["pipeline"] = str(self.pipeline)
        told["at"] = _iso(self.at)
        for step in told["steps"]:
            for call in step["calls"]:
                call["at"] = _iso(call["at"])
        return told


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a path."""

    path: str
    origins: tuple[Origin, ...] = ()
    """Of a file the one that wrote it last; of a store or a folder its items."""
    read_by: tuple[str, ...] = ()
    """Which items are made of it, each with what it wrote, where it is a document."""
    n_more: int = 0
    """Origins that are not listed."""
    near: tuple[str, ...] = ()
    """Outputs with a similar name, where nothing is known of it."""
    same_as: tuple[str, ...] = ()
    """Outputs that held the same when they were written, where nothing is known of it."""
    faults: tuple[str, ...] = field(default=())
    """Ledgers that could not be read."""

    @property
    def is_known(self) -> bool:
        """Whether anything is known of it."""
        return bool(self.origins or self.read_by)

    def as_json(self) -> dict[str, Any]:
        """Give the keys that machines read."""
        return {
            "path": self.path,
            "known": self.is_known,
            "origins": [origin.as_json() for origin in self.origins],
            "more": self.n_more,
            "read_by": list(self.read_by),
            "near": list(self.near),
            "same_as": list(self.same_as),
        }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def loaded(request: str) -> Mapping[str, Any]:
    """Read a recorded request; one that is no mapping is given as it is."""
    try:
        found = json.loads(request)
    except ValueError:
        found = request
    return found if isinstance(found, Mapping) else {"request": found}
