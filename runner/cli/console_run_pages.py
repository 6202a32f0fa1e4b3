"""The console's pages on runs: the list, a run's items, an item with its prompts and answers.

They show what `paddock runs`, `logs` and `why` show. Everything is escaped: names, prompts and
answers come from documents. Functions block and read; a thread calls them.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlencode

from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.bind import read_plan
from paddock.runner.bind.inputs import read_inputs
from paddock.runner.compare.run_difference import (
    ChangeKind,
    RunDifference,
    change_rows,
    run_difference,
)
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.ledger.run_history import (
    LedgerFolder,
    PastRun,
    open_for_reading,
    recent_runs,
    runs_named,
)
from paddock.runner.lineage.answer_records import reviews_of_item
from paddock.runner.lineage.explain import explain_path, item_steps
from paddock.runner.lineage.traces import (
    ItemTrace,
    LedgerTraces,
    LineageCall,
    LineageFile,
    LineageStep,
)
from paddock.runner.progress.journal import JournalProgress
from paddock.runner.render.console_page import CONSOLE_PAGES
from paddock.runner.render.html_page import (
    action_html,
    error_html,
    facts_html,
    hidden_field,
    html_cell,
    html_table,
    number_cell,
    state_html,
)
from paddock.runner.render.run_details import ReviewedAnswer, RunDetails, RunItem, read_run_details
from paddock.runner.render.run_report_page import later_run_html, run_summary_html
from paddock.runner.review.page_server import shown_folder

from .arguments import recorded_inputs
from .detached_run import stop_refusal
from .exit_status import CommandError
from .history_text import (
    FILE_STATE_TEXT,
    lineage_text,
    open_progress_text,
    request_lines,
    run_result_text,
    run_time_text,
)

RUNS = CONSOLE_PAGES["Runs"]
PAGE_ROWS = 100
_MOST_RUNS = 10_000
"""Of a pipeline, among which the earlier ones are sought."""
MOST_TEXT_CHARS = 100_000
"""Of one prompt or answer; more makes a browser slow."""
_LIVE_S, _LIST_LIVE_S = 2, 5
FIND_EVERY_S = 15.0
_KEPT_DETAILS = 4
_DIFFERENCE_ROWS = 20
MOST_NOT_DONE = 10
_CHANGES: Mapping[ChangeKind, str] = {
    "changed": "Changed", "added": "Added", "left": "Not done", "unknown": "Not known",
    "made_again": "Made again",
}  # fmt: skip
_CHANGE_NOTES: Mapping[ChangeKind, str] = {
    "unknown": "Not known: an answer of one of the two runs is not on record.",
    "made_again": "Made again: what they held in one of the two runs is not on record.",
}
_CHANGE_HEADS = ("Item", "Of", "State", "Answer")
_RUN_HEADS = ("Run", "Pipeline", "Folder", "Status", "Started", "Took", "Items", "By")
_ITEM_HEADS = ("Item", "Of", "State", "#Took", "#Calls")


_T = TypeVar("_T")


class NotHere(Exception):
    """There is no such page: a sentence."""


@dataclass(frozen=True, slots=True)
class PageParts:
    """What a page shows: its title, its HTML, and after how many seconds it looks for changes."""

    title: str
    parts: Sequence[str]
    live_s: int = 0
    """0: it does not change by itself."""
    status: int = 200
    """Of HTTP."""


Query = Mapping[str, str]


class KeptReading(Generic[_T]):
    """What one thread at a time reads again every 15 s; others have the last reading meanwhile."""

    def __init__(self, read: Callable[[], _T]) -> None:
        self._read = read
        self._turn = threading.Lock()
        self._kept: _T
        self._read_at = float("-inf")
        """Minus infinity: all wait for a new reading."""

    def get(self) -> _T:
        age_s = time.monotonic() - self._read_at
        if age_s > FIND_EVERY_S and self._turn.acquire(blocking=age_s == float("inf")):
            try:
                if time.monotonic() - self._read_at > FIND_EVERY_S:
                    self._kept = self._read()
                    self._read_at = time.monotonic()
            finally:
                self._turn.release()
        return self._kept

    def drop(self) -> None:
        """Have the next caller read again, and all wait for it."""
        with self._turn:
            self._read_at = float("-inf")


class RunPages:
    """The pages on the runs of some folders."""

    def __init__(self, folders: Callable[[], Iterable[Path]]) -> None:
        self._folders = folders
        self._places = KeptReading(self._find_places)
        self._left_out: Sequence[str] = ()
        self._progress: dict[Path, JournalProgress] = {}
        self._details: dict[tuple[str, ...], RunDetails] = {}
        self._turn = threading.Lock()
        """Held while what is kept between calls is read and changed."""
        self._details_turn = threading.Lock()
        """Held while the items of a run are read, which may take seconds."""
        self._last_difference: tuple[tuple[object, ...], RunDifference] | None = None

    def places(self) -> tuple[LedgerFolder, ...]:
        """Return the ledgers, which are looked for every 15 seconds."""
        return self._places.get()

    def _find_places(self) -> tuple[LedgerFolder, ...]:
        left_out: list[str] = []
        found = tuple(find_ledgers(self._folders(), left_out.append))
        self._left_out = left_out
        return found

    def runs(self, query: Query) -> PageParts:
        """Return the list of runs, newest first."""
        is_failed, n_least = query.get("show") == "failed", page_number(query) * PAGE_ROWS + 1
        found = recent_runs(self.places(), limit=n_least, failed_only=is_failed)
        shown, pager = _page_of(found.runs, query, PAGE_ROWS)
        folders = [str(place.folder) for place in self.places()]
        common = os.path.commonpath(folders) if len(folders) > 1 else None
        parts = ["<h1>Runs</h1>", _choice(query, "show", {"": "All", "failed": "Failed"})]
        parts += map(error_html, (*found.faults, *self._left_out))
        if shown:
            rows = (self._run_row(past, shown_folder(past.place.folder, common)) for past in shown)
            parts.append(html_table("Runs", _RUN_HEADS, rows))
        elif found.runs:
            parts.append("<p>There are fewer runs: this page has none.</p>")
        elif not found.faults:
            start = (
                f'<a href="{CONSOLE_PAGES["Pipelines"]}">Pipelines</a> are run from their pages.'
            )
            parts.append("<p>No run failed.</p>" if is_failed else f"<p>No run yet. {start}</p>")
        parts.append(pager)
        return PageParts("Runs", parts, _LIST_LIVE_S)

    def _run_row(self, past: PastRun, folder: str) -> tuple[str, ...]:
        row, now = past.row, time.time()
        by = row.trigger + (
            f" on {row.host}" if row.host not in (None, socket.gethostname()) else ""
        )
        return (
            f'<th scope="row"><a href="{run_address(past)}">{escape(row.run)}</a></th>',
            html_cell(row.pipeline, "name"),
            html_cell(folder, "name"),
            f"<td>{state_html(past.outcome)}</td>",
            html_cell(units.local_time(row.started), "t"),
            html_cell(run_time_text(past, now), "t"),
            html_cell(self._result_text(past)),
            html_cell(by),
        )

    def _result_text(self, past: PastRun) -> str:
        """Return what a run did, or of one that goes on, how far it is."""
        with self._turn:
            return open_progress_text(past, self._progress) or run_result_text(past)

    def run(self, place: str, name: str, query: Query) -> PageParts:
        """Return a run with a page of its items.

        Raises:
            NotHere: there is no such run.
        """
        past = self.past(place, name)
        story = self._story(past)
        progress = None
        if past.status == "running":
            story = replace(story, seconds=time.time() - past.row.started)
            progress = self._result_text(past)
        parts = [*run_summary_html(story, progress), *_not_done_html(story, past)]
        links = {pipeline_address(past.file.resolve()): "The pipeline"}
        if any(item.state == "waiting" for item in story.items):
            links[CONSOLE_PAGES["Review"]] = "What waits for review"
        if _earlier_runs(past, 1):
            links[f"{run_path(past)}/difference"] = "What changed since the run before?"
        texts = (f'<a href="{escape(path)}">{words}</a>' for path, words in links.items())
        parts.append(f"<p>{', '.join(texts)}</p>")
        parts += _run_actions_html(past)
        parts += _items_html(story, run_address(past), query)
        live_s = _LIVE_S if past.status == "running" else 0
        return PageParts(f"{past.row.pipeline}: {name}", parts, live_s)

    def difference(self, place: str, name: str, query: Query) -> PageParts:
        """Return what a run did otherwise than an earlier one of the same pipeline.

        Raises:
            NotHere: there is no such run, or no earlier one.
        """
        after = self.past(place, name)
        earlier = _earlier_runs(after, _MOST_RUNS)
        chosen = query.get("before", earlier[0].row.run if earlier else "")
        before = next((past for past in earlier if past.row.run == chosen), None)
        if before is None:
            raise NotHere("There is no such earlier run of this pipeline.")
        found = self._difference(before, after)
        parts = [f"<h1>{escape(after.row.pipeline)}: what changed</h1>"]
        parts.append(
            f'<p><a href="{run_address(after)}">{escape(name)}</a> of '
            f'{units.local_time(after.row.started)}, compared with <a href="{run_address(before)}">'
            f"{escape(chosen)}</a> of {units.local_time(before.row.started)}; "
            f"{len(found['alike']):,} are alike.</p>"
        )
        parts.append(_before_form(earlier[:PAGE_ROWS], chosen))
        parts += _changes_html(found, query)
        return PageParts(f"{chosen} and {name}", parts)

    def item(self, place: str, name: str, query: Query) -> PageParts:
        """Return an item as it was done last: document, prompts, answers, evidence, decisions.

        Raises:
            NotHere: there is no such item.
        """
        past = self.past(place, name)
        scope, key = query.get("scope", ""), query.get("key", "")
        base = past.place.folder.resolve()
        with open_for_reading(past.place) as ledger:
            trace = LedgerTraces(ledger, base).of_item(scope, key)
            if trace is None:
                raise NotHere("There is no such item: later runs redid it, or it was removed.")
            parts = list(_item_html(ledger, base, trace, past))
        if trace.entry is not None and trace.entry.state in ("failed", "quarantined"):
            parts.insert(1, _try_again_html(trace, past))
        if "since" in query:
            parts += _since_html(base, trace)
        elif trace.outputs:
            address = escape(_address(query, since="1"))
            parts.append(f'<p><a href="{address}">What changed since?</a></p>')
        return PageParts(f"{key} of {name}", parts)

    def _story(self, past: PastRun) -> RunDetails:
        """Return a run's items; those of a run that ended are kept while its record is the same."""
        mark = (str(past.place.state), past.row.run, past.status, str(self._written_at(past)))
        with self._details_turn:
            if mark not in self._details:
                self._details[mark] = read_run_details(past, with_calls=False)
                while len(self._details) > _KEPT_DETAILS:
                    del self._details[next(iter(self._details))]
            return self._details[mark]

    def _difference(self, before: PastRun, after: PastRun) -> RunDifference:
        """Return the difference; the last one is kept while the record is the same."""
        mark = (str(after.place.state), before.row.run, after.row.run, self._written_at(after))
        known = self._last_difference
        if known is None or known[0] != mark:
            known = self._last_difference = mark, run_difference(before, after)
        return known[1]

    def _written_at(self, past: PastRun) -> float:
        """Return when something of the ledger changed last; now, where that is not known."""
        found = []
        for file in past.place.state.glob("ledger.sqlite*"):
            with suppress(FileNotFoundError):  # the last connection removes SQLite's own
                found.append(file.stat().st_mtime)
        return max(found, default=time.time())

    def address_of(self, state: Path, name: str) -> str:
        """Return the address of a run that has just begun, maybe the first of its ledger."""
        self._places.drop()
        same = (place for place in self.places() if place.state.resolve() == state.resolve())
        return f"{RUNS}/{path_id(next(same, LedgerFolder(state)).state)}/{name}"

    def past(self, place: str, name: str) -> PastRun:
        """Return a run.

        Raises:
            NotHere: there is none.
        """
        places = [folder for folder in self.places() if path_id(folder.state) == place]
        found = runs_named(places, name)
        if not found.runs:
            raise NotHere(found.faults[0] if found.faults else f"There is no run '{name}' here.")
        return found.runs[0]


def _earlier_runs(after: PastRun, limit: int) -> Sequence[PastRun]:
    """Return the runs of the same pipeline that began before a run, newest first."""
    own = LedgerFolder(after.place.state, after.row.file)
    return recent_runs([own], limit=limit, before=after.row.started).runs


def path_id(path: Path) -> str:
    """Return what names a path in an address."""
    return hashlib.sha256(str(path).encode("utf-8", "replace")).hexdigest()[:12]


def pipeline_address(file: Path) -> str:
    return f"{CONSOLE_PAGES['Pipelines']}/{path_id(file)}"


def run_path(past: PastRun) -> str:
    return f"{RUNS}/{path_id(past.place.state)}/{past.row.run}"


def run_address(past: PastRun) -> str:
    return escape(run_path(past))


def page_number(query: Query) -> int:
    """Return the number of a page, 1 where it is none.

    >>> page_number({"page": "3"}), page_number({"page": "-1"}), page_number({})
    (3, 1, 1)
    """
    written = query.get("page", "")
    return max(1, int(written)) if written.isdecimal() and len(written) < 7 else 1


def _address(query: Query, **changed: str) -> str:
    """Return the address of the same page with other parameters."""
    return "?" + urlencode({name: value for name, value in {**query, **changed}.items() if value})


def _choice(query: Query, name: str, values: Mapping[str, str]) -> str:
    """Return links that choose which rows are shown."""
    now = query.get(name, "")
    links = (
        f'<a href="{escape(_address(query, **{name: value, "page": ""}))}"'
        f"{' aria-current=true' if value == now else ''}>{escape(words)}</a>"
        for value, words in values.items()
    )
    return f'<nav class="console" aria-label="Shown">{"".join(links)}</nav>'


def _search_form(query: Query) -> str:
    kept = hidden_field("state", query.get("state", ""))
    named = escape(query.get("named", ""))
    return (
        f'<form method="get" role="search">{kept}<label for="named">Name</label>'
        f'<input id="named" name="named" type="search" value="{named}"><button>Find</button></form>'
    )


def _before_form(earlier: Iterable[PastRun], chosen: str) -> str:
    options = "".join(
        f'<option value="{escape(run.row.run)}"{" selected" if run.row.run == chosen else ""}>'
        f"{escape(run.row.run)}, {units.local_time(run.row.started)}, {escape(run.status)}</option>"
        for run in earlier
    )
    return (
        f'<form method="get"><label for="before">Earlier run</label>'
        f'<select id="before" name="before">{options}</select><button>Compare</button></form>'
    )


def _is_shown(item: RunItem, query: Query) -> bool:
    state, named = query.get("state", ""), query.get("named", "")
    return state in ("", item.state) and named.casefold() in item.key.casefold()


def _pager(query: Query, number: int, *, has_more: bool) -> str:
    links = []
    if number > 1:
        address = escape(_address(query, page=str(number - 1)))
        links.append(f'<a rel="prev" href="{address}">Page before</a>')
    if has_more:
        address = escape(_address(query, page=str(number + 1)))
        links.append(f'<a rel="next" href="{address}">Next page</a>')
    return f'<nav class="pages" aria-label="Pages">{"".join(links)}</nav>' if links else ""


def _page_of(found: Sequence[_T], query: Query, n_rows: int) -> tuple[Sequence[_T], str]:
    """Return what a page of a list shows, and the links to the pages beside it."""
    number = page_number(query)
    end = number * n_rows
    return found[end - n_rows : end], _pager(query, number, has_more=len(found) > end)


def _items_html(story: RunDetails, address: str, query: Query) -> Iterator[str]:
    """Yield a page of a run's items, the failed ones first, with what chooses them."""
    states = sorted({item.state for item in (*story.known, *story.items)})
    yield _choice(query, "state", {"": "All", **{state: state for state in states}})
    yield _search_form(query)
    items = (*story.known, *story.items)
    found = [item for item in items if _is_shown(item, query)]
    found.sort(key=lambda item: not item.is_bad)
    shown, pager = _page_of(found, query, PAGE_ROWS)
    note = f"{counted(len(found), 'item')} of {len(items):,}."
    if story.n_taken_over:
        note += f" {story.n_taken_over:,} were redone by later runs; their details are gone."
    if found:
        rows = (_item_row(item, address) for item in shown)
        yield html_table("Items", _ITEM_HEADS, rows, note=note)
    else:
        yield "<p>No item.</p>" if not story.items else "<p>No item is like that.</p>"
    yield pager


def _changes_html(found: RunDifference, query: Query) -> Iterator[str]:
    """Yield a page of the items that differ, with what chooses them."""
    kinds = [kind for kind in _CHANGES if found[kind] or kind not in _CHANGE_NOTES]
    chosen: ChangeKind = next((kind for kind in kinds if kind == query.get("show")), "changed")
    choices: dict[str, str] = {kind: f"{_CHANGES[kind]}: {len(found[kind]):,}" for kind in kinds}
    yield _choice({**query, "show": chosen}, "show", choices)
    notes = (note for kind, note in _CHANGE_NOTES.items() if found[kind])
    yield from (f'<p class="soft">{note}</p>' for note in notes)
    shown, pager = _page_of(found[chosen], query, _DIFFERENCE_ROWS)
    rows = change_rows(shown)
    none = (
        "No item that both did has another state or answer." if chosen == "changed" else "No item."
    )
    yield html_table("Items", _CHANGE_HEADS, rows) if shown else f"<p>{none}</p>"
    yield pager


def _run_actions_html(past: PastRun) -> Iterator[str]:
    """Yield the buttons that stop a run or start it again."""
    address = run_path(past)
    if past.status != "running":
        yield action_html("Run again", f"{address}/again", why_not=_again_refusal(past))
        return
    why_not = stop_refusal(past)
    yield action_html("Stop after items in flight", f"{address}/stop", why_not=why_not)
    if not why_not:
        yield action_html("Stop at once", f"{address}/stop", fields=hidden_field("now", "1"))


def _try_again_html(trace: ItemTrace, past: PastRun) -> str:
    top = (*trace.place.outer, trace.key)[0]  # what `--only` takes
    is_of_block = bool(trace.place.outer) or trace.key != trace.place.step
    only = hidden_field("only", top) * is_of_block
    address, why_not = f"{run_path(past)}/again", _again_refusal(past)
    return action_html("Try again", address, fields=only, why_not=why_not)


def _again_refusal(past: PastRun) -> str:
    """Return why a run cannot be started again with its inputs; empty: it can."""
    try:
        file, inputs = recorded_inputs(past, None, {})
        pipeline = read_plan(file).pipeline
    except (CommandError, PipelineError, OSError) as error:
        return str(error)
    faults = read_inputs(pipeline, inputs, base=file.parent, cwd=file.parent).faults
    return str(PipelineError(faults)) if faults else ""


def _not_done_html(story: RunDetails, past: PastRun) -> Iterator[str]:
    """Yield what failed, each with the link to its page: what is new, then what was so before."""
    new, run = [item for item in story.items if item.is_bad], run_address(past)
    for items, words in ((new, "not done"), (story.known, "not done before, and not tried again")):
        if items:
            yield f"<h2>{counted(len(items), 'item')} {words}</h2><ul>"
            for item in items[:MOST_NOT_DONE]:
                why = escape((item.error or item.state)[:300])
                yield f"<li>{_item_link(item, run)}: {why}</li>"
            yield "</ul>"
        if len(items) > MOST_NOT_DONE:
            yield f'<p><a href="?state={items[0].state}">All of them</a></p>'


def _item_link(item: RunItem, run: str) -> str:
    if item.place is None:
        return escape(item.key)
    scope, key = item.place
    words = urlencode({"scope": scope, "key": key}, errors="replace")
    return f'<a href="{run}/item?{escape(words)}">{escape(item.key)}</a>'


def _item_row(item: RunItem, run: str) -> tuple[str, ...]:
    error = f"<br>{escape(item.error[:300])}" if item.error else ""
    return (
        f'<td class="name">{_item_link(item, run)}</td>',
        html_cell(item.step),
        f"<td>{state_html(item.state)}{error}{later_run_html(item)}</td>",
        html_cell(units.duration(item.seconds) if item.seconds >= 0.05 else "", "n"),
        number_cell(item.calls),
    )


def _item_html(ledger: Ledger, base: Path, trace: ItemTrace, past: PastRun) -> Iterator[str]:
    entry = trace.entry
    assert entry is not None
    key = "/".join((*trace.place.outer, trace.key))
    yield f"<h1>{escape(key)}</h1>"
    source = trace.source(base)
    run = f"{RUNS}/{path_id(past.place.state)}/{trace.run}"
    # An item's state, with the way to decide where a person has to
    review = f', <a href="{CONSOLE_PAGES["Review"]}">review it</a>'
    state_link = state_html(entry.state) + review * (entry.state == "waiting")
    facts = [
        ("State", state_link),
        ("Of", escape(f"'{trace.place.step}' of {trace.place.file}")),
        ("Run", f'<a href="{escape(run)}">{escape(trace.run)}</a>, {units.local_time(trace.at)}'),
        ("Took", escape(units.duration(entry.seconds)) if entry.seconds >= 0.05 else ""),
        ("Document", "" if source is None else _file_html(source, base)),
        ("Read", "<br>".join(_file_html(path, base) for path in trace.read_files(base))),
        ("Wrote", "<br>".join(map(escape, trace.outputs))),
    ]
    yield facts_html((name, value) for name, value in facts if value)
    if entry.error:
        yield error_html(entry.error)
    for answer in reviews_of_item(ledger, trace.place.scope, trace.key).answers:
        yield from _answer_html(answer)
    for step in item_steps(LineageStore(ledger), trace):
        if step.calls or step.checks:
            yield from _step_html(step)


def _file_html(file: LineageFile, base: Path) -> str:
    path = Path(file.path)
    near = path.relative_to(base) if path.is_relative_to(base) else path
    return f"{escape(str(near))}, {FILE_STATE_TEXT[file.state]}"


def _answer_html(answer: ReviewedAnswer) -> Iterator[str]:
    """Yield an answer's fields with their confidence and evidence, and what a person decided."""
    yield f"<h2>Answer of {escape(answer.step)}</h2>"
    yield f'<p><span class="s-{escape(answer.state)}">{escape(answer.outcome)}</span></p>'
    changed = {path: after for path, _, after in answer.changes}
    rows = (
        (
            f'<th scope="row">{escape(path or "answer")}</th>',
            html_cell(value, "name"),
            html_cell(changed.get(path, ""), "name"),
            html_cell(place, "name"),
        )
        for path, value, place in answer.fields
    )
    yield from (f'<p class="soft">Undecided: {escape(text)}</p>' for text in answer.undecided)
    yield html_table("Fields", ("Field", "The model's value", "Changed to", "Evidence"), rows)


def _step_html(step: LineageStep) -> Iterator[str]:
    uses = f" ({step.uses})" if step.uses else ""
    yield f"<h2>{escape(step.id + uses)}: {counted(len(step.calls), 'call')}</h2>"
    for call in step.calls:
        yield from _call_html(call)
    for check in step.checks:
        yield f'<p class="soft">Check: <code>{escape(check)}</code></p>'


def _call_html(call: LineageCall) -> Iterator[str]:
    if call.is_gone:
        yield "<p>The texts of a call were removed by <code>paddock clean</code>.</p>"
        return
    n_in, n_out = (call.usage.get(f"{side}_tokens", 0) for side in ("prompt", "completion"))
    took = "" if call.seconds is None else f", {units.duration(call.seconds)}"
    known = ", cached from an earlier call" if call.is_known else ""
    facts = f"{call.kind} {call.model}: {n_in:,} + {n_out:,} tokens{took}{known}"
    yield f'<p class="soft">{escape(facts)}</p>'
    yield from _text_html("Prompt", "\n\n".join(request_lines(call)))
    yield from _text_html("Answer", call.reply)
    if call.done_reason not in (None, "stop"):
        yield f"<p>It ended by: {escape(str(call.done_reason))}.</p>"


def _text_html(name: str, text: str) -> Iterator[str]:
    if not text:
        return
    left = len(text) - MOST_TEXT_CHARS
    yield f"<details open><summary>{name}</summary><pre>{escape(text[:MOST_TEXT_CHARS])}</pre>"
    if left > 0:
        yield f"<p>{left:,} more characters; <code>paddock why --full</code> prints all.</p>"
    yield "</details>"


def _since_html(base: Path, trace: ItemTrace) -> Iterator[str]:
    """Yield what `paddock why` says of each output."""
    yield "<h2>What changed since</h2>"
    for path in trace.outputs[:20]:
        words = lineage_text(explain_path(base / path, [base]), is_full=False)
        yield f"<pre>{escape(words)}</pre>"
