"""The step `database.write`: an item's rows in SQLite or PostgreSQL, beside those of others.

Each row that a step writes has a stamp in the column `paddock_item`: owner, step, digest and number
of the rows that were written together. They are replaced and removed together, in one transaction;
a row without such a stamp is never touched.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, time
from decimal import Decimal
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import Field

from paddock.engine.system.records import Struct, field
from paddock.engine.system.tasks import run_to_end
from paddock.engine.system.text import cell_text, counted, one_line, sql_name
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import ItemName, Output, Params, Step, StepError, Tools
from paddock.steps.facts import Facts, Missing, TextFacts, Use, Written, brings_none
from paddock.steps.paths import printable, resolve_path
from paddock.steps.row_sum import RowSum

from .column_types import ColumnType, declared_type, plain_decimal, type_of_value, typed_value

Database: TypeAlias = Any
"""A `SqliteFile`, or a `PostgresTables`, whose module knows this one."""
T = TypeVar("T")
OWN_COLUMN, JSON = "paddock_item", "json"
SERVERS = Path("/postgresql:")
"""Below it the ledger knows tables of servers, as if they were files."""
NEEDS_PSYCOPG = (
    "PostgreSQL needs psycopg, which is not installed.",
    "Install it: pip install 'paddock-llm[postgres]'.",
)
_BUSY_S = 10.0
_MOST_CHARS = 60


class PostgresAccount(Params):
    """An account of a PostgreSQL server."""

    host: str = Field(min_length=1, description="The server, or the folder of its socket.")
    port: int = Field(default=5432, ge=1, le=65_535, description="Of the server.")
    database: str = Field(min_length=1, pattern=r"^[^/]+$", description="On the server.")
    user: str = Field(min_length=1, description="Who writes.")
    password: str | None = Field(default=None, description="By a secret.")
    tls: Literal["on", "off"] = Field(
        default="on", description="`off` only where the server is on this machine."
    )


class SqliteFile:
    """A file that is there. `PostgresTables` has the same methods; errors are `StepError`."""

    mark, beginning = "?", "glob *"  # how a statement compares with a pattern, by an index
    sql_types: Mapping[ColumnType, str] = {
        "int": "integer", "float": "real", "bool": "boolean", "date": "date", "time": "time",
        "datetime": "datetime", "decimal": "decimal(18,2)",
    }  # fmt: skip

    def __init__(self, path: Path) -> None:
        self.place, self.name, self.turn = path, f"'{printable(path.name)}'", asyncio.Lock()
        self._open: sqlite3.Connection | None = None

    def columns(self, table: str) -> Mapping[str, ColumnType]:
        """Return the type of each column that takes values; empty: there is no such table."""
        found = self.execute(f"pragma table_xinfo({sql_name(table.removeprefix('main.'))})")
        return {str(row[1]): declared_type(str(row[2])) for row in found if not row[6]}

    def value(self, value: Any, kind: ColumnType) -> Any:
        is_rounded = isinstance(value, int) and not -(2**63) <= value < 2**63
        if isinstance(value, Decimal):
            is_rounded = isinstance(value := plain_decimal(value), str)
        if is_rounded:
            raise ValueError(value)
        if isinstance(value, date | time):
            return value.isoformat()
        return cell_text(value) if isinstance(value, list | dict) else value

    def execute(self, query: str, *rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
        with self._errors():
            connection = self._connection()
            made = connection.executemany(query, rows) if rows else connection.execute(query)
            return made.fetchall()

    def undo(self) -> None:
        if self._open is not None and self._open.in_transaction:
            self._open.rollback()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            uri = f"{self.place.as_uri()}?mode=rw"  # it is never made here
            options: dict[str, Any] = {"timeout": _BUSY_S, "isolation_level": None}
            self._open = sqlite3.connect(uri, uri=True, check_same_thread=False, **options)
            self._open.execute("pragma trusted_schema=off")
        return self._open

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            what, remedy = f"refuses: {one_line(str(error))}", ""
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_CANTOPEN and not self.place.exists():
                what, remedy = "is not there", f"Make it: `sqlite3 {self.place.name}`."
            elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                what, remedy = "is being written by another program", "The next run tries again."
            raise StepError(f"{self.name} {what}.", remedy=remedy, kind="io") from error
        except (UnicodeError, OverflowError) as error:
            raise StepError(f"{self.name} cannot hold a value: {error}.") from error


class TableRows(Struct, eq=False):
    """The rows of this ledger's items in a table; what `OpenStores` asks of a store."""

    database: Database
    table: str
    recorded: Callable[[], Mapping[str, RowSum]]
    """What the ledger knows of them, where the database does not answer."""
    is_asked: bool = True
    """False: of a server in a plan."""
    _columns: Mapping[str, ColumnType] = field(default_factory=dict)
    _stamps: dict[str, dict[str, RowSum]] | None = None
    """By owner and step, as far as the database was asked; a number of rows that is not as the
    stamp says makes another sum."""
    _kept: dict[str, set[str]] = field(default_factory=dict)
    """By owner, the steps that wrote in this run."""

    @property
    def sums(self) -> Mapping[str, RowSum]:
        if self._stamps is None:
            return self.recorded()
        return {own: sum(steps.values(), RowSum()) for own, steps in self._stamps.items() if steps}

    async def renew(self) -> None:
        """Read what the table has; where the database does not answer, what was recorded stands."""
        if self.is_asked and self._stamps is None:
            await self._in_turn(self._read)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        async with self.database.turn:
            return await run_to_end(work)

    async def replace(self, owner: str, former: str, step: str, rows: TypedRows) -> bool:
        """Replace a step's rows of an item in one transaction; return whether they were others.

        `former`: who wrote them before the item was renamed.
        """
        return await self._in_turn(lambda: self._replace(owner, former, step, rows))

    async def drop(self, owners: Sequence[str]) -> int:
        return await self._in_turn(lambda: self._drop(owners))

    async def keep_only(self, owner: str) -> None:
        """Drop rows of an owner's steps that no longer write to this table."""
        kept = self._kept.get(owner, set())
        await self._in_turn(lambda: self._drop([owner], but=kept))

    # --- in a thread

    def _read(self) -> dict[str, dict[str, RowSum]]:
        self._columns = columns = self.database.columns(self.table)
        found: dict[str, dict[str, RowSum]] = {}
        if OWN_COLUMN in columns:
            query = f"select {OWN_COLUMN}, count(*) from {self._name}"
            query += f" where {OWN_COLUMN} is not null group by 1"
            for stamp, n_rows in self.database.execute(query):
                owner, _, rest = str(stamp).partition("-")
                step, _, digest = rest.partition("-")
                if len(digest) == 32:
                    found.setdefault(owner, {})[step] = RowSum(int(digest, 16), n_rows)
        self._stamps = found
        return found

    def _replace(self, owner: str, former: str, step: str, rows: TypedRows) -> bool:
        known = self._read() if self._stamps is None else self._stamps
        place = hashlib.sha256(step.encode()).hexdigest()[:8]
        named, values = self._bound(rows)
        text = json.dumps([named, values], default=str)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        now = RowSum(int(digest, 16), len(values)) if values else RowSum()
        self._kept.setdefault(owner, set()).add(place)
        moved = known.get(former, {}).get(place)
        if known.get(owner, {}).get(place, RowSum()) == now and moved is None:
            return False
        stamp = f"{owner}-{place}-{digest}"
        marks = ", ".join([self.database.mark] * (1 + len(named)))
        names = ", ".join(map(self._quoted, (OWN_COLUMN, *named)))
        with self._transaction():
            for other in (owner, former):
                if place in known.get(other, {}):
                    self._delete(f"{other}-{place}-")
            if values:
                statement = f"insert into {self._name} ({names}) values ({marks})"
                self.database.execute(statement, *((stamp, *row) for row in values))
        known.get(former, {}).pop(place, None)
        known.setdefault(owner, {})[place] = now
        if not values:
            del known[owner][place]
        return True

    def _drop(self, owners: Iterable[str], but: Iterable[str] = ()) -> int:
        known = self._read() if self._stamps is None else self._stamps
        doomed = [(o, step) for o in owners for step in known.get(o, {}) if step not in but]
        if not doomed:
            return 0
        with self._transaction():
            for owner, step in doomed:
                self._delete(f"{owner}-{step}-")
        return sum(known[owner].pop(step).n_rows for owner, step in doomed)

    def _delete(self, prefix: str) -> None:
        operator, star = self.database.beginning.split()
        condition = f"{OWN_COLUMN} {operator} {self.database.mark}"
        self.database.execute(f"delete from {self._name} where {condition}", [f"{prefix}{star}"])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit at the end; whether it did is not known where the connection breaks then."""
        try:
            self.database.execute("begin")
            yield
            self.database.execute("commit")
        except BaseException:
            self._stamps = None  # they are read again
            self.database.undo()
            raise

    def _quoted(self, name: str) -> str:
        is_formatted = "%" in self.database.mark
        return sql_name(name).replace("%", "%%") if is_formatted else sql_name(name)

    @property
    def _name(self) -> str:
        return ".".join(map(self._quoted, self.table.split(".")))

    def _bound(self, rows: TypedRows) -> tuple[list[str], list[list[Any]]]:
        """Return the names of columns, and each row's values as they are bound.

        Raises:
            StepError: the table lacks a column, or a value is of another type than its column.
        """
        kept = [row for row in rows if row is not None]
        for row in kept:
            if not isinstance(row, Mapping):
                shown = one_line(cell_text(row), _MOST_CHARS)
                raise StepError(f"a row is a mapping of columns, not '{shown}'.")
        names = list(dict.fromkeys(name for row in kept for name in row))
        if OWN_COLUMN in names:
            what = f"a row has the column '{OWN_COLUMN}', which says whose a row is."
            raise StepError(what, remedy="Give it another name.")
        columns = self._columns
        if not self._columns.keys() >= {OWN_COLUMN, *names}:  # it may have been altered since
            self._columns = columns = self.database.columns(self.table)
        missing = [name for name in (OWN_COLUMN, *names) if name not in columns]
        if missing:
            raise self._lacks(missing, kept, rows.types)
        made = [list[Any]() for _ in kept]
        for name in names:
            kind = columns[name]
            for number, row in enumerate(kept):
                value = row.get(name)
                try:
                    typed = typed_value(value, kind) if kind and kind != JSON else value
                    made[number].append(self.database.value(typed, kind))
                except (ValueError, TypeError, OverflowError) as error:
                    shown = one_line(cell_text(value), _MOST_CHARS)
                    what = f"column '{name}' of '{self.table}' in {self.database.name} is of the "
                    what += f"type {kind}, and row {number + 1} has '{shown}' there."
                    remedy = "Give it another type by `alter table`, or the rows other values."
                    raise StepError(what, remedy=remedy, kind="missing") from error
        return names, made

    def _lacks(
        self, missing: Sequence[str], rows: Sequence[Mapping[str, Any]], types: Mapping[str, str]
    ) -> StepError:
        def declared(name: str) -> str:
            values = (row.get(name) for row in rows)
            found = {type_of_value(value) for value in values if value is not None}
            kind = types.get(name) or (found.pop() if len(found) == 1 else "")
            sql_type = kind if "(" in kind else self.database.sql_types.get(kind, "text")
            return f"{sql_name(name)} {sql_type}"

        name = ".".join(map(sql_name, self.table.split(".")))
        if not self._columns:
            what = f"{self.database.name} has no table '{self.table}'."
            made = f"create table {name} ({', '.join(map(declared, missing))})"
        else:
            what = f"table '{self.table}' in {self.database.name} lacks "
            what += f"{counted(len(missing), 'column')}: {', '.join(map(repr, missing))}."
            made = "; ".join(f"alter table {name} add column {declared(each)}" for each in missing)
        return StepError(what, remedy=f"Make it: `{made}`.", kind="missing")


class DatabaseTables:
    """Tables in which items have rows, by the paths under which the ledger knows them."""

    def __init__(
        self, identity: str, recorded: Callable[[Path], Mapping[str, RowSum]], *, is_run: bool
    ) -> None:
        """`recorded` returns what the ledger knows of a table, by owner; runs ask servers, too."""
        self._identity, self._recorded, self._is_run = identity, recorded, is_run
        self._databases: dict[Path, Database] = {}
        self._tables: dict[Path, TableRows] = {}

    def has(self, path: Path) -> bool:
        return path in self._tables or path.is_relative_to(SERVERS) or path.parent.is_file()

    def owner(self, item: ItemName, *, is_former: bool = False) -> str:
        name = item.former if is_former else item.owner or item.key
        return hashlib.sha256(f"{self._identity}\n{name}".encode()).hexdigest()[:32]

    def sums(self, path: Path) -> Mapping[str, RowSum]:
        try:
            return self.at(path).sums
        except StepError:  # no step names its account
            return self._recorded(path)

    async def probe_table(self, path: Path) -> None:
        with suppress(StepError):  # what was recorded stands; a step that writes reports it
            await self.at(path).renew()

    def server(self, account: PostgresAccount) -> Database:
        try:
            module = import_module(".database_postgres", __package__)
        except ImportError as error:
            raise StepError(NEEDS_PSYCOPG[0], remedy=NEEDS_PSYCOPG[1], kind="missing") from error
        found = self._known(module.PostgresTables(account))
        if found.account != account:
            what = f"another step writes there as '{found.account.user}', by another account."
            raise StepError(f"{found.name}: {what}", remedy="Let both have the same.")
        return found

    def of(self, database: Database, table: str) -> TableRows:
        return self.at(self._known(database).place / table)

    def at(self, path: Path) -> TableRows:
        """Return a table; raise `StepError` where no step names its server's account."""
        if path not in self._tables:
            is_server = path.is_relative_to(SERVERS)
            if is_server and path.parent not in self._databases:
                shown = path.parent.relative_to(SERVERS)
                what = f"no step names an account at '{shown}' any more"
                raise StepError(f"{what}.", remedy=f"Rows of ours have `{OWN_COLUMN}`.", kind="io")
            known = self._databases.get(path.parent) or self._known(SqliteFile(path.parent))
            made = TableRows(known, path.name, partial(self._recorded, path))
            made.is_asked = self._is_run or not is_server
            self._tables[path] = made
        return self._tables[path]

    def close(self) -> None:
        for database in self._databases.values():
            database.close()

    def _known(self, database: Database) -> Database:
        return self._databases.setdefault(database.place, database)


class DatabaseWriteParams(Params):
    one_of = ("sqlite", "postgres")

    sqlite: Annotated[str | None, Use.DATABASE_FILE, Use.PATHS] = Field(
        default=None, min_length=1, description="The file, which is there.", examples=["books.db"]
    )
    postgres: Annotated[PostgresAccount | None, Use.DATABASE, Use.DOORS] = Field(
        default=None, description="The account."
    )
    table: str = Field(
        min_length=1,
        pattern=r"^[^/]+$",
        description="It has a column `paddock_item`, a text.",
        examples=["bills"],
    )
    rows: Annotated[TypedRows, Use.TABLE] = Field(description="All that the item has there.")


class DatabaseWriteOutput(Output):
    table: str
    count: int
    changed: bool


def _missing(_step: str, written: Written, _folder: Path) -> Iterator[Missing]:
    if written.get("postgres") is not None and find_spec("psycopg") is None:
        yield ("postgres",), *NEEDS_PSYCOPG


class DatabaseWrite(Step[DatabaseWriteParams, DatabaseWriteOutput]):
    """Rows to a table of a database, beside those of others."""

    params = DatabaseWriteParams
    output = DatabaseWriteOutput
    facts = Facts(is_repeatable=True, texts=TextFacts(brings_none), missing=_missing)

    async def run(self, params: DatabaseWriteParams, tools: Tools) -> DatabaseWriteOutput:
        rows, item = params.rows, tools.item
        if tools.effects is None:
            tools.log.note(f"rows are not written to '{params.table}' in a test.")
            return DatabaseWriteOutput(table=params.table, count=len(rows), changed=False)
        tables = tools.effects.tables
        if params.postgres is not None:
            database: Database = tables.server(params.postgres)
        elif params.sqlite is not None:
            path = resolve_path(tools.files.roots, params.sqlite)
            tools.files.outputs.check_target(path, is_new=False)
            database = SqliteFile(path)
        else:
            raise StepError("`sqlite` is null, so it is not known where the rows go.")
        table = tables.of(database, params.table)
        await tools.files.outputs.note_rows_kept(table.database.place / table.table)
        owner, former = tables.owner(item), tables.owner(item, is_former=True)
        changed = await table.replace(owner, former, item.step, rows)
        return DatabaseWriteOutput(table=params.table, count=len(rows), changed=changed)
