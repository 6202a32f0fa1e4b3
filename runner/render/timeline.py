"""Timelines of a run as SVG: items and calls in lanes, concurrent calls over time, and the legend.

`lanes_of` and `bars_of` are pure: spans that overlap get lanes, and spans too short to see are
joined. Lanes and bars are bounded however large the run is. Kinds differ by colour and pattern,
never by colour alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from types import MappingProxyType

from .graph_model import seconds_text
from .run_details import RunDetails

MAX_LANES = 24
ROUND_TO_S = 0.001


@dataclass(frozen=True, slots=True)
class TimeSpan:
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
class TimelineBar:
    """One or several spans of a lane that are drawn as one."""

    start: float
    end: float
    label: str
    kind: str
    n: int = 1
    waited: float = 0.0
    name: str = ""


def lanes_of(spans: Iterable[TimeSpan]) -> list[list[TimeSpan]]:
    """Return each span the first lane that is free when it starts."""
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


def bars_of(lane: Sequence[TimeSpan], least_s: float) -> list[TimelineBar]:
    """Join what is shorter than `least_s` with what stands next to it.

    >>> spans = [TimeSpan(0, 0.1, "a", "done"), TimeSpan(0.1, 0.2, "b", "done"), TimeSpan(5, 9, "c", "done")]
    >>> [(bar.label, bar.n) for bar in bars_of(spans, 1.0)]
    [('a', 2), ('c', 1)]
    """
    bars: list[TimelineBar] = []
    for span in lane:
        bar = TimelineBar(
            span.start, span.end, span.label, span.kind, 1, span.waited, span.name or span.label
        )
        if bars and _is_joined(bars[-1], bar, least_s):
            bars[-1] = _joined(bars[-1], bar)
        else:
            bars.append(bar)
    return bars


def _is_joined(before: TimelineBar, bar: TimelineBar, least_s: float) -> bool:
    is_short = bar.end - bar.start < least_s or before.end - before.start < least_s
    return is_short and bar.start - before.end < least_s


def _joined(before: TimelineBar, bar: TimelineBar) -> TimelineBar:
    # What is bad must not vanish in what is good.
    kind = bar.kind if bar.kind in ("failed", "quarantined") else before.kind
    told = bar if kind != before.kind else before
    end, n = max(before.end, bar.end), before.n + bar.n
    return TimelineBar(before.start, end, told.label, kind, n, name=told.name)


def mean_concurrency(spans: Iterable[TimeSpan], seconds: float, n_bins: int) -> list[float]:
    """Return how many spans were under way on average, for each of equal parts of the time."""
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
    """Return the greatest number of spans under way, and the mean while any was; without waiting.

    >>> spans = [TimeSpan(0, 9, "a", "call", waited=5), TimeSpan(2, 6, "b", "call"), TimeSpan(8, 10, "c", "")]
    >>> most, mean = concurrency_stats(spans)
    >>> most, round(mean, 2)
    (2, 1.25)
    """
    turns: list[tuple[float, int]] = []
    busy_s = 0.0
    for span in spans:
        start = min(span.start + span.waited, span.end)
        # Times are kept by the millisecond: what follows one another must not seem to overlap.
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
PATTERNS = frozenset(("bad", "known", "tool", "skipped", "held"))
"""Looks that have a pattern over their colour."""

_LEGEND_TEXT: Mapping[str, str] = MappingProxyType(
    {
        "done": "done",
        "bad": "failed or quarantined",
        "skipped": "skipped",
        "held": "held: an output was edited, and is kept as it is",
        "call": "answered by a model",
        "known": "the ledger had the reply",
        "tool": "a tool",
        AREA: "calls that models work on, without those that wait",
        WAITED: "waited for its turn, or for the model to be loaded",
        SEVERAL: "several that are too short to be drawn alone; if one failed, all look so",
        BARE: "point at a bar without a label to read it",
    }
)
_LOOK_OF_STATE: Mapping[str, str] = MappingProxyType({"failed": "bad", "quarantined": "bad"})


def look_of(kind: str) -> str:
    """Return the look of an item's state, or of a kind of call.

    >>> look_of("quarantined"), look_of("changed"), look_of("tool")
    ('bad', 'done', 'tool')
    """
    look = _LOOK_OF_STATE.get(kind, kind)
    return look if look in _LEGEND_TEXT else "done"


def legend(looks: Collection[str]) -> str:
    """Return the legend for these looks."""
    entries = "".join(
        f"<li>{_swatch(look)}{escape(words)}</li>"
        for look, words in _LEGEND_TEXT.items()
        if look in looks
    )
    return f'<ul class="legend">{entries}</ul>'


def pattern_attributes(look: str) -> str:
    """Return the attributes of what lies over a bar and has its pattern; see `DEFINITIONS`."""
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


DEFINITIONS = """
<svg class="looks" width="0" height="0" aria-hidden="true"><defs>
<pattern id="over-bad" width="7" height="7" patternUnits="userSpaceOnUse"
patternTransform="rotate(45)"><path d="M0 0V7"/></pattern>
<pattern id="over-known" width="6" height="6" patternUnits="userSpaceOnUse"><circle cx="3" cy="3"
r="1.3"/></pattern>
<pattern id="over-tool" width="5" height="5" patternUnits="userSpaceOnUse"><path d="M0 2H5"/>
</pattern>
<pattern id="over-skipped" width="5" height="5" patternUnits="userSpaceOnUse"><path d="M2 0V5"/>
</pattern>
<pattern id="over-held" width="7" height="7" patternUnits="userSpaceOnUse"
patternTransform="rotate(-45)"><path d="M0 0V7"/></pattern>
</defs></svg>
""".strip()
"""What the looks with a pattern refer to; once in a page."""


LEFT, RIGHT = 6.0, 1.5
"""Beside the time, in percent: a chart is as wide as the window."""
LANE, GAP, AXIS = 18.0, 4.0, 24.0
LETTER_PERCENT = 0.64
"""In percent: a letter of a label, in a chart of 1,000 pixels; narrower ones cut labels off."""
MIN_LABEL_LETTERS = 6
MIN_BAR_PERCENT = 0.2
"""In percent: what is shorter is drawn with what stands next to it."""
MAX_TICKS = 8  # so that their labels have room in a window of 320 pixels
BINS, HEIGHT = 280, 120.0
_TICK_STEPS_S = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    20,
    30,
    60,
    120,
    300,
    600,
    1800,
    3600,
    7200,
    21600,
    86400,
)


def items_chart(story: RunDetails) -> tuple[str, str]:
    """Draw the items, those that were under way at a time one below the other; with a legend."""
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
    """Draw the calls; what they waited is pale; with a legend."""
    spans = [
        TimeSpan(
            call.began,
            call.began + call.seconds,
            f"{call.kind} {call.model} for {call.step} of {call.key}: "
            f"{call.prompt:,} + {call.completion:,} tokens"
            + (", known" if call.is_known else "")
            + (f", waited {seconds_text(call.queue_s)}" if call.queue_s >= 0.05 else ""),
            "known" if call.is_known else "call" if call.is_of_model else "tool",
            call.queue_s,
            call.step if call.key == call.step else f"{call.step}, {call.key}",
        )
        for call in story.calls
    ]
    return _timeline("Calls over time", spans, story.seconds)


def occupancy_chart(story: RunDetails) -> tuple[str, int, float]:
    """Draw how many calls a model worked on at once; gives the most and the mean as well."""
    spans = [
        TimeSpan(call.began, call.began + call.seconds, "", "", call.queue_s)
        for call in story.calls
        if not call.is_known and call.is_of_model
    ]
    if not spans:
        return "", 0, 0.0
    most, mean = concurrency_stats(spans)
    most = max(most, 1)
    return _area_svg(mean_concurrency(spans, story.seconds, BINS), story.seconds, most), most, mean


def _timeline(name: str, spans: Sequence[TimeSpan], seconds: float) -> tuple[str, str]:
    """Draw spans in lanes; returns the chart and its legend, empty where there are none."""
    if not spans:
        return "", ""
    lanes = lanes_of(spans)
    shown = lanes[:MAX_LANES]
    height = len(shown) * (LANE + GAP) + AXIS + GAP
    words = f"{len(spans):,} in {len(lanes):,} lanes, {seconds_text(seconds)}"
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
        lines.append(f'<p class="soft">{left:,} more went on at the same time.</p>')
    return "\n".join(lines), legend(looks)


def _bar_svg(bar: TimelineBar, y: float, seconds: float, room_until: float) -> Iterator[str]:
    """Draw a bar with its label: within it, or behind it up to the next one."""
    x, end = _percent_at(bar.start, seconds), _percent_at(bar.end, seconds)
    more = f" and {bar.n - 1:,} more" if bar.n > 1 else ""
    worked = seconds_text(max(0.0, bar.end - bar.start - bar.waited))
    width = max(end - x, MIN_BAR_PERCENT / 2)
    yield f"<g><title>{escape(f'{bar.label}{more}, {seconds_text(bar.end - bar.start)}')}</title>"
    waited = min(width, _percent_at(bar.start + bar.waited, seconds) - x) if bar.waited else 0.0
    waited = waited if waited >= MIN_BAR_PERCENT / 2 else 0.0
    if waited:
        yield _rect_svg(WAITED, x, y, waited)
    at, size = x + waited, max(width - waited, MIN_BAR_PERCENT / 2)
    look = look_of(bar.kind)
    yield _rect_svg(f"bar {look}", at, y, size)
    if look in PATTERNS:
        yield _rect_with_look(pattern_attributes(look), at, y, size)
    name = bar.name if bar.n == 1 else f"{bar.n:,} \N{MULTIPLICATION SIGN} {bar.name}"
    yield from _label_svg(name, worked, y, (at, at + size), room_until)
    yield "</g>"


def _label_svg(
    name: str, length: str, y: float, bar: tuple[float, float], room_until: float
) -> Iterator[str]:
    """Write a bar's label where there is more room; its length alone where there is little."""
    inside, behind = bar[1] - bar[0], room_until - bar[1]
    is_inside = inside >= LETTER_PERCENT * (len(name) + len(length) + 4) or inside >= behind
    x, room = (bar[0], inside) if is_inside else (bar[1], behind)
    n_letters = int(room / LETTER_PERCENT) - 2
    if n_letters < len(length):
        return
    n_name = n_letters - len(length) - 2
    text = length if n_name < MIN_LABEL_LETTERS else f"{_middle_cut(name, n_name)}, {length}"
    kind = "inside" if is_inside else "behind"
    yield (  # an `svg` within cuts off what a narrow window has no room for
        f'<svg x="{x:.2f}%" y="{y:g}" width="{room:.2f}%" height="{LANE:g}">'
        f'<text class="label {kind}" x="5" y="13">{escape(text)}</text></svg>'
    )


def _middle_cut(name: str, n_letters: int) -> str:
    """Cut the middle out of a name: files differ at their beginnings and ends.

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


def _area_svg(found: Sequence[float], seconds: float, most: int) -> str:
    height = HEIGHT + AXIS + GAP
    lines = [_svg_start("Calls at work at once", f"at most {most:,}", height)]
    lines += _grid_svg(seconds, height)
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
    return "\n".join([*lines, "</svg>"])


def _svg_start(name: str, words: str, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'aria-label="{escape(name)}: {escape(words)}" width="100%" height="{height:g}">'
    )


def _grid_svg(seconds: float, height: float) -> Iterable[str]:
    """Draw the lines of the time, at round numbers, few enough for a narrow window."""
    step = next((s for s in _TICK_STEPS_S if seconds / s <= MAX_TICKS), seconds / MAX_TICKS)
    for number in range(int(seconds / step) + 1):
        x = _percent_at(number * step, seconds)
        yield _line_svg(x, GAP, x, height - AXIS)
        side = "middle" if x < 95 else "end"
        yield (
            f'<text class="axis" x="{x:.2f}%" y="{height - 8:.1f}" text-anchor="{side}">'
            f"{seconds_text(number * step)}</text>"
        )


def _line_svg(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line class="grid" x1="{x:.2f}%" y1="{y:.1f}" x2="{to_x:.2f}%" y2="{to_y:.1f}"/>'


def _percent_at(at: float, seconds: float) -> float:
    """Return where a time lies, in percent of the chart's width."""
    return LEFT + (100 - LEFT - RIGHT) * min(max(at / seconds, 0.0), 1.0)
