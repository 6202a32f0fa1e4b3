"""Names of months and numbers in many languages are those of CLDR (Babel) and num2words.

`python -m tests.pipelines.checking.test_language_data` writes the file. Reading it takes 3 ms;
both libraries together take 34 MB and more than a second.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

FILE = Path(__file__).resolve().parents[3] / "pipelines" / "checking" / "language_data.json"
WELL_KNOWN = frozenset(
    [
        "af",
        "az",
        "be",
        "bg",
        "bn",
        "bs",
        "ca",
        "cs",
        "cy",
        "da",
        "de",
        "el",
        "en",
        "es",
        "et",
        "eu",
        "fi",
        "fil",
        "fr",
        "ga",
        "gl",
        "gu",
        "he",
        "hi",
        "hr",
        "hu",
        "hy",
        "id",
        "is",
        "it",
        "ja",
        "ka",
        "kk",
        "kn",
        "ko",
        "ky",
        "lo",
        "lt",
        "lv",
        "mk",
        "ml",
        "mn",
        "mr",
        "ms",
        "my",
        "ne",
        "nl",
        "nb",
        "no",
        "nn",
        "or",
        "pa",
        "pl",
        "pt",
        "ro",
        "ru",
        "si",
        "sk",
        "sl",
        "sq",
        "sr",
        "sv",
        "sw",
        "ta",
        "te",
        "th",
        "tk",
        "tr",
        "uk",
        "ur",
        "uz",
        "vi",
        "zh",
        "zu",
        "ar",
        "fa",
    ]
)
"""Languages for which CLDR has modern coverage; of others, short names are left out."""
NUMBERED = [
    "ar",
    "az",
    "be",
    "ca",
    "cs",
    "da",
    "fa",
    "fi",
    "he",
    "hu",
    "id",
    "is",
    "kz",
    "lt",
    "lv",
    "no",
    "pl",
    "pt",
    "ro",
    "ru",
    "sk",
    "sl",
    "sr",
    "sv",
    "tr",
    "uk",
    "vi",
]
_LEAST_NAME_CHARS = 5  # four letters are a word of another language: hire, here, dame
COUNTED = (
    *range(21), *range(30, 100, 10), *range(100, 1000, 100),
    *(n * scale for scale in (10**3, 10**6) for n in (1, 2, 5)), 10**9, 2 * 10**9,
)  # fmt: skip


_IN_POLISH_MONTHS = (
    "styczniu lutym marcu kwietniu maju czerwcu lipcu sierpniu wrześniu październiku listopadzie "
    "grudniu"
)
"""As after `w`; CLDR has the nominative and the genitive."""


def months() -> dict[str, list[int]]:
    """Return the months that a name may mean, by the name."""
    from babel import Locale
    from babel.localedata import locale_identifiers

    names: dict[str, set[int]] = defaultdict(set)
    for identifier in locale_identifiers():
        language = identifier.split("_")[0]
        for kinds in Locale.parse(identifier).months.values():
            for kind in ("wide", "abbreviated"):
                for month, name in kinds.get(kind, {}).items():
                    name = name.casefold().strip(" .")
                    is_long = len(name) >= _LEAST_NAME_CHARS or not name.isascii()
                    if (
                        re.search(r"\d", name)
                        or len(name) < 2
                        or not (is_long or language in WELL_KNOWN)
                    ):
                        continue
                    names[name].add(month)
                    if language == "he":
                        names[f"ב{name}"].add(month)
    for month, name in enumerate(_IN_POLISH_MONTHS.split(), 1):
        names[name].add(month)
    return {name: sorted(found) for name, found in sorted(names.items())}


def numbers() -> dict[str, dict[str, int]]:
    """Return the words that are numbers, by language."""
    from num2words import num2words  # type: ignore[import-untyped]

    found: dict[str, dict[str, int]] = {}
    for language in NUMBERED:
        words: dict[str, int] = {}
        for number in COUNTED:
            name = num2words(number, lang=language).casefold()
            if " " not in name.strip():
                words[name.strip()] = number
        for number in (*range(2000, 10_000, 1000), *(n * 10**6 for n in range(2, 10))):
            *others, last = num2words(number, lang=language).casefold().split()
            if others and last not in words:
                words[last] = 1000 if number < 10**6 else 10**6
        for word, number in _MORE.get(language, {}).items():
            words[word] = number
        found[language] = dict(sorted(words.items()))
    return found


_MORE: dict[str, dict[str, int]] = {
    "pt": {"dezesseis": 16, "dezassete": 17, "dezessete": 17, "dezanove": 19, "dezenove": 19,
           "duas": 2, "duzentas": 200, "quatorze": 14, "bilhão": 10**9, "bilhões": 10**9,
           "cento": 100, "trezentas": 300},
    "pl": {"dwie": 2, "dwóch": 2, "trzech": 3, "czterech": 4, "pięciu": 5, "sześciu": 6,
           "dziesięciu": 10, "sto": 100, "tysiące": 1000, "tysięcy": 1000, "miliard": 10**9,
           "siedmiu": 7, "ośmiu": 8, "dziewięciu": 9, "jedenastu": 11, "dwunastu": 12,
           "trzynastu": 13, "czternastu": 14, "piętnastu": 15, "szesnastu": 16, "siedemnastu": 17,
           "osiemnastu": 18, "dziewiętnastu": 19, "dwudziestu": 20, "trzydziestu": 30,
           "czterdziestu": 40, "pięćdziesięciu": 50, "sześćdziesięciu": 60,
           "siedemdziesięciu": 70, "osiemdziesięciu": 80, "dziewięćdziesięciu": 90, "stu": 100,
           "dwustu": 200, "trzystu": 300, "czterystu": 400, "dwiema": 2, "dwoma": 2, "trzema": 3,
           "czterema": 4, "trzej": 3, "czterej": 4, "dwaj": 2},
    "ru": {"две": 2, "двух": 2, "трёх": 3, "трех": 3, "четырёх": 4, "пяти": 5, "шести": 6,
           "семи": 7, "восьми": 8, "девяти": 9, "одиннадцати": 11, "двенадцати": 12, "двадцати": 20,
           "тридцати": 30, "сорока": 40, "пятидесяти": 50, "десяти": 10,
           "тысяча": 1000, "тысячи": 1000, "тысяч": 1000, "миллиард": 10**9,
           "миллиардов": 10**9},
    "uk": {"двох": 2, "трьох": 3, "тисяча": 1000, "тисячі": 1000, "тисяч": 1000},
    "cs": {"dvě": 2, "dvou": 2, "tří": 3, "tisíce": 1000, "tisíc": 1000},
    "sv": {"tusen": 1000, "hundra": 100, "miljon": 10**6, "miljoner": 10**6, "miljard": 10**9},
    "no": {"sju": 7, "syv": 7, "tjue": 20, "hundre": 100, "tusen": 1000, "millioner": 10**6},
    "da": {"hundrede": 100, "tusind": 1000, "tusinde": 1000, "millioner": 10**6},
    "fi": {"sataa": 100, "tuhatta": 1000, "miljoonaa": 10**6},
    "hu": {"két": 2, "tizen": 10, "huszon": 20, "száz": 100, "ezer": 1000, "millió": 10**6},
    "tr": {"on": 10, "yüz": 100, "milyon": 10**6, "milyar": 10**9},
    "ro": {"două": 2, "sute": 100, "sută": 100, "mii": 1000, "milioane": 10**6},
    "id": {"belas": 10, "puluh": 10, "ratus": 100, "seratus": 100, "ribu": 1000, "juta": 10**6,
           "sepuluh": 10, "sebelas": 11},
    "vi": {"trăm": 100, "nghìn": 1000, "ngàn": 1000, "triệu": 10**6, "mươi": 10},
}  # fmt: skip


def test_the_file_has_what_the_libraries_have() -> None:
    assert json.loads(FILE.read_text("utf-8")) == {"months": months(), "numbers": numbers()}


if __name__ == "__main__":
    data = {"months": months(), "numbers": numbers()}
    FILE.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
