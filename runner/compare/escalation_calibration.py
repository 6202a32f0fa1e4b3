"""Calibrate a step's `escalate`: run both models alone, find the threshold, run the pair with it.

The third run asks nothing: both models' answers are in the ledger by then.
"""

from __future__ import annotations

from collections.abc import Sequence

from paddock.engine.system.records import replace
from paddock.engine.system.text import counted

from .comparison import Comparison, GoldSource, compare
from .escalation_threshold import (
    AgreementGoal,
    CannotCalibrate,
    ThresholdCondition,
    calibrated_threshold,
)
from .gold import gold_of_answers
from .variant_runs import ComparedPipeline, VariantRun, Watch, run_variants
from .variants import escalation_condition, escalation_variant


def calibrated_comparison(
    goal: AgreementGoal,
    compared: ComparedPipeline,
    runs: Sequence[VariantRun],
    source: GoldSource,
    watch: Watch,
) -> Comparison:
    """Return the comparison of both models alone and, where a threshold is found, of the pair.

    `runs` are those of the step's own model and of the larger one. Without gold, what the larger
    one says is right.
    """
    name, step = compared.plan.pipeline.name, compared.step
    lost: list[str] = []
    if source.given is None and compared.gold is None:
        outputs = {item.key: item.output for item in runs[1].items.values() if item.is_done}
        origin = f"what '{runs[1].variant.name}' says"
        source = replace(source, given=gold_of_answers(outputs, origin))
        # The items that a model was asked about, and to which the larger one has no answer
        own, larger = runs
        lost = [
            key
            for key in own.items
            if key in larger.items
            and not larger.items[key].is_done
            and (own.items[key].first_call_hash or larger.items[key].first_call_hash)
        ]
    comparison = compare(name, step, runs, source)
    if any(run.fault is not None for run in runs):
        return comparison
    notes = []
    if lost:
        verb, pronoun = ("has", "it counts") if len(lost) == 1 else ("have", "they count")
        what = f"{counted(len(lost), 'item')} {verb} no answer of '{runs[1].variant.name}'"
        notes = [f"{what}: {pronoun} against the promise."]
    try:
        # The threshold by the items with gold; what is `lost` agrees with nothing.
        condition = ThresholdCondition.of(escalation_condition(compared.plan, step))
        small, large = comparison.variants
        keys = [key for key in small.scores if key in large.scores] if comparison.n_gold else []
        threshold = calibrated_threshold(
            goal,
            condition,
            [condition.sureness(small.run.items[key]) for key in (*keys, *lost)],
            [*(small.scores[key] for key in keys), *(0.0 for _ in lost)],
            [*(large.scores[key] for key in keys), *(0.0 for _ in lost)],
        )
    except CannotCalibrate as error:
        return replace(comparison, notes=(str(error), *notes, *comparison.notes))
    pair = escalation_variant(compared.plan, step, threshold.when)
    runs = [*runs, *run_variants(compared, [pair], watch)]
    comparison = compare(name, step, runs, source)
    return replace(comparison, threshold=threshold, notes=(*notes, *comparison.notes))
