"""The step `files.rows`: the rows of a table in a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from paddock.pipelines.quantities import SizeBytes
from paddock.pipelines.typed_rows import TypedRows, WrittenType
from paddock.steps.base import Params, RowsOutput, Step, Tools
from paddock.steps.facts import Facts, Missing, Written
from paddock.steps.param_types import InputFile
from paddock.steps.paths import resolve_path
from paddock.steps.tables.table_files import (
    all_formats,
    format_named,
    format_names,
    format_of,
    limits_of_formats,
    missing_library,
    read_table,
)
from paddock.steps.tables.table_format import TableSource

from .read import KnownEncoding


class FilesRowsParams(Params):
    path: Annotated[str, InputFile] = Field(min_length=1, description="The file.")
    format: str = Field(
        default="auto",
        description="Its format; by default from its name.",
        json_schema_extra=lambda schema: schema.update(enum=list(format_names())),
    )
    table: str = Field(
        default="",
        description="Which table of the file: of XLSX the name of a sheet or table, or cells "
        "(`Bills!A3:F90`); of SQLite and DuckDB a table. By default the only one.",
    )
    columns: list[str] | dict[str, WrittenType] | None = Field(
        default=None,
        min_length=1,
        description="The columns to read, in this order; by default all. In a file without a "
        "header (`header: false`) their names. `{customer: int, total: decimal, day: date}` gives "
        "them types: `str`, `int`, `float`, `bool`, `date`, `time`, `datetime`, `decimal`.",
    )
    types: Literal["text", "auto"] = Field(
        default="text",
        description="Of CSV without types in `columns`: texts, or (`auto`) that of all cells of "
        "a column.",
    )
    separator: Literal["auto", ",", ";", "\t", "|"] = Field(
        default="auto", description="Between the cells of CSV."
    )
    decimal: Literal["auto", ".", ","] = Field(
        default="auto",
        description="The decimal mark in CSV: `,` of `1.234,50`. By default a point; found with "
        "`types: auto`.",
    )
    header: bool | Annotated[int, Field(ge=0, le=9)] = Field(
        default=True,
        description="Whether the first row names the columns; of XLSX also how many rows do.",
    )
    encoding: KnownEncoding = Field(default="auto", description="Its encoding.")
    max_bytes: SizeBytes | None = Field(
        default=None, description=f"A larger file is a failure. Default: {limits_of_formats()}."
    )

    @field_validator("format")
    @classmethod
    def _is_a_format(cls, value: str) -> str:
        if value not in format_names():
            known = ", ".join(format_names())
            raise ValueError(f"'{value}' is no format of tables; known: {known}")
        return value

    @field_validator("columns")
    @classmethod
    def _are_different(
        cls, value: list[str] | dict[str, str] | None
    ) -> list[str] | dict[str, str] | None:
        for name in value or ():
            if list(value or ()).count(name) > 1:
                raise ValueError(f"column '{name}' is named twice")
        return value


class FilesRowsOutput(RowsOutput):
    """Outputs of `files.rows`: each row by the names of its columns, and the columns' types.

    Values of CSV are text unless `columns` or `types` says otherwise, an empty cell is an empty
    text, with a type null. Dates and times are ISO text, decimals of more than 15 digits text.
    """

    rows: TypedRows
    columns: list[str]
    count: int
    types: dict[str, str] = Field(default={})


def _format(written: Written) -> str:
    named = str(written.get("format") or "auto")
    return format_of(str(written.get("path"))) if named == "auto" else named


def _readers(written: Written) -> list[str]:
    path, known = str(written.get("path")), all_formats()[0]
    form = _format(written)
    forms = known if not form and "{{" in path else [form]
    found = [(name, known[name].version) for name in forms if name in known]
    return [f"{name} {version}" for name, version in found if version > 1]


def _missing(_step: str, written: Written, _folder: Path) -> Iterator[Missing]:
    form = _format(written)
    if form in format_names() and (lacks := missing_library(form)) is not None:
        yield ("path",), *lacks


class FilesRows(Step[FilesRowsParams, FilesRowsOutput]):
    """The rows of a table in a file, of any of its formats."""

    params = FilesRowsParams
    output = FilesRowsOutput
    version = 2
    is_pure = True
    facts = Facts(is_repeatable=True, readers=_readers, missing=_missing)

    def reads(self, params: FilesRowsParams) -> Sequence[str]:
        ends = format_named(format_of(params.path)).files_beside
        return (params.path, *(params.path + end for end in ends))

    async def run(self, params: FilesRowsParams, tools: Tools) -> FilesRowsOutput:
        path = resolve_path(tools.files.roots, params.path)
        format_ = params.format if params.format != "auto" else format_of(path.name)
        source = TableSource(
            path=str(path),
            format=format_,
            table=params.table,
            columns=params.columns,
            header=params.header,
            finds_types=params.types == "auto",
            separator="" if params.separator == "auto" else params.separator,
            decimal="" if params.decimal == "auto" else params.decimal,
            encoding=params.encoding,
            max_bytes=params.max_bytes,
        )
        rows, columns, notes = await read_table(source, tools.files.readers)
        for note in notes:
            tools.log.note(note)
        return FilesRowsOutput.model_construct(
            rows=rows, columns=columns, count=len(rows), types=dict(rows.types)
        )
