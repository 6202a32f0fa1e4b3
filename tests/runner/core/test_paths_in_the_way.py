"""A file takes the name of a folder, or the reverse: of documents, and of outputs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.engine.system.files import TEMPORARY_SUFFIX
from paddock.runner.core.traces.source_folders import SourceFolder
from paddock.runner.lineage.explain import explain_path
from tests.runner.world import World, each_document, states

COPIES = each_document("""\
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
    returns: {file: doc.relpath}
  - id: more
    for_each: row in steps.each.results
    key: row.file
    do: [{uses: files.write, with: {path: "more/{{ row.file }}", text: "{{ row.file }}"}}]
""")


def replaced(world: World, old: str, new: str, text: str = "another") -> None:
    """Remove a document, or a folder of them, and write another one."""
    path = world.folder / "inbox" / old
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    world.write(f"inbox/{new}", text)


def made(world: World, folder: str = "out") -> dict[str, str]:
    root = world.folder / folder
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_text() for path in files}


def copies(folder: Path, *names: str, text: str = COPIES) -> World:
    world = World(folder, text, {f"inbox/{name}": name for name in (*names, "a", "b", "c")})
    assert world.run().status == "completed"
    return world


NAMES = {
    "a file takes a folder's name": (("2024/y",), "2024", "2024"),
    "of two files in it": (("2024/x", "2024/y"), "2024", "2024"),
    "of a folder within it": (("2024/05/y",), "2024", "2024"),
    "a folder takes a file's name": (("2024",), "2024", "2024/y"),
    "two folders do": (("2024",), "2024", "2024/05/y"),
}


@pytest.mark.parametrize("case", NAMES)
def test_what_was_made_under_a_name_is_told_and_gives_way(tmp_path: Path, case: str) -> None:
    names, old, new = NAMES[case]
    world = copies(tmp_path, *names)
    was = {f"{folder}/{name}" for folder in ("out", "more") for name in names}
    replaced(world, old, new)
    assert states(world.plan())[new] == "blocked"
    for _ in range(2):
        report = world.run()
        assert {*report.outdated} == was == {*world.plan().outdated}
        assert states(report)[new] == states(world.plan())[new] == "blocked"
        (error,) = {item.error for item in report.items if item.key == new}
        assert error is not None
        assert error.startswith(f"'out/{new}' cannot be written: 'out/{names[0]}', in its way, ")
    assert {*world.plan(prune=True).outdated} == set()
    assert world.run(prune=True).outdated == {}
    assert made(world).keys() == made(world, "more").keys() == {"a", "b", "c", new}
    assert states(world.run()) == states(world.plan()) == {}


def test_a_document_that_takes_the_name_of_its_folder_costs_nothing(tmp_path: Path) -> None:
    world = copies(tmp_path, "2024/y", text=COPIES.partition("  - id: more")[0])
    replaced(world, "2024", "2024", text="2024/y")
    report = world.run()
    assert (report.outdated, states(report)["2024"]) == ({}, "new")
    assert "removed, since 'out/2024' takes its place: out/2024/y" in report.notes
    assert world.output("2024") == "2024/y"


KEPT = {
    "it was edited": lambda out: (out / "2024/y").write_text("mine"),
    "a person put something beside it": lambda out: (out / "2024/notes").write_text("mine"),
    "a link to a folder is": lambda out: (out / "2024/link").symlink_to(out.parent / "inbox"),
    "a link is beside it": lambda out: (out / "2024/link").symlink_to(out / "a"),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_a_person_made_stays_and_is_named(tmp_path: Path, case: str) -> None:
    world = copies(tmp_path, "2024/y")
    replaced(world, "2024", "2024")
    KEPT[case](tmp_path / "out")
    before = made(world)
    for _ in range(2):
        report = world.run(prune=True)
        assert states(report)["2024"] == "blocked"
        assert "is in its way and is kept; move it away" in " ".join(report.notes)
    assert before.items() - made(world).items() <= {("2024/y", "2024/y")}
    shutil.rmtree(tmp_path / "out/2024")
    assert states(world.run(prune=True))["2024"] == "stale"
    assert world.output("2024") == "another"


def test_several_documents_take_the_place_of_one(tmp_path: Path) -> None:
    world = copies(tmp_path, "2024")
    replaced(world, "2024", "2024/x")
    world.write("inbox/2024/y", "y")
    assert world.run(prune=True).outdated == {}
    assert made(world).keys() == {"a", "b", "c", "2024/x", "2024/y"}


def test_what_a_killed_run_was_about_to_rename_goes_too(tmp_path: Path) -> None:
    world = copies(tmp_path, "2024/y")
    replaced(world, "2024", "2024")
    (tmp_path / f"out/2024/.y.0123abcd{TEMPORARY_SUFFIX}").write_text("half of it")
    assert world.run(prune=True).outdated == {}
    assert world.output("2024") == "another"


def test_what_another_item_keeps_stays(tmp_path: Path) -> None:
    world = copies(tmp_path, "2024")
    world.write("inbox/z", "z")
    world.edit("out/{{ doc.relpath }}", "out/{{ '2024/z' if doc.relpath == 'z' else doc.relpath }}")
    report = world.run(prune=True)
    assert states(report)["z"] == "blocked"
    why = "'out/2024/z' cannot be written: 'out/2024', in its way, is an output of '2024'"
    assert why in " ".join(report.notes)
    assert world.output("2024") == "2024"


def test_an_item_that_writes_a_file_and_below_it_removes_nothing_of_its_own(tmp_path: Path) -> None:
    twice = '      - {uses: files.write, with: {path: "out/{{ doc.relpath }}/n", text: n}}\n'
    text = COPIES.replace("    returns: {file: doc.relpath}", f"{twice}    returns: doc.relpath", 1)
    world = World(tmp_path, text.partition("  - id: more")[0], {"inbox/a": "a"})
    for _ in range(2):
        report = world.run(prune=True)
        assert (states(report), made(world)) == ({"a": "blocked"}, {"a": "a"})


TABLE = each_document("""\
      - {id: n, uses: prompt, with: {template: "{{ steps.text.text }}"}}
    returns: {file: doc.relpath}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
""")


@pytest.mark.parametrize(
    "paths", [("out/t.csv", "out/t.csv/t.csv"), ("out/t.csv/t.csv", "out/t.csv")]
)
def test_a_table_takes_the_place_of_its_own_former_path(
    tmp_path: Path, paths: tuple[str, str]
) -> None:
    world = copies(tmp_path, text=TABLE.replace("out/t.csv", paths[0]))
    table = (tmp_path / paths[0]).read_text()
    world.edit(*paths)
    assert world.run().outdated == {}
    assert (tmp_path / paths[1]).read_text() == table
    (origin,) = explain_path(tmp_path / paths[1], [tmp_path]).origins
    assert (origin.condition, origin.changes) == ("same", ())


def test_the_report_of_another_month_stays(tmp_path: Path) -> None:
    text = COPIES.replace("out/{{ doc.relpath }}", "out/{{ inputs.month }}")
    text = "inputs:\n  month: {type: str, default: may}\n" + text
    world = World(tmp_path, text, {"inbox/a": "a"})
    world.run()
    world.edit("out/{{ inputs.month }}", "out/{{ inputs.month }}/{{ inputs.month }}")
    report = world.run({"month": "may"}, prune=True)
    assert world.output("may") == "a", report.notes


ABSENT: dict[str, tuple[Callable[[Path], object], bool]] = {
    "nothing is there": (lambda root: None, True),
    "a file has the folder's name": (lambda root: (root / "2024").write_text("x"), True),
    "a folder has the file's": (lambda root: (root / "2024/05/y").mkdir(parents=True), True),
    "a link that leads nowhere": (lambda root: (root / "2024").symlink_to(root / "away"), False),
    "a link to a file": (lambda root: (root / "2024").symlink_to(root / "x"), True),
    "a link in a circle": (lambda root: (root / "2024").symlink_to(root / "2024"), False),
}


@pytest.mark.parametrize("case", ABSENT)
def test_a_folder_that_cannot_be_listed_proves_nothing(tmp_path: Path, case: str) -> None:
    make, is_known = ABSENT[case]
    root = tmp_path / "inbox"
    root.mkdir()
    (root / "x").write_text("x")
    make(root)
    folder = SourceFolder(root, "inbox", None, None, None)
    assert folder.cannot_list("2024/05/y") is not is_known
    assert not folder.cannot_list(f"{'long' * 100}/y\0")
