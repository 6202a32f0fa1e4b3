"""Queries over tables by DuckDB in memory; and the process that checks one before a run.

A query reads its tables and nothing else: no file, network, extension, setting or catalog; it is
one statement that reads, with limits on time and memory, and gives the same rows for the same
tables. The value of each function in it depends on its arguments alone, by what DuckDB says of it.

What is constant in a query is computed as it is checked, whatever limits DuckDB has: so that is
done in a process of its own, which imports little.
"""

from __future__ import annotations

import json
import re
import resource
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import chain
from threading import Timer
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb

from paddock.engine.system.frames import FrameHead, answer_frames, pack_frame, take_pipes
from paddock.engine.system.records import Struct
from paddock.engine.system.text import one_line, same_in_sql, sql_name
from paddock.pipelines.errors import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

    from .column_types import ColumnType

_MIB = 1024**2
_BATCH_ROWS = 100_000
_SETTINGS = (
    "enable_external_access=false",
    "autoinstall_known_extensions=false",
    "autoload_known_extensions=false",
    "allow_community_extensions=false",
    "python_enable_replacements=false",
    "errors_as_json=true",
    "timezone='UTC'",
)
_TABLE_FUNCTIONS = frozenset(("range", "generate_series", "unnest", "json_each", "json_tree"))
_IMPURE = (
    "select function_name from duckdb_functions() where function_type = 'scalar' "
    "and function_name <> 'error' group by all having bool_and(stability <> 'CONSISTENT')"
)
"""Functions whose value depends on more than their arguments; of others some forms follow UTC."""
_MACROS = (
    "select function_name, list(macro_definition) from duckdb_functions() "
    "where function_type = 'macro' group by all"
)
_VIEWS = "select view_name from duckdb_views()"
_UNSAID = frozenset(
    ("current_date", "current_time", "current_timestamp", "localtime", "localtimestamp",
     "current_catalog", "current_schema", "json_serialize_plan")
)  # fmt: skip
"""Of which DuckDB does not say it: they need no brackets; and what computes another query."""
_HELD_TYPES = frozenset(
    ("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint",
     "uinteger", "ubigint", "float", "double", "decimal", "varchar", "blob", "uuid", "enum", "date",
     "time", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns",
     "timestamp with time zone", "null", "list", "array", "struct", "map")
)  # fmt: skip
"""Types whose values are the same in Arrow."""
_TYPES: Mapping[str, str] = {
    "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "str": "VARCHAR", "date": "DATE",
    "time": "TIME", "datetime": "TIMESTAMP",
}  # fmt: skip
_TEXTS = ("VARCHAR", "ENUM")
_REFS = ("BOUND_REF", "BOUND_COLUMN_REF")
CHECK_CPU_S, CHECK_MEMORY_BYTES = 4, 1024 * _MIB
"""Of the process that checks a query; a usual check takes 0.4 s, nearly all to import DuckDB."""


class QueryFault(Exception):
    """What is wrong with a query: a sentence, a remedy, and the place in characters."""

    def __init__(self, what: str, remedy: str = "", place: tuple[int, int] = (0, 0)) -> None:
        super().__init__(what)
        self.remedy = remedy
        self.start, self.length = place


class QueryLimits(Struct, frozen=True):
    timeout_s: float = 60.0
    memory_bytes: int = 512 * _MIB
    result_bytes: int = 0


def open_duckdb(path: str = ":memory:", *, memory_bytes: int = 512 * _MIB, **options: Any) -> Any:
    config: dict[str, Any] = {
        "threads": 1,
        "memory_limit": f"{memory_bytes // _MIB}MiB",
        "temp_directory": "",
    }
    connection = duckdb.connect(path, config=config, **options)
    for setting in _SETTINGS:
        connection.execute(f"set {setting}")
    return connection


def check_query(
    query: str,
    tables: Mapping[str, Mapping[str, ColumnType] | None],
    parameters: Sequence[str] = (),
) -> None:
    """Check a query against its tables as far as their columns are known, without their rows.

    `tables`: the types of their columns; None: they are not known. A column of unknown type is of
    any type.

    Raises:
        QueryFault: it cannot be run.
    """
    with closing(open_duckdb()) as connection:
        named = _check_statement(connection, query, tables.keys(), parameters)
        for name, types in tables.items():
            if types is None:
                return
            _refuse_alike(name, types)
            columns = (
                f"null{'::' + _TYPES.get(kind, kind) if kind else ''} as {sql_name(column)}"
                for column, kind in types.items()
            )
            connection.execute(f"create view {sql_name(name)} as select {', '.join(columns)}")
        connection.execute("set lock_configuration=true")
        prefix = "describe "
        with _query_errors(query, -len(prefix), QueryLimits()):
            connection.execute(prefix + query, dict.fromkeys(named))
        _refuse_mixed_types(connection, query, {})


def run_query(
    query: str, tables: Mapping[str, pa.Table], values: Mapping[str, Any], limits: QueryLimits
) -> pa.Table:
    """Return the result of a query.

    Raises:
        QueryFault: it is refused, fails, or needs more time or memory than it may have.
    """
    with closing(open_duckdb(memory_bytes=limits.memory_bytes)) as connection:
        named = _check_statement(connection, query, tables.keys(), list(values))
        for name, table in tables.items():
            if not table.num_columns:
                remedy = "Give its rows first one that has the columns: `[{'key': none}] + …`."
                raise QueryFault(f"table '{name}' has no row, so its columns are not known", remedy)
            columns = connection.from_arrow(table.slice(0, 0))
            _refuse_alike(name, table.column_names, columns.types)
            columns.create(name)  # a plan of Arrow's tables cannot be had
        _refuse_mixed_types(connection, query, values)
        for name, table in tables.items():
            connection.execute(f"drop table {sql_name(name)}")
            connection.register(name, table)
        connection.execute("set lock_configuration=true")
        with _interrupted(connection, limits), _query_errors(query, 0, limits):
            found = connection.sql(query, params={n: values[n] for n in named} or None)
            reader = with_held_types(found).to_arrow_reader(_BATCH_ROWS)
            batches = list[Any]()
            n_bytes = 0
            for batch in reader:
                n_bytes += batch.nbytes
                if n_bytes > limits.result_bytes:
                    what = f"its result has more than {limits.result_bytes // _MIB:,} MiB"
                    raise QueryFault(what, "Ask for fewer columns or rows.")
                batches.append(batch)
            result: pa.Table = reader.schema.empty_table()
            return result.from_batches(batches, reader.schema)


def with_held_types(relation: Any) -> Any:
    """Return a relation in which columns of types that Arrow has not are texts."""
    columns = (
        f"#{n}" if _is_held(kind) else f"#{n}::varchar as {sql_name(name)}"
        for n, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), 1)
    )
    is_held = all(map(_is_held, relation.types))
    return relation if is_held else relation.project(", ".join(columns))


def _fields(kind: Any) -> list[tuple[str, Any]]:
    is_nested = kind.id in ("list", "array", "struct", "map")
    return [child for child in kind.children if hasattr(child[1], "id")] if is_nested else []


def _is_held(kind: Any) -> bool:
    return kind.id.strip('"') in _HELD_TYPES and all(_is_held(of) for _, of in _fields(kind))


def _refuse_alike(table: str, names: Iterable[str], kinds: Sequence[Any] = ()) -> None:
    """Refuse a table with columns, or fields within their types, that are one name in SQL."""
    if alike := same_in_sql(names):
        what = f"table '{table}' has '{alike[0]}' and '{alike[1]}', which are one name in SQL"
        raise QueryFault(what, "Rename one of them.")
    for fields in map(_fields, kinds):
        _refuse_alike(table, [name for name, _ in fields], [kind for _, kind in fields])


@contextmanager
def _interrupted(connection: Any, limits: QueryLimits) -> Iterator[None]:
    timer = Timer(limits.timeout_s, connection.interrupt)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_statement(
    connection: Any, query: str, tables: Collection[str], parameters: Sequence[str]
) -> frozenset[str]:
    """Return the parameters of a single statement that reads what is there; refuse any other."""
    with _query_errors(query, 0, QueryLimits()):
        statements = connection.extract_statements(query)
    if len(statements) != 1:
        what = f"`query` has {len(statements)} statements; it must be one `select`"
        raise QueryFault(what, "Remove the others, or make a step of each.")
    kind = statements[0].type
    if kind == duckdb.StatementType.MULTI:
        what = "`pivot` needs the values of its columns"
        raise QueryFault(what, "Write `on supplier in ('Hart', 'Ward')`.")
    if kind != duckdb.StatementType.SELECT:
        what = f"`query` may only read: it is `{kind.name.lower()}`, and must be `select`"
        raise QueryFault(what, "Write rows with `files.write`.")
    if missing := sorted(statements[0].named_parameters - set(parameters)):
        remedy = did_you_mean(missing[0], parameters, f"Add `values: {{{missing[0]}: …}}`.")
        place = max(query.find(f"${missing[0]}"), 0), len(missing[0]) + 1
        raise QueryFault(f"there is no value '{missing[0]}'", remedy, place)
    impure = _impure_functions()
    views = {name for (name,) in connection.execute(_VIEWS).fetchall()}
    named = list(_named(connection, query))
    ctes = {name.lower() for kind, name, _ in named if kind == "cte"}
    known = ctes.difference(views).union(map(str.lower, tables))
    for kind, name, location in _with_macros(connection, named):
        place = _characters(query, *location)
        if kind == "qualified" or (kind == "table" and name.lower() not in known):
            remedy = did_you_mean(name, list(tables), "Add it under `tables`.")
            raise QueryFault(f"there is no table '{one_line(name, 60)}'", remedy, place)
        if kind == "reader" and name not in _TABLE_FUNCTIONS:
            remedy = "Name a file under `tables`: `tables: {parts: parts.parquet}`."
            raise QueryFault(f"'{name}' reads what is not among its tables", remedy, place)
        if kind == "sample":
            remedy = "Take rows by their values: `where`, `order by` with `limit`."
            raise QueryFault("a sample has other rows each time", remedy, place)
        if kind == "impure" or (kind == "function" and name in impure):
            remedy = 'Pass the value: `values: {today: "{{ today }}"}`, and name it `$today`.'
            what = f"'{name}' depends on the time, on chance or on this machine"
            raise QueryFault(what, remedy, place)
    return frozenset(statements[0].named_parameters)


@cache
def _impure_functions() -> frozenset[str]:  # DuckDB's own: 25 ms for each query otherwise
    with closing(open_duckdb()) as connection:
        return _UNSAID.union(name for (name,) in connection.execute(_IMPURE).fetchall())


@cache
def _macros() -> Mapping[str, Sequence[str]]:
    with closing(open_duckdb()) as connection:
        return dict(connection.execute(_MACROS).fetchall())


_Named: TypeAlias = tuple[str, str, tuple[int, int]]
"""What a query names: its kind, its name, and its place (start and length in bytes)."""


def _with_macros(connection: Any, named: Iterable[_Named]) -> Iterator[_Named]:
    """Yield names, then those of the macros among them, at the place of the macro."""
    macros = dict(_macros())
    queue = deque(named)
    while queue:
        kind, name, location = queue.popleft()
        yield kind, name, location
        for text in macros.pop(name, ()) if kind == "function" else ():
            parts = _named(connection, f"select {text}")
            queue.extend((inner, part, location) for inner, part, _ in parts)


def _syntax_tree(connection: Any, query: str) -> Any:
    tree = json.loads(connection.execute("select json_serialize_sql(?)", [query]).fetchall()[0][0])
    if tree["error"]:  # it is no query that could be checked
        raise QueryFault(one_line(str(tree.get("error_message")), 300))
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    stack = [tree]
    while stack:
        node = stack.pop()
        stack += node if isinstance(node, list) else ()
        if isinstance(node, dict):
            stack += node.values()
            yield node


def _named(connection: Any, query: str) -> Iterator[_Named]:
    for node in _nodes(_syntax_tree(connection, query)):
        place = int(node.get("query_location") or 0), int(node.get("query_location_length") or 1)
        if node.get("sample"):
            yield "sample", "", place if "query_location" in node else (0, 0)
        match node:
            case {"type": "BASE_TABLE", "table_name": name, "schema_name": schema}:
                yield ("qualified", f"{schema}.{name}", place) if schema else ("table", name, place)
            case {"type": "TABLE_FUNCTION", "function": {"function_name": name}}:
                yield "reader", name.lower(), place
            case {"type": "SHOW_REF", "query": None, "table_name": name}:
                yield "reader", f"show {name}", (0, 0)
            case {"class": "FUNCTION", "function_name": name}:
                arguments = node.get("arguments", node.get("children")) or ()  # before DuckDB 2
                is_from_now = (name.lower(), len(arguments)) == ("age", 1)
                yield "impure" if is_from_now else "function", name.lower(), place
            case {"class": "COLUMN_REF", "column_names": [name]} if name.lower() in _UNSAID:
                yield "impure", name.lower(), place
            case {"cte_map": {"map": made}}:
                yield from (("cte", str(entry["key"]), (0, 0)) for entry in made)


def _refuse_mixed_types(connection: Any, query: str, values: Mapping[str, Any]) -> None:
    """Refuse comparisons and unions for which DuckDB casts a column without a word.

    1. Of a text, or to one, also within lists: '007' would be 7, or 7 another one than '007'.
    2. Of a time without a zone, to one that has one.
    3. Of an exact number, to equate it with floats: two integers of 17 digits would be one.

    What the query itself casts is planned as `try_cast`, so all other casts are DuckDB's. A query
    that cannot be planned fails by itself, in better words.

    Raises:
        QueryFault: with the column.
    """
    tree = _syntax_tree(connection, query)
    for node in _nodes(tree):
        kind = _TYPES.get(type(values.get(node.get("identifier", ""))).__name__, "VARCHAR")
        if node.get("class") == "CAST":
            node["try_cast"] = True
        elif node.get("class") == "PARAMETER" and kind != "VARCHAR":  # texts take any type
            typed = _syntax_tree(connection, f"select try_cast(null as {kind})")
            node.update(typed["statements"][0]["node"]["select_list"][0])
    plan = None
    planned = "select json_serialize_plan(json_deserialize_sql(?::json))"
    with suppress(duckdb.Error):
        plan = json.loads(connection.execute(planned, [json.dumps(tree)]).fetchall()[0][0])
    for pair, what, is_equation in _compared(plan):
        columns = [[n["alias"] for n in _nodes(side) if n.get("type") in _REFS] for side in pair]
        for side, names in zip(pair, columns, strict=True):
            is_cast = side.get("type") == "OPERATOR_CAST" and not side["function_data"]["try_cast"]
            if not (names and is_cast):
                continue
            of_side = (side["arguments"][0], side["return_type"])
            kinds = ([n["id"] for n in _nodes(kind) if "id" in n] for kind in of_side)
            for source, target in zip(*kinds, strict=False):  # of lists and structs, those within
                is_text = source in _TEXTS and target not in _TEXTS  # 1.
                is_text |= target in _TEXTS and source not in (*_TEXTS, "NULL") and all(columns)
                gets_zone = target == "TIMESTAMP WITH TIME ZONE" and all(columns)  # 2.
                is_rounded = target == "DOUBLE" and source not in ("FLOAT", target)  # 3.
                if is_text or gets_zone or (is_rounded and is_equation and all(columns)):
                    name = next(filter(None, (*names, *chain(*columns))), "a column")
                    found = re.search(rf"\b{re.escape(name)}\b", query)
                    types = f"of type {source.lower()}, is {what} with the type {target.lower()}"
                    is_whole = side["return_type"]["id"] == target
                    such = f", such as `{name}::{target.lower()}`" if is_whole else ""
                    place = (found.start(), len(name)) if found else (0, 0)
                    raise QueryFault(f"'{name}', {types}", f"Cast one of them{such}.", place)


def _compared(plan: Any) -> Iterator[tuple[Sequence[dict[str, Any]], str, bool]]:
    """Yield expressions that a plan compares, or has in one column, and whether for equality."""
    for node in _nodes(plan):
        compared = str(node.get("comparison", node.get("type")))
        if compared.startswith("COMPARE_"):
            sides = node.get("children") or (node.get("left"), node.get("right"))
            yield [*filter(None, sides)], "compared", "THAN" not in compared
        elif compared in ("LOGICAL_UNION", "LOGICAL_EXCEPT", "LOGICAL_INTERSECT"):
            columns = [child.get("expressions", ()) for child in node["children"]]
            yield from ((pair, "combined", True) for pair in zip(*columns, strict=False))


def _characters(query: str, start: int, length: int) -> tuple[int, int]:
    """Convert a place in bytes to characters."""
    before, part = query.encode()[:start], query.encode()[start : start + length]
    return len(before.decode("utf-8", "ignore")), len(part.decode("utf-8", "ignore"))


@contextmanager
def _query_errors(query: str, shift: int, limits: QueryLimits) -> Iterator[None]:
    try:
        yield
    except duckdb.InterruptException as error:
        what, remedy = f"it takes more than {limits.timeout_s:g} s", "the step's `timeout`"
        raise QueryFault(what, f"Ask for less, or raise {remedy}.") from error
    except duckdb.OutOfMemoryException as error:
        what = f"it needs more than {limits.memory_bytes // _MIB:,} MiB of memory"
        raise QueryFault(what, "Ask for less, or raise PADDOCK_READ_MEMORY.") from error
    except duckdb.Error as error:
        words, facts = words_of(error)
        start, length = json.loads(facts.get("location", "[0,0]"))
        candidates, remedy = str(facts.get("candidates", "")).split(",")[0], ""
        match facts.get("error_subtype"):
            case "COLUMN_NOT_FOUND" | "MISSING_ENTRY" if candidates:
                remedy = f"Did you mean '{candidates}'?"
            case "NO_MATCHING_FUNCTION":
                remedy = "A column of texts is made a number by its type: "
                remedy += "`columns: {total: decimal}`."
        place = _characters(query, start + shift, length) if length else (0, 0)
        raise QueryFault(words, remedy, place) from error


def words_of(error: Exception) -> tuple[str, Mapping[str, Any]]:
    """Return what an error says in one line, and its facts."""
    text = str(error)
    try:
        facts = json.loads(text[text.index("{") :])
        text = str(facts["exception_message"])
    except (ValueError, KeyError, TypeError):
        facts = {}
    text = text.partition("\n")[0].partition(", or SET ")[0]  # a query may change no setting
    return one_line(text, 300).rstrip("!."), facts


# --- the process that checks one


def main() -> None:
    requests, answers = take_pipes()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # At equal limits Linux sends SIGKILL, as it does where memory runs out
    resource.setrlimit(resource.RLIMIT_CPU, (CHECK_CPU_S, CHECK_CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (CHECK_MEMORY_BYTES, CHECK_MEMORY_BYTES))

    def answer(order: FrameHead) -> bytes:
        try:
            check_query(**order)
        except QueryFault as fault:
            place = {"start": fault.start, "length": fault.length}
            return pack_frame({"message": str(fault), "remedy": fault.remedy, **place})
        return pack_frame({})

    answer_frames(requests, answers, answer)


if __name__ == "__main__":
    main()
