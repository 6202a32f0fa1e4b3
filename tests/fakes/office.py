"""Small documents of the kinds that offices write, made by the libraries that others use."""

import zipfile
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from io import BytesIO
from typing import Any


def new_document() -> Any:
    from docx import Document

    return Document()


def new_workbook() -> Any:
    from openpyxl import Workbook  # type: ignore[import-untyped]

    return Workbook()


def new_presentation(data: bytes | None = None) -> Any:
    from pptx import Presentation

    return Presentation(BytesIO(data) if data else None)


def docx(*blocks: str | Sequence[Sequence[str]], title: str = "") -> bytes:
    """Make a Word document: `# …` is a heading, `- …` a point, rows are a table."""
    document = new_document()
    document.core_properties.title = title
    for block in blocks:
        if not isinstance(block, str):
            _table(document, block)
        elif block.startswith("#"):
            mark, _, text = block.partition(" ")
            document.add_heading(text, len(mark))
        elif block.startswith("- "):
            document.add_paragraph(block[2:], style="List Bullet")
        else:
            document.add_paragraph(block)
    return saved(document)


def _table(document: Any, rows: Sequence[Sequence[str]]) -> None:
    table = document.add_table(len(rows), max(map(len, rows)))
    for row, cells in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, cells, strict=False):
            cell.text = text


def xlsx(sheets: Mapping[str, Sequence[Sequence[Any]]]) -> bytes:
    book = new_workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    return saved(book)


def pptx(slides: Sequence[tuple[str, str, str]]) -> bytes:
    """Make a presentation: a title, lines of text and notes for each slide."""
    presentation = new_presentation()
    for title, text, notes in slides:
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    return saved(presentation)


def eml(
    text: str, *, subject: str = "Hello", attachments: Mapping[str, bytes] | None = None
) -> bytes:
    """Make a mail from Ada to Grace."""
    message = EmailMessage()
    message["From"], message["To"] = "Ada <ada@example.org>", "grace@example.org"
    message["Subject"], message["Date"] = subject, "Thu, 14 Mar 2024 10:00:00 +0100"
    message.set_content(text)
    for name, data in (attachments or {}).items():
        message.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return message.as_bytes()


def epub(
    chapters: Mapping[str, str], *, title: str = "", more: Mapping[str, str | bytes] | None = None
) -> bytes:
    """Make a book: name → HTML; `more` are further files of the archive."""
    items = "".join(
        f'<item id="c{i}" href="{name}" media-type="application/xhtml+xml"/>'
        for i, name in enumerate(chapters)
    )
    order = "".join(f'<itemref idref="c{i}"/>' for i in range(len(chapters)))
    files: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": "<container "
        'xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
        '<rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:title>{title}</dc:title></metadata>"
        f"<manifest>{items}</manifest><spine>{order}</spine></package>",
        **{f"OEBPS/{name}": html for name, html in chapters.items()},
        **(more or {}),
    }
    return zipped(files)


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def scan(*lines: str, size: tuple[int, int] = (700, 300)) -> bytes:
    """Make a PNG picture of some lines of print."""
    out = BytesIO()
    _printed(lines, size).save(out, "PNG")
    return out.getvalue()


def scanned_pdf(*pages: Sequence[str], size: tuple[int, int] = (700, 300)) -> bytes:
    """Make a PDF whose pages are pictures of print."""
    out = BytesIO()
    first, *others = [_printed(lines, size) for lines in pages]
    first.save(out, "PDF", save_all=True, append_images=others, resolution=100)
    return out.getvalue()


def _printed(lines: Sequence[str], size: tuple[int, int]) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    for index, line in enumerate(lines):
        draw.text((40, 40 + 50 * index), line, fill="black", font=ImageFont.load_default(28))
    return picture


def saved(document: Any) -> bytes:
    out = BytesIO()
    document.save(out)
    return out.getvalue()
