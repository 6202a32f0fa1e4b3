"""What contradicts a number that is in both texts: opposed words, other ranges, other kinds.

Opposed are net and gross, debit and credit, until and from. Of a pair, the words next to a number
count, else those in its clause; where both are, nothing is decided. The pairs are data, in
`value_words.json`.

10 to 20 is not in `10 to 12 or 20`, nor 9:00 to 18:00 in `9:00-12:00, 14:00-18:00`. Only two ranges
contradict each other: a source may write the ends apart. What rose from 10 to 15 and then to 20
rose from 10 to 20.

The 23rd meeting and room 23 are no 23 meetings, 70 % are no 70 members, and the number in a column
of boxes counts no bags if the table has a column of these.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

from .dates_and_values import TextValue, ValueIndex, values_in
from .digits_and_cells import number_values
from .number_and_month_words import ordinal_of
from .number_scales import BETWEEN, DIGIT_NEXT, RANGE_AND, RANGE_TO
from .numbers import Number
from .spelled_numbers import numbers_at_words
from .units import NO_UNIT
from .units_from_context import heading_of
from .value_words import BREAK, HAN, NEGATION_BEFORE, PAUSE, word_data

Side = tuple[int, int]
"""The number of a pair of opposed words, and -1 or 1 for one of its sides."""
_Found = tuple[int, int, Side]
"""Where a word begins and ends, and its side."""
_JOINED_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_ARABIC_PREFIX = re.compile(r"[وف]?(?:[بك]?ال|لل|[لبس])?(?=\w{3})")
_NEXT = re.compile(r"[^\S\n]?(?:[^\W\d_]+\.?[^\S\n])?[(\uff08]?")
_APPENDED = re.compile(r"[^\S\n]?(?:[^\W\d_]+[^\S\n]?){0,2},[^\S\n]")
"""680 € por mês, acrescido de IVA."""
_AGAINST_NUMBER = re.compile(
    r"(?:against|gegen|contre|contra|contro|tegen|i?mot|przeciw\w*|против|проти|proti)\s\d"
)
"""31 votes against 9."""
_OF_TAX = re.compile(r"(?:in|ex|inc|exc)lud?\w*[^\S\n](?:vat|tax\w*)|[ei][nx][kc]l", re.IGNORECASE)
_SIDE_BEFORE_CHARS, _SIDE_AFTER_CHARS, _NOT_CHARS = 100, 50, 30


def contradicts(answer: frozenset[Side], source: frozenset[Side]) -> bool:
    """Return whether a source has only the other side of one that an answer has."""
    return any(
        (pair, -side) in source and (pair, side) not in source and (pair, -side) not in answer
        for pair, side in answer
    )


def sides_at(text: str, start: int, end: int, *, is_moment: bool = False) -> frozenset[Side]:
    """Return the sides of the opposed words that a number between two offsets is said with.

    >>> sides_at("gross 3,200, net 2,410", 6, 11) == sides_at("3,200 brutto", 0, 5)
    True
    """
    first = max(0, start - _SIDE_BEFORE_CHARS)
    before, after = text[first:start], text[end : end + _SIDE_AFTER_CHARS]
    if first and not before[0].isspace():  # it may begin inside a word
        before = before.partition(" ")[2] or before
    earlier = _sides_in(before, is_moment=is_moment)
    later = _sides_in(after, is_moment=is_moment)
    later = [place for place in later if not _AGAINST_NUMBER.match(after, place[0])]
    label = before.rstrip(" :)\uff09")
    near = {side for _, at, side in earlier if not BREAK.search(label, at)}
    near |= {side for at, stop, side in later if _is_next(after, at, stop)}
    return frozenset(near or _farther_sides(before, after, earlier, later))


def _farther_sides(
    before: str, after: str, earlier: Sequence[_Found], later: Sequence[_Found]
) -> set[Side]:
    """Return the sides behind a number in its clause; of other pairs, those before it."""
    found = {side for at, _, side in later if not BREAK.search(after, 0, at)}
    pairs = {pair for pair, _ in found}
    for _, at, side in reversed(earlier):
        if side[0] not in pairs and not PAUSE.search(before, at):
            found.add(side)
            pairs.add(side[0])
    return found


def _is_next(after: str, at: int, stop: int) -> bool:
    """Return whether a word is directly after a number, and no conjunction between."""
    is_phrase = " " in after[at:stop] and not after[stop : stop + 2].strip().isdecimal()
    if (is_phrase or _OF_TAX.match(after, at)) and _APPENDED.fullmatch(after, 0, at):
        return True
    is_near = _NEXT.fullmatch(after, 0, at) is not None
    return is_near and after[at] != "و" and not BREAK.search(after[:at].rstrip("(\uff08"))


def _sides_in(text: str, *, is_moment: bool) -> Sequence[_Found]:
    """Return where opposed words are in a text, in order; those that are negated are left out."""
    n_pairs = len(_pairs()) if is_moment else len(word_data()["opposites"])
    lower = text.replace("İ", "i").lower()
    found = [
        (*word.span(), side) for word in _JOINED_WORD.finditer(lower) for side in _sides_of(word[0])
    ]
    if _any_phrase().search(lower):
        for side, phrases in _side_phrases():
            found += ((*match.span(), side) for match in phrases.finditer(lower))
    return sorted(
        place
        for place in found
        if place[2][0] < n_pairs
        and not NEGATION_BEFORE.search(lower, max(0, place[0] - _NOT_CHARS), place[0])
    )


@lru_cache(maxsize=4096)
def _sides_of(word: str) -> tuple[Side, ...]:
    forms = {word, _ARABIC_PREFIX.sub("", word, count=1)}
    return tuple(side for side, words in _side_words() if any(map(words.fullmatch, forms)))


@lru_cache(maxsize=1)
def _side_words() -> Sequence[tuple[Side, re.Pattern[str]]]:
    return _side_patterns(is_phrase=False)


@lru_cache(maxsize=1)
def _side_phrases() -> Sequence[tuple[Side, re.Pattern[str]]]:
    return _side_patterns(is_phrase=True)


@lru_cache(maxsize=1)
def _any_phrase() -> re.Pattern[str]:
    return re.compile("|".join(pattern.pattern for _, pattern in _side_phrases()))


def _pairs() -> Sequence[Sequence[str]]:
    """Return the pairs of opposed words; the last ones are only about days and times."""
    return (*word_data()["opposites"], *word_data()["opposed moments"])


def _side_patterns(*, is_phrase: bool) -> Sequence[tuple[Side, re.Pattern[str]]]:
    """Return a pattern for each side: of its words, or of what is found inside longer text."""
    found = []
    for pair, sides in enumerate(_pairs()):
        for side, words in zip((-1, 1), sides, strict=True):
            chosen = []
            for word in words.split():
                is_unspaced = HAN.match(word) is not None
                if (is_unspaced or "_" in word) != is_phrase:
                    continue
                pattern = word.replace("*", "" if is_unspaced else r"\w*").replace("_", r"\s")
                chosen.append(pattern if is_unspaced or not is_phrase else rf"\b{pattern}\b")
            if chosen:
                found.append(((pair, side), re.compile("|".join(chosen))))
    return found


_Ends: TypeAlias = tuple[Literal["first", "last", "any"], tuple[TextValue, ...]]
"""Which end of a range a value is, and the other one."""
_LEVELS = "|auf|naar|para|na|на|su"
"""Between the levels of what rose or fell."""
_AFTER, _AFTER_AND = (
    re.compile(RANGE_TO.format(_LEVELS + ending), re.IGNORECASE) for ending in ("", RANGE_AND)
)
_BEFORE, _BEFORE_AND = (
    re.compile(rf"{pattern.pattern.replace(DIGIT_NEXT, '')}\Z", re.IGNORECASE)
    for pattern in (_AFTER, _AFTER_AND)
)
_REACH_CHARS = 40


def is_in_other_range(answer: str, claimed: TextValue, source: str, found: TextValue) -> bool:
    """Return whether a value of an answer and the same one in a source are in different ranges."""
    ends = _ends_at(answer, claimed)
    others = _ends_at(source, found) if ends is not None else None
    if ends is None or others is None:
        return False
    if any(v.number is not None and v.number.direction.change for v in (claimed, found)):
        # Whether two ranges have the same ends the other way round: it rose, not fell
        return {ends[0], others[0]} == {"first", "last"} and _holds_any(ends[1], others[1])
    # Whether two ranges may be the same; a time may be written as its hour alone.
    is_same_end = ends[0] == others[0] or "any" in (ends[0], others[0])
    is_comparable = bool(ends[1] and others[1])
    is_comparable = is_comparable and bool(ends[1][0].clocks) == bool(others[1][0].clocks)
    is_held = _holds_any(others[1], ends[1]) or _holds_any(ends[1], others[1])
    are_equal = is_same_end and (not is_comparable or is_held)
    return not are_equal


def _ends_at(text: str, value: TextValue) -> _Ends | None:
    if value.is_range:
        return "any", tuple(end for end in values_in(value.text) if end.days != value.days)
    first, last = _range_around(text, value)
    if bool(first) == bool(last):  # none, or several in a row
        return None
    side: Literal["first", "last"] = "first" if last else "last"
    return side, tuple(_with_year(end, value, is_first=not last) for end in first or last)


def _range_around(
    text: str, value: TextValue
) -> tuple[tuple[TextValue, ...], tuple[TextValue, ...]]:
    """Return the first value of the range that a value ends, and the last one if it begins one."""
    begin = max(0, value.start - _REACH_CHARS)
    before = text[begin : value.start]
    between = BETWEEN.search(before)
    is_between = between is not None and not between["first"].strip()
    after = (_AFTER_AND if is_between else _AFTER).match(text, value.end)
    found = (_BEFORE_AND if between else _BEFORE).search(before)
    last = _value_at(text[after.end() : after.end() + _REACH_CHARS], start=0) if after else ()
    return _value_at(text[begin : value.end], end=found.start()) if found else (), last


def _with_year(end: TextValue, other: TextValue, *, is_first: bool) -> TextValue:
    """Return an end of a range with the year that only the other end is written with.

    `3 May to 5 May 2024`. Over New Year the year is unknown.
    """
    if any(year for year, _, _ in end.days):
        return end
    days = frozenset(
        (year, month, of_month)
        for _, month, of_month in end.days
        for year, other_month, _ in other.days
        if (month <= other_month if is_first else other_month <= month)
    )
    return replace(end, days=days or end.days)


@lru_cache(maxsize=4096)
def _value_at(text: str, *, start: int = -1, end: int = -1) -> tuple[TextValue, ...]:
    """Return the value that begins or ends at an offset of a text, if any."""
    return tuple(value for value in values_in(text) if value.start == start or value.end == end)[:1]


def _holds_any(known: Sequence[TextValue], values: Sequence[TextValue]) -> bool:
    index = ValueIndex()
    for value in known:
        index.add(value)
    return any(map(index.holds, values))


Kind: TypeAlias = Literal["rank", "name", "count", ""]

_RANK_BEFORE = re.compile(r"(?:第|제|(?<!\w)(?:thứ|ke-))\s?\Z")
_FLOOR = re.compile(r"(?:[位在][于於]|.?[在住])[0-9]{1,3}[层層楼樓]")
_RANK_AFTER = re.compile(
    r"(?:st|nd|rd|th|er|[èe]?re|i?[eè]me|e|[oaº°ª]s?|de|ste|te[nrms]?|:[ea]|-?[а-яё]{1,3}"
    r"|['\u2019]?[iıuü]?nc[iıuü]\w*|-[ea]|차|位|[号號番章条條款页頁期届屆级級등호]|回目|つ目|번째)(?![^\W\u0e00-\uffff])"
    r"|\.[ºª°]|\.(?=[^\S\n][^\W\d_])"
)
_DEGREE_RANK = re.compile(r"°(?=[^\S\n][^\W\d_]{2})")
"""As Italian writes 3º; 3 °C has no rank."""
_RANKED_BEFORE = re.compile(
    r"(?<!\w)(?:am|vom|zum|zur|im|de[rmns]|die|das|bis|(?:ihr|sein|unser|kein|jed)\w*|det)[^\S\n]\Z",
    re.IGNORECASE,
)
"""Before `3. Platz`, where a capital says nothing."""
_NAME_BEFORE = re.compile(
    r"(?:(?<![^\W_])(?:section|page|pp?\.|table|tab\.|figure|fig\.|article|art\.|chapter|ch\.|room|item"
    r"|step|floor|gate|platform|appendix|annex|line|bus|flight|phase|clause|paragraph|number|no\.?"
    r"|nos\.|nr\.?|n\.?[º°]\.?|n\.|num\.|extension|ext\.|level|lot|track|version|volume|vol\.|issue|part"
    r"|exhibit|schedule|question|rule|unit|day|slide|seite|(?<!\d\s)s\.|tabelle|abb(?:\.|ildung)|abschnitt|kapitel"
    r"|artikel|absatz|abs\.|ziffer|nummer|punkt|(?-i:TOP)|zimmer|raum|station|abteilung|avdelning|ward|gleis|linie|platz|rang|teil|anlage"
    r"|étape|partie|chapitre|tableau|annexe|ligne|chambre|salle|numéro|página|pág\.|tabla|figura"
    r"|artículo|sección|capítulo|cláusula|número|núm\.|línea|sala|pagina|pag\.|tabella|articolo|sezione"
    r"|capitolo|numero|tabela|artigo|seção|sala|bladzijde|blz\.|tabel|figuur|hoofdstuk|kamer|punt"
    r"|sida|tabell|kapitel|avsnitt|rum|side|punkt|strona|str\.|rozdział|tabulka|kapitola|sivu"
    r"|taulukko|kohta|страница|стр\.|глава|таблица|рис\.|пункт|статья|sayfa|madde|tablo|bölüm"
    r"|صفحة|المادة|رقم|جدول)[^\S\n]?|[#№§][^\S\n]?)\Z",
    re.IGNORECASE,
)
_NOUN_AFTER = re.compile(
    r"[^\S\n](?!(?:and|or|to|of|in|on|at|by|for|from|with|is|was|are|were|has|had|have|as|per|than|up"
    r"|after|before|against|gegen|contre|contra|contro|tegen|i?mot|przeciw\w*|против|und|oder|bis|zu|von|vom|im|am|an|auf|für|mit|ist|war|sind|wird|werden|wurde|hat|nach"
    r"|et|ou|à|au|de|du|des|en|sur|pour|par|est|a|y|o|u|e|ao?s?|el|la|los|las|con|por|para|es|fue|no|na"
    r"|di|da|del|dal|al|il|in|per|è|op|van|tot|met|voor|het|och|til|till|på|av|i|z|ze|w|we|do|od|je"
    r"|и|в|на|до|с|по|от|ja|ve|ile|oldu\w*|на|و|من|إلى|في)(?!\w))[^\W\d_]{2}|[\u3040-\u9fff\uac00-\ud7af]"
)
_LONG = re.compile(r"\d{5,}")
_SHARED_CHARS = 4  # of a noun before the number in one text, and behind it in the other
_WORD_BEFORE = re.compile(r"([^\W\d_]+)[^\S\n]\Z")
_WORD_AFTER = re.compile(r"[^\W_]{0,4}[.]?[^\S\n]([^\W\d_]+)")


def are_kinds_opposed(answer: str, claimed: TextValue, source: str, found: TextValue) -> bool:
    """Return whether one of two equal numbers is a rank or a name and the other one a count."""
    kind, other = kind_at(answer, claimed), kind_at(source, found)
    kinds = {kind, other}
    if kind == "count" and _is_share(found) and not _is_share(claimed):
        return True
    if kinds == {"count", "name"} or _is_of_other_column(answer, claimed, source, found):
        return True
    if kind == "count" and _is_of_other_noun(answer, claimed, source, found):
        return True
    return kinds == {"count", "rank"} and not (
        _is_named_as(answer, claimed, source, found) or _is_named_as(source, found, answer, claimed)
    )


def _is_of_other_column(answer: str, claimed: TextValue, source: str, found: TextValue) -> bool:
    """Return whether what is counted is the heading of another column than the number's."""
    noun = _WORD_AFTER.match(answer, claimed.bare[1])
    heading = heading_of(source, found.bare[0]) if noun is not None else None
    if noun is None or heading is None:
        return False
    stem = noun[1][:_SHARED_CHARS].casefold()
    own, others = heading
    is_long = len(stem) == _SHARED_CHARS  # "a month" is no "Area"
    return stem not in own.casefold() and any(
        name.casefold().startswith(stem) if is_long else name.casefold() == stem for name in others
    )


def is_opposite_result(answer: str, claimed: TextValue, source: str, found: TextValue) -> bool:
    """Return whether the same side wins by a score in one text, and loses by it in the other."""
    own, other = _result_before(answer, claimed.start), _result_before(source, found.start)
    return own is not None and other == (own[0], -own[1])


def _result_before(text: str, at: int) -> tuple[str, int] | None:
    """Return the word before the verb that is said of a score, and whether that is won or lost."""
    begin = max(0, at - _SIDE_BEFORE_CHARS, 1 + max(text.rfind(mark, 0, at) for mark in ".;\n"))
    words = [word[0].lower() for word in _JOINED_WORD.finditer(text, begin, at)]
    for subject, verb in reversed([*pairwise(words)]):
        for pair, side in _sides_of(verb):
            if _pairs()[pair][0].startswith("won "):
                return subject, side
    return None


_COUNTED = re.compile(r"[^\S\n]([^\W\d_\u2e80-\uffff]{4,})")
_TOKEN_BEFORE, _PLAIN_NUMBER = re.compile(r"([^\s(]+)\Z"), re.compile(r"\d[\d.,]*")
_SMALL_WORDS = re.compile(r"(?:[^\S\n][a-zäöüß]\w*){1,6}(?:[.,;:!?\n]|\Z)")
_CLAUSE_AFTER = re.compile(r"[^.;:!?\n]{0,40}")


def _is_of_other_noun(answer: str, claimed: TextValue, source: str, found: TextValue) -> bool:
    """Return whether a source counts other things by a number, and what is said by other numbers.

    Five instalments are not in `the first five days; a deposit of two instalments`.
    """
    noun = _COUNTED.match(answer, claimed.bare[1])
    number = claimed.number
    if noun is None or number is None or not _NOUN_AFTER.match(answer, claimed.bare[1]):
        return False
    stem = noun[1].lower()[: max(_SHARED_CHARS, len(noun[1]) - 2)]
    after = _CLAUSE_AFTER.match(source, found.bare[1])
    if not _NOUN_AFTER.match(source, found.bare[1]) or (after and stem in after[0].lower()):
        return False
    if any(reading.unit != NO_UNIT for reading in number.readings):
        return False
    if noun[1][0].isupper() and _SMALL_WORDS.match(source, found.bare[1]):
        return False  # a noun has a capital there: nine of them did something
    known = _numbers_before(source, stem)
    return bool(known) and known.isdisjoint((reading.value, False) for reading in number.readings)


@lru_cache(maxsize=64)
def _numbers_before(text: str, stem: str) -> frozenset[tuple[float, bool]]:
    """Return the numbers directly before a noun, and whether they are ranks."""
    found: set[tuple[float, bool]] = set()
    for noun in re.finditer(rf"[^\S\n](?={re.escape(stem)})", text, re.IGNORECASE):
        word = _TOKEN_BEFORE.search(text, max(0, noun.start() - 24), noun.start())
        digits = _PLAIN_NUMBER.match(word[1]) if word is not None else None
        if word is not None and digits is not None:
            is_rank = digits.end() < len(word[1]) or digits[0][-1] == "."
            found |= {(value, is_rank) for value in number_values(digits[0].rstrip(".,"))}
        elif word is not None:
            name = word[1].lower()
            found |= {(value, bool(ordinal_of(name))) for _, value in numbers_at_words(name)}
    return frozenset(found)


def _is_share(value: TextValue) -> bool:
    """Return whether a number is per cent or a part: 70 % are no 70 members."""
    number = value.number
    dimensions = (
        {reading.unit.dimension for reading in number.readings} if number is not None else set()
    )
    return "percent" in dimensions and "times" not in dimensions


def _is_named_as(text: str, named: TextValue, other: str, ranked: TextValue) -> bool:
    """Return whether the noun before a number is the one behind a rank: Etage 3, 3. Etage."""
    before = _WORD_BEFORE.search(text, max(0, named.start - 24), named.start)
    after = _WORD_AFTER.match(other, ranked.bare[1])
    if before is None or after is None:
        return False
    return before[1][:_SHARED_CHARS].casefold() == after[1][:_SHARED_CHARS].casefold()


def kind_at(text: str, value: TextValue) -> Kind:
    """Return what a number is: 23rd, room 23, 23 meetings; "": unknown.

    >>> text = "Room 4, the 3rd, has nine chairs"
    >>> [kind_at(text, value) for value in values_in(text)]
    ['name', 'rank', 'count']
    """
    number = value.number
    if number is None or value.days or number.code:
        return ""
    start, end = value.bare
    if number.is_ordinal or _DEGREE_RANK.match(text, end):
        return "rank"
    if any(1000 <= reading.value < 2200 for reading in number.readings):
        return ""
    if _is_rank(text, start, end):
        return "rank"
    if _NAME_BEFORE.search(text, max(0, start - 24), start):
        return "name"
    return "count" if _is_count(text, number, start, end) else ""


def _is_count(text: str, number: Number, start: int, end: int) -> bool:
    is_word = not any(map(str.isdecimal, number.text))
    if is_word or all(reading.unit != NO_UNIT for reading in number.readings):
        return True
    return not _LONG.fullmatch(text, start, end) and _NOUN_AFTER.match(text, end) is not None


def _is_rank(text: str, start: int, end: int) -> bool:
    if _FLOOR.match(text, max(0, start - 2)) or _RANK_BEFORE.search(text, max(0, start - 6), start):
        return True
    mark = _RANK_AFTER.match(text, end) if text[end - 1 : end].isdecimal() else None
    return mark is not None and _is_rank_mark(text, start, end, mark)


def _is_rank_mark(text: str, start: int, end: int, mark: re.Match[str]) -> bool:
    """Return whether a mark behind digits makes them a rank: a dot may end a sentence."""
    if mark[0] != ".":
        return True
    is_lower = text[end + 2].islower()
    return is_lower or _RANKED_BEFORE.search(text, max(0, start - 12), start) is not None
