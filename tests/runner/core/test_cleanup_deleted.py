"""`deletes: prune`: what was made of a deleted document goes; what a person edited stays."""

import json
from pathlib import Path

import pytest

from paddock.runner.folders.folder_identity import FolderIdentity
from paddock.steps.files import folder_walk
from tests.runner.world import World, each_document, outputs

COPIES = """\
name: copies
on:
  watch: {path: inbox, deletes: prune}
""" + each_document("""\
      - uses: files.write
        with: {path: "out/{{ doc.stem }}.md", text: "{{ steps.text.text }}!"}
      - id: parts
        for_each: n in [1, 2]
        do:
          - uses: files.write
            with: {path: "out/{{ doc.stem }}-{{ n }}.md", text: "{{ steps.text.text }}!"}
""")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, COPIES, n_documents=3)
    world.run()
    return world


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


def test_removing_outputs_makes_no_scope_of_a_nested_block_that_never_ran(tmp_path: Path) -> None:
    world = World(tmp_path, COPIES, n_documents=3)
    world.edit("      - id: parts\n", '      - id: parts\n        if: doc.stem != "0"\n')
    world.run()
    (tmp_path / "inbox/0.txt").unlink()
    assert world.run().counts["deleted"] == 1
    with world.ledger() as ledger:
        rows = ledger.rows("select inputs from scopes where step = 'parts'")
    assert sorted(json.loads(inputs)[-1] for (inputs,) in rows) == ["1.txt", "2.txt"]


def test_what_someone_edited_is_kept_and_said_so(world: World) -> None:
    (world.folder / "inbox/0.txt").unlink()
    world.write("out/0.md", "my own words")
    report = world.run()
    assert outputs(world) == sorted(["0.md", *ONE, *TWO])
    assert "edited by hand, and kept though its source is gone: out/0.md" in report.notes


def unmounted(world: World) -> Path:
    """Leave the place at which a share was mounted, with a file in it; return the share."""
    inbox, share = world.folder / "inbox", world.folder / "share"
    inbox.rename(share)
    inbox.mkdir()
    (inbox / "stray.txt").write_text("stray")
    return share


FOREIGN = (
    "'inbox' is not the folder in which 3 missing documents were seen: it was made again, or "
    "something is not mounted. Nothing counts as deleted. If it is the right one, run it with "
    "`--yes`."
)


@pytest.mark.parametrize("prune", [False, True])
def test_in_another_folder_nothing_counts_as_deleted_however_many_files_it_has(
    world: World, *, prune: bool
) -> None:
    share = unmounted(world)
    for n in range(5):
        world.write(f"inbox/other{n}.txt", "other")
    assert [i.why for i in world.plan().items if i.state == "missing"] == [FOREIGN]
    for _ in range(2):
        report = world.run(prune=prune)
        assert "deleted" not in report.counts
        assert [(i.key, i.error) for i in report.items if i.state == "missing"] == [
            ("inbox", FOREIGN)
        ]
        assert FOREIGN in report.notes
        assert set(ZERO + ONE + TWO) <= set(outputs(world))
    for path in (world.folder / "inbox").iterdir():
        path.unlink()
    (world.folder / "inbox").rmdir()
    share.rename(world.folder / "inbox")
    assert not any(item.state == "missing" for item in world.run(is_confirmed=True).items)
    assert outputs(world) == sorted(ZERO + ONE + TWO)


TABLE = """\
    returns: {file: doc.relpath}
  - {id: table, uses: files.write, with: {path: out/ALL.csv, rows: "{{ steps.each.results }}"}}
"""


@pytest.mark.parametrize("is_unmounted", [False, True])
def test_a_table_of_documents_that_are_all_missing_stays_as_it_was(
    tmp_path: Path, *, is_unmounted: bool
) -> None:
    world = World(tmp_path, COPIES + TABLE, n_documents=3)
    world.run()
    table = world.output("ALL.csv")
    if is_unmounted:
        unmounted(world)
    for path in (tmp_path / "inbox").iterdir():
        path.unlink()
    left = "'table' is left as it is: the documents of 'each' are missing."
    assert left in world.plan().remarks
    assert left in world.run().notes
    assert world.output("ALL.csv") == table
    world.write("inbox/new.txt", "new")
    world.run()
    assert world.output("ALL.csv") == table, "it would lose most of its rows"
    world.run(is_confirmed=True)
    assert world.output("ALL.csv").split() == ["file", "new.txt"]
    (tmp_path / "inbox/new.txt").unlink()
    world.run(is_confirmed=True)
    assert world.output("ALL.csv").split() == ["file"]


def test_without_a_watch_too_and_a_copy_there_is_no_rename(tmp_path: Path) -> None:
    world = World(
        tmp_path, COPIES.replace("on:\n  watch: {path: inbox, deletes: prune}\n", ""), n_documents=3
    )
    world.run()
    share = unmounted(world)
    world.write("inbox/copy.txt", (share / "0.txt").read_text())
    world.run(prune=True)
    assert set(ZERO + ONE + TWO) <= set(outputs(world))


def test_what_a_person_confirms_is_removed_and_the_folder_is_known_from_then_on(
    world: World,
) -> None:
    unmounted(world)
    report = world.run(is_confirmed=True)
    assert report.counts["deleted"] == 3
    assert not set(ZERO + ONE + TWO) & set(outputs(world))
    world.write("inbox/more.txt", "more")
    world.run()
    (world.folder / "inbox/stray.txt").unlink()
    report = world.run()
    assert (report.counts["deleted"], report.counts.get("missing", 0)) == (1, 0)


def test_a_folder_that_was_made_again_with_all_documents_is_the_same(world: World) -> None:
    share = unmounted(world)
    for path in share.iterdir():
        world.write(f"inbox/{path.name}", path.read_text())
    world.run()
    (world.folder / "inbox/0.txt").unlink()
    assert world.run().counts["deleted"] == 1
    assert not set(ZERO) & set(outputs(world))


@pytest.mark.parametrize(
    ("deletes", "n_gone", "is_asked"),
    [
        ("prune", 2, False),
        ("prune", 3, True),
        ("{prune: true}", 3, True),
        ("{prune: true, most: 80%}", 3, False),
        ("{prune: true, most: 10%}", 2, True),
        ("{prune: true, most: 10%}", 1, False),
        ("{prune: true, most: 0%}", 1, True),
        ("{prune: true, most: 100%}", 4, False),
    ],
)
def test_a_person_is_asked_before_most_of_the_documents_count_as_deleted(
    tmp_path: Path, deletes: str, n_gone: int, is_asked: bool
) -> None:
    world = World(tmp_path, COPIES.replace("deletes: prune", f"deletes: {deletes}"), n_documents=4)
    world.run()
    for n in range(n_gone):
        (tmp_path / f"inbox/{n}.txt").unlink()
    report = world.run()
    assert report.counts.get("missing", 0) == is_asked
    assert report.counts.get("deleted", 0) == (0 if is_asked else n_gone)
    assert len(outputs(world)) == (12 if is_asked else 12 - 3 * n_gone)
    if is_asked:
        assert (
            f"{n_gone} of 4 documents of 'inbox' are gone at once, so what was made of them is "
            "kept. If they were deleted on purpose, run it with `--yes`."
        ) in report.notes
        assert world.run(is_confirmed=True).counts["deleted"] == n_gone
        assert len(outputs(world)) == 12 - 3 * n_gone


@pytest.mark.parametrize("edited", [[], ONE])
def test_prune_asks_before_it_removes_what_was_kept_of_most_documents(
    tmp_path: Path, edited: list[str]
) -> None:
    world = World(tmp_path, COPIES.replace(", deletes: prune", ""), n_documents=3)
    world.run()
    for n in range(2):
        (tmp_path / f"inbox/{n}.txt").unlink()
    assert world.run().counts["deleted"] == 2  # nothing is removed, so nothing is asked
    for name in edited:  # they stay, and count
        world.write(f"out/{name}", "my own words")
    report = world.run(prune=True)
    assert len(outputs(world)) == 9
    assert "run it with `--prune --yes`" in report.notes[0]
    world.run(prune=True, is_confirmed=True)
    assert outputs(world) == sorted(TWO + edited)
    assert edited or world.run(prune=True).notes == ()


@pytest.mark.parametrize("key", ["doc.relpath", "doc.stem", "doc.path"])
def test_nothing_is_deleted_below_a_mount_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    of_each = "    for_each: doc in steps.docs.files\n"
    keyed = COPIES.replace(of_each, f"{of_each}    key: {key}\n")
    world = World(tmp_path, keyed, n_documents=3)
    world.run()
    world.write("inbox/nas/a.txt", "a")
    inbox = FolderIdentity("1:1", {"nas": "nfs4 nas:/papers . 1"})
    monkeypatch.setattr(
        "paddock.runner.core.traces.source_folders.folder_identity_at", lambda root: inbox
    )
    world.run()
    (world.folder / "inbox/nas/a.txt").unlink()
    (world.folder / "inbox/0.txt").unlink()
    inbox = FolderIdentity("1:1")
    for n_deleted in (1, 0):
        report = world.run()
        assert report.counts.get("deleted", 0) == n_deleted
        assert [item.key for item in report.items if item.state == "missing"] == ["inbox/nas"]
    assert "a.md" in outputs(world)
    world.run(is_confirmed=True)
    assert outputs(world) == sorted(ONE + TWO)


@pytest.mark.parametrize("watch", ["{path: inbox}", "{path: other, deletes: prune}"])
def test_without_being_asked_nothing_is_removed(tmp_path: Path, watch: str) -> None:
    world = World(tmp_path, COPIES.replace("{path: inbox, deletes: prune}", watch), n_documents=2)
    world.run()
    (tmp_path / "inbox/0.txt").unlink()
    assert world.run().counts["deleted"] == 1
    assert outputs(world) == sorted(ZERO + ONE)


def test_what_an_older_paddock_made_of_a_temporary_file_is_kept_until_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, COPIES, n_documents=2)
    world.write("inbox/#recycle/old.txt", "old")
    with monkeypatch.context() as older:
        older.setattr(folder_walk, "is_temporary", lambda name: name.startswith("."))
        world.run()
    made = sorted([*ONE, *ZERO, "old-1.md", "old-2.md", "old.md"])
    assert outputs(world) == made
    for _ in range(2):
        report = world.run(prune=True)
        assert outputs(world) == made
        [note] = report.notes
        assert note == (
            "scans leave out 1 document in 'inbox' with a temporary name. What was made of it is "
            "kept; if it may go, run it with `--yes`."
        )
    (world.folder / "inbox/#recycle/old.txt").unlink()
    assert world.run().counts["deleted"] == 1
    assert outputs(world) == sorted([*ONE, *ZERO])
