"""Values as far as schemas tell them before a run: outputs, kinds, columns of rows.

A parameter that gets another kind than it takes would fail only in a run, behind the model calls
that are made first. Of a kind that is not certain, None, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, get_origin

from jinja2 import nodes
from pydantic import BaseModel

from paddock.engine.system.records import Struct, field
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.expressions import Reference, Value, chain_of
from paddock.pipelines.model import Block, Pipeline, StepNode
from paddock.steps.base import Step
from paddock.steps.facts import Facts
from paddock.steps.param_types import RowsParam
from paddock.steps.registry import facts_of_kind, takes_reply
from paddock.steps.tables.column_types import ColumnType, type_of_schema, type_of_value

from ..answer_names import OF_WHOLE
from ..bound import BoundPlan
from ..specs import reply_spec
from .reply_faults import reply_fields

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


class KnownOutputs(Struct, frozen=True):
    names: tuple[str, ...] | None = None
    """None: only a run shows them."""
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    columns: Mapping[str, Mapping[str, ColumnType]] = field(default_factory=dict)
    """By output that has rows: the types of their columns; an empty type is unknown."""
    schema: Any = None
    """Of a step's answer."""
    answer: tuple[str, ...] | None = None
    """The fields of a step's answer, where its schema tells them."""
    absent: frozenset[str] = frozenset()
    """What of `output` and `OF_WHOLE` its `reply` does not ask for."""


class KnownElement(Struct, frozen=True):
    """What is known of each element of a list: of a block's results, or an input's rows."""

    fields: tuple[str, ...] | None = None
    """None: only a run shows them."""
    kind: Kind = None


class KnownValues:
    """Values of inputs, and of steps and blocks, which are added in the file's order."""

    def __init__(self, pipeline: Pipeline, inputs: Mapping[str, Any]) -> None:
        self._inputs: Mapping[str, Mapping[str, ColumnType]] = {
            name: spec.columns or getattr(inputs.get(name), "types", {})
            for name, spec in pipeline.inputs.items()
            if spec.type == "rows"
        }
        """The columns of those that are rows, as far as they are known."""
        self._outputs: dict[str, KnownOutputs] = {}
        self._elements: dict[Reference, KnownElement] = {
            ("inputs", name): KnownElement(tuple(columns), dict)
            for name, columns in self._inputs.items()
            if columns
        }
        """By input and block: `("inputs", NAME)`, `("steps", NAME)`."""
        self._rows: dict[str, Mapping[str, ColumnType]] = {}
        """By loop variable: the columns of the rows that a block goes over."""
        self._loops: list[tuple[Place, str, Reference]] = []
        """Blocks that go over known elements: their places, variables, and whose elements."""

    def outputs_of(self, name: str) -> KnownOutputs:
        return self._outputs.get(name, KnownOutputs())

    def element_of(self, source: Reference) -> KnownElement:
        return self._elements.get(source, KnownElement())

    def add_step(self, step: StepNode, kind: type[Step[Any, Any]], inner: BoundPlan | None) -> None:
        fields, columns = kind.output.model_fields, step.written.get("columns")
        by_output: dict[str, Mapping[str, ColumnType]] = {}
        if isinstance(columns, dict) and "rows" in fields:
            by_output["rows"] = {name: str(kind) for name, kind in columns.items()}
        schema = step.reply.schema if step.reply is not None else None
        if step.returns is not None:
            written = step.returns.data
            names = tuple(written) if isinstance(written, dict) else None
            kinds = {name: self.kind_of(step.returns, (name,)) for name in names or ()}
            self._outputs[step.id] = KnownOutputs(names, kinds, by_output, schema)
            return
        is_one_answer = facts_of_kind(kind).is_one_answer(step.params.data)
        answer = reply_fields(step.reply) if step.reply and is_one_answer else None
        absent = frozenset[str]()
        if takes_reply(kind):
            spec = reply_spec(step.reply) if step.reply is not None else {}
            absent = frozenset(OF_WHOLE) - spec.keys()
            value = fields.get("output")
            is_null = value is not None and value.default is None and spec.get("schema") is None
            if is_null and is_one_answer:
                absent |= {"output"}
        is_open = kind.output.model_config.get("extra") == "allow"
        known_names = None if is_open else tuple(fields)
        self._outputs[step.id] = KnownOutputs(
            names=known_names if inner is None else inner.output_names,
            kinds={name: _kind_of_hint(field.annotation) for name, field in fields.items()},
            columns=by_output,
            schema=schema,
            answer=answer,
            absent=absent,
        )

    def enter_block(self, block: Block) -> None:
        """Note the loop variable before the block's steps are added."""
        self._rows[block.var] = self.columns_of(block.over.tree) or {}

    def add_block(self, block: Block) -> None:
        columns: dict[str, Mapping[str, ColumnType]] = {}
        if (returns := block.returns) is None:
            last = self.outputs_of(block.body[-1].id if block.body else "")
            element = KnownElement(last.names, dict)
        elif isinstance(returns.data, dict):
            element = KnownElement(tuple(returns.data), dict)
            columns["results"] = {name: self._type_of(returns, name) for name in returns.data}
        else:
            element = KnownElement(kind=self.kind_of(returns, ()))
        self._elements["steps", block.id] = element
        self._outputs[block.id] = KnownOutputs(tuple(BLOCK_OUTPUTS), BLOCK_OUTPUTS, columns)
        match block.over.chain:
            case ("steps", source, "results"):
                self._loops.append((block.at, block.var, ("steps", source)))
            case ("inputs", name) if self._inputs.get(name):
                self._loops.append((block.at, block.var, ("inputs", name)))

    def source_of_loop(self, at: Place, var: str) -> Reference | None:
        """Return whose elements a loop variable stands for, at a place of the file."""
        over = ((place, source) for place, name, source in self._loops if name == var)
        return next((source for place, source in over if at[: len(place)] == place), None)

    def unknown_columns(self, over: nodes.Template) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield names of columns that a list is unnested by and that its rows have not."""
        for call in over.find_all(nodes.Filter):
            columns = self._columns_at(call.node) if call.name == "unnest" else None
            names = (name.value for name in call.args if isinstance(name, nodes.Const))
            yield from ((str(n), columns) for n in names if columns and n not in columns)

    def table_columns(self, step: StepNode, facts: Facts) -> dict[Place, Mapping[str, ColumnType]]:
        by_place = {}
        for path, expression in step.params.expressions.items():
            columns = (
                self.columns_of(expression.tree) if path[0] == facts.param(RowsParam) else None
            )
            if columns is not None:
                by_place[path] = columns
        return by_place

    def columns_of(self, tree: nodes.Template) -> Mapping[str, ColumnType] | None:
        """Return the columns of the rows that an expression names; None: they are not known."""
        return self._columns_at(tree.body[0].node)  # type: ignore[attr-defined]

    def _columns_at(self, node: nodes.Node | None) -> Mapping[str, ColumnType] | None:
        match None if node is None else chain_of(node):
            case ("steps", step, output):
                return self.outputs_of(step).columns.get(output)
            case ("inputs", name):
                return self._inputs.get(name) or None
        return None

    def _type_of(self, returns: Value, name: str) -> ColumnType:
        compiled = returns.expressions.get((name,))
        if compiled is None:
            return type_of_value(returns.data[name])
        match compiled.chain:
            case ("steps", step, "output", *path):
                schema = self.outputs_of(step).schema
                for part in path:
                    schema = _child_schema(schema, part)
                return "" if schema is None else type_of_schema(schema)
            case (var, column) if var in self._rows:
                return self._rows[var].get(column, "")
        kinds: Mapping[Any, ColumnType] = {str: "str", bool: "bool"}
        return kinds.get(self.kind_of(returns, (name,)), "")

    def kind_of(self, value: Value, path: Place) -> Kind:
        compiled = value.expressions.get(path)
        if compiled is not None:
            return str if compiled.is_text else self.kind_of_expression(compiled.tree)
        return type(value.data) if path == () and isinstance(value.data, dict | list) else None

    def kind_of_expression(self, tree: nodes.Template) -> Kind:
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
            case ("steps", step, output, *path):
                known = self.outputs_of(step)
                if output == "output" and known.schema is not None:
                    schema = known.schema
                    for name in path:
                        schema = _child_schema(schema, name)
                    kind = schema.get("type") if isinstance(schema, dict) else None
                    return _SCHEMA_KINDS.get(kind) if isinstance(kind, str) else None
                return None if path else known.kinds.get(output)
            case ("steps", _):
                return dict
        return None


def _kind_of_hint(hint: Any) -> Kind:
    hinted = get_origin(hint) or hint
    of_types: tuple[tuple[Kind, Any], ...] = (
        (bool, bool), (str, str), (float, int | float), (list, list | tuple),
        (dict, Mapping | BaseModel),
    )  # fmt: skip
    is_one = isinstance(hinted, type)  # no union, and not any
    return next((kind for kind, types in of_types if is_one and issubclass(hinted, types)), None)


def _child_schema(schema: Any, name: str) -> Any:
    names = schema.get("properties") if isinstance(schema, dict) else None
    return names.get(name) if isinstance(names, dict) else None
