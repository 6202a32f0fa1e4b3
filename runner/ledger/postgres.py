"""PostgreSQL connections of the ledger: retry when they break, read rows, explain errors.

The only importer of psycopg besides `postgres_writer` and `coordination`. Imports no SQLAlchemy,
since `plan` only reads. Each folder of pipelines has a schema of its own.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from .entries import VERSION, LedgerError, newer_version_error

OLDEST = 13
"""The oldest PostgreSQL that its makers supported when this was written, less one."""

RETRY_S = 60.0
"""A server that restarts or a cable that is put back is waited for so long."""

OPEN_S = 5.0
"""At the start a person waits: a wrong address is told soon."""

PAUSE_S = 0.25
MOST_PAUSE_S = 4.0

# A peer that died without a word is noticed within about 20 s, not after the kernel's two hours.
_KEPT_ALIVE = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    "application_name": "paddock",
}

# What a machine holds that sleeps or lost its cable in the middle of a transaction is let go.
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

# SQLSTATEs with which a server says that it, not what was asked of it, is the reason: it shuts
# down or starts up (57P01 to 57P05), has too many connections, thought us asleep (25P03); or two
# transactions met.
_TRANSIENT_CODES = ("08", "57P", "53300", "40001", "40P01", "25P03")
_TRANSIENT_WORDS = (
    "is starting up", "is shutting down", "in recovery mode", "not yet accepting", "too many",
    "remaining connection slots", "terminating connection",
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A database, and the schema of one folder in it."""

    url: str
    schema: str

    @property
    def place(self) -> str:
        """Name the database for people, without a password."""
        return database_name(self.url)

    def connect(self) -> psycopg.Connection[Any]:
        """Connect, each statement a transaction of its own.

        Raises:
            psycopg.Error: it cannot be reached; see `connection_error`.
        """
        connection = psycopg.connect(self.url, autocommit=True, **_default_parameters(self.url))
        try:
            path = sql.SQL("set search_path to {}").format(sql.Identifier(self.schema))
            connection.execute(path)
            connection.execute(_SESSION_SETTINGS)
        except BaseException:
            connection.close()
            raise
        return connection


def postgres_server(url: str, identity: str) -> PostgresServer:
    """Name the database of a folder with this identity.

    Raises:
        LedgerError: the URL is of another kind.
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
    return PostgresServer(url, f"paddock_{identity}")


def database_name(url: str) -> str:
    """Name a database for people, without a password.

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
    """Return what a URL says; None where it does not say what its author meant.

    A character of a password that should be written as %40, say, cuts it at another place: then
    part of the password stands where the host should, and must not be shown.
    """
    try:
        parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        return None
    places = "".join(str(parts.get(name) or "") for name in ("host", "hostaddr", "dbname"))
    is_whole = "@" not in places and re.fullmatch(r"[\d,]*", str(parts.get("port") or ""))
    return parts if is_whole else None


def database_host(url: str) -> str:
    """Return the host that a URL names, empty for this machine's socket."""
    parts = psycopg.conninfo.conninfo_to_dict(url)
    return str(parts.get("host") or parts.get("hostaddr") or "")


def is_transient_error(error: BaseException) -> bool:
    """Return whether the same may succeed later: the connection broke, or two transactions met."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is not None:
        return error.sqlstate.startswith(_TRANSIENT_CODES)
    # Said by the client's own library, which has no numbers: the socket is gone, or the server
    # would not have us ("FATAL": a wrong password, an unknown database), which stays so.
    said = str(error)
    if "FATAL:" in said:
        return any(words in said for words in _TRANSIENT_WORDS)
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))


def connection_error(url: str, error: psycopg.Error) -> LedgerError:
    """Say in plain words why the ledger cannot be used, and what to do."""
    place = database_name(url)
    said = " ".join(str(error).split())
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return _no_rights(url, said)
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return LedgerError(
            f"{place} takes no writes ({said}): it is a standby. "
            f"Name the primary server in the setting 'ledger'."
        )
    if error.sqlstate is None or error.sqlstate.startswith(("08", "57P", "28", "3D")):
        return LedgerError(
            f"{place} cannot be reached ({said}). Start it, or correct the setting 'ledger' "
            f"(PADDOCK_LEDGER). What the ledger says is done is done."
        )
    return LedgerError(
        f"{place}: the ledger cannot be used ({said}). What it says is done is done: "
        f"mend that, then run the same command again."
    )


def _no_rights(url: str, said: str) -> LedgerError:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    user = parts.get("user") or "paddock"
    name = parts.get("dbname") or user
    return LedgerError(
        f"{database_name(url)} does not let '{user}' make or use the ledger's tables ({said}). "
        f'Have its owner say: grant create on database "{name}" to "{user}"; '
        f"where another user made the tables, let all machines use that one."
    )


def check_server(connection: psycopg.Connection[Any], url: str) -> None:
    """Refuse a server that the ledger cannot live on.

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


def retry_broken_connection(
    action: Callable[[], T],
    *,
    url: str,
    again: Callable[[], None],
    tell: Callable[[str], None] | None = None,
    retry_s: float = RETRY_S,
) -> T:
    """Do something whose connection may break: `again` lets the old one go, then once more.

    Blocks; belongs into a thread.

    Raises:
        LedgerError: it did not succeed within `retry_s`, or would never.
    """
    deadline = time.monotonic() + retry_s
    pause_s = PAUSE_S
    while True:
        try:
            return action()
        except psycopg.Error as error:
            again()
            if not is_transient_error(error) or time.monotonic() + pause_s > deadline:
                raise connection_error(url, error) from error
            if tell is not None and pause_s > PAUSE_S:
                tell(f"{database_name(url)} went away; waiting for it")
        time.sleep(pause_s)
        pause_s = min(MOST_PAUSE_S, 2 * pause_s)


class PostgresConnection:
    """One connection, made on first use and anew where it broke. Any thread, one at a time."""

    def __init__(
        self,
        server: PostgresServer,
        tell: Callable[[str], None] | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self.server = server
        self._tell = tell
        self._retry_s = retry_s
        self._is_lost = False
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Return the rows of a query with named values (`:name`); a statement may give none.

        Raises:
            LedgerError: the server did not answer within the bound, or refuses.
        """
        asked = psycopg_query(query)

        def ask() -> Sequence[Sequence[Any]]:
            if self._connection is None:
                self._connection = self.server.connect()
            cursor = self._connection.execute(asked, values)
            return cursor.fetchall() if cursor.description else ()

        return self._lasting(ask)

    def within(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """Do something in one transaction, as a whole again where the connection broke.

        Raises:
            LedgerError: the server did not answer within the bound, or refuses.
        """

        def once() -> T:
            if self._connection is None:
                self._connection = self.server.connect()
            with self._connection.transaction():
                return work(self._connection)

        return self._lasting(once)

    def _lasting(self, action: Callable[[], T]) -> T:
        with self._lock:
            # Whoever comes after one that has waited in vain does not wait as long once more.
            retry_s = 0.0 if self._is_lost else self._retry_s
            self._is_lost = True
            done = retry_broken_connection(
                action,
                url=self.server.url,
                again=self._let_go,
                tell=self._tell,
                retry_s=retry_s,
            )
            self._is_lost = False
            return done

    def hurry(self, retry_s: float = 0.0) -> None:
        """Wait no longer than this for a server that is away; a process that ends, not at all."""
        self._retry_s = retry_s

    def close(self) -> None:
        """Let the connection go."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresReader(PostgresConnection):
    """Implements `paddock.runner.ledger.entries.LedgerReader` over a schema."""

    def version(self) -> int | None:
        """Return the version of the tables, None where there are none.

        Raises:
            LedgerError: a newer Paddock made them; the server cannot be used.
        """
        made = "select to_regclass(:name) is not null"
        if not self.rows(made, {"name": f"{self.server.schema}.meta"})[0][0]:
            return None
        row = self.rows("select value from meta where name = 'version'", {})
        found = int(row[0][0])
        if found > VERSION:
            self.close()
            raise newer_version_error(self.server.place, found, VERSION, " on this machine")
        return found


def psycopg_query(query: str) -> str:
    """Write a query with named values as psycopg has it.

    >>> psycopg_query("select 1 where :me = any(:keys::text[])")
    'select 1 where %(me)s = any(%(keys)s::text[])'
    """
    return _NAME.sub(r"%(\1)s", query)


_NAME = re.compile(r"(?<!:):([a-z_]+)\b")  # not the `::` of a cast


def _default_parameters(url: str) -> dict[str, Any]:
    """Return what the URL does not say itself."""
    said = psycopg.conninfo.conninfo_to_dict(url)
    return {name: value for name, value in _KEPT_ALIVE.items() if name not in said}
