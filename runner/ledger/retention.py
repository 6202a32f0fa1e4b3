"""Let go what nobody needs any more: old runs, replies of no item, objects without a name.

Never what freshness needs: an item's entry stays as long as its source is there, and so do the
replies that its entry was made of. Works beside runs: each statement is short, an object that a
run has just named again is put back. Knows SQLite and PostgreSQL by one small set of statements.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from paddock.engine.system import private

from .compaction import compact
from .entries import LedgerError, unreadable, unwritable
from .identity import known_identity
from .objects import Objects
from .reader import VERSION, WAIT_S, FileReader
from .superfluous import Database, superfluous, used

GRACE_S = 7 * 86400.0
"""What is younger stays even where the ledger is too large: its run may go on tomorrow."""
OBJECT_GRACE_S = 86400.0
"""An object is written before the row that names it."""
RUNS_KEPT = 20
"""Of each pipeline's file, whatever their age: `plan` learns from them how long a run takes."""
BATCH = 400
PAUSE_S = 0.002
"""Between two statements, so that a run that waits to write comes first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may go; times in seconds since the epoch."""

    runs_before: float
    calls_before: float
    max_bytes: int = 0
    """0: no limit."""


@dataclass(slots=True)
class Swept:
    """What went, or would."""

    runs: int = 0
    logs: int = 0
    calls: int = 0
    items: int = 0
    """Entries of documents that are long gone."""
    objects: int = 0
    leftovers: int = 0
    """Files that killed processes left half written, and copies of older ledgers."""
    n_bytes: int = 0
    """Of files; rows are counted by their texts."""

    def __add__(self, other: Swept) -> Swept:
        """Give both together."""
        names = (field.name for field in fields(self))
        return Swept(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def as_json(self) -> dict[str, int]:
        """Give the keys that machines read."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def sweep(state: Path, url: str, limits: Limits, *, is_dry: bool = False) -> Swept:
    """Clean one ledger's folder; with `is_dry` only tell what would go.

    Raises:
        LedgerError: the ledger cannot be used, or another process cleans it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(state / "clean.lock", timeout=0, mode=private.FILE):
            return _sweep(state, url, limits, is_dry=is_dry)
    except Timeout:
        raise LedgerError(f"{state}: another process cleans this ledger.") from None
    except sqlite3.OperationalError as error:
        raise unwritable(error) from error
    except sqlite3.DatabaseError as error:
        raise unreadable(state / "ledger.sqlite", error) from error
    except OSError as error:
        raise LedgerError(f"{state}: cannot be cleaned ({error.strerror or error}).") from error


def _sweep(state: Path, url: str, limits: Limits, *, is_dry: bool) -> Swept:
    database = _database(state, url)
    if database is None:
        return Swept()
    with contextlib.closing(database):
        broom = _Broom(state, database, limits, is_dry=is_dry)
        swept = broom.sweep()
    if not url and not is_dry:
        compact(state / "ledger.sqlite")
    return swept


def _database(state: Path, url: str) -> Database | None:
    """Open a ledger of this version; None: there is none, or one that no run has migrated yet."""
    if url:
        from .postgres import PostgresReader, server

        known = known_identity(state)
        found = PostgresReader(server(url, known)) if known is not None else None
        if found is None or found.version() != VERSION:
            return None
        return found
    file = state / "ledger.sqlite"
    if not file.exists():
        return None
    reader = FileReader(file)  # which refuses a newer one
    is_older = reader.is_older()
    reader.close()
    return None if is_older else SqliteDatabase(file)


class SqliteDatabase:
    """Implements `Database`; each statement is a transaction of its own."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, timeout=WAIT_S, isolation_level=None)

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Carry out a statement."""
        return self._connection.execute(query, dict(values)).fetchall()

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()


class _Broom:
    """One cleaning."""

    def __init__(self, state: Path, database: Database, limits: Limits, *, is_dry: bool) -> None:
        self._state = state
        self._db = database
        self._limits = limits
        self._is_dry = is_dry
        self._now = time.time()
        self._swept = Swept()

    def sweep(self) -> Swept:
        self._runs()
        calls = self._calls()
        items = self._gone_items()
        self._objects(calls, items)
        self._logs()
        self._leftovers()
        return self._swept

    # --- rows

    def _runs(self) -> None:
        """Runs that are over, older than asked, that no item names, and not a file's latest."""
        query = (
            "select run, file, coalesce(ended, started) from runs "
            "where run not in (select run from items) order by started desc"
        )
        kept: dict[str, int] = {}
        old: list[str] = []
        for run, file, at in self._db.rows(query, {}):
            kept[file] = kept.get(file, 0) + 1
            if kept[file] > RUNS_KEPT and at < self._limits.runs_before:
                old.append(run)
        self._swept.runs = len(old)
        self._delete("runs", "run", old)

    def _calls(self) -> frozenset[str]:
        """Give the replies that go: those of no item, too old or too many."""
        limits = self._limits
        too_large = self._now - GRACE_S if limits.max_bytes else 0.0
        found = list(superfluous(self._db, max(limits.calls_before, too_large)))
        if found:
            kept = used(self._db, Objects(self._state / "objects"))
            found = [call for call in found if call.hash not in kept]
        old = [call for call in found if call.at < limits.calls_before]
        n_bytes = sum(call.n_bytes for call in old)
        doomed = {call.hash for call in old}
        if limits.max_bytes:
            too_much = self._size() - n_bytes - limits.max_bytes
            for call in found:
                if too_much <= 0 or call.at >= too_large:
                    break
                if call.hash not in doomed:
                    doomed.add(call.hash)
                    n_bytes += call.n_bytes
                    too_much -= call.n_bytes + sum(map(self._size_of, call.objects))
        self._swept.calls = len(doomed)
        self._swept.n_bytes += n_bytes
        self._delete("calls", "hash", sorted(doomed))
        return frozenset(doomed)

    def _gone_items(self) -> frozenset[tuple[str, str]]:
        """Let go the entries of documents that went long ago, and what they wrote, if that went."""
        query = "select scope, key from items where gone is not null and at < :before"
        rows = self._db.rows(query, {"before": self._limits.calls_before})
        self._swept.items = len(rows)
        for scope, key in rows if not self._is_dry else ():
            at = {"scope": scope, "key": key}
            query = "select path from outputs where scope = :scope and key = :key"
            for (path,) in self._db.rows(query, at):
                # What is there still is known as ours, or a scan would take it for a document.
                if not os.path.lexists(self._state.parent / path):
                    self._do(_DROP_OUTPUT, {**at, "path": path})
            self._do(_DROP_ITEM, at)
            self._do(_DROP_MADE, at)
        if rows and not self._is_dry:
            self._do(_DROP_SPECS, {})
        return frozenset((scope, key) for scope, key in rows)

    def _delete(self, table: str, column: str, keys: Sequence[str]) -> None:
        if self._is_dry:
            return
        for first in range(0, len(keys), BATCH):
            batch = keys[first : first + BATCH]
            named = {_letters(n): key for n, key in enumerate(batch)}
            listed = ", ".join(f":{name}" for name in named)
            self._do(f"delete from {table} where {column} in ({listed})", named)

    def _do(self, statement: str, values: Mapping[str, Any]) -> None:
        self._db.rows(statement, values)
        time.sleep(PAUSE_S)

    # --- files

    def _objects(self, calls: Collection[str], items: Collection[tuple[str, str]]) -> None:
        """Remove the objects that no row names; those of rows that would go are counted so, too."""
        folder = self._state / "objects"
        old = {
            entry.name: entry.stat().st_size
            for entry in _entries(folder)
            if not entry.name.startswith(".") and _age(entry, self._now) > OBJECT_GRACE_S
        }
        if not old:
            return
        for digest in self._named(calls, items):
            old.pop(digest, None)
        for digest, size in old.items():
            if self._is_dry or _removed(folder / digest, self._now - OBJECT_GRACE_S):
                self._swept.objects += 1
                self._swept.n_bytes += size

    def _named(self, calls: Collection[str], items: Collection[tuple[str, str]]) -> Iterator[str]:
        query = "select hash, request_object, reply_object from calls"
        for hash_, request, reply in self._db.rows(f"{query} {_HAS_OBJECT}", {}):
            if hash_ not in calls:
                yield from (digest for digest in (request, reply) if digest is not None)
        for table, column in (("items", "returns_object"), ("provenance", "made_object")):
            query = f"select scope, key, {column} from {table} where {column} is not null"
            for scope, key, digest in self._db.rows(query, {}):
                if (scope, key) not in items:
                    yield digest

    def _logs(self) -> None:
        """Remove what old runs wrote down, but nothing of one that may be running."""
        rows = self._db.rows("select run from runs where status = 'running'", {})
        running = {row[0] for row in rows}
        for entry in _entries(self._state / "runs"):
            before = self._limits.runs_before
            if entry.name.rpartition(".")[0] in running:
                before = min(before, self._now - OBJECT_GRACE_S)
            if entry.stat().st_mtime < before:
                self._swept.logs += 1
                self._remove(entry)

    def _leftovers(self) -> None:
        """Remove what killed processes left half written, and copies from before migrations."""
        for folder in (self._state / "objects", self._state / "told"):
            for entry in _entries(folder):
                if entry.name.startswith(".") and _age(entry, self._now) > OBJECT_GRACE_S:
                    self._swept.leftovers += 1
                    self._remove(entry)
        for entry in _entries(self._state):
            is_copy = entry.name.startswith("ledger.sqlite.v")
            if is_copy and entry.stat().st_mtime < self._limits.runs_before:
                self._swept.leftovers += 1
                self._remove(entry)

    def _remove(self, entry: os.DirEntry[str]) -> None:
        self._swept.n_bytes += entry.stat().st_size
        if not self._is_dry:
            Path(entry.path).unlink(missing_ok=True)

    def _size(self) -> int:
        """Give the bytes of ledger and objects; room in the file that nothing fills is not one."""
        is_file = isinstance(self._db, SqliteDatabase)
        own = int(self._db.rows(_SIZE_OF_FILE if is_file else _SIZE_OF_SCHEMA, {})[0][0])
        return own + sum(entry.stat().st_size for entry in _entries(self._state / "objects"))

    def _size_of(self, digest: str) -> int:
        try:
            return (self._state / "objects" / digest).stat().st_size
        except OSError:
            return 0


_SIZE_OF_FILE = """
select (pages.page_count - free.freelist_count) * sizes.page_size
from pragma_page_count() pages, pragma_freelist_count() free, pragma_page_size() sizes
"""
_SIZE_OF_SCHEMA = """
select coalesce(sum(pg_total_relation_size(c.oid)), 0)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = current_schema() and c.relkind = 'r'
"""
_HAS_OBJECT = "where request_object is not null or reply_object is not null"
_DROP_OUTPUT = "delete from outputs where scope = :scope and key = :key and path = :path"
_DROP_MADE = "delete from provenance where scope = :scope and key = :key"
_DROP_SPECS = "delete from specs where spec not in (select spec from provenance)"
_DROP_ITEM = "delete from items where scope = :scope and key = :key and gone is not null"


def _letters(n: int) -> str:
    """Name a value by letters alone, as queries have them.

    >>> _letters(0), _letters(42)
    ('a', 'ec')
    """
    return str(n).translate(_AS_LETTERS)


_AS_LETTERS = str.maketrans("0123456789", "abcdefghij")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _age(entry: os.DirEntry[str], now: float) -> float:
    return now - entry.stat().st_mtime


def _removed(file: Path, before: float) -> bool:
    """Remove an object; one that a run put again meanwhile is put back.

    A run that keeps a value that is there already touches it (`Objects.put`): either it finds the
    file and we see its touch, or it does not and writes it anew.
    """
    aside = file.with_name(f".{file.name}.swept")
    try:
        file.rename(aside)
    except FileNotFoundError:
        return False
    if aside.stat().st_mtime >= before:
        aside.rename(file)
        return False
    aside.unlink(missing_ok=True)
    return True
