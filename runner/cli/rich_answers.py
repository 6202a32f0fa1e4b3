"""Answers of the chat on a terminal: a spinner, the reasoning in a dim colour, text as it comes.

Control characters from a model are escaped. Imports Rich at module level, so only a terminal
imports it.
"""

from __future__ import annotations

from rich.console import Console
from rich.status import Status
from rich.text import Text

from paddock.runner.progress import printing


class TerminalAnswer:
    """Text for a terminal, with the reasoning before it in a dim colour."""

    def __init__(self, screen: Console | None = None) -> None:
        self.screen = screen or Console(highlight=False)
        self._status: Status | None = None
        self._is_thinking = False
        self._last = "\n"

    def wait(self, text: str) -> None:
        """Show a spinner with this text until the answer begins."""
        self._status = Status(Text(printing.printable_line(text), style="dim"), console=self.screen)
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
        safe = Text(printing.printable_text(text), style=style, no_wrap=True, overflow="ignore")
        self.screen.print(safe, end="", soft_wrap=True)
        return True
