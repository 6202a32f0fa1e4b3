"""Nodes of a parsed Go template, functions on them, and errors with their lines. Plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    fields: tuple[str, ...] = ()


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


def inner_blocks(node: Node) -> Iterator[Block]:
    """Yield the blocks inside a node."""
    if isinstance(node, Branch):
        yield from (body for _, body in node.arms)
        yield node.otherwise
    elif isinstance(node, Range):
        yield node.body
        yield node.otherwise


def own_pipes(node: Node) -> Iterator[Pipe]:
    """Yield a node's own pipelines."""
    match node:
        case Action(pipe) | Range(pipe):
            yield pipe
        case Branch(_, arms):
            yield from (pipe for pipe, _ in arms)
        case TemplateCall(pipe=Pipe() as pipe):
            yield pipe


def field_names(block: Block) -> Iterator[str]:
    """Yield the name of every field that a block uses, in order."""
    for node in block:
        for pipe in own_pipes(node):
            yield from _names_in_operand(pipe)
        for inner in inner_blocks(node):
            yield from field_names(inner)


def _names_in_operand(operand: Operand) -> Iterator[str]:
    match operand:
        case Field(found):
            yield from found
        case Variable(_, found):
            yield from found
        case Chain(inner, found):
            yield from _names_in_operand(inner)
            yield from found
        case Pipe(_, commands):
            for command in commands:
                for one in command.operands:
                    yield from _names_in_operand(one)


def cut_after_field(block: Block, name: str) -> tuple[Block, bool]:
    """Return a block up to the first action that prints a field, and whether there is one.

    Each arm of a branch is cut by itself, because only one of them is executed.
    """
    kept: list[Node] = []
    for node in block:
        found = False
        if isinstance(node, Action):
            found = name in _names_in_operand(node.pipe)
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
