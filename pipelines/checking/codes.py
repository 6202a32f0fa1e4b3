"""Codes in a text, which are no amounts: versions, telephone numbers, plates, scores, numerals.

A code must be in a source unchanged, but for the gaps between its groups.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from collections.abc import Iterator

from .units import CURRENCIES, is_unit, units_after

LETTER = r"[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
CENTURY = (
    r"(?:centur(?:y|ies)|c\.|jahrhunderts?|jh\.?|siècles?|s\.|siglos?|secol[oi]|séculos?|eeuw\w*|wiek\w*"
    r"|век\w*|столет\w*|столітт\w*|stolet\w*|století|stor\.|száza\w*|yüzyıl\w*|secole?|sajand\w*)"
)
_GROUPED_CODE = re.compile(
    r"(?<![\w.,+$€£:/-])(?<![0-9] )(?:\+[0-9]{1,3}(?:[ ./-]?\(?[0-9]+\)?){2,}"
    r"|[A-ZÄÖÜ]{1,3}-[A-Z]{1,2} [0-9]{1,4}|[0-9]+/0[0-9]+"
    rf"|[0-9]{{1,5}}(?!e\.?[ ]{CENTURY})[abcefijnopqruvxyz](?!\w)"
    r"|[0-9]{1,6}-[A-Z]{1,4}(?:-[A-Za-z0-9]+)*|0[0-9](?:[. ][0-9]{2}){4}"
    r"|\(0[0-9]{1,5}\)[ /-]{0,3}[0-9]+(?:[ /-][0-9]+)*"
    r"|0[0-9]{2,}(?:(?: / |[ /-])[0-9]{2,})+"
    r"|[A-Z]{2}[0-9]{2}(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,4})?|[0-9]{4}(?: [0-9]{4}){3}"
    r"|[0-9]+/[0-9]{5,}|[0-9]{5,}/[0-9]+|[0-9]{1,4}/[^\W\d_a-z]"
    r"|[0-9]+(?:-[0-9]+){2,}|[0-9]+[-\u2013][0-9]+)(?!\w|[.,:][0-9])"
)
_N_CODE_DIGITS = 6
_N_LONG_DIGITS = 5  # of a range from 70 to 44,182 the second one is grouped
_MOST_CODE_CHARS = 48
VERSION_BEFORE = re.compile(
    r"(?<![^\W_])(?:v|ver\.?|version\w*|versión|versão|wersj\w+|верси\w+|releases?|rel\.?|build"
    r"|python|ios|ipados|android|windows|macos|java|ubuntu|debian|fedora|node|node\.js|gpt|llama"
    r"|kernel|linux|firmware|api|php|ruby|rust|go|postgresql|postgres|mysql|bluetooth|usb|http|tls"
    r"|angular|react|django|claude|gemini|qwen|mistral|gemma|phi|cuda|llvm|gcc|chapter|section"
    r"|clause|§|article|figure|fig\.|table|abschnitt|kapitel|ziffer|chapitre|capítulo"
    r"|sección)[ -]?\Z"
    r"|(?:版本|バージョン|第)[ ]?\Z",
    re.IGNORECASE,
)
_ROMAN = re.compile(
    r"(?<![\w.-])(?:(?P<name>[^\W\d_]{3,}\.?)[ ])?"
    r"(?P<roman>(?=[XVI])X{0,3}(?:IX|IV|V?I{0,3}))(?:er?|ème|ième|º|ª)?(?![\w-])(?!\.\w)"
    rf"(?P<century>\.?[ ]{CENTURY}(?!\w))?",
)
_NUMBERED = re.compile(
    r"(?:part|chapter|book|volume|vol|article|section|phase|type|class|annex|appendix|act|grade"
    r"|stage|level|title|schedule|kapitel|teil|band|anhang|artikel|abschnitt|klasse|stufe|typ"
    r"|partie"
    r"|chapitre|tome|annexe|livre|capítulo|tomo|parte|título|capitolo|allegato|deel|hoofdstuk"
    r"|bijlage|rozdział|tom|część|załącznik|глава|том|часть|раздел|del|bilaga|bölüm|kısım"
    rf"|{CENTURY})\.?",
    re.IGNORECASE,
)
LETTER_CODE = re.compile(
    r"(?<![^\W_])v?[0-9]+(?:\.[0-9]+){2,}(?![0-9])"
    r"|(?<![^\W_])v[0-9]+(?:\.[0-9]+)+(?![0-9])"
    rf"|(?<!{LETTER})(?<![0-9_]){LETTER}{{1,12}}[-\u2010\u2011]?[0-9]+(?:[-./]?[A-Za-z0-9]+)*"
    r"|(?<![0-9.,:])[0-9]{1,3}:[0-9]{1,3}(?::[0-9]{1,3})*(?![0-9])",
    re.IGNORECASE,
)
PREFIX = re.compile(rf"{LETTER}+")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{3})+")


def _grouped_code(text: str) -> str:
    """Return a number plate, a telephone number or a score without its gaps; "": a range."""
    pair = re.fullmatch(r"([0-9]+)[-\u2013]([0-9]+)", text)
    digits = re.sub(r"[^0-9A-Za-z]", "", text).casefold()
    if pair is None:
        name = text.rpartition("-")[2]
        if is_unit(name.casefold()):
            return ""
        return digits if len(digits) >= _N_CODE_DIGITS else text
    is_padded = any(len(group) > 1 and group[0] == "0" for group in pair.groups())
    is_year = len(pair[2]) < len(pair[1]) == 4 and int(pair[1]) < 2200
    is_uneven = len(pair[2]) >= _N_LONG_DIGITS > len(pair[1]) + 1
    if not is_padded and not is_uneven and (int(pair[1]) <= int(pair[2]) or is_year):
        return ""
    return digits if len(digits) >= _N_CODE_DIGITS else text.replace("\u2013", "-")


_NUMBERING_BEFORE = re.compile(
    r"(?<![^\W_])(?:age[ds]?|bus(?:es)?|trams?|trains?|flights?|routes?|lines?|piers?|platforms?|gates?"
    r"|rooms?|apartments?|floors?|seats?|tables?|units?|users?|lots?|houses?|pages?|pp?\.?|sections?"
    r"|phases?|steps?|stages?|groups?|class(?:es)?|grades?|types?|models?|series|mark|mk|items?|levels?"
    r"|weeks?|days?|years?|numbers?|n[or]s?\.?|n[°º]|parts?|chapters?|volumes?|clauses?|articles?|tasks?"
    r"|zug|züge|gleis|flug|linien?|seiten?|s\.|phasen?|zimmer|alter|ligne|quai|âge|vol|chambre|étape"
    r"|línea|páginas?|fase|edad|linea|pagin[ae]|lijn|blz\.?|bladzijden?|leeftijd|linia|stron[ay]"
    r"|страниц[аы]|автобус):?[^\S\n]\Z|[#№§][^\S\n]?\Z",
    re.IGNORECASE,
)
_CAPITALISED_BEFORE = re.compile(r"(?<![^\W_])([^\W\d_]+)[^\S\n]\Z")
_OPENING = re.compile(
    "about|almost|approximately|around|at|between|from|in|just|nearly|of|only|over|roughly|some|the"
    "|to|etwa|fast|rund|über|von|zwischen|à|de|des|entre|environ|près|da|dai|tra|fra|circa|quasi|van"
    "|tussen|od|około|między|от|около|между|mellan|mellem|mellom|från|på|unos|casi",
    re.IGNORECASE,
)
"""Words that a sentence may begin with before an amount."""
_SENTENCE_START = re.compile(r"(?:\A|[.!?:;\n•-])\s*\Z")


def is_after_noun(text: str, at: int) -> bool:
    """Return whether the noun before a number is one that numbers: bus 2, version 2."""
    begin = max(0, at - 24)
    return any(pattern.search(text, begin, at) for pattern in (VERSION_BEFORE, _NUMBERING_BEFORE))


def is_numbered(text: str, at: int, *, is_multiple: bool = False) -> bool:
    """Return whether the word before a number says that it only names: bus 2, Boeing 7, ver. 2.

    Before a multiple, what begins a sentence is no name: `Runs 2x faster`.
    """
    if is_after_noun(text, at):
        return True
    found = _CAPITALISED_BEFORE.search(text, max(0, at - 24), at)
    if found is None or not found[1][0].isupper() or found[1] in CURRENCIES:
        return False
    if is_multiple and not (len(found[1]) > 1 and found[1].isupper()):
        return _SENTENCE_START.search(text[max(0, found.start() - 4) : found.start()]) is None
    return _OPENING.fullmatch(found[1]) is None


_ARTICLE = re.compile(r"(?i)(?<!\w)(?:l[ae]s?|aux?|du|des?|het|een|une?|s(?:a|es|on))\s\Z")
_LOWER_NOUN = re.compile(r"[^\S\n][a-zà-ÿ]{3}")
"""Before and after ordinals such as 5e."""


def _is_multiple(text: str, found: re.Match[str]) -> bool:
    return found[0][-1] == "x" and not is_numbered(text, found.start(), is_multiple=True)


def grouped_codes_in(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield offsets and code of plates, telephone numbers, scores and the like.

    >>> [*grouped_codes_in("won 5-3 in 1-2 days")]
    [(4, 7, '5-3')]
    """
    for found in _GROUPED_CODE.finditer(text):
        begin = max(0, found.start() - 8)
        is_ordinal = found[0][-1] == "e" and (
            _ARTICLE.search(text, begin, found.start()) is not None
            or (_LOWER_NOUN.match(text, found.end()) and not is_numbered(text, found.start()))
        )
        is_code = not is_ordinal and not _is_multiple(text, found)
        if is_code and (code := _grouped_code(found[0]) or _reference(text, found)):
            yield *found.span(), code


_REFERENCE_BEFORE = re.compile(
    r"(?<![^\W_])(?:p\.?o|sku|rma|ticket|quote|claim|permit|n[or]\.?|n\.?[º°]|num\w*\.?|núm\w*\.?|ref\w*\.?|invoice|note|order|contract|file|case"
    r"|\w*(?:rechnung|vertrag|auftrag|bestellung|nummer)|akten?\w*|az\.?|facture|commande|contrat|dossier"
    r"|factura|pedido|contrato|expediente|fattura|ordine|contratto|pratica|factuur|faktura|umow[ay]"
    r"|договор|№):?[^\S\n]?\Z",
    re.IGNORECASE,
)


def _reference(text: str, found: re.Match[str]) -> str:
    """Return the number of a document that looks like a range: invoice 24-118.

    Also without a word before it where it begins like a year, and ends with no round number.
    """
    begin = max(0, found.start() - 24)
    is_one = _REFERENCE_BEFORE.search(text, begin, found.start()) is not None
    is_one = is_one or (
        _OF_YEAR.fullmatch(found[0]) is not None
        and not units_after(text, found.end())[0]
        and not _RANGE_BEFORE.search(text, begin, found.start())
        and not is_after_noun(text, found.start())
    )
    return found[0] if is_one else ""


_OF_YEAR = re.compile(r"(?:1[5-9]|2[0-9]|3[0-5])-[0-9]{2,3}[1-46-9]")
_RANGE_BEFORE = re.compile(
    r"(?:[<>(\[]|\b(?:range|norm\w*|ref\w*|from|between|von|zwischen|entre|tra|van|od)):?[^\S\n]?\Z",
    re.IGNORECASE,
)


def roman_numerals_in(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield offsets and value of Roman numerals; of one letter, only those with a name.

    >>> [*roman_numerals_in("I saw chapter V and the XIXe siècle")]
    [(14, 15, 5), (24, 27, 19)]
    """
    for found in _ROMAN.finditer(text):
        roman, name = found["roman"], found["name"]
        is_numbered = name is not None and _NUMBERED.fullmatch(name) is not None
        if len(roman) > 1 or is_numbered or found["century"]:
            yield *found.span("roman"), roman_value(roman)


def is_in_code(text: str, start: int, end: int) -> bool:
    """Return whether a place is a part of a telephone number, an IBAN or the like."""
    begin = max(0, start - _MOST_CODE_CHARS)
    return any(
        found.start() <= start and end <= found.end() and found.end() - found.start() > end - start
        for found in _GROUPED_CODE.finditer(text, begin, end + _MOST_CODE_CHARS)
        if (_grouped_code(found[0]) or _reference(text, found)) and not _is_multiple(text, found)
    )


def roman_value(text: str) -> int:
    digits = [{"I": 1, "V": 5, "X": 10}[sign] for sign in text]
    return sum(-digit if digit < max(digits[at:]) else digit for at, digit in enumerate(digits))


_SCORE = re.compile(r"([0-9]{1,2}):([0-9])")


def letter_code(text: str) -> str | None:
    """Normalise a code; None: it is a number with a currency, or with thousands."""
    prefix = PREFIX.match(text)
    if prefix is not None and prefix[0].upper() in (*CURRENCIES, "RS", "US"):
        return None
    if _THOUSANDS.fullmatch(text):
        return None
    score = _SCORE.fullmatch(text)
    if score is not None and int(score[1]) > int(score[2]):
        return f"{score[1]}-{score[2]}"
    return re.sub(r"[-\u2010\u2011\s]", "", text).casefold().removeprefix("v")
