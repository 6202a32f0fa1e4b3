from io import BytesIO

import pytest

from paddock.steps.readers.office_and_epub import read_epub
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.office import epub, zipped

PROTECTED = (
    '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" '
    'xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData>'
    '<enc:EncryptionMethod Algorithm="{}"/></enc:EncryptedData></encryption>'
)


def document(data: bytes) -> Document:
    return read_epub(BytesIO(data), ReadOptions())


def refused(data: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        document(data)
    return str(caught.value)


def test_chapters_are_pages_in_the_order_of_reading() -> None:
    head = '<?xml version="1.0" encoding="utf-8"?>'
    found = document(
        epub(
            {
                "one.xhtml": f"{head}<html><body><h1>One</h1><p>Grüße</p></body></html>",
                "cover.xhtml": "<img src='x.png'/>",
                "two.xhtml": "<h1>Two</h1>",
            },
            title="The  mill",
        )
    )
    assert (found.title, found.pages) == ("The mill", ("# One\n\nGrüße", "# Two"))


def test_a_protected_book_is_refused_and_one_whose_fonts_are_hidden_is_read() -> None:
    aes = PROTECTED.format("http://www.w3.org/2001/04/xmlenc#aes256-cbc")
    fonts = PROTECTED.format("http://www.idpf.org/2008/embedding")
    pages = {"a.xhtml": "<p>Text</p>"}
    assert refused(epub(pages, more={"META-INF/encryption.xml": aes})) == (
        "has DRM and cannot be read"
    )
    assert document(epub(pages, more={"META-INF/encryption.xml": fonts})).text == "Text"


def test_broken_books_are_refused() -> None:
    assert refused(zipped({"a": "b"})) == (
        "is damaged or not an e-book: it has no META-INF/container.xml"
    )
    assert refused(zipped({"META-INF/container.xml": "<a"})).startswith(
        "is damaged or not an e-book (ParseError: "
    )
    assert refused(zipped({"META-INF/container.xml": "<a/>"})) == (
        "is damaged: its META-INF/container.xml names no contents"
    )
    assert refused(epub({"../../etc/passwd": "x"}, more={}).replace(
        b"OEBPS/../../etc/passwd", b"OEBPS/../../etc/passwx"
    )) == "is damaged: its part '../etc/passwd' is missing"  # fmt: skip
    assert refused(epub({"a.xhtml": "a\x00b"})) == (
        "is damaged: its part 'OEBPS/a.xhtml' is not text: it has NUL bytes, as binary data has"
    )


def test_entities_that_grow_without_end_are_refused() -> None:
    bomb = (
        "<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'>"
        + "".join(
            f"<!ENTITY {b} '{'&' + a + ';' * 1}{(('&' + a + ';') * 9)}'>"
            for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        )
        + "]><a>&i;</a>"
    )
    assert refused(zipped({"META-INF/container.xml": bomb})) == (
        "is not read: its XML has entities that unfold to far more than the file holds"
    )
