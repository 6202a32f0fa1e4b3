"""Tables with types in a run: filed rows in each format, types of a reply, loss of rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.steps.tables.table_files import TableRequest
from tests.fakes.pool import FakePool
from tests.fakes.readers import KeptReaders
from tests.runner.world import World, each_document

FORMATS = ("csv", "jsonl", "xlsx", "parquet", "arrow", "sqlite", "duckdb")
BILLS = """\
name: bills
""" + each_document("""\
      - id: bill
        uses: chat
        with: {prompt: "{{ steps.text.text }}"}
        reply:
          schema:
            type: object
            properties:
              total: {type: number, multipleOf: 0.01}
              due: {type: string, format: date}
              n: {type: integer}
            required: [total, due, n]
      - {id: move, uses: files.move, with: {path: "{{ doc.path }}", to: "filed/{{ doc.relpath }}"}}
    returns:
      file: doc.relpath
      total: steps.bill.output.total
      due: steps.bill.output.due
      n: steps.bill.output.n
""")
BILL = {"total": 19.9, "due": "2026-03-01", "n": 3}


def answering() -> FakePool:
    return FakePool(answer=lambda _: json.dumps(BILL))


def arrive(world: World, *names: str) -> None:
    for name in names:
        world.write(f"inbox/{name}", f"Letter {name}")


def read(path: Path, format_: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the rows and types of a table, read in a process of its own."""
    pool = KeptReaders()
    try:
        source = {"path": str(path), "format": format_}
        meta, rows = pool.submit(TableRequest({"job": "read", "source": source})).result()
        assert meta["notes"] == [] or format_ == "csv"
        return rows.as_list(), dict(rows.types)
    finally:
        pool.close()


def test_a_table_of_each_format_keeps_filed_rows_with_the_types_of_the_reply(
    tmp_path: Path,
) -> None:
    steps = "".join(
        f"  - {{id: {name}, uses: files.write, "
        f'with: {{path: out/t.{name}, rows: "{{{{ steps.each.results }}}}"}}}}\n'
        for name in FORMATS
    )
    world = World(tmp_path, BILLS + steps)
    arrive(world, "b.txt")
    world.run(pool=answering())
    arrive(world, "a.txt")
    world.run(pool=answering())
    for name in FORMATS:
        rows, types = read(world.folder / f"out/t.{name}", name)
        assert rows == [{"file": "a.txt", **BILL}, {"file": "b.txt", **BILL}], name
        if name not in ("csv", "jsonl"):
            assert types == {
                "file": "str", "total": "decimal(18,2)", "due": "date", "n": "int",
            }, name  # fmt: skip
    made = {path: path.stat().st_mtime_ns for path in (world.folder / "out").iterdir()}
    assert world.run().written == ()
    assert {path: path.stat().st_mtime_ns for path in (world.folder / "out").iterdir()} == made


@pytest.mark.parametrize("name", ["xlsx", "sqlite"])
def test_a_table_of_any_format_waits_for_a_person_before_it_loses_most_rows(
    tmp_path: Path, name: str
) -> None:
    steps = f"""\
name: table
steps:
  - {{id: docs, uses: files.scan, with: {{root: inbox}}}}
  - {{id: t, uses: files.write, with: {{path: out/t.{name}, rows: "{{{{ steps.docs.files }}}}"}}}}
"""
    world = World(tmp_path, steps, n_documents=4)
    world.run()
    for n in "012":
        (world.folder / f"inbox/{n}.txt").unlink()
    left = f"'out/t.{name}' is left as it is: 3 of its 4 rows would go"
    assert any(note.startswith(left) for note in world.run().notes)
    world.run(is_confirmed=True)
    assert len(read(world.folder / f"out/t.{name}", name)[0]) == 1


def test_rows_with_types_are_plain_lists_for_everything_else(tmp_path: Path) -> None:
    text = """\
name: rows
steps:
  - {id: t, uses: files.rows, with: {path: t.csv, columns: {n: int, day: date}}}
  - id: each
    for_each: row in steps.t.rows
    where: row.n > 1 and row.day >= "2026-01-01"
    do:
      - {uses: files.write, with: {path: "out/{{ row.n }}.txt", text: "{{ row | tojson }}"}}
  - id: files
    for_each: name in ["t.csv"]
    do:
      - {uses: files.rows, with: {path: "{{ name }}"}}
  - id: all
    uses: files.write
    with: {path: out/all.txt, text: "{{ steps.t.rows | tojson }} {{ steps.t.rows[0].n }}"}
returns: {rows: steps.t.rows, table: steps.t, files: steps.files.results}
"""
    world = World(tmp_path, text)
    world.write("t.csv", "n,day\n1,2026-01-01\n2,2025-01-01\n3,1.2.2026\n")
    report = world.run()
    rows = [{"n": 1, "day": "2026-01-01"}, {"n": 2, "day": "2025-01-01"},
            {"n": 3, "day": "2026-02-01"}]  # fmt: skip
    assert world.output("all.txt") == f"{json.dumps(rows)} 1"
    assert world.output("3.txt") == json.dumps(rows[2])
    assert not (world.folder / "out/2.txt").exists()
    assert json.loads(json.dumps(report.returns))["rows"] == rows
    assert report.returns["table"]["rows"] == rows
    assert report.returns["files"][0]["rows"][0] == {"n": "1", "day": "2026-01-01"}


SUMS = """\
  - id: sums
    uses: sql
    with:
      tables: {bills: "{{ steps.each.results }}"}
      query: |
        select due, sum(total) as total, count(*) as n
        from bills
        group by all
  - {id: t, uses: files.write, with: {path: out/s.csv, rows: "{{ steps.sums.rows }}"}}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "sum(total)",
            "sum(totl)",
            """\
pipeline.yaml:30:25: step 'sums': Referenced column "totl" not found in FROM clause.
      30 |         select due, sum(totl) as total, count(*) as n
         |                         ^^^^
  Did you mean 'total'?""",
        ),
        (
            "sum(total)",
            "sum(file)",
            """\
pipeline.yaml:30:21: step 'sums': No function matches the given name and argument types \
'sum(VARCHAR)'. You might need to add explicit type casts.
      30 |         select due, sum(file) as total, count(*) as n
         |                     ^^^^^^^^^
  A column of texts is made a number by its type: `columns: {total: decimal}`.""",
        ),
    ],
)
def test_a_fault_of_a_query_is_shown_with_its_line_before_anything_runs(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    world = World(tmp_path, BILLS.replace("file: doc.relpath", "file: steps.text.text") + SUMS)
    world.edit(old, new)
    with pytest.raises(PipelineError) as caught:
        world.plan()
    assert str(caught.value).replace(f"{tmp_path}/", "") == said


def test_a_schema_that_changes_only_a_type_makes_the_table_again(tmp_path: Path) -> None:
    table = '  - {id: table, uses: files.write, with: {path: out/t.parquet, rows: "ROWS"}}\n'
    text = BILLS.replace("      - {id: move", "#").replace("\n    returns", "\n    returns")
    world = World(tmp_path, text + table.replace("ROWS", "{{ steps.each.results }}"))
    arrive(world, "a.txt")
    world.run(pool=answering())
    path = tmp_path / "out/t.parquet"
    before = read(path, "parquet")[1]
    world.edit("due: {type: string, format: date}", "due: {type: string}")
    world.run(pool=answering())
    after = read(path, "parquet")[1]
    assert (before["due"], after["due"]) == ("date", "str")
    assert world.run(pool=answering()).written == ()


def test_an_item_of_a_query_is_stale_by_its_tables_alone(tmp_path: Path) -> None:
    text = """\
name: items
steps:
  - id: each
    for_each: town in ["Harwich", "Wells"]
    do:
      - id: found
        uses: sql
        with:
          tables: {places: places.csv}
          values: {town: "{{ town }}"}
          query: select sum(n) as n from places where town = $town
      - {uses: chat, with: {prompt: "{{ town }}: {{ steps.found.rows[0].n }}"}}
"""
    world = World(tmp_path, text)
    world.write("places.csv", "town,n\nHarwich,1\nWells,2\n")
    assert world.run().calls == 2
    assert world.run().calls == 0
    assert not world.plan().has_work
    world.write("places.csv", "town,n\nHarwich,1\nWells,5\n")
    assert [reason for item in world.plan().items for reason in item.reasons]
    assert [request.messages[-1].content for request in (world.run(), world)[1].pool.chats] == [
        "Wells: 5"
    ]


@pytest.mark.parametrize("rows", ["{{ steps.each.results }}", "{{ [] }}", "{{ [none] }}"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_list_without_rows_is_a_table_without_rows(
    tmp_path: Path, suffix: str, rows: str
) -> None:
    text = each_document(f"""\
    returns: {{file: doc.relpath, text: steps.text.text}}
  - {{id: table, uses: files.write, with: {{path: out/t.{suffix}, rows: "{rows}"}}}}
""")
    world = World(tmp_path, text)
    (tmp_path / "inbox").mkdir()
    assert world.run().status == "completed"
    if "each" in rows and suffix not in ("csv", "jsonl"):  # an empty one has no row to read
        found, types = read(tmp_path / "out" / f"t.{suffix}", suffix)
        assert (found, [*types]) == ([], ["file", "text"])
    assert world.run().counts == {}
    world.write("inbox/a.txt", "x")
    assert world.run().status == "completed"
