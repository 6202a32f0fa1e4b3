"""What an item wrote at a path that it has no more: told, removed when asked, never another's."""

from pathlib import Path

import pytest

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress.reasons import Outdated
from paddock.runner.settings import STATE_FOLDER
from tests.runner.world import World, each_document

COPIES = each_document("""\
      - {id: page, uses: files.write, with: {path: "out/{{ doc.relpath }}.md", text: "{{ steps.text.text }}"}}
      - id: parts
        for_each: n in [1, 2]
        do:
          - {uses: files.write, with: {path: "parts/{{ doc.relpath }}-{{ n }}", text: "Part {{ n }}"}}
  - {id: index, uses: files.write, with: {path: INDEX, text: "{{ steps.docs.files | length }} of them"}}
""")  # noqa: E501


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, COPIES, n_documents=2)
    report = world.run()
    assert (report.status, report.notes) == ("completed", ())
    return world


def files(world: World) -> list[str]:
    found = [*world.folder.glob("out/*"), *world.folder.glob("parts/*"), *world.folder.glob("I*")]
    return sorted(path.relative_to(world.folder).as_posix() for path in found)


def test_outputs_of_a_changed_path_are_told_until_prune_removes_them(world: World) -> None:
    world.edit("out/{{ doc.relpath }}.md", "out/{{ doc.stem }}.md")
    note = (
        "kept, though they are written elsewhere now: out/0.txt.md, out/1.txt.md "
        "(`--prune` removes)"
    )
    report = world.run()
    assert report.notes == (note,)
    assert report.outdated == dict.fromkeys(["out/0.txt.md", "out/1.txt.md"], Outdated.ELSEWHERE)
    assert report.as_json()["outdated"] == world.plan().as_json()["outdated"] == report.outdated
    assert world.plan().remarks == (note,)
    assert not world.plan().has_work
    assert world.run().notes == (note,)
    assert world.run(prune=True).notes == (
        "removed, since they are written elsewhere now: out/0.txt.md, out/1.txt.md",
    )
    assert files(world)[:3] == ["INDEX", "out/0.md", "out/1.md"]
    assert len(files(world)) == 7
    assert world.run().notes == world.plan().remarks == ()


def test_what_someone_edited_there_is_kept_and_said_so(world: World) -> None:
    world.write("out/0.txt.md", "My own words.")
    world.edit("out/{{ doc.relpath }}.md", "out/{{ doc.stem }}.md")
    edited = "edited by hand, and kept though they are written elsewhere now: out/0.txt.md"
    assert world.run().notes == (
        edited,
        "kept, though they are written elsewhere now: out/1.txt.md (`--prune` removes)",
    )
    assert world.run(prune=True).notes == (
        "removed, since they are written elsewhere now: out/1.txt.md",
        edited,
    )
    report = world.run()
    assert (report.notes, list(report.outdated)) == ((edited,), ["out/0.txt.md"])


def test_names_that_mean_the_same_file_are_one(world: World) -> None:
    (world.folder / "here").symlink_to(world.folder / "out")
    world.edit("out/{{ doc.relpath }}.md", "here/{{ doc.relpath }}.md")
    world.run(prune=True)
    assert files(world)[1:3] == ["out/0.txt.md", "out/1.txt.md"]


def test_why_says_that_a_file_is_no_output_any_more(world: World) -> None:
    world.edit("out/{{ doc.relpath }}.md", "out/{{ doc.stem }}.md")
    first, second = last_run(world), world.run().run
    (origin,) = explain_path(world.folder / "out/0.txt.md", [world.folder]).origins
    assert origin.run == first
    assert origin.changes[0].what == (
        f"it is no longer an output: since run '{second}' its item writes out/0.md, "
        f"parts/0.txt-1, parts/0.txt-2"
    )


def last_run(world: World) -> str:
    with Ledger(world.folder / STATE_FOLDER, is_readonly=True) as ledger:
        return RunStore(ledger).runs(1)[0].run


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
