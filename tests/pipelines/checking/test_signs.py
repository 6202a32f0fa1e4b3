"""A number or day as CLDR writes it is found in each language, among signs that explain themselves.

Of 40 locales: amounts, money and days, each with signs that touch it. The same with one digit
changed is never found, nor is one that a sign makes another number.
"""

import random
from datetime import date, timedelta
from decimal import Decimal

import pytest
from babel.dates import format_date
from babel.numbers import format_currency, format_decimal

from paddock.pipelines.filters import evidence_in

LOCALES = """
en de fr es it pt nl sv da nb fi pl cs sk hu ro bg el ru uk tr ar he fa hi bn th vi id ms ja ko zh
zh_Hant de_CH de_AT en_ZA en_IN fr_CH pt_PT
"""
CURRENCIES = {"en_ZA": "ZAR", "id": "IDR", "ms": "MYR", "de_CH": "CHF", "hi": "INR", "pl": "PLN"}
EXPLAINED = ("{}", "«{}»", "„{}“", "={}", "*{}*", "[{}]", "№{}", "•{}", "|{}|", "x;{};x", "Sum={}")
OTHER = ("√{}", "½{}", "²{}", "a_{}", "3/{}")


def is_found(value: object, text: str, locale: str) -> bool:
    found = evidence_in(value, f"x {text} y", locale.split("_")[0])
    return found["match"] in ("exact", "normalised")


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_values_of_cldr_are_found_among_signs(first: int) -> None:
    chance = random.Random(first)
    for locale in LOCALES.split()[first : first + 10]:
        for form in EXPLAINED:
            cents = chance.randrange(100_001, 99_999_999)
            amount = Decimal(cents + (cents % 100 == 0)) / 100
            written = format_decimal(amount, "#,##0.00", locale)
            money = format_currency(
                amount, CURRENCIES.get(locale, "EUR"), locale=locale, currency_digits=False
            )
            day = date(2019, 1, 1) + timedelta(chance.randrange(3_000))
            for text in (written, money):
                assert is_found(float(amount), form.format(text), locale), (form, text, locale)
                assert not is_found(float(amount + 10), form.format(text), locale), (form, text)
                for other in OTHER if text[0].isdecimal() else ():
                    assert not is_found(float(amount), other.format(text), locale), (other, text)
            for width in ("medium", "long", "full"):
                text = format_date(day, width, locale)
                assert is_found(day.isoformat(), text, locale), (text, locale)
                later = day.replace(year=day.year + 1, day=1)
                assert not is_found(later.isoformat(), text, locale), (text, locale)
