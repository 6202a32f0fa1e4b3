"""No value is found in struck or hidden text, and a note's mark is no part of a value."""

import pytest

from paddock.pipelines.checking.evidence import SourceText, locate
from paddock.pipelines.checking.functions import grounded, quotes


@pytest.mark.parametrize(
    ("value", "text", "match"),
    [
        (40, "Fee: 40[^1] EUR", "exact"),
        ("40 EUR", "Fee: 40[^1] EUR", "normalised"),
        (401, "Fee: 40[^1] EUR", "none"),
        (40, "Fee: ~~40~~ 45 EUR", "none"),
        (45, "Fee: ~~40~~ 45 EUR", "exact"),
        (50, "Fee: <!-- 50 --> 45 EUR", "none"),
        ("Harwich", "<!-- Harwich\n\nand more --> Quay", "none"),
        ("Quay", "<!-- Harwich\n\nand more --> Quay", "exact"),
        ("a^b", r"key a\^b", "normalised"),
        (106, "10^6", "none"),
    ],
)
def test_evidence_is_found_in_what_a_document_shows(value: object, text: str, match: str) -> None:
    found = locate({"value": value}, {}, [SourceText("bill", text)])["value"]
    assert found["match"] == match
    if match != "none":
        assert text[found["start"] : found["end"]] == found["quote"]


def test_an_answer_is_not_grounded_in_struck_text() -> None:
    assert grounded("The fee is 40 EUR.", source="The fee is ~~40~~ 45 EUR.") is not None
    assert grounded("The fee is 45 EUR.", source="The fee is 45[^1] EUR. ~~40~~") is None
    assert quotes("slate roof", source="a ~~slate roof~~ tin roof") is not None
