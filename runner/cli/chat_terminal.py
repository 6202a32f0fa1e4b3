"""Input lines and answers of the terminal chat.

History, several lines between triple quotes, streamed text or Markdown. readline edits the line
where Python has it. Answers are plain text in a pipe; on a terminal Markdown blocks are printed
once they cannot change any more, and the last block is redrawn. Control characters of a model are
made harmless first.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

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
    """What is typed at the terminal. Use it in a `with`: the history is kept at its end."""

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
        """Take up the history of earlier sessions."""
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Keep what was typed, for this person alone."""
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
            EOFError: there is no more (Ctrl-D).
            KeyboardInterrupt: it was given up (Ctrl-C).
        """
        text = self._read(PROMPT)
        while text.count(MULTILINE_MARK) % 2:
            try:
                text += "\n" + self._read(MORE_PROMPT)
            except EOFError:
                break
        return without_marks(text)

    def _completed(self, text: str, state: int) -> str | None:
        """Return the `state`-th word that begins so; only at a line's beginning and after `/set`."""
        matches = [word for word in self._words if text.startswith("/") and word.startswith(text)]
        return matches[state] if state < len(matches) else None


@contextlib.contextmanager
def echo_disabled() -> Iterator[None]:
    """Let what is typed meanwhile wait for the next question, rather than stand in the answer."""
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
    """Return what a terminal's settings are; None: standard input is none that has any."""
    try:
        import termios
    except ImportError:
        return None
    try:
        return termios.tcgetattr(sys.stdin)
    except (termios.error, OSError, ValueError):
        return None


def without_marks(text: str) -> str:
    r"""Take the marks away: around a question, or around a command's value.

    >>> without_marks(f"{MULTILINE_MARK}one\ntwo{MULTILINE_MARK}"), without_marks(f"/set system {MULTILINE_MARK}Be\nbrief.{MULTILINE_MARK}")
    ('one\ntwo', '/set system Be\nbrief.')
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


class AnswerView(Protocol):
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


def answer_view(*, draws_markdown: bool, environ: Mapping[str, str] | None = None) -> AnswerView:
    """Return the view that suits where we are."""
    environ = os.environ if environ is None else environ
    if not (sys.stdout is not None and sys.stdout.isatty()) or environ.get("TERM") == "dumb":
        return PlainAnswer()
    from rich.console import Console

    screen = Console(highlight=False)
    return MarkdownAnswer(screen) if draws_markdown else TerminalAnswer(screen)


class PlainAnswer:
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
        return console.write_out(text)

    def end(self) -> None:
        """End the line."""
        if self._last != "\n":
            console.write_out("\n")
        self._last = "\n"


class TerminalAnswer:
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

        self._status = Status(Text(console.printable_line(words), style="dim"), console=self.screen)
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
        safe = Text(console.printable_text(text), style=style, no_wrap=True, overflow="ignore")
        self.screen.print(safe, end="", soft_wrap=True)
        return True


class MarkdownAnswer(TerminalAnswer):
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
        self._text += console.printable_text(text)
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
    r"""Return how many characters at the beginning are a block that nothing after them changes.

    A block ends at an empty line outside of code, if what follows begins a new one: neither
    indented nor another point of the same list.

    >>> settled_length("one\n\nnext"), settled_length("one\n\n"), settled_length("- a\n\n- b"), settled_length("```\na\n\nb")
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
            if _starts_new_block(text[:start], following):
                return end
    return 0


_LIST_ITEM = re.compile(r"^ {0,3}([-*+]|\d{1,9}[.)])(\s|$)")


def _starts_new_block(block: str, following: str) -> bool:
    """Return whether this text is surely no part of the block before."""
    head = following.partition("\n")[0]
    if len(head) < 4 and "\n" not in following:
        return False  # it may become anything
    if head[:1] in (" ", "\t"):
        return False
    is_list = any(_LIST_ITEM.match(line) for line in block.splitlines())
    return not (is_list and _LIST_ITEM.match(head))
