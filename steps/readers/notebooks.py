"""Notebooks of Jupyter: their cells in order, code in fences with the texts that it printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from . import text_files
from .document_kinds import MEDIA_TYPES
from .reader import Document, ReadRequest, Unreadable


def read_ipynb(file: BinaryIO, request: ReadRequest) -> Document:
    text = text_files.read_text_file(file.read(), "txt")
    try:
        book = json.loads(text.text)
        cells = book["cells"] if "cells" in book else book["worksheets"][0]["cells"]  # version 3
        parts = [part for cell in cells for part in _texts(cell, request)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Unreadable("is damaged or not a notebook") from error
    whole = "\n\n".join(filter(None, parts))
    title = text_files.first_heading(whole)
    return Document((whole,), title, MEDIA_TYPES["ipynb"], text.notes)


def _texts(cell: Mapping[str, Any], request: ReadRequest) -> Iterator[str]:
    request.check()
    source = _joined(cell.get("source", cell.get("input", "")))
    if cell["cell_type"] != "code":
        yield source.strip()
        return
    yield _fenced(source)
    for output in cell.get("outputs", ()):
        of_kinds = output.get("data", {})
        words = (
            of_kinds.get("text/markdown") or of_kinds.get("text/plain") or output.get("text", "")
        )
        yield _fenced(_joined(words) or "\n".join(output.get("traceback", ())))


def _joined(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _fenced(text: str) -> str:
    return f"```\n{text.strip()}\n```" if text.strip() else ""
