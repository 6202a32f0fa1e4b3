"""Statistics of a run: its notes, progress for the observer, counts for the report.

They belong to the run's event loop.
"""

from __future__ import annotations

import copy
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paddock.engine.system import private_files
from paddock.engine.system.records import asdict, replace
from paddock.engine.system.text import counted, listed
from paddock.runner.config.pipeline_secrets import Secrets
from paddock.runner.progress.events import ModelCall, Observer
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Outdated
from paddock.runner.progress.report import (
    FiledCounts,
    ItemReport,
    Report,
    Status,
    not_taken_in_words,
)
from paddock.runner.progress.report_table import ReportTable
from paddock.runner.progress.time_left import OpenCall, TimeLeft

from .run_records import FiledTotals, StepRecord, StepTotals

TIME_LEFT_EVERY_S = 1.0
"""A step's time to go is reported at most so often."""
MAX_NOTES = 200  # more are only counted: a person reads a few


class RunStats:
    """Statistics of one run; a sub-pipeline has a view of the same ones (`within`)."""

    def __init__(
        self,
        run: str,
        pipeline: str,
        observer: Observer,
        log: Path | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        self.secrets = secrets or Secrets()
        """They are redacted from every text that leaves here."""
        self.run = run
        self.pipeline = pipeline
        self.observer = observer
        self.began = time.monotonic()
        self.began_at = time.time()
        self.counts: Counter[str] = Counter()
        self._log = log
        self._sums: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._items: list[ItemReport] = []
        self._steps: dict[str, StepTotals] = {}
        self._notes: dict[str, None] = {}
        self._tallies: dict[tuple[str, str, str, bool], Counter[str]] = {}
        """(step, noun, what happened, whether a plan knows it) → how often, by item."""
        self.taken: set[str] = set()
        """Files that a step listed or read."""
        self.effect_times: list[tuple[float, float]] = []
        """When steps were at work that do more than read and ask."""
        self.tables: dict[str, ReportTable] | None = None
        """Tables of blocks and steps that have ended; None: no one reads them."""
        self.decided_again: set[tuple[str, str]] = set()
        """Scope and key of items that were done, and on which a person decided otherwise since."""
        self.not_taken: set[str] = set()
        """Files of scanned folders that no pattern of a scan takes."""
        self._written: dict[str, None] = {}
        self._acted: dict[str, None] = {}
        self.outdated: dict[str, Outdated] = {}
        """Outputs that no longer apply and are not removed, each with the reason."""
        self._filed = FiledTotals()
        self._n_filed: Counter[str] = Counter()
        """By block."""
        self._times_left: dict[str, TimeLeft] = {}
        self._time_left_shown_at: dict[str, float] = {}
        self._prefix = ""
        """The steps that lead to this pipeline, each with a dot: `clean.`."""
        self._item: tuple[str, str] | None = None
        """Block and key of the item for which the pipeline runs; its steps are details of that."""
        self._detail = ""
        """The part of `_prefix` that lies within the item."""

    def within(self, step: str, item: tuple[str, str] | None = None) -> RunStats:
        """Return a view for the pipeline that a step runs; it counts into the same totals.

        `item`: block and key of the item for which the step runs, if any.
        """
        view = copy.copy(self)
        view._prefix = f"{self._prefix}{step}."
        if self._item is not None:
            view._detail = f"{self._detail}{step}."
        elif item is not None:
            view._item, view._detail = (f"{self._prefix}{item[0]}", item[1]), f"{step}."
        return view

    # --- notes: shown at once, and in the report

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(self._notes)

    def note(self, text: str) -> None:
        """Show a line, and keep it for the report; each line once."""
        self._note_once(text, self.observer.note)

    def waits(self, text: str) -> None:
        """Show a line on what the run waits for, and keep it as a note."""
        self._note_once(text, self.observer.waits)

    def _note_once(self, text: str, show: Callable[[str], None]) -> None:
        text = self.secrets.redact(text)
        if text in self._notes:
            return
        self._notes[text] = None
        if len(self._notes) <= MAX_NOTES:
            show(text)

    def tally(self, step: str, key: str, noun: str, what: str, *, is_planned: bool = False) -> None:
        """Count what happened to an item in a step; the report has one note for all of them."""
        kind = (f"{self._prefix}{step}", noun, what, is_planned)
        self._tallies.setdefault(kind, Counter())[key] += 1

    def forget_step(self, record: StepRecord, key: str) -> None:
        """Forget what was counted of a step of an item that begins again, except its time."""
        name = f"{self._prefix}{record.id}"
        for (counted_in, *_), keys in self._tallies.items():
            if counted_in == name:
                keys.pop(key, None)
        if record.state != "skipped":
            self._steps[name] = self._steps[name].without(record)

    def tally_notes(self, *, is_plan: bool = False) -> tuple[str, ...]:
        """Show each tally, or those that a plan knows; return them as notes."""
        notes = []
        for (step, noun, what, is_planned), keys in self._tallies.items():
            if not keys or (is_plan and not is_planned):
                continue
            items = f" ({listed(sorted(filter(None, keys)), 3)})" if any(keys) else ""
            text = f"'{step}': {counted(keys.total(), noun)} {what}{items}."
            notes.append(self.secrets.redact(text))
            self.observer.note(notes[-1])
        return tuple(notes)

    def log_unexpected_error(self, where: str, error: BaseException) -> None:
        """Write the traceback of an unexpected error to the run's log."""
        if self._log is None:
            return
        try:
            private_files.private_folder(self._log.parent)
            trace = "".join(traceback.format_exception(error))
            with private_files.open_private(self._log, "a") as file:
                place = self._prefix.replace(".", ": ")
                file.write(self.secrets.redact(f"{place}{where}\n{trace}\n"))
        except OSError as refused:  # the error itself is still reported
            self.note(f"{self._log}: what happened cannot be written ({refused.strerror}).")
            return
        self._sums["tracebacks"] += 1

    # --- shown by the observer while the run goes on

    def show_step(
        self, step: str, total: int | None, fresh: int, sizes: Mapping[str, float] | None = None
    ) -> None:
        """Show how many items a block has and how many are fresh; None: a step outside of blocks.

        `sizes` are those of the items to be done, by key.
        """
        if self._item is None:  # else they are details of one item
            name = f"{self._prefix}{step}"
            if total is not None and total > fresh:
                self._times_left.setdefault(name, TimeLeft()).expect(total - fresh, sizes or {})
            self.observer.step(name, total, fresh)

    def item_state(self, step: str, key: str, state: ItemState, detail: str | None = None) -> None:
        if self._item is None:
            detail = detail and self.secrets.redact(detail)
            name = f"{self._prefix}{step}"
            self.observer.item(name, key, state, detail)
            if state != "running" and name in self._times_left:
                self._times_left[name].end(key)
                self._show_time_left(name)
        elif state == "running":
            self.observer.item(*self._item, state, f"{self._detail}{step}")

    def begin_call(self, step: str, key: str, n_chars: int) -> OpenCall:
        name, key = self._item or (f"{self._prefix}{step}", key)
        return self._times_left.setdefault(name, TimeLeft()).begin_call(key, n_chars)

    def tokens(self, n: int) -> None:
        self.observer.tokens(n)

    def call(self, step: str, key: str, call: ModelCall, open_call: OpenCall | None) -> None:
        """Count and show a call that has ended; `open_call` is from `begin_call`."""
        usage = call.usage
        self._sums["cached_calls" if call.is_cached else "calls"] += 1
        if not call.is_cached:
            self._tokens["prompt"] += usage.prompt_tokens
            self._tokens["prompt_reused"] += usage.prompt_reused_tokens
            self._tokens["completion"] += usage.completion_tokens
        place = self._item or (f"{self._prefix}{step}", key)
        self.observer.call(*place, call)
        if open_call is not None:
            self._times_left[place[0]].answered(open_call, usage)
            self._show_time_left(place[0])

    def _show_time_left(self, name: str) -> None:
        now, left = time.monotonic(), self._times_left.get(name)
        if left is None or now - self._time_left_shown_at.get(name, 0.0) < TIME_LEFT_EVERY_S:
            return
        seconds = left.seconds()
        if seconds is not None:
            self._time_left_shown_at[name] = now
            self.observer.time_left(name, seconds)

    # --- counted for the report

    @property
    def n_tokens(self) -> int:
        return self._tokens["prompt"] + self._tokens["completion"]

    def add_step(self, record: StepRecord) -> None:
        if record.state != "skipped":
            name = f"{self._prefix}{record.id}"
            self._steps[name] = self._steps.get(name, StepTotals()).plus(record)

    def item(self, report: ItemReport) -> None:
        self.counts[report.state.value] += 1
        if self._prefix or report.error:
            error = report.error and self.secrets.redact(report.error)
            report = replace(report, step=f"{self._prefix}{report.step}", error=error)
        self._items.append(report)

    def counts_of(self, step: str) -> Mapping[ItemState, int]:
        name = f"{self._prefix}{step}"
        return Counter(item.state for item in self._items if item.step == name)

    def keep_table(self, step: str, table: ReportTable) -> None:
        if self.tables is not None:
            self.tables[f"{self._prefix}{step}"] = table

    def wrote(self, path: str) -> None:
        self._written[path] = None

    def count_removed(self, n: int) -> None:
        self._sums["removed"] += n

    def add_outdated(self, outdated: Mapping[str, Outdated]) -> None:
        self.outdated.update((self.secrets.redact(path), outdated[path]) for path in outdated)

    def add_filed(self, block: str, documents: FiledTotals) -> None:
        self._filed.add(documents)
        self._n_filed[f"{self._prefix}{block}"] += len(documents.documents)

    @property
    def filed(self) -> FiledCounts:
        return self._filed.counts

    def acted(self, step: str) -> None:
        if self._item is None:
            self._acted[f"{self._prefix}{step}"] = None

    def not_taken_by_suffix(self) -> Mapping[str, int]:
        if self.taken >= self.not_taken:
            return {}
        names = [os.path.basename(path) for path in self.not_taken - self.taken]  # noqa: PTH119
        sums = Counter(os.path.splitext(name)[1].lower().removeprefix(".") for name in names)  # noqa: PTH122
        n_by_suffix = dict(sorted(sums.items()))
        self.observer.note(not_taken_in_words(n_by_suffix))
        return n_by_suffix

    def report(self, status: Status, *, returns: Any = None, message: str | None = None) -> Report:
        """Return the report; a completed run with quarantined items is `quarantined`."""
        if status == "completed" and self.counts[ItemState.QUARANTINED]:
            status = "quarantined"
        steps = {name: asdict(done) for name, done in self._steps.items()}
        order: dict[str, int] = {}
        for item in self._items:
            order.setdefault(item.step, len(order))
            counts = steps.setdefault(item.step, {}).setdefault("counts", {})
            counts[item.state.value] = counts.get(item.state.value, 0) + 1
        for name, n in (+self._n_filed).items():
            steps.setdefault(name, {}).setdefault("counts", {})["filed"] = n
        filed = self.filed
        return Report(
            run=self.run,
            pipeline=self.pipeline,
            status=status,
            counts=dict(self.counts) | ({ItemState.FILED.value: filed.n} if filed.n else {}),
            calls=self._sums["calls"],
            cached_calls=self._sums["cached_calls"],
            tokens=dict(self._tokens),
            seconds=time.monotonic() - self.began,
            items=tuple(sorted(self._items, key=lambda item: (order[item.step], item.key))),
            returns=self.secrets.redacted(returns),
            notes=(*(self.tally_notes() if self._tallies else ()), *self._notes),
            not_taken=self.not_taken_by_suffix(),
            written=tuple(self._written),
            n_removed=self._sums["removed"],
            acted=tuple(self._acted),
            filed=filed,
            outdated=self.outdated,
            message=message and self.secrets.redact(message),
            log=str(self._log) if self._sums["tracebacks"] else None,
            steps=steps,
            tables=dict(sorted((self.tables or {}).items())),  # blocks end in any order
        )
