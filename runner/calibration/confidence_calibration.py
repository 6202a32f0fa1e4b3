"""Calibration: how often a step was right where its model was as sure, by people's decisions. Pure.

A field that a person accepted, or left as it was in an edit, was right; one that was edited was
wrong. A rejection says that the answer is not to be used: of its fields only those count, as
wrong, that the reason names (`total, pay_by: misread`).

A table belongs to one step, model, prompt and schema. Of a field the decisions of which the model
was about as sure are a group, of 50 or more: `p` is the share of them that was right, `low` its
lower bound. There is none outside the reviewed probabilities. Answers in doubt are asked about more
often than others and are wrong more often, so both are rather too low than too high. An item's own
decision never counts for its own confidence. Counts never decide whether an item is fresh.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

from paddock.engine.system.item_samples import share_interval
from paddock.engine.system.records import SelectiveFields, Struct
from paddock.engine.system.text import counted, path_text
from paddock.pipelines.reply_schema import is_confidence
from paddock.runner.ledger.reviews.asked_before import is_same_value
from paddock.runner.ledger.reviews.reviews import Review

from .list_alignment import aligned

LEAST_DECISIONS = 50
"""Of a group; or a tenth of a field's, if that is more. 50 of 50 right are a share above 0.93."""
FieldName: TypeAlias = tuple[str, ...]
"""Names from the answer down to a field; items of lists have none of their own."""


class DecidedField(Struct, frozen=True):
    name: FieldName
    raw: float
    is_right: bool


class DecidedAnswer(Struct, frozen=True):
    item: tuple[str, str]
    """Scope and key."""
    document_sha256: str
    fields: tuple[DecidedField, ...]


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


class FieldCount(Struct, frozen=True):
    """The decisions on a field, in groups of like probabilities."""

    groups: tuple[tuple[float, int, int], ...] = ()
    """Of rising probability: the lowest of each, how many they are, how many of these were right.

    They are cut by the number of decisions alone, so that no outcome has a part in it."""
    highest: float = 0.0

    @classmethod
    def of(cls, decided: Iterable[DecidedField]) -> FieldCount:
        rising = sorted(decided, key=lambda field: field.raw)
        raws, groups, begin = [field.raw for field in rising], list[tuple[float, int, int]](), 0
        size = max(LEAST_DECISIONS, len(rising) // 10)
        while begin < len(rising):
            end = bisect_right(raws, raws[min(begin + size, len(raws)) - 1])
            end = end if len(rising) - end >= size else len(rising)
            n_right = sum(field.is_right for field in rising[begin:end])
            groups.append((raws[begin], end - begin, n_right))
            begin = end
        return cls(tuple(groups), max(raws, default=0.0))

    @property
    def n(self) -> int:
        return sum(n for _, n, _ in self.groups)

    @property
    def n_right(self) -> int:
        return sum(n_right for *_, n_right in self.groups)

    def calibrated(self, raw: float) -> dict[str, Any] | None:
        """Return `p` and `low` of a probability; None where too little was reviewed.

        >>> fields = [DecidedField((), n / 100, n >= 40) for n in range(100)]
        >>> FieldCount.of(fields).calibrated(0.3)
        {'p': 0.2, 'low': 0.1124, 'is_calibrated': True}
        """
        at = bisect_right(self.groups, (raw, math.inf)) - 1
        if at < 0 or raw > self.highest or self.groups[at][1] < LEAST_DECISIONS:
            return None
        _, n, n_right = self.groups[at]
        low, _ = share_interval(n_right / n, n)
        return {"p": round(n_right / n, 4), "low": round(low, 4), "is_calibrated": True}


FieldCounts: TypeAlias = Mapping[FieldName, FieldCount]


def _counts_of(answers: Iterable[DecidedAnswer]) -> FieldCounts:
    found: dict[FieldName, list[DecidedField]] = {}
    for answer in answers:
        for decided in answer.fields:
            found.setdefault(decided.name, []).append(decided)
    return {name: FieldCount.of(decided) for name, decided in found.items()}


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

    def counts(self, item: tuple[str, str] | None = None, document_sha256: str = "") -> FieldCounts:
        """Return the counts without what was decided about an item, or its document elsewhere."""
        own = {item, document_sha256} - {None, ""}
        if own.isdisjoint(self._items_and_documents):
            return self._all_counts
        return _counts_of(
            answer
            for answer in self.answers
            if own.isdisjoint((answer.item, answer.document_sha256))
        )

    @cached_property
    def _items_and_documents(self) -> frozenset[Any]:
        both = ((answer.item, answer.document_sha256) for answer in self.answers)
        return frozenset(part for pair in both for part in pair)

    @cached_property
    def _all_counts(self) -> FieldCounts:
        return _counts_of(self.answers)


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
    newest = max(reviews, key=lambda review: review.asked_at)
    fields = [(review, tuple(reviewed_fields(review))) for review in reviews]
    return StepCalibration(
        key,
        model=newest.subject.model or "",
        at=newest.asked_at,
        answers=tuple(
            DecidedAnswer((review.scope, review.key), review.subject.document_sha256, some)
            for review, some in fields
            if some
        ),
        n_rejected=sum(review.state == "rejected" for review, some in fields if not some),
    )


def former_tables(
    key: CalibrationKey, tables: Mapping[CalibrationKey, StepCalibration]
) -> list[StepCalibration]:
    found = [
        table
        for other, table in tables.items()
        if other[:2] == key[:2] and other != key and table.answers
    ]
    return sorted(found, key=lambda table: -table.at)


def start_text(key: CalibrationKey, tables: Mapping[CalibrationKey, StepCalibration]) -> str | None:
    """Return why a step that was reviewed before is not calibrated yet; None: it is, or was not."""
    own, former = tables.get(key), former_tables(key, tables)
    n_answers = 0 if own is None else len(own.answers)
    if not former or n_answers >= LEAST_DECISIONS:
        return None
    n_former = len(former[0].answers)
    return (
        f"'{key.step}': its confidence has {n_answers:,} of {LEAST_DECISIONS} reviewed answers. "
        f"{counted(n_former, 'reviewed answer')} of another "
        f"{key.changes(former[0].key)} no longer count{'s' if n_former == 1 else ''}."
    )


def like_this_text(confidence: Mapping[str, Any] | None) -> str:
    """Return the lower bound of a calibrated value in words; empty where there is none.

    >>> like_this_text({"p": 0.94, "low": 0.888, "is_calibrated": True})
    'of 100 like this, 88 or more were right'
    """
    if confidence is None or not confidence.get("is_calibrated") or confidence.get("low") is None:
        return ""
    return f"of 100 like this, {math.floor(100 * confidence['low'])} or more were right"


def calibrated(confidence: Any, counts: FieldCounts, name: FieldName = ()) -> Any:
    """Return the confidence of an answer with `p` as people's decisions have it; `raw` stays.

    What is left of 1 is divided among the other values as before: `second_p` has its share of it.
    """
    if is_confidence(confidence):
        raw = confidence["raw"]
        found = None if raw is None or name not in counts else counts[name].calibrated(raw)
        if found is None or confidence.get("is_empty"):
            return confidence
        second_p, rest = confidence.get("second_p"), 1.0 - confidence["p"]
        if second_p is not None and rest > 0:
            second_p = round((1.0 - found["p"]) * min(second_p / rest, 1.0), 4)
        return {**confidence, **found, "second_p": second_p}
    if isinstance(confidence, Mapping):
        return {key: calibrated(part, counts, (*name, key)) for key, part in confidence.items()}
    if isinstance(confidence, list):
        return [calibrated(part, counts, name) for part in confidence]
    return confidence
