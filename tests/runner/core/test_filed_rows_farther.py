"""Tables over what was made of a block's results keep the rows of filed documents, too."""

import csv
import shutil
from pathlib import Path

import pytest

from paddock.engine.errors import BadRequest
from paddock.engine.request import ChatRequest
from tests.fakes.pool import FakePool
from tests.runner.core.filing_shapes import pipeline_files
from tests.runner.world import World

DIGEST = """\
  - {id: digest, uses: chat, with: {prompt: "All: {{ RESULTS }}"}}
  - {id: report, uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
"""


def world_of(folder: Path, shape: str) -> World:
    files = pipeline_files(shape)
    return World(folder, files.pop("pipeline.yaml"), beside=files)


def arrive(world: World, *names: str) -> None:
    for name in names:
        world.write(f"inbox/{name}", f"Letter {name}")


def rows(world: World) -> list[str]:
    return [row["file"] for row in csv.DictReader(world.output("t.csv").splitlines())]


def prompts(world: World) -> list[str]:
    return sorted(request.messages[-1].content for request in world.pool.chats)


def test_a_table_counts_filed_documents_among_those_that_are_done(tmp_path: Path) -> None:
    world = world_of(tmp_path, "plain")
    world.text += (
        "  - uses: files.write\n"
        "    with: {path: out/n.csv, rows: '{{ [{\"n\": steps.each.counts.done}] }}'}\n"
    )
    world = World(tmp_path, world.text)
    for n, names in enumerate((["a.txt"], ["b.txt", "c.txt"], [], ["d.txt"])):
        arrive(world, *names)
        world.run()
        assert world.output("n.csv").split() == ["n", str((1, 3, 3, 4)[n])]


RESULTS = {
    "plain": "steps.each.results",
    "second": "steps.second.results",
    "sub": "steps.sub.rows",
} | {"sub_in_block": "steps.folders.results"}


@pytest.mark.parametrize("shape", RESULTS)
def test_what_is_no_table_has_what_is_new(tmp_path: Path, shape: str) -> None:
    world = world_of(tmp_path, shape)
    world.text += DIGEST.replace("RESULTS", RESULTS[shape])
    arrive(world, "a.txt")
    world = World(tmp_path, world.text)
    world.run()
    arrive(world, "b.txt")
    world.run()
    (digest,) = [prompt for prompt in prompts(world) if prompt.startswith("All")]
    assert ("a.txt" in digest, "b.txt" in digest) == (False, True)
    made = world.output("DIGEST.md")
    plan = world.plan()
    report = world.run()
    assert (report.calls, report.written, world.output("DIGEST.md")) == (0, (), made)
    if shape != "sub_in_block":  # whose item is looked into once more
        assert not plan.has_work


def test_a_second_block_that_is_added_or_changed_takes_what_is_filed(tmp_path: Path) -> None:
    world = world_of(tmp_path, "plain")
    arrive(world, "a.txt", "b.txt")
    world.run()
    shutil.rmtree(tmp_path / "filed")  # it is not needed again
    world = world_of(tmp_path, "second")
    world.run()
    assert (rows(world), prompts(world)) == (
        ["a.txt", "b.txt"],
        ["second Letter a.txt", "second Letter b.txt"],
    )
    world.edit("second {{", "2nd {{")
    report = world.run()
    assert (rows(world), prompts(world)) == (
        ["a.txt", "b.txt"],
        ["2nd Letter a.txt", "2nd Letter b.txt"],
    )
    assert report.filed.of_earlier_version == 0


def test_equal_results_of_two_documents_are_two_rows(tmp_path: Path) -> None:
    world = world_of(tmp_path, "second")
    world.edit(
        "{file: doc.relpath, text: steps.text.text, kind: steps.kind.text}",
        "{file: \"'same'\", text: \"'same'\"}",
    )
    for names in (["b.txt", "c.txt"], ["a.txt"], ["d.txt"]):
        arrive(world, *names)
        world.run()
        world.run()
    assert rows(world) == ["same"] * 4


def test_filed_items_that_are_done_again_have_each_a_place(tmp_path: Path) -> None:
    world = world_of(tmp_path, "plain")
    world.edit("kind: steps.kind.text", "kind: loop.index")
    arrive(world, "a.txt", "b.txt")
    world.run()
    world.edit("Kind of", "What is")
    arrive(world, "c.txt")
    assert world.run().calls == 3
    table = csv.DictReader(world.output("t.csv").splitlines())
    assert [(row["file"], row["kind"]) for row in table] == [
        ("a.txt", "2"),
        ("b.txt", "3"),
        ("c.txt", "1"),
    ]


MOVED_BY_THE_SECOND = """\
name: letters
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do: [{id: text, uses: files.read, with: {path: "{{ doc.path }}"}}]
    returns: {file: doc.relpath, path: doc.path}
  - id: second
    for_each: r in steps.each.results
    do:
      - {id: again, uses: files.read, with: {path: "{{ r.path }}"}}
      - {id: more, uses: chat, with: {prompt: "More {{ steps.again.text }}"}}
      - {id: move, uses: files.move, with: {path: "{{ r.path }}", to: "filed/{{ r.file }}"}}
    returns: {file: r.file, text: steps.again.text, more: steps.more.text}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.second.results }}"}}
"""


@pytest.mark.parametrize("digest", ["", ", sha256: doc.sha256"])
def test_a_second_block_may_be_the_one_that_moves_documents(tmp_path: Path, digest: str) -> None:
    text = MOVED_BY_THE_SECOND.replace("path: doc.path", f"path: doc.path{digest}")
    world = World(tmp_path, text)
    arrive(world, "a.txt", "b.txt")
    world.run()
    for letter in ("another", "a third"):
        world.write("inbox/a.txt", letter)
        report = world.run()
        assert report.status == "completed", report.message
    assert rows(world) == ["a.txt", "a.txt", "a.txt", "b.txt"]
    assert not [*(tmp_path / "inbox").iterdir()]
    world.edit("More", "Still more")
    report = world.run()
    texts = [row["text"] for row in csv.DictReader(world.output("t.csv").splitlines())]
    assert texts == ["Letter a.txt", "another", "a third", "Letter b.txt"]


def test_a_farther_item_that_fails_is_tried_again_until_it_has_its_row(tmp_path: Path) -> None:
    world = world_of(tmp_path, "second")
    arrive(world, "a.txt", "b.txt")

    def fail(request: ChatRequest) -> str:
        if "second Letter a" in request.messages[-1].content:
            raise BadRequest("not this one")
        return "fine"

    report = world.run(pool=FakePool(answer=fail))
    assert (rows(world), report.counts["quarantined"]) == (["b.txt"], 1)
    arrive(world, "c.txt")
    world.run(retry_failed=True)
    assert rows(world) == ["a.txt", "b.txt", "c.txt"]


def test_the_table_of_a_report_has_an_item_once_though_documents_within_it_are_filed(
    tmp_path: Path,
) -> None:
    world = world_of(tmp_path, "sub_in_block")
    arrive(world, "a.txt")
    for state in ("new", "stale", "fresh"):
        table = world.run(keeps_tables=True).tables["folders"]
        assert [row["item_state"] for row in table.rows] == [state]
