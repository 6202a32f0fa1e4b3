"""Names of months and numbers in many languages are those of CLDR (Babel) and num2words.

`python -m tests.pipelines.checking.test_number_and_month_words` writes the file. Reading it takes
3 ms; both libraries together take 34 MB and more than a second.
"""

# ruff: noqa: RUF001 - words of many scripts

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

FILE = (
    Path(__file__).resolve().parents[3] / "pipelines" / "checking" / "number_and_month_words.json"
)
_WELL_KNOWN = (
    "af ar az be bg bn bs ca cs cy da de el en es et eu fa fi fil fr ga gl gu he hi hr hu hy id is "
    "it ja ka kk kn ko ky lo lt lv mk ml mn mr ms my nb ne nl nn no or pa pl pt ro ru si sk sl sq "
    "sr sv sw ta te th tk tr uk ur uz vi zh zu"
)
"""Languages for which CLDR has modern coverage; of others, short names are left out."""
_NUMBERED = "ar az be ca cs da fa fi he hu id is kz lt lv no pl pt ro ru sk sl sr sv tr uk vi"
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
_SERBIAN_MONTHS = (
    "јануара фебруара марта априла маја јуна јула августа септембра октобра новембра децембра"
)
"""In the genitive; CLDR has the nominative."""


_LATIN = dict(zip("абвгдђежзијклмнопрстћуфхцчш", "abvgdđežzijklmnoprstćufhcčš", strict=True))


def _in_latin(text: str) -> str:
    letters = {**_LATIN, "љ": "lj", "њ": "nj"}
    return "".join(letters.get(sign, sign) for sign in text)


def months() -> dict[str, list[int]]:
    from babel import Locale
    from babel.localedata import locale_identifiers

    names: dict[str, set[int]] = defaultdict(set)
    well_known = frozenset(_WELL_KNOWN.split())
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
                        or not (is_long or language in well_known)
                    ):
                        continue
                    names[name].add(month)
                    if language == "he":
                        names[f"ב{name}"].add(month)
    for written in (_IN_POLISH_MONTHS, _SERBIAN_MONTHS, _in_latin(_SERBIAN_MONTHS)):
        for month, name in enumerate(written.split(), 1):
            names[name].add(month)
    return {name: sorted(found) for name, found in sorted(names.items())}


def numbers() -> dict[str, dict[str, int]]:
    from num2words import num2words  # type: ignore[import-untyped]

    found: dict[str, dict[str, int]] = {}
    for language in _NUMBERED.split():
        words: dict[str, int] = {}
        for number in COUNTED:
            name = num2words(number, lang=language).casefold()
            if " " not in name.strip():
                words[name.strip()] = number
        for scale in (10**2, 10**3, 10**6, 10**9):
            for n in range(1, 12 if scale > 100 else 10):
                *others, last = num2words(n * scale, lang=language).casefold().split()
                if others and last not in words:
                    words[last] = scale
        for word, number in _MORE.get(language, {}).items():
            words[word] = number
        ones = [word for word, number in words.items() if number == 1]
        for name in [word for word, number in words.items() if number in (100, 1000, 10**6)]:
            for one in ones:  # 301,000 has one before a thousand, but is no 300 of them
                words.pop(f"{one}{name}", None)
        found[language] = dict(sorted(words.items()))
    for language in ("hi", "sr_Cyrl"):
        found[language] = dict(sorted(_MORE[language].items()))
    return found


_ENDINGS = (
    ("pl", "y$", "y a e ego ej emu ą ym ych ymi"),
    ("pl", "i$", "i ia ie iego iej iemu ią im ich imi"),
    ("ru", "[ыо]й$", "ый ой ая ое ые ого ому ом ую ым ых ыми"),
    ("ru", "ий$", "ий ья ье ьи ьего ьей ьему ьем ью ьим ьих"),
    ("uk", "ий$", "ий а е і ого ої ому ій у им их ими"),
    ("uk", "ій$", "ій я є і ього ьої ьому ю ім іх"),
    ("cs", "ý$", "ý á é ého ému ém ou ým ých"),
    ("cs", "í$", "í ího ímu ím ích"),
    ("pt", "o$", "o a os as"),
    ("tr", "$", " si sinde"),
    *((language, "$", "") for language in ("da", "no", "sv", "hu", "ro")),
)
"""What ordinals of a language end with, and what else they may end with."""
_CZECH_ORDINALS = (
    "první druhý třetí čtvrtý pátý šestý sedmý osmý devátý desátý jedenáctý dvanáctý třináctý "
    "čtrnáctý patnáctý šestnáctý sedmnáctý osmnáctý devatenáctý dvacátý"
)


def ordinals() -> dict[str, int]:
    """Return the words that are ordinals; of several languages' the first one."""
    from num2words import num2words

    found: dict[str, int] = {}
    for language, ending, others in _ENDINGS:
        for number in (*range(1, 32), *range(40, 100, 10)):
            if language != "cs":
                *before, name = num2words(number, lang=language, to="ordinal").casefold().split()
            elif number <= 20:
                before, name = [], _CZECH_ORDINALS.split()[number - 1]
            else:
                continue
            is_one_word = not before or before == ["al"]
            for other in others.split(" ") if is_one_word and re.search(ending, name) else ():
                found.setdefault(re.sub(ending, other, name, count=1), number)
    for written, ending, others in _OTHER_ORDINALS:
        for number, name in enumerate(written.split(), 1):
            for other in others.split():
                found.setdefault(re.sub(ending, other, name, count=1), number)
    return dict(sorted(found.items()))


_SERBIAN_ORDINALS = (
    "први други трећи четврти пети шести седми осми девети десети једанаести дванаести тринаести "
    "четрнаести петнаести шеснаести седамнаести осамнаести деветнаести двадесети"
)
_OTHER_ORDINALS = (
    (_SERBIAN_ORDINALS, "и$", "и а о е ог ом у им их ој"),
    (_in_latin(_SERBIAN_ORDINALS), "i$", "i a o e og om u im ih oj"),
    ("prvý druhý tretí štvrtý piaty šiesty siedmy ôsmy deviaty desiaty jedenásty dvanásty trinásty "
     "štrnásty pätnásty šestnásty sedemnásty osemnásty devätnásty dvadsiaty", "[yýí]$",
     "y ý í a á e é eho ého ieho om ej ou u ú ym ých ych"),
    ("ensimmäi toi kolma neljä viide kuude seitsemä kahdeksa yhdeksä kymmene yhdestoista "
     "kahdestoista", "$", "s nen"),
    ("ensimmäi toi kolmanne neljänne viidenne kuudenne seitsemänne kahdeksanne yhdeksänne "
     "kymmenenne", "$", "n ssä ssa stä sta"),
)  # fmt: skip
"""With what they end with, and what else they may end with."""
_MORE: dict[str, dict[str, int]] = {
    "ar": {"أحد": 1, "إحدى": 1, "اثنا": 2, "اثني": 2, "اثنتا": 2, "اثنتي": 2, "ثلاث": 3, "أربع": 4,
           "خمس": 5, "سبع": 7, "ثمان": 8, "ثماني": 8, "تسع": 9, "عشر": 10, "عشرين": 20,
           "ثلاثين": 30, "أربعين": 40, "خمسين": 50, "ستين": 60, "سبعين": 70, "ثمانين": 80,
           "تسعين": 90, "مئة": 100, "مئتان": 200, "مئتين": 200, "مائتان": 200, "مائتين": 200,
           "ألفان": 2000, "ألفين": 2000, "ألفي": 2000, "مليونان": 2 * 10**6,
           "مليونين": 2 * 10**6, "مليوني": 2 * 10**6, "ألفا": 1000,
           "مليونا": 10**6},
    "he": {"עשרה": 10, "שני": 2, "שתי": 2, "שלושת": 3, "ארבעת": 4, "חמשת": 5, "ששת": 6, "שבעת": 7,
           "שמונת": 8, "תשעת": 9, "עשרת": 10, "שלושה": 3, "ארבעה": 4, "חמישה": 5, "שישה": 6,
           "שבעה": 7, "שמונה": 8, "תשעה": 9},
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
    "uk": {"дві": 2, "двох": 2, "трьох": 3, "тисяча": 1000, "тисячі": 1000, "тисяч": 1000},
    "cs": {"dvě": 2, "dvou": 2, "tří": 3, "tisíce": 1000, "tisíc": 1000},
    "sv": {"tusen": 1000, "hundra": 100, "miljon": 10**6, "miljoner": 10**6, "miljard": 10**9},
    "no": {"sju": 7, "syv": 7, "tjue": 20, "hundre": 100, "tusen": 1000, "millioner": 10**6},
    "da": {"en": 1, "hundrede": 100, "tusind": 1000, "tusinde": 1000, "millioner": 10**6},
    "fi": {"sataa": 100, "tuhatta": 1000, "miljoonaa": 10**6, "kahden": 2, "kolmen": 3, "neljän": 4,
           "viiden": 5, "kuuden": 6, "seitsemän": 7, "kahdeksan": 8, "yhdeksän": 9,
           "kymmenen": 10},
    "hu": {"két": 2, "tizen": 10, "huszon": 20, "száz": 100, "ezer": 1000, "millió": 10**6},
    "tr": {"on": 10, "yüz": 100, "milyon": 10**6, "milyar": 10**9},
    "sl": {"ena": 1, "dva": 2, "trije": 3, "štirje": 4},
    "ro": {"două": 2, "sute": 100, "sută": 100, "mii": 1000, "milioane": 10**6},
    "id": {"belas": -10, "puluh": 10, "ratus": 100, "seratus": 100, "ribu": 1000, "juta": 10**6,
           "sepuluh": 10, "sebelas": 11},
    "hi": {"तीन": 3, "चार": 4, "पांच": 5, "पाँच": 5, "सात": 7, "आठ": 8, "दस": 10, "ग्यारह": 11,
           "बारह": 12, "तेरह": 13, "चौदह": 14, "पंद्रह": 15, "सोलह": 16, "सत्रह": 17, "अठारह": 18,
           "उन्नीस": 19, "बीस": 20, "पच्चीस": 25, "तीस": 30, "चालीस": 40, "पचास": 50, "साठ": 60,
           "सत्तर": 70, "अस्सी": 80, "नब्बे": 90},
    "sr_Cyrl": {"два": 2, "две": 2, "три": 3, "четири": 4, "пет": 5, "шест": 6, "седам": 7,
                "осам": 8, "девет": 9, "десет": 10, "једанаест": 11, "дванаест": 12,
                "тринаест": 13, "четрнаест": 14, "петнаест": 15, "шеснаест": 16, "двадесет": 20,
                "тридесет": 30, "четрдесет": 40, "педесет": 50, "сто": 100},
    "vi": {"trăm": 100, "nghìn": 1000, "ngàn": 1000, "triệu": 10**6, "mươi": 10, "mốt": 1,
           "lăm": 5},
}  # fmt: skip


def _data() -> dict[str, object]:
    return {"months": months(), "numbers": numbers(), "ordinals": ordinals()}


def test_the_file_has_what_the_libraries_have() -> None:
    assert json.loads(FILE.read_text("utf-8")) == _data()


if __name__ == "__main__":
    data = _data()
    FILE.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")
