"""Timelines of a report as SVG: items and calls side by side, and how many ran at once.

Overlapping spans get lanes, spans too short to see are joined. Kinds differ by colour and pattern,
never by colour alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import zip_longest

from paddock.engine.system import units

from .html_page import WEB_FOLDER
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
        if bars and _is_joined(bars[-1], span, least_s):
            bars[-1] = _joined(bars[-1], span)
        else:
            bars.append(span)
    return bars


def _is_joined(before: TimeSpan, bar: TimeSpan, least_s: float) -> bool:
    is_short = bar.end - bar.start < least_s or before.end - before.start < least_s
    return is_short and bar.start - before.end < least_s


def _joined(before: TimeSpan, bar: TimeSpan) -> TimeSpan:
    # A failure must stay visible.
    is_worse = bar.kind in ("failed", "quarantined") and bar.kind != before.kind
    end, n = max(before.end, bar.end), before.n + bar.n
    return replace(bar if is_worse else before, start=before.start, end=end, n=n, waited=0.0)


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

_LEGEND_TEXT: Mapping[str, str] = {
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
    look = "bad" if kind in ("failed", "quarantined") else kind
    return look if look in _LEGEND_TEXT else "done"


def legend(looks: Collection[str]) -> str:
    entries = "".join(
        f"<li>{_swatch(look)}{escape(words)}</li>"
        for look, words in _LEGEND_TEXT.items()
        if look in looks
    )
    return f'<ul class="legend">{entries}</ul>'


def pattern_attributes(look: str) -> str:
    """Return the attributes of the pattern over a bar; see `DEFINITIONS`."""
    return f'class="over {look}" fill="url(#over-{look})"'


def _swatch(look: str) -> str:
    if look == BARE:
        return ""
    if look == SEVERAL:
        return "<b>12 \N{MULTIPLICATION SIGN}</b> "
    kind = look if look in (WAITED, AREA) else f"bar {look}"
    size = 'x="1" y="1" width="24" height="12" rx="2"'
    pattern = f"<rect {pattern_attributes(look)} {size}/>" if look in PATTERNS else ""
    return (
        f'<svg class="chart" width="26" height="14" aria-hidden="true">'
        f'<rect class="{kind}" {size}/>{pattern}</svg> '
    )


DEFINITIONS = (WEB_FOLDER / "patterns.svg").read_text("utf-8").strip()
"""Patterns of looks; once in a page."""

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


def items_chart(story: RunDetails) -> tuple[str, str]:
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


def calls_chart(story: RunDetails) -> tuple[str, str]:
    """Return the timeline of calls, with waiting times in a pale colour, and its legend."""
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


def occupancy_chart(story: RunDetails) -> tuple[str, int, float]:
    """Return the chart of concurrent model calls, their maximum and their mean."""
    spans = [
        TimeSpan(call.began, call.began + call.seconds, "", "", call.queue_s)
        for call in story.calls
        if not call.is_known and call.is_of_model
    ]
    if not spans:
        return "", 0, 0.0
    most, mean = concurrency_stats(spans)
    most = max(most, 1)
    found = mean_concurrency(spans, story.seconds, BINS)
    height = HEIGHT + AXIS + GAP
    lines = [_svg_start("Concurrent calls", f"at most {most:,}", height)]
    lines += _grid_svg(story.seconds, height)
    for n in sorted({0, most // 2, most}):
        y = GAP + HEIGHT * (1 - n / most)
        lines.append(_line_svg(LEFT, y, 100 - RIGHT, y))
        lines.append(f'<text class="axis level" x="0" dx="4" y="{y + 4:.1f}">{n:,}</text>')
    path = f"M0 {HEIGHT:g}"
    for number, level in enumerate(found):
        path += f"V{HEIGHT * (1 - min(level / most, 1)):.1f}H{number + 1}"
    lines.append(
        f'<svg x="{LEFT:g}%" y="{GAP:g}" width="{100 - LEFT - RIGHT:g}%" height="{HEIGHT:g}" '
        f'viewBox="0 0 {len(found)} {HEIGHT:g}" preserveAspectRatio="none">'
        f'<path class="area" vector-effect="non-scaling-stroke" d="{path}V{HEIGHT:g}z"/></svg>'
    )
    area_svg = "\n".join([*lines, "</svg>"])
    return area_svg, most, mean


def _timeline(name: str, spans: Sequence[TimeSpan], seconds: float) -> tuple[str, str]:
    """Return the timeline of spans and its legend; empty texts without spans."""
    if not spans:
        return "", ""
    lanes = lanes_of(spans)
    shown = lanes[:MAX_LANES]
    height = len(shown) * (LANE + GAP) + AXIS + GAP
    words = f"{len(spans):,} in {len(lanes):,} lanes, {units.duration(seconds)}"
    lines = [_svg_start(name, words, height), *_grid_svg(seconds, height)]
    least_s = MIN_BAR_PERCENT * seconds / (100 - LEFT - RIGHT)
    looks: set[str] = set()
    for number, lane in enumerate(shown):
        y = GAP + number * (LANE + GAP)
        bars = bars_of(lane, least_s)
        for bar, after in zip_longest(bars, bars[1:]):
            room_until = 100.0 if after is None else _percent_at(after.start, seconds)
            drawn = list(_bar_svg(bar, y, seconds, room_until))
            lines += drawn
            looks |= set() if any("label" in line for line in drawn[1:]) else {BARE}
            looks |= {look_of(bar.kind)} | ({WAITED} if bar.waited else set())
            looks |= {SEVERAL} if bar.n > 1 else set()
    lines.append("</svg>")
    if len(lanes) > len(shown):
        left = sum(map(len, lanes[MAX_LANES:]))
        lines.append(f'<p class="soft">{left:,} more at the same time.</p>')
    return "\n".join(lines), legend(looks)


def _bar_svg(bar: TimeSpan, y: float, seconds: float, room_until: float) -> Iterator[str]:
    """Yield a bar with its label: inside, or behind it up to the next bar."""
    x, end = _percent_at(bar.start, seconds), _percent_at(bar.end, seconds)
    rest = f" and {bar.n - 1:,} more" if bar.n > 1 else ""
    worked = units.duration(max(0.0, bar.end - bar.start - bar.waited))
    width = max(end - x, MIN_BAR_PERCENT / 2)
    yield f"<g><title>{escape(f'{bar.label}{rest}, {units.duration(bar.end - bar.start)}')}</title>"
    waited = min(width, _percent_at(bar.start + bar.waited, seconds) - x) if bar.waited else 0.0
    waited = waited if waited >= MIN_BAR_PERCENT / 2 else 0.0
    if waited:
        yield _rect_svg(WAITED, x, y, waited)
    at, size = x + waited, max(width - waited, MIN_BAR_PERCENT / 2)
    look = look_of(bar.kind)
    yield _rect_svg(f"bar {look}", at, y, size)
    if look in PATTERNS:
        yield _rect_with_look(pattern_attributes(look), at, y, size)
    name = bar.name or bar.label
    name = name if bar.n == 1 else f"{bar.n:,} \N{MULTIPLICATION SIGN} {name}"
    yield from _label_svg(name, worked, y, (at, at + size), room_until)
    yield "</g>"


def _label_svg(
    name: str, length: str, y: float, bar: tuple[float, float], room_until: float
) -> Iterator[str]:
    """Yield a bar's label where more space is; only its duration if space is short."""
    inside, behind = bar[1] - bar[0], room_until - bar[1]
    is_inside = inside >= LETTER_PERCENT * (len(name) + len(length) + 4) or inside >= behind
    x, room = (bar[0], inside) if is_inside else (bar[1], behind)
    n_letters = int(room / LETTER_PERCENT) - 2
    if n_letters < len(length):
        return
    n_name = n_letters - len(length) - 2
    text = length if n_name < MIN_LABEL_LETTERS else f"{_middle_cut(name, n_name)}, {length}"
    kind = "inside" if is_inside else "behind"
    yield (  # the inner `svg` cuts the label in a narrow window
        f'<svg x="{x:.2f}%" y="{y:g}" width="{room:.2f}%" height="{LANE:g}">'
        f'<text class="label {kind}" x="5" y="13">{escape(text)}</text></svg>'
    )


def _middle_cut(name: str, n_letters: int) -> str:
    """Return a name without its middle: file names differ at their ends.

    >>> _middle_cut("chapter-one.txt", 9)
    'chap….txt'
    """
    if len(name) <= n_letters:
        return name
    n_head = n_letters // 2
    return f"{name[:n_head]}…{name[len(name) - (n_letters - 1 - n_head) :]}"


def _rect_svg(kind: str, x: float, y: float, width: float) -> str:
    return _rect_with_look(f'class="{escape(kind)}"', x, y, width)


def _rect_with_look(look: str, x: float, y: float, width: float) -> str:
    return f'<rect {look} x="{x:.2f}%" y="{y:g}" width="{width:.2f}%" height="{LANE:g}" rx="2"/>'


def _svg_start(name: str, words: str, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'aria-label="{escape(name)}: {escape(words)}" width="100%" height="{height:g}">'
    )


def _grid_svg(seconds: float, height: float) -> Iterable[str]:
    """Yield the time axis: lines at round numbers, few enough for a narrow window."""
    step = next((s for s in _TICK_STEPS_S if seconds / s <= MAX_TICKS), seconds / MAX_TICKS)
    for number in range(int(seconds / step) + 1):
        x = _percent_at(number * step, seconds)
        yield _line_svg(x, GAP, x, height - AXIS)
        side = "middle" if x < 95 else "end"
        yield (
            f'<text class="axis" x="{x:.2f}%" y="{height - 8:.1f}" text-anchor="{side}">'
            f"{units.duration(number * step) if number else 0}</text>"
        )


def _line_svg(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line class="grid" x1="{x:.2f}%" y1="{y:.1f}" x2="{to_x:.2f}%" y2="{to_y:.1f}"/>'


def _percent_at(at: float, seconds: float) -> float:
    """Return the position of a time, in percent of the chart's width."""
    return LEFT + (100 - LEFT - RIGHT) * min(max(at / seconds, 0.0), 1.0)
