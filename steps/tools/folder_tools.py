"""The built-in tools on files of allowed folders: search and read."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any
from unicodedata import normalize

from pydantic import BaseModel, ConfigDict, Field

from paddock.engine.system.text import counted, listed
from paddock.pipelines.text_marks import unescaped
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
    refusal = tool_refusal(f"'{printable(path)[:200]}' is not a document in this folder.")
    try:
        roots = Roots(folder, (folder,), outside=within.roots.outside)
        file = roots.resolve(path)
        if any(name.startswith(".") for name in file.relative_to(folder).parts):
            return refusal
        document = await documents.load_document(
            file,
            _WITHOUT_OCR,
            readers=within.readers,
            log=within.log,
            max_bytes=_MOST_DOCUMENT_BYTES,
        )
    except (OutsideRoots, OSError, RuntimeError, ValueError):
        return refusal
    except StepError as error:
        return tool_refusal(error.reason.replace(f"{folder}/", ""))
    text = document.text
    part = text[given.offset : given.offset + given.limit]
    end = given.offset + len(part)
    n_left = max(len(text) - end, 0)
    value = {"path": path, "text": part, "offset": given.offset, "left": n_left}
    note = f"\n[{n_left:,} characters follow; continue at offset {end}]" if n_left else ""
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
    # Without hidden files and links
    walk = FolderWalk(folder, globs, Globs.of([]), frozenset(), sys.maxsize, ())
    found = await asyncio.to_thread(walk.files, None)
    unread: list[str] = []
    hits: list[dict[str, Any]] = []
    if not given.query.strip():
        hits = [{"path": file.relpath, "bytes": file.size_bytes} for file in found[: given.limit]]
        lines = [f"{hit['path']} ({hit['bytes']:,} bytes)" for hit in hits]
    else:
        for index, file in enumerate(found):
            if len(hits) >= given.limit:
                break
            text = None
            if index < _MOST_SEARCHED and file.size_bytes <= _SEARCHED_BYTES:
                with suppress(StepError):  # an image, or a broken file
                    document = await documents.load_document(
                        folder / file.relpath,
                        _WITHOUT_OCR,
                        readers=within.readers,
                        log=within.log,
                        max_bytes=_SEARCHED_BYTES,
                    )
                    text = document.text
            if text is None:
                unread.append(file.relpath)
            else:
                hits += _hits_in(text, file.relpath, given.query, given.limit - len(hits))
        lines = [f"{hit['path']}:{hit['line']}: {hit['text']}" for hit in hits]
    lines = lines or ["Nothing was found."]
    if unread:
        many = counted(len(unread), "document was", "documents were")
        note = f"{many} not searched, being too large, too many or not readable: {listed(unread)}"
        within.log.note(f"'{printable(options.root)}': {note}.")
        lines.append(f"[{note}]")
    return tool_result(hits, "\n".join(lines))


def _hits_in(text: str, relpath: str, query: str, most: int) -> Iterator[dict[str, Any]]:
    words = _folded(query).split()
    found = (
        {"path": relpath, "line": number, "text": line.strip()[:_LINE_CHARS]}
        for number, line in enumerate(text.splitlines(), 1)
        if all(map(_folded(line).__contains__, words))
    )
    return islice(found, most)


def _folded(text: str) -> str:
    """Return a text in small letters, as its page shows it: without a reader's backslashes.

    A document of macOS may have an accent as a character of its own.
    """
    return normalize("NFC", unescaped(text)).casefold()


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
