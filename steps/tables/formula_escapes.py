"""Apostrophes before what a spreadsheet would compute as a formula, in cells of text files.

Quotes keep a cell together only where a program expects our delimiter: for one that expects another
list separator a cell ends at each of those, and at each line end, so that the apostrophe stands
before the signs of formulas there, too. Apostrophes that are there already get one more, so that a
cell is read as it was.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from paddock.engine.system.text import cell_text

# Inside of a character class:
LINE_ENDS = r"\r\n\v\f\x1c-\x1e\x85\u2028\u2029"
LIST_SEPARATORS = ",;|\t"
# Some programs drop them before a formula: white space, what is not seen, and controls but NUL.
_BLANKS = r"\s\x01-\x1f\x7f\xad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"

# Where full-width signs are usual, they begin formulas as well. Numbers and telephone numbers stay.
_SIGNS = r"[=@\uff1d\uff20]"
_SUM_SIGNS = r"[+\-\uff0b\uff0d]"
_AT_START = re.compile(rf"\ufeff?(?=[{_BLANKS}']*(?:{_SIGNS}|{_SUM_SIGNS}(?![\d\s().,/%+-]*\Z)))")


@cache
def _after_separators(delimiter: str) -> re.Pattern[str]:
    """Match separators and line ends, with blanks and quotes between, that a formula follows.

    1. The other separators of lists end a cell in programs that take them for theirs.
    2. A number with a sign is no formula if such an end follows it, the same one or a line's; a
       comma is a part of it where that is the delimiter: then the cell is quoted.
    3. A run of ends, blanks and quotes is matched from its start alone, so that a long one takes no
       square of its length; group 1 is its last end, and it needs one.
    """
    ends = LIST_SEPARATORS.replace(delimiter, "") + LINE_ENDS  # 1
    comma = "," if delimiter == "," else ""
    number = rf"[\d ./%()+{comma}-]*(?:\1|[\r\n]|\Z)"  # 2
    formula = rf"(?='*(?:{_SIGNS}|{_SUM_SIGNS}(?!{number})))"
    run = rf"(?:([{ends}])|(?![{ends}])[{_BLANKS}\"])+"  # 3
    return re.compile(rf"(?<![{ends}{_BLANKS}\"]){run}(?(1){formula}|(?!))")


def _formula_places(text: str, delimiter: str) -> Iterator[int]:
    if found := _AT_START.match(text):
        yield found.end()
    for found in _after_separators(delimiter).finditer(text):
        yield found.end()


def formula_escaped(value: Any, delimiter: str = ",") -> str:
    r"""Return a cell's text, escaped so that no spreadsheet computes it.

    >>> formula_escaped("=HYPERLINK(A1)"), formula_escaped("-5,5 %"), formula_escaped(-5)
    ("'=HYPERLINK(A1)", '-5,5 %', '-5')
    >>> formula_escaped("x;=A1\n-5\n@SUM(A1)"), formula_escaped("'=A1")
    ("x;'=A1\n-5\n'@SUM(A1)", "''=A1")
    """
    text = cell_text(value)
    if isinstance(value, bool | int | float):
        return text
    places = [0, *_formula_places(text, delimiter), len(text)]
    return "'".join(text[start:end] for start, end in itertools.pairwise(places))


def without_formula_escape(text: str, delimiter: str = ",") -> str:
    r"""Return a cell as it was before it was escaped.

    >>> without_formula_escape("'=A1"), without_formula_escape("'tis")
    ('=A1', "'tis")
    """
    if "'" not in text:
        return text
    escapes = [n for n in _formula_places(text, delimiter) if text.startswith("'", n)]
    starts, ends = [0, *(place + 1 for place in escapes)], [*escapes, len(text)]
    return "".join(text[start:end] for start, end in zip(starts, ends, strict=True))
