"""A step outside of blocks that only writes files has a trace, as an item has."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.settings import STATE_FOLDER
from paddock.steps.files.write import FilesWrite
from tests.runner.world import World, each_document

TABLE = """\
name: table
inputs:
  note: {type: str, default: first}
""" + each_document("""\
    returns: {file: doc.relpath, text: steps.text.text}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
  - {id: copy, uses: files.move, with: {path: "{{ steps.table.path }}", to: copies/, mode: copy}}
  - {id: note, uses: files.write, with: {path: out/note.txt, text: "{{ inputs.note }}"}}
returns: {path: steps.table.path, changed: steps.table.changed, copy: steps.copy.path}
""")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "first", TABLE, n_documents=3)
    world.run()
    return world


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths that `files.write` was asked to write, as they come."""
    paths: list[str] = []
    run = FilesWrite.run

    async def noted(self: FilesWrite, params: object, tools: object) -> object:
        paths.append(params.path)  # type: ignore[attr-defined]
        return await run(self, params, tools)  # type: ignore[arg-type]

    monkeypatch.setattr(FilesWrite, "run", noted)
    return paths


def work(plan: PlanReport) -> dict[str, tuple[str, str | None]]:
    return {item.step: (item.state, item.why) for item in plan.items if item.state != "fresh"}


def test_what_is_as_it_was_is_not_written_again(world: World, written: list[str]) -> None:
    assert work(world.plan()) == {}
    report = world.run()
    assert (written, report.written, report.returns["changed"]) == ([], (), False)
    assert (report.counts, [item.step for item in report.items]) == ({"fresh": 3}, ["each"] * 3)


@pytest.mark.parametrize(
    ("lost", "step"), [("out/t.csv", "table"), ("copies/t.csv", "copy"), ("out/note.txt", "note")]
)
def test_a_plan_names_a_lost_output_and_the_run_makes_it_again(
    world: World, lost: str, step: str
) -> None:
    before = (world.folder / lost).read_text()
    (world.folder / lost).unlink()
    assert work(world.plan()) == {step: ("stale", f"output is missing: {lost}")}
    assert world.run().counts == {"fresh": 3}
    assert (world.folder / lost).read_text() == before
    assert work(world.plan()) == {}


def test_what_an_older_paddock_wrote_is_taken_over_by_its_content(world: World) -> None:
    with closing(sqlite3.connect(world.folder / STATE_FOLDER / "ledger.sqlite")) as ledger, ledger:
        # It kept what their outputs were made of, and no state.
        ledger.execute("update items set state = null where key in ('table', 'copy', 'note')")
    paths = [world.folder / name for name in ("out/t.csv", "out/note.txt")]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]
    assert work(world.plan()) == {}
    report = world.run()
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths] == before
    assert (report.written, report.counts) == ((), {"fresh": 3})
    (world.folder / "out/t.csv").unlink()
    assert work(world.plan())["table"] == ("stale", "output is missing: out/t.csv")


def test_of_two_steps_that_write_one_file_the_second_waits_in_each_run(world: World) -> None:
    second = '  - {id: same, uses: files.write, needs: [note], with: {path: "out/{{ inputs.file }}"'
    world.edit("inputs:", "inputs:\n  file: {type: str, default: note.txt}")
    world.edit("returns: {path", f'{second}, text: "other"}}}}\nreturns: {{path')
    for _ in range(2):
        why = "'out/note.txt' is an output of step 'note'"
        (planned,) = (item for item in world.plan().items if item.state == "blocked")
        assert (planned.step, planned.why) == ("same", why)
        report = world.run()
        assert [item.error for item in report.items if item.state == "blocked"] == [why]
        assert world.output("note.txt") == "first"
    assert world.run({"file": "other.txt"}).status == "completed"


EACH = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do: [{uses: files.write, with: {path: "out/{{ doc.stem }}.md", text: "{{ doc.stem }}"}}]
"""
BLOCK = """\
  - id: other
    needs: [each]
    for_each: doc in steps.docs.files
    do:
      - {id: name, uses: prompt, with: {template: "PATH"}}
      - {uses: files.write, with: {path: "out/PATH.md", text: other}}
"""
NESTED = """\
  - id: other
    needs: [each]
    for_each: n in [1]
    do:
      - id: within
        for_each: stem in ["0"]
        do: [{uses: files.write, with: {path: "out/{{ stem }}.md", text: other}}]
"""
STEP = "  - {id: other, needs: [each], uses: files.write, with: {path: out/0.md, text: other}}\n"
OTHERS = {
    "a block": BLOCK.replace("PATH", "{{ doc.stem }}"),
    "a block whose path is known late": BLOCK.replace('template: "PATH"', 'template: "0"').replace(
        "PATH", "{{ steps.name.text }}"
    ),
    "a block within": NESTED,
    "a step": STEP,
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_would_write_the_file_of_a_fresh_item_waits_until_that_is_free(
    tmp_path: Path, name: str
) -> None:
    world = World(tmp_path, EACH, n_documents=1)
    world.run()
    world.edit(EACH, EACH + OTHERS[name])
    for _ in range(2):
        report = world.run()
        why = "'out/0.md' is an output of item '0.txt' of 'each'"
        assert why in [item.error for item in report.items if item.state == "blocked"]
        assert (report.status, world.output("0.md")) == ("completed", "0")
        if name != "a block within":
            assert why in [item.why for item in world.plan().items if item.state == "blocked"]
    world.edit('{{ doc.stem }}.md", text: "{{', 'each-{{ doc.stem }}.md", text: "{{')
    assert world.run().status == "completed"
    assert world.output("0.md") == "other"
