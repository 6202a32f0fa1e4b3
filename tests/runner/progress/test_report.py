"""What a run is said to have done: "nothing to do" only where nothing was done."""

from pathlib import Path

from paddock.runner.cli.history_text import run_result_text
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.run_history import recent_runs
from paddock.runner.progress.prefect_view import last_state
from paddock.runner.progress.report import Report
from tests.runner.world import World, each_document

COPIES = """\
name: copies
""" + each_document("""\
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}
""")


def summaries(world: World, report: Report) -> tuple[str, str]:
    """Return how Prefect shows the end of a run, and how the list of runs does."""
    latest = recent_runs(find_ledgers([world.folder]), limit=1).runs[0]
    return last_state(report).message, run_result_text(latest)


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
