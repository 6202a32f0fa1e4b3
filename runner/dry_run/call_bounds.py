"""Bounds of how many calls are made of each model; those of a step by the YAML alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from paddock.engine.system.records import Struct, field, replace
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundStep
from paddock.runner.bind.plan_walks import all_steps
from paddock.runner.core.failures import Cause, max_retries


class CallBounds(Struct, frozen=True):
    """How many calls are made of each model, at most and at least."""

    most: Counter[str] = field(default_factory=Counter)
    """Without those of `unbounded`."""
    least: Counter[str] = field(default_factory=Counter)
    unbounded: Counter[str] = field(default_factory=Counter)
    """By model, how many steps ask it that have no bound."""
    n_extra: int = 0
    """At most so many more, where answers fail checks, are cut off, or are not as expected."""
    is_average: bool = False
    """Whether some are what other items take, on average."""

    @property
    def n_likely(self) -> int | None:
        """How many are made at most, without `n_extra`; None: nothing bounds them."""
        return None if self.unbounded else self.most.total()

    @property
    def n_most(self) -> int | None:
        return None if self.unbounded else self.most.total() + self.n_extra

    @property
    def weights(self) -> Counter[str]:
        """By model, calls of `most`, and one for each step without a bound: to divide calls by."""
        return self.most + self.unbounded

    def __add__(self, other: CallBounds) -> CallBounds:
        if other is NO_CALLS or self is NO_CALLS:  # most steps make none
            return self if other is NO_CALLS else other
        return CallBounds(
            self.most + other.most,
            self.least + other.least,
            self.unbounded + other.unbounded,
            self.n_extra + other.n_extra,
            self.is_average or other.is_average,
        )

    def of_items(self, n_items: int) -> CallBounds:
        if not n_items:
            return NO_CALLS
        most = Counter({ref: n * n_items for ref, n in self.most.items()})
        return CallBounds(most, unbounded=self.unbounded, n_extra=self.n_extra * n_items)

    def scaled(self, share: float) -> CallBounds:
        """Return the bounds for `share` times as many items, if these are average."""
        most = divide_calls(math.ceil(self.most.total() * share), self.most)
        return CallBounds(most, n_extra=math.ceil(self.n_extra * share), is_average=True)

    def at_most(self) -> CallBounds:
        return replace(self, least=Counter()) if self.least else self


NO_CALLS = CallBounds()


def divide_calls(n_calls: int, weights: Counter[str]) -> Counter[str]:
    """Divide so many calls among models, in the proportion of others.

    >>> divide_calls(7, Counter({"writer": 2, "vec": 1}))
    Counter({'writer': 5, 'vec': 2})
    """
    if not (n_calls and weights):
        return Counter()
    parts = Counter({ref: n * n_calls // weights.total() for ref, n in weights.items()})
    parts[next(iter(weights))] += n_calls - parts.total()
    return +parts


def between_lengths(shortest: CallBounds, longest: CallBounds) -> CallBounds:
    most = divide_calls(
        max(shortest.most.total(), longest.most.total()), shortest.most | longest.most
    )
    return CallBounds(
        most,
        shortest.least & longest.least,
        shortest.unbounded | longest.unbounded,
        max(shortest.n_extra, longest.n_extra),
    )


# --- by the YAML alone


def calls_of_body(body: Iterable[BoundNode]) -> CallBounds:
    calls = (calls_of_many(n.body) if isinstance(n, BoundBlock) else calls_of_step(n) for n in body)
    return sum(calls, NO_CALLS)


def calls_of_many(body: Iterable[BoundNode]) -> CallBounds:
    return CallBounds(unbounded=models_of(*(step for step in all_steps(body) if step.kind.roles)))


def models_of(*steps: BoundStep) -> Counter[str]:
    return Counter(spec.ref for step in steps for spec in step.models)


def calls_of_step(step: BoundStep) -> CallBounds:
    if step.inner is not None:
        return calls_of_body(step.inner.nodes)
    if not step.kind.roles:
        return NO_CALLS
    most = step.facts.calls.most(step.written, step.reply is not None)
    if most is None or any(choice.keys.narrow for choice in step.choices):
        return CallBounds(unbounded=models_of(step))  # that depends on texts, or on labels
    return with_repairs(step, CallBounds(divide_calls(most, models_of(step))))


def with_repairs(step: BoundStep, calls: CallBounds, *, is_local: bool = False) -> CallBounds:
    """Add what checks may cost: an answer that does not pass them is asked for again.

    `is_local`: models of no pool are served on this machine, where they cannot leave a form.
    """
    if not calls.n_likely:
        return calls
    most = calls.n_likely
    is_held = is_local and step.model is not None and not step.model.pool
    if step.reply is not None and (step.reply.checks or not is_held):
        most += step.reply.repair * (most if step.facts.calls.tree else 1)
    of_model = step.model.params if step.model else {}
    n_again = step.facts.calls.most_repeats(step.written, of_model)
    most *= (1 + max_retries(step.retry, Cause.CHECK)) * (1 + n_again)
    return replace(calls, n_extra=max(calls.n_extra, most - calls.n_likely))
