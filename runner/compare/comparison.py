"""Comparison: figures of each variant, paired tests between them, and which are worth their time.

Pure. Every figure is over the same items. An answer that is missing or invalid agrees with nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from statistics import fmean
from typing import Any

from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import counted
from paddock.pipelines.checking.schema_parts import located_values
from paddock.pipelines.comparison_keys import MetricName
from paddock.runner.ledger.reviews.asked_before import is_same_value

from .gold import Gold, gold_of_answers
from .metrics import MOST_CONFUSED, FieldMetric, field_metrics, normalise_label
from .significance import IntervalEstimate, PairedTest, estimate, pairwise_tests
from .variant_runs import ItemAnswer, VariantRun

QUALITY_WORDS = {
    "agreement": "agreement with gold",
    "located": "located values",
    "valid": "valid answers",
}
"""Of what variants are tested for, the first that is known."""


class FieldFigures(Struct, frozen=True):
    metric: FieldMetric
    agreement: IntervalEstimate
    confusion: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Of labels: gold and answer → how often."""

    @property
    def labels(self) -> list[str]:
        """The labels, where they are few enough for a table."""
        labels = sorted({label for pair in self.confusion for label in pair})
        return labels if len(labels) <= MOST_CONFUSED else []

    @property
    def is_chance(self) -> bool:
        """Whether labels agree with gold no more often than by chance."""
        golds: Counter[str] = Counter()
        answers: Counter[str] = Counter()
        for (gold, answer), n in self.confusion.items():
            golds[gold] += n
            answers[answer] += n
        n_items = golds.total()
        n_right = sum(n for (gold, answer), n in self.confusion.items() if gold == answer)
        by_chance = sum(n * answers[gold] for gold, n in golds.items())
        return 0 < n_right * n_items <= by_chance < n_items**2

    def as_json(self) -> dict[str, Any]:
        figures = {"metric": self.metric.kind, "agreement": self.agreement.as_json()}
        if not (labels := self.labels):
            return figures
        table = [[self.confusion.get((gold, answer), 0) for answer in labels] for gold in labels]
        return {**figures, "labels": labels, "confusion": table}


class VariantFigures(Struct, frozen=True):
    run: VariantRun
    n_items: int
    valid: IntervalEstimate | None = None
    """Answers that have their form and pass their checks."""
    located: IntervalEstimate | None = None
    """Values that stand in their sources; None where no evidence is asked for."""
    agreement: IntervalEstimate | None = None
    fields: Mapping[str, FieldFigures] = field(default_factory=dict)
    seconds: float | None = None
    """For an item, of the time in which models computed for any of them."""
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    """Item → quality, which variants are tested for."""
    is_on_front: bool = False
    """No other variant is as good and quicker, or better and as quick; see `is_timed`."""

    @property
    def name(self) -> str:
        return self.run.variant.name

    @property
    def is_chance(self) -> bool:
        """Whether its labels agree with gold no more often than by chance."""
        of_labels = [field.is_chance for field in self.fields.values() if field.confusion]
        return bool(of_labels) and all(of_labels)

    @property
    def per_minute(self) -> float | None:
        return 60 / self.seconds if self.seconds else None

    def as_json(self) -> dict[str, Any]:
        shares = {name: getattr(self, name) for name in ("valid", "located", "agreement")}
        return {
            "name": self.name,
            "fault": self.run.fault,
            "items": self.n_items,
            **{name: None if share is None else share.as_json() for name, share in shares.items()},
            "fields": {name or "answer": field.as_json() for name, field in self.fields.items()},
            "seconds": None if self.seconds is None else round(self.seconds, 4),
            "prompt_tokens": round(self.prompt_tokens, 1),
            "completion_tokens": round(self.completion_tokens, 1),
            "calls": self.run.calls,
            "cached_calls": self.run.cached_calls,
            "pareto": self.is_on_front,
            "scores": {key: round(score, 4) for key, score in self.scores.items()},
        }


class VariantTest(Struct, frozen=True):
    """A paired test of two variants; its p is corrected for all that were made."""

    first: str
    second: str
    result: PairedTest

    def as_json(self) -> dict[str, Any]:
        result = self.result
        return {
            "first": self.first,
            "second": self.second,
            "items": result.n,
            "method": result.method,
            "difference": round(result.difference, 4),
            "p": round(result.p, 4),
            "shown": result.is_shown,
            "more_items": result.more_items,
        }


class ItemDifference(Struct, frozen=True):
    key: str
    gold: Mapping[str, Any]
    answers: Mapping[str, ItemAnswer]
    """By variant."""
    prompt: str = ""
    """What was asked, with the document; empty where it was not read."""


class Comparison(Struct, frozen=True):
    pipeline: str
    step: str
    quality: str
    """A key of `QUALITY_WORDS`."""
    variants: tuple[VariantFigures, ...]
    tests: tuple[VariantTest, ...]
    differences: tuple[ItemDifference, ...]
    n_items: int
    n_unsampled: int
    gold: Gold | None
    n_gold: int
    """Items with gold, of those that were compared."""
    notes: tuple[str, ...]

    @property
    def is_timed(self) -> bool:
        """Whether variants are weighed by their time; else by the tokens of their answers."""
        return _is_timed(self.variants)

    def as_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "step": self.step,
            "quality": self.quality,
            "items": self.n_items,
            "unsampled": self.n_unsampled,
            "gold": None if self.gold is None else {"from": self.gold.origin, "items": self.n_gold},
            "variants": [variant.as_json() for variant in self.variants],
            "tests": [test.as_json() for test in self.tests],
            "differences": [
                {
                    "item": difference.key,
                    "gold": dict(difference.gold),
                    "answers": {name: answer.output for name, answer in difference.answers.items()},
                    "errors": {
                        name: answer.error
                        for name, answer in difference.answers.items()
                        if answer.error
                    },
                }
                for difference in self.differences
            ],
            "notes": list(self.notes),
        }


class GoldSource(Struct, frozen=True):
    given: Gold | None
    """None: there is none, or another step says it."""
    chosen: Mapping[str, tuple[MetricName, float]] = field(default_factory=dict)


def compare(pipeline: str, step: str, runs: Sequence[VariantRun], source: GoldSource) -> Comparison:
    sound = [run for run in runs if run.fault is None]
    keys = [*dict.fromkeys(key for run in sound for key in run.items)]
    match = _gold_match(step, sound, keys, source)
    located = [[_located_share(item) for item in run.items.values()] for run in sound]
    is_located = bool(sound) and all(any(s is not None for s in shares) for shares in located)
    quality = "agreement" if match.rights else "located" if is_located else "valid"
    figures = _with_front([_figures(run, keys, match, quality) for run in runs])
    scores = {
        variant.name: [*variant.scores.values()] for variant in figures if variant.run.fault is None
    }
    tests = [VariantTest(*pair, result) for pair, result in pairwise_tests(scores).items()]
    notes = [*chain.from_iterable(run.notes for run in runs)]
    notes += (f"{run.variant.name}: {run.fault}" for run in runs if run.fault is not None)
    notes += () if match.gold is None else match.gold.notes
    differences = tuple(_differences(sound, keys, match))
    n_unsampled = max(map(attrgetter("n_unsampled"), sound), default=0)
    if len(keys) == 1:
        notes.append("there is 1 item: nothing can be shown by it. Compare on more documents.")
    elif not keys and sound:
        notes.append("there is no item to compare.")
    if len(sound) > 1 and keys and not differences:
        notes.append(f"all variants say the same of each of the {counted(len(keys), 'item')}.")
    return Comparison(
        pipeline, step, quality, tuple(figures), tuple(tests), differences, len(keys), n_unsampled,
        match.gold, len(match.rights), tuple(dict.fromkeys(notes)),
    )  # fmt: skip


class GoldMatch(Struct, frozen=True):
    gold: Gold | None = None
    rights: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Item → field → what is right."""
    metrics: Mapping[str, FieldMetric] = field(default_factory=dict)
    """By field."""

    def agreement(self, answer: ItemAnswer) -> float:
        """Return the mean score of the fields of an item that has gold."""
        scores = [
            self.metrics[name].score(_output_at(answer, name), gold)
            for name, gold in self.rights[answer.key].items()
        ]
        return fmean(scores) if scores and answer.is_done else 0.0


def _gold_match(
    step: str, runs: Sequence[VariantRun], keys: Sequence[str], source: GoldSource
) -> GoldMatch:
    """Return what is right of the compared items, and the gold with notes on what counts for none.

    1. Nothing is compared: a row whose item could not be run is no fault of the gold.
    2. What is right was given, by the items' names in it; or another step said it of each item.
    3. What is about other items and fields, or does not fit its metric, becomes a note.
    4. A row that may be about several items counts for none of them.
    """
    if not keys:  # 1
        return GoldMatch(source.given)
    answers = [answer for run in runs for answer in run.items.values()]
    gold = source.given
    items_of_name: dict[str, list[str]] = {}  # 2
    if gold is None:
        gold_of_steps = {answer.key: answer.gold for answer in answers if answer.gold is not None}
        if not gold_of_steps:
            return GoldMatch()
        gold = gold_of_answers(gold_of_steps, "another step's answers")
    else:
        for answer in answers:
            named = items_of_name.setdefault(answer.gold_key, []) if answer.gold_key else []
            if answer.key not in named:
                named.append(answer.key)
    is_part = any(run.n_unsampled for run in runs)  # gold of the other items is no fault
    schema = next((run.schema for run in runs if run.schema is not None), None)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    fields = tuple(properties) if isinstance(properties, Mapping) else ()  # 3
    gold = gold.of_step(step, [*(items_of_name or keys)], fields, is_part=is_part)
    metrics = {
        metric.name: metric for metric in field_metrics(schema, gold.values(), source.chosen)
    }
    by_name, gold = gold.fitting(metrics.values())
    notes = [
        f"`gold.metrics`: no gold has the field '{name}'."
        for name in source.chosen
        if name not in metrics
    ]
    ambiguous = {name: items_of_name[name] for name in by_name if items_of_name.get(name, ())[1:]}
    for name, (first, second, *_) in [*ambiguous.items()][:1]:  # 4
        n = counted(len(ambiguous), "row")
        notes.append(
            f"{gold.origin}: {n} that may be about several items do not count, such as '{name}': "
            f"'{first}' or '{second}'. Write a `gold.key` that differs for each, as `doc.relpath`."
        )
    by_item = {
        items_of_name.get(name, [name])[0]: right
        for name, right in by_name.items()
        if name not in ambiguous
    }
    rights = {key: by_item[key] for key in keys if key in by_item}
    return GoldMatch(replace(gold, notes=(*gold.notes, *notes)), rights, metrics)


def _output_at(answer: ItemAnswer, name: str) -> Any:
    if not name:
        return answer.output
    return answer.output.get(name) if isinstance(answer.output, Mapping) else None


def _figures(
    run: VariantRun, keys: Sequence[str], match: GoldMatch, quality: str
) -> VariantFigures:
    if run.fault is not None:
        return VariantFigures(run, 0)
    items = [run.items.get(key) or ItemAnswer(key, error="it was not done") for key in keys]
    answered = [item for item in items if item.first_call_hash]
    timed = [item.busy for item in items if item.busy]
    located = {item.key: _located_share(item) for item in items}
    if quality == "agreement":
        scores = {item.key: match.agreement(item) for item in items if item.key in match.rights}
    elif quality == "located":
        scores = {key: share or 0.0 for key, share in located.items()}
    else:
        scores = {item.key: float(item.is_done) for item in items}
    return VariantFigures(
        run,
        len(items),
        valid=estimate([float(item.is_done) for item in items]),
        located=estimate([share for share in located.values() if share is not None]),
        agreement=estimate([*scores.values()]) if quality == "agreement" else None,
        fields=dict(_field_figures(items, match)),
        seconds=_busy_s([*chain.from_iterable(timed)]) / len(timed) if timed else None,
        prompt_tokens=sum(item.prompt_tokens for item in answered) / max(1, len(answered)),
        completion_tokens=sum(item.completion_tokens for item in answered) / max(1, len(answered)),
        scores=scores,
    )


def _busy_s(spans: Sequence[tuple[float, float]]) -> float:
    """Return for how long at least one call was computed.

    >>> _busy_s([(0.0, 2.0), (1.0, 3.0), (10.0, 11.0)])
    4.0
    """
    total = 0.0
    until = -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def _located_share(answer: ItemAnswer) -> float | None:
    """Return how many values of an answer stand in its sources; None: there is none."""
    matches = [match for _, match in located_values(answer.evidence)] if answer.is_done else []
    n_found = sum(match in ("exact", "normalised") for match in matches)
    return n_found / len(matches) if matches else None


def _field_figures(
    items: Iterable[ItemAnswer], match: GoldMatch
) -> Iterator[tuple[str, FieldFigures]]:
    for name, metric in match.metrics.items():
        pairs = [
            (rights[name], _output_at(item, name))
            for item in items
            if name in (rights := match.rights.get(item.key, {}))
        ]
        agreement = estimate([metric.score(answer, right) for right, answer in pairs])
        if agreement is not None:
            labels = [(normalise_label(right), normalise_label(answer)) for right, answer in pairs]
            confusion = Counter(labels) if metric.kind == "label" else {}
            yield name, FieldFigures(metric, agreement, confusion)


def _is_timed(figures: Iterable[VariantFigures]) -> bool:
    return all(variant.seconds is not None for variant in figures if variant.scores)


def _with_front(figures: Sequence[VariantFigures]) -> list[VariantFigures]:
    """Return the figures, marked where no other variant is as good and quicker, or better.

    Where the time of one is not known, by the tokens of their answers.
    """
    is_timed = _is_timed(figures)
    known: dict[str, tuple[float, float]] = {}  # quality and cost
    for variant in figures:
        if variant.scores:
            cost = (variant.seconds if is_timed else None) or variant.completion_tokens
            known[variant.name] = fmean(variant.scores.values()), cost

    def is_on_front(name: str) -> bool:
        own = known.get(name)
        return own is not None and not any(
            other[0] >= own[0] and other[1] <= own[1] and other != own for other in known.values()
        )

    return [replace(variant, is_on_front=is_on_front(variant.name)) for variant in figures]


def _differences(
    runs: Sequence[VariantRun], keys: Iterable[str], match: GoldMatch
) -> Iterator[ItemDifference]:
    for key in keys:
        answers = {run.variant.name: run.items[key] for run in runs if key in run.items}
        first, *others = [(answer.output, answer.is_done) for answer in answers.values()]
        if not all(is_same_value(first[0], output) and first[1] == done for output, done in others):
            yield ItemDifference(key, match.rights.get(key, {}), answers)
