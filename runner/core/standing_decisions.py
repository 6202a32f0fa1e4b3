"""Decisions that stand: what a person decided on a document counts, for the field, until undone.

Whatever words, lists, e-invoices or another prompt or model can read of the document later: no
model is asked again for an answer of which each field stands, and no step that it was behind
is skipped by what other steps read. What the item is, inputs, and other decisions skip it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from paddock.pipelines.expressions import steps_read
from paddock.runner.bind.bound import BoundNode, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.reviews.reviews import Review

from .failures import RunStopped

if TYPE_CHECKING:
    from .item_attempt import ItemAttempt
    from .reviews.run_reviews import RunReviews


def note_reviews(
    reviews: RunReviews, attempt: ItemAttempt, body: Iterable[BoundNode], scope: Scope
) -> None:
    """Note what was asked about the steps of an item, and which steps decisions hold up."""
    nodes = {node.id: node for node in body}
    reviewed = [n for n in nodes.values() if isinstance(n, BoundStep) and n.review is not None]
    for step in reviewed:
        for key in filter(None, (attempt.key, attempt.work.renamed_from)):
            try:
                review = reviews.store.at(attempt.scope_id, key, step.id)
            except LedgerError as error:
                raise RunStopped(str(error)) from error
            if review is not None:
                before = review.before
                stood = before is not None and is_decision_on(before, attempt, scope)
                attempt.reviews[step.id] = before if before is not None and stood else review
                break
    decided = [
        id_ for id_, review in attempt.reviews.items() if is_decision_on(review, attempt, scope)
    ]
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


def is_decision_on(review: Review, attempt: ItemAttempt, scope: Scope) -> bool:
    """Return whether a person stands by an answer, about an item's document as it is now."""
    is_same = review.subject.document_sha256 == attempt.document_digest(scope)
    return review.state in ("accepted", "edited") and is_same
