"""Outputs that no longer apply: named by plans and runs, explained, removed where that is asked."""

from pathlib import Path
from typing import Any

import pytest

from paddock.runner.bind.specs import paths_depend_on_item_alone
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.reasons import Outdated
from tests.runner.world import ReviewedWorld, World, outputs

PAGES = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: kind, uses: chat, with: {prompt: "{{ steps.text.text }}"}}
      - id: page
        uses: files.write
        if: "'keep' in steps.text.text"
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.kind.text }}"}
    returns: doc.relpath
  - id: index
    uses: files.write
    if: steps.each.results | length > 1
    with: {path: out/INDEX, text: "{{ steps.each.results | join(' ') }}"}
"""
UNASKED = "'kind': 1 answer not asked for, since only 'page' uses it and is skipped (a)."


def pages(folder: Path, text: str = PAGES) -> ReviewedWorld:
    return ReviewedWorld(folder, text, {f"inbox/{name}": f"keep {name}" for name in "abc"})


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = pages(tmp_path)
    assert world.run().outdated == {}
    return world


def why(world: World, name: str) -> tuple[str, list[str]]:
    (origin,) = explain_path(world.folder / name, [world.folder]).origins
    return origin.run, [change.what for change in origin.changes]


def test_a_step_whose_condition_became_false_leaves_an_outdated_file(world: World) -> None:
    (first,) = {why(world, "out/a")[0]}
    world.write("inbox/a", "drop")
    report = world.run()
    assert report.outdated == {"out/a": Outdated.NOT_MADE}
    assert report.notes == (
        UNASKED,
        "kept, though their items no longer make them: out/a (`--prune` removes)",
    )
    assert report.done_in_words() == "1 output no longer applies and is kept"
    again, plan = world.run(), world.plan()
    assert again.outdated == plan.outdated == report.outdated
    assert plan.remarks == again.notes == report.notes[1:]
    assert not plan.has_work
    run, changes = why(world, "out/a")
    assert run == first
    now = f"it is no longer an output: since run '{report.run}' its item writes nothing here"
    assert changes[0] == now
    pruned = world.run(prune=True)
    assert pruned.notes == ("removed, since their items no longer make them: out/a",)
    assert (pruned.n_removed, pruned.outdated, outputs(world)) == (1, {}, ["INDEX", "b", "c"])
    world.write("inbox/a", "keep a")
    world.run()
    assert outputs(world) == ["INDEX", "a", "b", "c"]


def test_so_does_an_item_that_fails_and_why_says_so(world: World) -> None:
    broken = "\"{{ 1 / (0 if doc.name == 'a' else 1) }}\""
    fails = f"      - {{uses: prompt, with: {{template: {broken}}}}}\n"
    world.edit("      - {id: kind", fails + "      - {id: kind")
    report = world.run()
    assert report.counts["quarantined"] == 1
    assert report.outdated == world.run().outdated == {"out/a": Outdated.NOT_MADE}
    run, changes = why(world, "out/a")
    assert run != report.run
    assert changes[0] == f"it is no longer an output: run '{report.run}' quarantined its item"
    world.run(prune=True)
    assert outputs(world) == ["INDEX", "b", "c"]


def test_so_does_a_step_of_its_own_that_is_skipped(world: World) -> None:
    world.edit("length > 1", "length > 5")
    report = world.run()
    assert report.outdated == world.plan().outdated == {"out/INDEX": Outdated.SKIPPED}
    run, changes = why(world, "out/INDEX")
    assert run != report.run
    assert changes[0] == "`if` changed (step 'index')"
    world.run(prune=True)
    assert outputs(world) == ["a", "b", "c"]


def test_and_a_block_that_is_skipped(world: World) -> None:
    world.edit("    for_each: doc in", '    if: "false"\n    for_each: doc in')
    report = world.run()
    files = ["out/INDEX", "out/a", "out/b", "out/c"]
    assert report.outdated == dict.fromkeys(files, Outdated.SKIPPED)
    assert world.plan().outdated == report.outdated
    assert "it no longer applies: its step is skipped now" in why(world, "out/a")[1]
    world.edit('    if: "false"\n', "")
    assert world.run().outdated == {}
    world.edit("    for_each: doc in", '    if: "false"\n    for_each: doc in')
    world.run(prune=True)
    assert outputs(world) == []


def test_and_a_step_or_block_that_was_renamed_or_removed(world: World) -> None:
    world.edit("id: each", "id: every")
    world.edit("steps.each", "steps.every")
    assert world.run().outdated == {}  # the new one writes the same files
    world.edit("out/{{ doc.relpath }}", "out/{{ doc.relpath }}.md")
    start = world.text.index("  - id: index")
    world.edit(world.text[start:], "")
    report = world.run()
    assert report.outdated.keys() == {"out/a", "out/b", "out/c", "out/INDEX"}
    assert report.outdated["out/INDEX"] == Outdated.NO_STEP
    world.run(prune=True)
    assert outputs(world) == ["a.md", "b.md", "c.md"]


@pytest.mark.parametrize(
    ("path", "uses", "is_alone"),
    [
        ("out/{{ doc.stem }}", "prompt", True),
        ("out/{{ steps.kind.text }}", "prompt", True),
        ("{{ inputs.out }}/{{ doc.stem }}", "prompt", True),
        ("out/{{ inputs.month }}/{{ doc.stem }}", "prompt", False),
        ("out/{{ steps.kind.text }}", "run", False),  # it may be today's date
        ("out/{{ steps.kind.text }}", "tool", False),
        ("out/{{ steps.docs.root }}/{{ doc.stem }}", "prompt", False),
        ("out/{{ broken", "prompt", False),
    ],
)
def test_a_path_that_names_more_than_its_item_belongs_to_another_report(
    path: str, uses: str, *, is_alone: bool
) -> None:
    spec: dict[str, Any] = {
        "blocks": {"each": {"for_each": "doc in steps.docs.files"}},
        "steps": {
            "kind": {"uses": uses, "with": {"template": "{{ doc.name }}"}},
            "page": {"uses": "files.write", "with": {"path": path, "text": "x"}},
        },
    }
    assert paths_depend_on_item_alone(spec, ["out"]) == is_alone


PARTS = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: part
        uses: pipeline
        with: {file: part.yaml, inputs: {name: "{{ doc.stem }}", month: MAY}}
  - id: top
    uses: pipeline
    with: {file: part.yaml, inputs: {name: top, month: MAY}}
"""
PART = """\
inputs: {name: {type: str, required: true}, month: {type: str, required: true}}
steps:
  - {id: say, uses: prompt, with: {template: "part {{ inputs.name }}"}}
  - id: page
    uses: files.write
    with: {path: "out/{{ inputs.name }}", text: "{{ steps.say.text }}"}
returns: steps.say.text
"""
CALL = PARTS[PARTS.index("      - id: part") : PARTS.index("  - id: top")]


def test_a_pipeline_that_is_given_more_than_its_item_writes_another_report(tmp_path: Path) -> None:
    text = "inputs: {month: str}\n" + PARTS.replace("MAY", '"{{ inputs.month }}"')
    part = PART.replace("out/", "out/{{ inputs.month }}-")
    world = World(tmp_path, text, {"part.yaml": part, "inbox/a.txt": "one"})
    world.run({"month": "MAY"})
    assert world.run({"month": "JUNE"}).outdated == {}
    world.edit(CALL.replace("MAY", '"{{ inputs.month }}"'), "")
    assert world.run({"month": "JUNE"}, prune=True).outdated == {}
    assert outputs(world) == ["JUNE-a", "JUNE-top", "MAY-a", "MAY-top"]


def test_a_watch_removes_what_one_item_no_longer_makes_and_asks_before_most_of_them_go(
    tmp_path: Path,
) -> None:
    world = pages(tmp_path, "on: {watch: {path: inbox, deletes: prune}}\n" + PAGES)
    world.run()
    world.write("inbox/a", "drop")
    removed = "removed, since their items no longer make them: out/a"
    assert world.run().notes == (UNASKED, removed)
    world.edit("'keep' in", "'other' in")
    report = world.run()
    assert report.outdated.keys() == {"out/b", "out/c"}
    assert "2 of 3 items of 'each' no longer make any output" in report.notes[1]
    assert outputs(world) == ["INDEX", "b", "c"]
    world.run(prune=True)
    assert outputs(world) == ["INDEX"]


def test_an_item_that_waits_for_review_decides_nothing_and_a_rejected_one_does(
    tmp_path: Path,
) -> None:
    world = pages(tmp_path)
    world.run()
    reviewed = 'prompt: "{{ steps.text.text }}"}, review: {when: "\'doubt\' in text"}}'
    world.edit('prompt: "{{ steps.text.text }}"}}', reviewed)
    world.run()
    world.write("inbox/a", "keep a doubt")
    report = world.run()
    assert (report.counts["waiting"], report.outdated) == (1, {})
    run, changes = why(world, "out/a")
    assert run != report.run
    assert changes[0] == (
        f"it is of an earlier answer: since run '{report.run}' its item waits for review"
    )
    assert world.run(prune=True).outdated == {}
    assert "a" in outputs(world)
    world.decide("a", "reject", reason="no")
    report = world.run()
    assert report.counts["quarantined"] == 1
    assert report.outdated == {"out/a": Outdated.NOT_MADE}
    world.run(prune=True)
    assert "a" not in outputs(world)
