"""Amounts: digits with the signs that belong to them are one token, and its whole form one number.

A token may begin or end with signs that fill places (`,75`, `--,50`, `12,--`) and with a fraction
(`½`, `1 1/2`). What its form does not explain makes it no number.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from ipaddress import AddressValueError, IPv4Address

MARKED = r"\d+(?:[.,'\u060c\u066b\u066c\u2e41]\d+)*"
_FRACTIONS = "\u00bc-\u00be\u2150-\u215e\u2189"
"""All signs that Unicode decomposes to a fraction of its own."""
_TAIL = (
    r"(?:[.,][-=]{1,3}(?![-=\w])"
    rf"|[ \u00a0]?(?:[{_FRACTIONS}]|(?<!\d)\d{{1,2}}[/\u2044]\d{{1,2}}(?![\w/\u2044]|[.,]\d)))?"
)
_PARTED = r"[\w.,)\]}'%]"
"""Behind these a comma or point parts what follows it."""
TOKEN, SPACED_TOKEN = (
    re.compile(
        rf"[\d.,{_FRACTIONS}-](?:"  # a class first: the search passes over all else at once
        rf"(?<=[1-9])(?<![\d.,]\d)(?<!-\d\d-\d)\d{{0,2}}(?:{gap}\d{{3}})+(?:[.,\u066b]\d+)?(?!\d){_TAIL}"
        rf"|(?<=\d)(?:(?<![\d.,]\d)\d?\u2044\d{{1,2}}(?![\w/\u2044])|\d*{MARKED[3:]}{_TAIL})"
        rf"|(?:(?<=[.,])(?<!{_PARTED}.)(?<!\d[ \u00a0].)|(?<=-)(?<![\w-].)-[.,])\d+(?![.,']?\d)"
        rf"|(?<=[{_FRACTIONS}])(?<![\d/].)(?<!\d[ \u00a0].))"
    )
    for gap in ("\u00a0", "[\u00a0 ]")
)
TOKEN_BEFORE = re.compile(
    rf"(?<!\d)(?<!\d[.,'])((?:(?<!{_PARTED})[.,])?{MARKED}{_TAIL}|[{_FRACTIONS}])[ \u00a0]?\Z"
)
GROUPED_BY_SPACE = re.compile(r"\d \d{3}")
_MARK, _SLASH = re.compile(r"\D"), re.compile("[/\u2044]")
_MOST_DENOMINATOR = 64  # of parts of an inch; 3 5/100 are two numbers
_WITH_FRACTION = re.compile(rf"(?:(.*\d)[ \u00a0]?)?([{_FRACTIONS}]|(?<!\d)\d+[/\u2044]\d+)")
_FILLED = re.compile(r"(.*\d)([.,])[-=]+")


def significant(raw: str) -> str:
    """Return the digits of a token, without zeros at the ends."""
    if raw.isdecimal():
        return raw.strip("0")
    if not raw[-1].isdecimal() or _SLASH.search(raw):
        amount = amount_of(raw, ".")
        raw = raw if amount is None else f"{amount:f}"
    return _MARK.sub("", raw).strip("0")


def n_decimals(raw: str) -> int:
    marks = [found.end() for found in _MARK.finditer(raw)]
    return len(raw) - marks[-1] if marks else 0


def amount_of(raw: str, decimal_mark: str) -> Decimal | None:
    """Return the number of a token; None where its form makes none, or leaves open which.

    >>> [amount_of(raw, "") for raw in ("1,320.00", "1.320,00", "12,5", "1'320", "0457", "1.320")]
    [Decimal('1320.00'), Decimal('1320.00'), Decimal('12.5'), Decimal('1320'), None, None]
    >>> amount_of("1.320", ","), amount_of("1.320", ".")
    (Decimal('1320'), Decimal('1.320'))
    >>> [amount_of(raw, "") for raw in (",75", "--,50", "1.250,--", "1\u00bd", "1 3/4", "1.23.456")]
    [Decimal('0.75'), Decimal('0.50'), Decimal('1250'), Decimal('1.5'), Decimal('1.75'), None]
    """
    if raw.isdecimal():
        return Decimal(raw) if raw[0] != "0" or raw == "0" else None
    if not (raw[0].isdecimal() and raw[-1].isdecimal()) or "/" in raw or "\u2044" in raw:
        return _of_parts(raw, decimal_mark)
    groups = _MARK.split(raw)
    marks = _MARK.findall(raw)
    if len(groups[0]) > 1 and groups[0][0] == "0":
        return None
    fraction = ""
    last = marks[-1]
    is_open = last in (".", ",") and len({*marks}) == 1 == len(marks)
    if is_open and len(groups[-1]) == 3 and len(groups[0]) < 4 and groups[0] != "0":
        if not decimal_mark:
            return None
        is_fraction = last == decimal_mark
    else:
        is_fraction = last in (".", ",", "\u066b") and marks.count(last) == 1
    if is_fraction:
        fraction = groups.pop()
        marks.pop()
    if marks and (len({*marks}) > 1 or marks[0] == "\u066b" or not _is_grouped(groups, marks[0])):
        return None
    return Decimal(f"{''.join(groups)}.{fraction}" if fraction else "".join(groups))


def _of_parts(raw: str, decimal_mark: str) -> Decimal | None:
    """Return the number of a token of which a part is not written in places."""
    if raw[-1].isdecimal() and not raw[0].isdecimal():  # ,75 and --,50
        return Decimal(f"0.{raw.lstrip('-.,')}")
    if found := _FILLED.fullmatch(raw):  # 1.250,-- and 1.250.-
        whole, mark = found.groups()
        return amount_of(whole, mark if mark not in whole else ",."[mark == ","])
    if (found := _WITH_FRACTION.fullmatch(raw)) is None:
        return None
    amount = amount_of(found[1] or "0", "")
    n, d = map(int, _SLASH.split(unicodedata.normalize("NFKC", found[2])))
    is_part = len(found[2]) == 1 or n < d <= _MOST_DENOMINATOR
    return amount + Decimal(n) / d if is_part and amount is not None and not amount % 1 else None


def _is_grouped(groups: list[str], mark: str) -> bool:
    first, *others, last = groups
    if not 1 <= len(first) <= 3 or len(last) != 3:
        return False
    return all(len(group) == 3 for group in others) or (
        mark in ",\u00a0" and len(first) < 3 and all(len(group) == 2 for group in others)
    )  # 1,20,000: whose languages group by no other sign


def is_address(raw: str) -> bool:
    """Return whether digits between points are an address of IPv4."""
    try:
        return raw.count(".") == 3 and bool(IPv4Address(raw))
    except AddressValueError:
        return False
