"""Filter of a search: the value of `where`, compiled to an SQL condition.

A mapping takes values from anywhere: `{source: "notes/*.md", page: {from: 3}}`. An expression,
`page >= 3 and source != 'a.md'`, must be a literal, since an inserted value could change its
meaning. Only known columns and quoted values reach the library: the condition is built here, never
copied.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from paddock.engine.system.text import shorten
from paddock.pipelines.errors import nearest_name

ColumnKind = Literal["text", "number", "list"]

FILTER_COLUMNS: Mapping[str, ColumnKind] = {
    "source": "text",
    "item": "text",
    "step": "text",
    "text": "text",
    "index": "number",
    "page": "number",
    "page_end": "number",
    "headings": "list",
}
FILTER_OPERATORS = ("is", "not", "from", "to")
_MOST_CHARACTERS = 2_000
_MOST_VALUES = 1_000

Where = Mapping[str, Any] | str | None


class InvalidFilter(ValueError):
    """The value of `where` is not a filter; the message is a plain sentence."""


def sql_condition(where: Where) -> str:
    """Return the condition that rows must meet; empty for every row.

    >>> sql_condition({"source": "notes/*.md", "page": {"from": 3, "to": 9}})
    "(source LIKE 'notes/%.md') AND ((page >= 3) AND (page <= 9))"
    >>> sql_condition("page == 1 or 'Scope' in headings")
    "(page = 1) OR (array_has(headings, 'Scope'))"

    Raises:
        InvalidFilter: it names an unknown column, or compares different types.
    """
    if where is None:
        return ""
    if isinstance(where, str):
        if len(where) > _MOST_CHARACTERS:
            raise InvalidFilter(f"it is longer than {_MOST_CHARACTERS:,} characters")
        try:
            tree = ast.parse(where.strip(), mode="eval")
            return _condition_of(tree.body)
        except InvalidFilter:
            raise
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InvalidFilter(
                f"'{where}' is not a condition: compare a column by ==, !=, <, <=, >, >= or `in`"
            ) from error
    parts = [_column_condition(name, condition) for name, condition in where.items()]
    return _all_of(parts)


# --- mappings


def _column_condition(name: str, condition: Any) -> str:
    kind = _kind(name)
    if isinstance(condition, Mapping):
        if not condition:
            raise InvalidFilter(f"'{name}' has no condition")
        return _all_of(
            [_operator_condition(name, kind, op, value) for op, value in condition.items()]
        )
    return _equal_or_pattern(name, kind, condition)


def _operator_condition(name: str, kind: ColumnKind, operator: str, value: Any) -> str:
    if operator == "is":
        return _any_of([_equal(name, kind, option) for option in _value_list(value)])
    if operator == "not":
        return _not(_equal_or_pattern(name, kind, value))
    if operator in ("from", "to"):
        return _compared(name, kind, ">=" if operator == "from" else "<=", value)
    raise InvalidFilter(
        f"'{operator}' is not supported for '{name}': use "
        f"{', '.join(f'`{operator}`' for operator in FILTER_OPERATORS)}"
    )


def _equal_or_pattern(name: str, kind: ColumnKind, value: Any) -> str:
    """Compare with a value, several values, or a text with `*` and `?`."""
    return _any_of([_values_condition(name, kind, option) for option in _value_list(value)])


def _values_condition(name: str, kind: ColumnKind, value: Any) -> str:
    if kind == "number" or not isinstance(value, str) or not set("*?") & set(value):
        return _equal(name, kind, value)
    pattern = sql_literal(_like_pattern(value))
    if kind == "text":
        return f"{name} LIKE {pattern}"
    # Headings are joined by line ends, which no heading contains, and then compared.
    whole = sql_literal(f"%\n{_like_pattern(value)}\n%")
    return f"concat('\n', array_to_string({name}, '\n\n'), '\n') LIKE {whole}"


def _value_list(value: Any) -> Sequence[Any]:
    values = value if isinstance(value, list | tuple) else [value]
    if len(values) > _MOST_VALUES:
        raise InvalidFilter(
            f"it names {len(values):,} values; at most {_MOST_VALUES:,} are allowed"
        )
    return values


# --- expressions

_SIGNS: Mapping[type[ast.cmpop], str] = {
    **{ast.Eq: "=", ast.NotEq: "!="},
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="},
}
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
_WORDS = {"none": None, "null": None}


def _condition_of(node: ast.expr) -> str:
    if isinstance(node, ast.BoolOp):
        join = _all_of if isinstance(node.op, ast.And) else _any_of
        return join([_condition_of(operand) for operand in node.values])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return _not(_condition_of(node.operand))
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        pairs = zip(sides, node.ops, sides[1:], strict=False)
        return _all_of([_comparison(left, op, right) for left, op, right in pairs])
    raise InvalidFilter(
        f"'{ast.unparse(node)}' is not a condition: compare a column, "
        f"such as `page >= 3 and source == 'a.md'`"
    )


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr) -> str:
    if isinstance(op, ast.In | ast.NotIn):
        found = _within(left, right)
        return _not(found) if isinstance(op, ast.NotIn) else found
    sign = _SIGNS.get(type(op))
    if sign is None:
        raise InvalidFilter("`is` is not supported: use `==`")
    if _is_column(right) and not _is_column(left):
        left, right, sign = right, left, _MIRRORED[sign]
    name, value = _column_name(left), _constant(right)
    if sign in ("=", "!="):
        equal = _equal(name, _kind(name), value)
        return _not(equal) if sign == "!=" else equal
    return _compared(name, _kind(name), sign, value)


def _within(left: ast.expr, right: ast.expr) -> str:
    """Convert `source in ['a.md', 'b.md']`, `'word' in text` and `'Scope' in headings`."""
    if _is_column(left):
        name = _column_name(left)
        if not isinstance(right, ast.List | ast.Tuple):
            raise InvalidFilter(
                f"'{ast.unparse(right)}' is not a list: write `{name} in ['a', 'b']`"
            )
        values = _value_list([_constant(element) for element in right.elts])
        return _any_of([_equal(name, _kind(name), value) for value in values])
    name, value = _column_name(right), _constant(left)
    kind = _kind(name)
    if kind == "list":
        return _equal(name, kind, value)
    if kind != "text" or not isinstance(value, str):
        raise InvalidFilter(f"'{name}' holds {_kind_words(kind)}: nothing can be in it")
    return f"strpos({name}, {sql_literal(value)}) > 0"


def _is_column(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id.lower() not in _WORDS


def _column_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        _kind(node.id)
        return node.id
    raise InvalidFilter(f"'{ast.unparse(node)}' is not a column. {_known_columns()}")


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id.lower() in _WORDS:
        return _WORDS[node.id.lower()]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        what = f"'{ast.unparse(node)}' is not a value: write texts in quotes"
        raise InvalidFilter(what) from error


# --- shared


def _kind(name: str) -> ColumnKind:
    if name not in FILTER_COLUMNS:
        near = nearest_name(name, FILTER_COLUMNS)
        hint = f" (did you mean '{near}'?)" if near else ""
        raise InvalidFilter(f"rows have no '{name}'{hint}. {_known_columns()}")
    return FILTER_COLUMNS[name]


def _known_columns() -> str:
    return f"They have {', '.join(f'`{column}`' for column in FILTER_COLUMNS)}"


def _equal(name: str, kind: ColumnKind, value: Any) -> str:
    if kind == "list":
        return f"array_has({name}, {sql_literal(_typed_value(name, 'text', value))})"
    if value is None:
        return f"{_quoted(name)} IS NULL"
    return f"{_quoted(name)} = {sql_literal(_typed_value(name, kind, value))}"


def _compared(name: str, kind: ColumnKind, sign: str, value: Any) -> str:
    if kind == "list" or value is None:
        raise InvalidFilter(f"'{name}' cannot be compared by `{sign}` with {_short_value(value)}")
    return f"{_quoted(name)} {sign} {sql_literal(_typed_value(name, kind, value))}"


def _typed_value(name: str, kind: ColumnKind, value: Any) -> Any:
    """Return the value if it has the column's type."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_good = is_number if kind == "number" else isinstance(value, str)
    if not is_good or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidFilter(f"'{name}' holds {_kind_words(kind)}; {_short_value(value)} is none")
    return value


def sql_literal(value: str | float) -> str:
    """Return a value as an SQL literal; quotes are doubled."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''").replace("\0", "") + "'"
    return repr(value)


def _quoted(name: str) -> str:
    return f"`{name}`" if name == "index" else name


def _like_pattern(glob: str) -> str:
    escaped = glob.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _not(part: str) -> str:
    """Negate a condition; a row without a page is not on page 3."""
    return f"NOT coalesce({part}, false)"


def _all_of(parts: Sequence[str]) -> str:
    return _joined(parts, " AND ")


def _any_of(parts: Sequence[str]) -> str:
    return _joined(parts, " OR ") if parts else "false"


def _joined(parts: Sequence[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else word.join(f"({part})" for part in parts)


def _kind_words(kind: ColumnKind) -> str:
    return {"text": "a text", "number": "a number", "list": "texts"}[kind]


def _short_value(value: Any) -> str:
    return f"'{shorten(str(value), 60)}'"
