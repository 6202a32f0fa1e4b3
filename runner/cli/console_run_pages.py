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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from markupsafe import Markup

from paddock.engine.system.files import sha256_of
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import cell_text
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.inputs import outside_path_faults, read_inputs
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.run_history import (
    LedgerFolder,
    PastRun,
    open_for_reading,
    recent_runs,
    runs_named,
)
from paddock.runner.lineage.explain import explain_in, files_now
from paddock.runner.lineage.recorded_items import RecordedItems, RecordedSteps
from paddock.runner.lineage.run_difference import (
    ChangeKind,
    RunDifference,
    change_rows,
    run_difference,
)
from paddock.runner.progress.item_states import BAD
from paddock.runner.progress.journal import JournalProgress
from paddock.runner.render.console_page import CONSOLE_PAGES
from paddock.runner.render.html_page import render
from paddock.runner.render.run_details import RunDetails, read_run_details
from paddock.runner.render.run_page import live_run_page
from paddock.runner.review.answer_records import reviews_of_item
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


_T = TypeVar("_T")
Query = Mapping[str, str]


class NotHere(Exception):
    """There is no such page: a sentence."""


class PageParts(Struct, frozen=True):
    """What a page shows: its title, its HTML, and after how many seconds it looks for changes."""

    title: str
    body: Markup
    live_s: int = 0
    """0: it does not change by itself."""
    status: int = 200
    """Of HTTP."""


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
    def __init__(self, folders: Callable[[], Iterable[Path]]) -> None:
        self._folders = folders
        self._places = KeptReading(self._find_places)
        self._progress: dict[Path, JournalProgress] = {}
        self._details: dict[tuple[str, ...], RunDetails] = {}
        self._turn = threading.Lock()
        """Held while what is kept between calls is read and changed."""
        self._details_turn = threading.Lock()
        """Held while the items of a run are read, which may take seconds."""
        self._last_difference: tuple[tuple[object, ...], RunDifference] | None = None

    def places(self) -> Sequence[LedgerFolder]:
        return self._places.get()[0]

    def _find_places(self) -> tuple[Sequence[LedgerFolder], Sequence[str]]:
        """Return the folders of ledgers, and why others were left out."""
        left_out: list[str] = []
        return find_ledgers(self._folders(), left_out.append), left_out

    def runs(self, query: Query) -> PageParts:
        is_failed, number = query.get("show") == "failed", page_number(query)
        n_least = number * PAGE_ROWS + 1
        found = recent_runs(self.places(), limit=n_least, failed_only=is_failed)
        folders = [str(place.folder) for place in self.places()]
        common = os.path.commonpath(folders) if len(folders) > 1 else None
        body = render(
            "console_runs.html",
            query=query,
            faults=(*found.faults, *self._places.get()[1]),
            runs=found.runs,
            shown=_page_of(found.runs, number, PAGE_ROWS),
            number=number,
            has_more=len(found.runs) >= n_least,
            folder=lambda past: shown_folder(past.place.folder, common),
            address=run_path,
            took=run_time_text,
            result=self._result_text,
            host=socket.gethostname(),
            pipelines=CONSOLE_PAGES["Pipelines"],
        )
        return PageParts("Runs", body, _LIST_LIVE_S)

    def _result_text(self, past: PastRun) -> str:
        with self._turn:
            return open_progress_text(past, self._progress) or run_result_text(past)

    def run(self, place: str, name: str, query: Query) -> PageParts:
        """Return a run with a page of its items."""
        past = self.past(place, name)
        # A run's items; those of a run that ended are kept while its record is the same.
        key = (str(past.place.state), past.row.run, past.status, str(self._written_at(past)))
        with self._details_turn:
            if key not in self._details:
                self._details[key] = read_run_details(past, with_calls=False)
                while len(self._details) > _KEPT_DETAILS:
                    del self._details[next(iter(self._details))]
            details = self._details[key]
        progress = None
        if past.status == "running":
            details = replace(details, seconds=time.time() - past.row.started)
            progress = self._result_text(past)
        links = {pipeline_address(past.file.resolve()): "The pipeline"}
        if any(item.state == "waiting" for item in details.items):
            links[CONSOLE_PAGES["Review"]] = "What waits for review"
        if _earlier_runs(past, 1):
            links[f"{run_path(past)}/difference"] = "What changed since the run before?"
        items, number = (*details.known, *details.items), page_number(query)
        state, named = query.get("state", ""), query.get("named", "").casefold()
        found = [
            item for item in items if state in ("", item.state) and named in item.key.casefold()
        ]
        found.sort(key=lambda item: not item.is_bad)
        is_running = past.status == "running"
        body = live_run_page(
            details,
            progress,
            query=query,
            links=links,
            address=run_path(past),
            why_not=stop_refusal(past) if is_running else "",
            offer=None if is_running else again_offer(past),
            most=MOST_NOT_DONE,
            most_chars=300,
            states=sorted({item.state for item in items}),
            found=found,
            shown=_page_of(found, number, PAGE_ROWS),
            number=number,
            has_more=len(found) > number * PAGE_ROWS,
        )
        return PageParts(f"{past.row.pipeline}: {name}", body, _LIVE_S if is_running else 0)

    def difference(self, place: str, name: str, query: Query) -> PageParts:
        """Return what a run did otherwise than an earlier one of the same pipeline."""
        after = self.past(place, name)
        earlier = _earlier_runs(after, _MOST_RUNS)
        chosen = query.get("before", earlier[0].row.run if earlier else "")
        before = next((past for past in earlier if past.row.run == chosen), None)
        if before is None:
            raise NotHere("There is no such earlier run of this pipeline.")
        # The difference; the last one is kept while the record is the same.
        key = (str(after.place.state), before.row.run, after.row.run, self._written_at(after))
        known = self._last_difference
        if known is None or known[0] != key:
            known = self._last_difference = key, run_difference(before, after)
        found = known[1]
        kinds = [kind for kind in _CHANGES if found[kind] or kind not in _CHANGE_NOTES]
        shown: ChangeKind = next((kind for kind in kinds if kind == query.get("show")), "changed")
        number = page_number(query)
        body = render(
            "console_difference.html",
            query={**query, "show": shown},
            before=before,
            after=after,
            earlier=earlier[:PAGE_ROWS],
            address=run_path,
            n_alike=len(found["alike"]),
            kinds={kind: f"{_CHANGES[kind]}: {len(found[kind]):,}" for kind in kinds},
            notes=[note for kind, note in _CHANGE_NOTES.items() if found[kind]],
            rows=list(change_rows(_page_of(found[shown], number, _DIFFERENCE_ROWS))),
            number=number,
            has_more=len(found[shown]) > number * _DIFFERENCE_ROWS,
        )
        return PageParts(f"{chosen} and {name}", body)

    def item(self, place: str, name: str, query: Query) -> PageParts:
        """Return an item as it was done last: document, prompts, answers, evidence, decisions."""
        past = self.past(place, name)
        scope, key = query.get("scope", ""), query.get("key", "")
        base = past.place.folder.resolve()
        with open_for_reading(past.place) as ledger:
            items = RecordedItems(ledger, base)
            item = items.item(scope, key)
            entry = item.entry
            if entry is None:
                raise NotHere("There is no such item: later runs redid it, or it was removed.")
            steps = RecordedSteps(ledger, items).of(item)
            answers = reviews_of_item(ledger, item.owner.scope_id, item.key).answers
            shown = item.outputs[:20] if "since" in query else ()
            since = explain_in(ledger, base, [base / path for path in shown])
        source, reads = files_now(item, base, lambda path: sha256_of(Path(path)))
        body = render(
            "console_item.html",
            query=query,
            item=item,
            entry=entry,
            key=item.shown_key,
            address=run_path(past),
            run=f"{RUNS}/{path_id(past.place.state)}/{item.run}",
            review=CONSOLE_PAGES["Review"],
            source=source,
            read=reads,
            base=base,
            file_states=FILE_STATE_TEXT,
            offer=again_offer(past) if entry.state in BAD else None,
            only=next(iter(item.keys), ""),  # what `--only` takes
            answers=answers,
            steps=[step for step in steps if step.calls or step.checks],
            request=lambda call: "\n\n".join(request_lines(call)),
            most=MOST_TEXT_CHARS,
            since=[lineage_text(answer, is_full=False) for answer in since],
        )
        return PageParts(f"{key} of {name}", body)

    def _written_at(self, past: PastRun) -> float:
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
        places = [folder for folder in self.places() if path_id(folder.state) == place]
        found = runs_named(places, name)
        if not found.runs:
            raise NotHere(found.faults[0] if found.faults else f"There is no run '{name}' here.")
        return found.runs[0]


def _earlier_runs(after: PastRun, limit: int) -> Sequence[PastRun]:
    own = LedgerFolder(after.place.state, after.row.file)
    return recent_runs([own], limit=limit, before=after.row.started).runs


def path_id(path: Path) -> str:
    return hashlib.sha256(str(path).encode("utf-8", "replace")).hexdigest()[:12]


def pipeline_address(file: Path) -> str:
    return f"{CONSOLE_PAGES['Pipelines']}/{path_id(file)}"


def run_path(past: PastRun) -> str:
    return f"{RUNS}/{path_id(past.place.state)}/{past.row.run}"


def page_number(query: Query) -> int:
    """Return the number of a page, 1 where it is none.

    >>> page_number({"page": "3"}), page_number({"page": "-1"}), page_number({})
    (3, 1, 1)
    """
    written = query.get("page", "")
    return max(1, int(written)) if written.isdecimal() and len(written) < 7 else 1


def _page_of(found: Sequence[_T], number: int, n_rows: int) -> Sequence[_T]:
    return found[(number - 1) * n_rows : number * n_rows]


def again_offer(past: PastRun) -> tuple[str, list[tuple[str, str, bool]]]:
    """Return why a run cannot be started again, empty where it can be, and its inputs.

    Of each input name, value, and whether its path leads out of the pipeline's folder.
    """
    try:
        file, inputs = recorded_inputs(past, None, {})
        pipeline, base = read_plan(file).pipeline, file.parent
    except (CommandError, PipelineError, OSError) as error:
        return str(error), []
    given = read_inputs(pipeline, inputs, base=base, cwd=base)
    return str(PipelineError(given.faults)) if given.faults else "", [
        (
            name,
            cell_text(value),
            bool(outside_path_faults(pipeline, [name], given.values, base, "")),
        )
        for name, value in inputs.items()
    ]
