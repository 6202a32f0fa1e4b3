"""How long an answer is: counted, or held between bounds."""

from __future__ import annotations

import re
from typing import Any

from .leaves import text_of

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+(?:['\u2019.,:/@-]\w+)*")
_SENTENCE = re.compile(
    r"(?<![.!?…])[.!?…]+[\"'\u201d\u2019»)\]]*(?=\s|$)|[\u3002\uff01\uff1f]+|\n{2,}"
)


def words(value: Any, least: int | None = None, most: int | None = None) -> int | str | None:
    """Count the words of a text (`words(output.text) <= 80`), or hold them between bounds.

    >>> words("The ferry's 9:30 run."), words("one two three", most=2)
    (4, 'It has 3 words; write at most 2.')
    """
    n = sum(1 for _ in _WORD.finditer(text_of(value)))
    return _held(n, "word", least, most)


def sentences(value: Any, least: int | None = None, most: int | None = None) -> int | str | None:
    """Count the sentences of a text, or hold them between bounds.

    >>> sentences("It is late. Is it? Yes"), sentences("One.", least=2)
    (3, 'It has 1 sentence; write at least 2.')
    """
    parts = (part for part in _SENTENCE.split(text_of(value)) if part.strip())
    return _held(sum(1 for _ in parts), "sentence", least, most)


def _held(n: int, unit: str, least: int | None, most: int | None) -> int | str | None:
    for bound in (least, most):
        if bound is not None and (not isinstance(bound, int) or bound < 0):
            raise ValueError(f"a bound is a whole number, not {bound!r}")
    if least is None and most is None:
        return n
    has = f"It has {n:,} {unit}" + ("" if n == 1 else "s")
    if least is not None and n < least:
        return f"{has}; write at least {least:,}."
    if most is not None and n > most:
        return f"{has}; write at most {most:,}."
    return None
