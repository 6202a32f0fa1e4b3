"""Queries over tables: what they give, what they may not do, and what ends them."""

import asyncio
import resource
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

from paddock.engine.errors import TrialTimeout
from paddock.engine.system.records import replace
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import StepError
from paddock.steps.facts import KnownTables
from paddock.steps.tables import sql
from paddock.steps.tables.duckdb_queries import QueryFault, QueryLimits, check_query, run_query
from paddock.steps.tables.sql import Sql, SqlOutput, SqlParams
from tests.fakes.tools import Call, FakeTools, tools

BILLS = TypedRows(
    [
        {"supplier": "Hart", "total": 0.1, "day": "2026-03-01"},
        {"supplier": "Ward", "total": 7, "day": "2026-03-02"},
        {"supplier": "Hart", "total": 0.2, "day": "2026-03-03"},
    ],
    {"supplier": "str", "total": "decimal(10,2)", "day": "date"},
)
KNOWN = {"bills": {"supplier": "str", "total": "decimal(10,2)", "day": "date", "x": ""}}


@pytest.fixture
def ask(hands: FakeTools) -> Call:
    def ask(query: str, tables: Any = None, **wishes: Any) -> SqlOutput:
        params = SqlParams(query=query, tables=tables or {"bills": BILLS}, **wishes)
        return asyncio.run(Sql().run(params, hands))

    return ask


def test_a_query_sums_money_exactly_and_compares_days(ask: Call) -> None:
    found = ask(
        "select supplier, sum(total) as total, max(day) as last from bills "
        "where day >= $since group by all order by all",
        values={"since": "2026-03-01"},
    )
    assert found.rows == [
        {"supplier": "Hart", "total": 0.3, "last": "2026-03-03"},
        {"supplier": "Ward", "total": 7, "last": "2026-03-02"},
    ]
    assert (found.columns, found.count) == (["supplier", "total", "last"], 2)
    assert found.rows.types == {"supplier": "str", "total": "decimal(38,2)", "last": "date"}


def test_a_query_joins_rows_and_files(ask: Call, hands: FakeTools, tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("supplier;town;n\nHart;Harwich;1\nWard;Wells;x\n")
    parquet.write_table(pa.table({"supplier": ["Hart"], "vat": [0.2]}), tmp_path / "vat.parquet")
    tables: dict[str, Any] = {"bills": BILLS, "places": "places.csv", "vat": "vat.parquet"}
    found = ask(
        "select town, count(*) as n, any_value(vat) as vat from bills join places using (supplier) "
        "left join vat using (supplier) group by town order by town",
        tables,
    )
    assert found.rows == [
        {"town": "Harwich", "n": 2, "vat": 0.2}, {"town": "Wells", "n": 1, "vat": None},
    ]  # fmt: skip
    assert Sql().reads(SqlParams(query="x", tables=tables)) == ("places.csv", "vat.parquet")
    with pytest.raises(StepError) as caught:
        ask("select 1", {"gone": "gone.parquet"})
    assert "does not exist" in str(caught.value)


@pytest.mark.parametrize("rows", [[], [{"kind": "letter", "bill": None}]])
def test_a_column_that_is_null_everywhere_or_has_no_row_may_be_of_any_type(
    ask: Call, rows: list[Any]
) -> None:
    mail = TypedRows(rows, {"kind": "str", "bill": ""})
    query = (
        "select bill.supplier, bill.total::decimal(12, 2) as total from mail where kind = 'invoice'"
    )
    assert ask(query, {"mail": mail}).columns == ["supplier", "total"]
    assert ask("select sum(bill) as n from mail", {"mail": mail}).rows == [{"n": None}]


def test_a_query_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    params = SqlParams(query="select count(*) as n from bills", tables={"bills": BILLS})
    hands = tools(tmp_path)
    hands = replace(hands, files=replace(hands.files, readers=None))
    found = asyncio.run(Sql().run(params, hands))
    assert found.rows == [{"n": 3}]


@pytest.mark.parametrize(
    ("query", "message", "part"),
    [
        ("select * form bills", 'syntax error at or near "bills"', "bills"),
        ("select suplier from bills", 'Referenced column "suplier" not found in FROM clause',
         "suplier"),
        ("select 'é',\n  sum(supplier) from bills", "No function matches the given name and "
         "argument types 'sum(VARCHAR)'. You might need to add explicit type casts",
         "sum(supplier)"),
        ("select * from bils", "there is no table 'bils'", "bils"),
        ("select * from '/etc/passwd'", "there is no table '/etc/passwd'", "'/etc/passwd'"),
        ("select * from information_schema.tables", "there is no table 'information_schema.tables'",
         "information_schema.tables"),
        ("select * from read_csv('/etc/passwd')", "'read_csv' reads what is not among its tables",
         "read_csv('/etc/passwd')"),
        ("select * from duckdb_settings()", "'duckdb_settings' reads what is not among its tables",
         "duckdb_settings()"),
        ("insert into bills values (1)", "`query` may only read: it is `insert`, and must be "
         "`select`", ""),
        ("copy bills to 'x.csv'", "`query` may only read: it is `copy`, and must be `select`", ""),
        ("select 1; drop table bills", "`query` has 2 statements; it must be one `select`", ""),
        ("select * from bills where day > $sinse", "there is no value 'sinse'", "$sinse"),
        ("from bills tablesample 10%", "a sample has other rows each time",
         "bills tablesample 10%"),
        ("pivot bills on supplier using sum(total)", "`pivot` needs the values of its columns", ""),
    ],
)  # fmt: skip
def test_a_query_is_refused_with_its_place_before_it_has_rows(
    query: str, message: str, part: str
) -> None:
    with pytest.raises(QueryFault) as caught:
        check_query(query, KNOWN, ["since"])
    fault = caught.value
    assert (str(fault), query[fault.start : fault.start + fault.length]) == (message, part)


@pytest.mark.parametrize(
    "query",
    [
        "select now() as at from bills",
        "select pg_catalog.now()",
        "select age(day) as old from bills", "from bills where day < ago(interval 1 day)",
         "select uuid() as id from bills",
        "select current_setting('secret_directory')",
        "select json_serialize_plan('select now()', optimize := true)",
        "with s as (select pg_sleep(1)) from s",
    ],
)  # fmt: skip
def test_no_function_of_a_query_depends_on_more_than_its_arguments(query: str) -> None:
    for known in (KNOWN, {"bills": None}):
        with pytest.raises(QueryFault) as caught:
            check_query(query, known)
        assert "depends on the time, on chance or on this machine" in str(caught.value)
        assert caught.value.length


@pytest.mark.parametrize(
    "query",
    [
        "select * from sqlite_master",
        "with a as (with sqlite_master as (select 1) select 2) select * from sqlite_master",
        "with sqlite_master as (select * from sqlite_master) from sqlite_master",
         "from (show tables)", "show all tables",
         "from bills where total in (from duckdb_settings())",
        "from query('select * from sqlite_master')", "select pg_get_viewdef(1)",
    ],
)  # fmt: skip
def test_a_query_reads_no_catalog_by_whatever_name(query: str) -> None:
    with pytest.raises(QueryFault):
        check_query(query, {"bills": None})


def test_names_that_differ_by_case_alone_are_never_taken_for_each_other(
    ask: Call, tmp_path: Path
) -> None:
    (tmp_path / "bills.csv").write_text("Total,total\n1,20\n2,40\n")
    what = "table 'bills' has 'Total' and 'total', which are one name in SQL"
    with pytest.raises(StepError) as caught:
        ask("select sum(total) as s from bills", {"bills": "bills.csv"})
    assert (what in str(caught.value), caught.value.remedy) == (True, "Rename one of them.")
    with pytest.raises(QueryFault, match=what):
        check_query("select sum(total) from bills", {"bills": {"Total": "int", "total": "int"}})
    with pytest.raises(StepError, match="'A' and 'a', which are one name in SQL"):
        ask("select s.a from bills", {"bills": TypedRows([{"s": [{"A": 1, "a": 2}]}])})
    with pytest.raises(ValueError, match="tables 'bills' and 'Bills' are one name in SQL"):
        SqlParams(query="from bills", tables={"bills": "a.csv", "Bills": "b.csv"})
    rows = TypedRows([{"\u00c9": 1, "\u00e9": 2}])  # these are two
    assert ask('select "\u00e9" as x from t', {"t": rows}).rows == [{"x": 2}]
    with pytest.raises(StepError, match="names column 'x' twice"):
        ask("select 1 as x, 2 as x")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([1, 2], "Table 't': row 1 is a single value; rows must be mappings of names."),
        ([{"a": "\ud800"}], "Table 't' has half a character."),
        ([], "the query failed: table 't' has no row, so its columns are not known. Give its rows "
             "first one that has the columns: `[{'key': none}] + …`."),
        ([{"a\0": 1, "a\ufffd": 2}],
         "Table 't': names column 'a\ufffd' twice. Rename one of them."),
    ],
)  # fmt: skip
def test_rows_that_are_no_table_are_refused_in_words(ask: Call, rows: Any, message: str) -> None:
    with pytest.raises(StepError) as caught:
        ask("from t", {"t": TypedRows(rows)})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("query", "value", "type_"),
    [
        ("340282366920938463463374607431768211455::uhugeint", "340282366920938463463374607431768211"
         "455", "str"),
        ("sum(total)", 7.3, "decimal(38,2)"),
        ("'12:30:00+03'::timetz", "12:30:00+03", "str"),
        ("'1234567890123456789012345678901234567890123'::bignum",
         "1234567890123456789012345678901234567890123", "str"),
        ("interval '1 month 2 days'", "1 month 2 days", "str"),
        ("'24:00:00'::time", "<value out of range: 86400000000>", "str"),
        ("'10000-02-29 12:30:00.5'::timestamp", "10000-02-29 12:30:00.500000", "str"),
        ("'0044-03-15 (BC)'::date", "-0043-03-15", "str"),
        ("'9999-12-31'::date", "9999-12-31", "date"),
    ],
)  # fmt: skip
def test_values_that_python_has_not_are_texts(
    ask: Call, query: str, value: Any, type_: str
) -> None:
    found = ask(f"select {query} as x from bills")
    assert (found.rows[0]["x"], found.rows.types["x"]) == (value, type_)


NO = "zip varchar bigint"


@pytest.mark.parametrize(
    ("query", "values", "refused"),
    [
        ("from a join b using (zip)", {}, NO),
        ("from a natural join (select zip from b)", {}, NO),
        ("from a join b on a.zip = b.zip", {}, NO),
        ("with c as (select zip as z from b) from a join c on z = zip", {}, NO),
        ("from a where exists (select 1 from b where b.zip = a.zip)", {}, NO),
        ("from a where zip = $zip", {"zip": 7}, NO),
        ("from a where zip = 7", {}, "zip varchar integer"),
        ("from a where zip in (7, 8)", {}, "zip varchar integer"),
        ("select case zip when 7 then 1 end from a", {}, "zip varchar integer"),
        ("select count(*) filter (zip = 7) from a", {}, "zip varchar integer"),
        ("from a, b where a.day = b.said", {}, "said varchar date"),
        ("from a join b using (n)", {}, "n bigint double"),
        ("from a where n = x", {}, "n bigint double"),
        ("from a where m is not distinct from x", {}, "m decimal double"),
        ("from a, b where a.at = b.sent", {}, "at timestamp timestamp with time zone"),
        ("from a, b where a.l = b.l", {}, "l bigint varchar"),
        ("select zip from a union select zip from b", {}, "zip bigint varchar"),
        ("select n, zip from b intersect select 1, zip from a", {}, "zip bigint varchar"),
        ("select n from a union all by name select n from b", {}, "n bigint double"),
        ("select zip from b except (select day from a union all select said from b)", {},
         "day date varchar"),
        ("select a.at from a union select sent from b", {},
         "at timestamp timestamp with time zone"),
        ("select l from a union all select l from b", {}, "l bigint varchar"),
        ("select zip from a union select null union all select zip::text from b", {}, ""),
        ("select 'all' as zip, sum(n) from b union all select zip, n from b", {}, ""),
        ("select zip, day from a except select said, null from b", {}, ""),
        ("from a join b on a.zip::int = b.zip", {}, ""),
        ("from a join b on a.n::double = b.n", {}, ""),
        ("from a join b on a.zip = b.zip::varchar", {}, ""),
        ("from a where zip = '007' and n = '1' and day >= '2026-01-01'", {}, ""),
        ("from a where zip = $zip and day = $day", {"zip": "007", "day": "2026-01-01"}, ""),
        ("from a where n > x and n = m and x = 1.5 and n = $n", {"n": 1}, ""),
        ("from a where n + 1 > 0.5 and x = 3 order by zip = '7'", {}, ""),
        ("select zip from a union select zip::varchar from b", {}, ""),
    ],
)  # fmt: skip
def test_columns_of_different_types_are_not_taken_for_equal(
    query: str, values: Any, refused: str
) -> None:
    a = {"zip": ["007"], "n": [2**53 + 1], "x": [1.5], "day": [date(2026, 1, 1)],
         "m": [Decimal("1.50")], "at": [datetime(2026, 1, 1)], "l": [["7"]]}  # noqa: DTZ001 # fmt: skip
    b = {
        "zip": [7],
        "n": [2.0**53],
        "said": ["2026-01-01"],
        "sent": [datetime.now(UTC)],
        "l": [[7]],
    }
    tables, limits = {"a": pa.table(a), "b": pa.table(b)}, QueryLimits(result_bytes=10**6)
    if not refused:
        run_query(query, tables, values, limits)
        return
    name, kind, other = refused.split(" ", 2)
    with pytest.raises(QueryFault) as caught:
        run_query(query, tables, values, limits)
    verb = "combined" if any(w in query for w in ("union", "intersect", "except")) else "compared"
    said = f"'{name}', of type {kind}, is {verb} with the type {other}"
    remedy = f"Cast one of them, such as `{name}::{other}`."
    if name == "l":
        remedy = "Cast one of them."
    assert (str(caught.value), caught.value.remedy) == (said, remedy)
    place = caught.value.start
    assert query[place : place + caught.value.length] == name


def test_types_are_compared_before_there_are_rows() -> None:
    tables = {"a": {"zip": "str", "x": ""}, "b": {"zip": "int"}}
    with pytest.raises(QueryFault, match="'zip', of type varchar, is compared with the type"):
        check_query("from a join b using (zip) where x = 1", tables)
    check_query("from a join b on a.zip = b.zip::varchar where x = $n", tables, ["n"])
    check_query("select zip from a union select x from a", tables)


def test_infinite_results_are_told(ask: Call, hands: FakeTools) -> None:
    query = "select sum(total) / 0 as x, [1.5, x] as l, {'a': 'nan'::float} as s from bills"
    assert ask(query).rows == [{"x": None, "l": [1.5, None], "s": {"a": None}}]
    assert hands.notes == [
        "the result: numbers that are infinite or NaN are null, bytes that are "
        "no text U+FFFD, and times cut at microseconds (1 of 'x', 1 of 'l', 1 of 's')."
    ]


@pytest.mark.parametrize(
    "query",
    [
        "select supplier, sum(x) from bills where day >= $since group by all",
        "with big as (select * from bills where total > 3) from big join BILLS using (day)",
        "pivot bills on supplier in ('Hart') using sum(total)",
        "select unnest([1, 2]) as n, today from (select 1 as today), range(3)",
        "values (1, 'a')",
        "select age(day, day), year(day), json_group_object(supplier, x) from bills group by all",
    ],
)
def test_a_query_that_reads_its_tables_alone_is_taken(query: str) -> None:
    check_query(query, KNOWN, ["since"])
    check_query(query, {"bills": None}, ["since"])  # nothing is known of its columns


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("with recursive r(n) as (select 1 union all select n + 1 from r) select max(n) from r",
         "it takes more than 2 s"),
        ("select list(repeat('x', 1000000)) from range(100000)",
         "it needs more than 256 MiB of memory"),
        ("select a.n + b.n as n from t a, t b, t c", "its result has more than 4 MiB"),
        ("select cast('x' || n as int) from t",
         "Could not convert string 'x0' to INT32"),
        ("select n // (n - n) as part from t", "Division by zero in expression (n // (n - n)). Use "
         "TRY(...) to return NULL for this expression"),
    ],
)  # fmt: skip
def test_a_query_without_end_or_measure_is_ended(query: str, message: str) -> None:
    limits = QueryLimits(2.0, 256 * 1024**2, 4 * 1024**2)
    with pytest.raises(QueryFault) as caught:
        run_query(query, {"t": pa.table({"n": list(range(1000))})}, {}, limits)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select length(repeat('x', 2000000000)) as n", ""),
        ("select length(repeat(repeat('x', 30000000), 30000000)) as n", ""),
        (f"select {' + '.join(f'len(list_sort(range({2_000_000 + n})))' for n in range(300))}",
         "the check of `query` takes too much time or memory"),
    ],
)  # fmt: skip
def test_what_is_constant_in_a_query_is_not_computed_by_its_check(query: str, message: str) -> None:
    """DuckDB computes it as it plans, whatever limits it has; the check's process ends it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    known: KnownTables = {("tables", "bills"): {"n": "int"}}
    faults = Sql.facts.table_faults({"query": query, "tables": {"bills": "bills.csv"}}, known)
    assert [fault.message for fault in faults] == [message] * bool(message)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 64 * 1024


@pytest.mark.parametrize("deed", ["time.sleep(600)", "os.kill(os.getpid(), 9)"])
def test_a_check_that_a_busy_machine_does_not_end_is_no_fault_of_the_query(
    monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    monkeypatch.setattr(sql, "_CHECK_WALL_S", 1.0)
    slow = [sys.executable, "-c", f"import os, time; {deed}"]
    monkeypatch.setattr(sql, "python_command", lambda *_: slow)
    written = {"query": f"select n + 1 as n from bills -- {deed}", "tables": {"bills": "bills.csv"}}
    with pytest.raises(TrialTimeout) as caught:
        [*Sql.facts.table_faults(written, {})]
    assert str(caught.value) == (
        "the check of `query` could not be computed within 1 s: the machine is busy, or short of "
        "memory. Try again later."
    )
    monkeypatch.undo()
    assert not [*Sql.facts.table_faults(written, {})], "it is checked again"


def test_the_same_tables_give_the_same_rows() -> None:
    table = pa.table({"n": [n % 97 for n in range(50_000)], "x": [0.1 * n for n in range(50_000)]})
    limits = QueryLimits(20.0, 256 * 1024**2, 64 * 1024**2)
    query = "select n, sum(x) as x from t group by n"
    first, second = (run_query(query, {"t": table}, {}, limits) for _ in range(2))
    assert first.equals(second)
