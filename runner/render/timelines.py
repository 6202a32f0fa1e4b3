"""Timelines of a report as SVG: items and calls side by side, and how many ran at once.

Overlapping spans get lanes, spans too short to see are joined. Kinds differ by colour and pattern,
never by colour alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from paddock.engine.system import units
from paddock.engine.system.light_dataclasses import dataclass, replace
from paddock.runner.progress.item_states import BAD, WAITS

from .html_page import render
from .run_details import RunDetails

MAX_LANES = 24
ROUND_TO_S = 0.001


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A span of time, in seconds."""

    start: float
    end: float
    label: str
    kind: str
    """Decides its look."""
    waited: float = 0.0
    """Seconds from its start that it waited."""
    name: str = ""
    """Label of its bar; `label` if empty."""
    n: int = 1
    """Number of spans that are drawn as this one bar."""


def lanes_of(spans: Iterable[TimeSpan]) -> list[list[TimeSpan]]:
    """Return spans in lanes, each in the first lane that is free at its start."""
    lanes: list[list[TimeSpan]] = []
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


def bars_of(lane: Sequence[TimeSpan], least_s: float) -> list[TimeSpan]:
    """Return the bars of a lane; spans shorter than `least_s` are joined with their neighbours.

    >>> spans = [TimeSpan(0, 0.1, "a", "done"), TimeSpan(0.1, 0.2, "b", "done")]
    >>> [(bar.label, bar.n) for bar in bars_of(spans, 1.0)]
    [('a', 2)]
    """
    bars: list[TimeSpan] = []
    for span in lane:
        before = bars[-1] if bars else span
        is_short = min(span.end - span.start, before.end - before.start) < least_s
        if bars and is_short and span.start - before.end < least_s:
            # A failure must stay visible.
            is_worse = span.kind in BAD and span.kind != before.kind
            end, n = max(before.end, span.end), before.n + span.n
            shown = span if is_worse else before
            bars[-1] = replace(shown, start=before.start, end=end, n=n, waited=0.0)
        else:
            bars.append(span)
    return bars


def mean_concurrency(spans: Iterable[TimeSpan], seconds: float, n_bins: int) -> list[float]:
    """Return the mean number of concurrent spans in each of `n_bins` equal parts of the time."""
    bins = [0.0] * n_bins
    width = seconds / n_bins
    for span in spans:
        start, end = max(0.0, span.start + span.waited), min(seconds, span.end)
        first, last = int(start / width), min(n_bins - 1, int(end / width))
        for number in range(first, last + 1):
            begin = number * width
            bins[number] += max(0.0, min(end, begin + width) - max(start, begin)) / width
    return bins


def concurrency_stats(spans: Iterable[TimeSpan]) -> tuple[int, float]:
    """Return the maximum of concurrent spans, and the mean while there were any; without waiting.

    >>> spans = [TimeSpan(0, 9, "", "", waited=5), TimeSpan(2, 6, "", ""), TimeSpan(8, 10, "", "")]
    >>> most, mean = concurrency_stats(spans)
    >>> most, round(mean, 2)
    (2, 1.25)
    """
    turns: list[tuple[float, int]] = []
    busy_s = 0.0
    for span in spans:
        start = min(span.start + span.waited, span.end)
        # Times have milliseconds: consecutive spans must not seem to overlap.
        end = max(span.end - ROUND_TO_S, (start + span.end) / 2)
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


WAITED, SEVERAL, AREA, BARE = "waited", "several", "area", "bare"
PATTERNS = frozenset(("bad", "known", "tool", "skipped", "held", "waiting"))
"""Looks with a pattern."""

LEGEND: Mapping[str, str] = {
    "done": "done",
    "bad": "failed or quarantined",
    "skipped": "skipped",
    "held": "held: an output was edited, and is kept",
    "waiting": "waits for review",
    "call": "answered by a model",
    "known": "the reply was in the ledger",
    "tool": "a tool",
    AREA: "calls in progress, without waiting ones",
    WAITED: "waited in the queue, or for the model to load",
    SEVERAL: "several short ones together; shown as failed if one failed",
    BARE: "point at a bar without a label to see its name",
}


def look_of(kind: str) -> str:
    """Return the look of an item's state, or of a kind of call.

    >>> look_of("quarantined"), look_of("changed"), look_of("tool")
    ('bad', 'done', 'tool')
    """
    look = "bad" if kind in BAD else "waiting" if kind in WAITS else kind
    return look if look in LEGEND else "done"


LEFT, RIGHT = 6.0, 1.5
"""Margins, in percent: a chart is as wide as the window."""
LANE, GAP, AXIS = 18.0, 4.0, 24.0
LETTER_PERCENT = 0.64
"""Width of a letter, in percent of a chart of 1,000 pixels; narrower charts cut labels."""
MIN_LABEL_LETTERS = 6
MIN_BAR_PERCENT = 0.2
"""In percent; shorter bars are joined with neighbours."""
MAX_TICKS = 8  # their labels must fit a window of 320 pixels
BINS, HEIGHT = 280, 120.0
_TICK_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30,
                 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)  # fmt: skip


Chart = tuple[Markup, frozenset[str]]
"""A timeline and its looks, for the legend; both empty without spans."""


def items_chart(story: RunDetails) -> Chart:
    spans = [
        TimeSpan(
            item.began,
            item.began + item.seconds,
            f"{item.step}: {item.key}, {item.state}",
            item.state,
            name=item.key,
        )
        for item in story.items
        if item.began is not None
    ]
    return _timeline("Items over time", spans, story.seconds)


def calls_chart(story: RunDetails) -> Chart:
    spans = [
        TimeSpan(
            call.began,
            call.began + call.seconds,
            f"{call.kind} {call.model} for {call.step} of {call.key}: "
            f"{call.prompt:,} + {call.completion:,} tokens"
            + (", known" if call.is_known else "")
            + (f", waited {units.duration(call.queue_s)}" if call.queue_s >= 0.05 else ""),
            "known" if call.is_known else "call" if call.is_of_model else "tool",
            call.queue_s,
            call.step if call.key == call.step else f"{call.step}, {call.key}",
        )
        for call in story.calls
    ]
    return _timeline("Calls over time", spans, story.seconds)


def occupancy_chart(story: RunDetails) -> tuple[Markup, int, float]:
    """Return the chart of concurrent model calls, their maximum and their mean."""
    spans = [
        TimeSpan(call.began, call.began + call.seconds, "", "", call.queue_s)
        for call in story.calls
        if not call.is_known and call.is_of_model
    ]
    if not spans:
        return Markup(), 0, 0.0
    most, mean = concurrency_stats(spans)
    most = max(most, 1)
    found = mean_concurrency(spans, story.seconds, BINS)
    area = f"M0 {HEIGHT:g}"
    for number, level in enumerate(found):
        area += f"V{HEIGHT * (1 - min(level / most, 1)):.1f}H{number + 1}"
    levels = [(n, GAP + HEIGHT * (1 - n / most)) for n in sorted({0, most // 2, most})]
    words = f"at most {most:,}"
    chart = _chart(
        "Concurrent calls", words, story.seconds, HEIGHT, levels=levels, area=f"{area}V{HEIGHT:g}z"
    )
    return chart, most, mean


def _timeline(name: str, spans: Sequence[TimeSpan], seconds: float) -> Chart:
    if not spans:
        return Markup(), frozenset()
    lanes = lanes_of(spans)
    shown = lanes[:MAX_LANES]
    least_s = MIN_BAR_PERCENT * seconds / (100 - LEFT - RIGHT)
    looks: set[str] = set()
    drawn = []
    for number, lane in enumerate(shown):
        bars = bars_of(lane, least_s)
        for bar, after in zip_longest(bars, bars[1:]):
            room_until = 100.0 if after is None else _percent_at(after.start, seconds)
            drawn.append(_drawn_bar(bar, seconds, room_until) | {"y": GAP + number * (LANE + GAP)})
            looks |= {drawn[-1]["look"]} | ({WAITED} if bar.waited else set())
            looks |= set() if drawn[-1]["label"] else {BARE}
            looks |= {SEVERAL} if bar.n > 1 else set()
    words = f"{len(spans):,} in {len(lanes):,} lanes, {units.duration(seconds)}"
    n_left = sum(map(len, lanes[MAX_LANES:]))
    high = len(shown) * (LANE + GAP)
    return _chart(name, words, seconds, high, bars=drawn, n_left=n_left), frozenset(looks)


def _chart(name: str, words: str, seconds: float, high: float, **content: Any) -> Markup:
    """Return a chart over a time axis, with lines at round numbers: few, for a narrow window."""
    step = next((s for s in _TICK_STEPS_S if seconds / s <= MAX_TICKS), seconds / MAX_TICKS)
    ticks = [
        (_percent_at(number * step, seconds), units.duration(number * step) if number else "0")
        for number in range(int(seconds / step) + 1)
    ]
    nothing: dict[str, Any] = {"bars": (), "n_left": 0, "levels": (), "area": ""}
    return render(
        "timeline.svg", name=name, words=words, height=high + AXIS + GAP, axis=AXIS, gap=GAP,
        lane=LANE, left=LEFT, right=RIGHT, patterns=PATTERNS, waited=WAITED, ticks=ticks,
        bins=BINS, **nothing | content,
    )  # fmt: skip


def _drawn_bar(bar: TimeSpan, seconds: float, room_until: float) -> dict[str, Any]:
    """Return a bar as the template draws it; its label is inside, or behind it up to the next."""
    x, end = _percent_at(bar.start, seconds), _percent_at(bar.end, seconds)
    rest = f" and {bar.n - 1:,} more" if bar.n > 1 else ""
    width = max(end - x, MIN_BAR_PERCENT / 2)
    waited = min(width, _percent_at(bar.start + bar.waited, seconds) - x) if bar.waited else 0.0
    waited = waited if waited >= MIN_BAR_PERCENT / 2 else 0.0
    at, size = x + waited, max(width - waited, MIN_BAR_PERCENT / 2)
    name = bar.name or bar.label
    name = name if bar.n == 1 else f"{bar.n:,} \N{MULTIPLICATION SIGN} {name}"
    # The label is where more space is; only the duration if space is short
    length = units.duration(max(0.0, bar.end - bar.start - bar.waited))
    behind = room_until - at - size
    is_inside = size >= LETTER_PERCENT * (len(name) + len(length) + 4) or size >= behind
    label_x, room = (at, size) if is_inside else (at + size, behind)
    n_letters = int(room / LETTER_PERCENT) - 2
    n_name = n_letters - len(length) - 2
    text = length if n_name < MIN_LABEL_LETTERS else f"{_middle_cut(name, n_name)}, {length}"
    kind = "inside" if is_inside else "behind"
    return {
        "title": f"{bar.label}{rest}, {units.duration(bar.end - bar.start)}",
        "look": look_of(bar.kind),
        "x": x,
        "waited": waited,
        "size": size,
        "label": (kind, label_x, room, text) if n_letters >= len(length) else None,
    }


def _middle_cut(name: str, n_letters: int) -> str:
    """Return a name without its middle: file names differ at their ends.

    >>> _middle_cut("chapter-one.txt", 9)
    'chap….txt'
    """
    if len(name) <= n_letters:
        return name
    n_head = n_letters // 2
    return f"{name[:n_head]}…{name[len(name) - (n_letters - 1 - n_head) :]}"


def _percent_at(at: float, seconds: float) -> float:
    return LEFT + (100 - LEFT - RIGHT) * min(max(at / seconds, 0.0), 1.0)
