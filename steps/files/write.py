"""The step `files.write`: write one file atomically, and never over a person's edits.

Order: temporary file in the same folder → fsync → the ledger records the intent → rename → the
ledger records the result. A kill between any two leaves the old or the new file, and the ledger
knows both.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, ClassVar, Literal

from pydantic import Field

from paddock.engine.system import no_links
from paddock.engine.system.files import TemporaryFile
from paddock.engine.system.tasks import in_left_thread
from paddock.pipelines.expressions import Template
from paddock.steps.base import Output, Params, Step, StepError, Tools
from paddock.steps.facts import Facts, brings_none
from paddock.steps.paths import file_sha256, printable, refusing, resolve_path
from paddock.steps.prompt import render_template

from .row_formats import (
    FORMAT_OF_SUFFIX,
    WRITTEN_SUFFIXES,
    UnreadableRows,
    count_rows,
    excel_sheet,
    format_rows,
)

_THREAD_FROM_ROWS = 1_000  # about 5 ms


class FilesWriteParams(Params):
    """Parameters of `files.write`."""

    paths: ClassVar[tuple[str, ...]] = ("path",)

    one_of: ClassVar[tuple[str, ...]] = ("text", "template", "rows")

    path: str = Field(min_length=1, description="The file; missing folders are created.")
    text: str | None = Field(default=None, description="What to write.")
    template: Template | None = Field(default=None, description="A template of what to write.")
    rows: list[Any] | None = Field(
        default=None,
        description="Rows to write, mappings of names: as CSV, TSV, JSONL, JSON or XLSX by the "
        "suffix.",
    )
    delimiter: Literal[",", ";", "|"] = Field(
        default=",",
        description="What separates the cells of CSV; `;` where Excel has a comma in its numbers.",
    )
    bom: bool = Field(
        default=False,
        description="Begin the file with the mark by which Excel knows UTF-8 (é instead of Ã©).",
    )
    waiting: list[str] = Field(
        default=[],
        description="Keys of items that wait for review (`steps.each.waiting`): each is one more "
        "row, with its key in the first column and `true` in the column `waiting`.",
    )
    vars: dict[str, Any] = Field(default={}, description="More names that the template may use.")
    on_edited: Literal["keep", "overwrite", "fail"] = Field(
        default="keep",
        description="What happens to a file that Paddock did not write, or that was edited.",
    )

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> tuple[str, ...]:
        lacks = "waiting" in given and "rows" not in given
        stray = ("`waiting` belongs to `rows`. A template can read it by itself.",) if lacks else ()
        return (*super().faults(given), *stray)

    @classmethod
    def path_fault(cls, path: str, given: Collection[str]) -> tuple[str, str] | None:
        name = path.rpartition("/")[2]
        suffix = PurePath(name).suffix.lower()
        if not name:
            return f"'{printable(path)}' names a folder; `path` must name a file.", ""
        if "rows" not in given or suffix in WRITTEN_SUFFIXES or "…" in (suffix or name):
            return None
        known = ", ".join(f"`{suffix}`" for suffix in WRITTEN_SUFFIXES)
        return f"'{printable(name)}' has no suffix of a format for rows.", f"End it in {known}."


class FilesWriteOutput(Output):
    """Outputs of `files.write`: the absolute path, and whether its content has changed."""

    path: str
    changed: bool


class FilesWrite(Step[FilesWriteParams, FilesWriteOutput]):
    """Text, a template or rows (CSV, TSV, JSONL, JSON, XLSX) to a file, atomically."""

    params = FilesWriteParams
    output = FilesWriteOutput
    facts = Facts(is_repeatable=True, writes="path", table="rows", brings_text=brings_none)

    async def run(self, params: FilesWriteParams, tools: Tools) -> FilesWriteOutput:
        """Write it, unless it has this content already or was edited."""
        if found := params.path_fault(params.path, params.model_fields_set):
            raise StepError(found[0], remedy=found[1])
        path = resolve_path(tools.roots, params.path)
        tools.outputs.check_target(path)
        data = await _bytes_to_write(params, path, tools)
        sha256 = hashlib.sha256(data).hexdigest()
        there = None
        if os.path.lexists(path):  # noqa: ASYNC240 - a thread takes longer
            there = await in_left_thread(file_sha256, path, "written", "`path` must name a file")
        if there == sha256:
            await tools.outputs.intend(path, sha256, len(data))
            await tools.outputs.wrote(path, sha256, len(data))
            return FilesWriteOutput(path=str(path), changed=False)
        may_replace = (
            there is None
            or params.on_edited == "overwrite"
            or tools.outputs.takes_over
            or there in await tools.outputs.known_sha256(path)  # it is ours
        )
        if not may_replace:
            await tools.outputs.holds(path, sha256)
            what = f"'{printable(path)}' was edited, or is not ours"
            if params.on_edited == "fail":
                raise StepError(
                    f"{what}, and `on_edited` is `fail`.",
                    remedy="Move it away, set `on_edited` to `keep` or `overwrite`, or run with "
                    "`--take`.",
                )
            tools.log.note(f"{what}: it is kept as it is.")
            return FilesWriteOutput(path=str(path), changed=False)
        is_table = there is not None and params.rows is not None
        if is_table and not await _may_lose(path, params, tools):
            return FilesWriteOutput(path=str(path), changed=False)
        aside = await _to_temporary_file(path, data, is_new=there is None)
        try:
            with refusing(f"'{printable(path)}' cannot be written"):
                await tools.outputs.intend(path, sha256, len(data))
                # The folder is not synced: a rename that a power cut undoes shows as stale later.
                aside.replace(path)
        finally:
            aside.close()
        await tools.outputs.wrote(path, sha256, len(data))
        return FilesWriteOutput(path=str(path), changed=True)


async def _may_lose(path: Path, params: FilesWriteParams, tools: Tools) -> bool:
    """Return whether a table may be replaced: a person is asked first if it loses most rows."""
    n_now = sum(row is not None for row in _with_waiting(params))
    with refusing(f"'{printable(path)}' cannot be read"):
        before = await asyncio.to_thread(path.read_bytes)
    suffix, delimiter = path.suffix.lower(), params.delimiter
    n_before = await asyncio.to_thread(count_rows, before, suffix, delimiter)
    return n_now >= n_before or tools.outputs.may_lose_rows(path, n_before, n_now)


async def _bytes_to_write(params: FilesWriteParams, path: Path, tools: Tools) -> bytes:
    if params.rows is not None:
        text = await _table(_with_waiting(params), path, params.delimiter, tools)
        if isinstance(text, bytes):
            return text
    elif params.template is not None:
        text = render_template(params.template, "template", params.vars)
    elif params.text is not None:
        text = params.text
    else:
        given = "rows" if "rows" in params.model_fields_set else "text"
        raise StepError(f"`{given}` is null, so there is nothing to write.")
    try:
        return text.encode("utf-8-sig" if params.bom else "utf-8")
    except UnicodeEncodeError as error:
        raise StepError(f"the text has half a character at position {error.start}.") from error


WAITING_COLUMN = "waiting"


def _with_waiting(params: FilesWriteParams) -> list[Any]:
    """Return the rows, and after them one for each item that waits, in the same columns."""
    rows = params.rows or []
    if "waiting" not in params.model_fields_set:
        return rows
    known = [row for row in rows if isinstance(row, dict)]
    columns = dict.fromkeys(name for row in known for name in row if name != WAITING_COLUMN)
    first, *others = columns or {"item": None}
    marked = [{**row, WAITING_COLUMN: False} if isinstance(row, dict) else row for row in rows]
    return marked + [
        {first: key, **dict.fromkeys(others), WAITING_COLUMN: True} for key in params.waiting
    ]


async def _table(rows: list[Any], path: Path, delimiter: str, tools: Tools) -> bytes | str:
    """Format rows by the file's suffix; note null rows and escaped cells."""
    name, suffix = f"'{printable(path.name)}'", path.suffix.lower()
    n_guarded = 0
    try:
        if suffix == ".xlsx":
            made: bytes | str = await asyncio.to_thread(excel_sheet, rows)
        else:
            in_thread = len(rows) >= _THREAD_FROM_ROWS
            given = rows, FORMAT_OF_SUFFIX[suffix], delimiter
            written = (
                await asyncio.to_thread(format_rows, *given) if in_thread else format_rows(*given)
            )
            made, n_guarded = written.text, written.n_guarded
    except UnreadableRows as error:
        raise StepError(f"{name} cannot be written: {error}.") from error
    except ImportError as error:
        remedy = "Install the extra: pip install 'paddock-llm[documents]'."
        raise StepError("XlsxWriter is not installed.", remedy=remedy) from error
    if n_null := sum(row is None for row in rows):
        tools.log.note(f"{name}: {n_null} of {len(rows)} rows are null and left out.")
    if n_guarded:
        tools.log.note(
            f"{name}: {n_guarded} cells that a spreadsheet would take for formulas begin "
            f"with an apostrophe; JSONL has them as they are."
        )
    return made


async def _to_temporary_file(path: Path, data: bytes, *, is_new: bool) -> TemporaryFile:
    """Write and sync a temporary file next to `path` in a thread: fsync takes milliseconds."""

    def write() -> TemporaryFile:
        like = None
        if not is_new:
            with suppress(OSError):  # it is gone
                facts = no_links.facts_of(path)
                like = facts if stat.S_ISREG(facts.st_mode) else None
        with refusing(f"'{printable(path)}' cannot be written"):
            return TemporaryFile.written(path, data, like=like, follows_links=False)

    def let_go(written: asyncio.Future[TemporaryFile]) -> None:
        if not written.cancelled() and written.exception() is None:
            written.result().close()

    written = asyncio.get_running_loop().run_in_executor(None, write)
    try:
        return await asyncio.shield(written)
    except asyncio.CancelledError:
        written.add_done_callback(let_go)  # a thread cannot be cancelled; its file is removed later
        raise
