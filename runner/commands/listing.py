"""Lay out what is installed: models and steps, as tables and as objects for machines."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engine.models import ModelFinder
from paddock.engine.settings import PoolSettings
from paddock.runner.display import console

_WIDTH = 96
_ID_CHARS = 12  # of the digest, as `ollama list` has it


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model on this machine."""

    name: str
    digest: str
    size_bytes: int
    role: str
    origin: str
    path: str
    tuned: str = ""
    """Format of the copy that serves in its place."""

    def as_json(self) -> dict[str, Any]:
        """Give the object of `list --json`."""
        return {
            "name": self.name,
            "digest": self.digest,
            "size": self.size_bytes,
            "role": self.role,
            "from": self.origin,
            "path": self.path,
            **({"tuned": self.tuned} if self.tuned else {}),
        }


def models(pool: PoolSettings) -> tuple[ModelRow, ...]:
    """List the models that a name can mean here; of one name, the copy that would be used."""
    finder = ModelFinder(pool.models_dir, pool.cache_dir)
    rows: dict[str, ModelRow] = {}
    for found, facts in finder.list():
        copy = finder.tuned.find(facts.digest)
        row = ModelRow(
            facts.name,
            facts.digest,
            facts.size_bytes,
            facts.role,
            found.origin,
            facts.path,
            copy.format if copy is not None else "",
        )
        rows.setdefault(facts.name, row)
    return tuple(rows[name] for name in sorted(rows))


def models_table(rows: Sequence[ModelRow]) -> str:
    """Lay models out as `ollama list` does, with where they come from."""
    head = ("NAME", "ID", "SIZE", "ROLE", "FROM")
    body = [
        (row.name, row.digest[:_ID_CHARS], console.size(row.size_bytes), row.role, _from(row))
        for row in rows
    ]
    return console.table([head, *body])


def _from(row: ModelRow) -> str:
    origin = "store" if row.origin == "store" else f"{row.origin} ({Path(row.path).name})"
    return f"{origin}, tuned: {row.tuned}" if row.tuned else origin


@dataclass(frozen=True, slots=True)
class ParamRow:
    """One parameter of a step."""

    name: str
    is_required: bool
    default: Any
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class StepRow:
    """One installed step."""

    name: str
    package: str
    about: str
    params: tuple[ParamRow, ...]
    outputs: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Give the object of `steps --json`."""
        return {
            "name": self.name,
            "package": self.package,
            "description": self.about,
            "params": {
                param.name: {
                    "required": param.is_required,
                    **({} if param.is_required else {"default": param.default}),
                    "schema": param.schema,
                }
                for param in self.params
            },
            "outputs": list(self.outputs),
        }


def steps() -> tuple[StepRow, ...]:
    """List the installed steps with their parameters.

    Raises:
        BrokenStep: one cannot be used, with the package that brings it.
    """
    from paddock.steps import registry

    return tuple(
        step_row(name, registry.load(name), registry.package(name)) for name in registry.names()
    )


def step_row(name: str, kind: type[Any], package: str) -> StepRow:
    """Describe one step by its class, as installed by `package`."""
    schema = kind.params.model_json_schema(by_alias=True)
    required = set(schema.get("required", ()))
    params = tuple(
        ParamRow(param, param in required, facts.get("default"), facts)
        for param, facts in schema.get("properties", {}).items()
    )
    about = (kind.__doc__ or "").strip().partition("\n")[0]
    return StepRow(name, package, about, params, tuple(kind.output.model_fields))


def steps_text(rows: Sequence[StepRow]) -> str:
    """Lay steps out: name and what it does, parameters with their defaults, outputs."""
    return "\n\n".join(_step_text(row) for row in rows)


def _step_text(row: StepRow) -> str:
    needed = [param.name for param in row.params if param.is_required]
    others = [_with_default(param) for param in row.params if not param.is_required]
    lines = [f"{row.name}  {row.about}".rstrip()]
    if row.package != "paddock":
        lines[0] += f" [{row.package}]"
    for title, words in (("needs", needed), ("takes", others), ("gives", row.outputs)):
        if words:
            lines += textwrap.wrap(
                f"{title}  {', '.join(words)}",
                width=_WIDTH,
                initial_indent="  ",
                subsequent_indent=" " * 9,
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def _with_default(param: ParamRow) -> str:
    """Write a parameter and its default as one would in YAML's flow style; none is left out."""
    if param.default is None:
        return param.name
    default = param.default
    if isinstance(default, dict):
        default = {name: value for name, value in default.items() if value is not None}
    return f"{param.name} {json.dumps(default, ensure_ascii=False)}"
