import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from paddock.steps.files.rows import FilesRows, FilesRowsParams
from paddock.steps.tables import row_formats
from tests.fakes.tools import Call, refused, tools


def test_columns_of_csv_become_numbers_where_their_kinds_are_named(read: Call) -> None:
    text = "customer;total;paid;note\n7; 1.5 ;TRUE;3\n;;;\n"
    kinds = {"customer": "int", "total": "float", "paid": "bool", "note": "str"}
    assert read("a.csv", text, columns=kinds).rows == [
        {"customer": 7, "total": 1.5, "paid": True, "note": "3"},
        {"customer": None, "total": None, "paid": None, "note": ""},
    ]
    assert refused(read, "b.csv", "a,b\n1,2\n3,1.000\n", columns={"b": "int"}) == (
        "'b.csv' line 3 has '1.000' in column 'b', which is no int."
    )
    assert "which is no float" in refused(read, "c.csv", "a\nnan\n", columns={"a": "float"})


def test_rows_of_csv_are_texts_by_the_names_of_the_first_row(read: Call) -> None:
    out = read("a.csv", 'id,said\n007,"he said ""no"",\nand left"\n\n8\n')
    assert out.model_dump() == {
        "rows": [{"id": "007", "said": 'he said "no",\nand left'}, {"id": "8", "said": ""}],
        "columns": ["id", "said"],
        "count": 2,
        "types": {},
    }


def test_a_line_end_within_a_cell_of_csv_stays_as_it_is(read: Call, write: Call) -> None:
    rows = [{"a": "x\r\ny", "b": '5"'}, {"a": "p\nq", "b": "r\rs"}]
    text = 'sep=;\r\na;b\r\n"x\r\ny";5"\r\n"p\nq";"r\rs"\r\n\x1a'
    assert read("a.csv", text).rows == rows
    assert read("b.csv", text.replace('\r\n"', '\r"')).rows == rows
    write("c.csv", rows)
    assert read("c.csv").rows == rows


def test_a_null_of_the_only_column_is_a_row(read: Call, write: Call) -> None:
    write("a.csv", [{"x": None}, {"x": "a"}, {"x": None}])
    assert read("a.csv").rows == [{"x": ""}, {"x": "a"}, {"x": ""}]
    assert read("b.csv", 'x\n\n7\n \n""\n').rows == [{"x": "7"}, {"x": ""}]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", "name;price\nSlates;1,5\nWool;2,5\n"),
        ("a.csv", "sep=;\nname;price\nSlates;1,5\nWool;2,5\n"),
        ("a.txt", "name|price\r\nSlates|1,5\r\nWool|2,5\r\n"),
    ],
)
def test_the_delimiter_is_found_out(read: Call, name: str, data: str) -> None:
    assert read(name, data).rows == [
        {"name": "Slates", "price": "1,5"},
        {"name": "Wool", "price": "2,5"},
    ]


def test_json_keeps_its_types(read: Call) -> None:
    row = {"n": 1, "x": None, "tags": ["a"], "name": "Ada"}
    line = '{"n": 1, "x": null, "tags": ["a"], "name": "Ada"}'
    assert read("a.jsonl", f"{line}\n\n{line}").rows == [row, row]
    assert read("a.json", f"[{line}]").rows == [row]
    assert read("a.log", line, format="jsonl").rows == [row]


def test_columns_are_picked_in_their_order(read: Call) -> None:
    out = read("a.csv", "a,b,c\n1,2,3\n", columns=["c", "a"])
    assert (out.rows.as_list(), out.columns) == ([{"c": "3", "a": "1"}], ["c", "a"])
    assert read("a.jsonl", '{"a": 1}\n{"b": 2}', columns=["b"]).rows == [{"b": None}, {"b": 2}]


def test_columns_without_a_header_get_names(read: Call) -> None:
    data = "1,2\n3,4\n"
    assert read("a.csv", data, header=False).rows[0] == {"column_1": "1", "column_2": "2"}
    assert read("a.csv", data, header=False, columns=["x", "y"]).rows[1] == {"x": "3", "y": "4"}
    assert read("a.csv", "a,\n1,2\n").rows == [{"a": "1", "column_2": "2"}]


@pytest.mark.parametrize(
    ("name", "data", "wishes", "reason"),
    [
        ("a.csv", "", {}, "'a.csv' is empty: it has no row."),
        (
            "a.csv", "a,b\n1,2\n\n1,2,3\n", {},
            "'a.csv' line 4 has 3 cells, but there are 2 columns. "
            "Quote the cells that contain the delimiter.",
        ),
        (
            "a.csv", 'a,b\n1,"2\n3,4\n', {},
            "'a.csv' cannot be read as CSV: line 2: a quote is opened here and never closed.",
        ),
        (
            "a.csv", "a,a\n1,2\n", {},
            "'a.csv' names column 'a' twice. "
            "Rename one, or set `header: false` and name them under `columns`.",
        ),
        (
            "a.csv", "name,price\n1,2\n", {"columns": ["pric"]},
            "'a.csv' has no column 'pric'. Known: 'name', 'price'. Did you mean 'price'?",
        ),
        (
            "a.csv", "a\n" + "x" * 200_000, {},
            "'a.csv' cannot be read as CSV: line 2: a cell has more than 131,072 characters.",
        ),
        (
            "a.jsonl", '{"a": 1}\n{"a": }', {},
            "'a.jsonl' is not valid JSONL: line 2, column 7: Expecting value.",
        ),
        ("a.jsonl", "[1]", {}, "'a.jsonl' has no row on line 1: it must be an object `{…}`."),
        (
            "a.json", '{"a": 1}', {},
            "'a.json' holds no list of rows. Read a JSON file of another form with `files.read`.",
        ),
        (
            "a.csv", "a,b\n" * 100, {"max_bytes": 10},
            "'a.csv' has more than the 10 bytes that `max_bytes` allows. "
            "Raise `max_bytes` to read it.",
        ),
        (
            "a.xlsx", b"PK\x03\x04\x00", {},
            "'a.xlsx' is damaged or not a spreadsheet.",
        ),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_with_its_place(
    read: Call, name: str, data: str | bytes | None, wishes: dict[str, Any], reason: str
) -> None:
    assert refused(read, name, data, **wishes).startswith(reason)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": NaN}\n', "JSONL: line 2: NaN is not a JSON number"),
        ("a.json", '[{"a": -Infinity}]', "JSON: -Infinity is not a JSON number"),
        ("a.jsonl", '{"a": 1e999}', "JSONL: line 1: the number 1e999 is too large"),
        ("a.jsonl", '{"a": %s}' % ("9" * 5000), "JSONL: line 1: a number has thousands of digits"),
        ("a.json", "[" * 100_000, "JSON: it is nested too deeply"),
    ],
)
def test_what_json_cannot_hold_is_refused_in_words(
    read: Call, name: str, data: str, why: str
) -> None:
    assert refused(read, name, data) == f"'{name}' is not valid {why}."


def test_half_a_character_becomes_a_mark_and_whole_ones_stay(read: Call) -> None:
    out = read("a.jsonl", '{"a": "x\\ud800y", "b\\udc00": "\\ud83d\\ude00"}')
    assert out.rows == [{"a": "x\ufffdy", "b\ufffd": "\U0001f600"}]
    assert out.columns == ["a", "b\ufffd"]


def test_the_row_that_names_the_columns_is_none_of_the_most_rows(
    read: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_formats, "_MOST_ROWS", 3)
    assert read("a.csv", "n\n1\n2\n3\n").count == 3
    too_many = "'a.csv' has more than 3 rows, which is the maximum."
    assert refused(read, "a.csv", "n\n1\n2\n3\n4\n") == too_many
    assert refused(read, "a.csv", "1\n2\n3\n4\n", header=False) == too_many


def test_json_and_jsonl_have_as_many_rows_and_parts_at_most(
    read: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_formats, "_MOST_ROWS", 3)
    too_many = "has more than 3 rows, which is the maximum."
    assert refused(read, "a.jsonl", "{}\n" * 4) == f"'a.jsonl' {too_many}"
    assert refused(read, "a.json", "[{}, {}, {}, {}]") == f"'a.json' {too_many}"
    monkeypatch.setattr(row_formats, "_MOST_PARTS", 20)
    assert refused(read, "a.json", f"[{'[],' * 30}1]") == (
        "'a.json' is not valid JSON: it has more than 20 objects and lists."
    )


def test_a_small_table_is_not_filled_up_to_a_huge_one(read: Call) -> None:
    """A header of 60,000 names and as many rows of one cell: 0.6 MB, and 3.6 billion cells."""
    header = ",".join(f"c{number}" for number in range(60_000))
    assert refused(read, "a.csv", header + "\n1" * 60_000) == (
        "'a.csv' has 60,000 rows of 60,000 columns, most of them empty: 3,600,000,000 cells. "
        "Name only the columns that exist."
    )


@pytest.mark.timeout(20)
def test_a_table_of_very_many_columns_is_read_at_once(read: Call) -> None:
    names = [f"c{number}" for number in range(60_000)]
    assert read("a.csv", f"{','.join(names)}\n{','.join(names)}\n").columns == names


def test_a_column_named_twice_is_a_fault_of_the_pipeline() -> None:
    with pytest.raises(ValidationError, match="column 'a' is named twice"):
        FilesRowsParams(path="a", columns=["a", "a"])


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('"boat", "fee"\n"Ada", "1,5"\n', {"boat": "Ada", "fee": "1,5"}),
        (' "boat";   "fee"\n Ada; "a; ""b"""\n', {"boat": "Ada", "fee": 'a; "b"'}),
        ('boat,fee\n" ""a""", 1\n', {"boat": ' "a"', "fee": " 1"}),
    ],
)  # fmt: skip
def test_blanks_before_quotes_are_no_part_of_a_cell(
    read: Call, text: str, row: dict[str, str]
) -> None:
    assert read("a.csv", text).rows == [row]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", '{"fee": 1, "fee": 2}\n{"fee": 3}\n{"fee": {"net": 1, "net": "\\ud800"}}\n'),
        ("a.json", '[{"fee": 1, "fee": 2}, {"fee": 3}, {"fee": {"net": 1, "net": "\\ud800"}}]'),
    ],
)
def test_names_that_an_object_has_twice_and_half_characters_are_told(
    tmp_path: Path, name: str, data: str
) -> None:
    (tmp_path / name).write_text(data)
    within = tools(tmp_path)
    rows = asyncio.run(FilesRows().run(FilesRowsParams(path=name), within)).rows
    assert rows == [{"fee": 2}, {"fee": 3}, {"fee": {"net": "\ufffd"}}]
    assert within.notes == [
        f"'{name}': an object has a name more than once, and the last one is taken "
        "(1 of 'fee', 1 of 'net').",
        f"'{name}': U+FFFD stands for half a character (1 of 'net', 1 of 'fee').",
    ]


def test_digits_that_a_number_of_json_loses_are_told(tmp_path: Path) -> None:
    kept = "0.1, 0.10000000000000001, 1.10000000000000000000, 12345678901234567890, 1234567890.45"
    kept = f"{kept}, 0e{'9' * 20}"
    rows = f'{{"net": 12345678901234567.89, "kept": [{kept}]}}', '{"net": 12345678901234567.88}'
    lists = f'{{"of": [[1234567890123456.78, 1e-{"9" * 20}]]}}'
    (tmp_path / "a.jsonl").write_text("\n".join([*rows, lists]))
    within = tools(tmp_path)
    asyncio.run(FilesRows().run(FilesRowsParams(path="a.jsonl"), within))
    what = "a number has more digits than are kept (2 of 'net', 2 of 'of')"
    assert within.notes == [f"'a.jsonl': {what}."]
