"""The step `files.rows`: rows of CSV, TSV, JSONL and JSON files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from paddock.engine.system.no_links import NotRegularFile, read_file
from paddock.pipelines.quantities import SizeBytes
from paddock.steps.base import Output, Params, Step, StepError, StepLog, Tools
from paddock.steps.facts import Facts
from paddock.steps.paths import os_refusal, printable, resolve_path
from paddock.steps.readers.reader import after_name
from paddock.steps.readers.text_encoding import NotText, UnclearEncoding, decode_text

from .read import DEFAULT_MAX_FILE_BYTES, KnownEncoding
from .row_formats import FORMAT_OF_SUFFIX, UnreadableRows, parse_rows, typed_rows

_THREAD_FROM_BYTES = 256 * 1024

ColumnKind = Literal["str", "int", "float", "bool"]


class FilesRowsParams(Params):
    """Parameters of `files.rows`."""

    paths: ClassVar[tuple[str, ...]] = ("path",)

    path: str = Field(min_length=1, description="The file.")
    format: Literal["auto", "csv", "tsv", "jsonl", "json"] = Field(
        default="auto", description="Its format; by default from its name."
    )
    columns: list[str] | dict[str, ColumnKind] | None = Field(
        default=None,
        min_length=1,
        description="The columns to read, in this order; by default all. In a file without a "
        "header (`header: false`) their names. `{customer: int, total: float}` makes numbers of "
        "the texts of CSV.",
    )
    header: bool = Field(default=True, description="Whether the first row names the columns.")
    encoding: KnownEncoding = Field(
        default="auto", description="Its encoding; by default detected."
    )
    max_bytes: SizeBytes = Field(
        default=DEFAULT_MAX_FILE_BYTES, description="A larger file is a failure. Default: 64MiB."
    )

    @field_validator("columns")
    @classmethod
    def _are_different(
        cls, value: list[str] | dict[str, ColumnKind] | None
    ) -> list[str] | dict[str, ColumnKind] | None:
        for name in value or ():
            if list(value or ()).count(name) > 1:
                raise ValueError(f"column '{name}' is named twice")
        return value


class FilesRowsOutput(Output):
    """Outputs of `files.rows`: each row by the names of its columns.

    Values of CSV are text unless `columns` says otherwise, an empty cell is an empty text; JSON
    keeps its types.
    """

    rows: list[dict[str, Any]]
    columns: list[str]
    count: int


class FilesRows(Step[FilesRowsParams, FilesRowsOutput]):
    """The rows of a CSV, TSV, JSONL or JSON file; delimiter and encoding are detected."""

    params = FilesRowsParams
    output = FilesRowsOutput
    version = 2
    is_pure = True
    facts = Facts(is_repeatable=True, contents=("path",))

    def reads(self, params: FilesRowsParams) -> Sequence[str]:
        return (params.path,)

    async def run(self, params: FilesRowsParams, tools: Tools) -> FilesRowsOutput:
        path = resolve_path(tools.roots, params.path)
        data = await asyncio.to_thread(_read_bytes, path, params.max_bytes)
        if len(data) < _THREAD_FROM_BYTES and data.isascii():  # an encoding may take a second
            return _rows_output(data, path, params, tools.log)
        return await asyncio.to_thread(_rows_output, data, path, params, tools.log)


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    name = f"'{printable(path.name)}'"
    try:
        data = read_file(path, max_bytes)
    except NotRegularFile as error:
        raise StepError(f"{name} is {error.what}.", kind="io") from error
    except OSError as error:
        raise os_refusal(f"{name} cannot be read", error) from error
    if len(data) > max_bytes:
        raise StepError(
            f"{name} has more than the {max_bytes:,} bytes that `max_bytes` allows.",
            remedy="Raise `max_bytes` to read it.",
        )
    return data


def _rows_output(data: bytes, path: Path, params: FilesRowsParams, log: StepLog) -> FilesRowsOutput:
    name = f"'{printable(path.name)}'"
    try:
        decoded = decode_text(data, params.encoding)
        text = decoded.text
        names = None if params.columns is None else list(params.columns)
        format_: str = params.format
        if format_ == "auto":
            by_content = "jsonl" if text.lstrip().startswith("{") else "csv"
            format_ = {**FORMAT_OF_SUFFIX, ".tab": "tsv"}.get(path.suffix.lower(), by_content)
        table = parse_rows(text, format_, names, params.header)
        if isinstance(params.columns, dict):
            typed_rows(table, params.columns)
        for note in (*decoded.notes, *table.notes):
            log.note(f"{name}{after_name(note)}.")
    except UnclearEncoding as error:
        raise StepError(f"{name} cannot be read: {error}.", remedy=error.remedy) from error
    except NotText as error:
        remedy = "Save the sheet as CSV, or read it as text with `files.read`."
        is_sheet = data.startswith(b"PK")
        raise StepError(f"{name} is not text: {error}.", remedy=remedy * is_sheet) from error
    except UnreadableRows as error:
        raise StepError(f"{name} {error}.", remedy=error.remedy) from error
    # Not validated: these are our own values, perhaps a million.
    return FilesRowsOutput.model_construct(
        rows=table.rows, columns=table.columns, count=len(table.rows)
    )
