"""Units and currencies next to a number: per cent, points, money, measures.

They are read in the languages that `_UNIT_NAMES` has; a unit has a dimension and a factor, so that
5 km is 5,000 m and is not 5 m. An unknown word is not a unit: then only the number counts.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Unit:
    """A dimension, and the factor to its base unit."""

    dimension: str = ""
    factor: float = 1.0


NO_UNIT = Unit()
PERCENT = Unit("percent")
TIMES = Unit("times")
NOT_TIMES = Unit("times", -1.0)
"""Of a side or a factor: what is 2 x 4 is not twice as much."""

_DATA = Path(__file__).resolve().with_name("units.json")
_UNIT_NAMES: Mapping[tuple[str, float], str] = {
    (dimension, factor): names for dimension, factor, names in json.loads(_DATA.read_text("utf-8"))
}
"""Dimension and factor to the base unit → all names, of which a star is any ending."""


def _units_by_name() -> Mapping[str, tuple[Unit, ...]]:
    units: dict[str, tuple[Unit, ...]] = {}
    for (dimension, factor), names in _UNIT_NAMES.items():
        for name in names.split():
            units[name] = (*units.get(name, ()), Unit(dimension, factor))
    return units


_UNITS_BY_NAME = _units_by_name()
_FACTOR = r"[^\S\n]{0,2}[0-9(]"
_SIDE_AFTER = re.compile(rf"[^\S\n]{{0,2}}[x×]{_FACTOR}", re.IGNORECASE)
_SIDE_BEFORE = re.compile(r"[0-9][^\S\n]{0,2}[x×][^\S\n]{0,2}\Z", re.IGNORECASE)
_UNIT_AFTER = re.compile(
    r"[^\S\n]?[-\u2010\u2011]?[^\S\n]{0,2}\n?[^\S\n]{0,2}"
    r"(?P<unit>%|٪|‰|°[^\S\n]?[CF]\b|°|(?:US|AU?|CA?|HK|S|NZ|R)?[$€£¥₹₩₽]|m[²³23]\b|km[²2]\b"
    r"|km/h\b|m/s\b|个月"
    r"|个?百分[点點]|パーセント|ポイント|ユーロ|ドル|トン|小时|分钟|人民币|[美欧]元|公[里斤]|千克"
    r"|毫克"
    r"|時間|分間|日間|週間|年間|か月|ヶ月|基点|퍼센트포인트|퍼센트|달러|유로|개월|시간|[원년일분주]"
    r"|(?<![0-9〇一二三四五六七八九零]{4})年(?=[^\w\s/\u2010-\u2015~〜～-]|\s*\Z|\n|続|と[しす]|で[すあ、]|的)"
    r"|[元圆圓円天米克升吨周秒次回번]|割(?![れりけっ])|成(?![立为為员員功本果交分绩績年长長])|分(?![之の引野析别店])|％|[₺₴₪฿￥]|п\.п\b|[دجر]\.[\u0621-\u064a]\b"
    rf"|×(?!{_FACTOR})|(?!x{_FACTOR})[^\W\d_\u3040-\u9fff\uac00-\ud7af]+(?:[\u0900-\u0dff]+\w*)*)"
)
_NUMBERED_YEAR = re.compile(
    r"(?:令和|平成|昭和|大正|明治|慶[応應]|民[国國]|公元|西[暦历曆]|康熙|雍正|乾隆|嘉[庆慶]|道光|咸[丰豐]|同治|光[绪緒]|宣[统統]"
    r"|第|[学學高校]|年[~〜～至到から\u2010-\u2015-]{1,2})\s?(?:[0-9]+|[元〇零一二三四五六七八九十百]+)\s?\Z"
    r"|(?<![0-9])0[0-9]+\s?\Z"
)
"""Before a 年 that says which year it is, and not how many they are."""
_UN_BEFORE = re.compile(r"(?<![^\W_])un\Z", re.IGNORECASE)
"""Before `an`, which is an article in English."""
_PER_CENT = re.compile(
    r"\s{0,2}(?:per|pour|por)[^\S\n]?(?:cent|cento|ciento)\b|\s?phần trăm"
    r"|\s?(?:في المئة|بالمئة|بالمائة|في المائة)|\s?τοις εκατό",
    re.IGNORECASE,
)
_POINTS = re.compile(
    r"[\s-]{0,2}(?:(?P<basis>basis[- ]?points?|basis[- ]?punkten?|points? de base|puntos? básicos?"
    r"|punti base|pontos?[- ]base|punkt\w* bazow\w*|базисн\w* пункт\w*|baz puan|räntepunkt\w*)"
    r"|(?:percentage|per[- ]?cent|%)[- ]?points?|(?:prozent|%)[- ]?punkten?|points? de pourcentage"
    r"|puntos? porcentual\w*|punti percentuali|procentpunt\w*|pontos? percentua\w*|p\.\s?p\."
    r"|punkt\w* procentow\w*|процентн\w+ пункт\w*|відсотков\w+ пункт\w*|procentenhet\w*"
    r"|procentpoint|prosentpoeng|prosenttiyksik\w*|procentn\w+ bod\w*|(?:yüzde )?puan"
    r"|százalékpont\w*|نقط\w* مئوية|puncte procentuale|п\.\s?п\.?)(?!\w)",
    re.IGNORECASE,
)
_POINT, _BASIS_POINT = Unit("percentage point"), Unit("percentage point", 0.01)
_PER_HOUR = re.compile(
    r"[^\S\n]?(?:/|per|pro|par|por|all'|à l')[^\S\n]?(?:h|hour|stunde|heure|hora|ora|uur)\b",
    re.IGNORECASE,
)
_SQUARE_AFTER = re.compile(
    r"[^\S\n](?:quadr\w+|carrés?|cuadrados?|kwadratow\w+|квадратн\w+)", re.IGNORECASE
)
_UNIT_BEFORE = re.compile(
    r"(?:(?:US|AU?|CA?|HK|S|NZ|R)?\$|[€£¥₹₩₽₺₴₪฿￥]|(?<!\d)(?<!\d\s)%|(?<!\w)(?i:yüzde)"
    r"|(?<![^\W_])(?:USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|Rs|SEK|NOK|DKK|PLN|CAD|AUD|BRL|MXN|KRW|RUB"
    r"|kr|Fr|TRY|TL|CZK|HUF|RON|ILS|THB|ZAR|AED|SAR|UAH|HKD|SGD|NZD)\.?)[^\S\n]?\Z"
)
CURRENCIES = (
    *("USD", "EUR", "GBP", "CHF", "JPY", "CNY", "RMB", "INR", "SEK", "NOK", "DKK", "PLN", "CAD"),
    *("AUD", "BRL", "MXN", "KRW", "RUB", "TRY", "CZK", "HUF", "RON", "ILS", "THB", "ZAR", "AED"),
    *("SAR", "UAH", "HKD", "SGD", "NZD"),
)
"""Currency codes, which may be directly before a number."""
_CURRENCY_DIMENSIONS = frozenset(
    unit.dimension for code in CURRENCIES for unit in _UNITS_BY_NAME.get(code.casefold(), ())
)


_OTHER_DOLLARS = ("a$", "c$", "ca$", "au$", "hk$", "s$", "nz$")
_CODES = frozenset((*map(str.casefold, CURRENCIES), *_OTHER_DOLLARS))


def currency_names(name: str) -> tuple[str, ...]:
    """Return how else a currency is written; empty for what is none.

    >>> currency_names("EUR")[:3]
    ('€', 'euro', 'euros')
    """
    name = name.casefold()
    units = (unit for unit in _UNITS_BY_NAME.get(name, ()) if is_money(unit) and unit.factor == 1)
    dimension = next((unit.dimension for unit in units), "")
    others = {name, *(_CODES if name in _CODES else ())}
    if dimension.endswith(" dollar") and dimension[:2] != "US":
        others |= {"$", "dollar", "dollars"}
    return tuple(word for word in _UNIT_NAMES.get((dimension, 1), "").split() if word not in others)


def factors_of(dimension: str) -> frozenset[float]:
    """Return the factors of all units of a dimension."""
    return frozenset(factor for name, factor in _UNIT_NAMES if name == dimension)


def is_money(unit: Unit) -> bool:
    return unit.dimension in _CURRENCY_DIMENSIONS


def is_long_time(unit: Unit) -> bool:
    """Return whether it is a week, a month or a year: of these, `a` is one, and no mere article."""
    return unit.dimension == "month" or unit == _WEEK


_WEEK = Unit("second", 604800)


def is_unit(name: str) -> bool:
    """Return whether a word in lower case is a unit or a currency."""
    return name in _UNITS_BY_NAME


_COPULA = re.compile(r"[dt][ıiuü]r\Z")
"""`Is` in Turkish: 30 aydır."""


def units_named(name: str) -> tuple[Unit, ...]:
    """Return what a word or a sign may be as a unit."""
    name = name.replace("İ", "i")
    units = _UNITS_BY_NAME.get(name)
    if units is None and (len(name) > 1 or not name.isalpha() or name in "MLGT"):
        units = _UNITS_BY_NAME.get(name.casefold()) or _inflected(name.casefold())
        units = units or _UNITS_BY_NAME.get(_COPULA.sub("", name.casefold()))
    return units or ()


def units_after(text: str, at: int) -> tuple[tuple[Unit, ...], int]:
    """Return the possible units after a number, and where they end.

    >>> units_after("5 km away", 1)
    ((Unit(dimension='metre', factor=1000),), 4)
    """
    found = _POINTS.match(text, at)
    if found is not None:
        return (_BASIS_POINT if found["basis"] else _POINT,), found.end()
    found = _PER_CENT.match(text, at)
    if found is not None:
        return (PERCENT,), found.end()
    found = _UNIT_AFTER.match(text, at)
    units = _units_of(found) if found is not None else ()
    if found is None or not units:
        return (), at
    if units[0].dimension == "metre":
        if square := _SQUARE_AFTER.match(text, found.end()):
            return (Unit("square metre", units[0].factor ** 2),), square.end()
        if per_hour := _PER_HOUR.match(text, found.end()):
            return (Unit("speed", units[0].factor / 3600),), per_hour.end()
    return units, found.end()


def _units_of(found: re.Match[str]) -> tuple[Unit, ...]:
    text, at, name = found.string, found.start(), found["unit"]
    if name == "an" and _UN_BEFORE.search(text, max(0, at - 3), at):
        return (Unit("month", 12),)
    if name == "年" and _NUMBERED_YEAR.search(text, max(0, at - 12), at):
        return ()
    return units_named("".join(name.split()))


def units_of_side(text: str, start: int, end: int) -> tuple[Unit, ...]:
    """Return what a number is as a side or a factor, if it is one: 2 x 4, 3 x 10^8."""
    before = _SIDE_BEFORE.search(text, max(0, start - 6), start)
    return (NOT_TIMES,) if before or _SIDE_AFTER.match(text, end) else ()


def _inflected(name: str) -> tuple[Unit, ...]:
    """Return what a name with an ending is: `rublami`, `liraya`."""
    stems = (f"{name[:end]}*" for end in range(len(name), _LEAST_STEM_CHARS - 1, -1))
    return next((_UNITS_BY_NAME[stem] for stem in stems if stem in _UNITS_BY_NAME), ())


_LEAST_STEM_CHARS = 2


def units_before(text: str, at: int) -> tuple[Unit, ...]:
    """Return the possible currencies before a number."""
    found = _UNIT_BEFORE.search(text, max(0, at - 6), at)
    if found is None:
        return ()
    name = found[0].strip().rstrip(".").casefold()
    return _UNITS_BY_NAME.get("chf" if name == "fr" else name, ())
