"""Cells of OpenDocument's spreadsheets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from itertools import chain
from typing import Any, BinaryIO
from xml.etree.ElementTree import Element, fromstring

from paddock.pipelines.text_marks import escaped

from .cells import (
    MOST_COLUMNS,
    MOST_ROWS,
    MOST_ZEROS,
    Cell,
    CellRange,
    CellStyle,
    Sheet,
    SheetCells,
    column_name,
    number_cell,
)
from .office import PLAIN, Look, Piece
from .open_document import OBJECTS, OpenDocument, attributes, name_of
from .reader import Unreadable

_DURATION = re.compile(r"(-?)P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:[.,]\d+)?)S)?")
_PLACE = re.compile(
    r"\$?(?:'((?:[^']|'')+)'|([^.']+))\.(\$?[A-Z]+\$?\d+)(?::(?:.*\.)?(\$?[A-Z]+\$?\d+))?"
)
_GONE = ("collapse", "filter")
_MOST_BLANKS = 1_000
_BLANKS = {"s": " ", "tab": "\t", "line-break": "\n"}
_HOLDERS = ("table-cell", "covered-table-cell", "annotation")
_CHART_NS = "urn:oasis:names:tc:opendocument:xmlns:chart:1.0"


class OdsWorkbook:
    has_macros = False
    title = ""
    broken = ()  # which the archive has checked

    def __init__(self, file: BinaryIO, most_cells: int) -> None:
        self._document = OpenDocument(file)
        self._most_cells, self._n_cells = most_cells, 0
        body = self._document.roots[-1].find("{*}body")
        self._body = Element("body") if body is None else body
        self._tables = {attributes(t).get("name", ""): t for t in self._body.iterfind("*/{*}table")}
        self._style = cache(self._style_of)

    @property
    def sheets(self) -> tuple[Sheet, ...]:
        return tuple(
            Sheet(name, name, self._document.properties(style).get("display") != "false")
            for name, table in self._tables.items()
            for style in [attributes(table).get("style-name", "")]
        )

    @property
    def defined_names(self) -> dict[str, str]:
        found = dict[str, str]()
        for part in self._body.iter():
            has = attributes(part)
            address = has.get("cell-range-address") or has.get("target-range-address", "")
            if (place := _PLACE.fullmatch(address)) and "name" in has:
                title = place[1] or (place[2] or "").replace("'", "''")
                found[has["name"]] = f"'{title}'!{place[3]}:{place[4] or place[3]}"
        return found

    def damage(self) -> tuple[str, ...]:
        return ()

    def read(
        self, sheet: Sheet, check: Callable[[], None], most_rows: int = MOST_ROWS
    ) -> SheetCells:
        """Read a sheet, and what is drawn on it.

        Raises:
            Unreadable: it has too many cells.
        """
        found, number, column = SheetCells(sheet.title), 0, 0
        is_first = sheet.part == next(iter(self._tables))
        for margin in self._document.margins(has_own_fields=True) if is_first else ():
            lines = ("".join(p.itertext()).strip() for p in margin.iterfind(".//{*}p"))
            found.margins += filter(None, lines)
        table = self._tables[sheet.part]
        groups = (group for group in table.iter() if attributes(group).get("display") == "false")
        gone = {id(part) for group in groups for part in group.iter()}
        for part in table.iter():
            has = attributes(part)
            is_gone = has.get("visibility") in _GONE or id(part) in gone
            match name_of(part):
                case "table-column":
                    n = int(has.get("number-columns-repeated", 1))
                    if is_gone:
                        last = min(column + n, MOST_COLUMNS)
                        found.hidden_columns.update(range(column + 1, last + 1))
                        found.n_hidden_columns += 1
                    column += n
                case "table-row" if number < most_rows:
                    check()
                    cells = self._row(part, number + 1, found)
                    n = min(int(has.get("number-rows-repeated", 1)), most_rows - number)
                    if cells:
                        self._n_cells += n * len(cells)
                        if self._n_cells > self._most_cells:
                            what = f"has more than {self._most_cells:,} cells, which is the maximum"
                            raise Unreadable(what)
                        found.rows += [[] for _ in range(number - len(found.rows))]
                        found.rows += [cells] * n
                        if is_gone:
                            found.hidden_rows.update(range(number + 1, number + n + 1))
                    number += n
                case name:
                    self._add_drawn(name, part, has, found)
        return found

    def _add_drawn(self, name: str, part: Element, has: dict[str, str], found: SheetCells) -> None:
        if name in ("title", "desc"):
            found.boxes += [f"![{text}]" for text in [_line(part)] if text]
        elif name == "image" and "ObjectReplacements" not in has.get("href", ""):
            found.pictures.append(self._document.picture(part))
        elif name in OBJECTS:
            content = f"{has.get('href', '').removeprefix('./')}/content.xml"
            inner = part
            if content in self._document.held:
                inner = fromstring(self._document.held[content]())
            charts = list(inner.iter(f"{{{_CHART_NS}}}chart"))
            titles = (_line(title) for chart in charts for title in chart.iterfind(".//{*}title"))
            if charts:
                found.charts.append("; ".join(titles) or "without a title")
            else:
                found.kinds.append("oleObject")
        elif name not in _HOLDERS:
            found.boxes += filter(None, map(_line, part.iterfind("{*}p")))

    def _row(self, row: Element, number: int, sheet: SheetCells) -> list[Cell]:
        cells = list[Cell]()
        for part in row:
            if not part.tag.endswith("cell"):
                continue
            has = attributes(part)
            n = min(int(has.get("number-columns-repeated", 1)), MOST_COLUMNS - len(cells))
            wide, high = (int(has.get(f"number-{of}-spanned", 1)) for of in ("columns", "rows"))
            if wide * high > 1:
                end = len(cells) + wide, number + high - 1
                sheet.merged.append(CellRange(len(cells) + 1, number, *end))
            if (note := part.find("{*}annotation")) is not None:
                who = (note.findtext("{*}creator"), note.findtext("{*}date", "")[:10])
                words = [" ".join(filter(None, who)), *map(_line, note.iterfind("{*}p"))]
                place = f"{column_name(len(cells) + 1)}{number}"
                sheet.comments.append(f"{place}: {': '.join(filter(None, words))}")
            cell = self._cell(part, has)
            is_bare = "value-type" not in has
            sheet.n_errors += bool(cell.instead and not is_bare)
            sheet.n_bare += bool(cell.instead and is_bare)
            cells += [cell] * n
        while cells and cells[-1].value is None and not cells[-1].instead:
            cells.pop()
        return cells

    def _cell(self, cell: Element, has: dict[str, str]) -> Cell:
        kind, style = has.get("value-type", ""), self._style(has.get("style-name", ""))
        value: Any = None
        match kind:
            case "float" | "percentage" | "currency":
                value = number_cell(has.get("value", ""))
                if style.is_zero_filled:
                    shown = chain.from_iterable(map(self._pieces, cell.iterfind("{*}p")))
                    value = style.shown(value, "".join(words for words, _ in shown).strip())
            case "date":
                with suppress(ValueError):
                    value = datetime.fromisoformat(has.get("date-value", ""))
            case "time":
                value = _duration(has.get("time-value", ""), style)
            case "boolean":
                value = has.get("boolean-value") == "true"
        if value is not None:
            return Cell(value, style)
        lines = map(self._pieces, cell.iterfind("{*}p"))
        pieces = [piece for line in lines for piece in (("\n", PLAIN), *line)][1:]
        text = "".join(words for words, _ in pieces)
        if kind == "string" and has.get("formula") and text.startswith(("#", "Err:")):
            return Cell(None, style, text)
        if "formula" in has and not kind and not text:
            return Cell(None, style, f"={has['formula'].partition('=')[2]}")
        is_plain = all(look == PLAIN for _, look in pieces)
        return Cell(text if text.strip() else None, style, "", () if is_plain else tuple(pieces))

    def _pieces(self, element: Element, look: Look = PLAIN) -> Iterator[Piece]:
        yield element.text or "", look
        for part in element:
            name, has = name_of(part), attributes(part)
            if name in _BLANKS:
                yield _BLANKS[name] * min(int(has.get("c", 1)), _MOST_BLANKS), look
            elif name == "ruby-text":
                yield f"({_line(part)})", look
            elif name != "annotation":
                own = self._document.look(has.get("style-name", ""))
                is_struck, is_hidden = (
                    own.is_struck or look.is_struck,
                    own.is_hidden or look.is_hidden,
                )
                yield from self._pieces(part, Look(own.rise or look.rise, is_struck, is_hidden))
            yield part.tail or "", look

    def _style_of(self, name: str) -> CellStyle:
        has = self._document.properties(name)
        look = self._document.look(name)
        is_white = has.get("color") == "#ffffff"
        is_white = is_white and has.get("background-color") in (None, "transparent", "#ffffff")
        shown = self._document.styles.get(name := has.get("data-style-name", ""), Element("none"))
        kind = code = ""
        if name_of(shown) == "time-style":
            is_long = attributes(shown).get("truncate-on-overflow") == "false"
            kind = "duration" if is_long else "time"
        elif name_of(shown) != "percentage-style":
            code = ";".join(self._sections(name))
        return CellStyle(code, look.is_struck, is_white, kind, look.is_hidden)

    def _sections(self, name: str, *, is_part: bool = False) -> Iterator[str]:
        """Yield the sections of a format, as Excel writes them without their conditions."""
        code = ""
        for part in self._document.styles.get(name, Element("none")):
            has = attributes(part)
            n_least, places = has.get("min-integer-digits", "0"), has.get("decimal-places", "")
            if name_of(part) == "text":
                code += f'"{part.text or ""}"'.replace(";", "")
            elif name_of(part) == "number" and (places or int(n_least) > 1):
                zeros = "0" * max(1, min(int(n_least), MOST_ZEROS))
                code += f"{zeros}.{'0' * min(int(places or 0), MOST_ZEROS)}".rstrip(".")
            elif name_of(part) == "map" and not is_part:
                yield from self._sections(has.get("apply-style-name", ""), is_part=True)
        yield code


def _duration(text: str, style: CellStyle) -> Any:
    if not (found := _DURATION.fullmatch(text)):
        return None
    days, hours, minutes = (int(part or 0) for part in found.groups()[1:4])
    seconds = float((found[5] or "0").replace(",", "."))
    value = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if found[1] or style.kind == "duration" or value >= timedelta(days=1):
        return -value if found[1] else value
    return (datetime(1904, 1, 1) + value).time()  # noqa: DTZ001 - cells have no zone


def _line(element: Element) -> str:
    return escaped(" ".join("".join(element.itertext()).split()))
