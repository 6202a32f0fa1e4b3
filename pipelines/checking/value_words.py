"""Words that say what a number means: directions, fractions, multiples.

A direction belongs to its number: the nearest word of the same clause with no other number between.
Rose and fell are opposites, as are profit and loss, at least and at most, and next to a day or a
time before and after. Fractions and multiples are numbers: a quarter, zwei Drittel, doubled.
Quarters of a year and of a town, half past nine and the second half are none.

Each word of a text is tried once, wherever it occurs: a pattern of 300 words takes a fifth of the
time that `finditer` takes.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from .spelled_numbers import hours_in_words, plain_number
from .units import Unit, units_after

_WORD = re.compile(r"[^\W\d_]+")


def matches_at_words(
    pattern: re.Pattern[str], first_words: re.Pattern[str], text: str
) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern at words that begin as `first_words`, without overlaps."""
    places = _places_of_words(text)
    last = 0
    for start in sorted(at for word in places if first_words.match(word) for at in places[word]):
        found = pattern.match(text, start) if start >= last else None
        if found is not None:
            last = found.end()
            yield found


@lru_cache(maxsize=1)
def _places_of_words(text: str) -> Mapping[str, Sequence[int]]:
    places: dict[str, list[int]] = {}
    for found in _WORD.finditer(text):
        places.setdefault(found[0], []).append(found.start())
    return places


def first_words(pattern: str) -> re.Pattern[str]:
    """Return a pattern of the first words of alternatives without nested ones.

    >>> bool(first_words("at least|over").match("at")), first_words("at least|over").match("least")
    (True, None)
    """
    firsts = {_FIRST.split(words, maxsplit=1)[0] for words in alternatives(pattern)}
    return re.compile("|".join(firsts))


_FIRST = re.compile(r"[\s]|\[\\s|-|\(\?: |\(\?=")


def alternatives(pattern: str) -> Iterator[str]:
    """Yield the alternatives of a pattern outside its brackets."""
    depth = first = 0
    for at, sign in enumerate(pattern):
        depth += (sign in "([") - (sign in ")]")
        if sign == "|" and not depth:
            yield pattern[first:at]
            first = at + 1
    yield pattern[first:]


@lru_cache(maxsize=1)
def word_data() -> Any:
    """Return the words of directions, periods, fractions and multiples, and the opposed words.

    Of an opposed word, a star is any ending and an underscore a space.
    """
    return json.loads(Path(__file__).with_name("value_words.json").read_text("utf-8"))


_IS_UNSPACED = re.compile("[\u2e80-\uffff\u0900-\u0eff]")


def _pattern(*, is_spaced: bool) -> re.Pattern[str]:
    """Return a pattern of the words of scripts with spaces, or without."""
    kinds = []
    for kind, words in word_data()["directions"].items():
        chosen = [w for w in alternatives(words) if bool(_IS_UNSPACED.match(w)) != is_spaced]
        kinds.append(f"(?P<{kind}>{'|'.join(chosen)})")
    return re.compile(f"(?:{'|'.join(kinds)})" + (r"(?!\w)" if is_spaced else ""))


@lru_cache(maxsize=1)
def _spaced_directions() -> re.Pattern[str]:
    return _pattern(is_spaced=True)


@lru_cache(maxsize=1)
def _unspaced_directions() -> re.Pattern[str]:
    return _pattern(is_spaced=False)


@lru_cache(maxsize=1)
def _first_of_directions() -> re.Pattern[str]:
    return first_words("|".join(word_data()["directions"].values()))


_PER_WORD = (
    r"l(?=['\u2019](?!an\w*\s(?:derni|pass|proch|scors)))"
    r"|per|an?|each|every|pro|im|je|in|par|à|al|por|cada|all|alla|ao|na|в|за|كل|في"
)
_PER = (
    rf"(?:{_PER_WORD})(?:\s(?:der|la|l(?=['\u2019])))?[\s'\u2019]"
    r"(?:calendar\s)?(?:[^\s\d.,;]{1,12}[²³]?\s(?:und|and|et|y|e|en|i|и|ve)\s(?:(?:per|pro|je|par|por|al|an?)\s)?)?"
)
"""`je m² und Monat` is per month as well."""
HAN = re.compile("[\u2e80-\uffff]")
_PER_UNIT = re.compile(
    r"[^\S\n]?(?:/|(?:per|pro|je|par|por|al|el|le|il|lo|o|za|a|na|لل?ل?)(?=[^\S\n]))"
)


@lru_cache(maxsize=2)
def _periods(*, is_spaced: bool) -> re.Pattern[str]:
    """Return a pattern of the periods in scripts with spaces, or without."""
    kinds = []
    for name, names in word_data()["period names"].items():
        words = [word for word in word_data()["periods"].get(name, "").split("|") if word]
        words = [word for word in words if bool(HAN.match(word)) != is_spaced]
        words += [f"{_PER}(?:{names})(?!\\sالأ)"] if is_spaced else []
        kinds += [f"(?P<{name}>{'|'.join(words)})"] if words else []
    return re.compile(f"(?:{'|'.join(kinds)})" + (r"(?!\w)" if is_spaced else ""))


@lru_cache(maxsize=1)
def _first_of_periods() -> re.Pattern[str]:
    words = "|".join(word_data()["periods"].values()).replace("(?:", "(").split("|")
    firsts = {re.split(r"[(\[\\?]", word)[0][:4] for word in words}
    return re.compile("|".join(word for word in firsts if len(word) > 2) + rf"|(?:l|{_PER_WORD})\Z")


PAUSE = re.compile(r"[.!?;\n,()\u3001\u3002\uff0c\uff1b\uff08\uff09](?!\d)")
BREAK = re.compile(
    rf"{PAUSE.pattern}|\d"
    r"|\s(?:and|und|et|y|e|en|i|oraz|ve|but|aber|mais|pero|ma|maar|ale|while|whereas|während)\s"
)
_SHORT_PERIODS = re.compile(r"(?<!\w)(?:(?P<year>p\.\s?a\.)|(?P<month>pcm)(?!\w))")
_SENTENCE_CHARS, _NEXT_CHARS = 90, 16
_ABBREVIATED = ("руб.", "грн.", "тыс.", "mio.", "mrd.", "std.")
_NOT_NEXT = re.compile(r"\d|[.;:\n](?!\d)|,\s")


_EARLY = (
    r"in the morning|morgens|vormittags|früh|du matin|de la mañana|de la madrugada"
    r"|d(?:el|i) mattin[ao]|della mattina|da manhã|da madrugada|['\u2019]s ochtends|ochtends"
    r"|in de ochtend|rano|nad ranem|przed południem|утра|утром|sabah|صباحا|صباحاً|صباحًا|ص"
    r"|午前|上午|早上|凌晨|清晨|今早|朝|오전|새벽|πμ|på morgonen|ráno|(?:ال)?(?:صباح"
    r"|فجر)[\u064b]?ا?[\u064b]?"
)
_LATE = (
    r"in the (?:afternoon|evening)|nachmittags|abends|de l['\u2019]après-midi|du soir"
    r"|de la tarde|de la noche|d(?:el|i) pomeriggio|di sera|della sera|da tarde|da noite"
    r"|['\u2019]s (?:middags|avonds)|avonds|in de (?:middag|avond)|po południu|wieczorem"
    r"|дня|вечера|вечером|öğleden sonra|akşam|مساء|مساءً|بعد الظهر|عصرا|م"
    r"|午後|下午|晚上|傍晚|今晚|夜|오후|저녁|μμ|på (?:eftermiddagen|kvällen)|odpoledne|večer"
    r"|(?:ال)?(?:مساء|عصر|ليل|ظهر)[\u064b]?ا?[\u064b]?|بعد الظهر|akşamı|öğleden sonra"
)
_HOURS = r"(?:\s?(?:uhr|uur|h|hs|heures?|horas?|час\w*|o['\u2019]clock))?"
_PART_AFTER = re.compile(rf"{_HOURS}[\s,]{{0,2}}(?:(?P<early>{_EARLY})|(?P<late>{_LATE}))(?!\w)")
_PART_BEFORE = re.compile(
    rf"(?:(?P<early>{_EARLY})|(?P<late>{_LATE}))\s?(?:(?:um|at|om|saat|a las|alle|в|o|الساعة)\s)?\Z"
)
_PART_CHARS = 24


def part_of_day(text: str, start: int, end: int) -> str:
    """Return which half of the day is named next to a time in a lower-case text, if any.

    >>> part_of_day("at 8 in the evening", 3, 4), part_of_day("午後3時", 2, 4)
    ('late', 'late')
    """
    found = _PART_AFTER.match(text, end)
    found = found or _PART_BEFORE.search(text, max(0, start - _PART_CHARS), start)
    return str(found.lastgroup) if found is not None else ""


_BEFORE_TIME = (
    r"before|until|till|by|up to|no later than|at the latest on|prior to|vor|bis|spätestens|avant"
    r"|jusqu['\u2019]au?|jusqu['\u2019]à|au plus tard|d['\u2019]ici|antes|hasta|a más tardar|prima"
    r"|entro|fino|al più tardi|até|o mais tardar|voor|vóór|tot|tot en met|t/m|uiterlijk|przed|do"
    r"|najpóźniej|en geç|قبل|حتى|أقصاه|до|перед|не позднее|截至|截止|不晚于|不迟于|至|到|遅くとも"
)
_AFTER_TIME = (
    r"after|from|since|starting|beginning|as of|effective|no earlier than|nach|ab|seit|frühestens"
    r"|après|à partir|à compter|dès|depuis|au plus tôt|después|a partir|desde|dopo|a partire|dal"
    r"|dall['\u2019]|dalle|depois|após|na|vanaf|sinds|met ingang|op zijn vroegst|po|od|począwszy"
    r"|najwcześniej|en erken|بعد|من|منذ|ابتداء|اعتبارا|после|с|начиная|自|从|由|早くとも"
)
_TIME_LINK = (
    r"(?:the|on|dem|den|der|zum|am|le|la|el|il|o|a|au|du|de|del|al|dal|dnia|op|van|des|zu|um|las|les"
    r"|los|os|as|às|alle|de la|kl|klokken|godz\.?|godziną|saat|o|the end of|يوم|الساعة|تاريخ|في|من"
    r"|موعد|mon|tues?|wednes|thurs?|fri|satur|sun|[^\W\d_]{3,12}(?:day|tag|di|dag|feira)"
    r"|lunes|martes|miércoles|jueves|viernes|sábado|domingo|[^\W\d_]{3,9}dì|sabato|domenica),?\s"
)
_TIME_BEFORE = re.compile(
    rf"(?:(?<![^\W_])(?P<neg>not|nicht|pas|no|non|não|niet|nie|не|لا|不)?"
    r"\s?(?:(?:however|jedoch|aber|schon|bereits|etwa|cependant|toutefois|però|echter)\s)?)?(?<![^\W_])(?:"
    rf"(?P<less>{_BEFORE_TIME})|(?P<more>{_AFTER_TIME}))(?:\s|(?<=[\u2e80-\uffff])|(?<=['\u2019]))"
    rf"(?:{_TIME_LINK}){{0,3}}\Z"
)
_TIME_AFTER = re.compile(
    r"(?:[^\W\d_]*['\u2019]?[^\W\d_]{0,4}\s)?(?:(?P<less>önce\w*|öncesi\w*|kadar|dek|or "
    r"(?:earlier|before)"
    r"|at the latest)|(?P<more>sonra\w*|itibaren|beri|or later|onwards?|at the earliest"
    r"|oder später|ou plus tard|o más tarde))(?!\w)"
    r"|[^\S\n]?(?:(?P<l>までに|まで|以前|之前|前|止|截止|까지|이전)|(?P<m>以降|以後|以后|から|より後|之后|之後"
    r"|后|後|起|부터|이후))(?![後前])"
)
_TIME_CHARS = 40


_RANGE_BEFORE = re.compile(r"(?<![^\W_])(?:du|del|dal|do|vom|van|from|od)\s(?:dia\s)?\Z")
_RANGE_AFTER = re.compile(r"\s(?:au|al|ao|bis|to|tot|do)\s(?:zum\s|dia\s|en met\s)?\d")
_RANGE_END = re.compile(
    r"(?<![^\W_])(?:du|del|dal|do|from)\s\d[^.;\n]{3,24}\s(?:au|al|ao|to)\s(?:dia\s)?\Z"
)


def time_bound(text: str, start: int, end: int) -> int:
    """Return what is said of a day or a time in a lower-case text: -1 before it, 1 after it.

    Until it counts as before, and from it as after; 0: neither, or both.

    >>> time_bound("not before 3 may", 11, 16), time_bound("3 ekim'e kadar", 0, 6)
    (1, -1)
    """
    before = _TIME_BEFORE.search(text, max(0, start - _TIME_CHARS), start)
    after = _TIME_AFTER.match(text, end)
    if before is None and after is None:
        if _RANGE_AFTER.match(text, end) and _RANGE_BEFORE.search(text, max(0, start - 8), start):
            return 1
        return -1 if _RANGE_END.search(text, max(0, start - _TIME_CHARS), start) else 0
    bound = 0
    if before is not None:
        bound = (-1 if before["less"] else 1) * (-1 if before["neg"] else 1)
    if after is not None:
        other = -1 if after["less"] or after["l"] else 1
        bound = other if bound in (0, other) else 0
    return bound


_ARABIC_AND = re.compile(r"(?<!\w)(?:و(?=\w{3})|ف(?=\w{4}))")
_SIGNS = {"less": -1, "more": 1, "l": -1, "m": 1}
_COMPARED_AFTER = re.compile(
    r"[^\S\n]?(?:[^\W\d_]{2,20}\s(?=(?:more|fewer|less|mehr|weniger|de plus|de moins|más|menos|più"
    r"|meno|mais|meer|minder|więcej|mniej)\s(?:than|als|que|di|do|dan|niż)\s))?(?:(?P<more>more"
    r"|higher|mehr|höher|de plus|en plus|más|superior|supérieure?s?|più|superiore|mais"
    r"|meer|hoger|więcej|wyż\w+|больше|выше|in più|a mais|fazla(?! olma)"
    r"|daha (?:fazla|yüksek)|أكثر|多|高)"
    r"|(?P<less>less|fewer|lower|weniger|niedriger|de moins|en moins|menos|inferior|inférieure?s?"
    r"|meno|inferiore"
    r"|in meno|a menos|minder|lager|mniej|niż\w+|меньше|ниже|eksik|daha (?:az|düşük)|أقل|少|低))"
    r"(?:\s(?:than|als|que|di|do|dan|niż|чем|من))?(?!\w*[a-z])(?!\s(?:iva|tva|vat|tax))"
)
"""`6 % more`, which is a change; `more than 6 %` is a bound."""
_LIMIT_BEFORE = re.compile(
    r"(?<![^\W_])(?:(?P<less>bis|jusqu['\u2019](?:à|aux?)|fino ai|tot|do)"
    r"|(?P<more>ab|à partir de|from|desde(?: los)?|dai|dagli|a partir de(?: los)?|vanaf|od|от"
    r"|starting at))\s\Z"
)
_LIMIT_AFTER = re.compile(
    r"[^\S\n]?(?:[^\W\d_]{1,12}\s)?(?:(?P<more>or (?:older|more|above)|oder (?:älter|mehr)|et plus"
    r"|ou plus|o más|y más|o più|in su|ou mais|of (?:ouder|meer)|lub więcej|i więcej|ve üzeri)"
    r"|(?P<less>or (?:younger|less|fewer|below)|oder (?:jünger|weniger)|et moins|ou moins|o menos"
    r"|o meno|ou menos|of (?:jonger|minder)|lub mniej|ve altı))(?!\w)"
)
_LATER = (
    r"after|later|nach|danach|später|après|plus tard|después|más tarde|dopo|più tardi|após|depois"
    r"|mais tarde|(?<=en )na|(?<=uur )na|(?<=jaar )na|(?<=dag )na|later|po|później|после|позже"
    r"|sonra|geç|بعد|لاحق\w*"
)
_EARLIER = (
    r"before|earlier|prior|vor|zuvor|früher|avant|plus tôt|antes|más temprano|prima|più presto"
    r"|mais cedo|voor|eerder|vroeger|przed|wcześniej|до|раньше|önce|içinde|erken|قبل|سابق\w*"
)
_ORDER_AFTER = re.compile(
    rf"[^\S\n]?(?:[^\W\d_]{{2,12}}\s)?(?:(?P<more>{_LATER})|(?P<less>{_EARLIER}))(?!\w)"
    r"|[^\S\n]?[日天年月周週個个分秒时時間小以之か間间末底初]{0,4}(?:(?P<m>[后後降]|晚|から)"
    r"|(?P<l>[前早内內]|まで))"
)
_ORDER_BEFORE = re.compile(
    r"(?:(?<![^\W_])(?:(?P<more>after|nach|après|después de|al cabo de|dopo|após|depois de|na|po"
    r"|после|بعد)|(?P<less>before|within|vor|innerhalb von|binnen|dans les|en un plazo de|entro"
    r"|em até"
    r"|w ciągu|przed|قبل|خلال))\s|(?P<m>[后後])|(?P<l>前))\Z"
)
"""Such words do not always say that something changed: a source may have others."""
NEGATION_BEFORE = re.compile(
    r"(?:(?<![^\W_])(?:no(?:t|body)?|never|nicht|kein\w*|pas|non|não|niet|geen|nie|не|لا|لم|ألا|no|sin|sans"
    r"|none|niemand|personne|nadie|nessuno|ninguém|nikt|никто|ніхто|ingen"
    r"|senza|sem|without|ohne|zonder|bez)\s(?:[^\W\d_]+\s){0,4}|n['\u2019]"
    r"|[不未没沒毋勿](?:得|能|可|应|應|会|會|宜|要|有)?)\Z"
)
_NEVER_NEGATED = re.compile(
    r"at (?:least|most)|mindestens|wenigstens|minim|maxim|höchstens|au (?:moins|plus)|al menos"
    r"|por lo"
    r"|como m|almeno|al m|minstens|ten |tenminste|hoogstens|op zijn|pelo|no m|co najm|przyn|najw"
    r"|en az"
    r"|至少|最|少なくとも|على ال"
)
"""What `not` does not turn: if it is not ended at least 6 months before."""
_TO_LEVEL = re.compile(
    r"[^\S\n](?:to|auf|à|a|al|tot|op|para|em|do|na|إلى|до|til|till|su)[^\S\n](?:[^\W\d_]+[^\S\n])?"
    r"[$€£]?\d[\d.,]*(?:[^\S\n]?[^\W\d_]{1,12}(?=[^\S\n]))?"
)
"""`fell by 3 to 7 points`: where it went to is not what the word is about."""
_FROM = (
    r"(?<![^\W_])(?:from|von|vom|de|da|dal|dallo|van|z|ze|s|sa|od|от|с|со|са|från|fra|من)[^\S\n]"
)
FROM_BEFORE = re.compile(rf"{_FROM}[$€£]?[^\S\n]?\Z", re.IGNORECASE)
_FROM_LEVEL = re.compile(
    rf"{_FROM}"
    r"[$€£]?[^\S\n]?\d[\d.,]*(?:[^\S\n]?[^\W_]{1,12}(?=[^\S\n])|[^\S\n]?[%€$£])?"
    r"(?=[^\S\n](?:to|auf|à|aux?|a|al|ai|para|até|naar|tot|do|na|till?|إلى|до|на)[^\S\n])"
    r"|(?<![^\W_])(?:in|im|en|em|nel|no|w|в|في|عام)[^\S\n](?:[^\W\d_]{3,12}[^\S\n](?:de[^\S\n])?)?"
    r"(?:19|20)\d\d(?![\d.,]*\d)(?:[^\S\n](?:r\.|roku|года))?"
)
"""`fell from 7 to 3`, `fell in 2023 to 3`: neither is where it went to."""
_PERCENT_AFTER = re.compile(r"[^\S\n]?%")
"""What fell by 3 % (de 3 %) to 57 euros did not fall from 3."""
_DIGITS, _GROUP = re.compile(r"\d+(?:[.,]\d+)*"), re.compile(r"[.,](?=\d{3}(?!\d)|\d+[.,])")
_CLAUSE = re.compile(
    r"(?<!\s[rг])[.!?;:\n,()、，。；：](?!\d)|\s(?:and|und|et|y|e|en|och|og|i|и|а|but|aber|mais|pero|ma|maar"
    r"|ve|while|whereas|während)\s"
)
_STOP = re.compile(r"[.!?;\n。；](?!\d)")
_LEVEL = re.compile(
    r"(?<![^\W_])(?:to|at|from|auf|bei|à|a|al|desde|hasta|naar|tot|op|para|em"
    r"|do|na|z|إلى|الى|до|til|till|från"
    r"|fra|på|la|від|od|ze|su|da)[^\S\n](?:[$€£¥₹]|[a-z]{2,3}\$?[^\S\n])?\Z"
)
_LEVEL_CHARS = 12
_HAN_NUMBER_BEFORE = re.compile(r"\d[^\s\d。、，,.]*[\u2e80-\u9fff][^\s\d。、，,.]*\Z")
"""Verbs follow their numbers in Chinese and Japanese: one between two is of the first."""
_BEFORE_CHARS, _AFTER_CHARS = 60, 40


@dataclass(frozen=True, slots=True)
class Direction:
    """What the words around a number say; 0: nothing."""

    change: int = 0
    """-1 fell or lost, 1 rose or won."""
    bound: int = 0
    """-1 at most, 1 at least."""
    result: int = 0
    """-1 loss, 1 profit."""
    order: int = 0
    """-1 before or within, 1 after."""
    levels: int = 0
    """-1 or 1 of the first one of two levels: from 7 to 3."""
    periods: frozenset[str] = frozenset()
    """Per what it is: `month`, `year`."""
    per: frozenset[Unit] = frozenset()
    """Per which measure it is: 7 euros a kilo."""
    is_needed: bool = False
    """A source must name a change as well: it rose or fell by so much, by a word for just that."""

    @property
    def is_less(self) -> bool:
        """Whether a number so described may be negative."""
        return self.change < 0 or self.result < 0

    def differs_from(self, other: Direction) -> bool:
        """Return whether a text with these words is not supported by one with the others.

        What rose or fell by so much must have done so there: verbs that are not known decide
        nothing.
        """
        is_known = other.change or other.result or self.levels == other.levels != 0
        return (
            _are_apart(self.periods, other.periods)
            or _are_apart(self.per, other.per)
            or (self.is_needed and not is_known)
            or self._is_opposed_to(other)
        )

    def _is_opposed_to(self, other: Direction) -> bool:
        moved, won = (self, other) if self.change else (other, self)
        signs = (
            self.change * other.levels,
            self.levels * other.change,
            self.change * other.change,
            self.bound * other.bound,
            self.result * other.result,
            self.order * other.order,
            0 if moved.result or won.change else moved.change * won.result,
        )
        return min(signs) < 0


def _are_apart(own: frozenset[Any], other: frozenset[Any]) -> bool:
    return bool(own and other) and own.isdisjoint(other)


NO_DIRECTION = Direction()


class DirectionWords:
    """The words of a text that have a direction."""

    def __init__(self, text: str) -> None:
        """Find them; `text` is in lower case."""
        text = _ARABIC_AND.sub(" ", text)
        self._text = text
        found = [*matches_at_words(_spaced_directions(), _first_of_directions(), text)]
        if not text.isascii():
            found += _unspaced_directions().finditer(text)
        self._words = sorted((match.start(), match.end(), self._kind_of(match)) for match in found)
        self._starts = [start for start, _, _ in self._words]
        periods = [*matches_at_words(_periods(is_spaced=True), _first_of_periods(), text)]
        if not text.isascii():
            periods += _periods(is_spaced=False).finditer(text)
        periods += _SHORT_PERIODS.finditer(text)
        self._periods = sorted((*match.span(), str(match.lastgroup)) for match in periods)

    def _kind_of(self, found: re.Match[str]) -> str:
        """Return what a word says; a bound that is negated is the opposite one."""
        kind, start = str(found.lastgroup), found.start()
        other = {"most": "least", "least": "most"}.get(kind)
        other = other if not _NEVER_NEGATED.match(found[0]) else None
        is_not = other and NEGATION_BEFORE.search(self._text, max(0, start - 60), start)
        return other if other and is_not else kind

    def of(self, start: int, end: int) -> Direction:
        """Return the direction of the number between two offsets."""
        direction = self._direction_of(start, end)
        per = _PER_UNIT.match(self._text, end)
        units = frozenset(units_after(self._text, per.end())[0]) if per is not None else frozenset()
        return replace(direction, per=units) if units else direction

    def _direction_of(self, start: int, end: int) -> Direction:
        periods = self._periods_of(start, end) if self._periods else frozenset()
        compared = _COMPARED_AFTER.match(self._text, end)
        first = bisect_left(self._starts, start - _BEFORE_CHARS)
        has_words = first < bisect_left(self._starts, end + _AFTER_CHARS)
        levels = self._change_of_levels(start)
        order = self._order(start, end)
        if not (has_words or compared):
            limit = self._limit(start, end)
            return Direction(bound=limit, order=order, levels=levels, periods=periods)
        if compared is not None:
            change, bound_end = _SIGNS[str(compared.lastgroup)], compared.end()
        else:
            change, bound_end = self._nearest(start, end, "fall", "rise"), end
        is_needed = change != 0 and not self._is_level(start)
        change = change or self._nearest(start, end, "lost", "won")
        bound = self._nearest(start, bound_end, "most", "least")
        bound = bound or (0 if change else self._limit(start, end))
        result = self._nearest(start, end, "loss", "profit")
        return Direction(change, bound, result, order, levels, periods, is_needed=is_needed)

    def _is_level(self, start: int) -> bool:
        """Return whether it rose or fell to a number, and not by it."""
        return (
            _LEVEL.search(self._text, max(0, start - _LEVEL_CHARS), start) is not None
            or _HAN_NUMBER_BEFORE.search(self._text, max(0, start - 16), start) is not None
        )

    def _change_of_levels(self, start: int) -> int:
        """Return how the levels differ whose first one a number is: -1 for `from 7 to 3`."""
        found = FROM_BEFORE.search(self._text, max(0, start - _LEVEL_CHARS), start)
        first = _FROM_LEVEL.match(self._text, found.start()) if found is not None else None
        last = first and _DIGITS.search(self._text, first.end(), first.end() + _LEVEL_CHARS)
        if not first or not last:
            return 0
        before, after = (
            float(_GROUP.sub("", digits).replace(",", "."))
            for digits in (_DIGITS.findall(first[0])[0], last[0])
        )
        is_other = "%" in first[0] and not _PERCENT_AFTER.match(self._text, last.end())
        return 0 if is_other else (after > before) - (after < before)

    def _limit(self, start: int, end: int) -> int:
        """Return whether a number is the last one (until 18) or the first one (from 18 on)."""
        before = _LIMIT_BEFORE.search(self._text, max(0, start - _LEVEL_CHARS - 4), start)
        found = before or _LIMIT_AFTER.match(self._text, end)
        return _SIGNS[str(found.lastgroup)] if found is not None else 0

    def _order(self, start: int, end: int) -> int:
        """Return whether it is so long before or within something (-1), or after it (1)."""
        after = _ORDER_AFTER.match(self._text, end)
        found = after or _ORDER_BEFORE.search(self._text, max(0, start - _LEVEL_CHARS - 4), start)
        return _SIGNS[str(found.lastgroup)] if found is not None else 0

    def _periods_of(self, start: int, end: int) -> frozenset[str]:
        """Return the periods next to a number in its clause, else those of its sentence."""
        end += self._text[end - 3 : end + 1] in _ABBREVIATED
        first = bisect_left(self._periods, (start - _SENTENCE_CHARS,))
        last = bisect_left(self._periods, (end + _SENTENCE_CHARS,))
        near = self._periods[first:last]
        for at, _, period in near:
            if end <= at <= end + _NEXT_CHARS and not _NOT_NEXT.search(self._text, end, at):
                return frozenset((period,))
        before = {
            period
            for _, stop, period in near
            if stop <= start and not BREAK.search(self._text, stop, start)
        }
        if before:
            return frozenset(before)
        spans = ((min(end, stop), max(start, at), period) for at, stop, period in near)
        return frozenset(
            period for begin, stop, period in spans if not _STOP.search(self._text, begin, stop)
        )

    def _nearest(self, start: int, end: int, negative: str, positive: str) -> int:
        """Return what the next word of two kinds says; also with a unit in it: 2 haftadan fazla."""
        first = bisect_left(self._starts, start - _BEFORE_CHARS)
        last = bisect_left(self._starts, end + _AFTER_CHARS)
        near = [word for word in self._words[first:last] if word[2] in (negative, positive)]
        before = next((word for word in reversed(near) if word[1] <= start), None)
        after = next((word for word in near if word[0] >= start and word[1] > end), None)
        for pattern, word in ((_CLAUSE, before), (_CLAUSE, after), (_STOP, before)):
            if word is not None and self._refers_to(word, start, end, pattern):
                return -1 if word[2] == negative else 1
        return 0

    def _refers_to(
        self, word: tuple[int, int, str], start: int, end: int, stop: re.Pattern[str]
    ) -> bool:
        """Return whether nothing that ends what a word is about is between it and a number."""
        if word[1] <= start:
            between = _FROM_LEVEL.sub("", self._text[word[1] : start])
        else:
            between = _TO_LEVEL.sub("", self._text[end : word[0]])
        return not stop.search(between) and not any(map(str.isdecimal, between))


@lru_cache(maxsize=1)
def _first_of_fractions() -> re.Pattern[str]:
    return first_words(
        "|".join((*word_data()["numerators"].values(), *word_data()["parts"].values()))
    )


_ALONE = frozenset((2,))
"""Parts that need no number before them."""
_TELLING_PART = re.compile(
    r"drittel|viertel|fünftel|sechstel|achtel|zehntel|tiers|terços?|tredjedel|fjärdedel"
    r"|fjerdedel|třetin|čtvrtin"
    r"|femtedel|sepertiga|seperempat|kolmannes|neljännes|treime|четверт|трет[иь]\b|ثلث|ربع"
    r"|तिहाई|चौथाई|שליש|çeyre"
)


@lru_cache(maxsize=1)
def _fractions() -> re.Pattern[str]:
    return re.compile(
        r"(?:(?:"
        + "|".join(rf"(?P<c{n}>{words})" for n, words in word_data()["numerators"].items())
        + r")[\s-]+)?(?:(?:"
        + "|".join(rf"(?P<p{n}>{words})" for n, words in word_data()["parts"].items())
        + r"))(?!\w)"
    )


_ONE_WORD = re.compile(
    r"(?<!\w)(?:(drei|drie)(?:viertel|kwart)|halb(?:e[nrms]?)?|demi[e]?|mezz[oa]|medi[oa]"
    r"|mei[oa])(?!\w)"
)
_CJK = re.compile(
    r"(?<![0-9一二三四五六七八九十])([0-9]{1,3}|[一二三四五六七八九十]{1,3})\s?(?:分之|分の|분의)"
    r"\s?([0-9]{1,3}|[一二三四五六七八九十]{1,3})"
)
_TURKISH = re.compile(
    r"(?<!\w)(üçte|dörtte|beşte|onda|ikide)[\s]+(bir|iki|üç|dört)(?:[iuıüs]\w*)?(?!\w)"
)
_TURKISH_SHARE = re.compile("üçte|dörtte|beşte|onda|ikide")
_IN = re.compile(
    r"(?<!\w)(one|two|three|four|nine) (?:in|out of) (?:every )?(three|four|five|six|eight"
    r"|ten)(?!\w)"
    r"(?! (?:year|day|month|minute|hour|week)s?)"
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


@lru_cache(maxsize=1)
def _multiples() -> re.Pattern[str]:
    return re.compile(
        "(?:"
        + "|".join(rf"(?P<m{n}>{words})" for n, words in word_data()["multiples"].items())
        + r")(?!\w)"
    )


@lru_cache(maxsize=1)
def _first_of_multiples() -> re.Pattern[str]:
    return first_words("|".join(word_data()["multiples"].values()))


@lru_cache(maxsize=1)
def _first_of_parts() -> re.Pattern[str]:
    return first_words("|".join(word_data()["parts"].values()))


def is_share_word(word: str) -> bool:
    """Return whether a word in lower case may be a part of a fraction or a multiple."""
    patterns = (_first_of_parts(), _first_of_multiples(), _ONE_WORD, _TURKISH_SHARE)
    return any(pattern.match(word) for pattern in patterns)


_UNSPACED_SHARES = re.compile(
    "(?P<p2>一半|半数|半分|절반|半(?=小时|小時|天|[个個]月|公斤|時間))|(?P<m2>两倍|翻倍|翻了一番"
    "|翻番|二倍|倍増|두 배)"
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
    yield from _fractions_in(text)
    for found in _ONE_WORD.finditer(text):
        yield *found.span(), 0.75 if found[1] else 0.5, bool(found[1])
    yield from unspaced_shares_in(text)
    hours = hours_in_words()
    for found in _TURKISH.finditer(text):
        yield *found.span(), hours[found[2]] / hours[found[1][:-2]], True
    for found in _IN.finditer(text):
        yield *found.span(), hours[found[1]] / hours[found[2]], True
    for found in matches_at_words(_multiples(), _first_of_multiples(), text):
        if not _NOT_MULTIPLE.match(text, found.end()):
            yield *found.span(), float(str(found.lastgroup)[1:]), True


def unspaced_shares_in(text: str) -> Iterator[tuple[int, int, float, bool]]:
    """Yield the fractions and multiples of scripts without spaces."""
    for found in _CJK.finditer(text) if "分" in text or "분" in text else ():
        below, above = plain_number(found[1]), plain_number(found[2])
        if below and below != 100:
            yield *found.span(), above / below, True
    for found in _UNSPACED_SHARES.finditer(text) if HAN.search(text) else ():
        kind = str(found.lastgroup)
        yield *found.span(), 0.5 if kind == "p2" else float(kind[1:]), True


AND_HALF = re.compile(
    r"[^\S\n-]?-?(?:(?P<half>and a half|und (?:ein|eine) halbe?[rs]?|et demie?|y medi[oa]|e "
    r"mezz[oa]"
    r"|e mei[oa]|en een half|i pół|с половиной|buçuk\w*|ونصف|och en halv|og en halv)"
    r"|(?P<quarter>and a quarter|et quart|y cuarto|e un quarto|e um quarto|en een kwart|i ćwierć)"
    r"|(?P<most>and three[ -]quarters|et trois quarts|y tres cuartos|e tre quarti))(?!\w)"
    r"|[^\S\n]?(?P<han>[个個]?半(?=[^\W\d_]|[。、,.\s]|\Z))",
    re.IGNORECASE,
)
_HALF_HINT = re.compile(
    "hal[bfv]|demi|medi|mezz|mei[oa]|pół|полов|buçuk|نصف|半|[qk][uw]art|cuart|ćwierć"
)
_AROUND_HALF_CHARS = 40


def halves_in(text: str) -> Iterator[re.Match[str]]:
    """Yield where `and a half` and the like are."""
    last = 0
    for hint in _HALF_HINT.finditer(text.replace("İ", "i").lower()):
        begin, end = hint.start() - _AROUND_HALF_CHARS, hint.end() + _AROUND_HALF_CHARS
        found = AND_HALF.search(text, max(last, begin), end)
        if found is not None:
            last = found.end()
            yield found


def _fractions_in(text: str) -> Iterator[tuple[int, int, float, bool]]:
    for found in matches_at_words(_fractions(), _first_of_fractions(), text):
        kinds = {name[0]: int(name[1:]) for name, part in found.groupdict().items() if part}
        below, above = kinds["p"], kinds.get("c", 0)
        if _is_fraction(found, above, below):
            is_part = below in _ALONE or above > 1 or not _is_party(text, found.end())
            yield *found.span(), (above or 1) / below, is_part


def _is_fraction(found: re.Match[str], above: int, below: int) -> bool:
    text, start, end = found.string, found.start(), found.end()
    if not above and below not in _ALONE and not _TELLING_PART.match(text, start):
        return False
    if _NOT_BEFORE.search(text, max(0, start - _AROUND), start) or _NOT_AFTER.match(text, end):
        return False
    is_plain = text[end - 1] != "s" and above > 1 and found[0].isascii()
    ordinal = found[0].rsplit(maxsplit=1)[-1]
    return not (is_plain and ordinal in ("third", "fifth", "sixth", "eighth"))  # two third places


def _is_party(text: str, at: int) -> bool:
    return (
        re.match(r"\s+(?:part|person|time|countr|option|floor|day|year|person)", text[at : at + 12])
        is not None
    )


_AGO_AFTER = re.compile(
    r"[^\S\n](?:ago|fa|geleden|temu|назад|atrás|siden|sedan|sonra|önce)(?!\w)", re.IGNORECASE
)
_AGO_BEFORE = re.compile(r"(?<!\w)(?:hace|il y a|há)[^\S\n]\Z", re.IGNORECASE)
_AGO_CHARS = 16


def is_moment(text: str, start: int, end: int) -> bool:
    """Return whether a duration says when or how often something was: a year ago, `jeden Monat`."""
    return (
        _AGO_AFTER.match(text, end) is not None
        or _AGO_BEFORE.search(text, max(0, start - _AGO_CHARS), start) is not None
        or text[start : start + 5].casefold() == "jeden"
    )
