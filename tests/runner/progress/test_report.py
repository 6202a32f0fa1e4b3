"""What a run is said to have done: "nothing to do" only where nothing was done."""

from dataclasses import replace
from pathlib import Path

from paddock.runner.api import run
from paddock.runner.cli.history_text import run_result_text
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.run_history import recent_runs
from paddock.runner.progress.prefect_view import last_state
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.runner.world import World, each_document, settings

ONE_FILE = """\
name: one
steps:
  - {id: note, uses: files.write, with: {path: out/note.txt, text: Hello.}}
"""
COPIES = """\
name: copies
""" + each_document("""\
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}
""")
OUTSIDE = """\
name: outside
steps:
  - {id: told, uses: run, with: {command: [touch, told]}}
"""


def summaries(world: World, report: Report) -> tuple[str, str]:
    """Return how Prefect shows the end of a run, and how the list of runs does."""
    latest = recent_runs(find_ledgers([world.folder]), limit=1).runs[0]
    return last_state(report).message, run_result_text(latest)


def test_a_file_that_is_written_outside_of_blocks_is_told(tmp_path: Path) -> None:
    world = World(tmp_path, ONE_FILE)
    assert summaries(world, world.run()) == ("1 file written", "1 file written")
    assert summaries(world, world.run()) == ("nothing to do", "nothing to do")


def test_a_command_that_was_run_is_told(tmp_path: Path) -> None:
    world = World(tmp_path, OUTSIDE)
    allowed = replace(settings(tmp_path), allow=frozenset({"run"}))
    report = run(
        world.file,
        options=RunOptions(local=True),
        environment=RunEnvironment(pool=FakePool(), settings=allowed),
    )
    assert (tmp_path / "told").exists()
    assert summaries(world, report) == ("1 step done", "1 step done")


def test_outputs_that_were_removed_are_told(tmp_path: Path) -> None:
    world = World(tmp_path, COPIES)
    world.documents(2)
    world.write("keep/.keep", "")
    world.run()
    for number in range(2):
        (tmp_path / f"inbox/{number}.txt").unlink()
    assert summaries(world, world.run(is_confirmed=True))[0] == "2 deleted"
    assert summaries(world, world.run(prune=True, is_confirmed=True)) == (
        "2 outputs removed",
        "2 outputs removed",
    )
    assert summaries(world, world.run(prune=True, is_confirmed=True)) == (
        "nothing to do",
        "nothing to do",
    )


def test_a_run_that_failed_or_was_stopped_is_not_said_to_have_had_nothing_to_do() -> None:
    for status in ("failed", "interrupted", "budget"):
        report = Report("r", "p", status, {})
        assert report.done_in_words() == ""
        assert last_state(report).message == status
