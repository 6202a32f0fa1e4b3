"""Contracts of a step: `Params`, `Output`, `Step`, and the `Tools` that the runner gives to it.

A step is a class with typed parameters, a typed output and one method. A package registers its own
under the entry-point group `paddock.steps`, exactly as the built-in ones are (see
`pyproject.toml`). Knows no runner and no Prefect.

Also what `Tools` holds: allowed folders (`Roots`), callable tools (`Toolset`), the call cache
(`CallCache`), vector stores (`VectorStores`). A vector store is a folder whose rows belong to
items: what one item keeps replaces what it kept before, in one commit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    from concurrent.futures import Future
    from threading import Event

    from paddock.engine.request import ModelSpec, Pool, Priority, Role


class OutsideRoots(Exception):
    """A path that leads out of every allowed folder."""

    def __init__(self, text: str, roots: tuple[Path, ...]) -> None:
        self.text = text
        self.roots = roots
        allowed = ", ".join(f"'{root}'" for root in roots)
        super().__init__(
            f"path '{text}' leads outside the pipeline's folders ({allowed}). "
            f"Give that folder as a `dir` or `path` input to allow it."
        )


@dataclass(frozen=True, slots=True)
class Roots:
    """The pipeline's own folder, against which relative paths are read, and what inputs add."""

    base: Path
    allowed: tuple[Path, ...]
    """Absolute, with symlinks resolved; `base` is among them."""

    def resolve(self, text: str) -> Path:
        """Return the absolute path, symlinks resolved, also of a file that is not there yet.

        Raises:
            OutsideRoots: it does not lie under one of `allowed`.
        """
        path = self._without_links(text) or (self.base / text).resolve()
        if not any(path.is_relative_to(root) for root in self.allowed):
            raise OutsideRoots(text, self.allowed)
        return path

    def _without_links(self, text: str) -> Path | None:
        """Return the path where it is plain: no `..`, and no link below an allowed folder.

        The folders themselves are resolved, so only what lies below them is looked at: three
        system calls where `Path.resolve` makes seven, for each of ten thousand documents.
        """
        whole = os.path.normpath(os.path.join(self.base, text))  # noqa: PTH118 - the hot path
        root = next((str(root) for root in self.allowed if whole.startswith(f"{root}{os.sep}")), "")
        if not root or ".." in text:
            return None
        at = root
        for name in whole[len(root) + 1 :].split(os.sep):  # noqa: PTH206
            at = f"{at}{os.sep}{name}"
            try:
                mode = os.lstat(at).st_mode
            except FileNotFoundError:
                break  # what is not there cannot be a link
            except (OSError, ValueError):
                return None
            if stat.S_ISLNK(mode):
                return None
        return Path(whole)


Vector = Sequence[float]


@dataclass(frozen=True, slots=True)
class ItemName:
    """Who a step works for: what rows of a store, and an answer's sources, are named by."""

    step: str = ""
    """The step's id."""
    key: str = ""
    """The item's key, as a reader knows it: those of nested blocks joined; else the step's id."""
    source: str = ""
    """The item's own file as a reader knows it (`relpath`, else its path); empty without one."""
    path: str = ""
    """That file's path, relative to the pipeline's folder where it lies inside."""
    owner: str = ""
    """Names the item among all those of all pipelines beside a ledger; empty: its key does."""
    attempt: str = field(default="", compare=False)
    """The same until the item is done or given up, also after a run was killed; then another."""


@dataclass(frozen=True, slots=True)
class EmbedModel:
    """Whose vectors a store holds."""

    ref: str
    """Its name, for people."""
    digest: str
    """Its identity (`ModelFacts.identity`); vectors of another one cannot be compared."""


@dataclass(frozen=True, slots=True)
class VectorRow:
    """One text with its vector and where it stands in its item."""

    index: int
    """Its place among the item's rows, from 0; no two rows of an item have the same."""
    text: str
    vector: Vector
    page: int | None = None
    page_end: int | None = None
    """The pages on which it begins and ends, from 1; None where the document has none."""
    headings: tuple[str, ...] = ()
    """The headings above it, outermost first."""
    source: str = ""
    """Where it comes from; empty: the item's own file, else its key."""
    made: str = ""
    """What else decided the vector besides text, model and dimensions; empty for nothing."""


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A row that was found. `score`: the higher, the nearer; comparable within one search."""

    text: str
    score: float
    source: str
    item: str
    """The key of the item that kept it."""
    step: str
    index: int
    page: int | None
    page_end: int | None
    headings: tuple[str, ...]


class VectorStore(Protocol):
    """One open store. Every verb may be called by many tasks at once; writers take turns."""

    @property
    def path(self) -> Path:
        """The folder."""
        ...

    @property
    def dimensions(self) -> int | None:
        """How long each vector is; None as long as nothing was ever kept in it."""
        ...

    @property
    def n_rows(self) -> int:
        """How many rows it holds, those of all items."""
        ...

    async def known(self, item: ItemName, made: str = "") -> Mapping[str, Vector]:
        """Return the vectors that a step keeps for an item, by text, so that none is made twice.

        Only those that were made in the same way.
        """
        ...

    async def replace(self, item: ItemName, rows: Sequence[VectorRow]) -> int:
        """Let a step keep exactly these rows for an item, in one commit; gives how many are new.

        What is equal is not written again. It is on the disk when this returns, or not at all.

        Raises:
            StepError: a vector has another length; the store cannot be written.
        """
        ...

    async def nearest(
        self, vector: Vector, k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[SearchHit]:
        """Return the `k` rows whose vectors are the most alike (cosine), nearest first.

        `where`: see `steps/vectors/where_filter.py`; `{"item": key}` keeps to one item.

        Raises:
            StepError: `where` is no filter; the store cannot be read.
        """
        ...

    async def matching(
        self, text: str, k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[SearchHit]:
        """Return the `k` rows whose words match the best (BM25), best first.

        Raises:
            StepError: `where` is no filter; the store cannot be read.
        """
        ...


class VectorStores(Protocol):
    """The stores of a run: each path is opened once, and has one writer at a time."""

    async def open(
        self,
        path: Path,
        dimensions: int | None,
        model: EmbedModel,
        *,
        is_new_allowed: bool = True,
    ) -> VectorStore:
        """Open the store in a folder; one that is not there is made when a row is kept in it.

        `path` is absolute and was resolved (`Tools.roots`). `dimensions` None: whatever it has,
        or what its first vector has. Not closed by the caller: it lives as long as the run.

        Raises:
            StepError: it is missing though it must be there, broken, of another model, or of
                other dimensions.
        """
        ...


T = TypeVar("T")

_MOST_SENTENCE_CHARS = 500


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave. It comes from outside: data, never an instruction."""

    text: str
    """The same for a model to read, bounded; where `is_error`, one plain sentence."""
    value: Any = None
    """Plain JSON data; the text itself where the tool gives nothing else."""
    is_error: bool = False
    """The tool ran and said no. A tool that could not be run at all raises `StepError`."""

    def sentence(self) -> str:
        r"""Return the text for a person, in one line that is not too long: a server may say anything.

        >>> ToolResult("no\n  field").sentence(), len(ToolResult("x" * 9000).sentence())
        ('no field', 500)
        """
        text = " ".join(self.text.split())
        return text if len(text) <= _MOST_SENTENCE_CHARS else f"{text[: _MOST_SENTENCE_CHARS - 1]}…"


@dataclass(frozen=True, slots=True)
class BoundTool:
    """One tool, ready to be called; each call is in the ledger and has a deadline."""

    name: str
    description: str
    schema: Mapping[str, Any]
    """JSON Schema of its arguments, always of an object."""
    has_effects: bool
    """Whether a call may change something or send something off this machine."""
    timeout_s: float
    do: Callable[[Mapping[str, Any]], Awaitable[ToolResult]]
    server: str | None = None
    """The MCP server that has it."""

    async def call(self, args: Mapping[str, Any]) -> ToolResult:
        """Call it once; arguments that do not fit its schema come back as an error result.

        Raises:
            StepError: it could not be run: too late, dead, not allowed.
        """
        return await self.do(args)


class Toolset(Protocol):
    """The tools of a run. What they need is opened at first use and closed with the run."""

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        """Return a tool: built in, of Python, `file.py:function`, or of an MCP server.

        Without `server` the name is looked for among the built-in and installed ones, then as
        `server.tool`. `options` are what the author fixes and no model can change: `timeout` of
        any tool, `hosts` of `http.get`, `root` of `files.read` and `files.search`.

        Raises:
            StepError: there is none of this name, or its server cannot be used; says the near ones.
        """
        ...

    async def names(self, server: str | None = None) -> Sequence[str]:
        """List the tools that are there without a server, or those of one server.

        Raises:
            StepError: there is no such server, or it cannot be used.
        """
        ...


class CallCache(Protocol):
    """The ledger of calls, for what is not asked of a model."""

    async def once(
        self,
        kind: str,
        asked: Mapping[str, Any],
        do: Callable[[], Awaitable[T]],
        *,
        keeps: bool = True,
    ) -> T:
        """Return the recorded result of the same request, else do it and record what comes out.

        `asked` and the result are plain JSON data. With `keeps=False` the call is recorded and
        never looked up: what has effects or depends on the time.
        """
        ...


class NoCallCache:
    """Does everything anew and records nothing: where there is no ledger."""

    async def once(
        self,
        kind: str,
        asked: Mapping[str, Any],
        do: Callable[[], Awaitable[T]],
        *,
        keeps: bool = True,
    ) -> T:
        """Do it."""
        return await do()


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
        """Return what is wrong with this choice of parameters, one plain sentence each."""
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


class ModelResolver(Protocol):
    """Resolves a step's `model` parameter."""

    def resolve(self, alias: str | None, role: Role) -> ModelSpec:
        """Return the model of this alias, or the default of this role."""
        ...


class OutputFiles(Protocol):
    """The files that a pipeline wrote, as its ledger knows them."""

    def owned(self) -> frozenset[Path]:
        """Return every file that this pipeline has written, absolute; they are never scanned."""
        ...

    async def known_sha256(self, path: Path) -> frozenset[str]:
        """Return the digests that we wrote, or were about to write, to this path."""
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

    async def note_removed(self, path: Path) -> None:
        """Note that a file has left its place: while one is there, the item is not done."""
        ...

    async def note_rows_kept(self, store: Path) -> None:
        """Note that rows are about to be kept in a store: without them the item is not done."""
        ...

    async def note_file_read(self, path: Path) -> None:
        """Note that a file was read that the step could not name beforehand (see `Step.reads`)."""
        ...

    async def note_rows_read(self, store: Path) -> None:
        """Note that a store is about to be searched: what it holds decides the result."""
        ...


class StepLog(Protocol):
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


class NoVectorStores:
    """No stores: what a step finds where none can be had, such as while planning."""

    async def open(
        self,
        path: Path,
        dimensions: int | None,
        model: EmbedModel,
        *,
        is_new_allowed: bool = True,
    ) -> VectorStore:
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
        """Return which checks an answer does not pass, each as a plain sentence for the model.

        `output` is its value by the schema (None without one), `text` what was said.

        Raises:
            StepError: a check cannot be evaluated.
        """
        ...


UNKNOWN = "\N{REPLACEMENT CHARACTER}"
"""Stands, while planning, for what is not known yet: a prompt that contains it is not asked for."""


class ReplyNotCached(Exception):
    """While planning: a call whose reply is not in the ledger. A step catches it in `foresee`."""


@dataclass(frozen=True, slots=True)
class CallForecast:
    """How many model calls a step would make, and how many of them have replies already.

    A step whose calls are many may have `async def foresee(self, params, tools) -> Foreseen`: it
    is asked while planning, with a pool that counts roughly and raises `ReplyNotCached`.
    """

    n_calls: int
    n_known: int


class DocumentReaders(Protocol):
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
    models: ModelResolver
    roots: Roots
    outputs: OutputFiles
    log: StepLog
    priority: Priority = "batch"
    total_s: float | None = None
    """The step's `timeout.total`, to be put on each request."""
    idle_s: float | None = None
    pipelines: SubPipelines | None = None
    """None where no pipeline may be run from here, such as while planning."""
    toolset: Toolset = field(default_factory=NoToolset)
    """What is called by name: built-in tools, Python functions, MCP servers."""
    memo: CallCache = field(default_factory=NoCallCache)
    """Where calls that are no model's are recorded and found again."""
    reply: ReplyForm | None = None
    """What `reply` asks for; None where the author wrote none."""
    n_refused: int = 0
    """How often the step was tried before, and its answer did not pass its checks: another answer
    is wanted now."""
    stores: VectorStores = field(default_factory=NoVectorStores)
    """Vector stores on the disk."""
    item: ItemName = field(default_factory=ItemName)
    """For whom the step works."""
    readers: DocumentReaders | None = None
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
