"""The tools `files.search` and `files.read`: find and read documents in one folder.

They never look above the folder, nor into hidden files and folders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paddock.steps.base import DocumentReaders, OutsideRoots, Roots, StepError, ToolResult
from paddock.steps.paths import printable, resolve_path

from .tool import ToolContext, tool_refusal, tool_result

_MOST_DOCUMENT_BYTES = 16 * 1024 * 1024
_SEARCHED_BYTES = 2 * 1024 * 1024
"""Of a document that is searched: larger ones are only found by name."""
_MOST_SEARCHED = 1_000
_LINE_CHARS = 300


async def read_file(
    within: ToolContext, root: str, path: str, offset: int, limit: int
) -> ToolResult:
    """Return a part of a document's text.

    Raises:
        StepError: the folder itself cannot be used.
    """
    from paddock.steps.readers import documents

    folder = resolve_path(within.roots, root)
    try:
        file = _path_within(folder, path)
        document = await documents.load_document(
            file, readers=within.readers, max_bytes=_MOST_DOCUMENT_BYTES, ocr=False
        )
    except (OutsideRoots, OSError, RuntimeError, ValueError):
        return tool_refusal(f"'{printable(path)[:200]}' is no document in this folder.")
    except StepError as error:
        return tool_refusal(error.reason.replace(f"{folder}/", ""))
    text = document.text
    part = text[offset : offset + limit]
    left = len(text) - offset - len(part)
    value = {"path": path, "text": part, "offset": offset, "left": max(left, 0)}
    more = (
        f"\n[{left:,} characters follow; go on at offset {offset + len(part)}]" if left > 0 else ""
    )
    return tool_result(value, part + more)


async def search_folder(
    within: ToolContext, root: str, query: str, pattern: str, *, most: int
) -> ToolResult:
    """List documents whose names match, with the lines that hold the words asked for.

    Raises:
        StepError: the folder itself cannot be used.
    """
    from paddock.steps.files.walk import BadPattern, Globs

    folder = resolve_path(within.roots, root)
    try:
        globs = Globs.of([pattern])
    except BadPattern as error:
        return tool_refusal(f"{error}.")
    found = await asyncio.to_thread(_visible_files, folder, globs)
    hits: list[dict[str, Any]] = []
    if not query.strip():
        hits = [{"path": relpath, "bytes": size} for relpath, size in found[:most]]
    else:
        for relpath, size in found[:_MOST_SEARCHED]:
            if len(hits) >= most:
                break
            hits += await _matching_lines(
                within.readers, folder / relpath, relpath, size, query, most - len(hits)
            )
    if not hits:
        return tool_result([], "Nothing was found.")
    return tool_result(hits, "\n".join(map(_hit_line, hits)))


def _path_within(folder: Path, path: str) -> Path:
    """Return a document's place.

    Raises:
        OutsideRoots: it lies elsewhere, or is hidden.
    """
    roots = Roots(folder, (folder,))
    file = roots.resolve(path)
    if any(name.startswith(".") for name in file.relative_to(folder).parts):
        raise OutsideRoots(path, roots.allowed)
    return file


def _visible_files(folder: Path, globs: Any) -> list[tuple[str, int]]:
    """List what is there: relpath and size, hidden files and links aside. In a thread."""
    from paddock.steps.files.walk import FolderWalk, Globs

    walk = FolderWalk(folder, globs, Globs.of([]), frozenset(), None, ())
    return [(one.relpath, one.facts.st_size) for one in walk.files(None)]


async def _matching_lines(
    readers: DocumentReaders | None, file: Path, relpath: str, size: int, query: str, most: int
) -> list[dict[str, Any]]:
    """Return the lines of a document that hold every word, in any case."""
    from paddock.steps.readers import documents

    if size > _SEARCHED_BYTES:
        return []
    try:
        document = await documents.load_document(
            file, readers=readers, max_bytes=_SEARCHED_BYTES, ocr=False
        )
    except StepError:
        return []  # an image, a broken file: it holds no words that could be found
    return list(_hits_in(document.text, relpath, query, most))


def _hits_in(text: str, relpath: str, query: str, most: int) -> Iterator[dict[str, Any]]:
    words = query.casefold().split()
    for number, line in enumerate(text.splitlines(), 1):
        folded = line.casefold()
        if all(word in folded for word in words):
            yield {"path": relpath, "line": number, "text": line.strip()[:_LINE_CHARS]}
            most -= 1
            if most <= 0:
                return


def _hit_line(hit: dict[str, Any]) -> str:
    if "line" in hit:
        return f"{hit['path']}:{hit['line']}: {hit['text']}"
    return f"{hit['path']} ({hit['bytes']:,} bytes)"
