"""A format of tables: what `files.write` writes for a suffix. Here: a page with one table."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from paddock.engine.system.text import cell_text
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.tables.row_formats import kept_rows
from paddock.steps.tables.table_format import TableFormat, WriteOptions


class HtmlTable(TableFormat):
    """Rows as a table of a web page; without a `read`, for which `files.rows` would ask."""

    name, suffixes = "html_table", (".html",)
    libraries_to_write = ()

    def write(self, rows: TypedRows, options: WriteOptions) -> tuple[bytes, list[str]]:
        kept = kept_rows(rows)
        names = list(dict.fromkeys(name for row in kept for name in row))
        lines = [_line("th", names), *(_line("td", map(row.get, names)) for row in kept)]
        page = f"<!doctype html><meta charset=utf-8>\n<table>\n{''.join(lines)}</table>\n"
        return page.encode(), []


def _line(tag: str, cells: Iterable[object]) -> str:
    inner = "".join(f"<{tag}>{escape(cell_text(cell))}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>\n"
