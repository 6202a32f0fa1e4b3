"""Lineage of paths in the ledger: what wrote them, what was made of them, what a store contains.

Read-only. `PathLineage` is the result of `paddock why`, plain data. `explain` finds what changed
since then.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from paddock.engine.system.files import sha256_of
from paddock.engine.system.units import iso_time
from paddock.runner.core.dependencies import (
    FileRead,
    FolderListed,
    RowsKept,
    StoreSearched,
    current_paths,
    dependencies_of,
)
from paddock.runner.core.run_records import WROTE, CallRecord, read_lineage
from paddock.runner.ledger import queries
from paddock.runner.ledger.entries import CallRow, Entry, LineageRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.ledger.output_index import FileCondition
from paddock.runner.ledger.reviewed_answers import ReviewRecord
from paddock.runner.progress.reasons import Reason

FileState = Literal["same", "changed", "gone"]


@dataclass(frozen=True, slots=True)
class LineageFile:
    """A file that went into an item."""

    path: str
    sha256: str
    state: FileState
    """Compared with the file now."""


@dataclass(frozen=True, slots=True)
class LineageCall:
    """One call of a model or a tool."""

    hash: str
    kind: str
    model: str
    digest: str
    """Of the requested model."""
    served_digest: str
    """Of the model that answered: its file, and a Modelfile's settings, if any."""
    is_known: bool
    """Whether an earlier call had the same request."""
    at: float
    seconds: float | None
    """None if it was not recorded."""
    run: str
    """The run that asked."""
    request: Mapping[str, Any]
    reply: str
    done_reason: str | None
    usage: Mapping[str, Any]
    is_gone: bool = False
    """Whether `paddock clean` removed its texts."""


@dataclass(frozen=True, slots=True)
class LineageStep:
    """One step of an item."""

    id: str
    uses: str
    model: str | None
    seconds: float | None
    checks: tuple[str, ...]
    """Checks of its reply."""
    calls: tuple[LineageCall, ...]


@dataclass(frozen=True, slots=True)
class LineageChange:
    """One change since the item was done."""

    reason: Reason
    detail: tuple[str, ...] = ()
    """Lines of a diff."""

    @property
    def what(self) -> str:
        return str(self.reason)


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of one file, or of an item's rows in a store."""

    path: str
    """Absolute."""
    pipeline: Path
    step: str
    """The block or top-level step."""
    key: str
    """The item's key with those of outer items; the step's id outside of blocks."""
    run: str
    at: float
    state: str
    """Of the item: `done`, `quarantined`…; `done` for a step that has no entry."""
    error: str | None
    condition: FileCondition
    """Of the file now."""
    source: LineageFile | None
    reads: tuple[LineageFile, ...]
    looked_in: tuple[str, ...]
    """Folders that it listed, stores that it searched."""
    kept_in: tuple[str, ...]
    """Vector stores with rows of it."""
    steps: tuple[LineageStep, ...]
    made_of: tuple[str, ...]
    """The top-level steps and blocks whose outputs it reads."""
    outputs: tuple[str, ...]
    """All outputs of the item."""
    changes: tuple[LineageChange, ...]
    notes: tuple[str, ...] = ()
    """What is unknown."""
    n_rows: int | None = None
    """Number of its rows in a store."""
    reviewed: ReviewRecord = field(default_factory=ReviewRecord)
    """What people decided about its answers."""

    def as_json(self) -> dict[str, Any]:
        fields = asdict(self)
        fields["pipeline"] = str(self.pipeline)
        fields["at"] = iso_time(self.at)
        fields["changes"] = [{"what": c.what, "detail": c.detail} for c in self.changes]
        for step in fields["steps"]:
            for call in step["calls"]:
                call["at"] = iso_time(call["at"])
        return fields


@dataclass(frozen=True, slots=True)
class PathLineage:
    """Result of `paddock why` for a path."""

    path: str
    origins: tuple[Origin, ...] = ()
    """Of a file the latest; of a store or a folder one for each item."""
    read_by: tuple[str, ...] = ()
    """For a document: the items that read it, each with its outputs."""
    n_more: int = 0
    """Origins that are not listed."""
    near: tuple[str, ...] = ()
    """For an unknown path: outputs with a similar name."""
    same_as: tuple[str, ...] = ()
    """For an unknown path: outputs that had the same content."""
    faults: tuple[str, ...] = field(default=())
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


def _is_current(stored: str, entry: Entry | None, made: LineageRow | None) -> bool:
    """Return whether a file or store is an output of an item as it was done last."""
    if entry is not None:
        stores = (rows.store for rows in dependencies_of(entry, RowsKept))
        return stored in current_paths(entry) or stored in stores
    return made is None or stored in made.made.get(WROTE, [stored])


def load_request(request: str) -> Mapping[str, Any]:
    """Return a recorded request; another value than a mapping as `{"request": …}`."""
    try:
        found = json.loads(request)
    except ValueError:
        found = request
    return found if isinstance(found, Mapping) else {"request": found}


MAX_ORIGINS = 20
"""Of a folder or a store; the rest are counted."""
MAX_SIMILAR, MAX_COMPARED_NAMES = 3, 20_000


@dataclass(frozen=True, slots=True)
class ScopeOwner:
    """Pipeline and step of a scope's hash."""

    scope: str
    file: str
    step: str
    outer: tuple[str, ...]
    """Keys of the outer items, for a nested block."""


@dataclass(frozen=True, slots=True)
class ItemTrace:
    """Ledger rows of one item, and one of its files."""

    place: ScopeOwner
    key: str
    path: str
    """As stored in the ledger."""
    run: str
    at: float
    entry: Entry | None
    """None for a step without one, which runs each time, or which an older Paddock ran."""
    made: LineageRow | None
    outputs: tuple[str, ...]
    n_rows: int | None = None
    """Of a store."""
    is_current: bool = True
    """Whether the path is an output of the item as it was done last; `run` made it in any case."""

    def source(self, base: Path) -> LineageFile | None:
        source = None if self.made is None else read_lineage(self.made.made)[0]
        if source is None:
            return None
        path = str(base / source.path)
        return LineageFile(path, source.sha256, _file_state(path, source.sha256))

    def read_files(self, base: Path) -> tuple[LineageFile, ...]:
        found = []
        for read in dependencies_of(self.entry, FileRead):
            path, is_same = base / read.path, False
            with contextlib.suppress(OSError):
                stat = path.stat()
                is_same = (stat.st_size, stat.st_mtime_ns) == (read.size, read.mtime_ns)
            state = "same" if is_same else _file_state(str(path), read.sha256)
            found.append(LineageFile(str(path), read.sha256, state))
        return tuple(found)

    def searched_paths(self, base: Path) -> tuple[str, ...]:
        searched = dependencies_of(self.entry, FolderListed, StoreSearched)
        return tuple(str(base / dep.name) for dep in searched)

    def containing_stores(self, base: Path) -> tuple[str, ...]:
        return tuple(str(base / rows.store) for rows in dependencies_of(self.entry, RowsKept))


def _file_state(path: str, sha256: str) -> FileState:
    try:
        return "same" if sha256_of(Path(path)) == sha256 else "changed"
    except OSError:
        return "gone"


class LedgerTraces:
    """Lineage queries of one ledger."""

    def __init__(self, ledger: Ledger, base: Path) -> None:
        self._ledger = ledger
        self._base = base
        self._origins = LineageStore(ledger)
        self._places: dict[str, ScopeOwner] = {}

    def of_item(self, scope: str, key: str) -> ItemTrace | None:
        """Return an item as it was done last; None: the ledger has none."""
        trace = self._trace(scope, key, "", "", 0.0)
        return None if trace.entry is None else trace

    def written(self, stored: str) -> ItemTrace | None:
        rows = self._ledger.rows(queries.WRITERS, path=stored)
        if not rows:
            return None
        scope, key, run, at = rows[0]
        return self._trace(scope, key, stored, run, at)

    def below(self, stored: str) -> tuple[Sequence[ItemTrace], int]:
        """Return the items that wrote the first files of a folder, and the number of others."""
        prefix = self._prefix(stored)
        rows = self._ledger.rows(queries.PATHS_BELOW, n=len(prefix), prefix=prefix)
        paths = [row[0] for row in rows]
        found = [self.written(path) for path in paths[:MAX_ORIGINS]]
        return [trace for trace in found if trace is not None], max(0, len(paths) - MAX_ORIGINS)

    def in_store(self, stored: str) -> tuple[Sequence[ItemTrace], int]:
        """Return the first items with rows in a vector store, and the number of others."""
        rows = sorted(self._origins.stored_in(stored), key=lambda row: (row.scope, row.key))
        first = rows[:MAX_ORIGINS]
        found = [self._trace(r.scope, r.key, stored, r.run, r.at, r.n_rows) for r in first]
        return found, len(rows) - len(first)

    def store_around(self, stored: str) -> str | None:
        """Return the vector store that contains a path, or None."""
        return next(
            (store for store in self._origins.stores() if stored.startswith(f"{store}/")), None
        )

    def made_below(self, stored: str) -> tuple[Sequence[ItemTrace], int]:
        """Return the first items whose documents are in a folder, and the number of others."""
        prefix = self._prefix(stored)
        rows = self._ledger.rows(queries.ITEMS_WITH_SOURCE_BELOW, n=len(prefix), prefix=prefix)
        found = [self._trace(scope, key, stored, "", 0.0) for scope, key in rows[:MAX_ORIGINS]]
        return found, max(0, len(rows) - MAX_ORIGINS)

    def made_of(self, stored: str) -> Sequence[ItemTrace]:
        found = {(row.scope, row.key) for row in self._origins.made_from(stored)}
        mark = f"%{json.dumps(stored)}:%"
        rows = self._ledger.rows(queries.ITEMS_THAT_READ, mark=mark)
        found |= {(row[0], row[1]) for row in rows}
        return [
            self._trace(scope, key, stored, "", 0.0) for scope, key in sorted(found)[:MAX_ORIGINS]
        ]

    def same_as(self, sha256: str) -> Sequence[str]:
        rows = self._ledger.rows(queries.PATHS_OF_CONTENT, digest=sha256, most=MAX_SIMILAR)
        return [row[0] for row in rows]

    def near(self, stored: str) -> Sequence[str]:
        rows = self._ledger.rows(queries.SOME_PATHS, most=MAX_COMPARED_NAMES)
        names = [row[0] for row in rows]
        by_name: dict[str, list[str]] = {}
        for name in names:
            by_name.setdefault(Path(name).name, []).append(name)
        same = by_name.get(Path(stored).name, [])
        return [*same, *difflib.get_close_matches(stored, names, n=MAX_SIMILAR)][:MAX_SIMILAR]

    def beside(self, place: ScopeOwner, step: str) -> ItemTrace | None:
        """Return the trace of a top-level step of the same pipeline and inputs."""
        at = {"file": place.file, "step": step, "scope": place.scope}
        rows = self._ledger.rows(queries.SCOPES_BESIDE, **at)
        traces = [self._trace(row[0], step, "", "", 0.0) for row in rows]
        return next((trace for trace in traces if trace.entry is not None), None)

    def newer(self, file: str, step: str, at: float) -> int:
        """Count the items of a block, or the step, that were done after a time."""
        rows = self._ledger.rows(queries.COUNT_NEWER_ITEMS, file=file, step=step, at=at)
        return int(rows[0][0])

    def _prefix(self, stored: str) -> str:
        return "" if stored == str(self._base) else f"{stored}/"

    def _trace(
        self, scope: str, key: str, stored: str, run: str, at: float, n_rows: int | None = None
    ) -> ItemTrace:
        entry = self._ledger.entries(scope, [key]).get(key)
        made = self._origins.made(scope, key)
        is_current = not run or _is_current(stored, entry, made)
        if not is_current:
            pass  # what the item became since then was made by another run
        elif made is not None:
            run, at = made.run, made.at
        elif entry is not None:
            run, at = entry.run, entry.at
        is_document = made is not None and made.source == stored
        outputs: tuple[str, ...] = () if is_document else (stored,)
        if entry is not None:
            outputs = entry.output_paths
        place = self._place(scope)
        return ItemTrace(place, key, stored, run, at, entry, made, outputs, n_rows, is_current)

    def _place(self, scope: str) -> ScopeOwner:
        if scope not in self._places:
            owner = ScopeOwner(scope, "", "", ())
            for _, file, step, inputs in self._ledger.rows(queries.SCOPE, scope=scope):
                outer = tuple(key for key in json.loads(inputs) if isinstance(key, str))
                owner = ScopeOwner(scope, file, step, outer)
            self._places[scope] = owner
        return self._places[scope]


# --- the steps of an item


def item_steps(origins: LineageStore, trace: ItemTrace) -> tuple[LineageStep, ...]:
    """Return the steps of an item that made calls, in the order of running."""
    if trace.made is None or not trace.is_current:
        # The recorded calls of an item whose lineage is not known, as one step: it was interrupted
        # before its entry, or done again since
        is_of_block = trace.entry is not None and trace.key != trace.place.step
        shown = "/".join((*trace.place.outer, trace.key)) if is_of_block else ""
        hashes = origins.calls_of(trace.place.scope, shown)
        kept = [origins.ledger.call(hash_, is_whole=True) for hash_ in hashes]
        calls = tuple(
            _kept_call(call, call.run, None)
            for call in kept
            if call is not None and (trace.is_current or call.run == trace.run)
        )
        return (LineageStep(trace.place.step, "", None, None, (), calls),) if calls else ()
    _, steps = read_lineage(trace.made.made)
    checks: dict[str, tuple[str, ...]] = {}
    for name, step in recorded_spec(origins, trace).get("steps", {}).items():
        reply = step.get("reply")
        given = reply.get("check") if isinstance(reply, dict) else None
        checks[name] = (given,) if isinstance(given, str) else tuple(map(str, given or ()))
    return tuple(
        LineageStep(
            step.id,
            step.uses,
            step.model,
            step.seconds,
            checks.get(step.id, ()),
            tuple(_lineage_call(origins, call, trace.made.run) for call in step.calls),
        )
        for step in steps
    )


def _lineage_call(origins: LineageStore, call: CallRecord, run: str) -> LineageCall:
    kept = origins.ledger.call(call.hash, is_whole=True)
    if kept is not None:
        return _kept_call(kept, run, call)
    usage = {"prompt_tokens": call.prompt, "completion_tokens": call.completion}
    return LineageCall(
        call.hash, call.kind, "", "", "", call.is_known, call.began, call.seconds, run, {}, "",
        None, usage, is_gone=True,
    )  # fmt: skip


def _kept_call(kept: CallRow, run: str, call: CallRecord | None) -> LineageCall:
    reply = "" if kept.kind == "embed" else kept.reply.decode("utf-8", "replace")
    return LineageCall(
        hash=kept.hash,
        kind=kept.kind,
        model=kept.model,
        digest=kept.digest,
        served_digest=kept.served_digest,
        is_known=call is not None and call.is_known,
        at=kept.at if call is None else call.began,
        seconds=None if call is None else call.seconds,
        run=run,
        request=load_request(kept.request),
        reply=reply,
        done_reason=kept.done_reason,
        usage=kept.usage.get("usage", {}),
    )


def recorded_spec(origins: LineageStore, trace: ItemTrace) -> Mapping[str, Any]:
    digest = None if trace.made is None else trace.made.spec
    text = None if digest is None else origins.spec(digest)
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
