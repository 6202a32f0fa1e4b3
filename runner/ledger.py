"""What is done, from what, and how to get it again: the truth about every item.

One SQLite file beside the pipeline (WAL, one writer thread), large values in `objects/`. Knows
no steps and no Prefect; who may work on a scope is decided in `locks`, what is stale in `work`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock
from sqlalchemy import Connection, Engine, Row, Select, Table, select

from .ledger_schema import (
    LedgerError,
    calls,
    connect,
    items,
    outputs,
    prepare,
    runs,
    scopes,
    unwritable,
)
from .objects import Objects
from .writer import Writer

__all__ = ["CallRow", "Entry", "Ledger", "LedgerError", "OutputRow"]

INLINE_CHARS = 16_384  # larger values go to objects/: a row stays within a few SQLite pages


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished item, as it was recorded."""

    key: str
    hash: str
    parts: str
    """JSON: part of the hash → its digest; tells which difference is the reason."""
    state: str
    """`done`, `skipped`, `quarantined` or `failed`."""
    error: str | None = None
    returns: str | None = None
    """JSON, or None where `returns_object` names it."""
    returns_object: str | None = None
    reads: str | None = None
    """JSON: path → [size, mtime_ns, sha256] of files that it read besides its own."""
    outputs: str | None = None
    """JSON: the stored paths of the files that it wrote."""
    has_inner_failures: bool = False
    seconds: float = 0.0
    calls: int = 0
    tokens: int = 0
    gone: str | None = None
    """The run that found its source deleted."""


@dataclass(frozen=True, slots=True)
class OutputRow:
    """A file that an item wrote, or is about to write."""

    scope: str
    path: str
    key: str
    sha256: str | None
    intended: tuple[str, ...]
    size: int | None
    mtime_ns: int | None


@dataclass(frozen=True, slots=True)
class CallRow:
    """One model call with its raw reply."""

    hash: str
    kind: str
    model: str
    digest: str
    served_digest: str
    request: str
    reply: bytes
    done_reason: str | None
    usage: Mapping[str, Any]
    scope: str
    step: str
    key: str


class Ledger:
    """The ledger of one folder of pipelines. Reads at once; writes through one thread."""

    def __init__(self, folder: Path, *, is_readonly: bool = False) -> None:
        self.folder = folder
        self._is_readonly = is_readonly
        self.objects = Objects(folder / "objects")
        self._engine: Engine | None = None
        self._reader: Connection | None = None
        self._writer: Writer | None = None

    @property
    def file(self) -> Path:
        """The database."""
        return self.folder / "ledger.sqlite"

    def __enter__(self) -> Self:
        """Open it; make folder and tables where they are not there yet.

        One that is only read need not be there; it is then empty.

        Raises:
            LedgerError: newer than this Paddock, broken, or not writable.
        """
        if self._is_readonly and not self.file.exists():
            return self
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", "utf-8")
            with FileLock(self.folder / "ledger.lock"):
                self._engine = connect(self.file)
                prepare(self._engine, self.file)
        except OSError as error:
            raise LedgerError(
                f"{self.folder}: the ledger's folder cannot be written ({error.strerror or error})."
            ) from error
        self._reader = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if not self._is_readonly:
            self._writer = Writer(self._engine)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit what is left and let the file go."""
        if self._writer is not None:
            self._writer.close()
        if self._reader is not None:
            self._reader.close()
        if self._engine is not None:
            self._engine.dispose()

    @property
    def error(self) -> LedgerError | None:
        """Why writing stopped, if it did."""
        return self._writer.error if self._writer is not None else None

    async def durable(self) -> None:
        """Wait until everything written so far would survive a power cut.

        Raises:
            LedgerError: it could not be written.
        """
        if self._writer is not None:
            await self._writer.durable()

    # --- items

    def entries(self, scope: str) -> dict[str, Entry]:
        """Give every entry of a scope by its key."""
        columns = [items.c[name] for name in Entry.__slots__]
        rows = self._rows(select(*columns).where(items.c.scope == scope))
        return {row[0]: Entry(*tuple(row)) for row in rows}

    def record(self, scope: str, entry: Entry, run: str) -> None:
        """Write an item's entry; await `durable` to know that it stands."""
        row = {name: getattr(entry, name) for name in Entry.__slots__}
        self._put(items, {"scope": scope, "run": run, "at": time.time(), **row})

    def keep(self, value: Any) -> tuple[str | None, str | None]:
        """Give (text, object) for an item's value: one of them, by its size."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if len(text) <= INLINE_CHARS:
            return text, None
        return None, self._object(text.encode())

    def value(self, text: str | None, object_: str | None) -> Any:
        """Give back what `keep` kept.

        Raises:
            LedgerError: its object is gone.
        """
        if object_ is not None:
            kept = self.objects.get(object_)
            if kept is None:
                raise LedgerError(f"{self.folder / 'objects' / object_}: this value is gone.")
            text = kept.decode()
        return None if text is None else json.loads(text)

    # --- outputs

    def outputs(self) -> Iterator[OutputRow]:
        """Give every output of every scope."""
        columns = [outputs.c[name] for name in OutputRow.__slots__]
        for row in self._rows(select(*columns)):
            scope, path, key, sha256, intended, size, mtime_ns = tuple(row)
            yield OutputRow(scope, path, key, sha256, tuple(json.loads(intended)), size, mtime_ns)

    def record_output(self, output: OutputRow, run: str) -> None:
        """Write what a path holds or is about to hold."""
        row = {name: getattr(output, name) for name in OutputRow.__slots__}
        row["intended"] = json.dumps(output.intended)
        self._put(outputs, {**row, "run": run, "at": time.time()})

    # --- calls

    def call(self, hash_: str) -> CallRow | None:
        """Give the call of this hash, with its raw reply, if it is known."""
        found = self._rows(select(calls).where(calls.c.hash == hash_))
        if not found:
            return None
        row = found[0]._mapping
        object_ = row["reply_object"]
        reply = row["reply"].encode() if object_ is None else self.objects.get(object_)
        if reply is None:
            return None
        return CallRow(
            **{name: row[name] for name in CallRow.__slots__ if name in _SAME_IN_CALLS},
            request="",
            reply=reply,
            usage=json.loads(row["usage"]),
        )

    def record_call(self, call: CallRow, run: str) -> None:
        """Write a call. Large requests and replies, and every vector, become objects."""
        row: dict[str, Any] = {name: getattr(call, name) for name in _SAME_IN_CALLS}
        row["usage"] = json.dumps(call.usage)
        row.update(self._split("request", call.request.encode(), is_text=True))
        row.update(self._split("reply", call.reply, is_text=call.kind == "chat"))
        self._put(calls, {**row, "run": run, "at": time.time()})

    def _split(self, name: str, value: bytes, *, is_text: bool) -> dict[str, str | None]:
        if is_text and len(value) <= INLINE_CHARS:
            return {name: value.decode(), f"{name}_object": None}
        return {name: None, f"{name}_object": self._object(value)}

    def _object(self, value: bytes) -> str:
        try:
            return self.objects.put(value)
        except OSError as error:
            raise unwritable(error) from error

    # --- scopes and runs

    def record_scope(self, scope: str, file: str, step: str, inputs: str) -> None:
        """Write what a scope's hash stands for."""
        self._put(scopes, {"scope": scope, "file": file, "step": step, "inputs": inputs})

    def scopes_of(self, file: str) -> set[str]:
        """Give every scope of a pipeline's file."""
        return {row[0] for row in self._rows(select(scopes.c.scope).where(scopes.c.file == file))}

    def run_names(self) -> frozenset[str]:
        """Give every run's name."""
        return frozenset(row[0] for row in self._rows(select(runs.c.run)))

    def last_summary(self, file: str) -> dict[str, Any] | None:
        """Give the summary of the last run of a pipeline's file that called a model."""
        query = select(runs.c.summary).where(runs.c.file == file, runs.c.summary.is_not(None))
        for row in self._rows(query.order_by(runs.c.started.desc()).limit(20)):
            summary = json.loads(row[0])
            if summary.get("calls"):
                return dict(summary)
        return None

    def record_run(self, row: Mapping[str, Any]) -> None:
        """Write a run's row, at its start and at its end."""
        self._put(runs, {"ended": None, "summary": None, **row})

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        return self._reader.execute(query).all() if self._reader is not None else ()

    def _put(self, table: Table, row: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.put(table, row)


_SAME_IN_CALLS = frozenset(
    ("hash", "kind", "model", "digest", "served_digest", "done_reason", "scope", "step", "key")
)
