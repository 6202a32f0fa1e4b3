"""Frames of pandas, Polars and Arrow as a pipeline's input, and tables of its results."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from paddock.engine.request import ChatRequest
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.api import plan, run
from paddock.runner.bind.inputs import outside_path_faults, read_inputs
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.progress.report import Report
from paddock.runner.workers.pipeline_flow import flow
from tests.fakes.pool import FakePool
from tests.runner.world import World, settings

BILLS = """\
name: bills
inputs:
  bills: {type: rows}
steps:
  - id: each
    for_each: bill in inputs.bills
    key: bill.id
    do:
      - id: read
        uses: chat
        with: {prompt: "What is due: {{ bill.text }}"}
        reply:
          schema:
            type: object
            properties:
              due: {type: string, format: date}
              total: {type: number, multipleOf: 0.01}
              n: {type: integer}
            required: [due, total, n]
          repair: 0
    returns:
      id: bill.id
      day: bill.day
      due: steps.read.output.due
      total: steps.read.output.total
      n: steps.read.output.n
  - {id: table, uses: files.write, with: {path: out.parquet, rows: "{{ steps.each.results }}"}}
  - id: sums
    uses: sql
    with:
      tables: {bills: "{{ inputs.bills }}"}
      query: select day, count(*) as n from bills group by day order by day
"""
ROWS = [
    {"id": 1, "text": "roof", "day": date(2026, 3, 1), "paid": Decimal("1.50"), "note": "a"},
    {"id": 2, "text": "paint", "day": date(2026, 3, 2), "paid": None, "note": "b"},
    {"id": 3, "text": "broken", "day": date(2026, 3, 2), "paid": Decimal("2.25"), "note": None},
]


def answer(request: ChatRequest) -> str:
    if "broken" in str(request.messages):
        return "no JSON"
    return json.dumps({"due": "2026-04-01", "total": 12.5, "n": 2**40})


def polars_frame(rows: list[dict[str, Any]] = ROWS) -> pl.DataFrame:
    return pl.DataFrame(rows).with_columns(pl.col("note").cast(pl.Categorical))


def pandas_frame(rows: list[dict[str, Any]] = ROWS) -> pd.DataFrame:
    frame = pd.DataFrame([*rows, {**rows[0], "id": 9}])
    return frame[frame["id"] < 9]  # its index is no range, and no column


def indexed_frame(rows: list[dict[str, Any]] = ROWS) -> pd.DataFrame:
    return pd.DataFrame(rows).set_index("id")


FORMS: dict[str, Callable[[], Any]] = {
    "pandas": pandas_frame,
    "an index with a name": indexed_frame,
    "arrow": lambda: pa.Table.from_pylist(ROWS),
    "a stream": lambda: pa.Table.from_pylist(ROWS).to_reader(),
    "rows": lambda: ROWS,
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, BILLS)


def run_rows(world: World, rows: Any, **options: Any) -> Report:
    pool = world.pool = FakePool(answer=answer)
    environment = RunEnvironment(pool=pool, settings=settings(world.folder))
    return run(world.file, None, RunOptions(local=True, **options), environment, bills=rows)


def test_a_frame_of_any_library_gives_the_same_items(world: World) -> None:
    assert run_rows(world, polars_frame()).counts == {"new": 3, "quarantined": 1} | {"new": 2}
    for name, form in FORMS.items():
        report = run_rows(world, form())
        assert (name, world.pool.chats) == (name, [])
        assert [item.state for item in report.items if item.step == "each"] == [
            *("fresh", "fresh"),
            "quarantined",
        ]


def test_an_edited_frame_does_only_what_changed(world: World) -> None:
    run_rows(world, ROWS[:2])
    edited = [{**ROWS[0], "note": "nothing reads this"}, {**ROWS[1], "text": "tiles"}]
    frame = pl.DataFrame(edited).reverse()
    foreseen = plan(
        world.file,
        None,
        RunOptions(local=True),
        settings=settings(world.folder),
        pool=world.pool,
        bills=frame,
    )
    assert foreseen.calls == 1
    report = run_rows(world, frame)
    assert len(world.pool.chats) == 1
    assert {item.key: item.state for item in report.items} == {"1": "fresh", "2": "changed"}


def test_a_table_has_types_keys_and_what_has_no_result(world: World) -> None:
    bills = run_rows(world, pandas_frame()).table("each")
    arrow = bills.to_arrow()
    assert {field.name: str(field.type) for field in arrow.schema} == {
        **{"item_key": "string", "item_state": "string", "item_error": "string"},
        **{"id": "int64", "day": "date32[day]", "due": "date32[day]"},
        **{"total": "decimal128(18, 2)", "n": "int64"},
    }
    last = arrow.to_pylist()[-1]
    error = last.pop("item_error")
    assert "no JSON" in error or "JSON" in error
    assert last == {
        **{"item_key": "3", "item_state": "quarantined", "id": 3},
        **{"day": date(2026, 3, 2), "due": None, "total": None, "n": None},
    }
    assert len(bills) == 3 and [row["n"] for row in bills] == [2**40, 2**40, None]
    assert "3 rows" in repr(bills)
    frame = bills.to_pandas()
    assert frame["n"].sum() == 2**41 and str(frame["due"].dtype).startswith("datetime64")
    assert bills.to_polars()["total"].sum() == Decimal("25.00")
    for taken in (pl.DataFrame(bills), pl.DataFrame(pa.table(bills))):
        assert taken.schema == bills.to_polars().schema
    found = duckdb.sql("select count(*), sum(total) from bills where item_error is null")
    assert found is not None and found.fetchall() == [(2, Decimal("25.00"))]


def test_a_column_of_times_keeps_its_zone_through_both_changes_of_the_clock(world: World) -> None:
    days = pd.to_datetime(["2026-03-29 01:30", "2026-10-25 00:30", "2026-07-01 12:00"])
    frame = pandas_frame().assign(day=days.tz_localize("Europe/Paris"))
    table = run_rows(world, frame).table("each").to_pandas()
    assert str(table["day"].dtype) == "datetime64[us, Europe/Paris]"
    assert list(table["day"]) == list(frame["day"])
    written = pl.read_parquet(world.folder / "out.parquet").schema["day"]
    assert isinstance(written, pl.Datetime) and written.time_zone == "Europe/Paris"


def test_what_is_written_has_the_types_of_the_frame(world: World) -> None:
    run_rows(world, polars_frame())
    written = pl.read_parquet(world.folder / "out.parquet")
    assert written.schema["day"] == pl.Date and written.schema["n"] == pl.Int64


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (5, "input 'bills' takes rows, no 'int'."),
        (pl.LazyFrame(ROWS), "input 'bills' takes rows, no 'LazyFrame'."),
        ({"id": [1]}, "input 'bills' takes rows, no 'dict'."),
        ('{"a": 1}', "input 'bills' takes rows, no 'dict'."),
        ([1], "input 'bills' row 1 is a single value; rows must be mappings of names."),
        (pd.DataFrame({"a": [1, "x"]}), "input 'bills' cannot be read as a table: column 'a' has"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "input 'bills' cannot be read as a table: D"),
        ("", "input 'bills' must be rows, or the path of a table, not ''."),
        ("[1", "input 'bills' must be JSON"),
    ],
)
def test_what_is_no_rows_is_refused_in_a_sentence(world: World, rows: Any, words: str) -> None:
    with pytest.raises(PipelineError) as refused:
        run_rows(world, rows)
    assert words in str(refused.value)


def test_declared_columns_are_checked_before_a_model_is_asked(world: World) -> None:
    world.edit("{type: rows}", "{type: rows, columns: {id: int, text: str, day: date}}")
    for rows, words in (
        (polars_frame().drop("text"), "input 'bills' has no column 'text'."),
        (
            [{**ROWS[0], "id": "A7"}],
            "input 'bills' row 1 has 'A7' in column 'id', which is no int.",
        ),
    ):
        with pytest.raises(PipelineError) as refused:
            run_rows(world, rows)
        assert words in str(refused.value) and world.pool.chats == []
    midnight = pd.DataFrame(ROWS).assign(day=pd.to_datetime("2026-03-01"))
    assert {row["day"] for row in run_rows(world, midnight).table("each")} == {"2026-03-01"}
    world.pool.chats.clear()
    world.edit("bill.text", "bill.txt")
    with pytest.raises(PipelineError) as refused:
        run_rows(world, ROWS)
    assert "the results of 'inputs.bills' have no field 'txt'" in str(refused.value)


def test_a_caller_from_elsewhere_names_no_file_outside(world: World, tmp_path: Path) -> None:
    pipeline = read_plan(world.file).pipeline
    for given, n_faults in (("/etc/passwd", 1), ("in/bills.csv", 0), ([{"id": 1}], 0)):
        inputs = {"bills": given}
        values = read_inputs(pipeline, inputs, base=tmp_path, cwd=tmp_path).values
        assert (
            len(outside_path_faults(pipeline, inputs, values, tmp_path, "the folder")) == n_faults
        )


def test_prefect_is_not_sent_the_rows_of_a_frame(world: World) -> None:
    made = flow(world.file)
    assert made.serialize_parameters({"bills": polars_frame()}) == {"bills": "rows of a frame"}
    assert made.serialize_parameters({"bills": "a.csv"}) == {"bills": "a.csv"}


def test_no_library_of_data_is_imported_before_it_is_asked_for(world: World) -> None:
    script = (
        "import sys; from paddock.runner import run, RunOptions\n"
        f"report = run({str(world.file)!r}, None, RunOptions(local=True), rows=[{{'id': 1}}])\n"
        "print(len(report.table('each')), [n for n in ('pandas', 'polars', 'pyarrow', 'duckdb') "
        "if n in sys.modules])"
    )
    world.text = world.write("pipeline.yaml", (
        "inputs: {rows: {type: rows}}\nsteps:\n  - id: each\n    for_each: row in inputs.rows\n"
        "    do: [{id: p, uses: prompt, with: {template: \"{{ row.id }}\"}}]\n"
    )).read_text()  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1 []"
