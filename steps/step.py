"""What a step is: a class with typed parameters, a typed output and one method.

Knows no runner and no Prefect. A step of one's own is registered under the entry-point group
`paddock.steps`, exactly as the built-in ones are (see `pyproject.toml`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from .roots import Roots
from .storage import EmbedModel, ItemName, Store, Stores
from .toolset import BoundTool, Memo, NoMemo, Toolset

if TYPE_CHECKING:
    from concurrent.futures import Future
    from threading import Event

    from paddock.engine.request import ModelSpec, Pool, Priority, Role


class Params(BaseModel):
    """Base of every step's parameters: unknown keys are faults.

    `faults` needs no values, only the names that the author wrote, so it can be asked before
    anything runs; the model itself asks it as well.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, arbitrary_types_allowed=True, defer_build=True
    )

    one_of: ClassVar[tuple[str, ...]] = ()
    """Parameters of which exactly one must be given."""
    sees: ClassVar[Mapping[str, frozenset[str]]] = {}
    """By parameter, the names that the step adds for its text, where the language's are others."""
    conversations: ClassVar[frozenset[str]] = frozenset()
    """Parameters that take a file with a whole conversation, as GitHub Models had them."""

    @classmethod
    def faults(cls, given: Collection[str]) -> tuple[str, ...]:
        """Say what is wrong with this choice of parameters, one plain sentence each."""
        chosen = [name for name in cls.one_of if name in given]
        if not cls.one_of or len(chosen) == 1:
            return ()
        words = ", ".join(f"`{name}`" for name in cls.one_of)
        both = " and ".join(f"`{name}`" for name in chosen)
        return (f"Give exactly one of {words}" + (f", not {both}." if chosen else "."),)

    @model_validator(mode="before")
    @classmethod
    def _only_what_can_be_done(cls, given: Any) -> Any:
        faults = cls.faults(given) if isinstance(given, Mapping) else ()
        if faults:
            raise ValueError(" ".join(faults))
        return given


class Output(BaseModel):
    """Base of every step's output: plain JSON data, since expressions read it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class StepError(Exception):
    """The outside world said no: an unreadable file, a full answer, a path outside its root.

    `reason` is one plain sentence without a place; the runner adds step and item. `is_fatal` says
    that going on with other items is pointless (a full disk). `kind` is what `retry.on` names;
    `missing` says that this machine lacks a package or a program: no item is quarantined for that.
    """

    def __init__(
        self,
        reason: str,
        *,
        remedy: str = "",
        is_fatal: bool = False,
        kind: Literal["io", "check", "timeout", "missing", "other"] = "other",
    ) -> None:
        self.reason = reason
        self.remedy = remedy
        self.is_fatal = is_fatal
        self.kind = kind
        super().__init__(f"{reason} {remedy}".strip())


class StepSkipped(Exception):
    """The step decided that there is nothing to do; its outputs are null."""


class Models(Protocol):
    """Resolves a step's `model` parameter."""

    def resolve(self, alias: str | None, role: Role) -> ModelSpec:
        """Give the model of this alias, or the default of this role."""
        ...


class Outputs(Protocol):
    """The files that a pipeline wrote, as its ledger knows them."""

    def owned(self) -> frozenset[Path]:
        """Tell every file that this pipeline has written, absolute; they are never scanned."""
        ...

    async def known_sha256(self, path: Path) -> frozenset[str]:
        """Tell the digests that we wrote, or were about to write, to this path."""
        ...

    def check_target(self, path: Path, *, is_new: bool = True) -> None:
        """Check that a step may write, move or remove a file; `is_new`: it will be there then.

        Raises:
            StepError: it is Paddock's own, a part of the pipeline, or could run as one.
        """
        ...

    async def intend(self, path: Path, sha256: str) -> None:
        """Note durably what is about to be renamed to `path`.

        Raises:
            StepError: another item of this run writes the same file.
        """
        ...

    async def wrote(self, path: Path, sha256: str, size_bytes: int) -> None:
        """Note that `path` holds this now; it becomes part of the item's entry."""
        ...

    @property
    def takes_over(self) -> bool:
        """Whether this run replaces files that were edited, or are not ours (`--take`)."""
        ...

    async def holds(self, path: Path, sha256: str) -> None:
        """Note that `path` is kept as somebody left it, and that ours has this digest."""
        ...

    async def brings_away(self, path: Path) -> None:
        """Note that a file has left its place: while one is there, the item is not done."""
        ...

    async def keeps_rows(self, store: Path) -> None:
        """Note that rows are about to be kept in a store: without them the item is not done."""
        ...

    async def reads_file(self, path: Path) -> None:
        """Note that a file was read that the step could not name beforehand (see `Step.reads`)."""
        ...

    async def reads_rows(self, store: Path) -> None:
        """Note that a store is about to be searched: what it holds decides the result."""
        ...


class Log(Protocol):
    """Where a step tells a person something; never secrets, never whole documents."""

    def note(self, text: str) -> None:
        """Show one line, and keep it in the report."""
        ...


class NoToolset:
    """No tools: what a step finds where none can be had, such as while planning."""

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        """Refuse.

        Raises:
            StepError: always.
        """
        raise StepError(f"there is no tool '{name}' here: this step was given no tools.")

    async def names(self, server: str | None = None) -> Sequence[str]:
        """List nothing."""
        return ()


class NoStores:
    """No stores: what a step finds where none can be had, such as while planning."""

    async def open(
        self,
        path: Path,
        dimensions: int | None,
        model: EmbedModel,
        *,
        is_new_allowed: bool = True,
    ) -> Store:
        """Refuse.

        Raises:
            StepError: always.
        """
        raise StepError(f"the store '{path}' cannot be opened: this step was given no stores.")


class SubPipelines(Protocol):
    """Runs other pipeline files with the same pool and ledger, as one step of this run."""

    async def run(self, file: str, inputs: Mapping[str, Any]) -> Any:
        """Run a pipeline to its end and give its `returns`; `file` is relative to the pipeline.

        Raises:
            StepError: it cannot be read, lies outside the roots, or did not complete.
        """
        ...


class ReplyForm(Protocol):
    """What a step's `reply` asks of the answer that the step gives: its form, and its checks."""

    @property
    def schema(self) -> Any:
        """The JSON Schema that the answer must match, as plain data; None: it is free text."""
        ...

    @property
    def repair(self) -> int:
        """How often what is wrong with an answer is told to the model, which answers anew."""
        ...

    async def failures(self, output: Any, text: str) -> list[str]:
        """Tell which checks an answer does not pass, each as a plain sentence for the model.

        `output` is its value by the schema (None without one), `text` what was said.

        Raises:
            StepError: a check cannot be evaluated.
        """
        ...


UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""Stands, while planning, for what is not known yet: a prompt that contains it is not asked for."""


class NotKnown(Exception):
    """While planning: a call whose reply is not in the ledger. A step catches it in `foresee`."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """How many model calls a step would make, and how many of them have replies already.

    A step whose calls are many may have `async def foresee(self, params, tools) -> Foreseen`: it
    is asked while planning, with a pool that counts roughly and raises `NotKnown`.
    """

    n_calls: int
    n_known: int


class Readers(Protocol):
    """Reads documents in processes of their own: `paddock.steps.readers.reader_pool`."""

    def submit(
        self, request: Any, is_unwanted: Event | None = None, begun: Callable[[], None] = ...
    ) -> Future[Any]:
        """Read a document as soon as a process is free; `begun` is called when it is."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What a step may use besides its parameters."""

    pool: Pool
    models: Models
    roots: Roots
    outputs: Outputs
    log: Log
    priority: Priority = "batch"
    total_s: float | None = None
    """The step's `timeout.total`, to be put on each request."""
    idle_s: float | None = None
    pipelines: SubPipelines | None = None
    """None where no pipeline may be run from here, such as while planning."""
    toolset: Toolset = field(default_factory=NoToolset)
    """What is called by name: built-in tools, Python functions, MCP servers."""
    memo: Memo = field(default_factory=NoMemo)
    """Where calls that are no model's are recorded and found again."""
    reply: ReplyForm | None = None
    """What `reply` asks for; None where the author wrote none."""
    n_refused: int = 0
    """How often the step was tried before, and its answer did not pass its checks: another answer
    is wanted now."""
    stores: Stores = field(default_factory=NoStores)
    """Vector stores on the disk."""
    item: ItemName = field(default_factory=ItemName)
    """For whom the step works."""
    readers: Readers | None = None
    """The processes in which documents are read; None: one is started for each document."""
    untrusted: tuple[str, ...] = ()
    """What its parameters were filled in with that others wrote, such as `steps.text.text`:
    documents, what tools and commands gave, and all that was made of these."""


P = TypeVar("P", bound=Params, contravariant=True)
O = TypeVar("O", bound=Output, covariant=True)  # noqa: E741 - the letter of the contract


class Step(Protocol[P, O]):
    """One unit of work. Instances hold nothing; the class is made once for each use.

    `params` and `output` are the Pydantic models of the two sides. The runner renders every
    field before `run`, except those typed `Template`, which the step renders itself.
    """

    params: ClassVar[type[Any]]
    output: ClassVar[type[Any]]
    version: ClassVar[int]
    """Part of the ledger's key. A class may name `compatible_versions: ClassVar[frozenset[int]]`,
    earlier ones whose results are as good: they stay fresh unless a run says `--refresh`.
    One with `takes_reply: ClassVar[bool] = True` asks a model by `Tools.reply`: on any other the
    author may write no `reply`."""
    is_pure: ClassVar[bool]
    """May run while planning: reads at most the file system, calls no model."""
    roles: ClassVar[frozenset[Role]]
    """The roles of the models that it calls; empty for none. A class whose parameters decide that
    it asks the default model of another role as well has `roles_besides(written)`, a static method
    that returns those roles: the run opens their pools before it starts."""

    def reads(self, params: P) -> Sequence[str]:
        """Name the files whose content the result depends on, as written in the parameters."""
        ...

    async def run(self, params: P, tools: Tools) -> O:
        """Do the work.

        Raises:
            StepError: the outside world said no.
            StepSkipped: there is nothing to do.
            EngineError: the pool could not do it.
        """
        ...


StepTypes = Mapping[str, type[Step[Any, Any]]]
