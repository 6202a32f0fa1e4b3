"""The ledger's tables, and the statements that make and write them.

One declaration and one set of statements for SQLite and PostgreSQL. What differs is a placeholder
and the way to read a list of keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from paddock.engine.system.distribution import own_version
from paddock.engine.system.records import Struct

from ..entries import LedgerError

if TYPE_CHECKING:
    from ..run_locks import RunLock

VERSION = 7
"""Of the tables. A ledger of another version is refused, but for the one before."""
BEFORE = 6
"""The version that is carried over (`ledger.carry_over`); its last commit is ece01258."""

Row = Mapping[str, Any]
Key = tuple[Any, ...]
Pending = Mapping[str, Mapping[Key, Row | None]]
"""Table → primary key → the row to write; None deletes it."""
Execute = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]
"""Executes a statement with named values (`:name`); returns its rows."""

# Name → (columns of the primary key, which are texts but for a number; the other columns).
_TABLES = {
    "meta": ("name", "value text not null"),
    "runs": (
        "run",
        "pipeline text not null, file text not null, started float8 not null, ended float8, "
        "status text not null, summary text, trigger text not null default 'hand', host text, "
        "pid integer, attempt integer not null default 1, message text, parent text, given text",
    ),
    "scopes": ("scope", "file text not null, step text not null, inputs text not null"),
    "pipelines": ("name", "file text not null, sha256 text not null, blocks text not null"),
    "events": (  # of items, by their numbers: the log of which `items` is the fold
        "n",
        "scope text not null, key text not null, kind text not null, run text not null, "
        "at float8 not null, origin text, name text, path text, sha256 text, target text, "
        "made_by text, outdated_by text, around_scope text, around_key text, state text, "
        "hash text, error text, outputs text, has_inner_failures boolean, seconds float8, "
        "calls integer, tokens integer, attempts integer, was text, spec text, returns text, "
        "returns_object text, parts text, reads text, made text, made_object text",
    ),
    "items": (
        "scope key",
        "state text, run text, at float8, ended bigint, last bigint, gone text, name text, "
        "path text, sha256 text, target text, made_by text, outdated_by text, hash text, "
        "parts text",
    ),
    "calls": (
        "hash",
        "kind text not null, model text not null, digest text not null, "
        "served_digest text not null, request text, request_object text, reply text, "
        "reply_object text, done_reason text, usage text not null, scope text not null, "
        "step text not null, key text not null, run text not null, at float8 not null",
    ),
    "outputs": (
        "scope path",
        "key text not null, sha256 text, intended text not null, size bigint, mtime_ns bigint, "
        "run text not null, at float8 not null",
    ),
    "specs": ("spec", "text text not null"),
    "stored": (
        "scope path key",
        "sha256 text not null, n_rows integer not null, run text not null, at float8 not null",
    ),
    "watched": (
        "watch path",
        "size bigint not null, mtime_ns bigint not null, run text not null, at float8 not null",
    ),
    "roots": ("owner path host", "folder text not null, at float8 not null"),
    "reviews": (  # long texts last: a list of reviews does not read them
        "scope key step",
        "id text not null, state text not null, question text not null, run text not null, "
        "asked_at float8 not null, expires_at float8, decided_by text, decided_at float8, "
        "is_applied integer not null, lease_by text, lease_until float8, reason text, "
        "together text, head text not null, objects text not null, earlier text not null, "
        "value text, value_object text, subject text, subject_object text",
    ),
}
_INDEXES = (
    "create index if not exists reviews_id on reviews (id)",
    "create index if not exists events_of_origin on events (origin)",
    "create index if not exists outputs_path on outputs (path)",
)
KEYS: Mapping[str, tuple[str, ...]] = {
    name: tuple(key.split()) for name, (key, _) in _TABLES.items()
}
COLUMNS: Mapping[str, tuple[str, ...]] = {
    name: (*KEYS[name], *(column.split()[0] for column in columns.split(", ")))
    for name, (_, columns) in _TABLES.items()
}
"""Each table with its columns, those of the primary key first."""

SERVER_NOW = "extract(epoch from clock_timestamp())::float8"
"""SQL of PostgreSQL: seconds since 1970."""

ROWS_PER_STATEMENT = 35  # of at most 27 columns: SQLite before 3.32 takes 999 values

T = TypeVar("T")
CarriedRows = Callable[[Execute], Iterator[Pending]]
"""Yields the rows of this version for those of the version before, which it asks for."""


class LedgerDatabase(Protocol):
    """An open ledger, in a file or in PostgreSQL."""

    @property
    def listed_keys(self) -> str:
        """SQL: a table with a column `value` of the texts in the JSON list `:keys`."""

    @property
    def now(self) -> str:
        """SQL: seconds since 1970 by the clock of the machine that has the database."""

    @property
    def size_query(self) -> str:
        """SQL: the bytes that it takes, without unused space."""

    def identity(self) -> str:
        """Return its name, also when its folder is moved; empty: it was removed."""

    def reserve_run(self, statement: str, values: Mapping[str, Any]) -> bool:
        """Reserve a run's name among machines; return False if it is taken."""

    def has_ended(self, session: str) -> bool:
        """Return whether a run on another machine, named `session`, is known to have ended."""

    def find_tables(self) -> bool:
        """Return whether a run has made the tables.

        Raises:
            LedgerError: another version of Paddock made them; the database cannot be used.
        """

    def in_transaction(self, work: Callable[[Execute], T]) -> T:
        """Call `work` in one transaction; when it returns, all of it is committed.

        It may be called again from its start. What it raises undoes everything.

        Raises:
            LedgerError: the database refuses, or cannot be reached.
        """

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute a portable statement with named values (`:name`); return its rows.

        Raises:
            LedgerError: the database refuses, or cannot be reached.
        """

    def write_rows(self, pending: Pending) -> None:
        """Write and delete rows in one transaction.

        Raises:
            LedgerError: it cannot be written; `LedgerBusy`: another program holds a file.
        """

    def drop_kept(self, before: float | None = None) -> None:
        """Remove the ledger of an earlier version; only if it was carried over before a time."""

    def damage_behind(self, error: BaseException) -> LedgerError | None:
        """Return the damage that may be the reason of an unexpected error; None: there is none."""

    def close(self) -> None: ...


class OpenLedger(Struct, frozen=True):
    """The connections of a ledger that is written to, each for one thread at a time."""

    reading: LedgerDatabase
    transactions: LedgerDatabase
    writing: LedgerDatabase


class LedgerStorage(Protocol):
    """Where a folder's ledger is: in a file, or in a database that several machines use."""

    folder: Path
    """The state of the folder of pipelines."""
    compares_secrets: bool
    """Whether another secret makes an item stale."""
    marks_decisions: bool
    """Whether a decision changes a file of the folder, wherever it is made."""

    def find(self, *, is_readonly: bool) -> LedgerDatabase | None:
        """Open it; None: there is none, or no run has made its tables yet.

        Raises:
            LedgerError: another version of Paddock wrote it; it cannot be read. `ForeignState`: it
                is not known in this user's home.
        """

    def open_for_writing(self, note: Callable[[str], None]) -> OpenLedger:
        """Open it; make its tables where they are missing. `note` gets what is waited for.

        Raises:
            LedgerError, OSError: it cannot be written.
        """

    def run_lock(self, name: str, run: str) -> RunLock:
        """Return a lock of a ledger that is open for writing."""

    def hurry_after(self, is_stopping: Callable[[], bool], is_over: threading.Event) -> None:
        """Once a run is to end, wait for no server that does not answer."""

    def doubt(self) -> str:
        """Return what a run should say of the ledger that it uses; empty: nothing."""

    def refuse_unwritable(self) -> None:
        """Refuse a place where no run could write.

        Raises:
            LedgerError: why not.
        """


def made_facts() -> Mapping[str, str]:
    """Return what `meta` says of a ledger that is made now."""
    return {"version": str(VERSION), "paddock": own_version()}


VERSION_FACTS = "select name, substr(value, 1, 255) from meta where name in ('version', 'paddock')"


def check_version(place: object, rows: Sequence[Sequence[Any]], remedy: str) -> bool:
    """Return whether a ledger has tables, by the rows of `VERSION_FACTS`.

    Raises:
        LedgerError: another version of Paddock made them.
    """
    facts = {str(name): str(value) for name, value in rows}
    version = facts.get("version", str(VERSION))
    writer = f"Paddock {facts.get('paddock', '0.1.0')}"
    if version.isdecimal() and int(version) > VERSION:
        raise LedgerError(
            f"{place}: this ledger has version {version}, which the newer {writer} reads; this is "
            f"Paddock {own_version()}, for version {VERSION}. Use the newer one here."
        )
    if version != str(VERSION):
        raise LedgerError(
            f"{place}: this ledger has version {version}, which {writer} reads; this is "
            f"Paddock {own_version()}, for version {VERSION}. To keep what people decided: "
            f"`paddock review FOLDER --export decided.jsonl` with {writer}, and here, after a run, "
            f"`paddock review FOLDER --import decided.jsonl`. {remedy}"
        )
    return "version" in facts


def create_statements(number: str = "bigint", options: str = "") -> Iterator[str]:
    """Yield statements that make tables and indexes; `options` follow those with a compound key.

    `number` is the type of numbers of events.
    """
    for name, (key, columns) in _TABLES.items():
        names = key.split()
        kind = number if name == "events" else "text"
        texts = ", ".join(f"{column} {kind} not null" for column in names)
        end = options if len(names) > 1 else ""
        yield (
            f"create table if not exists {name} "
            f"({texts}, {columns}, primary key ({', '.join(names)})) {end}"
        )
    yield from _INDEXES


def write_statements(pending: Pending, placeholder: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield statements and their values that write and delete rows, many in one statement.

    In one order everywhere: machines that write the same rows wait for each other, without a
    deadlock.
    """
    for table in sorted(pending):
        rows = sorted(pending[table].items(), key=itemgetter(0))
        for keys in _batches([key for key, row in rows if row is None]):
            values = [value for key in keys for value in key]
            marks = _marks(placeholder, len(KEYS[table]), len(keys))
            yield (
                f"delete from {table} where ({', '.join(KEYS[table])}) in (values {marks})",
                values,
            )
        by_columns: dict[tuple[str, ...], list[Row]] = {}
        for _, row in rows:
            if row is not None:
                by_columns.setdefault(tuple(row), []).append(row)
        for columns, some in ((c, s) for c, all_ in by_columns.items() for s in _batches(all_)):
            values = [row[name] for row in some for name in columns]
            marks = _marks(placeholder, len(columns), len(some))
            changed = (f"{n} = excluded.{n}" for n in columns if n not in KEYS[table])
            yield (
                f"insert into {table} ({', '.join(columns)}) values {marks} on conflict "
                f"({', '.join(KEYS[table])}) do update set {', '.join(changed)}",
                values,
            )


def _batches(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(rows), ROWS_PER_STATEMENT):
        yield rows[first : first + ROWS_PER_STATEMENT]


def _marks(placeholder: str, n_columns: int, n_rows: int) -> str:
    row = f"({', '.join([placeholder] * n_columns)})"
    return ", ".join([row] * n_rows)
