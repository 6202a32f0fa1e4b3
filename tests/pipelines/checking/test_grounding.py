"""Numbers, dates and times of an answer are looked for as they may be meant, not as written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.pipelines.checking.check import Undecided, is_refused
from paddock.pipelines.checking.functions import cites, grounded, quotes, sentences


@pytest.mark.timeout(20)
def test_an_answer_of_many_line_ends_or_dots_is_checked_in_no_time() -> None:
    assert grounded("\n" * 200_000 + "x", source="") is None
    assert sentences("." * 200_000 + "x") == 1


@pytest.mark.parametrize(
    ("answer", "source", "missing"),
    [
        ("47 of 12", "12", "47"),
        ("5 million", "5 boats", "5 million"),
        ("2024-05-03", "3 May 2023", "2024-05-03"),
        ("3 March 2024", "12/03/2024", "3 March 2024"),
        ("4 May", "3 May and 4 boats", "4 May"),
        ("14:30", "4.30 pm", "14:30"),
        ("1,234", "1.235", "1,234"),
        ("0.5", "5", "0.5"),
    ],
)
def test_what_cannot_mean_the_same_is_named(answer: str, source: str, missing: str) -> None:
    told = f"This is not in the source: {missing}. Use only what is in it."
    assert grounded(answer, source) == told


def test_all_fields_of_an_answer_are_looked_at_in_all_parts_of_a_source() -> None:
    answer = {"total": 12.5, "rows": [{"n": 3}, {"n": 4, "is_paid": True}], "note": None}
    assert not is_refused(grounded(answer, ["12,50", {"text": "3"}, {"text": "four"}]))
    assert is_refused(grounded(answer, ["12,50", {"text": "3"}]))


@pytest.mark.parametrize(
    ("answer", "source", "is_decided"),
    [
        ("The fee is 40 EUR", "The fee is 40 EUR a month", False),
        ("The fee was 40 EUR.", "The fee is EUR 40.00.", True),
        ("The net fee is 40 EUR", "The fee is 40 EUR", False),
        ("The notice is 90 days", "The notice is at least 90 days", False),
        ("Kinder zahlen 45 Euro", "Erwachsene zahlen 120 Euro, Kinder 45 Euro", False),
        ("L'entrée coûte 9 euros pour les étudiants",
         "L'entrée coûte 9 euros, 6 euros pour les étudiants", False),
        ("The payee sends 40 EUR", "The payer sends 40 EUR", False),
        ("Ann owes 40 EUR to Ben", "Ben owes 40 EUR to Ann", False),
        ("It costs 5 to 8 euros", "It costs 5-8 euros", True),
        ("It costs 5 euros", "It costs 5 to 8 euros", False),
        ({"total": 40}, "Total due: 40.00", True),
        ("Section 3 applies", "3. Section three applies", True),
    ],
)  # fmt: skip
def test_what_is_said_with_other_words_or_fewer_is_undecided(
    answer: object, source: str, is_decided: bool
) -> None:
    told = grounded(answer, source)
    assert told is None if is_decided else isinstance(told, Undecided)
    assert is_refused(grounded(answer, source, undecided="fail")) is not is_decided


def test_a_number_may_be_off_by_a_share_if_wished() -> None:
    assert is_refused(grounded("about 1200", "1234"))
    assert not is_refused(grounded("about 1200", "1234", within=0.05))


def cases() -> Iterator[tuple[str, str, str, bool]]:
    kind = ""
    for line in Path(__file__).with_name("grounded_cases.txt").read_text("utf-8").splitlines():
        if line.startswith("#"):
            kind = line.strip("# ")
            continue
        for mark, sign in (("\\n", "\n"), ("\\u00a0", "\u00a0"), ("\\u202f", "\u202f")):
            line = line.replace(mark, sign)
        verdict, answer, source = line.split("|")
        yield kind, answer, source, {"yes": True, "no": False}[verdict]


CASES = list(cases())


def test_the_table_has_cases_of_every_kind_in_both_directions() -> None:
    assert len(CASES) >= 300
    verdicts = {(kind, is_grounded) for kind, _, _, is_grounded in CASES}
    assert verdicts == {(kind, one) for kind, _ in verdicts for one in (True, False)}


@pytest.mark.parametrize(("kind", "answer", "source", "is_grounded"), CASES)
def test_every_decided_case_is_held(kind: str, answer: str, source: str, is_grounded: bool) -> None:
    assert is_refused(grounded(answer, source)) is not is_grounded


def test_numbers_of_fields_are_looked_for_as_written_out() -> None:
    assert not is_refused(grounded({"total": 1234567.5}, "1.234.567,50 €"))
    assert is_refused(grounded({"total": 1234567.5}, "1.234.570 €"))
    assert not is_refused(grounded({"n": 1e6}, "one million"))
    assert not is_refused(grounded(["1. Bread", "2. Milk"], "bread and milk"))
    assert grounded({"day": "24. Mai", "who": "Ann"}, "3. Mai, Ann") == (
        "This is not in the source: 24. Mai. Use only what is in it."
    )


def test_missing_numbers_are_named_in_the_answer_s_order_with_their_units() -> None:
    assert grounded("Fourteen of 50 % on 4 May, -5 °C", "nothing") == (
        "This is not in the source: Fourteen, 50 %, 4 May, -5 °C. Use only what is in it."
    )


def test_what_repeats_is_grounded_in_itself() -> None:
    for text in (
        "1",
        "1 ",
        "1,",
        "1.",
        "1/",
        "1:",
        "-",
        "one ",
        "May ",
        "a-1",
        "三",
        "1e9 ",
        "[1]",
    ):
        assert not is_refused(grounded(text * 250, text * 250))


PLAIN = "The river runs past the old mill and nothing is counted there at all.\n" * 200


@pytest.mark.parametrize(
    ("answer", "first", "last", "is_grounded"),
    [
        ("4 months", "4 of them", "4 years", False),
        ("4 months", "4 years", "4 months", True),
        ("the 21st century", "21 boats", "XXI century", True),
        ("3 May 2024", "3 boats in 2024", "03.05.2024", True),
        ("3 May 2024", "May 2024, 3 boats", "the third of May", True),
        ("14:30", "14 boats", "open until 14.30 Uhr", True),
        ("won 5 to 3", "3 to 5", "5-3", True),
        ("5 million", "five boats", "five million", True),
    ],
)
def test_what_a_long_text_says_first_and_last_counts_alike(
    answer: str, first: str, last: str, is_grounded: bool
) -> None:
    assert is_refused(grounded(answer, f"{first}\n{PLAIN}{last}")) is not is_grounded


@settings(max_examples=60)
@given(text=st.text("0123456789.,: /-ampJunMrz$k\n[]", max_size=60))
def test_every_text_is_grounded_in_itself(text: str) -> None:
    assert grounded(text, text) is None


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        ({"a": "“Ferry  AT nine.”"}, "The ferry at\nnine, again"),
        ("the ferry's bell", "The ferry\u2019s bell"),
        ("nine \u2013 or ten", "nine - or ten"),
        ("cafe\u0301", "the café"),
        ("\u00abthe bell\u00bb", "“the bell”"),
        ("a\u00a0boat", "a boat"),
        ("the \ufb01rst o\ufb03ce", "The first office"),
        ("Fäh\u00adre", "Fähre"),
        ("an example", "an exam-\nple"),
        ("well-known", "well-\nknown"),
        ("and so on…", "And so on..."),
        ("“No,” he said", "'No,' he said"),
        ('il "peut" être; et "dû"', "il «\u00a0peut\u00a0» être\u202f; et « dû »"),
        ('"Rose" und "Haus" dort', "»Rose« und »Haus« dort"),
        ("到达岛上", "中午到达岛上。"),
        ({"n": 1200, "text": "boats"}, "1,200 boats"),
        ("1,200", "1,200 boats"),
        ([], "boats"),
        (None, "boats"),
    ],
)
def test_quotations_mind_no_typography(answer: Any, source: str) -> None:
    assert quotes(answer, source) is None


@pytest.mark.parametrize(
    ("answer", "source", "missing"),
    [
        ("ferry at ten", "The ferry at nine", '"ferry at ten"'),
        ("ine", "nine", '"ine"'),
        ("nin", "nine", '"nin"'),
        ("200 boats", "1,200 boats", '"200 boats"'),
        ("costs 3", "costs 3.5", '"costs 3"'),
        ("", "nine", '""'),
        (" “” ", "nine", '"“”"'),
        ({"n": 1300, "text": "boats"}, "1,200 boats", "1300"),
        (["nine", "a\u00a0goat"], "nine boats", '"a goat"'),
    ],
)
def test_quotations_that_do_not_stand_there_are_named(
    answer: Any, source: str, missing: str
) -> None:
    told = f"This is not in the source word by word: {missing}."
    assert quotes(answer, source) == told


@pytest.mark.parametrize(
    ("text", "sources", "sentence"),
    [
        ("So [1] and [2, 3].", 3, None),
        ("So [1-3].", 2, "It cites [3], but there are only the sources [1] to [2]."),
        ("So [0].", ["a"], "It cites [0], but there is only the source [1]."),
        ("So it is.", ["a"], "It must cite a source by number, such as [1]."),
        ("So it is.", [], None),
        ("So [1].", [], "It cites [1], but there are no sources."),
    ],
)
def test_citations_are_those_of_sources_that_there_are(
    text: str, sources: int | list[str], sentence: str | None
) -> None:
    assert cites(text, sources) == sentence


def test_the_heading_of_a_long_table_gives_its_numbers_their_unit() -> None:
    table = "item,price_eur,weight_kg\n" + "".join(f"box,{n}.50,{n + 1}\n" for n in range(200, 600))
    assert not is_refused(grounded("The last box costs 599.50 euros and weighs 600 kg.", table))
    assert is_refused(grounded("It costs 600 euros.", table))


@pytest.mark.parametrize(
    ("answer", "source", "is_grounded"),
    [
        ("40 euros", {"price_eur": 40}, True),
        ("40 euros", {"weight_kg": 40}, False),
        ("40 euros", {"price": 40}, False),
        ("40 euros", {"price": 40, "currency": "EUR"}, True),
        ("40 dollars", {"currency": "EUR", "items": [{"price": 40}]}, False),
        ("€40.50 for 3 kg", [{"priceEUR": "40.50", "weight (kg)": "3"}], True),
        ("3 euros", [{"priceEUR": "40.50", "weight (kg)": "3"}], False),
        ("12 weeks", {"duration_months": 12}, False),
        ("a 40-year-old at 21.5 °C", {"age": 40, "temp_c": 21.5}, True),
        ("40 people, 40 euros", ["40"], True),
    ],
)
def test_a_number_of_data_has_the_unit_that_its_key_says(
    answer: str, source: Any, is_grounded: bool
) -> None:
    assert is_refused(grounded(answer, source)) is not is_grounded


def test_a_bound_is_turned_by_nobody_and_square_metres_are_no_metres() -> None:
    assert not is_refused(grounded("Nobody gets more than £180.", "They get at most £180."))
    assert is_refused(grounded("Nobody gets more than £180.", "They get at least £180."))
    assert not is_refused(grounded("84 metri quadri, 84 mètres carrés", "un trilocale di 84 m²"))
    assert is_refused(grounded("84 metri quadri", "a 84 metri dalla metro"))
