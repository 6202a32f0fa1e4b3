"""Real small PDFs, written by hand: enough of the format for text on pages."""

from collections.abc import Sequence

NAMED_FONT = "<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman /Encoding /WinAnsiEncoding >>"
UNNAMED_FONT = (
    "<< /Type /Font /Subtype /Type1 /BaseFont /A+Foo /Encoding << /Differences [32 /space "
    + " ".join(f"/g{code}" for code in range(33, 127))
    + "] >> >>"
)
"""As some programs write it: its glyphs have numbers for names, so it does not say its letters."""


def pdf(pages: Sequence[str | None], *, title: str = "") -> bytes:
    """Make a PDF with one text on each page; None is a page that shows only a rectangle."""
    n = len(pages)
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(n))
    info = f"<< /Title ({title}) >>" if title else "<< >>"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {n} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        content = "10 10 100 100 re f" if text is None else _shown(text)
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * i} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    objects.append(info)
    return _file(objects, len(objects))


def pdf_of_objects(
    content: str, *objects: str, page: str = "", media_box: str = "0 0 612 792"
) -> bytes:
    """Make a PDF of one page with this content; `F1` is object 6, the first of `objects`.

    Without objects it is Helvetica, and `F2` Helvetica-Bold.
    """
    bodies = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [{media_box}] /Contents 4 0 R {page} "
        "/Resources << /Font << /F1 6 0 R /F2 5 0 R >> >> >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>",
        *(objects or ("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",)),
    ]
    return _file(bodies, 1)


def _shown(text: str) -> str:
    lines = [line.replace("(", r"\(").replace(")", r"\)") for line in text.split("\n")]
    return "BT /F1 12 Tf 72 720 Td 14 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"


def _file(objects: Sequence[str], info: int) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    trailer = f"<< /Size {len(objects) + 1} /Root 1 0 R /Info {info} 0 R >>"
    return bytes(out + f"trailer\n{trailer}\nstartxref\n{start}\n%%EOF\n".encode())


def pdf_form(
    annotations: Sequence[str], *, form: str = "", text: str = "Form", objects: Sequence[str] = ()
) -> bytes:
    """Make a PDF of one page with annotations; `form` is its AcroForm dictionary.

    Annotation `i` is object 10 + i; `objects` follow after them. A page without text is empty.
    """
    content = _shown(text) if text else ""
    kids = " ".join(f"{10 + i} 0 R" for i in range(len(annotations)))
    acro_form = "/AcroForm 9 0 R" if form else ""
    acro_form += " /NeedsRendering true" if "/XFA" in form else ""
    bodies = [
        f"<< /Type /Catalog /Pages 2 0 R {acro_form} >>",
        "<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R "
        f"/Resources << /Font << /F1 3 0 R >> >> /Annots [{kids}] >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        *("<< >>",) * 3,
        form or "<< >>",
        *(f"<< /Type /Annot /Rect [72 600 172 620] {one} >>" for one in annotations),
        *objects,
    ]
    return _file(bodies, 8)
