"""How an answer looks while it comes, and after it."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from paddock.runner.cli.chat_terminal import PlainAnswer, answer_view
from paddock.runner.cli.rich_answers import MarkdownAnswer, TerminalAnswer, settled_length


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


def drawn(pieces: list[str], height: int = 10) -> str:
    console, out = screen(height)
    now = [0.0]
    page = MarkdownAnswer(console, lambda: now[0])
    page.wait("...")
    for piece in pieces:
        now[0] += 1  # each piece is drawn
        assert page.add_text(piece)
    page.end()
    return seen(out.getvalue(), height)


MARKDOWN = """\
# Title

One **bold** word.

- a
- b

  still b

1. one
2. two

```python
def f():

    return 1
```

The end."""


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("height", [5, 40])
def test_markdown_looks_the_same_in_whatever_pieces_it_comes(size: int, height: int) -> None:
    pieces = [MARKDOWN[i : i + size] for i in range(0, len(MARKDOWN), size)]
    text = drawn(pieces, height)
    assert "**" not in text
    words = [line.strip(" ┃│") for line in text.splitlines()]
    for line in ("Title", "One bold word.", "• a", "• b", "still b", "1 one", "2 two", "The end."):
        assert [word.strip() for word in words].count(line) == 1, (line, text)
    assert text.count("return 1") == 1


def test_a_block_longer_than_the_screen_is_whole_above_it() -> None:
    lines = [f"- point {number}\n" for number in range(50)]
    text = drawn(lines, height=8)
    assert [line.strip(" •") for line in text.splitlines() if line.strip()] == [
        f"point {number}" for number in range(50)
    ]


def test_two_answers_do_not_mix() -> None:
    console, out = screen()
    page = MarkdownAnswer(console)
    for text in ("one", "two"):
        page.add_text(text)
        page.end()
    assert seen(out.getvalue()) == "one\ntwo"


def test_what_a_model_says_cannot_move_the_cursor() -> None:
    assert "\\x1b[2J" in drawn(["a\x1b[2Jb"])
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
    page = answer_view(draws_markdown=True)
    assert isinstance(page, PlainAnswer)
    page.wait("m ...")
    page.add_thinking("hm")
    page.add_text("# Yes")
    page.end()
    page.end()
    assert capsys.readouterr().out == "# Yes\n"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("one\n\ntwo words", 5),
        ("one\n\n    code", 0),
        ("- a\n\n- b and more", 0),
        ("- a\n\nsomething else", 5),
        ("```\na\n\nb and more", 0),
        ("```\na\n```\n\nafter it", 11),
        ("\n\none", 0),
    ],
)
def test_a_block_is_settled_when_nothing_after_it_changes_it(text: str, end: int) -> None:
    assert settled_length(text) == end
