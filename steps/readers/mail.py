"""Mails: sender, recipients and date, the text, and attachments. Standard library's parser.

The mail is the first page. Each attachment that can be read is one or several pages after it; the
others are named. A mail within a mail is read in the same way. Of a text in several forms the plain
one is read, and what only the others say is noted.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage, MIMEPart
from io import BytesIO
from typing import BinaryIO

from . import text_files
from .document_kinds import HEAD_BYTES, MEDIA_TYPES, UnknownKind, kind_within
from .reader import Document, ReadRequest, Unreadable, after_name, text_sample

_SHOWN_HEADERS = ("From", "Reply-To", "To", "Cc", "Bcc", "Date", "Subject")
_MOST_DEPTH = 4  # of mails within mails; each may hold hundreds
_MOST_ATTACHMENTS = 100
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_WORD = re.compile(r"\w+")
_UNSAID = re.compile(r"!\[[^\]]*\]|\]\([^)\s]*(?:[ ]\"[^\"\n]*\")?\)|(?<!\S)\[[ x]\](?!\S)")
"""Signs of Markdown that are no words: pictures, addresses, check boxes."""
_NUMBERS = re.compile(r"^[ >-]*\d+\.(?=\s)", re.MULTILINE)  # of items in Markdown
_WITHIN_WORDS = re.compile(r"[*_^~`]")  # signs of Markdown for formats


def read_mail(file: BinaryIO, request: ReadRequest) -> Document:
    message = email.message_from_binary_file(file, policy=email.policy.default)
    if not isinstance(message, EmailMessage) or not any(
        _header(message, n) for n in _SHOWN_HEADERS
    ):
        raise Unreadable("is damaged or not a mail: it has no mail headers")
    mail = _MailText(request)
    mail.add(message, 0)
    title = _header(message, "Subject")
    return Document(tuple(mail.pages), title, MEDIA_TYPES["eml"], tuple(mail.notes))


@dataclass
class _MailText:
    request: ReadRequest
    pages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_attachments: int = 0

    def add(self, message: EmailMessage, depth: int) -> None:
        """Add a mail's page, then those of its attachments."""
        self.request.check()
        index = len(self.pages)
        self.pages.append("")
        body, unread = _best_form(message), list[MIMEPart]()
        listed = [self._attached(part, depth) for part in _attachments(message, body, unread)]
        heads = [f"{name}: {text}" for name in _SHOWN_HEADERS if (text := _header(message, name))]
        blocks = ["\n".join(heads), self._body(body) if body is not None else ""]
        if listed:
            blocks.append("Attachments:\n" + "\n".join(f"- {line}" for line in listed))
        self.pages[index] = "\n\n".join(block for block in blocks if block)
        self._note_other_words(unread, "\n".join(self.pages[index:]))

    def _body(self, part: MIMEPart) -> str:
        document = _document_of(part)
        if document is None:
            self.notes.append(": its text has an unknown encoding and was not read")
            return ""
        self.notes += document.notes
        return document.text.strip()

    def _note_other_words(self, forms: list[MIMEPart], text: str) -> None:
        """Note the words of forms that are not read which the text does not have."""
        known = _words(text)
        written = (piece for form in forms for piece in _written(form))
        others = [piece for piece in written if not known.issuperset(_words(piece))]
        if others:
            what = text_sample([" ".join(others)])
            self.notes.append(f": words of its other form (HTML) are not read ({what})")

    def _attached(self, part: MIMEPart, depth: int) -> str:
        """Read an attachment; return the line that names it."""
        self.n_attachments += 1
        media_type = part.get_content_type()
        name = _one_line(part.get_filename() or "") or _name_of(part)
        if media_type == "message/rfc822":
            return self._nested(part, name, depth)
        data = part.get_payload(decode=True)
        if not isinstance(data, bytes):
            data = _parts_as_written(part)
        line = f"{name} ({media_type}, {len(data):,} bytes)"
        if self.n_attachments > _MOST_ATTACHMENTS:
            return self._unread(line, name, f"only the first {_MOST_ATTACHMENTS} are read")
        try:
            document = self._document(data, name, media_type)
        except UnknownKind as error:
            return self._unread(line, name, str(error))
        except Unreadable as error:
            return self._unread(line, name, f"it {error}")
        self.notes += [f": attachment '{name}'{after_name(note)}" for note in document.notes]
        pages = [page for page in document.pages if page.strip()]
        if pages:
            pages[0] = f"# {name}\n\n{pages[0]}"
        self.pages += pages
        return line

    def _document(self, data: bytes, name: str, media_type: str) -> Document:
        kind = kind_within(name, media_type, data[:HEAD_BYTES])
        if kind in text_files.TEXT_KINDS:
            return text_files.read_text_file(data, kind)
        return self.request.within(kind, BytesIO(data))

    def _nested(self, part: MIMEPart, name: str, depth: int) -> str:
        inner = part.get_content()
        if depth >= _MOST_DEPTH or self.n_attachments > _MOST_ATTACHMENTS:
            return self._unread(f"{name} (a mail)", name, "mails are nested too deeply in it")
        if isinstance(inner, EmailMessage):
            self.add(inner, depth + 1)
        return f"{name} (a mail)"

    def _unread(self, line: str, name: str, why: str) -> str:
        self.notes.append(f": attachment '{name}' is not read: {why}")
        return f"{line}, not read"


def _document_of(part: MIMEPart) -> Document | None:
    """Return a text or a page of a mail; None if its encoding is unknown."""
    kind = "html" if part.get_content_subtype() == "html" else "txt"
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return Document(("",), "", MEDIA_TYPES[kind])
    with suppress(Unreadable, LookupError, ValueError):
        return text_files.read_text_file(data, kind, declared=part.get_content_charset() or "")
    return None


def _written(form: MIMEPart) -> list[str]:
    """Return what stands between the blanks of a text or a page, without signs of Markdown."""
    document = _document_of(form)
    if document is None:
        return []
    text, data = _UNSAID.sub(" ", document.text), form.get_payload(decode=True)
    if isinstance(data, bytes) and b"<ol" in data.lower():
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


def _best_form(part: MIMEPart) -> MIMEPart | None:
    """Return the plain text, or the page where there is none or an empty one."""
    plain, page = _form(part, "plain"), _form(part, "html")
    data = plain.get_payload(decode=True) if plain is not None else b""
    is_empty = isinstance(data, bytes) and not data.strip()
    return page if is_empty and page is not None else plain


def _attachments(
    message: MIMEPart, body: MIMEPart | None, unread: list[MIMEPart]
) -> Iterator[MIMEPart]:
    """Yield all parts but the body, the pictures that it shows, and other forms of a text.

    These go to `unread`.
    """
    page = _form(message, "html")
    data = page.get_payload(decode=True) if page is not None else b""
    markup = data if isinstance(data, bytes) else b""
    for part in _leaves(message, unread):
        cited = str(part.get("Content-ID", "")).strip(" <>")
        is_shown = (
            part.get_content_maintype() == "image" and cited and (f"cid:{cited}".encode() in markup)
        )
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


def _parts_as_written(part: MIMEPart) -> bytes:
    """Return headers and texts of a part that has parts itself, such as a delivery status."""
    written: list[str] = []
    for inner in part.walk():
        if inner is not part:
            written += [f"{name}: {value}" for name, value in inner.raw_items()]
            written.append("" if inner.is_multipart() else str(inner.get_payload()))
    return "\n".join(written).encode("utf-8", "replace")


def _header(message: MIMEPart, name: str) -> str:
    """Return a header as one line; unparsed if it is invalid."""
    try:
        return _one_line(str(message.get(name, "")))
    except (ValueError, IndexError, TypeError, AttributeError, RecursionError):  # on rubbish
        return ""


def _name_of(part: MIMEPart) -> str:
    if part.get_content_type() == "message/rfc822":
        inner = part.get_content()
        return _header(inner, "Subject") if isinstance(inner, EmailMessage) else "mail"
    return f"attachment.{part.get_content_subtype()}"


def _one_line(text: str) -> str:
    """Return it as one line, without control characters of encoded headers."""
    return " ".join(_CONTROLS.sub(" ", text).split())
