"""Terminal input and output of the chat: line editing with history, streamed answers.

Questions of several lines stand between triple quotes. In a pipe stands the answer alone; on a
terminal the reasoning stands before it, and a spinner until it begins.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from paddock.engine.system import private_files
from paddock.runner.progress import printing

if sys.platform != "win32":
    import termios

if TYPE_CHECKING:
    from .rich_answers import TerminalAnswer

MULTILINE_MARK = '"""'
PROMPT, MORE_PROMPT = ">>> ", "... "
MAX_HISTORY_LINES = 2000


class LineInput:
    """Line input with history; the `with` block loads and saves it."""

    def __init__(
        self, history: Path, *, keeps_history: bool = True, read: Callable[[str], str] = input
    ) -> None:
        self.keeps_history = keeps_history
        self._history = history
        self._read = read
        self._line: ModuleType | None = None
        with contextlib.suppress(ImportError):
            self._line = importlib.import_module("readline")
        self._n_before = 0

    def __enter__(self) -> LineInput:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.read_history_file(self._history)
            self._n_before = self._line.get_current_history_length()
            self._line.set_history_length(MAX_HISTORY_LINES)
        return self

    def __exit__(self, *_: object) -> None:
        if self._line is None or not self.keeps_history:
            return
        n_new = self._line.get_current_history_length() - self._n_before
        with contextlib.suppress(OSError):
            private_files.private_folder(self._history.parent)
            private_files.open_private(self._history, "a").close()
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


@contextlib.contextmanager
def echo_disabled() -> Iterator[None]:
    """Turn off echo, so that what is typed during an answer does not appear in it."""
    # The terminal settings of stdin; None if it is not a terminal.
    if sys.platform == "win32":
        before = None
    else:
        try:
            before = termios.tcgetattr(sys.stdin)
        except (termios.error, OSError, ValueError):
            before = None
    if before is None:
        yield
        return
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


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


def answer_view() -> PlainAnswer | TerminalAnswer:
    """Return the view for stdout: a terminal's, or plain text for a pipe."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    if not is_terminal or os.environ.get("TERM") == "dumb":
        return PlainAnswer()
    from .rich_answers import TerminalAnswer

    return TerminalAnswer()


class PlainAnswer:
    """Plain text for a pipe, without the reasoning."""

    def __init__(self) -> None:
        self._last = "\n"

    def wait(self, text: str) -> None:
        """Show nothing."""

    def add_thinking(self, text: str) -> bool:
        return True

    def add_text(self, text: str) -> bool:
        """Write a piece of the answer; return False if stdout was closed."""
        self._last = text[-1:] or self._last
        return printing.write_out(text)

    def end(self) -> None:
        if self._last != "\n":
            printing.write_out("\n")
        self._last = "\n"
