"""The answer of `paddock why`: origins with steps, calls and changes. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from paddock.engine.system.records import Struct, asdict, field
from paddock.engine.system.units import iso_time
from paddock.runner.ledger.output_conditions import FileCondition
from paddock.runner.progress.reasons import Reason
from paddock.runner.render.reviewed_answers import ReviewRecord

FileState = Literal["same", "changed", "gone"]


class LineageFile(Struct, frozen=True):
    path: str
    sha256: str
    state: FileState
    """Compared with the file now."""


class LineageCall(Struct, frozen=True, kw_only=True):
    hash: str
    kind: str
    model: str = ""
    digest: str = ""
    """Of the requested model."""
    served_digest: str = ""
    """Of the model that answered: its file, and a Modelfile's settings, if any."""
    is_known: bool
    """Whether an earlier call had the same request."""
    at: float
    seconds: float | None
    """None if it was not recorded."""
    run: str
    request: Mapping[str, Any] = field(default_factory=dict)
    reply: str = ""
    done_reason: str | None = None
    usage: Mapping[str, Any]
    is_gone: bool = False
    """Whether `paddock clean` removed its texts."""


class LineageStep(Struct, frozen=True):
    id: str
    uses: str = ""
    model: str | None = None
    seconds: float | None = None
    checks: tuple[str, ...] = ()
    calls: tuple[LineageCall, ...] = ()


class LineageChange(Struct, frozen=True):
    reason: Reason
    detail: tuple[str, ...] = ()
    """Lines of a diff."""

    @property
    def what(self) -> str:
        return str(self.reason)


class Origin(Struct, frozen=True):
    """Origin of one file, or of an item's rows in a store."""

    path: str
    """Absolute."""
    pipeline: Path
    step: str
    """The block or top-level step."""
    key: str
    """The item's key with those of outer items; the step's id outside of blocks."""
    item: str
    """The two in words."""
    run: str
    at: float
    state: str
    """Of the item: `done`, `quarantined`…; `done` for a step that has no entry."""
    error: str | None
    condition: FileCondition
    source: LineageFile | None
    reads: tuple[LineageFile, ...]
    looked_in: tuple[str, ...]
    """Folders that it listed, stores that it searched."""
    kept_in: tuple[str, ...]
    steps: tuple[LineageStep, ...]
    made_of: tuple[str, ...]
    """The top-level steps and blocks whose outputs it reads."""
    outputs: tuple[str, ...]
    changes: tuple[LineageChange, ...]
    notes: tuple[str, ...] = ()
    n_rows: int | None = None
    """Number of its rows in a store."""
    reviewed: ReviewRecord = field(default_factory=ReviewRecord)
    """What people decided about its answers."""
    read_by_rules: Mapping[str, str] = field(default_factory=dict)
    """How rules that decisions made read fields of its document."""

    def as_json(self) -> dict[str, Any]:
        fields = asdict(self)
        del fields["item"]
        fields |= {"pipeline": str(self.pipeline), "at": iso_time(self.at)}
        fields["changes"] = [{"what": c.what, "detail": c.detail} for c in self.changes]
        for step in fields["steps"]:
            for call in step["calls"]:
                call["at"] = iso_time(call["at"])
        return fields


class PathLineage(Struct, frozen=True):
    """What `paddock why` says of a path."""

    path: str
    origins: tuple[Origin, ...] = ()
    """Of a file the latest; of a store or a folder one for each item."""
    read_by: tuple[str, ...] = ()
    """For a document: what each item made of it, in a line."""
    n_more: int = 0
    """Origins, or items that read it, that are not listed."""
    near: tuple[str, ...] = ()
    """For an unknown path: outputs with a similar name."""
    same_as: tuple[str, ...] = ()
    """For an unknown path: outputs that had the same content."""
    faults: tuple[str, ...] = ()
    """Ledgers that could not be read."""

    @property
    def is_known(self) -> bool:
        return bool(self.origins or self.read_by)

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "known": self.is_known,
            "origins": [origin.as_json() for origin in self.origins],
            "more": self.n_more,
            "read_by": list(self.read_by),
            "near": list(self.near),
            "same_as": list(self.same_as),
        }
