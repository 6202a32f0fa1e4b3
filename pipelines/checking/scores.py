"""Scores, votes and shares: what two numbers are together; and what words may also mean.

`5 to 3`, `five-three` and `5:3` are one score, and 3:5 is another one; 7 out of 10 are 70 per cent.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from .codes import LETTER
from .digits_and_cells import rounded
from .numbers import Number, NumberReading, lower_case
from .spelled_numbers import hours_in_words, numbers_at_words
from .times_and_durations import HOURS, durations_in
from .units import PERCENT
from .value_words import matches_at_words

_SPACED_DIGITS = re.compile(r"(?<=\s)[0-9]+(?![^\W_])")
_NAME_BEFORE = re.compile(rf"(?<![^\W_])({LETTER}{{1,12}})\.?[^\S\n]\Z")
_NAME_CHARS = 16
TWICE = re.compile(r"\b(?:both|pair|couple|beide[nr]?|paar)\b", re.IGNORECASE)
_AGAINST = "to|zu|à|a|tegen|do|mot|til"
_OUT_OF = r"out of(?: every| the)?|von(?: je)?|sur|su|de cada|em cada|op de|van de|na|av|из"
_NOT_FROM = (
    "(?<!from )(?<!von )(?<!vom )(?<!de )(?<!da )(?<!van )(?<!od )(?<!z )(?<!ze )(?<!с )(?<!от )"
)
_PAIR = re.compile(
    rf"(?<![\w.,:/+-])(?:(?P<n>[0-9]{{1,3}})[^\S\n](?:{_OUT_OF})[^\S\n](?P<of>[0-9]{{1,3}})"
    rf"|{_NOT_FROM}(?P<won>[0-9]{{1,2}})[^\S\n](?:{_AGAINST})[^\S\n](?P<lost>[0-9]{{1,2}}))"
    r"(?![\w%]|[.,:/-]\w|[^\S\n][%€$£])"
)
OUT_OF = re.compile(rf"[0-9][^\S\n](?:{_OUT_OF})[^\S\n][0-9]")
_CONTEXT_CHARS = 40
_WORD_BEFORE = re.compile(r"(?<![^\W_])([^\W_]+)[\s-]+\Z")
_WORD_AFTER = re.compile(r"\s([^\W_]+(?:'\w+)?)")
_CLAUSE_END = re.compile(r"[.;!?\n]")
_ARTICLE = re.compile("un[aoe]?|eine?|een|uma?|ett?|en")
_OPPONENT_AFTER = re.compile(r"(?:contr[oae]|gegen|tegen|against|mot)\b")
_RESULT = re.compile(
    r"\b(?:w[io]ns?|winning|los[ets]+|losing|beats?|beaten|defeat\w*|scores?|scored|match(?:es)?|games?"
    r"|vot\w+|finals?|dr[ae]w|victor\w+|ended|finish\w*|result\w*|passed|ruled|verdict|goals?|leads?|led"
    r"|gew[ao]nn?\w*|gewinn\w*|sieg\w*|verlor\w*|spiel\w*|endete\w*|endstand|stand|führ\w+"
    r"|unterlag\w*|abstimm\w*|stimmen?|schlug\w*|ergebnis\w*|partie|gagn\w+|perd\w+|battu\w*"
    r"|victoire\w*|défaite\w*|voix|buts|mène\w*|rempor\w+|vainc\w+|imposés?|terminé\w*|gan[aóo]\w*"
    r"|partido\w*|venc\w+|victoria\w*|derrot\w*|marcador|gole?s?|empat\w+|termin(?:a|ó|aron|ou|ar)|acab\w+"
    r"|vin(?:to|ta|ti|te|se|sero|ce|cono|cere)|pers[eoi]|partit[ae]|vittori\w+|sconfi\w+|risultat\w+|fin(?:ì|it[aoe])|battut\w"
    r"|wonnen|verliez\w+|verloren|wedstrijd\w*|uitslag|eindstand|stem(?:men)?|versl\w+|eindig\w*"
    r"|ganh\w+|jogo|partida|placar|vitória|wygra\w+|przegra\w+|mecz\w*|wynik\w*|pokona\w+"
    r"|zwycię\w+|głos\w*|vann|vinn\w*|van[dt]t?|seger\w*|sejr\w*|seier\w*|tapte?|förlo\w+|tabte|kamp\w*"
    r"|röst\w*|mål)\b"
)
"""Words of sport and of votes, without which `nine to five` is no score."""
_ZEROS = "nil null zero zéro cero nul ноль"


@lru_cache(maxsize=1)
def _goals() -> Mapping[str, int]:
    return {**hours_in_words(), **dict.fromkeys(_ZEROS.split(), 0)}


@lru_cache(maxsize=1)
def _score_in_words() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return a pattern of scores in words, and one of the words that they begin with."""
    words = "|".join(word for word in sorted(_goals(), key=len)[::-1] if not word.isdecimal())
    link = rf"(?:[^\S\n](?:{_AGAINST})[^\S\n]|(?P<dash>[-\u2013:]))"
    whole = rf"(?<![\u2013:-]){_NOT_FROM}(?P<won>{words}){link}(?P<lost>{words})(?![\w\u2013:-])"
    return re.compile(whole), re.compile(rf"(?:{words})\Z")


def pairs_in(text: str) -> Iterator[Number]:
    """Yield what two numbers are together, where they may be: a share (7 out of 10), a score.

    >>> [(pair.code, len(pair.readings)) for pair in pairs_in("won five-three, as did 7 out of 10")]
    [('', 2), ('5-3', 0)]
    """
    for found in _PAIR.finditer(text):
        if found["n"] and 0 < int(found["n"]) < int(found["of"]):
            share = int(found["n"]) / int(found["of"])
            readings = {NumberReading(rounded(share)), NumberReading(rounded(100 * share), PERCENT)}
            yield Number(
                found[0], *found.span(), frozenset(readings), 0, is_sure=False, is_share=True
            )
        elif found["won"] and _is_result(text, found):
            yield _score(text, found, int(found["won"]), int(found["lost"]))
    lower = lower_case(text)
    for found in matches_at_words(*_score_in_words(), lower):
        won, lost = _goals()[found["won"]], _goals()[found["lost"]]
        if lost >= won or _is_next_to_number(lower, *found.span()):
            continue
        if won < 10 if found["dash"] else _is_result_in_words(lower, found):  # dix-sept is no score
            yield _score(text, found, won, lost)


def _is_result(text: str, found: re.Match[str]) -> bool:
    return int(found["won"]) > int(found["lost"]) and not _is_of_hours(text, *found.span())


def _is_next_to_number(text: str, start: int, end: int) -> bool:
    """Return whether more of a number is before or after: four to three hundred."""
    before = _WORD_BEFORE.search(text, max(0, start - _CONTEXT_CHARS), start)
    after = _WORD_AFTER.match(text, end)
    words = [word[1] for word in (before, after) if word is not None]
    return any(
        word.isdecimal() or (word != "en" and bool(numbers_at_words(word))) for word in words
    )


def _is_result_in_words(text: str, found: re.Match[str]) -> bool:
    """Return whether the words around say that it is a result, and not hours or a person."""
    start, end = found.span()
    before = _CLAUSE_END.split(text[max(0, start - _CONTEXT_CHARS) : start])[-1]
    after = _WORD_AFTER.match(text, end)
    name = after[1] if after is not None else ""
    if HOURS.search(before) or HOURS.match(name):
        return False
    if name and _ARTICLE.fullmatch(found["lost"]) and not _OPPONENT_AFTER.match(name):
        return False
    return bool(_RESULT.search(before) or _RESULT.match(name))


def _score(text: str, found: re.Match[str], won: int, lost: int) -> Number:
    start, end = found.span()
    code = f"{won}-{lost}"
    return Number(text[start:end], start, end, frozenset(), 0, code=code, is_sure=False)


def _words_of(number: int) -> Iterable[str]:
    return (str(number), *(word for word, value in _goals().items() if value == number))


_AGAINST_ALL = (
    rf"{_AGAINST}|against|versus|vs\.?|gegen|contre|contra|contro|mod|przeciw\w*|против|проти|proti"
    "|karşı|vastaan|ellen"
)
_IS_AGAINST = re.compile(
    r"against|versus|vs\.?|gegen|contre|contra|contro|tegen|mod|mot|przeciw\w*|против|проти|proti",
    re.IGNORECASE,
)
_NOUNS = r"(?:[^\S\n][^\W\d_]+){0,2}[^\S\n]"
_NAMES = r"[^\S\n](?:(?!And|Or)[^\W\d_a-zà-ÿ][^\W\d_]+[^\S\n]){1,3}"
_VOTES_AFTER = (
    r"(?=[^\S\n](?:[^\W\d_]+[^\S\n]){0,2}(?:against|opposed|contre|contra|contro|gegen\w*|dagegen|nein\w*"
    r"|tegen|mot|imod|przeciw\w*|против|proti|contr[aá]ri[oae]?s?)(?!\w))"
)
_TO = rf"{_NOUNS}(?P<link>{_AGAINST_ALL})[^\S\n]|[\u2013:-]"


@lru_cache(maxsize=64)
def _score_pattern(won: int, lost: int, *, is_exact: bool) -> re.Pattern[str]:
    """Return a pattern of a score: 6 to 1, six votes against one, Rovers 6 United 1.

    `is_exact`: what is in words has a noun between, since `two to one` is often no score.
    """
    first, last = ("|".join(map(re.escape, _words_of(goals))) for goals in (won, lost))
    link = rf"(?:{_AGAINST_ALL})[^\S\n]"
    favour = r"[^\S\n][^\d.;:!?\n]{1,40}[^\S\n]"
    return re.compile(
        rf"(?<![\w.,:/-])(?=\w)(?:(?:{won})(?:[^\S\n]{link}|[\u2013:-])"
        rf"|(?:{first})(?:[^\S\n](?:[^\W\d_]+[^\S\n]){{{int(is_exact)},2}}{link}|(?-i:{_NAMES})"
        rf"|{favour}(?=(?:{last}){_VOTES_AFTER})))(?:{last})(?!\w|[.,:/][0-9])",
        re.IGNORECASE,
    )


def has_score(
    text: str, won: int, lost: int, *, of_hours: bool = False, is_exact: bool = False
) -> bool:
    """Return whether a text has a score or a vote, in this order.

    >>> has_score("passed by six votes to one", 6, 1), has_score("open 9 to 5", 9, 5)
    (True, False)
    """
    found = _score_pattern(won, lost, is_exact=is_exact).finditer(text)
    return any(_is_of_hours(text, *match.span()) == of_hours for match in found)


def _is_of_hours(text: str, start: int, end: int) -> bool:
    """Return whether a score is hours: open 9 to 5."""
    before = _CLAUSE_END.split(text[max(0, start - _CONTEXT_CHARS) : start].lower())[-1]
    after = _WORD_AFTER.match(text, end)
    is_hours = HOURS.search(before) or (after is not None and HOURS.match(after[1]))
    return bool(is_hours) and not _RESULT.search(before)


_DIGIT_SCORE = re.compile(r"([0-9]{1,3})[-\u2013:]([0-9]{1,3})")


def is_score_of(answer: str, number: Number, source: str) -> bool:
    """Return whether a source has the score that an answer has in digits."""
    score = _DIGIT_SCORE.fullmatch(number.text)
    if score is None:
        return False
    of_hours = _is_of_hours(answer, number.start, number.end)
    return has_score(source, int(score[1]), int(score[2]), of_hours=of_hours, is_exact=True)


@lru_cache(maxsize=1)
def _any_score() -> re.Pattern[str]:
    words = "|".join(sorted(map(re.escape, _goals()), key=len)[::-1])
    number = rf"(?:[0-9]{{1,3}}|{words})"
    return re.compile(
        rf"(?<![\w.,:/-])(?=\w){_NOT_FROM}(?P<won>{number})(?:{_TO})(?P<lost>{number})(?!\w|[.,:/-][0-9]|[^\S\n]?[%€$£])",
        re.IGNORECASE,
    )


def wrong_scores_in(answer: str, source: str) -> Iterator[Number]:
    """Yield the votes and scores of an answer that a source has only the other way round.

    What is against something must be in it in this order.
    """
    for found in _any_score().finditer(answer):
        won, lost = (
            int(word) if word.isdecimal() else _goals()[word]
            for word in map(lower_case, found.group("won", "lost"))
        )
        link = found["link"] or ""
        if won == lost or has_score(source, won, lost):
            continue
        if _IS_AGAINST.fullmatch(link) or has_score(source, lost, won):
            yield Number(found[0], *found.span(), frozenset(), 0)


def loose_numbers_in(text: str) -> Iterator[Number]:
    """Yield what a source may also mean: halves and pairs, and codes such as `Section 5`."""
    yield from pairs_in(text)
    for found in TWICE.finditer(text):
        readings = frozenset((NumberReading(2.0),))
        yield Number(found[0], *found.span(), readings, 0, is_sure=False)
    yield from durations_in(text)
    for digits in _SPACED_DIGITS.finditer(text):
        name = _NAME_BEFORE.search(text, max(0, digits.start() - _NAME_CHARS), digits.start())
        if name is not None:
            start, end = name.start(), digits.end()
            code = f"{name[1]}{digits[0]}".casefold()
            yield Number(text[start:end], start, end, frozenset(), code=code, is_sure=False)
