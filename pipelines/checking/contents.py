"""What stands in an answer, and what must not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .leaves import listed, shown, text_of

_WORD = re.compile(r"\w+")


def contains(value: Any, *texts: Any) -> str | None:
    """Every one of these texts stands in it, in capitals or not.

    >>> contains("The Ferry", "ferry", "harbour")
    'It does not contain "harbour"; it must.'
    """
    text = _folded(text_of(value))
    missing = [one for one in _each(texts) if _folded(one) not in text]
    return f"It does not contain {_quoted(missing)}; it must." if missing else None


def lacks(value: Any, *texts: Any) -> str | None:
    """None of these texts stands in it, in capitals or not.

    >>> lacks("As an AI, I cannot", "as an ai")
    'It contains "as an ai"; leave that out.'
    """
    text = _folded(text_of(value))
    found = [one for one in _each(texts) if _folded(one) in text]
    return f"It contains {_quoted(found)}; leave that out." if found else None


def one_of(value: Any, *values: Any) -> str | None:
    """It is one of these values: several, or a list of them.

    >>> one_of("blue", ["red", "green"])
    'It is "blue"; it must be one of: red, green.'
    """
    allowed = _flat(values)
    if value in allowed:
        return None
    names = listed([str(one) for one in allowed], 20)
    return f'It is "{shown(str(value))}"; it must be one of: {names}.'


def unique(values: Any, by: str | None = None) -> str | None:
    """No two of a list are the same; `by` names the field that is compared.

    >>> unique([{"id": 1}, {"id": 2}, {"id": 1}], by="id")
    'These stand in it more than once: 1. Keep one of each.'
    """
    if not isinstance(values, list | tuple):
        raise TypeError("`unique` looks at a list")
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for value in values:
        told = value.get(by) if by is not None and isinstance(value, Mapping) else value
        name = _folded(told) if isinstance(told, str) else repr(told)
        if name in seen:
            twice[shown(str(told))] = None
        seen.add(name)
    return (
        f"These stand in it more than once: {listed([*twice])}. Keep one of each."
        if twice
        else None
    )


def differs(value: Any, other: Any, most: float = 0.8) -> str | None:
    """It is no copy: at most so large a share of its words stands in the other text.

    >>> differs("the ferry leaves at nine", "The ferry leaves at nine.")
    'It only repeats the text; write it in other words.'
    """
    own = _WORD.findall(_folded(text_of(value)))
    theirs = set(_WORD.findall(_folded(text_of(other))))
    if not own or sum(word in theirs for word in own) <= most * len(own):
        return None
    return "It only repeats the text; write it in other words."


def _each(texts: tuple[Any, ...]) -> list[str]:
    return [str(one) for one in _flat(texts)]


def _flat(values: tuple[Any, ...]) -> list[Any]:
    """Read several values, or lists of them, as one list."""
    flat: list[Any] = []
    for value in values:
        flat += value if isinstance(value, list | tuple) else [value]
    return flat


def _folded(text: Any) -> str:
    return " ".join(str(text).casefold().split())


def _quoted(texts: list[str]) -> str:
    return listed([f'"{shown(one)}"' for one in texts])
