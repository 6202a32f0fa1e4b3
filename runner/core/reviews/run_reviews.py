"""The reviews of one run: waiting, decided since, and new.

No question is asked twice: the ledger decides that in one transaction (`runner.ledger.reviews`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from paddock.runner.bind.bound import BoundPlan, BoundStep
from paddock.runner.bind.plan_walks import all_plans, all_steps, steps_with_blocks
from paddock.runner.calibration.confidence_calibration import (
    CalibrationKey,
    StepCalibration,
    calibrations_of,
)
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Review, ReviewState, ReviewTerms
from paddock.runner.progress.reasons import Reason, Why
from paddock.runner.progress.report import ReviewMode
from paddock.steps.base import Example, Tools

from ..traces.dependencies import UsedExamples, known_papers
from ..traces.past_decisions import DecisionsByStep, PendingReview, known_decisions
from ..traces.scopes import ItemKey, StepName
from .prompt_examples import DecidedExamples, TaughtItem
from .review_questions import iso_time

if TYPE_CHECKING:
    from paddock.runner.ledger.ledger import Ledger
    from paddock.runner.rules import SenderPapers


def decision_reason(review: Review) -> Reason:
    if review.state == "expired":
        return Why.NOT_DECIDED_IN_TIME()
    if review.reason:
        return Why.DECIDED_SINCE(review.state, str(review.by), review.reason)
    return Why.DECIDED(review.state, str(review.by))


def waiting_reason(review: Review) -> Reason:
    why = Why.MAY_BE_FRAUD_SINCE if review.subject.may_be_fraud else Why.WAITS_SINCE
    return why(str(iso_time(review.asked_at)))


def terms_of(bound: BoundPlan) -> dict[tuple[str, str, str], ReviewTerms]:
    """Return the terms of reviews by file, block and step, also of sub-pipelines.

    Nothing is known of files of one name in two folders that say different things.
    """
    found: dict[tuple[str, str, str], set[ReviewTerms]] = {}
    for plan in all_plans(bound):
        for block, step in steps_with_blocks(plan.nodes):
            if step.review is not None:
                spec = step.review
                terms = ReviewTerms(tuple(spec.by), spec.ttl_s, spec.on_expiry)
                found.setdefault((plan.file.name, block, step.id), set()).add(terms)
    return {place: terms.pop() for place, terms in found.items() if len(terms) == 1}


class RunReviews:
    def __init__(self, ledger: Ledger, bound: BoundPlan, mode: ReviewMode = "ask") -> None:
        """Where the ledger is only read, nothing is asked and nothing is closed."""
        self._bound = bound
        self.mode = mode
        self.is_dry = ledger.is_readonly
        self._ledger = ledger
        self.store = ReviewStore(ledger)
        self._pending: dict[ItemKey, list[Review]] | None = None
        self.contents = dict[ItemKey, str]()
        """Digests of items' documents: what was asked before they said this is not about them."""
        self._calibrations: dict[CalibrationKey, StepCalibration] | None = None
        self.decisions = DecisionsByStep()
        """Known after `load`, where the prompt of a step has decisions as examples."""
        self._papers: dict[StepName, SenderPapers] = {}
        self._examples: DecidedExamples | None = None
        self._loading = asyncio.Lock()
        self._undone: list[Review] = []
        """Of items that wait, so that what was made of them counts nowhere."""

    def calibrations(self) -> Mapping[CalibrationKey, StepCalibration]:
        if self._calibrations is None:
            self._calibrations = calibrations_of(self.store.decided(is_whole=True))
        return self._calibrations

    async def examples(
        self, step: BoundStep, params: Any, tools: Tools, item: TaughtItem
    ) -> tuple[tuple[Example, ...], UsedExamples] | None:
        """Return examples for an item's prompt, as `DecidedExamples.chosen`; after `load`."""
        known = self.decisions[item.step]
        self._examples = self._examples or DecidedExamples(self.store.source_text)
        return await self._examples.chosen(step, params, tools, known, item)

    def papers(self, step: StepName, kinds: Collection[str]) -> SenderPapers:
        """Return `known_papers` of a step, as a run found them; after `load`."""
        if step not in self._papers:
            known = self.decisions[step]
            self._papers[step] = known_papers(self._ledger, step, known, kinds)
        return self._papers[step]

    async def load(self) -> None:
        """Read what waits and what was decided since, once; close what is late."""
        async with self._loading:
            if self._pending is not None:
                return
            found: dict[ItemKey, list[Review]] = {}
            pending = self.store.pending()
            if pending:
                terms = terms_of(self._bound)
                if not self.is_dry:
                    await asyncio.to_thread(self.store.renew, terms)
                    await asyncio.to_thread(self.store.expire)
                pending = self.store.pending(terms)
            for review in pending:
                for place in review.places:
                    found.setdefault(place, []).append(review)
            if any(step.is_taught or step.has_readings for step in all_steps(self._bound.nodes)):
                keeps_offers = not self.is_dry
                self.decisions = known_decisions(self.store, keeps_offers=keeps_offers)
            self._pending = found

    def of_item(self, scope_id: str, key: str) -> PendingReview | None:
        """Return the review of an item that waits, or was decided since its last run."""
        reviews, place = (self._pending or {}).get((scope_id, key), ()), (scope_id, key)
        if reviews and (content := self.contents.get(place)) is not None:
            same = (r for r in reviews if r.subject.document_sha256 == content)
            reviews = [*same, *(r for r in reviews if (r.scope, r.key) != place)]
        if not reviews:
            return None
        decided = [review for review in reviews if review.is_decided]
        if decided:
            return PendingReview(False, decision_reason(decided[0]))
        of_itself = [review for review in reviews if (review.scope, review.key) == (scope_id, key)]
        if of_itself:
            suspected = [review for review in of_itself if review.subject.may_be_fraud]
            return PendingReview(True, waiting_reason((suspected or of_itself)[0]))
        is_one = len(reviews) == 1
        why = Why.ONE_WAITS_WITHIN() if is_one else Why.WAIT_WITHIN(len(reviews))
        return PendingReview(True, why)

    def note_waiting(self, scope_id: str, key: str) -> None:
        reviews = (self._pending or {}).get((scope_id, key), ())
        self._undone += [review for review in reviews if review.was_undone]

    def is_taken_back(self, scope_id: str, key: str) -> bool:
        """Return whether what an item came to counts nowhere: a person undid a decision on it."""
        reviews = (self._pending or {}).get((scope_id, key), ())
        return any(not r.is_decided and r.decided_at is not None for r in reviews)

    @property
    def items(self) -> Collection[ItemKey]:
        return (self._pending or {}).keys()

    def ended(self, scope_id: str) -> dict[ReviewState, set[str]]:
        found: dict[ReviewState, set[str]] = defaultdict(set)
        for (key, _), review in self.store.of_scope(scope_id).items():
            found[review.state].add(key)
        return found

    async def apply(self, review: Review) -> None:
        """Mark that a decision is in what was recorded, unless it was undone meanwhile."""
        await asyncio.to_thread(self.store.apply, review)

    async def forget_questions(self, places: Collection[ItemKey]) -> None:
        """Remove the open questions of items that are gone, or ended without asking them.

        The questions of items within them go too; a decision counts as applied. What this run asked
        stays. What was undone is applied where the item waits.
        """
        for review in self._undone:
            await self.apply(review)
        pending = self._pending or {}
        for review in [review for place in places for review in pending.get(place, ())]:
            change = self.store.apply if review.is_decided else self.store.withdraw
            await asyncio.to_thread(change, review)
