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


PATHS = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do: [{id: text, uses: files.read, with: {path: "{{ doc.path }}"}}]
    returns: {path: doc.path, text: steps.text.text}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
"""


def test_rows_of_a_moved_folder_have_the_paths_where_it_is_now(tmp_path: Path) -> None:
    world = World(tmp_path / "a", PATHS)
    for name, text in (("a", "plain"), ("b", f'"{tmp_path}/a/x"')):
        world.write(f"inbox/{name}.txt", text)
    world.run()
    before = world.output("t.csv")
    world.folder.rename(tmp_path / "b")
    moved = World(tmp_path / "b", PATHS)
    report = moved.run()
    assert (report.status, report.message) == ("completed", None)
    after = moved.output("t.csv").replace(f"{tmp_path}/b/inbox", f"{tmp_path}/a/inbox")
    assert (after, str(tmp_path / "a/inbox") in moved.output("t.csv")) == (before, False)
