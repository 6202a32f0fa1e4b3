"""Bounds of a text's tokens, whatever the vocabulary.

The upper bound is for what must fit, the lower one for what must have been read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paddock.engine.request import Message

# Around each message a template writes its role and marks: 4 to 12 tokens with common ones.
MESSAGE_TOKENS = 12
# Before a conversation some templates write a system text of their own (SmolLM2's has 22).
OPENING_TOKENS = 32

_WORD = re.compile(r"[A-Za-z]+|[0-9]|[^\x00-\x7f]|\n+|[^\sA-Za-z0-9]")
_LONGEST_WORD = 24
_HAN = re.compile(r"[\u3400-\u9fff]+")
_HAN_TOKENS = 0.2  # stock phrases of politics have 0.2 in the vocabulary that knows most of them
_DIGITS = re.compile(r"\d+")
_NUMBERS_IN_TOKEN = 3  # "1,5" and "10:00" are single tokens of some vocabularies
_SPACES = re.compile(r"[ \t\r\f\v]{2,}")


def most_tokens(text: str) -> int:
    """Return a number that no common tokenizer exceeds on ordinary text.

    Two letters of the Latin alphabet are a token at the least in what vocabularies of 32,000 and
    more make of Europe's languages; a digit and a sign count as one each, so do the letters of
    what is no word (keys, base64); another character counts as many as it has bytes.

    >>> most_tokens("The ferry leaves at 7:40."), most_tokens("")
    (14, 0)
    """
    n_tokens = sum(map(_most_in_word, _WORD.findall(text)))
    return n_tokens + sum(len(run) // 2 for run in _SPACES.findall(text))


def _most_in_word(word: str) -> int:
    if not (word.isascii() and word.isalpha()):
        return len(word.encode())
    is_a_word = word[1:].islower() or word.isupper() or len(word) == 1
    return (len(word) + 1) // 2 if is_a_word and len(word) <= _LONGEST_WORD else len(word)


def least_tokens(text: str) -> int:
    """Return a number that every common tokenizer reaches.

    No vocabulary joins two words that a space divides. Characters of Chinese are 0.44 to 2 tokens
    each in running text, and stock phrases are one token for up to ten, so that a pair counts once.
    Held against the fewest tokens of 21 vocabularies by
    `tests/engine/backends/test_token_counting.py`.

    >>> least_tokens("The ferry — leaves at 7:40.")
    5
    """
    pairs: set[str] = set()
    n_tokens = 0.0
    for word in text.split():
        n_before = len(pairs)
        for run in _HAN.findall(word):
            pairs.update(run[at : at + 2] for at in range(len(run) - 1))
        n_han = (len(pairs) - n_before) * _HAN_TOKENS
        n_numbers = len(_DIGITS.findall(word)) / _NUMBERS_IN_TOKEN
        if any(sign.isalnum() for sign in word):
            n_tokens += max(1.0, n_han, n_numbers)
    return int(n_tokens)


def most_in_chat(messages: Sequence[Message]) -> int:
    """Return an upper bound for a conversation, a template's additions included."""
    return OPENING_TOKENS + sum(
        most_tokens(text) + MESSAGE_TOKENS
        for text in [
            message.content
            + message.reasoning
            + "".join(f"{call.name} {dict(call.arguments)}" for call in message.tool_calls)
            for message in messages
        ]
    )


def least_in_chat(messages: Sequence[Message]) -> int:
    """Return a lower bound for a conversation, whatever its template leaves out of reasoning."""
    return sum(least_tokens(message.content) for message in messages)
