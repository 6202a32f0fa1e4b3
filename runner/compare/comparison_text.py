"""A comparison as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from paddock.engine.system.text import cell_text, counted, listed, shorten
from paddock.runner.bind.variations import letters
from paddock.runner.progress import printing

from .comparison import QUALITY_WORDS, Comparison, VariantFigures, VariantTest
from .significance import IntervalEstimate

MOST_DIFFERENCES = 10
"""Items that the terminal shows; the page and `--json` have all."""
MOST_TESTS = 21
"""Of more, those of 8 variants, the terminal shows the best variant's alone."""
_MOST_LETTERS = 10
_METHOD_WORDS = {
    "McNemar": "McNemar's exact test, as items are right or wrong",
    "bootstrap": "a bootstrap of the mean difference, as scores are between 0 and 1",
}
_ANSWER_CHARS = 100
BOUNDS_WORDS = "In brackets: the bounds that hold the true figure in at least 95 of 100 cases."
SPEED_WORDS = "Documents a minute: of the time in which models computed, as recorded then."


def estimate_text(estimate: IntervalEstimate | None) -> str:
    """Return a figure with its bounds; empty for none.

    >>> estimate_text(IntervalEstimate(0.5, 0.25, 0.75, 12))
    '0.50 (0.25 to 0.75)'
    >>> estimate_text(IntervalEstimate(0.01, -0.001, 0.07, 12))
    '0.01 (0.00 to 0.07)'
    """
    if estimate is None:
        return ""
    return f"{estimate.mean:z.2f} ({estimate.low:z.2f} to {estimate.high:z.2f})"


def figure_table(comparison: Comparison) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings, and a row of each variant's figures; without columns that say nothing."""
    rows = [_figure_cells(variant) for variant in comparison.variants]
    shown = {"valid", "tokens", *(head for row in rows for head, text in row.items() if text)}
    heads = [head for head in rows[0] if head in shown]
    return tuple(heads), [tuple(row[head] for head in heads) for row in rows]


def _figure_cells(variant: VariantFigures) -> dict[str, str]:
    cells = {
        "agreement": estimate_text(variant.agreement),
        "valid": estimate_text(variant.valid),
        "located": estimate_text(variant.located),
        "a minute": "" if variant.per_minute is None else f"{variant.per_minute:,.1f}",
        "tokens": f"{variant.prompt_tokens:,.0f} + {variant.completion_tokens:,.0f}",
    }
    return dict.fromkeys(cells, "") if variant.run.fault else cells


def comparison_text(comparison: Comparison) -> str:
    lines = [f"{printing.printable_line(comparison.pipeline)}: {head_text(comparison)}", ""]
    heads, figures = figure_table(comparison)
    rows = [("", "", "variant", *heads)]
    letters = _letters_of(comparison).values()
    for letter, variant, row in zip(letters, comparison.variants, figures, strict=True):
        is_worth = variant.is_on_front and not variant.is_chance
        mark = "✗" if variant.run.fault else "*" if is_worth else ""
        rows.append((mark, letter, variant.name, *row))
    cost = "quicker" if comparison.is_timed else "shorter"
    lines += [printing.table(rows), "", f"* No other is better and {cost}. {BOUNDS_WORDS}"]
    lines += [SPEED_WORDS] if "a minute" in heads else []
    for part in (_field_lines(comparison), _test_lines(comparison), _difference_lines(comparison)):
        written = [*part]
        lines += ["", *written] if written else []
    notes = comparison.notes
    lines += ["", *map(printing.printable_line, notes)] if notes else []
    return "\n".join(lines)


def _letters_of(comparison: Comparison) -> dict[str, str]:
    return letters(variant.name for variant in comparison.variants)


def head_text(comparison: Comparison) -> str:
    head = f"{counted(len(comparison.variants), 'variant')} of '{comparison.step}'"
    head += f" on {counted(comparison.n_items, 'item')}"
    head += f" of {comparison.n_items + comparison.n_unsampled:,}" if comparison.n_unsampled else ""
    if comparison.gold is not None:
        head += f"; gold for {comparison.n_gold:,} of them: {comparison.gold.origin}"
    return printing.printable_line(head)


def _field_lines(comparison: Comparison) -> Iterator[str]:
    names = dict.fromkeys(name for variant in comparison.variants for name in variant.fields)
    short = _letters_of(comparison)
    for name in names:
        for variant in comparison.variants:
            figures = variant.fields.get(name)
            if figures is None or (len(names) == 1):
                continue
            words = f"{name or 'answer'} ({figures.metric.kind})"
            line = f"{words}, {short[variant.name]}: {estimate_text(figures.agreement)}"
            yield printing.printable_line(line)


def _test_lines(comparison: Comparison) -> Iterator[str]:
    short = _letters_of(comparison)
    shown: Sequence[VariantTest] = comparison.tests
    if len(shown) > MOST_TESTS:  # those of the variant with the highest mean
        scored = [variant for variant in comparison.variants if variant.scores]
        best = max(scored, key=lambda variant: fmean(variant.scores.values())).name
        shown = [test for test in shown if best in (test.first, test.second)]
    for test in shown:
        line = f"{short[test.second]} against {short[test.first]}: {test.result.words()}"
        yield printing.printable_line(line)
    if left := len(comparison.tests) - len(shown):
        yield f"and {left:,} more: `--report FILE` and `--json` have all."
    if comparison.tests:
        n, methods = counted(len(comparison.tests), "paired test"), method_words(comparison)
        holm = "; p by Holm's correction" if comparison.tests[1:] else ""
        yield f"({n} of {QUALITY_WORDS[comparison.quality]}: {methods}{holm}.)"


def method_words(comparison: Comparison) -> str:
    used = {test.result.method for test in comparison.tests}
    return " and ".join(words for method, words in _METHOD_WORDS.items() if method in used)


def _difference_lines(comparison: Comparison) -> Iterator[str]:
    if not comparison.differences:
        return
    short = _letters_of(comparison)
    yield f"Different answers to {counted(len(comparison.differences), 'item')}:"
    for difference in comparison.differences[:MOST_DIFFERENCES]:
        right = ", ".join(
            f"{name}: {cell_text(value)}" if name else cell_text(value)
            for name, value in difference.gold.items()
        )
        gold = f" (gold: {right})" if right else ""
        yield f"  {printing.printable_line(shorten(f'{difference.key}{gold}', 2 * _ANSWER_CHARS))}"
        by_answer: dict[str, list[str]] = {}
        for name, answer in difference.answers.items():
            by_answer.setdefault(answer.error or cell_text(answer.output), []).append(short[name])
        for stated, variants in by_answer.items():
            line = f"{listed(variants, _MOST_LETTERS)}: {shorten(stated, _ANSWER_CHARS)}"
            yield f"    {printing.printable_line(line)}"
    left = len(comparison.differences) - MOST_DIFFERENCES
    if left > 0:
        yield f"  and {left:,} more: `--report FILE` and `--json` have all."
