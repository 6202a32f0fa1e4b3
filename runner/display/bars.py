"""Show a pull, a push or a creation while it goes on: bars on a terminal, plain lines in a pipe.

Everything goes to stderr; stdout is for results. What is told comes from a registry, so it is made
harmless first.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from . import console

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

EVERY_S = 5.0  # a plain line so often: logs stay readable
REFRESH_PER_S = 8
_BAR_WIDTH = 24


class Teller(Protocol):
    """Is told how far it is."""

    def __enter__(self) -> Teller:
        """Begin to show."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last picture."""
        ...

    def tell(self, status: str, total: int | None = None, completed: int | None = None) -> None:
        """Take one line of progress; sizes are bytes."""
        ...


def following(environ: Mapping[str, str] | None = None) -> Teller:
    """Give the one that suits where we are."""
    environ = os.environ if environ is None else environ
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return Bars() if is_terminal and environ.get("TERM") != "dumb" else Lines()


class Lines:
    """Plain lines: what is new at once, how far it is now and then."""

    def __init__(
        self,
        write: Callable[[str], None] = console.tell,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._clock = clock
        self._last = ""
        self._told_at = 0.0
        self._is_whole = False

    def __enter__(self) -> Lines:
        """Say nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Say nothing more."""

    def tell(self, status: str, total: int | None = None, completed: int | None = None) -> None:
        """Write what is new."""
        status, now = console.clean(status), self._clock()
        is_new = status != self._last
        is_whole = bool(total) and completed == total
        is_due = now - self._told_at >= EVERY_S or (is_whole and not self._is_whole)
        if is_new or (total and is_due):
            self._write(f"{status}{_how_far(total, completed)}")
            self._told_at = now
            self._is_whole = is_whole
        self._last = status


def _how_far(total: int | None, completed: int | None) -> str:
    """Write what is done of how much.

    >>> _how_far(2_000_000, 500_000), _how_far(None, None)
    (': 25 % of 2 MB', '')
    """
    if not total:
        return ""
    return f": {100 * (completed or 0) // total} % of {console.size(total)}"


@dataclass
class _Step:
    """One line of the picture."""

    since: float
    before: int
    """Bytes that were there already when it was first told of."""
    total: int | None = None
    completed: int = 0
    is_over: bool = False


class Bars:
    """A line for each step, with a bar where its size is known."""

    def __init__(
        self, console_: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = console_ or Console(stderr=True, highlight=False)
        self._clock = clock
        self._steps: dict[str, _Step] = {}
        self._live = Live(
            console=self._console,
            refresh_per_second=REFRESH_PER_S,
            get_renderable=self.picture,
            redirect_stderr=True,
        )

    def __enter__(self) -> Bars:
        """Begin to draw."""
        self._live.start()
        # A pull that is killed could not bring a hidden cursor back.
        self._console.show_cursor(True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last picture on the screen."""
        if error is None:
            for step in self._steps.values():
                step.is_over = True
        self._live.stop()

    def tell(self, status: str, total: int | None = None, completed: int | None = None) -> None:
        """Note it; the next picture shows it."""
        status = console.clean(status)
        step = self._steps.get(status)
        if step is None:
            for other in self._steps.values():
                # What has no size is done when the next one begins.
                other.is_over = other.is_over or not other.total
            step = self._steps[status] = _Step(self._clock(), completed or 0)
        step.total, step.completed = total, completed or 0
        step.is_over = bool(total) and step.completed >= (total or 0)

    def picture(self) -> RenderableType:
        """Draw what is known now."""
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(width=_BAR_WIDTH)
        table.add_column(no_wrap=True)
        for status, step in tuple(self._steps.items()):
            table.add_row(_headed(status, step), *self._how_far(step))
        return table

    def _how_far(self, step: _Step) -> tuple[RenderableType, str]:
        from rich.progress_bar import ProgressBar

        if not step.total:
            return "", ""
        words = f"{console.size(step.completed)} of {console.size(step.total)}"
        seconds, n_bytes = self._clock() - step.since, step.completed - step.before
        if not step.is_over and seconds > 1 and n_bytes > 0:
            per_s = n_bytes / seconds
            to_go = console.duration((step.total - step.completed) / per_s)
            words += f", {console.size(round(per_s))}/s, {to_go} to go"
        return ProgressBar(step.total, step.completed, width=_BAR_WIDTH), words


def _headed(status: str, step: _Step) -> RenderableType:
    from rich.text import Text

    mark, style = ("✓", "green") if step.is_over else ("·", "cyan")
    return Text.assemble((f"{mark} ", style), status)
