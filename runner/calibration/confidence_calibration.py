"""Calibration: what a step's probabilities are worth, by what people decided. Pure.

A field that a person accepted, or left as it was in an edit, was right; one that was edited was
wrong. A rejection says that the answer is not to be used: of its fields only those count, as
wrong, that the reason names (`total, pay_by: misread`). `isotonic_fit` makes of these the share
that was right at each probability.

A table belongs to one step, model, prompt and schema. A field with 50 decisions has its own fit,
the others share one: of a field that is right less often than these, `low` is that of all of its
own decisions, whatever their probability. An item's own decision never counts for its
own confidence. Fits never decide whether an item is fresh.

Answers in doubt are wrong more often than others. `review.also` asks about a random sample of the
sure ones as well, at a sampling rate. Each answer is weighted by the inverse of its inclusion
probability: 1 / rate for a sampled one, 1 for one in doubt (Horvitz and Thompson 1952). Samples are
nested, and a higher rate asks about earlier answers, too, so the rate of an answer is the highest
since it was asked about. Weights are raised by the share of each kind that is still undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, NamedTuple, TypeAlias

from paddock.engine.system.records import SelectiveFields, Struct, replace
from paddock.engine.system.text import counted, path_text
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.pipelines.reply_schema import is_confidence
from paddock.runner.ledger.reviews.asked_before import is_same_value
from paddock.runner.ledger.reviews.reviews import Review

from .isotonic_fit import (
    LEAST_DECISIONS,
    Calibration,
    DecisionPool,
    FieldName,
    ReliabilityBin,
    WeightedField,
    fit,
    reliability,
)
from .list_alignment import aligned

LEAST_FIELDS = 50
"""Decisions on a field, or on all that share a fit, without which these are not calibrated: a share
of 0.9 is then known to ± 0.04."""


class DecidedField(Struct, frozen=True):
    name: FieldName
    raw: float
    is_right: bool


class DecidedAnswer(Struct, frozen=True):
    item: tuple[str, str]
    """Scope and key."""
    document_sha256: str
    fields: tuple[DecidedField, ...]
    is_sampled: bool = False
    """Whether it was sure, and drawn at random."""
    is_in_doubt: bool = True
    """Whether it would be asked about now without sampling; only of one that was not drawn."""
    sampling_rate: float | None = None
    """At which it was drawn; None: that of the step."""
    weight: float = 1.0
    """Inverse of its inclusion probability: how many answers it stands for."""

    def weighted_fields(self) -> Iterator[tuple[FieldName, WeightedField]]:
        for decided in self.fields:
            yield decided.name, WeightedField(decided.raw, decided.is_right, self.weight)


class ReviewSampling(Struct, frozen=True):
    """How a step's sure answers are sampled, and how many questions are undecided."""

    rate: float | None = None
    """The highest so far; None: sure answers are not asked about."""
    n_open_doubtful: int = 0
    n_open_sampled: int = 0


def _weighted_answers(
    answers: Iterable[DecidedAnswer], sampling: ReviewSampling
) -> list[DecidedAnswer]:
    """Return the answers that a fit is made of, with their weights.

    Where enough sampled answers are decided: all whose inclusion probability is known. Else those
    that were not sampled, with equal weights.
    """
    found = list(answers)
    sampled = [answer for answer in found if answer.is_sampled]
    doubtful = [answer for answer in found if answer.is_in_doubt and not answer.is_sampled]
    n_sampled, n_doubtful = _n_fields(sampled), _n_fields(doubtful)
    is_enough = n_sampled >= LEAST_DECISIONS and n_sampled + n_doubtful >= LEAST_FIELDS
    if sampling.rate is None or not is_enough:
        return [answer for answer in found if not answer.is_sampled]
    of_sampled = 1 + sampling.n_open_sampled / len(sampled)
    of_doubtful = 1 + sampling.n_open_doubtful / max(1, len(doubtful))
    return [
        *(replace(a, weight=of_doubtful) for a in doubtful),
        *(replace(a, weight=of_sampled / (a.sampling_rate or sampling.rate)) for a in sampled),
    ]


def _n_fields(answers: Iterable[DecidedAnswer]) -> int:
    return sum(len(answer.fields) for answer in answers)


def reviewed_fields(review: Review) -> list[DecidedField]:
    """Return the fields of a whole review that a person decided on, as far as they have confidence.

    What expired, what no one has decided, and what was accepted unseen with others says nothing.
    """
    if review.together is not None:
        return []
    answer, confidence = review.subject.answer, review.subject.confidence
    if review.state == "accepted":
        return [DecidedField(name, raw, True) for _, name, raw in _leaves(confidence, answer)]
    if review.state == "edited":
        return list(_edited_fields(confidence, answer, review.value))
    if review.state == "rejected":
        wrong = named_fields(review.reason or "", answer)
        return [
            DecidedField(name, raw, False)
            for path, name, raw in _leaves(confidence, answer)
            if any(path[: len(wrong_path)] == wrong_path for wrong_path in wrong)
        ]
    return []


_Path: TypeAlias = tuple[str | int, ...]


def named_fields(reason: str, answer: Any) -> list[_Path]:
    """Return the paths of the fields that a reason names before its colon; none if it has others.

    >>> named_fields("total, lines.0.price: misread", {"total": 1, "lines": [{"price": 2}]})
    [('total',), ('lines', 0, 'price')]
    >>> named_fields("a scan of a cat: no bill", {"total": 1})
    []
    """
    paths: dict[str, list[_Path]] = {}
    for path in _paths(answer):
        for name in {path_text(path), ".".join(map(str, path))}:
            paths.setdefault(name, []).append(path)
    found: list[_Path] = []
    left = reason.strip()
    while left:
        begun = (name for name in paths if left.startswith(name))
        ended = ((name, left[len(name) :].lstrip()) for name in begun)
        fitting = [(name, rest) for name, rest in ended if rest[:1] in ("", ",", ":")]
        if not fitting:
            return []
        name, rest = max(fitting, key=lambda named_rest: len(named_rest[0]))
        found += paths[name]
        if rest[:1] != ",":
            return found
        left = rest[1:].lstrip()
    return found


def _paths(answer: Any, path: _Path = ()) -> Iterator[_Path]:
    children: Iterable[tuple[str | int, Any]] = ()
    if isinstance(answer, Mapping):
        children = answer.items()
    elif isinstance(answer, list):
        children = enumerate(answer)
    for key, value in children:
        yield (*path, key)
        yield from _paths(value, (*path, key))


def _leaves(
    confidence: Any, answer: Any, path: _Path = (), name: FieldName = ()
) -> Iterator[tuple[_Path, FieldName, float]]:
    if is_confidence(confidence):
        if confidence["raw"] is not None:  # else a person wrote it
            yield path, name, float(confidence["raw"])
    elif isinstance(confidence, Mapping) and isinstance(answer, Mapping):
        for key in filter(confidence.__contains__, answer):
            yield from _leaves(confidence[key], answer[key], (*path, key), (*name, key))
    elif isinstance(confidence, list) and isinstance(answer, list):
        for at, (element, value) in enumerate(zip(confidence, answer, strict=False)):
            yield from _leaves(element, value, (*path, at), name)


_REMOVED = object()
"""Equals no value of a field."""


def _edited_fields(
    confidence: Any, answer: Any, decided: Any, name: FieldName = ()
) -> Iterator[DecidedField]:
    """Yield the fields of an edited answer, and whether the decided value is theirs.

    Of lists that are too long to be aligned nothing is known.
    """
    if is_confidence(confidence):
        if confidence["raw"] is not None:
            is_right = is_same_value(answer, decided)
            yield DecidedField(name, float(confidence["raw"]), is_right)
    elif isinstance(confidence, Mapping) and isinstance(answer, Mapping):
        values = decided if isinstance(decided, Mapping) else {}
        for key in filter(confidence.__contains__, answer):
            within = values.get(key, _REMOVED)
            yield from _edited_fields(confidence[key], answer[key], within, (*name, key))
    elif isinstance(confidence, list) and isinstance(answer, list):
        partners = aligned(answer, decided if isinstance(decided, list) else [], _REMOVED)
        for element, value, within in zip(confidence, answer, partners or (), strict=False):
            yield from _edited_fields(element, value, within, name)


class FieldDecisions(Struct, frozen=True, dict=True):
    """The decisions that one fit is made of: on one field, or on several with few of their own."""

    by_field: Mapping[FieldName, Sequence[WeightedField]]

    @property
    def fields(self) -> list[WeightedField]:
        return [*chain.from_iterable(self.by_field.values())]

    @property
    def is_enough(self) -> bool:
        return len(self.fields) >= LEAST_FIELDS

    @property
    def rows(self) -> list[ReliabilityBin]:
        return reliability(self.fields) if self.is_enough else []

    @cached_property
    def fit(self) -> Calibration | None:
        return fit(self.fields) if self.is_enough else None

    @cached_property
    def field_bounds(self) -> dict[FieldName, float]:
        """Lower bounds of how often fields are right, without those with too few decisions."""
        pools = {name: DecisionPool.of(fields) for name, fields in self.by_field.items()}
        enough = (pair for pair in pools.items() if pair[1].effective_n >= LEAST_DECISIONS)
        return {name: pool.lower_bound for name, pool in enough}


class FieldFits(Struct, frozen=True):
    own: Mapping[FieldName, FieldDecisions]
    pooled: FieldDecisions

    @classmethod
    def of(cls, answers: Iterable[DecidedAnswer]) -> FieldFits:
        found: dict[FieldName, list[WeightedField]] = {}
        for name, reviewed in chain.from_iterable(answer.weighted_fields() for answer in answers):
            found.setdefault(name, []).append(reviewed)
        own = {name: held for name, held in found.items() if len(held) >= LEAST_FIELDS}
        rest = {name: held for name, held in found.items() if name not in own}
        return cls(
            {name: FieldDecisions({name: held}) for name, held in own.items()}, FieldDecisions(rest)
        )

    def calibrated(self, name: FieldName, raw: float) -> dict[str, Any] | None:
        """Return `p`, `low` and whether they are pooled; None where too little was reviewed."""
        decisions = self.own.get(name, self.pooled)
        line, is_pooled = decisions.fit, decisions is self.pooled
        if line is None or name not in decisions.field_bounds or (p := line.of(raw)) is None:
            return None
        low = min(line.lower_bound(raw), decisions.field_bounds[name] if is_pooled else 1.0)
        return {"p": p, "low": low, "is_calibrated": True, "is_pooled": is_pooled}


class CalibrationKey(NamedTuple):
    """What a table belongs to. A change of any of these begins another one."""

    pipeline: str
    step: str
    model_digest: str
    prompt_digest: str
    schema_digest: str

    def changes(self, other: CalibrationKey) -> str:
        """Return the parts that differ from another key of the same step, in words.

        >>> CalibrationKey("a", "s", "1", "2", "3").changes(CalibrationKey("a", "s", "1", "0", "0"))
        'prompt and schema'
        """
        names = ("model", "prompt", "schema")
        pairs = zip(names, self[2:], other[2:], strict=True)
        return " and ".join(name for name, own, others in pairs if own != others)


class StepCalibration(SelectiveFields, Struct, frozen=True, dict=True):
    """What people decided about one step's fields with one model, prompt and schema."""

    hidden = ("answers",)

    key: CalibrationKey
    model: str
    """The model's name as of the newest review."""
    at: float
    """When the newest of its answers was asked about."""
    answers: tuple[DecidedAnswer, ...]
    n_rejected: int = 0
    """Rejected answers whose reason names no field."""
    is_of_all: bool = False
    """Whether every answer was asked about, sure or not."""
    sampling: ReviewSampling = ReviewSampling()

    @property
    def n_fields(self) -> int:
        return _n_fields(self._weighted)

    def calibration(
        self, item: tuple[str, str] | None = None, document_sha256: str = ""
    ) -> FieldFits:
        """Return the fits without what was decided about an item, or its document elsewhere."""
        own = {item, document_sha256} - {None, ""}
        if own.isdisjoint(self._items_and_documents):
            return self.fits
        return FieldFits.of(
            answer
            for answer in self._weighted
            if own.isdisjoint((answer.item, answer.document_sha256))
        )

    @cached_property
    def _items_and_documents(self) -> frozenset[Any]:
        both = ((answer.item, answer.document_sha256) for answer in self.answers)
        return frozenset(part for pair in both for part in pair)

    @cached_property
    def fits(self) -> FieldFits:
        return FieldFits.of(self._weighted)

    @cached_property
    def _weighted(self) -> list[DecidedAnswer]:
        return _weighted_answers(self.answers, self.sampling)

    @property
    def basis(self) -> str:
        sampled = [answer for answer in self._weighted if answer.is_sampled]
        if not sampled and self.is_of_all:
            return "of all answers"
        if not sampled:
            return "of answers in doubt alone, which are wrong more often than the others"
        n_doubtful, n_open = len(self._weighted) - len(sampled), self.sampling.n_open_doubtful
        rates = sorted({answer.sampling_rate or self.sampling.rate or 1 for answer in sampled})
        rate = " to ".join(f"{100 * bound:g}%" for bound in dict.fromkeys((rates[0], rates[-1])))
        what = "sure answers alone" if n_open and not n_doubtful else "all answers"
        return (
            f"of {what}: {counted(n_doubtful, 'answer')} in doubt{_open_text(n_doubtful, n_open)}, "
            f"and {len(sampled):,} of a random {rate} of the others"
            f"{_open_text(len(sampled), self.sampling.n_open_sampled)}, "
            "which count for as many as they stand for"
        )


def _open_text(n_decided: int, n_open: int) -> str:
    return f" ({n_decided:,} of {n_decided + n_open:,} decided)" if n_open else ""


def key_of(review: Review) -> CalibrationKey:
    subject = review.subject
    digests = (subject.digest, subject.prompt_digest, subject.schema_digest)
    return CalibrationKey(subject.pipeline, review.step, *(digest or "" for digest in digests))


def calibrations_of(reviews: Iterable[Review]) -> dict[CalibrationKey, StepCalibration]:
    found: dict[CalibrationKey, list[Review]] = {}
    for review in reviews:
        if review.subject.confidence is not None:
            found.setdefault(key_of(review), []).append(review)
    return {key: _step_calibration(key, of_key) for key, of_key in found.items()}


def _step_calibration(key: CalibrationKey, reviews: Sequence[Review]) -> StepCalibration:
    """Return what people decided about a step.

    1. Answers with decided fields. A higher sampling rate asks about the answers before it, too:
       the rate of each is the highest since it was asked about.
    2. Rejections that name no field.
    3. Answers that are undecided: open, expired, or accepted unseen with others.
    """
    newest_first = sorted(reviews, key=lambda review: -review.asked_at)
    rates = [*accumulate((review.subject.share or 0.0 for review in newest_first), max)]
    present = {review.subject.when for review in reviews if review.subject.share is not None}
    answers: list[DecidedAnswer] = []
    n_rejected = 0
    for review, rate in zip(newest_first, rates, strict=True):
        if fields := tuple(reviewed_fields(review)):  # 1
            answers.append(
                DecidedAnswer(
                    (review.scope, review.key),
                    review.subject.document_sha256,
                    fields,
                    is_sampled=review.subject.is_sampled,
                    is_in_doubt=_is_in_doubt(review, present),
                    sampling_rate=rate or None,
                )
            )
        else:  # 2
            n_rejected += review.state == "rejected"
    undecided = [r for r in reviews if not r.is_decided or r.state == "expired"]  # 3
    undecided += [review for review in reviews if review.together is not None]
    n_open_sampled = sum(review.subject.is_sampled for review in undecided)
    n_open = sum(review.subject.is_sampled or _is_in_doubt(review, present) for review in undecided)
    return StepCalibration(
        key,
        model=newest_first[0].subject.model or "",
        at=newest_first[0].asked_at,
        answers=tuple(answers),
        n_rejected=n_rejected,
        is_of_all=all(_asks_about_all(review.subject.when) for review in reviews),
        sampling=ReviewSampling(rates[-1] or None, n_open - n_open_sampled, n_open_sampled),
    )


def _asks_about_all(when: str) -> bool:
    """Return whether even an answer of which the model is wholly sure is asked about.

    >>> [*map(_asks_about_all, ("true", "confidence.min <= 1", "confidence.min < 1", "output.x"))]
    [True, True, False, False]
    """
    sure = dict.fromkeys(("min", "mean", "low"), 1.0)
    try:
        found: dict[str, list[str]] = {"missing": [], "partial": []}
        return bool(Expression.of(when).evaluate({"confidence": sure, "evidence": found}))
    except ExpressionError:  # it reads the answer, or is no expression any more
        return False


def _is_in_doubt(review: Review, present_conditions: Set[Any]) -> bool:
    """Return whether an answer would be asked about now without `review.also`.

    `present_conditions`: the texts of `when` since there is a sampling rate. A question of before
    counts where it was due by one of them.
    """
    subject = review.subject
    if subject.share is not None:
        return not subject.is_sampled
    return bool(subject.due) and subject.when in present_conditions


def former_tables(
    key: CalibrationKey, tables: Mapping[CalibrationKey, StepCalibration]
) -> list[StepCalibration]:
    found = [
        table
        for other, table in tables.items()
        if other[:2] == key[:2] and other != key and table.n_fields
    ]
    return sorted(found, key=lambda table: -table.at)


def start_text(key: CalibrationKey, tables: Mapping[CalibrationKey, StepCalibration]) -> str | None:
    """Return why a step that was reviewed before is not calibrated yet; None: it is, or was not."""
    own, former = tables.get(key), former_tables(key, tables)
    n_fields = 0 if own is None else own.n_fields
    if not former or n_fields >= LEAST_FIELDS:
        return None
    return (
        f"'{key.step}': its confidence has {n_fields:,} of {LEAST_FIELDS} reviewed fields. "
        f"{counted(former[0].n_fields, 'reviewed field')} of another "
        f"{key.changes(former[0].key)} no longer count{'s' * (former[0].n_fields == 1)}."
    )


def like_this_text(confidence: Mapping[str, Any] | None) -> str:
    """Return the lower bound of a calibrated value in words; empty where there is none.

    >>> like_this_text({"p": 0.94, "low": 0.888, "is_calibrated": True})
    'of 100 like this, 88 or more were right'
    """
    if confidence is None or not confidence.get("is_calibrated") or confidence.get("low") is None:
        return ""
    pooled = ", pooled with other fields" if confidence.get("is_pooled") else ""
    return f"of 100 like this, {math.floor(100 * confidence['low'])} or more were right{pooled}"


def calibrated(confidence: Any, fits: FieldFits, name: FieldName = ()) -> Any:
    """Return the confidence of an answer with `p` as people's decisions have it; `raw` stays.

    What is left of 1 is divided among the other values as before: `second_p` has its share of it.
    """
    if is_confidence(confidence):
        raw = confidence["raw"]
        found = None if raw is None else fits.calibrated(name, raw)
        if found is None or confidence.get("is_empty"):
            return confidence
        second_p, rest = confidence.get("second_p"), 1.0 - confidence["p"]
        if second_p is not None and rest > 0:
            second_p = round((1.0 - found["p"]) * min(second_p / rest, 1.0), 4)
        return {**confidence, **found, "second_p": second_p}
    if isinstance(confidence, Mapping):
        return {key: calibrated(part, fits, (*name, key)) for key, part in confidence.items()}
    if isinstance(confidence, list):
        return [calibrated(part, fits, name) for part in confidence]
    return confidence
