from collections.abc import Mapping
from io import BytesIO

import pytest

from paddock.steps.readers.epub import read_epub
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


def book(items: str, spine: str, parts: Mapping[str, str]) -> Document:
    """Read a book with this manifest and this reading order."""
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
        f"{items}</manifest><spine>{spine}</spine></package>"
    )
    return document(epub({}, more={f"OEBPS/{n}": p for n, p in parts.items()} | {
        "OEBPS/book.opf": package}))  # fmt: skip


PAGE = 'media-type="application/xhtml+xml"'


NAV = f'<item id="n" href="n.xhtml" properties="nav" {PAGE}/>'
A = f'<item id="a" href="a.xhtml" {PAGE}/>'
DRAWN = '<item id="s" href="s.svg" media-type="image/svg+xml"/>'
FALLING = (
    '<item id="p" href="p.pdf" fallback="f" media-type="application/pdf"/>'
    f'<item id="f" href="f.xhtml" {PAGE}/>'
)
LOST = ": part '{}' of its reading order is not read".format


def spine(*names: str) -> str:
    return "".join(f'<itemref idref="{name}"/>' for name in names)


@pytest.mark.parametrize(
    ("items", "order", "parts", "pages", "notes"),
    [
        (NAV, spine("n"),
         {"n.xhtml": "<nav><ol><li>One</li></ol></nav><p>For Ada</p><NAV>Two</NAV>"},
         ("For Ada",), ()),
        (DRAWN + FALLING, spine("s", "p"),
         {"s.svg": "<svg><text>Plan</text></svg>", "p.pdf": "x", "f.xhtml": "<p>Text</p>"},
         ("Plan", "Text"), ()),
        (f'{A}<item id="b" href="b.xhtml" {PAGE}/>{NAV}'
         '<item id="d" href="d.xml" fallback="d" media-type="application/x-dtbook+xml"/>',
         spine("a", "d", "lost"),
         {"a.xhtml": "Text", "b.xhtml": "More", "d.xml": "<p>x</p>", "n.xhtml": "x"}, ("Text",),
         (LOST("d.xml"), LOST("lost"), ": parts outside its reading order are not read (b.xhtml)")),
        (f'{A}{NAV}{DRAWN}{FALLING}<item id="d" media-type="image/svg+xml"/>',
         spine("n", "a", "s", "p", "d") + "<itemref/>", {"a.xhtml": "Text", "s.svg": "a\x00b"},
         ("Text",), tuple(map(LOST, ("n.xhtml", "s.svg", "f.xhtml", "", "")))),
    ],
)  # fmt: skip
def test_parts_of_a_book_are_read_or_named(
    items: str, order: str, parts: dict[str, str], pages: tuple[str, ...], notes: tuple[str, ...]
) -> None:
    found = book(items, order, parts)
    assert (found.pages, found.notes) == (pages, notes)


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


def test_a_chapter_has_the_marks_of_its_layout_and_notes_of_other_files() -> None:
    page = (
        "<p>10<sup>6</sup> <span class='x'>40</span>"
        "<a epub:type='noteref' href='n.xhtml#n1'>1</a></p>"
    )
    notes = "<aside id='n1' epub:type='footnote'><p><a href='a.xhtml#r1'>1</a>. Net</p></aside>"
    styles = {"OEBPS/s.css": ".x { text-decoration: line-through }"}
    found = document(epub({"a.xhtml": page, "n.xhtml": notes}, more=styles))
    assert found.pages == ("10^6 ~~40~~[^1]", "[^1]: Net")
