"""Which rows a search looks at: what an author writes under `where`, as a condition. Pure.

A mapping takes values from anywhere: `{source: "notes/*.md", page: {from: 3}}`. An expression,
`page >= 3 and source != 'a.md'`, is written out by the author, since a value put into its text
could change what it says. Of both, only known columns and quoted values reach the library: what
comes out is made here, never copied. Knows no LanceDB, but the SQL that it reads.
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Kind = Literal["text", "number", "list"]

COLUMNS: Mapping[str, Kind] = {
    "source": "text",
    "item": "text",
    "step": "text",
    "text": "text",
    "index": "number",
    "page": "number",
    "page_end": "number",
    "headings": "list",
}
OPERATORS = ("is", "not", "from", "to")
_MOST_CHARACTERS = 2_000
_MOST_VALUES = 1_000

Where = Mapping[str, Any] | str | None


class BadFilter(ValueError):
    """What stands under `where` is no filter: a plain sentence, without a place."""


def condition(where: Where) -> str:
    """Give the condition that rows must meet; empty for every row.

    >>> condition({"source": "notes/*.md", "page": {"from": 3, "to": 9}})
    "(source LIKE 'notes/%.md') AND ((page >= 3) AND (page <= 9))"
    >>> condition("page == 1 or 'Scope' in headings")
    "(page = 1) OR (array_has(headings, 'Scope'))"

    Raises:
        BadFilter: it names no column, or compares what cannot be compared.
    """
    if where is None:
        return ""
    if isinstance(where, str):
        return _expression(where)
    parts = [_column(name, wanted) for name, wanted in where.items()]
    return _all(parts)


# --- mappings


def _column(name: str, wanted: Any) -> str:
    kind = _kind(name)
    if isinstance(wanted, Mapping):
        if not wanted:
            raise BadFilter(f"'{name}' is followed by nothing")
        return _all([_operator(name, kind, one, value) for one, value in wanted.items()])
    return _like(name, kind, wanted)


def _operator(name: str, kind: Kind, operator: str, value: Any) -> str:
    if operator == "is":
        return _any([_equal(name, kind, one) for one in _several(value)])
    if operator == "not":
        return _not(_like(name, kind, value))
    if operator in ("from", "to"):
        return _compared(name, kind, ">=" if operator == "from" else "<=", value)
    raise BadFilter(
        f"'{operator}' says nothing about '{name}': use "
        f"{', '.join(f'`{one}`' for one in OPERATORS)}"
    )


def _like(name: str, kind: Kind, value: Any) -> str:
    """Compare with a value, any of several ones, or a text with `*` and `?`."""
    return _any([_alike(name, kind, one) for one in _several(value)])


def _alike(name: str, kind: Kind, value: Any) -> str:
    if kind == "number" or not isinstance(value, str) or not set("*?") & set(value):
        return _equal(name, kind, value)
    pattern = _literal(_pattern(value))
    if kind == "text":
        return f"{name} LIKE {pattern}"
    # Headings are short and many pages have few: joined by what no heading has, then looked at.
    whole = _literal(f"%\n{_pattern(value)}\n%")
    return f"concat('\n', array_to_string({name}, '\n\n'), '\n') LIKE {whole}"


def _several(value: Any) -> Sequence[Any]:
    several = value if isinstance(value, list | tuple) else [value]
    if len(several) > _MOST_VALUES:
        raise BadFilter(f"it names {len(several):,} values; {_MOST_VALUES:,} are the most")
    return several


# --- expressions

_SIGNS: Mapping[type[ast.cmpop], str] = {
    ast.Eq: "=",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
_WORDS = {"none": None, "null": None}


def _expression(text: str) -> str:
    if len(text) > _MOST_CHARACTERS:
        raise BadFilter(f"it is longer than {_MOST_CHARACTERS:,} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _said(tree.body)
    except BadFilter:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadFilter(
            f"'{text}' is no condition: compare a column by ==, !=, <, <=, >, >= or `in`"
        ) from error


def _said(node: ast.expr) -> str:
    if isinstance(node, ast.BoolOp):
        join = _all if isinstance(node.op, ast.And) else _any
        return join([_said(one) for one in node.values])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _not(_said(node.operand))
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        pairs = zip(sides, node.ops, sides[1:], strict=False)
        return _all([_comparison(left, op, right) for left, op, right in pairs])
    raise BadFilter(
        f"'{ast.unparse(node)}' is no condition: compare a column, "
        f"such as `page >= 3 and source == 'a.md'`"
    )


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> str:
    if isinstance(op, ast.In | ast.NotIn):
        found = _within(left, right)
        return _not(found) if isinstance(op, ast.NotIn) else found
    sign = _SIGNS.get(type(op))
    if sign is None:
        raise BadFilter("`is` compares nothing here: use `==`")
    if _is_column(right) and not _is_column(left):
        left, right, sign = right, left, _MIRRORED[sign]
    name, value = _name(left), _constant(right)
    if sign in ("=", "!="):
        equal = _equal(name, _kind(name), value)
        return _not(equal) if sign == "!=" else equal
    return _compared(name, _kind(name), sign, value)


def _within(left: ast.expr, right: ast.expr) -> str:
    """Read `source in ['a.md', 'b.md']`, `'word' in text` and `'Scope' in headings`."""
    if _is_column(left):
        name = _name(left)
        if not isinstance(right, ast.List | ast.Tuple):
            raise BadFilter(f"'{ast.unparse(right)}' is no list: write `{name} in ['a', 'b']`")
        values = _several([_constant(one) for one in right.elts])
        return _any([_equal(name, _kind(name), value) for value in values])
    name, value = _name(right), _constant(left)
    kind = _kind(name)
    if kind == "list":
        return _equal(name, kind, value)
    if kind != "text" or not isinstance(value, str):
        raise BadFilter(f"'{name}' holds {_words(kind)}: nothing can be in it")
    return f"strpos({name}, {_literal(value)}) > 0"


def _is_column(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id.lower() not in _WORDS


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        _kind(node.id)
        return node.id
    raise BadFilter(f"'{ast.unparse(node)}' is no column. {_known()}")


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id.lower() in _WORDS:
        return _WORDS[node.id.lower()]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        what = f"'{ast.unparse(node)}' is no value: write texts in quotes"
        raise BadFilter(what) from error


# --- what both are made of


def _kind(name: str) -> Kind:
    if name not in COLUMNS:
        near = difflib.get_close_matches(name, COLUMNS, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise BadFilter(f"rows have no '{name}'{hint}. {_known()}")
    return COLUMNS[name]


def _known() -> str:
    return f"They have {', '.join(f'`{one}`' for one in COLUMNS)}"


def _equal(name: str, kind: Kind, value: Any) -> str:
    if kind == "list":
        return f"array_has({name}, {_literal(_of(name, 'text', value))})"
    if value is None:
        return f"{_quoted(name)} IS NULL"
    return f"{_quoted(name)} = {_literal(_of(name, kind, value))}"


def _compared(name: str, kind: Kind, sign: str, value: Any) -> str:
    if kind == "list" or value is None:
        raise BadFilter(f"'{name}' cannot be compared by `{sign}` with {_shown(value)}")
    return f"{_quoted(name)} {sign} {_literal(_of(name, kind, value))}"


def _of(name: str, kind: Kind, value: Any) -> Any:
    """Give the value if it is of the column's kind."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_good = is_number if kind == "number" else isinstance(value, str)
    if not is_good or (isinstance(value, float) and not math.isfinite(value)):
        raise BadFilter(f"'{name}' holds {_words(kind)}; {_shown(value)} is none")
    return value


def _literal(value: str | float) -> str:
    """Write a value as SQL does: a quote within a text doubled, and nothing else special."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''").replace("\0", "") + "'"
    return repr(value)


def _quoted(name: str) -> str:
    return f"`{name}`" if name == "index" else name


def _pattern(glob: str) -> str:
    """Give a text with `*` and `?` as LIKE takes it."""
    escaped = glob.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _not(part: str) -> str:
    """Turn a condition round; what has no page, say, is not on page 3."""
    return f"NOT coalesce({part}, false)"


def _all(parts: Sequence[str]) -> str:
    return _joined(parts, " AND ")


def _any(parts: Sequence[str]) -> str:
    return _joined(parts, " OR ") if parts else "false"


def _joined(parts: Sequence[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else word.join(f"({part})" for part in parts)


def _words(kind: Kind) -> str:
    return {"text": "a text", "number": "a number", "list": "texts"}[kind]


def _shown(value: Any) -> str:
    text = str(value)
    return f"'{text}'" if len(text) <= 60 else f"'{text[:59]}…'"
