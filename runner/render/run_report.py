"""Report of a run as one HTML page: failures first, then time, tokens and documents.

Its size is bounded: of 10,000 documents those that failed or took longest are listed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from paddock.engine.system.files import write_output
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.run_history import LedgerFolder, PastRun, runs_named
from paddock.runner.progress.report import HELD_REMEDY
from paddock.runner.settings import STATE_FOLDER

from .graph_model import seconds_text
from .html_page import html_cell, html_page, html_table, number_cell
from .run_details import RunCall, RunDetails, RunItem, read_run_details
from .timeline import AREA, DEFINITIONS, calls_chart, items_chart, legend, occupancy_chart

MAX_FAILURES, MAX_ITEMS, MAX_ERROR_CHARS = 200, 1_000, 2_000
_ITEM_HEADS = ("Item", "Of", "State", "#Took", "#Calls", "#Known", "#Prompt", "#Answer", "Wrote")
_CALL_HEADS = (
    "Step", "Model", "#Calls", "#Known", "#Prompt", "#Of it reused", "#Answer", "#Waited", "#Took"
)  # fmt: skip


def run_report_page(story: RunDetails, target: Path) -> str:
    """Return the page; links are relative to where it will lie."""
    return html_page(
        f"{story.past.row.pipeline}: {story.past.row.run}", _page_parts(story, target.parent)
    )


def _page_parts(story: RunDetails, folder: Path) -> Iterator[str]:
    yield from _summary_html(story)
    yield from _failures_html(story, folder)
    yield from _charts_html(story)
    yield from _tokens_html(story.calls)
    yield from _documents_html(story, folder)


def _summary_html(story: RunDetails) -> Iterator[str]:
    past, row = story.past, story.past.row
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.started))
    yield f"<h1>{escape(row.pipeline)}</h1>"
    yield (
        f"<p>Run <b>{escape(row.run)}</b> of {escape(str(past.place.folder / row.file))}, {began}, "
        f'{seconds_text(story.seconds)}: <span class="s-{escape(past.status)}">{escape(past.status)}</span>'
        f"</p>"
    )
    if past.message:
        kind = "error" if past.status == "failed" else "told"
        yield f'<div class="{kind}"><p>{escape(past.message)}</p></div>'
    facts = [(name, f"{n:,}") for name, n in (*story.counts.items(), *story.sums.items())]
    chips = "".join(
        f'<li class="s-{escape(name)}">{escape(name)} <b>{escape(shown)}</b></li>'
        for name, shown in facts
        if shown != "0"
    )
    yield f'<ul class="chips">{chips}</ul>'
    for name, loads in (past.summary.get("models") or {}).items():
        n = loads.get("loads", 0)
        times = "once" if n == 1 else f"{n:,} times"
        seconds = seconds_text(loads.get("load_s", 0.0))
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
            f'<span class="s-{escape(item.state)}">{escape(item.state)}</span></p>'
            f"<p>{escape(error)}</p>{_later_run_text(item)}</div>"
        )
    if len(bad) > MAX_FAILURES:
        n_left = len(bad) - MAX_FAILURES
        yield f"<p>{n_left:,} more; <code>paddock logs {escape(story.past.row.run)} --failed</code>"
        yield " lists them.</p>"
    if n_known:
        yield f"<p>{n_known:,} of them known to fail and not tried again.</p>"


def _later_run_text(item: RunItem) -> str:
    """Return what a later run made of an item."""
    if item.later is None:
        return ""
    run, state = item.later
    if state == "deleted":
        return f'<p class="soft">Run {escape(run)} found its document deleted.</p>'
    if state in ("failed", "quarantined"):
        return f'<p class="soft">Run {escape(run)} tried it again: {escape(state)}.</p>'
    return f'<p class="soft">Done again by run {escape(run)}.</p>'


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
        yield '<h2 id="at-once">Calls at work at once</h2>'
        yield f'<p class="soft">At most {most:,}; {mean:.1f} on average while any was.</p>'
        yield legend([AREA])
        yield _scrollable("at-once", chart)


def _lost_calls(n: int) -> str:
    what = "1 call is" if n == 1 else f"{n:,} calls are"
    return f"{what} not drawn: of items that later runs did again."


def _scrollable(name: str, inner: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}">{inner}</div>'


def _tokens_html(calls: Sequence[RunCall]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[RunCall]] = {}
    for call in calls:
        groups.setdefault((call.step, call.model or call.kind), []).append(call)
    if groups:
        yield "<h2>Calls and tokens</h2>"
        rows = (_token_row(*place, made) for place, made in sorted(groups.items()))
        note = "Times of calls are added up, however many went on at once."
        yield html_table("Calls and tokens", _CALL_HEADS, rows, note=note)


def _token_row(step: str, model: str, calls: Sequence[RunCall]) -> str:
    new = [call for call in calls if not call.is_known]
    seconds = sum(call.seconds for call in new)
    waited = sum(call.queue_s for call in new)
    cells = (
        f'<th scope="row">{escape(step)}</th>',
        html_cell(model),
        number_cell(len(new)),
        number_cell(len(calls) - len(new)),
        number_cell(sum(call.prompt for call in new)),
        number_cell(sum(call.reused for call in new)),
        number_cell(sum(call.completion for call in new)),
        html_cell(seconds_text(waited) if waited >= 0.05 else "", "n"),
        html_cell(seconds_text(seconds) if seconds >= 0.05 else "", "n"),
    )
    return f"<tr>{''.join(cells)}</tr>"


def _documents_html(story: RunDetails, folder: Path) -> Iterator[str]:
    items = sorted(story.items, key=lambda item: (not item.is_bad, -item.seconds))[:MAX_ITEMS]
    n_left = len(story.items) - len(items)
    notes = []
    if n_left:
        notes.append(f"{n_left:,} more, all done and quicker than these.")
    if story.n_taken_over:
        notes.append(
            f"{story.n_taken_over:,} were done again by later runs, and what this run did with "
            "them is no longer kept."
        )
    n_fresh = story.counts.get("fresh", 0)
    if n_fresh:
        notes.append(f"{n_fresh:,} were fresh: nothing had to be done.")
    n_held = story.counts.get("held", 0)
    if n_held:
        kept = "outputs were edited, or are not ours, and are kept"
        notes.append(f"{n_held:,} were held: {kept}. {HELD_REMEDY}")
    if not items:
        is_whole = story.past.status in ("completed", "quarantined")
        nothing = "Nothing had to be done." if is_whole else "No item was finished."
        yield f"<p>{escape(' '.join(notes) or nothing)}</p>"
        return
    yield "<h2>Items</h2>"
    rows = (_item_row(item, folder) for item in items)
    yield html_table("Items", _ITEM_HEADS, rows, note=" ".join(notes))


def _item_row(item: RunItem, folder: Path) -> str:
    wrote = ", ".join(_file_link(Path(output).name, output, folder) for output in item.outputs[:5])
    if len(item.outputs) > 5:
        wrote += f" and {len(item.outputs) - 5:,} more"
    cells = (
        f'<td class="name">{_file_link(item.key, item.source, folder)}</td>',
        html_cell(item.step),
        f'<td><span class="s-{escape(item.state)}">{escape(item.state)}</span>{_later_run_text(item)}</td>',
        html_cell(seconds_text(item.seconds) if item.seconds >= 0.05 else "", "n"),
        number_cell(item.calls),
        number_cell(item.known_calls),
        number_cell(item.prompt),
        number_cell(item.completion),
        f'<td class="name">{wrote}</td>',
    )
    return f"<tr>{''.join(cells)}</tr>"


def _file_link(text: str, path: str | None, folder: Path) -> str:
    """Return a text as a link to a file, relative to the page; the text alone where there is none."""
    if path is None:
        return escape(text)
    try:
        near = os.path.relpath(path, folder.resolve())
    except ValueError:  # another drive
        near = path
    # Names of files are bytes: what is no text in them is written as the file system has it.
    address = quote(os.fsencode(near.replace(os.sep, "/")))
    # A name with a colon before any slash would be read as a scheme.
    start = "" if address.startswith(("/", ".")) else "./"
    return f'<a href="{start}{escape(address)}">{escape(text)}</a>'


def write_named_run_report(file: Path, run: str, target: Path) -> None:
    """Write a run of a pipeline as one page.

    Raises:
        LedgerError: the ledger cannot be read.
        OSError: the file cannot be written.
    """
    found = runs_named([LedgerFolder(file.absolute().parent / STATE_FOLDER)], run)
    if found.faults and not found.runs:
        raise LedgerError(found.faults[0])
    for past in found.runs[:1]:
        write_run_report(past, target)


def write_run_report(past: PastRun, target: Path) -> None:
    """Write a run as one page."""
    write_output(target, run_report_page(read_run_details(past), target))
