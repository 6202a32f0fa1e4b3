"""GBNF, the grammars of llama.cpp, translated to Lark, which llguidance compiles."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from paddock.engine.errors import BadRequest

LARK_PART = re.compile(r'"(?:[^"\\\n]|\\.)*"|(?://|#)[^\n]*|/(?P<pattern>(?:[^/\\\n]|\\.)+)/')
"""Of Lark: a text, a comment, or a pattern."""
_RULE = re.compile(r"\s*([\w-]+)\s*::=")
_MARK = re.compile(r"# @\d+ [\w-]+")
"""Before each rule: its line, which llguidance's errors then name."""
_ODDITY = re.compile(
    r"\\(?:x(?P<x>[\da-fA-F]{2})|u(?P<u>[\da-fA-F]{4})|U(?P<U>[\da-fA-F]{8})|.)|(?P<twin>&&|~~)"
)
"""Escapes, of which `gbnf_to_lark` shortens some, and what a class in Rust reads as an operator."""


def _plain(found: re.Match[str]) -> str:
    if found["twin"]:
        return rf"{found['twin'][0]}\x{ord(found['twin'][0]):02x}"
    digits = found["x"] or found["u"] or found["U"]
    if not digits:
        return found[0]
    number = int(digits, 16)
    if number > sys.maxunicode or 0xD800 <= number <= 0xDFFF:
        raise BadRequest(f"the grammar cannot be read: '{found[0]}' is no character")
    return chr(number) if number > 0x7F else rf"\x{number:02x}"


def lark_of_gbnf(grammar: str) -> str:
    """Translate GBNF, as llama.cpp has it.

    Raises:
        BadRequest: it cannot be read.
    """
    lines = grammar.split("\n")  # not at U+2028, which a text may have
    rules = ((number, _RULE.match(line)) for number, line in enumerate(lines, 1))
    marks = {number: f"# @{number} {rule[1]}" for number, rule in rules if rule}
    plain = (_ODDITY.sub(_plain, line) for line in lines)
    marked = "\n".join(
        part for number, line in enumerate(plain, 1) for part in (marks.get(number), line)
        if part is not None
    )  # fmt: skip
    try:
        # GBNF's `.` is any character.
        return LARK_PART.sub(
            lambda part: "/(?s:.)/" if part["pattern"] == "." else part[0], gbnf_to_lark(marked)
        )
    except GbnfToLarkError as error:
        why = str(error)[: -len(f" at {error.pos}")]
        place = _place(lines, error.pos.text[: error.pos.pos])
        raise BadRequest(f"the grammar cannot be read: {place}: {why}") from None
    except RecursionError:
        raise BadRequest("the grammar cannot be read: it is nested too deeply") from None
    except Exception as error:  # its parser raises plain ones, such as "Rule 'x' not found"
        name = re.escape(str(error).partition("'")[2].partition("'")[0])
        used = re.compile(rf"(?<![\w-]){name}(?![\w-]|\s*::=)")
        found = ((n, used.search(line)) for n, line in enumerate(lines, 1))
        place = next((f"line {n}, column {at.start() + 1}: " for n, at in found if at), "")
        raise BadRequest(f"the grammar cannot be read: {place}{error}") from None


def _place(lines: Sequence[str], read: str) -> str:
    """Return the place in a grammar, of which this was read, with marks and without escapes."""
    above = read.split("\n")
    number = len(above) - sum(_MARK.fullmatch(line) is not None for line in above)
    column = len(above[-1])
    for escape in _ODDITY.finditer(lines[number - 1] if number <= len(lines) else ""):
        if escape.start() >= column:
            break
        column += len(escape[0]) - len(_plain(escape))
    return f"line {number}, column {column + 1}"
