"""Bounded filters and methods: those that can make a large value of a small one have limits.

`template_sandbox` says what every filter of a template is checked for. Harmless ones are Jinja2's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from textwrap import wrap
from typing import Any

from jinja2 import pass_environment
from jinja2.filters import FILTERS as JINJA_FILTERS

from .template_limits import (
    MAX_TEXT_CHARS,
    TemplateLimitExceeded,
    check_chars,
    check_format,
    check_values,
)

MAX_PARSED_CHARS = 4_000_000  # each part of a text costs some 50 bytes
MAX_WRAP_CHARS = 1_000_000  # textwrap reads about a million characters a second
MAX_WORD_CHARS = 100_000  # broken at width 1: 0.1 s, and 13 s for a million


def names(words: str) -> tuple[str, ...]:
    return tuple(words.split())


PLAIN_FILTERS = names(
    "abs capitalize count d default dictsort filesizeformat first items last "
    "length list lower map max min reject rejectattr reverse select selectattr groupby "
    "sort string title trim truncate upper"
)


def replace(value: str, old: str, new: str, count: int | None = None) -> str:
    """Replace, after checking the length of the result."""
    value, old, new = str(value), str(old), str(new)
    times = value.count(old) if count is None or count < 0 else min(value.count(old), count)
    check_size(len(value) + times * (len(new) - len(old)))
    return value.replace(old, new, -1 if count is None else count)


@pass_environment
def join(environment: Any, value: Any, d: str = "", attribute: str | None = None) -> str:
    """Join texts, after checking the length of the result."""
    parts = []
    n_chars = 0
    for item in value if attribute is None else _attributes(environment, value, attribute):
        text = item if isinstance(item, str) else environment.text(item)
        parts.append(text)
        n_chars += len(text) + len(d)
        check_size(n_chars)
    return str(d).join(parts)


def wordcount(value: str) -> int:
    return sum(1 for _ in re.finditer(r"\w+", str(value)))


def title(value: str) -> str:
    check_size(len(str(value)), MAX_WRAP_CHARS)
    titled: str = JINJA_FILTERS["title"](value)
    return titled


def urlencode(value: Any) -> str:
    check_size(len(str(value)), MAX_WRAP_CHARS)
    encoded: str = JINJA_FILTERS["urlencode"](value)
    return encoded


def indent(value: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    check_size(len(str(value)), MAX_WRAP_CHARS * 4)
    size = bounded_size("width", width) if isinstance(width, int) else len(width)
    check_size(len(value) + size * (str(value).count("\n") + 1))
    indented: str = JINJA_FILTERS["indent"](str(value), width, first, blank)
    return indented


def wordwrap(value: str, width: int = 79) -> str:
    text = str(value)
    check_size(len(text), MAX_WRAP_CHARS)
    # To break a word, `textwrap` copies the rest of it for each line.
    check_size(max(map(len, text.split()), default=0), MAX_WORD_CHARS)
    return "\n".join("\n".join(wrap(line, width)) for line in text.split("\n"))


def batch(value: Any, size: int, fill: Any = None) -> list[list[Any]]:
    """Cut a list into lists of one size; the last one can be filled up."""
    items = list(value)
    if not isinstance(size, int) or size < 1:
        raise ValueError("size must be a whole number of at least 1")
    batches = [items[at : at + size] for at in range(0, len(items), size)]
    if batches and fill is not None:
        batches[-1] += [fill] * bounded_size("size", size - len(batches[-1]))
    return batches


def slice_(value: Any, count: int) -> list[list[Any]]:
    items, count = list(value), max(bounded_size("count", count), 1)
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


def _attributes(environment: Any, values: Any, attribute: str) -> Iterator[Any]:
    for value in values:
        for name in str(attribute).split("."):
            value = environment.getitem(value, int(name) if name.isdigit() else name)
        yield value


def bounded_size(name: str, value: int) -> int:
    if not isinstance(value, int) or abs(value) > 1000:
        raise ValueError(f"{name} must be a whole number up to 1,000")
    return value


def check_size(n_chars: int, limit: int = MAX_TEXT_CHARS) -> None:
    if n_chars > limit:
        raise TemplateLimitExceeded(f"the text would have more than {limit:,} characters")


def json_text(value: Any, indent: int | None = None, **options: Any) -> str:
    """Return JSON without HTML escapes, after checking how much is added around its values."""
    marks = options.get("separators") or ()
    n_added = bounded_size("indent", indent or 0) + sum(map(len, marks))
    if n_added:
        check_chars(check_values(value) * n_added * _depth(value))
    return json.dumps(value, indent=indent, **{"ensure_ascii": False, **options})


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        groups = [item for item in level if isinstance(item, list | tuple | dict)]
        level = [item for g in groups for item in (g.values() if isinstance(g, dict) else g)]
    return depth


def bounded_round(value: float, precision: int = 0, method: str = "common") -> float:
    rounded: float = JINJA_FILTERS["round"](value, bounded_size("precision", precision), method)
    return rounded


def center(value: str, width: int = 80) -> str:
    return str(value).center(bounded_size("width", width))


def _padded(name: str) -> Callable[..., str]:
    def pad(value: str, width: int, *fill: str) -> str:
        padded: str = getattr(value, name)(bounded_size("width", width), *fill)
        return padded

    return pad


def percent_format(value: str, *args: Any, **named: Any) -> str:
    """Return `value % args`, after checking the length of the result."""
    check_format(str(value), (*args, *named.values()), str)
    return str(value) % (named or args)


@pass_environment
def _brace_format(environment: Any, value: str, *args: Any, **named: Any) -> str:
    check_format(value, (*args, *named.values()), environment.text, "{")
    formatted: str = environment.wrap_str_format(value.format)(*args, **named)
    return formatted


BOUNDED_FILTERS: Mapping[str, Callable[..., Any]] = {
    **{"batch": batch, "slice": slice_, "sum": sum_, "unique": unique, "wordwrap": wordwrap},
    **{"title": title, "urlencode": urlencode, "wordcount": wordcount},
    **{"indent": indent, "join": join, "replace": replace},
}
BOUNDED_METHODS: Mapping[str, Callable[..., Any]] = {
    "format": _brace_format,
    "join": pass_environment(lambda environment, value, parts: join(environment, parts, value)),
    "replace": replace,
    **{name: _padded(name) for name in ("center", "ljust", "rjust", "zfill")},
}
"""Methods of texts that can make a large one from a small one."""
TEXT_FILTERS = frozenset(
    names(
        "capitalize count d default length lower replace string title trim truncate "
        "upper urlencode wordcount wordwrap indent tojson int float join"
    )
)
"""Filters that take a text as a whole, not as a list of characters."""
UNWRITTEN = frozenset(("count", "d", "default", "join", "length", "tojson"))
"""Those of them that do not write a list or mapping as one text."""
