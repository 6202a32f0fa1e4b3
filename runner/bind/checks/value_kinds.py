"""Kinds of values (text, number, list, mapping) that expressions give, as far as schemas tell.

Of lists of rows, the types of their columns.

A parameter that gets another kind than it takes would fail only in a run, behind the model calls
that are made first. Of a kind that is not certain, None, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias, get_origin

from jinja2 import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.expressions import Value, chain_of
from paddock.pipelines.model import ReplySpec
from paddock.steps.base import Step
from paddock.steps.tables.column_types import ColumnType, type_of_schema, type_of_value

Kind: TypeAlias = type[Any] | None
"""str, float, bool, list, dict; None: only a run knows."""

KIND_NAMES: Mapping[Any, str] = {str: "a text", float: "a number", bool: "a boolean",
                                 list: "a list", dict: "a mapping"}  # fmt: skip
_SCHEMA_KINDS: Mapping[Any, Kind] = {"string": str, "integer": float, "number": float,
                                     "boolean": bool, "array": list, "object": dict}  # fmt: skip
_FILTER_KINDS: Mapping[str, Kind] = {
    name: kind
    for kind, names in (
        (float, "length count wordcount int float"),
        (str, "tojson join trim upper lower title capitalize string slug basename date local plus"),
        (list, "list sort map select selectattr reject rejectattr flatten unique split groupby"),
    )
    for name in names.split()
}
BLOCK_OUTPUTS: Mapping[str, Kind] = {
    "results": list, "counts": dict, "changed": list, "failed": list, "waiting": list
}  # fmt: skip


class ValueKinds:
    """Kinds of the outputs of steps and blocks, which are added in the file's order."""

    def __init__(self, inputs: Mapping[str, Mapping[str, ColumnType]]) -> None:
        """`inputs`: the columns of those that are rows, as far as they are known."""
        self._inputs = inputs
        self._outputs: dict[str, Mapping[str, Kind]] = {}
        self._fields: dict[str, Mapping[str, FieldInfo]] = {}
        """By step without `returns`: those of its output."""
        self._answers: dict[str, Any] = {}
        """By step: the schema of its `output`."""
        self.items: dict[str, Kind] = {}
        """By block: what each of its results is."""
        self.columns: dict[tuple[str, str], Mapping[str, ColumnType]] = {}
        """By block or step, and output that has rows: their columns; an empty type is unknown."""
        self._rows: dict[str, Mapping[str, ColumnType]] = {}
        """By loop variable: the columns of the rows that a block goes over."""

    def add_step(
        self,
        step: str,
        kind: type[Step[Any, Any]],
        reply: ReplySpec | None,
        returns: Value | None,
        written: Mapping[str, Any],
    ) -> None:
        self._answers[step] = reply.schema if reply is not None else None
        if (
            isinstance(columns := written.get("columns"), dict)
            and "rows" in kind.output.model_fields
        ):
            self.columns[step, "rows"] = {name: str(kind) for name, kind in columns.items()}
        if returns is None:
            self._fields[step] = kind.output.model_fields
        else:
            names = returns.data if isinstance(returns.data, dict) else ()
            self._outputs[step] = {name: self.of(returns, (name,)) for name in names}

    def enter_block(self, var: str, over: nodes.Template) -> None:
        """Note the loop variable before the block's steps are added."""
        self._rows[var] = self.columns_of(over) or {}

    def unknown_columns(self, over: nodes.Template) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield names of columns that a list is unnested by and that its rows have not."""
        for found in over.find_all(nodes.Filter):
            columns = self._columns_at(found.node) if found.name == "unnest" else None
            given = (name.value for name in found.args if isinstance(name, nodes.Const))
            yield from ((str(n), columns) for n in given if columns and n not in columns)

    def add_block(self, block: str, returns: Value | None) -> None:
        self._outputs[block] = BLOCK_OUTPUTS
        self.items[block] = dict if returns is None else self.of(returns, ())
        if returns is not None and isinstance(returns.data, dict):
            self.columns[block, "results"] = {
                name: self._type_of(returns, name) for name in returns.data
            }

    def columns_of(self, tree: nodes.Template) -> Mapping[str, ColumnType] | None:
        """Return the columns of the rows that an expression names; None: they are not known."""
        return self._columns_at(tree.body[0].node)  # type: ignore[attr-defined]

    def _columns_at(self, node: nodes.Node | None) -> Mapping[str, ColumnType] | None:
        match None if node is None else chain_of(node):
            case ("steps", step, output):
                return self.columns.get((step, output))
            case ("inputs", name):
                return self._inputs.get(name) or None
        return None

    def _type_of(self, returns: Value, name: str) -> ColumnType:
        compiled = returns.expressions.get((name,))
        if compiled is None:
            return type_of_value(returns.data[name])
        match compiled.chain:
            case ("steps", step, "output", *path):
                schema = self._answers.get(step)
                for part in path:
                    schema = _child_schema(schema, part)
                return "" if schema is None else type_of_schema(schema)
            case (var, column) if var in self._rows:
                return self._rows[var].get(column, "")
        kinds: Mapping[Any, ColumnType] = {str: "str", bool: "bool"}
        return kinds.get(self.of(returns, (name,)), "")

    def of(self, value: Value, path: Place) -> Kind:
        compiled = value.expressions.get(path)
        if compiled is not None:
            return str if compiled.is_text else self.of_expression(compiled.tree)
        return type(value.data) if path == () and isinstance(value.data, dict | list) else None

    def of_expression(self, tree: nodes.Template) -> Kind:
        node: nodes.Expr = tree.body[0].node  # type: ignore[attr-defined]
        match node:
            case nodes.Concat():
                return str
            case nodes.Compare() | nodes.Not() | nodes.Test():
                return bool
            case nodes.List():
                return list
            case nodes.Dict():
                return dict
            case nodes.Filter():
                return _FILTER_KINDS.get(node.name)
        match chain_of(node):
            case ("steps", step, "output", *path) if self._answers.get(step) is not None:
                return _of_schema(self._answers[step], path)
            case ("steps", step, output) if output in self._fields.get(step, ()):
                return _of_annotation(self._fields[step][output].annotation)
            case ("steps", step, output):
                return self._outputs.get(step, {}).get(output)
        return None


def _of_annotation(hint: Any) -> Kind:
    found = get_origin(hint) or hint
    of_types: tuple[tuple[Kind, Any], ...] = (
        (bool, bool), (str, str), (float, int | float), (list, list | tuple),
        (dict, Mapping | BaseModel),
    )  # fmt: skip
    is_one = isinstance(found, type)  # no union, and not any
    return next((kind for kind, types in of_types if is_one and issubclass(found, types)), None)


def _child_schema(schema: Any, name: str) -> Any:
    names = schema.get("properties") if isinstance(schema, dict) else None
    return names.get(name) if isinstance(names, dict) else None


def _of_schema(schema: Any, path: Iterable[str]) -> Kind:
    for name in path:
        schema = _child_schema(schema, name)
    kind = schema.get("type") if isinstance(schema, dict) else None
    return _SCHEMA_KINDS.get(kind) if isinstance(kind, str) else None
