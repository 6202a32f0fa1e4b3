"""Where a value ends: whether a part of a text is the whole of what is there.

A word ends by Unicode's rules (UAX #29, by `regex`, of which this module is the only importer
besides `text_index`); a code, a telephone number, a version and an address of mail or web end where
their kind ends: 24 is not in `24-017`, nor `example.org` in `ann@example.org`. Chinese and Japanese
have no spaces, so a short name counts only if what is around it cannot belong to it.
"""

from __future__ import annotations

import re

import regex

from .numbers import is_unit

_BORDER = regex.compile(r"(?w)\b")
_HAN = r"\u2e80-\u2fdf\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IS_HAN = re.compile(f"[{_HAN}]")
_SHORT_HAN = re.compile(f"[{_HAN}]{{1,3}}")
_HAN_BEFORE = re.compile(
    "[的在是于於和与與及由从從到向给給为為对對被把将將让讓等至乃即叫名籍称稱住]\\Z"
)
_HAN_AFTER = re.compile(
    "[的在是于於和与與及由从從到向给給为為对對被把将將让讓等至了氏様殿君]"
    "|先生|女士|小姐|教授|经理|博士|同志|老师|医生|社長|部長|課長"
)
_HAN_END = re.compile(
    "[都道府県省市区區县縣郡町村镇鎮路街号號室楼樓局部院所处處年月日元円圆圓人行社]\\Z"
    "|公司\\Z|银行\\Z|大学\\Z|大學\\Z|学校\\Z"
)
_KOREAN_PARTICLE = re.compile(
    "(?:은|는|이|가|을|를|의|에|와|과|도|로|만|께|에서|에게|까지|부터|으로|이나|이다|입니다|한테"
    "|께서|처럼|보다|마다|이며|이고|라고|이라고|에는|에서는|으로부터|로부터|씨|씨는|씨가|님|님은|님이)"
    r"(?![\uac00-\ud7af])"
)
_IS_KOREAN = re.compile("[\uac00-\ud7af]")
_ELISION = re.compile(
    r"\b(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu|dell|all|nell|sull|dall|coll|un|quell|quest)'\Z"
)
_GENITIVE = re.compile(r"'(?:s\b|(?!\w))")
_JOINED_AFTER = re.compile(r"[-.@&_]\w|:(?<=\d:)\d|(?<=[^\W\d])(?:\+\+|\+(?!\w)|#(?!\w))")
_JOINED_BEFORE = re.compile(r"(?:\w[-.@&_]|\d:(?=\d)|(?<![\w)])\+(?=\d))\Z")
_SLASH_AFTER, _SLASH_BEFORE = re.compile(r"[/?=~%]\w"), re.compile(r"\w[/?=~%]\Z")
_ADDRESS = re.compile(r"://|\bwww\.|[^\W\d_]\.[a-z]{2,}/")
_LETTERS_BEFORE, _LETTERS_AFTER = re.compile(r"[^\W\d_]+\Z"), re.compile(r"[^\W\d_]+")
_GROUPS = re.compile(
    r"[+(]{1,2}\d[\d()]*(?P<a>[ ./-])[\d ()/.-]*\d|0\d+(?P<b> / |[ ./-])\d[\d ()/.-]*"
    r"|\d+(?P<c>[./-])\d[\d/.-]*|\d{4}(?:(?P<d> )\d{4})+"
)
_IN_NUMBER = re.compile(r"\d[.,']\d")
_AROUND_CHARS = 24
_MOST_TOKEN_CHARS = 300


def is_whole(text: str, start: int, end: int) -> bool:
    """Return whether a part of a folded text is the whole of a word, number, code or address.

    >>> is_whole("no. 24-017", 4, 6), is_whole("no. 24-017", 4, 10), is_whole("weighs 5kg", 8, 10)
    (False, True, True)
    """
    return (
        _begins(text, start, end)
        and _ends(text, start, end)
        and not _IN_NUMBER.fullmatch(text, max(0, start - 2), start + 1)
        and not _IN_NUMBER.fullmatch(text, end - 1, end + 2)
        and not _goes_on(text, start, end)
        and _is_apart(text, start, end)
    )


def _begins(text: str, start: int, end: int) -> bool:
    if not start or text[start - 1].isspace() or not _is_word_sign(text[start]):
        return True
    before = text[max(0, start - _AROUND_CHARS) : start]
    if not _is_word_sign(text[start - 1]):
        if before[-1] == "'":
            return not _is_word_sign(before[-2:-1]) or _ELISION.search(before) is not None
        is_joined = _JOINED_BEFORE.search(text, max(0, start - 3), start) is not None
        if before[-1] == "+":
            is_joined = text[start].isdecimal() and not _is_word_sign(before[-2:-1])
        if before[-1] == ":":
            is_joined = text[start].isdecimal() and before[-2:-1].isdecimal()
        return not is_joined and not _is_in_address(text, start, start, end, _SLASH_BEFORE)
    if _BORDER.match(text, start):
        return before[-1] != "_"
    return _is_unit_border(text, start)


def _ends(text: str, start: int, end: int) -> bool:
    if end >= len(text) or text[end].isspace() or not _is_word_sign(text[end - 1]):
        return True
    if not _is_word_sign(text[end]):
        if text[end] == "'":
            return not _is_word_sign(text[end + 1 : end + 2]) or bool(_GENITIVE.match(text, end))
        is_joined = _JOINED_AFTER.match(text, end) is not None
        if text[end] == ":":
            is_joined = text[end - 1].isdecimal() and text[end + 1 : end + 2].isdecimal()
        return not is_joined and not _is_in_address(text, end, start, end, _SLASH_AFTER)
    if _BORDER.match(text, end) or _is_unit_border(text, end):
        return True
    is_korean = _IS_KOREAN.match(text, end - 1) is not None
    return is_korean and _KOREAN_PARTICLE.match(text, end) is not None


def _is_word_sign(sign: str) -> bool:
    return sign.isalnum() or sign == "_" or (sign > "\u02ff" and bool(regex.match(r"\p{M}", sign)))


def _is_unit_border(text: str, at: int) -> bool:
    """Return whether digits and a unit or a currency meet: `5kg`, `EUR12`."""
    if text[at - 1].isdecimal() and text[at].isalpha():
        unit = _LETTERS_AFTER.match(text, at)
    elif text[at].isdecimal() and text[at - 1].isalpha():
        unit = _LETTERS_BEFORE.search(text, max(0, at - _AROUND_CHARS), at)
    else:
        return False
    return unit is not None and len(unit[0]) > 1 and is_unit(unit[0])


def _is_in_address(text: str, at: int, start: int, end: int, sign: re.Pattern[str]) -> bool:
    """Return whether a slash or the like at one end of a part continues a code or an address."""
    near = text[max(0, at - 2) : at] if sign is _SLASH_BEFORE else text[at : at + 2]
    if not sign.search(near):
        return False
    if near[-1].isdecimal() or near[0].isdecimal():
        return True
    first = at
    while first > max(0, at - _MOST_TOKEN_CHARS) and not text[first - 1].isspace():
        first -= 1
    last = at
    while last < min(len(text), at + _MOST_TOKEN_CHARS) and not text[last].isspace():
        last += 1
    return _ADDRESS.search(text, first, last) is not None


def _goes_on(text: str, start: int, end: int) -> bool:
    """Return whether a number of several groups has one more: +49 30 123 in +49 30 123 45."""
    grouped = _GROUPS.fullmatch(text, start, end)
    if grouped is None:
        return False
    gap = "[ /.-]" if grouped["a"] else re.escape(next(filter(None, grouped.groups())))
    return bool(
        re.compile(rf"{gap}\d").match(text, end)
        or re.compile(rf"\d{gap}\Z").search(text, max(0, start - 4), start)
    )


def _is_apart(text: str, start: int, end: int) -> bool:
    """Return whether a short value in Han characters cannot be a part of a longer name."""
    if not _SHORT_HAN.fullmatch(text, start, end):
        return True
    has_before = start > 0 and _IS_HAN.match(text, start - 1) is not None
    has_after = end < len(text) and _IS_HAN.match(text, end) is not None
    if has_before and not _HAN_BEFORE.search(text, max(0, start - 2), start):
        return False
    if not has_after or _HAN_AFTER.match(text, end):
        return True
    return _HAN_END.search(text, start, end) is not None
