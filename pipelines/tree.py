"""The nouns of a pipeline: steps, blocks and the whole, as they are written, with their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from .checking.check import Check
from .errors import Fault
from .expressions import Expression, Path, Template, Value
from .inputs import Input
from .keys import OnError
from .marks import Mark
from .shape import Controls, ModelKeys, Retry, SecretKeys, Timeout
from .source import Document

if TYPE_CHECKING:
    from .claims import Test
    from .servers import Server
    from .triggers import Budget, Concurrency, On


@dataclass(frozen=True)
class Reply:
    """What the answer of a step must be."""

    schema: Any
    """As it is written; None where there is none. `pipelines.reply` reads it."""
    checks: Mapping[int, Check]
    """Each by its place in the list; those that cannot be read are not among them."""
    repair: int


@dataclass(frozen=True)
class Step:
    """One step as it is written. `at` is its place in the document."""

    id: str
    at: Path
    mark: Mark
    uses: str
    params: Value
    """What stands under `with`."""
    files: Mapping[str, Template] = field(default_factory=dict)
    """The parameters that name a template file, and what is in it."""
    has_own_id: bool = True
    needs: tuple[str, ...] = ()
    if_: Expression | None = None
    retry: Retry | None = None
    timeout: Timeout | None = None
    cache: bool | None = None
    returns: Value | None = None
    reply: Reply | None = None
    broken: frozenset[str] = frozenset()
    """The parameters in which a fault was found already."""


@dataclass(frozen=True)
class Block:
    """A `for_each` and the steps that run for each item."""

    id: str
    at: Path
    mark: Mark
    var: str
    over: Expression
    body: tuple[Node, ...]
    has_own_id: bool = True
    where: Expression | None = None
    """Which items of the list it is done for; None: all."""
    key: Expression | None = None
    max_parallel: int | None = None
    on_error: OnError | None = None
    needs: tuple[str, ...] = ()
    if_: Expression | None = None
    retry: Retry | None = None
    timeout: Timeout | None = None
    cache: bool | None = None
    returns: Value | None = None


Node: TypeAlias = Step | Block


@dataclass(frozen=True)
class Elsewhere:
    """A text outside of the steps that may hold expressions, and the names known there."""

    at: Path
    text: Value
    names: frozenset[str]


@dataclass(frozen=True)
class Pipeline:
    """A whole file. `faults` is empty in one that `validate` gave."""

    document: Document
    name: str
    description: str
    inputs: Mapping[str, Input]
    models: Mapping[str, ModelKeys]
    defaults: Controls
    steps: tuple[Node, ...]
    returns: Value | None = None
    on: On | None = None
    concurrency: Concurrency | None = None
    budget: Budget | None = None
    tests: tuple[Test, ...] = ()
    secrets: Mapping[str, SecretKeys] = field(default_factory=dict)
    servers: Mapping[str, Server] = field(default_factory=dict)
    """The MCP servers by their names."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """Texts outside of the steps: in `models`, `on`, `concurrency` and `tests`."""
    faults: tuple[Fault, ...] = field(default=(), compare=False)

    def mark(self, at: Path) -> Mark:
        """Give the place of what stands at `at`."""
        return self.document.mark(at)

    def nodes(self) -> Iterator[Node]:
        """Give every step and block, those in bodies too, in the file's order."""
        yield from _all(self.steps)


def _all(nodes: tuple[Node, ...]) -> Iterator[Node]:
    for node in nodes:
        yield node
        if isinstance(node, Block):
            yield from _all(node.body)
