"""Show an answer while it comes: plain text in a pipe, drawn Markdown on a terminal.

What a model says is made harmless first: it may hold what would move the cursor.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from paddock.runner.display import console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.segment import Segment
    from rich.status import Status

DRAW_EVERY_S = 0.1  # often enough to look alive; drawing takes some ms
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)


class View(Protocol):
    """Where an answer goes."""

    def wait(self, words: str) -> None:
        """Say what is waited for, until something comes."""
        ...

    def think(self, text: str) -> bool:
        """Show a piece of reasoning; tells whether anybody reads on."""
        ...

    def say(self, text: str) -> bool:
        """Show a piece of the answer; tells whether anybody reads on."""
        ...

    def end(self) -> None:
        """Leave the cursor below what was said, however it ended."""
        ...


def view(*, draws_markdown: bool, environ: Mapping[str, str] | None = None) -> View:
    """Give the view that suits where we are."""
    environ = os.environ if environ is None else environ
    if not (sys.stdout is not None and sys.stdout.isatty()) or environ.get("TERM") == "dumb":
        return Plain()
    from rich.console import Console

    screen = Console(highlight=False)
    return Drawn(screen) if draws_markdown else Typed(screen)


class Plain:
    """Text as it comes; reasoning is left out, for what reads a pipe wants the answer."""

    def __init__(self) -> None:
        self._last = "\n"

    def wait(self, words: str) -> None:
        """Say nothing."""

    def think(self, text: str) -> bool:
        """Say nothing."""
        return True

    def say(self, text: str) -> bool:
        """Write it."""
        self._last = text[-1:] or self._last
        return console.put(text)

    def end(self) -> None:
        """End the line."""
        if self._last != "\n":
            console.put("\n")
        self._last = "\n"


class Typed:
    """Text as it comes, on a terminal: reasoning in a dim colour before it."""

    def __init__(self, screen: Console) -> None:
        self.screen = screen
        self._status: Status | None = None
        self._is_thinking = False
        self._last = "\n"

    def wait(self, words: str) -> None:
        """Turn a wheel beside the words."""
        from rich.status import Status
        from rich.text import Text

        self._status = Status(Text(console.clean(words), style="dim"), console=self.screen)
        self._status.start()
        # A chat that is killed could not bring a hidden cursor back.
        self.screen.show_cursor(True)

    def think(self, text: str) -> bool:
        """Write it dimly."""
        self._arrive()
        if not self._is_thinking:
            self._is_thinking = True
            self._write("Thinking...\n", "dim")
        return self._write(text, "dim")

    def say(self, text: str) -> bool:
        """Write it."""
        self._arrive()
        self._end_thinking()
        return self._write(text)

    def end(self) -> None:
        """End the line."""
        self._arrive()
        self._end_thinking()
        if self._last != "\n":
            self._write("\n")

    def _arrive(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _end_thinking(self) -> None:
        if self._is_thinking:
            self._is_thinking = False
            self._write("\n\n" if self._last != "\n" else "\n")

    def _write(self, text: str, style: str = "") -> bool:
        from rich.text import Text

        if not text:
            return True
        self._last = text[-1]
        # Not wrapped here: the terminal breaks lines, and knows where the last piece ended.
        safe = Text(console.clean_lines(text), style=style, no_wrap=True, overflow="ignore")
        self.screen.print(safe, end="", soft_wrap=True)
        return True


class Drawn(Typed):
    """Markdown: what is settled is printed for good, the last block is drawn anew as it grows."""

    def __init__(self, screen: Console, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(screen)
        self._clock = clock
        self._text = ""
        """Of the block that still grows."""
        self._n_printed = 0
        """Of its lines, those that had to be printed already: they are above the screen."""
        self._is_gap_due = False
        self._live: Live | None = None
        self._drawn_at = 0.0

    def say(self, text: str) -> bool:
        """Draw it, at most so often."""
        self._arrive()
        self._end_thinking()
        self._text += console.clean_lines(text)
        self._settle()
        if self._text.strip() and self._clock() - self._drawn_at >= DRAW_EVERY_S:
            self._draw()
        return True

    def end(self) -> None:
        """Print what is left."""
        self._arrive()
        self._end_thinking()
        self._print_block(self._text)
        self._text, self._is_gap_due = "", False

    def _settle(self) -> None:
        """Print the blocks that will not change any more."""
        at = settled(self._text)
        while at:
            self._print_block(self._text[:at])
            self._text = self._text[at:]
            at = settled(self._text)

    def _print_block(self, text: str) -> None:
        self._stop_drawing()
        if text.strip():
            self._leave_gap()
            self._print_lines(self._lines(text)[self._n_printed :])
            self._is_gap_due = True
        self._n_printed = 0

    def _leave_gap(self) -> None:
        """Leave an empty line between blocks."""
        if self._is_gap_due:
            self._is_gap_due = False
            self.screen.print()

    def _draw(self) -> None:
        """Draw the block that grows; what would not fit the screen is printed above for good."""
        from rich.live import Live
        from rich.segment import SegmentLines

        lines = self._lines(self._text)
        if self._live is None:
            self._leave_gap()
            self._live = Live(console=self.screen, auto_refresh=False, transient=True)
            self._live.start()
            self.screen.show_cursor(True)
        room = max(1, self.screen.height - 2)
        n_above = max(self._n_printed, len(lines) - room)
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
        from rich.markdown import Markdown

        page = Markdown(text, code_theme="ansi_dark", hyperlinks=False)
        lines = self.screen.render_lines(page, pad=False)
        # Empty lines around some kinds of blocks; those between blocks are ours to leave.
        while lines and _is_empty(lines[0]):
            lines.pop(0)
        while lines and _is_empty(lines[-1]):
            lines.pop()
        return lines

    def _print_lines(self, lines: list[list[Segment]]) -> None:
        from rich.segment import SegmentLines

        self.screen.print(SegmentLines(lines, new_lines=True), end="")


def _is_empty(line: Iterable[Segment]) -> bool:
    return not any(part.text.strip() for part in line)


def settled(text: str) -> int:
    r"""Tell how many characters at the beginning are a block that nothing after them changes.

    A block ends at an empty line outside of code, if what follows begins a new one: neither
    indented nor another point of the same list.

    >>> settled("one\n\nnext"), settled("one\n\n"), settled("- a\n\n- b"), settled("```\na\n\nb")
    (5, 0, 0, 0)
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
            if _begins_anew(text[:start], following):
                return end
    return 0


_LIST = re.compile(r"^ {0,3}([-*+]|\d{1,9}[.)])(\s|$)")


def _begins_anew(block: str, following: str) -> bool:
    """Tell whether this text is surely no part of the block before."""
    head = following.partition("\n")[0]
    if len(head) < 4 and "\n" not in following:
        return False  # it may become anything
    if head[:1] in (" ", "\t"):
        return False
    is_list = any(_LIST.match(line) for line in block.splitlines())
    return not (is_list and _LIST.match(head))
