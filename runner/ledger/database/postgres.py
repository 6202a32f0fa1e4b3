"""A ledger in PostgreSQL: connections that are retried, tables, commits, errors.

Blocks. Each folder of pipelines has a schema of its own, named by the folder's identity. Rows
of pipelines have their own importer of psycopg, `steps/tables/database_postgres.py`.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.retry import Backoff, retried_blocking
from paddock.engine.system.text import one_line

from ..entries import LedgerError
from ..own_state import folder_identity, known_folder_identity
from ..run_locks import RunLock, SessionLock
from .ledger_tables import (
    BEFORE,
    COLUMNS,
    KEYS,
    SERVER_NOW,
    VERSION_FACTS,
    CarriedRows,
    Execute,
    OpenLedger,
    Pending,
    check_version,
    create_statements,
    made_facts,
    write_statements,
)
from .sqlite_file import READ_S, ROWS_AT_A_TIME, WORK_S, SqliteDatabase
from .sqlite_storage import SqliteStorage

OLDEST = 13  # PostgreSQL's oldest supported release when this was written, less one

_SCHEMA = "paddock_"
"""And the folder's identity: the name of its schema."""
RETRY_S = 60.0  # for a server that restarts, or a cable that is plugged in again
END_S = 3  # once a run is to end
LOOK_S = 0.25  # whether it is; a person does not notice
OPEN_S = 5.0  # at the start a person waits, and a wrong address should show soon
_BACKOFF = Backoff(first_s=0.25, longest_s=4.0)

# A peer that died silently is noticed within about 20 s, not after the kernel's two hours.
_KEEP_ALIVE: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    "application_name": "paddock",
}

# Releases the locks of a machine that sleeps or loses its cable in the middle of a transaction.
_SESSION_SETTINGS = "; ".join(
    f"set {name} = '{value}'"
    for name, value in {
        "idle_in_transaction_session_timeout": "10s",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "2",
        "tcp_user_timeout": "20s",
    }.items()
)

# SQLSTATEs that may pass: the server shuts down or starts up (57P01 to 57P05), has too many
# connections, took us for asleep (25P03), or two transactions collided.
_TRANSIENT_CODES = ("08", "57P", "53300", "40001", "40P01", "25P03")
_TRANSIENT_WORDS = (
    "is starting up", "is shutting down", "in recovery mode", "not yet accepting", "too many",
    "remaining connection slots", "terminating connection",
)  # fmt: skip

_NAMED_VALUE = re.compile(r"(?<!:):([a-z_]+)\b")  # not the `::` of a cast

_HAS_SESSION = "select 1 from pg_stat_activity where application_name = :name"
_PROOFS = 20  # PgBouncer with 2 to 12 busy clients, in turns: one alone missed 73 of 100

T = TypeVar("T")


class PostgresServer(Struct, frozen=True):
    url: str
    schema: str
    limit_s: float = WORK_S
    carried: CarriedRows | None = None
    """What makes rows of this version of those of the one before; None: that is refused."""

    def connect(self) -> psycopg.Connection[Any]:
        """Connect; each statement is a transaction of its own.

        Raises:
            psycopg.Error: it cannot be reached; see `connection_error`.
            LedgerError: a pooler gives each transaction another session.
        """
        parameters = psycopg.conninfo.conninfo_to_dict(self.url)
        defaults = {name: value for name, value in _KEEP_ALIVE.items() if name not in parameters}
        connection = psycopg.connect(self.url, autocommit=True, **defaults)
        try:
            with psycopg.connect(self.url, **defaults) as other:
                self._prove_session(connection, other)
            connection.execute(_SESSION_SETTINGS)
            connection.execute(f"set statement_timeout = '{self.limit_s:g}s'".encode())
        except BaseException:
            connection.close()
            raise
        return connection

    def _prove_session(
        self, connection: psycopg.Connection[Any], other: psycopg.Connection[Any]
    ) -> None:
        """Set where tables are found, in a session that keeps its locks and its settings.

        Raises:
            LedgerError: it does not, as behind PgBouncer with `pool_mode = transaction`.
        """
        own = _execute(connection, "select pg_backend_pid()", {})[0][0]
        # Behind a pooler, which answers with a number of its own, one proof may succeed by chance
        n_proofs = 1 if own == connection.info.backend_pid else _PROOFS
        if all(_holds_lock(connection, other) for _ in range(n_proofs)):
            # Tables of a session are else found before those of the schema
            path = f"{sql.Identifier(self.schema).as_string(connection)}, pg_temp"
            _execute(connection, "select set_config('search_path', :path, false)", {"path": path})
            with connection.transaction():
                if _execute(connection, "show search_path", {})[0][0] == path:
                    return
        raise LedgerError(
            f"{database_name(self.url)} is reached through a pooler that gives each transaction "
            f"another session: locks and settings of the ledger would hold nothing. Name the "
            f"server itself in the setting 'ledger' (PADDOCK_LEDGER), or let the pooler keep "
            f"sessions (in PgBouncer: pool_mode = session)."
        )


def postgres_server(url: str, identity: str) -> PostgresServer:
    """Return the database of the folder with this identity.

    Raises:
        LedgerError: the URL is of another kind, or cannot be read.
    """
    scheme = url.partition("://")[0]
    if scheme not in ("postgresql", "postgres") or "://" not in url:
        raise LedgerError(
            f"The setting 'ledger' names '{scheme}': it takes postgresql://user@host/database, "
            f"or nothing for a file beside the pipeline."
        )
    if _url_parts(url) is None:
        raise LedgerError(
            "The setting 'ledger' (PADDOCK_LEDGER) cannot be read as an address. In a name or a "
            "password write %25 for %, %40 for @, %2F for /, %3A for : and %20 for a space."
        )
    return PostgresServer(url, f"{_SCHEMA}{identity}")


def database_name(url: str) -> str:
    """Return a database's name for messages, without a password.

    >>> database_name("postgresql://me:secret@db.example:5433/work?sslmode=require")
    "PostgreSQL's database 'work' at db.example:5433"
    """
    parts = _url_parts(url)
    if parts is None:
        return "PostgreSQL"
    host = parts.get("host") or parts.get("hostaddr") or "this machine"
    port = f":{parts['port']}" if parts.get("port") else ""
    name = parts.get("dbname") or parts.get("user") or "?"
    return f"PostgreSQL's database '{name}' at {host}{port}"


def _url_parts(url: str) -> dict[str, Any] | None:
    """Return the parts of a URL; None if a character of its password is not escaped.

    Such a character (an `@` for `%40`) splits the URL at the wrong place: then a part of the
    password stands where the host should, and must not be shown.
    """
    try:
        parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return None
    places = "".join(str(parts.get(name) or "") for name in ("host", "hostaddr", "dbname"))
    is_whole = "@" not in places and re.fullmatch(r"[\d,]*", str(parts.get("port") or ""))
    return parts if is_whole else None


def is_transient_error(error: BaseException) -> bool:
    """Return whether the same may succeed later: a broken connection, or colliding transactions."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is not None:
        return error.sqlstate.startswith(_TRANSIENT_CODES)
    # Errors of the client's library have no code: the socket is gone, which may pass, or the
    # server refused us ("FATAL": a wrong password, an unknown database), which stays.
    message = str(error)
    if "FATAL:" in message:
        return any(words in message for words in _TRANSIENT_WORDS)
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))


def connection_error(url: str, error: psycopg.Error) -> LedgerError:
    place, message = database_name(url), one_line(str(error))
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        parts = psycopg.conninfo.conninfo_to_dict(url)
        user = parts.get("user") or "paddock"
        return LedgerError(
            f"{place} does not let '{user}' make or use the ledger's tables ({message}). Ask its "
            f'owner to execute: grant create on database "{parts.get("dbname") or user}" to '
            f'"{user}"; if another user made the tables, use that one on all machines.'
        )
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return LedgerError(
            f"{place} takes no writes ({message}): it is a standby. "
            f"Name the primary server in the setting 'ledger'."
        )
    if error.sqlstate is None or error.sqlstate.startswith(("08", "57P", "28", "3D")):
        return LedgerError(
            f"{place} cannot be reached ({message}). Start it, or correct the setting 'ledger' "
            f"(PADDOCK_LEDGER). Finished items are kept."
        )
    return LedgerError(
        f"{place}: the ledger cannot be used ({message}). Correct that and run again; "
        f"finished items are kept."
    )


def check_server(connection: psycopg.Connection[Any], url: str) -> None:
    """Refuse a server that the ledger cannot use.

    Raises:
        LedgerError: it is too old, or its database is not UTF-8.
    """
    version = connection.info.server_version
    if version < OLDEST * 10_000:
        raise LedgerError(
            f"{database_name(url)} is version {version // 10_000}; "
            f"the ledger needs PostgreSQL {OLDEST} or newer."
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise LedgerError(
            f"{database_name(url)} keeps its texts as {encoding}; the ledger needs UTF8. "
            f"Make another: create database paddock encoding 'UTF8' template template0;"
        )


class PostgresDatabase:
    """Implements `LedgerDatabase` over a schema, by one connection; one thread at a time.

    It is opened on first use, and again when it broke.
    """

    listed_keys = "json_array_elements_text((:keys)::json)"
    now = SERVER_NOW
    size_query = (
        "select coalesce(sum(pg_total_relation_size(c.oid)), 0) "
        "from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname = current_schema() and c.relkind = 'r'"
    )

    def __init__(
        self,
        server: PostgresServer,
        note: Callable[[str], None] | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self.server = server
        self.retry_s = retry_s
        """How long a server that is away is waited for."""
        self._note = note
        self._has_failed = False
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._is_given_up = False
        self._held: tuple[str, str, str] | None = None
        """A lock of the session: name, mark, the session's name."""

    def identity(self) -> str:
        return self.server.schema.removeprefix(_SCHEMA)

    def reserve_run(self, statement: str, values: Mapping[str, Any]) -> bool:
        return bool(self.rows(statement, values))

    def has_ended(self, session: str) -> bool:
        query = _HAS_SESSION
        return not self.rows(query, {"name": session})

    def take_lock(self, name: str, mark: str, session: str) -> tuple[bool, str]:
        """Take a lock until `release_lock`, or until the session, named `session`, breaks.

        Returns whether it is ours now, and the `mark` of who has it, or crashed while he had it.
        From then on nothing is written without it: see `_connected`.

        Raises:
            LedgerError: the server cannot be reached.
        """
        lock = (f"{self.server.schema} {name}", mark, session)
        found = self._retried(lambda connection: _take_lock(connection, *lock))
        if found[0]:
            self._held = lock
        return found

    def give_up(self) -> None:
        """Break what waits for the server in another thread, and wait for it no more."""
        self._is_given_up = True
        if (connection := self._connection) is not None:
            with (
                suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as other,
            ):
                other.shutdown(socket.SHUT_RDWR)

    def release_lock(self) -> None:
        if self._held is None:
            return
        (name, mark, _), self._held = self._held, None
        values, self.retry_s = {"name": name, "mark": mark}, 0.0
        self.rows("delete from meta where name = :name and value = :mark", values)
        self.rows("select pg_advisory_unlock(hashtextextended(:name, 0))", values)

    def _connected(self) -> psycopg.Connection[Any]:
        """Connect, and take the lock that the broken session held.

        Raises:
            psycopg.Error: the server cannot be reached, or still thinks that the session lives.
            LedgerError: another run has taken the lock meanwhile, and may have done what is due.
        """
        connection = self.server.connect()
        if self._held is not None:
            is_ours, mark = _take_lock(connection, *self._held, is_again=True)
            if not is_ours or mark != self._held[1]:
                connection.close()
                if mark == self._held[1]:
                    raise psycopg.OperationalError("the server holds the lock for a lost session")
                raise LedgerError(
                    f"{database_name(self.server.url)} was away, and another run has begun on the "
                    f"same folder meanwhile. Run it again; finished items are kept."
                )
        return connection

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return self._retried(lambda connection: _execute(connection, query, values))

    def in_transaction(self, work: Callable[[Execute], T]) -> T:
        def once(connection: psycopg.Connection[Any]) -> T:
            with connection.transaction():
                return work(lambda query, values: _execute(connection, query, values))

        return self._retried(once)

    def prepare_schema(self, file: SqliteStorage) -> None:
        """Make schema and tables where they are missing; one machine at a time.

        New tables begin with the rows of the folder's own ledger in `file`, if there is one.

        Raises:
            LedgerError: another version made them; the server is too old, or gives no rights.
        """

        def prepare(connection: psycopg.Connection[Any]) -> None:
            check_server(connection, self.server.url)
            with connection.transaction():
                # Without the lock `create schema` of two machines at once fails on one of them.
                connection.execute(
                    "select pg_advisory_xact_lock(hashtext(%s))", [self.server.schema]
                )
                if not _has_tables(connection, self.server):
                    _make_tables(connection, self.server.schema, file.find(is_readonly=False))

        self._retried(prepare)

    def write_rows(self, pending: Pending) -> None:
        self._retried(lambda connection: _write(connection, pending))

    def _retried(self, action: Callable[[psycopg.Connection[Any]], T]) -> T:
        def once() -> T:
            try:
                if self._is_given_up:
                    raise psycopg.OperationalError("it did not answer when the run was to end")
                self._connection = self._connection or self._connected()
                return action(self._connection)
            except psycopg.Error:
                self._disconnect()
                raise

        def note_wait(_: Exception, pause_s: float) -> None:
            if self._note is not None and pause_s > _BACKOFF.first_s:
                self._note(f"{database_name(self.server.url)} went away; waiting for it")

        with self._lock:
            # After one call has waited in vain, the next ones do not wait as long again.
            retry_s = 0.0 if self._has_failed else self.retry_s
            self._has_failed = True
            try:
                found = retried_blocking(
                    once,
                    backoff=_BACKOFF,
                    is_passing=lambda error: is_transient_error(error) and not self._is_given_up,
                    within_s=retry_s,
                    on_wait=note_wait,
                )
            except psycopg.Error as error:
                raise connection_error(self.server.url, error) from error
            self._has_failed = False
            return found

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def lasting_rows(self) -> Iterator[Pending]:
        """Yield all rows, some at a time; `prepare_schema` has made the tables today's."""
        with self.server.connect() as connection, connection.transaction():
            for table, columns in COLUMNS.items():
                with connection.cursor(f"all_{table}") as cursor:
                    cursor.execute(f"select {', '.join(columns)} from {table}".encode())
                    while rows := cursor.fetchmany(ROWS_AT_A_TIME):
                        found = [dict(zip(columns, row, strict=True)) for row in rows]
                        keys = KEYS[table]
                        yield {table: {tuple(row[key] for key in keys): row for row in found}}

    def drop_kept(self, before: float | None = None) -> None:
        ((made,),) = self.rows("select max(value) from meta where name = 'made'", {})
        if before is None or float(made or 0) < before:
            self.rows(f'drop schema if exists "{self.server.schema}_{BEFORE}" cascade', {})

    def damage_behind(self, error: BaseException) -> LedgerError | None:
        """Return None: a server looks after its own pages."""
        return None

    def find_tables(self) -> bool:
        return self._retried(lambda connection: _has_tables(connection, self.server))


class PostgresStorage:
    """Implements `LedgerStorage` over the folder's schema."""

    compares_secrets = False  # machines have each their own, and would undo each other's work
    marks_decisions = False  # other machines change no file here

    def __init__(self, folder: Path, url: str, carried: CarriedRows) -> None:
        self.folder, self._url, self._carried = folder, url, carried
        self._opened: tuple[PostgresDatabase, ...] = ()

    def find(self, *, is_readonly: bool) -> PostgresDatabase | None:
        identity = known_folder_identity(self.folder)
        if identity is None:
            return None
        server = replace(postgres_server(self._url, identity), carried=self._carried)
        if is_readonly:
            server = replace(server, limit_s=READ_S)
        database = PostgresDatabase(server, retry_s=OPEN_S)
        with ExitStack() as stack:
            stack.callback(database.close)
            if not database.find_tables():
                return None
            stack.pop_all()
        self._opened = (database,)
        return database

    def open_for_writing(self, note: Callable[[str], None]) -> OpenLedger:
        server = postgres_server(self._url, folder_identity(self.folder))
        server = replace(server, carried=self._carried)
        reading = PostgresDatabase(server, note, retry_s=OPEN_S)
        with ExitStack() as stack:
            stack.callback(reading.close)
            reading.prepare_schema(SqliteStorage(self.folder, self._carried))
            stack.pop_all()
        reading.retry_s = RETRY_S
        self._opened = (reading, PostgresDatabase(server, note), PostgresDatabase(server, note))
        return OpenLedger(*self._opened)

    def run_lock(self, name: str, run: str) -> RunLock:
        """Return a lock of the connection that writes: without it, that writes no more."""
        return SessionLock(self._opened[-1], name, run)

    def hurry_after(self, is_stopping: Callable[[], bool], is_over: threading.Event) -> None:
        """Look in a thread: the one that waits may be the loop's."""
        work = partial(give_up_when_away, self._opened, is_stopping, is_over)
        threading.Thread(target=work, daemon=True).start()

    def doubt(self) -> str:
        return ""

    def refuse_unwritable(self) -> None:
        """Do nothing: the server answered."""


def give_up_when_away(
    databases: Sequence[PostgresDatabase], is_stopping: Callable[[], bool], is_over: threading.Event
) -> None:
    """Break what waits for a server that answers no one, once a run is to end: a person waits.

    A server that stands still, as with its virtual machine, breaks no connection.
    """
    while databases and not is_over.wait(LOOK_S):
        if not is_stopping():
            continue
        try:
            psycopg.connect(databases[0].server.url, connect_timeout=END_S).close()
        except psycopg.Error as error:
            if is_transient_error(error):
                for database in databases:
                    database.give_up()
                return
        is_over.wait(END_S)


def _take_lock(
    connection: psycopg.Connection[Any],
    name: str,
    mark: str,
    session: str,
    *,
    is_again: bool = False,
) -> tuple[bool, str]:
    """Return whether the lock is ours now, and the mark of who had it until then."""
    values = {"name": name, "mark": mark, "session": session}
    ((is_ours,),) = _execute(
        connection, "select pg_try_advisory_lock(hashtextextended(:name, 0))", values
    )
    found = _execute(connection, "select value from meta where name = :name", values)
    if is_ours:
        _execute(connection, "select set_config('application_name', :session, false)", values)
    if is_ours and not is_again:
        meta = {(name,): {"name": name, "value": mark}}
        _write(connection, {"meta": meta})
    return is_ours, str(found[0][0]) if found else ""


def _holds_lock(connection: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    """Return whether a session holds a lock against a transaction of another one."""
    key = secrets.randbits(62)  # in the statement: none is executed again, and so none is prepared
    unlock = f"pg_advisory_unlock({key})"
    _execute(connection, f"select pg_advisory_lock({key})", {})
    with other.transaction():
        if _execute(other, f"select pg_try_advisory_lock({key})", {})[0][0]:
            _execute(other, f"select {unlock}, {unlock}", {})
            return False
        return bool(_execute(connection, f"select {unlock}", {})[0][0])


def _execute(
    connection: psycopg.Connection[Any], query: str, values: Mapping[str, Any]
) -> Sequence[Sequence[Any]]:
    cursor = connection.execute(psycopg_query(query).encode(), values)
    return cursor.fetchall() if cursor.description else ()


_FOREIGN_TABLES = """
select c.relname from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = :schema and c.relkind not in ('i', 't') and (c.relkind <> 'r'
or c.relowner <> n.nspowner or c.relhasrules or c.relhastriggers or c.relrowsecurity)
"""


def refuse_foreign_tables(execute: Execute, schema: str, url: str) -> None:
    """Refuse a schema that has more than plain tables of its owner.

    Raises:
        LedgerError: a view, a rule, a trigger, or a table of another user is in it.
    """
    for (name,) in execute(_FOREIGN_TABLES, {"schema": schema}):
        raise LedgerError(
            f"{database_name(url)}: '{name}' in the schema '{schema}' is no plain table of the "
            f"schema's owner, so the ledger is not used. Remove it, or drop the schema."
        )


def _has_tables(connection: psycopg.Connection[Any], server: PostgresServer) -> bool:
    refuse_foreign_tables(partial(_execute, connection), server.schema, server.url)
    values = {"name": f"{server.schema}.meta"}
    if not _execute(connection, "select 1 where to_regclass(:name) is not null", values):
        return False
    facts = _execute(connection, VERSION_FACTS, {})
    if server.carried is not None and _is_version_before(facts):
        _carry_over(connection, server, server.carried)
        facts = _execute(connection, VERSION_FACTS, {})
    remedy = "Use the same Paddock on all machines."
    return check_version(database_name(server.url), facts, remedy)


def _is_version_before(facts: Sequence[Sequence[Any]]) -> bool:
    return ("version", str(BEFORE)) in [tuple(row) for row in facts]


def _carry_over(
    connection: psycopg.Connection[Any], server: PostgresServer, carried: CarriedRows
) -> None:
    """Rename the schema of the version before, and make this version's from what it knows.

    Raises:
        LedgerError: a run of the older version is at work.
    """
    execute = partial(_execute, connection)
    before = f"{server.schema}_{BEFORE}"

    def path(schema: str) -> None:
        execute("select set_config('search_path', :path, false)", {"path": f'"{schema}", pg_temp'})

    def select(query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        path(before)
        found = execute(query, values)
        path(server.schema)
        return found

    with connection.transaction():
        execute("select pg_advisory_xact_lock(hashtext(:name))", {"name": server.schema})
        if not _is_version_before(execute(VERSION_FACTS, {})):
            return  # another machine did it
        for (run,) in execute("select run from runs where status = 'running'", {}):
            if execute(_HAS_SESSION, {"name": f"paddock {run}"[:63]}):
                raise LedgerError(
                    f"{database_name(server.url)}: run '{run}' of an older Paddock works on this "
                    f"folder. Wait until it has ended; then its ledger is carried over."
                )
        names = sql.Identifier(server.schema), sql.Identifier(before)
        connection.execute(sql.SQL("alter schema {} rename to {}").format(*names))
        _make_tables(connection, server.schema, None)
        for pending in carried(select):
            _write(connection, pending)


def _make_tables(
    connection: psycopg.Connection[Any], schema: str, file: SqliteDatabase | None
) -> None:
    """Make the tables; they begin with the rows of a file, which is closed then."""
    connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
    for statement in create_statements():
        connection.execute(statement.encode())
    if file is not None:
        with closing(file):
            for pending in file.lasting_rows():
                _write(connection, pending)
    facts = {**made_facts(), "made": str(time.time())}
    meta = {(name,): {"name": name, "value": value} for name, value in facts.items()}
    _write(connection, {"meta": meta})


def _write(connection: psycopg.Connection[Any], pending: Pending) -> None:
    # Not by `executemany`: it sends a pipeline, and while the server waits for the rest of one
    # from a machine that has stopped, it does not end the idle transaction.
    with connection.transaction():
        for statement, values in write_statements(pending, "%s"):
            # Its texts cannot hold the character NUL.
            cleaned = [v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in values]
            connection.execute(statement.encode(), cleaned)


def psycopg_query(query: str) -> str:
    """Return a query with named values in the form of psycopg.

    >>> psycopg_query("select 1 where :me = any(:keys::text[])")
    'select 1 where %(me)s = any(%(keys)s::text[])'
    """
    return _NAMED_VALUE.sub(r"%(\1)s", query)
