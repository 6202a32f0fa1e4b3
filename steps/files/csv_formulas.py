"""Cells of CSV that a spreadsheet would compute as formulas: an apostrophe before them stops it."""

from __future__ import annotations

import re
from typing import Any

from paddock.engine.system.text import cell_text

# A spreadsheet takes such a cell for a formula, but not numbers and telephone numbers. Where
# full-width signs are usual, they count as well.
_FORMULA = re.compile(r"\A(?:[=@\t\r\uff1d\uff20]|[+\-\uff0b\uff0d](?![\d\s().,/%+-]*\Z))")


def is_formula(value: Any) -> bool:
    return isinstance(value, str) and _FORMULA.match(value) is not None


def formula_escaped(value: Any) -> str:
    """Return a cell's text, escaped so that no spreadsheet computes it.

    >>> formula_escaped("=HYPERLINK(A1)"), formula_escaped("-5,5 %"), formula_escaped(-5)
    ("'=HYPERLINK(A1)", '-5,5 %', '-5')
    """
    return f"'{value}" if is_formula(value) else cell_text(value)


def without_formula_escape(text: str) -> str:
    """Return a cell as it was before it was escaped.

    >>> without_formula_escape("'=A1"), without_formula_escape("'tis")
    ('=A1', "'tis")
    """
    return text[1:] if text.startswith("'") and is_formula(text[1:]) else text
