"""Live displays on a terminal: the table of a run, bars of transfers, a list of runs.

Imports Rich at module level, so only a terminal imports it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from paddock.engine.system import units
from paddock.engine.system.records import Struct

from . import printing
from .item_states import APART, BAD, ItemState
from .run_progress import Clock, RunProgress, StepProgress, failure_line

if TYPE_CHECKING:
    from paddock.engine.memory.pool_stats import ModelStats

REFRESH_PER_S = 8
MAX_NAMED_DOCUMENTS = 4  # the others are counted
MAX_FAILURE_LINES = 50  # above the table; a folder of broken files must not scroll for minutes
MAX_WAITING_MESSAGES = 1_000  # for a terminal that was stopped (Ctrl-S); the newest
MAX_TRANSFER_STEPS = 1_000  # their texts are a registry's; the newest
_TRANSFER_BAR_WIDTH = 24


class LiveTable(RunProgress):
    def __init__(self, console_: Console | None = None, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._console = console_ or Console(stderr=True, highlight=False)
        self._is_over = False
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            get_renderable=self.table,
            vertical_overflow="crop",
        )
        self._messages: deque[Text] = deque(maxlen=MAX_WAITING_MESSAGES)
        self._n_failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_drawing, name="progress", daemon=True)

    def __enter__(self) -> LiveTable:
        self._live.start()
        # A killed process could not show a hidden cursor again.
        self._console.show_cursor(True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._is_over = True
        self.print_messages()
        self._live.stop()

    def _keep_drawing(self) -> None:
        # Only this thread prints while the table is shown: two threads would tear it.
        while not self._stop.wait(1 / REFRESH_PER_S):
            self.print_messages()
            self._live.refresh()

    def print_messages(self) -> None:
        while self._messages:
            self._console.print(self._messages.popleft())

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        super().began(run, pipeline, steps)
        self._above(f"run {run} of {pipeline}", "bold")

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        super().item(step, key, state, detail)
        if state in BAD:
            self._n_failures += 1
            if self._n_failures <= MAX_FAILURE_LINES:
                self._above(failure_line(step, key, state, detail), "yellow")
            elif self._n_failures == MAX_FAILURE_LINES + 1:
                self._above("Further failures are counted, and listed in the report.", "yellow")

    def note(self, text: str) -> None:
        self._above(text, "")

    def _above(self, text: str, style: str) -> None:
        self._messages.append(Text(printing.printable_message(text), style=style))

    def table(self) -> Group:
        with self.lock:
            now = self.clock()
            paces = list(self.steps.values())
            running = [pair for pace in paces for pair in pace.running.items() if pair[0]]
            lines: list[Table | Text] = [self._step_table(paces, now)] if paces else []
            for text in self._lines_below(running):
                lines.append(line := Text(printing.printable_line(text)))
                line.truncate(self._console.width, overflow="ellipsis")
            footer = units.duration(now - self.since)
            if (rate := self.meter.rate()) is not None:
                footer += f", {units.speed(rate)} tokens/s"
            return Group(*lines, Text(footer, style="dim"))

    def _lines_below(self, running: Sequence[tuple[str, str | None]]) -> Iterator[str]:
        if self._is_over:
            return
        if running:
            shown = running[:MAX_NAMED_DOCUMENTS]
            names = [f"{key} ({step})" if step else key for key, step in shown]
            if n_more := len(running) - len(shown):
                names.append(f"and {n_more:,} more")
            yield "reading: " + ", ".join(names)
        resident = self.stats().resident if self.stats else ()
        if resident:
            yield "pool: " + ", ".join(map(_model_text, resident))

    def _step_table(self, paces: Sequence[StepProgress], now: float) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        is_wide = self._console.width >= 72
        table.add_column("step", no_wrap=True, overflow="ellipsis")
        if is_wide:
            table.add_column("", width=16)
        for heading in ("done", "running", "left", "tokens/s", "to go"):
            table.add_column(heading, justify="right", no_wrap=True)
        for pace in paces:
            counts = pace.counts
            n_done = counts[ItemState.FRESH] + counts[ItemState.DONE]
            done = Text(f"{n_done:,}" if pace.since is not None else "")
            apart = {state: counts[state] for state in APART if state not in BAD}
            apart[ItemState.FAILED] = sum(counts[state] for state in BAD)
            for state, n in apart.items():
                if n:
                    done.append(f" +{n:,} {state}", style="yellow" if state in BAD else "")
            rate, left_s = pace.meter.rate(), pace.seconds_left(now)
            if pace.is_over:
                to_go = Text(f"in {units.duration(pace.seconds(now))}", style="dim")
            else:
                to_go = Text("" if left_s is None else units.duration(left_s))
            table.add_row(
                printing.printable_line(pace.name),
                *([_progress_bar(pace)] if is_wide else []),
                done,
                f"{len(pace.running):,}" if pace.running else "",
                "" if pace.n_left is None else f"{pace.n_left:,}",
                units.speed(rate) if rate is not None and pace.running else "",
                to_go,
            )
        return table


def _progress_bar(pace: StepProgress) -> ProgressBar | Text:
    total = pace.total
    if pace.since is None or (not total and pace.is_over):
        return Text("waiting" if pace.since is None else "nothing to do", style="dim")
    return ProgressBar(total=total, completed=pace.counts.total(), width=16, pulse=total is None)


def _model_text(model: ModelStats) -> str:
    if model.state != "ready":
        return f"{model.name} {model.state}"
    return f"{model.name} {min(model.n_running, model.n_parallel)} of {model.n_parallel} sequences"


class _TransferStep(Struct):
    since: float
    before: int
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
        self._live.start()
        # A killed process could not show a hidden cursor again.
        self._console.show_cursor(True)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            for step in self._steps.values():
                step.is_over = True
        self._live.stop()

    def show(self, status: str, total: int | None = None, completed: int | None = None) -> None:
        status = printing.printable_line(status)
        step = self._steps.get(status)
        if step is None:
            for other in self._steps.values():
                # A step without a size is done when the next one begins.
                other.is_over = other.is_over or not other.total
            step = self._steps[status] = _TransferStep(self._clock(), completed or 0)
            if len(self._steps) > MAX_TRANSFER_STEPS:
                del self._steps[next(iter(self._steps))]
        step.total, step.completed = total, completed or 0
        step.is_over = bool(total) and step.completed >= (total or 0)

    def table(self) -> Table:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(width=_TRANSFER_BAR_WIDTH)
        table.add_column(no_wrap=True)
        for status, step in tuple(self._steps.items()):
            mark, style = ("✓", "green") if step.is_over else ("·", "cyan")
            step_heading = Text.assemble((f"{mark} ", style), status)
            table.add_row(step_heading, *self._progress_text(step))
        return table

    def _progress_text(self, step: _TransferStep) -> tuple[RenderableType, str]:
        if not step.total:
            return "", ""
        words = f"{units.size(step.completed)} of {units.size(step.total)}"
        seconds, n_bytes = self._clock() - step.since, step.completed - step.before
        if not step.is_over and seconds > 1 and n_bytes > 0:
            per_s = n_bytes / seconds
            to_go = units.duration((step.total - step.completed) / per_s)
            words += f", {units.size(round(per_s))}/s, {to_go} to go"
        return ProgressBar(step.total, step.completed, width=_TRANSFER_BAR_WIDTH), words


def redraw_until_interrupted(text: Callable[[], str], every_s: float) -> None:
    with Live(console=Console(), auto_refresh=False) as live:
        while True:
            live.update(Text(text(), no_wrap=True), refresh=True)
            time.sleep(every_s)
