"""A comparison as one HTML page that loads nothing: figures, tests, labels, differing answers."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from itertools import islice

from paddock.engine.system.text import cell_text, shorten
from paddock.runner.render.html_page import error_html, html_cell, html_page, html_table

from .comparison import QUALITY_WORDS, Comparison, ItemDifference, VariantFigures
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
    title = f"{found.pipeline}: variants of {found.step}"
    return html_page(title, _parts(found))


def _parts(found: Comparison) -> Iterator[str]:
    yield f"<h1>{escape(found.pipeline)}</h1><p>{escape(head_text(found))}</p>"
    for variant in found.variants:
        if variant.run.fault is not None:
            words = f"{variant.name}: {variant.run.fault}"
            yield error_html(words)
    heads = figure_heads(found)
    rows = (_figure_cells(variant, heads) for variant in found.variants)
    note = f"{BOUNDS_WORDS} {SPEED_WORDS}"
    yield html_table(
        "Variants", ("Variant", "Worth its time", *map(str.capitalize, heads)), rows, note=note
    )
    yield from _tests_html(found)
    yield from _judgement_html(found)
    yield from _fields_html(found)
    yield from _differences_html(found)
    remarks = [*([found.threshold.words()] if found.threshold else []), *found.notes]
    if remarks:
        notes = "".join(f"<li>{escape(note)}</li>" for note in remarks)
        yield f"<h2>Notes</h2><ul>{notes}</ul>"


def _figure_cells(variant: VariantFigures, heads: Iterable[str]) -> Iterator[str]:
    yield html_cell(variant.name, "name")
    is_worth = variant.is_on_front and not variant.is_chance
    why_not = "not run" if variant.run.fault else "no better than chance" * variant.is_chance
    yield html_cell("yes" if is_worth else why_not or "no", "s-done" if is_worth else "")
    yield from (html_cell(cell) for cell in figure_row(variant, heads))


def _tests_html(found: Comparison) -> Iterator[str]:
    if not found.tests:
        return
    yield f"<h2>Paired tests of {escape(QUALITY_WORDS[found.quality])}</h2>"
    rows = (
        (
            html_cell(test.second, "name"),
            html_cell(test.first, "name"),
            html_cell(test.result.words()),
            html_cell(f"{test.result.n:,}", "n"),
        )
        for test in found.tests
    )
    note = f"By {method_words(found)}; p by Holm's correction."
    yield html_table("Tests", ("Variant", "Against", "Result", "#Items"), rows, note=note)


def _judgement_html(found: Comparison) -> Iterator[str]:
    if found.judgement is None or not found.judgement.preferences:
        return
    yield f"<h2>Preferences of {escape(found.judgement.model)}</h2>"
    rows = (
        (
            html_cell(preference.second, "name"),
            html_cell(preference.first, "name"),
            html_cell(preference.words()),
            html_cell(estimate_text(preference.share)),
        )
        for preference in found.judgement.preferences
    )
    heads = ("Variant", "Against", "Preferred in both orders", "Share of the decided")
    yield html_table("Preferences", heads, rows)


def _fields_html(found: Comparison) -> Iterator[str]:
    names = dict.fromkeys(name for variant in found.variants for name in variant.fields)
    if not names:
        return
    yield "<h2>Fields</h2>"
    rows = (
        (
            html_cell(name or "answer"),
            html_cell(figures.metric.kind),
            html_cell(variant.name, "name"),
            html_cell(estimate_text(figures.agreement)),
            html_cell(estimate_text(None if figures.labels is None else figures.labels.macro_f1)),
            html_cell(estimate_text(None if figures.labels is None else figures.labels.kappa)),
        )
        for name in names
        for variant in found.variants
        if (figures := variant.fields.get(name)) is not None
    )
    heads = ("Field", "Metric", "Variant", "Agreement", "Macro F1", "Kappa")
    yield html_table("Fields", heads, rows)
    for variant in found.variants:
        yield from _confusions_html(variant)


def _confusions_html(variant: VariantFigures) -> Iterator[str]:
    for name, figures in variant.fields.items():
        labels = figures.labels
        if labels is None or len(labels.labels) > MOST_CONFUSED:
            continue
        rows = (
            (
                html_cell(gold),
                *(
                    html_cell(str(labels.confusion.get((gold, answer), "")), "n")
                    for answer in labels.labels
                ),
            )
            for gold in labels.labels
        )
        title = f"{name or 'answer'}, {variant.name}"
        heads = ("Gold, below; answer, to the right", *(f"#{label}" for label in labels.labels))
        yield f"<h3>{escape(title)}</h3>{html_table(title, heads, rows)}"


def _differences_html(found: Comparison) -> Iterator[str]:
    n = len(found.differences)
    if not n:
        return
    yield f"<h2>Different answers ({n:,})</h2>"
    note = f"{n - MOST_DIFFERENCES:,} more; `--json` has all." * (n > MOST_DIFFERENCES)
    names = next(iter(found.differences)).answers
    rows = (
        _difference_cells(difference, names)
        for difference in islice(found.differences, MOST_DIFFERENCES)
    )
    heads = ("Item", "Gold", *names)
    yield html_table("Different answers", heads, rows, note=note)


def _difference_cells(difference: ItemDifference, names: Iterable[str]) -> Iterator[str]:
    """Yield an item, its gold, and each answer with what differs from the first one's words."""
    yield f'<td class="name">{escape(difference.key)}{_prompt_html(difference.prompt)}</td>'
    right = "\n".join(
        f"{name}: {cell_text(value)}" if name else cell_text(value)
        for name, value in difference.gold.items()
    )
    yield html_cell(right, "name")
    first: str | None = None
    for name in names:
        answer = difference.answers.get(name)
        if answer is None or answer.error is not None:
            yield html_cell("" if answer is None else str(answer.error), "s-failed")
            continue
        answer_text = cell_text(answer.output)
        shown = escape(answer_text) if first is None else word_differences(first, answer_text)
        first = answer_text if first is None else first
        yield f'<td class="name">{shown}</td>'


def _prompt_html(prompt: str) -> str:
    if not prompt:
        return ""
    shown = escape(shorten(prompt, MOST_PROMPT_CHARS))
    return f"<details><summary>what was asked</summary><pre>{shown}</pre></details>"


def word_differences(before: str, after: str) -> str:
    """Return a text as HTML, with the words that another one does not have, or has besides.

    >>> word_differences("a red cat", "a big red dog")
    'a<ins> big</ins> red<del> cat</del><ins> dog</ins>'
    """
    if n_equal_pairs(before, after) > MOST_EQUAL_PAIRS:
        return escape(after)
    spaced_words, other = _WORDS.findall(before), _WORDS.findall(after)
    words, others = ([word.strip() for word in found] for found in (spaced_words, other))
    matcher = difflib.SequenceMatcher(None, words, others, False)
    parts = []
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        old, new = escape("".join(spaced_words[i:i_end])), escape("".join(other[j:j_end]))
        if kind == "equal":
            parts.append(new)
        else:
            parts += [f"<del>{old}</del>"] if old else []
            parts += [f"<ins>{new}</ins>"] if new else []
    return "".join(parts)


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
