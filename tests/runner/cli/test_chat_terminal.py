import io
import re

import pytest
from rich.console import Console

from paddock.runner.cli.chat_terminal import PlainAnswer, answer_view
from paddock.runner.cli.rich_answers import TerminalAnswer


def screen(height: int = 10) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    console = Console(
        file=out,
        force_terminal=True,
        width=40,
        height=height,
        color_system=None,
        highlight=False,
        _environ={"TERM": "xterm"},
    )
    return console, out


def seen(written: str, height: int = 10) -> str:
    """Return what stands on a terminal of this height, what scrolled off it too."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif part == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", part):
            row -= int(part[2:-1] or 1)
            assert row >= max(0, len(lines) - height), "the cursor left the screen"
        elif not part.startswith(("\x1b", "\r")):
            lines[row] += part
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def test_what_a_model_says_cannot_move_the_cursor() -> None:
    console, out = screen()
    page = TerminalAnswer(console)
    page.add_text("a\x1b[2Jb")
    page.end()
    assert seen(out.getvalue()) == "a\\x1b[2Jb"


def test_reasoning_stands_before_the_answer() -> None:
    console, out = screen()
    page = TerminalAnswer(console)
    page.wait("m ...")
    for piece in ("hm", "m"):
        page.add_thinking(piece)
    page.add_text("Yes.")
    page.end()
    assert seen(out.getvalue()).endswith("Thinking...\nhmm\n\nYes.")


def test_in_a_pipe_stands_the_answer_alone(capsys: pytest.CaptureFixture[str]) -> None:
    page = answer_view()
    assert isinstance(page, PlainAnswer)
    page.wait("m ...")
    page.add_thinking("hm")
    page.add_text("# Yes")
    page.end()
    page.end()
    assert capsys.readouterr().out == "# Yes\n"
