"""Outputs of a step after a decision: the answer as accepted or edited."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from paddock.engine.system.text import canonical_json
from paddock.runner.ledger.reviews.asked_before import is_same_value

from ..run_records import answer_of
from .review_questions import iso_time

if TYPE_CHECKING:
    from paddock.runner.ledger.reviews.reviews import Review


def decided_outputs(
    outputs: Mapping[str, Any], review: Review, has_schema: bool, evidence: Any = None
) -> dict[str, Any]:
    """Return a step's outputs after its answer was accepted or edited.

    `evidence` is that of the edited values.
    """
    outcome: dict[str, Any] = {
        "state": review.state,
        "by": review.by,
        "at": iso_time(review.decided_at),
    }
    if review.state != "edited":
        return {**outputs, "review": outcome}
    outcome["value"] = review.value
    edited = with_answer(outputs, review.value, has_schema=has_schema, evidence=evidence)
    return {**edited, "review": outcome}


def with_answer(
    outputs: Mapping[str, Any],
    value: Any,
    *,
    has_schema: bool,
    evidence: Any,
    known: Collection[str] = (),
) -> dict[str, Any]:
    """Return a step's outputs with another answer, and its evidence.

    `known`: fields that no model was needed for, so that it is not right if it says the same.
    """
    answer = {"text": value, "output": None}
    if has_schema:
        answer |= {"text": json.dumps(value, ensure_ascii=False), "output": value}
    was = answer_of(outputs)
    of_person = _of_person(outputs.get("confidence"), value)
    confidence = after_edit(outputs.get("confidence"), of_person, was, value)
    if known and isinstance(confidence, Mapping):
        confidence = {n: of_person[n] if n in known else c for n, c in confidence.items()}
    of_evidence = after_edit(outputs.get("evidence"), evidence, was, value)
    return {**outputs, **answer, "evidence": of_evidence, "confidence": confidence}


_FROM_PERSON = {**dict.fromkeys(("p", "low", "raw", "second", "second_p")), "is_calibrated": False}
"""The confidence of a value that a person wrote: no model was asked."""


def _of_person(confidence: Any, value: Any) -> Any:
    """Return the confidence of a value that a person wrote; None where there was none before."""
    if confidence is None:
        return None
    if isinstance(value, Mapping):
        return {name: _of_person(confidence, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_of_person(confidence, inner) for inner in value]
    return _FROM_PERSON


def after_edit(before: Any, new: Any, was: Any, value: Any) -> Any:
    """Return the evidence or confidence of an edited answer: as before, where nothing was edited.

    Elements of a list are the same where their values are, so that one that is added or removed
    changes nothing for the others.

    >>> after_edit({"a": 1, "b": 2}, {"a": 3, "b": 4}, {"a": "x", "b": "y"}, {"a": "x", "b": "z"})
    {'a': 1, 'b': 4}
    """
    if before is None:
        return new
    if is_same_value(was, value):
        return before
    if all(isinstance(each, Mapping) for each in (before, was, value)):
        of_new = new if isinstance(new, Mapping) else {}
        return {
            name: after_edit(before.get(name), of_new.get(name), was[name], inner)
            if name in was
            else of_new.get(name)
            for name, inner in value.items()
        }
    if all(isinstance(each, list) for each in (before, was, value)) and len(before) == len(was):
        others = [*(new if isinstance(new, list) else ()), *[None] * len(value)]
        return [
            other if origin is None else after_edit(before[origin], other, was[origin], element)
            for origin, other, element in zip(_origins(was, value), others, value, strict=False)
        ]
    return new


def _origins(was: Sequence[Any], now: Sequence[Any]) -> list[int | None]:
    origins: list[int | None] = [None] * len(now)
    before, after = ([canonical_json(item) for item in items] for items in (was, now))
    same = SequenceMatcher(None, before, after, autojunk=False)
    for kind, i, i_end, j, j_end in same.get_opcodes():
        if kind == "equal" or (kind == "replace" and i_end - i == j_end - j):
            origins[j:j_end] = range(i, i_end)
    return origins
