"""Truncation of texts and messages that do not fit into a prompt, where its author allows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from paddock.engine.request import Message
from paddock.engine.system.records import replace
from paddock.engine.system.text import without_middle

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


MostCharacters = Callable[[int, Callable[[int], list[Message]]], Awaitable[int]]
"""Of so many characters, how many fit, by the messages that have so many."""


async def truncate_messages(
    messages: list[Message], most_characters: MostCharacters
) -> tuple[list[Message], int, str]:
    """Leave out the middle of the longest message: instructions are at either end.

    Return the messages, how many characters were cut, and a note that says so.
    """
    where = max(range(len(messages)), key=lambda index: len(messages[index].content))
    text = messages[where].content

    def kept(n: int) -> list[Message]:
        message = replace(messages[where], content=without_middle(text, n))
        return [*messages[:where], message, *messages[where + 1 :]]

    n = await most_characters(len(text), kept)
    n_cut = len(text) - n
    note = (
        f"the prompt does not fit: {n_cut:,} of its {len(text):,} characters were "
        f"left out of the middle (on_overflow: truncate)."
    )
    return kept(n), n_cut, note
