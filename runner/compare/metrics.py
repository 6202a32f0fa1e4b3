"""Metrics: how much of an answer agrees with gold, field by field. Pure.

Each score is between 0 and 1. Fields are the first level of an answer; an answer without a schema
is one field with an empty name. What a metric cannot read in the gold data is a fault with its
place; what it cannot read in an answer is wrong.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from unicodedata import normalize

import numpy as np

from paddock.engine.system.records import Struct
from paddock.engine.system.text import canonical_json, cell_text
from paddock.pipelines.checking.functions import numbers_found
from paddock.pipelines.checking.source_index import DayAndTime, sought_in
from paddock.pipelines.comparison_keys import MetricName
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.reply_check import is_refused
from paddock.runner.calibration.list_alignment import aligned
from paddock.runner.ledger.reviews.asked_before import is_same_value
from paddock.runner.review.answer_fields import AnswerField, answer_fields

MOST_EXACT_CHARS = 60
"""A text field with longer gold is compared by edit distance."""
MOST_EDIT_CHARS = 4_000
"""Longer texts are compared by words: 4,000 characters take 60 ms. What has more words is cut into
as many parts as take that each, so that the time grows with the length and not with its square."""
_MOST_WORD_CHARS = 20
"""On average; longer words are a writing without spaces, such as Chinese."""
MOST_CONFUSED = 30
"""With more labels there is no confusion matrix: no one could read it."""
_SHOWN = 40


class GoldNotFitting(ValueError):
    """A value of the gold data that its metric cannot use; the end of a sentence."""


class FieldMetric(Struct, frozen=True):
    name: str
    """Of the field; empty for an answer that is a text."""
    kind: MetricName
    tolerance: float = 0.0
    """Of numbers: how far off is right."""
    field: AnswerField | None = None
    """What the schema says of it."""

    def gold(self, value: Any) -> Any:
        """Return a gold value as this metric compares it; a text of a CSV as the field's type.

        Raises:
            GoldNotFitting: it cannot be compared so.
        """
        if isinstance(value, str) and self.field is not None and self.kind != "list":
            value = self.field.typed(value)
        refuses = _REFUSALS.get(self.kind)
        if self.kind == "list" and isinstance(value, str):
            # The list that a cell holds: JSON, or texts with `;` between them.
            if value.lstrip().startswith("["):
                with suppress(ValueError):
                    value = json.loads(value)
            else:
                value = [part.strip() for part in value.split(";") if part.strip()]
        if refuses is not None and (what := refuses(value)):
            what = f"{_shown(value)} {what}"
            raise GoldNotFitting(f"{what}, so metric '{self.kind}' does not fit it")
        return value

    def unknown_label(self, gold: Any) -> str:
        """Return why no answer can agree with a label of the gold data; empty: one can."""
        choices = self.field.choices if self.field is not None and self.kind == "label" else ()
        if not choices or normalise_label(gold) in map(normalise_label, choices):
            return ""
        known = did_you_mean(cell_text(gold), map(cell_text, choices))
        return f"{_shown(gold)} is no value of the field, so no answer agrees with it. {known}"

    def score(self, answer: Any, gold: Any) -> float:
        if self.kind == "number":
            number = _number_in(answer)
            return float(number is not None and abs(number - float(gold)) <= self.tolerance + 1e-12)
        return _SCORES[self.kind](answer, gold)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:_SHOWN]


def field_metrics(
    schema: Any, golds: Mapping[str, Sequence[Any]], chosen: Mapping[str, tuple[MetricName, float]]
) -> list[FieldMetric]:
    """Return the metrics of the fields that gold has, as chosen, else by schema and values."""
    known = {
        field.path: field
        for field in answer_fields(dict.fromkeys(golds), schema)
        if field.path in golds
    }
    metrics = []
    for name, values in golds.items():
        field = known.get(name) if schema is not None else None
        kind, tolerance = chosen.get(name) or (_default_metric(field, values), 0.0)
        metrics.append(FieldMetric(name, kind, tolerance, field))
    return metrics


def _default_metric(field: AnswerField | None, golds: Sequence[Any]) -> MetricName:
    kind = "json" if field is None else field.kind
    if kind == "choice":
        return "label"
    if kind == "number" or (golds and all(map(_is_number, golds))):
        return "number"
    if field is not None and field.is_date:
        return "date"
    if any(isinstance(gold, list) for gold in golds):
        return "list"
    if any(isinstance(gold, dict) for gold in golds) or (kind == "json" and field is not None):
        return "exact"
    texts = [cell_text(gold) for gold in golds]
    if any(len(text) > MOST_EXACT_CHARS or "\n" in text for text in texts):
        return "text"
    repeats = len({text.strip().casefold() for text in texts}) <= len(texts) / 2
    return "label" if field is None and repeats else "exact"


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold: integers of JSON have no bounds."""
    is_numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return is_numeric and abs(value) <= sys.float_info.max


def _number_in(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    return float(number) if _is_number(number) else None


def _has_date(value: Any) -> bool:
    sought = sought_in(value.strip()) if isinstance(value, str) else None
    return isinstance(sought, DayAndTime) and sought.day is not None


_REFUSALS: Mapping[str, Callable[[Any], str]] = {
    "number": lambda value: "" if _number_in(value) is not None else "is no number",
    "date": lambda value: "" if _has_date(value) else "is no date",
    "list": lambda value: "" if isinstance(value, list) else "is no list",
    "text": lambda value: "" if isinstance(value, str) else "is no text",
    "label": lambda value: "is no label" if isinstance(value, list | dict) else "",
}
"""By metric: what is wrong with a gold value; empty where it fits."""


def _exact(answer: Any, gold: Any) -> float:
    if isinstance(answer, str) and isinstance(gold, str):
        return float(normalize("NFC", answer).split() == normalize("NFC", gold).split())
    return float(is_same_value(answer, gold))


def normalise_label(value: Any) -> str:
    return normalize("NFC", cell_text(value)).strip().casefold()


def _same_date(answer: Any, gold: Any) -> float:
    """Compare dates in any notation: 3 May 2024 is 2024-05-03."""
    if not _has_date(answer):
        return 0.0
    both = (numbers_found(answer, source=gold), numbers_found(gold, source=answer))
    return float(not any(map(is_refused, both)))


def list_f1(answer: Any, gold: Sequence[Any]) -> float:
    """Return F1 of a list: plain values in any order, objects aligned by their order.

    A pair of objects counts as much as the share of fields that are the same.

    >>> list_f1(["a", "b"], ["b", "c", "a", "d"]), list_f1([{"n": 1, "p": 2}], [{"n": 1, "p": 3}])
    (0.6666666666666666, 0.5)
    """
    if not isinstance(answer, list):
        return 0.0
    if not answer and not gold:
        return 1.0
    has_objects = any(isinstance(element, dict) for element in (*answer, *gold))
    partners = aligned(answer, gold, None) if has_objects else None
    if partners is not None:
        n_shared = sum(map(_share_of_fields, answer, partners))
    else:
        n_shared = (Counter(map(_plain_text, answer)) & Counter(map(_plain_text, gold))).total()
    return 2 * n_shared / (len(answer) + len(gold))


def _plain_text(value: Any) -> str:
    if isinstance(value, str):
        return normalise_label(value)
    return canonical_json(float(value) if _is_number(value) else value)


def _share_of_fields(answer: Any, other: Any) -> float:
    if not (isinstance(answer, dict) and isinstance(other, dict)):
        return _exact(answer, other)
    names = {**answer, **other}
    return sum(_exact(answer.get(name), other.get(name)) for name in names) / len(names or (1,))


def edit_similarity(answer: Any, gold: str) -> float:
    """Return 1 less the share of characters (of long texts, words) to be edited (Levenshtein).

    >>> edit_similarity("kitten", "sitting")
    0.5714285714285714
    """
    if not isinstance(answer, str):
        return 0.0
    chars: Sequence[str] = " ".join(answer.split())
    other: Sequence[str] = " ".join(gold.split())
    longest = max(len(chars), len(other))
    if longest > MOST_EDIT_CHARS:
        words = [text.split() for text in (answer, gold)]
        if longest <= _MOST_WORD_CHARS * max(map(len, words)):
            chars, other = words
            longest = max(len(chars), len(other))
    # How many edits make one of the other; of long ones, part by part
    n = math.ceil(longest / MOST_EDIT_CHARS)
    parts = [
        [signs[len(signs) * k // n : len(signs) * (k + 1) // n] for k in range(n)]
        for signs in (chars, other)
    ]
    return 1 - sum(map(_part_distance, *parts)) / longest if longest else 1.0


def _part_distance(left: Sequence[str], other: Sequence[str]) -> int:
    """Return Levenshtein's distance, a row of the table at a time."""
    numbers = {sign: number for number, sign in enumerate({*left, *other})}
    signs = np.array([numbers[sign] for sign in other], dtype=np.int64)
    steps = np.arange(len(other) + 1)
    row = steps.copy()
    for sign in left:
        new = np.empty_like(row)
        new[0] = row[0] + 1
        new[1:] = np.minimum(row[1:] + 1, row[:-1] + (signs != numbers[sign]))
        row = np.minimum.accumulate(new - steps) + steps  # an insertion costs 1 a place
    return int(row[-1])


_SCORES: Mapping[MetricName, Callable[[Any, Any], float]] = {
    "exact": _exact,
    "label": lambda answer, gold: float(normalise_label(answer) == normalise_label(gold)),
    "date": _same_date,
    "list": list_f1,
    "text": edit_similarity,
}
