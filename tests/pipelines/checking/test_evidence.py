"""Each value of an answer is found where it is in the sources, or said to be nowhere."""

import re
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paddock.pipelines.checking.evidence import locate
from paddock.pipelines.checking.functions import numbers_found, quotes
from paddock.pipelines.text_cells import SourceText
from tests.pipelines.checked import missing_paths

BILL = """ACME GmbH   Invoice No. RE-2024-0017   Date: 3. Mai 2024
Pos  Qty  Name      Price   Amount
1    2    Widget    5,00    10,00
2    1    Gadget    5,00     5,00
3    1    Gizmo  1.234,50  1.234,50
Net 1.249,50 EUR  VAT 19 %  237,41
Total 1.486,91 EUR payable by 17.05.2024
IBAN DE89 3704 0044 0532 0130 00
"""


def one(value: Any, text: str, schema: Any = True, name: str = "value") -> Any:
    """Locate a single field; its name is in no text."""
    fields = {"properties": {name: schema}}
    return locate({name: value}, fields, [SourceText("text", text)])[name]


def test_an_invoice_s_values_are_found_in_their_rows_and_columns() -> None:
    answer = {
        "number": "RE-2024-0017",
        "supplier": {"name": "Acme GmbH"},
        "date": "2024-05-03",
        "pay_by": "2024-05-17",
        "vat": "19 %",
        "total": 1486.91,
        "iban": "DE89370400440532013000",
        "items": [
            {"pos": 1, "qty": 2, "name": "Widget", "price": 5.0, "amount": 10},
            {"pos": 2, "qty": 1, "name": "Gadget", "price": 5.0, "amount": 5},
            {"pos": 3, "qty": 1, "name": "Gizmo", "price": 1234.5, "amount": 1234.5},
        ],
    }
    found = locate(answer, {}, [SourceText("bill", BILL)])
    assert missing_paths(found) == []
    places = {
        name: (leaf["quote"], leaf["line"], leaf["column"], leaf["match"])
        for name, leaf in found.items()
        if "match" in leaf
    }
    assert places == {
        "number": ("RE-2024-0017", 1, 25, "exact"),
        "date": ("3. Mai 2024", 1, 46, "normalised"),
        "pay_by": ("17.05.2024", 7, 31, "normalised"),
        "vat": ("19 %", 6, 23, "exact"),
        "total": ("1.486,91", 7, 7, "normalised"),
        "iban": ("DE89 3704 0044 0532 0130 00", 8, 6, "normalised"),
    }
    assert found["supplier"]["name"]["quote"] == "ACME GmbH"
    columns = [
        [(leaf["line"], leaf["column"]) for leaf in item.values()] for item in found["items"]
    ]
    assert columns == [
        [(3, 1), (3, 6), (3, 11), (3, 21), (3, 29)],
        [(4, 1), (4, 6), (4, 11), (4, 21), (4, 30)],
        [(5, 1), (5, 6), (5, 11), (5, 18), (5, 28)],
    ]
    assert found["items"][1]["price"]["others"] == 2
    for item in found["items"]:
        for leaf in item.values():
            assert BILL[leaf["start"] : leaf["end"]] == leaf["quote"]


_WORD = st.text("abcdefgüßéñ東都", min_size=1, max_size=8)  # 京 is a number, too
_GAP = st.sampled_from(
    [" ", "  ", "\n", "\n\n", ", ", ". ", " - ", ": ", "-\n", "\u00a0", " \u201e"]
)
_PIECES = st.lists(st.tuples(st.one_of(_WORD, st.integers(1, 99_999).map(str)), _GAP), min_size=1)


@settings(max_examples=100)
@given(pieces=_PIECES, data=st.data())
def test_every_value_cut_out_of_a_text_is_found_exactly(
    pieces: list[tuple[str, str]], data: st.DataObject
) -> None:
    text = "".join(word + gap for word, gap in pieces)
    first = data.draw(st.integers(0, len(pieces) - 1))
    last = data.draw(st.integers(first, len(pieces) - 1))
    cut = "".join(word + gap for word, gap in pieces[first:last]) + pieces[last][0]
    assume("-\n" not in (pieces[last][1], pieces[first - 1][1] if first else ""))  # half a word
    numbers = {n for n, (word, _) in enumerate(pieces) if word.isdecimal()}
    near = {n for edge in {first, last} & numbers for n in range(edge - 2, edge + 3)}
    assume(not numbers & near.difference(range(first, last + 1)))  # "1 101", "2 a - 1"
    assume(not (last in numbers and last + 1 == len(pieces) and pieces[last][1] == " - "))  # 1 -
    flat = " ".join(text.split())  # of two that differ by white space the first is taken
    assume(len(re.findall(f"(?={re.escape(' '.join(cut.split()))})", flat)) == 1)
    found = one(cut, text)
    assert found["match"] == "exact"
    assert found["quote"] == cut == text[found["start"] : found["end"]]


@settings(max_examples=100)
@given(
    text=st.text("aäßﬁe\u0301\u00ad-\u200b \n.,'\u201e12½²東\x00", max_size=60),
    value=st.text("aäßﬁe\u0301\u00ad- .,'12½²東", max_size=8),
)
def test_offsets_always_lead_to_the_quote(text: str, value: str) -> None:
    found = one(value, text)
    if found is None:
        assert not value.strip()
    elif found["match"] != "none":
        assert text[found["start"] : found["end"]] == found["quote"] != ""
        assert found["line"] == text.count("\n", 0, found["start"]) + 1
        assert found["column"] == found["start"] - (text.rfind("\n", 0, found["start"]) + 1) + 1


def test_pages_are_those_at_which_a_quote_begins() -> None:
    text = "Signed by Ann\n\nLee on page two.\n\nTotal 84"
    starts = 0, text.index("Lee"), text.index("Total")
    source = SourceText("deed", text, starts, is_paged=True)
    found = locate({"who": "Ann Lee", "sum": 84}, {}, [source])
    assert (found["who"]["page"], found["who"]["match"]) == (1, "normalised")
    assert found["who"]["quote"] == "Ann\n\nLee"
    assert (found["sum"]["page"], found["sum"]["line"], found["sum"]["column"]) == (3, None, None)


def test_several_sources_have_their_own_offsets_and_never_share_a_quote() -> None:
    sources = [SourceText("a", "one Ann"), SourceText("b", "Lee\nand Total: 84")]
    found = locate({"who": "Ann Lee", "sum": 84, "last": "Lee"}, {}, sources)
    assert found["who"]["match"] == "none"
    assert (found["sum"]["source"], found["sum"]["start"], found["sum"]["line"]) == ("b", 15, 2)
    assert (found["last"]["source"], found["last"]["column"]) == ("b", 1)
    assert locate({"who": "Ann"}, {}, [])["who"]["match"] == "none"


def test_of_several_places_the_one_at_the_field_s_label_wins() -> None:
    text = "84 Main Street\nDeposit: 84\nTotal: 84.00 EUR\nDue: 84"
    for name, column in (("total", "84.00"), ("deposit", "84"), ("due", "84")):
        found = one(84, text, name=name)
        line = text.split("\n")[found["line"] - 1]
        assert line.casefold().startswith(name) and found["quote"] == column
        assert found["others"] == 3
    found = one(84, text, {"title": "Deposit"}, name="caution")
    assert found["line"] == 2


def test_the_fields_around_a_value_are_labels_where_its_own_is_not_in_the_text() -> None:
    text = "Seller: Berlin\nBuyer: Berlin\nCarrier: Berlin"
    answer = {name: {"town": "Berlin"} for name in ("buyer", "carrier", "seller")}
    found = locate(answer, {}, [SourceText("t", text)])
    assert {name: found[name]["town"]["line"] for name in found} == {
        "buyer": 2,
        "carrier": 3,
        "seller": 1,
    }


def test_a_label_right_before_a_value_counts_more_than_other_values() -> None:
    text = "Price: 1,450.00 EUR a year\n\n1. Berth 14 of the Heron has a price of 1,450.00 EUR."
    answer = {"price": 1450, "berth": 14, "boat": "Heron"}
    assert locate(answer, {}, [SourceText("t", text)])["price"]["line"] == 1


def test_without_a_label_the_other_values_decide() -> None:
    text = "Smith, Berlin, 5 units\n" + "filler\n" * 50 + "Jones, Berlin, 5 units\n"
    found = locate({"name": "Jones", "city": "Berlin", "n": 5}, {}, [SourceText("t", text)])
    assert {leaf["line"] for leaf in found.values()} == {52}
    rows = [{"n": 5, "city": "Berlin", "name": name} for name in ("Smith", "Jones")]
    found = locate(rows, {}, [SourceText("t", text)])
    assert [{leaf["line"] for leaf in row.values()} for row in found] == [{1}, {52}]


@pytest.mark.parametrize(
    "text",
    [
        "| Item | May | June |\n| --- | --- | --- |\n| Oil | | 5.00 |\n| Tar | 5.00 | |",
        "Item\tMay\tJune\nOil of a long name\t\t5.00\nTar\t5.00\t\nOil\t7\t",
        "Item       May     June\nOil                5.00\nTar       5.00\nOil          7",
    ],
    ids=["table", "tabs", "blanks"],
)
def test_a_heading_is_of_its_column_where_cells_are_empty(text: str) -> None:
    found = locate({"june": 5.0}, {}, [SourceText("t", text)])["june"]
    assert text[: found["start"]].splitlines()[-1].replace("| ", "").startswith("Oil")
    found = locate({"may": 5.0}, {}, [SourceText("t", text)])["may"]
    assert text[: found["start"]].splitlines()[-1].replace("| ", "").startswith("Tar")


def test_equal_rows_are_different_places() -> None:
    text = "Milk 1 5.00\nMilk 1 5.00\nMilk 1 5.00"
    rows = [{"name": "Milk", "n": 1, "price": 5}] * 3
    found = locate({"rows": rows}, {}, [SourceText("t", text)])["rows"]
    assert [[leaf["line"] for leaf in row.values()] for row in found] == [
        [n] * 3 for n in (1, 2, 3)
    ]


SCHEMA = {
    "$defs": {
        "party": {
            "properties": {
                "name": {"type": "string"},
                "kind": {"enum": ["person", "company"]},
                "notes": {"type": "string", "x-evidence": False},
            }
        }
    },
    "properties": {
        "seller": {"$ref": "#/$defs/party"},
        "buyer": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/party"}]},
        "version": {"const": "person"},
        "tags": {"type": "array", "items": {"anyOf": [{"const": "Ann"}, {"type": "string"}]}},
        "inner": {"x-evidence": False, "properties": {"a": {"type": "string"}}},
        "colour": {"enum": ["person", "red"], "x-evidence": True},
    },
    "additionalProperties": {"x-evidence": False},
}


def test_what_a_schema_decides_or_excludes_needs_no_evidence() -> None:
    party = {"name": "Ann", "kind": "person", "notes": "Ann", "more": "Ann"}
    answer = {
        "seller": party,
        "buyer": {"name": "Bob", "kind": None},
        "version": "person",
        "tags": ["Ann", "Bob", True, "", "  "],
        "inner": {"a": "Ann", "b": ["Bob"]},
        "colour": "person",
        "extra": "Ann",
    }
    found = locate(answer, SCHEMA, [SourceText("t", "Ann, a person")])
    match = {"name": "exact", "kind": None, "notes": None, "more": "exact"}
    assert _matches(found) == {
        "seller": match,
        "buyer": {"name": "none", "kind": None},
        "version": None,
        "tags": [None, "none", None, None, None],
        "inner": {"a": None, "b": [None]},
        "colour": "exact",
        "extra": None,
    }
    assert missing_paths(found) == ["buyer.name", "tags.1"]


def _matches(found: Any) -> Any:
    if isinstance(found, list):
        return [_matches(inner) for inner in found]
    if isinstance(found, dict) and not isinstance(found.get("match"), str):
        return {name: _matches(inner) for name, inner in found.items()}
    return found and found["match"]


def test_only_the_fields_that_are_asked_for_are_looked_for() -> None:
    answer = {"total": 84, "items": [{"price": 5, "name": "Milk"}], "buyer": {"name": "Ann"}}
    text = [SourceText("t", "Milk 5, Ann 84")]
    assert missing_paths(locate(answer, {}, text)) == []
    for only, located in {
        ("total",): {"total"},
        ("price",): {"items.0.price"},
        ("items.name",): {"items.0.name"},
        ("items.0.name",): {"items.0.name"},
        ("items", "buyer.name"): {"items.0.price", "items.0.name", "buyer.name"},
    }.items():
        nowhere = locate(answer, {}, [SourceText("t", "")], only)
        assert set(missing_paths(nowhere)) == located


def test_a_schema_that_refers_to_itself_ends() -> None:
    tree = {
        "properties": {"name": {"type": "string"}, "next": {"$ref": "#"}},
        "anyOf": [{"$ref": "#"}],
    }
    answer = {"name": "Ann", "next": {"name": "Bob", "next": None}}
    assert missing_paths(locate(answer, tree, [SourceText("t", "Ann")])) == ["next.name"]


def test_an_answer_that_is_one_value_or_has_fields_of_the_evidence_s_names() -> None:
    assert locate("Ann", {"type": "string"}, [SourceText("t", "by Ann")])["quote"] == "Ann"
    answer = {"match": "Ann", "quote": "Bob"}
    found = locate(answer, {}, [SourceText("t", "by Ann")])
    assert missing_paths(found) == ["quote"]
    assert missing_paths(locate("Bob", {}, [SourceText("t", "")])) == [""]
    assert missing_paths(None) == []
    nowhere = {"match": "none"}
    assert missing_paths({"a.b": nowhere, "a": {"b": nowhere}}) == ["a\\.b", "a.b"]


ODD_TEXTS = {
    "letter": "a" * 200_000,
    "word": "a " * 100_000,
    "sign": "東" * 100_000,
    "digits": "1 " * 20_000,
    "accents": "e\u0301" * 50_000,
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_odd_texts_and_very_long_values_take_no_long(text: str) -> None:
    values = [
        "a",
        "aab",
        "a a",
        "東東",
        "11",
        "1 1",
        text[:50_000],
        text + "b",
        "b" * 200_000,
        1,
        11.5,
    ]
    source = SourceText("t", text)
    found = locate(values, {}, [source])
    for leaf in found:
        if leaf is not None and leaf["match"] != "none":
            assert text[leaf["start"] : leaf["end"]] == leaf["quote"]


@pytest.mark.parametrize(
    ("value", "text", "match"),
    [
        (40, "Fee: 40[^1] EUR", "exact"),
        ("40 EUR", "Fee: 40[^1] EUR", "normalised"),
        (40, "Fee: ~~40~~ 45 EUR", "none"),
        (45, "Fee: ~~40~~ 45 EUR", "exact"),
        ("Harwich", "<!-- Harwich\n\nand more --> Quay", "none"),
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
    assert numbers_found("The fee is 40 EUR.", source="The fee is ~~40~~ 45 EUR.") is not None
    assert numbers_found("The fee is 45 EUR.", source="The fee is 45[^1] EUR. ~~40~~") is None
    assert quotes("slate roof", source="a ~~slate roof~~ tin roof") is not None
