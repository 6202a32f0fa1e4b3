"""What readers of Word, PowerPoint and Excel share: zip archives of XML, drawings, charts, tables.

An archive is checked before anything is unpacked: number and size of its entries, encryption. The
libraries are imported when a document needs them.
"""

from __future__ import annotations

import importlib
import re
import sysconfig
import traceback
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from itertools import groupby, zip_longest
from math import inf
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias
from xml.etree import ElementTree

from paddock.engine.system.text import counted
from paddock.pipelines.text_marks import (
    escaped,
    hidden,
    list_number,
    lowered,
    note_label,
    raised,
    struck,
)

from .formulas import MATH_NS, omml_text
from .reader import MOST_UNPACKED_BYTES, Unreadable

# Read whole, it takes up to 16 times as much memory (100 MB of paragraphs 1.6 GB).
MOST_MARKUP_BYTES = 64 * 1024 * 1024
_MARKUP = (".xml", ".rels", ".opf", ".ncx", ".xhtml", ".html", ".htm")
TINY_POINTS = 2  # text that no one sees
SAVE_AS_PDF = "The extra 'paddock-llm[ocr]' reads them where `ocr` is not off."
_XML_BOMBS = {
    "amplification factor": "has entities that unfold to far more than the file holds",
    "Excessive depth": "is nested too deeply",
}
_FILE_OBJECT = re.compile(r"file '<_io\.[^>]*>' ")
_MOST_ENTRIES = 20_000
_MOST_NAMED = 3
PIECE_BYTES = 1024 * 1024
ENCRYPTED = 0x1
CONTENT_TYPES = "[Content_Types].xml"
_PYTHON = sysconfig.get_path("stdlib")


def open_archive(file: BinaryIO, what: str, streamed: tuple[str, ...] = ()) -> zipfile.ZipFile:
    """Open an archive after checking number, size and encryption of its entries.

    `what` names the kind in errors: "a Word document"; `streamed` are name prefixes of markup that
    is never read whole. Declared sizes are enough: Python inflates in pieces and stops at that
    size.
    """
    # Otherwise a whole entry would be inflated before it is cut to its declared size.
    zipfile.ZipExtFile.MAX_N = PIECE_BYTES
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
    if any(entry.flag_bits & ENCRYPTED for entry in entries):
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
    try:
        yield
    except (Unreadable, MemoryError, RecursionError):
        raise
    except Exception as error:  # archives and broken XML fail in many ways
        if place := _own_place(error):
            what = f"is not read: Paddock failed at {place} ({type(error).__name__}: {error})"
            raise Unreadable(what, "Where other programs open the file, report this.") from error
        if meant := bomb_of(error):
            raise Unreadable(f"is not read: its XML {meant}") from error
        words = " ".join(_FILE_OBJECT.sub("", str(error)).split()).replace(" ,", ",")[:120]
        why = f"is damaged or not {what} ({type(error).__name__}: {words})"
        raise Unreadable(why) from error


def _own_place(error: Exception) -> str:
    """Return the line of our code that failed, of errors that no file has to answer for.

    These are wrong types and names, but for what a library raises of itself.
    """
    frames = traceback.extract_tb(error.__traceback__)
    within = [f for f in frames if not f.filename.startswith(_PYTHON)]  # its library's callers
    found = next(reversed(within), None)
    is_ours = isinstance(error, TypeError | AttributeError | NameError | AssertionError)
    if not is_ours or found is None or "/site-packages/" in found.filename:
        return ""
    return f"{'/'.join(Path(found.filename).parts[-3:])}:{found.lineno}"


def bomb_of(error: Exception) -> str:
    """Return what a parser's error says of XML that would fill the memory, else an empty text."""
    return next((meant for word, meant in _XML_BOMBS.items() if word in str(error)), "")


def damage_note(parts: Sequence[str]) -> tuple[str, ...]:
    if not parts:
        return ()
    names = ", ".join(parts[:_MOST_NAMED]) + (", …" if len(parts) > _MOST_NAMED else "")
    what = counted(len(parts), "part is", "parts are")
    return (f": {what} missing or damaged ({names}); what is there is read",)


_EMBEDDED = frozenset(
    (
        *("oleObject", "package", "video", "audio", "media", "control", "ctrlProp"),
        *("aFChunk", "subDocument", "chartEx"),
    )
)
"""Kinds of parts that are not read: files, films, sounds, controls, other documents, new charts."""


def embedded_notes(kinds: Iterable[str]) -> tuple[str, ...]:
    n = sum(kind.rpartition("/")[2] in _EMBEDDED for kind in kinds)
    what = counted(n, "embedded file, film or control is", "embedded files, films or controls are")
    return (f": {what} not read",) if n else ()


def described(element: Any, name: str = "descr") -> str:
    """Return the alternative text of a picture, as it is written in Markdown."""
    text = escaped(" ".join((element.get(name) or element.get("title", "")).split()))
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
    return escaped(" ".join("".join(element.itertext()).split()))


class Look(NamedTuple):
    rise: int = 0
    """1: raised; -1: lowered."""
    is_struck: bool = False
    is_hidden: bool = False


PLAIN = Look()
Piece: TypeAlias = tuple[str, Look]


def marked(pieces: Iterable[Piece]) -> tuple[str, list[str]]:
    """Return pieces of a paragraph with the marks of their looks, and what is not shown of them.

    >>> marked([("10", PLAIN), ("6", Look(1)), (" EUR ", PLAIN), ("4", Look(0, True, True))])
    ('10^6 EUR <!-- ~~4~~ -->', ['~~4~~'])
    """
    joined = [
        ("".join(t for t, _ in group), look)
        for look, group in groupby(pieces, lambda piece: piece[1])
    ]
    shown: list[Piece] = []
    for at, (text, look) in enumerate(joined):
        before = next((t for t, _ in reversed(joined[max(0, at - 3) : at]) if t.strip()), "")
        after = joined[at + 1][0] if at + 1 < len(joined) else ""
        if look.rise > 0 and not before and note_label(text):
            # Where it is none, `with_note_marks` takes it back.
            text = f"[^{note_label(text)}]:{'' if after.startswith(' ') else ' '}"
        elif look.rise and text.strip(" ()[],.;:"):  # brackets around a mark are no power
            text = raised(text, before, after) if look.rise > 0 else lowered(text, before, after)
        shown.append((text, look))
    parts, unshown = [], []
    for is_hidden, group in groupby(shown, lambda piece: piece[1].is_hidden):
        text = ""
        for is_struck, inner in groupby(group, lambda piece: piece[1].is_struck):
            words = "".join(t for t, _ in inner)
            text += struck(words) if is_struck else words
        unshown += [text.strip()] if is_hidden and text.strip() else []
        parts.append(hidden(text) if is_hidden else text)
    return "".join(parts), unshown


def with_note_marks(text: str, labels: Container[str] = ()) -> str:
    r"""Return a text in which raised labels of its notes are their marks.

    `labels` are those of notes that are no paragraphs of the text.

    >>> with_note_marks("40^1 of 10^6\n[^1]: net\n[^7]: other")
    '40[^1] of 10^6\n[^1]: net\n7 other'
    """
    typed = {found[2] for found in _TYPED_NOTE.finditer(text)}

    def mark(found: re.Match[str]) -> str:
        label = found[1] or found[2]
        return f"[^{label}]" if label in typed or label in labels else found[0]

    text = _RAISED.sub(mark, text)
    used = set(_NOTE_MARK.findall(text))
    return _TYPED_NOTE.sub(
        lambda found: found[0] if found[2] in used else f"{found[1]}{found[2]} ", text
    )


_TYPED_NOTE = re.compile(r"(^(?:- |#+ |\| )?|\| )\[\^([^\]\s]{1,4})\]: ", re.MULTILINE)
_NOTE_MARK = re.compile(r"\[\^([^\]\s]{1,4})\](?!: )")
_RAISED = re.compile(r"(?<=[^\\\s\[])\^(?:\((\w{1,4})\)|(\w{1,4}))(?![\w(])")


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
    shown = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(shown)} |"


WORD_DOCUMENT = "a Word document"
DRAWING_NS = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
DRAWN_RUN = f"{DRAWING_NS}t"
RELATION_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
OFF = ("0", "false", "off")


def refuse_textless(what: str, text: str, kinds: Iterable[str], damage: Iterable[str]) -> None:
    """Raise for a document without text that is damaged, or has pictures by its relations."""
    if not text and any(damage):
        raise Unreadable(f"is damaged or not {what}")
    if not text and any(kind.endswith("/image") for kind in kinds):
        raise Unreadable("has no text, only pictures", SAVE_AS_PDF)


DRAWN_TEXT = f"{DRAWING_NS}p"
_MOST_GROUP_DEPTH = 20


def _properties(shape: Any) -> Any:
    return next(shape._element.iter("{*}cNvPr"), {})


def _sides(shape: Any) -> tuple[float, float, float]:
    with suppress(Exception):  # damaged in many ways, or that of a layout which is missing
        top = shape.top or 0
        return shape.left or 0, top, top + (shape.height or 0)
    return 0, 0, 0


def in_reading_order(
    shapes: Iterable[Any], sides: Callable[[Any], tuple[float, float, float]] = _sides
) -> list[Any]:
    """Sort shapes by rows, and in a row from left to right; `sides`: left, top and bottom of one.

    A row ends above a shape that begins below the middle of one in it.
    """
    rows, end = list[list[tuple[float, Any]]](), inf
    placed = [(*sides(shape), shape) for shape in shapes]
    for left, top, bottom, shape in sorted(placed, key=lambda place: place[1]):
        if not rows or top > end:
            rows.append([])
            end = inf
        rows[-1].append((left, shape))
        end = min(end, (top + bottom) / 2)
    return [shape for row in rows for _, shape in sorted(row, key=lambda place: place[0])]


def shape_blocks(shape: Any, depth: int, unshown: list[str]) -> Iterator[str]:
    """Yield a shape's texts; those that the slide does not show go to `unshown` as well."""
    if _properties(shape).get("hidden") in ("1", "true"):
        blocks = list(filter(None, _shown_blocks(shape, depth, [])))
        unshown += blocks
        yield from map(hidden, blocks)
    else:
        yield from _shown_blocks(shape, depth, unshown)


def _shown_blocks(shape: Any, depth: int, unshown: list[str]) -> Iterator[str]:
    if depth < _MOST_GROUP_DEPTH and hasattr(shape, "shapes"):
        for inner in in_reading_order(shape.shapes):
            yield from shape_blocks(inner, depth + 1, unshown)
    elif getattr(shape, "has_table", False) and shape.has_table:
        rows = list[list[str]]()
        for row in shape.table._tbl.tr_lst:
            rows.append([])
            for cell in row.tc_lst:
                text = " ".join(filter(None, map(paragraph_text, cell.iter(DRAWN_TEXT))))
                is_merged = "1" in (cell.get("hMerge"), cell.get("vMerge")) and text
                unshown += [text] if is_merged else []
                rows[-1].append(hidden(text) if is_merged else text)
        yield markdown_table(rows)
    elif getattr(shape, "has_chart", False) and shape.has_chart:
        with suppress(KeyError):  # the chart itself is missing
            yield from _chart_blocks(shape.chart._chartSpace)
    elif shape.has_text_frame:
        yield drawn_list(shape.text_frame._txBody, _list_styles(shape))
    if not hasattr(shape, "shapes"):
        yield described(_properties(shape))


def _list_styles(shape: Any) -> list[Any]:
    styles, owner = [], shape
    with suppress(Exception):  # damaged in many ways, or a layout is missing
        for _ in ("slide", "layout", "master"):
            styles += owner._element.iterfind("{*}txBody/{*}lstStyle")
            owner = getattr(owner, "_base_placeholder", None)
            if owner is None:
                break
        kind = "body" if shape.is_placeholder else "other"
        master = shape.part.slide_layout.slide_master._element
        styles += master.iterfind(f"{{*}}txStyles/{{*}}{kind}Style")
    return styles


def drawn_list(body: Any, styles: Sequence[Any]) -> str:
    """Return a box's paragraphs; several are a list, with their numbers where they have some."""
    lines = []
    for paragraph in body.iterfind(DRAWN_TEXT):
        form = paragraph.find(f"{DRAWING_NS}pPr")
        written = "" if form is None else form.get("lvl", "0")
        level = min(int(written), 8) if written.isdecimal() else 0
        of_level = (style.find(f"{DRAWING_NS}lvl{level + 1}pPr") for style in styles)
        forms = [found for found in (form, *of_level) if found is not None]
        fonts = (part for found in forms for part in found.iterchildren(f"{DRAWING_NS}defRPr"))
        strike = next(filter(None, (font.get("strike") for font in fonts)), _UNSTRUCK)
        if text := paragraph_text(paragraph, strike):
            lines.append((level, forms, text))
    counts: dict[int, tuple[str, int]] = {}
    shown = []
    for level, forms, text in lines:
        bullets = (b for found in forms for b in found if b.tag in _BULLETS)
        bullet = next(bullets, None)
        kind = "" if bullet is None or bullet.tag != _AUTO_NUMBER else bullet.get("type", "")
        before, n = counts.get(level, ("", 0))
        start = bullet.get("startAt", "1") if bullet is not None else "1"
        n = n + 1 if kind == before else int(start) if start.isdecimal() else 1
        counts = {at: count for at, count in counts.items() if at < level} | {level: (kind, n)}
        mark = _auto_number(kind, n) if kind else "-" if len(lines) > 1 else ""
        shown.append(f"{'  ' * level}{mark} {text}" if mark else text)
    return "\n".join(shown)


_AUTO_NUMBER = f"{DRAWING_NS}buAutoNum"
_BULLETS = (_AUTO_NUMBER, *(f"{DRAWING_NS}bu{kind}" for kind in ("None", "Char", "Blip")))
_NUMBER_STYLES = {
    **{"alphaLc": "a", "alphaUc": "A", "romanLc": "i", "romanUc": "I", "circleNum": "①"},
    **dict.fromkeys(("arabicP", "arabicDb"), "1"),
}


def has_unknown_number(bullet: Any) -> bool:
    return not bullet.get("type", "").startswith(tuple(_NUMBER_STYLES))


def _auto_number(kind: str, n: int) -> str:
    """Return an automatic number of a slide; of scripts that are not known in digits.

    >>> [_auto_number(kind, 4) for kind in ("alphaLcParenBoth", "romanUcPeriod", "arabicPlain")]
    ['(d)', 'IV.', '4']
    """
    style = next((s for name, s in _NUMBER_STYLES.items() if kind.startswith(name)), "1")
    number = list_number(n, style, is_doubled=True)
    if kind.endswith("ParenBoth"):
        return f"({number})"
    ends = {"Period": ".", "ParenR": ")", "Minus": " -"}
    return number + next((end for name, end in ends.items() if kind.endswith(name)), "")


_UNSTRUCK = "noStrike"


def paragraph_text(paragraph: Any, strike: str = _UNSTRUCK) -> str:
    """Return a drawn paragraph in one line, with the marks of its runs; `strike`: by its styles."""
    return " ".join(marked(_drawn_pieces(paragraph, strike))[0].split())


def _drawn_pieces(parts: Iterable[Any], strike: str) -> Iterator[Piece]:
    for child in parts:
        if child.tag in (f"{DRAWING_NS}r", f"{DRAWING_NS}fld"):
            form = child.find(f"{DRAWING_NS}rPr")
            shift = "0" if form is None else form.get("baseline", "0").rstrip("%")
            rise = 0 if shift.strip("-0.") == "" else -1 if shift.startswith("-") else 1
            is_struck = (strike if form is None else form.get("strike", strike)) != _UNSTRUCK
            size = "" if form is None else form.get("sz", "")
            is_hidden = size.isdecimal() and int(size) <= 100 * TINY_POINTS
            is_hidden |= form is not None and is_clear(form)
            yield escaped(child.findtext(DRAWN_RUN) or ""), Look(rise, is_struck, is_hidden)
        elif child.tag == f"{DRAWING_NS}br":
            yield " ", PLAIN
        elif child.tag == f"{MATH_NS}oMath":
            yield omml_text(child), PLAIN
        elif isinstance(child.tag, str) and not child.tag.endswith(("Pr", "}Fallback")):
            yield from _drawn_pieces(child, strike)


def is_clear(form: Any) -> bool:
    """Return whether letters have neither a filling nor a line, or a filling that is clear."""
    if form.find("{*}ln/{*}solidFill") is not None or form.find("{*}textOutline") is not None:
        return False
    alphas = form.iterfind("{*}solidFill/*/{*}alpha")
    is_see_through = any(alpha.get("val") in ("0", "0%") for alpha in alphas)
    return is_see_through or form.find("{*}noFill") is not None


CHART_NS = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_CATEGORIES = (f"{CHART_NS}cat", f"{CHART_NS}xVal")
_VALUES = (f"{CHART_NS}val", f"{CHART_NS}yVal")


def drawn_texts(relation: Any) -> Iterator[str]:
    if relation.reltype.endswith("/chart"):
        yield from _chart_blocks(part_tree(relation))
    elif relation.reltype.endswith("/diagramData"):
        texts = map(paragraph_text, part_tree(relation).iter(DRAWN_TEXT))
        yield "\n".join(f"- {text}" for text in texts if text)


def chart_titles(chart: Any) -> str:
    return "; ".join(
        " ".join((run.text or "").split())
        for title in chart.iter(f"{CHART_NS}title")
        for run in title.iter()
        if run.tag in (DRAWN_RUN, f"{CHART_NS}v") and run.text
    )


def _chart_blocks(chart: Any) -> Iterator[str]:
    yield chart_titles(chart)
    for plot in chart.iterfind(f"{CHART_NS}chart/{CHART_NS}plotArea/*"):
        series = plot.findall(f"{CHART_NS}ser")
        have_own_x = any(ser.find(_CATEGORIES[1]) is not None for ser in series)
        for group in [[ser] for ser in series] if have_own_x else [series]:
            yield _series_table(group)


def _series_table(series: Sequence[Any]) -> str:
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
