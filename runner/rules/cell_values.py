"""Values in a cell of a page: days, amounts and codes, the words before each, and its sign."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from unicodedata import normalize

from paddock.engine.system.records import Struct
from paddock.pipelines.checking.cldr import is_unit, letter_currency, unit_named
from paddock.pipelines.checking.numbers import PER_HUNDRED
from paddock.pipelines.checking.source_index import SourceIndex
from paddock.pipelines.text_cells import PlacedCell, SourceText

_MOST_LABEL_CHARS = 60
_PROSE_WORDS = 5  # a cell of so many words is a sentence, not a label
_AMOUNT = re.compile(
    "(?<![\\w.,'\u2019/])(?<!\\w[-\u2013])"
    "(?:\\d{1,3}(?:[ \u00a0\u202f.,'\u2019]\\d{3})+|\\d+)(?:[.,]\\d+)?"
    "(?![\\w'\u2019]|/(?!-(?!\\w))|[.,]\\d|[-\u2013]\\w)"
)
WITH_CENTS = re.compile(
    "(?<![\\d.,])(?:\\d+|\\d{1,3}([., '\u00a0\u202f\u2019])(?:\\d{2,3}\\1)*\\d{3}(?!\\1))"
    "[.,]\\d\\d(?![.,]?\\d)"
)
"""An amount; no day such as 01.03.27, and no code."""
_GLUED = re.compile(
    "(?<![^\\W_])(?<!\\w[-./])([^\\W\\d_]{1,3})"
    "(\\d{1,3}(?:[.,'\u2019\u00a0\u202f]\\d{3})+(?:[.,]\\d\\d)?|\\d+[.,]\\d\\d)(?![\\w'\u2019]|[-.,/]\\w)"
)
"""An amount that the letters of its currency touch: `RM1,234.56`."""
_TOKEN = re.compile(r"\S*\d\S*")
_MINUS = "([-\u2212\u2013])?"
_SIGN = "([^\\W\\d_]{1,3}[$\u00a3\u00a5]|[^\\W\\d_]{1,3}\\b|[^\\w\\s.,:;|()'\u2212\u2013-])?"
_SIGN_BEFORE = re.compile(rf"(?:^|[\s(|:]){_MINUS}\s?{_SIGN}\s?{_MINUS}$")
_SIGN_BEHIND = re.compile(rf"\s?{_SIGN}")
_DASH_BEHIND_WORD = re.compile("[^\\W_]\\s+[-\u2212\u2013]\\s+[^-\u2212\u2013]*$")
_PIECE = re.compile("[^\\W\\d_]{1,3}[$\u00a3\u00a5]|[^\\W\\d_]+|\\d+(?:[.,]\\d+)*|[^\\w\\s]")
_DASH_BEFORE_WORD = re.compile("\\s[-\u2212\u2013]\\s+(?=[^\\W\\d_])")
_MARK_RUN = re.compile(r"([^\w\s])\1+")
_END_OF_LABEL, _END_OF_SENTENCE = ".,:;)]%=|+\u00b7\u2026", ".,:;|"
DASHES = dict.fromkeys(map(ord, "\u2212\u2013"), "-")
_NEAR_SIGN = re.compile(r"([(-]*)0([)-]|[a-z]{1,2}$)?")  # `(60.00)`, `60.00-`, `60.00 CR`
_BETWEEN = re.compile(r"[,;:|()]")  # two values, not one that is read in parts
_END_OF_CODE = ".,;:!?()[]|<>\"'*#"
MOST_BEHIND = 400  # characters behind a number that are looked at
_CODE_BEFORE = re.compile(r"(?:^|(?<=\s))([^\W\d_a-z]{2,5}) $")  # the value is the rest of a code
WORD = re.compile(r"[^\W\d_]+")
_SENTENCE_END = re.compile(r"[.!?]\W*$")


def label_of(text: str, signs: set[str] | None = None) -> str:
    """Return the words of a label, folded: without digits, marks, units and signs.

    `signs`: the currencies at its end are added.

    >>> label_of("USt. 7%: EUR"), label_of("## Rechnung-Nr.:")
    ('ust', 'rechnung nr')
    """
    words = [piece for piece in _PIECE.findall(text) if WORD.match(piece) or is_currency(piece)]
    while words and is_currency(words[-1]):
        word = words.pop()
        if signs is not None and is_unit(word):  # not `le`
            signs.add(word)
    return " ".join(filter(WORD.fullmatch, words)).casefold()[-_MOST_LABEL_CHARS:]


def words_of(text: str) -> str:
    return " ".join(WORD.findall(text.replace("_", " "))).casefold()


def name_of(text: str) -> str:
    """Return a cell with a name as it is compared: without marks of headings, and white space."""
    return " ".join(text.strip("#*_ \t").split())


def is_currency(text: str) -> bool:
    unit = unit_named(text)
    return unit is not None and unit.is_currency and (len(text) != 3 or text.isupper())


def currencies_in(text: str) -> dict[str, str]:
    """Return the currencies that a text names, by their signs in it."""
    units = {sign: unit_named(sign) for sign in _currency_signs(_PIECE.findall(text))}
    return {sign: " or ".join(sorted(unit.ids)) for sign, unit in units.items() if unit}


def _currency_signs(pieces: Iterable[str]) -> set[str]:
    return {piece for piece in pieces if is_currency(piece) and is_unit(piece)}  # not `le`


class CellValue(Struct):
    label: str
    """The words before it in its cell."""
    written: str
    start: int
    end: int
    before: str = ""
    """Of a number: what stands between its label and it."""
    behind: str | None = None
    """Of a number: what stands behind it in its cell, without values."""


def is_prose(text: str) -> bool:
    n_words = len(WORD.findall(text))
    return n_words > 1 and (
        n_words > _PROSE_WORDS or bool(_SENTENCE_END.search(text) and n_words > 3)
    )


def _spans_in(text: str) -> dict[tuple[int, int], str]:
    """Return the bounds of days, amounts and codes, none within another, each with its kind."""
    spans = dict[tuple[int, int], str]()

    def is_free(start: int, end: int) -> bool:
        return not any(a < end and start < b for a, b in spans)

    dates = [(d.start, d.end) for d in SourceIndex(text, "und").dates.all()]
    for start, end in sorted(dates, key=lambda span: span[0] - span[1]):  # the longest first
        if is_free(start, end):
            spans[start, end] = "day"
    for amount in _AMOUNT.finditer(text):
        if is_free(*amount.span()):
            spans[amount.span()] = "amount"
    for glued in _GLUED.finditer(text):
        is_sign = is_currency(glued[1]) or letter_currency(glued[1]) is not None
        if is_sign and is_free(*glued.span(2)):
            spans[glued.span(2)] = "amount"
    for token in _TOKEN.finditer(text):
        if is_free(*token.span()):
            code = token[0].strip(_END_OF_CODE)
            if _AMOUNT.fullmatch(code):  # `.60` is not 60
                code = token[0].rstrip(_END_OF_CODE)
            start = token.start() + token[0].find(code)
            spans[start, start + len(code)] = "code"
    return spans


def values_in(cell: PlacedCell, signs: set[str]) -> tuple[list[CellValue], str]:
    """Return the days, amounts and codes of a cell, and its text with 9 for days and amounts.

    `signs`: the currencies of the amounts are added.
    """
    text, found, plain, at = cell.text, list[CellValue](), cell.text, 0
    if not any(map(str.isdigit, text)):
        return found, plain
    for (start, end), kind in sorted(_spans_in(text).items()):
        written, lead, before = text[start:end], text[at:start], ""
        near = text[end:].lstrip(" \u00a0")[:1] if kind == "amount" else ""
        if (unit := unit_named(normalize("NFKC", near))) and unit.ids & PER_HUNDRED:
            continue  # a rate is a part of its label
        plain = plain if kind == "code" else f"{plain[:start]}{9:<{end - start}}{plain[end:]}"
        if kind == "amount":
            cut, own = len(lead), ""
            if (sign := _SIGN_BEFORE.search(lead)) is not None:
                cut = min((sign.start(n) for n in (1, 2, 3) if sign[n]), default=cut)
                own = sign[2] or ""
                is_apart = bool(sign[2]) and lead[sign.end(1)].isspace()  # `Total: - EUR 60.00`
                if sign[1] and (sign[3] or is_apart or _DASH_BEHIND_WORD.search(lead)):
                    own = f"{sign[1]}{own}{sign[3] or ''}"  # `Total - 60.00`: it may part the two
                elif sign[1] or sign[3]:
                    written = f"-{written}"
            before, lead = f"{end_of_label(lead[:cut])} {own}", lead[:cut]
            behind = _SIGN_BEHIND.match(text, end)
            if behind is not None and behind[1] and is_currency(behind[1]):
                signs.add(behind[1])
                end = behind.end()
        label = label_of(lead, signs)
        if found and not label and not _BETWEEN.search(lead):
            value = found[-1]
            value.written, value.end = text[value.start - cell.start : end], cell.start + end
        else:
            found.append(CellValue(label, written, cell.start + start, cell.start + end, before))
        at = end
    for value in found:
        if _AMOUNT.fullmatch(value.written.removeprefix("-")):
            value.behind = plain[value.end - cell.start :][:MOST_BEHIND]
    return found, plain


def end_of_label(text: str) -> str:
    words = (p for p in _PIECE.finditer(text) if p[0].isalnum() and not is_currency(p[0]))
    return text[max((word.end() for word in words), default=0) :]


def around_number(before: str, behind: str, signs: set[str]) -> str:
    """Return what stands around a number, 0, as it is compared; empty: nothing does.

    Without currencies, which are added to `signs`, white space, and marks at the ends of labels and
    sentences; other numbers are 9, but for a rate at the end.

    >>> [around_number(*parts, set()) for parts in ((" (", " EUR)"), (": ", ", incl. 7% VAT."))]
    ['(0)', '0,incl.9%vat']
    """
    texts = list[str]()
    for text in (before, _DASH_BEFORE_WORD.sub("\u2014", behind)):  # between two phrases
        pieces = _PIECE.findall(text)
        found = _currency_signs(pieces)
        signs |= found
        rate = pieces[-2:-1] if pieces[-1:] == ["%"] else []  # of this: `60.00 less 2%`
        kept = ("9" if p[0].isdigit() and [p] != rate else p for p in pieces if p not in found)
        texts.append(_MARK_RUN.sub(r"\1\1", "".join(kept)).casefold())
    left = texts[0].replace("()", "").lstrip(_END_OF_LABEL)
    right = texts[1].rstrip(_END_OF_SENTENCE)
    if len(right) > _MOST_LABEL_CHARS:  # a pack holds it again for each number before it
        right = sha256(right.encode()).hexdigest()[:16]
    return f"{left}0{right}" if left or right else ""


def signed_amounts(source: SourceText, page: int) -> list[tuple[str, int, int]]:
    """Return the amounts of a page with what is or may be their sign, and the bounds of each."""
    found = list[tuple[str, int, int]]()
    for cell in (cell for row in source.rows(source.cells(page)) for cell in row):
        pieces = _PIECE.findall(cell.text)
        for value in values_in(cell, set())[0]:
            written, start, end = value.written, value.start, value.end
            is_amount = not written.isdigit() or any(map(is_currency, pieces))  # not `4711-`
            around = around_number(value.before, value.behind or "", set()).translate(DASHES)
            for before, behind in _NEAR_SIGN.findall(around) if is_amount else ():
                written = f"{before}{written}{' ' if behind.isalpha() else ''}{behind}"
            shown = cell.text[start - cell.start : end - cell.start]
            is_signed = written != value.written or written[0] == "-"
            if is_signed and source.text[start:end] == shown:  # a row may be apart in the text
                found.append((written, start, end))
    return found


def whole_code(cell: PlacedCell, value: CellValue) -> CellValue | None:
    """Return the code of which a value is the rest: `INV 8509`; None: there is none."""
    at = value.start - cell.start
    if (found := _CODE_BEFORE.search(cell.text[:at])) is None or is_currency(found[1]):
        return None
    start, word = found.start(1), found[1].casefold()
    label = value.label.removesuffix(word).rstrip()
    code = cell.text[start : at + len(value.written)]
    return CellValue(label, code, cell.start + start, value.end)
