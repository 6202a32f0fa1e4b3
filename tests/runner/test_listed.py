"""The keys of items that the author does not name: rows that are equal, and rows that change."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.pipelines.errors import PipelineError
from tests.runner.world import World, states

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
    world = World(tmp_path, ROWS)
    world.write("table.csv", "name,amount\nAnn,5\nBob,7\nAnn,5\n")
    return world


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
    with pytest.raises(PipelineError) as caught:
        world.run()
    (fault,) = caught.value.faults
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
    )
    world.documents(2)
    with pytest.raises(PipelineError) as caught:
        world.run()
    (fault,) = caught.value.faults
    assert fault.remedy == "They are equal: leave one out, with `| unique` behind the list."
    world.edit("steps.docs.files + steps.docs.files", "(steps.docs.files * 2) | unique")
    assert world.run().counts == {"new": 2}
