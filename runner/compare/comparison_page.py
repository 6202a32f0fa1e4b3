"""A comparison as one HTML page that loads nothing: figures, tests, labels, differing answers."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from markupsafe import Markup, escape

from paddock.engine.system.text import cell_text, shorten
from paddock.runner.render.html_page import html_page

from .comparison import QUALITY_WORDS, Comparison, ItemDifference
from .comparison_text import (
    BOUNDS_WORDS,
    SPEED_WORDS,
    estimate_text,
    figure_heads,
    figure_row,
    head_text,
    method_words,
)
from .metrics import MOST_CONFUSED

MOST_DIFFERENCES = 1_000
MOST_PROMPT_CHARS = 4_000
"""Of the prompt with the document, for each item."""
_MOST_COMPARED_WORDS = 2_000
"""Of each of two answers; longer ones stand without marks."""
MOST_EQUAL_PAIRS = 60_000
"""Of words of two answers that are alike: 0.5 s where they are periodic, 0.02 s of prose."""
_WORDS = re.compile(r"\s*\S+")


def comparison_page(found: Comparison) -> str:
    title, heads = f"{found.pipeline}: variants of {found.step}", figure_heads(found)
    names = dict.fromkeys(name for variant in found.variants for name in variant.fields)
    shown = list(islice(found.differences, MOST_DIFFERENCES))
    variants = list(shown[0].answers) if shown else []
    return html_page(
        title,
        "comparison.html",
        found=found,
        head=head_text(found),
        figure_heads=heads,
        figures=[(variant, figure_row(variant, heads)) for variant in found.variants],
        figure_note=f"{BOUNDS_WORDS} {SPEED_WORDS}",
        quality=QUALITY_WORDS[found.quality],
        method=method_words(found),
        fields=[
            (name, variant, variant.fields[name])
            for name in names
            for variant in found.variants
            if name in variant.fields
        ],
        most_confused=MOST_CONFUSED,
        differences=shown,
        variants=variants,
        answers=[_answers(difference, variants) for difference in shown],
        most_chars=MOST_PROMPT_CHARS,
        remarks=[*([found.threshold.words()] if found.threshold else []), *found.notes],
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


def word_differences(before: str, after: str) -> Markup:
    """Return a text as HTML, with the words that another one does not have, or has besides.

    >>> word_differences("a red cat", "a big red dog")
    Markup('a<ins> big</ins> red<del> cat</del><ins> dog</ins>')
    """
    if n_equal_pairs(before, after) > MOST_EQUAL_PAIRS:
        return escape(after)
    spaced_words, other = _WORDS.findall(before), _WORDS.findall(after)
    words, others = ([word.strip() for word in found] for found in (spaced_words, other))
    matcher = difflib.SequenceMatcher(None, words, others, False)
    parts: list[str] = []
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        old, new = escape("".join(spaced_words[i:i_end])), escape("".join(other[j:j_end]))
        if kind == "equal":
            parts.append(new)
        else:
            parts += [Markup("<del>{}</del>").format(old)] if old else []
            parts += [Markup("<ins>{}</ins>").format(new)] if new else []
    return Markup("".join(parts))


def n_equal_pairs(before: str, after: str) -> int:
    """Return how many pairs of words are alike, which is what a comparison costs.

    Too many, where a text has more words than are compared.

    >>> n_equal_pairs("so so so", "so it is so")
    6
    """
    words, other = before.split(), after.split()
    if max(len(words), len(other)) > _MOST_COMPARED_WORDS:
        return MOST_EQUAL_PAIRS + 1
    counts = Counter(other)
    return sum(n * counts[word] for word, n in Counter(words).items())
