"""Mails and saved web pages: who wrote what to whom, and attachments.

The mail is the first page. Each attachment that can be read is one or several pages after it; the
others are named. A mail within a mail is read in the same way. Of a text in several forms the plain
one is read, and what only the others say is noted.
"""

from __future__ import annotations

import binascii
import email
import importlib
import re
from base64 import b64encode
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from email.errors import InvalidBase64LengthDefect
from email.headerregistry import HeaderRegistry
from email.message import EmailMessage, MIMEPart
from email.policy import EmailPolicy
from functools import lru_cache
from io import BytesIO
from typing import Any, BinaryIO

from paddock.engine.system.records import replace
from paddock.engine.system.text import listed

from . import text_encoding, text_files
from .document_kinds import EMLX_LENGTH, HEAD_BYTES, MEDIA_TYPES, cms_bytes, is_cms, kind_within
from .e_invoice_checks import with_letter
from .html_styles import sheet_beside
from .inner_documents import MOST_ATTACHED, InnerDocuments, InnerPictures
from .reader import Document, ReadRequest, Unreadable, text_sample
from .style_sheets import CssSheet

_SHOWN_HEADERS = ("From", "Reply-To", "To", "Cc", "Bcc", "Date", "Subject")
MOST_DEPTH = 4  # of mails within mails; each may hold hundreds
_MOST_FORMS = 50  # some hundredths of a second each
HEADERS_END = re.compile(rb"\r?\n\r?\n")
_PART_START = re.compile(rb"(?:Content-[A-Za-z-]+|MIME-Version):", re.IGNORECASE)
_NOT_JUDGED = ": read from a signed wrapper, whose signature is not checked"
_MOST_STUB_WORDS = 60  # of "this mail is a page", in three languages
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_WORD = re.compile(r"\w+")
_UNSAID = re.compile(
    r"!\[[^\]]*\]|\]\([^)\s]*(?:[ ]\"[^\"\n]*\")?\)|(?<!\S)\[[ x]\](?!\S)|\[\^[^\]]*\]:?|<!--|-->"
)
"""Signs of Markdown that are no words: pictures, addresses, check boxes, marks of notes."""
_CUT_BASE64 = re.compile(rb"([A-Za-z0-9+/]+)[A-Za-z0-9+/]\s*")
_LOOKS = re.compile("css|script|font")  # what a saved page needs and is not text
_NUMBERS = re.compile(r"^[ >-]*\d+\.(?=\s)", re.MULTILINE)  # of items in Markdown
_WITHIN_WORDS = re.compile(r"[*_^~`\\]")  # signs of Markdown for formats
_SINGLE_QUOTES = re.compile(r"=\s*'([^'\";]*)'(?=\s*(?:;|$))")
_MISSING_SEMICOLON = re.compile(r"^([\w.+-]+/[\w.+-]+)[\s,:]+(?=[\w*-]+\s*=)")
_BARE_BOUNDARY = re.compile(r"(boundary\s*=\s*)([^\s\";]+)", re.IGNORECASE)
_NO_LETTER = re.compile("[^a-z0-9]")
_ENCODED_BY = {
    "base64": "base64", "quotedprintable": "quoted-printable",
    **dict.fromkeys(("uue", "uuencode", "xuue"), "x-uuencode"),
}  # fmt: skip
_BOUNDARY = re.compile(
    rb"(?:\A|\n)--([^\s\"\\][^\r\n\"\\]{0,69}?)[ \t]*\r?\nContent-[A-Za-z-]+:", re.IGNORECASE
)
_NO_QUOTED = re.compile(rb"=(?![0-9A-F]{2}|[ \t]*\r?\n)")
_BEHIND_BASE64 = re.compile(r"(?<==)\s+(?=[^\s=])")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_MAILS = ("message/rfc822", "message/global", "message/news")
_RAW_DATA = re.compile(  # begins with a sign that is quick to find
    r"\n(?:begin [0-7]{3,4} \S.*\n(?:[ -`]{45}|[ -`]{5,44}\n[ `]?\nend)|=ybegin |-----BEGIN PGP |"
    r"(?:(?=[A-Za-z0-9+/]{60})(?=[^\n]*[a-z])(?=[^\n]*[A-Z])(?=[^\n]*[0-9])[A-Za-z0-9+/]+\n){4})"
)
_RAW_UTF_8 = re.compile(r"=[C-F][0-9A-F]=[89AB][0-9A-F]")
"""Files in uuencode, yEnc or base64, what OpenPGP signed or encrypted, quoted-printable UTF-8."""
_ENCODED_WORDS = re.compile(
    r"=\?([^?\s*]+)(?:\*[^?\s]*)?\?([bq])\?[^?]*\?="
    r"(?:\s*=\?\1(?:\*[^?\s]*)?\?\2\?[^?]*\?=)*",
    re.IGNORECASE,
)
_ENCODED_WORD = re.compile(rb"=\?[^?]+\?.\?([^?]*)\?=")
_BLANK_BEFORE_COLON = re.compile(rb"^([!-9;-~]+)[ \t]+(?=:)", re.MULTILINE)
_NO_HEADER = re.compile(rb"\n(?![!-9;-~]+:|[ \t\r\n]|>?From )(?=.)")
_KNOWN_HEADER = re.compile(
    rb"^(?:From|To|Subject|Date|Received|MIME-Version|Message-ID|Content-[\w-]+)[ \t]*:",
    re.MULTILINE | re.IGNORECASE,
)


class _KnownHeaders(HeaderRegistry):
    """Parses a header once: the library does so at each look, half of the time of a mail."""

    def _parsed(self, name: str, value: str) -> Any:
        if "=?" in value:
            value = _ENCODED_WORDS.sub(_in_utf_8, value)
        return super().__call__(name, value)

    _known = lru_cache(maxsize=64)(_parsed)

    def __call__(self, name: str, value: str) -> Any:  # of a long one an address takes 16 KB
        return (self._known if len(value) < 1000 else self._parsed)(name, value)


class _LenientPolicy(EmailPolicy):
    """Reads types and encodings of parts that are not quite written as the standard has them."""

    def header_source_parse(self, sourcelines: list[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(sourcelines)
        if name.lower() == "content-type":
            value = _MISSING_SEMICOLON.sub(r"\1; ", _SINGLE_QUOTES.sub(r'="\1"', value))
            value = _BARE_BOUNDARY.sub(r'\1"\2"', value)
        elif name.lower() == "content-transfer-encoding":
            letters = _NO_LETTER.sub("", value.lower())
            known = (how for start, how in _ENCODED_BY.items() if letters.startswith(start))
            value = next(known, value)
        return name, value


POLICY = _LenientPolicy(header_factory=_KnownHeaders(), refold_source="none")


class Mail(EmailMessage):
    """A mail, or a part of one."""

    root: EmailMessage | None = None
    """The mail that it is a part of."""


def parse_mail(data: bytes) -> EmailMessage:
    """Return a mail; a line among its headers that is none belongs to the one before it.

    There the library would take the headers for ended, and the others for text.
    """
    ends = HEADERS_END.search(data)
    n_head = ends.start() if ends else len(data)
    if _NO_HEADER.search(b"\n" + data[:n_head]):
        head = _BLANK_BEFORE_COLON.sub(rb"\1", data[:n_head])
        last = max((found.start() for found in _KNOWN_HEADER.finditer(head)), default=0)
        data = _NO_HEADER.sub(b"\n ", b"\n" + head[:last])[1:] + head[last:] + data[n_head:]
    message: Any = email.message_from_bytes(data, Mail, policy=POLICY)
    return message  # type: ignore[no-any-return]


def _in_utf_8(found: re.Match[str]) -> str:
    """Return encoded words (RFC 2047) that the library can read: in UTF-8, and not cut within one.

    Programs cut texts between the bytes of a letter, and call GBK GB 2312.
    """
    charset, how = found[1], found[2].lower()
    try:
        texts = _ENCODED_WORD.findall(found[0].encode("ascii", "surrogateescape"))
        if how == "b":
            is_cut = any(len(text.rstrip(b"=")) % 4 == 1 for text in texts)
            pieces = [b"".join(texts)] if is_cut else texts
            data = b"".join(binascii.a2b_base64(piece + b"==") for piece in pieces)
        else:
            data = b"".join(binascii.a2b_qp(text, header=True) for text in texts)
        written = text_encoding.decode_text(data, declared=(charset,)).text
    except (binascii.Error, ValueError):
        return found[0]
    return f"=?utf-8?b?{b64encode(written.encode('utf-8', 'replace')).decode()}?="


def read_eml(file: BinaryIO, request: ReadRequest) -> Document:
    """Return a mail, also of Apple Mail: behind its length, and before what that program notes."""
    data = text_encoding.narrow(file.read()).removeprefix(b"\xef\xbb\xbf")
    if length := EMLX_LENGTH.match(data):
        data = data[length.end() : length.end() + int(length[1])]
    message = parse_mail(data)
    if not any(_header(message, n) for n in (*_SHOWN_HEADERS, "Content-Type", "Message-ID")):
        raise Unreadable("is damaged or not a mail: it has no mail headers")
    return mails_document([message], request, "eml")


def read_mhtml(file: BinaryIO, request: ReadRequest) -> Document:
    """Return the page, and those that are shown in it, such as frames."""
    message = parse_mail(file.read())
    pages: list[Document] = []
    unread = Counter[str]()
    pictures, seen = InnerPictures(request), list[str]()
    sheets = [_content(p) for p in message.walk() if p.get_content_type() == "text/css"]
    styles = sheet_beside(sheets)
    for part in message.walk():
        kind, data = part.get_content_type(), _content(part)
        if kind in ("text/html", "text/plain") and not part.is_attachment():
            request.check(len(pages[-1].text) if pages else 0)
            page = _document_of(part, styles)
            pages += [page] if page is not None else []
            unread[f"{kind} in an unknown encoding"] += page is None
            seen.append(pictures.of_page(data))
        elif part.get_content_maintype() == "image":
            seen.append(pictures.text([data]))
        elif data.strip() and not _LOOKS.search(kind):
            unread[kind] += 1
    if not pages:
        raise Unreadable("is damaged or not a saved web page: it has no page")
    notes = [*(note for page in pages for note in page.notes), *pictures.notes()]
    if kinds := listed([f"{n} of {kind}" for kind, n in (+unread).items()]):
        notes.append(f": parts of it are not read ({kinds})")
    texts = [page.text for page in pages]
    texts[-1] = "\n\n".join(filter(None, (texts[-1], *seen)))
    return Document(
        tuple(text for text in texts if text.strip()),
        pages[0].title,
        MEDIA_TYPES["mhtml"],
        tuple(notes),
        pictures.why_empty,
    )


def read_p7m(file: BinaryIO, request: ReadRequest) -> Document:
    """Return the document that a signature wraps."""
    data = _signed_content(file.read())
    if _PART_START.match(data):
        message = parse_mail(data)
        found = mails_document([message], request, "eml")
    else:
        kind = kind_within("", "", data[:HEAD_BYTES])
        found = request.within(kind, BytesIO(data))
    return replace(found, notes=(*found.notes, _NOT_JUDGED))


def _signed_content(data: bytes) -> bytes:
    """Return what a wrapper of CMS (RFC 5652) holds, in DER, BER or base64.

    Raises:
        Unreadable: it is encrypted, damaged, or a signature alone.
    """
    cms = importlib.import_module("asn1crypto.cms")  # 80 ms, which few mails need
    try:
        wrapper = cms.ContentInfo.load(cms_bytes(data))
        kind = wrapper["content_type"].native
        is_signed = kind == "signed_data"
        content = wrapper["content"]["encap_content_info"]["content"] if is_signed else None
        held = bytes(content) if content is not None and content.native is not None else b""
    except (ValueError, TypeError, KeyError) as error:
        raise Unreadable("is damaged or not a signed document") from error
    if not is_signed:
        raise Unreadable("is encrypted", "Save what it holds in the program that has its key.")
    if not held:
        raise Unreadable("is a signature alone, of another file")
    return held


def mails_document(
    messages: Iterable[EmailMessage], request: ReadRequest, kind: str, notes: Iterable[str] = ()
) -> Document:
    """Return mails as one document; its title is the subject of the first."""
    mail = _MailText(request)
    for message in messages:
        mail.n_attachments = 0
        mail.add_mail(message, 0)
        around = (text for part in message.walk() for text in (part.preamble, part.epilogue))
        if outside := [text for text in around if text and text.strip() and "MIME" not in text]:
            data = "".join(outside).encode("ascii", "surrogateescape")
            sample = text_sample([data.decode("utf-8", "replace")])
            mail.notes.append(f": text around its parts is not read ({sample})")
    mail.notes += notes
    return mail.document(mail.title, kind)


class _MailText(InnerDocuments):
    title: str = ""
    n_attachments: int = 0

    def add_mail(self, message: EmailMessage, depth: int) -> None:
        self.request.check()
        while _open_signed(message):
            self.notes.append(_NOT_JUDGED)
        self.notes += _mend(message)
        if depth == 0:
            self.title = self.title or _header(message, "Subject")
        index = len(self.pages)
        self.pages.append("")
        self.cells.append("")
        body, unread = _best_form(message), list[MIMEPart]()
        attachments = list(_attachments(message, body, unread))
        pictures = InnerPictures(self.request)
        images = (leaf for leaf in _leaves(message, []) if leaf.get_content_maintype() == "image")
        shown = [_content(leaf) for leaf in images if leaf not in attachments]
        n_before, n_printed = len(self.invoices), len(self.printed)
        listed = [self._attached(part, depth) for part in attachments]
        self.compare_invoices(n_before, n_printed)
        heads = [f"{name}: {text}" for name in _SHOWN_HEADERS if (text := _header(message, name))]
        blocks = ["\n".join(heads), self._body(body) if body is not None else ""]
        blocks += [pictures.text(shown), pictures.of_page(_content(body))]
        self.notes += pictures.notes()
        is_its_own = n_before == 0 and self.n_of_invoices == self.n_attachments
        if depth == 0 and is_its_own and len(self.invoices) == 1:
            own, letter = self.pages[self.invoices[0]["page"] - 1], [self.title, *blocks[1:]]
            self.invoices[0] = with_letter(self.invoices[0], own, "\n\n".join(letter))
        if listed:
            blocks.append("Attachments:\n" + "\n".join(f"- {line}" for line in listed))
        self.pages[index] = "\n\n".join(block for block in blocks if block)
        if not unread:
            return
        # Note the words of forms that are not read which the text does not have.
        known = _words("\n".join(self.pages[index:]))
        # A loop repeats them endlessly
        compared = {str(form.get_payload()): form for form in unread}
        if (n_left := len(compared) - _MOST_FORMS) > 0:
            self.notes.append(f": {n_left:,} other forms of its text are not compared with it")
        some = list(compared.values())[:_MOST_FORMS]
        written = (piece for form in some for piece in _written(form))
        others = [piece for piece in written if not known.issuperset(_words(piece))]
        if others:
            what = text_sample([" ".join(others)])
            has_page = any(form.get_content_subtype() == "html" for form in some)
            form = "HTML" if has_page else "plain text"
            self.notes.append(f": words of its other form ({form}) are not read ({what})")

    def _body(self, part: MIMEPart) -> str:
        document = _document_of(part)
        if document is None:
            self.notes.append(": its text has an unknown encoding and was not read")
            return ""
        self.notes += document.notes
        self.add_embedded(document.files)
        self._note_data(document.text)
        return document.text.strip()

    def _note_data(self, text: str) -> None:
        if found := _RAW_DATA.search(f"\n{text}") or _RAW_UTF_8.search(text):
            what = text_sample([text[found.start() :].partition("\n")[0]])
            self.notes.append(f": what is encoded in its text stands there as it is ({what})")

    def _attached(self, part: MIMEPart, depth: int) -> str:
        self.n_attachments += 1
        media_type = part.get_content_type()
        name = _one_line(part.get_filename() or "") or _name_of(part)
        if media_type in _MAILS:
            inner = part.get_payload(0) if part.is_multipart() else None
            if depth >= MOST_DEPTH or self.n_attachments > MOST_ATTACHED:
                return self._unread(f"{name} (a mail)", name, "mails are nested too deeply in it")
            if isinstance(inner, EmailMessage):
                self.add_mail(inner, depth + 1)
            return f"{name} (a mail)"
        data = _content(part)
        if part.is_multipart():  # such as a delivery status
            written: list[str] = []
            for piece in list(part.walk())[1:]:
                written += [f"{name}: {value}" for name, value in piece.raw_items()]
                written.append("" if piece.is_multipart() else str(piece.get_payload()))
            data = "\n".join(written).encode("utf-8", "replace")
        line = f"{name} ({media_type}, {len(data):,} bytes)"
        if media_type == "message/partial":
            return self._unread(line, name, "it is a piece of a mail that was sent in several")
        if not data:  # Outlook has some by a path alone
            return self._unread(line, name, "the mail has nothing of it")
        if self.n_attachments > MOST_ATTACHED:
            return self._unread(line, name, f"only the first {MOST_ATTACHED} are read")
        declared = part.get_content_charset("utf-8")
        if part.get_content_maintype() == "text" and declared != "utf-8" and not data.isascii():
            with suppress(text_encoding.NotText):
                decoded = text_encoding.decode_text(data, declared=(declared,))
                data = data if decoded.notes else BOM_UTF8 + decoded.written.encode()
        n_before = len(self.pages)
        is_read = self.add(name, media_type, data)
        if media_type == "text/plain":
            self._note_data("\n".join(self.pages[n_before:]))
        return line if is_read else f"{line}, not read"

    def _unread(self, line: str, name: str, why: str) -> str:
        self.leave_out(name, why)
        return f"{line}, not read"


def _content(part: MIMEPart | None) -> bytes:
    """Return what a part holds itself; of base64 that was cut off, what is whole."""
    data = part.get_payload(decode=True) if part is not None else None
    if part is None or not isinstance(data, bytes):
        return b""
    is_odd = any(isinstance(defect, InvalidBase64LengthDefect) for defect in part.defects)
    cut = _CUT_BASE64.fullmatch(data) if is_odd else None  # else it is text that is called so
    return binascii.a2b_base64(cut[1]) if cut else data


@lru_cache(maxsize=2)  # of a mail its plain text and its page, which are compared and then read
def _document_of(part: MIMEPart, styles: CssSheet | None = None) -> Document | None:
    """Return a text or a page of a mail; None if it is no text."""
    kind = "html" if part.get_content_subtype() == "html" else "txt"
    data = _content(part)
    declared = part.get_content_charset() or ""
    if declared.startswith("utf-16") and b"\0" not in data:
        declared = ""  # of a mail that is itself in UTF-16
    root = getattr(part, "root", None)
    around = () if data.isascii() or root is None else _charsets(root)
    try:
        document = text_files.read_text_file(
            data, kind, declared=(declared, *around), styles=styles
        )
    except Unreadable:
        try:
            damaged = text_encoding.decode_damaged(data, declared)
        except text_encoding.NotText:
            return None
        document = text_files.read_text_file(damaged.text.encode(), kind, "utf-8")
        document = replace(document, notes=(*damaged.notes, *document.notes))
    if kind == "txt" and str(part.get_param("format", "")).lower() == "flowed":
        is_joined = str(part.get_param("delsp", "")).lower() == "yes"
        document = replace(document, pages=(_paragraphs(document.text, is_joined=is_joined),))
    return document


def _paragraphs(text: str, *, is_joined: bool) -> str:
    """Return flowed text (RFC 3676) with each paragraph in a line.

    A line that ends with a blank goes on in the next one of as many `>`; `is_joined`: without it.
    """
    paragraphs, goes_on = list[list[str]](), -1
    for line in text.split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")  # before what would look like a mark
        if depth != goes_on or content == "-- ":
            paragraphs.append([">" * depth + (" " if depth and content else "")])
        is_open = content.endswith(" ") and content != "-- "
        paragraphs[-1].append(content[:-1] if is_open and is_joined else content)
        goes_on = depth if is_open else -1
    return "\n".join(map("".join, paragraphs))


def _written(form: MIMEPart) -> list[str]:
    """Return what stands between the blanks of a text or a page, without signs of Markdown."""
    document = _document_of(form)
    if document is None:
        return []
    text = _UNSAID.sub(" ", document.text)
    if b"<ol" in _content(form).lower():
        text = _NUMBERS.sub("", text)
    return [piece.replace("**", "").strip("*~`|[]#>") for piece in text.split()]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(_WITHIN_WORDS.sub("", text.casefold())))


def _form(part: MIMEPart, kind: str) -> MIMEPart | None:
    """Return the text of a kind; None also where a `multipart/related` has no boundary.

    The standard library's search fails there.
    """
    with suppress(AttributeError):
        return part.get_body((kind,))
    return None


@lru_cache(maxsize=8)
def _best_form(part: MIMEPart) -> MIMEPart | None:
    """Return the plain text; the page where there is none, or one that says nothing of the page."""
    plain = _form(part, "plain")
    page = _form(part, "html")
    if plain is None or page is None:
        return page if plain is None else plain
    is_empty = not _content(plain).strip()
    forms = ([*p.walk()] for p in part.walk() if p.get_content_subtype() == "alternative")
    is_choice = any(plain in parts and page in parts for parts in forms)
    return page if is_empty or (is_choice and _is_stub(plain, page)) else plain


@lru_cache(maxsize=4)
def _is_stub(plain: MIMEPart, page: MIMEPart) -> bool:
    """Return whether a short plain text has less than a fifth of the words of the page."""
    text = _document_of(plain)
    words = _words(text.text) if text is not None else set[str]()
    if len(words) > _MOST_STUB_WORDS:
        return False
    shown = _words(" ".join(_written(page)))
    return 5 * len(words & shown) < len(shown)


def _mend(message: EmailMessage) -> Iterator[str]:
    """Put right what the library cannot read of a mail, and yield notes.

    1. Parts and mails that are encoded as a whole, which MIME forbids.
    2. Parts that another line separates than the mail declares.
    3. Letters of headers that are no ASCII.
    4. Base64 that ends within a part: before more of it, or before what a list of mails added.
    """
    odd = list[EmailMessage]()
    for part in message.walk():  # it looks into a part after that
        if isinstance(part, Mail):
            part.root = message
        if not all(value.isascii() for _, value in part.raw_items()):
            odd.append(part)
        if part["Content-Transfer-Encoding"] == "base64" and not part.is_multipart():  # 4
            yield from _join_base64(part)
        content = b""
        kind, is_whole = part.get_content_maintype(), not part.is_multipart()
        if kind == "message" and not is_whole:  # 1
            content = _unpacked_mail(part)
        elif kind == "multipart" and is_whole and part.defects:  # 2
            body = _content(part)
            if found := _BOUNDARY.search(body):
                boundary = found[1].decode("ascii", "replace")
                if boundary != part.get_boundary():
                    yield ": its parts are separated by another line than it declares"
                part.set_param("boundary", boundary)
                content = body
        if content:
            head = f"Content-Type: {part['Content-Type']}\n\n"
            part.set_payload(parse_mail(head.encode("utf-8", "replace") + content).get_payload())
            del part["Content-Transfer-Encoding"]
    read_as = dict[str, None]()
    for part in odd:  # 3
        items = [*part.raw_items()]
        for name, _ in items:
            del part[name]
        for name, value in items:
            with suppress(UnicodeEncodeError, text_encoding.NotText):  # Outlook's is text already
                value = _ENCODED_WORDS.sub(_in_utf_8, value)
                data = value.encode("ascii", "surrogateescape")
                decoded = text_encoding.decode_text(data, declared=("", *_charsets(message)))
                value = decoded.text
                read_as |= {decoded.encoding: None} if decoded.notes else {}
            part.set_raw(name, value)
    if read_as:
        yield f": its headers declare no encoding and are read as {', '.join(read_as)}"


def _join_base64(part: EmailMessage) -> Iterator[str]:
    """Have a part in base64 hold all of it, which the library reads to its first end alone."""
    written = str(part.get_payload()).strip()
    if not 0 <= written.find("=") < len(written) - 2:
        return
    data, others = b"", list[str]()
    for piece in _BEHIND_BASE64.split(written):
        letters = "".join(piece.split())
        is_base64 = _BASE64.fullmatch(letters) and len(letters) % 4 == 0 and " " not in piece
        if is_base64:
            data += binascii.a2b_base64(letters)
        else:
            others.append(piece)
    if data:
        part.set_payload(b64encode(data).decode())
        if others:
            yield f": text around its parts is not read ({text_sample(others)})"


def _unpacked_mail(part: EmailMessage) -> bytes:
    """Return the content of a part that is a mail or a report, if it is encoded as a whole."""
    inner = part.get_payload(0)
    encoding = str(part.get("Content-Transfer-Encoding", ""))
    if not isinstance(inner, EmailMessage) or encoding not in _ENCODED_BY.values():
        return b""
    written = inner.as_bytes()
    head = HEADERS_END.split(written, 1)[0]
    if encoding == "quoted-printable":
        is_inner = str(inner.get("Content-Transfer-Encoding", "")) in _ENCODED_BY.values()
        is_encoded = b"=3D" in head if is_inner else not _NO_QUOTED.search(written)
    else:
        is_encoded = not inner.keys()
    if not is_encoded:
        return b""  # it is not, whatever the header says
    carrier = EmailMessage()
    carrier.set_raw("Content-Transfer-Encoding", encoding)
    carrier.set_payload(written.lstrip().decode("ascii", "surrogateescape"))
    return _content(carrier)


def _charsets(message: EmailMessage) -> tuple[str, ...]:
    """Return what a mail declares of its texts and of words in its headers."""
    declared = [part.get_content_charset() or "" for part in message.walk()]
    declared += [
        found[1] for _, text in message.raw_items() for found in _ENCODED_WORDS.finditer(text)
    ]
    return tuple(dict.fromkeys(name for name in declared if name.lower() not in ("", "us-ascii")))


def _open_signed(message: MIMEPart) -> bool:
    """Put what a signed mail wraps in the place of its wrapper, and return whether it has one."""
    data = _content(message)
    if not is_cms(data):
        return False
    try:
        content = _signed_content(data)
    except Unreadable:  # read and refused like other attachments
        return False
    if not _PART_START.match(content):
        return False
    inner = parse_mail(content)
    for name in [name for name in message.keys() if name.lower().startswith("content-")]:  # noqa: SIM118
        del message[name]
    for name, value in inner.raw_items():
        message.set_raw(name, value)
    message.set_payload(inner.get_payload())
    return True


def _attachments(
    message: MIMEPart, body: MIMEPart | None, unread: list[MIMEPart]
) -> Iterator[MIMEPart]:
    """Yield all parts but the body, the pictures that it shows, and other forms of a text.

    These go to `unread`.
    """
    markup = _content(_form(message, "html"))
    for part in _leaves(message, unread):
        cited = str(part.get("Content-ID", "")).strip(" <>")
        is_picture = part.get_content_maintype() == "image"
        is_shown = is_picture and cited and f"cid:{cited}".encode() in markup
        if part is not body and not is_shown:
            yield part


def _leaves(part: MIMEPart, unread: list[MIMEPart]) -> Iterator[MIMEPart]:
    """Yield the parts that hold something themselves; of a text in several forms the best one.

    The others go to `unread`.
    """
    if part.get_content_maintype() != "multipart" or not part.is_multipart():
        yield part
        return
    best = _best_form(part)
    is_choice = part.get_content_subtype() == "alternative"
    for leaf in (leaf for inner in part.iter_parts() for leaf in _leaves(inner, unread)):
        is_form = leaf.get_content_type() in ("text/plain", "text/html")
        if not (is_choice and is_form) or leaf is best or leaf.is_attachment():
            yield leaf
        else:
            unread.append(leaf)


def _header(message: MIMEPart, name: str) -> str:
    try:
        return _one_line(str(message.get(name, "")))
    except (ValueError, IndexError, TypeError, AttributeError, RecursionError):  # on rubbish
        return ""


def _name_of(part: MIMEPart) -> str:
    if part.get_content_type() in _MAILS:
        inner = part.get_payload(0) if part.is_multipart() else None
        return _header(inner, "Subject") if isinstance(inner, EmailMessage) else "mail"
    return f"attachment.{part.get_content_subtype()}"


def _one_line(text: str) -> str:
    return " ".join(_CONTROLS.sub(" ", text).split())
