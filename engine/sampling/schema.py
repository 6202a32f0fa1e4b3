"""Check that an answer can be held to a JSON Schema, and make ready what llguidance compiles.

`llguidance` is imported only when a schema is at hand: it takes 50 ms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from . import keywords
from .endless import endless, target
from .keywords import Path

if TYPE_CHECKING:
    from llguidance import LLTokenizer

MAX_DEPTH = 64
MOST_NODES = 20_000
"""Schemas within a schema."""
MOST_LEVELS = 500
"""Within each other, `$ref`s followed. Near 3,000 llguidance's stack and the process end."""
MOST_WORDS = 300
"""Characters of llguidance's own words that are told."""
COMPACT = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_flexible": False,
    "coerce_one_of": False,
    "lenient": False,
}
"""No whitespace between values: a model that loves newlines fills its limit with them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an answer cannot be held to a schema, and where in the schema it says so."""

    path: Path
    message: str
    remedy: str = ""

    @property
    def pointer(self) -> str:
        """The JSON pointer of the place; empty for the schema as a whole."""
        return keywords.pointer(self.path)

    def __str__(self) -> str:
        """Give one sentence, and what to do."""
        place = f"at {self.pointer}: " if self.path else ""
        return f"{place}{self.message}. {self.remedy}".rstrip()


def check(schema: Any) -> tuple[Problem, ...]:
    """Tell everything in a schema that an answer could not be held to.

    Args:
        schema: a JSON Schema as plain values.
    """
    try:
        json.dumps(schema, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return (Problem((), "the schema holds what JSON cannot write", "Remove it."),)
    problems = tuple(_of_size(schema)) or tuple(_of_node(schema, (), schema))
    if problems:
        return problems
    circle = endless(schema)
    if circle is not None:
        what = "an answer to this would never end: each one must hold another"
        return (Problem((*circle, "$ref"), what, "Leave it out of `required`, or allow `null`."),)
    found = refusal_of(compiled(schema))
    return () if found is None else (_traced(schema, found),)


def compiled(schema: Any) -> str:
    """Write a sound schema as llguidance's grammar: compact JSON, and closed objects.

    What names properties is an object, and gets no others unless it speaks of them: all that is
    allowed is still valid, and a model does not ramble on with properties of its own.
    """
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(json.dumps(embedded(schema)))


def embedded(schema: Any) -> dict[str, Any]:
    """Write a sound schema as it may stand in a Lark grammar's `%json`: with the same rules."""
    opened: set[int] = set()
    _open_intersecting(schema, schema, opened)
    ready = _ready(schema, opened)
    whole = ready if isinstance(ready, dict) else {"allOf": [ready]}
    return {**whole, "x-guidance": COMPACT}


def heft(schema: Any) -> int:
    """Tell how many bytes a single token may add to the shortest end of an answer, at most.

    A token can open what a schema asks for, and that has the schema's own length, times what it
    asks for repeatedly. References count with what they lead to, as they stand in the schema too.
    """
    own = len(json.dumps(schema, ensure_ascii=False).encode())
    if not isinstance(schema, dict):
        return own
    inner = {below: heft(child) for below, child in keywords.children(schema)}
    items = sum(n for below, n in inner.items() if below[0] in ("items", "additionalProperties"))
    n_items = max(_number(schema, "minItems"), _number(schema, "minProperties"))
    pattern = sum(int(n) for n in re.findall(r"\d{1,6}", str(schema.get("pattern", ""))))
    if "pattern" in schema or "format" in schema:
        pattern = (pattern + 64) * max(1, len(str(schema.get("pattern", ""))))
    return own + sum(inner.values()) + n_items * items + _number(schema, "minLength") + pattern


def _number(schema: Mapping[str, Any], keyword: str) -> int:
    value = schema.get(keyword)
    return value if isinstance(value, int) else 0


def refusal_of(
    grammar: str, tokeniser: LLTokenizer | None = None, *, minds_warnings: bool = True
) -> str | None:
    """Tell why llguidance refuses a grammar, in its own words; None: it takes it."""
    from llguidance import LLMatcher

    is_refused, told = LLMatcher.validate_grammar_with_warnings(grammar, tokeniser)
    return told[0] if is_refused or (told and minds_warnings) else None


# What can be seen without compiling


def _of_size(schema: Any) -> Iterator[Problem]:
    """Refuse what llguidance, or walks here that go into themselves, would not come back from."""
    n_nodes, seen = 0, set[int]()
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        node, level = waiting.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        n_nodes += 1
        if n_nodes > MOST_NODES:
            yield Problem((), f"the schema has more than {MOST_NODES:,} schemas within it")
            return
        if level > MOST_LEVELS:
            what = f"the schema goes through more than {MOST_LEVELS} levels, each `$ref` followed"
            yield Problem((), what)
            return
        waiting += [(child, level + 1) for _, child in keywords.children(node)]
        if isinstance(node.get("$ref"), str):
            waiting.append((target(schema, node["$ref"]), level + 1))


def _of_node(schema: Any, path: Path, root: Any) -> Iterator[Problem]:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        yield Problem(path, f"a schema is a mapping, not {_kind(schema)}")
        return
    if len(path) > 2 * MAX_DEPTH:
        yield Problem(path, f"the schema is nested more than {MAX_DEPTH} deep")
        return
    for keyword in schema:
        yield from _of_keyword(schema, str(keyword), path)
    yield from _of_counts(schema, path)
    for below, child in keywords.children(schema):
        yield from _of_node(child, (*path, *below), root)


def _of_keyword(schema: Mapping[str, Any], keyword: str, path: Path) -> Iterator[Problem]:
    at, value = (*path, keyword), schema[keyword]
    if keyword in keywords.REMEDIES:
        if keywords.binds(schema, keyword):
            what = f"an answer cannot be held to `{keyword}` while it is written"
            yield Problem(at, what, keywords.REMEDIES[keyword])
    elif keyword == "format" and value not in keywords.FORMATS:
        names = ", ".join(f"'{name}'" for name in sorted(keywords.FORMATS))
        yield Problem(
            at, f"the format '{value}' is not known", f"Known: {names}. Or use `pattern`."
        )
    elif keyword == "$ref" and not (isinstance(value, str) and value.startswith("#")):
        yield Problem(at, f"'{value}' lies outside the schema", "Copy it under `$defs`.")
    elif keyword == "pattern" and isinstance(value, str):
        why = refusal_of(compiled({"type": "string", "pattern": value}))
        if why is not None:
            yield Problem(
                at, f"the pattern cannot be used: {plain_words(why)}", "Write it otherwise."
            )
    elif keyword not in keywords.KEPT | keywords.NOTES and not keyword.startswith("x-"):
        near = get_close_matches(keyword, keywords.KEPT, n=1, cutoff=0.7)
        hint = f"Did you mean `{near[0]}`?" if near else "Remove it, or begin its name with `x-`."
        yield Problem(at, f"`{keyword}` is not a keyword that is known", hint)


def _of_counts(schema: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """Refuse a number of free properties: their names might repeat, and JSON keeps one of each."""
    least, named = schema.get("minProperties", 0), schema.get("required", [])
    if isinstance(least, int) and isinstance(named, list) and least - len(set(map(str, named))) > 1:
        what = f"`minProperties: {least}` asks for more properties than `required` names"
        yield Problem((*path, "minProperties"), what, "Name them under `required`.")


def _kind(value: Any) -> str:
    names = {str: "text", list: "a list", type(None): "nothing"}
    return names.get(type(value), f"'{value}'")


# What only compiling shows


def _traced(schema: Any, why: str) -> Problem:
    """Find the smallest part of a schema that is refused for itself."""
    path: Path = ()
    part = schema
    while isinstance(part, dict):
        inner = [(below, child, _alone(child, schema)) for below, child in keywords.children(part)]
        refused = [one for one in inner if one[2] is not None]
        same = [one for one in refused if one[2] == why] or [
            one for one in refused if one[0][0] not in ("$defs", "definitions")
        ]
        if not same:
            break
        below, part, told = same[0]
        path, why = (*path, *below), told or why
    wrong_type = _WRONG_TYPE.match(why)
    if wrong_type:
        what = "a number" if wrong_type[1] == "f64" else f"a {wrong_type[1]}"
        message = f"`{wrong_type[2]}` must be {what}, not {wrong_type[3]}"
        return Problem((*path, wrong_type[2]), message.replace("a array", "a list"))
    return Problem(path, *_plain(why))


_WRONG_TYPE = re.compile(r"Expected ([\w ]+) for '(\w+)'(?: item)?, got (.+)", re.DOTALL)


def _alone(part: Any, root: Any) -> str | None:
    """Tell why a part is refused without its surroundings; None: it is not, or cannot be told."""
    if not isinstance(part, dict) or not isinstance(root, dict):
        return None
    if any(not ref.startswith(("#/$defs/", "#/definitions/")) for ref in _refs(part)):
        return None
    shared = {name: root[name] for name in ("$defs", "definitions") if name in root}
    return refusal_of(compiled({**part, **shared}))


def _refs(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for _, child in keywords.children(part):
            yield from _refs(child)


def _plain(why: str) -> tuple[str, str]:
    """Give llguidance's words as a plain sentence, and a way out where there is one."""
    if why.startswith("oneOf constraints"):
        return (
            "the options of `oneOf` cannot be told apart while an answer is written",
            "Use `anyOf`, or give each option a required property with a `const` of its own.",
        )
    if "min/maxProperties only supported" in why:
        return (
            "`minProperties` and `maxProperties` need every one of `properties` to be required",
            "Name them under `required`, or remove the bounds.",
        )
    if why.startswith("Unsatisfiable schema: "):
        return f"no value can match: {why.removeprefix('Unsatisfiable schema: ')}", ""
    if why.startswith("Invalid type: "):
        known = "'string', 'number', 'integer', 'boolean', 'null', 'array', 'object'"
        return f"there is no type '{why.removeprefix('Invalid type: ')}'", f"Known: {known}."
    if why.startswith("Pointer '"):
        return f"a `$ref` leads nowhere: {why[:1].lower()}{why[1:]}", "Add it under `$defs`."
    return plain_words(why), ""


def plain_words(why: str) -> str:
    """Return llguidance's words as a client may read them: short, and nothing of its inside."""
    if _INSIDE.search(why):
        return "it is too large or too complex"
    line = _last_line(why).rstrip(".")
    return line if len(line) <= MOST_WORDS else f"{line[: MOST_WORDS - 1]}…"


_INSIDE = re.compile(
    r"panic|backtrace|RUST_|fuel|too (?:big|large|many|complex)|limit|unable to det", re.IGNORECASE
)


def _last_line(why: str) -> str:
    lines = [line for line in why.strip().splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("error: ")), lines[0] if lines else why)
    return told.removeprefix("error: ").strip()


# What llguidance gets to see


def _ready(schema: Any, opened: Collection[int]) -> Any:
    """Leave out what binds nothing and llguidance would stumble over, and close objects.

    `opened` are the objects, by identity, that stay open.
    """
    if not isinstance(schema, dict):
        return schema
    ready = {name: value for name, value in schema.items() if not _is_left_out(name)}
    for name in keywords.OF_NAMES:
        if isinstance(ready.get(name), dict):
            held = ready[name].items()
            ready[name] = {key: _ready(child, opened) for key, child in held}
    for name in (*keywords.OF_LISTS, *keywords.OF_ONE):
        if isinstance(ready.get(name), list):
            ready[name] = [_ready(child, opened) for child in ready[name]]
        elif name in keywords.OF_ONE and name in ready:
            ready[name] = _ready(ready[name], opened)
    closes = id(schema) not in opened
    if closes and "properties" in ready and not {"patternProperties", "enum", "const"} & set(ready):
        ready = {"type": "object", **ready}
        ready.setdefault("additionalProperties", False)
    return ready


def _is_left_out(keyword: str) -> bool:
    return keyword in keywords.REMEDIES or keyword.startswith("x-") or keyword in _NOISE


_NOISE = keywords.NOTES - {"$schema", "$id", "id", "$anchor"}  # those decide what a `$ref` means


def _open_intersecting(schema: Any, root: Any, opened: set[int]) -> None:
    """Collect the objects that are described in several places at once: none may be closed.

    All below such a place is among them, and what it refers to: two descriptions of an object may
    both speak of one property. Everything else can be closed.
    """
    if not isinstance(schema, dict):
        return
    if _intersects(schema):
        _open_all(schema, root, opened)
    for _, child in keywords.children(schema):
        _open_intersecting(child, root, opened)


def _open_all(schema: Any, root: Any, opened: set[int]) -> None:
    if not isinstance(schema, dict) or id(schema) in opened:
        return
    opened.add(id(schema))
    for _, child in keywords.children(schema):
        _open_all(child, root, opened)
    if "$ref" in schema:
        _open_all(target(root, str(schema["$ref"])), root, opened)


def _intersects(schema: Mapping[str, Any]) -> bool:
    """Tell whether one object is described here and in what is applied here, or twice there."""
    applied = [name for name in ("allOf", "anyOf", "oneOf", "$ref") if name in schema]
    own = [name for name in ("properties", "required", "additionalProperties") if name in schema]
    n_described = len(applied) + bool(own)
    return bool(applied) and (n_described > 1 or len(schema.get("allOf") or ()) > 1)
