"""Archives: each member is pages under its name, or a sentence; nothing is written."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
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
        ("d.7z", b"7z\xbc\xaf\x27\x1c\0\x04", "is a 7z archive, which is not read. Pack what it"),
        ("cut.rar", b"\0\1\2", "is an archive of a kind that is not read. Pack what it holds as"),
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


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
        (b"MSCF\0\0\0\0\x80\0", "a Cabinet archive (CAB)"),
        (b"070701" + b"0A" * 52, "a cpio archive"),
        (b"\xc7\x71" + bytes(24), "a cpio archive"),
        (b"!<arch>\ndebian-binary   ", "a Debian package"),
        (b"!<arch>\na.o/            ", "an ar archive"),
        (b"\x21\x9a-lh5-\x10\0", "an LHA archive"),
        (b"\x60\xea\x29\0\x1e\x06\x01\0\x10\0\x02", "an ARJ archive"),
        (b"\x1f\x9d\x90\x61", "a file packed by compress (.Z)"),
        (b"BZh91AY&SY\0", "a file packed by bzip2"),
        (b"\xfd7zXZ\0\0\x04", "a file packed by XZ"),
        (b"\x28\xb5\x2f\xfd\x04", "a file packed by Zstandard or LZ4"),
        (b"\x04\x22\x4d\x18\x60", "a file packed by LZ4"),
        (b"\xed\xab\xee\xdb\x03\0", "an RPM package"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("name", ["x", "x.bin", "x.zip", "x.txt"])
def test_other_archives_are_known_by_their_first_bytes(
    placed: Placed, data: bytes, what: str, name: str
) -> None:
    with pytest.raises(StepError) as caught:
        read_here(placed(name, data + bytes(400)))
    assert str(caught.value).startswith(f"'{name}' is {what}, which is not read. Pack what it")


@pytest.mark.parametrize(
    "text", ["07070 is our post code.\n", "BZh9 is the berth.\n", "LZIP is a word.\n", "`ê 5\n"]
)
def test_a_text_that_begins_as_an_archive_does_stays_a_text(placed: Placed, text: str) -> None:
    assert read_here(placed("x", text.encode())).text == text


def renamed(members: Mapping[str, bytes], field: str = "", checked: bytes = b"") -> bytes:
    """Return an archive whose names are these bytes (Latin-1), with Info-ZIP's field of another."""
    plain = {f"{n}" * len(name): name.encode("latin-1") for n, name in enumerate(members)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in zip(plain, members.values(), strict=True):
            entry = zipfile.ZipInfo(name)
            if field:
                text = struct.pack("<BL", 1, zlib.crc32(checked)) + field.encode()
                entry.extra = struct.pack("<HH", 0x7075, len(text)) + text
            archive.writestr(entry, data)
    found = file.getvalue()
    for name, written in plain.items():
        found = found.replace(name.encode(), written)
    return found


READ_AS = "'a.{}': it does not say how names are written: they are unsure, and read as {}.".format


@pytest.mark.parametrize(
    ("names", "encoding", "read_as"),
    [
        (("料金.txt", "桟橋.txt"), "cp932", "shift_jis"),
        (("发票.txt", "合同.txt"), "gbk", "gb18030"),
        (("Договор аренды.txt", "Счёт.txt"), "cp866", "ibm866"),
        (("ДОГОВОР АРЕНДЫ.txt",), "cp866", "ibm866"),
        (("Łódź umowa.txt",), "cp852", "ibm852"),
        (("Größe.txt", "Übersicht März.txt"), "cp437", "cp437"),
        (("Größe.txt", "Übersicht März.txt"), "cp1252", "windows-1252"),
        (("Größe.txt",), "utf-8", ""),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_declare_no_encoding_are_read_as_all_of_them_can_be_with_a_note(
    placed: Placed, kind: str, names: tuple[str, ...], encoding: str, read_as: str
) -> None:
    if kind == "tar" and read_as == "cp437":
        return  # it is the default of ZIP alone
    written = {name.encode(encoding): LETTER for name in names}
    if kind == "zip":
        data = renamed({name.decode("latin-1"): text for name, text in written.items()})
    else:
        data = tarred({name.decode("utf-8", "surrogateescape"): t for name, t in written.items()})
    found = read_here(placed(f"a.{kind}", data))
    assert [page.partition("\n")[0] for page in found.pages] == [f"# {name}" for name in names]
    assert found.notes == ((READ_AS(kind, read_as),) if read_as else ())


@pytest.mark.parametrize("name", ["\x97\xbf.txt", "__.txt", "\xff.txt"])
def test_the_name_that_the_archive_says_is_right_is_taken_if_it_is_of_this_member(
    placed: Placed, name: str
) -> None:
    written = name.encode("latin-1")
    found = read_here(placed("a.zip", renamed({name: LETTER}, "料金.txt", written)))
    assert (found.pages[0].partition("\n")[0], found.notes) == ("# 料金.txt", ())
    other = read_here(placed("b.zip", renamed({name: LETTER}, "料金.txt", b"another")))
    assert other.pages[0].partition("\n")[0] != "# 料金.txt" or other.notes


def test_an_archive_in_zip64_is_read_however_few_files_it_has(placed: Placed) -> None:
    data = zipped({"a.txt": LETTER})
    at = data.rindex(b"PK\x05\x06")
    size, offset = struct.unpack_from("<2L", data, at + 12)
    record = struct.pack("<LQ2H2L4Q", 0x06064B50, 44, 45, 45, 0, 0, 1, 1, size, offset)
    locator = struct.pack("<LLQL", 0x07064B50, 0, at, 1)
    end = struct.pack("<L4H2LH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    assert LETTER.decode() in read_here(placed("a.zip", data[:at] + record + locator + end)).text
    many = record[:24] + struct.pack("<2Q", 1_001, 1_001) + record[40:]
    with pytest.raises(StepError, match="is an archive of over 1,000 files"):
        read_here(placed("b.zip", data[:at] + many + locator + end))


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (98, "PPMd"), (77, "method 77")])
def test_a_method_that_is_not_read_is_named_with_a_way_out(
    placed: Placed, method: int, name: str
) -> None:
    data = bytearray(zipped({"a.txt": LETTER, "b.txt": LETTER}))
    for at in (8, data.index(b"PK\x01\x02") + 10):
        data[at : at + 2] = struct.pack("<H", method)
    found = read_here(placed("a.zip", bytes(data)))
    assert [page.partition("\n")[0] for page in found.pages] == ["# b.txt"]
    assert found.notes == (
        f"'a.zip': member 'a.txt' is not read: it is packed by {name}, which is not read; pack it "
        "again with Deflate.",
    )


def test_what_signs_the_documents_of_a_container_is_no_page(placed: Placed) -> None:
    kind = b"application/vnd.etsi.asic-e+zip"
    signed = {
        "mimetype": kind,
        "letter.txt": LETTER,
        "META-INF/manifest.xml": b"<m/>",
        "META-INF/signatures0.xml": b"<s/>",
    }
    found = read_here(placed("a.asice", zipped(signed)))
    assert found.pages == ("# letter.txt\n\nThe rent is 1,320 Euro.",)
    assert found.notes == (
        "'a.asice': what packs and signs it is neither read nor checked (mimetype, "
        "META-INF/manifest.xml, META-INF/signatures0.xml).",
    )


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
