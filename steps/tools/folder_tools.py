"""The built-in tools on files of allowed folders: search and read."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any
from unicodedata import normalize

from pydantic import BaseModel, ConfigDict, Field

from paddock.engine.system.text import counted, listed
from paddock.steps.base import OutsideRoots, Roots, StepError, ToolResult
from paddock.steps.files.folder_walk import FolderWalk
from paddock.steps.files.globs import BadPattern, Globs
from paddock.steps.paths import printable, resolve_path
from paddock.steps.readers import documents, reader_process

from .tool import ToolContext, tool_refusal, tool_result

_MOST_DOCUMENT_BYTES = 16 * 1024 * 1024
_SEARCHED_BYTES = 2 * 1024 * 1024
"""Larger documents are only found by name."""
_MOST_SEARCHED = 1_000
_LINE_CHARS = 300
_WITHOUT_OCR = reader_process.ReadOptions(ocr=False)


async def read_file(
    given: ReadArguments, options: FolderOptions, within: ToolContext
) -> ToolResult:
    """Return a part of a document's text.

    Raises:
        StepError: the folder itself cannot be used.
    """
    folder, path = resolve_path(within.roots, options.root), given.path
    try:
        file = _path_within(folder, path, within.roots.outside)
        document = await documents.load_document(
            file,
            _WITHOUT_OCR,
            readers=within.readers,
            log=within.log,
            max_bytes=_MOST_DOCUMENT_BYTES,
        )
    except (OutsideRoots, OSError, RuntimeError, ValueError):
        return tool_refusal(f"'{printable(path)[:200]}' is not a document in this folder.")
    except StepError as error:
        return tool_refusal(error.reason.replace(f"{folder}/", ""))
    text = document.text
    part = text[given.offset : given.offset + given.limit]
    end = given.offset + len(part)
    left = max(len(text) - end, 0)
    value = {"path": path, "text": part, "offset": given.offset, "left": left}
    note = f"\n[{left:,} characters follow; continue at offset {end}]" if left else ""
    return tool_result(value, part + note)


async def search_folder(
    given: SearchArguments, options: FolderOptions, within: ToolContext
) -> ToolResult:
    """Return documents whose names match, with the lines that contain the words.

    Raises:
        StepError: the folder itself cannot be used.
    """
    folder = resolve_path(within.roots, options.root)
    try:
        globs = Globs.of([given.pattern])
    except BadPattern as error:
        return tool_refusal(f"{error}.")
    found = await asyncio.to_thread(_visible_files, folder, globs)
    unread: list[str] = []
    if given.query.strip():
        hits = await _search_texts(found, given, folder, within, unread)
    else:
        hits = [{"path": relpath, "bytes": size} for relpath, size in found[: given.limit]]
    lines = list(map(_hit_line, hits)) or ["Nothing was found."]
    if unread:
        many = counted(len(unread), "document was", "documents were")
        note = f"{many} not searched, being too large, too many or not readable: {listed(unread)}"
        within.log.note(f"'{printable(options.root)}': {note}.")
        lines.append(f"[{note}]")
    return tool_result(hits, "\n".join(lines))


async def _search_texts(
    files: Sequence[tuple[str, int]],
    given: SearchArguments,
    folder: Path,
    within: ToolContext,
    unread: list[str],
) -> list[dict[str, Any]]:
    """Return lines that contain the words; documents that are not searched go to `unread`."""
    hits: list[dict[str, Any]] = []
    for index, (relpath, size) in enumerate(files):
        if len(hits) >= given.limit:
            break
        is_read = index < _MOST_SEARCHED and size <= _SEARCHED_BYTES
        text = await _searched_text(folder / relpath, within) if is_read else None
        hits += _hits_in(text or "", relpath, given.query, given.limit - len(hits))
        unread += [relpath] if text is None else []
    return hits


def _path_within(folder: Path, path: str, outside: tuple[Path, ...]) -> Path:
    roots = Roots(folder, (folder,), outside=outside)
    file = roots.resolve(path)
    if any(name.startswith(".") for name in file.relative_to(folder).parts):
        raise OutsideRoots(path, roots.allowed)
    return file


def _visible_files(folder: Path, globs: Globs) -> list[tuple[str, int]]:
    """Return relpath and size of each file, without hidden files and links. In a thread."""
    walk = FolderWalk(folder, globs, Globs.of([]), frozenset(), sys.maxsize, ())
    return [(file.relpath, file.facts.st_size) for file in walk.files(None)]


async def _searched_text(file: Path, within: ToolContext) -> str | None:
    """Return a document's text; None for an image or a broken file."""
    try:
        document = await documents.load_document(
            file, _WITHOUT_OCR, readers=within.readers, log=within.log, max_bytes=_SEARCHED_BYTES
        )
    except StepError:
        return None
    return document.text


def _hits_in(text: str, relpath: str, query: str, most: int) -> Iterator[dict[str, Any]]:
    """Yield the first lines that contain every word, in any case, whatever its accents are made of.

    A document of macOS may have an accent as a character of its own.
    """
    words = normalize("NFC", query).casefold().split()
    found = (
        {"path": relpath, "line": number, "text": line.strip()[:_LINE_CHARS]}
        for number, line in enumerate(text.splitlines(), 1)
        if all(word in normalize("NFC", line).casefold() for word in words)
    )
    return islice(found, most)


def _hit_line(hit: dict[str, Any]) -> str:
    if "line" in hit:
        return f"{hit['path']}:{hit['line']}: {hit['text']}"
    return f"{hit['path']} ({hit['bytes']:,} bytes)"


class ToolArguments(BaseModel):
    """Base of a built-in tool's arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class SearchArguments(ToolArguments):
    """What to look for, and where."""

    query: str = Field(default="", description="Words that a line must contain, in any case.")
    pattern: str = Field(default="**/*", description="A glob that files must match: `*.md`.")
    limit: Annotated[int, Field(ge=1, le=200)] = Field(default=20, description="The most results.")


class ReadArguments(ToolArguments):
    """A document, and a part of it."""

    path: str = Field(description="The document, relative to the allowed folder.")
    offset: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The first character to return."
    )
    limit: Annotated[int, Field(ge=1, le=200_000)] = Field(
        default=20_000, description="The most characters to return."
    )


class FolderOptions(ToolArguments):
    """Options of `files.read` and `files.search`, set by the author."""

    root: str = Field(default=".", min_length=1)
