"""Terminal input and output of the chat: line editing with history, streamed text or Markdown.

Questions of several lines stand between triple quotes. Answers are plain text in a pipe; on a
terminal, Markdown blocks are printed once they are complete, and the last block is redrawn.
Control characters from a model are escaped.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from paddock.engine.system import files
from paddock.runner.progress import console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.segment import Segment
    from rich.status import Status

MULTILINE_MARK = '"""'
PROMPT, MORE_PROMPT = ">>> ", "... "
MAX_HISTORY_LINES = 2000


class LineInput:
    """Line input with history and completion; the `with` block loads and saves the history."""

    def __init__(
        self,
        history: Path,
        words: Iterable[str] = (),
        *,
        keeps_history: bool = True,
        read: Callable[[str], str] = input,
    ) -> None:
        self.keeps_history = keeps_history
        self._history = history
        self._words = tuple(sorted(words))
        self._read = read
        self._line: ModuleType | None = _readline_module()
        self._n_before = 0

    def __enter__(self) -> LineInput:
        """Load the history."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.read_history_file(self._history)
            self._n_before = self._line.get_current_history_length()
            self._line.set_history_length(MAX_HISTORY_LINES)
            self._line.set_completer(self._completed)
            self._line.set_completer_delims(" \t\n")
            is_editline = "libedit" in (self._line.__doc__ or "")
            self._line.parse_and_bind("bind ^I rl_complete" if is_editline else "tab: complete")
        return self

    def __exit__(self, *_: object) -> None:
        """Save the new lines of the history."""
        if self._line is None or not self.keeps_history:
            return
        n_new = self._line.get_current_history_length() - self._n_before
        with contextlib.suppress(OSError):
            files.private_folder(self._history.parent)
            files.open_private(self._history, "a").close()
            if n_new > 0:
                self._line.append_history_file(n_new, self._history)

    def ask(self) -> str:
        """Read one input, without the marks around several lines.

        Raises:
            EOFError: end of input (Ctrl-D).
            KeyboardInterrupt: Ctrl-C.
        """
        text = self._read(PROMPT)
        while text.count(MULTILINE_MARK) % 2:
            try:
                text += "\n" + self._read(MORE_PROMPT)
            except EOFError:
                break
        return without_marks(text)

    def _completed(self, text: str, state: int) -> str | None:
        """Return the `state`-th slash command with this prefix, as readline asks for it."""
        matches = [word for word in self._words if text.startswith("/") and word.startswith(text)]
        return matches[state] if state < len(matches) else None


@contextlib.contextmanager
def echo_disabled() -> Iterator[None]:
    """Turn off echo, so that what is typed during an answer does not appear in it."""
    before = _terminal_attributes()
    if before is None:
        yield
        return
    import termios

    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _terminal_attributes() -> list[Any] | None:
    """Return the terminal settings of stdin; None if it is not a terminal."""
    try:
        import termios
    except ImportError:
        return None
    try:
        return termios.tcgetattr(sys.stdin)
    except (termios.error, OSError, ValueError):
        return None


def without_marks(text: str) -> str:
    r"""Remove the marks around a question, or around a command's value.

    >>> without_marks(f"/set system {MULTILINE_MARK}Be\nbrief.{MULTILINE_MARK}")
    '/set system Be\nbrief.'
    """
    head, mark, rest = text.partition(MULTILINE_MARK)
    if not mark:
        return text
    inner, _, tail = rest.partition(MULTILINE_MARK)
    return head + inner.strip("\n") + tail


def _readline_module() -> ModuleType | None:
    try:
        import readline
    except ImportError:
        return None
    return readline


DRAW_EVERY_S = 0.1  # often enough to look alive; drawing takes some ms
_FENCE = re.compile(r"^ {0,3}(```|~~~)", re.MULTILINE)


def answer_view(
    *, draws_markdown: bool, environ: Mapping[str, str] | None = None
) -> PlainAnswer | TerminalAnswer:
    """Return the view for stdout: plain text for a pipe, else text or Markdown."""
    environ = os.environ if environ is None else environ
    if not (sys.stdout is not None and sys.stdout.isatty()) or environ.get("TERM") == "dumb":
        return PlainAnswer()
    from rich.console import Console

    screen = Console(highlight=False)
    return MarkdownAnswer(screen) if draws_markdown else TerminalAnswer(screen)


class PlainAnswer:
    """Plain text for a pipe, without the reasoning."""

    def __init__(self) -> None:
        self._last = "\n"

    def wait(self, text: str) -> None:
        """Show nothing."""

    def add_thinking(self, text: str) -> bool:
        """Show nothing."""
        return True

    def add_text(self, text: str) -> bool:
        """Write a piece of the answer; return False if stdout was closed."""
        self._last = text[-1:] or self._last
        return console.write_out(text)

    def end(self) -> None:
        """End the line."""
        if self._last != "\n":
            console.write_out("\n")
        self._last = "\n"


class TerminalAnswer:
    """Text for a terminal, with the reasoning before it in a dim colour."""

    def __init__(self, screen: Console) -> None:
        self.screen = screen
        self._status: Status | None = None
        self._is_thinking = False
        self._last = "\n"

    def wait(self, text: str) -> None:
        """Show a spinner with this text until the answer begins."""
        from rich.status import Status
        from rich.text import Text

        self._status = Status(Text(console.printable_line(text), style="dim"), console=self.screen)
        self._status.start()
        # A killed process could not show a hidden cursor again.
        self.screen.show_cursor(True)

    def add_thinking(self, text: str) -> bool:
        """Write a piece of reasoning."""
        self._stop_waiting()
        if not self._is_thinking:
            self._is_thinking = True
            self._write("Thinking...\n", "dim")
        return self._write(text, "dim")

    def add_text(self, text: str) -> bool:
        """Write a piece of the answer."""
        self._stop_waiting()
        self._end_thinking()
        return self._write(text)

    def end(self) -> None:
        """End the line."""
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
        from rich.text import Text

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
        """Print the last block."""
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
        from rich.live import Live
        from rich.segment import SegmentLines

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
        from rich.markdown import Markdown

        page = Markdown(text, code_theme="ansi_dark", hyperlinks=False)
        lines = self.screen.render_lines(page, pad=False)
        # Rich puts empty lines around some blocks; `_leave_gap` writes those between blocks.
        while lines and _is_blank(lines[0]):
            lines.pop(0)
        while lines and _is_blank(lines[-1]):
            lines.pop()
        return lines

    def _print_lines(self, lines: list[list[Segment]]) -> None:
        from rich.segment import SegmentLines

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
