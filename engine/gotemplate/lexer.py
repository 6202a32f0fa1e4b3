"""Cut a template into texts and tokens. Knows no grammar.

The language is that of pkg.go.dev/text/template: actions stand between `{{` and `}}`; a minus sign
beside them, parted by a space, trims the text on that side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .errors import GoTemplateSyntaxError

Kind = Literal[
    "text",  # between actions; `value` is the text
    "open",  # {{
    "close",  # }}
    "space",
    "field",  # .Name; `value` is the name
    "variable",  # $ or $name; `value` is the whole
    "dot",
    "word",  # a function or keyword
    "constant",  # a number, a character, a text, true, false; `value` is its value
    "string",  # a constant that is a text
    "nil",
    "mark",  # ( ) | , = :=
    "end",
]

_SPACES = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Token:
    """One token; `source` is how it is written."""

    kind: Kind
    source: str
    line: int
    value: Any = None


_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+
                 |(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?))
    | \.(?P<field>\w+)
    | (?P<dot>\.)
    | (?P<variable>\$\w*)
    | (?P<word>\w+)
    | (?P<string>"(?:\\.|[^"\\\n])*")
    | (?P<raw>`[^`]*`)
    | (?P<char>'(?:\\.[^']*|[^'\\\n])')
    | (?P<mark>:=|[()|,=])
    """,
    re.VERBOSE | re.DOTALL,
)
_ENDS_WORD = re.compile(r"[ \t\r\n.,|:)(]|\}\}|$")


def tokens(source: str) -> Iterator[Token]:
    """Give a template's tokens, the last one being `end`.

    Raises:
        GoTemplateSyntaxError: what stands there is none.
    """
    at, line = 0, 1
    is_trimmed = False
    while True:
        start = source.find("{{", at)
        text = source[at:] if start < 0 else source[at:start]
        first, line = line, line + text.count("\n")
        if is_trimmed:
            text = text.lstrip(_SPACES)
        trims = start >= 0 and source[start + 2 : start + 3] == "-" and _is_space(source, start + 3)
        if trims:
            text = text.rstrip(_SPACES)
        if text:
            yield Token("text", text, first, text)
        if start < 0:
            yield Token("end", "", line)
            return
        inside = start + (3 if trims else 2)
        # The space after a trimming minus sign is part of the mark.
        commented = _comment_end(source, inside + 1 if trims else inside)
        if commented is None:
            action = _Action(source, inside, line)
            yield from action.tokens()
            commented = action.end
        at, is_trimmed = commented
        line += source.count("\n", start, at)


def _is_space(source: str, at: int) -> bool:
    return source[at : at + 1] != "" and source[at] in _SPACES


def _line(source: str, at: int) -> int:
    return source.count("\n", 0, at) + 1


def _comment_end(source: str, at: int) -> tuple[int, bool] | None:
    """Give where a comment's action ends and whether it trims what follows; None: no comment."""
    if not source.startswith("/*", at):
        return None
    closes = source.find("*/", at + 2)
    if closes < 0:
        raise GoTemplateSyntaxError(_line(source, at), "unclosed comment")
    end = closes + 2
    if source.startswith("}}", end):
        return end + 2, False
    if _is_space(source, end) and source.startswith("-}}", end + 1):
        return end + 4, True
    raise GoTemplateSyntaxError(_line(source, end), "comment ends before closing delimiter")


class _Action:
    """Reads what stands between `{{` and `}}`."""

    def __init__(self, source: str, inside: int, line: int) -> None:
        self._source = source
        self._at = inside
        self._first_line = self._line = line
        self.end = (inside, False)
        """Where it ends, and whether it trims what follows: known when all tokens were read."""

    def tokens(self) -> Iterator[Token]:
        yield Token("open", "{{", self._line)
        while not self._is_closed():
            yield self._next()
        yield Token("close", "}}", self._line)

    def _is_closed(self) -> bool:
        trims = _is_space(self._source, self._at) and self._source.startswith("-}}", self._at + 1)
        if not trims and not self._source.startswith("}}", self._at):
            return False
        self.end = (self._at + (4 if trims else 2), trims)
        return True

    def _next(self) -> Token:
        found = _TOKEN.match(self._source, self._at)
        if found is None:
            raise self._bad()
        kind, text, line = found.lastgroup or "", found.group(), self._line
        self._at = found.end()
        self._line += text.count("\n")
        if kind == "space":
            # The space before a closing `-}}` belongs to it.
            if self._source.startswith("-}}", self._at):
                self._at -= 1
                text = text[:-1]
            return Token("space", text, line)
        if kind in ("field", "variable", "word", "number") and not _ENDS_WORD.match(
            self._source, self._at
        ):
            raise self._bad()
        return _token(kind, text, line)

    def _bad(self) -> GoTemplateSyntaxError:
        rest = self._source[self._at : self._at + 1]
        if not rest:
            return GoTemplateSyntaxError(self._first_line, "unclosed action")
        if rest in "\"'`":
            return GoTemplateSyntaxError(self._line, f"unterminated or malformed quote {rest}")
        return GoTemplateSyntaxError(self._line, f"unexpected {rest!r} in an action")


def _token(kind: str, text: str, line: int) -> Token:
    match kind:
        case "field":
            return Token("field", text, line, text[1:])
        case "variable":
            return Token("variable", text, line, text)
        case "number":
            return Token("constant", text, line, _number(text, line))
        case "char":
            return Token("constant", text, line, _character(text, line))
        case "string":
            return Token("string", text, line, _unquoted(text, line))
        case "raw":
            return Token("string", text, line, text[1:-1].replace("\r", ""))
        case "word" if text in ("true", "false"):
            return Token("constant", text, line, text == "true")
        case "word" if text == "nil":
            return Token("nil", text, line)
        case "dot":
            return Token("dot", text, line)
        case "mark":
            return Token("mark", text, line)
    return Token("word", text, line)


def _number(text: str, line: int) -> int | float:
    plain = text.replace("_", "")
    try:
        if re.fullmatch(r"[+-]?0[0-7]+", plain):
            value: int | float = int(plain, 8)
        elif re.fullmatch(r"[+-]?(?:0|[1-9][0-9]*|0[xXbBoO][0-9a-fA-F]+)", plain):
            value = int(plain, 0)
        else:
            value = float(plain)
    except (ValueError, OverflowError):
        raise GoTemplateSyntaxError(line, f"bad number syntax: {text!r}") from None
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise GoTemplateSyntaxError(line, f"integer overflow: {text!r}")
    return value


def _character(text: str, line: int) -> int:
    value = _unquoted(text, line)
    if len(value) != 1:
        raise GoTemplateSyntaxError(line, f"malformed character constant: {text}")
    return ord(value)


_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\",
}  # fmt: skip
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)


def _unquoted(text: str, line: int) -> str:
    """Read a quoted text; escapes of bytes make UTF-8, as in Go."""
    quote, raw, at = text[0], bytearray(), 1
    for found in _ESCAPE.finditer(text, 1, len(text) - 1):
        raw += text[at : found.start()].encode("utf-8", "replace")
        at = found.end()
        raw += _escaped(found, quote, text, line)
    raw += text[at:-1].encode("utf-8", "replace")
    return raw.decode("utf-8", "replace")


def _escaped(found: re.Match[str], quote: str, text: str, line: int) -> bytes:
    byte, octal, short, long, other = found.groups()
    if byte or octal:
        number = int(byte, 16) if byte else int(octal, 8)
        if number < 256:
            return bytes([number])
    elif short or long:
        number = int(short or long, 16)
        if number < 0xD800 or 0xE000 <= number <= 0x10FFFF:
            return chr(number).encode()
    elif other == quote or other in _ESCAPES:
        return _ESCAPES.get(other, quote).encode()
    raise GoTemplateSyntaxError(line, f"bad escape {found.group()!r} in {text}")
