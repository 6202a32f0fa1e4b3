"""What a run would cost: bounds of its model calls by kinds of steps; tokens and seconds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from paddock.runner.answers.offered_labels import choices_of
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundStep
from paddock.runner.bind.plan_walks import all_steps
from paddock.runner.core.failures import Cause, max_retries
from paddock.runner.ledger.entries import Entry
from paddock.runner.progress.item_states import WORK
from paddock.runner.progress.report import CallsAre, PlanReport

if TYPE_CHECKING:
    from paddock.engine.backends.speed_estimates import SpeedBook
    from paddock.engine.profile.context_layout import Workload


@dataclass(frozen=True, slots=True)
class CallBounds:
    """How many calls are made: exactly so many, or at most; `most` None: no bound is known."""

    most: int | None = 0
    repairs: int = 0
    """At most so many more, where answers fail their checks or are cut off."""
    weights: Counter[str] = field(default_factory=Counter)
    """By model: its part of `most`; only a weight as soon as a part of the sum is not bounded."""
    sure: Counter[str] = field(default_factory=Counter)
    """By model: the calls that are made in any case."""
    is_estimate: bool = False
    """Whether some are what other items take, on average."""

    @classmethod
    def divided(cls, most: int | None, weights: Counter[str], sure: Iterable[str] = ()) -> Self:
        """Return so many calls, divided among models."""
        parts = Counter[str]() if most == 0 else weights
        if most and weights:
            parts = Counter({ref: n * most // weights.total() for ref, n in weights.items()})
            parts[next(iter(weights))] += most - parts.total()
        return cls(most, weights=parts, sure=Counter(sure))

    @property
    def least(self) -> int:
        return self.sure.total()

    def __add__(self, other: CallBounds) -> CallBounds:
        if other is NO_CALLS or self is NO_CALLS:  # most steps make none
            return self if other is NO_CALLS else other
        return CallBounds(
            None if self.most is None or other.most is None else self.most + other.most,
            self.repairs + other.repairs,
            self.weights + other.weights,
            self.sure + other.sure,
            self.is_estimate or other.is_estimate,
        )

    def of_items(self, n_items: int) -> CallBounds:
        """Return the calls at most of so many items, each like this one."""
        if not n_items:
            return NO_CALLS
        most = None if self.most is None else self.most * n_items
        return replace(self.divided(most, self.weights), repairs=self.repairs * n_items)

    def estimate(self, share: float) -> CallBounds:
        """Return what `share` times as many items take, if they are like these on average."""
        calls = self.divided(math.ceil((self.most or 0) * share), self.weights)
        return replace(calls, repairs=math.ceil(self.repairs * share), is_estimate=True)

    def at_most(self) -> CallBounds:
        """Return the calls of something that may not be done."""
        return replace(self, sure=Counter()) if self.sure else self


NO_CALLS = CallBounds()


def calls_of_body(body: Iterable[BoundNode]) -> CallBounds:
    """Return the calls of the steps of an item, as far as the YAML alone bounds them."""
    total = NO_CALLS
    for node in body:
        total += calls_of_many(node.body) if isinstance(node, BoundBlock) else calls_of_step(node)
    return total


def calls_of_many(body: Iterable[BoundNode]) -> CallBounds:
    """Return the calls of a body that runs for an unknown number of items."""
    asking = (step for step in all_steps(body) if step.kind.roles)
    weights = Counter(spec.ref for step in asking for spec in step.models)
    return CallBounds(None, weights=weights) if weights else NO_CALLS


def models_of(step: BoundStep) -> Counter[str]:
    return Counter(spec.ref for spec in step.models)


def calls_of_step(step: BoundStep) -> CallBounds:
    if step.inner is not None:
        return calls_of_body(step.inner.nodes)
    if not step.kind.roles:
        return NO_CALLS
    if any(choice.keys.narrow for choice in choices_of(step)):
        return CallBounds(None, weights=models_of(step))  # the labels are embedded, maybe many
    most = step.facts.most_calls(step.written, step.reply is not None)
    return with_repairs(step, CallBounds.divided(most, models_of(step)))


def with_repairs(step: BoundStep, calls: CallBounds, *, holds_forms: bool = False) -> CallBounds:
    """Add what checks may cost: an answer that does not pass them is asked for again.

    `holds_forms`: the model is served on this machine, where it cannot leave a form.
    """
    if not calls.most:
        return calls
    most = calls.most
    is_held = holds_forms and step.model is not None and not step.model.pool
    if step.reply is not None and (step.reply.checks or not is_held):
        most += step.reply.repair * (most if step.facts.tree else 1)
    of_model = step.model.params if step.model else {}
    n_again = step.facts.most_repeats(step.written, of_model)
    most *= (1 + max_retries(step.retry, Cause.CHECK)) * (1 + n_again)
    return replace(calls, repairs=most - calls.most)


def between_lengths(shortest: CallBounds, longest: CallBounds) -> CallBounds:
    """Bound what depends on how long answers are."""
    is_bounded = shortest.most is not None and longest.most is not None
    most = max(shortest.most or 0, longest.most or 0) if is_bounded else None
    calls = CallBounds.divided(most, shortest.weights | longest.weights)
    repairs = max(shortest.repairs, longest.repairs)
    return replace(calls, repairs=repairs, sure=shortest.sure & longest.sure)


@dataclass(slots=True)
class _ModelTokens:
    n_calls: float = 0.0
    n_tokens: float = 0.0


@dataclass
class PlanCost:
    """Tokens become unknown as soon as one part of them is."""

    calls: CallBounds = NO_CALLS
    tokens: float | None = 0
    calls_by_model: dict[str, float] = field(default_factory=dict)
    """As far as they are bounded."""
    measured_by_model: dict[str, _ModelTokens] = field(default_factory=dict)
    """Of the calls whose tokens are known."""
    are_all_of_models: bool = True
    """Whether all calls with known tokens are among those."""

    def add(self, calls: CallBounds, entries: Sequence[Entry], n_items: int) -> None:
        """Add the calls of items; `entries`: of the same ones or others like them."""
        known = [entry for entry in entries if entry.state == "done" and entry.calls]
        n_calls = sum(entry.calls for entry in known)
        if calls.most is None and known:
            usual = math.ceil(n_items * n_calls / len(known))
            calls = replace(calls, most=max(usual, calls.least), is_estimate=True)
        self.calls += calls
        if calls.most == 0:
            return
        most, tokens = calls.most or 0, None
        if known:
            tokens = most * sum(entry.tokens for entry in known) / n_calls
        self.tokens = None if self.tokens is None or tokens is None else self.tokens + tokens
        self.are_all_of_models &= bool(calls.weights)
        for ref, n in calls.weights.items():
            share = n / calls.weights.total()
            self.calls_by_model[ref] = self.calls_by_model.get(ref, 0.0) + share * most
            if tokens is not None:
                measured = self.measured_by_model.setdefault(ref, _ModelTokens())
                measured.n_calls += share * most
                measured.n_tokens += share * tokens

    def in_report(
        self, report: PlanReport, last: dict[str, Any] | None, speeds: SpeedBook | None
    ) -> PlanReport:
        """Return a report with its figures; none where it has `notes` on what is not known.

        `last`: the summary of the last run.
        """
        calls, most, advice = self.calls, self.calls.most, tuple[str, ...]()
        if speeds is not None:
            known = dict(self._workloads(speeds, last))
            gains = (speeds.gain(ref, known.get(ref)) for ref in sorted(self.calls_by_model))
            advice = tuple(gain.sentence() for gain in gains if gain is not None)
        most_with_repairs = None if most is None else most + calls.repairs
        is_exact = calls.least == most_with_repairs
        are: CallsAre = "about" if calls.is_estimate else "exact" if is_exact else "at most"
        report = replace(report, calls_are=are, advice=advice)
        if report.notes:
            return report
        tokens = None if self.tokens is None else math.ceil(self.tokens)
        is_idle = not any(item.state in WORK for item in report.items)
        return replace(
            report,
            calls=most_with_repairs,
            likely_calls=most,
            least_calls=calls.least,
            tokens=tokens,
            seconds=0.0 if tokens == 0 and is_idle else self._seconds(tokens, last, speeds),
            loads=len(self.calls_by_model),
            models={ref: round(n) for ref, n in self.calls_by_model.items()},
            least_models=dict(calls.sure),
        )

    def _seconds(
        self, tokens: int | None, last: dict[str, Any] | None, speeds: SpeedBook | None
    ) -> float | None:
        """Add up what the models' profiles say; as the last run, where one is missing."""
        if not tokens or last is None or not last.get("seconds"):
            return None
        if speeds is not None and self.are_all_of_models:
            each = [speeds.seconds(ref, work) for ref, work in self._workloads(speeds, last)]
            if None not in each:
                return round(sum(seconds or 0.0 for seconds in each), 1)
        then = last["tokens"]["prompt"] + last["tokens"]["completion"]
        return round(tokens * last["seconds"] / then, 1) if then else None

    def _workloads(
        self, speeds: SpeedBook, last: dict[str, Any] | None
    ) -> Iterator[tuple[str, Workload]]:
        """Divide each model's tokens as the last run's were: read, shared, written."""
        shares = last["tokens"] if last is not None else {}
        then = shares.get("prompt", 0) + shares.get("completion", 0)
        for ref, measured in self.measured_by_model.items():
            if not then or not measured.n_calls:
                continue
            read, written = shares["prompt"] / then, shares["completion"] / then
            reused = shares.get("prompt_reused", 0) / then
            tokens = (measured.n_tokens * share for share in (read, written, reused))
            yield ref, speeds.workload(measured.n_calls, *tokens)
