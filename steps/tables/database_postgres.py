"""A database of PostgreSQL for rows: a connection with deadlines, in UTC. Knows psycopg."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from paddock.engine.system.hosts import is_loopback
from paddock.engine.system.text import one_line, sql_name
from paddock.steps.base import StepError
from paddock.steps.databases import Database

from .column_types import MOST_DIGITS, ColumnType
from .database import JSON, SERVERS, PostgresAccount

_CONNECTION: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
    "application_name": "paddock",
    # A time without a zone is in UTC, as in rows. Nothing waits for ever.
    "options": "-c timezone=UTC -c statement_timeout=60s -c lock_timeout=20s "
    "-c idle_in_transaction_session_timeout=30s",
}
_TYPES: Mapping[str, ColumnType] = {
    "smallint": "int", "integer": "int", "bigint": "int", "real": "float",
    "double precision": "float", "boolean": "bool", "date": "date", "text": "str",
    "numeric": "decimal", "json": JSON, "jsonb": JSON,
}  # fmt: skip
_BEGINNINGS: Mapping[str, ColumnType] = {
    "character": "str",
    "timestamp": "datetime",
    "time": "time",
}
_COLUMNS = """
select a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute a
where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
and a.attgenerated = '' order by a.attnum
"""


class PostgresTables(Database):
    """One connection, which is opened again when it broke."""

    mark, beginning = "%s", "like %"
    sql_types: Mapping[ColumnType, str] = {
        "int": "bigint", "float": "double precision", "bool": "boolean", "date": "date",
        "time": "time", "datetime": "timestamptz", "decimal": "numeric",
    }  # fmt: skip

    def __init__(self, account: PostgresAccount) -> None:
        self.account = account
        self.place = SERVERS / f"{account.host.strip('/')}:{account.port}" / account.database
        self.name = f"'{account.database}' at {account.host}"
        self.turn = asyncio.Lock()
        self._open: psycopg.Connection[Any] | None = None

    def columns(self, table: str) -> Mapping[str, ColumnType]:
        found = self.execute(_COLUMNS, [".".join(sql_name(part) for part in table.split("."))])
        return {str(name): _type_of(str(declared)) for name, declared in found}

    def value(self, value: Any, kind: ColumnType) -> Any:
        if value is not None and (kind == JSON or isinstance(value, dict)):
            return json.dumps(value, ensure_ascii=False)
        return value

    def execute(self, query: str, *rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
        with self._errors():
            cursor = self._connection().cursor()
            if len(rows) > 1:
                cursor.executemany(query.encode(), rows)
                return ()
            cursor.execute(query.encode(), *(rows or [()]))
            return cursor.fetchall() if cursor.description else ()

    def undo(self) -> None:
        if self._open is not None:
            with suppress(psycopg.Error):  # it broke, which undoes it
                self._open.rollback()

    def close(self) -> None:
        if self._open is not None:
            with suppress(psycopg.Error):
                self._open.close()
            self._open = None

    def _connection(self) -> psycopg.Connection[Any]:
        if self._open is None or self._open.closed:
            account, options = self.account, dict(_CONNECTION)
            if account.tls == "on":
                options |= {"sslmode": "verify-full"}
                options["sslrootcert"] = os.environ.get("SSL_CERT_FILE") or "system"
            elif not (is_loopback(account.host) or account.host.startswith("/")):
                what = f"{self.name} is elsewhere, and would see the password."
                raise StepError(what, remedy="Remove `tls: off`.")
            self._open = psycopg.connect(
                host=account.host,
                port=account.port,
                dbname=account.database,
                user=account.user,
                password=account.password or "",
                autocommit=True,
                **options,
            )
        return self._open

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            is_broken = self._open is None or self._open.broken
            if is_broken:
                self.close()
                what, remedy = "cannot be used", "Start it, or correct `postgres`; SSL_CERT_FILE "
                remedy += "names authorities of your own. The next run tries again."
            else:
                what, remedy = "refuses", ""
            diag = error.diag
            why = one_line(f"{diag.message_primary or error} {diag.message_detail or ''}")
            text = f"{self.name} {what}: {why.rstrip('.')}."
            raise StepError(text, remedy=remedy, kind="io") from error


def _type_of(declared: str) -> ColumnType:
    """Return the type of a column; empty: PostgreSQL converts its values."""
    if found := re.fullmatch(r"numeric\((\d+),(\d+)\)", declared):
        return f"decimal({found[1]},{found[2]})" if int(found[1]) <= MOST_DIGITS else "decimal"
    beginnings = (kind for name, kind in _BEGINNINGS.items() if declared.startswith(name))
    return _TYPES.get(declared) or next(beginnings, "")
