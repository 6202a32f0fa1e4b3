"""A file is what it contains: mails, calendars, contacts and signed documents under any name."""

import base64
import importlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_process import ReadOptions, read_document

Placed = Callable[[str, bytes], Path]
HEAD = (
    "From: Ann Gull <ann@example.org>\nTo: office@example.org\n"
    "Subject: =?utf-8?Q?Geb=C3=BChr?=\nDate: Mon, 02 Mar 2026 10:00:00 +0100\n"
    "Message-ID: <2@example.org>\nMIME-Version: 1.0\n"
)
QUOTED = (
    "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n"
    "Die Geb=C3=BChr betr=C3=A4gt 1=\n320 Euro.\n"
)
MIXED = (
    "Content-Type: multipart/mixed; boundary=b1\n\n--b1\nContent-Type: text/plain; charset=utf-8\n"
    "Content-Transfer-Encoding: base64\n\nRGllIEdlYsO8aHIgYmV0csOkZ3QgNDUgRXVyby4K\n--b1\n"
    'Content-Type: text/csv; name="fees.csv"\nContent-Transfer-Encoding: base64\n\n'
    "YmVydGgsZmVlCjcsNDUK\n--b1--\n"
)
PLAIN = "\nDie Gebuehr: 1320 Euro.\n"
UNDERWAY = "".join(
    f"Received: from mail{n}.example.org (mail{n}.example.org [10.0.0.{n}])\n"
    f"\tby mx.example.org with ESMTPS id {n:08};\n\tMon, 02 Mar 2026 10:00:00 +0100\n"
    for n in range(150)  # more than is read of a file to tell its kind
)
LETTER = "From: Ann\nTo: the office\nDate: 2 March 2026\nSubject: Rent\n\nIt rises to 1320 Euro.\n"
EVENT = "BEGIN:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:Rent\\, 47\n 11 EUR\nEND:VEVENT\nEND:VCALENDAR\n"
CARD = "BEGIN:VCARD\nVERSION:3.0\nFN:Ann Gull\nNOTE:45 EUR\nEND:VCARD\n"


def read(path: Path) -> Document:
    return read_document(path, ReadOptions(ocr=False), 64 * 1024**2)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("1772442001.M1P9.host,S=700:2,S", HEAD + MIXED, "beträgt 45 Euro"),
        ("1772442002.M2P9.host,S=300:2,RS", HEAD + QUOTED, "beträgt 1320 Euro"),
        ("17", HEAD + QUOTED, "beträgt 1320 Euro"),
        ("18", HEAD + PLAIN, "Gebuehr: 1320 Euro"),
        ("19", UNDERWAY + HEAD + QUOTED, "beträgt 1320 Euro"),
        ("20", UNDERWAY[:141] + HEAD.replace("Mon, 02", "02.") + QUOTED, "beträgt 1320 Euro"),
        ("mail.bak", f"Return-Path: <ann@example.org>\n{HEAD}{QUOTED}", "beträgt 1320 Euro"),
        ("a.emlx", f"{len(HEAD + QUOTED):<10}\n{HEAD}{QUOTED}<plist>x</plist>", "1320 Euro."),
        ("12.partial.emlx", f"{len(HEAD + MIXED)}\n{HEAD}{MIXED}<plist/>", "beträgt 45 Euro"),
        ("original_msg.txt", HEAD + MIXED, "beträgt 45 Euro"),
        ("saved.md", HEAD + QUOTED, "beträgt 1320 Euro"),
        ("crlf", (HEAD + QUOTED).replace("\n", "\r\n"), "beträgt 1320 Euro"),
        ("lower", HEAD.replace("From:", "from:").replace("Date:", "date:") + QUOTED, "1320 Euro"),
    ],
)  # fmt: skip
def test_a_mail_is_read_as_one_under_any_name(
    placed: Placed, name: str, text: str, found: str
) -> None:
    mail = read(placed(name, text.encode()))
    assert mail.media_type == "message/rfc822"
    assert mail.text.startswith("From: Ann Gull <ann@example.org>")
    assert "Subject: Gebühr" in mail.text
    assert found in mail.text
    assert "plist" not in mail.text
    assert ("7,45" in mail.text) == (MIXED in text)


@pytest.mark.parametrize("name", ["INBOX", "2010-March.txt", "Sent"])
def test_a_mailbox_is_a_container_of_mails_under_any_name(placed: Placed, name: str) -> None:
    start = "From ann@example.org Mon Mar  2 10:00:00 2026\n"
    box = read(placed(name, f"{start}>{start}{HEAD}{MIXED}\n{start}{HEAD}{QUOTED}".encode()))
    assert box.media_type == "application/mbox"
    assert [page.splitlines()[0][:5] for page in box.pages] == ["From:", "# fee", "From:"]
    assert "beträgt 1320 Euro" in box.pages[2]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("letter.txt", LETTER),
        ("letter", LETTER),
        ("memo.log", LETTER.replace("Subject", "Re")),
        ("note.txt", f"Ann wrote:\n\n{HEAD}{QUOTED}"),
        ("note", f"Ann wrote:\n{HEAD}{QUOTED}"),
        ("quoted.txt", "".join(f"> {line}\n" for line in (HEAD + QUOTED).splitlines())),
        ("quoted", "".join(f"> {line}\n" for line in (HEAD + QUOTED).splitlines())),
        ("whole.txt", f"{HEAD}\nThe mail above has a forged sender. 45 EUR.\n"),
        ("whole.md", f"{HEAD}{PLAIN}# Notes\n\nSee the headers.\n"),
        ("mail.log", "Mar  2 10:00:00 host postfix/smtp[1]: From: <a@b.org>, Date: x\n" * 3),
        ("headers.log", "2026-03-02 10:00 Message-ID: <2@example.org> From: a Date: b\n"),
        ("mails.csv", "From,Date,Message-ID,MIME-Version\nann,Mon 02 Mar 2026,<2@x>,1.0\n"),
        ("mails.tsv", "From:\tDate:\tMessage-ID:\nann\tMon, 02 Mar 2026 10:00:00 +0100\t<2@x>\n"),
        ("page.html", f"<pre>{HEAD}{QUOTED}</pre>"),
        ("config.yaml", "From: a\nDate: yesterday\nMessage-ID: true\nMIME-Version: 1\n"),
        ("http.txt", "HTTP/1.1 200 OK\nDate: Mon, 02 Mar 2026 10:00:00 GMT\nFrom: x\n\nbody\n"),
        ("diary", "From Ann, Mon Mar  2 10:00:00 2026\nIt rains.\n"),
        ("poem.txt", "From me to you Mon Mar 2\n\nFrom: the heart\n"),
        ("patch", "From: the beginning, a story\nReceived: none\n\nDate: never\n"),
        ("a.json", '{"From": "Ann", "Date": "Mon, 02 Mar 2026 10:00:00 +0100"}'),
        ("calendars.txt", f"A calendar begins so:\n{EVENT}"),
        ("count", "12\nFrom: a\nTo: b\n"),
        ("parcels", "From: Ann\nReceived: yesterday, 45 EUR by hand\n"),
        ("parcels.md", "From: Ann\nReceived: yesterday\nContent-Type: multipart/ box, 45 EUR\n"),
    ],
)  # fmt: skip
def test_a_text_that_quotes_a_mail_stays_what_it_is(placed: Placed, name: str, text: str) -> None:
    found = read(placed(name, text.encode()))
    assert found.media_type not in ("message/rfc822", "application/mbox", "text/calendar")
    if not name.endswith(".html"):
        assert found.text == text


@pytest.mark.parametrize(
    ("name", "data", "lines"),
    [
        ("a.ics", EVENT.encode(), ["VEVENT", "SUMMARY: Rent, 4711 EUR"]),
        ("invitation", EVENT.replace("\n", "\r\n").encode(), ["SUMMARY: Rent, 4711 EUR"]),
        ("a.ics", b"BEGIN:VEVENT\nDTSTART;TZID=Europe/Berlin:20260302T100000\nEND:VEVENT",
         ["DTSTART (TZID=Europe/Berlin): 2026-03-02 10:00:00"]),
        ("a.ics", b"BEGIN:VEVENT\nDTSTART;VALUE=DATE:20260504\nUID:20260504\nEND:VEVENT",
         ["DTSTART: 2026-05-04", "UID: 20260504"]),
        ("a.ics", "BEGIN:VEVENT\nSUMMARY:Gebü".encode()[:-1] + b"\n \xbchr\nEND:VEVENT",
         ["SUMMARY: Gebühr"]),
        ("a.ics", b"BEGIN:VEVENT\nno property\nSUMMARY:x\nEND:VEVENT",
         ["no property", "SUMMARY: x"]),
        ("a.vcf", CARD.encode(), ["VCARD", "FN: Ann Gull", "NOTE: 45 EUR"]),
        ("contacts", CARD.encode() * 2, ["VCARD", "FN: Ann Gull", "NOTE: 45 EUR"]),
        ("a.vcf", b"BEGIN:VCARD\nNOTE;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:M=C3=A4rz 64=\n"
                  b"0,00 EUR=0Anet\nTEL:030\nEND:VCARD",
         ["NOTE: März 640,00 EUR", "net", "TEL: 030"]),
        ("a.vcf", b"BEGIN:VCARD\nNOTE;CHARSET=ISO-8859-1;QUOTED-PRINTABLE:M=E4rz\nEND:VCARD",
         ["NOTE: März"]),
        ("a.vcf", b"BEGIN:VCARD\nVERSION:2.1\nNOTE;CHARSET=ISO-8859-1:M\xe4rz\n 640 EUR\nEND:VCARD",
         ["NOTE: März 640 EUR"]),
        ("a.vcf", b"BEGIN:VCARD\nVERSION:3.0\nNOTE:It is 1\n 320 EUR\nEND:VCARD",
         ["NOTE: It is 1320 EUR"]),
        ("a.vcf", b"BEGIN:VCARD\nTEL;type=CELL;type=VOICE;type=pref:030\nEND:VCARD",
         ["TEL (TYPE=CELL,VOICE,pref): 030"]),
        ("a.vcf", b"BEGIN:VCARD\nTEL;WORK;VOICE:030\nADR;HOME;CHARSET=UTF-8:;;Quay 5\nEND:VCARD",
         ["TEL (TYPE=WORK,VOICE): 030", "ADR (TYPE=HOME): ;;Quay 5"]),
        ("a.vcf", b'BEGIN:VCARD\nTEL;TYPE="work,voice";PREF=1;VALUE=uri:tel:030\nEND:VCARD',
         ["TEL (TYPE=work,voice; PREF=1): tel:030"]),
        ("a.vcf", b"BEGIN:VCARD\nitem1.TEL:030\nitem1.X-ABLabel:Boat; blue\nEND:VCARD",
         ["ITEM1.TEL: 030", "ITEM1.X-ABLABEL: Boat; blue"]),
        ("a.vcf", b"BEGIN:VCARD\nNOTE;ENCODING=QUOTED-PRINTABLE;CHARSET=windows-1251:=CC=E0=F0=\n"
                  b"=F2 640,=\n00 EUR\nEND:VCARD", ["NOTE: \u041c\u0430\u0440\u0442 640,00 EUR"]),
        *(
            ("a.vcf", b"BEGIN:VCARD\nNOTE%s:%s\nTEL:030\nEND:VCARD" % (how, written),
             [f"NOTE{about}: note ({n_bytes} bytes)", "TEL: 030"])
            for how, written, about, n_bytes in (
                (b";BASE64", b"\n  RmVl\n  IDQw\n", "", 6),
                (b";ENCODING=BASE64;TEXT", b"\nRmVlRmVlRmVlRmVl\nIDQw\n", " (TYPE=TEXT)", 15),
                (b";ENCODING=b", b"RmVlIDQw", "", 6),
                (b"", b"data:text/plain;base64,RmVlIDQw", "", 6),
                (b"", b"RmVlIDQ1" * 30, "", 180),
            )
        ),
        ("a.ics", b"BEGIN:VEVENT\nX-ALT-DESC;FMTTYPE=text/html:<p>Fee <b>40</b></p>\nEND:VEVENT",
         ["X-ALT-DESC (FMTTYPE=text/html): Fee **40**"]),
        ("a.ics", b"BEGIN:VEVENT\nATTACH;FMTTYPE=text/plain;ENCODING=BASE64;VALUE=BINARY;"
                  b"X-FILENAME=fee.txt:NDUg\n RVVS\nEND:VEVENT",
         ["ATTACH (FMTTYPE=text/plain; X-FILENAME=fee.txt): fee.txt (6 bytes)", "# fee.txt",
          "45 EUR"]),
    ],
)  # fmt: skip
def test_calendars_and_contacts_are_unfolded_and_decoded(
    placed: Placed, name: str, data: bytes, lines: list[str]
) -> None:
    found = read(placed(name, data))
    assert found.media_type in ("text/calendar", "text/vcard")
    assert [line for line in lines if line not in found.text.splitlines()] == []


def test_a_photograph_is_never_in_the_text_of_a_contact(placed: Placed) -> None:
    photo = "iVBORw0KGgo" + "A1b2" * 100
    for written in (
        f";BASE64:\n  {photo}\n\n",
        f";ENCODING=b;TYPE=JPEG:{photo}!\n",
        f":{photo}A\n",
    ):
        found = read(placed("a.vcf", f"BEGIN:VCARD\nPHOTO{written}TEL:030\nEND:VCARD".encode()))
        assert "A1b2" not in found.text
        assert "TEL: 030" in found.text
        assert [note.startswith(": attachment 'photo' is not read: ") for note in found.notes] == [
            True
        ]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], bytes]:
    """Return a function that signs bytes as a whole, as DER."""
    if shutil.which("openssl") is None:
        pytest.skip("NOT TRIED: openssl is not installed (apt-get install openssl)")
    folder = tmp_path_factory.mktemp("signed")
    key, certificate = folder / "k.pem", folder / "c.pem"
    made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=test")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(["openssl", *made, *files], check=True, capture_output=True)

    def sign(data: bytes) -> bytes:
        how = ("cms", "-sign", "-binary", "-nodetach", "-outform", "DER")
        command = ["openssl", *how, "-signer", str(certificate), "-inkey", str(key)]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout

    return sign


NOT_CHECKED = ": read from a signed wrapper, whose signature is not checked"


def test_a_signed_document_is_read_and_its_signature_is_not_judged(
    placed: Placed, signed: Callable[[bytes], bytes]
) -> None:
    der = signed(b"<Invoice><Total>122.00</Total></Invoice>")
    lines = base64.encodebytes(der)
    for name, data in (
        ("invoice.xml.p7m", der),
        ("b.p7m", lines),
        ("c", der),
        ("d.p7m", b"-----BEGIN PKCS7-----\n" + lines + b"-----END PKCS7-----\n"),
    ):
        found = read(placed(name, data))
        assert "<Total>122.00</Total>" in found.text, name
        assert found.notes == (NOT_CHECKED,), name
    twice = read(placed("e.p7m", signed(der)))
    assert "122.00" in twice.text
    within = read(placed("part.p7m", signed(b"Content-Type: text/plain\r\n\r\nThe fee is 47.")))
    assert within.text.strip() == "The fee is 47."


def test_a_mail_that_is_signed_as_a_whole_is_read(
    placed: Placed, signed: Callable[[bytes], bytes]
) -> None:
    inner = signed(
        b"Content-Type: multipart/mixed; boundary=z\n\n--z\nContent-Type: text/plain\n\n"
        b"The fee is 47 euro.\n--z\nContent-Type: text/csv; name=fees.csv\n\n7,45\n--z--\n"
    )
    kind = "application/pkcs7-mime; smime-type=signed-data; name=smime.p7m"
    head = f"{HEAD}Content-Type: {kind}\nContent-Transfer-Encoding: base64\n\n"
    found = read(placed("signed.eml", head.encode() + base64.encodebytes(inner)))
    assert "The fee is 47 euro." in found.pages[0]
    assert "- fees.csv (text/csv" in found.pages[0]
    assert "7,45" in found.pages[1]
    assert found.notes == (NOT_CHECKED,)


def test_what_is_encrypted_or_a_signature_alone_says_so(
    placed: Placed, signed: Callable[[bytes], bytes]
) -> None:
    cms = importlib.import_module("asn1crypto.cms")
    whole = signed(b"x")
    detached = cms.ContentInfo.load(whole)
    del detached["content"]["encap_content_info"]["content"]
    encrypted = b"\x30\x82\x01\x00\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03\xa0\x02\x30\x00"
    for name, data, why in (
        ("smime.p7s", detached.dump(force=True), "is a signature alone, of another file"),
        ("damaged.p7m", whole[:60], "is damaged or not a signed document"),
        ("text.p7m", b"\x00\x01", "is damaged or not a signed document"),
        ("secret.p7m", encrypted, "is damaged or not a signed document"),
    ):
        with pytest.raises(Unreadable, match=why):
            read(placed(name, data))


@pytest.mark.parametrize(
    ("plain", "page", "shown"),
    [
        ("Please view this message in an HTML mail reader.", "<p>Rent 640.00 EUR</p>", "640.00"),
        ("Diese Nachricht ist eine Seite.", "<p>Miete fällig: 640,00 EUR bis 4. Mai</p>", "640,00"),
        ("Rent 640.00 EUR", "<p>Rent <b>640.00</b> EUR</p><p>Your landlord</p>", "Rent 640.00"),
        ("Rent 640.00 EUR is due. Ann", "<p>Rent 640.00</p>" + "<p>Ann Gull Ltd</p>", "is due"),
    ],
)  # fmt: skip
def test_a_plain_form_that_says_nothing_of_the_page_gives_way_to_it(
    placed: Placed, plain: str, page: str, shown: str
) -> None:
    part = "--z\nContent-Type: text/{}; charset=utf-8\n\n{}\n"
    text = part.format("plain", plain) + part.format("html", page)
    head = f"{HEAD}Content-Type: multipart/alternative; boundary=z\n\n"
    found = read(placed("a.eml", f"{head}{text}--z--\n".encode()))
    assert shown in found.text
    is_page = shown not in plain
    assert (plain in found.text) != is_page
    assert any("words of its other form (plain text)" in note for note in found.notes) == is_page
