"""Progress of pulls: lines in a pipe, bars on a terminal."""

import io

from rich.console import Console

from paddock.runner.cli.commands.model_transfers import TransferLines, transfer_progress
from paddock.runner.progress.live_displays import TransferBars


def lines_of(*events: tuple[float, str, int | None, int | None]) -> list[str]:
    now, written = [0.0], list[str]()
    with TransferLines(written.append, lambda: now[0]) as lines:
        for at, status, total, completed in events:
            now[0] = at
            lines.show(status, total, completed)
    return written


def test_in_a_pipe_what_is_new_is_told_at_once_and_the_rest_now_and_then() -> None:
    mb = 1_000_000
    assert lines_of(
        (0, "pulling manifest", None, None),
        (1, "pulling abc", 10 * mb, 0),
        (2, "pulling abc", 10 * mb, 2 * mb),
        (7, "pulling abc", 10 * mb, 5 * mb),
        (8, "pulling abc", 10 * mb, 10 * mb),
        (9, "pulling abc", 10 * mb, 10 * mb),
        (10, "writing\x1b[2J manifest", None, None),
    ) == [
        "pulling manifest",
        "pulling abc: 0 % of 10 MB",
        "pulling abc: 50 % of 10 MB",
        "pulling abc: 100 % of 10 MB",
        "writing\\x1b[2J manifest",
    ]


def test_on_a_terminal_each_step_has_a_line_and_a_bar_where_its_size_is_known() -> None:
    out, now = io.StringIO(), [0.0]
    screen = Console(
        file=out, force_terminal=True, width=100, color_system=None, _environ={"TERM": "xterm"}
    )
    with TransferBars(screen, lambda: now[0]) as bars:
        bars.show("pulling manifest")
        bars.show("pulling abc", 10_000_000, 1_000_000)
        now[0] = 2.0
        bars.show("pulling abc", 10_000_000, 5_000_000)
        assert bars._steps["pulling manifest"].is_over
        shown = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=True)
        with shown.capture() as captured:
            shown.print(bars.table())
        text = captured.get()
        bars.show("success")
    assert "✓ pulling manifest" in text
    assert "· pulling abc" in text
    assert "5 MB of 10 MB, 2 MB/s, 2.5 s to go" in text
    assert "✓ success" in out.getvalue()


def test_without_a_terminal_there_are_lines() -> None:
    assert isinstance(transfer_progress({}), TransferLines)
