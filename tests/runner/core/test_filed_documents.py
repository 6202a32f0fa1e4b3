"""Filed documents: what a step moved away keeps its rows; a run with nothing new writes nothing."""

import csv
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from paddock.engine.backends.neutral_request import NEUTRAL_TEXT
from paddock.engine.errors import BadRequest
from paddock.engine.request import ChatRequest
from paddock.engine.system.records import replace
from paddock.runner.folders.file_filter import WatchSpec
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.report import Report
from paddock.runner.watch.handled_files import WatchLedger
from paddock.runner.watch.hot_folder import finish_files, make_hot_folders
from paddock.steps.files import move
from tests.fakes.pool import FakePool
from tests.runner.core.filing_shapes import pipeline_files
from tests.runner.core.random_histories import KILLED, in_a_process
from tests.runner.world import ReviewedWorld, World, each_document, reasons, states

FILING = """\
name: letters
""" + each_document("""\
      - {id: kind, uses: chat, with: {prompt: "Kind of {{ steps.text.text }}"}}
      - {id: move, uses: files.move, with: {path: "{{ doc.path }}", to: "filed/{{ doc.relpath }}"}}
    returns: {file: doc.relpath, kind: steps.kind.text}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
""")
DIGEST = """\
  - {id: digest, uses: chat, with: {prompt: "All: {{ steps.each.results }}"}}
  - {id: report, uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
  - id: number
    uses: files.write
    with: {path: out/n.txt, text: "n={{ steps.each.results | length }}"}
returns: {counts: steps.each.counts}
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, FILING)


def arrive(world: World, *names: str) -> None:
    for name in names:
        world.write(f"inbox/{name}", f"Letter {name}")


def rows(world: World, table: str = "t.csv") -> list[str]:
    """Return the first cell of each row."""
    return [line.partition(",")[0] for line in world.output(table).splitlines()[1:]]


def test_a_run_with_nothing_new_writes_nothing(world: World) -> None:
    world.text += DIGEST
    world.write("pipeline.yaml", world.text)
    arrive(world, "a.txt", "b.txt")
    world.run()
    made = {path: path.stat().st_mtime_ns for path in (world.folder / "out").iterdir()}
    plan = world.plan()
    report = world.run()
    assert rows(world) == ["a.txt", "b.txt"]
    assert {path: path.stat().st_mtime_ns for path in (world.folder / "out").iterdir()} == made
    assert (report.calls, report.written, report.acted) == (0, (), ())
    assert not plan.has_work
    counts = dict.fromkeys(report.returns["counts"], 0) | {"done": 2}
    assert report.returns == {"counts": counts}


def test_a_filed_document_that_is_moved_on_keeps_its_row(world: World) -> None:
    arrive(world, "a.txt", "b.txt", "c.txt")
    world.run()
    (world.folder / "filed").rename(world.folder / "2026")
    arrive(world, "d.txt")
    report = world.run()
    assert rows(world) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert (report.counts["filed"], report.filed.no_longer_there) == (3, 3)
    assert report.filed.in_words() == "Filed: 3, of which 3 are no longer there."
    assert (report.as_json()["counts"]["filed"], world.plan().filed.n) == (3, 4)


def test_a_document_that_two_blocks_have_is_counted_as_filed_once(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        each_document("")
        + """\
    returns: {file: doc.relpath, path: doc.path, sha256: doc.sha256}
  - id: file
    for_each: d in steps.each.results | selectattr('file', 'in', HERE) | list
    do: [{uses: files.move, with: {path: "{{ d.path }}", to: filed/}}]
    returns: d.file
""".replace("HERE", "steps.docs.files | map(attribute='relpath') | list"),
    )
    arrive(world, "a.txt", "b.txt")
    world.run()
    assert world.run().filed.in_words() == "Filed: 2."
    (tmp_path / "filed/a.txt").unlink()
    report = world.run()
    told = "Filed: 2, of which 1 is no longer there."
    assert report.filed.in_words() == world.plan().filed.in_words() == told
    assert [report.steps[name]["counts"]["filed"] for name in ("each", "file")] == [2, 2]


def test_pruning_removes_what_is_no_longer_there_and_asks_of_most(world: World) -> None:
    arrive(world, "a.txt", "b.txt", "c.txt", "d.txt")
    world.run()
    (world.folder / "filed/a.txt").unlink()
    report = world.run(prune=True)
    assert states(report) == states(world.plan(prune=True)) | {"a.txt": "deleted"}
    assert rows(world) == ["b.txt", "c.txt", "d.txt"]
    (world.folder / "filed/b.txt").unlink()
    (world.folder / "filed/c.txt").unlink()
    asked = (
        "2 of 3 documents of 'each' were filed and are no longer there, so what was made of them "
        "is kept. If that is right, run it with `--prune --yes`."
    )
    assert asked in world.run(prune=True).notes
    assert rows(world) == ["b.txt", "c.txt", "d.txt"]
    plan = world.plan(prune=True, is_confirmed=True)
    assert states(plan) == {"b.txt": "deleted", "c.txt": "deleted"}
    world.run(prune=True, is_confirmed=True)
    assert rows(world) == ["d.txt"]


def test_a_changed_prompt_is_asked_of_filed_documents_where_they_lie(world: World) -> None:
    arrive(world, "a.txt", "b.txt", "c.txt", "d.txt")
    world.run()
    (world.folder / "filed/b.txt").unlink()
    (world.folder / "filed/c.txt").write_text("edited")
    assert not world.plan().has_work
    world.edit("Kind of", "Which kind:")
    arrive(world, "e.txt")
    assert states(world.plan()) == {"a.txt": "stale", "d.txt": "stale", "e.txt": "new"}
    report = world.run()
    assert reasons(report)["a.txt"] == "prompt changed (step 'kind')"
    assert rows(world) == ["a.txt", "b.txt", "c.txt", "d.txt", "e.txt"]
    kinds = [line.split(",")[1].split("] ")[1] for line in world.output("t.csv").splitlines()[1:]]
    assert ["Which" in kind for kind in kinds] == [True, False, False, True, True]
    assert report.filed.of_earlier_version == 2
    assert report.filed.changed == ("prompt changed (step 'kind')",)
    assert sorted(path.name for path in (world.folder / "filed").iterdir()) == [
        "a.txt", "c.txt", "d.txt", "e.txt"
    ]  # fmt: skip
    again = world.run()
    assert (again.calls, again.filed) == (0, replace(report.filed, n=5))
    world.edit("Which kind:", "Kind of")
    assert world.run().filed.of_earlier_version == 0


def test_a_filed_document_that_fails_when_it_is_read_again_keeps_its_row(world: World) -> None:
    arrive(world, "a.txt", "b.txt")
    world.run()
    before = world.output("t.csv")
    world.edit("Kind of", "Which kind:")
    assert world.run(pool=FakePool(answer=refuse)).counts["quarantined"] == 2
    assert world.output("t.csv") == before
    report = world.run()
    assert (report.counts["quarantined"], report.calls) == (2, 0)
    assert world.output("t.csv") == before
    world.run(retry_failed=True)
    assert world.output("t.csv") != before
    assert rows(world) == ["a.txt", "b.txt"]


def test_a_renamed_block_has_what_its_former_name_filed(world: World) -> None:
    world.write("inbox/a.txt", "one")
    world.run()
    world.write("inbox/a.txt", "two")
    arrive(world, "b.txt")
    world.run()
    (world.folder / "filed/b.txt").unlink()
    for old, new in (("each", "every"), ("every", "each")):
        world.edit(f"id: {old}", f"id: {new}")
        world.edit(f"steps.{old}.results", f"steps.{new}.results")
        arrive(world, f"{new}.txt")
        report = world.run()
        assert (report.calls, report.status) == (1, "completed")
    assert rows(world) == ["a.txt", "a.txt", "b.txt", "each.txt", "every.txt"]
    assert world.run().written == ()


def test_a_correction_names_a_deleted_document_by_the_place_where_it_lay(tmp_path: Path) -> None:
    text = FILING.replace('text }}"}}', 'text }}"}, review: {when: "true"}}')
    text = text.replace('to: "filed/{{ doc.relpath }}"', "mode: delete")
    world = ReviewedWorld(tmp_path, text)
    arrive(world, "a.txt")
    world.run()
    world.decide("a.txt", "edit", "bill")
    world.run()
    assert not (tmp_path / "inbox/a.txt").exists()
    world.undo("a.txt")
    world.run()
    world.decide("a.txt", "edit", "letter")
    assert "Gone or edited since it was filed, and left so: 'inbox/a.txt'." in world.run().notes
    assert world.output("t.csv").splitlines()[1:] == ["a.txt,letter"]


def test_why_says_where_a_document_is_filed(world: World) -> None:
    arrive(world, "a.txt")
    world.run()
    world.run()
    for path in ("inbox/a.txt", "filed/a.txt"):
        answer = explain_path(world.folder / path, [world.folder])
        assert tuple(map(str, answer.read_by)) == ("item 'a.txt' of 'each', filed at filed/a.txt",)


def test_why_knows_a_filed_document_by_its_content_where_a_clerk_moved_it(world: World) -> None:
    arrive(world, "a.txt", "b.txt")
    world.run()
    world.write("inbox/a.txt", "other content")
    world.run()
    (world.folder / "2026").mkdir()
    (world.folder / "filed/a.txt").rename(world.folder / "2026/first letter.txt")
    answer = explain_path(world.folder / "2026/first letter.txt", [world.folder])
    assert tuple(map(str, answer.read_by)) == ("item 'a.txt' of 'each', filed at filed/a.txt",)


class HotFolder:
    """A hot folder, whose watch files what a run has done."""

    def __init__(self, folder: Path) -> None:
        text = FILING.replace("root: ./inbox}", "root: inbox/processing}").replace(
            "steps:\n", "on: {watch: {path: inbox, claim: move}}\nsteps:\n", 1
        )
        at = text.index("      - {id: move")
        self.world = World(folder, text[:at] + text[text.index("    returns:") :])
        self.spec = WatchSpec("pipeline.yaml:inbox", folder / "inbox", is_hot=True)
        self.spec.root.mkdir()
        make_hot_folders(self.spec)
        self.ledger = WatchLedger(
            self.spec.name, self.spec.root, self.world.file,
            lambda is_readonly: Ledger(folder / ".paddock", is_readonly=is_readonly),
        )  # fmt: skip

    def run(self, **texts: str) -> Report:
        """Claim these documents and run; file them."""
        for name, text in texts.items():
            self.world.write(f"inbox/processing/{name}.txt", text)
        report = self.world.run()
        failed = {item.key: "why" for item in report.items if item.state == "quarantined"}
        names = [path.name for path in self.spec.processing.iterdir()]
        finish_files(self.spec, names, failed, None, self.ledger.record_filed)
        return report


def test_a_hot_folders_documents_are_filed_but_not_those_that_failed(tmp_path: Path) -> None:
    hot = HotFolder(tmp_path)
    hot.run(a="one", b="two")
    hot.run(a="three")
    (tmp_path / "inbox/done").rename(tmp_path / "2026")
    (tmp_path / "inbox/done").mkdir()
    report = hot.run(a="four", b="two")
    assert rows(hot.world) == ["a.txt"] * 3 + ["b.txt"]
    report = hot.run(c="five")
    assert rows(hot.world) == ["a.txt"] * 3 + ["b.txt", "c.txt"]
    assert (report.filed.n, report.filed.no_longer_there) == (4, 2)
    hot.world.edit("Kind of", "Which kind:")
    hot.world.run(pool=FakePool(answer=refuse))
    hot.run(a="six")
    assert rows(hot.world) == ["a.txt"] * 4 + ["b.txt", "c.txt"]


def test_a_document_that_a_person_deleted_is_not_filed(world: World) -> None:
    world.edit(
        '"filed/{{ doc.relpath }}"}}', '"filed/{{ doc.relpath }}"}, if: "doc.stem != \'b\'"}'
    )
    arrive(world, "a.txt", "b.txt", "c.txt")
    world.run()
    (world.folder / "inbox/b.txt").unlink()
    report = world.run()
    assert states(report) == {"b.txt": "deleted"}
    assert rows(world) == ["a.txt", "c.txt"]


def test_filed_rows_are_written_where_all_that_is_new_fails(world: World) -> None:
    arrive(world, "a.txt", "b.txt")
    world.run()
    (world.folder / "out/t.csv").unlink()
    arrive(world, "c.txt")
    report = world.run(pool=FakePool(answer=refuse))
    assert report.counts["quarantined"] == 1
    assert rows(world) == ["a.txt", "b.txt"]


def refuse(request: ChatRequest) -> str:
    if request.messages[-1].content == NEUTRAL_TEXT:
        return "yes"
    raise BadRequest("no")


@pytest.mark.parametrize("ending", ["move", "review"])
def test_a_known_failure_is_not_red_again_where_the_others_are_filed_or_wait(
    world: World, ending: str
) -> None:
    if ending == "review":
        asks = FILING.replace('text }}"}}', 'text }}"}, review: {when: "true"}}')
        world.write("pipeline.yaml", asks)
    arrive(world, "a.txt", "b.txt")
    world.write("inbox/damaged.pdf", "%PDF-1.4 and no more")
    reports = [world.run() for _ in range(2)]
    assert [report.exit_status() for report in reports] == [3, 0]
    assert reports[1].counts["filed" if ending == "move" else "waiting"] == 2


# --- tables over what was made of a block's results


DIGEST_OF = """\
  - {id: digest, uses: chat, with: {prompt: "All: {{ RESULTS }}"}}
  - {id: report, uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
"""


def world_of(folder: Path, shape: str) -> World:
    files = pipeline_files(shape)
    return World(folder, files.pop("pipeline.yaml"), beside=files)


def prompts(world: World) -> list[str]:
    return sorted(request.messages[-1].content for request in world.pool.chats)


RESULTS = {
    "plain": "steps.each.results",
    "second": "steps.second.results",
    "sub": "steps.sub.rows",
} | {"sub_in_block": "steps.folders.results"}


@pytest.mark.parametrize("shape", RESULTS)
def test_what_reads_results_has_those_of_all_documents_also_of_filed_ones(
    tmp_path: Path, shape: str
) -> None:
    world = world_of(tmp_path, shape)
    world.text += DIGEST_OF.replace("RESULTS", RESULTS[shape])
    arrive(world, "a.txt")
    world = World(tmp_path, world.text)
    world.run()
    arrive(world, "b.txt")
    world.run()
    (digest,) = [prompt for prompt in prompts(world) if prompt.startswith("All")]
    assert ("a.txt" in digest, "b.txt" in digest) == (True, True)
    made = world.output("DIGEST.md")
    plan = world.plan()
    report = world.run()
    assert (report.calls, report.written, world.output("DIGEST.md")) == (0, (), made)
    if shape != "sub_in_block":  # whose item is looked into once more
        assert not plan.has_work


def test_a_digest_of_what_is_new_is_left_out_when_nothing_is(world: World) -> None:
    world.text += """\
  - id: today
    if: steps.each.changed
    uses: chat
    with:
      prompt: "New: {{ steps.each.results | selectattr('file', 'in', NEW | list) | list }}"
""".replace("NEW", "steps.each.changed | map(attribute='key')")
    world.write("pipeline.yaml", world.text)
    for names in (["a.txt", "b.txt"], ["c.txt"]):
        arrive(world, *names)
        world.run()
        (digest,) = [prompt for prompt in prompts(world) if prompt.startswith("New")]
        assert [name for name in ("a.txt", "b.txt", "c.txt") if name in digest] == names
    assert world.run().calls == 0


def test_a_second_block_that_is_added_or_changed_takes_what_is_filed(tmp_path: Path) -> None:
    world = world_of(tmp_path, "plain")
    arrive(world, "a.txt", "b.txt")
    world.run()
    shutil.rmtree(tmp_path / "filed")  # it is not needed again
    world = world_of(tmp_path, "second")
    world.run()
    assert (rows(world), prompts(world)) == (
        ["a.txt", "b.txt"],
        ["second Letter a.txt", "second Letter b.txt"],
    )
    world.edit("second {{", "2nd {{")
    report = world.run()
    assert (rows(world), prompts(world)) == (
        ["a.txt", "b.txt"],
        ["2nd Letter a.txt", "2nd Letter b.txt"],
    )
    assert report.filed.of_earlier_version == 0


def test_equal_results_of_two_documents_are_two_rows(tmp_path: Path) -> None:
    world = world_of(tmp_path, "second")
    world.edit(
        "{file: doc.relpath, text: steps.text.text, kind: steps.kind.text}",
        "{file: \"'same'\", text: \"'same'\"}",
    )
    for names in (["b.txt", "c.txt"], ["a.txt"], ["d.txt"]):
        arrive(world, *names)
        world.run()
        world.run()
    assert rows(world) == ["same"] * 4


def test_filed_items_that_are_done_again_have_each_a_place(tmp_path: Path) -> None:
    world = world_of(tmp_path, "plain")
    world.edit("kind: steps.kind.text", "kind: loop.index")
    arrive(world, "a.txt", "b.txt")
    world.run()
    world.edit("Kind of", "What is")
    arrive(world, "c.txt")
    assert world.run().calls == 3
    table = csv.DictReader(world.output("t.csv").splitlines())
    assert [(row["file"], row["kind"]) for row in table] == [
        ("a.txt", "2"),
        ("b.txt", "3"),
        ("c.txt", "1"),
    ]


MOVED_BY_THE_SECOND = """\
name: letters
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do: [{id: text, uses: files.read, with: {path: "{{ doc.path }}"}}]
    returns: {file: doc.relpath, path: doc.path}
  - id: second
    for_each: r in steps.each.results
    do:
      - {id: again, uses: files.read, with: {path: "{{ r.path }}"}}
      - {id: more, uses: chat, with: {prompt: "More {{ steps.again.text }}"}}
      - {id: move, uses: files.move, with: {path: "{{ r.path }}", to: "filed/{{ r.file }}"}}
    returns: {file: r.file, text: steps.again.text, more: steps.more.text}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.second.results }}"}}
"""


@pytest.mark.parametrize("digest", ["", ", sha256: doc.sha256"])
def test_a_second_block_may_be_the_one_that_moves_documents(tmp_path: Path, digest: str) -> None:
    text = MOVED_BY_THE_SECOND.replace("path: doc.path", f"path: doc.path{digest}")
    world = World(tmp_path, text)
    arrive(world, "a.txt", "b.txt")
    world.run()
    for letter in ("another", "a third"):
        world.write("inbox/a.txt", letter)
        report = world.run()
        assert report.status == "completed", report.message
    assert rows(world) == ["a.txt", "a.txt", "a.txt", "b.txt"]
    assert not [*(tmp_path / "inbox").iterdir()]
    world.edit("More", "Still more")
    report = world.run()
    texts = [row["text"] for row in csv.DictReader(world.output("t.csv").splitlines())]
    assert texts == ["Letter a.txt", "another", "a third", "Letter b.txt"]


@pytest.mark.parametrize(("digest", "n_calls"), [("", 1), (", sha256: doc.sha256", 3)])
def test_a_second_block_reads_a_hot_folders_document_where_it_lies_if_that_is_known(
    tmp_path: Path, digest: str, n_calls: int
) -> None:
    hot = HotFolder(tmp_path)
    text = MOVED_BY_THE_SECOND.replace("path: doc.path", f"path: doc.path{digest}")
    text = text.replace("root: inbox}", "root: inbox/processing}")
    lines = [line for line in text.splitlines() if "id: move" not in line]
    lines.insert(1, "on: {watch: {path: inbox, claim: move}}")
    hot.world.text = "\n".join(lines)
    hot.world.write("pipeline.yaml", hot.world.text)
    hot.run(a="one", b="two")
    hot.world.edit("More", "Still more")
    report = hot.run(c="three")
    assert (report.status, report.calls, rows(hot.world)) == (
        "completed", n_calls, ["a.txt", "b.txt", "c.txt"]
    )  # fmt: skip
    assert report.filed.of_earlier_version == 3 - n_calls


def test_a_farther_item_that_fails_is_tried_again_until_it_has_its_row(tmp_path: Path) -> None:
    world = world_of(tmp_path, "second")
    arrive(world, "a.txt", "b.txt")

    def fail(request: ChatRequest) -> str:
        if "second Letter a" in request.messages[-1].content:
            raise BadRequest("not this one")
        return "fine"

    report = world.run(pool=FakePool(answer=fail))
    assert (rows(world), report.counts["quarantined"]) == (["b.txt"], 1)
    arrive(world, "c.txt")
    world.run(retry_failed=True)
    assert rows(world) == ["a.txt", "b.txt", "c.txt"]


def test_the_table_of_a_report_has_an_item_once_though_documents_within_it_are_filed(
    tmp_path: Path,
) -> None:
    world = world_of(tmp_path, "sub_in_block")
    arrive(world, "a.txt")
    for state in ("new", "stale", "fresh"):
        table = world.run(keeps_tables=True).tables["folders"]
        assert [row["item_state"] for row in table.rows] == [state]


def test_an_item_has_what_was_filed_within_it_before_a_run_was_killed(tmp_path: Path) -> None:
    world = world_of(tmp_path, "sub_in_block")
    arrive(world, "a.txt")
    world.run()
    world.run()
    ledger = world.folder / ".paddock/ledger.sqlite"
    with closing(sqlite3.connect(ledger)) as database:
        at_folders = "scope in (select scope from scopes where step = 'folders')"
        (before,) = database.execute(f"select * from items where {at_folders}").fetchall()
    arrive(world, "b.txt")
    world.run()
    with closing(sqlite3.connect(ledger)) as database, database:  # not recorded by that run
        database.execute(f"delete from items where {at_folders}")
        database.execute(f"insert into items values ({', '.join('?' * len(before))})", before)
    why = ["what is within it was done after it"]
    assert [*reasons(world.plan(), "folders").values()] == why
    assert [*reasons(world.run(), "folders").values()] == why
    assert rows(world) == ["a.txt", "b.txt"]
    assert not world.plan().has_work


# --- runs that died as they moved a document


def die_at_the_move(world: World, *, is_moved: bool) -> None:
    """Run until the first document is moved, or is about to be, and die there."""

    def renamed(source: Path, target: Path) -> None:
        if is_moved:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        os._exit(KILLED)

    def act() -> dict[str, Any]:
        with patch.object(move, "_renamed", renamed):
            return {"status": world.run().status}

    assert in_a_process(world.folder, act, kill=10_000) is None


@pytest.mark.parametrize(
    ("change", "filed"),
    [("replaced", ["a.txt", "b.txt"]), ("deleted", ["b.txt"]), ("renamed", ["b.txt", "c.txt"]),
     ("renamed over the other", ["b.txt"]), ("the folder renamed", ["b.txt", "new/a.txt"])],
)  # fmt: skip
@pytest.mark.parametrize("form", ["plain", "moved_by_second"])
def test_a_document_that_changed_before_a_killed_run_moved_it_is_not_waited_for(
    tmp_path: Path, change: str, filed: list[str], form: str
) -> None:
    world = world_of(tmp_path, form)
    world.write("inbox/a.txt", "first")
    world.write("inbox/b.txt", "other")
    die_at_the_move(world, is_moved=False)
    path = tmp_path / "inbox/a.txt"
    if change == "replaced":
        path.write_text("second, by a person")
    elif change == "deleted":
        path.unlink()
    else:
        names = {"renamed": "c.txt", "renamed over the other": "b.txt"}
        target = path.parent / names.get(change, "new/a.txt")
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    report = world.run()
    assert (report.status, rows(world)) == ("completed", filed)
    assert (world.run().status, world.plan().has_work) == ("completed", False)


def test_a_document_that_a_killed_run_moved_is_not_replaced_before_it_is_read(world: World) -> None:
    world.edit('doc.relpath }}"}}', 'doc.relpath }}", on_exists: replace}}')
    world.write("inbox/a.txt", "first")
    die_at_the_move(world, is_moved=True)
    world.write("inbox/a.txt", "second")
    for _ in range(2):
        world.run()
    kinds = [line.rpartition(" ")[2] for line in world.output("t.csv").splitlines()[1:]]
    assert kinds == ["first", "second"]
    assert [*map(Path.read_text, (world.folder / "filed").iterdir())] == ["second"]
    assert not [*(world.folder / "inbox").iterdir()]
