"""Nodes of a parsed Go template, functions on them, and errors with their lines. Plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal


class GoTemplateError(Exception):
    """A template that cannot be parsed or executed."""

    def __init__(self, line: int, why: str) -> None:
        self.line = line
        self.why = why
        super().__init__(f"line {line}: {why}")


class GoTemplateSyntaxError(GoTemplateError):
    """A template that cannot be parsed."""


class GoTemplateExhausted(GoTemplateError):
    """A template that exceeds a limit."""


@dataclass(frozen=True, slots=True)
class Dot:
    """The current value."""


@dataclass(frozen=True, slots=True)
class Nil:
    """The constant `nil`."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a text or a boolean."""

    value: Any


@dataclass(frozen=True, slots=True)
class Field:
    """`.A.B`: fields of the dot."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """`$x.A.B`: a variable, and fields of it."""

    name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FunctionName:
    """A function by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """`(…).A.B`: fields of another operand's value."""

    operand: Operand
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PipeCommand:
    """An operand, or a function with its arguments."""

    line: int
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands; each gets the value of the one before. Variables may keep the result."""

    line: int
    commands: tuple[PipeCommand, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False
    """Whether the variables exist already (`=`) or are declared here (`:=`)."""


Operand = Dot | Nil | Constant | Field | Variable | FunctionName | Chain | Pipe


@dataclass(frozen=True, slots=True)
class Text:
    """Text between actions."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """A value that is printed unless it is assigned to a variable."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Branch:
    """`if` or `with`; each `else if` is one more arm."""

    kind: Literal["if", "with"]
    arms: tuple[tuple[Pipe, Block], ...]
    otherwise: Block = ()


@dataclass(frozen=True, slots=True)
class Range:
    """A loop; `otherwise` is executed if there is nothing to iterate over."""

    pipe: Pipe
    body: Block
    otherwise: Block = ()


@dataclass(frozen=True, slots=True)
class TemplateCall:
    """A call of another template of the same source."""

    line: int
    name: str
    pipe: Pipe | None


@dataclass(frozen=True, slots=True)
class Jump:
    """`break` or `continue`."""

    kind: Literal["break", "continue"]


Node = Text | Action | Branch | Range | TemplateCall | Jump
Block = tuple[Node, ...]


def field_names(part: Any) -> frozenset[str]:
    """Return the names of all fields in a node, or in a block."""
    return frozenset(
        name
        for node in _walk(part)
        if isinstance(node, Field | Variable | Chain)
        for name in node.names
    )


def _walk(part: Any) -> Iterator[Any]:
    """Yield a node, or those of a tuple, and all nodes inside."""
    if isinstance(part, tuple):
        for one in part:
            yield from _walk(one)
    elif is_dataclass(part):
        yield part
        for one in fields(part):
            yield from _walk(getattr(part, one.name))


def cut_after_field(block: Block, name: str) -> tuple[Block, bool]:
    """Return a block up to the first action that prints a field, and whether there is one.

    Each arm of a branch is cut by itself, because only one of them is executed.
    """
    kept: list[Node] = []
    for node in block:
        found = False
        if isinstance(node, Action):
            found = name in field_names(node.pipe)
        elif isinstance(node, Branch):
            cuts = [(pipe, cut_after_field(body, name)) for pipe, body in node.arms]
            otherwise, found = cut_after_field(node.otherwise, name)
            found = found or any(is_cut for _, (_, is_cut) in cuts)
            node = replace(
                node, arms=tuple((pipe, body) for pipe, (body, _) in cuts), otherwise=otherwise
            )
        elif isinstance(node, Range):
            body, found = cut_after_field(node.body, name)
            node = replace(node, body=body)
        kept.append(node)
        if found:
            return tuple(kept), True
    return tuple(kept), False
