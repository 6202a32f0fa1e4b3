"""Names that texts have for months, units and currencies, from CLDR.

`cldr_names.json` is generated, by one version of Babel and for all of its languages; no name is
written by hand. It is read at first use, in some milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any, Literal
from unicodedata import category
from unicodedata import name as unicode_name

from paddock.engine.system.records import Struct

from .folding import small

_MOST_NAME_CHARS = 48


@lru_cache(maxsize=1)
def _data() -> Mapping[str, Any]:
    return json.loads(resources.files(__package__).joinpath("cldr_names.json").read_text("utf-8"))  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def month_names() -> Mapping[str, tuple[int, ...]]:
    """Return the months that a name in small letters may mean."""
    found: dict[str, tuple[int, ...]] = {}
    for month, names in _data()["months"].items():
        for name in names.split("|"):
            found[name] = (*found.get(name, ()), int(month))
    return found


def script_samples() -> Mapping[str, str]:
    """Return names of months and currencies by script, called as in Unicode's names of letters."""
    words: dict[str, set[str]] = {}
    for kind in ("months", "currencies"):
        for names in _data()[kind].values():
            for word in names.replace("|", " ").split():
                letters = (sign for sign in word if category(sign) in ("Ll", "Lo", "Lu"))
                if letter := next(letters, ""):
                    script = unicode_name(letter).split()[0].title().replace("Cjk", "Han")
                    words.setdefault(script, set()).add(word)
    return {script: " ".join(sorted(of)) for script, of in words.items()}


def months_of(name: str) -> tuple[int, ...]:
    """Return the months that a name means in the languages of which CLDR has all names.

    Short names of other languages have none: they mean a month where the language is known.
    """
    means = _data()["months_of_known"].get(name)
    return month_names()[name] if means is None else tuple(means)


def month_in(name: str, language: str) -> int | None:
    """Return what a name of two months means in a language."""
    month = _data()["months_by_language"].get(name, {}).get(language)
    return None if month is None else int(month)


def date_forms() -> tuple[list[tuple[str, str]], list[str]]:
    """Return what stands before and behind a month's name in dates, and dates in digits alone."""
    return [(before, after) for before, after in _data()["forms"]], _data()["numeric_forms"]


def eras() -> Mapping[str, int]:
    """Return what makes a year of an era one of ours, by the era's name in its own languages."""
    return _data()["eras"]  # type: ignore[no-any-return]


def day_links() -> tuple[list[str], list[str]]:
    """Return what may join an ordinal to a month, and the names of a day: `of`, `day`."""
    return _data()["of_month"].split("|"), _data()["days"].split("|")


def day_periods(half: str) -> tuple[str, ...]:
    return tuple(_data()["day_periods"][half].split("|"))


def date_orders(languages: Iterable[str]) -> frozenset[str]:
    """Return in which orders languages write dates in digits, such as `dMy`."""
    orders = (_data()["orders"].get(language, "") for language in languages)
    return frozenset(order for held in orders for order in held.split())


def decimal_mark(languages: Iterable[str]) -> str:
    """Return what begins the fraction in all of the languages; "": they differ."""
    known = _data()["marks"]
    marks = {known[language][:1] for language in languages if language in known}
    return marks.pop() if len(marks) == 1 else ""


def groups_by_space(languages: Iterable[str]) -> bool | None:
    """Return whether all of the languages group thousands by a space; None: they differ."""
    known = _data()["marks"]
    found = {" " in known[language] for language in languages if language in known}
    return found.pop() if len(found) == 1 else None


class Unit(Struct, frozen=True):
    name: str
    ids: frozenset[str]
    """What the name may mean, such as `meter` and `EUR`; empty: a unit that has no name."""

    @property
    def is_currency(self) -> bool:
        return any(map(str.isupper, self.ids))

    def is_same(self, other: Unit) -> bool:
        """Return whether two names mean the same: both are clear, or one is the other's."""
        if small(self.name) == small(other.name) and self.ids & other.ids:
            return True
        return len(self.ids) == 1 and self.ids == other.ids


UNKNOWN = Unit("", frozenset())
"""A unit that is more than the table has: EUR/kg."""


@lru_cache(maxsize=1)
def _units() -> tuple[Mapping[str, frozenset[str]], Mapping[str, frozenset[str]]]:
    found: dict[str, frozenset[str]] = {}  # most names of a unit share one set
    none = frozenset[str]()
    for kind in ("units", "currencies"):
        for unit, names in _data()[kind].items():
            alone = frozenset((unit,))
            for name in names.split("|"):
                found[name] = found[name] | alone if name in found else alone
    for name, code in _data()["currency_signs"].items():
        is_clear = isinstance(code, str)
        found[name] = frozenset((code,)) if is_clear else found.get(name, none) | {*code.values()}
    found |= {name: frozenset((unit,)) for name, unit in _data()["english_units"].items()}
    found.pop("", None)
    in_small: dict[str, frozenset[str]] = {}
    common, currencies = {*_data()["common_currencies"].split()}, {*_data()["currencies"]}
    for name, units in found.items():
        # "all" is not ALL, and "top" not TOP; as a sign, "um" is not UM; 99 a month are no amperes
        is_code = name in units or (name.isalpha() and name.isupper() and units <= currencies)
        if (len(name) > 1 and not is_code) or name in common:
            key = name if small(name) == name else small(name)  # most are the same text
            in_small[key] = in_small[key] | units if key in in_small else units
    return found, in_small


@lru_cache(maxsize=4096)  # a number tries some thirty
def unit_named(name: str) -> Unit | None:
    """Return a unit or a currency by its name; capitals count where they tell two units apart."""
    by_name, in_small = _units()
    ids = by_name.get(name)
    if ids is None:
        ids = in_small.get(small(name), frozenset())
        ids = ids if len(ids) == 1 else None
    return None if ids is None else Unit(name, ids)


def letter_currency(letter: str) -> Unit | None:
    """Return the currencies of which a letter is the sign: R, but only where it has an amount."""
    codes = _data()["currency_letters"].get(letter)
    return Unit(letter, frozenset(codes.split())) if codes else None


def is_unit(name: str) -> bool:
    return name in _units()[0]


def currency_signs() -> tuple[str, ...]:
    """Return the codes and signs of all currencies; a sign may be of several."""
    return (*_data()["currencies"], *_data()["currency_signs"])


@lru_cache(maxsize=1)
def _lengths() -> Mapping[tuple[str, str], Sequence[int]]:
    found: dict[tuple[str, str], int] = {}  # a bit for each length: sets take 6 MB
    for name, ids in _units()[0].items():  # those in small letters begin, end and are as long
        kinds = ("unit", name[:2]), ("currency", name[-2:])
        for key in kinds if any(map(str.isupper, ids)) else kinds[:1]:
            found[key] = found.get(key, 2) | 1 << len(name)
    for name in scale_words()[1]:
        key = "scale", name[:2]
        found[key] = found.get(key, 2) | 1 << len(name)
    in_small: dict[tuple[str, str], int] = {}
    for (kind, letters), bits in found.items():
        key = kind, small(letters)
        in_small[key] = in_small.get(key, 0) | bits
    lengths = {
        bits: [n for n in range(bits.bit_length(), 0, -1) if bits >> n & 1]
        for bits in {*in_small.values()}
    }
    return {key: lengths[bits] for key, bits in in_small.items()}


def name_lengths(kind: Literal["unit", "currency", "scale"], text: str) -> Iterator[int]:
    """Yield how long a name may be with which a text begins, a currency's with which it ends.

    The longest first; `scale` is a word for thousands and more behind a number.
    """
    letters = text[-2:] if kind == "currency" else text[:2]
    return (n for n in _lengths().get((kind, small(letters)), (1,)) if n <= len(text))


def sign_means(name: str, languages: Iterable[str]) -> str | None:
    """Return the currency that a sign means in all of the languages: kr."""
    found = _data()["currency_signs"].get(name)
    means = {found.get(language) for language in languages} if isinstance(found, dict) else set()
    return means.pop() if len(means) == 1 else None


@lru_cache(maxsize=1)
def scale_words() -> tuple[frozenset[str], frozenset[str]]:
    """Return the words for thousands and more, before a number and behind it."""
    before, after = (_data()["scales"][side].split("|") for side in ("before", "after"))
    return frozenset(before), frozenset(after)
