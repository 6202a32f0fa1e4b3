"""Numbers and dates are found as Babel formats them in every language, and never after a change."""

import datetime
import random
from collections.abc import Iterator
from decimal import Decimal

import pytest
from babel.dates import format_date
from babel.localedata import locale_identifiers
from babel.numbers import format_currency, format_decimal

from paddock.pipelines.checking.evidence import locate
from paddock.pipelines.text_cells import SourceText

LOCALES = sorted(name for name in locale_identifiers() if not name.startswith("tok"))
"""Without Toki Pona, which groups digits by two."""
LETTERS = sorted({identifier[0] for identifier in LOCALES})


def by_language(letter: str) -> Iterator[tuple[str, str, random.Random]]:
    """Yield the locales of languages that begin with a letter, each language with its own dice."""
    draw, last = random.Random(), ""
    for identifier in LOCALES:
        if identifier.startswith(letter):
            if (language := identifier.split("_")[0]) != last:
                draw, last = random.Random(language), language
            yield identifier, language, draw


def match(value: object, text: str, language: str = "") -> str:
    found = locate({"field": value}, {}, [SourceText("s", text)], language=language)
    return str(found["field"]["match"])


@pytest.mark.parametrize("letter", LETTERS)
def test_a_date_is_found_in_every_locale_s_medium_and_long_form(letter: str) -> None:
    for identifier, language, draw in by_language(letter):
        day = datetime.date(draw.randint(1990, 2049), draw.randint(1, 12), draw.randint(13, 28))
        for form in ("medium", "long"):
            written = format_date(day, form, locale=identifier)
            assert match(day.isoformat(), written, language) in ("exact", "normalised"), (
                identifier, written,
            )  # fmt: skip
            others = (
                day.replace(day=day.day - 1), day.replace(year=day.year + 1),
                day.replace(month=day.month % 12 + 1),
            )  # fmt: skip
            for other in others:
                assert match(other.isoformat(), written, language) == "none", (identifier, other)


@pytest.mark.parametrize("letter", LETTERS)
def test_an_amount_is_found_in_every_locale_s_form_with_its_sign_and_unit(letter: str) -> None:
    for identifier, language, draw in by_language(letter):
        amount = Decimal(draw.randrange(1_234_511, 9_876_599, 2)) / 100
        value = float(amount)
        written = format_decimal(amount, locale=identifier)
        assert match(value, written, language) in ("exact", "normalised"), (identifier, written)
        assert match(value, format_decimal(-amount, locale=identifier), language) == "none"
        negative = format_decimal(-amount, locale=identifier)
        assert match(-value, negative, language) in ("exact", "normalised"), (identifier, negative)
        assert match(value + 0.01, written, language) == "none"
        priced = format_currency(amount, "EUR", locale=identifier)
        assert match(f"{amount} EUR", priced, language) in ("exact", "normalised"), (
            identifier, priced,
        )  # fmt: skip
        assert match(f"{amount} USD", priced, language) == "none", (identifier, priced)
        assert match(value, priced, language) in ("exact", "normalised"), (identifier, priced)
