"""Report of a run as one HTML page: failures, timelines, tokens, documents.

The size is bounded: of 10,000 documents, those that failed or took longest are listed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from paddock.engine.system import units
from paddock.engine.system.text import counted, listed
from paddock.runner.progress.report import HELD_REMEDY, not_taken_in_words, sums_by_outcome

from .html_page import html_cell, html_page, html_table, number_cell, state_html
from .run_details import ReviewedAnswer, ReviewRecord, RunCall, RunDetails, RunItem
from .timelines import AREA, DEFINITIONS, calls_chart, items_chart, legend, occupancy_chart

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
    yield from _reviews_html(story.reviewed)
    (items, of_items), (calls, of_calls) = items_chart(story), calls_chart(story)
    if items or calls:
        yield DEFINITIONS
    if items:
        yield '<h2 id="items-time">Items over time</h2>'
        yield of_items
        yield _scrollable("items-time", items)
    if calls:
        yield '<h2 id="calls-time">Calls over time</h2>'
        if n := story.n_calls_lost:
            what = f"{counted(n, 'call')} {'is' if n == 1 else 'are'} not drawn"
            yield f'<p class="soft">{what}: later runs redid their items.</p>'
        yield of_calls
        yield _scrollable("calls-time", calls)
    chart, most, mean = occupancy_chart(story)
    if chart:
        yield '<h2 id="at-once">Concurrent calls</h2>'
        yield f'<p class="soft">At most {most:,}; {mean:.1f} on average while there were any.</p>'
        yield legend([AREA])
        yield _scrollable("at-once", chart)
    yield from _tokens_html(story.calls)
    yield from _documents_html(story, folder)


def run_summary_html(story: RunDetails, progress: str | None = None) -> Iterator[str]:
    """Yield how a run went; of one that goes on its `progress` in place of items by state."""
    past, row = story.past, story.past.row
    began = units.local_time(row.started)
    yield f"<h1>{escape(row.pipeline)}</h1>"
    yield (
        f"<p>Run <b>{escape(row.run)}</b> of {escape(str(past.place.folder / row.file))}, {began}, "
        f"{units.duration(story.seconds)}: {state_html(past.outcome)}"
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
    if words := not_taken_in_words(past.summary.get("not_taken") or {}):
        yield f'<p class="soft">{escape(words)}</p>'
    for name, loads in (past.summary.get("models") or {}).items():
        n = loads.get("loads", 0)
        if not n:  # it was in memory already
            continue
        times = "once" if n == 1 else f"{n:,} times"
        seconds = units.duration(loads.get("load_s", 0.0))
        yield f'<p class="soft">{escape(name)} was loaded {times}, {seconds}.</p>'


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


def _review_order(answer: ReviewedAnswer) -> tuple[int, str, str]:
    """Sort what waits first, and what was not reviewed last."""
    return {"open": 0, "none": 2}.get(answer.state, 1), answer.item, answer.step


def _review_row(answer: ReviewedAnswer) -> tuple[str, ...]:
    when = "" if answer.at is None else units.local_time(answer.at, "%Y-%m-%d %H:%M")
    changed = {path: after for path, _, after in answer.changes}
    fields = "".join(
        f"<li>{escape(path or 'answer')}: {_changed_html(value, changed.get(path))}"
        f'{f"""<br><span class="soft">{escape(place)}</span>""" if place else ""}</li>'
        for path, value, place in answer.fields[:MAX_REVIEW_FIELDS]
    )
    n_left = len(answer.fields) - MAX_REVIEW_FIELDS
    fields += f"<li>and {n_left:,} more</li>" * (n_left > 0)
    earlier = "".join(
        f'<br><span class="soft">{escape(text)}</span>'
        for text in (*answer.undecided, *answer.earlier)
    )
    return (
        f'<td class="name">{escape(answer.item)}</td>',
        html_cell(answer.step),
        f'<td><span class="s-{escape(answer.state)}">{escape(answer.outcome)}</span>{earlier}</td>',
        html_cell(when),
        f'<td class="name"><ul class="fields">{fields}</ul></td>',
    )


def _changed_html(value: str, after: str | None) -> str:
    if after is None:
        return escape(value)
    return f"<del>{escape(value)}</del> <ins>{escape(after)}</ins>"


def later_run_html(item: RunItem) -> str:
    if item.later is None:
        return ""
    run, state = item.later
    if state == "deleted":
        return f'<p class="soft">Run {escape(run)} found that its document was deleted.</p>'
    if state in ("failed", "quarantined"):
        return f'<p class="soft">Run {escape(run)} retried it: {escape(state)}.</p>'
    return f'<p class="soft">Redone by run {escape(run)}.</p>'


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
    wrote = listed([_file_link(Path(output).name, output, folder) for output in item.outputs], 5)
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
