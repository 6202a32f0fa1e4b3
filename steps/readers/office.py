"""What readers of Word, PowerPoint and Excel share: zip archives of XML, drawings, charts, tables.

An archive is checked before anything is unpacked: number and size of its entries, encryption. The
libraries are imported when a document needs them.
"""

from __future__ import annotations

import importlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from itertools import zip_longest
from typing import Any, BinaryIO
from xml.etree import ElementTree

from paddock.engine.system.text import counted

from .reader import Unreadable

# Of a whole document, unpacked; a bomb of 40 KB has gigabytes.
MOST_UNPACKED_BYTES = 512 * 1024 * 1024
# Of its markup: read whole, it takes up to 16 times as much memory (100 MB of paragraphs 1.6 GB).
MOST_MARKUP_BYTES = 64 * 1024 * 1024
_MARKUP = (".xml", ".rels", ".opf", ".ncx", ".xhtml", ".html", ".htm")
SAVE_AS_PDF = "Save it as PDF, whose pictures are read with the extra 'paddock-llm[ocr]'."
_XML_BOMBS = {
    "amplification factor": "has entities that unfold to far more than the file holds",
    "Excessive depth": "is nested too deeply",
}
_FILE_OBJECT = re.compile(r"file '<_io\.[^>]*>' ")
_MOST_ENTRIES = 20_000
_INFLATE_BYTES = 1024 * 1024
_ENCRYPTED = 0x1


def open_archive(file: BinaryIO, what: str, streamed: tuple[str, ...] = ()) -> zipfile.ZipFile:
    """Open an archive after checking number, size and encryption of its entries.

    `what` names the kind in errors: "a Word document"; `streamed` are name prefixes of markup that
    is never read whole. Declared sizes are enough: Python inflates in pieces and stops at that
    size.
    """
    # Otherwise a whole entry would be inflated before it is cut to its declared size.
    zipfile.ZipExtFile.MAX_N = _INFLATE_BYTES
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Unreadable(f"is damaged or not {what}") from error
    entries = archive.infolist()
    _refuse_large(entries, "", MOST_UNPACKED_BYTES)
    markup = [
        entry
        for entry in entries
        if entry.filename.lower().endswith(_MARKUP) and not entry.filename.startswith(streamed)
    ]
    _refuse_large(markup, " of markup", MOST_MARKUP_BYTES)
    if len(entries) > _MOST_ENTRIES:
        raise Unreadable(f"is an archive of {len(entries):,} parts, too many for a document")
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise Unreadable("is protected by a password", "Save it without a password.")
    return archive


def _refuse_large(entries: Iterable[zipfile.ZipInfo], of_what: str, most: int) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > most:
        raise Unreadable(
            f"unpacks to {size // 1024**2:,} MiB{of_what}, but at most {most // 1024**2} MiB are "
            f"read"
        )


def import_library(name: str, what: str, extra: str = "documents") -> Any:
    """Import a library of an extra.

    Raises:
        Unreadable: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        remedy = f"To read it install the extra: pip install 'paddock-llm[{extra}]'."
        raise Unreadable(f"is {what}", remedy) from error


@contextmanager
def damage_errors(what: str) -> Iterator[None]:
    """Convert a library's error to an Unreadable."""
    try:
        yield
    except (Unreadable, MemoryError, RecursionError):
        raise
    except Exception as error:  # archives and broken XML fail in many ways
        if meant := bomb_of(error):
            raise Unreadable(f"is not read: its XML {meant}") from error
        words = " ".join(_FILE_OBJECT.sub("", str(error)).split()).replace(" ,", ",")[:120]
        why = f"is damaged or not {what} ({type(error).__name__}: {words})"
        raise Unreadable(why) from error


def bomb_of(error: Exception) -> str:
    """Return what a parser's error says of XML that would fill the memory, else an empty text."""
    return next((meant for word, meant in _XML_BOMBS.items() if word in str(error)), "")


_EMBEDDED = frozenset(
    (
        *("oleObject", "package", "video", "audio", "media", "control", "ctrlProp"),
        *("aFChunk", "subDocument", "chartEx"),
    )
)
"""Kinds of parts that are not read: files, films, sounds, controls, other documents, new charts."""


def embedded_notes(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the note on embedded parts, by the types of their relations."""
    n = sum(kind.rpartition("/")[2] in _EMBEDDED for kind in kinds)
    what = counted(n, "embedded file, film or control is", "embedded files, films or controls are")
    return (f": {what} not read",) if n else ()


def described(element: Any, name: str = "descr") -> str:
    """Return the alternative text of a picture, as it is written in Markdown."""
    text = " ".join((element.get(name) or element.get("title", "")).split())
    return f"![{text}]" if text else ""


MOST_WHOLE = 1e21  # identifiers have up to 20 digits; larger numbers are measured ones


def number_text(value: float) -> str:
    """Return all digits of a number.

    >>> number_text(3.0), number_text(1.2e16), number_text(0.1)
    ('3', '12000000000000000', '0.1')
    """
    is_whole = value.is_integer() and abs(value) < MOST_WHOLE
    return f"{Decimal(repr(value)):.0f}" if is_whole else repr(value)


def text_of(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def part_tree(relation: Any) -> Any:
    etree = import_library("lxml.etree", WORD_DOCUMENT)
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    return etree.fromstring(relation.target_part.blob, parser)


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    r"""Return rows as a table, the first as header, without empty columns and rows.

    >>> print(markdown_table([["Item", "Price"], ["Slates\nred", "5|6"]]))
    | Item | Price |
    | --- | --- |
    | Slates red | 5\|6 |
    """
    kept = (row for row in rows if any(map(str.strip, row)))
    columns = [c for c in zip_longest(*kept, fillvalue="") if any(map(str.strip, c))]
    lines = list(map(_markdown_row, zip(*columns, strict=True)))
    rule = _markdown_row("---" for _ in columns)
    return "\n".join([lines[0], rule, *lines[1:]]) if lines else ""


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_markdown_cell(cell) for cell in cells)} |"


def _markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


WORD_DOCUMENT = "a Word document"
DRAWING_NS = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
DRAWN_RUN = f"{DRAWING_NS}t"
OFF = ("0", "false", "off")


def refuse_only_pictures(text: str, kinds: Iterable[str]) -> None:
    """Raise for a document without text that has pictures, by the types of its relations."""
    if not text and any(kind.endswith("/image") for kind in kinds):
        raise Unreadable("has no text, only pictures", SAVE_AS_PDF)


DRAWN_TEXT = f"{DRAWING_NS}p"
_MOST_GROUP_DEPTH = 20
_LINE_EMU = 200_000  # shapes whose tops differ by less than half a centimetre are in one row


def _properties(shape: Any) -> Any:
    """Return the element with a shape's alternative text and whether it is hidden."""
    return next(shape._element.iter("{*}cNvPr"), {})


def in_reading_order(shapes: Iterable[Any]) -> list[Any]:
    """Sort shapes in reading order: from top to bottom, in a row from left to right."""
    return sorted(shapes, key=_place)


def _place(shape: Any) -> tuple[int, int]:
    with suppress(Exception):  # damaged in many ways, or that of a layout which is missing
        return (shape.top or 0) // _LINE_EMU, shape.left or 0
    return 0, 0


def shape_blocks(shape: Any, depth: int, hidden: list[str]) -> Iterator[str]:
    """Yield a shape's texts; those that the slide does not show go to `hidden` as well."""
    if _properties(shape).get("hidden") in ("1", "true"):
        blocks = list(_shown_blocks(shape, depth, []))
        hidden += filter(None, blocks)
        yield from blocks
    else:
        yield from _shown_blocks(shape, depth, hidden)


def _shown_blocks(shape: Any, depth: int, hidden: list[str]) -> Iterator[str]:
    if depth < _MOST_GROUP_DEPTH and hasattr(shape, "shapes"):
        for inner in in_reading_order(shape.shapes):
            yield from shape_blocks(inner, depth + 1, hidden)
    elif getattr(shape, "has_table", False) and shape.has_table:
        yield markdown_table([cell.text for cell in row.cells] for row in shape.table.rows)
    elif getattr(shape, "has_chart", False) and shape.has_chart:
        with suppress(KeyError):  # the chart itself is missing
            yield from _chart_blocks(shape.chart._chartSpace)
    elif shape.has_text_frame:
        yield _frame_text(shape.text_frame)
    if not hasattr(shape, "shapes"):
        yield described(_properties(shape))


def _frame_text(frame: Any) -> str:
    """Return a box's paragraphs, indented ones as list items."""
    lines = []
    has_several = sum(1 for paragraph in frame.paragraphs if paragraph_text(paragraph)) > 1
    for paragraph in frame.paragraphs:
        text = paragraph_text(paragraph)
        if text:
            mark = f"{'  ' * paragraph.level}- " if has_several else ""
            lines.append(f"{mark}{text}")
    return "\n".join(lines)


def paragraph_text(paragraph: Any) -> str:
    return " ".join(paragraph.text.replace("\v", " ").split())


CHART_NS = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_CATEGORIES = (f"{CHART_NS}cat", f"{CHART_NS}xVal")
_VALUES = (f"{CHART_NS}val", f"{CHART_NS}yVal")


def drawn_texts(relation: Any) -> Iterator[str]:
    """Yield the texts of a chart or a diagram (SmartArt), which are separate parts."""
    if relation.reltype.endswith("/chart"):
        yield from _chart_blocks(part_tree(relation))
    elif relation.reltype.endswith("/diagramData"):
        texts = map(text_of, part_tree(relation).iter(DRAWN_TEXT))
        yield "\n".join(f"- {text}" for text in texts if text)


def chart_titles(chart: Any) -> str:
    """Return the titles of a chart and of its axes."""
    return "; ".join(
        " ".join((run.text or "").split())
        for title in chart.iter(f"{CHART_NS}title")
        for run in title.iter()
        if run.tag in (DRAWN_RUN, f"{CHART_NS}v") and run.text
    )


def _chart_blocks(chart: Any) -> Iterator[str]:
    """Yield a chart's titles and its numbers as tables."""
    yield chart_titles(chart)
    for plot in chart.iterfind(f"{CHART_NS}chart/{CHART_NS}plotArea/*"):
        series = plot.findall(f"{CHART_NS}ser")
        have_own_x = any(ser.find(_CATEGORIES[1]) is not None for ser in series)
        for group in [[ser] for ser in series] if have_own_x else [series]:
            yield _series_table(group)


def _series_table(series: Sequence[Any]) -> str:
    """Return series of the same categories as a table."""
    named = f"{CHART_NS}tx"
    names = [
        " ".join(_points(ser, (named,)).values()) or ser.findtext(f"{named}/{CHART_NS}v") or ""
        for ser in series
    ]
    values = [_points(ser, _VALUES) for ser in series]
    categories = _points(series[0], _CATEGORIES) if series else {}
    indexes = dict.fromkeys((*categories, *(index for points in values for index in points)))
    rows = ([categories.get(i, ""), *(points.get(i, "") for points in values)] for i in indexes)
    return markdown_table([["", *names], *rows])


def _points(series: Any, tags: tuple[str, ...]) -> dict[str, str]:
    """Return the stored texts or numbers of a part of a series by their indexes.

    Categories may have several levels, the inner ones first.
    """
    found: dict[str, str] = {}
    for part in (element for tag in tags for element in series.iterfind(tag)):
        for point in part.iter(f"{CHART_NS}pt"):
            text, index = point.findtext(f"{CHART_NS}v") or "", point.get("idx", "")
            with suppress(ValueError):
                text = number_text(float(text)) if tags == _VALUES else text
            found[index] = " ".join((*text.split(), found.get(index, ""))).strip()
    return found
