"""Built-in functions that a `check` may call, by name in `BUILT_IN`.

Length, contents, form and language of an answer, and whether it keeps to its source: numbers and
dates, quotations, citations, evidence. Functions of other packages come from entry points; the
caller passes the mapping of all of them.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import reduce
from operator import getitem
from typing import Any
from urllib.parse import urlsplit

import regex
from pydantic_core import SchemaError, SchemaValidator, ValidationError

from paddock.engine.system import schema_patterns
from paddock.engine.system.text import counted, listed, one_line, path_text
from paddock.pipelines.text_marks import shown_text

from .cldr import unit_named
from .folding import composed
from .grounding import Lack, unsupported
from .language_model import language_identifier
from .schema_parts import is_empty, missing_keys
from .sentence_ends import sentence_spans
from .source_index import SourceIndex
from .text_index import TextIndex

CheckFunction = Callable[..., object]
"""A function that a check may call. It returns None or True if all is well, a plain sentence that
a person and a small model understand if not, False without an explanation, or any other value, such
as a count, for the expression to use.

It may have an attribute `in_advance`: a function of the same parameters that is called before
anything runs, with `...` for what is not known yet; it returns a sentence or None. Its attribute
`from_scope` names parameters that have the values of the same names in the check's scope."""

MOST_CHECKED_CHARS = 8_000_000
"""A longer value is refused: a check must not delay a run."""
_MOST_WHOLE_FLOAT = 1e15
_SHOWN_CHARS = 60


def texts_in(value: Any, *, with_texts: bool = True, with_numbers: bool = True) -> Iterator[str]:
    """Yield every text and number in nested data, as text.

    >>> list(texts_in({"a": ["x", 2], "b": None, "c": True}))
    ['x', '2']
    """
    if isinstance(value, Mapping | list | tuple):
        for held in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(held, with_texts=with_texts, with_numbers=with_numbers)
    elif isinstance(value, str):
        if with_texts:
            yield value
    elif isinstance(value, int | float) and not isinstance(value, bool) and with_numbers:
        is_whole = (
            isinstance(value, float) and value.is_integer() and abs(value) < _MOST_WHOLE_FLOAT
        )
        yield str(int(value)) if is_whole else str(value)


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, Mapping | list | tuple):
        children = value.values() if isinstance(value, Mapping) else value
        return [*dict.fromkeys(number for inner in children for number in numbers_in(inner))]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [value] if is_number and math.isfinite(value) else []


def text_of(value: Any) -> str:
    """Return all texts of a value as one.

    Raises:
        ValueError: it is longer than a check reads.
    """
    return _joined(texts_in(value))


def source_text(value: Any) -> str:
    r"""Return the texts of a source as one; a number of data with the unit that its key ends in.

    >>> source_text({"price_eur": 40, "items": [{"weight (kg)": "3"}]})
    'price eur: 40 eur\n\nweight kg: 3 kg\n'
    """
    return _joined(_labelled_texts(value, ""))


def _joined(texts: Iterable[str]) -> str:
    text = "\n".join(texts)
    if len(text) > MOST_CHECKED_CHARS:
        raise ValueError(f"a check reads at most {MOST_CHECKED_CHARS:,} characters")
    return text


_KEY_BREAK = re.compile(r"[^\w€$£¥%°²³]+|_+|(?<=[a-z])(?=[A-Z])")
_BARE_NUMBER = re.compile(r"[\d.,+ \u00a0\u202f-]*\d[\d.,+ \u00a0\u202f-]*")


def _labelled_texts(value: Any, label: str) -> Iterator[str]:
    """Yield the texts of data; a number with its key, and a blank line below."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            yield from _labelled_texts(held, _KEY_BREAK.sub(" ", str(key)).strip())
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _labelled_texts(held, label)
    else:
        last = label.rpartition(" ")[2]
        unit = f" {last}" if last and unit_named(last) else ""
        for text in texts_in(value):
            is_number = label and _BARE_NUMBER.fullmatch(text)
            yield f"{label}: {text}{unit}\n" if is_number else text


_UNSEEN = "\u00ad\u200b-\u200d\u2060\ufeff"
_LETTER = r"[^\W\p{M}]"
_WORD = (
    rf"{_LETTER}(?:{_LETTER}|[{_UNSEEN}]|(?<![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\p{{M}})*"
)
"""Thai, Lao, Burmese and Khmer have no spaces between words: their marks end about one each."""
_COUNTED_WORD = regex.compile(
    rf"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|{_WORD}(?:['\u2019.,:/@\u2010\u2011-]{_WORD})*"
)


def words(value: Any, least: int | None = None, most: int | None = None) -> int | str | None:
    """Return the number of words (`words(output.text) <= 80`), or check it against bounds.

    >>> words("The ferry's 9:30 run."), words("one two three", most=2)
    (4, 'It has 3 words; write at most 2.')
    """
    n = sum(1 for _ in _COUNTED_WORD.finditer(text_of(value)))
    return _within_bounds(n, "word", least, most)


def sentences(value: Any, least: int | None = None, most: int | None = None) -> int | str | None:
    """Return the number of sentences, or check it against bounds.

    >>> sentences("It is late. Is it? Yes"), sentences("One.", least=2)
    (3, 'It has 1 sentence; write at least 2.')
    """
    paragraphs = text_of(value).split("\n\n")
    n = sum(1 for paragraph in paragraphs for _ in sentence_spans(paragraph))
    return _within_bounds(n, "sentence", least, most)


def _short(text: str) -> str:
    return one_line(text, _SHOWN_CHARS)


def _within_bounds(n: int, unit: str, least: int | None, most: int | None) -> int | str | None:
    for bound in (least, most):
        if bound is not None and (not isinstance(bound, int) or bound < 0):
            raise ValueError(f"a bound must be a whole number, not {bound!r}")
    if least is None and most is None:
        return n
    has = f"It has {counted(n, unit)}"
    if least is not None and n < least:
        return f"{has}; write at least {least:,}."
    if most is not None and n > most:
        return f"{has}; write at most {most:,}."
    return None


_WORD_CHARS = re.compile(r"\w+")


def contains(value: Any, *texts: Any) -> str | None:
    """Check that it contains each of these texts; case and soft hyphens do not matter.

    >>> contains("The Ferry", "ferry", "harbour")
    'It does not contain "harbour"; it must.'
    """
    found = _contained(value, texts)
    missing = [part for part in map(str, _flat_values(texts)) if part not in found]
    return f"It does not contain {_quoted(missing)}; it must." if missing else None


def lacks(value: Any, *texts: Any) -> str | None:
    """Check that it contains none of these texts, as `contains`.

    >>> lacks("As an AI, I cannot", "as an ai")
    'It contains "as an ai"; leave that out.'
    """
    found = _contained(value, texts)
    return f"It contains {_quoted(found)}; leave that out." if found else None


def _contained(value: Any, texts: tuple[Any, ...]) -> list[str]:
    """Return those of some texts that a value contains; white space alone as it is."""
    text = text_of(value)
    plain = _casefolded(text)
    parts = ((part, _casefolded(part)) for part in map(str, _flat_values(texts)))
    return [part for part, name in parts if (name in plain if name else part in text)]


def one_of(value: Any, *values: Any) -> str | None:
    """Check that it is one of these values, or of a list of them.

    >>> one_of("blue", ["red", "green"])
    'It is "blue"; it must be one of: red, green.'
    """
    allowed = _flat_values(values)
    if any(_compared(value) == _compared(option) for option in allowed):
        return None
    names = listed([str(option) for option in allowed], 20)
    return f'It is "{_short(str(value))}"; it must be one of: {names}.'


def unique(values: Any, by: str | None = None) -> str | None:
    """Check that no two of a list are equal; `by` names the field that is compared.

    >>> unique([{"id": 1}, {"id": 2}, {"id": 1}], by="id")
    'These occur more than once: 1. Keep one of each.'
    """
    if not isinstance(values, list | tuple):
        raise TypeError("`unique` takes a list")
    seen: set[Hashable] = set()
    twice: dict[str, None] = {}
    for value in values:
        compared = value.get(by) if by is not None and isinstance(value, Mapping) else value
        name = _compared(compared, _casefolded)
        if name in seen:
            twice[_short(str(compared))] = None
        seen.add(name)
    return f"These occur more than once: {listed([*twice])}. Keep one of each." if twice else None


def _compared(value: Any, folded: Callable[[str], str] = str) -> Hashable:
    """Return what is equal for equal values: 1 is 1.0, and neither true nor "1"."""
    if isinstance(value, Mapping):
        return frozenset((name, _compared(held, folded)) for name, held in value.items())
    if isinstance(value, list | tuple):
        return tuple(_compared(held, folded) for held in value)
    return folded(value) if isinstance(value, str) else (isinstance(value, bool), value)


def differs(value: Any, other: Any, most: float = 0.8) -> str | None:
    """Check that it is no copy: at most this share of its words is in the other text.

    >>> differs("the ferry leaves at nine", "The ferry leaves at nine.")
    'It only repeats the text; write it in other words.'
    """
    own = _WORD_CHARS.findall(_casefolded(text_of(value)))
    theirs = set(_WORD_CHARS.findall(_casefolded(text_of(other))))
    if not own or sum(word in theirs for word in own) <= most * len(own):
        return None
    return "It only repeats the text; write it in other words."


def _flat_values(values: tuple[Any, ...]) -> list[Any]:
    flat: list[Any] = []
    for value in values:
        flat += value if isinstance(value, list | tuple) else [value]
    return flat


def _casefolded(text: Any) -> str:
    """Return a text as it is compared: no case, single spaces, accents joined, nothing unseen."""
    return " ".join(composed(composed(str(text)).replace("İ", "i").casefold()).split())


def _quoted(texts: list[str]) -> str:
    return listed([f'"{_short(text)}"' for text in texts])


MOST_MATCHED_CHARS = 1_000_000
_LABEL = r"[\p{L}\p{N}]([\p{L}\p{M}\p{N}-]*[\p{L}\p{M}\p{N}])?"
_EMAIL = rf"^[^@\s.,:;<>()]+(\.[^@\s.,:;<>()]+)*@({_LABEL}\.)+{_LABEL}$"


def matches(value: Any, pattern: str) -> str | None:
    r"""Check that the regular expression matches, as JSON Schema's `pattern` (`^`, `$` anchor).

    It is as Rust has them. Matching takes linear time, so look-around and back-references are not
    supported.

    >>> matches("INV-2024", r"^INV-\d{5}$")
    'It is "INV-2024"; it must match the pattern ^INV-\\d{5}$'
    """
    if _is_match(pattern, text := _stripped_text(value)):
        return None
    return f'It is "{_short(text)}"; it must match the pattern {pattern}'


def _pattern_in_advance(value: Any, pattern: Any) -> str | None:
    if not isinstance(pattern, str):
        return None
    try:
        _is_match(pattern, "")
    except ValueError as error:
        return str(error)
    return None


matches.in_advance = _pattern_in_advance  # type: ignore[attr-defined]  # a function has attributes, too


def is_date(value: Any, form: str = "%Y-%m-%d") -> str | None:
    """Check that it is an existing date in this format (Python's `strptime`).

    >>> is_date("2024-02-30")
    'It is "2024-02-30"; it must be a date such as 2024-12-31.'
    """
    try:
        datetime.datetime.strptime(_stripped_text(value), form)  # noqa: DTZ007 - only whether it reads
    except ValueError:
        such = datetime.date(2024, 12, 31).strftime(form)
        return f'It is "{_short(_stripped_text(value))}"; it must be a date such as {such}.'
    return None


def is_url(value: Any) -> str | None:
    """Check that it is a URL.

    >>> is_url("www.example.org")
    'It is "www.example.org"; it must be an address that begins with https:// or http://'
    """
    text = _stripped_text(value)
    try:
        parts = urlsplit(text)
        names = (parts.hostname or "").removesuffix(".").split(".")
        is_one = parts.scheme in ("http", "https") and all(names) and parts.port != 0
    except ValueError:
        is_one = False
    if is_one and not any(char.isspace() for char in text):
        return None
    return f'It is "{_short(text)}"; it must be an address that begins with https:// or http://'


def is_email(value: Any) -> str | None:
    """Check that it is an e-mail address.

    >>> is_email("ann at example.org")
    'It is "ann at example.org"; it must be an e-mail address such as ann@example.org.'
    """
    if _is_match(_EMAIL, _stripped_text(value)):
        return None
    such = "it must be an e-mail address such as ann@example.org."
    return f'It is "{_short(_stripped_text(value))}"; {such}'


def _stripped_text(value: Any) -> str:
    return "" if value is None else str(value)[:MOST_MATCHED_CHARS]


def _is_match(pattern: str, text: str) -> bool:
    try:
        return schema_patterns.matches(pattern)(text)
    except schema_patterns.UnknownPattern:
        pass  # such as \b: Rust's, of which every pattern takes linear time as well
    try:
        validator = SchemaValidator({"type": "str", "pattern": pattern})
    except SchemaError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        messages = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        why = messages[-1] if messages else lines[-1]
        raise ValueError(f"the pattern '{pattern}' cannot be used: {why}") from None
    try:
        validator.validate_python(text)
    except ValidationError:
        return False
    return True


LANGUAGE_NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch",
    "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili",
    "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese",
    "zh": "Chinese",
}  # fmt: skip
"""English names of common languages; the library knows more by code."""
_WIDER = {
    **{"nb": "no", "nn": "no", "yue": "zh", "wuu": "zh", "cmn": "zh"},
    **{"ary": "ar", "arz": "ar", "fil": "tl", "gsw": "de"},
}
"""Languages of which the library knows a wider one, as ISO 639-3 and CLDR have it."""
_LEAST_PROBABILITY = 0.5  # below it a text is too short or too odd to judge
_LEAST_PLAUSIBLE = 0.1  # related languages share words: Norwegian and Danish, Croatian and Serbian
_MOST_LANGUAGE_CHARS = 100_000


def language(value: Any, *names: str) -> str | None:
    """Check that it is in one of these languages: codes such as `de`, or English names.

    A text that is too short passes: an article number has no language.

    >>> language("Die Fähre fährt um neun ab und kommt am Abend zurück.", "de", "French") is None
    True
    >>> language("The ferry leaves at nine and comes back at night.", "de")
    'It is written in English; write it in German.'
    """
    identifier = language_identifier(is_normalised=True)
    by_name = {name.casefold(): code for code, name in LANGUAGE_NAMES.items()}
    codes: list[str] = []
    for name in names:
        word = _language_word(str(name))
        code = by_name.get(word, word)
        code = code if code in identifier.labels else _WIDER.get(code, code)
        if code not in identifier.labels:
            raise ValueError(f"there is no language '{name}'; write a code such as 'de'")
        codes.append(code)
    if not codes:
        raise ValueError("`language` needs the language, such as 'de'")
    ranked = identifier.rank(text_of(value)[:_MOST_LANGUAGE_CHARS])
    likeliest, probability = ranked[0]
    fitting = {likeliest, *(code for code, chance in ranked if chance >= _LEAST_PLAUSIBLE)}
    fitting |= {_WIDER[code] for code in fitting & _WIDER.keys()}
    if probability < _LEAST_PROBABILITY or not fitting.isdisjoint(codes):
        return None
    asked_for = " or ".join(LANGUAGE_NAMES.get(code, code) for code in codes)
    return f"It is written in {LANGUAGE_NAMES.get(likeliest, likeliest)}; write it in {asked_for}."


def _language_in_advance(value: Any, *languages: Any) -> str | None:
    names = {*LANGUAGE_NAMES, *(name.casefold() for name in LANGUAGE_NAMES.values())}
    for language_name in languages:
        word = _language_word(language_name) if isinstance(language_name, str) else "en"
        if word not in names and not (len(word) in (2, 3) and word.isascii() and word.isalpha()):
            return f"there is no language '{language_name}'; write a code such as 'de'"
    return None


language.in_advance = _language_in_advance  # type: ignore[attr-defined]  # a function has attributes, too


def _language_word(name: str) -> str:
    return name.strip().casefold().replace("_", "-").partition("-")[0]


_CITED = re.compile(r"[\[\uff3b\u3010]\s?(\d+(?:\s?[,;\u2013-]\s?\d+)*)\s?[\]\uff3d\u3011]")
_MOST_CITED = 1000


_MARKS_AROUND = " .,:;'\"\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u300c\u300d"
_LACKS: Mapping[Lack, str] = {
    "missing": "",
    "question": ", in a question",
    "year": ", without the year",
    "range": ", in a range",
    "order": ", where day and month are not clear",
    "month": ", where the month is not clear",
}


def numbers_found(value: Any, source: Any, within: float = 0.0) -> str | None:
    """Check that each number, date, time and code of the answer is in the source.

    In digits, as `reply.evidence` finds them, and not in a question. Numbers of lists and citations
    such as [1] do not count. `within` is the share by which a number may differ, such as 0.01 for
    rounded ones. Words are not compared.

    >>> numbers_found("It has 40 of 1200.", source="It has 40 of 1,300.")
    'This is not in the source: 1200. Use only what is in it.'
    """
    answer, text = "\n\n".join(texts_in(value, with_numbers=False)), shown_text(source_text(source))
    lacking = [
        f'{lack.text} (it has "{_short(lack.nearest)}"{_LACKS[lack.lack]})'
        if lack.nearest
        else lack.text
        for lack in unsupported(answer, text, within, numbers_in(value))
    ]
    if not lacking:
        return None
    return f"This is not in the source: {listed(lacking)}. Use only what is in it."


def quotes(value: Any, source: Any) -> str | None:
    """Check that each text of the answer is in the source, in whole words.

    Spaces, capitals, kinds of quotation marks and dashes, and hyphens inside words may differ. An
    empty text is no quotation. Numbers are checked as in `numbers_found`.

    >>> quotes(["ferry at nine", "ten boats"], source="The Ferry  at nine.")
    'This is not in the source word by word: "ten boats".'
    """
    index = TextIndex(shown_text(text_of(source)))
    texts = texts_in(value, with_numbers=False)
    missing = [  # also without the marks around it
        f'"{_short(text)}"'
        for text in texts
        if not any(map(index.find, (text, text.strip(_MARKS_AROUND))))
    ]
    numbers = SourceIndex(index.text)
    missing += [f"{number:g}" for number in numbers_in(value) if not numbers.find(number)]
    if not missing:
        return None
    return f"This is not in the source word by word: {listed(missing)}."


def located(value: Any, *, output: Any = None, evidence: Any = None) -> str | None:
    """Check that the evidence has a place for each value of the answer, or of this part of it.

    It needs `reply.evidence`. Numbers and dates may be written in another way; a place that is only
    similar does not count.

    >>> located({"n": 5}, output={"n": 5}, evidence={"n": {"match": "none"}})
    'This is not in the source: n (5). Use only what is in it.'
    """
    if evidence is None:
        raise ValueError("`located` needs the evidence of the answer: add `reply.evidence`")
    lacking = {path_text(path): reduce(getitem, path, output) for path in missing_keys(evidence)}
    if value is not output and value != output:  # a part: equal values have equal places
        within = {*texts_in(value)}
        lacking = {
            path: held
            for path, held in lacking.items()
            if held == value or not within.isdisjoint(texts_in(held))
        }
    if not lacking:
        return None
    places = listed(
        [
            f"{path} ({'empty' if held == [] or is_empty(held) else _short(str(held))})"
            for path, held in lacking.items()
        ]
    )
    return f"This is not in the source: {places}. Use only what is in it."


located.from_scope = ("output", "evidence")  # type: ignore[attr-defined]  # a function has attributes, too


def cites(value: Any, sources: Any, least: int = 1) -> str | None:
    """Check that its numbers in brackets, such as [2] or [1, 3], are those of sources.

    `sources` is the list of them, or their number; `least` of them must be cited. The answer may be
    the numbers themselves, as a schema may ask for.

    >>> cites("It floats [1][4].", sources=["a", "b"])
    'It cites [4], but there are only the sources [1] to [2].'
    """
    n = sources if isinstance(sources, int) else len(sources or ())
    cited = set(_cited_numbers(value))
    wrong = [f"[{number}]" for number in sorted(cited) if not 1 <= number <= n]
    if wrong:
        there = {0: "there are no sources", 1: "there is only the source [1]"}.get(
            n, f"there are only the sources [1] to [{n}]"
        )
        return f"It cites {listed(wrong)}, but {there}."
    if len(cited) < min(least, n):
        quantity = "a source" if least == 1 else f"at least {min(least, n)} sources"
        return f"It must cite {quantity} by number, such as [1]."
    return None


def _cited_numbers(value: Any) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    if values and all(isinstance(item, int) and not isinstance(item, bool) for item in values):
        return list(values)
    numbers: list[int] = []
    for found in _CITED.finditer(text_of(value)):
        for part in found[1].replace(";", ",").split(","):
            ends = [*map(int, part.replace("\u2013", "-").split("-"))]
            numbers += range(ends[0], min(ends[-1], ends[0] + _MOST_CITED) + 1)
    return numbers


_FUNCTIONS: tuple[CheckFunction, ...] = (
    cites, contains, differs, is_date, is_email, is_url, lacks, language, located,
    matches, numbers_found, one_of, quotes, sentences, unique, words,
)  # fmt: skip
BUILT_IN: Mapping[str, CheckFunction] = {function.__name__: function for function in _FUNCTIONS}
