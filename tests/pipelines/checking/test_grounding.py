"""Numbers, dates and times of an answer are looked for as they may be meant, not as written."""

from typing import Any

import pytest

from paddock.pipelines.checking.functions import cites, language, numbers_found, quotes, sentences


@pytest.mark.timeout(20)
def test_an_answer_of_many_line_ends_or_dots_is_checked_in_no_time() -> None:
    assert numbers_found("\n" * 200_000 + "x", source="") is None
    assert sentences("." * 200_000 + "x") == 1


@pytest.mark.parametrize(
    ("answer", "source", "lacking"),
    [
        ("47 of 12", "12", "47"),
        ("5 million", "5 boats", "5 million"),
        ("2024-05-03", "3 May 2023", '2024-05-03 (it has "3 May 2023")'),
        ("3 May 2024", "3 May", '3 May 2024 (it has "3 May", without the year)'),
        ("3 May 2024", "3\u20135 May 2024", '3 May 2024 (it has "3\u20135 May 2024", in a range)'),
        ("2024-04-03", "03/04/2024",
         '2024-04-03 (it has "03/04/2024", where day and month are not clear)'),
        ("40 EUR", "40 EUR/kg", '40 EUR (it has "40 EUR/kg")'),
        ("14:30", "4:30 pm", "14:30"),
        ("0.5", "5", '0.5 (it has "5")'),
        ("HC-0457", "HC-0458", "HC-0457"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named_with_the_nearest_place(
    answer: str, source: str, lacking: str
) -> None:
    sentence = f"This is not in the source: {lacking}. Use only what is in it."
    assert numbers_found(answer, source) == sentence


@pytest.mark.parametrize(
    ("source", "is_grounded"),
    [
        ("Is the fee 40 EUR?", False),
        ("\u00bfEs la tasa 40 EUR?", False),
        ("40 EUR\u3067\u3059\u304b\uff1f", False),
        ("Fee: 40 EUR. Is that clear?", True),
        ("| 40 EUR | paid? |", True),
        ("Is it 40 EUR? It is 40 EUR.", True),
        ("see https://quay.example/?fee=40 EUR", False),
    ],
)
def test_a_question_states_nothing(source: str, is_grounded: bool) -> None:
    assert (numbers_found("The fee is 40 EUR.", source) is None) is is_grounded


@pytest.mark.parametrize(
    ("answer", "source"),
    [
        ({"a": "“Ferry  AT nine.”"}, "The ferry at\nnine, again"),
        ("the ferry's bell", "The ferry\u2019s bell"),
        ("cafe\u0301", "the café"),
        ("the \ufb01rst o\ufb03ce", "The first office"),
        ("Fäh\u00adre", "Fähre"),
        ("an example", "an exam-\nple"),
        ("and so on…", "And so on..."),
        ('il "peut" être; et "dû"', "il «\u00a0peut\u00a0» être\u202f; et « dû »"),
        ('"Rose" und "Haus" dort', "»Rose« und »Haus« dort"),
        ("到达岛上", "中午到达岛上。"),
        ({"n": 1200, "text": "boats"}, "1200 boats"),
        ("1,200", "1,200 boats"),
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
        ("200 boats", "1,200 boats", '"200 boats"'),
        ("", "nine", '""'),
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


FIELDS = {"total": 12.5, "rows": [{"n": 3}, {"n": 4, "is_paid": True}], "note": None}
PRICES = [{"priceEUR": "40.50", "weight (kg)": "3"}]


@pytest.mark.parametrize(
    ("answer", "source", "wishes", "is_grounded"),
    [
        (FIELDS, ["12,50", {"text": "3"}, {"text": "4"}], {}, True),
        (FIELDS, ["12,50", {"text": "3"}], {}, False),
        ("about 1200", "1234", {}, False),
        ("about 1200", "1234", {"within": 0.05}, True),
        ({"total": 1234567.5}, "1.234.567,50 €", {}, True),
        ({"total": 1234567.5}, "1.234.570 €", {}, False),
        (["1. Bread", "2. Milk"], "bread and milk", {}, True),
        ("It has 2 boats", "1. Bread\n2. Milk", {}, False),
        ("40 euros", {"price_eur": 40}, {}, True),  # the key ends in its unit
        ("40 euros", {"weight_kg": 40}, {}, False),
        ("40 euros", {"price": 40}, {}, False),
        ("€40.50 for 3 kg", PRICES, {}, True),
        ("3 euros", PRICES, {}, False),
        ("40 people", ["40"], {}, True),
        *((text * 250, text * 250, {}, True) for text in ("1/", "-", "May ", "三", "1e9 ")),
    ],
)
def test_numbers_of_fields_rows_and_keys_are_grounded_as_they_are_meant(
    answer: Any, source: Any, wishes: dict[str, Any], is_grounded: bool
) -> None:
    assert (numbers_found(answer, source, **wishes) is None) is is_grounded


@pytest.mark.parametrize(
    ("text", "wanted", "sentence"),
    [
        ("Die Fähre fährt um neun und kommt abends zurück.", ("de",), None),
        ("Die Fähre fährt um neun und kommt abends zurück.", ("English", "German"), None),
        ("The ferry leaves at nine and comes back at night.", ("de", "fr"),
         "It is written in English; write it in German or French."),
        ("今日は船が九時に出ます", ("en",), "It is written in Japanese; write it in English."),
        ("OK 47", ("de",), None),
        ("Ferjen går klokka ni og kommer tilbake om kvelden.", ("nb",), None),
        ("Ferja går klokka ni og kjem attende om kvelden. Eg veit ikkje kva dei gjer.", ("nn",),
         None),
        ("Ferja går klokka ni og kjem attende om kvelden. Eg veit ikkje kva dei gjer.", ("no",),
         None),
        ("The ferry leaves at nine and comes back at night.", ("nn",),
         "It is written in English; write it in nn."),
        ("呢隻船九點開 夜晚先返嚟。我唔知佢哋做緊乜嘢。", ("zh",), None),
        ("呢隻船九點開 夜晚先返嚟。我唔知佢哋做緊乜嘢。", ("yue",), None),
        ("渡轮九点出发 晚上返回。我不知道他们在做什么。", ("zh-Hans",), None),
        ("Ang lantsa ay umaalis ng alas nuwebe at bumabalik sa gabi.", ("fil",), None),
        ("D Fähri fahrt am nüni ab und chunnt am Obig zrugg. Ich weiss nöd.", ("gsw",), None),
        (["Le bateau part", "à neuf heures du matin."], ("fr_FR",), None),
    ],
)  # fmt: skip
def test_a_text_is_in_its_language(
    text: str | list[str], wanted: tuple[str, ...], sentence: str | None
) -> None:
    assert language(text, *wanted) == sentence


def test_a_language_that_is_not_known_is_told() -> None:
    with pytest.raises(ValueError, match="there is no language 'Klingon'; write a code such as"):
        language("Some text", "Klingon")
