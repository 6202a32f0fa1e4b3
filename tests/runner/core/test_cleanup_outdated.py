"""Outputs that no longer apply: named by plans and runs, explained, removed where that is asked."""

from pathlib import Path
from typing import Any

import pytest

from paddock.runner.bind.item_paths import paths_depend_on_item_alone
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.reasons import Outdated
from tests.runner.world import ReviewedWorld, World, each_document, outputs

PAGES = each_document("""\
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
""")
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


BROKEN = """\
      - {uses: prompt, with: {template: "{{ 1 / (0 if doc.name == 'a' else 1) }}"}}
"""
SKIPPED = '    if: "false"\n    for_each: doc in'


@pytest.mark.parametrize(
    ("old", "new", "outdated", "why_of_first"),
    [
        ("      - {id: kind", f"{BROKEN}      - {{id: kind", {"out/a": Outdated.NOT_MADE},
         "it is no longer an output: run '{run}' quarantined its item"),
        ("length > 1", "length > 5", {"out/INDEX": Outdated.SKIPPED},
         "`if` changed (step 'index')"),
        ("    for_each: doc in", SKIPPED,
         dict.fromkeys(("out/INDEX", "out/a", "out/b", "out/c"), Outdated.SKIPPED),
         "it no longer applies: its step is skipped now"),
        (PAGES[PAGES.index("  - id: index") :], "", {"out/INDEX": Outdated.NO_STEP},
         "the pipeline no longer has 'index'"),
    ],
    ids=["its item fails", "its step is skipped", "its block is skipped", "its step is gone"],
)  # fmt: skip
def test_why_an_output_is_outdated_is_told_with_it(
    world: World, old: str, new: str, outdated: dict[str, Outdated], why_of_first: str
) -> None:
    world.edit(old, new)
    report = world.run()
    assert report.outdated == world.plan().outdated == world.run().outdated == outdated
    run, changes = why(world, next(iter(outdated)))
    assert run != report.run
    assert why_of_first.format(run=report.run) in changes


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


PARTS = each_document("""\
      - id: part
        uses: pipeline
        with: {file: part.yaml, inputs: {name: "{{ doc.stem }}", month: MAY}}
  - id: top
    uses: pipeline
    with: {file: part.yaml, inputs: {name: top, month: MAY}}
""")
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


GONE = dict.fromkeys(["out/a"], Outdated.GONE)


def rename(folder: Path) -> None:
    (folder / "inbox/a").rename(folder / "inbox/d")


def test_what_was_edited_is_neither_removed_nor_said_to_be(world: World) -> None:
    rename(world.folder)
    world.write("out/a", "my own words")
    plan, report = world.plan(), world.run()
    assert dict(plan.removed) == {} and dict(plan.outdated) == dict(report.outdated) == GONE
    assert "a" in outputs(world)


def test_a_renamed_document_that_waits_for_review_keeps_what_was_made_of_it(tmp_path: Path) -> None:
    world = pages(tmp_path)
    world.run()
    rename(tmp_path)
    review = "with: {prompt: \"{{ steps.text.text }}\"}, review: {when: doc.name == 'd'}"
    world.edit('with: {prompt: "{{ steps.text.text }}"}', review)
    assert world.run().counts["waiting"] == 1
    assert "a" in outputs(world)
