"""Read the values inside a tool call: JSON, Python's call syntax, Gemma's own. Pure.

Every reader takes a text that may still grow and a place in it. `Partial` says that more text is
needed, `Broken` that no more text can help; what a reader accepts, it accepts for every longer
text too, so that it does not matter how an answer is cut.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

JsonObject = Mapping[str, Any]


class Partial(Exception):
    """The text ends before the value does."""


class Broken(Exception):
    """This is not what was looked for, and will not become it."""


_JSON_MARKS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[{}\[\]]', re.DOTALL)
_PYTHON_MARKS = re.compile(r"\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?|[{}()\[\]]", re.DOTALL)
_PAIRS = {"}": "{", "]": "[", ")": "("}


def skip_space(text: str, at: int) -> int:
    """Give the place of the next character that is not white space."""
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def read_json(text: str, at: int) -> tuple[Any, int]:
    """Read an object or an array; gives the value and where it ends."""
    end = _closing(text, at, _JSON_MARKS, "{[")
    try:
        return json.loads(text[at:end], strict=False), end
    except (ValueError, RecursionError):
        raise Broken from None


def read_python(text: str, at: int) -> tuple[list[tuple[str, JsonObject]], int]:
    """Read `[name(key=value, …), …]`; gives names with arguments, and where it ends."""
    end = _closing(text, at, _PYTHON_MARKS, "[")
    try:
        tree = ast.parse(text[at:end].strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Broken from None
    if not isinstance(tree, ast.List) or not tree.elts:
        raise Broken
    return [_python_call(one) for one in tree.elts], end


def _closing(text: str, at: int, marks: re.Pattern[str], opens: str) -> int:
    """Give the place after the bracket that closes the one at `at`."""
    if at >= len(text):
        raise Partial
    if text[at] not in opens:
        raise Broken
    depth: list[str] = []
    for found in marks.finditer(text, at):
        mark = found.group()
        if mark[0] in "\"'":
            continue  # an open one reaches to the end of the text
        if mark in _PAIRS:
            if depth.pop() != _PAIRS[mark]:
                raise Broken
            if not depth:
                return found.end()
        else:
            depth.append(mark)
    raise Partial


def _python_call(node: ast.expr) -> tuple[str, JsonObject]:
    if not isinstance(node, ast.Call) or node.args:
        raise Broken
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise Broken
        arguments[keyword.arg] = _python_value(keyword.value)
    return ast.unparse(node.func), arguments


_CONSTANTS = {"true": True, "false": False, "null": None}


def _python_value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_python_value(one) for one in node.elts]
    if isinstance(node, ast.Dict):
        keys = [str(_python_value(key)) for key in node.keys if key is not None]
        return dict(zip(keys, map(_python_value, node.values), strict=False))
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        raise Broken from None
    if not isinstance(value, str | int | float | bool | None):
        raise Broken
    return value


_GEMMA_QUOTES = ('<|"|>', "<escape>", '"')
_GEMMA_BARE = re.compile(r"[^,{}\[\]<\"]*")


def read_gemma(text: str, at: int) -> tuple[JsonObject, int]:
    """Read `{city:<|"|>Paris<|"|>,days:3}`: bare keys, strings between quote tokens."""
    if at >= len(text):
        raise Partial
    if text[at] != "{":
        raise Broken
    return _gemma_object(text, at)


def _gemma_object(text: str, at: int) -> tuple[dict[str, Any], int]:
    members: dict[str, Any] = {}
    at += 1
    while True:
        at = skip_space(text, at)
        if text[at : at + 1] == "}":
            return members, at + 1
        key, at = _gemma_key(text, at)
        members[key], at = _gemma_value(text, at)
        at = _gemma_separator(text, at, "}")


def _gemma_key(text: str, at: int) -> tuple[str, int]:
    quote = _gemma_quote(text, at)
    if quote:
        key, at = _gemma_string(text, at, quote)
        at = skip_space(text, at)
        if at >= len(text):
            raise Partial
        if text[at] != ":":
            raise Broken
        return key, at + 1
    end = text.find(":", at)
    if end < 0:
        raise Partial
    if any(mark in text[at:end] for mark in "{}[],"):
        raise Broken
    return text[at:end].strip(), end + 1


def _gemma_separator(text: str, at: int, closes: str) -> int:
    at = skip_space(text, at)
    if at >= len(text):
        raise Partial
    if text[at] == ",":
        return at + 1
    if text[at] != closes:
        raise Broken
    return at


def _gemma_value(text: str, at: int) -> tuple[Any, int]:
    at = skip_space(text, at)
    if at >= len(text):
        raise Partial
    if text[at] == "{":
        return _gemma_object(text, at)
    if text[at] == "[":
        return _gemma_array(text, at)
    quote = _gemma_quote(text, at)
    if quote:
        return _gemma_string(text, at, quote)
    found = _GEMMA_BARE.match(text, at)
    assert found is not None
    if found.end() >= len(text):
        raise Partial
    return plain_value(found.group().strip()), found.end()


def _gemma_array(text: str, at: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    at += 1
    while True:
        at = skip_space(text, at)
        if text[at : at + 1] == "]":
            return items, at + 1
        item, at = _gemma_value(text, at)
        items.append(item)
        at = _gemma_separator(text, at, "]")


def _gemma_quote(text: str, at: int) -> str:
    for quote in _GEMMA_QUOTES:
        if text.startswith(quote, at):
            return quote
        if len(text) - at < len(quote) and quote.startswith(text[at:]):
            raise Partial
    return ""


def _gemma_string(text: str, at: int, quote: str) -> tuple[str, int]:
    end = text.find(quote, at + len(quote))
    if end < 0:
        raise Partial
    return text[at + len(quote) : end], end + len(quote)


def plain_value(text: str, schema: JsonObject | None = None) -> Any:
    """Give what a bare text means: JSON where it is JSON, else the text itself.

    A parameter whose schema says that it is a string stays one.

    >>> plain_value("3"), plain_value("Paris"), plain_value("3", {"type": "string"})
    (3, 'Paris', '3')
    """
    if schema is not None and schema.get("type") == "string":
        return text
    for word in (text, text.lower()):  # Python's True and False are seen too
        try:
            return json.loads(word, strict=False)
        except (ValueError, RecursionError):
            continue
    return None if text == "None" else text
