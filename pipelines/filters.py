"""Filters of expressions, and tests behind `is`.

Harmless filters are those of Jinja2; those that can make a large value from a small one are
replaced by ones with a limit.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from itertools import islice, pairwise
from textwrap import TextWrapper
from types import ModuleType
from typing import Any, NoReturn

from jinja2 import pass_environment
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.tests import TESTS as JINJA_TESTS

from paddock.engine.system.text import canonical_json, one_line

from .times import local_date, local_time, moved
from .typed_rows import without_types

MAX_FILTER_CHARS = 32 * 1024 * 1024
MAX_PARSED_CHARS = 4_000_000  # each part of a text costs some 50 bytes
MAX_WRAP_CHARS = 1_000_000  # textwrap reads about a million characters a second
_PART_CHARS = 256
_FINDABLE = re.compile("[LN]|Sc").match
"""Of the category of a character: a letter, a digit, a currency sign."""


def names(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_MOST_LEVELS = 1000
_ROUNDINGS = {"common": ROUND_HALF_UP, "ceil": ROUND_CEILING, "floor": ROUND_FLOOR}

_PLAIN = names(
    "abs capitalize count d default dictsort filesizeformat first items last "
    "length list lower map max min reject rejectattr reverse select selectattr groupby "
    "sort string title trim truncate upper"
)
_TESTS = names(
    "boolean defined divisibleby eq equalto even false float ge greaterthan gt in "
    "integer iterable le lessthan lower lt mapping ne none number odd sequence string "
    "true undefined upper == != > >= < <="
)


def slug(value: str) -> str:
    """Return a name that is safe in paths and addresses.

    >>> slug("Où est l'Été ?")
    'ou-est-l-ete'
    """
    plain = unicodedata.normalize("NFKD", str(value)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def truncate_words(value: str, count: int, end: str = "…") -> str:
    """Return the first words, with `end` if there were more.

    >>> truncate_words("one two three", 2)
    'one two…'
    """
    words = list(islice(re.finditer(r"\S+", value), max(count, 0) + 1))
    if len(words) <= count:
        return value
    return (value[: words[count - 1].end()] if count > 0 else "") + end


def basename(value: str) -> str:
    return re.split(r"[/\\]", str(value).rstrip("/\\"))[-1]


def tojson(value: Any, indent: int | None = None) -> str:
    """Return JSON without HTML escapes."""
    return json.dumps(
        without_types(value),
        ensure_ascii=False,
        indent=_bounded_size("indent", indent or 0) or None,
    )


def replace(value: str, old: str, new: str, count: int | None = None) -> str:
    """Replace, after checking the length of the result."""
    value, old, new = str(value), str(old), str(new)
    times = value.count(old) if count is None or count < 0 else min(value.count(old), count)
    _check_size(len(value) + times * (len(new) - len(old)))
    return value.replace(old, new, -1 if count is None else count)


@pass_environment
def join(environment: Any, value: Any, d: str = "", attribute: str | None = None) -> str:
    """Join texts, after checking the length of the result."""
    parts = []
    n_chars = 0
    for item in value if attribute is None else _attributes(environment, value, attribute):
        text = item if isinstance(item, str) else str(item)
        parts.append(text)
        n_chars += len(text) + len(d)
        _check_size(n_chars)
    return str(d).join(parts)


def wordcount(value: str) -> int:
    return sum(1 for _ in re.finditer(r"\w+", str(value)))


def title(value: str) -> str:
    _check_size(len(str(value)), MAX_WRAP_CHARS)
    titled: str = JINJA_FILTERS["title"](value)
    return titled


def urlencode(value: Any) -> str:
    _check_size(len(str(value)), MAX_WRAP_CHARS)
    encoded: str = JINJA_FILTERS["urlencode"](value)
    return encoded


def indent(value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    _check_size(len(str(value)), MAX_WRAP_CHARS * 4)
    pad = " " * _bounded_size("width", width) if isinstance(width, int) else str(width)
    lines = str(value).splitlines(keepends=True)
    _check_size(len(value) + len(pad) * len(lines))
    wants = (blank or bool(line.strip()) for line in lines)
    return "".join(
        pad + line if want and (first or at) else line
        for at, (line, want) in enumerate(zip(lines, wants, strict=True))
    )


def wordwrap(value: str, width: int = 79) -> str:
    text = str(value)
    _check_size(len(text), MAX_WRAP_CHARS)
    wrapper = _LinearWrapper(width)
    return "\n".join("\n".join(wrapper.wrap(line)) for line in text.split("\n"))


class _LinearWrapper(TextWrapper):
    """The standard library's wrapper, in linear time.

    It breaks a word that is longer than a line by copying the rest of the word for each line: 13 s
    for a million characters at width 1. Shorter parts, each longer than a line, come out the same.
    """

    def _split(self, text: str) -> list[str]:
        size = max(self.width, 0) + _PART_CHARS
        return [part for chunk in super()._split(text) for part in _parts(chunk, size)]


def _parts(chunk: str, size: int) -> Iterator[str]:
    """Cut into parts of `size` characters; the last one may be up to twice as long."""
    at = 0
    while len(chunk) - at > 2 * size:
        yield chunk[at : at + size]
        at += size
    yield chunk[at:]


def round_(value: float, precision: int = 0, method: str = "common") -> float:
    """Round as SQL does: half a unit goes away from zero, of the number as it is written."""
    rounded: float = JINJA_FILTERS["round"](value, _bounded_size("precision", precision), method)
    if isinstance(value, int) or not math.isfinite(value):
        return rounded
    exact, unit = Decimal(repr(float(value))), Decimal(1).scaleb(-precision)
    has_more = exact.normalize().as_tuple().exponent < unit.as_tuple().exponent  # type: ignore[operator]  # finite
    return float(exact.quantize(unit, _ROUNDINGS[method])) if has_more else value


_NO_DEFAULT = object()


def float_(value: Any, default: Any = _NO_DEFAULT) -> Any:
    return _number_of(value, default, JINJA_FILTERS["float"](value, _NO_DEFAULT))


def int_(value: Any, default: Any = _NO_DEFAULT, base: int = 10) -> Any:
    return _number_of(value, default, JINJA_FILTERS["int"](value, _NO_DEFAULT, base))


def _number_of(value: Any, default: Any, number: Any) -> Any:
    """Return the number, or the default; Jinja's own is 0, which a condition takes for a value."""
    is_odd = isinstance(value, str) and ("_" in value or number in (math.inf, -math.inf))
    is_read = number is not _NO_DEFAULT and number == number and not is_odd  # NaN is not itself
    if not is_read and default is _NO_DEFAULT:
        shown = "null" if value is None else f"'{one_line(str(value), 40)}'"
        raise ValueError(
            f"{shown} is no number. `number_in` reads one as people write it, such as 12,50; with "
            "a default, such as `float(0)`, what is none is that"
        )
    return number if is_read else default


def batch(value: Any, size: int, fill: Any = None) -> list[list[Any]]:
    """Cut a list into lists of one size; the last one can be filled up."""
    items = list(value)
    if not isinstance(size, int) or size < 1:
        raise ValueError("size must be a whole number of at least 1")
    batches = [items[at : at + size] for at in range(0, len(items), size)]
    if batches and fill is not None:
        batches[-1] += [fill] * _bounded_size("size", size - len(batches[-1]))
    return batches


def slice_(value: Any, count: int) -> list[list[Any]]:
    items, count = list(value), max(_bounded_size("count", count), 1)
    size, rest = divmod(len(items), count)
    starts = [at * size + min(at, rest) for at in range(count + 1)]
    return [items[start:end] for start, end in pairwise(starts)]


@pass_environment
def sum_(environment: Any, value: Any, attribute: str | None = None, start: float = 0) -> float:
    total = start
    for number in value if attribute is None else _attributes(environment, value, attribute):
        if not isinstance(number, int | float):
            raise TypeError("sum adds numbers only")
        total += number
    return total


@pass_environment
def unique(
    environment: Any, value: Any, case_sensitive: bool = False, attribute: str | None = None
) -> list[Any]:
    items = list(value)
    compared = items if attribute is None else _attributes(environment, items, attribute)
    seen: dict[Any, Any] = {}
    for item, by in zip(items, compared, strict=True):
        folded = by.lower() if isinstance(by, str) and not case_sensitive else by
        is_nested = isinstance(by, list | tuple | dict)
        seen.setdefault(("", json.dumps(by, sort_keys=True)) if is_nested else folded, item)
    return list(seen.values())


def flatten(value: Any, levels: int | None = None) -> list[Any]:
    """Flatten nested lists; `levels` limits the depth.

    >>> flatten([1, [2, [3]]]), flatten([1, [2, [3]]], 1)
    ([1, 2, 3], [1, 2, [3]])
    """
    most = _MOST_LEVELS if levels is None else _bounded_size("levels", levels)
    unique_values: list[Any] = []
    waiting = [iter(_list_argument("flatten", value))]
    while waiting:
        for item in waiting[-1]:
            if isinstance(item, list | tuple) and len(waiting) <= most:
                waiting.append(iter(item))
                break
            unique_values.append(item)
        else:
            waiting.pop()
    return unique_values


def unnest(value: Any, column: str, by: str, *keep: str) -> list[dict[str, Any]]:
    """Return the elements of a list in each row, as rows with a `key`, `by` and columns of `keep`.

    The key is the row's `by` and a digest of the element, so it stays where others come and go;
    equal ones are numbered.

    >>> unnest([{"bill": "a", "lines": [{"n": 1}] * 2}, {"bill": "b", "lines": None}],
    ...        "lines", "bill")
    [{'key': 'a 020a590ce9', 'bill': 'a', 'n': 1}, {'key': 'a 020a590ce9#2', 'bill': 'a', 'n': 1}]
    >>> unnest([{"bill": "a", "tags": ["x"]}], "tags", "bill")
    [{'key': 'a 461f4bc02f', 'bill': 'a', 'tags': 'x'}]
    """
    rows, made, seen = _list_argument("unnest", value), list[dict[str, Any]](), Counter[str]()
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise TypeError(f"unnest takes rows, and number {number} is none")
        if (lacks := next((name for name in (by, *keep) if name not in row), None)) is not None:
            raise ValueError(f"unnest: row {number} has no '{lacks}'")
        elements, kept = row.get(column), {name: row[name] for name in (by, *keep)}
        if elements is not None and not isinstance(elements, list | tuple):
            raise TypeError(f"unnest: '{column}' of row {number} is no list")
        for element in elements or ():
            values = element if isinstance(element, Mapping) else {column: element}
            if (
                both := next((name for name in ("key", *kept) if name in values), None)
            ) is not None:
                raise ValueError(f"unnest: '{column}' of row {number} has a '{both}' of its own")
            digest = hashlib.blake2b(canonical_json(values).encode(), digest_size=5).hexdigest()
            key = f"{row[by]} {digest}"
            seen[key] += 1
            key += f"#{seen[key]}" if seen[key] > 1 else ""
            made.append({"key": key, **kept, **values})
    if rows and not any(column in row for row in rows):
        raise ValueError(f"unnest: no row has '{column}'")
    return made


def zip_(value: Any, *others: Any) -> list[list[Any]]:
    """Return tuples of the items of several lists, as many as the shortest has.

    >>> zip_(["a", "b"], [1, 2, 3])
    [['a', 1], ['b', 2]]
    """
    lists = [_list_argument("zip", items) for items in (value, *others)]
    return [list(items) for items in zip(*lists, strict=False)]


def enumerate_(value: Any, start: int = 0) -> list[list[Any]]:
    """Return pairs of a number and an item.

    >>> enumerate_(["a", "b"], 1)
    [[1, 'a'], [2, 'b']]
    """
    return [[number, item] for number, item in enumerate(_list_argument("enumerate", value), start)]


def split(value: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
    """Split a text at each `sep`, or at white space.

    >>> split("a, b, c", ", ", 1)
    ['a', 'b, c']
    """
    _check_size(len(_text_argument("split", value)), MAX_PARSED_CHARS)
    return value.split(sep, maxsplit)


def terms(value: Any) -> list[str]:
    """Return the terms of a cell, or of several, that can be looked for: `a; b` has two.

    What has no letter, digit or currency sign is none: it would be found in any text.

    >>> terms("EUR; €;"), terms(None), terms(iter(["Hill", "", "-"]))
    (['EUR', '€'], [], ['Hill'])
    """
    is_list = hasattr(value, "__iter__") and not isinstance(value, str)
    cells = value if is_list else str(value or "").split(";")
    found = (str(cell or "").strip() for cell in cells)
    return [term for term in found if any(_FINDABLE(unicodedata.category(c)) for c in term)]


def fromjson(value: str) -> Any:
    """Read a text as JSON.

    >>> fromjson('{"a": [1, null]}')
    {'a': [1, None]}
    """
    _check_size(len(_text_argument("fromjson", value)), MAX_PARSED_CHARS)
    try:
        return json.loads(value, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"the text is not JSON: {error.msg} ({place})") from error


def _finite(written: str) -> float:
    number = float(written)
    return number if math.isfinite(number) else _no_number(written)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"the text is not JSON: it has {name}")


def number_in(value: str, language: str = "") -> float | None:
    number: float | None = _checking()[1].number_in(value, language)
    return number


def date_in(value: str, language: str = "") -> str | None:
    date: str | None = _checking()[1].date_in(value, language)
    return date


def evidence_in(value: Any, source: str, language: str = "") -> Any:
    """Return where each value stands in a text, as `reply.evidence` does."""
    _check_size(len(_text_argument("evidence_in", source)), MAX_PARSED_CHARS)
    evidence, _ = _checking()
    return evidence.locate(value, {}, [evidence.SourceText("", source)], language=language)


def _checking() -> tuple[ModuleType, ModuleType]:
    """Return the modules that look for values: few files need them, and `regex` takes long."""
    from .checking import evidence, source_index

    return evidence, source_index


def _text_argument(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} takes a text")
    return value


def _list_argument(name: str, value: Any) -> list[Any]:
    if isinstance(value, str | dict) or not hasattr(value, "__iter__"):
        raise TypeError(f"{name} takes a list")
    return list(value)


def _attributes(environment: Any, values: Any, attribute: str) -> Iterator[Any]:
    for value in values:
        for name in str(attribute).split("."):
            value = environment.getitem(value, int(name) if name.isdigit() else name)
        yield value


def _bounded_size(name: str, value: int) -> int:
    if not isinstance(value, int) or abs(value) > 1000:
        raise ValueError(f"{name} must be a whole number up to 1,000")
    return value


def _check_size(n_chars: int, limit: int = MAX_FILTER_CHARS) -> None:
    if n_chars > limit:
        raise ValueError(f"the text would have more than {limit:,} characters")


OWN_FILTERS: dict[str, Callable[..., Any]] = {
    **{"basename": basename, "slug": slug, "tojson": tojson, "truncate_words": truncate_words},
    **{"batch": batch, "slice": slice_, "sum": sum_, "round": round_, "wordwrap": wordwrap},
    **{"float": float_, "int": int_},
    **{"title": title, "urlencode": urlencode, "wordcount": wordcount},
    **{"indent": indent, "join": join, "replace": replace, "unique": unique},
    **{"flatten": flatten, "unnest": unnest, "zip": zip_, "enumerate": enumerate_},
    **{"split": split, "terms": terms, "fromjson": fromjson},
    **{"local": local_time, "date": local_date, "plus": moved},
    **{"number_in": number_in, "date_in": date_in, "evidence_in": evidence_in},
}
FILTERS: Mapping[str, Callable[..., Any]] = {
    name: JINJA_FILTERS[name] for name in _PLAIN
} | OWN_FILTERS
TESTS: Mapping[str, Any] = {name: JINJA_TESTS[name] for name in _TESTS}
TEXT_FILTERS = frozenset(
    names(
        "capitalize count d default length lower replace string title trim truncate "
        "truncate_words upper urlencode wordcount wordwrap indent slug basename tojson int "
        "float join split fromjson number_in date_in evidence_in"
    )
)
"""Filters that take a text as a whole, not as a list of characters."""
