"""Items as a ledger has them: by the paths that they wrote, read or are, and by their stores.

Read-only. `explain` finds what changed since they were done.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engine.system.files import sha256_of
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

from .path_lineage import FileState, LineageCall, LineageFile, LineageStep

MAX_ORIGINS = 20
"""Of a folder or a store; the rest are counted."""
MAX_SIMILAR, MAX_COMPARED_NAMES = 3, 20_000


def load_request(request: str) -> Mapping[str, Any]:
    """Return a recorded request; another value than a mapping as `{"request": …}`."""
    try:
        found = json.loads(request)
    except ValueError:
        found = request
    return found if isinstance(found, Mapping) else {"request": found}


@dataclass(frozen=True, slots=True)
class ScopeOwner:
    """Pipeline and step of a scope's hash."""

    scope: str
    file: str
    step: str
    outer: tuple[str, ...]
    """Keys of the outer items, for a nested block."""


@dataclass(frozen=True, slots=True)
class RecordedItem:
    """Ledger rows of one item, and one of its files."""

    owner: ScopeOwner
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

    @property
    def shown_key(self) -> str:
        """Its key with those of the items around it."""
        return "/".join((*self.owner.outer, self.key))

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


def _is_current(stored: str, entry: Entry | None, made: LineageRow | None) -> bool:
    """Return whether a file or store is an output of an item as it was done last."""
    if entry is not None:
        stores = (rows.store for rows in dependencies_of(entry, RowsKept))
        return stored in current_paths(entry) or stored in stores
    return made is None or stored in made.made.get(WROTE, [stored])


class RecordedItems:
    """Lineage queries of one ledger."""

    def __init__(self, ledger: Ledger, base: Path) -> None:
        self._ledger = ledger
        self._base = base
        self._lineage = LineageStore(ledger)
        self._owners: dict[str, ScopeOwner] = {}

    def of_item(self, scope: str, key: str) -> RecordedItem | None:
        """Return an item as it was done last; None: the ledger has none."""
        item = self._item(scope, key)
        return None if item.entry is None else item

    def written(self, stored: str) -> RecordedItem | None:
        rows = self._ledger.rows(queries.WRITERS, path=stored)
        if not rows:
            return None
        scope, key, run, at = rows[0]
        return self._item(scope, key, stored, (run, at))

    def below(self, stored: str) -> tuple[Sequence[RecordedItem], int]:
        """Return the items that wrote the first files of a folder, and the number of others."""
        prefix = self._prefix(stored)
        rows = self._ledger.rows(queries.PATHS_BELOW, n=len(prefix), prefix=prefix)
        paths = [row[0] for row in rows]
        found = [self.written(path) for path in paths[:MAX_ORIGINS]]
        return [item for item in found if item is not None], max(0, len(paths) - MAX_ORIGINS)

    def in_store(self, stored: str) -> tuple[Sequence[RecordedItem], int]:
        """Return the first items with rows in a vector store, and the number of others."""
        rows = sorted(self._lineage.stored_in(stored), key=lambda row: (row.scope, row.key))
        first = rows[:MAX_ORIGINS]
        found = [self._item(r.scope, r.key, stored, (r.run, r.at), r.n_rows) for r in first]
        return found, len(rows) - len(first)

    def store_around(self, stored: str) -> str | None:
        """Return the vector store that contains a path, or None."""
        return next(
            (store for store in self._lineage.stores() if stored.startswith(f"{store}/")), None
        )

    def made_below(self, stored: str) -> tuple[Sequence[RecordedItem], int]:
        """Return the first items whose documents are in a folder, and the number of others."""
        prefix = self._prefix(stored)
        rows = self._ledger.rows(queries.ITEMS_WITH_SOURCE_BELOW, n=len(prefix), prefix=prefix)
        found = [self._item(scope, key, stored) for scope, key in rows[:MAX_ORIGINS]]
        return found, max(0, len(rows) - MAX_ORIGINS)

    def made_of(self, stored: str) -> Sequence[RecordedItem]:
        found = {(row.scope, row.key) for row in self._lineage.made_from(stored)}
        mark = f"%{json.dumps(stored)}:%"
        rows = self._ledger.rows(queries.ITEMS_THAT_READ, mark=mark)
        found |= {(row[0], row[1]) for row in rows}
        return [self._item(scope, key, stored) for scope, key in sorted(found)[:MAX_ORIGINS]]

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

    def beside(self, owner: ScopeOwner, step: str) -> RecordedItem | None:
        """Return the item of a top-level step of the same pipeline and inputs."""
        at = {"file": owner.file, "step": step, "scope": owner.scope}
        rows = self._ledger.rows(queries.SCOPES_BESIDE, **at)
        items = [self._item(row[0], step) for row in rows]
        return next((item for item in items if item.entry is not None), None)

    def newer(self, file: str, step: str, at: float) -> int:
        """Count the items of a block, or the step, that were done after a time."""
        rows = self._ledger.rows(queries.COUNT_NEWER_ITEMS, file=file, step=step, at=at)
        return int(rows[0][0])

    def _prefix(self, stored: str) -> str:
        return "" if stored == str(self._base) else f"{stored}/"

    def _item(
        self,
        scope: str,
        key: str,
        stored: str = "",
        written: tuple[str, float] | None = None,
        n_rows: int | None = None,
    ) -> RecordedItem:
        """Return an item with a path of it; `written`: by which run, and when.

        What the item became since then was made by another run.
        """
        entry, made = self._ledger.entries(scope, [key]).get(key), self._lineage.made(scope, key)
        is_current = written is None or _is_current(stored, entry, made)
        last = made or entry
        run, at = written or ("", 0.0)
        if is_current and last is not None:
            run, at = last.run, last.at
        is_document = made is not None and made.source == stored
        outputs = (stored,) if entry is None and not is_document else ()
        return RecordedItem(
            self._owner(scope),
            key,
            stored,
            run,
            at,
            entry,
            made,
            outputs if entry is None else entry.output_paths,
            n_rows,
            is_current,
        )

    def _owner(self, scope: str) -> ScopeOwner:
        if scope not in self._owners:
            owner = ScopeOwner(scope, "", "", ())
            for _, file, step, inputs in self._ledger.rows(queries.SCOPE, scope=scope):
                outer = tuple(key for key in json.loads(inputs) if isinstance(key, str))
                owner = ScopeOwner(scope, file, step, outer)
            self._owners[scope] = owner
        return self._owners[scope]


# --- the steps of an item


def item_steps(lineage: LineageStore, item: RecordedItem) -> tuple[LineageStep, ...]:
    """Return the steps of an item that made calls, in the order of running."""
    if item.made is None or not item.is_current:
        # The recorded calls of an item whose lineage is not known, as one step: it was interrupted
        # before its entry, or done again since
        is_of_block = item.entry is not None and item.key != item.owner.step
        shown = item.shown_key if is_of_block else ""
        hashes = lineage.calls_of(item.owner.scope, shown)
        kept = [lineage.ledger.call(hash_, is_whole=True) for hash_ in hashes]
        calls = tuple(
            _kept_call(call, call.run, None)
            for call in kept
            if call is not None and (item.is_current or call.run == item.run)
        )
        return (LineageStep(item.owner.step, "", None, None, (), calls),) if calls else ()
    _, steps = read_lineage(item.made.made)
    checks: dict[str, tuple[str, ...]] = {}
    for name, step in recorded_spec(lineage, item).get("steps", {}).items():
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
            tuple(_lineage_call(lineage, call, item.made.run) for call in step.calls),
        )
        for step in steps
    )


def _lineage_call(lineage: LineageStore, call: CallRecord, run: str) -> LineageCall:
    kept = lineage.ledger.call(call.hash, is_whole=True)
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


def recorded_spec(lineage: LineageStore, item: RecordedItem) -> Mapping[str, Any]:
    digest = None if item.made is None else item.made.spec
    text = None if digest is None else lineage.spec(digest)
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
