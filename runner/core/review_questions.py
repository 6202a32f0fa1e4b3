"""When an answer waits for a person, what is asked, and what the decision makes of the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from difflib import SequenceMatcher
from typing import Any

from paddock.engine.system.samples import SEED, draw
from paddock.engine.system.text import canonical_json, one_line, path_text
from paddock.pipelines.expressions import Expression, ExpressionError, Reference
from paddock.pipelines.model import EvidenceSpec, ReviewSpec
from paddock.runner.bind.evidence_sources import EvidenceSource
from paddock.runner.bind.scope import evidence_of_whole, review_names
from paddock.runner.ledger.ledger import INLINE_CHARS, Ledger
from paddock.runner.ledger.reviews import Review, is_same_value
from paddock.steps.llm.confidence import is_confidence

MODE_OPTION = "--review accept"
"""Who decided, where a run was told to accept everything."""


# --- when a review is due


def is_due(spec: ReviewSpec, scope: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    """Return whether a person has to look at a step's answer.

    Raises:
        ExpressionError: `when` cannot be evaluated.
    """
    return bool(spec.when.evaluate({**scope, **review_names(outputs)}))


def is_drawn(spec: ReviewSpec, step: str, item: str) -> bool:
    """Return whether an item belongs to the random share that is asked about: always the same."""
    return spec.also is not None and draw(SEED, f"review\n{step}\n{item}") < spec.also


def asked_because(
    spec: ReviewSpec, scope: Mapping[str, Any], outputs: Mapping[str, Any], *, is_drawn: bool
) -> dict[str, Any]:
    """Return why an answer is asked about, as its question keeps it.

    `share` is None for an answer that was decided on before, and would not be asked about now.
    """
    due = is_due(spec, scope, outputs)
    why = due_reasons(spec.when, {**scope, **review_names(outputs)}, outputs) if due else []
    if spec.also is not None and is_drawn and not due:
        why = [f"a random check: {100 * spec.also:g}% of those that are sure"]
    return {
        "due": why,
        "least": least_sure(outputs),
        "share": spec.also if due or is_drawn else None,
        "is_sampled": is_drawn and not due,
    }


# --- why it is due: of the parts of `when` that `or` joins, those that hold, and of what. Where
# `when` is always true, what is most in doubt about the answer.


def least_sure(outputs: Mapping[str, Any]) -> float | None:
    """Return the least probability of an answer's fields; None where none is known."""
    return min((p for _, p in _leaves(outputs.get("confidence"))), default=None)


MOST_REASONS = 6
MOST_REASON_CHARS = 120
_MOST_NAMED = 4
_IN_DOUBT = 0.85
"""Probability below which a field is named where `when` says nothing: the page's own mark."""
_MOST_CHARS = 40
"""Of a value."""
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\w+|\s+|.""", re.DOTALL)
LEAST_CONFIDENCE = re.compile(r"\s*confidence\.min\s*(<=?)\s*(\d*\.?\d+)\s*")
_MISSING = re.compile(
    r"\s*evidence\.missing\s*(?:\|\s*(?:length|count)\s*(?:>\s*0|!=\s*0|>=\s*1)?)?\s*"
)


def due_reasons(
    when: Expression, scope: Mapping[str, Any], outputs: Mapping[str, Any]
) -> list[str]:
    """Return why an answer is due, a short sentence each; `scope` has the names of `when`."""
    found: list[str] = []
    for part in parts_that_hold(when, scope):
        found += _of_part(part, scope, outputs)
    found = found or list(doubts(outputs))
    return [one_line(one, MOST_REASON_CHARS) for one in dict.fromkeys(found)][:MOST_REASONS]


def parts_that_hold(when: Expression, scope: Mapping[str, Any]) -> list[str]:
    """Return the parts of a condition that `or` joins and that are true."""
    return [part for part in split_at(when.source, "or") if _holds(part, scope)]


def doubts(outputs: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is in doubt about an answer: values that stand nowhere, and unsure ones."""
    missing = evidence_of_whole(outputs.get("evidence"))["missing"]
    if missing:
        yield _missing_text(missing)
    yield from outputs.get("undecided") or ()
    yield from _unsure(outputs, _IN_DOUBT)


def split_at(source: str, word: str) -> list[str]:
    """Split an expression at `or` or `and`, but not within brackets, texts or a choice.

    >>> split_at("a < 1 or (b or c) or d == ' or '", "or")
    ['a < 1', '(b or c)', "d == ' or '"]
    """
    source = _without_brackets(source.strip())
    parts, depth = [""], 0
    for token in _TOKEN.findall(source):
        depth += (token in "([{") - (token in ")]}")
        if depth == 0 and token in ("if", "else"):
            return [source]
        if depth == 0 and token == word:
            parts.append("")
        else:
            parts[-1] += token
    return [part.strip() for part in parts]


def _without_brackets(source: str) -> str:
    """Return an expression without brackets around the whole."""
    while source.startswith("(") and source.endswith(")"):
        depth = 0
        tokens = _TOKEN.findall(source)
        for number, token in enumerate(tokens):
            depth += (token in "([{") - (token in ")]}")
            if depth == 0 and number + 1 < len(tokens):
                return source
        source = source[1:-1].strip()
    return source


def _holds(part: str, scope: Mapping[str, Any]) -> bool:
    try:
        return bool(Expression.of(part).evaluate(scope))
    except ExpressionError:  # one that a part before it guards
        return False


def _of_part(part: str, scope: Mapping[str, Any], outputs: Mapping[str, Any]) -> Iterator[str]:
    for one in split_at(part, "and"):
        if len(split_at(one, "or")) > 1:
            yield from (
                words
                for inner in split_at(one, "or")
                if _holds(inner, scope)
                for words in _of_part(inner, scope, outputs)
            )
        elif found := LEAST_CONFIDENCE.fullmatch(one):
            yield from _unsure(outputs, float(found[2]), is_equal_too=found[1] == "<=")
        elif re.fullmatch(r"undecided(?:\s*\|\s*(?:length|count))?(?:\s*>\s*0)?", one):
            yield from scope["undecided"]
        elif _MISSING.fullmatch(one):
            yield _missing_text(evidence_of_whole(outputs.get("evidence"))["missing"])
        else:
            yield from _values_read(one, scope)


def _missing_text(paths: Sequence[str]) -> str:
    verb = "stands" if len(paths) == 1 else "stand"
    return f"{_listed([path or 'the answer' for path in paths])} {verb} nowhere"


def _unsure(
    outputs: Mapping[str, Any], least: float, *, is_equal_too: bool = False
) -> Iterator[str]:
    """Yield the fields with a probability below `least`, the least sure first."""
    confidence = outputs.get("confidence")
    if confidence is None:
        if outputs.get("output") is not None and least < 1 and is_equal_too:
            yield "no confidence is known"
        return
    found = sorted(
        (p, path_text(path))
        for path, p in _leaves(confidence)
        if p < least or (is_equal_too and p == least)
    )
    for p, path in found[:_MOST_NAMED]:
        yield f"{path or 'the answer'} has {p:.0%}"
    if len(found) > _MOST_NAMED:
        yield f"{len(found) - _MOST_NAMED} more are below {least:.0%}"


def _leaves(
    confidence: Any, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], float]]:
    if is_confidence(confidence):
        if confidence["raw"] is not None:
            yield path, float(confidence["p"] or 0.0)
    elif isinstance(confidence, Mapping | list):
        pairs = confidence.items() if isinstance(confidence, Mapping) else enumerate(confidence)
        for name, inner in pairs:
            yield from _leaves(inner, (*path, name))


def _values_read(part: str, scope: Mapping[str, Any]) -> Iterator[str]:
    """Yield a part with the values that it reads; nothing of a constant."""
    named = []
    for path in sorted(Expression.of(part).references):
        value: Any = scope
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping | list):
            shown = value if isinstance(value, str) else _number_text(value)
            named.append(f"{'.'.join(path)} is {one_line(shown, _MOST_CHARS)}")
        else:
            named.append("")
    if named:
        told = _listed([one for one in named if one])
        yield f"{one_line(part, 2 * _MOST_CHARS)}" + (f": {told}" if told else "")


def _number_text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(words: Sequence[str]) -> str:
    some = list(words[:_MOST_NAMED])
    if len(words) > _MOST_NAMED:
        some.append(f"{len(words) - _MOST_NAMED} more")
    return " and ".join(filter(None, (", ".join(some[:-1]), some[-1]))) if some else ""


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


def text_objects(subject: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the objects of the ledger with the texts of a question."""
    texts = [*subject.get("sources", ()), subject.get("prompt_text") or {}]
    return tuple(one["text_object"] for one in texts if "text_object" in one)


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
    answer = {"text": value, "output": None, "undecided": []}
    if has_schema:
        answer |= {"text": json.dumps(value, ensure_ascii=False), "output": value}
    told["value"] = value
    was = answer_of(outputs)
    mirrors = {
        "evidence": _after_edit(outputs.get("evidence"), evidence, was, value),
        "confidence": _after_edit(
            outputs.get("confidence"), _of_person(outputs.get("confidence"), value), was, value
        ),
    }
    return {**outputs, **answer, **mirrors, "review": told}


_FROM_PERSON = {"p": None, "raw": None, "second": None, "second_p": None, "is_calibrated": False}
"""The confidence of a value that a person wrote: no model was asked."""


def _of_person(confidence: Any, value: Any) -> Any:
    """Return the confidence of a value that a person wrote; None where there was none before."""
    if confidence is None:
        return None
    if isinstance(value, Mapping):
        return {name: _of_person(confidence, one) for name, one in value.items()}
    if isinstance(value, list):
        return [_of_person(confidence, one) for one in value]
    return _FROM_PERSON


def _after_edit(before: Any, new: Any, was: Any, value: Any) -> Any:
    """Return a mirror of an edited answer: that from before for the fields that were not edited.

    Elements of a list are the same where their values are, so one that is added or removed leaves
    the others theirs.

    >>> _after_edit({"a": 1, "b": 2}, {"a": 3, "b": 4}, {"a": "x", "b": "y"}, {"a": "x", "b": "z"})
    {'a': 1, 'b': 4}
    """
    if before is None:
        return new
    if is_same_value(was, value):
        return before
    if all(isinstance(one, Mapping) for one in (before, was, value)):
        held = new if isinstance(new, Mapping) else {}
        return {
            name: _after_edit(before.get(name), held.get(name), was[name], one)
            if name in was
            else held.get(name)
            for name, one in value.items()
        }
    if all(isinstance(one, list) for one in (before, was, value)) and len(before) == len(was):
        return _list_after_edit(before, new if isinstance(new, list) else (), was, value)
    return new


def _list_after_edit(
    before: Sequence[Any], new: Sequence[Any], was: Sequence[Any], value: Sequence[Any]
) -> list[Any]:
    others = [*new, *[None] * len(value)]
    return [
        other if origin is None else _after_edit(before[origin], other, was[origin], element)
        for origin, other, element in zip(_origins(was, value), others, value, strict=False)
    ]


def _origins(was: Sequence[Any], now: Sequence[Any]) -> list[int | None]:
    """Return for each element of a list where it was before; None: it is new."""
    found: list[int | None] = [None] * len(now)
    before, after = ([canonical_json(one) for one in items] for items in (was, now))
    same = SequenceMatcher(None, before, after, autojunk=False)
    for kind, i, i_end, j, j_end in same.get_opcodes():
        if kind == "equal" or (kind == "replace" and i_end - i == j_end - j):
            found[j:j_end] = range(i, i_end)
    return found


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
