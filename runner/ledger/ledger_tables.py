"""The ledger's tables, and how they are made in an SQLite file.

The only user of SQLAlchemy Core besides `postgres_writer`, which makes the same tables in
PostgreSQL.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    select,
)
from sqlalchemy.exc import DatabaseError

from paddock.engine.system import files

from .entries import BUSY_TIMEOUT_S, VERSION, newer_version_error, read_error

METADATA = MetaData()


meta = Table(
    "meta",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "runs",
    METADATA,
    Column("run", Text, primary_key=True),
    Column("pipeline", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("started", Float, nullable=False),
    Column("ended", Float),
    Column("status", Text, nullable=False),
    Column("summary", Text),
    Column("trigger", Text, nullable=False, server_default="hand"),
    Column("host", Text),
    Column("pid", Integer),
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("message", Text),
    Column("parent", Text),
    Column("given", Text),
)

scopes = Table(
    "scopes",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("file", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("inputs", Text, nullable=False),
)

items = Table(
    "items",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("parts", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("error", Text),
    Column("returns", Text),
    Column("returns_object", Text),
    Column("reads", Text),
    Column("outputs", Text),
    Column("has_inner_failures", Boolean, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("run", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("gone", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("was", Text),
    sqlite_with_rowid=False,
)

calls = Table(
    "calls",
    METADATA,
    Column("hash", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("served_digest", Text, nullable=False),
    Column("request", Text),
    Column("request_object", Text),
    Column("reply", Text),
    Column("reply_object", Text),
    Column("done_reason", Text),
    Column("usage", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("run", Text, nullable=False),
    Column("at", Float, nullable=False),
)

outputs = Table(
    "outputs",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("sha256", Text),
    Column("intended", Text, nullable=False),
    Column("size", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("run", Text, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)

provenance = Table(
    "provenance",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("run", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("spec", Text),
    Column("source", Text),
    Column("made", Text),
    Column("made_object", Text),
    sqlite_with_rowid=False,
)

specs = Table(
    "specs",
    METADATA,
    Column("spec", Text, primary_key=True),
    Column("text", Text, nullable=False),
)

stored = Table(
    "stored",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("n_rows", Integer, nullable=False),
    Column("run", Text, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)

watched = Table(
    "watched",
    METADATA,
    Column("watch", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("run", Text, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)

roots = Table(
    "roots",
    METADATA,
    Column("owner", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("host", Text, primary_key=True),
    Column("folder", Text, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)

claims = Table(
    "claims",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_with_rowid=False,
)

holders = Table(
    "holders",
    METADATA,
    Column("holder", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("run", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("seen", Float, nullable=False),
)

attempts = Table(
    "attempts",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("run", Text, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("around_scope", Text),
    Column("around_key", Text),
    sqlite_with_rowid=False,
)

Migration = Callable[[Connection], None]


def _to_2(connection: Connection) -> None:
    """Add what unattended runs need: attempts, who began a run and where, what watches saw."""
    for statement in (
        "alter table items add column attempts integer not null default 0",
        "alter table items add column was text",
        "alter table runs add column trigger text not null default 'hand'",
        "alter table runs add column host text",
        "alter table runs add column pid integer",
        "alter table runs add column attempt integer not null default 1",
        "alter table runs add column message text",
        "alter table runs add column parent text",
    ):
        connection.exec_driver_sql(statement)
    for table in (watched, claims, holders):
        table.create(connection)


def _to_3(connection: Connection) -> None:
    """Add where outputs came from: calls, steps and spec of each item; what a run was given."""
    connection.exec_driver_sql("alter table runs add column given text")
    for table in (provenance, specs, stored):
        table.create(connection)


def _to_4(connection: Connection) -> None:
    """Add which items each run has begun and not ended, and which folders documents were in."""
    for table in (attempts, roots):
        table.create(connection)


MIGRATIONS: Mapping[int, Migration] = {1: _to_2, 2: _to_3, 3: _to_4}
"""From which version → what brings it to the next one."""


TABLES: Mapping[str, Table] = METADATA.tables


def make_tables(file: Path) -> None:
    """Make the tables in a file, or change older ones; nobody else may be at it.

    Raises:
        LedgerError: it was written by a newer Paddock, or it is no ledger.
    """
    engine = sqlite_engine(file)
    try:
        prepare_tables(engine, file)
    finally:
        engine.dispose()


def sqlite_engine(file: Path) -> Engine:
    """Return an engine whose connections wait for one another and survive a kill."""
    engine = create_engine(
        f"sqlite:///{file}", connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S}
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: object, _record: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    return engine


def prepare_tables(
    engine: Engine, file: Path, migrations: Mapping[int, Migration] = MIGRATIONS
) -> None:
    """Make the tables, or bring an older ledger up to date after a copy beside it.

    Raises:
        LedgerError: it was written by a newer Paddock, or it is no ledger.
    """
    try:
        with engine.connect() as connection:
            found = _version(connection)
        if found is None:
            _create(engine)
        elif found > VERSION:
            raise newer_version_error(file, found, VERSION)
        elif found < VERSION:
            _migrate(engine, file, found, migrations)
    except DatabaseError as error:
        raise read_error(file, error.orig) from error


def _version(connection: Connection) -> int | None:
    if not inspect(connection).has_table("meta"):
        return None
    value = connection.execute(select(meta.c.value).where(meta.c.name == "version")).scalar()
    return None if value is None else int(value)


def _create(engine: Engine) -> None:
    with engine.begin() as connection:
        METADATA.create_all(connection)
        connection.execute(meta.insert(), {"name": "version", "value": str(VERSION)})


def _migrate(engine: Engine, file: Path, found: int, migrations: Mapping[int, Migration]) -> None:
    _copy(file, file.with_name(f"{file.name}.v{found}"))
    with engine.begin() as connection:
        # Said aloud, since Python begins no transaction for `alter table`: all of it or nothing.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        for version in range(found, VERSION):
            migrations[version](connection)
        connection.execute(meta.update().where(meta.c.name == "version").values(value=str(VERSION)))


def _copy(file: Path, copy: Path) -> None:
    """Copy a ledger that others may be writing to; what lies at `copy` is always a whole one."""
    aside = copy.with_name(f".{copy.name}.part")
    aside.unlink(missing_ok=True)
    files.private_database(aside)
    with (
        contextlib.closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT_S)) as source,
        contextlib.closing(sqlite3.connect(aside)) as target,
    ):
        source.backup(target)
    aside.replace(copy)
