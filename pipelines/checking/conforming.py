"""Whether a value is of the form that a JSON Schema asks for. Alone knows `jsonschema`.

Formats are those that the grammar of a local model knows (`engine/sampling/keywords.py`), by the
same rules, so that an answer is checked alike wherever it comes from. Three things that the grammar
allows are refused here: 29 February of every year, a leap second at any time of day, and names of
hosts that are too long.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

_MOST_CHARS = 160
_MOST_LEVELS = 64  # as of the YAML itself; what goes deeper ends in a RecursionError somewhere
TOO_DEEP = f"It is nested more than {_MOST_LEVELS} levels deep."


def mismatch(value: Any, schema: Any) -> str | None:
    """Return in a sentence what is most wrong with a value; None: it is of the form.

    >>> mismatch({"n": "x"}, {"properties": {"n": {"type": "integer"}}})
    "At /n: 'x' is not of type 'integer'."
    """
    if is_too_deep(value):
        return TOO_DEEP
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped]
    from referencing import Registry

    # A registry of its own: without one, what a `$ref` names would be fetched from the network.
    validator = Draft202012Validator(schema, registry=Registry(), format_checker=_formats())
    error = best_match(validator.iter_errors(value))
    if error is None:
        return None
    place = "".join(f"/{part}" for part in error.absolute_path)
    return f"{f'At {place}: ' if place else ''}{error.message[:_MOST_CHARS]}."


@lru_cache(maxsize=1)
def _formats() -> Any:
    """Return what checks `format`, also of the library's formats that no grammar knows."""
    from jsonschema import FormatChecker

    checker = FormatChecker(formats=("json-pointer", "regex", "relative-json-pointer"))
    for name, is_one in FORMATS.items():
        checker.checks(name)(_of_texts(is_one))
    return checker


def _of_texts(is_one: Callable[[str], bool]) -> Callable[[Any], bool]:
    """Let pass what is no text: `type` speaks of that."""
    return lambda value: not isinstance(value, str) or is_one(value)


_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_TIME = re.compile(
    r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(?:\.\d+)?"
    r"(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII | re.IGNORECASE,
)
_CLOCK_PART = r"T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S)"
_DAY_PART = r"(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)"
_DURATION = re.compile(rf"P(?:\d+W|{_DAY_PART}(?:{_CLOCK_PART})?|{_CLOCK_PART})", re.ASCII)
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MOST_HOST_CHARS = 253
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_EMAIL = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@(?:\[([^\]]+)\]|(.+))")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = r"%[0-9A-Fa-f]{2}"
_PLAIN = r"A-Za-z0-9._~!$&'()*+,;=:\-"
_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:"
    rf"(?://(?:(?:[{_PLAIN}]|{_HEX})*@)?(?:\[([^\]]*)\]|(?:[{_PLAIN.replace(':', '')}]|{_HEX})*)"
    r"(?::\d*)?(?=[/?#]|\Z)|(?!//))"
    rf"(?:[{_PLAIN}@/]|{_HEX})*(?:\?(?:[{_PLAIN}@/?]|{_HEX})*)?(?:#(?:[{_PLAIN}@/?]|{_HEX})*)?"
)


def _is_date(text: str) -> bool:
    found = _DATE.fullmatch(text)
    if found is None:
        return False
    year, month, day = map(int, found.groups())
    try:
        datetime.date(year or 2000, month, day)  # year 0 is a leap year, and Python has none
    except ValueError:
        return False
    return True


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    hour, minute, second = int(found[1]), int(found[2]), int(found[3])
    if second < 60:
        return True
    offset = int(found[5] or 0) * 60 + int(found[6] or 0)
    utc = hour * 60 + minute - (offset if found[4] == "+" else -offset)
    return utc % (24 * 60) == 24 * 60 - 1


def _is_date_time(text: str) -> bool:
    return text[10:11] in ("T", "t") and _is_date(text[:10]) and _is_time(text[11:])


def _is_hostname(text: str) -> bool:
    return len(text) <= _MOST_HOST_CHARS and _HOSTNAME.fullmatch(text) is not None


def _is_email(text: str) -> bool:
    found = _EMAIL.fullmatch(text)
    return found is not None and (_is_ipv4(found[2]) if found[2] else _is_hostname(found[3]))


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return text.isascii()


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _is_uri(text: str) -> bool:
    found = _URI.fullmatch(text)
    return found is not None and (found[1] is None or _is_ipv6(found[1]))


FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date": _is_date,
    "date-time": _is_date_time,
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "email": _is_email,
    "hostname": _is_hostname,
    "ipv4": _is_ipv4,
    "ipv6": _is_ipv6,
    "time": _is_time,
    "uri": _is_uri,
    "uuid": lambda text: _UUID.fullmatch(text) is not None,
}
"""What each format asks of a text."""


def is_too_deep(value: Any) -> bool:
    """Tell whether lists and mappings lie deeper in each other than anybody means.

    >>> is_too_deep([[{"a": [1]}]])
    False
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_MOST_LEVELS + 1):
        held = (one.values() if isinstance(one, dict) else one for one in level)
        level = [inner for one in held for inner in one if isinstance(inner, dict | list)]
        if not level:
            return False
    return True
