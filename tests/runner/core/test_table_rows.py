"""A table that `rows` writes has never fewer rows without a word, and loses most when asked."""

from pathlib import Path

import pytest

from tests.runner.world import World, each_document

TABLE = """\
name: table
""" + each_document("""\
    returns: {file: doc.relpath, text: steps.text.text}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
  - {id: report, uses: files.write, with: {path: out/r.txt, text: "{{ steps.table.path }}"}}
""")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, TABLE, n_documents=4)
    world.run()
    return world


def n_rows(world: World, name: str = "t.csv") -> int:
    return len(world.output(name).splitlines()) - 1


def test_a_table_with_fewer_rows_says_how_many_and_why(world: World) -> None:
    (world.folder / "inbox/0.txt").unlink()
    report = world.run()
    assert (
        "'out/t.csv' has 3 rows, 1 fewer than before: 1 item of 'each' is deleted." in report.notes
    )
    assert (n_rows(world), "missing" in report.counts) == (3, False)


def test_a_table_that_would_lose_most_of_its_rows_waits_for_a_person(world: World) -> None:
    for name in "012":
        (world.folder / f"inbox/{name}.txt").unlink()
    asked = (
        "'out/t.csv' is left as it is: 3 of its 4 rows would go, since 3 items of 'each' are "
        "deleted. If that is right, run it with `--yes`."
    )
    report = world.run()
    assert asked in report.notes
    assert [(item.key, item.error) for item in report.items if item.state == "missing"] == [
        ("table", asked)
    ]
    assert (n_rows(world), report.outdated) == (4, {})
    world.run(is_confirmed=True)
    assert n_rows(world) == 1


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.json"])
def test_a_table_is_left_where_no_row_is_left_for_it(world: World, name: str) -> None:
    world.edit("out/t.csv", f"out/{name}")
    world.run()
    before = world.output(name)
    world.edit(
        "steps.each.results }}", "steps.each.results | selectattr('file', 'in', []) | list }}"
    )
    report = world.run()
    assert world.output(name) == before
    assert (
        f"'out/{name}' is left as it is: 4 of its 4 rows would go, since what its rows are made of "
        f"has changed. If that is right, run it with `--yes`."
    ) in report.notes
    world.run(is_confirmed=True)
    assert world.output(name) != before


def test_the_table_of_an_item_has_what_the_item_has(tmp_path: Path) -> None:
    own = '"{{ steps.text.text | fromjson }}"'
    write = f'{{uses: files.write, with: {{path: "out/{{{{ doc.stem }}}}.csv", rows: {own}}}}}'
    world = World(tmp_path, TABLE.replace("    returns:", f"      - {write}\n    returns:"))
    world.write("inbox/a.txt", '[{"n": 1}, {"n": 2}, {"n": 3}]')
    assert world.run().status == "completed"
    world.write("inbox/a.txt", '[{"n": 1}]')
    report = world.run()
    assert n_rows(world, "a.csv") == 1
    assert not any(item.state == "missing" for item in report.items)
