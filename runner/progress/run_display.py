"""Progress of a run on stderr: a live table, plain lines in a pipe, JSON lines with `--log-json`.

stdout is for results. Rich is slow to import: only `live_displays` does, and only for a terminal.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

from . import journal, printing
from .events import Observer
from .item_states import BAD, ItemState
from .run_progress import RunProgress, end_text, failure_line, progress_text, to_do_text

if TYPE_CHECKING:
    from .report import Report

LINE_EVERY_S = 5.0  # keeps logs of long runs readable
NOTEBOOK_EVERY_S = 0.5  # each is a message to the browser
MOST_NOTES = 300  # the newest; a run has at most 200, and 51 lines on failures


@contextmanager
def run_observer(
    *, environ: Mapping[str, str] = os.environ, is_quiet_stdout: bool = False, is_log: bool = False
) -> Iterator[Observer]:
    """Yield the observer for stderr; leave its context before writing anything else.

    Args:
        environ: the environment, for `TERM`.
        is_quiet_stdout: stdout carries one JSON object: what a plug-in prints goes to stderr.
        is_log: stderr gets one JSON object per line.
    """
    shown = json_lines_observer() if is_log else _display(environ, is_quiet_stdout=is_quiet_stdout)
    with shown as observer, redirect_stdout(sys.stderr) if is_quiet_stdout else nullcontext():
        yield observer


@contextmanager
def script_observer() -> Iterator[Observer]:
    """Yield an observer for a Python script or notebook: it shows nothing where no one looks."""
    # IPython's display module where a notebook's kernel runs; it is imported then
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    notebook = sys.modules.get("IPython.display") if getattr(shell, "kernel", None) else None
    if notebook is not None:
        yield NotebookLines(notebook)
    elif _is_terminal(sys.stderr):
        with _display(os.environ, is_quiet_stdout=True) as observer:
            yield observer
    else:
        yield Observer()


def _display(
    environ: Mapping[str, str], *, is_quiet_stdout: bool
) -> AbstractContextManager[Observer]:
    streams = (sys.stderr,) if is_quiet_stdout else (sys.stderr, sys.stdout)
    if environ.get("TERM") == "dumb" or not all(map(_is_terminal, streams)):
        return nullcontext(ProgressLines())
    from .live_displays import LiveTable

    return LiveTable()


@contextmanager
def json_lines_observer() -> Iterator[Observer]:
    with journal.LineWriter(sys.stderr) as lines:
        yield journal.RunJournal(lines)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


class NotebookLines(RunProgress):
    """One line for each step in the output of a notebook's cell, which is rewritten."""

    _shown_at = 0.0

    def __init__(self, display: Any) -> None:
        super().__init__()
        self._pretty = display.Pretty
        self._cell = display.display(self._pretty(""), display_id=True)
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        super().item(step, key, state, detail)
        self._show_soon()

    def tokens(self, n: int) -> None:
        super().tokens(n)
        self._show_soon()

    def note(self, text: str) -> None:
        self._notes.append(printing.printable_message(text))
        self._show_soon()

    def ended(self, report: Report) -> None:
        self._show()

    def _show_soon(self) -> None:
        if self.clock() - self._shown_at >= NOTEBOOK_EVERY_S:
            self._show()

    def _show(self) -> None:
        self._shown_at = now = self.clock()
        lines = [
            f"{name}: {end_text(pace, now) if pace.is_over else progress_text(pace, now)}"
            for name, pace in self.steps.items()
            if pace.since is not None
        ]
        self._cell.update(self._pretty("\n".join([*lines, *self._notes])))


class ProgressLines(RunProgress):
    """Plain lines: steps as they start and end, failures at once, progress every few seconds."""

    _shown_at = 0.0

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        super().began(run, pipeline, steps)
        self._shown_at = self.clock()
        printing.print_err(f"run {run} of {printing.printable_line(pipeline)}")

    def step(self, step: str, total: int | None, fresh: int) -> None:
        super().step(step, total, fresh)
        if total != 1 and total is not None:
            printing.print_err(f"{step}: {to_do_text(self.steps[step])}")
        elif fresh:
            printing.print_err(f"{step}: fresh")

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        super().item(step, key, state, detail)
        if state in BAD:
            printing.print_err(failure_line(step, key, state, detail))
        pace = self.steps[step]
        now = self.clock()
        words = ""
        if state == "running":
            is_first = not key and len(pace.running) == 1 and not pace.n_ended
            words = "running" if is_first else ""
        elif pace.is_over:
            words = end_text(pace, now)
        elif now - self._shown_at >= LINE_EVERY_S:
            words = progress_text(pace, now)
        if words:
            printing.print_err(f"{step}: {words}")
            self._shown_at = now

    def note(self, text: str) -> None:
        printing.print_err(printing.printable_message(text))
