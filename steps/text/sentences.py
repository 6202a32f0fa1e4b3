"""Sentences of a document's prose, told apart from headings, tables, quotes and boilerplate.

Lines are joined where a paragraph was wrapped: a page of a PDF has no blank lines, so a line that
had room for the next word ends its paragraph, and a heading stays apart from the text below it.
What is prose is decided by structure, so in any language; only the list of disclaimers is of words.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from paddock.engine.system.records import Struct
from paddock.pipelines.checking.functions import words
from paddock.pipelines.checking.sentence_ends import SENTENCE_END, sentence_spans
from paddock.pipelines.text_tables import find_tables

_FENCE = re.compile(r" {0,3}(?:`{3,}|~{3,})")
_NOT_PROSE = re.compile(r" {0,3}(?:#{1,6}[ \t]|>|\|)|\s*(?:[-=_*~.\u2013\u2014] ?){3,}\s*\Z")
_ITEM = re.compile(r"\s*(?:[-*+\u2022\u2013\u25aa\u25e6\u00b7]|\(?(?:\d{1,3}|[a-z])[.)])\s+")
_KEY_VALUE = re.compile(r"[^.!?:]{1,40}:\s+\S.{0,60}\Z")
_SIGNATURE = re.compile(r"--? ?\Z")
_BOILERPLATE = re.compile(
    r"intended (?:only |solely )?for|intended recipient|received (?:this|it) .{0,40}in error"
    r"|all rights reserved|unsubscribe|copyright|\u00a9|sent from my|do not reply"
    r"|consider the environment|diese (?:e-?mail|nachricht)|nicht der richtige"
    r"|ce (?:message|courriel)|este (?:mensaje|correo)",
    re.IGNORECASE,
)
_LINK = re.compile(r"!?\[[^\]\n]*\]\([^)\n]*\)|https?://\S+|www\.\S+|\S+@\S+\.\w+")
_NO_LETTER = re.compile(r"[\d!-/:-@\[-`{-~]")
_UNMARKED_END = re.compile(r"[\u0e00-\u0eff]\Z")  # Thai, Lao
_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_LINE_BREAK = re.compile(r"\s*\n\s*")

_LEAST_WORDS = 4  # "Dear Sir.", "The roof.", "Resolved."
_MOST_FIGURES = 0.4  # of the characters, with punctuation: more is a row of a table
_MOST_LINK = 0.5  # of the characters: more is a list of links
_FULL_LINE = 0.75  # of the longest line around it: the next word had no room
_CLOSING_WORDS = 4  # "Yours sincerely,", "With many thanks,"
_CLOSING_CHARS = 600  # what may stand below it: names, addresses
_REPEATED_PAGES = 3


class TextSpan(Struct, frozen=True):
    """A piece of a text; `text` has no line breaks, otherwise it is `whole[start:end]`."""

    text: str
    start: int
    end: int

    @classmethod
    def of(cls, whole: str, start: int, end: int) -> TextSpan:
        text = re.sub(rf"(?<=[{_CJK}])\s*\n\s*(?=[{_CJK}])", "", whole[start:end])
        return cls(_LINE_BREAK.sub(" ", text), start, end)


def prose_sentences(text: str, pages: Sequence[str] = ()) -> list[TextSpan]:
    found: dict[str, TextSpan] = {}
    # Lines at the top or the foot of several pages, without their numbers
    seen: Counter[str] = Counter()
    for page in pages:
        lines = [line.strip() for line in page.splitlines() if line.strip()]
        seen.update({_without_numbers(line) for line in (*lines[:2], *lines[-2:])})
    titles = frozenset(line for line, n in seen.items() if n >= _REPEATED_PAGES)
    for start, end in _paragraphs(text, titles):
        for begin, stop in sentence_spans(text, start, end):
            sentence = TextSpan.of(text, begin, stop)
            if _is_prose(sentence.text):
                found.setdefault(sentence.text, sentence)
    return list(found.values())


def text_lines(text: str) -> list[TextSpan]:
    """Return the lines of a text without sentences, such as a table or a list, in order."""
    lines = (TextSpan(m[0].strip(), m.start(), m.end()) for m in re.finditer(r"[^\n]+", text))
    return [line for line in lines if re.search(r"\w", line.text)]


def _is_prose(sentence: str) -> bool:
    if not SENTENCE_END.search(sentence[-4:]) and not _UNMARKED_END.search(sentence):
        return False
    size = len(re.sub(r"\s", "", sentence))
    n_link = sum(len(match[0]) for match in _LINK.finditer(sentence))
    has_letters = len(_NO_LETTER.findall(sentence)) <= _MOST_FIGURES * size
    is_long = int(words(sentence) or 0) >= _LEAST_WORDS
    return (
        has_letters and is_long and n_link < _MOST_LINK * size and not _BOILERPLATE.search(sentence)
    )


class _Line(Struct, frozen=True):
    text: str
    start: int
    is_prose: bool


def _paragraphs(text: str, running_titles: Collection[str]) -> Iterator[tuple[int, int]]:
    """Yield the offsets of paragraphs and list items, without what is no prose."""
    lines = groupby(_marked_lines(text, running_titles), key=lambda line: line.is_prose)
    for run in [[*group] for is_prose, group in lines if is_prose]:
        widest = max(len(line.text) for line in run)
        start: int | None = None
        for index, line in enumerate(run):
            item = _ITEM.match(line.text)
            if start is None:
                start = line.start + (item.end() if item else 0)
            following = run[index + 1].text if index + 1 < len(run) else ""
            is_full = len(line.text.rstrip()) >= _FULL_LINE * widest
            goes_on = following and (following.lstrip()[:1].islower() or is_full)
            if not goes_on or _ITEM.match(following) or _KEY_VALUE.match(line.text):
                yield start, line.start + len(line.text)
                start = None


def _marked_lines(text: str, running_titles: Collection[str]) -> Iterator[_Line]:
    tables = [(table.header[0], table.rows[-1][1]) for table in find_tables(text)]
    is_fenced = is_signature = has_begun = False
    """`has_begun`: a sentence came before, so that "Dear Sir," is past."""
    for match in re.finditer(r"[^\n]*\n?", text):
        line = match[0].rstrip("\n")
        bare = line.strip()
        is_fenced ^= _FENCE.match(line) is not None
        index = bisect_right(tables, match.start(), key=itemgetter(0)) - 1
        in_table = index >= 0 and match.start() <= tables[index][1]
        if has_begun and len(text) - match.start() <= _CLOSING_CHARS:
            is_greeting = bare.endswith(",") and len(line.split()) <= _CLOSING_WORDS
            # Names and addresses follow below it
            is_signature |= is_greeting or _SIGNATURE.match(line) is not None
        is_prose = not (
            is_fenced
            or in_table
            or (is_signature and not bare.upper().startswith(("PS", "P.S.")))
            or not bare
            or _NOT_PROSE.match(line)
            or _without_numbers(bare) in running_titles
        )
        has_begun = has_begun or (is_prose and bool(SENTENCE_END.search(bare[-4:])))
        yield _Line(line, match.start(), is_prose)


def _without_numbers(line: str) -> str:
    return re.sub(r"\d+", "#", line)
