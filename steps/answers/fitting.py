"""Find how much of a text fits, when its author has allowed that it is cut. Calls no model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

_CLOSE_ENOUGH = 0.98
_LEAST_KEPT = 0.9
"""Of what fits: a beginning does not go back further than that to the end of a word."""


async def most(fits: Callable[[int], Awaitable[bool]], n: int) -> int:
    """Give the largest of 0 … `n` that fits, to within 2 %, by halving; 0 if none does."""
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


def without_middle(text: str, n_characters: int, mark: str = "\n[…]\n") -> str:
    """Keep `n_characters`, three quarters from the beginning, the rest from the end.

    >>> without_middle("abcdefgh", 4, "-")
    'abc-h'
    """
    if n_characters >= len(text):
        return text
    head = n_characters * 3 // 4
    return text[:head] + mark + text[len(text) - (n_characters - head) :]


def head(text: str, n_characters: int) -> str:
    """Keep the beginning, to the end of a word where one ends in the last tenth of it.

    Chinese, a line of JSON or a long address has no space near the end: it is cut at the character.

    >>> head("one two three four five", 20), head("one" * 9, 10)
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
