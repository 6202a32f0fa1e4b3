"""Read tool calls out of an answer that may still grow. Pure.

White space between literals is not counted. What closes a call is not waited for: a call is certain
as soon as its arguments are whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from paddock.engine.request import Tool, ToolCall

from .calls import CallForm, Hole, Lit, ParamForm
from .values import (
    Broken,
    Partial,
    plain_value,
    read_gemma,
    read_json,
    read_python,
    skip_space,
)


def read_call(
    form: CallForm, text: str, at: int, tools: Mapping[str, Tool]
) -> tuple[list[ToolCall], int]:
    """Read what one announcement brings; gives calls (ids may be empty), and where they end.

    Raises:
        Partial: the text ends too early.
        Broken: this is no call of this form.
    """
    if form.section_opens.strip():
        try:
            at = _literal(text, at, form.section_opens)
        except Broken:
            if form.continues_bare and not text.startswith(("{", "["), at):
                raise
    if form.is_bare:
        _check_bare(form, text, at, tools)
    found: dict[str, Any] = {}
    for part in form.reads:
        if isinstance(part, Lit):
            at = _literal(text, at, part.text)
        else:
            found[part], at = _read_hole(form, part, text, at, tools, found)
    return _calls(found, tools, needs_known=form.is_bare), at


_BARE_KEYS = tuple(
    f'"{key}"'
    for key in (
        *("name", "type", "function", "parameters", "arguments", "id"),
        *("tool_name", "tool_calls", "tool_call"),
    )
)


def _check_bare(form: CallForm, text: str, at: int, tools: Mapping[str, Tool]) -> None:
    """See early that something is no call, so that JSON or a list is not held back whole."""
    at = skip_space(text, at)
    opens, words = ("[", tuple(f"{name}(" for name in tools)) if form.reads[0] == "python" else (
        "{", _BARE_KEYS)  # fmt: skip
    if at >= len(text):
        raise Partial
    if text[at] != opens:
        raise Broken
    rest = text[skip_space(text, at + 1) :]
    if not rest.startswith(words) and not any(word.startswith(rest) for word in words):
        raise Broken


def _literal(text: str, at: int, literal: str) -> int:
    """Pass over a literal text; white space may differ."""
    for word in literal.split():
        at = skip_space(text, at)
        if not text.startswith(word, at):
            raise Partial if word.startswith(text[at:]) else Broken
        at += len(word)
    return at


_NAME = re.compile(r"[\w.\-/:]+")


def _read_hole(
    form: CallForm,
    hole: Hole,
    text: str,
    at: int,
    tools: Mapping[str, Tool],
    found: Mapping[str, Any],
) -> tuple[Any, int]:
    at = skip_space(text, at)
    if hole in ("name", "id", "index"):
        pattern = _NAME if hole != "index" else _DIGITS
        match = pattern.match(text, at)
        if match is None:
            raise Partial if at >= len(text) else Broken
        if match.end() >= len(text):
            raise Partial
        return _cut_index(match.group(), hole, form), _end_of_name(match, hole, form)
    if hole == "python":
        return read_python(text, at)
    if hole == "gemma":
        return read_gemma(text, at)
    if hole == "params":
        return _read_params(form, text, at, tools.get(str(found.get("name"))))
    return read_json(text, at)


_DIGITS = re.compile(r"\d+")
_INDEXED = re.compile(r"(.+?):\d+$")


def _is_indexed(form: CallForm) -> bool:
    return "index" in form.reads


def _cut_index(word: str, hole: Hole, form: CallForm) -> str:
    """Take `:0` off a name where the form counts its calls (Kimi)."""
    found = _INDEXED.match(word) if hole == "name" and _is_indexed(form) else None
    return found.group(1) if found else word


def _end_of_name(match: re.Match[str], hole: Hole, form: CallForm) -> int:
    return match.start() + len(_cut_index(match.group(), hole, form))


def _read_params(
    form: CallForm, text: str, at: int, tool: Tool | None
) -> tuple[dict[str, Any], int]:
    """Read named values until something else follows."""
    assert form.param is not None
    arguments: dict[str, Any] = {}
    closes = form.leftovers[:1]
    schemas = tool.parameters.get("properties", {}) if tool else {}
    while True:
        at = skip_space(text, at)
        rest = text[at:]
        opens = form.param.opens.strip()
        if rest.startswith(opens):
            key, value, at = _read_param(form.param, text, at + len(opens))
            arguments[key] = plain_value(value, schemas.get(key))
        elif opens.startswith(rest):
            raise Partial
        elif not closes or rest.startswith(closes[0]):
            return arguments, at
        elif closes[0].startswith(rest):
            raise Partial
        else:
            raise Broken


def _read_param(form: ParamForm, text: str, at: int) -> tuple[str, str, int]:
    named = _spaced(form.read_names).search(text, at)
    closed = _spaced(form.closes).search(text, named.end()) if named else None
    if named is None or closed is None:
        raise Partial
    value = text[named.end() : closed.start()]
    if form.names.endswith("\n"):
        value = value.removeprefix("\n").removesuffix("\n")
    return text[at : named.start()].strip().split('"')[0], value, closed.end()


@lru_cache(maxsize=64)
def _spaced(literal: str) -> re.Pattern[str]:
    """Look for a literal text, whatever white space stands between its words."""
    return re.compile(r"\s*".join(map(re.escape, literal.split())))


def _calls(
    found: Mapping[str, Any], tools: Mapping[str, Tool], *, needs_known: bool
) -> list[ToolCall]:
    if "calls" in found:
        calls = calls_in_json(found["calls"], tools)
    elif "python" in found:
        calls = [ToolCall(name, arguments) for name, arguments in found["python"]]
    else:
        arguments: Any = next(
            (found[key] for key in ("args", "params", "gemma") if key in found), {}
        )
        call_id = str(found.get("id", ""))
        calls = [ToolCall(str(found.get("name") or _name_in(call_id)), _object(arguments), call_id)]
    if not calls or any(not call.name for call in calls):
        raise Broken
    if needs_known and any(call.name not in tools for call in calls):
        raise Broken
    return calls


def _name_in(call_id: str) -> str:
    """Give the name that an id spells (Kimi: `functions.get_weather:0`)."""
    return re.sub(r":\d+$", "", call_id).removeprefix("functions.")


_NAMES = ("name", "tool_name", "function_name", "function", "recipient_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "kwargs")
_IDS = ("id", "tool_call_id", "call_id")


def calls_in_json(value: Any, tools: Mapping[str, Tool] | None = None) -> list[ToolCall]:
    """Give the calls that a JSON value holds, however its keys are called.

    Raises:
        Broken: it holds something else.
    """
    if isinstance(value, list):
        return [call for one in value for call in calls_in_json(one, tools)]
    if not isinstance(value, dict):
        raise Broken
    if isinstance(value.get("tool_calls"), list):
        return calls_in_json(value["tool_calls"], tools)
    if isinstance(value.get("tool_call"), dict):
        return calls_in_json(value["tool_call"], tools)
    inner = value.get("function")
    if isinstance(inner, dict):
        return calls_in_json({**{key: value[key] for key in _IDS if key in value}, **inner}, tools)
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    if name is None:
        return [_keyed_call(value, tools or {})]
    arguments: Any = next((value[key] for key in _ARGUMENTS if key in value), {})
    call_id = next((str(value[key]) for key in _IDS if value.get(key)), "")
    return [ToolCall(name, _object(arguments), call_id)]


def _keyed_call(value: Mapping[str, Any], tools: Mapping[str, Tool]) -> ToolCall:
    """Read `{"get_weather": {…}}`, where the name is the key."""
    if len(value) != 1:
        raise Broken
    ((name, arguments),) = value.items()
    if name not in tools:
        raise Broken
    return ToolCall(name, _object(arguments))


def _object(value: Any) -> dict[str, Any]:
    """Give arguments as an object; some models write them as JSON in a string."""
    if isinstance(value, str):
        try:
            value = json.loads(value, strict=False) if value.strip() else {}
        except (ValueError, RecursionError):
            raise Broken from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Broken
    return value


def first_whole(
    forms: Sequence[CallForm], text: str, at: int, tools: Mapping[str, Tool]
) -> tuple[list[ToolCall], int, CallForm]:
    """Read by the first form that fits.

    Raises:
        Partial: the first form that may still fit needs more text.
        Broken: none fits.
    """
    for form in forms:
        try:
            calls, end = read_call(form, text, at, tools)
        except Broken:
            continue
        return calls, end, form
    raise Broken
