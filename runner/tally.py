"""What a run has done so far, told to the observer while it goes, and the report at its end.

Lives in the run's event loop; knows no ledger.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from paddock.engine.request import Usage
from paddock.engine.system import private

from .made import StepMade, StepSum
from .observer import ItemState, Observer
from .report import ItemReport, Report, Status
from .secrets import Secrets

MOST_NOTES = 200  # a note for each of 10,000 documents helps nobody; the rest are counted


class Tally:
    """The one place where a run's numbers meet."""

    def __init__(
        self,
        run: str,
        pipeline: str,
        observer: Observer,
        log: Path | None = None,
        secrets: Secrets | None = None,
    ) -> None:
        self.secrets = secrets or Secrets()
        """What no text that leaves here may hold."""
        self.run = run
        self.pipeline = pipeline
        self.observer = observer
        self.began = time.monotonic()
        self.calls = 0
        self.cached_calls = 0
        self.counts: Counter[str] = Counter()
        self._log = log
        self._has_log = False
        self._tokens: Counter[str] = Counter()
        self._items: list[ItemReport] = []
        self._steps: dict[str, StepSum] = {}
        self._notes: dict[str, None] = {}
        self._written: dict[str, None] = {}
        self._n_removed = 0
        self._acted: dict[str, None] = {}

    @property
    def n_tokens(self) -> int:
        """How many tokens the run has spent, of prompts and answers."""
        return self._tokens["prompt"] + self._tokens["completion"]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was noted so far."""
        return tuple(self._notes)

    def note(self, text: str) -> None:
        """Show one line and keep it for the report; the same line once."""
        text = self.secrets.redact(text)
        if text in self._notes:
            return
        self._notes[text] = None
        if len(self._notes) <= MOST_NOTES:
            self.observer.note(text)

    def call(self, step: str, key: str, usage: Usage, *, is_cached: bool) -> None:
        """Count a model call."""
        if is_cached:
            self.cached_calls += 1
        else:
            self.calls += 1
            self._tokens["prompt"] += usage.prompt_tokens
            self._tokens["prompt_reused"] += usage.prompt_reused_tokens
            self._tokens["completion"] += usage.completion_tokens
        self.observer.call(step, key, usage, is_cached)

    def took(self, made: StepMade) -> None:
        """Add up what a step has done, for one item or alone; one that is skipped did nothing."""
        if made.state == "skipped":
            return
        was = self._steps.get(made.id, StepSum())
        self._steps[made.id] = was.plus(made)

    def item(self, report: ItemReport) -> None:
        """Keep how an item ended."""
        self.counts[report.state] += 1
        if report.error is not None:
            report = replace(report, error=self.secrets.redact(report.error))
        self._items.append(report)

    def tell(self, step: str, key: str, state: ItemState, detail: str | None = None) -> None:
        """Tell the observer that an item changed its state."""
        self.observer.item(step, key, state, detail and self.secrets.redact(detail))

    def wrote(self, path: str) -> None:
        """Keep the name of a file that was made or changed."""
        self._written[path] = None

    def removed(self, n: int) -> None:
        """Count outputs that were removed."""
        self._n_removed += n

    def acted(self, step: str) -> None:
        """Keep that a step outside of blocks may have changed something."""
        self._acted[step] = None

    def unexpected(self, where: str, error: BaseException) -> None:
        """Keep the traceback of an error that nobody foresaw in the run's log."""
        if self._log is None:
            return
        try:
            private.folder(self._log.parent)
            trace = "".join(traceback.format_exception(error))
            with private.opened(self._log, "a") as file:
                file.write(self.secrets.redact(f"{where}\n{trace}\n"))
        except OSError as refused:  # the error itself is told all the same
            self.note(f"{self._log}: what happened cannot be written ({refused.strerror}).")
            return
        self._has_log = True

    def _in_order(self) -> tuple[ItemReport, ...]:
        """Give the items by step and key, whatever ended first."""
        steps = {
            step: place for place, step in enumerate(dict.fromkeys(i.step for i in self._items))
        }
        return tuple(sorted(self._items, key=lambda item: (steps[item.step], item.key)))

    def report(
        self,
        status: Status,
        *,
        returns: Any = None,
        message: str | None = None,
        models: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Report:
        """Give the report; a completed run with quarantined items is `quarantined`."""
        if status == "completed" and self.counts["quarantined"]:
            status = "quarantined"
        return Report(
            run=self.run,
            pipeline=self.pipeline,
            status=status,
            counts=dict(self.counts),
            calls=self.calls,
            cached_calls=self.cached_calls,
            tokens=dict(self._tokens),
            models=models or {},
            seconds=time.monotonic() - self.began,
            items=self._in_order(),
            returns=self.secrets.redacted(returns),
            notes=tuple(self._notes),
            written=tuple(self._written),
            n_removed=self._n_removed,
            acted=tuple(self._acted),
            message=message and self.secrets.redact(message),
            log=str(self._log) if self._has_log else None,
            steps=self._by_step(),
        )

    def _by_step(self) -> dict[str, dict[str, Any]]:
        """Give what each step or block has done, by its id."""
        found = {name: asdict(done) for name, done in self._steps.items()}
        for item in self._items:
            counts = found.setdefault(item.step, {}).setdefault("counts", {})
            counts[item.state] = counts.get(item.state, 0) + 1
        return found
