"""Items and calls of one run, read from the ledger and the journal.

The ledger has the latest state of each item. Items that later runs redid are read from the journal,
if it still exists.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

from paddock.engine.system.records import Struct, astuple, field
from paddock.runner.core.run_records import CallRecord, Lineage, read_lineage
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import ItemRow, LineageRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.run_history import PastRun, open_for_reading
from paddock.runner.ledger.run_store import DIED, RunStore
from paddock.runner.progress.item_states import BAD, STORED, WORK, ItemState
from paddock.runner.progress.journal import JournalTail
from paddock.runner.render.reviewed_answers import ReviewRecord

TOOL_KIND = "tool"


class RunItem(Struct, frozen=True):
    step: str
    key: str
    state: str
    """`new`, `changed`, `stale`, `held`, `deleted`, `skipped`, `failed`, `quarantined` or
    `waiting`; `done` for one of the first three if only the journal has it."""
    began: float | None = None
    """Seconds since the run began; None if not recorded."""
    seconds: float = 0.0
    calls: int = 0
    prompt: int = 0
    completion: int = 0
    error: str | None = None
    source: str | None = None
    """Absolute path of the document."""
    outputs: tuple[str, ...] = ()
    later: tuple[str, str] | None = None
    """The latest run that redid it, and the state there."""
    place: tuple[str, str] | None = None
    """Its scope and key in the ledger; None if only the journal has it, or its document is gone."""

    @property
    def is_bad(self) -> bool:
        return self.state in BAD


class RunCall(CallRecord, frozen=True, kw_only=True):
    step: str
    model: str


class RunDetails(Struct, frozen=True):
    past: PastRun
    items: tuple[RunItem, ...]
    calls: tuple[RunCall, ...]
    seconds: float
    """From its beginning to its end, or to the last recorded event."""
    n_taken_over: int
    """Items that later runs redid and that are not in the journal."""
    reviewed: ReviewRecord = field(default_factory=ReviewRecord)
    known: tuple[RunItem, ...] = ()
    """Items that earlier runs quarantined and this one did not try."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Items by state, from the run's report, else from the ledger."""
        counts = self.past.summary.get("counts")
        if isinstance(counts, dict):
            return {name: n for name, n in counts.items() if n}
        return Counter(item.state for item in self.items)

    @property
    def sums(self) -> Mapping[str, int]:
        """Model calls and tokens, from the run's report, else from the ledger."""
        summary = self.past.summary
        tokens = summary.get("tokens")
        if isinstance(tokens, dict):
            n_cached = summary.get("cached_calls", 0)
            found = {"calls": summary.get("calls", 0), "known calls": n_cached}
            return found | {words: tokens.get(name, 0) for name, words in _TOKEN_NOTES.items()}
        model_calls = [call for call in self.calls if call.kind != TOOL_KIND]
        new = [call for call in model_calls if not call.is_known]
        sums = (sum(getattr(call, n) for call in new) for n in ("prompt", "reused", "completion"))
        found = {"calls": len(new), "known calls": len(model_calls) - len(new)}
        return found | dict(zip(_TOKEN_NOTES.values(), sums, strict=True))


def read_run_details(past: PastRun, *, with_calls: bool = True) -> RunDetails:
    """Read the items and calls of a run.

    Without calls, items lack documents and tokens: of 10,000 items it takes a third of the time.
    """
    rows = _RunRows.read(past, with_calls=with_calls)
    began, base = past.row.started, past.place.folder.resolve()
    # By their place; one that was renamed under its new name only
    made = {place: read_lineage(row) for place, row in rows.lineage.items()}
    renamed = {(scope, of_item.renamed_from) for (scope, _), of_item in made.items()}
    items = []
    for place, row in rows.items.items():
        outer = rows.outers.get(row.scope, "")
        if place in renamed:
            continue
        if row.entry.gone == past.row.run:
            items.append(RunItem(row.step, f"{outer}{row.entry.key}", "deleted"))
        else:
            items.append(_run_item(row, made.get(place), outer, began, base))
    listed = {(item.step, item.key) for item in items}
    unlisted = {place: item for place, item in rows.latest.items() if place not in listed}
    items += _items_of_journal(past, unlisted, base)
    items.sort(key=lambda item: (item.began is None, item.began or 0.0, item.step, item.key))
    calls = [
        RunCall(*astuple(call), step=step.id, model=step.model or "")
        for of_item in (made.values() if with_calls else ())
        for step in of_item.steps
        for call in step.calls
    ]
    counts = past.summary.get("counts") or {}
    n_done: int = sum(counts.get(state, 0) for state in WORK)
    n_taken = max(0, n_done - sum(item.state in (*WORK, ItemState.DONE) for item in items))
    if past.row.ended is not None:
        ends = [past.row.ended - began]
    else:  # until its last call or item
        ends = [call.began + call.seconds - began for call in calls]
        ends += [item.began + item.seconds for item in items if item.began is not None]
    return RunDetails(
        past,
        tuple(items),
        tuple(calls),
        max([*ends, 0.001]),
        n_taken,
        known=tuple(
            _run_item(row, None, rows.outers.get(row.scope, ""), began, base)
            for row in rows.known
            if past.summary.get("quarantine", {}).get("known")
        ),
    )


_Place = tuple[str, str]
_LatestItems = Mapping[tuple[str, str], tuple[str, str, str | None]]
"""Step and key → the latest run, the state there, the source."""


class _RunRows(Struct, frozen=True):
    items: Mapping[_Place, ItemRow]
    lineage: Mapping[_Place, LineageRow]
    """Empty where it is not needed."""
    outers: Mapping[str, str]
    latest: _LatestItems
    """Items that other runs did last."""
    known: Sequence[ItemRow]

    @classmethod
    def read(cls, past: PastRun, *, with_calls: bool) -> _RunRows:
        run, file = past.row.run, past.row.file
        with open_for_reading(past.place) as ledger:
            store = RunStore(ledger)
            items = {(row.scope, row.entry.key): row for row in store.items_of(run)}
            is_needed = with_calls or (
                past.status == DIED or any(row.entry.gone == run for row in items.values())
            )
            made = LineageStore(ledger).of_run(run) if is_needed else ()
            lineage = {(row.scope, row.key): row for row in made}
            outers = outer_keys(ledger)
            others = ledger.rows(queries.ITEMS_OF_OTHER_RUNS, file=file, run=run)
            latest: _LatestItems = {
                (step, f"{outers.get(scope, '')}{key}"): (
                    other,
                    "deleted" if gone == other else _shown_state(state, was),
                    source,
                )
                for scope, step, key, other, state, was, gone, source in others
            }
            known = tuple(store.items_of(run, quarantined_before=file))
        return cls(items, lineage, outers, latest, known)


_TOKEN_NOTES = {
    "prompt": "tokens read", "prompt_reused": "of them reused", "completion": "tokens written",
}  # fmt: skip


def outer_keys(ledger: Ledger) -> dict[str, str]:
    """Return the key prefix of items in nested blocks, by scope."""
    found = {}
    for scope, _, _, inputs in ledger.rows(queries.SCOPES):
        outer = [key for key in json.loads(inputs) if isinstance(key, str)]
        if outer:
            found[scope] = "".join(f"{key}/" for key in outer)
    return found


def _items_of_journal(past: PastRun, latest: _LatestItems, base: Path) -> Iterator[RunItem]:
    if not latest:
        return
    ended: dict[tuple[str, str], dict[str, Any]] = {}
    for line in JournalTail(past.journal).new_lines():
        if line.get("event") == "item" and line.get("state") in STORED:
            ended[line["step"], line.get("key", line["step"])] = line
    for place in ended.keys() & latest.keys():
        run, state, source = latest[place]
        line = ended[place]
        seconds = float(line.get("seconds", 0.0))
        at = datetime.fromisoformat(line["time"]).timestamp()
        yield RunItem(
            step=place[0],
            key=place[1],
            state=line["state"],
            began=max(0.0, at - seconds - past.row.started),
            seconds=seconds,
            calls=int(line.get("calls", 0)),
            error=line.get("error"),
            source=None if source is None else str(base / source),
            later=(run, state),
        )


def _shown_state(state: str, was: str | None) -> str:
    return (was or "new") if state == "done" else state


def _run_item(
    row: ItemRow, lineage: Lineage | None, outer: str, began: float, base: Path
) -> RunItem:
    entry = row.entry
    source, steps = (lineage.source, lineage.steps) if lineage is not None else (None, ())
    calls = [call for step in steps for call in step.calls if call.kind != TOOL_KIND]
    new = [call for call in calls if not call.is_known]
    first_s = min((step.began - began for step in steps), default=None)
    return RunItem(
        step=row.step,
        key=f"{outer}{entry.key}",
        state=_shown_state(entry.state, entry.was),
        began=None if first_s is None else max(0.0, first_s),
        seconds=entry.seconds,
        calls=len(new) if lineage is not None else entry.calls,
        prompt=sum(map(attrgetter("prompt"), new)),
        completion=sum(map(attrgetter("completion"), new)),
        error=entry.error,
        source=None if source is None else str(base / source.path),
        outputs=tuple(str(base / output) for output in entry.output_paths),
        place=(row.scope, entry.key),
    )
