"""Documents that are renamed, and ones that are gone: what they cost and what they leave behind."""

from pathlib import Path

import pytest

from paddock.runner.core.outputs.pruning import Pruner
from paddock.runner.core.traces.reconcile import match_renames
from tests.runner.world import World, reasons, states


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    for name, text in (("a", "The ferry."), ("b", "The lighthouse."), ("c", "The pier.")):
        world.write(f"inbox/{name}.txt", text)
    world.run()
    return world


def rename(world: World, old: str, new: str) -> None:
    target = world.folder / "inbox" / new
    target.parent.mkdir(exist_ok=True)
    (world.folder / "inbox" / old).rename(target)


def outputs(world: World) -> list[str]:
    folder = world.folder / "out"
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_renamed_document_costs_no_call_and_leaves_no_old_output(world: World) -> None:
    before = world.output("a.txt")
    rename(world, "a.txt", "new/z.txt")
    plan = world.plan()
    assert states(plan) == {"new/z.txt": "new"}
    assert reasons(plan)["new/z.txt"] == "renamed from 'a.txt'"
    report = world.run()
    assert states(report) == {"new/z.txt": "new"}  # not also a deletion
    assert "deleted" not in report.counts
    # The digest is of another list now; of the document itself nothing was asked.
    assert (report.calls, report.cached_calls) == (1, 1)
    assert outputs(world) == ["DIGEST.md", "b.txt", "c.txt", "new/z.txt"]
    assert world.output("new/z.txt") == before
    assert list(report.notes) == [
        "renamed, so what was made of them goes by the new name: a.txt → new/z.txt",
        "removed, since what they were made of is gone: out/a.txt",
    ]
    assert not world.plan().has_work


def test_a_run_that_is_killed_after_a_renamed_document_is_done_leaves_nothing_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename(world, "a.txt", "z.txt")
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(Pruner, "handle_gone", killed)
        world.run()
    assert outputs(world) == ["DIGEST.md", "a.txt", "b.txt", "c.txt", "z.txt"]
    report = world.run()
    assert outputs(world) == ["DIGEST.md", "b.txt", "c.txt", "z.txt"]
    assert states(report) == {}
    assert world.run().notes == ()


async def killed(*_: object) -> None:
    raise RuntimeError("killed")


def test_a_renamed_document_that_fails_keeps_its_old_output(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=2)
    world.edit('path: "out/{{ doc.relpath }}"', 'path: "{{ doc.stem }}/{{ doc.relpath }}"')
    world.run()
    world.write("z", "in the way of a folder")
    rename(world, "0.txt", "z.txt")
    report = world.run()
    assert states(report) == {"z.txt": "quarantined"}
    assert (world.folder / "0/0.txt").exists()


def test_equal_contents_are_told_apart_by_their_file_names() -> None:
    gone = {"a/one.md": "1", "b/two.md": "1", "c.md": "2"}
    new = {"x/two.md": "1", "y/one.md": "1", "z.md": "1", "w.md": "3"}
    assert match_renames(gone, new) == {"x/two.md": "b/two.md", "y/one.md": "a/one.md"}
