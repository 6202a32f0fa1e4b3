"""Show a run while it goes on: a live table on a terminal, plain lines without one.

Everything goes to stderr; stdout is for results. `NO_COLOR` is respected by the table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TextIO

from . import console
from .observer import ItemState, Observer
from .pace import Pace, StepPace

if TYPE_CHECKING:
    from .report import Report

EVERY_S = 5.0  # a plain line a step at most so often: logs of long runs stay readable


def watching(
    *, environ: Mapping[str, str] | None = None, is_quiet_stdout: bool = False
) -> AbstractContextManager[Observer]:
    """Give the observer that suits where we are; leave the context before writing anything else.

    Args:
        environ: the environment, for `TERM`.
        is_quiet_stdout: stdout carries one object for a machine, so a terminal there says nothing.
    """
    environ = os.environ if environ is None else environ
    streams = (sys.stderr,) if is_quiet_stdout else (sys.stderr, sys.stdout)
    if environ.get("TERM") == "dumb" or not all(map(_is_terminal, streams)):
        return nullcontext(Lines())
    from .live import LiveTable

    return LiveTable()


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


class Lines(Pace):
    """Plain lines: steps as they start and end, failures at once, a line now and then between."""

    _told_at = 0.0

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        """Say which run this is."""
        super().began(run, pipeline, steps)
        self._told_at = self.clock()
        console.tell(f"run {run} of {console.clean(pipeline)}")

    def step(self, step: str, total: int | None, fresh: int) -> None:
        """Say how much there is to do."""
        super().step(step, total, fresh)
        if total != 1 and total is not None:
            console.tell(f"{step}: {to_do(self.steps[step])}")
        elif fresh:
            console.tell(f"{step}: fresh")

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        """Say what went wrong at once, and how it goes on now and then."""
        super().item(step, key, state, detail)
        if state in ("quarantined", "failed"):
            console.tell(failure(step, key, state, detail))
        words = self._words(self.steps[step], key, state)
        if words:
            console.tell(f"{step}: {words}")
            self._told_at = self.clock()

    def _words(self, pace: StepPace, key: str, state: ItemState) -> str | None:
        """Write the line that is due now, if one is."""
        if state == "running":
            is_news = not key and len(pace.running) == 1 and not pace.n_ended
            return "running" if is_news else None
        if pace.is_over:
            return over(pace, self.clock())
        if self.clock() - self._told_at >= EVERY_S:
            return underway(pace, self.clock())
        return None

    def note(self, text: str) -> None:
        """Say it."""
        console.tell(console.clean(text))


def failure(step: str, key: str, state: str, detail: str | None) -> str:
    """Write the line about an item that could not be done."""
    what = f"{step}: {state} {key}" if key else f"{step}: {state}"
    return console.clean(f"{what}: {detail}" if detail else what)


def to_do(pace: StepPace) -> str:
    """Write how much a step has to do: `16 items, 12 fresh, 4 to do`."""
    parts = [console.counted(pace.total or 0, "item")]
    if pace.n_fresh:
        parts.append(f"{pace.n_fresh:,} fresh")
        parts.append(f"{pace.n_to_do:,} to do")
    return ", ".join(parts)


def underway(pace: StepPace, now: float) -> str:
    """Write how a step goes: `2 of 5 done, 3 running, 45 tokens/s, about 40 s to go`."""
    parts = [f"{pace.n_ended:,} of {pace.n_to_do:,} done" if pace.total else "running"]
    if pace.running:
        parts.append(f"{len(pace.running)} running")
    rate, left_s = pace.meter.rate(), pace.seconds_left(now)
    if rate is not None:
        parts.append(f"{console.speed(rate)} tokens/s")
    if left_s is not None:
        parts.append(f"about {console.duration(left_s)} to go")
    return ", ".join(parts)


def over(pace: StepPace, now: float) -> str:
    """Write how a step ended: `4 done, 1 quarantined in 12 s`."""
    counts = [
        (pace.n_done, "done"),
        (pace.n_skipped, "skipped"),
        (pace.n_quarantined, "quarantined"),
        (pace.n_failed, "failed"),
    ]
    told = ", ".join(f"{n:,} {what}" for n, what in counts if n)
    if not told:
        return "nothing to do"
    if pace.total == 1 and pace.n_ended == 1:
        told = told.split(" ", 1)[1]
    return f"{told} in {console.duration(pace.seconds(now))}"


def closing(report: Report, *, fail_hint: str) -> tuple[str, str, str]:
    """Write the three lines at the end: what was written, what failed, what it took and saved."""
    return _written(report), _failed(report, fail_hint), _took(report)


def _written(report: Report) -> str:
    if not report.written:
        return "Wrote nothing new."
    folders = sorted({os.path.dirname(path) for path in report.written})  # noqa: PTH120 - texts
    where = os.path.commonpath(folders) if len(folders) > 1 else folders[0]
    shown = os.path.relpath(where)
    shown = where if shown.startswith(os.pardir) else shown
    if len(report.written) == 1:
        shown = os.path.join(shown, os.path.basename(report.written[0]))  # noqa: PTH118, PTH119
        return f"Wrote {console.clean(os.path.normpath(shown))}."
    return f"Wrote {console.counted(len(report.written), 'file')} under {console.clean(shown)}."


def _failed(report: Report, hint: str) -> str:
    bad = [item for item in report.items if item.state in ("quarantined", "failed")]
    log = f" Details: {console.clean(report.log)}" if report.log else ""
    if report.message:
        return console.clean(report.message) + log
    if not bad:
        return "Nothing failed."
    names = ", ".join(console.clean(item.key or item.step) for item in bad[:3])
    more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
    lead = "Still not done" if all(item.is_known for item in bad) else "Not done"
    return f"{lead}: {names}{more}. {hint}{log}"


def _took(report: Report) -> str:
    parts = [f"Took {console.duration(report.seconds)}"]
    calls = console.counted(report.calls, "model call")
    if report.cached_calls:
        calls += f" and {report.cached_calls:,} from the ledger"
    parts.append(calls)
    n_fresh = report.counts.get("fresh", 0)
    n_reused = report.tokens.get("prompt_reused", 0)
    n_prompt = report.tokens.get("prompt", 0)
    saved = f"saved: {console.counted(n_fresh, 'item')} fresh"
    if n_prompt:
        saved += f", {n_reused:,} of {n_prompt:,} prompt tokens reused"
    return ", ".join(parts) + f"; {saved}."
