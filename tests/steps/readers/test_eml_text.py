import gc
from email._header_value_parser import Mailbox
from email.message import EmailMessage
from io import BytesIO

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


def test_a_wrong_charset_does_not_lose_the_text() -> None:
    data = b'Subject: x\nContent-Type: text/plain; charset="klingon"\n\nGr\xc3\xbc\xc3\x9fe'
    assert document(data).text == "Subject: x\n\nGrüße"


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
