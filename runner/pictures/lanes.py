"""Put spans of time into lanes side by side, and join what is too short to be seen. Pure.

However many spans there are, a picture of them has a bounded number of bars.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_LANES = 24
ROUNDED_S = 0.001


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took a while; times in seconds."""

    start: float
    end: float
    label: str
    kind: str
    """What it looks like."""
    waited: float = 0.0
    """Of its time, from its start."""
    name: str = ""
    """What its bar is labelled with; empty: as `label`."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One or several spans of a lane that are drawn as one."""

    start: float
    end: float
    label: str
    kind: str
    n: int = 1
    waited: float = 0.0
    name: str = ""


def lanes_of(spans: Iterable[Span]) -> list[list[Span]]:
    """Give each span the first lane that is free when it starts."""
    lanes: list[list[Span]] = []
    busy: list[tuple[float, int]] = []
    free: list[int] = []
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        while busy and busy[0][0] <= span.start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            lanes.append([])
            free.append(len(lanes) - 1)
        lane = heapq.heappop(free)
        lanes[lane].append(span)
        heapq.heappush(busy, (span.end, lane))
    return lanes


def bars_of(lane: Sequence[Span], least_s: float) -> list[Bar]:
    """Join what is shorter than `least_s` with what stands next to it.

    >>> spans = [Span(0, 0.1, "a", "done"), Span(0.1, 0.2, "b", "done"), Span(5, 9, "c", "done")]
    >>> [(bar.label, bar.n) for bar in bars_of(spans, 1.0)]
    [('a', 2), ('c', 1)]
    """
    bars: list[Bar] = []
    for span in lane:
        bar = Bar(
            span.start, span.end, span.label, span.kind, 1, span.waited, span.name or span.label
        )
        if bars and _is_joined(bars[-1], bar, least_s):
            bars[-1] = _joined(bars[-1], bar)
        else:
            bars.append(bar)
    return bars


def _is_joined(before: Bar, bar: Bar, least_s: float) -> bool:
    is_short = bar.end - bar.start < least_s or before.end - before.start < least_s
    return is_short and bar.start - before.end < least_s


def _joined(before: Bar, bar: Bar) -> Bar:
    # What is bad must not vanish in what is good.
    kind = bar.kind if bar.kind in ("failed", "quarantined") else before.kind
    told = bar if kind != before.kind else before
    end, n = max(before.end, bar.end), before.n + bar.n
    return Bar(before.start, end, told.label, kind, n, name=told.name)


def levels(spans: Iterable[Span], seconds: float, n_bins: int) -> list[float]:
    """Give how many spans were under way on average, for each of equal parts of the time."""
    bins = [0.0] * n_bins
    width = seconds / n_bins
    for span in spans:
        start, end = max(0.0, span.start + span.waited), min(seconds, span.end)
        first, last = int(start / width), min(n_bins - 1, int(end / width))
        for number in range(first, last + 1):
            begin = number * width
            bins[number] += max(0.0, min(end, begin + width) - max(start, begin)) / width
    return bins


def at_once(spans: Iterable[Span]) -> tuple[int, float]:
    """Give the greatest number of spans under way, and the mean while any was; without waiting.

    >>> spans = [Span(0, 9, "a", "call", waited=5), Span(2, 6, "b", "call"), Span(8, 10, "c", "")]
    >>> most, mean = at_once(spans)
    >>> most, round(mean, 2)
    (2, 1.25)
    """
    turns: list[tuple[float, int]] = []
    busy_s = 0.0
    for span in spans:
        start = min(span.start + span.waited, span.end)
        # Times are kept by the millisecond: what follows one another must not seem to overlap.
        end = max(span.end - ROUNDED_S, (start + span.end) / 2)
        if end > start:
            turns += [(start, 1), (end, -1)]
            busy_s += end - start
    most = n = 0
    any_s = since = 0.0
    for at, change in sorted(turns):
        since = at if n == 0 else since
        n += change
        most = max(most, n)
        any_s += at - since if n == 0 else 0.0
    return most, busy_s / any_s if any_s else float(most)
