"""Outputs that no longer apply: told by runs and plans, explained, removed where that is asked.

Which these are after any changes is judged by random histories; here are the words, what a person
edited, folders that are not there, and what a killed run leaves.
"""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.files import TEMPORARY_SUFFIX, TemporaryFile
from paddock.runner.bind.item_paths import paths_depend_on_item_alone
from paddock.runner.core.traces.reconcile import match_renames
from paddock.runner.folders.folder_identity import FolderIdentity
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.reasons import Outdated
from tests.forked import ForkServer
from tests.runner.core.test_interruptions import start
from tests.runner.world import ReviewedWorld, World, each_document, outputs, reasons, states
from tests.waiting import until

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
WATCHED = "on: {watch: {path: inbox, deletes: prune}}\n"
UNASKED = "'kind': 1 answer not asked for, since only 'page' uses it and is skipped (a)."


def pages(folder: Path, text: str = PAGES) -> ReviewedWorld:
    world = ReviewedWorld(folder, text, {f"inbox/{name}": f"keep {name}" for name in "abc"})
    assert world.run().outdated == {}
    return world


def why(world: World, name: str) -> tuple[str, list[str]]:
    (origin,) = explain_path(world.folder / name, [world.folder]).origins
    return origin.run, [change.what for change in origin.changes]


def test_a_step_whose_condition_became_false_leaves_an_outdated_file(tmp_path: Path) -> None:
    world = pages(tmp_path)
    first, _ = why(world, "out/a")
    world.write("inbox/a", "drop")
    report = world.run()
    assert report.outdated == {"out/a": Outdated.NOT_MADE}
    assert report.notes == (
        UNASKED,
        "kept, though their items no longer make them: out/a (`--prune` removes)",
    )
    assert report.effects_in_words() == "1 output no longer applies and is kept"
    again, plan = world.run(), world.plan()
    assert again.outdated == plan.outdated == report.outdated
    assert report.as_json()["outdated"] == plan.as_json()["outdated"] == report.outdated
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
PAGE_NAMES = ("out/a", "out/b", "out/c")


@pytest.mark.parametrize(
    ("old", "new", "outdated", "why_of_first"),
    [
        ("      - {id: kind", f"{BROKEN}      - {{id: kind", {"out/a": Outdated.NOT_MADE},
         "it is no longer an output: run '{run}' quarantined its item"),
        ("length > 1", "length > 5", {"out/INDEX": Outdated.SKIPPED},
         "`if` changed (step 'index')"),
        ("    for_each: doc in", '    if: "false"\n    for_each: doc in',
         dict.fromkeys(("out/INDEX", *PAGE_NAMES), Outdated.SKIPPED),
         "it no longer applies: its step is skipped now"),
        (PAGES[PAGES.index("  - id: index") :], "", {"out/INDEX": Outdated.NO_STEP},
         "the pipeline no longer has 'index'"),
        ("out/{{ doc.relpath }}", "out/{{ doc.relpath }}.md",
         dict.fromkeys(PAGE_NAMES, Outdated.ELSEWHERE),
         "it is no longer an output: since run '{run}' its item writes out/a.md"),
    ],
    ids=["its item fails", "its step is skipped", "its block is skipped", "its step is gone",
         "another path"],
)  # fmt: skip
def test_why_an_output_is_outdated_is_told_with_it(
    tmp_path: Path, old: str, new: str, outdated: dict[str, Outdated], why_of_first: str
) -> None:
    world = pages(tmp_path)
    world.edit(old, new)
    report = world.run()
    assert report.outdated == world.plan().outdated == world.run().outdated == outdated
    first, told = sorted(outdated)[0], next(iter(outdated.values()))
    remarks = world.plan().remarks
    assert any(text.startswith(f"kept, though {told}: {first}") for text in remarks)
    run, changes = why(world, next(iter(outdated)))
    assert run != report.run
    assert why_of_first.format(run=report.run) in changes
    notes = world.run(prune=True).notes
    assert any(text.startswith(f"removed, since {told}: {first}") for text in notes)


@pytest.mark.parametrize("change", ["moved on", "its document is gone"])
def test_what_someone_edited_is_kept_and_said_so(tmp_path: Path, change: str) -> None:
    world = pages(tmp_path, WATCHED + PAGES)
    world.write("out/a", "my own words")
    if change == "moved on":
        world.edit("out/{{ doc.relpath }}", "out/{{ doc.relpath }}.md")
        edited = "edited by hand, and kept though they are written elsewhere now: out/a"
    else:
        (tmp_path / "inbox/a").unlink()
        edited = "edited by hand, and kept though its source is gone: out/a"
    assert dict(world.plan().removed).keys().isdisjoint({"out/a"})
    assert edited in world.run(prune=True).notes
    assert world.output("a") == "my own words"


MONTHLY = """\
inputs: {month: {type: str, required: true}, out: {type: dir, default: out}}
""" + each_document("""\
      - {uses: files.write, with: {path: "PATH", text: "{{ steps.text.text }} {{ inputs.month }}"}}
  - {uses: files.write, with: {path: "{{ inputs.out }}/INDEX-{{ inputs.month }}", text: x}}
""")


@pytest.mark.parametrize(
    "path",
    [
        "{{ inputs.out }}/{{ inputs.month }}-{{ doc.relpath }}",
        "{{ inputs.out }}/{{ steps.text.text | length }}-{{ inputs.month }}-{{ doc.stem }}",
    ],
)
def test_the_reports_of_another_month_are_no_former_outputs(tmp_path: Path, path: str) -> None:
    world = World(tmp_path, MONTHLY.replace("PATH", path), n_documents=2)
    for month in ("may", "june"):
        assert world.run({"month": month}, prune=True).notes == ()
    assert world.run({"month": "june"}, prune=True).notes == ()
    assert len(list((tmp_path / "out").iterdir())) == 6


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


def test_a_watch_removes_what_one_item_no_longer_makes_and_asks_before_most_of_them_go(
    tmp_path: Path,
) -> None:
    world = pages(tmp_path, WATCHED + PAGES)
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


# --- documents that are renamed


def rename(world: World, old: str, new: str) -> None:
    target = world.folder / "inbox" / new
    target.parent.mkdir(exist_ok=True)
    (world.folder / "inbox" / old).rename(target)


def test_a_renamed_document_costs_no_call_and_leaves_no_old_output(tmp_path: Path) -> None:
    world = pages(tmp_path)
    before = world.output("a")
    rename(world, "a", "z")
    plan = world.plan()
    assert reasons(plan) == {"z": "renamed from 'a'"}
    assert dict(plan.removed) == {"out/a": Outdated.GONE}
    report = world.run()
    assert states(report) == {"z": "new"}  # not also a deletion
    assert (report.calls, report.cached_calls, world.output("z")) == (0, 1, before)
    assert outputs(world) == ["INDEX", "b", "c", "z"]
    assert [*report.notes] == [
        "renamed, so what was made of them goes by the new name: a → z",
        "removed, since what they were made of is gone: out/a",
    ]
    assert not world.plan().has_work


def test_equal_contents_are_told_apart_by_their_file_names() -> None:
    gone = {"a/one.md": "1", "b/two.md": "1", "c.md": "2"}
    new = {"x/two.md": "1", "y/one.md": "1", "z.md": "1", "w.md": "3"}
    assert match_renames(gone, new) == {"x/two.md": "b/two.md", "y/one.md": "a/one.md"}


# --- documents that are gone

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


# --- what a killed run left half written


def left(folder: Path, name: str, ago_s: float = 60) -> Path:
    """Leave a file aside as a killed process does."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".{name}.1234abcd{TEMPORARY_SUFFIX}"
    file.write_text("half")
    os.utime(file, (time.time() - ago_s,) * 2)
    return file


def hold_half_written(path: Path) -> None:
    TemporaryFile.written(path, b"half")
    print("held", flush=True)
    time.sleep(600)


def test_the_run_after_a_kill_sweeps_what_that_one_left_and_no_other_files(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    world = World(tmp_path, n_documents=2)
    world.run()
    orderly = left(tmp_path / "out", "1.txt")
    world.run()
    assert orderly.exists(), "a run after one that ended in order looks for nothing"
    world.write("inbox/new.txt", "This document is new.")
    process = start(fork_server, world, n_free=0)
    until(lambda: [*(world.folder / ".paddock/locks").glob("*.json")])
    assert process.poll() is None
    process.kill()
    process.communicate()
    ours = [
        left(tmp_path / "out", "0.txt"),
        left(tmp_path / ".paddock/objects", "0" * 64),
        left(tmp_path / "out", "2.txt", ago_s=-0.5),  # by the time that the run ends it is young
    ]
    elsewhere = left(tmp_path / "notes", "mine.txt")
    other = fork_server.start(hold_half_written, tmp_path / "out/other.txt")
    until(lambda: other.said() == "held\n")
    (held,) = (tmp_path / "out").glob(f".other.txt.*{TEMPORARY_SUFFIX}")
    os.utime(held, (held.stat().st_mtime - 60,) * 2)
    assert world.run().status == "completed"
    assert [file.exists() for file in (*ours, elsewhere, held)] == [False] * 3 + [True] * 2
    other.kill()
    other.wait()
