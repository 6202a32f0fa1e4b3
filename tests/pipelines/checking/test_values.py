"""Each run of digits of a text lies in a value, whatever stands beside it.

102 first parts, 11 separators and 7 second parts make the texts; a text whose second part is
changed is not in its own source. Odd texts come from a seed.
"""
# ruff: noqa: RUF001 - marks of many scripts

import random

import pytest

from paddock.pipelines.checking.functions import numbers_found
from paddock.pipelines.checking.source_index import number_in, values_in
from paddock.pipelines.filters import evidence_in

FIRST_PARTS = """
Berth 7|Invoice No. 7|No. 12|Pos. 1 Rope 10|Rope 10 x 4|Season 2026|Sizes (5)|Q3 2024|May 2024
Room 3a|Unit A7|Gate B-12|saat 9'dan
3 May 2024|03.05.2024|2024-05-03|05/03/2024|3. Mai|May 3rd, 2024|03-05-24|2024-05-03T10:15
3–5 May 2024|den 3 maj 2024|5月20日
9:30|9:30 am|21h30|14.30 Uhr|09:30:15
100 EUR|EUR 100|100 €|€100|$1,320.00|1.320,00 €|CHF 1’320.00|1 320,00 €|1 320,50 EUR
Rs 1,20,000|12 CHF|CHF 40.-|kr 500|500 kr|US$40|40 k€|5 Mio. EUR|USD 3 million
1st|2nd|3.|1er|7th floor|21º|No. 5:
5-40|5–40 kg|10..20|between 2 and 3|5 EUR - 40 EUR|2020-2024
HC-0457|0457|INV-2024-001|CO2|DE89 3704 0044 0532 0130 00|+44 20 7946 0958|4711/2024
ann7@quay.example|v3.1.10
5%|%5|5 %|12.5 %|7 per cent|3‰
,75|--,50|-,50|12,--|12,=|1½|1 1/2|½|=12,50|3x12|Ø12|RM1,234.56|12€50|√12|3⁄4|Rs.500
1/2|3/4 cup|2 1/2|5²|10^3|±5|< 5|~ 7|-12|(12,50)|12.50-
"""
SEPARATORS = (" ", ", ", ": ", " - ", " – ", " / ", "; ", "\n", "\t", " | ", " (")
SECOND_PARTS = {
    "99": "98",
    "EUR 99": "EUR 98",
    "99 EUR": "98 EUR",
    "CHF 1’200.00": "CHF 1’300.00",
    "-99,50 €": "-98,50 €",
    "€ 1.320,75": "€ 1.230,75",
    "99 kg": "98 kg",
}


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_number_is_looked_at_whatever_stands_before_it(separator: str) -> None:
    first_parts = FIRST_PARTS.strip().replace("\n", "|").split("|")
    assert len(first_parts) == 102
    # Every two of a first part, a separator and a second part meet
    for number, first in enumerate(first_parts, SEPARATORS.index(separator)):
        for second, changed in list(SECOND_PARTS.items())[number % 3 :: 3]:
            text = f"{first}{separator}{second}"
            held = {at for value in values_in(text) for at in range(value.start, value.end)}
            assert held.issuperset(at for at, sign in enumerate(text) if sign.isdecimal()), text
            assert numbers_found(f"{first}{separator}{changed}", source=text) is not None, text
            assert numbers_found(text, source=text) is None, text


PIECES = """
1 7 31 45 99 2024 0 00 500 1.320 1,320 1’320 ٣ ٤٥ ５ ² ½ Ⅳ 万 EUR € $ kr CHF % ٪ - – — − . ,
: ; / ( ) [ ] | x × ^ ~ ± < <= > = + # @ ' ’ May Mai 5월 月 日 Uhr am pm kg m km/h Mio.
million No. HC st er º e T Z www. http:// ñ ß ﬁ İ ~~ ** é
"""
UNSEEN_PIECES = [*"   \t\n\x00\ue000\ufffd\ud800\u00ad\u200b\u00a0\u202f"]


def test_no_text_raises_and_none_has_digits_outside_its_values() -> None:
    chance, pieces = random.Random(69), PIECES.split() + UNSEEN_PIECES
    for _ in range(400):
        text = "".join(chance.choices(pieces, k=chance.randrange(1, 14)))
        held = {at for value in values_in(text) for at in range(value.start, value.end)}
        assert held.issuperset(at for at, sign in enumerate(text) if sign.isdecimal()), ascii(text)
        number_in(text)
        numbers_found(text, source=text)
        evidence_in(text, text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Season 2026 CHF 1’200.00", None),
        ("Berth 7 EUR 99", None),
        ("Berth 7 500 EUR", None),  # 7,500 EUR, or berth 7
        ("Berth 7\u2003500 EUR", None),
        ("7\u2003500 EUR", 7500),
        ("May€ß𝟙 \xad451;", None),
        ("35€ 99", None),
        ("1 250 € 60", None),
        ("5 euro 40 cents", None),
        ("A4-12,50 kg", None),
        ("saat 9'dan", None),
        ("1 234,50 EUR", 1234.5),
        ("Total : 1 234,50 €", 1234.5),
        ("Rechnung 45 - 04.06.2025", 45),
        ("Room 31 - 04.06.2025", 31),
        ("Bill 28 – 4 June 2025", 28),
        ("Invoice 12 - 04.06.2025", 12),
        ("2026-02-11 953,54 €", 953.54),  # nor is a day a part of a group of digits
        ("Pier 01 953,54 €", 953.54),
        ("08 953,54", 953.54),
        ("10-12 500 EUR", None),
        ("7 % VAT on 12 EUR", None),
        ("99 a month", 99),
        ("99 A", 99),
        ("3 l'année", 3),
        ("7 boats, 12 a.m.", 7),
        ("12 p.m.", None),
        ("Platz 12 am Hafen", 12),
        ("Kaffee ,75 EUR", 0.75),
        ("EUR ,50", 0.5),
        ("--,50 EUR", 0.5),
        ("Rabatt: -,50 EUR", None),  # of a franc, or less than nothing
        ("Milk,75", 75),  # a row of CSV
        ("12 ,75", None),
        ("Version 1.23.456", None),
        ("192.168.100.200", None),
        ("Rp12.100.250.125", 12100250125),
        ("Rs.1,234.56", 1234.56),
        ("MR1,234.56", None),
        ("2 1/2 l", 2.5),
        ("Page 1/2", None),
        ("7 boats, call +46 8 555 21 40", 7),  # where a space may group thousands
    ],
)
def test_the_only_number_of_a_line(text: str, number: float | None) -> None:
    assert number is None or numbers_found(text, source=text) is None
    assert number_in(text) == number


@pytest.mark.parametrize(
    ("value", "text", "is_found"),
    [
        ("3 EUR", "Pier 3 EUR 40", False),
        ("40 EUR", "Pier 3 EUR 40", True),
        ("10 EUR", "Pos. 1 Rope 10 EUR 45 per m", True),  # whose the currency is, stays open
        ("45 EUR", "Pos. 1 Rope 10 EUR 45 per m", True),
        ("2026 CHF", "Season 2026 CHF 1’200.00", False),
        ("100 EUR", "Deposit 100 EUR 5 keys.", True),
        ("100 EUR", "Fee 100 EUR 2027", True),
        ("120.50 EUR", "120.50 EUR 5", True),
        ("5 EUR", "120.50 EUR 5", False),
        ("35 €", "35€ 99", True),
        ("99 €", "35€ 99", False),
        ("35 €", "35 €99", False),
        ("5 EUR", "5 EUR 12 kg", True),
        ("12 EUR", "EUR 5 EUR 12 net", True),
        ("5 EUR", "EUR 5 EUR 12 net", True),
        ("40 CHF", "CHF 40.- EUR 99", True),
        ("425,50 zł", "VAT 23% 425,50 zł", True),
        ("5%", "%5", True),
        ("2024 EUR", "3 May 2024 EUR 500 net", False),
        (2024, "3 May 2024 EUR 500 net", True),
        (45, "Rechnung 45 - 04.06.2025", True),
        ("2025-06-04", "Rechnung 45 - 04.06.2025", True),
        ("2025-06-04", "01.06. - 04.06.2025", True),
        ("2024-05-03", "ngày 03 tháng 05 năm 2024", True),
        ("09:00", "Geöffnet ab 9:00 Mo bis Fr", True),
        ("21:00", "Geöffnet ab 9:00 Mo bis Fr", False),
        ("2024-05-03T12:30:00", "3 May 2024, 12:30 to 14:00", True),
        ("2024-05-03T17:30:00", "3 May 2024, 17:30 an Bord", True),
        ("00:00", "The ferry leaves at 12 a.m. from pier 2", True),
        ("09:00", "The ferry leaves the old harbour at 9 am every day", True),
        ("12:00", "The ferry leaves at 12 a.m. from pier 2", False),
        ("2025-06-04", "2 - 04.06.2025", False),  # in a range
        (28, "Bill 28 – 4 June 2025", True),
        ("-12,50 EUR", "12,50- EUR\nCHF 3", False),
        (-12.5, "12,50-\nCHF 3", True),
    ],
)
def test_a_currency_belongs_to_the_number_that_shows_it(
    value: object, text: str, is_found: bool
) -> None:
    assert (evidence_in(value, text)["match"] in ("exact", "normalised")) == is_found


@pytest.mark.parametrize(
    ("answer", "source", "is_found"),
    [
        ("Berth 7 EUR 99 per month", "Berth 7 is EUR 99", True),
        ("Berth 7 EUR 99 per month", "Berth 7 is CHF 99", False),
        ("The fee is 1320 EUR 2 times a year.", "1320 EUR, 2 times", True),
        ("The fee is 1320 EUR 2 times a year.", "1320 EUR per season", False),
        ("Betrag 7 500 EUR", "7.500 EUR", True),
        ("Berth 7 500 EUR", "Berth 7: 500 EUR", True),
        ("Berth 7 500 EUR", "Berth 7: 600 EUR", False),
        ("5'i geldi", "5 kişi geldi", True),
        ("6'i geldi", "5 kişi geldi", False),
    ],
)
def test_of_two_readings_one_has_to_be_in_the_source(
    answer: str, source: str, is_found: bool
) -> None:
    assert (numbers_found(answer, source=source) is None) == is_found


def test_a_number_behind_a_comma_has_its_currency() -> None:
    """As in a row of CSV: `Total,61.40 EUR`."""
    for text in ("Total,61.40 EUR\nPay by,as agreed", "x,61.40 EUR", "a;,61.40 EUR;b"):
        [value] = [value for value in values_in(text) if "61" in value.text]
        assert value.text == "61.40 EUR", text
