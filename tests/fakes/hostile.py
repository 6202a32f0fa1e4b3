"""Documents that want to take the run with them: small on the disk, large or endless when read."""

import struct
import zipfile
import zlib
from collections.abc import Iterable
from io import BytesIO

from tests.fakes.office import docx, epub

_DOCUMENT = "word/document.xml"
_MAIN = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def inflating_pdf(n_mib: int = 300) -> bytes:
    """Make a PDF of 0.3 MB whose page unpacks to hundreds of MiB."""
    return _pdf(b" " * 1024**2 for _ in range(n_mib))


def lying_docx(n_mib: int = 300) -> bytes:
    """Make a Word document whose text unpacks to hundreds of MiB, and says that it is 100 bytes."""
    data = bytearray(_with_text(b"<w:document>", *[b" " * 1024**2] * n_mib))
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(_DOCUMENT.encode()))
    local = struct.unpack_from("<I", data, at + 42)[0]
    struct.pack_into("<I", data, at + 24, 100)
    struct.pack_into("<I", data, local + 22, 100)
    return bytes(data)


def laughing_docx() -> bytes:
    """Make a Word document with XML entities that unfold to 100 GB."""
    made = '<!ENTITY a0 "ha">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)
    )
    body = "<w:body><w:p><w:r><w:t>&a11;</w:t></w:r></w:p></w:body>"
    text = f"<!DOCTYPE x [{made}]><w:document {_MAIN}>{body}</w:document>"
    return _with_text(text.encode())


def deep_docx() -> bytes:
    """Make a Word document of 5,000 paragraphs within each other."""
    body = "<w:p><w:r>" * 5000 + "</w:r></w:p>" * 5000
    return _with_text(f"<w:document {_MAIN}><w:body>{body}</w:body></w:document>".encode())


def nested_mail(n: int = 3000) -> bytes:
    """Make a mail of thousands of parts within each other."""
    parts = (
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (number, number)
        for number in range(n)
    )
    head = b"From: a@example.org\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
    return head + b"".join(parts) + b"Content-Type: text/plain\r\n\r\nhello\r\n"


def endless_html() -> bytes:
    """Make a page of 1 MB whose elements take some 20 s."""
    return b"<p>x" * 250_000


def _pdf(pieces: Iterable[bytes]) -> bytes:
    packer = zlib.compressobj(9)
    packed = b"".join(map(packer.compress, pieces)) + packer.flush()
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R "
        b"/Resources << /Font << /F1 3 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(packed), packed),
    ]
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(bodies, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
    return bytes(out + trailer % (len(bodies) + 1, start))


def _with_text(*text: bytes) -> bytes:
    """Make a Word document whose main part is `text`, a piece at a time."""
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(docx("x"))) as old, zipfile.ZipFile(out, "w", 8) as new:
        for name in old.namelist():
            with new.open(name, "w") as part:
                for piece in text if name == _DOCUMENT else (old.read(name),):
                    part.write(piece)
    return out.getvalue()


def repeating_epub() -> bytes:
    """Return a book of some kilobytes whose reading order has one chapter 2,000 times."""
    parts = "".join(
        f'<item id="c{n}" href="one.xhtml" media-type="application/xhtml+xml"/>'
        for n in range(2_000)
    )
    order = "".join(f'<itemref idref="c{n}"/>' for n in range(2_000))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
        f"{parts}</manifest><spine>{order}</spine></package>"
    )
    chapter = f"<p>{'word ' * 2_000}</p>"
    return epub({}, more={"OEBPS/book.opf": package, "OEBPS/one.xhtml": chapter})
