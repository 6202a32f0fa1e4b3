"""What a person sees of a run while it goes: plain lines, the live table."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.journal import JournalTail
from paddock.runner.progress.live_displays import LiveTable, TransferBars
from paddock.runner.progress.report import Report
from paddock.runner.progress.run_display import NotebookLines, ProgressLines, run_observer


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_plain_lines_tell_beginning_failures_and_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ProgressLines(clock)
    lines.began("swift-otter", "digest", ["docs", "each"])
    lines.item("docs", "", ItemState.RUNNING, None)
    clock.now += 0.5
    lines.item("docs", "", ItemState.DONE, None)
    lines.step("each", 4, 2)
    lines.item("each", "a.md", ItemState.RUNNING, "summary")
    lines.item("each", "b.pdf", ItemState.RUNNING, "text")
    clock.now += 2
    lines.item("each", "b.pdf", ItemState.QUARANTINED, "the PDF is damaged")
    clock.now += 1.5
    lines.item("each", "a.md", ItemState.DONE, None)
    assert capsys.readouterr() == (
        "",
        "run swift-otter of digest\n"
        "docs: running\n"
        "docs: done in 0.5 s\n"
        "each: 4 items, 2 fresh, 2 to do\n"
        "each: quarantined b.pdf: the PDF is damaged\n"
        "each: 1 done, 1 quarantined in 3.5 s\n",
    )


def test_what_files_are_called_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines()
    lines.began("r", "p", ["each"])
    lines.item("each", "a\x1b[2J\nb\u202etxt", ItemState.QUARANTINED, "bad \x07 byte")
    lines.note("note\x1b]0;title\x07")
    assert capsys.readouterr().err.splitlines()[1:] == [
        "each: quarantined a\\x1b[2J\\nb\\u202etxt: bad \\x07 byte",
        "note\\x1b]0;title\\x07",
    ]


def picture(table: LiveTable, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table.table())
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def live(clock: Clock, width: int = 100) -> LiveTable:
    return LiveTable(Console(file=io.StringIO(), width=width), clock)


def test_the_table_shows_done_running_left_speed_and_time_to_go(clock: Clock) -> None:
    table = live(clock)
    table.began("swift-otter", "digest", ["docs", "each", "digest"])
    table.item("docs", "", ItemState.DONE, None)
    table.step("each", 20, 10)
    for key in ("a.md", "b.md", "c.pdf"):
        table.item("each", key, ItemState.RUNNING, "summary")
    clock.now += 4
    table.tokens(200)
    clock.now += 2
    table.time_left("each", 30.0)
    clock.now += 6
    table.item("each", "a.md", ItemState.DONE, None)
    table.item("each", "c.pdf", ItemState.QUARANTINED, "damaged")
    shown = picture(table).splitlines()
    assert shown[0].split() == ["step", "done", "running", "left", "tokens/s", "to", "go"]
    assert shown[2].replace("━", "").replace("╸", "").split() == [
        *("each", "11", "+1", "failed", "1", "8", "25", "24", "s")
    ]
    assert shown[3].split() == ["digest", "waiting"]
    assert shown[4] == "reading: b.md (summary)"
    assert shown[5] == "12 s, 25 tokens/s"


def test_what_a_step_prints_is_kept_from_those_who_read_one_object(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for is_log in (False, True):
        with run_observer(environ={}, is_quiet_stdout=True, is_log=is_log):
            print("said by a plug-in")
        print("{}")
        captured = capsys.readouterr()
        assert (captured.out, captured.err) == ("{}\n", "said by a plug-in\n")
    with run_observer(environ={}):
        print("said by a plug-in")
    assert capsys.readouterr().out == "said by a plug-in\n"


class Notebook:
    """IPython's display module."""

    Pretty = str

    def display(self, text: str, display_id: bool) -> "Notebook":
        return self

    def update(self, text: str) -> None:
        self.shown = text


def test_what_waits_to_be_shown_is_bounded(clock: Clock, tmp_path: Path) -> None:
    """By a terminal that was stopped, by a notebook, of a registry, of a file's long line."""
    table, notebook, bars = live(clock), Notebook(), TransferBars(live(clock)._console)
    cell = NotebookLines(notebook)
    for number in range(2_000):
        table.note(f"note {number}")
        cell.note(f"note {number}")
        bars.show(f"pulling {number}")
    table.print_messages()
    cell.ended(Report("a", "p", "completed", {}))
    assert isinstance(table._console.file, io.StringIO)
    printed = table._console.file.getvalue().splitlines()
    assert (len(printed), printed[-1]) == (1_000, "note 1999")
    assert notebook.shown.splitlines()[-1] == "note 1999"
    assert len(notebook.shown.splitlines()) == 300
    assert bars.table().row_count == 1_000
    log = tmp_path / "run.jsonl"
    log.write_bytes(b"x" * 17_000_000)
    tail = JournalTail(log)
    assert (tail.new_lines(), tail._rest) == ([], b"")
