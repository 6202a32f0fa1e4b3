"""Filters of expressions, and tests behind `is`: those of every template, and our own."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from itertools import islice
from types import ModuleType
from typing import Any, NoReturn

from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.tests import TESTS as JINJA_TESTS

from paddock.engine.system.template_filters import (
    BOUNDED_FILTERS,
    MAX_PARSED_CHARS,
    PLAIN_FILTERS,
    TEXT_FILTERS,
    bounded_round,
    bounded_size,
    check_size,
    json_text,
    names,
)
from paddock.engine.system.text import canonical_json, one_line

from .times import local_date, local_time, moved
from .typed_rows import without_types

_FINDABLE = re.compile("[LN]|Sc").match
"""Of the category of a character: a letter, a digit, a currency sign."""


_MOST_LEVELS = 1000
_ROUNDINGS = {"common": ROUND_HALF_UP, "ceil": ROUND_CEILING, "floor": ROUND_FLOOR}

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
    return json_text(without_types(value), indent or None)


def round_(value: float, precision: int = 0, method: str = "common") -> float:
    """Round as SQL does a decimal: half a unit of the number as it is written, away from zero."""
    rounded = bounded_round(value, precision, method)
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


def flatten(value: Any, levels: int | None = None) -> list[Any]:
    """Flatten nested lists; `levels` limits the depth.

    >>> flatten([1, [2, [3]]]), flatten([1, [2, [3]]], 1)
    ([1, 2, 3], [1, 2, [3]])
    """
    most = _MOST_LEVELS if levels is None else bounded_size("levels", levels)
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
    check_size(len(_text_argument("split", value)), MAX_PARSED_CHARS)
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
    check_size(len(_text_argument("fromjson", value)), MAX_PARSED_CHARS)
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
    check_size(len(_text_argument("evidence_in", source)), MAX_PARSED_CHARS)
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


OWN_FILTERS: dict[str, Callable[..., Any]] = {
    **BOUNDED_FILTERS,
    **{"basename": basename, "slug": slug, "tojson": tojson, "truncate_words": truncate_words},
    **{"round": round_, "float": float_, "int": int_},
    **{"flatten": flatten, "unnest": unnest, "zip": zip_, "enumerate": enumerate_},
    **{"split": split, "terms": terms, "fromjson": fromjson},
    **{"local": local_time, "date": local_date, "plus": moved},
    **{"number_in": number_in, "date_in": date_in, "evidence_in": evidence_in},
}
FILTERS: Mapping[str, Callable[..., Any]] = {
    name: JINJA_FILTERS[name] for name in PLAIN_FILTERS
} | OWN_FILTERS
TESTS: Mapping[str, Any] = {name: JINJA_TESTS[name] for name in _TESTS}
OWN_TEXT_FILTERS = TEXT_FILTERS | {
    *("truncate_words", "slug", "basename", "split", "fromjson"),
    *("number_in", "date_in", "evidence_in"),
}
