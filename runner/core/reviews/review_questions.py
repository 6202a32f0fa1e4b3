"""The question to a person about an answer: when one is due, why, and what it shows.

Of the parts of `when` that `or` joins, those that hold are the reasons, as sentences for people: of
confidence and evidence with the fields' names, of other conditions with the values that they read;
texts that a part itself has as its value are its author's own sentences. Where `when` is always
true, it is what is most in doubt about the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from paddock.engine.system.item_samples import SEED, draw
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import cell_text, one_line, path_text
from paddock.pipelines.checking.schema_parts import (
    Path,
    SchemaParts,
    is_empty,
    located_values,
    missing_keys,
    partial_keys,
)
from paddock.pipelines.expressions import Expression, ExpressionError, Reference
from paddock.pipelines.model import EvidenceSpec, ReviewSpec
from paddock.pipelines.references import UNSURE
from paddock.pipelines.text_cells import SourceText
from paddock.runner.bind.answer_names import probabilities, review_names
from paddock.runner.calibration.confidence_calibration import like_this_text
from paddock.runner.ledger.entries import INLINE_CHARS
from paddock.runner.ledger.reviews.reviews import Subject, SubjectText
from paddock.runner.rules.reasons import WhyOpen, why_text

if TYPE_CHECKING:
    from paddock.runner.ledger.ledger import Ledger

MOST_REASON_CHARS = 120
MOST_REASONS = 6
_MOST_NAMED = 4
_IN_DOUBT = 0.85
"""Probability below which a field is named where `when` says nothing: the page's own mark."""
_RIVAL = 0.1
"""A second value is named from this part of the first one's probability on, as the page does."""
_MOST_CHARS = 40
"""Most characters that are shown of a value."""
_TOKEN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\w+|\s+|.""", re.DOTALL)
LEAST_CONFIDENCE = re.compile(r"\s*confidence\.(?P<bound>min|low)\s*(<=?)\s*(\d*\.?\d+)\s*")
_MISSING = re.compile(
    r"\s*evidence\.(?P<what>missing|partial)\s*(?:\|\s*(?:length|count)\s*(?:>\s*0|!=\s*0|>=\s*1)?)?\s*"
)


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
    sources: Iterable[SourceText], ledger: Ledger, stored: Callable[[str], str]
) -> list[SubjectText]:
    """Return the texts that an answer was made of, long ones as objects of the ledger.

    `stored` returns a path as the ledger writes it.
    """
    found = []
    for source in sources:
        is_long = len(source.text) > INLINE_CHARS
        found.append(
            SubjectText(
                source.name,
                stored(source.path) if source.path else None,
                source.media_type or None,
                text=None if is_long else source.text,
                text_object=ledger.objects.put(source.text.encode()) if is_long else None,
                page_starts=tuple(source.page_starts),
                boxes_object=ledger.objects.put(json.dumps({**source.boxes}).encode())
                if source.boxes
                else None,
            )
        )
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


def iso_time(at: float | None) -> str | None:
    """Return a time as expressions see it.

    >>> iso_time(0.0)
    '1970-01-01T00:00:00Z'
    """
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


# --- why an answer waits for a person


def is_due(spec: ReviewSpec, scope: Mapping[str, Any], outputs: Mapping[str, Any]) -> bool:
    """Return whether a person has to look at a step's answer.

    Raises:
        ExpressionError: `when` cannot be evaluated.
    """
    return bool(spec.when.evaluate({**scope, **review_names(outputs)}))


def is_drawn(spec: ReviewSpec, step: str, item: str) -> bool:
    """Return whether an item belongs to the random share that is asked about: always the same."""
    return spec.also is not None and draw(SEED, f"review\n{step}\n{item}") < spec.also


def with_reasons(
    subject: Subject,
    spec: ReviewSpec,
    scope: Mapping[str, Any],
    *,
    is_drawn: bool,
    schema: Any,
    second_evidence: Any = None,
) -> Subject:
    """Return a subject with why its answer, of a JSON Schema, is asked about.

    `second_evidence` is that of `second_answer`.
    `share` is None for an answer that was decided on before, and would not be asked about now.
    """
    outputs = subject.outputs or {}
    due = is_due(spec, scope, outputs)
    names = {**scope, **review_names(outputs)}
    why = due_reasons(spec.when, names, outputs, schema, second_evidence) if due else []
    if spec.also is not None and is_drawn and not due:
        why = [f"A random check: {100 * spec.also:g}% of those that are sure"]
    return replace(
        subject,
        due=tuple(why),
        least=min((p for _, p in probabilities(subject.confidence)), default=None),
        share=spec.also if due or is_drawn else None,
        is_sampled=is_drawn and not due,
    )


def due_reasons(
    when: Expression,
    scope: Mapping[str, Any],
    outputs: Mapping[str, Any],
    schema: Any = None,
    second_evidence: Any = None,
) -> list[str]:
    """Return why an answer is due, a short sentence each; `scope` has the names of `when`."""
    located = located_values(second_evidence)
    stands = frozenset(path for path, match in located if match not in ("none", "fuzzy"))
    answer = _Answer(outputs, SchemaParts.of(schema), stands)
    found = [
        reason for part in parts_that_hold(when, scope) for reason in _of_part(part, scope, answer)
    ] or [*answer.missing(), *answer.partial(), *answer.unsure(_IN_DOUBT)]
    shown = (one_line(reason, MOST_REASON_CHARS) for reason in dict.fromkeys(found))
    return [reason[:1].upper() + reason[1:] for reason in shown][:MOST_REASONS]


def second_answer(outputs: Mapping[str, Any]) -> Any:
    """Return an answer with the model's second choice for each field that has one."""
    answer, confidence = deepcopy(outputs.get("output")), outputs.get("confidence")
    for path, _ in probabilities(confidence):
        second = _leaf(confidence, path).get("second")
        if second is not None and path:
            _leaf(answer, path[:-1])[path[-1]] = second
    return answer


def parts_that_hold(when: Expression, scope: Mapping[str, Any]) -> list[str]:
    return [part for part in split_at(when.source, "or") if _holds(part, scope)]


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


def _of_part(part: str, scope: Mapping[str, Any], answer: _Answer) -> Iterator[str]:
    for condition in split_at(part, "and"):
        if len(split_at(condition, "or")) > 1:
            yield from (
                words
                for inner in split_at(condition, "or")
                if _holds(inner, scope)
                for words in _of_part(inner, scope, answer)
            )
        elif found := LEAST_CONFIDENCE.fullmatch(condition):
            bound: Literal["p", "low"] = "p" if found["bound"] == "min" else "low"
            yield from answer.unsure(float(found[3]), bound, is_equal_too=found[2] == "<=")
        elif condition.strip() == UNSURE:
            yield from answer.why_open(scope[UNSURE])
        elif found := _MISSING.fullmatch(condition):
            yield from answer.missing() if found["what"] == "missing" else answer.partial()
        else:
            yield from _of_values(Expression.of(condition), scope)


def _of_values(condition: Expression, scope: Mapping[str, Any]) -> Iterator[str]:
    value = condition.evaluate(scope)
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        yield from value
        return
    named = list[str]()
    for path in sorted(condition.references):
        value = scope
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping | list):
            shown = value if isinstance(value, str) else _number_text(value)
            named.append(f"{_name(path[-1:])}: {one_line(shown, _MOST_CHARS)}")
    if condition.references:
        yield _listed(named) or one_line(condition.source, 2 * _MOST_CHARS)


_PARTIAL_WORDS = {
    "year": "without its year",
    "range": "in a range",
    "order": "with day and month in an unclear order",
    "month": "with a name of two months",
}


class _Answer(Struct, frozen=True):
    """What is in doubt about an answer, in sentences."""

    outputs: Mapping[str, Any]
    schema: SchemaParts
    second_stands: Collection[Path] = ()
    """Fields whose second choice stands in the sources too."""

    def why_open(self, fields: Iterable[str]) -> Iterator[str]:
        readings = self.outputs.get("readings") or {}
        by_reason = dict[tuple[str, str], list[str]]()
        for name in sorted(fields, key=lambda name: "new" not in readings.get(name, {})):  # doubts
            how = {"open": WhyOpen.NO_PLACE.name, **readings.get(name, {})}
            form = "{} ({})" if how.get("left") and "new" not in how else "{}: {}"
            by_reason.setdefault((form, why_text(how, 1)), []).append(f"the {_name((name,))}")
        yield from (form.format(why, _listed(names)) for (form, why), names in by_reason.items())

    def missing(self) -> Iterator[str]:
        empty, nowhere = list[str](), list[str]()
        for path in missing_keys(self.outputs.get("evidence")):
            (empty if self._is_empty(path) else nowhere).append(self._name(path))
        for names, what in ((empty, "empty"), (nowhere, "not on the page")):
            if names:
                yield f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {what}"

    def partial(self) -> Iterator[str]:
        for path in partial_keys(self.outputs.get("evidence")):
            reason = _leaf(self.outputs["evidence"], path)["reason"]
            yield f"{self._name(path)} stands {_PARTIAL_WORDS[reason]}"

    def unsure(
        self, least: float, bound: Literal["p", "low"] = "p", *, is_equal_too: bool = False
    ) -> Iterator[str]:
        """Yield the fields with a probability, or its lower bound, below `least`.

        Those for which the model had two values come first, then the least sure.
        """
        confidence, output = self.outputs.get("confidence"), self.outputs.get("output")
        if confidence is None:
            if output is not None and least < 1 and is_equal_too:
                yield "no confidence is known"
            return
        found = sorted(
            (p, path_text(path), path)
            for path, p in probabilities(confidence, bound=bound)
            if p < least or (is_equal_too and p == least)
        )
        unsure, empty = list[str](), list[str]()
        for p, _, path in found:
            name, leaf = self._name(path), _leaf(confidence, path)
            second, rival_p = leaf.get("second"), leaf.get("second_p") or 0.0
            if p == 0 and self._is_empty(path):
                empty.append(name)
            elif bound == "low" and (like_this := like_this_text(leaf)):
                yield f"{name}: {like_this}"
            elif second is not None and p < _IN_DOUBT and rival_p >= _RIVAL * p:
                both = f"{cell_text(_leaf(output, path))} and {cell_text(second)}"
                if path in self.second_stands:
                    yield f"two values for {name}: {both}"
                else:
                    yield f"{name}: the model wavered between {both}"
            else:
                unsure.append(f"{name} ({p:.0%})")
        if empty:
            yield f"{_listed(empty)} {'is' if len(empty) == 1 else 'are'} empty"
        if unsure:
            yield f"the model is not sure of {_listed(unsure)}"

    def _name(self, path: Path) -> str:
        """Return the name of a field for people: "the due date" of `due: date`."""
        if not path:
            return "the answer"
        part = self.schema
        for name in path:
            part = part.item(name) if isinstance(name, int) else part.field(name)
        words = _name(path)
        is_date = any(found.get("format") == "date" for found in part.parts)
        has_word = words.endswith(("date", "day"))
        return f"the {words} date" if is_date and not has_word else f"the {words}"

    def _is_empty(self, path: Path) -> bool:
        value = _leaf(self.outputs.get("output"), path)
        return value == [] or is_empty(value)


def _leaf(value: Any, path: Path) -> Any:
    for name in path:
        value = value[name]
    return value


def _name(path: Sequence[str | int]) -> str:
    return path_text(path).replace("_", " ")


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
