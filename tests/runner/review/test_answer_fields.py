"""Fields of an answer: what a form shows, and what a person's texts make of it."""

from typing import Any

import pytest

from paddock.pipelines.checking.source_index import number_in
from paddock.pipelines.reply_schema import read_reply_schema
from paddock.pipelines.text_cells import SourceText, TextCell, pack_cells
from paddock.runner.review.answer_fields import (
    WrongField,
    answer_fields,
    answer_from_json,
    edited_answer,
    page_words,
)
from paddock.runner.rules import offers_of

BILL = {
    "number": "str",
    "total": "float",
    "kind": "enum[invoice, credit note]",
    "paid": "bool",
    "due": "str?",
    "items": [{"name": "str", "price": "float?"}],
}
ANSWER: dict[str, Any] = {
    "number": "R-7",
    "total": 12345678901234567890.25,
    "kind": "invoice",
    "paid": False,
    "due": None,
    "items": [{"name": "rope", "price": 3}, {"name": "sail", "price": None}],
}


def schema(tmp_path: Any) -> Any:
    return read_reply_schema(BILL, tmp_path).schema


def test_each_leaf_is_a_field_with_its_kind_and_mirrors(tmp_path: Any) -> None:
    evidence = {"items": [{"name": {"quote": "rope", "match": "exact"}, "price": None}]}
    fields = answer_fields(ANSWER, schema(tmp_path), evidence, {"total": {"p": 0.5}})
    assert [(field.path, field.kind, field.text) for field in fields] == [
        ("number", "text", "R-7"),
        ("total", "number", "1.2345678901234567e+19"),
        ("kind", "choice", "invoice"),
        ("paid", "choice", "false"),
        ("due", "text", ""),
        ("items.0.name", "text", "rope"),
        ("items.0.price", "number", "3"),
        ("items.1.name", "text", "sail"),
        ("items.1.price", "number", ""),
    ]
    assert [field.is_nullable for field in fields] == [False] * 4 + [True, False, True, False, True]
    assert fields[1].confidence == {"p": 0.5}
    assert fields[5].evidence == {"quote": "rope", "match": "exact"}
    assert fields[7].evidence is None


def test_texts_become_values_of_the_fields_types(tmp_path: Any) -> None:
    fields = answer_fields(ANSWER, schema(tmp_path))
    changes = {
        "number": "0012", "total": " 84.50 ", "kind": "credit note", "paid": "true",
        "due": "2026-01-31", "items.0.price": "", "items.1.price": "1e999",
    }  # fmt: skip
    made = edited_answer(ANSWER, fields, changes)
    assert made == {
        "number": "0012",
        "total": 84.5,
        "kind": "credit note",
        "paid": True,
        "due": "2026-01-31",
        "items": [{"name": "rope", "price": None}, {"name": "sail", "price": "1e999"}],
    }
    assert ANSWER["items"][0]["price"] == 3


def test_amounts_and_days_are_read_as_people_write_them(tmp_path: Any) -> None:
    schema = read_reply_schema({"total": "float", "due": "date?"}, tmp_path).schema
    fields = answer_fields({"total": 1.5, "due": None}, schema)
    for total, due, made in (
        ("61,40", "3. Mai 2027", {"total": 61.4, "due": "2027-05-03"}),
        ("1.234,50 EUR", "03.05.2027", {"total": 1234.5, "due": "2027-05-03"}),
        ("1.234.567", " ", {"total": 1234567, "due": None}),
        ("some", "03/05/2027", {"total": "some", "due": "03/05/2027"}),  # refused by the schema
        ("1234.5", "soon", {"total": 1234.5, "due": "soon"}),
        ("1.2340", "soon", {"total": 1.234, "due": "soon"}),
        ("-0.125", "soon", {"total": -0.125, "due": "soon"}),
    ):
        assert (
            edited_answer({"total": 1.5, "due": None}, fields, {"total": total, "due": due}) == made
        )


@pytest.mark.parametrize("text", ["1.234", "1,234", "-1.234", "1.234 EUR", "EUR 12,345"])
def test_a_number_that_may_be_two_is_asked_about_unless_the_person_s_others_tell(text: str) -> None:
    fields = answer_fields({"total": 1.5}, {"properties": {"total": {"type": "number"}}})
    with pytest.raises(WrongField, match=r"may be two numbers\. Write 1\d+ or 1\d?\.") as caught:
        edited_answer({"total": 1.5}, fields, {"total": text})
    assert caught.value.path == "total"
    sign = -1 if text[0] == "-" else 1
    for mark in ".,":
        made = edited_answer({"total": 1.5}, fields, {"total": text}, mark)["total"]
        is_whole = mark not in text
        assert made == sign * {"5": 12345, "4": 1234}[text.rstrip(" EUR")[-1]] / (
            1 if is_whole else 1000
        )
    same = answer_fields({"total": 1.234}, {"properties": {"total": {"type": "number"}}})
    assert edited_answer({"total": 1.234}, same, {"total": "1.234"}) == {"total": 1.234}


def test_what_was_not_changed_is_not_rounded() -> None:
    answer = {"n": 12345678901234567890, "x": 0.1}
    fields = answer_fields(answer, {"properties": {"n": {"type": "integer"}}})
    assert edited_answer(answer, fields, {"n": fields[0].text, "x": "0.1"}) == answer


def test_references_within_a_schema_and_answers_without_one() -> None:
    referring = {
        "$defs": {"kind": {"enum": ["a", None]}},
        "properties": {"k": {"$ref": "#/$defs/kind"}, "m": {"$ref": "#"}},
    }
    first, second = answer_fields({"k": "a", "m": {"k": None}}, referring)
    assert (first.kind, first.choices, first.is_nullable) == ("choice", ("a",), True)
    assert second.path == "m.k"
    (whole,) = answer_fields("A text.", None)
    assert (whole.path, whole.kind, whole.text) == ("", "text", "A text.")
    assert edited_answer("A text.", [whole], {"": "Another."}) == "Another."
    assert [field.path for field in answer_fields({"a": [], "b": {}}, None)] == ["a", "b"]


def test_a_name_with_dots_is_another_field_than_a_field_within_a_field() -> None:
    answer = {"a.b": 1, "a": {"b": 2}}
    fields = answer_fields(answer, None)
    assert [field.path for field in fields] == ["a\\.b", "a.b"]
    assert edited_answer(answer, fields, {"a.b": "3"}) == {"a.b": 1, "a": {"b": 3}}
    assert edited_answer(answer, fields, {"a\\.b": "3"}) == {"a.b": 3, "a": {"b": 2}}


def test_a_wrong_path_and_wrong_json_are_a_sentence() -> None:
    fields = answer_fields({"total": 1}, None)
    with pytest.raises(WrongField) as caught:
        edited_answer({"total": 1}, fields, {"totl": "2"})
    assert str(caught.value) == (
        "the answer has no field 'totl'. Known: 'total'. Did you mean 'total'?"
    )
    for text in ("{", "NaN", "[" * 100_000):
        with pytest.raises(WrongField, match="JSON"):
            answer_from_json(text)


SIGNED = [
    "-60.00", "60.00-", "60.00 EUR-", "60.00 EUR -", "(60.00)", "($60.00)", "(EUR 60.00)",
    "-\u20ac60.00", "$-60.00", "- 60.00", "(60.00).",
]  # fmt: skip


@pytest.mark.parametrize("written", SIGNED)
def test_a_click_on_a_negative_amount_means_its_sign_too(written: str) -> None:
    def meaning(is_packed: bool) -> list[Any]:
        source = SourceText("a.pdf", text, boxes={"1": pack_cells(words)})
        found = page_words(source, 1, offers_of([source]).pack() if is_packed else "")
        (meant, start, end, *_) = next(word for word in found if "60.00" in word[0])
        assert "60.00" in text[start:end]
        return [meant, number_in(meant)]

    text, words, at = f"Invoice of a bay\nSum {written}", list[TextCell](), 0
    for word in text.split():
        start = text.index(word, at)
        at = start + len(word)
        top = 0.1 if "\n" in text[at:] else 0.3
        words.append(TextCell(start, at, (start / 99, top, (at + 0.6) / 99, top + 0.1)))
    assert (meaning(True)[1], meaning(False)[1]) == (-60.0, -60.0)  # OCR has no offers


def test_a_click_on_a_code_in_brackets_means_the_code() -> None:
    text = "Customer (12345)"
    cells = [TextCell(0, 8, (0, 0.1, 0.2, 0.2)), TextCell(9, 16, (0.22, 0.1, 0.4, 0.2))]
    source = SourceText("a.pdf", text, boxes={"1": pack_cells(cells)})
    for offers in ("", offers_of([source]).pack()):
        assert page_words(source, 1, offers)[1][:3] == ["12345", 10, 15]
