"""Rows of the ledger, and how the files of variants are named in them. Plain values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec.json import decode

from paddock.engine.system.records import SelectiveFields, Struct

FILED = ""
"""`Entry.gone` of an item that is filed, which is not deleted. A scope may have 100,000."""
HANDED_OVER = -1
"""`OutputRow.size` of a path that a run of another pipeline took over (`--take`)."""
_VARIANT = re.compile(r"\.[0-9a-f]{10}\.compare(?=\.|$)")
"""In the file name of a variant of `paddock compare`, before its ending."""


def variant_file(file: Path, digest: str) -> Path:
    return file.with_name(f"{file.stem}.{digest[:10]}.compare{file.suffix}")


def is_variant(file: str) -> bool:
    return bool(_VARIANT.search(file))


def whole_file(file: str) -> str:
    """Return the file name of a variant's pipeline; that of a pipeline as it is.

    >>> whole_file("bills.0123456789.compare.yaml")
    'bills.yaml'
    """
    return _VARIANT.sub("", file)


def stored_path(path: Path, base: Path) -> str:
    """Return a path as the ledger stores it: machines may have mounted the folder elsewhere."""
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


INLINE_CHARS = 16_384  # larger values go to objects/: a row stays within a few SQLite pages


class LedgerError(Exception):
    """The ledger cannot be used. The message says why, and what to do."""


class Entry(SelectiveFields, Struct, frozen=True):
    uncompared = ("run", "at")

    key: str
    hash: str
    parts: str
    """JSON: part of the hash → its digest; shows which difference is the reason."""
    state: str
    """`done`, `skipped`, `quarantined`, `failed`, or `waiting` for a review."""
    error: str | None = None
    returns: str | None = None
    """JSON, or None where `returns_object` names it."""
    returns_object: str | None = None
    reads: str | None = None
    """JSON: what else it depended on, by name; see `runner/core/traces/dependencies.py`."""
    outputs: str | None = None
    """JSON: stored path → sha256 of each file that it wrote."""
    has_inner_failures: bool = False
    seconds: float = 0.0
    calls: int = 0
    tokens: int = 0
    gone: str | None = None
    """The run that found its source deleted; `FILED`: a step moved it away."""
    attempts: int = 0
    """As `n_failures`."""
    was: str | None = None
    """Its state before it was done: `new`, `changed` or `stale`; empty: no report counts it."""
    run: str = ""
    """The run that recorded it; the ledger fills it in."""
    at: float = 0.0
    """When, in seconds since 1970, by the clock of the machine that recorded it."""

    @property
    def n_failures(self) -> int:
        """Failures in a row for reasons that may pass; zero once all succeeds."""
        return self.attempts

    @property
    def is_filed(self) -> bool:
        return self.gone == FILED

    @property
    def is_deleted(self) -> bool:
        return bool(self.gone)

    @property
    def has_result(self) -> bool:
        return self.state == "done" and self.returns != "null"

    @property
    def is_tried_again(self) -> bool:
        """Whether the next run tries it, or what failed within it, once more."""
        return self.state == "failed" or (self.state == "done" and self.attempts > 0)

    @property
    def output_paths(self) -> Iterable[str]:
        return read_written(self.outputs)


def read_written(outputs: str | None) -> dict[str, str]:
    """Return an entry's `outputs`: stored path → sha256; empty where that was not recorded."""
    return decode(outputs) if outputs else {}  # msgspec's: of 10,000 items, several times


class ScopeOwner(Struct, frozen=True):
    """The step or block that a scope of the ledger stands for, in its folders."""

    scope_id: str
    file: str
    """Name of the outermost pipeline's file; empty: the ledger does not know the scope."""
    step: str
    """Its id, behind those of the steps that run the pipelines around it."""
    folders: tuple[Mapping[str, str], ...]
    """Folders of each pipeline, outermost first."""
    outer: tuple[str, ...]

    @classmethod
    def of(cls, scope_id: str, file: str, step: str, inputs: str) -> ScopeOwner:
        folders, outer = list[Mapping[str, str]](), list[str]()
        for part in json.loads(inputs):
            (outer if isinstance(part, str) else folders).append(part)
        return cls(scope_id, file, step, tuple(folders), tuple(outer))

    @property
    def id(self) -> str:
        return self.step.split(".", max(0, len(self.folders) - 1))[-1]

    @property
    def prefix(self) -> str:
        return self.step.removesuffix(self.id)


class PipelineRow(Struct, frozen=True):
    """A pipeline of the folder, as it was when it ran last."""

    name: str
    """What its scopes are made of: its file's name when it ran first, unless that was taken."""
    file: str
    """Name of its file."""
    sha256: str = ""
    """Of its text; empty: it is not known."""
    blocks: str = "[]"
    """JSON: its blocks, each by what its items are from."""

    @property
    def sources(self) -> frozenset[str]:
        return frozenset(json.loads(self.blocks))


class ItemRow(Struct, frozen=True):
    scope: str
    step: str
    entry: Entry


class RunRow(Struct, frozen=True):
    run: str
    pipeline: str
    file: str
    """The pipeline's file, relative to the ledger's folder of pipelines."""
    started: float
    """Seconds since 1970."""
    ended: float | None
    status: str
    """`running`, or how it ended."""
    summary: str | None
    """JSON: its report without the items."""
    trigger: str = "hand"
    """What started it: `hand`, `schedule`, `watch`, `webhook`, `compare` with the variant."""
    host: str | None = None
    pid: int | None = None
    attempt: int = 1
    """1, and one more each time that a crashed run is started again."""
    message: str | None = None
    parent: str | None = None
    """The run that this one repeats, or the job that it continues."""
    given: str | None = None
    """JSON: inputs that the user gave, and the names of those that are not recorded."""

    @property
    def is_of_variant(self) -> bool:
        return is_variant(self.file)


class OutputRow(SelectiveFields, Struct, frozen=True):
    """A file that an item wrote, or is about to write."""

    uncompared = ("at",)

    scope: str
    path: str
    key: str
    sha256: str | None
    intended: tuple[str, ...]
    size: int | None
    mtime_ns: int | None
    at: float = 0.0
    """When it was recorded: a file that changed later is compared by its content."""


class CallRow(SelectiveFields, Struct, frozen=True):
    """One model call with its raw reply."""

    uncompared = ("run", "at")

    hash: str
    kind: str
    model: str
    digest: str
    served_digest: str
    request: str
    """JSON; empty where it was not read."""
    reply: bytes
    done_reason: str | None
    usage: Mapping[str, Any]
    """The reply's `usage` and other fields as `engine.wire` writes them, but what `reply` has."""
    scope: str
    step: str
    key: str
    run: str = ""
    """The run that made it; the ledger fills it in."""
    at: float = 0.0


class LineageRow(Struct, frozen=True):
    """What an item's entry was made from."""

    scope: str
    key: str
    run: str
    at: float
    """When it was written; the ledger fills it in."""
    spec: str | None
    """Digest of the block or step as written; table `specs` has its text."""
    source: str | None
    """Stored path of the file that the item is."""
    made: Any
    """The source, and each step with its calls, in order; see `runner/core/run_records.py`."""


class StoredRow(Struct, frozen=True):
    """What an item has in a vector store."""

    scope: str
    path: str
    """Of the store; relative to the pipeline's folder if it is inside, as for outputs."""
    key: str
    sha256: str = ""
    """Of its rows' contents, computed by the store; empty: they are about to be written."""
    n_rows: int = 0
    run: str = ""
    at: float = 0.0


class InFlightRow(Struct, frozen=True):
    """An item that a run has begun; removed when the item ends normally."""

    n: int
    """Number of its event."""
    scope: str
    key: str
    run: str
    hash: str
    at: float
    around_scope: str | None = None
    """Of the enclosing item, for a nested block."""
    around_key: str | None = None
