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

from paddock.engine.system.python_syntax import parse_expression
from paddock.engine.system.records import Struct
from paddock.engine.system.text import shorten
from paddock.pipelines.errors import nearest_name

ColumnKind = Literal["text", "number", "list", "truth", "any"]
"""`any`: a column of the store's own, whose kind is not known before the store is opened."""

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
OWN = "columns"
"""What the store's own columns stand under."""
FILTER_OPERATORS = ("is", "not", "from", "to")
_MOST_CHARACTERS = 2_000
_MOST_VALUES = 1_000

Where = Mapping[str, Any] | str | None


class InvalidFilter(ValueError):
    """The value of `where` is not a filter; the message is a plain sentence."""


def sql_condition(where: Where, columns: Mapping[str, ColumnKind] | None = None) -> str:
    """Return the condition that rows must meet; empty for every row.

    `columns`: the store's own, which are filtered as `columns.NAME`; None: not known yet.

    >>> sql_condition({"source": "notes/*.md", "page": {"from": 3, "to": 9}})
    "(source LIKE 'notes/%.md') AND ((page >= 3) AND (page <= 9))"
    >>> sql_condition("page == 1 or 'Scope' in headings")
    "(page = 1) OR (array_has(headings, 'Scope'))"
    >>> sql_condition("columns.year >= 2024", {"year": "number"})
    '`year` >= 2024'

    Raises:
        InvalidFilter: it names an unknown column, or compares different types.
    """
    if where is None:
        return ""
    if isinstance(where, str):
        if len(where) > _MOST_CHARACTERS:
            raise InvalidFilter(f"it is longer than {_MOST_CHARACTERS:,} characters")
        try:
            return _Expression(columns).condition(parse_expression(where.strip()))
        except InvalidFilter:
            raise
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InvalidFilter(
                f"'{where}' is not a condition: compare a column by ==, !=, <, <=, >, >= or `in`"
            ) from error
    own = where.get(OWN, {})
    if not isinstance(own, Mapping):
        raise InvalidFilter(f"'{OWN}' is a mapping of the store's own columns")
    named = [(_Column.of(name), found) for name, found in where.items() if name != OWN]
    named += [(_Column.own(name, columns), found) for name, found in own.items()]
    return _all_of([_column_condition(column, found) for column, found in named])


class _Column(Struct, frozen=True):
    name: str
    kind: ColumnKind

    @classmethod
    def of(cls, name: str) -> _Column:
        if name not in FILTER_COLUMNS:
            near = nearest_name(name, FILTER_COLUMNS)
            hint = f" (did you mean '{near}'?)" if near else ""
            raise InvalidFilter(f"rows have no '{name}'{hint}. {_KNOWN_COLUMNS}")
        return cls(name, FILTER_COLUMNS[name])

    @classmethod
    def own(cls, name: str, columns: Mapping[str, ColumnKind] | None) -> _Column:
        if columns is None:
            return cls(name, "any")
        if name not in columns:
            near = nearest_name(name, columns)
            hint = f" (did you mean '{near}'?)" if near else ""
            known = ", ".join(f"`{column}`" for column in columns) or "none"
            raise InvalidFilter(f"the store has no column '{name}'{hint}. Its own are {known}")
        return cls(name, columns[name])

    @property
    def quoted(self) -> str:
        return self.name if self.name in FILTER_COLUMNS.keys() - {"index"} else f"`{self.name}`"

    def equal(self, value: Any) -> str:
        if self.kind == "list":
            return f"array_has({self.name}, {self._literal(value, 'text')})"
        if value is None:
            return f"{self.quoted} IS NULL"
        return f"{self.quoted} = {self._literal(value, self.kind)}"

    def compared(self, sign: str, value: Any) -> str:
        if self.kind == "list" or value is None:
            shown = _short_value(value)
            raise InvalidFilter(f"'{self.name}' cannot be compared by `{sign}` with {shown}")
        return f"{self.quoted} {sign} {self._literal(value, self.kind)}"

    def equal_or_like(self, value: Any) -> str:
        return _any_of([self._equal_or_like_one(option) for option in _value_list(value)])

    def _equal_or_like_one(self, value: Any) -> str:
        if self.kind == "number" or not isinstance(value, str) or not set("*?") & set(value):
            return self.equal(value)
        pattern = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        pattern = pattern.replace("*", "%").replace("?", "_")
        if self.kind in ("text", "any"):
            return f"{self.quoted} LIKE {sql_literal(pattern)}"
        # Headings are joined by line ends, which no heading contains, and then compared.
        whole = sql_literal(f"%\n{pattern}\n%")
        return f"concat('\n', array_to_string({self.name}, '\n\n'), '\n') LIKE {whole}"

    def _literal(self, value: Any, kind: ColumnKind) -> str:
        is_good = value_kind(value) in (("text", "number", "truth") if kind == "any" else (kind,))
        if not is_good:
            shown = _short_value(value)
            raise InvalidFilter(f"'{self.name}' holds {KIND_WORDS[kind]}; {shown} is none")
        return sql_literal(value)


_KNOWN_COLUMNS = f"They have `{'`, `'.join(FILTER_COLUMNS)}`, and `{OWN}.NAME`"
KIND_WORDS: Mapping[ColumnKind, str] = {
    **{"text": "a text", "number": "a number", "list": "texts", "truth": "true or false"},
    "any": "a text, a number, true or false",
}


def value_kind(value: Any) -> ColumnKind | None:
    """Return the kind of column that holds a value; None: no own column can (they are doubles)."""
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        is_held = math.isfinite(value) if isinstance(value, float) else abs(value) <= 2**53
        return "number" if is_held else None
    return "text" if isinstance(value, str) else None


def _column_condition(column: _Column, condition: Any) -> str:
    if not isinstance(condition, Mapping):
        return column.equal_or_like(condition)
    if not condition:
        raise InvalidFilter(f"'{column.name}' has no condition")
    parts: list[str] = []
    for operator, value in condition.items():
        if operator == "is":
            parts.append(_any_of([column.equal(option) for option in _value_list(value)]))
        elif operator == "not":
            parts.append(_not(column.equal_or_like(value)))
        elif operator in ("from", "to"):
            parts.append(column.compared(">=" if operator == "from" else "<=", value))
        else:
            known = ", ".join(f"`{known}`" for known in FILTER_OPERATORS)
            what = f"'{operator}' is not supported for '{column.name}': use {known}"
            raise InvalidFilter(what)
    return _all_of(parts)


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
_WORDS = {"none": None, "null": None, "true": True, "false": False}


class _Expression(Struct, frozen=True):
    columns: Mapping[str, ColumnKind] | None

    def condition(self, node: ast.expr) -> str:
        if isinstance(node, ast.BoolOp):
            join = _all_of if isinstance(node.op, ast.And) else _any_of
            return join([self.condition(operand) for operand in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return _not(self.condition(node.operand))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides, node.ops, sides[1:], strict=False)
            return _all_of([self._comparison(left, op, right) for left, op, right in pairs])
        raise InvalidFilter(
            f"'{ast.unparse(node)}' is not a condition: compare a column, "
            f"such as `page >= 3 and source == 'a.md'`"
        )

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> str:
        if isinstance(op, ast.In | ast.NotIn):
            found = self._within(left, right)
            return _not(found) if isinstance(op, ast.NotIn) else found
        sign = _SIGNS.get(type(op))
        if sign is None:
            raise InvalidFilter("`is` is not supported: use `==`")
        if _is_column(right) and not _is_column(left):
            left, right, sign = right, left, _MIRRORED[sign]
        column, value = self._column(left), _constant(right)
        if sign == "=":
            return column.equal(value)
        return _not(column.equal(value)) if sign == "!=" else column.compared(sign, value)

    def _within(self, left: ast.expr, right: ast.expr) -> str:
        """Convert `source in ['a.md', 'b.md']`, `'word' in text` and `'Scope' in headings`."""
        if _is_column(left):
            column = self._column(left)
            if not isinstance(right, ast.List | ast.Tuple):
                raise InvalidFilter(
                    f"'{ast.unparse(right)}' is not a list: write `{column.name} in ['a', 'b']`"
                )
            values = _value_list([_constant(element) for element in right.elts])
            return _any_of([column.equal(value) for value in values])
        column, value = self._column(right), _constant(left)
        if column.kind == "list":
            return column.equal(value)
        if column.kind not in ("text", "any") or not isinstance(value, str):
            words = KIND_WORDS[column.kind]
            raise InvalidFilter(f"'{column.name}' holds {words}: nothing can be in it")
        return f"strpos({column.quoted}, {sql_literal(value)}) > 0"

    def _column(self, node: ast.expr) -> _Column:
        if isinstance(node, ast.Name):
            return _Column.of(node.id)
        if isinstance(node, ast.Attribute) and _is_column(node):
            return _Column.own(node.attr, self.columns)
        raise InvalidFilter(f"'{ast.unparse(node)}' is not a column. {_KNOWN_COLUMNS}")


def _is_column(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):
        return isinstance(node.value, ast.Name) and node.value.id == OWN
    return isinstance(node, ast.Name) and node.id.lower() not in _WORDS


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id.lower() in _WORDS:
        return _WORDS[node.id.lower()]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        what = f"'{ast.unparse(node)}' is not a value: write texts in quotes"
        raise InvalidFilter(what) from error


# --- shared


def sql_literal(value: str | float) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''").replace("\0", "") + "'"
    return repr(value)


def _not(part: str) -> str:
    """Negate a condition; a row without a page is not on page 3."""
    return f"NOT coalesce({part}, false)"


def _all_of(parts: Sequence[str]) -> str:
    return _joined(parts, " AND ")


def _any_of(parts: Sequence[str]) -> str:
    return _joined(parts, " OR ") if parts else "false"


def _joined(parts: Sequence[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else word.join(f"({part})" for part in parts)


def _short_value(value: Any) -> str:
    return f"'{shorten(str(value), 60)}'"
