"""Draw a run's time: items and calls as bars in lanes, and how many calls were at work at once.

Bounded whatever the run: lanes and bars have a greatest number, the rest is told in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import zip_longest

from .lanes import MOST_LANES, Bar, Span, at_once, bars_of, lanes_of, levels
from .looks import BARE, PATTERNS, SEVERAL, WAITED, legend, look_of, over
from .scene import took
from .story import Story

LEFT, RIGHT = 6.0, 1.5
"""Beside the time, in percent: a chart is as wide as the window."""
LANE, GAP, AXIS = 18.0, 4.0, 24.0
LETTER = 0.64
"""In percent: a letter of a label, in a chart of 1,000 pixels; narrower ones cut labels off."""
LEAST_LETTERS = 6
LEAST = 0.2
"""In percent: what is shorter is drawn with what stands next to it."""
MOST_TICKS = 8  # so that their labels have room in a window of 320 pixels
BINS, HEIGHT = 280, 120.0
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


def items_chart(story: Story) -> tuple[str, str]:
    """Draw the items, those that were under way at a time one below the other; with a legend."""
    spans = [
        Span(
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


def calls_chart(story: Story) -> tuple[str, str]:
    """Draw the calls; what they waited is pale; with a legend."""
    spans = [
        Span(
            call.began,
            call.began + call.seconds,
            f"{call.kind} {call.model} for {call.step} of {call.key}: "
            f"{call.prompt:,} + {call.completion:,} tokens"
            + (", known" if call.is_known else "")
            + (f", waited {took(call.queue_s)}" if call.queue_s >= 0.05 else ""),
            "known" if call.is_known else "call" if call.is_of_model else "tool",
            call.queue_s,
            call.step if call.key == call.step else f"{call.step}, {call.key}",
        )
        for call in story.calls
    ]
    return _timeline("Calls over time", spans, story.seconds)


def occupancy(story: Story) -> tuple[str, int, float]:
    """Draw how many calls a model worked on at once; gives the most and the mean as well."""
    spans = [
        Span(call.began, call.began + call.seconds, "", "", call.queue_s)
        for call in story.calls
        if not call.is_known and call.is_of_model
    ]
    if not spans:
        return "", 0, 0.0
    most, mean = at_once(spans)
    most = max(most, 1)
    return _area(levels(spans, story.seconds, BINS), story.seconds, most), most, mean


def _timeline(name: str, spans: Sequence[Span], seconds: float) -> tuple[str, str]:
    """Draw spans in lanes; returns the chart and its legend, empty where there are none."""
    if not spans:
        return "", ""
    lanes = lanes_of(spans)
    shown = lanes[:MOST_LANES]
    height = len(shown) * (LANE + GAP) + AXIS + GAP
    words = f"{len(spans):,} in {len(lanes):,} lanes, {took(seconds)}"
    lines = [_open(name, words, height), *_grid(seconds, height)]
    least_s = LEAST * seconds / (100 - LEFT - RIGHT)
    looks: set[str] = set()
    for number, lane in enumerate(shown):
        y = GAP + number * (LANE + GAP)
        bars = bars_of(lane, least_s)
        for bar, after in zip_longest(bars, bars[1:]):
            room_until = 100.0 if after is None else _x(after.start, seconds)
            drawn = list(_bar(bar, y, seconds, room_until))
            lines += drawn
            looks |= set() if any("label" in line for line in drawn[1:]) else {BARE}
            looks |= {look_of(bar.kind)} | ({WAITED} if bar.waited else set())
            looks |= {SEVERAL} if bar.n > 1 else set()
    lines.append("</svg>")
    if len(lanes) > len(shown):
        left = sum(map(len, lanes[MOST_LANES:]))
        lines.append(f'<p class="soft">{left:,} more went on at the same time.</p>')
    return "\n".join(lines), legend(looks)


def _bar(bar: Bar, y: float, seconds: float, room_until: float) -> Iterator[str]:
    """Draw a bar with its label: within it, or behind it up to the next one."""
    x, end = _x(bar.start, seconds), _x(bar.end, seconds)
    more = f" and {bar.n - 1:,} more" if bar.n > 1 else ""
    worked = took(max(0.0, bar.end - bar.start - bar.waited))
    width = max(end - x, LEAST / 2)
    yield f"<g><title>{escape(f'{bar.label}{more}, {took(bar.end - bar.start)}')}</title>"
    waited = min(width, _x(bar.start + bar.waited, seconds) - x) if bar.waited else 0.0
    waited = waited if waited >= LEAST / 2 else 0.0
    if waited:
        yield _rect(WAITED, x, y, waited)
    at, size = x + waited, max(width - waited, LEAST / 2)
    look = look_of(bar.kind)
    yield _rect(f"bar {look}", at, y, size)
    if look in PATTERNS:
        yield _rect_of(over(look), at, y, size)
    name = bar.name if bar.n == 1 else f"{bar.n:,} \N{MULTIPLICATION SIGN} {bar.name}"
    yield from _label(name, worked, y, (at, at + size), room_until)
    yield "</g>"


def _label(
    name: str, length: str, y: float, bar: tuple[float, float], room_until: float
) -> Iterator[str]:
    """Write a bar's label where there is more room; its length alone where there is little."""
    inside, behind = bar[1] - bar[0], room_until - bar[1]
    is_inside = inside >= LETTER * (len(name) + len(length) + 4) or inside >= behind
    x, room = (bar[0], inside) if is_inside else (bar[1], behind)
    n_letters = int(room / LETTER) - 2
    if n_letters < len(length):
        return
    n_name = n_letters - len(length) - 2
    text = length if n_name < LEAST_LETTERS else f"{_shortened(name, n_name)}, {length}"
    kind = "inside" if is_inside else "behind"
    yield (  # an `svg` within cuts off what a narrow window has no room for
        f'<svg x="{x:.2f}%" y="{y:g}" width="{room:.2f}%" height="{LANE:g}">'
        f'<text class="label {kind}" x="5" y="13">{escape(text)}</text></svg>'
    )


def _shortened(name: str, n_letters: int) -> str:
    """Cut the middle out of a name: files differ at their beginnings and ends.

    >>> _shortened("chapter-one.txt", 9)
    'chap….txt'
    """
    if len(name) <= n_letters:
        return name
    n_head = n_letters // 2
    return f"{name[:n_head]}…{name[len(name) - (n_letters - 1 - n_head) :]}"


def _rect(kind: str, x: float, y: float, width: float) -> str:
    return _rect_of(f'class="{escape(kind)}"', x, y, width)


def _rect_of(look: str, x: float, y: float, width: float) -> str:
    return f'<rect {look} x="{x:.2f}%" y="{y:g}" width="{width:.2f}%" height="{LANE:g}" rx="2"/>'


def _area(found: Sequence[float], seconds: float, most: int) -> str:
    height = HEIGHT + AXIS + GAP
    lines = [_open("Calls at work at once", f"at most {most:,}", height)]
    lines += _grid(seconds, height)
    for n in sorted({0, most // 2, most}):
        y = GAP + HEIGHT * (1 - n / most)
        lines.append(_line(LEFT, y, 100 - RIGHT, y))
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


def _open(name: str, words: str, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'aria-label="{escape(name)}: {escape(words)}" width="100%" height="{height:g}">'
    )


def _grid(seconds: float, height: float) -> Iterable[str]:
    """Draw the lines of the time, at round numbers, few enough for a narrow window."""
    step = next((s for s in _STEPS_S if seconds / s <= MOST_TICKS), seconds / MOST_TICKS)
    for number in range(int(seconds / step) + 1):
        x = _x(number * step, seconds)
        yield _line(x, GAP, x, height - AXIS)
        side = "middle" if x < 95 else "end"
        yield (
            f'<text class="axis" x="{x:.2f}%" y="{height - 8:.1f}" text-anchor="{side}">'
            f"{took(number * step)}</text>"
        )


def _line(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line class="grid" x1="{x:.2f}%" y1="{y:.1f}" x2="{to_x:.2f}%" y2="{to_y:.1f}"/>'


def _x(at: float, seconds: float) -> float:
    """Give where a time lies, in percent of the chart's width."""
    return LEFT + (100 - LEFT - RIGHT) * min(max(at / seconds, 0.0), 1.0)
