"""Copies among rows: of which earlier one, and how alike."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import StepError
from paddock.steps.text.duplicates import COLUMNS, Duplicates, DuplicatesParams
from tests.fakes.tools import tools

Mark = Callable[..., dict[str, Any]]
BILL = (
    "Invoice RE-2026-0012 of the ferry company Hart and Sons. Delivery of 12 ropes and 4 lamps to "
    "the harbour. The total is 119.00 EUR. Please pay by 2026-03-01 at the latest to our account "
    "at the bank of Harwich. Thank you for your order and come back soon."
)


@pytest.fixture
def mark(tmp_path: Path) -> Mark:
    """Return what marks rows, and gives by key what each is a copy of, and how."""

    def mark(rows: list[dict[str, Any]], **given: Any) -> dict[str, Any]:
        params = DuplicatesParams(
            rows=TypedRows(rows), key="document", **({"text": "text"} | given)
        )
        made = asyncio.run(Duplicates().run(params, tools(tmp_path)))
        assert [
            {name: row[name] for name in row if name not in COLUMNS} for row in made.rows
        ] == rows
        assert made.count == sum(row["copy_of"] is not None for row in made.rows)
        return {
            row["document"]: row["copy_of"] and tuple(map(row.get, COLUMNS)) for row in made.rows
        }

    return mark


def bills(**texts: Any) -> list[dict[str, Any]]:
    return [{"document": name, "text": text} for name, text in texts.items()]


def test_a_text_that_differs_in_a_number_is_alike_and_the_number_is_named(mark: Mark) -> None:
    other = BILL.replace("119.00", "129.00")
    found = mark(
        bills(a=BILL, b=f"  {BILL.upper()}\n", c=other, d="Quite another text, on 2 seals.")
    )
    assert found == {
        "a": None,
        "b": ("a", "text", 1.0, "", ""),
        "c": ("a", "alike", 0.92, "129.00", "119.00"),
        "d": None,
    }
    assert mark(bills(a=BILL, c=other), alike=0.95) == {"a": None, "c": None}


def test_the_nearest_earlier_row_is_named_and_of_equal_ones_the_first(mark: Mark) -> None:
    may, june = BILL.replace("12 ropes", "9 ropes"), BILL.replace("lamps", "bells")
    found = mark(bills(may=may, april=BILL, june=june, again=june.replace("0012", "0072")))
    assert {name: copy and copy[0] for name, copy in found.items()} == {
        "may": None, "april": "may", "june": "april", "again": "june",
    }  # fmt: skip
    assert mark(bills(a=BILL, b=BILL, c=BILL))["c"] == ("a", "text", 1.0, "", "")


def test_a_row_that_comes_changes_no_earlier_one_whatever_its_name(mark: Mark) -> None:
    rows = [
        {"document": name, "text": text, "modified": f"2026-03-{day}"}
        for name, text, day in [("b", BILL, "02"), ("c", BILL + " Paid.", "05"), ("d", BILL, "03")]
    ]
    before = mark(rows)
    assert {name: copy and copy[0] for name, copy in before.items()} == {
        "b": None, "c": "b", "d": "b",
    }  # fmt: skip
    assert mark([{"document": "a", "text": BILL, "modified": "2026-03-09"}, *rows]) == before | {
        "a": ("b", "text", 1.0, "", "")
    }
    assert mark(rows, first="document")["d"] == ("b", "text", 1.0, "", "")
    odd = [
        {**row, "modified": when} for row, when in zip(rows, [float("nan"), None, 3], strict=True)
    ]
    assert mark(odd)["d"] is None  # what has no time comes last


def test_the_same_bytes_are_a_copy_without_a_text_and_empty_ones_are_none(mark: Mark) -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    rows = [
        {"document": name, "sha256": digest, "text": text}
        for name, digest, text in [
            ("scan", "1", ""), ("again", "1", ""), ("other", "2", ""), ("e", empty, ""),
            ("f", empty, ""), ("none", None, None), ("none2", None, None), ("number", 7, 7),
            ("word", "3", "Word"), ("word2", "4", "Word"), ("list", ["1"], [BILL]),
        ]
    ]  # fmt: skip
    copies = {"again": ("scan", "content", 1.0, "", "")}
    assert mark(rows, content="sha256") == {row["document"]: None for row in rows} | copies
    assert mark(rows, content="sha256", text=None)["again"] == copies["again"]
    assert mark([]) == {}


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["in/a (1).pdf", "in/a.pdf"], "in/a.pdf"),
        (["a (1).pdf", "a (2).pdf", "a-copy.pdf", "a.pdf"], "a.pdf"),
        (["b/a (2).pdf", "c/a.pdf", "d/a.pdf"], "c/a.pdf"),
        (["long letter.pdf", "note.pdf"], "long letter.pdf"),
        (["1.pdf", "10.pdf"], "1.pdf"),
        (["a.pdf", "b.pdf"], "a.pdf"),
    ],
)
def test_of_copies_of_one_time_the_one_that_others_are_named_after_is_the_first(
    mark: Mark, names: list[str], first: str
) -> None:
    rows = [{"document": n, "sha256": "1", "modified": "2026-03-02T10:00:00Z"} for n in names]
    found = mark(rows, content="sha256", text=None)
    assert {name: copy and copy[0] for name, copy in found.items()} == {
        name: None if name == first else first for name in names
    }
    earlier = [{**rows[0], "modified": "2026-03-02T09:59:59Z"}, *rows[1:]]
    assert mark(earlier, content="sha256", text=None)[names[0]] is None


def test_two_short_texts_are_copies_of_each_other_in_no_script(mark: Mark) -> None:
    long = "我们的渡轮公司今天把绳子和灯送到港口请在三月一日之前付款谢谢"
    found = mark(bills(a="第一页", b="第一页", c=long, d=long.replace("三", "四")))
    assert [name for name, copy in found.items() if copy] == ["d"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, "row 2 has no 'document'. `key` is a column that each row has."),
        ("text", "row 2 is no mapping. Give the block `returns`."),
        ({"document": "b", "likeness": 1},
         "row 2 has a column 'likeness' already. Give it another name in `returns`."),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_marked_are_refused(mark: Mark, row: Any, message: str) -> None:
    with pytest.raises(StepError) as caught:
        mark([{"document": "a"}, row])
    assert str(caught.value) == message


def test_a_form_filled_in_a_thousand_times_is_found_by_its_own_copy(mark: Mark) -> None:
    chance = random.Random(1)
    words = ["".join(chance.choices("abcdefgh", k=6)) for _ in range(400)]
    forms = {
        f"{n:04}": " ".join(words[:150] + chance.choices(words, k=12) + [str(n)])
        for n in range(1000)
    }
    copy = mark(bills(**forms, copy=f"{forms['0002']} received"))["copy"]
    assert copy[:2] == ("0002", "alike")
