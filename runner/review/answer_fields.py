"""A review as text: the fields of its answer, an edited answer from texts, and words for people.

The page, the terminal and CSV files show and take the same texts; the terminal, `paddock why` and
reports use the same words. The page shows a window of a document's text, with the fields
in it. A text that was not changed leaves its value as it is, so that no number is rounded on its
way through a form. Pure.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from paddock.engine.system import units
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import cell_text, counted, one_line, path_text
from paddock.pipelines.checking.schema_parts import SchemaParts
from paddock.pipelines.checking.source_index import date_in, number_in
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.label_choices import is_stand_in
from paddock.pipelines.text_cells import SourceText
from paddock.runner import rules
from paddock.runner.calibration.confidence_calibration import like_this_text
from paddock.runner.core.reviews.decided_outputs import after_edit
from paddock.runner.ledger.reviews.reviews import Review, Subject

FieldKind = Literal["text", "number", "choice", "json"]
FieldKeys = tuple[str | int, ...]

_KIND_OF_TYPE: Mapping[str, FieldKind] = {
    "string": "text",
    "number": "number",
    "integer": "number",
    "object": "json",
    "array": "json",
}
_OPEN_NUMBER = re.compile(r"(?<![\w.,'])([1-9]\d{0,2})([.,])(\d{3})(?![\w.,'])")
_MOST_LINE_CHARS = 300
"""A window of a text begins up to so much earlier, at the beginning of a line."""


class WrongField(ValueError):
    """A change that names no field, may be two numbers, or is no JSON; a sentence."""

    def __init__(self, sentence: str, path: str = "") -> None:
        super().__init__(sentence)
        self.path = path
        """Of the field; empty where it is none of the answer's."""


class AnswerField(Struct, frozen=True):
    """One leaf of an answer. A whole answer that is a text is one field with an empty path."""

    keys: FieldKeys
    kind: FieldKind
    value: Any
    choices: tuple[Any, ...] = ()
    is_nullable: bool = False
    description: str = ""
    confidence: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] | None = None
    is_date: bool = False

    @property
    def path(self) -> str:
        return path_text(self.keys)

    @property
    def text(self) -> str:
        return cell_text(self.value)

    def typed(self, text: str) -> Any:
        """Return the value that a person means by this text, such as `61,40` or `3 May 2027`.

        What is no number or date, or may be two, stays text, so that the schema refuses it.
        """
        if text == self.text:
            return self.value
        if self.is_nullable and not text.strip():
            return None
        if self.kind == "choice":
            return next(
                (choice for choice in self.choices if cell_text(choice) == text.strip()), text
            )
        if self.kind == "text":
            return (self.is_date and date_in(text)) or text
        try:
            value = answer_from_json(text.strip())
        except WrongField:
            value = number_in(text) if self.kind == "number" else None
        if isinstance(value, float) and not math.isfinite(value):
            return text
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return text if value is None or (self.kind == "number" and not is_number) else value


def answer_fields(
    answer: Any, schema: Any, evidence: Any = None, confidence: Any = None
) -> list[AnswerField]:
    """Return the leaves of an answer, in its order; empty lists and objects count as leaves.

    >>> schema = {"properties": {"total": {"type": ["number", "null"]}}}
    >>> [(one.path, one.kind, one.text) for one in answer_fields({"total": 8.5}, schema)]
    [('total', 'number', '8.5')]
    """
    return list(_fields((), answer, SchemaParts.of(schema), (evidence, confidence)))


def shown_subject(review: Review, located: Any = None) -> Subject:
    """Return a review's subject with the answer that a person sees; `located`: its evidence."""
    subject, answer = review.subject, review.shown_answer
    was = subject.answer
    evidence, confidence = (
        after_edit(of_model, of_answer, was, answer)
        for of_model, of_answer in ((subject.evidence, located), (subject.confidence, None))
    )
    return replace(subject, answer=answer, evidence=evidence, confidence=confidence)


def subject_fields(subject: Subject) -> list[AnswerField]:
    return answer_fields(subject.answer, subject.schema, subject.evidence, subject.confidence)


def shown_fields(review: Review) -> list[AnswerField]:
    return subject_fields(shown_subject(review))


def changed_fields(before: Any, after: Any) -> list[tuple[str, Any, Any]]:
    """Return (path, value before, value after) of the leaves that differ; None where one is not.

    >>> changed_fields({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
    [('b', 2, 3), ('c', None, 4)]
    """
    was, now = (
        {field.path: field.value for field in answer_fields(x, None)} for x in (before, after)
    )
    return [
        (path, was.get(path), now.get(path))
        for path in dict.fromkeys((*was, *now))
        if path not in was or path not in now or cell_text(was[path]) != cell_text(now[path])
    ]


def _fields(
    keys: FieldKeys, value: Any, schema: SchemaParts, mirrors: tuple[Any, Any]
) -> Iterator[AnswerField]:
    if isinstance(value, Mapping | list) and value:
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            of_inner = schema.item(key) if isinstance(key, int) else schema.field(key)
            inner_mirrors = (_inner(mirrors[0], key), _inner(mirrors[1], key))
            yield from _fields((*keys, key), inner, of_inner, inner_mirrors)
        return
    kind, choices = _kind(schema, value)
    is_nullable = schema.is_nullable or schema.lists(None) or (kind == "json" and value is None)
    evidence, confidence = (
        mirror if isinstance(mirror, Mapping) and mirror else None for mirror in mirrors
    )
    words = next((str(part["description"]) for part in schema.parts if "description" in part), "")
    is_date = any(part.get("format") == "date" for part in schema.parts)
    yield AnswerField(keys, kind, value, choices, is_nullable, words, confidence, evidence, is_date)


def _inner(mirror: Any, key: str | int) -> Any:
    if isinstance(mirror, Mapping):
        return mirror.get(key)
    is_there = isinstance(mirror, list) and isinstance(key, int) and key < len(mirror)
    return mirror[key] if is_there else None


def _kind(schema: SchemaParts, value: Any) -> tuple[FieldKind, tuple[Any, ...]]:
    types: list[Any] = []
    choices: list[Any] = []
    for part in schema.parts:
        named, values = part.get("type"), part.get("enum")
        types += named if isinstance(named, list) else [named]
        choices += values if isinstance(values, list) and not is_stand_in(part) else []
        choices += [part["const"]] if "const" in part else []
    if "boolean" in types and not choices:
        choices = [True, False]
    if choices or any(map(is_stand_in, schema.parts)):
        return "choice", tuple(choice for choice in choices if choice is not None)
    kinds = {_KIND_OF_TYPE[name] for name in types if name in _KIND_OF_TYPE}
    if len(kinds) == 1:
        return kinds.pop(), ()
    return ("text" if isinstance(value, str) else "json"), ()


def edited_answer(
    answer: Any, fields: Sequence[AnswerField], changes: Mapping[str, str], decimal_mark: str = ""
) -> Any:
    """Return the answer with these texts in place of the fields' own, by path.

    `decimal_mark`: the person's own; empty: `1.234` is not read, as it may be two numbers.

    Raises:
        WrongField: a path is none of the answer's, or a text may be two numbers.

    >>> fields = answer_fields({"n": 1, "s": "a"}, {"properties": {"n": {"type": "integer"}}})
    >>> edited_answer({"n": 1, "s": "a"}, fields, {"n": "12"})
    {'n': 12, 's': 'a'}
    """
    by_path = {field.path: field for field in fields}
    edited = copy.deepcopy(answer)
    for path, text in changes.items():
        field = by_path.get(path)
        if field is None:
            remedy = did_you_mean(path, by_path) or "Its fields are those of the model's answer."
            raise WrongField(f"the answer has no field '{path}'. {remedy}")
        found = _OPEN_NUMBER.search(text) if field.kind == "number" else None
        if found is not None and text != field.text:
            whole, fraction = found[1] + found[3], f"{found[1]}.{found[3]}0"
            if not decimal_mark:
                what = f"'{found[0]}' may be two numbers. Write {whole} or {fraction}."
                raise WrongField(what, path)
            text = _OPEN_NUMBER.sub(fraction if found[2] == decimal_mark else whole, text)
        if not field.keys:
            return field.typed(text)
        inner = edited
        for key in field.keys[:-1]:
            inner = inner[key]
        inner[field.keys[-1]] = field.typed(text)
    return edited


def answer_from_json(text: str) -> Any:
    """Return the answer that a person wrote as JSON.

    Raises:
        WrongField: it is no JSON: where and why.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise WrongField("the JSON is nested too deeply.") from None
    except ValueError as error:
        raise WrongField(f"this is no JSON: {error}.") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


MAX_VALUE_CHARS = 60
RIVAL = 0.1
"""A second value is shown from this part of the first one's probability on."""


def shown_item(review: Review) -> str:
    return review.subject.document or review.item


def earlier_lines(review: Review) -> Iterator[str]:
    """Yield the earlier decisions about an answer, newest first, a line each."""
    for decision in review.earlier:
        is_other = decision.get("document_sha256") != review.subject.document_sha256
        since = "; the document has changed since" if is_other else ""
        reason = f": {decision['reason']}" if decision.get("reason") else ""
        author = f" by {decision['by']}" if decision.get("by") else ""
        at = decision.get("at")
        when = units.local_time(at, "%Y-%m-%d %H:%M") if at else "?"
        yield f"earlier: {decision.get('state')}{author}, {when}{reason}{since}"


def sure_text(confidence: Mapping[str, Any] | None) -> str:
    """Return how sure a value is, and its runner-up, in brackets; empty if it is not known.

    >>> sure_text({"p": 0.94, "is_calibrated": False})
    '  (94%, uncalibrated)'
    >>> sure_text({"p": 0.94, "low": 0.88, "is_calibrated": True})
    '  (94%; of 100 like this, 88 or more were right)'
    """
    if confidence is None or confidence.get("p") is None:
        return ""
    if confidence.get("is_empty"):
        return "  (empty)"
    is_raw = confidence.get("is_calibrated") is False  # an old record does not tell
    words = f"  ({confidence['p']:.0%}{', uncalibrated' if is_raw else ''}"
    words += f"; {alike}" if (alike := like_this_text(confidence)) else ""
    second_p = confidence.get("second_p")
    if confidence.get("second") is not None and (second_p or 0.0) >= RIVAL * confidence["p"]:
        other = one_line(cell_text(confidence["second"]), MAX_VALUE_CHARS) or '""'
        words += f"; else {other} {second_p or 0.0:.0%}"
    return f"{words})"


def place_text(evidence: Mapping[str, Any]) -> str:
    if evidence.get("match") == "none" or evidence.get("quote") is None:
        return "not found in the document"
    hints = {"fuzzy": "not found; similar: ", "partial": "in part: "}
    where = hints.get(str(evidence.get("match")), "") + str(evidence.get("source") or "")
    if evidence.get("page") is not None:
        where += f", page {evidence['page']}"
    elif evidence.get("line") is not None:
        where += f", line {evidence['line']}"
    quote = f'"{one_line(str(evidence["quote"]))}"'
    n_others = evidence.get("others") or 0
    others = f" and {counted(n_others, 'more place')}" if n_others else ""
    return f"{where.lstrip(', ')}: {quote}{others}".lstrip(": ")


Span = tuple[int, int, str]
"""Start, end and field of a quote, or `left_path`."""


def left_path(key: str) -> str:
    """Return what stands for a piece that is left over where fields have their paths."""
    return f"\0{key}"


def shown_spans(subject: Subject, source: str) -> list[Span]:
    quotes = ((field.path, field.evidence or {}) for field in subject_fields(subject))
    spans = [
        (evidence["start"], evidence["end"], path)
        for path, evidence in quotes
        if isinstance(evidence.get("start"), int)
        and isinstance(evidence.get("end"), int)
        and evidence.get("source") in (source, None)
    ]
    left = () if subject.sources[1:] else subject.left_over.items()
    return [(start, end, left_path(key)) for key, (_, start, end, _) in left if start >= 0] + spans


def page_words(source: SourceText, page: int, offers: str) -> list[list[Any]]:
    """Return each word of a page: what a click on it means, with its bounds, and the word's box.

    A word is the value that rules would read there, if it is a part of one: the day of `3 May`.
    What is or may be its sign is a part of an amount. `offers`: packed.
    """
    lines, found = rules.Offers.unpack(offers).lines, list[list[Any]]()
    values = [(v.written, *v.digits) for line in lines for v in line.values]
    cells = source.cells(page) if 0 < page <= len(source.part_starts) else []
    signed = rules.signed_amounts(source, page) if any(cell.box for cell in cells) else []
    for cell in cells:
        shown = source.text[cell.start : cell.end].strip(".,;:|()[]\"'")
        if cell.box is None or not shown:
            continue
        start = source.text.index(shown, cell.start)
        end = start + len(shown)
        parts = [v for v in values if v[1] < cell.end and cell.start < v[2]]
        if parts and all(written != shown for written, *_ in parts):
            _, start, end = min(parts, key=lambda value: value[2] - value[1])
            shown = source.text[start:end]
        for amount, first, last in signed:
            if first < cell.end and cell.start < last:
                shown, start, end = amount, first, last
        found.append([shown, start, end, *cell.box])
    return found


def text_window(text: str, start: int, n: int, spans: Sequence[Span]) -> dict[str, Any]:
    """Return a part of a text from the beginning of a line, cut where quotes begin and end.

    >>> text_window("pay 84.00 now", 0, 100, [(4, 9, "total")])["parts"]
    [['pay ', []], ['84.00', ['total']], [' now', []]]
    """
    start = max(0, min(start, len(text)))
    end = min(len(text), start + n)
    start = text.rfind("\n", max(0, start - _MOST_LINE_CHARS), start) + 1 or start
    inside = [span for span in spans if span[0] < end and span[1] > start]
    bounds = {max(start, min(end, bound)) for span in inside for bound in span[:2]}
    parts = [
        [text[left:right], [path for first, last, path in inside if first <= left < last]]
        for left, right in pairwise(sorted({start, end, *bounds}))
    ]
    return {"start": start, "end": end, "total": len(text), "parts": parts}
