"""Where sentences end: as UAX #29 has it, with the marks of many scripts.

They do not end behind what has the form of an abbreviation: a letter, an ordinal, a short word
without a vowel (`Dr.`, `bzw.`), or one before a number (`No. 5`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_MARKS = r".!?\u2026\u061f\u06d4\u0589\u0964\u0965\u1362\u104b\u17d4"
"""Latin, Greek and Cyrillic; Arabic, Armenian, Devanagari, Ethiopic, Burmese, Khmer."""
SENTENCE_END = re.compile(
    rf"(?<![{_MARKS}])[{_MARKS}]+[\"')\]\u201c\u201d\u2018\u2019\u00ab\u00bb*_]*(?=\s|\Z)"
    r"|[\u3002\uff01\uff1f\uff61]+[\"')\]\u201d\u2019\u300d\u300f\uff09]*"
    # Thai and Lao write no mark: a space ends a sentence, or a clause.
    r"|(?<=[\u0e00-\u0eff])(?=\s+[\u0e00-\u0eff])"
)
_ABBREVIATED = re.compile(
    r"(?:\b(?:[^\W\d_]|[^\W\d_]\.[^\W\d_]|[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{1,4})"
    r"|(?<!\S)\d{1,2})\.\Z"
)
_SHORT_WORD = re.compile(r"\b[^\W\d_]{1,4}\.\Z")
_LOOK_BACK_CHARS = 12


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield the offsets of each sentence of `text[start:end]`, without white space around it.

    >>> text = "Mr. Fell came on 3. May at 7.30 a.m. He left. \u6625\u8336\u3002\u4ef7\u683c\u3002"
    >>> [text[begin:end] for begin, end in sentence_spans(text)]
    ['Mr. Fell came on 3. May at 7.30 a.m. He left.', '\u6625\u8336\u3002', '\u4ef7\u683c\u3002']
    """
    stop = len(text) if end is None else end
    begin = start
    for match in SENTENCE_END.finditer(text, start, stop):
        at = match.end()
        first, after = max(begin, at - _LOOK_BACK_CHARS), text[at : min(at + 2, stop)].strip()[:1]
        forms = (_ABBREVIATED, _SHORT_WORD) if after.isdecimal() else (_ABBREVIATED,)
        if match[0] == "." and any(form.search(text, first, at) for form in forms):
            continue
        if after.islower():
            continue  # "It cost (gross!) five euros."
        yield from _stripped(text, begin, match.end())
        begin = match.end()
    yield from _stripped(text, begin, stop)


def _stripped(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    part = text[start:end]
    bare = part.strip()
    if bare:
        begin = start + len(part) - len(part.lstrip())
        yield begin, begin + len(bare)
