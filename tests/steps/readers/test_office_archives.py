"""Kinds of Office besides the plain ones, and archives with parts that are missing or broken."""

import re
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import PurePath

import pytest

from paddock.steps.readers import office
from paddock.steps.readers.document_kinds import kind_of
from paddock.steps.readers.powerpoint import read_pptx
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_process import ReadOptions
from paddock.steps.readers.spreadsheets import read_xlsx
from paddock.steps.readers.word import read_docx
from tests.fakes.office import docx, new_workbook, pptx, saved, xlsx, zipped

WORD = docx("# Offer", "Thirty days.")
SLIDES = pptx([("The plan", "Buy slates", "")])
SHEETS = xlsx({"Prices": [["Item", "Price"], ["Slates", 5]]})
READERS: dict[str, Callable[[bytes], Document]] = {
    "docx": lambda data: read_docx(BytesIO(data), ReadOptions()),
    "pptx": lambda data: read_pptx(BytesIO(data), ReadOptions()),
    "xlsx": lambda data: read_xlsx(BytesIO(data), ReadOptions()),
}


def changed(data: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """Return an archive with changed parts; None leaves one out."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        parts = {name: change(name, archive.read(name)) for name in archive.namelist()}
    return zipped({name: part for name, part in parts.items() if part is not None})


def strict(name: str, part: bytes) -> bytes:
    return re.sub(
        rb"http://schemas\.openxmlformats\.org/(officeDocument|\w+ml)/2006/(\w+)",
        rb"http://purl.oclc.org/ooxml/\1/\2",
        part,
    )


@pytest.mark.parametrize(("kind", "data"), [("docx", WORD), ("pptx", SLIDES), ("xlsx", SHEETS)])
def test_a_strict_document_is_read_like_a_transitional_one(kind: str, data: bytes) -> None:
    found = READERS[kind](changed(data, strict))
    assert found.text.strip() and found == READERS[kind](data)


WORD_TYPE = b"openxmlformats-officedocument.wordprocessingml.document.main"
SLIDES_TYPE = b"openxmlformats-officedocument.presentationml.presentation.main"


@pytest.mark.parametrize(
    ("suffix", "content_type"),
    [
        (".docm", b"ms-word.document.macroEnabled.main"),
        (".dotx", b"openxmlformats-officedocument.wordprocessingml.template.main"),
        (".pptm", b"ms-powerpoint.presentation.macroEnabled.main"),
        (".ppsx", b"openxmlformats-officedocument.presentationml.slideshow.main"),
        (".xltm", b""),
    ],
)
def test_macros_templates_and_slide_shows_are_read(suffix: str, content_type: bytes) -> None:
    kind = kind_of(PurePath(f"a{suffix}"), b"PK\x03\x04")
    plain = {"docx": WORD, "pptx": SLIDES, "xlsx": SHEETS}[kind]
    types = (WORD_TYPE, SLIDES_TYPE)

    def change(name: str, part: bytes) -> bytes:
        for known in types if content_type else ():
            part = part.replace(known, content_type) if name.startswith("[Content") else part
        return part

    assert READERS[kind](changed(plain, change)) == READERS[kind](plain)


def test_an_odd_style_does_not_damage_a_workbook_and_struck_cells_stay_struck() -> None:
    from openpyxl.styles import Font  # type: ignore[import-untyped]

    def change(name: str, part: bytes) -> bytes:
        return part.replace(b"<fonts", b"<fonts odd='1'") if name == "xl/styles.xml" else part

    book = new_workbook()
    book.active.append(["Price", 40])
    book.active["B1"].font = Font(strike=True)
    found = READERS["xlsx"](changed(saved(book), change))
    assert (found.text, found.notes) == ("# Sheet\n\n| Price | ~~40~~ |\n| --- | --- |", ())


def test_what_is_left_of_a_broken_part_is_read_and_noted() -> None:
    def change(name: str, part: bytes) -> bytes | None:
        if name == "word/document.xml":
            return part[: part.index(b"Thirty days.") + 6]
        return None if name == "word/theme/theme1.xml" else part

    found = READERS["docx"](changed(WORD, change))
    assert found.text == "# Offer\n\nThirty"
    assert found.notes == (
        ": 2 parts are missing or damaged (word/document.xml, word/theme/theme1.xml); what is "
        "there is read",
    )


def test_a_slide_that_is_missing_does_not_take_the_others_with_it() -> None:
    two = pptx([("One", "", ""), ("Two", "", "")])
    found = READERS["pptx"](
        changed(two, lambda name, part: None if name == "ppt/slides/slide1.xml" else part)
    )
    assert found.pages == ("# Two",)
    assert found.notes == (
        ": 1 part is missing or damaged (ppt/slides/slide1.xml); what is there is read",
    )


def refused(data: bytes) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        office.open_archive(BytesIO(data), "a Word document")
    return caught.value


def test_what_unpacks_to_far_more_than_it_is_is_refused_before_it_is_unpacked() -> None:
    bomb = zipped({"a.xml": bytes(8 * 1024 * 1024)})
    with zipfile.ZipFile(BytesIO(bomb)) as one:
        size = one.infolist()[0].file_size
    grown = bomb.replace(size.to_bytes(4, "little"), ((4 << 30) - 1).to_bytes(4, "little"))
    assert len(grown) < 10_000
    assert str(refused(grown)) == "unpacks to 4,095 MiB, but at most 512 MiB are read"


def test_markup_that_would_take_all_memory_is_refused_and_what_is_streamed_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(office, "MOST_MARKUP_BYTES", 1024 * 1024)
    whole = {"word/document.XML": bytes(1_500_000), "word/_rels/a.rels": bytes(600_000)}
    picture = {"media/a.png": bytes(3_000_000)}
    said = "unpacks to 2 MiB of markup, but at most 1 MiB are read"
    assert str(refused(zipped(whole | picture))) == said
    assert office.open_archive(BytesIO(zipped(whole | picture)), "a book", ("word/d",))


def test_an_archive_of_thousands_of_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(office, "_MOST_ENTRIES", 3)
    assert str(refused(docx("a"))).endswith("parts, too many for a document")


def test_an_encrypted_archive_is_refused() -> None:
    data = bytearray(zipped({"a": "b"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    error = refused(bytes(data))
    assert str(error) == "is protected by a password"
    assert error.remedy == "Save it without a password."


def test_a_library_that_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(Unreadable) as caught:
        office.import_library("no_such_library", "a Word document")
    assert (str(caught.value), caught.value.remedy) == (
        "is a Word document", "To read it install the extra: pip install 'paddock-llm[documents]'.",
    )  # fmt: skip
