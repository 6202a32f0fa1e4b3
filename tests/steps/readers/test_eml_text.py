# ruff: noqa: RUF001 - texts in many languages
import gc
from base64 import b64encode
from email._header_value_parser import Mailbox
from email.message import EmailMessage
from io import BytesIO
from quopri import encodestring

import pytest

from paddock.steps.readers.mail import read_eml
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.office import docx, eml


def document(data: bytes) -> Document:
    return read_eml(BytesIO(data), ReadOptions())


def test_a_mail_says_who_wrote_to_whom_and_what_is_attached() -> None:
    offer = docx("# Offer 17", "Slates")
    attached = {"offer.docx": offer, "tool.exe": b"\x7fELF", "note.txt": "Grüße".encode()}
    data = eml("Please find it attached.\n", subject="Offer", attachments=attached)
    found = document(data)
    assert found.title == "Offer"
    assert found.pages[0] == (
        "From: Ada <ada@example.org>\nTo: grace@example.org\n"
        "Date: Thu, 14 Mar 2024 10:00:00 +0100\nSubject: Offer\n\nPlease find it attached.\n\n"
        f"Attachments:\n- offer.docx (application/octet-stream, {len(offer):,} bytes)\n"
        "- tool.exe (application/octet-stream, 4 bytes), not read\n"
        "- note.txt (application/octet-stream, 7 bytes)"
    )
    assert found.pages[1:] == ("# offer.docx\n\n# Offer 17\n\nSlates", "# note.txt\n\nGrüße")
    assert found.notes == (": attachment 'tool.exe' is not read: a program, not text",)


def test_a_broken_attachment_is_named_and_not_read_as_text() -> None:
    mail = EmailMessage()
    mail["Subject"] = "x"
    mail.set_content("Hi")
    broken = b"broken picture"
    mail.add_attachment(broken, maintype="image", subtype="png", filename="plan.png")
    mail.add_attachment(broken, maintype="application", subtype="octet-stream", filename="p.jpg")
    mail.add_attachment(broken, maintype="image", subtype="png", filename="plan")
    mail.add_attachment(broken, maintype="application", subtype="octet-stream", filename="a.zip")
    mail.add_attachment(b"Rain", maintype="image", subtype="png", filename="note.txt")
    found = document(mail.as_bytes())
    assert found.pages[1:] == ("# note.txt\n\nRain",)
    assert found.pages[0].count(", not read") == 4
    picture = "damaged: a picture by its name, but not by its content"
    assert found.notes == (
        f": attachment 'plan.png' is not read: {picture}",
        f": attachment 'p.jpg' is not read: {picture}",
        ": attachment 'plan' is not read: image/png by its type, which its content is not",
        ": attachment 'a.zip' is not read: it is damaged or not a ZIP archive (BadZipFile: "
        "File is not a zip file)",
    )


def test_a_mail_within_a_mail_is_read() -> None:
    outer = EmailMessage()
    outer["From"], outer["Subject"] = "a@example.org", "Fwd"
    outer.set_content("See below.")
    inner = EmailMessage()
    inner["From"], inner["Subject"] = "b@example.org", "Rain"
    inner.set_content("It rains.")
    outer.add_attachment(inner)
    found = document(outer.as_bytes())
    assert found.pages[0].endswith("See below.\n\nAttachments:\n- Rain (a mail)")
    assert found.pages[1] == "From: b@example.org\nSubject: Rain\n\nIt rains."


def test_mails_are_not_followed_for_ever() -> None:
    mail = EmailMessage()
    mail["Subject"] = "0"
    mail.set_content("core")
    for depth in range(1, 9):
        outer = EmailMessage()
        outer["Subject"] = str(depth)
        outer.set_content("more")
        outer.add_attachment(mail)
        mail = outer
    found = document(mail.as_bytes())
    assert len(found.pages) == 5
    assert found.notes == (": attachment '3' is not read: mails are nested too deeply in it",)


READ_AS = ": it declares {}, which is no known encoding, and is read as {}".format
UNSURE = ": its encoding is not clear: it can be read as windows-1252"


@pytest.mark.parametrize(
    ("charset", "body", "text", "notes"),
    [
        ("klingon", "Grüße".encode(), "Grüße", [READ_AS("'klingon'", "utf-8")]),
        ("klingon", b"Fee 40", "Fee 40", []),
        ("x-odd-8", "f\xfcr 320.00 EUR".encode("latin-1"), "für 320.00 EUR",
         [READ_AS("'x-odd-8'", "windows-1252")]),
        ("x-odd-8", "The berth f\xfcr costs 320.00 EUR.".encode("latin-1"), "für costs",
         [READ_AS("'x-odd-8'", "windows-1252"), UNSURE]),
        ("'iso-8859-1'", "Grüße".encode("latin-1"), "Grüße", []),
        ("ISO8859_1", "Grüße".encode("latin-1"), "Grüße", []),
        ("utf8;", "Grüße".encode(), "Grüße", []),
        ("csISOLatin2", "Zażółć".encode("iso-8859-2"), "Zażółć", []),
        ("IBM00858", "12 €".encode("cp858"), "12 €", []),
        ("unicode_escape", b"C:\\new", "C:\\new", []),  # Python's alone
        ("UTF-8", b"The fee is 40.\n" * 9 + b"\xa7 5 holds.", "§ 5 holds.",
         [": it is not in utf-8, which it declares, but in windows-1252"]),
        ("UTF-8", b"All fees are due by 14 M\xe4rz.\n" * 2, "14 März.",
         [": it is not in utf-8, which it declares, but in windows-1252"]),
        ("utf-8", b"The fee is 40\0 EUR for the berth.", "40\ufffd EUR",
         [": 1 damaged bytes of its UTF-8 are read as U+FFFD"]),
    ],
)  # fmt: skip
def test_no_charset_keeps_a_text_from_being_read(
    charset: str, body: bytes, text: str, notes: list[str]
) -> None:
    head = f"Subject: x\nContent-Type: text/plain; charset={charset}\n\n".encode()
    found = document(head + body)
    assert text in found.text
    assert [note[: len(part)] for note, part in zip(found.notes, notes, strict=True)] == notes


def test_what_a_mail_declares_elsewhere_tells_the_encoding_of_a_text_and_of_headers() -> None:
    word = b"=?koi8-r?B?8NLJ18XU?="
    body = "Привет, договор".encode("koi8-r")
    found = document(b"From: Ann <a@x.org>\nSubject: %s\n\n%s" % (word, body))
    assert found.text == "From: Ann <a@x.org>\nSubject: Привет\n\nПривет, договор"
    part = b"Content-Type: text/plain; charset=iso-8859-2\n\nZa\xbf\xf3\xb3\xe6"
    name = b'Content-Disposition: attachment; filename="umowa \xb3.txt"\n\nfee 40'
    head = b"Subject: \xa3\xf3d\xbc\nContent-Type: multipart/mixed; boundary=b\n\n"
    found = document(head + b"--b\n%s\n--b\n%s\n--b--\n" % (part, name))
    assert found.title == "Łódź"
    assert found.pages[1] == "# umowa ł.txt\n\nfee 40"
    assert found.notes == (": its headers declare no encoding and are read as iso-8859-2",)


def test_an_attached_text_is_read_in_the_charset_of_its_part() -> None:
    table = b"Content-Type: text/csv; charset=cp850; name=a.csv\n\nname;fee\nM\x81ller;40"
    found = document(
        b"Subject: x\nContent-Type: multipart/mixed; boundary=b\n\n"
        b"--b\n\nSee\n--b\n%s\n--b--\n" % table
    )
    assert found.pages[1] == "# a.csv\n\nname;fee\nMüller;40"
    assert found.notes == ()


@pytest.mark.parametrize(
    ("subject", "title"),
    [
        ("=?utf-8?B?5Lit5g==?= =?utf-8?B?lodh?=", "中文a"),  # cut within a sign
        ("=?utf-8?B?5Lit5?=\n =?utf-8?B?paH?=", "中文"),
        ("=?gb2312?B?6Ze3?=", "闷"),
        ("=?x-odd?Q?M=FCller?=", "Müller"),
        ("=?ISO-8859-1?Q?a_=FC?= b =?utf-8*de?Q?c?=", "a ü b c"),
        ("=?utf-8?q?a?b?=", "=?utf-8?q?a?b?="),
    ],
)
def test_encoded_words_of_a_header_are_read(subject: str, title: str) -> None:
    assert document(f"From: a@x.org\nSubject: {subject}\n\nHi".encode()).title == title


def test_encoded_headers_are_read() -> None:
    data = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nFrom: =?x?y?z\n\nHi"
    assert document(data).text.startswith("From: =?x?y?z\nSubject: Grüße\n\nHi")


def test_controls_in_encoded_headers_and_names_of_attachments_are_left_out() -> None:
    data = (
        b"From: a@x.org\nSubject: =?utf-8?b?YQAbYg==?=\nContent-Type: multipart/mixed; boundary=z\n"
        b"\n--z\nContent-Type: image/png\nContent-Disposition: attachment; "
        b"filename*=utf-8''c%00%1bd.png\n\nx\n--z--\n"
    )
    found = document(data)
    assert found.title == "a b"
    assert "- c d.png (image/png, 1 bytes)" in found.text
    assert not {"\x00", "\x1b"} & {*found.text}


@pytest.mark.parametrize("data", [b"", b"Hello there\n", b"\x00\x01\x02" * 50])
def test_what_is_no_mail_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable, match="is damaged or not a mail: it has no mail headers"):
        document(data)


def mail(content_type: str, *parts: str) -> Document:
    """Read a mail whose parts are given with their headers; one alone is the mail's own."""
    begins = f"From: a@x.org\nSubject: S\nMIME-Version: 1.0\n{content_type}\n"
    body = "".join(f"--BB\n{part}\n" for part in parts)
    return document(f"{begins}{body}--BB--\n".encode())


MIXED = "Content-Type: multipart/mixed; boundary=BB\n"
ALTERNATIVE = MIXED.replace("mixed", "alternative")
PLAIN, HTML = "Content-Type: text/plain\n\nplain", "Content-Type: text/html\n\n<p>page</p>"
SAME = "Content-Type: text/html\n\n<p><a href='http://x.org/y'>Plain</a><img alt=logo src=z></p>"
INVITATION = "Content-Type: text/calendar\n\nBEGIN:VEVENT\nSUMMARY:Rent\\, 45\n  EUR\nEND:VEVENT"
CUT = "Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nNDUgRVVSIG\n5ld"
HEADERS = (
    "Content-Type: text/rfc822-headers\n\nReceived: x; Mon, 02 Mar 2026 10:00:00 +0100\n"
    "From: a@x.org\nDate: Mon, 02 Mar 2026 10:00:00 +0100\n"
)
STATUS = "Content-Type: message/delivery-status\n\nReporting-MTA: x\n\nStatus: 5.1.1"
PICTURE = "Content-Type: image/png\nContent-ID: <p>\nContent-Disposition: inline\n\nbroken"


OTHER = ": words of its other form (HTML) are not read (10 characters: '{}')".format
TOTAL = "Content-Type: text/html\n\n<p>Plain: pay <b>55</b> EUR</p>"
WITHIN = "Content-Type: multipart/mixed; boundary=CC\n\n" + "".join(
    f"--CC\n{part}\n" for part in (SAME, "Content-Type: text/plain\n\nNo refunds")
)


@pytest.mark.parametrize(
    ("content_type", "parts", "text", "pages", "notes"),
    [
        (MIXED, [PLAIN, PLAIN, HTML], "plain",
         ["# attachment.plain\n\nplain", "# attachment.html\n\npage"], ()),
        (ALTERNATIVE, [PLAIN, SAME], "plain", [], ()),
        (ALTERNATIVE, [PLAIN, SAME, INVITATION], "plain",
         ["# attachment.calendar\n\nVEVENT\nSUMMARY: Rent, 45 EUR"], ()),
        (MIXED, [CUT], "45 EUR ne", [], ()),
        (MIXED, [f"{CUT} Pay today"], "NDUgRVVSIG5ld Pay today", [], ()),
        (MIXED.replace("mixed", "report"), [PLAIN, HEADERS], "plain",
         [HEADERS.replace("Content-Type: text/", "# attachment.")], ()),
        (MIXED.replace("mixed", "report"), [PLAIN, STATUS], "plain",
         ["# attachment.delivery-status\n\nReporting-MTA: x\n\nStatus: 5.1.1\n"], ()),
        (MIXED, [HTML.replace("page", "<img src='cid:p'>"), PICTURE], "", [], ()),
        (ALTERNATIVE, ["Content-Type: text/plain\n\n", HTML], "page", [], ()),
        (ALTERNATIVE, ["Content-Type: text/plain\n\n\n \r\n", HTML], "page", [], ()),
        (ALTERNATIVE, [PLAIN, TOTAL], "plain", [], (OTHER("pay 55 EUR"),)),
        (ALTERNATIVE, [PLAIN, f"{WITHIN}--CC--\n"], "plain", [], (OTHER("No refunds"),)),
        (ALTERNATIVE, [PLAIN, "Content-Type: text/html; charset=undefined\n\n<p>Plain</p>"],
         "plain", [], ()),
    ],
)  # fmt: skip
def test_every_part_of_a_mail_is_read(
    content_type: str, parts: list[str], text: str, pages: list[str], notes: tuple[str, ...]
) -> None:
    found = mail(content_type, *parts)
    head = "From: a@x.org\nSubject: S"
    assert found.pages[0].startswith(f"{head}\n\n{text}" if text else head)
    assert (list(found.pages[1:]), found.notes) == (pages, notes)


def test_a_form_whose_boundary_is_missing_and_a_picture_that_is_not_shown_hide_nothing() -> None:
    assert "plain" in mail(MIXED, "Content-Type: multipart/related\n\nx", PLAIN).text
    assert "a picture by its name" in mail(MIXED, PLAIN, PICTURE).notes[0]
    found = mail("Content-Type: application/json; name=a.json\n\n[1]")
    assert found.pages[1].startswith("# a.json\n\n[1]")


def in_base64(text: str) -> str:
    return f"Content-Transfer-Encoding: base64\n\n{b64encode(text.encode()).decode()}"


INNER = "From: b@x.org\nSubject: Rain\nContent-Type: text/plain; charset=utf-8\n\nIt rains: 100 %."
FORWARDED = "Content-Type: message/rfc822\n"
QUOTED, BASE64 = (f"Content-Transfer-Encoding: {n}\n\n" for n in ("quoted-printable", "base64"))
IN_QUOTED = f"{QUOTED}{encodestring(INNER.encode()).decode()}"
ANOTHER_LINE = ": its parts are separated by another line than it declares"


@pytest.mark.parametrize(
    ("content_type", "parts", "pages", "notes"),
    [
        (MIXED, [PLAIN, FORWARDED + in_base64(INNER)], ["plain", "It rains: 100 %."], ()),
        (MIXED, [PLAIN, FORWARDED.replace("rfc822", "global") + in_base64(INNER)],
         ["plain", "It rains: 100 %."], ()),
        (MIXED, [PLAIN, FORWARDED + IN_QUOTED], ["plain", "It rains: 100 %."], ()),
        (MIXED, [PLAIN, f"{FORWARDED}Content-Transfer-Encoding: base64\n\n{INNER}"],
         ["plain", "It rains: 100 %."], ()),  # it is not in base64
        (MIXED.replace("mixed", "digest"), [f"\n{INNER}", f"\n{INNER}"],
         ["S", "It rains: 100 %.", "It rains: 100 %."], ()),
        (MIXED.replace("=BB", "=CC"), [PLAIN], ["plain"], (ANOTHER_LINE,)),
        (MIXED.replace("; boundary=BB", ""), [PLAIN], ["plain"], (ANOTHER_LINE,)),
        (MIXED, [MIXED.replace("=BB", "=x") + in_base64(f"--x\n{PLAIN}")], ["plain"], ()),
        (MIXED.replace("; ", "\t"), [PLAIN], ["plain"], ()),
        (MIXED, ["Content-Transfer-Encoding: Base-64;\n\nSXQgcmFpbnM="], ["It rains"], ()),
        (MIXED, [PLAIN, f"{FORWARDED}{QUOTED}From: b@x.org\n\n5 =3D=\n 4 + 1 =C3=BC"],
         ["plain", "5 = 4 + 1 ü"], ()),
        (MIXED, [PLAIN, f"{FORWARDED}{QUOTED}From: b@x.org\nContent-Type: text/plain; charset=utf-8"
                 "\n\n5 = 4 + 1 =3D"], ["plain", "5 = 4 + 1 =3D"], ()),  # it is not in that
        (MIXED, [f"{BASE64}SXQgcmFp\nbnM=\nLCBhbmQgaG93\n\nSSE=\n"], ["It rains, and howI!"], ()),
        (MIXED, [f"{BASE64}SXQgcmFpbnM=\n____\nThe club, 12 EUR a year\n"], ["It rains"],
         (": text around its parts is not read (28 characters: '____ The club, 12 EUR a year')",)),
        (MIXED, ["Content-Type: message/partial; number=1; total=2; id=x\n\nFee 40"],
         ["not read"], (": attachment 'attachment.partial' is not read: it is a piece of a mail "
                        "that was sent in several",)),
    ],
)  # fmt: skip
def test_parts_that_are_not_quite_as_the_standard_has_them_are_read(
    content_type: str, parts: list[str], pages: list[str], notes: tuple[str, ...]
) -> None:
    found = mail(content_type, *parts)
    assert len(found.pages) == len(pages)
    assert [text for page, text in zip(found.pages, pages, strict=True) if text not in page] == []
    assert found.notes == notes


def test_a_boundary_that_is_not_quoted_and_a_line_that_is_no_header_hide_nothing() -> None:
    parts = f"------=_A.1\n{PLAIN}\n------=_A.1--\n"
    head = "Received: x\nquite odd: y\nFrom : a@x.org\nSubject: S\n"
    found = document(f"{head}Content-Type: multipart/mixed; boundary=----=_A.1\n\n{parts}".encode())
    assert (found.text, found.notes) == ("From: a@x.org\nSubject: S\n\nplain", ())


LINES = "".join(
    f"{n}TRhIGdvZXMgb24gYW5kIG9uLCBhbmQgbm9ib2R5IGtub3dzIHdoYXQgaXQgaXM\n" for n in "abcde"
)


@pytest.mark.parametrize(
    "text",
    [
        "begin 644 a.gif\nM1TE&.#=A$P`3`*$``/___P```(A`@,#`P!P`````$P`3```!1X2/F<MSTQ0^\n`\nend\n",
        "begin 644 a.txt\n,2&5L;&\\@5V]R;&0*\n`\nend\n",
        "-----BEGIN PGP MESSAGE-----\n\nhQEMA\n-----END PGP MESSAGE-----\n",
        "=ybegin line=128 size=9 name=a.gif\n",
        LINES,
        "Die Geb=C3=BChr betr=C3=A4gt 40.\n",
    ],
    ids=["uuencode", "a line of uuencode", "OpenPGP", "yEnc", "base64", "quoted-printable"],
)
def test_what_stands_encoded_in_a_text_is_noted(text: str) -> None:
    begins = ": what is encoded in its text stands there as it is ("
    for found in (mail("", f"\nSee:\n{text}"), mail(MIXED, PLAIN, f"\nSee:\n{text}")):
        assert [note[: len(begins)] for note in found.notes] == [begins]


def test_notes_of_many_attachments_are_counted() -> None:
    found = document(eml("See", attachments={f"{n}.exe": b"MZ" for n in range(328)}))
    assert len(found.notes) == 12
    assert found.notes[-2:] == (
        ": what is said of attachment '0.exe' holds for 95 more attachments",
        ": what is said of attachment '100.exe' holds for 223 more attachments",
    )
    assert found.pages[0].count(", not read") == 328


@pytest.mark.parametrize(
    ("markup", "notes"),
    [
        ("<ol><li>Rain<li>Snow</ol><p><a href='http://x.org/y' title=z>click</a></p>", ()),
        ("<ol><li>Rain<ol><li>Snow</ol><li>click</ol><blockquote><ol><li>H</ol></blockquote>", ()),
        ("<b>Ra</b>in <i>Snow</i> <s>5</s>*3 H<sub>2</sub>O <code>click</code>", ()),
        ("<p>12. Rain</p>", ("3 characters: '12.'",)),
        ("<ol><li><b>Hail</b> <a href=x>two Rain</a></ol>", ("8 characters: 'Hail two'",)),
    ],
)
def test_signs_of_markdown_are_no_words_of_the_other_form(
    markup: str, notes: tuple[str, ...]
) -> None:
    plain = "Content-Type: text/plain\n\nRain Snow click H2O 5*3 H"
    found = mail(ALTERNATIVE, plain, f"Content-Type: text/html\n\n{markup}")
    begins = ": words of its other form (HTML) are not read"
    assert found.notes == tuple(f"{begins} ({note})" for note in notes)


def test_an_encrypted_message_is_named_and_not_read() -> None:
    message = b"-----BEGIN PGP MESSAGE-----\n\nhQEMA"
    found = document(eml("Hi", attachments={"a.asc": message}))
    assert found.notes == (": attachment 'a.asc' is not read: an encrypted message, not text",)


@pytest.mark.parametrize(
    ("parameters", "body", "text"),
    [
        ("format=flowed", "The fee \nis 40.\nPay.\n", "The fee is 40.\nPay."),
        ("format=flowed; delsp=yes", "Gebäude \nreinigung\n", "Gebäudereinigung"),
        ("format=flowed", "> A \n> fee.\n>> Which \n> fee?", "> A fee.\n>> Which \n> fee?"),
        ("format=flowed", " >40 is more\n From Ada\n", ">40 is more\nFrom Ada"),
        ("format=flowed", "Regards \n-- \nAda\n", "Regards \n-- \nAda"),
        ("format=fixed", "The fee \nis 40.\n", "The fee \nis 40."),
    ],
)  # fmt: skip
def test_flowed_text_is_read_in_paragraphs(parameters: str, body: str, text: str) -> None:
    head = f"From: a@b.c\nSubject: x\nContent-Type: text/plain; charset=utf-8; {parameters}\n\n"
    assert document(f"{head}{body}".encode()).pages[0].split("\n\n", 1)[1] == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_a_mail_that_a_program_saved_in_a_wide_encoding_is_read(encoding: str) -> None:
    mail = (
        "From: a@b.c\r\nSubject: Miete\r\nContent-Type: text/plain; charset=utf-16\r\n\r\nGröße\r\n"
    )
    found = document(mail.encode(encoding))
    assert (found.title, found.pages[0].split("\n\n")[1], found.notes) == ("Miete", "Größe", ())


@pytest.mark.parametrize(("n_texts", "n_noted"), [(1, 0), (60, 10)])
def test_a_mail_whose_forms_repeat_endlessly_is_read_once(n_texts: int, n_noted: int) -> None:
    forms = "".join(f"--x\nContent-Type: text/html\n\n<p>Fee {n % n_texts}\n" for n in range(1_000))
    head = "From: a@b.c\nSubject: x\nContent-Type: multipart/alternative; boundary=x\n\n"
    fees = " ".join(map(str, range(60)))
    plain = f"--x\nContent-Type: text/plain\n\nFee {fees}\n"
    found = document(f"{head}{plain}{forms}--x--\n".encode())
    noted = (f": {n_noted} other forms of its text are not compared with it",) if n_noted else ()
    assert (found.pages[0].count("Fee"), found.notes) == (1, noted)


def test_text_around_the_parts_of_a_mail_is_noted() -> None:
    mail = EmailMessage()
    mail["Subject"] = "Fees"
    mail.set_content("Hello")
    mail.add_attachment("A note", filename="a.txt")
    mail.preamble = "This is a multi-part message in MIME format."
    mail.epilogue = "\n"
    assert document(mail.as_bytes()).notes == ()
    mail.epilogue = "The fee is 45 euro."
    [note] = document(mail.as_bytes()).notes
    assert note == ": text around its parts is not read (19 characters: 'The fee is 45 euro.')"


def test_the_recipients_of_a_mail_to_many_do_not_stay_in_memory() -> None:
    names = [f"Person {number} <p{number}@example.org>" for number in range(300)]
    text = document(f"To: {', '.join(names)}\nSubject: News\n\nHello".encode()).pages[0]
    assert names[-1] in text
    gc.collect()
    assert sum(isinstance(each, Mailbox) for each in gc.get_objects()) < 100
