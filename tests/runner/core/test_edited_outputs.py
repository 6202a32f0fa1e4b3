"""Outputs that were edited, or are not ours: held, and told in every run until they are ours."""

from pathlib import Path

import pytest

from paddock.runner.cli.plan_text import plan_text
from paddock.runner.cli.run_summary import closing_lines
from paddock.runner.progress.report import Report
from tests.runner.world import World, states

REMEDY = "To have ours, delete the outputs, set `on_edited: overwrite`, or run again with `--take`."


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, n_documents=3)


def whys(report: Report) -> dict[str, str | None]:
    return {item.key: item.why for item in report.items if item.state == "held"}


def planned(world: World, step: str = "each") -> dict[str, str]:
    items = world.plan().items
    return {item.key: item.state for item in items if item.step == step and item.state != "fresh"}


def test_an_edited_output_is_held_in_every_run_and_plan(world: World) -> None:
    world.run()
    world.write("out/1.txt", "Mine.")
    for _ in range(2):
        report = world.run()
        assert report.counts == {"fresh": 3, "held": 1}
        assert (report.status, report.exit_status(), report.calls) == ("completed", 0, 0)
        assert whys(report) == {"1.txt": "edited, or not ours, and kept: out/1.txt"}
        assert "edited, or not ours, and kept: out/1.txt" in report.notes
        assert planned(world) == {"1.txt": "held"}
        assert not world.plan().has_work
    assert world.output("1.txt") == "Mine."


def test_a_changed_prompt_is_computed_once_and_its_kept_outputs_stay_held(world: World) -> None:
    world.run()
    world.write("out/1.txt", "Mine.")
    for prompt, before in (("Summarise:", "Sum up:"), ("In short:", "Summarise:")):
        world.edit(before, prompt)
        assert planned(world) == {"0.txt": "stale", "1.txt": "stale", "2.txt": "stale"}
        report = world.run()
        assert states(report)["1.txt"] == "held"
        assert len(world.pool.chats) == 4  # the documents and the digest
        again = world.run()
        assert whys(again) == {"1.txt": "edited, or not ours, and kept: out/1.txt"}
        assert not world.pool.chats
        assert planned(world) == {"1.txt": "held"}
    assert world.output("1.txt") == "Mine."
    assert "In short:" in world.output("0.txt")


def held_of_two_kinds(world: World) -> None:
    """Leave one output edited with nothing newer to write, and one that was never ours."""
    world.write("out/2.txt", "Never yours.")
    world.run()
    world.write("out/1.txt", "Mine.")
    assert {*whys(world.run())} == {"1.txt", "2.txt"}


def test_a_held_output_that_is_deleted_is_written_without_a_call(world: World) -> None:
    held_of_two_kinds(world)
    for name in ("1.txt", "2.txt"):
        (world.folder / "out" / name).unlink()
    assert planned(world) == {"1.txt": "stale", "2.txt": "stale"}
    assert world.plan().calls == 0
    report = world.run()
    assert (report.counts["stale"], len(world.pool.chats)) == (2, 0)
    assert "Document 1" in world.output("1.txt") and "Document 2" in world.output("2.txt")
    assert not whys(world.run())


def test_take_replaces_what_is_held_without_a_call(world: World) -> None:
    held_of_two_kinds(world)
    report = world.run(takes_over=True, only=["1.txt"])
    assert states(report) == {"1.txt": "stale", "2.txt": "held"}
    assert report.written == (str(world.folder / "out/1.txt"),)
    assert "Document 1" in world.output("1.txt") and world.output("2.txt") == "Never yours."
    report = world.run(takes_over=True)
    assert (states(report)["2.txt"], len(world.pool.chats)) == ("stale", 0)
    assert "Document 2" in world.output("2.txt")
    assert not whys(world.run())


def test_overwrite_replaces_what_is_held(world: World) -> None:
    held_of_two_kinds(world)
    world.edit("{uses: files.write, with: {", "{uses: files.write, with: {on_edited: overwrite, ")
    report = world.run()
    assert "Document 1" in world.output("1.txt") and "Document 2" in world.output("2.txt")
    assert not whys(report) and not world.pool.chats
    world.write("out/1.txt", "Mine again.")
    assert planned(world) == {"1.txt": "stale"}
    assert world.plan().calls == 0
    world.run()
    assert "Document 1" in world.output("1.txt")


def test_a_person_is_told_what_is_held_and_the_ways_out(world: World) -> None:
    held_of_two_kinds(world)
    assert plan_text(world.plan()).splitlines() == [
        "summaries: nothing to do",
        "  each    fresh        1 item",
        "          held         1.txt, 2.txt"
        "  (outputs were edited, or others wrote them, and are kept)",
        "  digest  fresh        1 item",
        REMEDY,
    ]
    assert closing_lines(world.run(), fail_hint="")[1:4] == (
        "Held 2 items: 1.txt, 2.txt. Outputs were edited, or others wrote them, and are kept.",
        f"  {REMEDY}",
        "Nothing failed.",
    )
