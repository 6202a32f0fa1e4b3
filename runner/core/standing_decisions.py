"""Decisions that stand: what a person decided on a document counts, for the field, until undone.

Whatever words, lists, e-invoices or another prompt or model can read of the document later: no
model is asked again for an answer of which each field stands, and no step that it was behind
is skipped by what other steps read. What the item is, inputs, and other decisions skip it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct
from paddock.pipelines.expressions import steps_read
from paddock.pipelines.label_choices import schema_with_labels
from paddock.pipelines.schema_validation import value_faults
from paddock.runner.bind.bound import BoundNode, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.reviews.reviews import Review

from .failures import RunStopped

if TYPE_CHECKING:
    from .item_attempt import ItemAttempt, StepAttempt
    from .reviews.run_reviews import RunReviews


class Standing(Struct, frozen=True):
    """The fields of a decided answer that are valid by what the step asks for now."""

    review: Review
    value: Any
    is_whole: bool
    """Whether nothing is left to ask."""

    @property
    def fields(self) -> Mapping[str, Any]:
        return self.value if isinstance(self.value, Mapping) else {}

    def over(self, answer: Any) -> Any:
        return self.value if self.is_whole else {**answer, **self.value}


async def note_reviews(
    reviews: RunReviews, attempt: ItemAttempt, body: Iterable[BoundNode], scope: Scope
) -> None:
    """Note what was asked about the steps of an item, and which steps decisions hold up."""
    nodes = {node.id: node for node in body}
    reviewed = [n for n in nodes.values() if isinstance(n, BoundStep) and n.review is not None]
    for step in reviewed:
        for key in filter(None, (attempt.key, attempt.renamed_from)):
            try:
                review = await reviews.at(attempt.scope_id, key, step.id)
            except LedgerError as error:
                raise RunStopped(str(error)) from error
            if review is not None:
                attempt.reviews[step.id] = review
                break
    decided = [id_ for id_, review in attempt.reviews.items() if _counts(review, attempt, scope)]
    attempt.upheld = upheld_nodes(nodes, decided, {step.id for step in reviewed})


def upheld_nodes(
    nodes: Mapping[str, BoundNode], decided: Iterable[str], reviewed: Collection[str]
) -> frozenset[str]:
    """Return the nodes whose `if` reads only what steps read, on which a decision was made."""
    reads = {id_: steps_read(node.reads.all) & nodes.keys() for id_, node in nodes.items()}

    def before(ids: Iterable[str]) -> set[str]:
        found, waiting = set[str](), [*ids]
        while waiting:
            if (id_ := waiting.pop()) not in found:
                found.add(id_)
                waiting += reads[id_]
        return found

    return frozenset(
        id_
        for id_ in before(decided)
        if (condition := nodes[id_].if_) is not None
        and all(path[0] == "steps" for path in condition.references)
        and before(steps_read(condition.references) & nodes.keys()).isdisjoint(reviewed)
    )


def _counts(review: Review, attempt: ItemAttempt, scope: Scope) -> bool:
    is_same = review.subject.document_sha256 == attempt.document_digest(scope)
    return review.state in ("accepted", "edited") and is_same


def standing_decision(attempt: StepAttempt) -> Standing | None:
    """Return what stands of the decision on a step's answer; None: nothing does.

    Raises:
        StepError: a list of labels cannot be read.
    """
    step, review = attempt.step, attempt.item.reviews.get(attempt.step.id)
    if review is None or not _counts(review, attempt.item, attempt.scope):
        return None
    schema, value = None if step.reply is None else step.reply.schema, review.value
    if schema is None:
        return Standing(review, value, is_whole=True)
    lists = attempt.context.judge.labels.of_step(step, attempt.scope)
    now, seen = schema_with_labels(schema, lists), review.fields_seen
    if seen is None and not value_faults(value, now):
        return Standing(review, value, is_whole=True)
    fields = now.get("properties", {}) if isinstance(value, Mapping) else {}
    valid = {
        name: value[name]
        for name in fields.keys() & {*value} & (fields.keys() if seen is None else seen)
        if not value_faults({name: value[name]}, {**now, "required": [name]})
    }
    return Standing(review, valid, is_whole=False) if valid else None


def outputs_seen(attempt: StepAttempt, decision: Standing | None) -> dict[str, Any] | None:
    """Return the outputs that a person saw and decided on; None: a model is asked.

    So it is where a field of the decision does not stand, and where that is forced.
    """
    review, is_forced = attempt.item.reviews.get(attempt.step.id), attempt.is_forced
    if decision is not None:
        return decision.review.decided_outputs if decision.is_whole and not is_forced else None
    if review is None or not attempt.item.is_decided or attempt.caller.looks_up:
        return None
    return review.decided_outputs if review.state in ("rejected", "expired") else None
