"""What expressions see: inputs, finished steps, loop variables, confidence and evidence.

`Scope` is the immutable set of names that an item's expressions see; plain JSON data only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from paddock.engine.system.text import path_text
from paddock.pipelines.checking.schema_parts import missing_keys, partial_keys
from paddock.pipelines.reply_schema import is_confidence
from paddock.pipelines.times import moments


class Scope(dict[str, Any]):
    """The names of one item's world. A child sees its parents'; nothing is ever changed in place.

    >>> scope = Scope.of({"folder": "in"}).with_step("text", {"text": "Hello"})
    >>> scope["steps"]["text"]
    {'text': 'Hello', 'skipped': False}
    """

    @classmethod
    def of(
        cls,
        inputs: Mapping[str, Any],
        secrets: Mapping[str, str] | None = None,
        moment: float | None = None,
    ) -> Scope:
        """Return the outermost scope; only the places that may read secrets name them.

        `moment`: when the run began, for `now` and `today`; None: what is asked reads neither.
        """
        named = {"secrets": dict(secrets)} if secrets else {}
        times = {} if moment is None else moments(moment)
        return cls(inputs=dict(inputs), steps={}, **named, **times)

    def child(self, names: str | Mapping[str, Any], item: Any = None) -> Scope:
        """Return the scope of one item of a `for_each`: one name and its value, or several."""
        added = {names: item} if isinstance(names, str) else names
        return Scope({**self, **added})

    def with_step(self, step_id: str, outputs: Mapping[str, Any] | None) -> Scope:
        """Return the scope in which this step, or block, is done; outputs None: it was skipped."""
        seen: dict[str, Any] = SkippedOutputs(skipped=True)
        if outputs is not None:
            seen = {**as_expressions_see(outputs), "skipped": False}
        if isinstance(outputs, WithFiled):
            whole = {**as_expressions_see(outputs.with_filed), "skipped": False}
            seen = WithFiled(seen, whole)
        return Scope({**self, "steps": {**self["steps"], step_id: seen}})

    def with_filed(self, names: Collection[str] | None = None) -> Scope | None:
        """Return the scope in which these steps' outputs, or all, have what is filed, too.

        None: nothing is filed of them.
        """
        steps = self["steps"].items()
        read = {name: outputs.with_filed for name, outputs in steps
                if isinstance(outputs, WithFiled) and (names is None or name in names)}  # fmt: skip
        return Scope({**self, "steps": {**self["steps"], **read}}) if read else None

    def is_skipped(self, step_id: str) -> bool:
        """Return whether a step was skipped; one that is not there was not."""
        return bool(self["steps"].get(step_id, {}).get("skipped"))


class WithFiled(dict[str, Any]):
    """Outputs made of a run's own items; `with_filed`: the same of filed ones, too, for tables."""

    def __init__(self, outputs: Mapping[str, Any], with_filed: Mapping[str, Any]) -> None:
        super().__init__(outputs)
        self.with_filed = with_filed


class SkippedOutputs(dict[str, Any]):
    """The outputs of a skipped step: whatever one asks for is null."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> None:
        """And it is null."""
        return


ABOUT_FIELDS = ("evidence", "confidence")
"""Outputs of a model's step that have the shape of its answer."""
CONFIDENCE_NAMES, EVIDENCE_NAMES = ("min", "mean", "low"), ("missing", "partial")
"""What they tell of the answer as a whole."""
ALL_FIELDS = "fields"
NAMES_OF_WHOLE: Mapping[str, tuple[str, ...]] = {
    "confidence": CONFIDENCE_NAMES,
    "evidence": EVIDENCE_NAMES,
}


class AnswerMirror(dict[str, Any]):
    """The fields of a mirror; values of the answer as a whole can be read, but are not listed.

    >>> mirror = AnswerMirror({"a": {"p": 0.5, "raw": 0.5}}, confidence_of_whole)
    >>> mirror["min"], "min" in mirror, list(mirror)
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


_OF_WHOLE: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
    "confidence": confidence_of_whole,
    "evidence": evidence_of_whole,
}


def as_expressions_see(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's outputs with mirrors that tell of the answer as a whole, too."""
    if _OF_WHOLE.keys().isdisjoint(outputs):
        return dict(outputs)
    mirrors = {
        name: AnswerMirror(outputs[name], of_whole)
        for name, of_whole in _OF_WHOLE.items()
        if isinstance(outputs.get(name), Mapping)
    }
    return {**outputs, **mirrors}


def review_names(outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names of `escalate.when` and `review.when` for a step's outputs.

    >>> review_names({"output": {"a": 1}, "text": "", "confidence": {"a": {"p": 0.5, "raw": 0.5}}})[
    ...     "confidence"]["min"]
    0.5
    """
    confidence, evidence = outputs.get("confidence"), outputs.get("evidence")
    return {
        "output": outputs.get("output"),
        "text": outputs.get("text"),
        "confidence": _names_of(confidence, confidence_of_whole(confidence)),
        "evidence": _names_of(evidence, evidence_of_whole(evidence)),
        "undecided": [],  # written in old pipelines
    }


def _names_of(mirror: Any, of_whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return the names under `confidence` or `evidence` in `review.when`."""
    fields = mirror if isinstance(mirror, Mapping) else {} if mirror is None else {"items": mirror}
    return {**fields, **of_whole, ALL_FIELDS: fields}


def probabilities(
    mirror: Any, path: tuple[str | int, ...] = (), bound: Literal["p", "low"] = "p"
) -> Iterator[tuple[tuple[str | int, ...], float]]:
    """Yield path and probability of each field of an answer, without those that a person wrote.

    With `bound="low"` it is the lower bound, where there is one.
    """
    if is_confidence(mirror):
        if mirror["raw"] is not None:
            yield path, float(mirror.get(bound, mirror["p"]) or 0.0)
    elif isinstance(mirror, Mapping | list):
        pairs = mirror.items() if isinstance(mirror, Mapping) else enumerate(mirror)
        for name, inner in pairs:
            yield from probabilities(inner, (*path, name), bound)
