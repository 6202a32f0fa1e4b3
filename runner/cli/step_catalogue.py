"""Catalogue of installed steps, tools, checks, readers and triggers, as text and JSON.

A part that cannot be imported is listed with its package; the others are still shown.
`step_description` describes one step, or a function of a Python file without running that file.
`llm_template` is a commented pipeline for coding assistants, with the whole catalogue.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from paddock.engine.system.distribution import DISTRIBUTION
from paddock.engine.system.records import Struct, field
from paddock.pipelines.filters import FILTERS
from paddock.pipelines.triggers import PLANNED_TRIGGERS
from paddock.runner.bind.trigger_plugins import load_all_triggers, trigger_points
from paddock.steps import python_step, registry
from paddock.steps.plugins import TABLE_GROUP, TOOL_GROUP, package_of, plugins
from paddock.steps.readers import document_kinds, reader
from paddock.steps.tables.table_files import all_formats
from paddock.steps.tools import builtin_tools
from paddock.steps.tools.python_files import FunctionNotFound

from .exit_status import CommandError

_WIDTH = 96
_MAX_NAME_WIDTH = 34


class ParamRow(Struct, frozen=True):
    name: str
    is_required: bool
    default: Any
    schema: dict[str, Any]

    @property
    def plain_default(self) -> Any:
        if isinstance(self.default, dict):
            return {name: value for name, value in self.default.items() if value is not None}
        return self.default


class StepRow(Struct, frozen=True):
    name: str
    package: str
    about: str
    params: tuple[ParamRow, ...]
    outputs: tuple[str, ...]
    items: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Output → the fields of its items, for outputs that are lists."""
    one_of: tuple[str, ...] = ()
    """Parameters of which exactly one must be set."""

    @property
    def described_outputs(self) -> tuple[str, ...]:
        return tuple(
            f"{name} (each {' '.join(self.items[name])})" if name in self.items else name
            for name in self.outputs
        )

    def as_json(self) -> dict[str, Any]:
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


class PartRow(Struct, frozen=True):
    """A tool, a check function, a reader, a format of tables or a trigger."""

    kind: str
    name: str
    package: str
    about: str
    takes: str = ""
    """Arguments, or the suffixes of files."""

    def as_json(self) -> dict[str, Any]:
        facts = {"name": self.name, "package": self.package, "description": self.about}
        return facts | ({"takes": self.takes} if self.takes else {})


class InstalledParts(Struct, frozen=True):
    steps: tuple[StepRow, ...]
    parts: tuple[PartRow, ...]
    broken: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "steps": [row.as_json() for row in self.steps],
            **{
                f"{kind}s": [part.as_json() for part in self.parts if part.kind == kind]
                for kind in _SECTION_TITLES
            },
            "broken": list(self.broken),
        }


_SECTION_TITLES = {
    "tool": "Tools, for `tool` and `agent`",
    "check": "Functions of `reply.check` and of tests",
    "reader": "Kinds of documents, for `files.read`",
    "format": "Formats of tables, for `files.rows` and `files.write`",
    "trigger": "Triggers, under `on`",
}


def list_installed() -> InstalledParts:
    """Return the catalogue; imports all of other packages but tools."""
    kinds, broken_steps = registry.load_all_steps()
    steps = tuple(step_row(name, kind, registry.step_package(name)) for name, kind in kinds.items())
    broken = [str(error) for error in broken_steps]
    parts = list[PartRow]()
    for name, tool in builtin_tools.BUILT_IN_FUNCTIONS.items():
        takes = ", ".join(tool.arguments.model_fields)
        parts.append(PartRow("tool", name, DISTRIBUTION, tool.description, takes))
    for point in (point for points in plugins(TOOL_GROUP).values() for point in points):
        row = PartRow("tool", point.name, package_of(point), f"The function {point.value}.")
        parts.append(row)
    for name in registry.CHECK_FUNCTIONS:
        try:
            function = registry.CHECK_FUNCTIONS[name]
        except registry.UnusableCheckPlugin as error:
            broken.append(str(error))
            continue
        package, takes = registry.check_package(name), _parameter_list(function)
        parts.append(PartRow("check", name, package, _first_sentence(function), takes))
    for name, media_type in document_kinds.MEDIA_TYPES.items():
        parts.append(PartRow("reader", name, DISTRIBUTION, media_type))
    for name in reader.plugin_kinds():
        try:
            kind = reader.load_reader(name)
        except reader.BrokenReader as error:
            broken.append(f"{error.what}. {error.remedy}")
            continue
        package, suffixes = reader.reader_package(name), ", ".join(kind.suffixes)
        parts.append(PartRow("reader", name, package, kind.media_type, suffixes))
    formats, broken_formats = all_formats()
    broken += map(str, broken_formats)
    for name, form in formats.items():
        if not name:
            continue
        points = plugins(TABLE_GROUP).get(name)
        package = package_of(points[0]) if points else DISTRIBUTION
        uses = {"read": form.is_read, "written": form.is_written}
        words = " and ".join(use for use, has in uses.items() if has)
        parts.append(PartRow("format", name, package, words, ", ".join(form.suffixes)))
    for name, table in PLANNED_TRIGGERS.items():
        parts.append(PartRow("trigger", name, DISTRIBUTION, _first_sentence(table), _keys(table)))
    triggers, broken_triggers = load_all_triggers()
    broken += map(str, broken_triggers)
    for name, kind in triggers.items():
        package = package_of(trigger_points()[name][0])
        parts.append(PartRow("trigger", name, package, _first_sentence(kind), _keys(kind.Keys)))
    return InstalledParts(steps, tuple(parts), tuple(broken))


def step_row(name: str, kind: type[Any], package: str) -> StepRow:
    schema = kind.params.model_json_schema(by_alias=True)
    required = set(schema.get("required", ()))
    params = tuple(
        ParamRow(param, param in required, facts.get("default"), facts)
        for param, facts in schema.get("properties", {}).items()
    )
    made = kind.output.model_json_schema()
    refs = {
        output: facts.get("items", {}).get("$ref", "").rpartition("/")[2]
        for output, facts in made.get("properties", {}).items()
    }
    items = {output: tuple(made["$defs"][ref]["properties"]) for output, ref in refs.items() if ref}
    outputs, one_of = tuple(kind.output.model_fields), tuple(getattr(kind.params, "one_of", ()))
    return StepRow(name, package, _first_sentence(kind), params, outputs, items, one_of)


def _first_sentence(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _keys(table: type[BaseModel]) -> str:
    return ", ".join(part.alias or name for name, part in table.model_fields.items())


def _parameter_list(function: Any) -> str:
    """Return the names of a function's parameters, without those that a check's scope fills in."""
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a built-in without a signature
        return ""
    stars: dict[object, str] = {
        inspect.Parameter.VAR_POSITIONAL: "*",
        inspect.Parameter.VAR_KEYWORD: "**",
    }
    from_scope = getattr(function, "from_scope", ())
    written = (part for part in given if part.name not in from_scope)
    return ", ".join(f"{stars.get(part.kind, '')}{part.name}" for part in written)


def catalogue_text(found: InstalledParts) -> str:
    steps = (PartRow("step", row.name, row.package, row.about) for row in found.steps)
    parts = (*steps, *found.parts)
    titles = {"step": "Steps, for `uses`; `paddock steps NAME` shows all of one"}
    return "\n\n".join(_parts_text(parts, titles | _SECTION_TITLES))


def _parts_text(parts: Sequence[PartRow], titles: Mapping[str, str]) -> Iterator[str]:
    for kind, title in titles.items():
        rows = [part for part in parts if part.kind == kind]
        shown = [
            f"{row.name}({row.takes})" if row.takes and row.kind != "reader" else row.name
            for row in rows
        ]
        width = max((len(text) for text in shown if len(text) <= _MAX_NAME_WIDTH), default=0) + 2
        lines = [title]
        for row, name in zip(rows, shown, strict=True):
            about = row.about + (f" ({row.takes})" if kind == "reader" and row.takes else "")
            about += f" [{row.package}]" if row.package != DISTRIBUTION else ""
            apart = "" if len(name) <= _MAX_NAME_WIDTH else f"\n{'':>{width + 2}}"
            lines.append(f"  {name:<{width if not apart else 0}}{apart}{about}".rstrip())
        yield "\n".join(lines)


class StepDescription(Struct, frozen=True):
    row: StepRow
    kind: type[Any]

    def as_json(self) -> dict[str, Any]:
        return {
            **self.row.as_json(),
            "version": self.kind.version,
            "models": sorted(self.kind.roles),
            "one_of": list(self.row.one_of),
            "takes_reply": registry.takes_reply(self.kind),
        }

    def text(self) -> str:
        lines = [f"{self.row.name}  {self.row.about}".rstrip()]
        facts = [] if self.row.package in ("", DISTRIBUTION) else [f"package {self.row.package}"]
        if self.kind.roles:
            facts.append(f"uses a model of the role {' or '.join(sorted(self.kind.roles))}")
        if self.row.one_of:
            facts.append(f"exactly one of {', '.join(self.row.one_of)}")
        if registry.takes_reply(self.kind):
            facts.append("`reply` sets the form of its answer")
        lines += [f"  {fact}" for fact in facts]
        if self.row.params:
            lines += ["", "with"]
            width = min(20, max(len(param.name) for param in self.row.params)) + 2
            for param in self.row.params:
                lines += _param_lines(param, width)
        if gives := textwrap.wrap(", ".join(self.row.described_outputs), _WIDTH - 2):
            lines += ["", "gives", *(f"  {line}" for line in gives)]
        needed = [param for param in self.row.params if param.is_required]
        needed += [param for param in self.row.params if param.name in self.row.one_of[:1]]
        needed += [p for p in self.row.params if p.schema.get("examples") and p not in needed]
        last = self.row.name.replace(":", ".").split(".")[-1].lower()
        id_ = "".join(letter if letter.isalnum() else "_" for letter in last) or "step"
        lines += ["", "example", f"  - id: {id_}", f"    uses: {self.row.name}"]
        if needed:
            given = ", ".join(f"{param.name}: {_sample_value(param)}" for param in needed)
            lines.append(f"    with: {{{given}}}")
        if getattr(self.kind, "facts", None) and self.kind.facts.compares:
            lines.append("    reply: {schema: {enum: [invoice, letter]}}")
        return "\n".join(lines)


def step_description(name: str) -> StepDescription:
    """Describe a step by its name, or by `file.py:function`."""
    if registry.is_function_reference(name):
        path = Path(name.rpartition(":")[0]).absolute()
        try:
            kind = python_step.step_of(f"{path.name}:{name.rpartition(':')[2]}", path.parent)
        except FunctionNotFound as error:
            raise CommandError(f"{error.what}.\n  {error.remedy}".rstrip()) from error
        return StepDescription(step_row(name, kind, ""), kind)
    kind = registry.load_step(name)
    whole = registry.own_name(name)
    return StepDescription(step_row(whole, kind, registry.step_package(whole)), kind)


def _param_lines(param: ParamRow, width: int) -> list[str]:
    facts = [schema_type_text(param.schema)]
    if param.is_required:
        facts.append("needed")
    elif param.default is not None:
        facts.append(f"default {json.dumps(param.plain_default, ensure_ascii=False)}")
    about = str(param.schema.get("description", ""))
    indent = " " * (width + 2)
    head = textwrap.wrap(", ".join(facts), _WIDTH, initial_indent=indent, subsequent_indent=indent)
    head[0] = f"  {param.name:<{width}}{head[0].strip()}"
    return [*head, *textwrap.wrap(about, _WIDTH, initial_indent=indent, subsequent_indent=indent)]


def schema_type_text(schema: dict[str, Any]) -> str:
    """Return a JSON Schema's type in a few words.

    >>> schema_type_text({"anyOf": [{"type": "string"}, {"type": "null"}]})
    'text'
    """
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        options = (option for option in schema["anyOf"] if option.get("type") != "null")
        words = map(schema_type_text, options)
        return " or ".join(dict.fromkeys(words)) or "anything"
    if list(schema.get("properties", ())) == ["file"]:
        return "{file: PATH}"
    if schema.get("type") == "array":
        inner = schema_type_text(schema.get("items") or {})
        return "list" if inner == "anything" else f"list of {inner}"
    return _TYPE_WORDS.get(
        str(schema.get("type", "")), "mapping" if "$ref" in schema else "anything"
    )


_TYPE_WORDS = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false",
    "object": "mapping", "null": "nothing",
}  # fmt: skip
_SAMPLE_VALUES = {"text": "…", "whole number": "1", "number": "0.5", "true or false": "true"}


def _sample_value(param: ParamRow) -> str:
    examples = param.schema.get("examples")
    if examples:
        return json.dumps(examples[0], ensure_ascii=False)
    options = param.schema.get("anyOf", [param.schema])
    first: dict[str, Any] = next((o for o in options if o.get("type") != "null"), {})
    if first.get("type") == "array":
        return '["…"]'
    words = schema_type_text(first)
    return "{}" if words == "mapping" else f'"{_SAMPLE_VALUES.get(words, "…")}"'


_TEMPLATE_WIDTH = 100
# Resolved, because an editable install is a tree of links that lacks the data files.
_TEMPLATE = Path(__file__).resolve().parent / "templates" / "assistants.yaml"


def llm_template(found: InstalledParts) -> str:
    filters = "\n#   ".join(textwrap.wrap(" ".join(sorted(FILTERS)), _TEMPLATE_WIDTH - 14))
    lines = [
        _TEMPLATE.read_text("utf-8").replace("{filters}", filters),
        "# Every installed step: its parameters under `with`, and its outputs.",
    ]
    described: dict[tuple[str, str], str] = {}
    for row in found.steps:
        lines += ["#", *_template_step_lines(row, described)]
    lines.append("#")
    titles = {"check": "Functions for `reply.check`", "tool": "Tools for `tool` and `agent`"}
    for kind, title in titles.items():
        lines.append(f"# {title}:")
        for part in found.parts:
            if part.kind == kind:
                lines += _comment_lines(f"#   {part.name}({part.takes}): {part.about}", "#       ")
    return "\n".join(lines) + "\n"


def _template_step_lines(row: StepRow, described: dict[tuple[str, str], str]) -> Iterator[str]:
    """Yield a step's lines; `described`: the step that has described each parameter, once."""
    known: dict[str, list[str]] = {}
    yield from _comment_lines(f"# {row.name}: {row.about}", "#     ")
    if row.one_of:
        yield f"#   exactly one of {', '.join(row.one_of)}"
    for param in row.params:
        step = described.setdefault((param.name, json.dumps(param.schema)), row.name)
        if step != row.name:
            known.setdefault(step, []).append(param.name)
            continue
        facts, about = schema_type_text(param.schema), param.schema.get("description") or "…"
        if param.is_required:
            facts += ", needed"
        elif param.plain_default not in (None, {}, []):
            facts += f", default {json.dumps(param.plain_default, ensure_ascii=False)}"
        yield from _comment_lines(f"#   {param.name} ({facts}): {about}", "#       ")
    for step, names in known.items():
        yield from _comment_lines(f"#   as of {step}: {', '.join(names)}", "#       ")
    if row.outputs:
        yield from _comment_lines(f"#   gives {', '.join(row.described_outputs)}", "#       ")


def _comment_lines(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _TEMPLATE_WIDTH, subsequent_indent=indent, break_on_hyphens=False)
