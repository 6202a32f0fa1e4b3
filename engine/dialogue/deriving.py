"""Derive the form of tool calls from a rendered probe: what stands around what was put in. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.request import Tool, ToolCall

from .calls import CallForm, Hole, Lit, ParamForm, Part
from .reading import calls_in_json, read_call
from .values import Broken, Partial, read_gemma, read_python

NAME, CALL_ID = "qx_tool", "qxid00001"
ARGUMENTS: dict[str, Any] = {"qx_key": "qxv one", "qx_more": 7}
SECOND_ARGUMENTS: dict[str, Any] = {"qx_key": "qxw two", "qx_more": 8}
_PARAMETERS = {
    "type": "object",
    "properties": {
        "qx_key": {"type": "string", "description": "a text"},
        "qx_more": {"type": "integer", "description": "a number"},
    },
    "required": ["qx_key", "qx_more"],
}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": NAME, "description": "a tool", "parameters": _PARAMETERS},
}
_TOOLS = {NAME: Tool(NAME, "a tool", _PARAMETERS)}

Clean = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class _Seen:
    """One call as it stands in a probe: places of what is known, in order."""

    holes: tuple[tuple[int, int, Hole], ...]
    start: int
    end: int
    """Around everything that is the call itself; for JSON, the whole value."""
    reads: tuple[Hole, ...] = ()
    """What one reads at once there, when that is not the holes one by one."""
    is_list: bool = False
    param: ParamForm | None = None


def derive(one: str, two: str, clean: Clean) -> CallForm | None:
    """Give the form that `one` call and (unless empty) `two` calls show, or None.

    `clean` takes off what stands before every answer, such as tags of reasoning.
    """
    for look in (_json_call, _named_call, _python_call, _gemma_call, _tagged_call):
        seen = look(one, ARGUMENTS, 0)
        if seen is None:
            continue
        form = _form(one, two, seen, look(two, SECOND_ARGUMENTS, seen.end) if two else None, clean)
        if _proves(form, clean(one)) and (form.param is None or form.param.opens.strip()):
            return form
        return None
    return None


def _proves(form: CallForm, text: str) -> bool:
    """Read the probe by its form: only what is found again counts."""
    try:
        calls, _ = read_call(form, text, 0, _TOOLS)
    except (Broken, Partial):
        return False
    return [(call.name, dict(call.arguments)) for call in calls] == [(NAME, ARGUMENTS)]


def _form(one: str, two: str, first: _Seen, second: _Seen | None, clean: Clean) -> CallForm:
    before, after = clean(one[: first.start]), one[first.end :]
    parts = _parts(one, first)
    opens, closes, section_opens, section_closes = before, after, "", ""
    if second is not None and not first.is_list:
        start, end = _place_in_two(two, first, second)
        between = two[end:start]
        n_opens = _shared_end(before, between)
        section_opens, opens = before[: len(before) - n_opens], before[len(before) - n_opens :]
        n_closes = _shared_start(after, between[: len(between) - n_opens])
        closes, section_closes = after[:n_closes], after[n_closes:]
        parts = _with_index(parts, _parts(two, second))
    writes = _merged([Lit(opens), *parts, Lit(closes)])
    shell: Sequence[Part] = first.reads or parts
    reads = _merged([Lit(opens), *shell])
    if first.reads and not opens.strip():
        reads = tuple(first.reads)
    return CallForm(reads, writes, section_opens, section_closes, first.param)


def _place_in_two(two: str, first: _Seen, second: _Seen) -> tuple[int, int]:
    """Give where the second call begins and where the first one ends."""
    looks = (_json_call, _named_call, _python_call, _gemma_call, _tagged_call)
    for look in looks:
        again = look(two, ARGUMENTS, 0)
        if again is not None:
            return second.start, again.end
    return second.start, first.end


def _parts(text: str, seen: _Seen) -> list[Part]:
    """Give the holes with the literal texts around them."""
    parts: list[Part] = []
    at = seen.start
    for start, end, hole in seen.holes:
        parts += [Lit(text[at:start]), hole]
        at = end
    return [*parts, Lit(text[at : seen.end])]


def _with_index(parts: list[Part], other: list[Part]) -> list[Part]:
    """Make a hole of the number that counts the calls: the only thing that differs."""
    if len(parts) != len(other):
        return parts
    made: list[Part] = []
    for part, same in zip(parts, other, strict=True):
        if not isinstance(part, Lit) or not isinstance(same, Lit) or part == same:
            made.append(part)
            continue
        pieces = re.split(r"(\d+)", part.text)
        others = re.split(r"(\d+)", same.text)
        if len(pieces) != len(others):
            return parts
        for piece, its in zip(pieces, others, strict=True):
            made.append("index" if piece != its and piece.isdigit() else Lit(piece))
    return made


def _merged(parts: list[Part]) -> tuple[Part, ...]:
    """Join neighbouring literals and leave empty ones out."""
    made: list[Part] = []
    for part in parts:
        last = made[-1] if made else None
        if isinstance(part, Lit) and isinstance(last, Lit):
            made[-1] = Lit(last.text + part.text)
        elif not isinstance(part, Lit) or part.text:
            made.append(part)
    return tuple(piece for part in made for piece in _named_again(part))


def _named_again(part: Part) -> list[Part]:
    """Some forms name the tool twice; each time it is a hole."""
    if not isinstance(part, Lit) or NAME not in part.text:
        return [part]
    first, *rest = part.text.split(NAME)
    pieces: list[Part] = [Lit(first)] if first else []
    for text in rest:
        pieces += ["name", Lit(text)] if text else ["name"]
    return pieces


def _shared_end(one: str, other: str) -> int:
    n = 0
    while n < min(len(one), len(other)) and one[-1 - n] == other[-1 - n]:
        n += 1
    shared = one[len(one) - n :]
    # What ends a tag of the one and a different tag of the other belongs to neither.
    cut = re.match(r"[^<\[]*?[>\]]", shared)
    return n - cut.end() if cut else n


def _shared_start(one: str, other: str) -> int:
    n = 0
    while n < min(len(one), len(other)) and one[n] == other[n]:
        n += 1
    cut = re.search(r"[<\[][^<>\[\]]*$", one[:n])
    return cut.start() if cut and n < len(one) else n


def _values(text: str, at: int) -> list[tuple[int, int, Any]]:
    """Give every JSON object and array in a text, outer ones first."""
    found = []
    decoder = json.JSONDecoder()
    for mark in re.finditer(r"[{\[]", text[at:]):
        start = at + mark.start()
        try:
            value, end = decoder.raw_decode(text, start)
        except ValueError:
            continue
        found.append((start, end, value))
    return found


def _json_call(text: str, arguments: Mapping[str, Any], at: int) -> _Seen | None:
    for start, end, value in _values(text, at):
        try:
            calls = calls_in_json(value, _TOOLS)
        except Broken:
            continue
        if not any(_is(call, arguments) for call in calls):
            continue
        inner = [one for one in _values(text, start) if one[2] == arguments and one[1] <= end]
        name = text.find(NAME, start, end)
        holes: list[tuple[int, int, Hole]] = [(name, name + len(NAME), "name")]
        call_id = text.find(CALL_ID[:-1], start, end)
        if call_id >= 0:
            holes.append((call_id, call_id + len(CALL_ID), "id"))
        if inner:
            holes.append((inner[0][0], inner[0][1], "args"))
        return _Seen(tuple(sorted(holes)), start, end, ("calls",), isinstance(value, list))
    return None


def _is(call: ToolCall, arguments: Mapping[str, Any]) -> bool:
    return call.name == NAME and dict(call.arguments) == arguments


def _named_call(text: str, arguments: Mapping[str, Any], at: int) -> _Seen | None:
    name = text.find(NAME, at)
    if name < 0:
        return None
    inner = next((one for one in _values(text, at) if one[2] == arguments), None)
    if inner is None:
        return None
    holes: list[tuple[int, int, Hole]] = [(inner[0], inner[1], "args")]
    # Some name the tool twice; the name nearest to the arguments is the one that is read.
    name = text.rfind(NAME, at, inner[0])
    if name >= 0:
        holes.append((name, name + len(NAME), "name"))
    call_id = text.find(CALL_ID[:-1], at, inner[0])
    if call_id >= 0:
        holes.append((call_id, call_id + len(CALL_ID), "id"))
    holes.sort()
    return _Seen(tuple(holes), holes[0][0], inner[1])


def _python_call(text: str, arguments: Mapping[str, Any], at: int) -> _Seen | None:
    start = text.find(f"[{NAME}(", at)
    if start < 0:
        return None
    try:
        calls, end = read_python(text, start)
    except (Broken, Partial):
        return None
    if (NAME, arguments) not in [(name, dict(given)) for name, given in calls]:
        return None
    return _Seen(((start, end, "python"),), start, end, ("python",), is_list=True)


def _gemma_call(text: str, arguments: Mapping[str, Any], at: int) -> _Seen | None:
    start = text.find(NAME + "{", at)
    if start < 0:
        return None
    try:
        given, end = read_gemma(text, start + len(NAME))
    except (Broken, Partial):
        return None
    if dict(given) != arguments:
        return None
    return _Seen(
        ((start, start + len(NAME), "name"), (start + len(NAME), end, "gemma")), start, end
    )


def _tagged_call(text: str, arguments: Mapping[str, Any], at: int) -> _Seen | None:
    """Find a name, then each key with its value, between tags."""
    places = []
    key_at = text.find("qx_key", at)
    at = text.rfind(NAME, at, key_at) if key_at >= 0 else -1
    if at < 0:
        return None
    for word in (NAME, "qx_key", str(arguments["qx_key"]), "qx_more", str(arguments["qx_more"])):
        at = text.find(word, at)
        if at < 0:
            return None
        places.append((at, at + len(word)))
        at += len(word)
    name, key, value, more, number = places
    between = text[value[1] : more[0]]
    n_opens = _shared_end(text[name[1] : key[0]], between)
    opens = between[len(between) - n_opens :]
    closes = between[: len(between) - n_opens]
    texts, others = text[key[1] : value[0]], text[more[1] : number[0]]
    param = ParamForm(opens, texts, closes, others if others != texts else "")
    start = key[0] - n_opens
    end = number[1] + len(_start_of(text[number[1] :], closes))
    holes: list[tuple[int, int, Hole]] = [(*name, "name"), (start, end, "params")]
    return _Seen(tuple(holes), name[0], end, param=param)


def _start_of(text: str, closes: str) -> str:
    """Give as much of `closes` as the text begins with: the last one may lack a separator."""
    n = 0
    while n < min(len(text), len(closes)) and text[n] == closes[n]:
        n += 1
    return text[:n]
