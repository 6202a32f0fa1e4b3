"""Whether a text has a form: a pattern, a date, an address."""

from __future__ import annotations

import datetime
from typing import Any
from urllib.parse import urlsplit

from .leaves import shown

MOST_CHARS = 1_000_000
_EMAIL = r"^[^@\s]+@[^@\s.]+(\.[^@\s.]+)+$"


def matches(value: Any, pattern: str) -> str | None:
    r"""The regular expression is found in it, as JSON Schema's `pattern`: `^` and `$` bind it.

    It is searched in a time that grows with the text alone, so it knows no look-around and no
    back-references.

    >>> matches("INV-2024", r"^INV-\d{5}$")
    'It is "INV-2024"; it must match the pattern ^INV-\\d{5}$'
    """
    if _is_match(pattern, _text(value)):
        return None
    return f'It is "{shown(_text(value))}"; it must match the pattern {pattern}'


def _in_advance(value: Any, pattern: Any) -> str | None:
    if not isinstance(pattern, str):
        return None
    try:
        _is_match(pattern, "")
    except ValueError as error:
        return str(error)
    return None


matches.in_advance = _in_advance  # type: ignore[attr-defined]  # a function has attributes, too


def is_date(value: Any, form: str = "%Y-%m-%d") -> str | None:
    """It is a date that exists, written in this form (Python's `strptime`).

    >>> is_date("2024-02-30")
    'It is "2024-02-30"; it must be a date such as 2024-12-31.'
    """
    try:
        datetime.datetime.strptime(_text(value), form)  # noqa: DTZ007 - only whether it reads
    except ValueError:
        such = datetime.date(2024, 12, 31).strftime(form)
        return f'It is "{shown(_text(value))}"; it must be a date such as {such}.'
    return None


def is_url(value: Any) -> str | None:
    """It is an address of the web.

    >>> is_url("www.example.org")
    'It is "www.example.org"; it must be an address that begins with https:// or http://'
    """
    text = _text(value)
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_one = False
    if is_one and not any(char.isspace() for char in text):
        return None
    return f'It is "{shown(text)}"; it must be an address that begins with https:// or http://'


def is_email(value: Any) -> str | None:
    """It is an address of e-mail.

    >>> is_email("ann at example.org")
    'It is "ann at example.org"; it must be an e-mail address such as ann@example.org.'
    """
    if _is_match(_EMAIL, _text(value)):
        return None
    return f'It is "{shown(_text(value))}"; it must be an e-mail address such as ann@example.org.'


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:MOST_CHARS]


def _is_match(pattern: str, text: str) -> bool:
    # Pydantic's own regular expressions are Rust's: no pattern makes them take for ever.
    from pydantic_core import SchemaError, SchemaValidator, ValidationError

    try:
        validator = SchemaValidator({"type": "str", "pattern": pattern})
    except SchemaError as error:
        raise ValueError(f"the pattern '{pattern}' cannot be used: {_why(error)}") from None
    try:
        validator.validate_python(text)
    except ValidationError:
        return False
    return True


def _why(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return told[-1] if told else lines[-1]
