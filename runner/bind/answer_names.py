"""Names of an answer's confidence and evidence: by field, and of the answer as a whole.

Expressions read it as `steps.NAME.confidence.min`, `review.when` as `confidence.min`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from paddock.engine.system.text import path_text
from paddock.pipelines.checking.schema_parts import missing_keys, partial_keys
from paddock.pipelines.references import UNSURE
from paddock.pipelines.reply_schema import is_confidence

ALL_FIELDS = "fields"
"""The name under which `escalate.when` and `review.when` find all fields, whatever their names."""


class AboutFields(dict[str, Any]):
    """Confidence or evidence by field; what it tells of the whole can be read, but is not listed.

    >>> confidence = AboutFields({"a": {"p": 0.5, "raw": 0.5}}, confidence_of_whole)
    >>> confidence["min"], "min" in confidence, list(confidence)
    (0.5, True, ['a'])
    """

    def __init__(
        self, fields: Mapping[str, Any], of_whole: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        super().__init__(fields)
        self._of_whole = partial(of_whole, fields)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._of_whole()

    def __missing__(self, name: str) -> Any:
        return self._of_whole()[name]

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]  # `dict.get` does not see what is missing
        except KeyError:
            return default


def probabilities(
    confidence: Any, path: tuple[str | int, ...] = (), bound: Literal["p", "low"] = "p"
) -> Iterator[tuple[tuple[str | int, ...], float]]:
    """Yield path and probability of each field of an answer, without those that a person wrote.

    With `bound="low"` it is the lower bound, where there is one.
    """
    if is_confidence(confidence):
        if confidence["raw"] is not None:
            yield path, float(confidence.get(bound, confidence["p"]) or 0.0)
    elif isinstance(confidence, Mapping | list):
        pairs = confidence.items() if isinstance(confidence, Mapping) else enumerate(confidence)
        for name, inner in pairs:
            yield from probabilities(inner, (*path, name), bound)


def confidence_of_whole(confidence: Any) -> dict[str, Any]:
    """Return the least and the mean probability of an answer's fields, and the least lower bound.

    0 where none is known.
    """
    values = [p for _, p in probabilities(confidence)]
    lows = [p for _, p in probabilities(confidence, bound="low")]
    mean = sum(values) / max(1, len(values))
    return {"min": min(values, default=0.0), "mean": mean, "low": min(lows, default=0.0)}


def evidence_of_whole(evidence: Any) -> dict[str, Any]:
    """Return the paths of the values that stand nowhere, and of those that stand in part."""
    return {
        "missing": [path_text(path) for path in missing_keys(evidence)],
        "partial": [path_text(path) for path in partial_keys(evidence)],
    }


OF_WHOLE: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
    "confidence": confidence_of_whole,
    "evidence": evidence_of_whole,
}
"""Outputs of a model's step that have the shape of its answer, and what they tell of the whole."""


def as_expressions_see(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's outputs, whose confidence and evidence tell of the whole answer, too."""
    if OF_WHOLE.keys().isdisjoint(outputs):
        return dict(outputs)
    about_fields = {
        name: AboutFields(outputs[name], of_whole)
        for name, of_whole in OF_WHOLE.items()
        if isinstance(outputs.get(name), Mapping)
    }
    return {**outputs, **about_fields}


def review_names(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of `escalate.when` and `review.when` for a step's outputs.

    >>> review_names({"output": {"a": 1}, "text": "", "confidence": {"a": {"p": 0.5, "raw": 0.5}}})[
    ...     "confidence"]["min"]
    0.5
    """
    output = outputs.get("output")
    names = {"output": output, "text": outputs.get("text")}
    names[UNSURE] = open_fields(output, outputs.get("readings"))
    for name, of_whole in OF_WHOLE.items():
        about = outputs.get(name)
        fields = {} if about is None else {"items": about}
        if isinstance(about, Mapping):
            fields = dict(about)
        names[name] = {**fields, **of_whole(about), ALL_FIELDS: fields}
    return names


def open_fields(answer: Any, readings: Any) -> list[str]:
    """Return the fields of an answer of which no reading is sure: `answer` if it has none."""
    names = answer if isinstance(answer, Mapping) else ["answer"]
    return [name for name in names if "open" in (readings or {}).get(name, ("open",))]
