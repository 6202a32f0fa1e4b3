"""Retention: remove old runs and logs, model replies that no item needs, unnamed objects.

Compact the file. Never removes what decides staleness: an item's entry stays as long as its
source, and so do the replies that it was made of. Works while runs go on: each statement is short,
and an object that a run names again meanwhile is put back. One small set of portable statements
serves SQLite and PostgreSQL.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from paddock.engine.system import files

from .entries import BUSY_TIMEOUT_S, VERSION, LedgerError, SqliteReader, read_error, write_error
from .ledger import ObjectStore, known_folder_identity


class StatementRunner(Protocol):
    """What statements are carried out on."""

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Carry out a statement with named values (`:name`, letters alone), and give its rows."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


@dataclass(frozen=True, slots=True)
class UnneededCall:
    """A call that no item needs."""

    hash: str
    at: float
    n_bytes: int
    """Of its texts in the row."""
    objects: tuple[str, ...]


def unneeded_calls(database: StatementRunner, before: float) -> Iterator[UnneededCall]:
    """Yield the calls that no item needs and that were made before a time, the oldest first.

    An item needs those that its entry was made of. Those that an earlier version of it made are
    not needed once all of its entry's calls are known to be of the run that wrote it.
    """
    oldest = database.rows("select min(at) from calls", {})[0][0]
    if oldest is None or oldest >= before:
        return
    nested = _nested_prefixes(database)
    for row in database.rows(_CALLS_BY_AGE, {"before": before}):
        hash_, scope, key, run, at, size, *objects = row[:8]
        found, entry_run, n_calls, gone, n_made = row[8:]
        call = UnneededCall(hash_, at, int(size or 0), tuple(filter(None, objects)))
        if found is None:
            prefix = nested.get(scope)
            if prefix is None or not _has_item(database, scope, key[len(prefix) :]):
                yield call
        elif gone is not None or (run != entry_run and int(n_made or 0) >= n_calls):
            yield call


def needed_calls(database: StatementRunner, objects: ObjectStore) -> frozenset[str]:
    """Return the calls of which the items that are there were made, whoever made them first."""
    found: set[str] = set()
    for text, object_ in database.rows(_LINEAGE_OF_CALLS, {}):
        kept = objects.get(object_) if object_ is not None else text
        for step in json.loads(kept)["steps"] if kept else ():
            found.update(call[0] for call in step["calls"])
    return frozenset(found)


def _nested_prefixes(database: StatementRunner) -> dict[str, str]:
    """Return what stands before the keys of calls in scopes of blocks within blocks."""
    found: dict[str, str] = {}
    for scope, inputs in database.rows("select scope, inputs from scopes", {}):
        outer = json.loads(inputs)[1:]
        if outer:
            found[scope] = "".join(f"{key}/" for key in outer)
    return found


def _has_item(database: StatementRunner, scope: str, key: str) -> bool:
    query = "select 1 from items where scope = :scope and key = :key and gone is null"
    return bool(database.rows(query, {"scope": scope, "key": key}))


_LINEAGE_OF_CALLS = """
select p.made, p.made_object from provenance p
left join items i on i.scope = p.scope and i.key = p.key
where i.gone is null
"""

# A top-level step's calls have no key; its entry has the step's id for one.
_CALLS_BY_AGE = """
select c.hash, c.scope, c.key, c.run, c.at,
       length(coalesce(c.request, '')) + length(coalesce(c.reply, '')),
       c.request_object, c.reply_object,
       i.key, i.run, i.calls, i.gone, made.n
from calls c
left join items i
  on i.scope = c.scope and i.key = case when c.key = '' then c.step else c.key end
left join (select scope, key, run, count(*) as n from calls group by scope, key, run) made
  on made.scope = c.scope and made.key = c.key and made.run = i.run
where c.at < :before
order by c.at
"""


VACUUM_SHARE, VACUUM_BYTES = 0.25, 8 * 1024**2
"""The file is written anew when so much of it, and at least so many bytes, hold nothing."""
VACUUM_S = 20.0
"""Less than a run waits for the database (`reader.WAIT_S`)."""
MOST_VACUUM_BYTES = 2 * 1024**3


def compact_file(file: Path, clock: Callable[[], float] = time.monotonic) -> bool:
    """Write a ledger's file anew without the room that nothing fills, within a time.

    Left for another day where it takes too long, the disk has no room for a second one, or a run
    writes at this moment. Tells whether it was done.
    """
    connection = sqlite3.connect(file, timeout=1.0, isolation_level=None)
    with contextlib.closing(connection):
        page, n_pages, n_free = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        n_bytes = page * n_pages
        is_worth_it = n_free * page >= VACUUM_BYTES and n_free >= VACUUM_SHARE * n_pages
        has_room = shutil.disk_usage(file.parent).free > 2 * n_bytes
        if not is_worth_it or not has_room or n_bytes > MOST_VACUUM_BYTES:
            return False
        ends = clock() + VACUUM_S
        connection.set_progress_handler(lambda: int(clock() > ends), 10_000)
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.OperationalError:  # interrupted, or somebody writes
            return False
    return True


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
class RetentionLimits:
    """What may go; times in seconds since the epoch."""

    runs_before: float
    calls_before: float
    max_bytes: int = 0
    """0: no limit."""


@dataclass(slots=True)
class SweepResult:
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

    def __add__(self, other: SweepResult) -> SweepResult:
        """Return both together."""
        names = (field.name for field in fields(self))
        return SweepResult(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def as_json(self) -> dict[str, int]:
        """Return the keys that machines read."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def sweep_ledger(
    state: Path, url: str, limits: RetentionLimits, *, is_dry: bool = False
) -> SweepResult:
    """Clean one ledger's folder; with `is_dry` only tell what would go.

    Raises:
        LedgerError: the ledger cannot be used, or another process cleans it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(state / "clean.lock", timeout=0, mode=files.PRIVATE_FILE):
            return _sweep_folder(state, url, limits, is_dry=is_dry)
    except Timeout:
        raise LedgerError(f"{state}: another process cleans this ledger.") from None
    except sqlite3.OperationalError as error:
        raise write_error(error) from error
    except sqlite3.DatabaseError as error:
        raise read_error(state / "ledger.sqlite", error) from error
    except OSError as error:
        raise LedgerError(f"{state}: cannot be cleaned ({error.strerror or error}).") from error


def _sweep_folder(state: Path, url: str, limits: RetentionLimits, *, is_dry: bool) -> SweepResult:
    database = _open_database(state, url)
    if database is None:
        return SweepResult()
    with contextlib.closing(database):
        broom = _Sweeper(state, database, limits, is_dry=is_dry)
        swept = broom.sweep()
    if not url and not is_dry:
        compact_file(state / "ledger.sqlite")
    return swept


def _open_database(state: Path, url: str) -> StatementRunner | None:
    """Open a ledger of this version; None: there is none, or one that no run has migrated yet."""
    if url:
        from .postgres import PostgresReader, postgres_server

        known = known_folder_identity(state)
        found = PostgresReader(postgres_server(url, known)) if known is not None else None
        if found is None or found.version() != VERSION:
            return None
        return found
    file = state / "ledger.sqlite"
    if not file.exists():
        return None
    reader = SqliteReader(file)  # which refuses a newer one
    is_older = reader.is_older()
    reader.close()
    return None if is_older else SqliteDatabase(file)


class SqliteDatabase:
    """Implements `StatementRunner`; each statement is a transaction of its own."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, timeout=BUSY_TIMEOUT_S, isolation_level=None)

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Carry out a statement."""
        return self._connection.execute(query, dict(values)).fetchall()

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()


class _Sweeper:
    """One cleaning."""

    def __init__(
        self, state: Path, database: StatementRunner, limits: RetentionLimits, *, is_dry: bool
    ) -> None:
        self._state = state
        self._db = database
        self._limits = limits
        self._is_dry = is_dry
        self._now = time.time()
        self._swept = SweepResult()

    def sweep(self) -> SweepResult:
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
        """Return the replies that go: those of no item, too old or too many."""
        limits = self._limits
        too_large = self._now - GRACE_S if limits.max_bytes else 0.0
        found = list(unneeded_calls(self._db, max(limits.calls_before, too_large)))
        if found:
            kept = needed_calls(self._db, ObjectStore(self._state / "objects"))
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
            if not entry.name.startswith(".") and _entry_age_s(entry, self._now) > OBJECT_GRACE_S
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
                if entry.name.startswith(".") and _entry_age_s(entry, self._now) > OBJECT_GRACE_S:
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
        """Return the bytes of ledger and objects; room in the file that nothing fills is not one."""
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


def _entry_age_s(entry: os.DirEntry[str], now: float) -> float:
    return now - entry.stat().st_mtime


def _removed(file: Path, before: float) -> bool:
    """Remove an object; one that a run put again meanwhile is put back.

    A run that keeps a value that is there already touches it (`ObjectStore.put`): either it finds the
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
