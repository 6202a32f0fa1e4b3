"""Answers of the chat on a terminal: text as it comes, or Markdown.

Markdown blocks are printed once they are complete, and the last block is redrawn. Control
characters from a model are escaped. Imports Rich at module level, so only a terminal imports it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment, SegmentLines
from rich.status import Status
from rich.text import Text

from paddock.runner.progress import console

DRAW_EVERY_S = 0.1  # often enough to look alive; drawing takes some ms
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)


def terminal_answer(*, draws_markdown: bool) -> TerminalAnswer:
    """Return the view for the terminal of stdout."""
    screen = Console(highlight=False)
    return MarkdownAnswer(screen) if draws_markdown else TerminalAnswer(screen)


class TerminalAnswer:
    """Text for a terminal, with the reasoning before it in a dim colour."""

    def __init__(self, screen: Console) -> None:
        self.screen = screen
        self._status: Status | None = None
        self._is_thinking = False
        self._last = "\n"

    def wait(self, text: str) -> None:
        """Show a spinner with this text until the answer begins."""
        self._status = Status(Text(console.printable_line(text), style="dim"), console=self.screen)
        self._status.start()
        # A killed process could not show a hidden cursor again.
        self.screen.show_cursor(True)

    def add_thinking(self, text: str) -> bool:
        self._stop_waiting()
        if not self._is_thinking:
            self._is_thinking = True
            self._write("Thinking...\n", "dim")
        return self._write(text, "dim")

    def add_text(self, text: str) -> bool:
        self._stop_waiting()
        self._end_thinking()
        return self._write(text)

    def end(self) -> None:
        self._stop_waiting()
        self._end_thinking()
        if self._last != "\n":
            self._write("\n")

    def _stop_waiting(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _end_thinking(self) -> None:
        if self._is_thinking:
            self._is_thinking = False
            self._write("\n\n" if self._last != "\n" else "\n")

    def _write(self, text: str, style: str = "") -> bool:
        if not text:
            return True
        self._last = text[-1]
        # Not wrapped here: only the terminal knows in which column the last piece ended.
        safe = Text(console.printable_text(text), style=style, no_wrap=True, overflow="ignore")
        self.screen.print(safe, end="", soft_wrap=True)
        return True


class MarkdownAnswer(TerminalAnswer):
    """Markdown for a terminal: complete blocks are printed, the last one is redrawn."""

    def __init__(self, screen: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(screen)
        self._clock = clock
        self._text = ""
        """The incomplete block."""
        self._n_printed = 0
        """Lines of it that have been printed, since they do not fit the screen."""
        self._is_gap_due = False
        self._live: Live | None = None
        self._drawn_at = 0.0

    def add_text(self, text: str) -> bool:
        """Add a piece of the answer; redraw at most every `DRAW_EVERY_S`."""
        self._stop_waiting()
        self._end_thinking()
        self._text += console.printable_text(text)
        self._settle()
        if self._text.strip() and self._clock() - self._drawn_at >= DRAW_EVERY_S:
            self._draw()
        return True

    def end(self) -> None:
        self._stop_waiting()
        self._end_thinking()
        self._print_block(self._text)
        self._text, self._is_gap_due = "", False

    def _settle(self) -> None:
        """Print complete blocks."""
        at = settled_length(self._text)
        while at:
            self._print_block(self._text[:at])
            self._text = self._text[at:]
            at = settled_length(self._text)

    def _print_block(self, text: str) -> None:
        self._stop_drawing()
        if text.strip():
            self._leave_gap()
            self._print_lines(self._lines(text)[self._n_printed :])
            self._is_gap_due = True
        self._n_printed = 0

    def _leave_gap(self) -> None:
        if self._is_gap_due:
            self._is_gap_due = False
            self.screen.print()

    def _draw(self) -> None:
        """Redraw the incomplete block; print its upper lines if it does not fit the screen."""
        lines = self._lines(self._text)
        if self._live is None:
            self._leave_gap()
            self._live = Live(console=self.screen, auto_refresh=False, transient=True)
            self._live.start()
            self.screen.show_cursor(True)
        n_fitting = max(1, self.screen.height - 2)
        n_above = max(self._n_printed, len(lines) - n_fitting)
        if n_above > self._n_printed:
            self._live.update(SegmentLines([], new_lines=True), refresh=True)
            self._print_lines(lines[self._n_printed : n_above])
            self._n_printed = n_above
        self._live.update(SegmentLines(lines[n_above:], new_lines=True), refresh=True)
        self._drawn_at = self._clock()

    def _stop_drawing(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _lines(self, text: str) -> list[list[Segment]]:
        page = Markdown(text, code_theme="ansi_dark", hyperlinks=False)
        lines = self.screen.render_lines(page, pad=False)
        # Rich puts empty lines around some blocks; `_leave_gap` writes those between blocks.
        while lines and _is_blank(lines[0]):
            lines.pop(0)
        while lines and _is_blank(lines[-1]):
            lines.pop()
        return lines

    def _print_lines(self, lines: list[list[Segment]]) -> None:
        self.screen.print(SegmentLines(lines, new_lines=True), end="")


def _is_blank(line: Iterable[Segment]) -> bool:
    return not any(part.text.strip() for part in line)


def settled_length(text: str) -> int:
    r"""Return the length of the first block if it is complete, else 0.

    A block ends at an empty line outside of code, if the next line begins a new one: it is neither
    indented nor an item of the same list.

    >>> settled_length("one\n\nnext"), settled_length("one\n\n"), settled_length("- a\n\n- b")
    (5, 0, 0)
    """
    at = 0
    is_code = False
    for line in text.splitlines(keepends=True):
        start, at = at, at + len(line)
        if _FENCE.match(line):
            is_code = not is_code
        elif not is_code and not line.strip() and start:
            following = text[at:].lstrip("\n")
            end = len(text) - len(following)
            if _starts_new_block(text[:start], following):
                return end
    return 0


_LIST_ITEM = re.compile(r"^ {0,3}([-*+]|\d{1,9}[.)])(\s|$)")


def _starts_new_block(block: str, following: str) -> bool:
    """Return whether `following` certainly does not continue the block."""
    head = following.partition("\n")[0]
    if len(head) < 4 and "\n" not in following:
        return False  # too short to know
    if head[:1] in (" ", "\t"):
        return False
    is_list = any(_LIST_ITEM.match(line) for line in block.splitlines())
    return not (is_list and _LIST_ITEM.match(head))
