"""`deletes: prune`: what was made of a deleted document goes; what a person edited stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.watch.spec import UNKNOWN
from tests.runner.world import World

COPIES = """\
name: copies
on:
  watch: {path: inbox, deletes: prune}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - uses: files.write
        with: {path: "out/{{ doc.stem }}.md", text: "{{ steps.text.text }}!"}
      - id: parts
        for_each: n in [1, 2]
        do:
          - uses: files.write
            with: {path: "out/{{ doc.stem }}-{{ n }}.md", text: "{{ steps.text.text }}!"}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, COPIES)
    world.documents(3)
    world.run()
    return world


def outputs(world: World) -> list[str]:
    return sorted(path.name for path in (world.folder / "out").iterdir())


ONE, TWO, ZERO = ([f"{n}-1.md", f"{n}-2.md", f"{n}.md"] for n in (1, 2, 0))


def test_what_was_made_of_a_deleted_document_is_removed_nested_blocks_too(world: World) -> None:
    (world.folder / "inbox/0.txt").unlink()
    report = world.run()
    assert outputs(world) == sorted(ONE + TWO)
    assert report.counts["deleted"] == 1
    assert list(report.notes) == [
        "removed, since what they were made of is gone: out/0-1.md, out/0-2.md, out/0.md"
    ]
    again = world.run()
    assert "deleted" not in again.counts
    assert again.notes == ()


def test_what_somebody_edited_is_kept_and_said_so(world: World) -> None:
    (world.folder / "inbox/0.txt").unlink()
    world.write("out/0.md", "my own words")
    report = world.run()
    assert outputs(world) == sorted(["0.md", *ONE, *TWO])
    assert "edited by hand, and kept though its source is gone: out/0.md" in report.notes


def test_a_document_that_comes_back_is_done_again(world: World) -> None:
    text = (world.folder / "inbox/0.txt").read_text()
    (world.folder / "inbox/0.txt").unlink()
    world.run()
    world.write("inbox/0.txt", text)
    world.run()
    assert outputs(world) == sorted(ZERO + ONE + TWO)
    (world.folder / "inbox/0.txt").unlink()
    assert world.run().counts["deleted"] == 1
    assert outputs(world) == sorted(ONE + TWO)


def test_a_file_that_another_document_writes_now_is_kept(world: World) -> None:
    (world.folder / "inbox/0.txt").rename(world.folder / "inbox/0.text")
    world.run()
    assert outputs(world) == sorted(ZERO + ONE + TWO)


def test_an_empty_folder_may_not_be_mounted_so_nothing_is_removed(world: World) -> None:
    for path in (world.folder / "inbox").iterdir():
        path.unlink()
    for _ in range(2):
        report = world.run()
        assert len(outputs(world)) == 9
        assert "deleted" not in report.counts
        assert list(report.notes) == [
            "docs: inbox: no file is there.",
            "nothing is left in 'inbox': what was made of what it held is kept, in case "
            "something is not mounted",
        ]


def test_what_the_watch_itself_has_found_gone_is_believed(world: World) -> None:
    for path in (world.folder / "inbox").iterdir():
        path.unlink()
    with Ledger(world.folder / ".paddock") as ledger:
        ledger.record_watched("pipeline.yaml:inbox", "", {"0.txt": UNKNOWN, "1.txt": (1, 1)})
    world.run()
    assert outputs(world) == sorted(ONE + TWO)


@pytest.mark.parametrize("watch", ["{path: inbox}", "{path: other, deletes: prune}"])
def test_without_being_asked_nothing_is_removed(tmp_path: Path, watch: str) -> None:
    world = World(tmp_path, COPIES.replace("{path: inbox, deletes: prune}", watch))
    world.documents(2)
    world.run()
    (tmp_path / "inbox/0.txt").unlink()
    assert world.run().counts["deleted"] == 1
    assert outputs(world) == sorted(ZERO + ONE)


def test_documents_that_leave_a_hot_folder_count_as_done_and_not_as_deleted(tmp_path: Path) -> None:
    text = COPIES.replace("{path: inbox, deletes: prune}", "{path: inbox, claim: move}")
    world = World(tmp_path, text.replace("root: inbox", "root: inbox/processing"))
    world.write("inbox/processing/0.txt", "x")
    world.run()
    (tmp_path / "inbox/done").mkdir()
    (tmp_path / "inbox/processing/0.txt").rename(tmp_path / "inbox/done/0.txt")
    world.write("inbox/processing/1.txt", "y")
    report = world.run()
    assert "deleted" not in report.counts
    assert outputs(world) == sorted(ZERO + ONE)
