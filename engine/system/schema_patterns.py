r"""Patterns and formats of JSON Schema, matched by llguidance.

The decoder and the validation of answers ask the same engine, so that what one produces the other
accepts. A pattern is read as llguidance reads it: `\d` and `\w` are ASCII, and it has no looking
around and no references back.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any


class UnknownPattern(ValueError):
    """A pattern that cannot be enforced; a sentence without its end."""


_NEGATED_CLASS = re.compile(r"(\\.)|\[\^", re.DOTALL)


def without_nul(pattern: str) -> str:
    r"""Return a pattern whose negated classes lack U+0000.

    In JSON text llguidance writes a class with all control characters as if it had `"` and `\` as
    well, so that `[^"]` would allow `"`.

    >>> without_nul(r'^[^"]+\[^$')
    '^[^\\x00"]+\\[^$'
    """
    return _NEGATED_CLASS.sub(lambda found: found[1] or r"[^\x00", pattern)


END_SIGN = 256
"""Of the vocabulary of bytes."""


class ByteVocabulary:
    """A vocabulary of bytes, an end, and tokens that a grammar may name, for llguidance."""

    eos_token_id = END_SIGN
    bos_token_id = None

    def __init__(self, n_named: int = 0) -> None:
        named = (b"\xff<named %d>" % place for place in range(n_named))
        self.tokens = (*(bytes([byte]) for byte in range(END_SIGN)), b"\xff<end>", *named)
        self.special_token_ids = tuple(range(END_SIGN, len(self.tokens)))

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def load_engine() -> Any:
    """Import llguidance: it takes 50 ms, and most pipelines have no schema."""
    import llguidance

    return llguidance


FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)
"""The formats of JSON Schema that can be enforced."""
_LEAP_YEAR = r"([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
REAL_DAY = rf"^([0-9]{{4}}-((0[13-9]|1[0-2])-|02-[01]|02-2[0-8])|{_LEAP_YEAR}-02-29)"
"""What a date begins with: llguidance's formats have 29 February in every year."""


@lru_cache(maxsize=256)
def matches(pattern: str) -> Callable[[str], bool]:
    r"""Return what tells whether a text has a match of a pattern, compiled once.

    >>> [matches(r"^\d{3}$")(text) for text in ("123", "٣٣٣", "1234", "123\n")]
    [True, False, False, False]

    Raises:
        UnknownPattern: llguidance does not know it, or it is too complex.
    """
    return _text_check({"type": "string", "pattern": without_nul(pattern)})


@lru_cache(maxsize=len(FORMATS))
def of_format(name: str) -> Callable[[str], bool]:
    """Return what tells whether a text is of one of `FORMATS`, compiled once.

    >>> [of_format("date")(text) for text in ("2024-02-29", "2023-02-29", "29.2.2024")]
    [True, False, False]
    """
    day = {"pattern": REAL_DAY} if name in ("date", "date-time") else {}
    check = _text_check({"type": "string", "format": name, **day})
    if name == "ipv6":  # the decoder writes no `::ffff:192.0.2.1`, which an answer may have
        return lambda text: check(text) or ("." in text and _is_ipv6(text))
    return check


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text).scope_id is None
    except ValueError:
        return False


def refusal(why: str) -> str:
    """Return why a pattern cannot be enforced, by llguidance's message."""
    if "lookarounds not supported" in why:
        return "`^`, `$` and `\\b` are supported only where a text begins and ends"
    if "Regex is empty" in why:
        return "it matches nothing"
    named = re.search(r"^error: (.+)", why, re.MULTILINE)
    return named[1].rstrip(".") if named else "it is too large or too complex"


@lru_cache(maxsize=1)  # 1.2 ms, ten times what a pattern takes
def _byte_tokens() -> Any:
    guidance = load_engine()
    vocabulary = guidance.TokenizerWrapper(ByteVocabulary())
    return guidance.LLTokenizer(vocabulary, n_vocab=END_SIGN + 1)


def _text_check(schema: dict[str, Any]) -> Callable[[str], bool]:
    grammar = json.dumps({"grammars": [{"json_schema": schema}]})
    whole = load_engine().LLMatcher(_byte_tokens(), grammar, log_level=0)
    if whole.is_error():
        raise UnknownPattern(refusal(whole.get_error()))

    def is_accepted(text: str) -> bool:
        matcher = whole.deep_copy()
        # The grammar of JSON texts writes a DEL as an escape.
        spelt = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
        return bool(
            matcher.consume_tokens([*spelt.encode("utf-8", "replace")]) and matcher.is_accepting()
        )

    return is_accepted
