"""Bars of a pull, push or create on a terminal: a line for each step.

Imports Rich at module level, so only a terminal imports it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from paddock.engine.system import units
from paddock.runner.progress import console

REFRESH_PER_S = 8
_BAR_WIDTH = 24


@dataclass
class _TransferStep:
    """One line of the bars."""

    since: float
    before: int
    """Bytes that an earlier, interrupted transfer left."""
    total: int | None = None
    completed: int = 0
    is_over: bool = False


class TransferBars:
    """A line for each step, with a bar if its size is known."""

    def __init__(
        self, console_: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console_ or Console(stderr=True, highlight=False)
        self._clock = clock
        self._steps: dict[str, _TransferStep] = {}
        self._live = Live(
            console=self._console,
            refresh_per_second=REFRESH_PER_S,
            get_renderable=self.table,
            redirect_stderr=True,
        )

    def __enter__(self) -> TransferBars:
        """Start."""
        self._live.start()
        # A killed process could not show a hidden cursor again.
        self._console.show_cursor(True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Stop."""
        if kind is None:
            for step in self._steps.values():
                step.is_over = True
        self._live.stop()

    def show(self, status: str, total: int | None = None, completed: int | None = None) -> None:
        """Record progress for the next refresh; sizes are bytes."""
        status = console.printable_line(status)
        step = self._steps.get(status)
        if step is None:
            for other in self._steps.values():
                # A step without a size is done when the next one begins.
                other.is_over = other.is_over or not other.total
            step = self._steps[status] = _TransferStep(self._clock(), completed or 0)
        step.total, step.completed = total, completed or 0
        step.is_over = bool(total) and step.completed >= (total or 0)

    def table(self) -> RenderableType:
        """Return the current lines."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(width=_BAR_WIDTH)
        table.add_column(no_wrap=True)
        for status, step in tuple(self._steps.items()):
            table.add_row(_step_heading(status, step), *self._how_far(step))
        return table

    def _how_far(self, step: _TransferStep) -> tuple[RenderableType, str]:
        if not step.total:
            return "", ""
        words = f"{units.size(step.completed)} of {units.size(step.total)}"
        seconds, n_bytes = self._clock() - step.since, step.completed - step.before
        if not step.is_over and seconds > 1 and n_bytes > 0:
            per_s = n_bytes / seconds
            to_go = units.duration((step.total - step.completed) / per_s)
            words += f", {units.size(round(per_s))}/s, {to_go} to go"
        return ProgressBar(step.total, step.completed, width=_BAR_WIDTH), words


def _step_heading(status: str, step: _TransferStep) -> RenderableType:
    mark, style = ("✓", "green") if step.is_over else ("·", "cyan")
    return Text.assemble((f"{mark} ", style), status)
