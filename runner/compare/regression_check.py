"""Regressions from an earlier result, for `compare --against`. Pure.

Variants are compared by name, one alone with one alone, on the items that both results have. A
variant or an item that only the earlier result has is a loss too: a change that loses documents
does not pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted

from .comparison import QUALITY_WORDS, Comparison, VariantFigures
from .significance import paired_test

_ROUNDED = 5e-5
"""Scores in JSON have four digits."""


class EarlierVariant(BaseModel):
    name: str
    scores: dict[str, Annotated[float, Field(ge=0, le=1)]]


class EarlierResult(BaseModel):
    quality: Literal["agreement", "located", "valid"]
    variants: Annotated[list[EarlierVariant], Field(min_length=1)]


class NothingShared(Exception):
    """Two results that cannot be compared; the end of a sentence."""


class ResultChange(Struct, frozen=True):
    shared: tuple[str, ...]
    """On how many items each variant is compared."""
    losses: tuple[str, ...]


def result_change(comparison: Comparison, earlier: EarlierResult, allowed: float) -> ResultChange:
    """Return the change since an earlier result; `allowed`: how much worse is not worse.

    Variants that could not be run are compared with nothing: their fault is reported.

    Raises:
        NothingShared: no variant, or no item, is in both.
    """
    sound = [variant for variant in comparison.variants if variant.run.fault is None]
    if not sound:
        return ResultChange((), ())
    if earlier.quality != comparison.quality:
        words = QUALITY_WORDS[comparison.quality]
        raise NothingShared(f"it has no '{comparison.quality}' ({words}) to compare with.")
    # The scores of the earlier variants; a single one has the name of the single one.
    before: dict[str, Mapping[str, float]]
    before = {variant.name: variant.scores for variant in earlier.variants if variant.scores}
    if len(before) == len(comparison.variants) == 1:
        before = {comparison.variants[0].name: before.popitem()[1]}
    pairs = [(variant, before[variant.name]) for variant in sound if variant.name in before]
    if not any(variant.scores.keys() & old.keys() for variant, old in pairs):
        raise NothingShared("no variant and item of it is in this comparison.")
    names = {variant.name for variant in comparison.variants}
    losses = [
        f"{name}: this variant of the earlier result is missing."
        for name in sorted(before.keys() - names)
    ]
    shared = []
    for kept, old in pairs:
        n = len(kept.scores.keys() & old.keys())
        shared.append(f"{kept.name}: compared on {n:,} of {counted(len(old), 'earlier item')}.")
        losses += _losses(kept, old, comparison, allowed)
    return ResultChange(tuple(shared), tuple(losses))


def _losses(
    variant: VariantFigures, old: Mapping[str, float], comparison: Comparison, allowed: float
) -> Iterator[str]:
    missing = [key for key in old if key not in variant.scores]
    if missing and not comparison.n_unsampled:  # of a sample, items are left out on purpose
        n = counted(len(missing), "earlier item")
        yield f"{variant.name}: {n} missing, such as '{missing[0]}'."
    keys = [key for key in variant.scores if key in old]
    if not keys:
        return
    test = paired_test([old[key] for key in keys], [variant.scores[key] for key in keys])
    if -test.difference > allowed + _ROUNDED:
        words, n = QUALITY_WORDS[comparison.quality], counted(len(keys), "item")
        chance = f" (p = {test.p:.3f})" if test.is_testable else ", but may be chance"
        yield (
            f"{variant.name}: {words} fell by {-test.difference:.3f} on {n}, more than the "
            f"{allowed:g} that is allowed{chance}."
        )
