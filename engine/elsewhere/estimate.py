"""How many tokens a text may have, where nobody can count them: at most, and at least.

Pure. The upper bound is for what must fit, the lower one for what must have been read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from paddock.engine.request import Message

# Around each message a template writes its role and marks: 4 to 12 tokens with common ones.
MESSAGE_TOKENS = 12
# Before a conversation some templates write a system text of their own (SmolLM2's has 22).
OPENING_TOKENS = 32

_WORD = re.compile(r"[A-Za-z]+|[0-9]|[^\x00-\x7f]|\n+|[^\sA-Za-z0-9]")
_LONGEST_WORD = 24
_SPACES = re.compile(r"[ \t\r\f\v]{2,}")


def most_tokens(text: str) -> int:
    """Give a number that no common tokenizer exceeds on ordinary text.

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
    """Give a number that every common tokenizer reaches: words that spaces divide.

    Vocabularies of byte pairs and of sentence pieces alike never join two words into one token.

    >>> least_tokens("The ferry — leaves at 7:40.")
    4
    """
    return sum(1 for word in text.split() if any(sign.isalpha() for sign in word))


def most_in_chat(messages: Sequence[Message]) -> int:
    """Give an upper bound for a conversation, a template's additions included."""
    return OPENING_TOKENS + sum(most_tokens(text) + MESSAGE_TOKENS for text in _texts(messages))


def least_in_chat(messages: Sequence[Message]) -> int:
    """Give a lower bound for a conversation, whatever its template leaves out of reasoning."""
    return sum(least_tokens(message.content) for message in messages)


def _texts(messages: Sequence[Message]) -> list[str]:
    return [
        message.content
        + message.reasoning
        + "".join(f"{call.name} {dict(call.arguments)}" for call in message.tool_calls)
        for message in messages
    ]
