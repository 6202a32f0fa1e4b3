"""Archives: each member is pages under its name, or a sentence; nothing is written."""

import gzip
import io
import struct
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from paddock.steps.base import StepError
from paddock.steps.readers.documents import wait_for_document
from paddock.steps.readers.reader import Document
from paddock.steps.readers.reader_pool import DocumentRequest, ReaderPool
from paddock.steps.readers.reader_process import ReadOptions, read_document
from tests.fakes.invoices import Made
from tests.fakes.office import docx, eml, xlsx, zipped
from tests.fakes.pdf import pdf
from tests.fakes.readers import read_here

Placed = Callable[[str, bytes], Path]


def tarred(members: Mapping[str, bytes | str]) -> bytes:
    """Return an archive; a text is where a link leads, a name with a slash behind it a folder."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            if name.endswith("/"):
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            elif isinstance(data, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, data
                archive.addfile(entry)
            else:
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


LETTER = b"The rent is 1,320 Euro."
MEMBERS = {"march/letter.txt": LETTER, "offer.docx": docx("# Offer", "Two lamps")}
PAGES = ("# march/letter.txt\n\nThe rent is 1,320 Euro.", "# offer.docx\n\n# Offer\n\nTwo lamps")


@pytest.mark.parametrize(
    ("name", "data", "pages"),
    [
        ("a.zip", zipped(MEMBERS), PAGES),
        ("a.tar", tarred({f"./{name}": data for name, data in MEMBERS.items()}), PAGES),
        ("a.tgz", gzip.compress(tarred(MEMBERS), mtime=0), PAGES),
        ("a.tar.gz", gzip.compress(tarred(MEMBERS), mtime=0), PAGES),
        ("scan", zipped(MEMBERS), PAGES),  # whatever it is called
        ("offer.docx.gz", gzip.compress(MEMBERS["offer.docx"], mtime=0), PAGES[1:]),
        ("in.zip", zipped({"a.tar": tarred(MEMBERS)}), (f"# a.tar\n\n{PAGES[0]}", PAGES[1])),
        ("grüße.zip", zipped({"grüße.txt": b"Hi"}), ("# grüße.txt\n\nHi",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_member_is_pages_under_its_name(
    placed: Placed, name: str, data: bytes, pages: tuple[str, ...]
) -> None:
    found = read_here(placed(name, data))
    assert found.pages == pages
    assert [*found.notes] == []


def test_members_keep_their_places_and_their_e_invoices(placed: Placed) -> None:
    """As attachments do: an XML and its page beside it are witnesses of one invoice."""
    members = {"bill.xml": Made(3).xml().encode(), "bill.pdf": pdf([Made(3).page()])}
    found = read_here(placed("bills.zip", zipped(members)))
    mailed = read_here(placed("bills.eml", eml("See", attachments=members)))
    assert [invoice["witnesses"] for invoice in found.invoices] == [["xml", "sums", "page"]]
    assert [invoice["page"] for invoice in found.invoices] == [1]
    assert found.pages == mailed.pages[1:]
    assert found.cells == mailed.cells[1:]
    within = read_here(placed("mail.eml", eml("See", attachments={"bills.zip": zipped(members)})))
    assert [invoice["page"] for invoice in within.invoices] == [2]


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.docx", docx("hi")), ("a.xlsx", xlsx({"A": [["hi"]]}))],
    ids=["docx", "xlsx"],
)
def test_an_office_document_stays_what_it_is(placed: Placed, name: str, data: bytes) -> None:
    assert "zip" not in read_here(placed(name, data)).media_type
    with pytest.raises(StepError, match="is an office document under another name"):
        read_here(placed("a.zip", data))


def locked(data: bytes) -> bytes:
    """Return an archive of one member, which says that a password protects it."""
    at = data.index(b"PK\x01\x02") + 8
    return b"".join((data[:6], b"\x01", data[7:at], b"\x01", data[at + 1 :]))


@pytest.mark.parametrize(
    ("name", "data", "notes"),
    [
        ("a.zip", zipped({"../../a.txt": LETTER}), ["member '../../a.txt' names a place outside"]),
        ("a.tar", tarred({"/etc/a.txt": LETTER}), ["member '/etc/a.txt' names a place outside"]),
        ("b.zip", zipped({"..\\a.txt": LETTER}), ["member '../a.txt' names a place outside"]),
        (
            "b.tar",
            tarred({"l.txt": "/etc/passwd", "a.txt": LETTER}),
            ["member 'l.txt' is not read: it is a link to '/etc/passwd', or no file"],
        ),
        (
            "c.zip",
            zipped({"__MACOSX/._a.txt": b"x", ".DS_Store": b"x", "a.txt": LETTER}),
            ["2 members are left out, hidden or temporary by the name"],
        ),
        ("d.zip", zipped({"e.txt": b"", "a.txt": LETTER}), ["member 'e.txt' is not read: it is"]),
        (
            "e.zip",
            zipped({"tool.exe": b"MZ\0\1", "a.txt": LETTER}),
            ["member 'tool.exe' is not read: a program by its name, not text"],
        ),
        (
            "c.tar",
            tarred({"a.txt": LETTER, "b.txt": LETTER})[:1024],
            ["it ends early, or is damaged behind what is read of it"],
        ),
        ("x\ny.zip", zipped({"x\ny\x1b.txt": LETTER}), []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_odd_about_a_member_is_told_and_the_others_are_read(
    placed: Placed, tmp_path: Path, name: str, data: bytes, notes: list[str]
) -> None:
    before = {*tmp_path.rglob("*"), placed(name, data)}
    found = read_here(tmp_path / name)
    assert found.text.endswith(LETTER.decode())
    assert [said in note for said, note in zip(notes, found.notes, strict=True)] == [True] * len(
        notes
    )
    assert {*tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        (
            "a.zip",
            locked(zipped({"a.txt": LETTER})),
            "holds nothing that is read: member 'a.txt' is not read: it is protected by a password",
        ),
        ("b.zip", zipped({}), "holds nothing that is read: it has no files"),
        ("c.zip", zipped({f"{n}": b"" for n in range(1_001)}), "is an archive of over 1,000 files"),
        ("c.tar", tarred({f"{n}": b"" for n in range(1_001)}), "is an archive of over 1,000 files"),
        (
            "folders.tar",
            tarred({name: b"x" for n in range(501) for name in (f"{n}/", f"{n}/a.txt")}),
            "is an archive of over 1,000 files and folders",
        ),
        ("d.zip", b"no archive", "is damaged or not a ZIP archive"),
        ("d.tar", b"no archive", "is damaged or not a tar archive"),
        ("d.gz", gzip.compress(LETTER, mtime=0)[:-9], "is damaged or not a gzip file"),
        ("d.7z", b"7z\xbc\xaf\x27\x1c\0\x04", "is an archive of a kind that is not read. Pack"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_an_archive_that_is_not_read_is_a_sentence(
    placed: Placed, name: str, data: bytes, why: str
) -> None:
    path = placed(name, data)
    try:
        found = read_here(path)
    except StepError as error:
        said = str(error)
    else:
        assert found.is_empty
        said = f"'{name}' {found.why_empty}."
    assert said.startswith(f"'{name}' {why}")


def test_a_million_members_are_refused(placed: Placed) -> None:
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    end = b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 65_535, 65_535, len(entry) * 1_000_000, 0, 0)
    path = placed("a.zip", b"PK\x03\x04" + entry * 1_000_000 + end)
    with pytest.raises(StepError, match="is an archive of over 1,000 files"):
        read_here(path, max_bytes=1 << 30)


def test_what_nested_archives_unpack_to_has_one_bound(placed: Placed) -> None:
    """A bomb of 6 KB, 800 MB in eight archives: what is within the bound is read."""
    inner = zipped({"zeros.exe": bytes(100 * 1024**2)})  # is no text: it is only unpacked
    path = placed("a.zip", zipped({**{f"{n}.zip": inner for n in range(8)}, "a.txt": LETTER}))
    pool = ReaderPool()
    try:
        request = DocumentRequest(path, None, "auto", False, 1 << 26)
        found: Document = wait_for_document(pool.submit(request), path)
    finally:
        pool.close()
    assert found.text.endswith(LETTER.decode())
    said = [note for note in found.notes if "would unpack to over 512 MiB" in note]
    assert [note[9:23] for note in said] == [f"member '{n}.zip'" for n in (5, 6, 7)]


def test_archives_within_archives_have_a_depth(placed: Placed) -> None:
    data = LETTER
    for name in ("a.txt", "b.zip", "c.zip", "d.zip"):
        data = zipped({name: data})
    found = read_document(placed("e.zip", data), ReadOptions(ocr=False), 1 << 20)
    assert found.is_empty
    assert "member 'b.zip' is not read: it lies within too many others" in found.why_empty
