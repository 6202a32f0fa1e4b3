"""JSON Schema for constrained answers: check what can be enforced, prepare it for llguidance.

llguidance 1.9 refuses what it knows and cannot do, but ignores what it does not know, so that a
misspelt keyword would have no effect. A schema may refer to itself, as a tree does; but if every
answer must contain another one, no answer ever ends (`endless_ref`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias

from paddock.engine.errors import BadRequest
from paddock.engine.system import schema_patterns
from paddock.engine.system.records import Struct
from paddock.engine.system.text import has_json_type, resolve_ref, shorten

if TYPE_CHECKING:  # `validate` does without requests
    from paddock.engine.request import Constraint

SchemaPath: TypeAlias = tuple[str | int, ...]

SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions")
SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE_SCHEMAS = ("items", "additionalItems", "additionalProperties")

SUPPORTED_KEYWORDS = frozenset(
    (
        *SCHEMA_MAPS,
        *SCHEMA_LISTS,
        *SINGLE_SCHEMAS,
        *("$ref", "const", "enum", "type", "minItems", "maxItems", "required", "minProperties"),
        *("maxProperties", "minLength", "maxLength", "pattern", "format", "minimum", "maximum"),
        *("exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)

ANNOTATION_KEYWORDS = frozenset(
    (
        *("$schema", "$id", "id", "$anchor", "$comment", "$vocabulary", "$dynamicAnchor", "title"),
        *("description", "default", "readOnly", "writeOnly", "examples", "example", "deprecated"),
        *("contentMediaType", "contentEncoding", "contentSchema", "markdownDescription", "xml"),
        *("enumDescriptions", "discriminator", "externalDocs", "$recursiveAnchor"),
    )
)
"""Keywords without effect on validity, like every one that begins with `x-`."""

HARMLESS_VALUES: Mapping[str, Any] = {
    "uniqueItems": False,
    "nullable": False,
    "unevaluatedProperties": True,
    "unevaluatedItems": True,
    "minContains": 0,
}
"""Keywords that cannot be enforced, with the value that needs no enforcement."""

_TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
_CHECK_AFTERWARDS = "Remove it, and check the answer afterwards."
_LIST_EACH_CASE = "Write each case out as an option of `anyOf`."
KEYWORD_REMEDIES: Mapping[str, str] = {
    "not": "List what is allowed instead, with `enum`, `pattern` or `anyOf`.",
    "if": _LIST_EACH_CASE,
    "then": _LIST_EACH_CASE,
    "else": _LIST_EACH_CASE,
    "dependentRequired": _LIST_EACH_CASE,
    "dependentSchemas": _LIST_EACH_CASE,
    "dependencies": _LIST_EACH_CASE,
    "uniqueItems": _CHECK_AFTERWARDS,
    "contains": "Put what must be there first, with `prefixItems`.",
    "minContains": _CHECK_AFTERWARDS,
    "maxContains": _CHECK_AFTERWARDS,
    "propertyNames": "Use `patternProperties` with `additionalProperties: false`.",
    "unevaluatedProperties": "Use `additionalProperties`.",
    "unevaluatedItems": "Use `items`.",
    "nullable": 'Write the type as a list with "null", such as ["string", "null"].',
    "$dynamicRef": "Use `$ref`.",
    "$recursiveRef": "Use `$ref`.",
}
"""Keywords that cannot be enforced, and what to write instead."""


def subschemas(schema: Mapping[str, Any]) -> Iterator[tuple[SchemaPath, Any]]:
    for name in SCHEMA_MAPS:
        children = schema.get(name)
        if isinstance(children, dict):
            yield from (((name, key), child) for key, child in children.items())
    for name in (*SCHEMA_LISTS, *SINGLE_SCHEMAS):
        value = schema.get(name)
        if isinstance(value, list):
            yield from (((name, index), child) for index, child in enumerate(value))
        elif name in SINGLE_SCHEMAS and value is not None:
            yield (name,), value


def json_pointer(path: SchemaPath) -> str:
    """Write a path as a JSON pointer (RFC 6901).

    >>> json_pointer(("properties", "a/b", "items", 0))
    '/properties/a~1b/items/0'
    """
    return "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in path)


def keyword_restricts_answer(schema: Mapping[str, Any], keyword: str) -> bool:
    """Return whether a keyword that cannot be enforced changes which answers are valid."""
    if keyword in ("then", "else"):
        return "if" in schema
    if keyword in ("minContains", "maxContains"):
        return "contains" in schema
    return keyword not in HARMLESS_VALUES or schema[keyword] != HARMLESS_VALUES[keyword]


def endless_ref(schema: Any) -> SchemaPath | None:
    """Return the path of a `$ref` because of which no answer ends; None if there is none.

    >>> endless_ref({"properties": {"next": {"$ref": "#"}}, "required": ["next"]})
    ('properties', 'next')
    >>> endless_ref({"properties": {"next": {"$ref": "#"}}}) is None
    True
    """
    nodes = _all_subschemas(schema, ())
    nodes.reverse()  # children and definitions mostly come after their users: one pass suffices
    ending: set[int] = set()
    is_growing = True
    left = nodes
    while is_growing:  # each pass finds nodes that end because their parts do
        still_open = []
        for path, node in left:
            if _ends(node, schema, ending):
                ending.add(id(node))
            else:
                still_open.append((path, node))
        is_growing = len(still_open) < len(left)
        left = still_open
    if not isinstance(schema, dict) or id(schema) in ending:
        return None
    refs = (path for path, node in reversed(nodes) if "$ref" in node and id(node) not in ending)
    return next(refs, None)


def _all_subschemas(schema: Any, path: SchemaPath) -> list[tuple[SchemaPath, dict[str, Any]]]:
    if not isinstance(schema, dict):
        return []
    found = [(path, schema)]
    for below, child in subschemas(schema):
        found += _all_subschemas(child, (*path, *below))
    return found


def _ends(node: Mapping[str, Any], root: Any, ending: set[int]) -> bool:
    """Return whether an answer to a node can end, given the nodes that are known to."""

    def is_known(child: Any) -> bool:
        return not isinstance(child, dict) or id(child) in ending

    if "enum" in node or "const" in node:
        return True
    if "$ref" in node and not is_known(resolve_ref(root, str(node["$ref"]))):
        return False
    if not all(map(is_known, _list_under(node, "allOf"))):
        return False
    for name in ("anyOf", "oneOf"):
        options = _list_under(node, name)
        if options and not any(map(is_known, options)):
            return False
    kinds = _types_of(node)
    if not kinds or any(kind not in ("object", "array") for kind in kinds):
        return True
    if "object" in kinds:
        names = node.get("properties")
        properties = names if isinstance(names, dict) else {}
        if all(is_known(properties.get(name)) for name in _list_under(node, "required")):
            return True
    least, first = _number(node, "minItems"), _list_under(node, "prefixItems")
    rest = [node.get("items")] if least > len(first) else []
    return "array" in kinds and all(map(is_known, [*first[:least], *rest]))


def _types_of(node: Mapping[str, Any]) -> list[str]:
    kinds = node.get("type")
    if isinstance(kinds, list | str):
        return kinds if isinstance(kinds, list) else [kinds]
    return ["object"] if "properties" in node else []


def _list_under(node: Mapping[str, Any], name: str) -> list[Any]:
    children = node.get(name)
    return children if isinstance(children, list) else []


MAX_SCHEMA_DEPTH = 64
MOST_SUBSCHEMAS = 20_000
MOST_LEVELS = 500
"""Nesting, `$ref`s followed. Near 3,000, llguidance overflows the stack and the process dies."""
MOST_SHOWN_PROBLEMS = 20
MOST_ERROR_CHARACTERS = 300
"""Characters of llguidance's own message that are shown."""
COMPACT_JSON = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_flexible": False,
    "coerce_one_of": False,
    "lenient": False,
}
"""No whitespace between values: some models would fill their token limit with newlines."""


class SchemaProblem(Struct, frozen=True):
    path: SchemaPath
    message: str
    remedy: str = ""

    @property
    def pointer(self) -> str:
        """The JSON pointer of the place; "" for the whole schema."""
        return json_pointer(self.path)

    def __str__(self) -> str:
        place = f"at {self.pointer}: " if self.path else ""
        return f"{place}{self.message}. {self.remedy}".rstrip()


def check_schema(schema: Any) -> tuple[SchemaProblem, ...]:
    try:
        json.dumps(schema, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return (SchemaProblem((), "the schema has values that JSON cannot hold", "Remove them."),)
    problems = tuple(_size_problems(schema)) or tuple(_node_problems(schema, ()))
    if problems:
        return problems
    endless = endless_ref(schema)
    if endless is not None:
        what = "no answer can end: each one must contain another"
        remedy = "Leave it out of `required`, or allow `null`."
        return (SchemaProblem((*endless, "$ref"), what, remedy),)
    try:
        matcher = schema_patterns.load_engine().LLMatcher
        _, errors = matcher.validate_grammar_with_warnings(schema_grammar(schema), None)
    except BadRequest as error:  # of a large integer
        return (SchemaProblem((), str(error)),)
    return tuple(_compile_problem(error) for error in errors[:1])


def parse_schema(constraint: Constraint) -> Any:
    """Return the JSON Schema of a `json` or `json_schema` constraint, unchecked.

    Raises:
        BadRequest: it is not JSON.
    """
    if constraint.kind == "json":
        return {"type": "object"}
    try:
        return json.loads(constraint.source)
    except json.JSONDecodeError as error:
        raise BadRequest(f"the JSON Schema is not JSON: {error}") from None
    except (ValueError, RecursionError):
        raise BadRequest("the JSON Schema is nested too deeply") from None


def checked_schema(constraint: Constraint) -> Any:
    """Return the JSON Schema of a `json` or `json_schema` constraint.

    Raises:
        BadRequest: it cannot be enforced; the message lists every place.
    """
    value = parse_schema(constraint)
    problems = check_schema(value)
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:MOST_SHOWN_PROBLEMS])
        raise BadRequest(f"the JSON Schema cannot be enforced:\n{shown}")
    return value


def schema_grammar(schema: Any) -> str:
    """Return a checked schema as llguidance's grammar: compact JSON, closed objects.

    A schema with `properties` becomes an object without additional ones, unless it mentions them:
    every answer is still valid, and a model does not invent endless properties.
    """
    ready = _with_exact_numbers(embeddable_schema(schema))
    return json.dumps({"grammars": [{"json_schema": ready}]})


def json_rule(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps(_with_exact_numbers(schema), ensure_ascii=False)}"


MOST_EXACT = 2**53 - 1
"""llguidance reads numbers as doubles, which hold every integer up to here."""
MOST_INTEGER = 2**63 - 1024
"""The largest double among llguidance's integers."""
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def _is_large(value: Any) -> bool:
    if isinstance(value, int | float):
        return abs(value) > MOST_EXACT
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_is_large, inner))


def _with_exact_numbers(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema whose large bounds of integers are the next doubles within.

    Raises:
        BadRequest: a large number stands where it cannot be kept exact.
    """
    exact: dict[str, Any] = json.loads(json.dumps(schema))
    for _, node in _all_subschemas(exact, ()):
        if _is_large([node.get("enum"), node.get("const")]):
            raise BadRequest(
                "the JSON Schema has a number beyond 2^53 in `enum` or `const`, which cannot be "
                "kept exact. Write it as a text"
            )
        if not any(_is_large(node.get(keyword)) for keyword in _BOUNDS):
            continue
        kinds = _types_of(node)
        if "integer" not in kinds or "number" in kinds:
            raise BadRequest(
                "the JSON Schema has a bound beyond 2^53, which only an `integer` may have"
            )
        least = [math.ceil(node.pop("minimum"))] if "minimum" in node else []
        if "exclusiveMinimum" in node:
            least.append(math.floor(node.pop("exclusiveMinimum")) + 1)
        most = [math.floor(node.pop("maximum"))] if "maximum" in node else []
        if "exclusiveMaximum" in node:
            most.append(math.ceil(node.pop("exclusiveMaximum")) - 1)
        node |= {"minimum": _double_above(max(least))} if least else {}
        node |= {"maximum": -_double_above(-min(most))} if most else {}
    return exact


def _double_above(number: int) -> int:
    """Return the least double, of llguidance's integers, that is not below a number."""
    if number > MOST_INTEGER:
        raise BadRequest("the JSON Schema has bounds beyond which no integer can be written")
    double = float(max(number, -MOST_INTEGER))
    return int(double if double >= number else math.nextafter(double, math.inf))


def embeddable_schema(schema: Any) -> dict[str, Any]:
    """Return a checked schema for a Lark grammar's `%json`, by the rules of `schema_grammar`."""
    opened: set[int] = set()
    _open_intersecting(schema, schema, opened)
    ready = _prepared(schema, opened)
    whole = ready if isinstance(ready, dict) else {"allOf": [ready]}
    return {**whole, "x-guidance": COMPACT_JSON}


def max_growth_bytes(schema: Any) -> int:
    """Return the most bytes that a single token may add to the shortest ending of an answer.

    What a token opens is at most as long as the schema itself, times the repetitions that it asks
    for. Definitions are part of the schema, so references are counted with them. Of the values of
    an `enum`, of which there may be 10,000, it opens one.
    """
    return _growth_bytes(_with_longest_values(schema))


def _with_longest_values(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_longest_values(child) for child in schema]
    if not isinstance(schema, dict):
        return schema
    values = _list_under(schema, "enum")
    least = {"enum": [max(values, key=_size_bytes)]} if values else {}
    rest = {
        name: _with_longest_values(child) for name, child in schema.items() if name not in least
    }
    return rest | least


def _growth_bytes(schema: Any) -> int:
    own = _size_bytes(schema)
    if not isinstance(schema, dict):
        return own
    inner = {below: _growth_bytes(child) for below, child in subschemas(schema)}
    items = sum(n for below, n in inner.items() if below[0] in ("items", "additionalProperties"))
    n_items = max(_number(schema, "minItems"), _number(schema, "minProperties"))
    pattern = sum(int(n) for n in re.findall(r"\d{1,6}", str(schema.get("pattern", ""))))
    if "pattern" in schema or "format" in schema:
        pattern = (pattern + 64) * max(1, len(str(schema.get("pattern", ""))))
    return own + sum(inner.values()) + n_items * items + _number(schema, "minLength") + pattern


def _size_bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _number(schema: Mapping[str, Any], keyword: str) -> int:
    value = schema.get(keyword)
    return value if isinstance(value, int) else 0


# Checks without compiling


def _size_problems(schema: Any) -> Iterator[SchemaProblem]:
    """Yield a problem if llguidance, or a recursive walk here, would overflow the stack."""
    n_nodes, seen = 0, set[int]()
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        node, level = waiting.pop()
        if not isinstance(node, dict) or id(node) in seen:
            continue
        seen.add(id(node))
        n_nodes += 1
        if n_nodes > MOST_SUBSCHEMAS:
            yield SchemaProblem((), f"the schema has more than {MOST_SUBSCHEMAS:,} subschemas")
            return
        if level > MOST_LEVELS:
            what = f"the schema goes through more than {MOST_LEVELS} levels, each `$ref` followed"
            yield SchemaProblem((), what)
            return
        waiting += [(child, level + 1) for _, child in subschemas(node)]
        if isinstance(node.get("$ref"), str):
            waiting.append((resolve_ref(schema, node["$ref"]), level + 1))


def _node_problems(schema: Any, path: SchemaPath) -> Iterator[SchemaProblem]:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        names = {str: "text", list: "a list", type(None): "nothing"}
        kind = names.get(type(schema), f"'{schema}'")
        yield SchemaProblem(path, f"a schema is a mapping, not {kind}")
        return
    if len(path) > 2 * MAX_SCHEMA_DEPTH:
        yield SchemaProblem(path, f"the schema is nested more than {MAX_SCHEMA_DEPTH} deep")
        return
    for key, value in schema.items():
        yield from _keyword_problems(schema, str(key), value, (*path, str(key)))
    # Properties of free names might repeat, and JSON keeps one of each.
    least, named = schema.get("minProperties", 0), schema.get("required", [])
    if isinstance(least, int) and isinstance(named, list) and least - len(set(map(str, named))) > 1:
        what = f"`minProperties: {least}` asks for more properties than `required` names"
        yield SchemaProblem((*path, "minProperties"), what, "Name them under `required`.")
    for below, child in subschemas(schema):
        yield from _node_problems(child, (*path, *below))


def _keyword_problems(
    schema: Mapping[str, Any], keyword: str, value: Any, at: SchemaPath
) -> Iterator[SchemaProblem]:
    if keyword in KEYWORD_REMEDIES:
        if keyword_restricts_answer(schema, keyword):
            what = f"`{keyword}` cannot be enforced while the answer is generated"
            yield SchemaProblem(at, what, KEYWORD_REMEDIES[keyword])
    elif keyword == "type" and isinstance(value, str) and value not in _TYPES:
        known = ", ".join(f"'{name}'" for name in _TYPES)
        yield SchemaProblem(at, f"there is no type '{value}'", f"Known: {known}.")
    elif keyword == "format" and value not in schema_patterns.FORMATS:
        names = ", ".join(f"'{name}'" for name in sorted(schema_patterns.FORMATS))
        what = f"the format '{value}' is not known"
        yield SchemaProblem(at, what, f"Known: {names}. Or use `pattern`.")
    elif keyword == "$ref" and not (isinstance(value, str) and value.startswith("#")):
        yield SchemaProblem(at, f"'{value}' lies outside the schema", "Copy it under `$defs`.")
    elif keyword == "pattern":
        yield from _pattern_problems(value, at)
    elif keyword == "patternProperties" and isinstance(value, dict):
        for pattern in value:
            yield from _pattern_problems(str(pattern), (*at, pattern))
    elif keyword not in SUPPORTED_KEYWORDS | ANNOTATION_KEYWORDS and not keyword.startswith("x-"):
        near = get_close_matches(keyword, SUPPORTED_KEYWORDS, n=1, cutoff=0.7)
        hint = f"Did you mean `{near[0]}`?" if near else "Remove it, or begin its name with `x-`."
        yield SchemaProblem(at, f"`{keyword}` is not a keyword that is known", hint)


def _pattern_problems(pattern: Any, at: SchemaPath) -> Iterator[SchemaProblem]:
    try:
        if isinstance(pattern, str):
            schema_patterns.matches(pattern)
    except schema_patterns.UnknownPattern as refused:
        yield SchemaProblem(at, f"the pattern cannot be used: {refused}", "Write it otherwise.")


def _compile_problem(why: str) -> SchemaProblem:
    if why.startswith("oneOf constraints are not supported"):
        what = "the options of a `oneOf` cannot be distinguished while the answer is generated"
        remedy = "Use `anyOf`, or give each option a required property with a `const` of its own."
        return SchemaProblem((), what, remedy)
    return SchemaProblem((), plain_error(why))


def plain_error(why: str) -> str:
    """Return llguidance's message for clients: short, without its internals."""
    if _INTERNAL_ERROR.search(why):
        return "it is too large or too complex"
    why = why.replace("Expected f64 for", "Expected a number for")
    lines = [line for line in why.strip().splitlines() if line.strip()] or [why]
    line = next((line for line in lines if line.startswith("error: ")), lines[0])
    return shorten(line.removeprefix("error: ").strip().rstrip("."), MOST_ERROR_CHARACTERS)


_INTERNAL_ERROR = re.compile(
    r"panic|backtrace|RUST_|fuel|too (?:big|large|many|complex)|limit|unable to det", re.IGNORECASE
)


# Preparing a schema for llguidance


def _prepared(schema: Any, opened: Collection[int]) -> Any:
    """Drop keywords without effect that llguidance refuses, and close objects.

    Objects whose id is in `opened` stay open.
    """
    if not isinstance(schema, dict):
        return schema
    ready: dict[str, Any] = {}
    for name, value in schema.items():
        if name in KEYWORD_REMEDIES or name in _DROPPED_KEYWORDS or name.startswith("x-"):
            continue
        if name in SCHEMA_MAPS and isinstance(value, dict):
            ready[name] = {key: _prepared(child, opened) for key, child in value.items()}
        elif name in (*SCHEMA_LISTS, *SINGLE_SCHEMAS) and isinstance(value, list):
            ready[name] = [_prepared(child, opened) for child in value]
        else:
            ready[name] = _prepared(value, opened) if name in SINGLE_SCHEMAS else value
    ready = {**_with_patterns(ready), **_moved_bound(ready)}
    closes = id(schema) not in opened
    if closes and "properties" in ready and not {"patternProperties", "enum", "const"} & set(ready):
        ready = {"type": "object", **ready}
        ready.setdefault("additionalProperties", False)
    return ready


def _with_patterns(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema whose negated classes and days are as `schema_patterns` matches them."""
    ready = dict(schema)
    if isinstance(ready.get("pattern"), str):
        ready["pattern"] = schema_patterns.without_nul(ready["pattern"])
    if isinstance(named := ready.get("patternProperties"), dict):
        ready["patternProperties"] = {
            schema_patterns.without_nul(pattern): held for pattern, held in named.items()
        }
    if ready.get("format") in ("date", "date-time"):
        day = {"pattern": schema_patterns.REAL_DAY}
        ready["allOf"] = [*(ready.get("allOf") or ()), day]
    return ready


def _moved_bound(schema: Mapping[str, Any]) -> dict[str, float]:
    """Return an exclusive whole bound moved into its range, where the other is less than 1 away.

    llguidance 1.9 writes the whole number itself there: 0 for above 0 and at most 0.5. The bound
    moves by a unit of a double's fifteenth digit.
    """
    low = schema.get("exclusiveMinimum", schema.get("minimum"))
    high = schema.get("exclusiveMaximum", schema.get("maximum"))
    is_range = has_json_type(low, "number") and has_json_type(high, "number")
    if not (is_range and 0 < high - low < 1):
        return {}
    bound, keyword, sign = (
        (low, "exclusiveMinimum", 1) if low >= 0 else (high, "exclusiveMaximum", -1)
    )
    if keyword not in schema or bound != int(bound) or bound * sign < 0:
        return {}
    return {keyword: bound + sign * 10.0 ** (len(str(abs(int(bound)))) - 16)}


# The other four decide what a `$ref` means.
_DROPPED_KEYWORDS = ANNOTATION_KEYWORDS - {"$schema", "$id", "id", "$anchor"}


def _open_intersecting(schema: Any, root: Any, opened: set[int]) -> None:
    """Collect the ids of objects that several places describe at once, which must stay open.

    That includes all below such a place and all that it refers to: two descriptions of an object
    may both mention one property. All other objects can be closed.
    """
    if not isinstance(schema, dict):
        return
    applied = [name for name in ("allOf", "anyOf", "oneOf", "$ref") if name in schema]
    has_own = not {"properties", "required", "additionalProperties"}.isdisjoint(schema)
    if applied and (len(applied) + has_own > 1 or len(schema.get("allOf") or ()) > 1):
        _open_all(schema, root, opened)
    for _, child in subschemas(schema):
        _open_intersecting(child, root, opened)


def _open_all(schema: Any, root: Any, opened: set[int]) -> None:
    if not isinstance(schema, dict) or id(schema) in opened:
        return
    opened.add(id(schema))
    for _, child in subschemas(schema):
        _open_all(child, root, opened)
    if "$ref" in schema:
        _open_all(resolve_ref(root, str(schema["$ref"])), root, opened)
