'''Read what a person types: lines with a history, several of them between `"""`.

Knows no meaning. readline, where Python has it, edits the line; without it lines are read as they
come.
'''

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from paddock.engine.system import private

MARK = '"""'
PROMPT, MORE = ">>> ", "... "
MOST_LINES = 2000


class Keyboard:
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
        self._line: ModuleType | None = _readline()
        self._n_before = 0

    def __enter__(self) -> Keyboard:
        """Take up the history of earlier sessions."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.read_history_file(self._history)
            self._n_before = self._line.get_current_history_length()
            self._line.set_history_length(MOST_LINES)
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
            private.folder(self._history.parent)
            private.opened(self._history, "a").close()
            if n_new > 0:
                self._line.append_history_file(n_new, self._history)

    def ask(self) -> str:
        """Read one input, without the marks around several lines.

        Raises:
            EOFError: there is no more (Ctrl-D).
            KeyboardInterrupt: it was given up (Ctrl-C).
        """
        text = self._read(PROMPT)
        while text.count(MARK) % 2:
            try:
                text += "\n" + self._read(MORE)
            except EOFError:
                break
        return unwrapped(text)

    def _completed(self, text: str, state: int) -> str | None:
        """Give the `state`-th word that begins so; only at a line's beginning and after `/set`."""
        matches = [word for word in self._words if text.startswith("/") and word.startswith(text)]
        return matches[state] if state < len(matches) else None


@contextlib.contextmanager
def unechoed() -> Iterator[None]:
    """Let what is typed meanwhile wait for the next question, rather than stand in the answer."""
    before = _terminal_state()
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


def _terminal_state() -> list[Any] | None:
    """Give what a terminal's settings are; None: standard input is none that has any."""
    try:
        import termios
    except ImportError:
        return None
    try:
        return termios.tcgetattr(sys.stdin)
    except (termios.error, OSError, ValueError):
        return None


def unwrapped(text: str) -> str:
    r"""Take the marks away: around a question, or around a command's value.

    >>> unwrapped(f"{MARK}one\ntwo{MARK}"), unwrapped(f"/set system {MARK}Be\nbrief.{MARK}")
    ('one\ntwo', '/set system Be\nbrief.')
    """
    head, mark, rest = text.partition(MARK)
    if not mark:
        return text
    inner, _, tail = rest.partition(MARK)
    return head + inner.strip("\n") + tail


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:
        return None
    return readline
