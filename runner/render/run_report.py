"""Report of a run as one HTML page: failures, timelines, tokens, documents.

The size is bounded: of 10,000 documents, those that failed or took longest are listed. Timelines
are SVG: overlapping spans get lanes, spans too short to see are joined. Kinds differ by colour and
pattern, never by colour alone.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import zip_longest
from pathlib import Path
from urllib.parse import quote

from paddock.engine.system import units
from paddock.runner.progress.report import HELD_REMEDY, sums_by_outcome

from .html_page import (
    WEB_FOLDER,
    html_cell,
    html_page,
    html_table,
    number_cell,
    state_html,
)
from .run_details import (
    ReviewedAnswer,
    ReviewRecord,
    RunCall,
    RunDetails,
    RunItem,
)

MAX_FAILURES, MAX_ITEMS, MAX_ERROR_CHARS = 200, 1_000, 2_000
MAX_REVIEWS, MAX_REVIEW_FIELDS = 1_000, 40
_REVIEW_HEADS = ("Item", "Step", "Decision", "When", "The model's answer")
_ITEM_HEADS = ("Item", "Of", "State", "#Took", "#Calls", "#Known", "#Prompt", "#Answer", "Wrote")
_CALL_HEADS = (
    "Step", "Model", "#Calls", "#Known", "#Prompt", "#Of it reused", "#Answer", "#Waited", "#Took"
)  # fmt: skip


def run_report_page(story: RunDetails, target: Path) -> str:
    """Return the page, with links relative to its target."""
    title = f"{story.past.row.pipeline}: {story.past.row.run}"
    return html_page(title, _page_parts(story, target.parent))


def _page_parts(story: RunDetails, folder: Path) -> Iterator[str]:
    yield from run_summary_html(story)
    yield from _failures_html(story, folder)
    yield from _reviews_html(story.reviewed)
    yield from _charts_html(story)
    yield from _tokens_html(story.calls)
    yield from _documents_html(story, folder)


def run_summary_html(story: RunDetails, progress: str | None = None) -> Iterator[str]:
    """Yield how a run went; of one that goes on its `progress` in place of items by state."""
    past, row = story.past, story.past.row
    began = units.local_time(row.started)
    yield f"<h1>{escape(row.pipeline)}</h1>"
    yield (
        f"<p>Run <b>{escape(row.run)}</b> of {escape(str(past.place.folder / row.file))}, {began}, "
        f"{units.duration(story.seconds)}: {state_html(past.status)}"
        f"</p>"
    )
    if past.message:
        kind = "error" if past.status == "failed" else "note"
        yield f'<div class="{kind}"><p>{escape(past.message)}</p></div>'
    if progress:
        yield f"<p>{escape(progress)}</p>"
    outcomes = sums_by_outcome(story.counts) if progress is None else {}
    facts = (*outcomes.items(), *story.sums.items())
    chips = "".join(
        f'<li class="s-{escape(name.replace(" ", "-"))}">{escape(name)} <b>{n:,}</b></li>'
        for name, n in facts
        if n
    )
    yield f'<ul class="chips">{chips}</ul>'
    for name, loads in (past.summary.get("models") or {}).items():
        n = loads.get("loads", 0)
        if not n:  # it was in memory already
            continue
        times = "once" if n == 1 else f"{n:,} times"
        seconds = units.duration(loads.get("load_s", 0.0))
        yield f'<p class="soft">{escape(name)} was loaded {times}, {seconds}.</p>'


def _failures_html(story: RunDetails, folder: Path) -> Iterator[str]:
    bad = [item for item in story.items if item.is_bad]
    n_told = sum(item.state == "quarantined" for item in bad)
    n_known = max(0, story.counts.get("quarantined", 0) - n_told)
    if bad or n_known:
        yield f"<h2>Failed ({len(bad) + n_known:,})</h2>"
    for item in bad[:MAX_FAILURES]:
        name = _file_link(item.key, item.source, folder)
        error = (item.error or "").strip()[:MAX_ERROR_CHARS]
        yield (
            f'<div class="error"><p><b>{name}</b> of {escape(item.step)}, '
            f"{state_html(item.state)}</p>"
            f"<p>{escape(error)}</p>{later_run_html(item)}</div>"
        )
    if len(bad) > MAX_FAILURES:
        n_left = len(bad) - MAX_FAILURES
        yield f"<p>{n_left:,} more; <code>paddock logs {escape(story.past.row.run)} --failed</code>"
        yield " lists them.</p>"
    if n_known:
        yield f"<p>{n_known:,} of them known to fail and not retried.</p>"


def _reviews_html(reviewed: ReviewRecord) -> Iterator[str]:
    """Yield who decided what, what waits, and how reliable confidence was."""
    if reviewed.answers:
        yield f"<h2>Answers ({len(reviewed.answers):,})</h2>"
        shown = sorted(reviewed.answers, key=_review_order)
        n_left = len(shown) - MAX_REVIEWS
        note = f"{n_left:,} more; `paddock review --list` and `--export jsonl` have all." * (
            n_left > 0
        )
        rows = map(_review_row, shown[:MAX_REVIEWS])
        yield html_table("Answers", _REVIEW_HEADS, rows, note=note)
    for table in reviewed.reliability:
        yield f"<p>{escape(table.summary)}.</p>"
        if table.rows:
            shares = (
                (
                    html_cell(row.label),
                    number_cell(row.n),
                    number_cell(row.n_right),
                    html_cell(f"{row.share:.0%}", "n"),
                    html_cell(row.bounds),
                )
                for row in table.rows
            )
            heads = ("Confidence", "#Fields", "#Right", "#Share", "In 95 of 100 cases")
            yield html_table(f"Reliability of {table.step}", heads, shares)


def _review_order(one: ReviewedAnswer) -> tuple[int, str, str]:
    """Sort what waits first, and what was not reviewed last."""
    return {"open": 0, "none": 2}.get(one.state, 1), one.item, one.step


def _review_row(one: ReviewedAnswer) -> tuple[str, ...]:
    when = "" if one.at is None else units.local_time(one.at, "%Y-%m-%d %H:%M")
    changed = {path: after for path, _, after in one.changes}
    fields = "".join(
        f"<li>{escape(path or 'answer')}: {_changed_html(value, changed.get(path))}"
        f'{f"""<br><span class="soft">{escape(place)}</span>""" if place else ""}</li>'
        for path, value, place in one.fields[:MAX_REVIEW_FIELDS]
    )
    n_left = len(one.fields) - MAX_REVIEW_FIELDS
    fields += f"<li>and {n_left:,} more</li>" * (n_left > 0)
    earlier = "".join(
        f'<br><span class="soft">{escape(text)}</span>' for text in (*one.undecided, *one.earlier)
    )
    return (
        f'<td class="name">{escape(one.item)}</td>',
        html_cell(one.step),
        f'<td><span class="s-{escape(one.state)}">{escape(one.outcome)}</span>{earlier}</td>',
        html_cell(when),
        f'<td class="name"><ul class="fields">{fields}</ul></td>',
    )


def _changed_html(value: str, after: str | None) -> str:
    if after is None:
        return escape(value)
    return f"<del>{escape(value)}</del> <ins>{escape(after)}</ins>"


def later_run_html(item: RunItem) -> str:
    """Return the result of an item in a later run."""
    if item.later is None:
        return ""
    run, state = item.later
    if state == "deleted":
        return f'<p class="soft">Run {escape(run)} found that its document was deleted.</p>'
    if state in ("failed", "quarantined"):
        return f'<p class="soft">Run {escape(run)} retried it: {escape(state)}.</p>'
    return f'<p class="soft">Redone by run {escape(run)}.</p>'


def _charts_html(story: RunDetails) -> Iterator[str]:
    (items, of_items), (calls, of_calls) = items_chart(story), calls_chart(story)
    if items or calls:
        yield DEFINITIONS
    if items:
        yield '<h2 id="items-time">Items over time</h2>'
        yield of_items
        yield _scrollable("items-time", items)
    if calls:
        yield '<h2 id="calls-time">Calls over time</h2>'
        if story.n_calls_lost:
            yield f'<p class="soft">{_lost_calls(story.n_calls_lost)}</p>'
        yield of_calls
        yield _scrollable("calls-time", calls)
    chart, most, mean = occupancy_chart(story)
    if chart:
        yield '<h2 id="at-once">Concurrent calls</h2>'
        yield f'<p class="soft">At most {most:,}; {mean:.1f} on average while there were any.</p>'
        yield legend([AREA])
        yield _scrollable("at-once", chart)


def _lost_calls(n: int) -> str:
    what = "1 call is" if n == 1 else f"{n:,} calls are"
    return f"{what} not drawn: later runs redid their items."


def _scrollable(name: str, inner: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">{inner}</div>'


def _tokens_html(calls: Sequence[RunCall]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[RunCall]] = {}
    for call in calls:
        groups.setdefault((call.step, call.model or call.kind), []).append(call)
    if groups:
        yield "<h2>Calls and tokens</h2>"
        rows = (_token_row(*place, made) for place, made in sorted(groups.items()))
        note = "Times of concurrent calls are added up."
        yield html_table("Calls and tokens", _CALL_HEADS, rows, note=note)


def _token_row(step: str, model: str, calls: Sequence[RunCall]) -> tuple[str, ...]:
    new = [call for call in calls if not call.is_known]
    seconds = sum(call.seconds for call in new)
    waited = sum(call.queue_s for call in new)
    return (
        f'<th scope="row">{escape(step)}</th>',
        html_cell(model),
        number_cell(len(new)),
        number_cell(len(calls) - len(new)),
        number_cell(sum(call.prompt for call in new)),
        number_cell(sum(call.reused for call in new)),
        number_cell(sum(call.completion for call in new)),
        html_cell(units.duration(waited) if waited >= 0.05 else "", "n"),
        html_cell(units.duration(seconds) if seconds >= 0.05 else "", "n"),
    )


def _documents_html(story: RunDetails, folder: Path) -> Iterator[str]:
    items = sorted(story.items, key=lambda item: (not item.is_bad, -item.seconds))[:MAX_ITEMS]
    n_left = len(story.items) - len(items)
    notes = []
    if n_left:
        notes.append(f"{n_left:,} more, all done and faster than these.")
    if story.n_taken_over:
        notes.append(
            f"{story.n_taken_over:,} were redone by later runs; their details in this run are gone."
        )
    n_fresh = story.counts.get("fresh", 0)
    if n_fresh:
        notes.append(f"{n_fresh:,} were fresh: nothing had to be done.")
    n_held = story.counts.get("held", 0)
    if n_held:
        kept = "outputs were edited, or others wrote them, and are kept"
        notes.append(f"{n_held:,} were held: {kept}. {HELD_REMEDY}")
    if not items:
        is_whole = story.past.status in ("completed", "quarantined")
        nothing = "Nothing had to be done." if is_whole else "No item was finished."
        yield f"<p>{escape(' '.join(notes) or nothing)}</p>"
        return
    yield "<h2>Items</h2>"
    rows = (_item_row(item, folder) for item in items)
    yield html_table("Items", _ITEM_HEADS, rows, note=" ".join(notes))


def _item_row(item: RunItem, folder: Path) -> tuple[str, ...]:
    wrote = ", ".join(_file_link(Path(output).name, output, folder) for output in item.outputs[:5])
    if len(item.outputs) > 5:
        wrote += f" and {len(item.outputs) - 5:,} more"
    return (
        f'<td class="name">{_file_link(item.key, item.source, folder)}</td>',
        html_cell(item.step),
        f"<td>{state_html(item.state)}{later_run_html(item)}</td>",
        html_cell(units.duration(item.seconds) if item.seconds >= 0.05 else "", "n"),
        number_cell(item.calls),
        number_cell(item.known_calls),
        number_cell(item.prompt),
        number_cell(item.completion),
        f'<td class="name">{wrote}</td>',
    )


def _file_link(text: str, path: str | None, folder: Path) -> str:
    """Return a link to a file, relative to the page; without a path the text alone."""
    if path is None:
        return escape(text)
    try:
        near = os.path.relpath(path, folder.resolve())
    except ValueError:  # another drive
        near = path
    # File names are bytes: quote those that are not text as they are.
    address = quote(os.fsencode(near.replace(os.sep, "/")))
    # A name with a colon before any slash would be read as a scheme.
    start = "" if address.startswith(("/", ".")) else "./"
    return f'<a href="{start}{escape(address)}">{escape(text)}</a>'


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
    """Return the timeline of items, and its legend."""
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
    return _area_svg(mean_concurrency(spans, story.seconds, BINS), story.seconds, most), most, mean


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
    more = f" and {bar.n - 1:,} more" if bar.n > 1 else ""
    worked = units.duration(max(0.0, bar.end - bar.start - bar.waited))
    width = max(end - x, MIN_BAR_PERCENT / 2)
    yield f"<g><title>{escape(f'{bar.label}{more}, {units.duration(bar.end - bar.start)}')}</title>"
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


def _area_svg(found: Sequence[float], seconds: float, most: int) -> str:
    height = HEIGHT + AXIS + GAP
    lines = [_svg_start("Concurrent calls", f"at most {most:,}", height)]
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
