"""Cells of Excel's workbooks.

It reads the parts of the archive itself: a part that is missing or ends early, a style that no list
has, and a cell without its place are read as spreadsheet programs do.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, BinaryIO, TypeAlias
from xml.etree import ElementTree

from .cells import (
    EMPTY,
    MOST_COLUMNS,
    MOST_DIGITS,
    MOST_ROWS,
    NO_STYLE,
    Cell,
    CellRange,
    CellStyle,
    Sheet,
    SheetCells,
    column_of,
    number_cell,
)
from .office import (
    MOST_WHOLE,
    OFF,
    PLAIN,
    TINY_POINTS,
    Look,
    Piece,
    bomb_of,
    damage_note,
    open_archive,
)
from .reader import Unreadable

WORKBOOK = "a spreadsheet"
_CHECK_EACH_ROWS = 500
_READ_BYTES = 8 * 1024  # with a MiB at once, and all its elements alive, it takes twice as long
_STREAMED = ("xl/worksheets/", "xl/sharedStrings")

_DATES, _TIMES = "yyyy-mm-dd", "hh:mm:ss"
_BUILT_IN = {
    **{1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%", 11: "0.00E+00"},
    **{12: "# ?/?", 13: "# ??/??", 22: "yyyy-mm-dd hh:mm", 46: "[h]:mm:ss", 48: "##0.0E+0"},
    **dict.fromkeys((37, 38), "#,##0"),
    **dict.fromkeys((39, 40, 44), "#,##0.00"),
    **dict.fromkeys((14, 15, 16, 17, *range(27, 32), 36, *range(50, 55), 57, 58), _DATES),
    **dict.fromkeys((18, 19, 20, 21, 32, 33, 34, 35, 45, 47, 55, 56), _TIMES),
    # Of Thai
    **dict.fromkeys((71, 72, 73, 74, 81), _DATES),
    **dict.fromkeys((75, 76, 78, 80), _TIMES),
    **{59: "0", 60: "0.00", 61: "#,##0", 62: "#,##0.00", 67: "0%", 68: "0.00%"},
    **{77: "yyyy-mm-dd hh:mm", 79: "[h]:mm:ss"},
}
"""What the numbers of formats show that no file spells out, of every locale."""


_ZERO = re.compile(r"-?0(\.0*)?")
_WHITE = re.compile("(?:[0-9A-Fa-f]{2})?(?:[Ff][0-9A-Fa-f]){3}")


def _styles(tree: ElementTree.Element) -> list[CellStyle]:
    codes = {
        entry.get("numFmtId", ""): entry.get("formatCode", "")
        for entry in tree.iterfind("{*}numFmts/{*}numFmt")
    }
    fonts = tree.findall("{*}fonts/{*}font")
    whites = [_is_white(font.find("{*}color")) for font in fonts]
    strikes = [font.find("{*}strike") for font in fonts]
    lines = [line is not None and line.get("val", "1") not in OFF for line in strikes]
    sizes = [font.find("{*}sz") for font in fonts]
    tiny = [size is not None and _is_tiny(size.get("val", "")) for size in sizes]
    bare = [_is_bare(fill) for fill in tree.iterfind("{*}fills/{*}fill")]
    found = []
    for style in tree.iterfind("{*}cellXfs/{*}xf"):
        number, font = style.get("numFmtId", "0"), style.get("fontId")
        code = codes.get(number) or _BUILT_IN.get(_int(number), "")
        is_white = _of(whites, font) and _of(bare, style.get("fillId"))
        looks = {"is_struck": _of(lines, font), "is_white": is_white, "is_tiny": _of(tiny, font)}
        found.append(CellStyle.of(code, **looks))
    return found


def _is_tiny(points: str) -> bool:
    with suppress(ValueError):
        return float(points) <= TINY_POINTS
    return False


def _is_white(colour: ElementTree.Element | None) -> bool:
    if colour is None:
        return False
    is_theme = colour.get("theme") == "0" and _ZERO.fullmatch(colour.get("tint", "0"))
    return bool(is_theme or _WHITE.fullmatch(colour.get("rgb", "")))


def _is_bare(fill: ElementTree.Element) -> bool:
    """Return whether a fill leaves a cell as white as paper."""
    pattern = fill.find("{*}patternFill")
    if pattern is None:
        return not len(fill)
    is_solid = pattern.get("patternType") == "solid"
    is_none = pattern.get("patternType", "none") == "none"
    return is_none or (is_solid and _is_white(pattern.find("{*}fgColor")))


def _of(facts: Sequence[bool], number: str | None) -> bool:
    return _int(number) < len(facts) and facts[_int(number)]


def _int(text: str | None, default: int = 0) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else default


_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
_RISES = {"superscript": 1, "subscript": -1}
_MS_OF_DAY = 24 * 60 * 60 * 1000


def _unescaped(text: str) -> str:
    r"""Return a text with the characters that OOXML writes as `_xHHHH_`.

    >>> _unescaped("a_x000D_b_x005F_x000D_"), _unescaped("_xD83D__xDE00_")
    ('a\rb_x000D_', '😀')
    """
    if "_x" not in text:
        return text
    made = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    return made.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _from_serial(value: float, kind: str, *, is_1904: bool) -> Any:
    """Return a number as the date, time or duration that its format shows, where there is one.

    >>> _from_serial(1.25, "duration", is_1904=False), _from_serial(61, "date", is_1904=False)
    (datetime.timedelta(days=1, seconds=21600), datetime.datetime(1900, 3, 1, 0, 0))
    >>> _from_serial(0.5, "time", is_1904=False), _from_serial(-1, "date", is_1904=False)
    (datetime.time(12, 0), -1)
    """
    try:
        if kind == "duration":
            return timedelta(milliseconds=round(value * _MS_OF_DAY))
        moment = timedelta(milliseconds=round(value * _MS_OF_DAY))
        if timedelta() <= moment < timedelta(days=1) and not (is_1904 and kind == "date"):
            return (datetime(1904, 1, 1) + moment).time()  # noqa: DTZ001 - cells have no zone
        if is_1904:
            return datetime(1904, 1, 1) + moment  # noqa: DTZ001
        if moment < timedelta():
            return value
        # By the program 1900 was a leap year.
        return datetime(1899, 12, 31 if value < 60 else 30) + moment  # noqa: DTZ001
    except OverflowError:
        return value


_Text: TypeAlias = tuple[str, tuple[Piece, ...]]
_MARGIN_CODE = re.compile(r'&(?:"[^"]*"|K[0-9A-Fa-f]{2}[0-9A-Fa-f+-]{4}|\d+|[A-Za-z])')
_MARGINS = [f"{page}{place}" for page in ("odd", "even", "first") for place in ("Header", "Footer")]


def _key(part: str) -> str:
    return part.replace("\\", "/").casefold()


class XlsxWorkbook:
    def __init__(self, file: BinaryIO, most_cells: int) -> None:
        """Open it.

        Raises:
            Unreadable: it is none.
        """
        self.archive = open_archive(file, WORKBOOK, _STREAMED)
        self._most_cells, self._n_cells = most_cells, 0
        self._lost = dict[str, None]()
        self._style_of = dict[str | None, CellStyle]()
        self.broken = dict[str, None]()
        """Parts that end early, or whose sum is wrong, as far as they were read."""
        self._main = self.part(self._part)
        if not len(self._main):
            raise Unreadable(f"is damaged or not {WORKBOOK}")

    def part(self, name: str, *, is_needed: bool = True) -> ElementTree.Element:
        """Return a part's XML as far as it can be read; an empty element: it is not there."""
        if _key(name) not in self._names:
            self._lost.update({name: None} if is_needed else {})
            return ElementTree.Element("missing")
        builder = ElementTree.TreeBuilder()
        top = builder.start("part", {})
        for _ in self._feed(name, builder):
            pass
        return next(iter(top), ElementTree.Element("missing"))

    @cached_property
    def _names(self) -> dict[str, str]:
        """Parts by the names that others have for them: some programs write other slashes."""
        names = self.archive.namelist()
        return {_key(name): name for name in names}

    def _feed(self, name: str, builder: ElementTree.TreeBuilder) -> Iterator[None]:
        """Parse a part as far as it can be read; yield after each piece."""
        if (found := self._names.get(_key(name))) is None:
            self._lost[name] = None
            return
        parser, crc = ElementTree.XMLParser(target=builder), 0
        try:
            with self.archive.open(found) as part:
                part._expected_crc = None  # type: ignore[attr-defined]  # else it stops there
                while piece := part.read(_READ_BYTES):
                    crc = zlib.crc32(piece, crc)
                    parser.feed(piece)
                    yield
            parser.close()
            if crc != self.archive.getinfo(found).CRC:
                self.broken[name] = None
        except (zipfile.BadZipFile, zlib.error, EOFError, ElementTree.ParseError) as error:
            if bomb_of(error):
                raise
            self._lost[name] = self.broken[name] = None
        yield

    def _rows(self, name: str, path: str) -> Iterator[ElementTree.Element]:
        """Yield the elements in one of a part, each once it is whole; yield the root at last.

        Without events, of which each element has two, it takes half the time.
        """
        builder, rows = ElementTree.TreeBuilder(), None
        top = builder.start("part", {})
        for _ in self._feed(name, builder):
            rows = top.find(path) if rows is None else rows
            if rows is not None and len(rows) > 1:
                yield from rows[:-1]
                del rows[:-1]
        if rows is None:  # which the format asks for
            self._lost[name] = None
            self.broken |= {name: None} if _key(name) in self._names else {}
        last = list(rows if rows is not None else ())
        builder.start("open", {})  # within what the part left open
        yield from (row for row in last if row.find(".//open") is None)
        yield from top[:1]

    def related(self, part: str) -> list[tuple[str, str]]:
        """Return kind and path of the parts that a part names, and that are there."""
        found = self._relations(part).values()
        return [
            (kind, self._names[_key(path)]) for kind, path in found if _key(path) in self._names
        ]

    def _relations(self, part: str) -> dict[str, tuple[str, str]]:
        folder, name = posixpath.split(part.replace("\\", "/"))
        relations = self.part(posixpath.join(folder, "_rels", f"{name}.rels"), is_needed=False)
        found = {}
        for n, relation in enumerate(relations):
            target = relation.get("Target", "").replace("\\", "/").partition("#")[0]
            path = posixpath.normpath(posixpath.join("/", folder, target))[1:]
            if relation.get("TargetMode") != "External":
                kind = posixpath.basename(relation.get("Type", ""))
                found[relation.get("Id", str(n))] = kind, path
        return found

    @cached_property
    def _part(self) -> str:
        main = (path for kind, path in self.related("") if kind == "officeDocument")
        return next(main, "xl/workbook.xml")

    @cached_property
    def _parts(self) -> dict[str, tuple[str, str]]:
        return self._relations(self._part)

    def _part_of(self, kind: str) -> str:
        return next((path for named, path in self._parts.values() if named == kind), "")

    @cached_property
    def sheets(self) -> tuple[Sheet, ...]:
        found = []
        for n, entry in enumerate(self._main.iterfind("{*}sheets/{*}sheet"), 1):
            id_ = next((value for name, value in entry.items() if name.endswith("}id")), "")
            kind, path = self._parts.get(id_, ("worksheet", f"xl/worksheets/sheet{n}.xml"))
            if kind == "worksheet":
                is_visible = entry.get("state", "visible") == "visible"
                found.append(Sheet(entry.get("name", f"Sheet{n}"), path, is_visible))
        return tuple(found)

    @cached_property
    def defined_names(self) -> dict[str, str]:
        found = self._main.iterfind("{*}definedNames/{*}definedName")
        return {entry.get("name", ""): entry.text or "" for entry in found}

    @cached_property
    def is_1904(self) -> bool:
        facts = self._main.find("{*}workbookPr")
        return facts is not None and facts.get("date1904", "0") not in OFF

    @cached_property
    def _is_uncomputed(self) -> bool:
        """Whether the program that wrote it asks for its formulas to be computed when opened."""
        facts = self._main.find("{*}calcPr")
        return facts is not None and facts.get("fullCalcOnLoad", "0") not in OFF

    @property
    def has_macros(self) -> bool:
        return any(name.endswith("vbaproject.bin") for name in self._names)

    @property
    def title(self) -> str:
        named = (path for kind, path in self.related("") if kind == "core-properties")
        return (self.part(next(named, ""), is_needed=False).findtext("{*}title") or "").strip()

    @cached_property
    def styles(self) -> list[CellStyle]:
        part = self._part_of("styles")
        return _styles(self.part(part, is_needed=bool(part)))

    @cached_property
    def _strings(self) -> list[_Text]:
        part, found = self._part_of("sharedStrings"), list[_Text]()
        for element in self._rows(part, "{*}sst") if part else ():
            if element.tag.endswith("}si"):
                found.append(rich_text(element))
        return found

    def read(
        self, sheet: Sheet, check: Callable[[], None], most_rows: int = MOST_ROWS
    ) -> SheetCells:
        """Read a sheet; its declared size is not trusted: some say A1, some a million rows.

        Raises:
            Unreadable: it has too many cells.
        """
        found, number = SheetCells(sheet.title), 0
        shared = dict[str, str]()
        for element in self._rows(sheet.part, "*/{*}sheetData"):
            if not element.tag.endswith("}row"):
                self._add_around(element, found)
                continue
            number = _int(element.get("r"), number + 1)
            if number > MOST_ROWS:  # a damaged one
                continue
            if number > most_rows:
                break
            cells = self._row(element, found, shared)
            if _is_gone(element, "ht"):
                found.hidden_rows.add(number)
            self._n_cells += len(cells)
            if self._n_cells > self._most_cells:
                raise Unreadable(f"has more than {self._most_cells:,} cells, which is the maximum")
            found.rows.extend([] for _ in range(number - 1 - len(found.rows)))
            found.rows[number - 1 : number] = [cells]
            if number % _CHECK_EACH_ROWS == 0:
                check()
        return found

    def _add_around(self, root: ElementTree.Element, found: SheetCells) -> None:
        for element in root.iter():
            match tag := element.tag.rpartition("}")[2]:
                case "col" if _is_gone(element, "width"):
                    last = min(_int(element.get("max")), MOST_COLUMNS)
                    found.hidden_columns.update(range(_int(element.get("min"), 1), last + 1))
                    found.n_hidden_columns += 1
                case "mergeCell":
                    with suppress(ValueError):  # programs leave out what names no cells
                        found.merged.append(CellRange.of(element.get("ref", "")))
                case _ if tag in _MARGINS and (words := _margin_text(element.text or "")):
                    found.margins.append(words)

    def _row(
        self, row: ElementTree.Element, sheet: SheetCells, shared: dict[str, str]
    ) -> list[Cell]:
        cells: list[Cell] = []
        at = 0
        for element in row:
            if not element.tag.endswith("}c"):
                continue
            at = column_of(element.get("r", "")) or at + 1
            cell = self._cell(element, shared)
            if at > MOST_COLUMNS or (cell.value is None and not cell.instead):
                continue
            if cell.instead:
                is_error = element.get("t") == "e"
                sheet.n_errors += is_error
                sheet.n_bare += not is_error
            elif type(cell.value) is float:
                sheet.n_rounded += MOST_DIGITS <= abs(cell.value) < MOST_WHOLE
            cells.extend([EMPTY] * (at - 1 - len(cells)))
            cells[at - 1 : at] = [cell]
        return cells

    def _cell(self, element: ElementTree.Element, shared: dict[str, str]) -> Cell:
        text = formula = inline = None
        for part in element:
            if part.tag.endswith("}v"):
                text = part.text
            elif part.tag.endswith("}f"):
                formula = part
            elif part.tag.endswith("}is"):
                inline = part
        kind, number = element.get("t", "n"), element.get("s")
        if (style := self._style_of.get(number)) is None:
            known = self.styles[_int(number) :][:1]
            style = self._style_of[number] = known[0] if known else NO_STYLE
        if formula is not None:
            written, key = formula.text or "", formula.get("si", "")
            if written and key:
                shared[key] = f"={written} in {element.get('r', '')}"
            is_placeholder = text == "0" and kind == "n" and self._is_uncomputed
            if (not text or is_placeholder) and inline is None:
                return Cell(None, style, f"={written}" if written else f"as {shared.get(key, '=')}")
        if inline is not None:
            words, pieces = rich_text(inline)
            return Cell(words or None, style, "", pieces)
        return Cell(None, style) if text is None else self._stored(kind, text, style)

    def _stored(self, kind: str, text: str, style: CellStyle) -> Cell:
        """Return a cell by the type of its stored value."""
        if kind == "s":
            at = _int(text.strip(), -1)
            if 0 <= at < len(self._strings):
                words, pieces = self._strings[at]
                return Cell(words or None, style, "", pieces)
            self._lost[self._part_of("sharedStrings")] = None
            return Cell(None, style)
        if kind == "b":
            return Cell(text.strip() in ("1", "true"), style)
        if kind == "e":
            return Cell(None, style, text)
        if kind == "str":
            return Cell(_unescaped(text) if text.strip() else None, style)
        value = number_cell(text.strip())
        if style.kind and isinstance(value, int | float):
            value = _from_serial(value, style.kind, is_1904=self.is_1904)
        value = style.shown(value)
        return Cell(value or None if isinstance(value, str) else value, style)

    def damage(self) -> tuple[str, ...]:
        return damage_note([*self._lost])


def _is_gone(element: ElementTree.Element, size: str) -> bool:
    written = element.get(size)
    is_flat = written is not None and _ZERO.fullmatch(written) is not None
    return is_flat or element.get("hidden") in ("1", "true")


def _words(element: ElementTree.Element) -> str:
    """Return a text as programs show it: blanks around it count where it says so."""
    text = element.text or ""
    is_kept = "preserve" in element.attrib.values()
    return _unescaped(text if is_kept else text.strip(" \t\r\n"))


def rich_text(element: ElementTree.Element) -> _Text:
    """Return the text of a cell or comment: of its text elements alone, and its looks."""
    if len(element) == 1 and element[0].tag.endswith("}t"):
        words = _words(element[0])
        return words if words.strip() else "", ()
    pieces = list[Piece]()
    for part in element:
        name = part.tag.rpartition("}")[2]
        if name == "t":
            pieces.append((_words(part), PLAIN))
        elif name == "r":  # not `rPh`: how to pronounce it
            font, look = part.find("{*}rPr"), PLAIN
            if font is not None:
                rise, strike = font.find("{*}vertAlign"), font.find("{*}strike")
                look = Look(
                    0 if rise is None else _RISES.get(rise.get("val", ""), 0),
                    strike is not None and strike.get("val", "1") not in OFF,
                )
            pieces += [(_words(text), look) for text in part.iterfind("{*}t")]
    words = "".join(text for text, _ in pieces)
    is_plain = all(look == PLAIN for _, look in pieces)
    return words if words.strip() else "", () if is_plain else tuple(pieces)


def _margin_text(written: str) -> str:
    """Return the words of a header or footer.

    >>> _margin_text('&L&"Arial,Bold"&12Smith && Co&RPage &P')
    'Smith & Co Page'
    """
    parts = written.split("&&")
    return " ".join("&".join(_MARGIN_CODE.sub(" ", part) for part in parts).split())
