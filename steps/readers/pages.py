"""The pages of a document, and how they make one text. Imports nothing: reader processes do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

PAGE_BREAK = "\n\n"
"""Stands between two pages in a document's text; offsets into the text count it."""


def joined(texts: Iterable[str]) -> str:
    """Make one text of the pages' texts."""
    return PAGE_BREAK.join(texts)


def starts(pages: Sequence[str]) -> list[int]:
    """Return each page's offset in the joined text."""
    lengths = [len(page) + len(PAGE_BREAK) for page in pages]
    return list(accumulate(lengths[:-1], initial=0)) if pages else []
