"""Lay out what is installed besides models: steps, tools, check functions, readers of documents.

What comes with Paddock and what other packages bring stand side by side, as a text for a person and
as one object for machines. What cannot be used is told with its package, and hides nothing else.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.system.distribution import DISTRIBUTION

_WIDTH = 96


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
    items: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The fields of each item, of the outputs that are lists of such."""
    one_of: tuple[str, ...] = ()
    """Parameters of which exactly one is given."""

    @property
    def given(self) -> tuple[str, ...]:
        """The outputs with what is in them."""
        return tuple(
            f"{name} (each {' '.join(self.items[name])})" if name in self.items else name
            for name in self.outputs
        )

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


@dataclass(frozen=True, slots=True)
class PartRow:
    """A tool, a check function or a reader."""

    kind: str
    name: str
    package: str
    about: str
    takes: str = ""
    """What stands behind its name: arguments, or the suffixes of files."""

    def as_json(self) -> dict[str, Any]:
        """Give the object of `steps --json`."""
        facts = {"name": self.name, "package": self.package, "description": self.about}
        return facts | ({"takes": self.takes} if self.takes else {})


@dataclass(frozen=True, slots=True)
class Installed:
    """All that is there."""

    steps: tuple[StepRow, ...]
    parts: tuple[PartRow, ...]
    broken: tuple[str, ...]
    """Sentences about what cannot be used."""

    def as_json(self) -> dict[str, Any]:
        """Give the object of `steps --json`."""
        return {
            "steps": [row.as_json() for row in self.steps],
            **{
                f"{kind}s": [part.as_json() for part in self.parts if part.kind == kind]
                for kind in _TITLES
            },
            "broken": list(self.broken),
        }


_TITLES = {
    "tool": "Tools, for `tool` and `agent`",
    "check": "Functions of `reply.check` and of tests",
    "reader": "Kinds of documents, for `files.read`",
}


def installed() -> Installed:
    """List all that is installed; what other packages bring is imported, but for tools."""
    from paddock.steps import registry

    kinds, broken = registry.load_all()
    steps = tuple(step_row(name, kind, registry.package(name)) for name, kind in kinds.items())
    said = [str(error) for error in broken]
    parts = (*_tools(), *_checks(said), *_readers(said))
    return Installed(steps, parts, tuple(said))


def step_row(name: str, kind: type[Any], package: str) -> StepRow:
    """Describe one step by its class, as installed by `package`."""
    schema = kind.params.model_json_schema(by_alias=True)
    required = set(schema.get("required", ()))
    params = tuple(
        ParamRow(param, param in required, facts.get("default"), facts)
        for param, facts in schema.get("properties", {}).items()
    )
    outputs = tuple(kind.output.model_fields)
    one_of = tuple(getattr(kind.params, "one_of", ()))
    return StepRow(name, package, _about(kind), params, outputs, _items(kind), one_of)


def _items(kind: type[Any]) -> dict[str, tuple[str, ...]]:
    """Give the fields of what is in the outputs that are lists."""
    schema = kind.output.model_json_schema()
    found: dict[str, tuple[str, ...]] = {}
    for name, facts in schema.get("properties", {}).items():
        ref = facts.get("items", {}).get("$ref", "").rpartition("/")[2]
        if ref:
            found[name] = tuple(schema["$defs"][ref]["properties"])
    return found


def _tools() -> Iterator[PartRow]:
    from importlib.metadata import entry_points

    from paddock.steps.toolbox import builtin, naming

    for name, tool in builtin.TOOLS.items():
        takes = ", ".join(tool.arguments.model_fields)
        yield PartRow("tool", name, DISTRIBUTION, tool.description, takes)
    for point in sorted(entry_points(group=naming.GROUP), key=lambda point: point.name):
        package = point.dist.name if point.dist else "unknown"
        yield PartRow("tool", point.name, package, f"The function {point.value}.")


def _checks(broken: list[str]) -> Iterator[PartRow]:
    from paddock.steps.answers import functions

    for name in functions.FUNCTIONS:
        try:
            function = functions.FUNCTIONS[name]
        except functions.BrokenCheck as error:
            broken.append(str(error))
            continue
        yield PartRow("check", name, functions.package(name), _about(function), _taken(function))


def _readers(broken: list[str]) -> Iterator[PartRow]:
    from paddock.steps.readers import kinds, plugins

    for name, media_type in kinds.MEDIA_TYPES.items():
        yield PartRow("reader", name, DISTRIBUTION, media_type)
    for name in plugins.names():
        try:
            kind = plugins.load(name)
        except plugins.BrokenReader as error:
            broken.append(f"{str(error).removeprefix('cannot be read: ')}. {error.remedy}")
            continue
        suffixes = ", ".join(kind.suffixes)
        yield PartRow("reader", name, plugins.package(name), kind.media_type, suffixes)


def _about(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _taken(function: Any) -> str:
    """Show what a function takes: names, and defaults where there are some."""
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # one that does not tell
        return ""
    stars: dict[object, str] = {
        inspect.Parameter.VAR_POSITIONAL: "*",
        inspect.Parameter.VAR_KEYWORD: "**",
    }
    return ", ".join(f"{stars.get(one.kind, '')}{one.name}" for one in given)


def text_of(found: Installed) -> str:
    """Lay all of it out."""
    return "\n\n".join((steps_text(found.steps), *_parts_text(found.parts)))


def _parts_text(parts: Sequence[PartRow]) -> Iterator[str]:
    for kind, title in _TITLES.items():
        rows = [part for part in parts if part.kind == kind]
        shown = [_called(row) for row in rows]
        width = max((len(one) for one in shown if len(one) <= _MOST_NAME), default=0) + 2
        lines = [title]
        for row, name in zip(rows, shown, strict=True):
            about = row.about + (f" ({row.takes})" if kind == "reader" and row.takes else "")
            about += f" [{row.package}]" if row.package != DISTRIBUTION else ""
            head = (
                f"  {name:<{width}}" if len(name) <= _MOST_NAME else f"  {name}\n{'':>{width + 2}}"
            )
            lines.append(f"{head}{about}".rstrip())
        yield "\n".join(lines)


def _called(row: PartRow) -> str:
    return f"{row.name}({row.takes})" if row.takes and row.kind != "reader" else row.name


_MOST_NAME = 34


def steps_text(rows: Sequence[StepRow]) -> str:
    """Lay steps out: name and what it does, parameters with their defaults, outputs."""
    return "\n\n".join(_step_text(row) for row in rows)


def _step_text(row: StepRow) -> str:
    needed = [param.name for param in row.params if param.is_required]
    others = [_with_default(param) for param in row.params if not param.is_required]
    lines = [f"{row.name}  {row.about}".rstrip()]
    if row.package != DISTRIBUTION:
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
    default = plain_default(param)
    if default is None:
        return param.name
    return f"{param.name} {json.dumps(default, ensure_ascii=False)}"


def plain_default(param: ParamRow) -> Any:
    """Give a parameter's default, without the members of a table that say nothing."""
    if isinstance(param.default, dict):
        return {name: value for name, value in param.default.items() if value is not None}
    return param.default
