"""Where words, quotations and values are in a text.

`TextIndex` reads a text once, in time linear in its length; a look-up then costs about as much as
it has answers. Texts are compared folded: Unicode NFKC, lower case, plain quotation marks and
dashes, single spaces, and no hyphens inside words, whether typed or from the end of a line. Each
offset of the folded text leads back to the text as it is.

A quotation ends where its kind ends: words by Unicode's rules (UAX #29), codes, telephone numbers,
versions and addresses of mail and web as a whole: 24 is not in `24-017`, nor `example.org` in
`ann@example.org`. Chinese and Japanese have no spaces, so a short name counts only if what is
around it cannot belong to it.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from itertools import islice
from typing import Literal, TypeAlias

import regex

from .codes import is_in_code
from .dates_and_values import ValueIndex, value_index
from .units import is_unit

MatchKind: TypeAlias = Literal["exact", "normalised", "fuzzy"]
Span: TypeAlias = tuple[int, int]

_HYPHENS = "-\u2010\u2011\u05be"
_SOFT = "\u00ad"
_VOWEL_POINTS = "".join(
    map(chr, (*range(0x591, 0x5BE), 0x5BF, 0x5C1, 0x5C2, 0x5C4, 0x5C5, 0x5C7, 0x640))
) + "".join(map(chr, (*range(0x610, 0x61B), *range(0x64B, 0x653), 0x670)))
"""Of Hebrew and Arabic, which most texts leave out, and the stroke that lengthens a word."""
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff" + _VOWEL_POINTS
_TYPOGRAPHY = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032`\u00b4\u2039\u203a", "'"),
    **dict.fromkeys('"\u201c\u201d\u201e\u201f\u2033\u300c\u300d', "'"),
    **dict.fromkeys("\u2012\u2013\u2014\u2015\u2212\ufe58\uff0d", "\u2013"),
    **dict.fromkeys(_HYPHENS, "-"),
    **dict.fromkeys(_INVISIBLE + _SOFT + "\n", None),
    **dict.fromkeys("ıİ", "i"),
    **dict.fromkeys("ёЁ", "\u0435"),
}
"""What a sign counts as; None: it is dealt with by its surroundings."""
_PLAIN_MARKS = str.maketrans("\n\u2013\u00ab\u00bb", " -''")
"""The same of signs whose surroundings are looked at first."""
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Scripts whose words have no spaces between; in Korean, particles follow without one."""
_LETTER = rf"[^\P{{L}}{_UNSPACED}]"
_WORD = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|{_LETTER}+(?:\p{{M}}+{_LETTER}*)*|\d+|\p{{M}}+")
_JOINING = r"\u0300-\u036f\u3099\u309a\uff9e\uff9f\u1160-\u11ff"
"""Accents and parts of syllables that belong to the sign before."""
_LINE_END = r"(?:[^\S\n]*\n\s*)"
_FRENCH_GAP = r"[^\S\n]+(?=[;:!?]|\u00bb(?!\w))|(?<=\u00ab)(?<![^\s(\[]\u00ab)[^\S\n]+"
"""Inside guillemets, where German has none, and before high marks."""
_MARGIN = " .,:;'"
_MOST_COMPARED = 4  # times the text's length; above it, one pass over the text is cheaper
_MOST_OVERLAPPING_CHARS = 256
_CODE = re.compile(r"[+(]{0,2}[^\W_]+(?:[ \-/().+]{1,3}[^\W_]+)*")
_BEFORE_CODE = re.compile(r"[+(]+\Z")
_CODE_GAP = re.compile(r"[ \-/().+]{0,3}")
_N_DIGITS = re.compile(r"(?:\D*\d){4}")
_LEAST_CODE_CHARS, _MOST_CODE_CHARS = 6, 64  # an IBAN has up to 34, and spaces
_MOST_CODE_PLACES = 2000
_ADDRESS = re.compile(r"\S@\S|://|\bwww\.|\w\.[a-z]{2,}(?:/|$)")
_BROKEN = re.compile(r"[\s\u00ad\u200b-\u200d\u2060\ufeff]+")
_HALF_BEFORE = re.compile(rf"[^\W\d_](?:-{_LINE_END}|{_SOFT}{_LINE_END}?)\Z")
_HALF_AFTER = re.compile(rf"(?<=[^\W\d_])(?:-{_LINE_END}|{_SOFT}{_LINE_END}?)[^\W\d_]")
"""What is next to a part of a word that is broken at a line's end, or may be."""
_RUN = re.compile(r"\d+|\D+")
_BORDER = regex.compile(r"(?w)\b")
_HAN = r"\u2e80-\u2fdf\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_IS_HAN = re.compile(f"[{_HAN}]")
_SHORT_HAN = re.compile(f"[{_HAN}]{{1,3}}")
_FIRM = re.compile(f"[{_HAN}]+(?:公司|集[团團]|製[作造]所|商[店会會]|工業所)")
_FIRM_AFTER = re.compile(f"[{_HAN}]{{0,2}}有限(?:责任|責任)?公司|公司|集[团團]")
_UNSPACED_PHRASE = re.compile(f"[{_HAN}\u3040-\u30ff]{{2,40}}")
_JOINS_LINES = re.compile(f"[{_HAN}\u3040-\u30ff]\\Z")
_GAP_IN_HAN = re.compile(r"[\t\n]|\s\s")
_LEAST_BROKEN_CHARS = 4
_LEAST_FULL_CHARS = 16  # of a line that goes on in the next one
_HAN_BEFORE = re.compile(
    "(?:[馆館厂店组班会處处科所园台社村镇乡县区省]长|民警|记者|記者|警察|警官|医生|醫生|教授|老师|老師|经理|經理|主任|局长|局長|市长|市長|总统|總統|主席|书记"
    "|[方户戶商]|单位|委托|委託|聘请|收购|投资|授权|通知|株式会社|有限会社|董事长|董事長|总裁|總裁|负责人|發言人|发言人|代表|律师|律師|法官|校长|校長|院长|院長|队长|隊長|站长|部长|先生|女士"
    "|小姐|同学|居民|患者|业主|乘客|司机|作者|编辑|导演|演员|联系人|总经理|员工|社長|氏名|担当|担当者"
    "|[的在是于於和与與及由从從到向给給为為对對被把将將让讓等至乃即叫名籍称稱住])\\Z"
)
_HAN_AFTER = re.compile(
    "[的在是于於和与與及由从從到向给給为為对對被把将將让讓等至了氏様殿君]"
    "|先生|女士|小姐|教授|经理|博士|同志|老师|医生|社長|部長|課長|介绍|介紹|表示|说|說|称|稱|认为|認為|指出|透露"
    "|告诉|告訴|报道|報道|宣布|强调|強調|回应|补充|解释|坦言|提醒|建议|摄|撰|担任|擔任|出席|主持|负责|負責|签字|签名"
)
_HAN_END = re.compile(
    "[都道府県省市区區县縣郡町村镇鎮路街号號室楼樓局部院所处處年月日元円圆圓人行社]\\Z"
    "|公司\\Z|银行\\Z|大学\\Z|大學\\Z|学校\\Z"
)
_KOREAN_PARTICLE = re.compile(
    "(?:은|는|이|가|을|를|의|에|와|과|도|로|만|께|에서|에게|까지|부터|으로|이나|이다|입니다|한테"
    "|께서|처럼|보다|마다|이며|이고|라고|이라고|에는|에서는|으로부터|로부터|씨|씨는|씨가|님|님은|님이)"
    r"(?![\uac00-\ud7af])"
)
_IS_KOREAN = re.compile("[\uac00-\ud7af]")
_ELISION = re.compile(
    r"\b(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu|dell|all|nell|sull|dall|coll|un|quell|quest)'\Z"
)
_GENITIVE = re.compile(r"'(?:s\b|(?!\w))")
_JOINED_AFTER = re.compile(r"[-.@&_]\w|:(?<=\d:)\d|(?<=[^\W\d])(?:\+\+|\+(?!\w)|#(?!\w))")
_JOINED_BEFORE = re.compile(r"\w[-.@&_]\Z")
_MINUS = re.compile(r"(?:\A|(?<!\d)\s|[(\[{=:~<>|/'$€£])-\Z")
_DIGITS_AROUND = re.compile(r"\d:\d")
_SLASH_AFTER, _SLASH_BEFORE = re.compile(r"[/?=~%]\w"), re.compile(r"\w[/?=~%]\Z")
_CODED = re.compile(r"(?=\D*\d)[^\s/-]+(?:[/-][^\s/-]+)+")
_WEB_ADDRESS = re.compile(r"://|\bwww\.|[^\W\d_]\.[a-z]{2,}/|(?<!\S)/\w")
_LETTERS_BEFORE, _LETTERS_AFTER = re.compile(r"[^\W\d_]+\Z"), re.compile(r"[^\W\d_]+")
_DIGIT_GROUPS = re.compile(
    r"[+(]{1,2}\d[\d()]*(?P<a>[ ./-])[\d ()/.-]*\d|0\d+(?P<b> / |[ ./-])\d[\d ()/.-]*"
    r"|\d+(?P<c>[./-])\d[\d/.-]*|\d{4}(?:(?P<d> )\d{4})+"
)
_IN_NUMBER = re.compile(r"\d[.,']\d")
_AROUND_CHARS = 24
_MOST_TOKEN_CHARS = 300
_MOST_SIMILAR_WORDS = 200
_LEAST_MISREAD_CHARS = 6  # of four letters one makes another word: Bonn and born
_LOOK_ALIKE = (("rn", "m"), ("cl", "d"), ("vv", "w"), ("l", "i"), ("1", "i"), ("0", "o"))
"""Letters that OCR confuses."""
_TWICE = re.compile(r"(.)\1+")


@dataclass(frozen=True, slots=True)
class Quote:
    """A place in a text that supports a value."""

    start: int
    end: int
    match: MatchKind
    ratio: float | None = None
    """How similar a fuzzy quote is, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class FoldedText:
    """A text as it is compared, and the way back to the offsets of the original."""

    text: str
    _starts: Sequence[int]
    """Where each piece begins in the folded text."""
    _originals: Sequence[int]
    """Where it begins in the original. The last piece is never a changed one."""
    _is_changed: Sequence[bool]

    def original(self, start: int, end: int) -> Span:
        """Return the offsets in the original of a part that is not empty."""
        first = bisect_right(self._starts, start) - 1
        at = self._originals[first]
        if not self._is_changed[first]:
            at += start - self._starts[first]
        last = bisect_right(self._starts, end - 1) - 1
        if self._is_changed[last]:
            return at, self._originals[last + 1]
        return at, self._originals[last] + end - self._starts[last]


@lru_cache(maxsize=4)
def folded(text: str) -> FoldedText:
    r"""Fold a text for comparison.

    >>> folded("The \ufb01rst\nexam-\nple").text
    'the first example'
    """
    signs = {sign: _folded_sign(sign) for sign in set(text)}
    plain = text.translate({ord(a): b for a, b in signs.items() if len(b) == 1})
    longer = "".join(re.escape(a) for a, b in signs.items() if len(b) > 1)
    pattern = re.compile(
        rf"(?P<gap>{_FRENCH_GAP})|(?P<joined>(?<=[^\W\d_])-{_LINE_END}?(?=[^\W\d_])|{_SOFT}{_LINE_END}?)"
        rf"|(?P<broken>(?<=\w)-{_LINE_END}(?=\w))"
        rf"|(?P<blank>[\s{_INVISIBLE}]{{2,}}|[{_INVISIBLE}])"
        rf"|[^\s{_JOINING}][{_JOINING}]+" + (f"|[{longer}]" if longer else "")
    )
    made: list[str] = []
    starts, originals, is_changed = [0], [0], [False]
    n = at = 0
    for found in pattern.finditer(plain):
        n += found.start() - at
        made.append(plain[at : found.start()])
        new = _replacement(found, signs)
        made.append(new)
        at = found.end()
        if len(new) == at - found.start():
            n += len(new)
            continue
        starts += n, n + len(new)
        originals += found.start(), at
        is_changed += True, False
        n += len(new)
    made.append(plain[at:])
    whole = "".join(made).translate(_PLAIN_MARKS)
    return FoldedText(whole, starts, originals, is_changed)


def _folded_sign(sign: str) -> str:
    """Return what a single sign counts as: itself where only its surroundings decide."""
    if sign in _TYPOGRAPHY:
        return _TYPOGRAPHY[sign] or sign
    if sign.isspace():
        return " "
    match unicodedata.category(sign):
        case "Nd":
            return str(unicodedata.decimal(sign))
        case "No":  # 5² is not 52
            return sign
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", sign).casefold())
    if "\u0370" <= plain < "\u0400":  # Greek capitals have no accents
        return unicodedata.normalize("NFD", plain)[0]
    return sign if " " in plain else plain


def _replacement(found: re.Match[str], signs: Mapping[str, str]) -> str:
    match found.lastgroup:
        case "joined" | "gap":
            return ""
        case "broken":
            return "-"
        case "blank":
            return " " if any(map(str.isspace, found[0])) else ""
    return unicodedata.normalize("NFKC", "".join(signs.get(sign, sign) for sign in found[0]))


def folded_words(text: str) -> list[str]:
    """Return the words of a text as they are compared; of scripts without spaces, each sign."""
    return [found[0] for found in _WORD.finditer(folded(text).text)]


@dataclass
class TextIndex:
    """Words, quotations and values of a text, and where they are."""

    text: str

    @cached_property
    def _folded(self) -> FoldedText:
        return folded(self.text)

    @cached_property
    def values(self) -> ValueIndex:
        return value_index(self.text)

    @cached_property
    def _words(self) -> list[str]:
        return _WORD.findall(self._folded.text)

    @cached_property
    def _word_starts(self) -> list[int]:
        """The first place after the word before: between two words is no sign of a word."""
        starts, at = [], 0
        for word in self._words:
            starts.append(self._folded.text.find(word, at))
            at = starts[-1] + len(word)
        return starts

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        """The numbers of the words that are equal, by the word."""
        positions: dict[str, list[int]] = {}
        for number, word in enumerate(self._words):
            positions.setdefault(word, []).append(number)
        return positions

    def starts_of(self, word: str) -> Iterator[int]:
        """Yield the offsets at which a folded word begins."""
        for number in self._positions.get(word, ()):
            yield self._original(number, number)[0]

    def find(self, text: str) -> list[Quote]:
        """Return where a text is word by word, exactly or as it counts when folded, in order.

        It must not begin or end inside a word or a number.
        """
        bare = text.strip()
        quotes = [self._quote(start, end, bare) for start, end in self._find_spans(bare)]
        quotes = [q for q in quotes if _has_same_letters(bare, self.text[q.start : q.end])]
        if any(map(str.isdecimal, bare)):
            quotes = [q for q in quotes if not is_in_code(self.text, q.start, q.end)]
        if _ADDRESS.search(bare):  # a hyphen counts there
            signs = _signs_of(bare)
            quotes = [q for q in quotes if _signs_of(self.text[q.start : q.end]) == signs]
        return quotes

    def _find_broken(self, phrase: str) -> list[Span]:
        """Return where a Chinese or Japanese phrase has a space, or goes on in the next line.

        Only where the line is full and has no mark at its end: cells and headings are no phrase.
        """
        whole = self._folded.text
        pattern = re.compile(" ?".join(map(re.escape, phrase)))
        starts = list(islice(self.starts_of_folded(phrase[0]), _MOST_CODE_PLACES))
        found = []
        for start in starts:
            match = pattern.match(whole, start)
            if match is None or not is_whole(whole, *match.span()):
                continue
            first, last = self._folded.original(*match.span())
            if not _GAP_IN_HAN.search(self.text, first, last):
                found.append((first, last))
                continue
            lines = self.text[self.text.rfind("\n", 0, first) + 1 : last].split("\n")
            is_full = (
                len(lines) == 2
                and len(phrase) >= _LEAST_BROKEN_CHARS
                and len(lines[0].strip()) >= _LEAST_FULL_CHARS
            )
            if is_full and _JOINS_LINES.search(lines[0].rstrip()) and " " not in lines[0].strip():
                found.append((first, last))
        return found

    def starts_of_folded(self, word: str) -> Iterator[int]:
        """Yield the offsets in the folded text at which a folded word begins."""
        return (self._word_starts[number] for number in self._positions.get(word, ()))

    def _quote(self, start: int, end: int, bare: str) -> Quote:
        """Return a quote, with the invisible signs at its ends if the text sought has them."""
        if self.text.startswith(bare, start):
            return Quote(start, start + len(bare), "exact")
        if self.text.endswith(bare, 0, end):
            return Quote(end - len(bare), end, "exact")
        return Quote(start, end, "normalised")

    def find_code(self, text: str) -> list[Quote]:
        """Return where an identifier is whose groups are written apart or together.

        Such as an IBAN or a telephone number: at least six letters and digits, four of them digits.
        """
        code = folded(text).text.strip() if len(text) <= _MOST_CODE_CHARS else ""
        if not _CODE.fullmatch(code) or _N_DIGITS.match(code) is None:
            return []
        bare = "".join(_WORD.findall(code))
        forms = [bare]
        if code.startswith("+"):  # +49 30 1234567 is 030 1234567, and 0049 30 1234567
            forms += (f"00{bare}", *(f"0{bare[n:]}" for n in (1, 2, 3)))
        for form in forms if len(bare) >= _LEAST_CODE_CHARS else ():
            if found := self._find_groups(form):
                found = [span for span in sorted(found) if not is_in_code(self.text, *span)]
                return [Quote(*span, "normalised") for span in found]
        return []

    def _find_spans(self, text: str) -> Sequence[tuple[int, int]]:
        sought = folded(text).text.strip()
        forms = dict.fromkeys((sought, sought.strip(_MARGIN)))
        spans: Sequence[Span] = next(filter(None, map(self._find_folded, forms)), ())
        if not spans:
            spans = [
                (start, end)
                for start, end in _scan(self.text, text)
                if is_whole(self.text, start, end)
                and not _HALF_BEFORE.search(self.text, max(0, start - _AROUND_CHARS), start)
                and not _HALF_AFTER.match(self.text, end)
            ]
        if not spans and _UNSPACED_PHRASE.fullmatch(sought):
            spans = self._find_broken(sought)
        return spans

    def find_similar(self, text: str) -> list[Quote]:
        """Return the first place that may be a misspelling of a text: a hint, and no evidence.

        Each word is there, in this order, but for letters that OCR and spelling confuse in words of
        six letters or more. Words with capitals or digits may be names and codes: they are there
        unchanged, and so is a word that the text has elsewhere.
        """
        bare = text.strip()
        exact = folded(bare).text
        words = _WORD.findall(exact)
        if len(words) > _MOST_SIMILAR_WORDS:
            return []
        misread = [_as_misread(word) for word in words]
        free = [at for at, word in enumerate(words) if not self._is_fixed(word, bare)]
        if not free:
            return []
        for first in self._similar_places(words, misread, free):
            start, end = self._folded_span(first, first + len(words) - 1)
            if is_whole(self._folded.text, start, end):
                ratio = SequenceMatcher(None, exact, self._folded.text[start:end]).ratio()
                return [Quote(*self._folded.original(start, end), "fuzzy", round(ratio, 3))]
        return []

    def _similar_places(
        self, words: Sequence[str], misread: Sequence[str], free: Sequence[int]
    ) -> Iterator[int]:
        """Yield the number of the first word where words stand; those in `free` may be misread."""
        lists = [
            (
                self._misread.get(misread[at], ()) if at in free else self._positions.get(word, ()),
                at,
            )
            for at, word in enumerate(words)
        ]
        numbers, offset = min(lists, key=lambda pair: (len(pair[0]), pair[1] in free))
        for number in islice(numbers, _MOST_CODE_PLACES):
            first = number - offset
            found = self._words[first : first + len(words)] if first >= 0 else []
            if len(found) == len(words) and all(
                other == word or (at in free and _as_misread(other) == misread[at])
                for at, (word, other) in enumerate(zip(words, found, strict=True))
            ):
                yield first

    def _is_fixed(self, word: str, text: str) -> bool:
        """Return whether a word must be there unchanged."""
        is_plain = len(word) >= _LEAST_MISREAD_CHARS and word.isalpha() and word in text
        return not is_plain or word in self._positions

    @cached_property
    def _misread(self) -> dict[str, list[int]]:
        """The numbers of longer words, by what they are but for letters that are confused."""
        numbers: dict[str, list[int]] = {}
        for word, places in self._positions.items():
            if len(word) >= _LEAST_MISREAD_CHARS - 1:
                numbers.setdefault(_as_misread(word), []).extend(places)
        return numbers

    def _find_folded(self, sought: str) -> list[Span]:
        words = [(found[0], found.start()) for found in _WORD.finditer(sought)]
        whole = self._folded.text
        if not words:
            return []
        rarest, offset = min(words, key=lambda word: len(self._positions.get(word[0], ())))
        numbers = self._positions.get(rarest, ())
        spans: Iterator[Span]
        if len(numbers) * len(sought) > _MOST_COMPARED * len(whole):
            spans = _scan(whole, sought)
        else:
            starts = (self._word_starts[number] - offset for number in numbers)
            spans = (
                (start, start + len(sought))
                for start in starts
                if start >= 0 and whole.startswith(sought, start)
            )
        found: list[Span] = []
        last = 0
        for start, end in spans:
            if start >= last and is_whole(whole, start, end):
                found.append(self._folded.original(start, end))
                last = end
        return found

    def _folded_span(self, first: int, last: int) -> Span:
        """Return the offsets in the folded text of the words from one number to another."""
        return self._word_starts[first], self._word_starts[last] + len(self._words[last])

    def _original(self, first: int, last: int) -> Span:
        return self._folded.original(*self._folded_span(first, last))

    def _find_groups(self, form: str) -> list[Span]:
        """Return where words in a row are letters and digits of an identifier."""
        run = _RUN.match(form)
        firsts = (run[0][:n] for n in range(len(run[0]), 0, -1)) if run else ()
        numbers = (number for first in firsts for number in self._positions.get(first, ()))
        found = []
        for first in islice(numbers, _MOST_CODE_PLACES):
            last = self._last_group(form, first)
            if last is not None:
                start, end = self._folded_span(first, last)
                signs = _BEFORE_CODE.search(self._folded.text, max(0, start - 2), start)
                start = signs.start() if signs else start
                if is_whole(self._folded.text, start, end):
                    found.append(self._folded.original(start, end))
        return found

    def _last_group(self, form: str, first: int) -> int | None:
        """Return the number of the word with which an identifier ends that begins at another."""
        at = 0
        for number in range(first, len(self._words)):
            word, start = self._words[number], self._word_starts[number]
            before = self._folded_span(first, number - 1)[1] if number > first else start
            is_gap = _CODE_GAP.fullmatch(self._folded.text, before, start)
            if not (is_gap and form.startswith(word, at)):
                return None
            at += len(word)
            if at == len(form):
                return number
        return None


def _signs_of(text: str) -> str:
    """Return an address without what a line's end brings into it."""
    return _BROKEN.sub("", text).casefold().strip(_MARGIN)


def _has_same_letters(text: str, other: str) -> bool:
    """Return whether no letter of two equal folded texts is another small letter: ß, not ss.

    >>> _has_same_letters("Straße", "STRASSE"), _has_same_letters("Maße", "Masse")
    (True, False)
    """
    if not (_FOLDED_TOGETHER.search(text) or _FOLDED_TOGETHER.search(other)):
        return True
    letters = [_SMALL_LETTER.findall(unicodedata.normalize("NFKC", part)) for part in (text, other)]
    return len(letters[0]) != len(letters[1]) or not any(
        a != b and a.islower() and b.islower() for a, b in zip(*letters, strict=True)
    )


_FOLDED_TOGETHER = re.compile("[ßı\u0386-\u03ce]")
_SMALL_LETTER = re.compile(r"ß|[sS]{2}|[^\W\d_ёе]")


def _scan(text: str, sought: str) -> Iterator[Span]:
    """Yield where a text occurs; long ones without overlap, so that it takes linear time."""
    step = 1 if len(sought) <= _MOST_OVERLAPPING_CHARS else len(sought)
    at = text.find(sought) if sought else -1
    while at >= 0:
        yield at, at + len(sought)
        at = text.find(sought, at + step)


def _as_misread(word: str) -> str:
    """Return what is the same for words that differ by what OCR and spelling confuse.

    >>> _as_misread("agreernent") == _as_misread("agreement") == _as_misread("aggreement")
    True
    """
    plain = unicodedata.normalize("NFD", word)
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
    for seen, meant in _LOOK_ALIKE:
        plain = plain.replace(seen, meant)
    return _TWICE.sub(r"\1", plain)


def is_whole(text: str, start: int, end: int) -> bool:
    """Return whether a part of a folded text is the whole of a word, number, code or address.

    >>> is_whole("no. 24-017", 4, 6), is_whole("no. 24-017", 4, 10), is_whole("weighs 5kg", 8, 10)
    (False, True, True)
    """
    if start and text[start - 1 : start + 1].isascii() and text[start - 1 : start + 1].isalpha():
        return False  # the most frequent case of a long text
    return (
        _begins(text, start, end)
        and _ends(text, start, end)
        and not _IN_NUMBER.fullmatch(text, max(0, start - 2), start + 1)
        and not _IN_NUMBER.fullmatch(text, end - 1, end + 2)
        and not _goes_on(text, start, end)
        and _is_apart(text, start, end)
    )


def _begins(text: str, start: int, end: int) -> bool:
    if not start or text[start - 1].isspace() or not _is_word_sign(text[start]):
        return True
    before = text[max(0, start - _AROUND_CHARS) : start]
    if not _is_word_sign(text[start - 1]):
        if before[-1] == "'":
            return not _is_word_sign(before[-2:-1]) or _ELISION.search(before) is not None
        is_joined = _is_joined_before(text, start, end)
        return not is_joined and not _is_in_address(text, start, start, end, _SLASH_BEFORE)
    if _BORDER.match(text, start):
        return before[-1] != "_"
    return _is_unit_border(text, start)


def _is_joined_before(text: str, start: int, end: int) -> bool:
    """Return whether the sign before is a minus, or joins a part to a code, name or address."""
    earlier = text[max(0, start - 2) : start - 1]
    match text[start - 1]:
        case "+":
            if _is_word_sign(earlier):
                return "@" in text[start:end]
            return text[start].isdecimal()
        case "-" if text[start].isdecimal() and _MINUS.search(text, max(0, start - 3), start):
            return True
        case ":":
            return text[start].isdecimal() and earlier.isdecimal()
    return _JOINED_BEFORE.search(text, max(0, start - 3), start) is not None


def _ends(text: str, start: int, end: int) -> bool:
    if end >= len(text) or text[end].isspace() or not _is_word_sign(text[end - 1]):
        return True
    if not _is_word_sign(text[end]):
        if text[end] == "'":
            return not _is_word_sign(text[end + 1 : end + 2]) or bool(_GENITIVE.match(text, end))
        is_joined = _JOINED_AFTER.match(text, end) is not None
        if text[end] == ":":
            is_joined = _DIGITS_AROUND.fullmatch(text, end - 1, end + 2) is not None
        return not is_joined and not _is_in_address(text, end, start, end, _SLASH_AFTER)
    if _BORDER.match(text, end) or _is_unit_border(text, end):
        return True
    is_korean = _IS_KOREAN.match(text, end - 1) is not None
    return is_korean and _KOREAN_PARTICLE.match(text, end) is not None


def _is_word_sign(sign: str) -> bool:
    return sign.isalnum() or sign == "_" or (sign > "\u02ff" and bool(regex.match(r"\p{M}", sign)))


def _is_unit_border(text: str, at: int) -> bool:
    """Return whether digits and a unit or a currency meet: `5kg`, `EUR12`."""
    if text[at - 1].isdecimal() and text[at].isalpha():
        unit = _LETTERS_AFTER.match(text, at)
    elif text[at].isdecimal() and text[at - 1].isalpha():
        unit = _LETTERS_BEFORE.search(text, max(0, at - _AROUND_CHARS), at)
    else:
        return False
    return unit is not None and len(unit[0]) > 1 and is_unit(unit[0])


def _is_in_address(text: str, at: int, start: int, end: int, sign: re.Pattern[str]) -> bool:
    """Return whether a slash or the like at one end of a part continues a code or an address."""
    near = text[max(0, at - 2) : at] if sign is _SLASH_BEFORE else text[at : at + 2]
    if not sign.search(near):
        return False
    if near[-1].isdecimal() or near[0].isdecimal() or _CODED.fullmatch(text, start, end):
        return True
    first = at
    while first > max(0, at - _MOST_TOKEN_CHARS) and not text[first - 1].isspace():
        first -= 1
    last = at
    while last < min(len(text), at + _MOST_TOKEN_CHARS) and not text[last].isspace():
        last += 1
    return _WEB_ADDRESS.search(text, first, last) is not None


def _goes_on(text: str, start: int, end: int) -> bool:
    """Return whether a number of several groups has one more: +49 30 123 in +49 30 123 45."""
    grouped = _DIGIT_GROUPS.fullmatch(text, start, end)
    if grouped is None:
        return False
    gap = "[ /.-]" if grouped["a"] else re.escape(next(filter(None, grouped.groups())))
    return bool(
        re.compile(rf"{gap}\d").match(text, end)
        or re.compile(rf"\d{gap}\Z").search(text, max(0, start - 4), start)
    )


def _is_apart(text: str, start: int, end: int) -> bool:
    """Return whether a short value in Han characters cannot be a part of a longer name.

    Of a name that is written with a space, each end is such a value.
    """
    if _may_begin_before(text, start, end):
        return False
    if _IS_HAN.match(text, end - 1) and _FIRM_AFTER.match(text, end):
        return False
    if not _IS_HAN.match(text, end) or _HAN_AFTER.match(text, end):
        return True
    last = text.rfind(" ", start, end) + 1
    is_last = _SHORT_HAN.fullmatch(text, last or start, end) is not None
    return not is_last or _HAN_END.search(text, start, end) is not None


def _may_begin_before(text: str, start: int, end: int) -> bool:
    """Return whether a short value, or a firm, may be the end of a longer name."""
    if not start or not _IS_HAN.match(text, start - 1):
        return False
    first = text.find(" ", start, end)
    is_first = _SHORT_HAN.fullmatch(text, start, first if first > 0 else end)
    is_first = is_first or _FIRM.fullmatch(text, start, end)
    return bool(is_first) and not _HAN_BEFORE.search(text, max(0, start - 3), start)
