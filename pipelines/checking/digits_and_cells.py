"""A text as its numbers are read: digits 0 to 9, what these may be, and cells of CSV rows."""

# ruff: noqa: RUF001 - signs of many scripts
from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

_FINANCIAL = "壹贰貳叁參肆伍陆陸柒捌玖拾佰仟"
_PLAIN = str.maketrans(_FINANCIAL, "一二二三三四五六六七八九十百千")
_FINANCIAL_NUMBER = re.compile(f"[{_FINANCIAL}零〇万萬亿億]{{2,}}")
_HAN_RING = re.compile("(?<=[〇一二三四五六七八九])○(?=[〇○一二三四五六七八九])")
_MARK = re.compile(r"(?<=\d)[\u066b\u066c](?=\d)|(?<=[０-９])[，．](?=[０-９])|(?<=\d)：(?=\d)")
_TIMES = re.compile(r"(?<=[0-9])[xX](?=[1-9][0-9.,]*(?:[xX][0-9]|(?![\w-])))")
_MOST_SIZE_CHARS = 16
_SIZE_BEFORE = re.compile(r"(?:(?<![\w.,-])|(?<=[0-9][xX]))[1-9][0-9.,]*\Z")
"""Sizes such as 1920x1080; 0x1F and AB2x4 are none."""
_ASCII_MARKS = {"\u066b": ".", "\u066c": "'", "．": ".", "：": ":"}
_QUOTED = re.compile(r'(?<![^,\n])"[^"\n]*"(?![^,\n])')
_NO_ROW = re.compile(r", |[;|\t]|\A(?=.*[^\W\d_] )(?:[^,]|(?<=\d),(?=\d))*\Z")
_DECIMAL_COMMA = re.compile(
    r"(?<=\d),(?=\d+[^\S\n]?[^\W\d_])|(?<=\.\d{3}),(?=\d)|(?<=\d),(?=\d+\s?[€$£%])"
)


def with_ascii_digits(text: str) -> str:
    r"""Convert digits of other scripts to 0 to 9.

    >>> with_ascii_digits("\u0661\uff12"), with_ascii_digits("9\uff1a30")
    ('12', '9:30')
    """
    text = _TIMES.sub(_with_times, text)
    if text.isascii():
        return text
    text = _with_plain_numerals(_HAN_RING.sub("〇", text))
    text = _MARK.sub(lambda found: _ASCII_MARKS.get(found[0], ","), text)
    return re.sub(r"(?![0-9])\d", lambda found: str(unicodedata.decimal(found[0])), text)


def _with_times(found: re.Match[str]) -> str:
    begin = max(0, found.start() - _MOST_SIZE_CHARS)
    is_size = _SIZE_BEFORE.search(found.string, begin, found.start()) is not None
    return "\u00d7" if is_size else found[0]


def _with_plain_numerals(text: str) -> str:
    """Convert Chinese numerals of contracts and cheques; one by itself is part of other words.

    >>> _with_plain_numerals("叁万伍仟捌佰元, 队伍")
    '三万五千八百元, 队伍'
    """
    return _FINANCIAL_NUMBER.sub(lambda found: found[0].translate(_PLAIN), text)


def table_cells(text: str) -> str:
    r"""Return a text of the same length with only the cells of its comma-separated rows.

    There `12,7` is two numbers. A row has as many commas as the one above or below it, none in
    quotes, and no space after any of them. What has other separators, or words and no commas but
    between digits, is no such row.

    >>> table_cells("Sold:\na,12\nb,7")
    '     \na\n12\nb\n7'
    """
    lines = [_DECIMAL_COMMA.sub(".", line) for line in _QUOTED.sub(_masked, text).split("\n")]
    n_commas = [0 if _NO_ROW.search(line) else line.count(",") for line in lines]
    is_row = [
        n > 0 and n in (*n_commas[at + 1 : at + 2], *n_commas[max(0, at - 1) : at])
        for at, n in enumerate(n_commas)
    ]
    if not any(is_row):
        return ""
    cells = (
        line.replace(",", "\n").replace("\x01", ",") if is_one else " " * len(line)
        for line, is_one in zip(lines, is_row, strict=True)
    )
    return "\n".join(cells)


def _masked(quoted: re.Match[str]) -> str:
    return quoted[0].replace(",", "\x01")


GROUPS = "'\u2019\u00a0\u202f\u2009 "
"""Signs that may group thousands, but for points and commas."""
_NO_GROUPS = str.maketrans("", "", GROUPS)
MOST_DIGITS = 15
"""Of a number: more are not told apart."""


def rounded(value: float, n_digits: int = 12) -> float:
    """Round a value for comparison, so that factors do not matter."""
    return float(f"{value:.{n_digits}g}")


def number_values(text: str, decimal_mark: str = "") -> Iterator[float]:
    """Yield what digits may be: points and commas group thousands, or begin the fraction.

    `decimal_mark`: the one that does so in the text that they are of, if that is known.

    >>> [*number_values("1.234")], [*number_values("1.234", ",")], [*number_values("1 234,5")]
    ([1234.0, 1.234], [1234.0], [1234.5])
    """
    mantissa, _, exponent = text.replace("E", "e").partition("e")
    power = 10.0 ** int(exponent or 0)
    plain = mantissa.translate(_NO_GROUPS)
    parts, marks = re.split("[.,]", plain), re.findall("[.,]", plain)
    if not marks:
        yield rounded(float(plain) * power, MOST_DIGITS)
        return
    is_lakh = len(parts) > 2 and len(parts[-1]) == 3 and {*marks} == {","}
    if is_lakh or (len({*marks}) == 1 and _is_grouped(parts)):
        is_fraction = marks == [decimal_mark]
        if not is_fraction or parts[-1] == "000":
            yield rounded(float("".join(parts)) * power, MOST_DIGITS)
        if not is_fraction and (is_lakh or decimal_mark or parts[-1] == "000"):
            return  # 42,000 is not 42
    if marks[-1] not in marks[:-1]:
        value = float(f"{''.join(parts[:-1]) or '0'}.{parts[-1]}")
        yield rounded(value * power, MOST_DIGITS)


def _is_grouped(parts: Sequence[str]) -> bool:
    return parts[0] not in ("", "0") and all(len(part) == 3 for part in parts[1:])
