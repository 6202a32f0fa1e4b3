import zipfile
from io import BytesIO

import pytest

from paddock.steps.readers import office
from paddock.steps.readers.reader import Unreadable
from tests.fakes.office import docx, zipped


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
