"""The texts in a value: of a text itself, of a list of hits or chunks, of an answer's fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_CHARS = 8_000_000
"""More than this of one value is not read: a check must not hold up a run."""
_MOST_WHOLE = 1e15


def leaves(value: Any, *, with_texts: bool = True, with_numbers: bool = True) -> Iterator[str]:
    """Yield every text and number in nested data, as text.

    >>> list(leaves({"a": ["x", 2], "b": None, "c": True}))
    ['x', '2']
    """
    if isinstance(value, Mapping | list | tuple):
        for held in value.values() if isinstance(value, Mapping) else value:
            yield from leaves(held, with_texts=with_texts, with_numbers=with_numbers)
    elif isinstance(value, str):
        if with_texts:
            yield value
    elif isinstance(value, int | float) and not isinstance(value, bool) and with_numbers:
        is_whole = isinstance(value, float) and value.is_integer() and abs(value) < _MOST_WHOLE
        yield str(int(value)) if is_whole else str(value)


def text_of(value: Any) -> str:
    """Give all texts of a value as one.

    Raises:
        ValueError: it is longer than a check reads.
    """
    text = "\n".join(leaves(value))
    if len(text) > MOST_CHARS:
        raise ValueError(f"a check reads at most {MOST_CHARS:,} characters")
    return text


def listed(words: list[str], most: int = 5) -> str:
    """Give some words as a list for a sentence.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(words[:most])
    return shown if len(words) <= most else f"{shown} and {len(words) - most} more"


def shown(text: str, n_chars: int = 60) -> str:
    """Give a text in one short line."""
    line = " ".join(text.split())
    return line if len(line) <= n_chars else line[: n_chars - 1] + "…"
