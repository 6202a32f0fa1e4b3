"""JSON Schemas with integers beyond 2^53, as Lark grammars: llguidance reads numbers as doubles.

Only what holds such an integer is written out here; all else stays `%json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paddock.engine.errors import BadRequest
from paddock.engine.system.text import has_json_type, resolve_ref

MOST_EXACT = 2**53 - 1
"""Doubles hold every integer up to here, and none of its neighbours is one."""
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_NAMES = ("$defs", "definitions")
_WITHOUT_EFFECT = {*_NAMES, "x-guidance", "$schema", "$id", "id", "$anchor"}
_MOST_DIGITS = 400


def holds_large(node: Mapping[str, Any]) -> bool:
    """Return whether a bound, or a value of `enum` or `const`, has such a number."""
    return any(_is_large(node.get(keyword)) for keyword in (*_BOUNDS, "enum", "const"))


def _is_large(value: Any) -> bool:
    if isinstance(value, int | float):
        return abs(value) > MOST_EXACT
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_is_large, inner))


class SchemaGrammar:
    """The rules of one prepared schema, whose `x-guidance` says how JSON is written.

    `large`: ids of the subschemas that hold a large number, or refer to one.
    """

    def __init__(self, root: Mapping[str, Any], large: frozenset[int]) -> None:
        self._root, self._large = root, large
        self._comma = json.dumps(root["x-guidance"]["item_separator"])
        self._colon = root["x-guidance"]["key_separator"]
        self._of_refs: dict[str, str] = {}
        self._rules: dict[str, str] = {}

    def text(self) -> str:
        """Return the grammar.

        Raises:
            BadRequest: a large number stands where it cannot be kept exact.
        """
        start = self._rule_of(self._root, is_large=True)
        return "\n".join(
            f"{name}: {body}" for name, body in {"start": start, **self._rules}.items()
        )

    def _add(self, body: str, kind: str = "v") -> str:
        name = f"{kind}{len(self._rules)}"
        self._rules[name] = body
        return name

    def _rule_of(self, node: Any, *, is_large: bool = False) -> str:
        if not is_large and id(node) not in self._large:
            shared = {name: self._root[name] for name in _NAMES if name in self._root}
            whole = node if isinstance(node, dict) else {"allOf": [node]}
            plain = {**shared, **whole, "x-guidance": self._root["x-guidance"]}
            return self._add(f"%json {json.dumps(plain, ensure_ascii=False)}")
        own = {name: value for name, value in node.items() if name not in _WITHOUT_EFFECT}
        keys, kinds = own.keys(), own.get("type")
        if keys == {"$ref"}:
            ref = str(own["$ref"])
            if ref not in self._of_refs:  # named first: it may hold itself
                self._of_refs[ref] = name = self._add("")
                self._rules[name] = self._rule_of(resolve_ref(self._root, ref))
            return self._of_refs[ref]
        if keys == {"anyOf"} or (keys == {"allOf"} and len(own["allOf"]) == 1):
            return self._add(" | ".join(map(self._rule_of, *own.values())))
        if isinstance(kinds, list):
            rules = []
            for kind in kinds:  # bounds are the numbers' alone
                of_others = () if kind in ("integer", "number") else _BOUNDS
                node = {**{n: own[n] for n in own if n not in of_others}, "type": kind}
                rules.append(self._rule_of(node, is_large=holds_large(node)))
            return self._add(" | ".join(rules))
        if keys <= {"enum", "const", "type"}:
            separators = json.loads(self._comma), self._colon
            values = [
                value
                for value in own.get("enum", [own.get("const")])
                if has_json_type(value, kinds)
            ]
            texts = [
                json.dumps(value, ensure_ascii=False, separators=separators) for value in values
            ]
            if texts:
                return self._add(" | ".join(map(json.dumps, texts)))
        elif keys <= {*_BOUNDS, "type"} and kinds == "integer":
            return self._integer(own)
        elif keys <= {"type", "properties", "required", "additionalProperties"} and not own.get(
            "additionalProperties", False
        ):
            return self._object(own)
        elif keys <= {"type", "items", "minItems", "maxItems"} and kinds == "array":
            least, most = own.get("minItems", 0), own.get("maxItems", "")
            item = self._rule_of(own["items"])
            others = f"({self._comma} {item}){{{max(0, least - 1)},{most and most - 1}}}"
            some = "" if most == 0 else f'"[" {item} {others} "]"'
            return self._add(" | ".join(filter(None, [some, "" if least else '"[]"'])))
        raise BadRequest(
            "the JSON Schema has a number beyond 2^53, which is kept exact only as a value of "
            "`enum` or `const` or as a bound of an `integer`, in plain objects, arrays and `anyOf`"
        )

    def _object(self, own: Mapping[str, Any]) -> str:
        first, later = '""', '""'  # what follows without, and with a property before it
        for key, node in reversed(own.get("properties", {}).items()):
            opens = json.dumps(json.dumps(key, ensure_ascii=False) + self._colon)
            member = f"{opens} {self._rule_of(node)} {later}"
            if key in own.get("required", ()):
                first, later = self._add(member), self._add(f"{self._comma} {member}")
            else:
                first = self._add(f"{member} | {first}")
                later = self._add(f"{self._comma} {member} | {later}")
        return self._add(f'"{{" {first} "}}"')

    def _integer(self, own: Mapping[str, Any]) -> str:
        lows = [-_floor(-own["minimum"])] if "minimum" in own else []
        lows += [_floor(own["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in own else []
        highs = [_floor(own["maximum"])] if "maximum" in own else []
        highs += [-_floor(-own["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in own else []
        least, most = max(lows, default=None), min(highs, default=None)
        if any(end is not None and abs(end) >= 10**_MOST_DIGITS for end in (least, most)):
            raise BadRequest(f"the JSON Schema has a bound of more than {_MOST_DIGITS} digits")
        if least is not None and most is not None and least > most:
            raise BadRequest("the JSON Schema has bounds between which there is no integer")
        parts = []
        if most is None or most >= 0:
            parts.append(self._add(_naturals(max(0, least or 0), most), "N"))
        if least is None or least < 0:
            low = max(1, 1 if most is None else -most)
            parts.append('"-" ' + self._add(_naturals(low, None if least is None else -least), "N"))
        return self._add(" | ".join(parts))


def _floor(number: float) -> int:
    return int(number // 1)


def _naturals(least: int, most: int | None) -> str:
    """Return the terminal of the natural numbers of a range.

    >>> _naturals(7, 42)
    '/7|[1-9][0-9]{1,}|[8-9]/ & /42|0|[1-9][0-9]{0,0}|[1-3][0-9]{1}|4[0-1]/'
    """
    low, high = str(least), str(most)

    def rest(digits: str, n: int) -> str:
        return f"[0-9]{{{len(digits) - n - 1}}}" if n + 1 < len(digits) else ""

    above = [low, f"[1-9][0-9]{{{len(low)},}}"]
    above += [
        f"{low[:n]}[{int(digit) + 1}-9]{rest(low, n)}" for n, digit in enumerate(low) if digit < "9"
    ]
    if most is None:
        return f"/{'|'.join(above)}/"
    below = [high, *(["0", f"[1-9][0-9]{{0,{len(high) - 2}}}"] if len(high) > 1 else [])]
    for n, digit in enumerate(high):
        first = int(n == 0 and len(high) > 1)
        if int(digit) > first:
            below.append(f"{high[:n]}[{first}-{int(digit) - 1}]{rest(high, n)}")
    return f"/{'|'.join(above)}/ & /{'|'.join(below)}/"
