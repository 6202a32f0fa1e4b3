r"""Marks in a document's text for what only its layout says: raised, struck, hidden, notes.

Every reader writes the same ones, those of Markdown where it has them:

    10^6, x^(n+1), H_2O     raised and lowered characters
    40[^1]                  the mark of a note, whose text begins with `[^1]:`
    ~~40~~                  struck text, also text that an editor marks as deleted and still shows
    <!-- 40 -->             text that the document holds and does not show

Where the text itself has such a mark, a backslash stands before it. Evidence looks for no value in
struck or hidden text, and a note's mark is no part of a value.
"""

from __future__ import annotations

import re
from collections.abc import Container

_OWN_MARK = re.compile(r"~~|\^|<!--|-->")
_ORDINALS = frozenset(
    ("st", "nd", "rd", "th", "er", "ère", "re", "e", "ème", "eme", "nde", "o", "os", "a", "as")
)
_TRADE_MARKS = frozenset(("tm", "sm", "®", "™", "℠", "©"))
_NOTE_SIGNS = frozenset(("*", "**", "***", "\u2217", "†", "‡", "§", "¶"))
_NOTE_LABEL = re.compile(r"[\[(]?([^\W_]{1,4}|[*\u2217†‡§¶]{1,3})[\])]?,?")
_SIGNED_DIGITS = re.compile(r"[+\-−–]?\d+[+\-−–]?|[+\-−–]")  # noqa: RUF001 - minus signs of texts
_MORE_DIGITS = re.compile(r"[.,]?\d")
_UNSHOWN = re.compile(
    r"(?<!\\)~~(?=\S)(?:(?!~~|\n\n).)+(?<!\\)~~|(?<!\\)<!--.*?(?:-->|\Z)", re.DOTALL
)
_ESCAPES = re.compile(r"\\(?=~~|\^|<!--|-->|\|)")  # also of a cell's own bar
_BESIDE_TEXT = re.compile(r"(?<!\\)\[\^[^\]\s]{1,40}\]:?|\\(?=~~|\^|<!--|-->)")
_RAISED = re.compile(r"(?<=[^\s\\])\^(?:\(([+\-−–]?\d{1,3})\)|([+\-−–]?\d{1,3}(?![.,]?\d)))")  # noqa: RUF001
_LOWERED = re.compile("(?<=[^\\W\\d_])[₀-₉]+")
_UP = str.maketrans("0123456789+-−–", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁻")  # noqa: RUF001
_DOWN = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_HIDING = re.compile(r"(?<!\\)<!-- | -->")
_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l")),
    *((40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_NO_TEXT, _NO_WIDTH = "\x00", "\u200b"


def escaped(text: str) -> str:
    r"""Return a document's own text so that none of it is read as a mark.

    >>> print(escaped("2^3 ~~ [^1] <!-- x -->"))
    2\^3 \~~ [\^1] \<!-- x \-->
    """
    return _OWN_MARK.sub(r"\\\g<0>", text)


def unescaped(text: str) -> str:
    r"""Return a text without the backslashes before marks, as the page shows it.

    >>> unescaped(r"2\^3 a\|b C:\x")
    '2^3 a|b C:\\x'
    """
    return _ESCAPES.sub("", text)


def raised(text: str, before: str = "", after: str = "", notes: Container[str] = ()) -> str:
    """Return raised characters between the texts before and after them.

    `notes` are the labels of the document's notes, as `note_label` returns them: raised text that
    is one of them is a note's mark; what else it may be is not guessed.

    >>> [raised("6", "10"), raised("2", "x", "3"), raised("n+1", "a"), raised("st", "1")]
    ['^6', '^(2)', '^(n+1)', 'st']
    >>> [raised("1", "40", notes={"1"}), raised("*", "40"), raised("[7]", "x"), raised("(7)", "x")]
    ['[^1]', '[^*]', '[^7]', '[^7]']
    """
    label = note_label(text)
    if label in notes or label in _NOTE_SIGNS or (label and text.strip()[0] in "[("):
        return f"[^{label}]"
    word, last = text.strip().rstrip(".").casefold(), before[-1:]
    is_ordinal = word in _ORDINALS and (last.isdigit() or last in "IVXLCDMn" or len(word) > 1)
    if not word or not before.strip() or is_ordinal or word in _TRADE_MARKS:
        return text
    return _mark("^", text, after)


def lowered(text: str, before: str = "", after: str = "") -> str:
    """Return lowered characters between the texts before and after them.

    >>> lowered("2", "H", "O"), lowered("max", "v", "al"), lowered("1")
    ('_2', '_(max)', '1')
    """
    return _mark("_", text, after) if text.strip() and before.strip() else text


def note_label(text: str) -> str:
    """Return the label of a note where raised text may be its mark; else an empty text.

    >>> note_label("[12]"), note_label("1)"), note_label("†"), note_label("n+1")
    ('12', '1', '†', '')
    """
    found = _NOTE_LABEL.fullmatch(text.strip())
    return found[1] if found else ""


def struck(text: str) -> str:
    """Return struck text, each line by itself, since the mark ends with its paragraph.

    >>> struck("40 EUR ")
    '~~40 EUR~~ '
    """
    return "\n".join(_around("~~", line, "~~") for line in text.split("\n"))


def hidden(text: str) -> str:
    """Return text that the document does not show; what is in it already is not marked twice.

    >>> hidden(" Pay <!-- twice --> ")
    ' <!-- Pay twice --> '
    """
    return _around("<!-- ", _HIDING.sub("", text), " -->")


def list_number(n: int, style: str, *, is_doubled: bool = False) -> str:
    """Return an automatic number as it is shown: by letters or Roman numerals, else in digits.

    `style` is `a`, `A`, `i`, `I`, `1` or `①`. After z comes aa; `is_doubled`: then bb, as in Word.

    >>> [list_number(n, style) for n, style in ((4, "①"), (28, "a"), (1994, "I"), (0, "i"))]
    ['④', 'ab', 'MCMXCIV', '0']
    """
    shown = chr(0x245F + n) if style == "①" and 0 < n <= 20 else ""
    if style.lower() == "a" and 0 < n < 1_000:
        if is_doubled:
            shown = chr(97 + (n - 1) % 26) * ((n - 1) // 26 + 1)
        while n and not is_doubled:
            n, letter = divmod(n - 1, 26)
            shown = chr(97 + letter) + shown
    elif style.lower() == "i" and 0 < n < 4_000:
        for value, letters in _ROMAN:
            shown += letters * (n // value)
            n %= value
    return (shown if style.islower() else shown.upper()) or str(n)


def searchable(text: str) -> str:
    r"""Return a text of the same length without what no value may be found in.

    Struck and hidden text becomes U+0000, which no value has; marks of notes and backslashes before
    marks become U+200B, which has no width.

    >>> found = searchable("~~40~~ 45[^1] EUR <!-- 50 -->")
    >>> found.replace("\x00", "-").replace("\u200b", ".")
    '------ 45.... EUR -----------'
    """
    text = _UNSHOWN.sub(lambda found: _NO_TEXT * len(found[0]), text)
    return _with_characters(_BESIDE_TEXT.sub(lambda found: _NO_WIDTH * len(found[0]), text))


def value_as_shown(text: str) -> str:
    r"""Return a text, such as a value, with raised digits as characters, and lowered ones plain.

    Digits behind a letter that are lowered are those of a name.

    >>> value_as_shown(r"12 m^2, 10^(-6), 2\^3, CO₂")
    '12 m², 10⁻⁶, 2\\^3, CO2'
    """
    return _with_characters(text).replace(_NO_WIDTH, "")


def _with_characters(text: str) -> str:
    """Return the same at the same length: a mark's own signs become U+200B."""

    def raised_digits(found: re.Match[str]) -> str:
        inner, bare = found.groups()
        made = (inner or bare).translate(_UP)
        return _NO_WIDTH * (3 if inner else 1) + made

    text = _RAISED.sub(raised_digits, text) if "^" in text else text
    return _LOWERED.sub(lambda found: found[0].translate(_DOWN), text)


def shown_text(text: str) -> str:
    """Return a text without what `searchable` leaves out of it; its offsets change.

    >>> shown_text("~~40~~ 45[^1] EUR")
    ' 45 EUR'
    """
    return searchable(text).replace(_NO_TEXT, "").replace(_NO_WIDTH, "")


def _mark(mark: str, text: str, after: str) -> str:
    """Put brackets around what would run on into the text after it."""
    word = text.strip()
    if _SIGNED_DIGITS.fullmatch(word):
        is_open = _MORE_DIGITS.match(after) is not None
    else:
        is_open = not word.isalnum() or after[:1].isalnum()
    return _around(f"{mark}(" if is_open else mark, text, ")" if is_open else "")


def _around(opening: str, text: str, closing: str) -> str:
    """Put marks around the words; white space at the ends stays outside."""
    words = text.strip()
    if not words:
        return text
    start = text.index(words)
    return f"{text[:start]}{opening}{words}{closing}{text[start + len(words) :]}"
