"""Write in plain words how a step of a run goes."""

from __future__ import annotations

from . import console
from .pace import StepPace


def failure(step: str, key: str, state: str, detail: str | None) -> str:
    """Write the line about an item that could not be done."""
    what = f"{step}: {state} {key}" if key else f"{step}: {state}"
    return console.clean(what) + (f": {console.message(detail)}" if detail else "")


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
