"""Names of months, units and currencies are those of CLDR, as this version of Babel has them.

`python -m tests.pipelines.checking.test_names` writes the file. Reading it takes some milliseconds;
Babel with all its languages takes several seconds.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import babel
import regex
from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages
from babel.localedata import locale_identifiers
from babel.numbers import is_currency

from paddock.pipelines.checking.folding import plain as plain_text
from paddock.pipelines.checking.folding import small
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "pipelines" / "checking" / "cldr_names.json"
BABEL = "2.18.0"
_IN_FORMAT = re.compile(r"'([^']*)'|([A-Za-z])\2*|(.)")
_JOINED_BEFORE, _JOINED_AFTER = regex.compile(r"[\p{L}\p{M}]*\Z"), regex.compile(r"[\p{L}\p{M}]*")


@cache
def folded(text: str) -> str:
    """Return a name as the product compares it: in small letters, without what is unseen."""
    return small(plain_text(text).text).translate(dict.fromkeys(map(ord, "\n\f\t\u00a0"), " "))


@cache
def plain(text: str) -> str:
    """Return a name as a text has it: capitals count."""
    return plain_text(text).text.translate(dict.fromkeys(map(ord, "\n\f\t\u00a0"), " ")).strip()


@cache
def locales() -> list[tuple[str, Locale]]:
    return [(each.split("_")[0], Locale.parse(each)) for each in sorted(locale_identifiers())]


def parts(pattern: str, era: str) -> list[str]:
    """Split a format of a date: `d`, `M`, `MMM`, `y`, and what stands between."""
    found: list[str] = []
    for match in _IN_FORMAT.finditer(pattern):
        if match[2] in ("d", "y"):
            found.append(f"\x01{match[2]}")
        elif match[2] in ("M", "L"):
            found.append("\x01M" if len(match[0]) < 3 else "\x01N")
        elif match[2] == "G":
            found.append(folded(era))
        elif match[2] is None:
            found.append(folded(match[1] if match[1] is not None else match[3]))
    return re.split("(\x01[dyMN])", "".join(found))


def _marked(form: str) -> str:
    """Return a part of a format with `{d}`, `{M}` and `{y}`; empty without any."""
    text = re.sub("\x01([dMy])", r"{\1}", re.sub(" +", " ", form))
    return text if "{" in text else ""


def _until_field(form: str) -> str:
    """Cut a form behind its last field, and the letters that touch it."""
    end = form.rfind("}") + 1
    return form[:end] + _JOINED_AFTER.match(form, end)[0]  # type: ignore[index]


def months() -> dict[str, Any]:
    """Return names by month, the languages of those that mean two, and what stands around them."""
    known = {language for language, locale in locales() if is_well_known(locale)}
    names: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    forms: set[tuple[str, str]] = set()
    numeric: set[str] = set()
    orders: dict[str, set[str]] = defaultdict(set)
    for language, locale in locales():
        affixes = {("", "")}
        for kind in ("short", "medium", "long"):
            era = locale.eras.get("abbreviated", {}).get(1, "")
            found = parts(locale.date_formats[kind].pattern, era)
            order = "".join(part[1] for part in found if part[:1] == "\x01").replace("N", "M")
            is_numbered = locale.months["format"]["abbreviated"][1].isdecimal()
            if is_numbered and kind == "medium":
                found = [part.replace("N", "M") for part in found]
            if "\x01N" not in found:
                orders[language].add(order)
                if kind != "short":
                    whole = _marked("".join(found))
                    numeric.add(whole[whole.find("{") : whole.rfind("}") + 1])
                continue
            at = found.index("\x01N")
            before, after = found[at - 1], found[at + 1] if at + 1 < len(found) else ""
            first = _JOINED_BEFORE.search(before)[0] if before else ""  # type: ignore[index]
            last = _JOINED_AFTER.match(after)[0]  # type: ignore[index]
            affixes.add((first, last))
            head = _marked("".join(found[:at]).removesuffix(first))
            tail = _marked("".join(found[at + 1 :]).removeprefix(last))
            forms.add((head[head.find("{") :] if head else "", _until_field(tail)))
            if "{d}" in head and "yMMMM" in locale.datetime_skeletons:  # tháng 5 năm 2024
                found = parts(str(locale.datetime_skeletons["yMMMM"].pattern), era)
                tail = _marked("".join(found[found.index("\x01N") + 1 :]).removeprefix(last))
                if tail:
                    forms.add((head[head.find("{") :], _until_field(tail)))
        for kinds in locale.months.values():
            for kind in ("wide", "abbreviated"):
                for month, name in kinds.get(kind, {}).items():
                    bare = folded(name).strip(" .")
                    if bare.isdecimal() or (len(bare) < 2 and bare < "\u0e00"):
                        continue
                    numbered = re.sub(r"\b(?=\d\Z)", "0", bare)  # tháng 05
                    for first, last in affixes:
                        names[f"{first}{bare}{last}"][month].add(language)
                        names[f"{first}{numbered}{last}"][month].add(language)
    by_month: dict[int, list[str]] = {month: [] for month in range(1, 13)}
    several: dict[str, dict[str, int]] = {}
    known_months: dict[str, list[int]] = {}
    for name, found_months in sorted(names.items()):
        for month in found_months:
            by_month[month].append(name)
        is_rare = len(name) < 4 and not known & set().union(*found_months.values())
        if is_rare:  # as short as words of other languages: these names need `language`
            known_months[name] = []
        if len(found_months) > 1 or is_rare:
            several[name] = {
                lang: m for m in sorted(found_months) for lang in sorted(found_months[m])
            }
            in_known = [m for m in sorted(found_months) if found_months[m] & known]
            if in_known and len(in_known) < len(found_months):
                known_months[name] = in_known
    return {
        "months": {str(month): "|".join(held) for month, held in by_month.items()},
        "months_by_language": several,
        "months_of_known": known_months,
        "forms": sorted(map(list, forms)),
        "numeric_forms": sorted(numeric),
        "orders": {language: " ".join(sorted(held)) for language, held in sorted(orders.items())},
    }


ERAS = {
    "พ.ศ.": -543, "พุทธศักราช": -543, "ພ.ສ.": -543,
    "明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988, "令和": 2018,
    "民國": 1911, "民国": 1911,
}  # fmt: skip
"""The eras of the Buddhist, Japanese and Chinese calendars, whose months are ours, and the year
before each: of CLDR's `calendarData` and `ca-*.json`, which Babel does not have."""


def day_links() -> dict[str, str]:
    """Return the words between a week's number and its month, and the names of a day."""
    links, days = set[str](), set[str]()
    for _, locale in locales():
        week = locale.datetime_skeletons.get("MMMMW")
        found = re.fullmatch("'[^']+' W '([^']+)' MMMM", str(week and week.pattern))
        if found and is_well_known(locale):
            links.add(folded(found[1]))
        if is_well_known(locale):
            names = locale._data["unit_patterns"]["duration-day"].get("long", {}).get("one", "")
            days.add(folded(str(names).replace("{0}", "")).strip())
    return {"of_month": "|".join(sorted(links)), "days": "|".join(sorted(days - {""}))}


def day_periods() -> dict[str, str]:
    """Return the names of the halves of a day, and those of other parts: morning, night.

    Those of languages with modern coverage, of three letters or fewer only where they are usual:
    others have `mo` and `to`, which are words elsewhere.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for _, locale in locales():
        for widths in locale.day_periods.values() if is_well_known(locale) else ():
            for width, names in widths.items():
                for period, name in names.items() if width != "narrow" else ():
                    is_word = len(name) < 4 and name.isascii() and name.isalpha()
                    if is_word and "a" not in str(locale.time_formats["short"].pattern):
                        continue
                    found[folded(name).strip()].add(period if period in ("am", "pm") else "other")
    clear = {
        name: min(periods) if len(periods) == 1 else "other" for name, periods in found.items()
    }
    return {
        period: "|".join(sorted(name for name, held in clear.items() if held == period))
        for period in ("am", "pm", "other")
    }


def marks() -> dict[str, str]:
    """Return by language what begins a fraction, and a space where it groups thousands by it."""
    found = {}
    for language, locale in locales():
        symbols = locale.number_symbols.get("latn")
        if language not in found and symbols:
            groups = str(symbols.get("group"))
            found[language] = str(symbols.get("decimal")) + (" " if groups.isspace() else "")
    return {language: mark for language, mark in sorted(found.items()) if mark[0] in ".,"}


def is_well_known(locale: Locale) -> bool:
    """Return whether CLDR has modern coverage of a language: only these have names of all units."""
    return locale.territory is None and locale.script is None and len(locale.currencies) > 150


def scales() -> dict[str, str]:
    """Return the words that stand for thousands and more, before and behind a number."""
    before, after = set[str](), set[str]()
    for _, locale in locales():
        for width in ("long", "short") if is_well_known(locale) else ():
            for by_size in locale.compact_decimal_formats.get(width, {}).values():
                for form in by_size.values():
                    pattern = form.pattern if hasattr(form, "pattern") else str(form)
                    pattern = pattern.partition(";")[0].replace("'", "")
                    first, _, last = re.sub("0+", "\0", pattern, count=1).partition("\0")
                    before.add(plain(first))
                    after.add(plain(last).strip("."))
    return {"before": "|".join(sorted(before - {""})), "after": "|".join(sorted(after - {""}))}


_LEAST_LANGUAGES = 10
_WORDS = frozenset(("in",))
"""Short names of units that are words of running text, too: of inches, in English."""


def unit_names(locale: Locale) -> Iterator[tuple[str, str]]:
    """Yield each unit with each of its names in a language."""
    for unit, widths in locale._data["unit_patterns"].items():
        for width in ("long", "short"):
            for form, pattern in widths.get(width, {}).items():
                if form != "per" and isinstance(pattern, str) and pattern.startswith("{0}"):
                    yield unit.partition("-")[2], plain(pattern[3:])


@cache
def units() -> dict[str, str]:
    """Return the names of each unit; short ones of few languages are words of the others."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for language, locale in locales():
        for key in unit_names(locale) if is_well_known(locale) else ():
            found[key].add(language)
    english = Locale("en")._data["unit_patterns"]
    words = {form.removeprefix("{0} ") for widths in english.values()
             for form in widths.get("long", {}).values() if isinstance(form, str)}  # fmt: skip
    names: dict[str, set[str]] = defaultdict(set)
    for (unit, name), languages in found.items():
        bare = name.rstrip(".")
        is_short = bare.isalpha() and len(bare) <= 3 and bare < "\u0e00" and name not in words
        if name and name not in _WORDS and not (is_short and len(languages) < _LEAST_LANGUAGES):
            names[unit].add(name)
    names["clock"] = hours().difference(*names.values())
    return {unit: "|".join(sorted(held)) for unit, held in sorted(names.items())}


def hours() -> set[str]:
    """Return the words behind the hours of a clock: 14.30 Uhr."""
    found = set[str]()
    for _, locale in locales():
        forms = locale.datetime_skeletons if is_well_known(locale) else {}
        for form in (str(forms[key].pattern) for key in ("H", "h") if key in forms):
            found.update(plain(word) for word in re.findall(r"[Hh] '([^']+)'", form))
    return found


def english_units() -> dict[str, str]:
    """Return what English means by a name that other languages have for something else, too."""
    means: dict[str, set[str]] = defaultdict(set)
    for unit, name in unit_names(Locale("en")):
        means[name].add(unit)
    count: dict[str, int] = defaultdict(int)
    for names in units().values():
        for name in names.split("|"):
            count[name] += 1
    clear = {name: min(found) for name, found in means.items() if len(found) == 1}
    return {name: unit for name, unit in sorted(clear.items()) if count[name] > 1}


def currencies() -> tuple[dict[str, str], dict[str, Any], dict[str, str]]:
    """Return the names of each currency in use, and what a sign (in a language) or letter means."""
    used = {
        code
        for rows in get_global("territory_currencies").values()
        for code, _, end, is_tender in rows
        if end is None and is_tender and is_currency(code)
    }
    names: dict[str, set[str]] = {code: {code} for code in used}
    english = Locale("en").currency_symbols
    spoken: dict[str, set[str]] = defaultdict(set)
    for territory, rows in get_global("territory_currencies").items():
        for code, _, end, is_tender in rows:
            if end is None and is_tender:
                spoken[code].update(get_official_languages(territory, de_facto=True), {"en"})
    signs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    letters: dict[str, set[str]] = defaultdict(set)
    for language, locale in locales():
        for code, sign in locale.currency_symbols.items():
            if code in used and sign != code:
                is_letter = len(sign) == 1 and sign.isalpha() and sign < "\u0e00"
                if is_letter:
                    letters[sign].add(code)
                else:
                    signs[plain(sign)][code].add(language)
        if is_well_known(locale):
            plural = locale._data.get("currency_names_plural", {})
            for code in used:  # those that have a sign everywhere, others where they are used
                if english.get(code, code) == code and language not in spoken[code]:
                    continue
                held = [locale.currencies.get(code, ""), *plural.get(code, {}).values()]
                names[code] |= {plain(name) for name in held if name}
    meant: dict[str, Any] = {}
    for sign, codes in sorted(signs.items()):
        common = [code for code in codes if english.get(code) == sign]
        if len(codes) == 1 or common:
            meant[sign] = common[0] if common else next(iter(codes))
        else:
            by_language: dict[str, set[str]] = defaultdict(set)
            for code, languages in codes.items():
                for language in languages:
                    by_language[language].add(code)
            meant[sign] = {lang: min(c) for lang, c in sorted(by_language.items()) if len(c) == 1}
    of_letters = {sign: " ".join(sorted(codes)) for sign, codes in sorted(letters.items())}
    return {code: "|".join(sorted(of)) for code, of in sorted(names.items())}, meant, of_letters


def data() -> dict[str, Any]:
    names, signs, letters = currencies()
    return {
        "babel": BABEL, **months(), **day_links(),
        "eras": {folded(name): years for name, years in ERAS.items()},
        "day_periods": day_periods(), "marks": marks(),
        "scales": scales(), "units": units(), "english_units": english_units(),
        "currencies": names, "currency_signs": signs,
        "currency_letters": letters,
        "common_currencies": " ".join(
            sorted(code for code, sign in Locale("en").currency_symbols.items() if code != sign)
        ),
    }  # fmt: skip


def written(found: Mapping[str, Any]) -> str:
    """Return the file's text: a line for each unit and month, and for each other table."""
    lines = []
    for name, held in found.items():
        text = json.dumps(held, ensure_ascii=False)
        if name in ("months", "units"):
            rows = (
                f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}"
                for key, value in held.items()
            )
            text = "{\n" + ",\n".join(rows) + "\n}"
        lines.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def test_the_file_has_what_this_version_of_babel_has() -> None:
    assert babel.__version__ == BABEL
    # In a process of its own: what Babel has formatted before changes its tables.
    command = [sys.executable, "-m", "tests.pipelines.checking.test_names", "--print"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=PATIENCE_S)
    assert FILE.read_text("utf-8") == made.stdout.decode()


if __name__ == "__main__":
    if "--print" in sys.argv:
        sys.stdout.buffer.write(written(data()).encode())
    else:
        FILE.write_text(written(data()), "utf-8")
