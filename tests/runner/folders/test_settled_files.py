"""A run that a watch began takes what has settled, and leaves what is still being written."""

import os
from pathlib import Path

import pytest

from paddock.runner.folders.file_versions import FileVersion, file_version_at
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.report import Report
from tests.runner.world import World, each_document

COPIES = """\
name: copies
on:
  watch: {path: inbox, deletes: prune, include: ["*.txt"]}
""" + each_document("""\
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
""")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, COPIES)


def note(world: World, **rows: tuple[int, int]) -> None:
    """Note what the watch has handled."""
    files = {f"{name}.txt": row for name, row in rows.items()}
    with Ledger(world.folder / ".paddock") as ledger:
        ledger.record_watched("pipeline.yaml:inbox", "", files)


def run_by(world: World, trigger: str, ordered: tuple[FileVersion, ...] | None = None) -> Report:
    return world.run(trigger=trigger, ordered_files=ordered)


def watched_run(world: World, *names: str) -> Report:
    """Run an order of these files as they are now."""
    root = world.folder / "inbox"
    found = [file_version_at(str(root / name), name) for name in names]
    return run_by(world, "watch inbox", tuple(seen for seen in found if seen is not None))


def outputs(world: World) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((world.folder / "out").iterdir())}


def test_what_has_not_settled_is_left_for_the_next_run(world: World) -> None:
    world.write("inbox/a.txt", "whole")
    world.write("inbox/b.txt", "half")
    watched_run(world, "a.txt")
    assert outputs(world) == {"a.txt": "whole"}
    report = watched_run(world, "b.txt")
    assert outputs(world) == {"a.txt": "whole", "b.txt": "half"}
    assert dict(report.counts) == {"fresh": 1, "new": 1}


@pytest.mark.parametrize("change", ["longer", "as long", "touched", "replaced"])
def test_another_version_than_that_of_the_order_is_left(world: World, change: str) -> None:
    path = world.write("inbox/a.txt", "first")
    ordered = file_version_at(str(path), "a.txt")
    assert ordered is not None
    if change == "longer":
        path.write_text("first, and more")
    elif change == "as long":
        path.write_text("other")
    elif change == "replaced":
        path.with_suffix(".tmp").write_text("other")
        path.with_suffix(".tmp").rename(path)
    os.utime(path, ns=(ordered.mtime_ns, ordered.mtime_ns))
    run_by(world, "watch inbox", (ordered,))
    assert not (world.folder / "out").exists()
    watched_run(world, "a.txt")
    assert outputs(world) == {"a.txt": path.read_text()}


def test_what_is_being_rewritten_is_not_taken_for_deleted(world: World) -> None:
    seen = file_version_at(str(world.write("inbox/a.txt", "first")), "a.txt")
    assert seen is not None
    watched_run(world, "a.txt")
    note(world, a=seen.identity)
    world.write("inbox/a.txt", "second, not who")
    world.write("inbox/b.txt", "another")
    report = watched_run(world, "b.txt")
    assert outputs(world) == {"a.txt": "first", "b.txt": "another"}
    assert dict(report.counts) == {"new": 1}


@pytest.mark.parametrize("trigger", ["hand", "schedule 0 6 * * *"])
def test_another_way_to_begin_a_run_takes_everything(world: World, trigger: str) -> None:
    world.write("inbox/a.txt", "whole")
    run_by(world, trigger)
    assert outputs(world) == {"a.txt": "whole"}
