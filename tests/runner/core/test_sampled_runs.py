"""Runs of a sample: what is done, what is left as it is, and that the full run repeats nothing."""

from pathlib import Path

import pytest

from paddock.engine.system.item_samples import ItemSample
from tests.runner.bind.pipeline_faults import fault_of
from tests.runner.world import World, each_document, states

TABLE = """\
name: table
""" + each_document("""\
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - {id: table, uses: files.write, with: {path: out/table.csv, rows: "{{ steps.each.results }}"}}
  - id: letters
    for_each: row in steps.each.results
    do:
      - {uses: files.write, with: {path: "out/{{ row.file }}", text: "{{ row.sum }}"}}
returns: {n: steps.each.results | length}
""")
NESTED = """\
name: nested
""" + each_document("""\
      - id: parts
        for_each: part in ["one", "two", "three"]
        do:
          - {id: ask, uses: chat, with: {prompt: "{{ part }}: {{ steps.text.text }}"}}
  - id: names
    for_each: doc in steps.docs.files
    do:
      - {id: name, uses: chat, with: {prompt: "Name {{ doc.relpath }}"}}
""")
INNER = """\
name: inner
inputs: {folder: {type: dir}}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: sum, uses: chat, with: {prompt: "Sum up {{ doc.relpath }}"}}
returns: {sums: steps.each.results}
"""
OUTER = """\
name: outer
steps:
  - {id: clean, uses: pipeline, with: {file: inner.yaml, inputs: {folder: ./inbox}}}
  - {id: note, uses: files.write, with: {path: out/all.txt, text: "All: {{ steps.clean.sums }}"}}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, TABLE, n_documents=10)


def _prompts(world: World) -> set[str]:
    return {str(request) for request in world.pool.chats}


def test_a_sample_is_done_alone_and_the_full_run_repeats_none_of_it(world: World) -> None:
    report = world.run(sample=ItemSample(3))
    assert report.status == "completed"
    assert (report.calls, report.counts["new"], report.counts["unsampled"]) == (3, 3, 7)
    first = _prompts(world)
    again = world.run(sample=ItemSample(3))
    assert (again.calls, again.counts) == (0, {"fresh": 3, "unsampled": 7})
    whole = world.run()
    assert (whole.calls, whole.counts["fresh"], whole.counts["new"]) == (7, 3, 7 + 10)
    assert not first & _prompts(world)
    assert whole.returns == {"n": 10}


def test_a_sampled_run_never_overwrites_the_full_table_with_a_part_of_it(world: World) -> None:
    world.run()
    table = world.output("table.csv")
    world.edit("Sum up:", "In short:")
    report = world.run(sample=ItemSample(3))
    assert report.counts["stale"] == 3
    assert report.counts["unsampled"] == 7
    assert world.output("table.csv") == table
    assert report.returns is None
    assert set(report.notes) == {
        f"'{node}' is left as it is: only some items of 'each' were done."
        for node in ("letters", "table")
    }
    assert not report.outdated
    assert not report.n_removed


def test_plan_names_the_sample_and_what_a_run_would_leave(world: World) -> None:
    plan = world.plan(sample=ItemSample(3))
    assert sorted(states(plan).values()) == ["new"] * 3 + ["unsampled"] * 7
    assert (plan.calls, plan.calls_are) == (3, "exact")
    assert list(plan.remarks) == [
        "'table' is left as it is: only some items of 'each' are in the sample.",
        "'letters' is left as it is: only some items of 'each' are in the sample.",
    ]
    done = {item.key for item in plan.items if item.state == "new"}
    report = world.run(sample=ItemSample(3))
    assert {item.key for item in report.items if item.state == "new"} == done
    assert not world.plan(sample=ItemSample(3)).has_work


def test_strata_have_their_share(world: World) -> None:
    for number in range(5):
        world.write(f"inbox/{number}.md", f"Note {number}.")
    report = world.run(sample=ItemSample(3, by="doc.suffix"))
    done = [item.key for item in report.items if item.state == "new"]
    assert sorted(key.partition(".")[2] for key in done) == ["md", "txt", "txt"]


def test_a_stratum_that_an_item_does_not_have_is_refused_before_anything_is_done(
    world: World,
) -> None:
    fault = fault_of(lambda: world.run(sample=ItemSample(3, by="item.colour")))
    assert fault.message.startswith("`--stratify item.colour`, number 1 ('")
    assert "of block 'each': " in fault.message
    assert world.pool.chats == []


def test_each_top_level_block_takes_the_same_documents_and_nested_ones_are_done_whole(
    world: World,
) -> None:
    world.text = NESTED
    world.write("pipeline.yaml", NESTED)
    report = world.run(sample=ItemSample(2))
    done = {
        step: {item.key for item in report.items if item.step == step and item.state == "new"}
        for step in ("each", "names")
    }
    assert done["each"] == done["names"]
    assert len(done["each"]) == 2
    assert report.calls == 2 * 3 + 2
    assert world.run().calls == 8 * 3 + 8


def test_a_pipeline_that_a_step_runs_takes_the_sample_and_what_reads_it_is_left(
    world: World,
) -> None:
    world.write("inner.yaml", INNER)
    world.text = OUTER
    world.write("pipeline.yaml", OUTER)
    report = world.run(sample=ItemSample(2))
    assert report.calls == 2
    assert not (world.folder / "out").exists()
    assert world.run().calls == 8
    assert world.output("all.txt").count("Sum up") == 10
