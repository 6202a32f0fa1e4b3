"""Answers of a larger model where a step's own is not sure enough (`escalate`), asked in passes.

The larger model's calls of a block are collected, so that each model is loaded once where memory
holds one of them alone. The first pass over the items asks their steps' own models; an item that
has to ask a larger one is put off. The second pass asks for what was put off, and puts off what
other models are asked behind that, and so on. An item that was put off begins again: what it asked
before is in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from paddock.engine.system.item_samples import SEED, draw
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import one_line
from paddock.pipelines.expressions import Expression
from paddock.runner.bind.answer_names import review_names
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundStep
from paddock.runner.bind.plan_walks import all_steps, only_reads
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.reviews.asked_before import is_same_value
from paddock.steps.base import StepLog

from .calls.recorded_calls import CallOrigin, PutOff
from .reviews.review_questions import MOST_REASON_CHARS, due_reasons, parts_that_hold
from .run_records import answer_of

_MOST_PASSES = 40
"""A prompt that is another one each time would be put off for ever."""
FAILED_CHECKS = "its answer failed its checks"
CHECK = "a random check"


class EscalationPass(Struct, frozen=True):
    collected: frozenset[str] = frozenset()
    """Steps whose escalations wait for the second pass."""
    interrupted: frozenset[str] = frozenset()
    """Steps of these, behind which other models are asked."""
    number: int = 0

    @classmethod
    def first_pass(cls, body: Iterable[BoundNode]) -> EscalationPass:
        """Return the first pass over the items of a top-level block.

        An item that would repeat a change, or a call that is not looked up, is not put off; nor
        one with items or a pipeline of its own before the step, which would count these again.
        """
        nodes, is_repeatable = list(body), True
        collected, interrupted = set[str](), set[str]()
        for at, step in enumerate(nodes):
            if isinstance(step, BoundBlock) or step.inner is not None:
                break
            if step.escalate is not None and step.cache and is_repeatable:
                collected.add(step.id)
                to = step.escalate.to
                behind = [spec for later in all_steps(nodes[at + 1 :]) for spec in later.models]
                if any(spec.key != to.key for spec in behind):
                    interrupted.add(step.id)
            is_repeatable &= only_reads(step) and (step.cache or not step.kind.roles)
        return cls(frozenset(collected), frozenset(interrupted))

    def next(self) -> EscalationPass:
        return replace(self, number=self.number + 1)

    @contextmanager
    def defer_calls(self, caller: CallOrigin, step: str) -> Iterator[None]:
        """Put off what another pass asks: the calls of a larger model, or what is behind them.

        Raises:
            PutOff: the item is done in the next pass.
        """
        is_first = self.number % 2 == 0 and self.number < _MOST_PASSES
        caller.may_ask, n_before = not (is_first and step in self.collected), caller.n_new_calls
        try:
            yield
        finally:
            caller.may_ask = True
        if caller.n_new_calls > n_before and step in self.interrupted and self.number % 2 == 1:
            raise PutOff


class Escalated(Struct, frozen=True):
    """Why a larger model is asked, and what was said before."""

    alias: str
    why: tuple[str, ...]
    condition: str
    """The first part of `when` that holds, which many have in common; empty: it always does."""
    was: Any
    """The answer of the step's own model; None where it has none."""
    is_check: bool = False
    """It is asked at random, as a check of answers that are not escalated."""

    def is_changed(self, outputs: Mapping[str, Any]) -> bool:
        return not is_same_value(self.was, answer_of(outputs))

    def outputs(self, log: StepLog, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the larger model's outputs with their origin; count them in the run's notes."""
        since = f", since {self.condition}" if self.condition else ""
        log.tally(
            "answer",
            f"asked of '{self.alias}' as well, as {CHECK}"
            if self.is_check
            else f"escalated to '{self.alias}'{since}",
        )
        if self.is_changed(outputs):
            of_check = f" in {CHECK}" if self.is_check else ""
            log.tally("answer", f"changed by '{self.alias}'{of_check}")
        return {**outputs, "escalated": self.origin}

    @property
    def origin(self) -> dict[str, Any]:
        return {"to": self.alias, "why": [*self.why], "was": self.was}


def escalation_reason(
    step: BoundStep, scope: Scope, item: str, outputs: Mapping[str, Any] | None
) -> Escalated | None:
    """Return why a step's answer is escalated; None: it is not. `outputs` None: it failed.

    Raises:
        ExpressionError: `when` cannot be evaluated.
    """
    assert step.escalate is not None
    spec = step.escalate.spec
    if outputs is None:
        return Escalated(spec.to, (FAILED_CHECKS,), FAILED_CHECKS, None)
    names = {**scope, **review_names(outputs)}
    was = answer_of(outputs)
    if spec.when.evaluate(names):
        why = tuple(due_reasons(spec.when, names, outputs))
        true_parts = [p for p in parts_that_hold(spec.when, names) if Expression.of(p).references]
        condition = one_line(true_parts[0], MOST_REASON_CHARS) if true_parts else ""
        return Escalated(spec.to, why, condition, was)
    is_drawn = draw(SEED, f"escalate\n{step.id}\n{item}") < (spec.also or 0)
    return Escalated(spec.to, (CHECK,), CHECK, was, is_check=True) if is_drawn else None
