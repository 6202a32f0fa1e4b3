"""What a block's list is: keys that the author does not name, `where`, and `loop`."""

from pathlib import Path

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.cli.plan_text import plan_text
from tests.runner.bind.pipeline_faults import fault_of
from tests.runner.world import World, outputs, reasons, states

ROWS = """\
steps:
  - {id: table, uses: files.rows, with: {path: table.csv}}
  - id: each
    for_each: row in steps.table.rows
    do:
      - {id: sum, uses: chat, with: {prompt: "{{ row.name }} paid {{ row.amount }}"}}
    returns: {name: row.name}
returns: {names: "steps.each.results | map(attribute='name') | list"}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, ROWS, {"table.csv": "name,amount\nAnn,5\nBob,7\nAnn,5\n"})


def test_equal_rows_are_items_of_their_own_and_all_fresh_the_next_time(world: World) -> None:
    report = world.run()
    assert (report.counts, report.returns) == ({"new": 3}, {"names": ["Ann", "Bob", "Ann"]})
    assert len({item.key for item in report.items}) == 3
    assert any(item.key == f"{other.key}#2" for item in report.items for other in report.items)
    assert world.run().counts == {"fresh": 3}


def test_a_row_that_changes_makes_itself_stale_alone(world: World) -> None:
    world.run()
    world.write("table.csv", "name,amount\nAnn,6\nBob,7\nAnn,5\n")
    assert sorted(states(world.plan()).values()) == ["deleted", "new"]
    report = world.run()
    assert (report.counts["new"], report.counts["fresh"], report.calls) == (1, 2, 1)
    world.write("table.csv", "name,amount\nBob,7\nAnn,5\nAnn,6\nBob,7\n")
    report = world.run()
    assert (report.counts["new"], report.counts["fresh"], report.calls) == (1, 3, 0)


def test_a_key_that_repeats_names_itself_and_the_way_out(world: World) -> None:
    world.edit("    do:", "    key: row.name\n    do:")
    fault = fault_of(world.run)
    assert fault.message == (
        "`key: row.name` gives two items of block 'each' the same key 'Ann': number 1 and number 3."
    )
    assert fault.remedy == (
        "Write one that differs, or leave it out: items that are equal are then numbered."
    )


def test_a_file_that_is_listed_twice_is_left_out_by_unique(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        "steps:\n"
        "  - {id: docs, uses: files.scan, with: {root: inbox}}\n"
        "  - id: each\n"
        "    for_each: doc in steps.docs.files + steps.docs.files\n"
        "    do: [{id: text, uses: files.read, with: {path: '{{ doc.path }}'}}]\n",
        n_documents=2,
    )
    fault = fault_of(world.run)
    assert fault.remedy == "They are equal: leave one out, with `| unique` behind the list."
    world.edit("steps.docs.files + steps.docs.files", "(steps.docs.files * 2) | unique")
    assert world.run().counts == {"new": 2}


CHOSEN = """\
inputs: {least: {type: int, default: 0}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    where: doc.stem | int >= inputs.least
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
    returns: doc.stem
returns: {stems: steps.each.results}
"""


def test_where_leaves_items_out_before_anything_is_done_with_them(tmp_path: Path) -> None:
    world = World(tmp_path, CHOSEN, n_documents=4)
    plan = world.plan({"least": 2})
    assert states(plan) == {"0.txt": "skipped", "1.txt": "skipped", "2.txt": "new", "3.txt": "new"}
    assert plan_text(plan).splitlines()[:3] == [
        f"{tmp_path.name}: 2 of 2 items to do",
        "  each  new          2.txt, 3.txt",
        "        skipped      0.txt, 1.txt  (left out by `where`)",
    ]
    report = world.run({"least": 2})
    assert (report.counts, report.returns) == ({"new": 2}, {"stems": ["2", "3"]})
    assert outputs(world) == ["2.txt", "3.txt"]


LOOP = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    where: doc.stem != '9'
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: told, uses: prompt, with: {template: "{{ loop.index }} of {{ loop.length }}"}}
      - id: within
        for_each: part in [1, 2]
        do: [{uses: prompt, with: {template: "{{ loop.index0 }}{{ loop.last }}"}}]
    returns: [steps.told.text, "steps.within.results | map(attribute='text') | list"]
returns: {told: steps.each.results}
"""


def test_an_item_is_done_again_where_its_place_changes_and_it_reads_it(tmp_path: Path) -> None:
    world = World(tmp_path, LOOP.replace(" of {{ loop.length }}", ""))
    for name in ("b", "d"):
        world.write(f"inbox/{name}.txt", name)
    world.run()
    world.write("inbox/c.txt", "c")
    assert reasons(world.plan()) == {"c.txt": None, "d.txt": "its place in the list changed"}
    world.run()
    world.edit("{{ loop.index }}", "Hi")
    world.run()
    world.write("inbox/a.txt", "a")
    assert states(world.plan()) == {"a.txt": "new"}, "who reads no place does not mind"


def test_what_loop_and_where_cannot_mean_is_a_fault_with_its_place(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        LOOP.replace("loop.index0", "loop.previtem").replace("doc.stem != '9'", "dok.stem")
        + "tests: []\n",
    )
    with pytest.raises(PipelineError) as caught:
        world.plan()
    assert sorted(fault.message for fault in caught.value.faults) == [
        "'dok' is not known here.",
        "`loop` of a block has no 'previtem'.",
    ]
    world = World(
        tmp_path, "steps: [{uses: prompt, where: 'true', with: {template: '{{ loop.index }}'}}]\n"
    )
    with pytest.raises(PipelineError) as caught:
        world.plan()
    assert sorted(fault.message for fault in caught.value.faults) == [
        "'loop' is not known here.",
        "`where` belongs to `for_each`.",
    ]
