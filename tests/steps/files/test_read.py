import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from paddock.steps.base import StepSkipped
from paddock.steps.files.read import FilesRead, FilesReadOutput, FilesReadParams
from paddock.steps.readers.ocr_layout import SeenText
from tests.fakes.office import docx
from tests.fakes.pdf import pdf
from tests.fakes.tools import Call, FakeTools, refused

LOCKED_PDF = Path(__file__).parent / "data" / "locked.pdf"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@pytest.fixture
def read(tmp_path: Path, hands: FakeTools) -> Call:
    def read(name: str, data: bytes | str | None = None, **wishes: Any) -> FilesReadOutput:
        if data is not None:
            (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
        params = FilesReadParams(path=name, **wishes)
        return asyncio.run(FilesRead().run(params, hands))

    return read


def test_a_text_file_is_one_page(read: Call) -> None:
    out = read("letter.txt", "Dear Ada,\r\nthanks.\n")
    assert out.model_dump() == {
        "text": "Dear Ada,\nthanks.\n",
        "pages": [{"number": 1, "text": "Dear Ada,\nthanks.\n", "lines": [], "doubt": 0.0}],
        "title": "letter",
        "media_type": "text/plain",
        "path": "letter.txt",
        "cells": {},
        "invoices": [],
    }


DAY = """<!DOCTYPE html><html><head><title>Our  day</title><style>b {}</style></head>
    <body><h1>Morning</h1><script>alert(1)</script><p>We <b>walked</b> a_b.</p>
    <ul><li>one</li><li>two</li></ul><noscript>no</noscript></body></html>"""
CSV = 'name,says\n"Lovelace, Ada","she said ""hi""\nand left"\n'
PLAN = "intro\n\n## The plan ##\n\n# Later\n"


@pytest.mark.parametrize(
    ("name", "data", "media_type", "title", "text"),
    [
        ("a.md", PLAN, "text/markdown", "The plan", PLAN),
        ("day.html", DAY, "text/html", "Our day",
         "# Morning\n\nWe **walked** a_b.\n\n- one\n- two"),
        ("a.html", '<meta charset="gb2312"><p>会议记录。</p>'.encode("gbk"), "text/html", "a",
         "会议记录。"),
        ("a.html", '<meta charset="utf-8"><p>El niño comió.</p>'.encode("cp1252"), "text/html", "a",
         "El niño comió."),
        ("deep.html", "<div>" * 3000 + "core" + "</div>" * 3000, "text/html", "deep", "core"),
        ("a.csv", CSV, "text/csv", "a", CSV),
        ("a.json", '{"b": 1,\n "a": [2]}', "application/json", "a", '{"b": 1,\n "a": [2]}'),
        ("a.txt", pdf(["Hidden"]), "application/pdf", "a", "Hidden"),
    ],
)  # fmt: skip
def test_a_file_is_read_as_what_it_is(
    read: Call, name: str, data: bytes | str, media_type: str, title: str, text: str
) -> None:
    out = read(name, data)
    assert (out.media_type, out.title, out.text) == (media_type, title, text)


def test_an_encoding_that_is_guessed_is_noted_and_an_unclear_one_refused(
    read: Call, hands: FakeTools
) -> None:
    assert read("a.txt", "Straße nach Köln und Düsseldorf".encode("cp1252")).text.endswith("dorf")
    assert hands.notes == ["'a.txt': it declares no encoding and is read as windows-1252."]
    unclear = "Dolarý".encode("cp1252")
    assert refused(read, "b.txt", unclear) == (
        "'b.txt' cannot be read: its encoding is not clear: it can be read as windows-1254 "
        "('Doları') or as windows-1252 ('Dolarý'). "  # noqa: RUF001
        "Say which it is: `encoding: windows-1254` or `encoding: windows-1252`."
    )
    assert read("b.txt", unclear, encoding="windows-1252").text == "Dolarý"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ('{"a": 1, 2}', "line 1, column 10: Expecting property name enclosed in double quotes"),
        ("[" * 100_000, "it is nested too deeply"),
        ("1" * 5000, "it has a number of thousands of digits"),
    ],
)
def test_broken_json_is_read_as_plain_text_and_said(
    read: Call, hands: FakeTools, data: str, fault: str
) -> None:
    out = read("a.json", data)
    assert (out.text, out.media_type) == (data, "text/plain")
    [note] = hands.notes
    assert note.startswith("'a.json' is not valid JSON (")
    assert fault.split(":")[0] in note


def test_a_pdf_has_pages_and_a_title(read: Call) -> None:
    out = read("a.pdf", pdf(["First (of two)\nsecond line", "Last"], title="Minutes"))
    assert out.text == "First (of two)\nsecond line\n\nLast"
    assert [page.model_dump() for page in out.pages] == [
        {"number": 1, "text": "First (of two)\nsecond line", "lines": [], "doubt": 0.0},
        {"number": 2, "text": "Last", "lines": [], "doubt": 0.0},
    ]
    assert (out.title, out.media_type) == ("Minutes", "application/pdf")


def test_pages_of_a_pdf_without_text_are_named(
    read: Call, hands: FakeTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.steps.readers.ocr_engine.recognise", lambda *_: SeenText(""))
    assert read("a.pdf", pdf(["Text", None, "More", None])).text == "Text\n\n\n\nMore\n\n"
    assert hands.notes == ["'a.pdf': nothing to read was found on pages 2, 4, which show pictures."]


def test_pages_that_are_not_read_from_their_picture_are_named(
    read: Call, hands: FakeTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pdf(["Text", None, "More"])
    read("a.pdf", data, ocr="off")
    monkeypatch.setattr("paddock.steps.readers.reader.is_installed", lambda extra: extra != "ocr")
    read("a.pdf", data)
    assert hands.notes == [
        "'a.pdf': no text layer on page 2, and `ocr` is off.",
        "'a.pdf': no text layer on page 2, which the extra 'paddock-llm[ocr]' reads.",
    ]


def test_a_scan_has_no_text_layer(read: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paddock.steps.readers.ocr_engine.recognise", lambda *_: SeenText(""))
    shows = "'scan.pdf' has no text layer: its 2 pages only show pictures"
    data = pdf([None, None])
    assert refused(read, "scan.pdf", data) == f"{shows}, and OCR found nothing to read on them."
    assert refused(read, "scan.pdf", data, ocr="off") == (f"{shows}. Set `ocr: auto` to read it.")
    monkeypatch.setattr("paddock.steps.readers.reader.is_installed", lambda extra: extra != "ocr")
    assert refused(read, "scan.pdf", data) == (
        f"{shows}. To read it install the extra: pip install 'paddock-llm[ocr]'."
    )


@pytest.mark.parametrize(
    "data",
    [
        pdf([]),
        pdf(["words " * 50])[:300],
        b"%PDF-1.7\n" + os.urandom(500),
        pdf(["a"]).replace(b"/Count 1", b"/Count 9").replace(b"4 0 R", b"9 9 R"),
    ],
    ids=["no pages", "cut off", "rubbish", "no such page"],
)
def test_a_damaged_pdf_is_refused(read: Call, data: bytes) -> None:
    assert refused(read, "a.pdf", data).startswith("'a.pdf' is damaged")


NOTHING = [(name, data) for name in ("a.txt", "a.md", "a.html", "a.json", "a.csv")
           for data in (" \n\t\n", "\ufeff")]  # fmt: skip
SUFFIXES = ("txt", "pdf", "docx", "doc")


@pytest.mark.parametrize(
    ("name", "data"),
    [*NOTHING, *((f"a.{suffix}", b"") for suffix in SUFFIXES), ("a.pdf", pdf(["", ""]))],
)
def test_an_empty_document_is_a_failure_or_skipped_if_wished(
    read: Call, hands: FakeTools, name: str, data: str | bytes
) -> None:
    assert refused(read, name, data) == f"'{name}' is empty."
    with pytest.raises(StepSkipped, match="is empty"):
        read(name, data, empty="skip")
    assert hands.notes == ["document without text and skipped"]


@pytest.mark.parametrize(
    ("name", "data", "wishes", "reason"),
    [
        ("a.txt", b"ab\x00cd", {}, "'a.txt' is not text: it has NUL bytes, as binary data has."),
        ("a.txt", b"\x89PNG\r\n\x1a\n\x00", {}, "'a.txt' is damaged or not a picture."),
        ("a.md", b"PK\x03\x04....", {}, "'a.md' is damaged or not a ZIP archive (BadZipFile: File "
         "is not a zip file)."),
        ("offer.pdf", docx("An offer"), {}, "'offer.pdf' is an office document under another name. "
         "Give it the suffix of its kind: `.docx`, `.pptx` or `.xlsx`."),
        ("a.html", b"<p>" * 1_000_001, {}, "'a.html' cannot be read as HTML: it has more than "
         "1,000,000 tags, which is the maximum. Set `type: txt` to read it as plain text."),
        ("a.html", "<p>a</p><![n>", {}, "'a.html' cannot be read as HTML: its markup cannot be "
         "parsed. Set `type: txt` to read it as plain text."),
        ("a.docx", b"PK\x03\x04", {}, "'a.docx' is damaged or not a Word document."),
        ("a.eml", b"Hello\n", {}, "'a.eml' is damaged or not a mail: it has no mail headers."),
        ("a.xlsx", OLE, {}, "'a.xlsx' is protected by a password, or "
         "an old office document with a new name. Save it without a password."),
        ("a.vsd", OLE, {}, "'a.vsd' is a drawing of Visio, which is "
         "not read. Export it as PDF in the program that wrote it."),
        ("a.pdf", LOCKED_PDF.read_bytes(), {},
         "'a.pdf' is protected by a password. Save it without a password."),
        ("a.txt", "{", {"type": "json"}, "'a.txt' is not valid JSON: line 1, column 2: Expecting "
         "property name enclosed in double quotes."),
        ("a.txt", b"Gr\xfc\xdfe", {"encoding": "utf-8"}, "'a.txt' cannot be read as utf-8: byte 2 "
         "is not utf-8. Correct `encoding`, or leave it out."),
        ("a.txt", "x" * 2048, {"max_bytes": "1KiB"}, "'a.txt' has 2,048 bytes, and `max_bytes` "
         "allows 1,024. Raise `max_bytes` to read it."),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_by_its_content(
    read: Call, name: str, data: bytes | str, wishes: dict[str, Any], reason: str
) -> None:
    assert refused(read, name, data, **wishes) == reason


def test_damaged_bytes_are_told(read: Call, hands: FakeTools) -> None:
    read("a.txt", "Grüße aus München. ".encode() * 90 + b"\xff")
    assert hands.notes == ["'a.txt': 1 damaged bytes of its UTF-8 are read as U+FFFD."]


def test_a_folder_a_pipe_and_a_file_that_is_gone_are_refused(tmp_path: Path, read: Call) -> None:
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert refused(read, "sub") == "'sub' is a folder, not a document."
    assert refused(read, "pipe") == "'pipe' is a device or a pipe, not a document."
    assert refused(read, "gone.txt") == "'gone.txt' cannot be read: it does not exist."


def test_impossible_paths_are_refused_in_words(read: Call, tmp_path: Path) -> None:
    assert "is not a possible path" in refused(read, "a\x00b")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cycle of symbolic links" in refused(read, "loop")
    assert refused(read, "n" * 300).endswith("its name is too long for this file system.")
    (tmp_path / "link.txt").symlink_to("/etc/passwd")
    for path in ("../a.txt", "/etc/passwd", "link.txt"):
        assert refused(read, path).startswith(f"path '{path}' leads outside the pipeline's folders")


def test_an_unknown_encoding_is_a_fault_of_the_pipeline() -> None:
    with pytest.raises(ValidationError, match="'klingon' is not a known encoding; try `utf-8`"):
        FilesReadParams(path="a", encoding="klingon")
    with pytest.raises(ValidationError, match="'rot13' is not a known encoding"):
        FilesReadParams(path="a", encoding="rot13")
