"""A pipeline is what it does, not what its file is called."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.cli.history_text import runs_table
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_history import LedgerFolder, recent_runs
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.events import Observer
from paddock.runner.progress.reasons import Outdated
from paddock.runner.review.decisions import LedgerReviews
from tests.runner.world import ReviewedWorld, World, settings

BILLS = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
      - {uses: files.move, with: {path: "{{ doc.path }}", to: done/}}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - {id: table, uses: files.write, with: {path: TABLE.csv, rows: "{{ steps.each.results }}"}}
"""
"""Documents are filed when they are done; their rows are in the table."""
LETTERS = (
    BILLS.replace("inbox", "letters").replace("out/{{", "replies/{{").replace("TABLE", "LETTERS")
)
"""The same of another folder."""


@pytest.fixture
def bills(tmp_path: Path) -> World:
    world = World(tmp_path, BILLS, n_documents=3)
    world.run()
    return world


def renamed(world: World, name: str, text: str = "") -> World:
    world.file.rename(world.folder / name)
    return World(world.folder, text or world.text, name=name)


def n_rows(folder: Path, name: str = "TABLE.csv") -> int:
    return len((folder / name).read_text().splitlines()) - 1


def files(folder: Path) -> set[str]:
    found = (path for name in ("out", "replies") for path in (folder / name).rglob("*"))
    return {path.relative_to(folder).as_posix() for path in found}


@pytest.mark.parametrize(
    "old, new, n_calls",
    [
        ("inbox", "inbox", 1),
        ("Sum up", "Sum", 4),
        ("out/{{", "pages/{{", 1),
        ("each\n", "every\n", 1),
        ("table", "list", 1),
        ("steps:", "name: Bills of today\nsteps:", 1),
        ("path: TABLE.csv", "path: ROWS.csv", 1),
    ],
)
def test_a_renamed_pipeline_goes_on_with_what_it_made_edited_or_not(
    bills: World, old: str, new: str, n_calls: int
) -> None:
    text = BILLS.replace(old, new).replace(
        "steps.each.", f"steps.{new.strip()}." if new == "every\n" else "steps.each."
    )
    world = renamed(bills, "bills.yaml", text)
    world.write("inbox/new.txt", "Another one")
    plan = world.plan()
    told = "what 'pipeline.yaml' made is that of 'bills.yaml' now"
    assert told in plan.remarks
    assert plan.calls == n_calls
    report = world.run()
    assert told in report.notes
    assert report.calls == n_calls
    assert n_rows(world.folder, "ROWS.csv" if "ROWS" in new else "TABLE.csv") == 4
    again = world.run()
    assert (again.calls, again.filed.n, told in again.notes) == (0, 4, False)


def test_a_copy_starts_its_own_and_the_original_keeps_what_it_made(bills: World) -> None:
    shutil.copy(bills.file, bills.folder / "copy.yaml")
    copy = World(bills.folder, BILLS, name="copy.yaml")
    with pytest.raises(PipelineError, match="output of another pipeline"):
        copy.plan()
    own = World(bills.folder, BILLS.replace("out/", "replies/").replace("TABLE", "LETTERS"))
    own = World(bills.folder, own.text, name="copy.yaml")
    bills = World(bills.folder, BILLS)
    bills.write("inbox/new.txt", "Another one")
    assert own.run().calls == 1
    assert (n_rows(bills.folder), n_rows(bills.folder, "LETTERS.csv")) == (3, 1)
    assert bills.run().filed.n == 3


def test_a_file_that_is_renamed_while_its_run_works_is_known_by_the_next(tmp_path: Path) -> None:
    world = World(tmp_path, BILLS, n_documents=2)

    class Renaming(Observer):
        def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
            world.file.rename(tmp_path / "bills.yaml")

    world.run(observer=Renaming())
    again = World(tmp_path, BILLS.replace("\n", "\r\n"), name="bills.yaml")
    again.write("inbox/new.txt", "Another one")
    assert (again.run().calls, n_rows(tmp_path)) == (1, 3)


def test_two_pipelines_exchange_their_names(bills: World) -> None:
    letters = World(bills.folder, LETTERS, name="letters.yaml")
    letters.write("letters/a.txt", "Dear Sirs")
    letters.run()
    bills.file.write_text(LETTERS)
    letters.file.write_text(BILLS)
    bills, letters = World(bills.folder, BILLS, name="letters.yaml"), World(bills.folder, LETTERS)
    for world, name in ((letters, "letters/b.txt"), (bills, "inbox/b.txt")):
        world.write(name, f"Another one, {name}")
        assert world.plan().calls == 1
    assert letters.run(prune=True).calls == 1
    assert bills.run(prune=True).calls == 1
    assert (n_rows(bills.folder), n_rows(bills.folder, "LETTERS.csv")) == (4, 2)
    for world in (letters, bills):
        plan = world.plan()
        assert (plan.has_work, plan.outdated, plan.filed.n) == (
            False,
            {},
            n_rows(world.folder, "TABLE.csv" if world is bills else "LETTERS.csv"),
        )


def test_a_copy_with_the_text_of_what_was_renamed_and_edited_is_named_before_a_run(
    bills: World,
) -> None:
    letters = World(bills.folder, LETTERS, name="letters.yaml")
    letters.write("letters/a.txt", "Dear Sirs")
    letters.run()
    copy = World(bills.folder, BILLS, name="copy.yaml")
    bills.file.write_text(LETTERS)  # the names are exchanged, and one file is edited
    edited = World(bills.folder, BILLS.replace("Sum up", "Sum"), name="letters.yaml")
    for act in (edited.plan, edited.run):
        with pytest.raises(PipelineError, match="it may be that one, renamed, and so may 'copy"):
            act()
    copy.file.unlink()
    assert (edited.run().calls, n_rows(bills.folder)) == (3, 3)
    assert not World(bills.folder, LETTERS).plan().has_work


def test_a_file_that_is_moved_over_another_is_the_one_that_was_moved(tmp_path: Path) -> None:
    old = World(tmp_path, BILLS.replace("out/", "old/"), n_documents=2)
    new = World(tmp_path, BILLS.replace("TABLE", "NEW"), name="new.yaml")
    old.run()
    new.documents(2)
    new.run()
    new.file.replace(old.file)
    world = World(tmp_path, new.text)
    assert (world.plan().calls, n_rows(tmp_path, "NEW.csv")) == (0, 2)
    assert world.run().outdated.keys() == {"TABLE.csv", "old/0.txt", "old/1.txt"}


@pytest.mark.parametrize("first", ["new", "renamed"])
def test_a_name_is_used_again_by_another_pipeline(bills: World, first: str) -> None:
    world = renamed(bills, "bills.yaml")
    letters = World(world.folder, LETTERS)
    letters.write("letters/a.txt", "Dear Sirs")
    world.write("inbox/new.txt", "Another one")
    for each in (letters, world) if first == "new" else (world, letters):
        assert each.plan().calls == 1
        assert each.run(prune=True).calls == 1
    assert (n_rows(world.folder), n_rows(world.folder, "LETTERS.csv")) == (4, 1)
    assert not world.plan().has_work
    assert not letters.plan().has_work


def test_two_files_that_may_be_a_pipeline_are_told_and_the_old_name_decides(bills: World) -> None:
    world = renamed(bills, "bills.yaml")
    shutil.copy(world.file, world.folder / "bills-2.yaml")
    for act in (world.plan, world.run):
        with pytest.raises(PipelineError) as refused:
            act()
        (fault,) = refused.value.faults
        assert fault.message == (
            "'bills.yaml' has blocks of 'pipeline.yaml', whose file is gone: it may be that one, "
            "renamed, and so may 'bills-2.yaml'."
        )
        assert fault.remedy == (
            "Give the file that goes on with what 'pipeline.yaml' made that name for one run; or "
            "run this one with `--prune` if it is another pipeline."
        )
    bills = renamed(world, "pipeline.yaml")
    assert bills.run().filed.n == 3
    (bills.folder / "bills-2.yaml").unlink()
    assert renamed(bills, "bills.yaml").run().filed.n == 3


def test_a_part_of_a_pipeline_is_told_until_a_person_prunes(tmp_path: Path) -> None:
    second = """\
  - {id: mail, uses: files.scan, with: {root: ./letters}}
  - id: letter
    for_each: doc in steps.mail.files
    do: [{uses: files.write, with: {path: "replies/{{ doc.relpath }}", text: Yes}}]
"""
    both = World(tmp_path, BILLS + second, n_documents=1)
    both.write("letters/a.txt", "Dear Sirs")
    both.run()
    part = renamed(both, "bills.yaml", BILLS)
    with pytest.raises(PipelineError, match="has blocks of"):
        part.run()
    assert part.run(prune=True).outdated.keys() > {"out/0.txt", "replies/a.txt"}
    assert part.run(prune=True, is_confirmed=True).status == "completed"
    assert files(tmp_path) == set()
    assert not part.plan().outdated


def test_what_a_deleted_pipeline_made_is_named_and_pruned(bills: World) -> None:
    letters = World(bills.folder, LETTERS, name="letters.yaml")
    letters.write("letters/a.txt", "Dear Sirs")
    letters.run()
    bills.file.unlink()
    bills.write("out/1.txt", "Edited by hand")
    gone = Outdated.NO_PIPELINE
    named = {"TABLE.csv": gone, "out/0.txt": gone, "out/1.txt": gone, "out/2.txt": gone}
    for found in (letters.plan(), letters.run()):
        assert found.outdated == named
        notes = getattr(found, "remarks", None) or found.notes
        assert (
            "kept, though their pipeline's file is gone ('pipeline.yaml'): TABLE.csv, out/0.txt, "
            "out/2.txt (`--prune --yes` removes)"
        ) in notes
    assert letters.run(prune=True).outdated == named
    removed = letters.plan(prune=True, is_confirmed=True).removed
    assert removed.keys() == named.keys() - {"out/1.txt"}
    report = letters.run(prune=True, is_confirmed=True)
    assert files(bills.folder) == {"out/1.txt", "replies/a.txt"}
    assert report.outdated == {"out/1.txt": gone}
    again = World(bills.folder, BILLS)
    assert (again.run().calls, n_rows(bills.folder)) == (0, 3)


REVIEWED = BILLS.replace(
    '{{ steps.text.text }}"}}', '{{ steps.text.text }}"}, review: {when: "true"}}'
)


def test_a_ledger_in_postgresql_knows_a_renamed_pipeline(url: str, tmp_path: Path) -> None:
    own, there = replace(settings(tmp_path), ledger_url=url), tmp_path / ".paddock"
    world = ReviewedWorld(tmp_path, REVIEWED, n_documents=2)
    world.run(settings=own)
    world.file.rename(tmp_path / "bills.yaml")
    world = ReviewedWorld(tmp_path, LETTERS)
    world.write("letters/a.txt", "Dear Sirs")
    assert world.run(settings=own).calls == 1
    world = ReviewedWorld(tmp_path, REVIEWED, name="bills.yaml")
    assert world.run(settings=own).counts == {"waiting": 2}
    with Ledger(there, url=url) as ledger:
        reviews = LedgerReviews(ledger)
        for review in reviews.waiting(is_whole=True):
            assert review.subject.pipeline == "bills.yaml"
            reviews.decide(review.id, review.question, "accept", None, by="ann")
    assert world.run(settings=own).calls == 0
    assert n_rows(tmp_path) == 2


@pytest.mark.parametrize("decides_before", [True, False])
def test_a_renamed_pipeline_keeps_its_questions_and_decisions(
    tmp_path: Path, decides_before: bool
) -> None:
    world = ReviewedWorld(tmp_path, REVIEWED, n_documents=2)
    assert world.run().counts == {"waiting": 2}
    if decides_before:
        world.decide_all("edit", lambda review: "As a person wrote it")
    world.file.rename(tmp_path / "bills.yaml")
    world = ReviewedWorld(tmp_path, REVIEWED, name="bills.yaml")
    report = world.run()
    if not decides_before:
        assert (report.calls, report.counts) == (0, {"waiting": 2})
        assert {r.subject.pipeline for r in world.waiting().values()} == {"bills.yaml"}
        world.decide_all("edit", lambda review: "As a person wrote it")
        world.run()
    with world.reviews() as reviews:
        assert {r.subject.pipeline for r in reviews.decided()} == {"bills.yaml"}
    assert (tmp_path / "TABLE.csv").read_text().count("As a person wrote it") == 2


def test_a_question_of_a_pipeline_whose_file_is_gone_stays_until_it_is_back(tmp_path: Path) -> None:
    world = ReviewedWorld(tmp_path, REVIEWED, n_documents=2)
    world.run()
    world.decide("0.txt", "edit", "As a person wrote it")
    world.file.rename(tmp_path / "aside")
    other = World(tmp_path, LETTERS, name="letters.yaml")
    other.write("letters/a.txt", "Dear Sirs")
    other.run(prune=True)
    world = ReviewedWorld(tmp_path, REVIEWED)
    assert world.run().counts["waiting"] == 1
    assert "As a person wrote it" in (tmp_path / "TABLE.csv").read_text()


SUB = BILLS.replace("./inbox", "inbox") + "returns: steps.each.results\n"
AROUND = """\
steps:
  - {id: sub, uses: pipeline, with: {file: sub.yaml}}
  - {uses: files.write, with: {path: ALL.csv, rows: "{{ steps.sub.result }}"}}
"""


@pytest.mark.parametrize("renames", [("sub",), ("pipeline",), ("sub", "pipeline")])
def test_the_file_of_a_sub_pipeline_is_renamed_or_that_of_the_one_around(
    tmp_path: Path, renames: tuple[str, ...]
) -> None:
    world = World(tmp_path, AROUND, beside={"sub.yaml": SUB}, n_documents=2)
    world.run()
    name, text = "pipeline.yaml", AROUND
    if "sub" in renames:
        (tmp_path / "sub.yaml").rename(tmp_path / "bills.yaml")
        text = AROUND.replace("sub.yaml", "bills.yaml")
    if "pipeline" in renames:
        name = "all.yaml"
        world.file.rename(tmp_path / name)
    world = World(tmp_path, text, name=name)
    world.write("inbox/new.txt", "Another one")
    assert world.run().calls == 1
    assert n_rows(tmp_path, "ALL.csv") == 3


def test_why_runs_and_a_moved_folder_know_the_name_of_today(bills: World, tmp_path: Path) -> None:
    world = renamed(bills, "bills.yaml")
    (before,) = recent_runs([place(world)], limit=9).runs
    assert " ('pipeline.yaml' is gone)" in runs_table([before], {})
    world.run()
    assert {past.row.file for past in recent_runs([place(world)], limit=9).runs} == {"bills.yaml"}
    (origin,) = explain_path(world.folder / "out/0.txt").origins
    assert origin.pipeline.name == "bills.yaml"
    there = tmp_path.with_name("elsewhere")
    world.folder.rename(there)
    (there / "bills.yaml").rename(there / "again.yaml")
    again = World(there, BILLS, name="again.yaml")
    assert (again.run().filed.n, n_rows(there)) == (3, 3)


def place(world: World) -> LedgerFolder:
    return LedgerFolder(world.folder / ".paddock")
