"""Kinds of values (text, number, list, mapping) that expressions give, as far as schemas tell.

A parameter that gets another kind than it takes would fail only in a run, behind the model calls
that are made first. Of a kind that is not certain, None, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, get_origin

from jinja2 import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from paddock.pipelines.expressions import Path, Value, chain_of
from paddock.pipelines.model import ReplySpec
from paddock.steps.base import Step

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

    def __init__(self) -> None:
        self._outputs: dict[str, Mapping[str, Kind]] = {}
        self._fields: dict[str, Mapping[str, FieldInfo]] = {}
        """By step without `returns`: those of its output."""
        self._answers: dict[str, Any] = {}
        """By step: the schema of its `output`."""
        self.items: dict[str, Kind] = {}
        """By block: what each of its results is."""

    def add_step(
        self, step: str, kind: type[Step[Any, Any]], reply: ReplySpec | None, returns: Value | None
    ) -> None:
        self._answers[step] = reply.schema if reply is not None else None
        if returns is None:
            self._fields[step] = kind.output.model_fields
        else:
            names = returns.data if isinstance(returns.data, dict) else ()
            self._outputs[step] = {name: self.of(returns, (name,)) for name in names}

    def add_block(self, block: str, returns: Value | None) -> None:
        self._outputs[block] = BLOCK_OUTPUTS
        self.items[block] = dict if returns is None else self.of(returns, ())

    def of(self, value: Value, path: Path) -> Kind:
        compiled = value.compiled(path)
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


def _of_schema(schema: Any, path: Iterable[str]) -> Kind:
    for name in path:
        names = schema.get("properties") if isinstance(schema, dict) else None
        schema = names.get(name) if isinstance(names, dict) else None
    kind = schema.get("type") if isinstance(schema, dict) else None
    return _SCHEMA_KINDS.get(kind) if isinstance(kind, str) else None
