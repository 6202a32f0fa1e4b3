"""When an answer waits for a person, what is asked, and what the decision makes of the answer.

`RunReviews` belongs to one run. It knows what waits and what was decided since, asks new questions,
and never asks one twice: the ledger decides that in one transaction (`runner.ledger.reviews`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from paddock.engine.system.text import counted
from paddock.pipelines.expressions import Expression, Reference
from paddock.pipelines.model import EvidenceSpec, ReviewSpec
from paddock.runner.bind.evidence_sources import EvidenceSource
from paddock.runner.ledger.calibration import Calibrated, Calibration, calibrations_of
from paddock.runner.ledger.ledger import INLINE_CHARS, Ledger
from paddock.runner.ledger.reviews import Question, Review, ReviewStore, stands
from paddock.runner.progress.report import ReviewMode

MODE_OPTION = "--review accept"
"""Who decided, where a run was told to accept everything."""


class AwaitingReview(Exception):
    """An item waits for a decision: nothing behind the step is carried out."""

    def __init__(self, why: str, *, is_asked: bool = True) -> None:
        self.why = why
        self.is_asked = is_asked
        """False: the run was told to leave such items (`--review skip`)."""
        super().__init__(why)


class NobodyAsked(Exception):
    """A review is due, and the run was told to fail then."""


@dataclass(frozen=True, slots=True)
class PendingReview:
    """What is known of an item's reviews that are open, or decided and not applied yet."""

    is_open: bool
    why: str


# --- when a review is due


def review_names(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of `review.when` for a step's outputs.

    >>> review_names({"output": {"a": 1}, "text": "", "confidence": {"a": {"p": 0.5, "raw": 0.5}}})[
    ...     "confidence"]["min"]
    0.5
    """
    # The finder's tables of words and units take 30 ms: only a run that reviews imports them.
    from paddock.pipelines.checking.evidence import missing_paths

    confidence, evidence = outputs.get("confidence"), outputs.get("evidence")
    values = list(_probabilities(confidence))
    known = {"min": min(values, default=0.0), "mean": sum(values) / max(1, len(values))}
    return {
        "output": outputs.get("output"),
        "text": outputs.get("text"),
        "confidence": {**_fields(confidence), **known},
        "evidence": {**_fields(evidence), "missing": missing_paths(evidence)},
    }


def _fields(mirror: Any) -> Mapping[str, Any]:
    if isinstance(mirror, Mapping):
        return mirror
    return {} if mirror is None else {"items": mirror}


def _probabilities(mirror: Any) -> Iterator[float]:
    """Yield the probability of each field that a mirror of an answer has."""
    if isinstance(mirror, Mapping) and "p" in mirror and "raw" in mirror:
        yield mirror["p"] or 0.0
    elif isinstance(mirror, Mapping | list):
        for one in mirror.values() if isinstance(mirror, Mapping) else mirror:
            yield from _probabilities(one)


def is_due(spec: ReviewSpec, scope: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    """Return whether a person has to look at a step's answer.

    Raises:
        ExpressionError: `when` cannot be evaluated.
    """
    return bool(spec.when.evaluate({**scope, **review_names(outputs)}))


# --- what is asked


def values_read(references: Sequence[Reference], scope: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a scope that some expressions read, in its own shape.

    >>> values_read([("inputs", "most")], {"inputs": {"most": 3, "least": 1}, "steps": {}})
    {'inputs': {'most': 3}}
    """
    found: dict[str, Any] = {}
    for path in sorted(references, key=len):
        value: Any = scope
        at = found
        for number, name in enumerate(path):
            if not isinstance(value, Mapping) or name not in value:
                break
            value = value[name]
            is_last = number + 1 == len(path) or not isinstance(value, Mapping)
            if is_last:
                at[name] = value
                break
            at = at.setdefault(name, {})
            if at is value:  # a shorter path has taken all of it
                break
    return found


def source_texts(
    sources: Iterable[EvidenceSource], ledger: Ledger, stored: Callable[[str], str]
) -> list[dict[str, Any]]:
    """Return the texts that an answer was made of, long ones as objects of the ledger.

    `stored` returns a path as the ledger writes it.
    """
    found = []
    for one in sources:
        path = stored(one.path) if one.path else None
        told = {"name": one.name, "path": path, "media_type": one.media_type or None}
        if len(one.text) > INLINE_CHARS:
            text = {"text_object": ledger.objects.put(one.text.encode())}
        else:
            text = {"text": one.text}
        found.append({**told, **text, "page_starts": list(one.page_starts)})
    return found


def document_spec(scope: Mapping[str, Any]) -> EvidenceSpec:
    """Return the outputs of `files.read` in a scope as sources of evidence.

    >>> scope = {"steps": {"text": {"text": "a", "pages": []}, "(prompt)": {"text": "b"}}}
    >>> [source.source for source in document_spec(scope).sources]
    ['steps.text']
    """
    read = (
        name
        for name, outputs in scope.get("steps", {}).items()
        if name.isidentifier() and isinstance(outputs.get("text"), str) and "pages" in outputs
    )
    return EvidenceSpec(tuple(Expression.of(f"steps.{name}") for name in read))


def answer_of(outputs: Mapping[str, Any]) -> Any:
    """Return what a person decides on: the value by the schema, else the text."""
    value = outputs.get("output")
    return outputs.get("text") if value is None else value


# --- what a decision makes of an answer


def decided_outputs(
    outputs: Mapping[str, Any], review: Review, has_schema: bool, evidence: Any = None
) -> dict[str, Any]:
    """Return a step's outputs after an accepted or edited answer; `evidence`: of the new values."""
    told: dict[str, Any] = {
        "state": review.state,
        "by": review.by,
        "at": iso_time(review.decided_at),
    }
    if review.state != "edited":
        return {**outputs, "review": told}
    value = review.value
    answer = {"text": value, "output": None}
    if has_schema:
        answer = {"text": json.dumps(value, ensure_ascii=False), "output": value}
    told["value"] = value
    return {**outputs, **answer, "evidence": evidence, "confidence": None, "review": told}


def accepted_unseen(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's outputs where the run was told to accept what no one has seen."""
    return {**outputs, "review": {"state": "accepted", "by": MODE_OPTION, "at": None}}


def iso_time(at: float | None) -> str | None:
    """Return a time as expressions see it.

    >>> iso_time(0.0)
    '1970-01-01T00:00:00Z'
    """
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def decision_text(review: Review) -> str:
    """Return what was decided, in words."""
    if review.state == "expired":
        return "no one decided in time"
    words = f"{review.state} by {review.by}"
    return f"{words}: {review.reason}" if review.reason else words


def n_rejections(review: Review | None, document: str, *, is_tried_again: bool) -> int:
    """Return how many rejected answers about an unchanged document were tried again.

    `is_tried_again`: another answer is wanted in place of the present one, too.
    """
    if review is None:
        return 0
    told = [(one.get("state"), one.get("document_sha256")) for one in review.earlier]
    if is_tried_again:
        told.append((review.state, review.subject.get("document_sha256")))
    return told.count(("rejected", document))


# --- the reviews of a run

Place = tuple[str, str]
"""Scope and key of an item."""


class RunReviews:
    """The reviews of one run or plan. Lives in one loop."""

    def __init__(self, ledger: Ledger, mode: ReviewMode = "ask") -> None:
        """With a ledger that is only read nothing is asked and nothing is closed."""
        self.mode = mode
        self.is_dry = ledger.is_readonly
        self._ledger = ledger
        self._store = ReviewStore(ledger)
        self._pending: dict[Place, list[Review]] | None = None
        self._calibrations: dict[Calibrated, Calibration | None] | None = None
        self._loading = asyncio.Lock()

    async def calibration(self, place: Calibrated) -> Calibration | None:
        """Return what a step's probabilities are worth with a model; None: too few reviews."""
        async with self._loading:
            if self._calibrations is None:
                decided = await self._ledger.ask(partial(self._store.decided, is_whole=True))
                found = calibrations_of(decided)
                self._calibrations = {known: one.calibration for known, one in found.items()}
        return self._calibrations.get(place)

    async def load(self) -> None:
        """Read what waits and what was decided since, once; close what is late."""
        async with self._loading:
            if self._pending is not None:
                return
            if not self.is_dry:
                await asyncio.to_thread(self._store.expire)
            found: dict[Place, list[Review]] = {}
            for review in await self._ledger.ask(self._store.pending):
                for place in (
                    (review.scope, review.key),
                    *(tuple(one) for one in review.subject.get("around") or ()),
                ):
                    found.setdefault(place, []).append(review)
            self._pending = found

    def of_item(self, scope: str, key: str) -> PendingReview | None:
        """Return what of an item waits, or was decided since the last run; after `load`."""
        reviews = (self._pending or {}).get((scope, key), ())
        decided = [one for one in reviews if one.is_decided]
        if decided:
            return PendingReview(False, decision_text(decided[0]))
        if not reviews:
            return None
        own = [one for one in reviews if (one.scope, one.key) == (scope, key)]
        if own:
            since = iso_time(own[0].asked_at)
            return PendingReview(True, f"waits for review since {since}")
        verb = "waits" if len(reviews) == 1 else "wait"
        return PendingReview(True, f"{counted(len(reviews), 'answer')} within it {verb} for review")

    async def at(self, scope: str, key: str, step: str) -> Review | None:
        """Return the review of a step's answer for an item, whole."""
        return await self._ledger.ask(self._store.at, scope, key, step)

    async def settle(
        self, light: Question, whole: Callable[[], Awaitable[Question]], *, is_due: bool
    ) -> Review | None:
        """Return the decision on an answer; None: it needs none. Asks where no one has decided.

        `light` has only what tells questions apart; `whole` returns everything that a person sees.

        Raises:
            AwaitingReview: a person has to decide first.
            NobodyAsked: a person would have to, and the run was told to fail then.
        """
        old = await self.at(light.scope, light.key, light.step)
        is_decided = old is not None and old.is_decided and stands(light, old)
        if not is_decided and not is_due:
            if old is not None and not old.is_decided:
                await self._withdraw(old)
            return None
        if not is_decided and self.mode != "ask":
            await self._without_asking(old)
            return None
        review = await asyncio.to_thread(self._store.ask, await whole())
        if not review.is_decided:
            raise AwaitingReview(f"waits for review since {iso_time(review.asked_at)}")
        return review

    async def _without_asking(self, old: Review | None) -> None:
        if self.mode == "skip":
            raise AwaitingReview("a review is due (`--review skip`)", is_asked=False)
        if self.mode == "fail":
            raise NobodyAsked("a review is due (`--review fail`)")
        if old is not None and not old.is_decided:
            await self._withdraw(old)

    async def apply(self, review: Review) -> bool:
        """Mark that the run goes on with a decision; return False if it was undone meanwhile."""
        return await asyncio.to_thread(self._store.apply, review) is not None

    async def _withdraw(self, review: Review) -> None:
        await asyncio.to_thread(self._store.withdraw, review)

    async def forget(self, scope: str, keys: Collection[str]) -> None:
        """Remove the open questions of items that are deleted, or ended without asking them.

        Those of the items within them go too; what this run asked stays.
        """
        found = [one for key in keys for one in (self._pending or {}).get((scope, key), ())]
        for one in found:
            if not one.is_decided:
                await self._withdraw(one)
