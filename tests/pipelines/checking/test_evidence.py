"""Each value of an answer is found where it is in the sources, or said to be nowhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.checking.evidence import SourceText, locate, missing_paths

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
        "vat": 0.19,
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
        "vat": ("19", 6, 23, "normalised"),
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


def cases() -> Iterator[tuple[str, str, str, str]]:
    """Yield match, value, text and quote of each decided case."""
    for line in Path(__file__).with_name("evidence_cases.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            match, value, text, quote = line.split("|")
            yield match, value, _unescaped(text), _unescaped(quote)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(n|u[0-9a-f]{4})", lambda at: json.loads(f'"{at[0]}"'), text)


@pytest.mark.parametrize(("match", "value", "text", "quote"), [*cases()])
def test_every_decided_case_is_held(match: str, value: str, text: str, quote: str) -> None:
    found = one(json.loads(value), text, name="field")
    assert (found["match"], found["quote"] or "") == (match, quote)
    assert (found["ratio"] is not None) == (match == "fuzzy")
