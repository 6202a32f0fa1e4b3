import asyncio
import errno
import os
import stat
from pathlib import Path
from typing import Any

import openpyxl  # type: ignore[import-untyped]
import pytest

from paddock.pipelines.expressions import Template
from paddock.steps.base import StepError
from paddock.steps.files.write import FilesWrite, FilesWriteParams
from tests.fakes.tools import Call, FakeOutputs, FakeTools


def refused(write: Call, path: str, **wishes: Any) -> StepError:
    with pytest.raises(StepError) as caught:
        write(path, **{"text": "x"} | wishes)
    return caught.value


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_text_is_written_and_its_folders_are_made(tmp_path: Path, write: Call) -> None:
    out = write("out/deep/a.md", text="Grüße\n")
    path = tmp_path.resolve() / "out/deep/a.md"
    assert out.model_dump() == {"path": str(path), "changed": True}
    assert path.read_bytes() == "Grüße\n".encode()
    assert files(tmp_path) == ["out/deep/a.md"]


def test_a_sheet_has_numbers_and_texts_and_no_formula(tmp_path: Path, write: Call) -> None:
    rows = [
        {"name": "=1+1", "total": 1234.5, "paid": True, "code": "007"},
        None,
        {"name": "https://a.example", "total": None, "id": 12345678901234567890},
    ]
    assert write("a.xlsx", rows=rows).changed
    sheet: Any = openpyxl.load_workbook(tmp_path / "a.xlsx").active
    assert [[cell.value for cell in row] for row in sheet.rows] == [
        ["name", "total", "paid", "code", "id"],
        ["=1+1", 1234.5, True, "007", None],
        ["https://a.example", None, None, None, "12345678901234567890"],
    ]
    assert sheet["A2"].data_type == "s"
    assert not write("a.xlsx", rows=rows).changed
    write("b.xlsx", rows=[{"a": "x" * 40_000, "b": 1}])  # one cell is cut, with a note
    cells = [cell.value for cell in openpyxl.load_workbook(tmp_path / "b.xlsx").active[2]]
    assert (len(cells[0]), cells[0][-1], cells[1]) == (32_767, "…", 1)


def test_items_that_wait_are_marked_rows(tmp_path: Path, write: Call) -> None:
    rows = [{"file": "a.txt", "total": 3}]
    write("a.csv", rows=rows, waiting=["b.txt", "c.txt"])
    assert (tmp_path / "a.csv").read_text() == (
        "file,total,waiting\na.txt,3,false\nb.txt,,true\nc.txt,,true\n"
    )
    write("none.jsonl", rows=[], waiting=["b.txt"])
    assert (tmp_path / "none.jsonl").read_text() == '{"item": "b.txt", "waiting": true}\n'
    write("all.csv", rows=rows, waiting=[])  # the columns stay when everything is decided
    assert (tmp_path / "all.csv").read_text() == "file,total,waiting\na.txt,3,false\n"


def test_a_template_sees_its_vars_and_a_table_is_as_excel_takes_it(
    tmp_path: Path, write: Call
) -> None:
    write("a.md", template=Template.of("# {{ title }}"), vars={"title": "Minutes"})
    assert (tmp_path / "a.md").read_text() == "# Minutes"
    with pytest.raises(StepError, match=r"`template` cannot be rendered: .*title"):
        write("b.md", template=Template.of("# {{ title }}"))
    write("a.csv", rows=[{"name": "é", "b": "x;y"}], bom=True, delimiter=";")
    assert (tmp_path / "a.csv").read_bytes() == b'\xef\xbb\xbfname;b\n\xc3\xa9;"x;y"\n'
    name = "ä" * 126 + ".md"  # the longest possible one
    assert write(name, text="x").changed is True and name in files(tmp_path)


def test_the_ledger_hears_before_and_after_the_rename(
    tmp_path: Path, write: Call, outputs: FakeOutputs
) -> None:
    write("a.md", text="x")
    path = tmp_path.resolve() / "a.md"
    assert outputs.events == [("intend", path), ("wrote", path)]


def test_the_same_content_is_not_written_again(tmp_path: Path, write: Call) -> None:
    write("a.md", text="x")
    before = (tmp_path / "a.md").stat()
    assert write("a.md", text="x").changed is False
    after = (tmp_path / "a.md").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_what_we_wrote_last_is_replaced_and_keeps_its_permissions(
    tmp_path: Path, write: Call
) -> None:
    write("a.md", text="one")
    (tmp_path / "a.md").chmod(0o600)
    assert write("a.md", text="two").changed is True
    assert (tmp_path / "a.md").read_text() == "two"
    assert stat.S_IMODE((tmp_path / "a.md").stat().st_mode) == 0o600


def test_two_items_cannot_write_the_same_file(tmp_path: Path, hands: FakeTools) -> None:
    async def both() -> None:
        for text in ("one", "two"):
            await FilesWrite().run(FilesWriteParams(path="a.md", text=text), hands)

    with pytest.raises(StepError, match="another item of this run writes"):
        asyncio.run(both())
    assert files(tmp_path) == ["a.md"]
    assert (tmp_path / "a.md").read_text() == "one"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_fatal_and_leaves_nothing_behind(
    tmp_path: Path, write: Call, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    write("a.md", text="old")
    real = os.write

    def full(handle: int, data: bytes) -> int:
        if len(data) > 10:
            return real(handle, data[:10])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", full)
    error = refused(write, "a.md", text="new " * 5)
    monkeypatch.undo()
    path = tmp_path.resolve() / "a.md"
    assert str(error) == (
        f"'{path}' cannot be written: the disk is full. "
        "Free some space and run again; finished items are kept."
    )
    assert (error.is_fatal, error.kind) == (True, "io")
    assert files(tmp_path) == ["a.md"]
    assert (tmp_path / "a.md").read_text() == "old"


def test_paths_that_cannot_be_a_file_are_refused(tmp_path: Path, write: Call) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").write_text("x")
    base = tmp_path.resolve()
    assert str(refused(write, "sub")) == f"'{base}/sub' is a folder; `path` must name a file."
    assert str(refused(write, "new/")) == "'new/' names a folder; `path` must name a file."
    assert str(refused(write, "file/a.md")) == (
        f"'{base}/file/a.md' cannot be written: a part of its path is a file, not a folder."
    )
    assert str(refused(write, "n" * 300)).endswith("its name is too long for this file system.")
    assert "leads outside" in str(refused(write, "../a.md"))


def test_a_folder_without_permission_is_told(write: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    error = refused(write, "a.md")
    assert error.reason.endswith("a.md' cannot be written: the permissions do not allow it.")
    assert not error.is_fatal


ROWS = [{"name": "Ada", "born": 1815}, None, {"name": "Grace, H.", "tags": ["a"], "ok": True}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'name,born,tags,ok\nAda,1815,,\n"Grace, H.",,"[""a""]",true\n'),
        ("a.TSV", 'name\tborn\ttags\tok\nAda\t1815\t\t\n"Grace, H."\t\t"[""a""]"\ttrue\n'),
        ("a.jsonl",
         '{"name": "Ada", "born": 1815}\n{"name": "Grace, H.", "tags": ["a"], "ok": true}\n'),
    ],
)  # fmt: skip
def test_rows_are_written_as_the_name_says(
    tmp_path: Path, write: Call, hands: FakeTools, name: str, text: str
) -> None:
    write(name, rows=ROWS)
    assert (tmp_path / name).read_text() == text
    assert hands.notes == [f"'{name}': 1 of 3 rows are null and left out."]


def test_what_a_spreadsheet_would_compute_is_marked_and_told(
    tmp_path: Path, write: Call, hands: FakeTools
) -> None:
    cells = ["=1+1", "+49 30 123", "-5,5 %", "-2+cmd|' /C calc'!A0", "@SUM(A1)", -3, "plain"]
    write("a.csv", rows=[{"cell": cell} for cell in cells])
    assert (tmp_path / "a.csv").read_text().split("\n")[1:-1] == [
        "'=1+1", "+49 30 123", '"-5,5 %"', "\"'-2+cmd|' /C calc'!A0\"", "'@SUM(A1)", "-3", "plain",
    ]  # fmt: skip
    assert hands.notes == [
        "'a.csv': apostrophes stand before what a spreadsheet would compute; JSONL has it as it is "
        "(3 of 'cell')."
    ]


def test_rows_that_cannot_be_written_are_told(write: Call) -> None:
    def said(name: str, rows: Any) -> str:
        with pytest.raises(StepError) as caught:
            write(name, rows=rows)
        return str(caught.value)

    assert said("a.ods", []) == (
        "'a.ods' has no suffix of a format for rows. "
        "End it in `.csv`, `.tsv`, `.jsonl`, `.ndjson`, `.json`, `.xlsx`, `.parquet`, `.arrow`, "
        "`.feather`, `.sqlite`, `.db`, `.duckdb`."
    )
    assert said("a.csv", [{"a": 1}, [2]]) == (
        "'a.csv' cannot be written: row 2 is a list; rows must be mappings of names."
    )
    assert said("a.csv", None) == "`rows` is null, so there is nothing to write."
    assert str(refused(write, "a.md", text=None)) == (
        "`text` is null, so there is nothing to write."
    )


@pytest.mark.parametrize("is_ours", [True, False])
def test_an_edited_file_is_kept_and_said(
    tmp_path: Path, write: Call, hands: FakeTools, is_ours: bool
) -> None:
    if is_ours:
        write("a.md", text="one")
    (tmp_path / "a.md").write_text("my own words")
    assert write("a.md", text="two").changed is False
    assert (tmp_path / "a.md").read_text() == "my own words"
    path = tmp_path.resolve() / "a.md"
    assert hands.notes == [f"'{path}' was edited, or is not ours: it is kept as it is."]


def test_an_edited_file_is_overwritten_if_wished(tmp_path: Path, write: Call) -> None:
    (tmp_path / "a.md").write_text("my own words")
    assert write("a.md", text="two", on_edited="overwrite").changed is True
    assert (tmp_path / "a.md").read_text() == "two"


def test_an_edited_file_is_a_failure_if_wished(tmp_path: Path, write: Call) -> None:
    (tmp_path / "a.md").write_text("my own words")
    path = tmp_path.resolve() / "a.md"
    assert str(refused(write, "a.md", on_edited="fail")) == (
        f"'{path}' was edited, or is not ours, and `on_edited` is `fail`. "
        "Move it away, set `on_edited` to `keep` or `overwrite`, or run with `--take`."
    )
