"""Tables of databases in which items have rows, beside those of others.

Each row that a step writes has a stamp in the column `paddock_item`: owner, step, digest and number
of the rows that were written together. They are replaced and removed together, in one transaction;
a row without such a stamp is never touched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from paddock.engine.system.records import Struct, field
from paddock.engine.system.tasks import run_to_end
from paddock.engine.system.text import cell_text, counted, one_line, sql_name
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import ItemName, StepError
from paddock.steps.databases import Database
from paddock.steps.item_rows import ItemRows, RowSum

from .column_types import ColumnType, type_of_value, typed_value
from .database import JSON, SERVERS, PostgresAccount
from .database_sqlite import SqliteFile

T = TypeVar("T")
OWN_COLUMN = "paddock_item"
NEEDS_PSYCOPG = (
    "PostgreSQL needs psycopg, which is not installed.",
    "Install it: pip install 'paddock-llm[postgres]'.",
)
_MOST_CHARS = 60


class TableRows(Struct, eq=False):
    """The rows of this ledger's items in a table."""

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


def server_of(account: PostgresAccount) -> Database:
    """Return a database that connects at its first use.

    Raises:
        StepError: psycopg is not installed.
    """
    try:
        module = import_module(".database_postgres", __package__)
    except ImportError as error:
        raise StepError(NEEDS_PSYCOPG[0], remedy=NEEDS_PSYCOPG[1], kind="missing") from error
    server: Database = module.PostgresTables(account)
    return server


class DatabaseTables(ItemRows):
    """Tables in which items have rows, by the paths under which the ledger knows them."""

    def __init__(
        self,
        identity: Callable[[], str],
        recorded: Callable[[Path], Mapping[str, RowSum]],
        *,
        is_run: bool,
    ) -> None:
        """`recorded` returns what the ledger knows of a table, by owner; runs ask servers, too."""
        self._read_identity, self._recorded, self._is_run = identity, recorded, is_run
        self._databases: dict[Path, Database] = {}
        self._tables: dict[Path, TableRows] = {}

    @cached_property
    def _identity(self) -> str:
        return self._read_identity()

    def has(self, path: Path) -> bool:
        return path in self._tables or path.is_relative_to(SERVERS) or path.parent.is_file()

    def add(self, database: Database) -> None:
        known = self._databases.setdefault(database.place, database)
        if isinstance(known.account, PostgresAccount) and known.account != database.account:
            what = f"another step writes there as '{known.account.user}', by another account."
            raise StepError(f"{database.name}: {what}", remedy="Let both have the same.")

    def open(self, database: Database, table: str) -> Path:
        """Return the path under which the ledger knows a table.

        Raises:
            StepError: another account is used there.
        """
        self.add(database)
        path = database.place / table
        self.at(path)
        return path

    async def replace(self, path: Path, item: ItemName, rows: TypedRows) -> bool:
        """Replace a step's rows of an item in one transaction; return whether they were others."""
        owner, former = self.owner(item, path), self._owner_named(item.former)
        return await self.at(path).replace(owner, former, item.step, rows)

    async def probe(self, path: Path) -> None:
        with suppress(StepError):  # what was recorded stands; a step that writes reports it
            await self.at(path).renew()

    def holds(self, path: Path, owner: str) -> RowSum:
        try:
            sums = self.at(path).sums
        except StepError:  # no step names its account
            sums = self._recorded(path)
        return sums.get(owner, RowSum())

    def owner(self, item: ItemName, path: Path) -> str:
        return self._owner_named(item.owner or item.key)

    def _owner_named(self, name: str) -> str:
        return hashlib.sha256(f"{self._identity}\n{name}".encode()).hexdigest()[:32]

    async def keep_only(self, path: Path, item: ItemName) -> None:
        await self.at(path).keep_only(self.owner(item, path))

    async def remove_items(self, path: Path, items: Iterable[ItemName]) -> int:
        owners = [self.owner(item, path) for item in items]
        return await self.at(path).drop(owners) if owners else 0

    def at(self, path: Path) -> TableRows:
        """Return a table; raise `StepError` where no step names its server's account."""
        if path not in self._tables:
            is_server = path.is_relative_to(SERVERS)
            if is_server and path.parent not in self._databases:
                shown = path.parent.relative_to(SERVERS)
                what = f"no step names an account at '{shown}' any more"
                raise StepError(f"{what}.", remedy=f"Rows of ours have `{OWN_COLUMN}`.", kind="io")
            if path.parent not in self._databases:
                self._databases[path.parent] = SqliteFile(path.parent)
            self._tables[path] = TableRows(
                self._databases[path.parent],
                path.name,
                partial(self._recorded, path),
                is_asked=self._is_run or not is_server,
            )
        return self._tables[path]

    def close(self) -> None:
        for database in self._databases.values():
            database.close()
