"""Fractions and multiples in words: a quarter, zwei Drittel, la mitad, doubled, dreifach.

A fraction is a number and a per cent; a multiple is a number. Quarters of a year and of a town,
half past nine and the second half are none.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .word_scan import first_words, matches_at_words

_ONES = (
    "a|an|one|ein|eine|einen|einem|einer|un|une|una|uno|één|een|um|uma|jedn[aąe]j?|одн[ауо]й?"
    "|en|et|ett"
    "|jedna|jedné|jednu"
)
_COUNTS: Mapping[str, str] = {
    "1": _ONES,
    "2": "two|zwei|deux|dos|due|twee|dois|duas|dwie|dwa|две|två|to|dvě",
    "3": "three|drei|trois|tres|tre|drie|três|trzy|три|tre|tři",
    "4": "four|vier|quatre|cuatro|quattro|quatro|cztery|четыре|fyra|fire|čtyři",
    "5": "five|fünf|cinq|cinco|cinque|vijf|pięć|пять|fem|pět",
}
_PARTS: Mapping[int, str] = {
    2: r"half|halves|halved|halving|hälfte|halbier\w*|moitié|mitad|metà|metade|helft"
        r"|gehalveerd|połow[aęyą]"
    r"|половин[аыуе]|вдвое меньше|hälften|halverad\w*|halvdelen|halveret|polovin[auy]"
    r"|půlk[auy]|yarısı\w*|yarıya|puolet"
    r"|fele|felét|jumătate\w*|setengah|separuh|половин[аиу]|نصف|आध[ाेी]|חצי|מחצית|ครึ่งหนึ่ง"
    r"|một nửa",
    3: r"thirds?|drittel\w*|tiers|tercios?|terz[oi]|derden?|terços?|trzeci\w* częś\w*|trzecie"
        r"|третья|третью|трети|треть"
    r"|tredjedel\w*|třetin[auy]|kolmannes\w*|kolmasosa\w*|harmad\w*|treime|sepertiga"
    r"|третин[аиу]|ثلث|ثلثي|ثلثا|तिहाई|שליש",
    4: r"quarters?|viertel\w*|quarts?|cuartos?|quart[oi]|kwart|vierden?|ćwierć|czwart\w* "
        r"częś\w*|czwarte|czwarta|четверт[ьи]"
    r"|fjärdedel\w*|kvart|fjerdedel\w*|čtvrtin[auy]|neljännes\w*|neljäsosa\w*|negyed\w*|sfert"
    r"|seperempat|чверт[ьі]|çeyre\w*|ربع|चौथाई|רבע",
    5: r"fifths?|fünftel\w*|cinquièmes?|quintos?|quint[oi]|vijfde|piąt\w+ częś\w*|пят(?:ая|ую"
        r"|ых)|femtedel\w*|pětin[auy]|viides\w*osa\w*|خمس",
    6: r"sixths?|sechstel\w*|sixièmes?|zesde|sjättedel\w*|šestin[auy]",
    8: r"eighths?|achtel\w*|huitièmes?|octavos?|ottav[oi]|achtste|osmin[auy]",
    10: r"tenths?|zehntel\w*|dixièmes?|décimos?|decim[oi]|tiende|tiondel\w*|tiendedel\w*"
        r"|desetin[auy]|kymmenes\w*",
}  # fmt: skip
_FRACTION_WORDS = first_words("|".join((*_COUNTS.values(), *_PARTS.values())))
_ALONE = frozenset((2,))
"""Parts that need no number before them."""
_TELLING = re.compile(
    r"drittel|viertel|fünftel|sechstel|achtel|zehntel|tiers|terços?|tredjedel|fjärdedel"
    r"|fjerdedel|třetin|čtvrtin"
    r"|femtedel|sepertiga|seperempat|kolmannes|neljännes|treime|четверт|трет[иь]|ثلث|ربع"
    r"|तिहाई|चौथाई|שליש|çeyre"
)
_FRACTION = re.compile(
    r"(?:(?:"
    + "|".join(rf"(?P<c{n}>{words})" for n, words in _COUNTS.items())
    + r")[\s-]+)?(?:(?:" + "|".join(rf"(?P<p{n}>{words})" for n, words in _PARTS.items())
    + r"))(?!\w)"
)  # fmt: skip
_JOINED = re.compile(
    r"(?<!\w)(?:(drei|drie)(?:viertel|kwart)|halb(?:e[nrms]?)?|demi[e]?|mezz[oa]|medi[oa]"
    r"|mei[oa])(?!\w)"
)
_CJK = re.compile(
    r"(?<![0-9一二三四五六七八九十])([0-9一二三四五六七八九十]{1,3})\s?(?:分之|分の|분의)"
    r"\s?([0-9一二三四五六七八九十]{1,3})"
)
_TURKISH = re.compile(
    r"(?<!\w)(üçte|dörtte|beşte|onda|ikide)[\s]+(bir|iki|üç|dört)(?:[iuıüs]\w*)?(?!\w)"
)
_TURKISH_NUMBERS = {
    "ikide": 2,
    "üçte": 3,
    "dörtte": 4,
    "beşte": 5,
    "onda": 10,
    "bir": 1,
    "iki": 2,
    "üç": 3,
    "dört": 4,
}
_IN = re.compile(
    r"(?<!\w)(one|two|three|four|nine) (?:in|out of) (?:every )?(three|four|five|six|eight"
    r"|ten)(?!\w)"
)
_ENGLISH = dict(
    zip(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
        range(1, 11),
        strict=True,
    )
)
_NOT_BEFORE = re.compile(
    r"(?:first|second|1st|2nd|third|fourth|last|next|this|per|each|every|previous|prior"
    r"|erste[nrs]?|zweite[nrs]?|dritte[nrs]?"
    r"|vierte[nrs]?|letzte[nrs]?|premi[eè]re?|deuxième|seconde|troisième|quatrième"
    r"|primer[oa]?|segund[oa]|prim[oa]|second[oa]"
    r"|tweede|fiscal|(?<!\w)q\d|pro|par)[\s-]+\Z"
)
_NOT_AFTER = re.compile(
    r"(?:[\s-]*(?:past|to (?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|\d)|after|before|vor|nach|over|voor"
    r"|år|mile|final\w*|time|ly|earnings|results|place|floor|part(?:y|ies)|quarter|week|day"
    r"|year|van het jaar)(?!\w)|-(?!\w*$)\w+|\s*(?:19|20)\d\d)"
)
_MULTIPLES: Mapping[float, str] = {
    2: r"twice|two-?fold|doubl(?:ed|es|ing)|double|zweimal|doppelt\w*|verdoppel\w*"
        r"|zweifach\w*|deux fois|doubl[eé]\w*|dos veces"
    r"|doble|duplic\w*|due volte|doppio|raddoppi\w*|tweemaal|twee keer|verdubbel\w*|duas "
    r"vezes|dobro|dobr(?:ou|aram)|dwukrotn\w*"
    r"|dwa razy|podwoi\w*|вдвое|дважды|удво\w*|fördubbl\w*|dubbelt|två gånger|fordobl\w*"
    r"|dobbelt|dvojnásob\w*|zdvojnásob\w*|iki kat\w*"
    r"|kaksinkertai\w*|kétszeres\w*|dublu|dublat|удвічі|вдвічі|ضعف\w*|दोगुन\w*|כפול|הוכפל\w*",
    3: r"thrice|three-?fold|tripl(?:ed|es|ing)|triple|dreimal|dreifach\w*|verdreifach\w*"
        r"|trois fois|tripl\w*|tres veces|triplic\w*"
    r"|tre volte|driemaal|drie keer|verdrievoudig\w*|três vezes|trzykrotn\w*|trzy razy"
    r"|potroi\w*|втрое|трижды|утро\w*|tredubbl\w*"
    r"|tre gånger|tredobl\w*|trojnásob\w*|ztrojnásob\w*|üç kat\w*|तिगुन\w*|втричі|kolminkertai\w*",
    4: r"quadrupl\w*|four-?fold|vervierfach\w*|vierfach\w*|quadrupl\w*|cuadruplic\w*"
        r"|quadruplic\w*|verviervoudig\w*|czterokrotn\w*"
    r"|вчетверо|fyrdubbl\w*|firedobl\w*|dört kat\w*",
    10: r"ten-?fold|zehnfach\w*|verzehnfach\w*|decuplic\w*|tienvoud\w*|dziesięciokrotn\w*"
        r"|десятикратн\w*|tiodubbl\w*",
}  # fmt: skip
_MULTIPLE = re.compile(
    "(?:" + "|".join(rf"(?P<m{n}>{words})" for n, words in _MULTIPLES.items()) + r")(?!\w)"
)
_MULTIPLE_WORDS = first_words("|".join(_MULTIPLES.values()))
_UNSPACED = re.compile(
    "(?P<p2>一半|半数|半分|절반)|(?P<m2>两倍|翻倍|翻了一番|翻番|二倍|倍増|두 배)"
    "|(?P<m3>三倍|세 배)|(?P<m4>四倍)|(?P<m10>十倍)"
)
_NOT_MULTIPLE = re.compile(
    r"[\s-](?:room|bed|check|click|tax\w*|entry|digit|glaz\w*|spac\w*|zimmer|chambre|standard"
    r"|whammy|jeopardy|agent)\w*"
)
_AROUND = 16


def shares_in(text: str) -> Iterator[tuple[int, int, float, bool]]:
    """Yield offsets and value of each fraction and multiple in a lower-case text, and if it is one.

    What is a multiple has a value from 2 on; of fractions the last item is whether they are sure.

    >>> list(shares_in("two thirds of it, doubled; half past nine"))
    [(0, 10, 0.6666666666666666, True), (18, 25, 2.0, True)]
    """
    for found in matches_at_words(_FRACTION, _FRACTION_WORDS, text):
        kinds = {name[0]: int(name[1:]) for name, part in found.groupdict().items() if part}
        below, above = kinds["p"], kinds.get("c", 0)
        is_alone = not above
        if is_alone and below not in _ALONE and not _TELLING.match(text, found.start()):
            continue
        if _NOT_BEFORE.search(text, max(0, found.start() - _AROUND), found.start()):
            continue
        if _NOT_AFTER.match(text, found.end()):
            continue
        is_plain = text[found.end() - 1] != "s" and above > 1 and found[0].isascii()
        if is_plain and found[0].rsplit(maxsplit=1)[-1] in ("third", "fifth", "sixth", "eighth"):
            continue  # `two third places`
        is_part = below in _ALONE or above > 1 or not _is_party(text, found.end())
        yield *found.span(), (above or 1) / below, is_part
    for found in _JOINED.finditer(text):
        yield *found.span(), 0.75 if found[1] else 0.5, bool(found[1])
    for found in _CJK.finditer(text):
        below, above = _cjk(found[1]), _cjk(found[2])
        if below and below != 100:
            yield *found.span(), above / below, True
    for found in _TURKISH.finditer(text):
        yield *found.span(), _TURKISH_NUMBERS[found[2]] / _TURKISH_NUMBERS[found[1]], True
    for found in _IN.finditer(text):
        yield *found.span(), _ENGLISH[found[1]] / _ENGLISH[found[2]], False
    for found in _UNSPACED.finditer(text) if not text.isascii() else ():
        kind = str(found.lastgroup)
        yield *found.span(), 0.5 if kind == "p2" else float(kind[1:]), True
    for found in matches_at_words(_MULTIPLE, _MULTIPLE_WORDS, text):
        if not _NOT_MULTIPLE.match(text, found.end()):
            yield *found.span(), float(str(found.lastgroup)[1:]), True


def _is_party(text: str, at: int) -> bool:
    return (
        re.match(r"\s+(?:part|person|time|countr|option|floor|day|year|person)", text[at : at + 12])
        is not None
    )


def _cjk(text: str) -> int:
    if text.isdecimal():
        return int(text)
    digits = "〇一二三四五六七八九十"
    value = 0
    for sign in text:
        value = (value or 1) * 10 if sign == "十" else value + digits.index(sign)
    return value
