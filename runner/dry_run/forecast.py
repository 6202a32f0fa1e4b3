"""What a plan knows so far, over all its pipelines: items, notes, and what a run would cost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct, field
from paddock.runner.core.expected_paths import PossibleOutputs
from paddock.runner.ledger.entries import Entry
from paddock.runner.progress.item_states import WORK
from paddock.runner.progress.plan_report import CallsAre, PlanItem, PlanReport
from paddock.runner.progress.reasons import Outdated

from .call_bounds import NO_CALLS, CallBounds, divide_calls
from .dry_tools import AskedPrompts

if TYPE_CHECKING:
    from paddock.engine.backends.speed_estimates import SpeedBook
    from paddock.runner.core.run_stats import RunStats

MAX_WALK_S = 5.0
"""A plan does not walk longer than that; what is left is bounded by the YAML, or estimated."""
_KEPT_FOR_STEPS_S = 1.0
"""Of that, for top-level steps: by the YAML alone, nothing bounds a `reduce` behind many items."""


class PlanCost(Struct):
    """Model calls and tokens of a run. Tokens become unknown as soon as one part of them is."""

    calls: CallBounds = NO_CALLS
    tokens: float | None = 0
    measured: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By model, the calls whose tokens are known, and these."""

    def add(self, calls: CallBounds, entries: Sequence[Entry], n_items: int) -> None:
        """Add the calls of items; `entries`: of the same ones or others like them."""
        known = [entry for entry in entries if entry.state == "done" and entry.calls]
        n_known_calls = sum(entry.calls for entry in known)
        if calls.n_likely is None and known:
            usual = math.ceil(n_items * n_known_calls / len(known))
            most = divide_calls(max(usual, calls.least.total()), calls.weights)
            calls = CallBounds(most, calls.least, n_extra=calls.n_extra, is_average=True)
        self.calls += calls
        if calls.n_likely == 0:
            return
        if not known:
            self.tokens = None
            return
        tokens_of_call = sum(entry.tokens for entry in known) / n_known_calls
        if self.tokens is not None:
            self.tokens += calls.most.total() * tokens_of_call
        for ref, n in calls.most.items():
            n_calls, n_tokens = self.measured.get(ref, (0, 0.0))
            self.measured[ref] = n_calls + n, n_tokens + n * tokens_of_call

    def seconds(
        self, tokens: int | None, last: dict[str, Any] | None, speeds: SpeedBook | None
    ) -> float | None:
        """Add up what the models' profiles say; as the last run, where one is missing."""
        if not tokens or last is None or not last.get("seconds"):
            return None
        shares = last["tokens"]
        then = shares["prompt"] + shares["completion"]
        if speeds is not None:
            parts = (shares["prompt"], shares["completion"], shares.get("prompt_reused", 0))
            each = list[float | None]()
            for ref, (n_calls, n_tokens) in self.measured.items() if then else ():
                work = speeds.workload(n_calls, *(n_tokens * part / then for part in parts))
                each.append(speeds.seconds(ref, work))
            if None not in each:
                return round(sum(seconds or 0.0 for seconds in each), 1)
        return round(tokens * last["seconds"] / then, 1) if then else None


class PlanForecast(Struct, dict=True):
    fills_stores: bool
    prompts: AskedPrompts
    cost: PlanCost = field(default_factory=PlanCost)
    items: list[PlanItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    outdated_rows: dict[tuple[str, str, str], Outdated] = field(default_factory=dict)
    removed: dict[str, Outdated] = field(default_factory=dict)
    possible: PossibleOutputs = field(default_factory=PossibleOutputs)
    swept: list[Callable[[], None]] = field(default_factory=list)
    """By pipeline, naming what no longer applies: once it is known what may be written."""

    def report(
        self, stats: RunStats, last: dict[str, Any] | None, speeds: SpeedBook | None
    ) -> PlanReport:
        """Return the plan; without figures where it has notes on what is not known.

        `last`: the summary of the last run.
        """
        cost, calls, is_known = self.cost, self.cost.calls, not self.notes
        is_exact = calls.least.total() == calls.n_most
        are: CallsAre = "about" if calls.is_average else "exact" if is_exact else "at most"
        tokens = None if cost.tokens is None or not is_known else math.ceil(cost.tokens)
        is_idle = tokens == 0 and not any(item.state in WORK for item in self.items)
        n_of_model = {r: 0 if r in calls.unbounded else calls.most[r] for r in calls.weights}
        return PlanReport(
            pipeline=stats.pipeline,
            items=tuple(self.items),
            calls=calls.n_most if is_known else None,
            calls_are=are,
            likely_calls=calls.n_likely if is_known else None,
            least_calls=calls.least.total() if is_known else None,
            tokens=tokens,
            loads=len(calls.weights) if is_known else None,
            models=n_of_model if is_known else {},
            least_models=dict(calls.least) if is_known else {},
            seconds=0.0 if is_idle else cost.seconds(tokens, last, speeds),
            notes=tuple(self.notes),
            remarks=(*stats.tally_notes(is_plan=True), *stats.notes),
            outdated=stats.outdated,
            outdated_rows=self.outdated_rows,
            removed=self.removed,
            filed=stats.filed,
            not_taken=stats.not_taken_by_suffix(),
        )

    @cached_property
    def deadline(self) -> float:
        """When the walk ends, by the loop's clock.

        It begins when this is first asked for: to read a folder before takes time.
        """
        return asyncio.get_running_loop().time() + MAX_WALK_S

    @property
    def deadline_of_items(self) -> float:
        return self.deadline - _KEPT_FOR_STEPS_S
