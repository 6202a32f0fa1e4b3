"""Tell all of one installed step: what it takes, with types and defaults, and what it gives.

Also of a function of a Python file, as a step of one's own; nothing of that file is run.
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engine.system.distribution import DISTRIBUTION

from .exits import CommandError
from .installed import ParamRow, StepRow, plain_default, step_row

_WIDTH = 96


@dataclass(frozen=True, slots=True)
class OneStep:
    """A step with its parameters."""

    row: StepRow
    kind: type[Any]

    def as_json(self) -> dict[str, Any]:
        """Give the object of `steps NAME --json`."""
        return {
            **self.row.as_json(),
            "version": self.kind.version,
            "models": sorted(self.kind.roles),
            "one_of": list(self.row.one_of),
            "takes_reply": bool(getattr(self.kind, "takes_reply", False)),
        }

    def text(self) -> str:
        """Lay it out for a person."""
        lines = [f"{self.row.name}  {self.row.about}".rstrip()]
        lines += [f"  {fact}" for fact in self._facts()]
        if self.row.params:
            lines += ["", "with"]
            width = min(20, max(len(param.name) for param in self.row.params)) + 2
            for param in self.row.params:
                lines += _param_lines(param, width)
        if self.row.outputs:
            lines += ["", "gives", *textwrap.wrap(", ".join(self.row.given), _WIDTH, **_INDENT)]
        return "\n".join(
            [*lines, "", "example", *textwrap.indent(self._example(), "  ").split("\n")]
        )

    def _facts(self) -> list[str]:
        facts = [] if self.row.package in ("", DISTRIBUTION) else [f"package {self.row.package}"]
        if self.kind.roles:
            facts.append(f"asks a model of the role {' or '.join(sorted(self.kind.roles))}")
        if self.row.one_of:
            facts.append(f"exactly one of {', '.join(self.row.one_of)}")
        if getattr(self.kind, "takes_reply", False):
            facts.append("`reply` asks for the form of its answer")
        return facts

    def _example(self) -> str:
        needed = [param for param in self.row.params if param.is_required]
        needed += [param for param in self.row.params if param.name in self.row.one_of[:1]]
        needed += [p for p in self.row.params if p.schema.get("examples") and p not in needed]
        lines = [f"- id: {_id(self.row.name)}", f"  uses: {self.row.name}"]
        if needed:
            given = ", ".join(f"{param.name}: {_sample(param)}" for param in needed)
            lines.append(f"  with: {{{given}}}")
        return "\n".join(lines)


_INDENT: Any = {"initial_indent": "  ", "subsequent_indent": "  "}


def told(name: str) -> OneStep:
    """Find a step by its name, or by `file.py:function`.

    Raises:
        CommandError: there is none, or the file has no such function.
        BrokenStep: it cannot be used, with the package that brings it.
        UnknownStep: with the known names.
    """
    from paddock.steps import own_function, registry

    if own_function.is_function(name):
        path = Path(name.rpartition(":")[0]).absolute()
        try:
            kind = own_function.step_of(f"{path.name}:{name.rpartition(':')[2]}", path.parent)
        except own_function.NoFunction as error:
            raise CommandError(f"{error.what}.\n  {error.remedy}".rstrip()) from error
        return OneStep(step_row(name, kind, ""), kind)
    kind = registry.load(name)
    whole = registry.ALIASES.get(name, name)
    return OneStep(step_row(whole, kind, registry.package(whole)), kind)


def _param_lines(param: ParamRow, width: int) -> list[str]:
    facts = [type_words(param.schema)]
    if param.is_required:
        facts.append("needed")
    elif param.default is not None:
        facts.append(f"default {json.dumps(plain_default(param), ensure_ascii=False)}")
    about = str(param.schema.get("description", ""))
    indent = " " * (width + 2)
    head = textwrap.wrap(", ".join(facts), _WIDTH, initial_indent=indent, subsequent_indent=indent)
    head[0] = f"  {param.name:<{width}}{head[0].strip()}"
    return [
        *head,
        *textwrap.wrap(about, _WIDTH, initial_indent=indent, subsequent_indent=indent),
    ]


def type_words(schema: dict[str, Any]) -> str:
    """Say a JSON Schema's type in a few words.

    >>> type_words({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]})
    'list of text'
    """
    if "enum" in schema:
        return " or ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        words = [type_words(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(words)) or "anything"
    if list(schema.get("properties", ())) == ["file"]:
        return "{file: PATH}"
    if schema.get("type") == "array":
        items = schema.get("items")
        inner = type_words(items) if isinstance(items, dict) and items else ""
        return f"list of {inner}" if inner and inner != "anything" else "list"
    return _WORDS.get(str(schema.get("type", "")), "mapping" if "$ref" in schema else "anything")


_WORDS = {
    "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false",
    "object": "mapping", "null": "nothing",
}  # fmt: skip
_SAMPLES = {"text": "…", "whole number": "1", "number": "0.5", "true or false": "true"}


def _sample(param: ParamRow) -> str:
    """Give a value for the example: of the right kind, and plainly a stand-in."""
    examples = param.schema.get("examples")
    if examples:
        return json.dumps(examples[0], ensure_ascii=False)
    words = type_words(param.schema).partition(" or ")[0]
    if words.startswith("list"):
        return '["…"]'
    return "{}" if words == "mapping" else f'"{_SAMPLES.get(words, "…")}"'


def _id(name: str) -> str:
    """Make an id of a step's name."""
    last = name.replace(":", ".").split(".")[-1].lower()
    return "".join(letter if letter.isalnum() else "_" for letter in last) or "step"
