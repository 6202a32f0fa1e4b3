"""Truncation of texts that do not fit into a prompt, where its author allows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

_CLOSE_ENOUGH = 0.98
_LEAST_KEPT = 0.9
"""Of what fits: how far to go back for the end of a word."""


async def most_that_fits(fits: Callable[[int], Awaitable[bool]], n: int) -> int:
    """Return the largest of 0 … `n` that fits, to within 2 %, by bisection; 0 if none does."""
    if await fits(n):
        return n
    low, high = 0, n
    while high - low > 1 and low < _CLOSE_ENOUGH * high:
        middle = (low + high) // 2
        if await fits(middle):
            low = middle
        else:
            high = middle
    return low


def first_part(text: str, n_characters: int) -> str:
    """Return the beginning, up to the end of a word if one ends in its last tenth.

    Chinese, a line of JSON or a long URL has no space near the end: it is cut anywhere.

    >>> first_part("one two three four five", 20), first_part("one" * 9, 10)
    ('one two three four', 'oneoneoneo')
    """
    if n_characters >= len(text):
        return text
    cut = text[:n_characters]
    if text[n_characters].isspace():
        return cut.rstrip()
    least = int(_LEAST_KEPT * n_characters)
    space = next((at for at in range(n_characters - 1, least - 1, -1) if cut[at].isspace()), None)
    return cut if space is None else cut[:space].rstrip()
