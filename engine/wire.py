"""The one codec of requests and answers: socket, worker's pipe, ledger rows and cassettes.

msgspec writes and reads the records. Requests and answers leave out fields that are their defaults
(`omit_defaults`), and a name that is not known is passed over. Bytes are base64, but images and
vectors lie beside the JSON where there is a place for them.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from .request import TokenLogprob

T = TypeVar("T")


def write_json(value: object) -> bytes:
    """Return a value as JSON in one line; half a character, which is no Unicode, becomes `?`."""
    text = json.dumps(to_plain(value), ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace")


def read_json(kind: type[T], raw: bytes) -> T:
    """Return the value that `write_json` wrote.

    Raises:
        ValueError: it is none of this kind.
    """
    try:
        return from_plain(kind, json.loads(raw))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def to_plain(value: object) -> Any:
    """Return a value as JSON can hold it."""
    return msgspec.to_builtins(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    """Return a mapping of another kind, or a subclass of a text or number, as msgspec knows it."""
    match value:
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case float():
            return float(value)
    return dict(value)


def from_plain(kind: type[T], plain: Any) -> T:
    """Return the value that `to_plain` wrote.

    Raises:
        ValueError: it is none of this kind.
    """
    try:
        return msgspec.convert(plain, kind, str_keys=True, dec_hook=_read_other)
    except (ArithmeticError, AttributeError) as error:
        raise ValueError(f"it is no {getattr(kind, '__name__', kind)}: {error}") from error


def _read_other(kind: type, plain: Any) -> Any:
    """Return what msgspec does not read by itself: a token; of `object`, the value as it is."""
    return _logprob(*plain) if kind is TokenLogprob else plain


def _logprob(text: str, logprob: float = 0.0, *top: tuple[str, float]) -> TokenLogprob:
    others = [(other.encode("latin-1"), float(value)) for other, value in top]
    return TokenLogprob(text.encode("latin-1"), float(logprob), others)
