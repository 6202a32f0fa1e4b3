"""Cells of OpenDocument spreadsheets, as `sheet_cells` has those of Excel's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, BinaryIO
from xml.etree.ElementTree import Element, fromstring

from paddock.steps.readers.office import open_archive
from paddock.steps.readers.reader import Unreadable
from paddock.steps.readers.sheet_cells import (
    EMPTY,
    MOST_COLUMNS,
    MOST_ROWS,
    Cell,
    CellStyle,
    ErrorValue,
    Sheet,
    SheetCells,
    column_name,
    number_cell,
)

_DURATION = re.compile(r"(-?)P(?:(\d+)D)?T?(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:[.,]\d+)?)S)?")
_GONE = ("collapse", "filter")


class OdsWorkbook:
    """A workbook of LibreOffice and others."""

    def __init__(self, file: BinaryIO, most_cells: int) -> None:
        self.archive = open_archive(file, "an OpenDocument file")
        self._most_cells, self._n_cells = most_cells, 0
        manifest = "META-INF/manifest.xml"
        has_manifest = manifest in self.archive.namelist()
        if has_manifest and b"encryption-data" in self.archive.read(manifest):
            raise Unreadable("is protected by a password", "Save it without a password.")
        try:
            root = fromstring(self.archive.read("content.xml"))
        except KeyError as error:
            raise Unreadable("is damaged or not an OpenDocument file") from error
        self._tables = {
            _facts(t).get("name", ""): t for t in root.iterfind(".//{*}body/*/{*}table")
        }
        self._styles = {
            _facts(s).get("name", ""): s for s in root.iterfind(".//{*}automatic-styles/*")
        }
        self.defined_names: dict[str, str] = {}
        self.broken = ()  # which the archive has checked

    @property
    def sheets(self) -> tuple[Sheet, ...]:
        return tuple(
            Sheet(name, name, not self._is_hidden(table)) for name, table in self._tables.items()
        )

    def _is_hidden(self, table: Element) -> bool:
        style = self._styles.get(_facts(table).get("style-name", ""))
        parts = () if style is None else style
        return any(_facts(part).get("display") == "false" for part in parts)

    def damage(self) -> tuple[str, ...]:
        return ()

    def read(
        self, sheet: Sheet, check: Callable[[], None], most_rows: int = MOST_ROWS
    ) -> SheetCells:
        """Read a sheet.

        Raises:
            Unreadable: it has too many cells.
        """
        found, number, column = SheetCells(), 0, 0
        for part in self._tables[sheet.part].iter():
            has = _facts(part)
            if part.tag.endswith("}table-column"):
                n = int(has.get("number-columns-repeated", 1))
                if has.get("visibility") in _GONE:
                    found.hidden_columns.append(
                        range(column + 1, min(column + n, MOST_COLUMNS) + 1)
                    )
                column += n
            if not part.tag.endswith("}table-row"):
                continue
            check()
            cells = list(self._row(part, number + 1, found))
            while cells and cells[-1].value is None:
                cells.pop()
            n = int(has.get("number-rows-repeated", 1))
            if cells:
                n = min(n, most_rows - number)
                self._n_cells += n * len(cells)
                if self._n_cells > self._most_cells:
                    what = f"has more than {self._most_cells:,} cells, which is the maximum"
                    raise Unreadable(what)
                found.rows += [[] for _ in range(number - len(found.rows))]
                found.rows += [cells] * n
                if has.get("visibility") in _GONE:
                    found.hidden_rows.update(range(number + 1, number + n + 1))
            number += n
            if number >= most_rows:
                break
        return found

    def _row(self, row: Element, number: int, sheet: SheetCells) -> Iterator[Cell]:
        column = 1
        for part in row:
            has = _facts(part)
            n = min(int(has.get("number-columns-repeated", 1)), MOST_COLUMNS + 1 - column)
            wide, high = (int(has.get(f"number-{of}-spanned", 1)) for of in ("columns", "rows"))
            if wide * high > 1:
                corner = f"{column_name(column + wide - 1)}{number + high - 1}"
                sheet.merged.append(f"{column_name(column)}{number}:{corner}")
            if part.tag.endswith("cell"):
                yield from [self._cell(part, has)] * n
                column += n

    def _cell(self, cell: Element, has: dict[str, str]) -> Cell:
        kind, style = has.get("value-type", ""), self._style(has.get("style-name", ""))
        value: Any = None
        match kind:
            case "float" | "percentage" | "currency":
                value = number_cell(has.get("value", ""))
            case "date":
                with suppress(ValueError):
                    value = datetime.fromisoformat(has.get("date-value", ""))
            case "time":
                value = _duration(has.get("time-value", ""), style)
            case "boolean":
                value = has.get("boolean-value") == "true"
        text = "\n".join("".join(_words(p)) for p in cell.iterfind("{*}p"))
        if kind == "string" and has.get("formula") and text.startswith(("#", "Err:")):
            return Cell(ErrorValue(text), style)
        value = value if value is not None else text or None
        return EMPTY if value is None else Cell(value, style)

    def _style(self, name: str) -> CellStyle:
        style = self._styles.get(name)
        if style is None:
            return CellStyle()
        looks = (_facts(part).get("text-line-through-style", "none") for part in style)
        is_struck = any(look != "none" for look in looks)
        shown = self._styles.get(_facts(style).get("data-style-name", ""))
        if shown is None:
            return CellStyle(is_struck=is_struck)
        if shown.tag.endswith("}time-style"):
            is_long = _facts(shown).get("truncate-on-overflow") == "false"
            return CellStyle(kind="duration" if is_long else "time", is_struck=is_struck)
        places = [_facts(part).get("decimal-places") for part in shown.iterfind("{*}number")]
        is_fixed = not shown.tag.endswith("}percentage-style") and places and places[0]
        code = "0." + "0" * int(places[0] or 0) if is_fixed else ""
        return CellStyle(code.rstrip("."), is_struck=is_struck)


def _duration(text: str, style: CellStyle) -> Any:
    if not (found := _DURATION.fullmatch(text)):
        return None
    days, hours, minutes = (int(part or 0) for part in found.groups()[1:4])
    seconds = float((found[5] or "0").replace(",", "."))
    value = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if found[1] or style.kind == "duration" or value >= timedelta(days=1):
        return -value if found[1] else value
    return (datetime(1904, 1, 1) + value).time()  # noqa: DTZ001 - cells have no zone


def _words(element: Element) -> Iterator[str]:
    """Yield the text of a paragraph, with its blanks."""
    yield element.text or ""
    for part in element:
        name = part.tag.rpartition("}")[2]
        if name in ("s", "tab", "line-break"):
            blank = {"s": " ", "tab": "\t", "line-break": "\n"}[name]
            yield blank * min(int(_facts(part).get("c", 1)), 1_000)
        elif name != "annotation":
            yield from _words(part)
        yield part.tail or ""


def _facts(element: Element) -> dict[str, str]:
    return {name.rpartition("}")[2]: value for name, value in element.items()}
