"""A comparison as one HTML page that loads nothing: figures, tests, labels, differing answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from paddock.engine.system.text import cell_text, shorten
from paddock.runner.lineage.run_difference import word_differences
from paddock.runner.render.html_page import html_page

from .comparison import QUALITY_WORDS, Comparison, ItemDifference
from .comparison_text import (
    BOUNDS_WORDS,
    SPEED_WORDS,
    estimate_text,
    figure_table,
    head_text,
    method_words,
)

MOST_DIFFERENCES = 1_000
MOST_PROMPT_CHARS = 4_000
"""Of the prompt with the document, for each item."""


def comparison_page(comparison: Comparison) -> str:
    heads, figures = figure_table(comparison)
    names = dict.fromkeys(name for variant in comparison.variants for name in variant.fields)
    shown = list(islice(comparison.differences, MOST_DIFFERENCES))
    variants = list(shown[0].answers) if shown else []
    return html_page(
        f"{comparison.pipeline}: variants of {comparison.step}",
        "comparison.html",
        found=comparison,
        head=head_text(comparison),
        figure_heads=heads,
        figures=[*zip(comparison.variants, figures, strict=True)],
        figure_note=f"{BOUNDS_WORDS} {SPEED_WORDS}",
        quality=QUALITY_WORDS[comparison.quality],
        method=method_words(comparison),
        fields=[
            (name, variant, variant.fields[name])
            for name in names
            for variant in comparison.variants
            if name in variant.fields
        ],
        differences=shown,
        variants=variants,
        answers=[_answers(difference, variants) for difference in shown],
        most_chars=MOST_PROMPT_CHARS,
        remarks=comparison.notes,
        number_heads=lambda labels: [f"#{label}" for label in labels],
        cell_text=cell_text,
        estimate=estimate_text,
        shorten=shorten,
    )


def _answers(difference: ItemDifference, variants: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the CSS class and text of each answer, with what differs from the first one's words."""
    first: str | None = None
    for answer in map(difference.answers.get, variants):
        if answer is None or answer.error is not None:
            yield "s-failed", "" if answer is None else str(answer.error)
            continue
        text = cell_text(answer.output)
        yield "name", text if first is None else word_differences(first, text)
        first = text if first is None else first
