"""Read the rows of one CSV, TSV, JSONL or JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from paddock.pipelines.quantities import SizeBytes

from .files_read import DEFAULT_MAX_BYTES
from .places import place, refusal, shown
from .step import Output, Params, StepError, Tools

if TYPE_CHECKING:
    from paddock.engine.request import Role

_SLOW_FROM_BYTES = 256 * 1024


class FilesRowsParams(Params):
    """Parameters of `files.rows`."""

    path: str = Field(min_length=1, description="The file.")
    format: Literal["auto", "csv", "tsv", "jsonl", "json"] = Field(
        default="auto", description="How it is written; by default found out from its name."
    )
    columns: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Which columns, in this order; by default all. In a file without a header "
        "(`header: false`) the names of its columns.",
    )
    header: bool = Field(default=True, description="Whether the first row names the columns.")
    encoding: str = Field(default="auto", description="Its encoding; by default found out.")
    max_bytes: SizeBytes = Field(
        default=DEFAULT_MAX_BYTES, description="A larger file is a failure. Default: 64MiB."
    )

    @field_validator("columns")
    @classmethod
    def _are_different(cls, value: list[str] | None) -> list[str] | None:
        for name in value or ():
            if (value or []).count(name) > 1:
                raise ValueError(f"column '{name}' is named twice")
        return value


class FilesRowsOutput(Output):
    """Outputs of `files.rows`: each row by the names of its columns.

    What comes from CSV is text, an empty cell an empty text; JSON keeps its types.
    """

    rows: list[dict[str, Any]]
    columns: list[str]
    count: int


class FilesRows:
    """The rows of a CSV, TSV, JSONL or JSON file; delimiter and encoding are found out."""

    params: ClassVar[type[FilesRowsParams]] = FilesRowsParams
    output: ClassVar[type[FilesRowsOutput]] = FilesRowsOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = True
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: FilesRowsParams) -> Sequence[str]:
        """Name the file."""
        return (params.path,)

    async def run(self, params: FilesRowsParams, tools: Tools) -> FilesRowsOutput:
        """Read them.

        Raises:
            StepError: it cannot be read, or is not what it says; the reason says where.
        """
        path = place(tools.roots, params.path)
        data = _data(path, params.max_bytes)
        if len(data) < _SLOW_FROM_BYTES:
            return _output(data, path, params)
        import asyncio

        return await asyncio.to_thread(_output, data, path, params)


def _data(path: Path, max_bytes: int) -> bytes:
    name = f"'{shown(path.name)}'"
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "cannot be read: it is not there"
            raise StepError(f"{name} {what}.", kind="io")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise refusal(f"{name} cannot be read", error) from error
    if len(data) > max_bytes:
        raise StepError(
            f"{name} has more than the {max_bytes:,} bytes that `max_bytes` allows.",
            remedy="Raise `max_bytes` to read it.",
        )
    return data


def _output(data: bytes, path: Path, params: FilesRowsParams) -> FilesRowsOutput:
    from paddock.steps.readers.encodings import NotText, decode

    from . import rows

    name = f"'{shown(path.name)}'"
    try:
        text = decode(data, params.encoding).text
        table = rows.read(text, _format(path, params.format, text), params.columns, params.header)
    except NotText as error:
        remedy = "Save the sheet as CSV, or read it as text with `files.read`."
        is_sheet = data.startswith(b"PK")
        raise StepError(f"{name} is not text: {error}.", remedy=remedy * is_sheet) from error
    except LookupError as error:
        remedy = "Try `utf-8`, or leave it out."
        raise StepError(f"'{params.encoding}' is no known encoding.", remedy=remedy) from error
    except rows.NoRows as error:
        raise StepError(f"{name} {error}.", remedy=error.remedy) from error
    # Made without validation: these are our own values, and there may be a million.
    return FilesRowsOutput.model_construct(
        rows=table.rows, columns=table.columns, count=len(table.rows)
    )


def _format(path: Path, wish: str, text: str) -> str:
    if wish != "auto":
        return wish
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return "jsonl"
        case ".json":
            return "json"
        case ".tsv" | ".tab":
            return "tsv"
        case ".csv":
            return "csv"
    return "jsonl" if text.lstrip().startswith("{") else "csv"
