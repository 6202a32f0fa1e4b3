"""Filed documents: what a step moved away keeps its rows; a run with nothing new writes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.engine.backends.neutral_request import NEUTRAL_TEXT
from paddock.engine.errors import BadRequest
from paddock.engine.request import ChatRequest
from tests.fakes.pool import FakePool
from tests.runner.world import World, states

FILING = """\
name: letters
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: kind, uses: chat, with: {prompt: "Kind of {{ steps.text.text }}"}}
      - {id: move, uses: files.move, with: {path: "{{ doc.path }}", to: "filed/{{ doc.relpath }}"}}
    returns: {file: doc.relpath, kind: steps.kind.text}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
"""
DIGEST = """\
  - {id: digest, uses: chat, with: {prompt: "All: {{ steps.each.results }}"}}
  - {id: report, uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
  - id: number
    uses: files.write
    with: {path: out/n.txt, text: "n={{ steps.each.results | length }}"}
returns: {counts: steps.each.counts}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, FILING)


def arrive(world: World, *names: str) -> None:
    for name in names:
        world.write(f"inbox/{name}", f"Letter {name}")


def rows(world: World, table: str = "t.csv") -> list[str]:
    """Return the first cell of each row."""
    return [line.partition(",")[0] for line in world.output(table).splitlines()[1:]]


def test_a_table_keeps_the_rows_of_documents_that_a_step_moved_away(world: World) -> None:
    arrive(world, "b.txt", "d.txt")
    world.run()
    arrive(world, "a.txt", "c.txt")
    report = world.run()
    assert rows(world) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert not report.counts.get("deleted")
    asked = [request.messages[-1].content for request in world.pool.chats]
    assert sorted(asked) == ["Kind of Letter a.txt", "Kind of Letter c.txt"]


def test_a_run_with_nothing_new_writes_nothing(world: World) -> None:
    world.text += DIGEST
    world.write("pipeline.yaml", world.text)
    arrive(world, "a.txt", "b.txt")
    world.run()
    made = {path: path.stat().st_mtime_ns for path in (world.folder / "out").iterdir()}
    plan = world.plan()
    report = world.run()
    assert rows(world) == ["a.txt", "b.txt"]
    assert {path: path.stat().st_mtime_ns for path in (world.folder / "out").iterdir()} == made
    assert (report.calls, report.written, report.acted) == (0, (), ())
    left = "'digest' is left as it is: nothing is new in 'each'."
    assert left in report.notes
    assert left in plan.remarks
    assert not plan.has_work
    assert report.returns == {"counts": dict.fromkeys(report.returns["counts"], 0)}


def test_what_is_no_table_sees_what_is_new(world: World) -> None:
    world.text += DIGEST
    world.write("pipeline.yaml", world.text)
    arrive(world, "a.txt", "b.txt")
    world.run()
    arrive(world, "c.txt")
    world.run()
    assert rows(world) == ["a.txt", "b.txt", "c.txt"]
    assert world.output("n.txt") == "n=1"
    assert "a.txt" not in world.output("DIGEST.md")
    assert "c.txt" in world.output("DIGEST.md")


def test_an_expression_over_the_rows_sees_those_of_filed_documents(world: World) -> None:
    world.edit(
        "steps.each.results }}",
        "steps.each.results | rejectattr('file', 'equalto', 'a.txt') | list }}",
    )
    arrive(world, "a.txt", "b.txt")
    world.run()
    arrive(world, "c.txt")
    world.run()
    assert rows(world) == ["b.txt", "c.txt"]


@pytest.mark.parametrize("prune", [False, True])
def test_a_filed_document_that_is_moved_on_or_removed_keeps_its_row(
    world: World, *, prune: bool
) -> None:
    arrive(world, "a.txt", "b.txt", "c.txt")
    world.run()
    (world.folder / "filed").rename(world.folder / "2026")
    arrive(world, "d.txt")
    world.run(prune=prune)
    assert rows(world) == ["a.txt", "b.txt", "c.txt", "d.txt"]


def test_a_document_that_a_person_deleted_is_not_filed(world: World) -> None:
    world.edit(
        '"filed/{{ doc.relpath }}"}}', '"filed/{{ doc.relpath }}"}, if: "doc.stem != \'b\'"}'
    )
    arrive(world, "a.txt", "b.txt", "c.txt")
    world.run()
    (world.folder / "inbox/b.txt").unlink()
    report = world.run()
    assert states(report) == {"b.txt": "deleted"}
    assert rows(world) == ["a.txt", "c.txt"]


def test_filed_rows_are_written_where_all_that_is_new_fails(world: World) -> None:
    arrive(world, "a.txt", "b.txt")
    world.run()
    (world.folder / "out/t.csv").unlink()
    arrive(world, "c.txt")
    report = world.run(pool=FakePool(answer=refuse))
    assert report.counts["quarantined"] == 1
    assert rows(world) == ["a.txt", "b.txt"]


def refuse(request: ChatRequest) -> str:
    if request.messages[-1].content == NEUTRAL_TEXT:
        return "yes"
    raise BadRequest("no")
