r"""Patterns and formats of JSON Schema, in llguidance's dialect, and matched by it.

The decoder and the validation of answers ask the same engine for the same translation, so that what
one produces the other accepts. Patterns are ECMA-262 with Unicode: `\d` and `\w` are ASCII, `\s` is
ECMA's, a dot is no line end. What the engine cannot do (looking around, references back) or
ECMA-262 does not know is refused.

In JSON text llguidance writes a class with all control characters as if it had `"` and `\` as well,
so that `[^"]` would allow `"`. Our classes therefore lack U+0000, but for `[^]`.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_DIGITS, _WORD = "0-9", "0-9A-Z_a-z"
_SPACES = (
    r"\x09-\x0d\x20\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}"
)
_CLASSES = {"d": _DIGITS, "w": _WORD, "s": _SPACES}
_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_NO_LINE_END = r"[^\n\r\x{2028}\x{2029}]"
_ANYTHING = r"[\x{0}-\x{10ffff}]"
_QUANTIFIER = re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})")
_PROPERTY = re.compile(r"\{[A-Za-z_]+(?:=[A-Za-z0-9_]+)?\}")
_NAME = re.compile(r"\?<[^>=!]+>")
_CLASS_SIGNS = frozenset("dDwWsSpP")
_CONTROL_LETTER = re.compile("c([A-Za-z])")
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]+)\}")
_LOW_SURROGATE = re.compile(r"\\u([Dd][C-Fc-f][0-9A-Fa-f]{2})")
_LOOK_AROUND = "look-around, including look-ahead and look-behind, is not supported"


class UnknownPattern(ValueError):
    """A pattern that is not ECMA-262's, or that cannot be enforced; a sentence without its end."""


def translated(pattern: str) -> str:
    r"""Return a pattern in llguidance's dialect.

    >>> translated(r"^\d+-[^\w\-]$")
    '^[0-9]+\\-[[^0-9A-Z_a-z\\-]--\\x{0}]$'

    Raises:
        UnknownPattern: ECMA-262 does not know it, or it cannot be enforced.
    """
    return _Translation(pattern).whole()


class _Translation:
    """A walk over one pattern."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0

    def whole(self) -> str:
        made, is_open = [], False
        while self._at < len(self._pattern):
            is_quantified = is_open and _QUANTIFIER.match(self._pattern, self._at)
            if is_quantified:
                made.append(is_quantified[0])
                self._at = is_quantified.end()
                self._taken("?")  # the least match is a match as well
                is_open = False
            else:
                sign = self._pattern[self._at]
                made.append(self._part(sign))
                is_open = sign not in "^$(|"
        if self._depth:
            raise UnknownPattern("a group is not closed")
        return "".join(made)

    def _part(self, sign: str) -> str:
        """Return the part that begins here, and go behind it."""
        start = self._at
        self._at += 1
        match sign:
            case "\\":
                code = self._code(is_in_class=False)
                if code is not None:
                    return _literal(code)
                made = self._escaped_class(is_in_class=False)
                return _without_nul(f"[{made}]") if made.startswith((r"\p", r"\P")) else made
            case "[":
                return self._class()
            case "(":
                self._depth += 1
                rest = self._pattern[self._at :]
                if rest.startswith(("?=", "?!", "?<=", "?<!")):
                    raise UnknownPattern(_LOOK_AROUND)
                name = _NAME.match(rest)
                if name is not None:
                    self._at += name.end()
                elif rest.startswith("?:"):
                    self._at += 2
                elif rest.startswith("?"):
                    raise UnknownPattern(f"'({rest[:2]}' is not known in ECMA-262")
                return "(?:"
            case ")":
                self._depth -= 1
                if self._depth < 0:
                    raise UnknownPattern(f"')' at {start} closes no group")
                return ")"
            case ".":
                return _NO_LINE_END
            case "^" | "$" | "|":
                return sign
            case "*" | "+" | "?":
                raise UnknownPattern(f"'{sign}' at {start} repeats nothing")
            case "{" if _QUANTIFIER.match(self._pattern, start):
                raise UnknownPattern(f"'{{' at {start} repeats nothing")
        return _literal(ord(sign))

    def _class(self) -> str:
        start = self._at - 1
        is_negated = self._taken("^")
        parts: list[str] = []
        while not self._taken("]"):
            if self._at >= len(self._pattern):
                raise UnknownPattern(f"'[' at {start} is not closed")
            first = self._class_member()
            follows = self._pattern[self._at + 1 : self._at + 2]
            if self._pattern.startswith("-", self._at) and follows not in ("]", ""):
                self._at += 1
                last = self._class_member()
                parts.append(_range(first, last))
            else:
                parts.append(_literal(first) if isinstance(first, int) else first)
        if not parts:
            if is_negated:
                return _ANYTHING
            raise UnknownPattern("'[]' matches nothing")
        made = f"[{'^' if is_negated else ''}{''.join(parts)}]"
        may_have_nul = is_negated or any(
            part.startswith((r"\x{0}", r"\p", r"\P")) for part in parts
        )
        return _without_nul(made) if may_have_nul else made

    def _class_member(self) -> int | str:
        """Return a code, or what stands for a class of them."""
        sign = self._pattern[self._at]
        self._at += 1
        if sign != "\\":
            return ord(sign)
        code = self._code(is_in_class=True)
        return self._escaped_class(is_in_class=True) if code is None else code

    def _escaped_class(self, *, is_in_class: bool) -> str:
        sign = self._pattern[self._at]
        self._at += 1
        if sign in "pP":
            found = _PROPERTY.match(self._pattern, self._at)
            if found is None:
                raise UnknownPattern(f"'\\{sign}' needs a property in braces")
            self._at = found.end()
            return f"\\{sign}{found[0]}"
        signs = _CLASSES[sign.lower()]
        if sign.isupper():
            return f"[^{signs}]"
        return signs if is_in_class else f"[{signs}]"

    def _code(self, *, is_in_class: bool) -> int | None:
        """Return the code of an escape, and go behind it; None before a class of characters."""
        rest = self._pattern[self._at :]
        sign = rest[:1]
        if sign in _CLASS_SIGNS:
            return None
        if found := _HEX.match(rest):
            self._at += found.end()
            code = int(next(filter(None, found.groups())), 16)
            low = _LOW_SURROGATE.match(self._pattern, self._at)
            if 0xD800 <= code < 0xDC00 and low is not None:
                self._at = low.end()
                return 0x10000 + (code - 0xD800) * 0x400 + int(low[1], 16) - 0xDC00
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise UnknownPattern(f"there is no character {code:x}")
            return code
        if found := _CONTROL_LETTER.match(rest):
            self._at += found.end()
            return ord(found[1]) % 32
        self._at += 1
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        if sign == "0" and not rest[1:2].isdigit():
            return 0
        if is_in_class and sign == "b":
            return 8
        if not sign or sign.isalnum():
            if sign and sign in "bB":
                unsupported_escape = "'\\b' looks around, which is not supported"
            elif sign.isdigit() or sign == "k":
                unsupported_escape = f"'\\{sign}' refers back, which is not supported"
            else:
                unsupported_escape = f"'\\{sign}' is not known in ECMA-262"
            raise UnknownPattern(unsupported_escape)
        return ord(sign)

    def _taken(self, sign: str) -> bool:
        is_there = self._pattern.startswith(sign, self._at)
        self._at += is_there
        return is_there


def _without_nul(written: str) -> str:
    return rf"[{written}--\x{{0}}]"


def _literal(code: int) -> str:
    sign = chr(code)
    if sign.isascii() and sign.isalnum():
        return sign
    return (
        "\\" + sign if sign.isascii() and sign.isprintable() and sign != " " else f"\\x{{{code:x}}}"
    )


def _range(first: int | str, last: int | str) -> str:
    if isinstance(first, str) or isinstance(last, str):
        raise UnknownPattern("a range in brackets needs a character at each end")
    if first > last:
        raise UnknownPattern(f"the range {chr(first)}-{chr(last)} has its ends exchanged")
    return f"{_literal(first)}-{_literal(last)}"


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
_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_REAL_DAY = rf"(?:\d{{4}}-(?:(?:0[13-9]|1[0-2])-|02-[01]|02-2[0-8])|{_LEAP_YEAR}-02-29)"
_FORMAT_LENGTHS = {"hostname": 253, "email": 254}
"""Most characters of a name in DNS, and of an address with one."""


def format_bounds(name: object) -> dict[str, Any]:
    """Return the keywords that keep llguidance's format from what no validation should allow."""
    if not isinstance(name, str):
        return {}
    # What llguidance's formats allow and no validation should: 29 February of every year, and a
    # leap second at any time of day. It ends a day in UTC, by whole hours.
    leap_seconds = "|".join(
        rf"{(23 + sign * hours) % 24:02}:59:60(?:\.\d+)?[{'+' if sign > 0 else '-'}]{hours:02}:00"
        for sign in (1, -1)
        for hours in range(24)
    )
    real_time = rf"(?:\d\d:\d\d:[0-5]|23:59:60(?:\.\d+)?[Zz]|{leap_seconds})"
    patterns = {
        "date": rf"^{_REAL_DAY}",
        "date-time": rf"^{_REAL_DAY}\d*[Tt]{real_time}",
        "time": rf"^{real_time}",
    }
    pattern, most = patterns.get(name), _FORMAT_LENGTHS.get(name)
    return {
        **({"pattern": translated(pattern)} if pattern else {}),
        **({"maxLength": most} if most else {}),
    }


@lru_cache(maxsize=256)
def matches(pattern: str) -> Callable[[str], bool]:
    r"""Return what tells whether a text has a match of a pattern, compiled once.

    >>> [matches(r"^\d{3}$")(text) for text in ("123", "٣٣٣", "1234", "123\n")]
    [True, False, False, False]

    Raises:
        UnknownPattern: as `translated`, or it is too complex.
    """
    return _text_check({"type": "string", "pattern": translated(pattern)})


@lru_cache(maxsize=len(FORMATS))
def of_format(name: str) -> Callable[[str], bool]:
    """Return what tells whether a text is of one of `FORMATS`, compiled once.

    >>> [of_format("date")(text) for text in ("2024-02-29", "2023-02-29", "29.2.2024")]
    [True, False, False]
    """
    check = _text_check({"type": "string", "format": name, **format_bounds(name)})
    if name == "ipv6":  # the decoder writes no `::ffff:192.0.2.1`, which an answer may have
        return lambda text: check(text) or ("." in text and _is_ipv6(text))
    return check


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.IPv6Address(text).scope_id is None
    except ValueError:
        return False


def refusal(why: str) -> str | None:
    """Return why a translated pattern cannot be enforced, by llguidance's message."""
    if "lookarounds not supported" in why:
        return "'^' and '$' are supported only where a text begins and ends"
    return "it matches nothing" if "Regex is empty" in why else None


def _text_check(schema: dict[str, Any]) -> Callable[[str], bool]:
    guidance = load_engine()
    vocabulary = guidance.TokenizerWrapper(ByteVocabulary())
    tokens = guidance.LLTokenizer(vocabulary, n_vocab=END_SIGN + 1)
    grammar = json.dumps({"grammars": [{"json_schema": schema}]})
    whole = guidance.LLMatcher(tokens, grammar, log_level=0)
    if whole.is_error():
        raise UnknownPattern(refusal(whole.get_error()) or "it is too large or too complex")

    def is_accepted(text: str) -> bool:
        matcher = whole.deep_copy()
        # The grammar of JSON texts writes a DEL as an escape.
        spelt = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
        return bool(
            matcher.consume_tokens([*spelt.encode("utf-8", "replace")]) and matcher.is_accepting()
        )

    return is_accepted
