"""What a reader process does with tables: read one of a file, or run a query over several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from paddock.engine.system import no_links, units
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.readers.office import damage_errors
from paddock.steps.readers.reader import Unreadable, after_name

from .arrow_rows import ArrowRows, columns_to_arrow, own_table, stream_of, to_arrow
from .duckdb_queries import QueryFault, QueryLimits, run_query
from .row_formats import TextFormat
from .table_files import format_named, read_text_table
from .table_format import TableLimits, TableSource


def carry_out(
    request: Mapping[str, Any], data: bytes, check: Callable[[], None]
) -> tuple[dict[str, Any], memoryview]:
    """Return the facts of an answer, and its rows as an Arrow stream.

    Raises:
        Unreadable, OSError: a file cannot be read.
    """
    pa.set_cpu_count(1)  # each thread of Arrow's has memory of its own
    memory_bytes = int(request["memory_bytes"])
    if request["job"] == "read":
        table, notes = _read_table(TableSource(**request["source"]), memory_bytes, check)
        return {"notes": notes}, memoryview(stream_of(table))
    tables = {}
    notes = list[str]()
    at = 0
    for name, size, source in request["tables"]:
        if source is None:
            tables[name] = ArrowRows.of_bytes(data[at : at + size]).table
            at += size
            continue
        try:
            tables[name], found = _read_table(TableSource(**source), memory_bytes, check)
        except Unreadable as error:
            what = f"cannot have its table '{name}': '{Path(source['path']).name}' {error}"
            raise Unreadable(what, error.remedy) from error
        notes += [f"table '{name}'{after_name(note)}" for note in found]
    result_bytes = min(request["max_bytes"], memory_bytes // 4)  # it is copied once
    limits = QueryLimits(float(request["timeout_s"]), memory_bytes // 2, result_bytes)
    try:
        result = run_query(request["query"], tables, request["values"], limits)
    except QueryFault as fault:
        place = {"start": fault.start, "length": fault.length}
        return {"fault": str(fault), "remedy": fault.remedy, **place}, memoryview(b"")
    own, found = own_table(result)
    found += [loss] if (loss := ArrowRows(own).loss) else []
    notes += [f"the result: {note}" for note in found]
    return {"notes": notes}, memoryview(stream_of(own))


def _read_table(
    source: TableSource, memory_bytes: int, check: Callable[[], None]
) -> tuple[pa.Table, list[str]]:
    if isinstance(form := format_named(source.format), TextFormat):
        found = read_text_table(form, source)
        if found.cells:
            table, of_columns = columns_to_arrow(found.cells, {}, found.types, {})
        else:
            rows = TypedRows(found.objects, found.types)
            table, of_columns = to_arrow(rows, {}, found.columns)
        notes = list(found.notes)
    else:
        with no_links.open_file(Path(source.path)) as file:
            n_bytes = file.seek(0, 2)
            if n_bytes > (source.max_bytes or form.most_bytes):
                what = f"has {units.size(n_bytes)}, more than `max_bytes` allows"
                raise Unreadable(what, "Raise `max_bytes` to read it.")
            file.seek(0)
            with damage_errors(f"a file of the format '{source.format}'"):
                rows, notes = form.read(file, source, TableLimits(check, memory_bytes))
                made, of_rows = to_arrow(rows, {})
                table, of_columns = own_table(made, source.columns)
                of_columns = [*of_rows, *of_columns]
        if source.declared:
            table, _ = to_arrow(ArrowRows(table), source.declared)
    notes += [f": {note}" for note in of_columns]
    notes += [f": {loss}"] if (loss := ArrowRows(table).loss) else []
    return table, notes
