"""Nodes of a parsed Go template, and questions about them. Plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Dot:
    """The value that the cursor stands on."""


@dataclass(frozen=True, slots=True)
class Nil:
    """The constant `nil`."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a text or a truth value."""

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
    """`(…).A.B`: fields of what something else gives."""

    operand: Operand
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PipeCommand:
    """An operand, or a function with its arguments."""

    line: int
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each of which gets the last one's value; it may be kept in variables."""

    line: int
    commands: tuple[PipeCommand, ...]
    variables: tuple[str, ...] = ()
    assigns: bool = False
    """Whether the variables are there already (`=`) or are made here (`:=`)."""


Operand = Dot | Nil | Constant | Field | Variable | FunctionName | Chain | Pipe


@dataclass(frozen=True, slots=True)
class Text:
    """What is printed as it stands."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """A value that is printed, unless it goes into a variable."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Branch:
    """`if` or `with`, each `else if` being one more arm."""

    kind: Literal["if", "with"]
    arms: tuple[tuple[Pipe, Block], ...]
    otherwise: Block = ()


@dataclass(frozen=True, slots=True)
class Range:
    """A loop; `otherwise` is for when there is nothing to walk over."""

    pipe: Pipe
    body: Block
    otherwise: Block = ()


@dataclass(frozen=True, slots=True)
class TemplateCall:
    """Another template of the same source, with its own dot."""

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
    """Yield what stands inside of a node."""
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
    """Yield the name of every field that a block speaks of, in their order."""
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
    """Leave out what comes after the first printing of a field; tells whether there is one.

    In a branch each arm is cut by itself, for only one of them is printed.
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
