"""The step `sql`: one query over tables, by DuckDB in memory.

It reads its tables and nothing else: no file, network, extension or setting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from paddock.engine.errors import TrialTimeout
from paddock.engine.system.frame_processes import FrameProcess, NoAnswer
from paddock.engine.system.processes import python_command
from paddock.engine.system.records import asdict
from paddock.engine.system.text import same_in_sql
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.base import Params, RowsOutput, Step, StepError, Tools
from paddock.steps.facts import Facts, KnownTables, Missing, TextFault, Written
from paddock.steps.param_types import RowsParam
from paddock.steps.paths import resolve_path
from paddock.steps.readers.documents import in_reader_process, reading_errors

from .row_formats import UnreadableRows
from .table_files import TableRequest, format_of, missing_library, require_library
from .table_format import TableSource, with_libraries

DEFAULT_TIMEOUT_S = 60.0
"""Where the step has no `timeout`."""
_CHECK_WALL_S = 60.0
"""For the check of a query on a busy machine; its process has limits on processor and memory."""
TableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")]


class SqlParams(Params):
    query: str = Field(
        min_length=1,
        description="One `select`, in DuckDB's SQL.",
        examples=["select supplier, sum(total) from bills group by all"],
    )
    tables: Annotated[dict[TableName, TypedRows | str], RowsParam] = Field(
        min_length=1,
        description="The tables by the names that the query has for them: rows "
        '(`"{{ steps.each.results }}"`), or a file of a table.',
        examples=[{"bills": "bills.csv"}],
    )
    values: dict[str, Any] = Field(
        default={}, description="Values of the query's `$names`, such as a date of the run."
    )

    @field_validator("tables", "values")
    @classmethod
    def _are_different(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if alike := same_in_sql(value):
            raise ValueError(f"{info.field_name} '{alike[0]}' and '{alike[1]}' are one name in SQL")
        return value


class SqlOutput(RowsOutput):
    """Outputs of `sql`: the rows of the result, with the types of their columns."""

    rows: TypedRows
    columns: list[str]
    count: int


def _missing(_step: str, _written: Written, _folder: Path) -> Iterator[Missing]:
    if (lacks := missing_library("duckdb")) is not None:
        yield (), *lacks


def _query_faults(written: Written, known: KnownTables) -> Iterator[TextFault]:
    """Yield what is wrong with a query that is written out, as far as its tables are known."""
    query, tables = str(written["query"]), written["tables"]
    if "{{" in query or not isinstance(tables, Mapping) or missing_library("duckdb"):
        return
    columns = tuple((str(name), tuple(known.get(("tables", name), {}).items())) for name in tables)
    values = written.get("values")
    names = tuple(values) if isinstance(values, Mapping) else ()
    if (fault := _query_fault(query, columns, names)) is not None:
        yield fault


@lru_cache(maxsize=64)  # a pipeline is bound several times in a run
def _query_fault(
    query: str, columns: tuple[tuple[str, tuple[tuple[str, str], ...]], ...], names: tuple[str, ...]
) -> TextFault | None:
    order = {"query": query, "tables": {name: dict(types) or None for name, types in columns}}
    command = python_command("-m", f"{__package__}.duckdb_queries")
    with closing(FrameProcess(command)) as process:
        try:
            fault = process.ask({**order, "parameters": names}, _CHECK_WALL_S)
        except NoAnswer:
            raise TrialTimeout("the check of `query`", _CHECK_WALL_S) from None
    if fault is None:
        remedy = "What is the same for all rows is computed before they are read: make that less."
        return TextFault("query", "the check of `query` takes too much time or memory", remedy)
    return TextFault("query", **fault) if fault else None


class Sql(Step[SqlParams, SqlOutput]):
    """A query over tables."""

    params = SqlParams
    output = SqlOutput
    is_pure = True
    facts = Facts(is_repeatable=True, missing=_missing, table_faults=_query_faults)

    def reads(self, params: SqlParams) -> Sequence[str]:
        return tuple(path for path in params.tables.values() if isinstance(path, str))

    async def run(self, params: SqlParams, tools: Tools) -> SqlOutput:
        """Run the query in a process of its own.

        Raises:
            StepError: a table cannot be read, or the query fails.
        """
        require_library("duckdb")
        request = await asyncio.to_thread(_request, params, tools)
        with reading_errors("the query"):
            meta, rows = await in_reader_process(request, tools.files.readers)
        if "fault" in meta:
            start, end = meta["start"], meta["start"] + meta["length"]
            line = params.query.count("\n", 0, start) + 1
            place = f" (line {line}: '{params.query[start:end]}')" if end > start else ""
            what = f"the query failed: {meta['fault']}{place}."
            raise StepError(what, remedy=str(meta["remedy"]))
        for note in meta["notes"]:
            tools.log.note(f"{note}.")
        return SqlOutput.model_construct(rows=rows, columns=list(rows.types), count=len(rows))


def _request(params: SqlParams, tools: Tools) -> TableRequest:
    arrow_rows = with_libraries("arrow_rows")
    tables = list[tuple[str, int, Any]]()
    data = list[bytes]()
    for name, value in params.tables.items():
        if isinstance(value, TypedRows):
            try:
                table, notes = arrow_rows.to_query_table(value)
            except UnreadableRows as error:
                raise StepError(f"Table '{name}': {error}.", remedy=error.remedy) from error
            except UnicodeEncodeError as error:
                raise StepError(f"Table '{name}' has half a character.") from error
            for note in notes:
                tools.log.note(f"table '{name}': {note}.")
            data.append(arrow_rows.stream_of(table).to_pybytes())
            tables.append((name, len(data[-1]), None))
        else:
            path = str(resolve_path(tools.files.roots, value))
            tables.append((name, 0, asdict(TableSource(path, format_of(path)))))
    order = {"job": "query", "query": params.query, "tables": tables, "values": params.values}
    limit = {"timeout_s": tools.timeout.total_s or DEFAULT_TIMEOUT_S}
    return TableRequest({**order, **limit}, b"".join(data))
