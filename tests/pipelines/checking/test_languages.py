"""The language of an answer is told apart where there is enough of it."""

import pytest

from paddock.pipelines.checking.functions import language


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
