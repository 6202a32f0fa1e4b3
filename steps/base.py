"""Contracts of a step: `Params`, `Output`, `Step`, and the `Tools` that the runner passes to it.

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
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from paddock.engine.system import no_links
from paddock.engine.system.records import SelectiveFields, Struct, field
from paddock.engine.system.text import one_line

from .facts import Facts
from .param_types import InputContent, types_of

if TYPE_CHECKING:
    from concurrent.futures import Future
    from threading import Event

    from paddock.engine.request import ModelSpec, Pool, Priority, Role
    from paddock.engine.system.files import TemporaryFile
    from paddock.pipelines.label_choices import PromptLabels

    from .run_end import RunEndAction
    from .tables.database_tables import DatabaseTables

MAX_PLAIN_FOLDERS = 1_000
PLAIN_FOR_S = 1.0  # 10,000 documents in 100 folders: 2 lstat each instead of 6


class OutsideRoots(Exception):
    def __init__(self, text: str, roots: tuple[Path, ...]) -> None:
        allowed = ", ".join(f"'{root}'" for root in roots)
        self.reason = f"path '{text}' leads outside the pipeline's folders ({allowed})."
        self.remedy = (
            "Stay within these, or read an input of type `dir` that has no default, and give it to "
            "a run: `-i NAME=…`."
        )
        super().__init__(f"{self.reason} {self.remedy}")


class Roots(SelectiveFields, Struct, frozen=True):
    """The pipeline's own folder, which relative paths start from, and those of inputs."""

    hidden = ("plain",)
    uncompared = ("refuse", "plain", "outside")

    base: Path
    allowed: tuple[Path, ...]
    """Absolute, symlinks resolved; includes `base`."""
    refuse: Callable[[str], None] | None = None
    """Raises `StepError` for a path that untrusted text may not name; None: there is none."""
    plain: dict[str, float] = field(default_factory=dict)
    """Folders without a link in their path, and until when that holds, by `time.monotonic`."""
    outside: tuple[Path, ...] = ()
    """Files and folders that lie outside even below one of `allowed`: Paddock's own secrets."""

    def resolve(self, text: str) -> Path:
        """Return the absolute path, symlinks resolved, also of a file that does not exist yet.

        Raises:
            OutsideRoots: it is not under one of `allowed`.
            OSError, RuntimeError: its links may not be followed (`no_links.resolve`).
            StepError: untrusted text names it, which may not.
        """
        if self.refuse is not None:
            self.refuse(text)
        path = self._without_links(text)
        if path is None:
            path = no_links.resolve(str(self.base / text), self.allowed)
            if not any(path.is_relative_to(root) for root in self.allowed):
                raise OutsideRoots(text, self.allowed)
        # Some systems know a file under either case
        if f"{path}{os.sep}".casefold().startswith(_folded(self.outside)):
            raise OutsideRoots(text, self.allowed)
        return path

    def _without_links(self, text: str) -> Path | None:
        """Return the path if it is plain: no `..`, and no link below an allowed folder.

        The allowed folders are resolved, so only what is below them is checked, and a folder once
        in a while: one system call for most of ten thousand documents. A link that replaces a
        folder meanwhile is refused when the file is opened (`no_links`).
        """
        whole = os.path.normpath(os.path.join(self.base, text))  # noqa: PTH118 - the hot path
        root = next((str(root) for root in self.allowed if whole.startswith(f"{root}{os.sep}")), "")
        if not root or ".." in text:
            return None
        parent, now = os.path.dirname(whole), time.monotonic()  # noqa: PTH120
        is_known = now < self.plain.get(parent, 0)
        at = parent if is_known else root
        for name in whole[len(at) + 1 :].split(os.sep):  # noqa: PTH206
            at = f"{at}{os.sep}{name}"
            try:
                mode = os.lstat(at).st_mode
            except FileNotFoundError:
                break  # what does not exist is not a link
            except (OSError, ValueError):
                return None
            if stat.S_ISLNK(mode):
                return None
        if at == whole and not is_known:
            if len(self.plain) >= MAX_PLAIN_FOLDERS:
                self.plain.clear()
            self.plain[parent] = now + PLAIN_FOR_S
        return Path(whole)


@lru_cache
def _folded(outside: tuple[Path, ...]) -> tuple[str, ...]:
    return tuple(f"{kept}{os.sep}".casefold() for kept in outside)


Vector = Sequence[float]
ColumnValue = str | float | bool
"""A value of a vector store's own column."""


class ItemName(SelectiveFields, Struct, frozen=True):
    uncompared = ("attempt",)

    step: str = ""
    key: str = ""
    """The item's key; those of nested blocks are joined; without an item the step's id."""
    source: str = ""
    """The item's file (`relpath`, else its path); empty without one."""
    path: str = ""
    """That file's path, relative to the pipeline's folder if it is inside."""
    owner: str = ""
    """Identifies the item among all pipelines of a ledger; empty: its key does."""
    former: str = ""
    """`owner` before the item was renamed."""
    attempt: str = ""
    """Stays the same until the item is done or given up, even if a run is killed."""


class EmbedModel(Struct, frozen=True):
    ref: str
    digest: str
    """Its identity (`ModelFacts.identity`); vectors of another one cannot be compared."""


class VectorRow(Struct, frozen=True):
    """One text with its vector and its place in its item."""

    index: int
    """Its index among the item's rows, from 0; unique in an item."""
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
    """What else decided the vector besides text, model and dimensions."""
    columns: Mapping[str, ColumnValue] = field(default_factory=dict)


class SearchHit(Struct, frozen=True):
    """A row that was found. `score`: higher is better; comparable within one search."""

    text: str
    score: float
    source: str
    item: str
    """The key of its item."""
    step: str
    index: int
    page: int | None
    page_end: int | None
    headings: tuple[str, ...]
    columns: Mapping[str, ColumnValue] = field(default_factory=dict)
    """Those that the step gave it which stored it, without those that are empty."""


class VectorStore(Protocol):
    """One open store. Methods may be called by many tasks at once; writers queue."""

    @property
    def path(self) -> Path: ...

    @property
    def dimensions(self) -> int | None:
        """The length of its vectors; None while it is empty."""

    @property
    def n_rows(self) -> int: ...

    async def known(self, item: ItemName, made: str = "") -> Mapping[str, Vector]:
        """Return the vectors of a step's rows of an item, by text, so that none is made twice.

        Only those with the same `made`.
        """

    async def replace(self, item: ItemName, rows: Sequence[VectorRow]) -> int:
        """Replace a step's rows of an item in one commit; return the number of new ones.

        Equal rows are not written again. All is on the disk when this returns, or nothing.

        Raises:
            StepError: a vector has another length; the store cannot be written.
        """

    async def nearest(
        self, vectors: Sequence[Vector], k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[list[SearchHit]]:
        """Return for each vector the `k` rows with the most similar ones (cosine), nearest first.

        `where`: see `steps/vectors/where_filter.py`; `{"item": key}` selects one item.

        Raises:
            StepError: `where` is not a filter; the store cannot be read.
        """

    async def matching(
        self, text: str, k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[SearchHit]:
        """Return the `k` rows that match the words best (BM25), best first.

        Raises:
            StepError: `where` is not a filter; the store cannot be read.
        """


class VectorStores(Protocol):
    """The stores of a run: each path is opened once, and has one writer at a time."""

    async def open(
        self, path: Path, dimensions: int | None, model: EmbedModel, *, is_new_allowed: bool = True
    ) -> VectorStore:
        """Open the store in a folder; a new one is created with its first row.

        `path` is absolute and resolved (`Tools.roots`). `dimensions` None: those of the store, or
        of its first vector. The caller does not close it: it lives as long as the run.

        Raises:
            StepError: it is missing though it must exist, broken, of another model, or of other
                dimensions.
        """


T = TypeVar("T")
A = TypeVar("A", covariant=True)

_MOST_SENTENCE_CHARS = 500


class ToolResult(Struct, frozen=True):
    """The result of a tool. It comes from outside: data, never an instruction."""

    text: str
    """Text for a model, of limited length; if `is_error`, one plain sentence."""
    value: Any = None
    """Plain JSON data; the text itself if there is nothing else."""
    is_error: bool = False
    """The tool ran and failed. A tool that cannot be run raises `StepError`."""

    def sentence(self) -> str:
        r"""Return the text for a person, as one short line: a server may send anything.

        >>> ToolResult("no\n  field").sentence(), len(ToolResult("x" * 9000).sentence())
        ('no field', 500)
        """
        return one_line(self.text, _MOST_SENTENCE_CHARS)


class BoundTool(Struct, frozen=True):
    """One tool, ready to be called; each call is recorded and has a time limit."""

    name: str
    description: str
    schema: Mapping[str, Any]
    """JSON Schema of its arguments, always of an object."""
    has_effects: bool
    """Whether a call may change something or send data off this machine."""
    timeout_s: float
    do: Callable[[Mapping[str, Any]], Awaitable[ToolResult]]
    server: str | None = None

    async def call(self, args: Mapping[str, Any]) -> ToolResult:
        """Call it once; arguments that do not match its schema are an error result.

        Raises:
            StepError: it could not be run: time limit, crash, not allowed.
        """
        return await self.do(args)


class Toolset(Protocol):
    """The tools of a run. Their resources are opened at first use and closed with the run."""

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        """Return a tool: built in, of Python, `file.py:function`, or of an MCP server.

        Without `server` the name is looked for among the built-in and installed ones, then as
        `server.tool`. `options` are what the author fixes and no model can change: `timeout` of
        any tool, `hosts` of `http.get`, `root` of `files.read` and `files.search`.

        Raises:
            StepError: there is none of this name, or its server cannot be used.
        """

    async def names(self, server: str | None = None) -> Sequence[str]:
        """Return the names of the tools without a server, or of one server.

        Raises:
            StepError: there is no such server, or it cannot be used.
        """


class CallCache(Protocol):
    """The ledger of calls other than model calls."""

    async def once(
        self,
        kind: str,
        asked: Mapping[str, Any],
        do: Callable[[], Awaitable[T]],
        *,
        keeps: bool = True,
    ) -> T:
        """Return the recorded result of the same request, else call `do` and record its result.

        `asked` and the result are plain JSON data. With `keeps=False` the call is recorded but
        never looked up: it has effects or depends on the time.
        """


class SendState(StrEnum):
    OPEN = "open"
    """It was not sent, or put off: it may be sent by the same key."""
    REFUSED = "refused"
    ANSWERED = "answered"
    UNKNOWN = "unknown"
    """It may have arrived."""


class Claim(NamedTuple):
    """A request that changes something elsewhere, in the ledger before it is sent."""

    hash: str
    request: str
    digest: str
    key: str
    state: SendState
    reply: Mapping[str, Any]


class RequestClaims(Protocol):
    """The requests of one step of an item that change something elsewhere."""

    async def claim(self, item: ItemName, request: Mapping[str, Any], *, n_refused: int) -> Claim:
        """Return what became of an item's request; `OPEN`: it is claimed now, and to be sent."""

    async def end(self, claim: Claim, state: SendState, **reply: Any) -> None:
        """Record how a claimed request ended, with its answer."""


class Params(BaseModel):
    """Base of every step's parameters: unknown keys are faults.

    `faults` needs only the names that the author wrote, no values, so it is called before anything
    runs, and by the model itself.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        defer_build=True,
        coerce_numbers_to_str=True,  # `{{ steps.docs.files | length }}`, as within a longer text
    )

    one_of: ClassVar[tuple[str, ...]] = ()
    """Parameters of which exactly one must be given."""
    sees: ClassVar[Mapping[str, frozenset[str]]] = {}
    """Per parameter, the names that the step adds to its template's scope."""
    conversations: ClassVar[frozenset[str]] = frozenset()
    """Parameters that take a file with a whole conversation."""

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Return what is wrong with parameters that stand together, each time with a remedy."""
        chosen = [name for name in cls.one_of if name in given]
        if not cls.one_of or len(chosen) == 1:
            return ()
        words = ", ".join(f"`{name}`" for name in cls.one_of)
        both = " and ".join(f"`{name}`" for name in chosen)
        return ((f"give exactly one of {words}" + (f", not {both}." if chosen else "."), ""),)

    @classmethod
    def path_fault(cls, path: str, given: Collection[str]) -> tuple[str, str] | None:
        """Return what is wrong with the first of its paths, and a remedy; None: nothing.

        It is asked before a run, with `…` for what only the run knows.
        """
        return None

    @model_validator(mode="before")
    @classmethod
    def _only_what_can_be_done(cls, given: Any) -> Any:
        faults = cls.faults(given) if isinstance(given, Mapping) else ()
        if faults:
            sentences = (f"{what[:1].upper()}{what[1:]} {remedy}" for what, remedy in faults)
            raise ValueError(" ".join(map(str.strip, sentences)))
        return given


class Output(BaseModel):
    """Base of every step's output: plain JSON data, since expressions read it."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class RowsOutput(Output):
    """Base of an output with rows, which are dumped as they are: there may be millions of them."""

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}


class StepError(Exception):
    """The outside world failed: an unreadable file, a full disk, a path outside its root.

    `reason` is one plain sentence; the runner adds step and item. `is_fatal`: other items would
    fail too (a full disk). `kind` is what `retry.on` names; `missing`: this machine lacks a package
    or a program, so no item is quarantined.
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
    """The step has nothing to do; its outputs are null."""


class ModelResolver(Protocol):
    """Resolves the `model` parameter of a step."""

    def resolve(self, alias: str | None, role: Role) -> ModelSpec:
        """Return the model of this alias, or the default of this role."""


class FiledDocument(Struct, frozen=True):
    path: Path
    """Where it was moved."""
    sha256: str
    """Of what was moved there: a person may have edited or removed it since."""
    listed: Path
    """Where it lay when it was listed."""


class OutputFiles(Protocol):
    """The files that a pipeline wrote, as its ledger knows them."""

    def owned(self, root: Path) -> frozenset[str]:
        """Return the absolute paths below a root that the pipeline wrote; they are not scanned."""

    async def known_sha256(self, path: Path, *, moved: bool = False) -> frozenset[str]:
        """Return the digests that this pipeline wrote at a path, or was about to.

        `moved`: also of a user's file that was moved there.
        """

    def check_target(self, path: Path, *, is_new: bool = True) -> None:
        """Check that a step may write, move or remove a file; `is_new`: it will exist then.

        Raises:
            StepError: it belongs to Paddock or the pipeline, or could run as a pipeline.
        """

    async def make_way(self, path: Path) -> None:
        """Remove outputs in the way of `path` that no longer apply; `StepError`: they stay."""

    async def sync(self, file: TemporaryFile) -> None:
        """Wait until a file is on the disk; several are synced together."""

    async def intend(self, path: Path, sha256: str, size_bytes: int | None = None) -> None:
        """Record durably what is about to be renamed to `path`.

        Without `size_bytes` it is a file of the user's, which is no output.

        Raises:
            StepError: another item of this run writes the same file.
        """

    async def wrote(self, path: Path, sha256: str) -> None:
        """Record what `path` holds now; it becomes part of the item's entry."""

    @property
    def takes_over(self) -> bool:
        """Whether this run replaces files that were edited, or are not ours (`--take`)."""

    def may_lose_rows(self, path: Path, n_before: int, n_now: int) -> bool:
        """Return whether a table may have fewer rows than it has; else it is left as it is."""

    async def holds(self, path: Path, sha256: str) -> None:
        """Record that `path`, edited by a person, is kept; `sha256` is of our content."""

    def filed_at(self, path: Path) -> FiledDocument | None:
        """Return where a document was moved that is read again; None: it was not."""

    def will_move(self, path: Path, target: Path, sha256: str) -> None:
        """Record that a file is about to be moved; durable with the `intend` that follows."""

    async def note_removed(self, path: Path) -> None:
        """Record that a file was removed: while one is there, the item is not done."""

    def delete_when_done(self, path: Path) -> bool:
        """Return whether a file is deleted once its item is recorded; False: at once."""

    async def note_rows_kept(self, store: Path) -> None:
        """Record that rows are written to a store: without them the item is not done."""

    async def note_file_read(self, path: Path) -> None:
        """Record a file that was read and is not among `Step.reads`."""

    async def note_rows_read(self, store: Path) -> None:
        """Record that a store is searched: its content decides the result."""


class StepLog(Protocol):
    """Messages of a step to a person; never secrets, never whole documents."""

    def note(self, text: str) -> None:
        """Show one line, and keep it in the report."""

    def tally(self, noun: str, what: str) -> None:
        """Count what may happen to many items; one line for each step says how often it did."""

    def scanned(self, taken: Collection[str], not_taken: Collection[str]) -> None:
        """Count the files of a folder that no pattern is about, unless another step takes them."""


class SubPipelines(Protocol):
    """Runs other pipeline files as one step of this run, with the same pool and ledger."""

    async def run(self, file: str, inputs: Mapping[str, Any]) -> Any:
        """Run a pipeline to its end and return its `returns`; `file` is relative to the pipeline.

        Raises:
            StepError: it cannot be read, lies outside the roots, or did not complete.
        """


class ReplyForm(Protocol):
    """A step's `reply`: the schema and the checks of its answer."""

    @property
    def schema(self) -> Any:
        """The JSON Schema that the answer must match, as plain data; None: free text."""

    @property
    def lists(self) -> Sequence[PromptLabels]:
        """The lists of labels that the prompt has to show."""

    @property
    def repair(self) -> int:
        """Maximum number of repair attempts."""

    async def checked(self, output: Any, text: str) -> list[str]:
        """Return sentences of what checks an answer fails, for the model.

        `output` is its value by the schema (None without one), `text` its text.

        Raises:
            StepError: a check cannot be evaluated.
        """

    async def evidence(self, output: Any) -> Any:
        """Return where each field of an answer stands in its sources, in the answer's shape.

        None if the step's author did not ask for it.

        Raises:
            StepError: a source is no text.
        """

    @property
    def wants_confidence(self) -> bool:
        """Whether the probability of each field is wanted."""


PLACEHOLDER = "\N{REPLACEMENT CHARACTER}"
"""During planning: stands for what is not known yet; a prompt with it has no reply."""


class ReplyNotCached(Exception):
    """During planning: a call whose reply is not in the ledger. A step catches it in `foresee`."""


class CallForecast(Struct, frozen=True):
    """How many model calls a step would make, and how many of them have replies already."""

    n_calls: int
    n_known: int

    @property
    def n_new(self) -> int:
        return self.n_calls - self.n_known

    def __add__(self, other: CallForecast) -> CallForecast:
        return CallForecast(self.n_calls + other.n_calls, self.n_known + other.n_known)


class ReaderRequest(Protocol[A]):
    """What a process that reads documents is asked."""

    def frame(self) -> tuple[dict[str, Any], bytes]:
        """Return the request as JSON data and bytes."""

    @property
    def most_answer_bytes(self) -> int:
        """The size of the longest regular answer."""

    def answer(self, meta: Mapping[str, Any], data: memoryview) -> A:
        """Return the result of an answer's JSON data and bytes."""


class DocumentReaders(Protocol):
    """Reads documents in separate processes: here (`readers.reader_pool`), or at Dask workers."""

    @property
    def n_elsewhere(self) -> int:
        """How many documents are read on other machines at once."""

    def submit(
        self,
        request: ReaderRequest[T],
        is_unwanted: Event | None = None,
        begun: Callable[[], None] = ...,
    ) -> Future[T]:
        """Read a document once a process is free; `begun` is called then."""


class Example(NamedTuple):
    """A text and the answer that a person stands by, for a prompt."""

    text: str
    answer: str


class ModelTools(Struct, frozen=True):
    pool: Pool
    models: ModelResolver
    priority: Priority = "batch"
    examples: tuple[Example, ...] = ()
    """For the prompt, the nearest last; those that its parameter `examples` asks for."""
    n_refused: int = 0
    """How many earlier attempts failed their checks: another answer is wanted now."""


class FileTools(Struct, frozen=True):
    roots: Roots
    outputs: OutputFiles
    readers: DocumentReaders | None = None
    """Processes that read documents; None: one is started for each document."""


class Effects(Struct, frozen=True):
    """What a step acts on besides files: mailboxes, buckets, servers, databases."""

    at_end: list[RunEndAction]
    state: Path  # the pipelines' state folder, which was checked
    claims: RequestClaims
    tables: DatabaseTables


class CallTools(Struct, frozen=True):
    toolset: Toolset
    """Built-in tools, Python functions and MCP servers, by name."""
    memo: CallCache
    pipelines: SubPipelines | None = None
    """None where no pipeline may run, such as during planning."""
    untrusted: tuple[str, ...] = ()
    """References to untrusted text in the step's parameters, such as `steps.text.text`: documents,
    results of tools and commands, and all that is derived from these."""


class TimeLimits(Struct, frozen=True):
    """Of each request of a step, by its `timeout`."""

    total_s: float | None = None
    idle_s: float | None = None


class Tools(Struct, frozen=True):
    """What the runner passes to a step besides its parameters."""

    log: StepLog
    llm: ModelTools
    files: FileTools
    calls: CallTools
    stores: VectorStores
    effects: Effects | None = None
    """None: a step acts on nothing but files, in plans and tests."""
    timeout: TimeLimits = field(default_factory=TimeLimits)
    reply: ReplyForm | None = None
    """The step's `reply`; None without one."""
    item: ItemName = field(default_factory=ItemName)


P = TypeVar("P", bound=Params, contravariant=True)
O = TypeVar("O", bound=Output, covariant=True)  # noqa: E741 - the letter of the contract


class Step(Protocol[P, O]):
    """One unit of work. Instances have no state. A class may inherit from it, for its defaults.

    `params` and `output` are the Pydantic models of the two sides. The runner renders every
    field before `run`, except those typed `Template`, which the step renders itself.
    """

    params: ClassVar[type[Any]]
    output: ClassVar[type[Any]]
    version: ClassVar[int] = 1
    """Part of the ledger's key. A class may name `compatible_versions: ClassVar[frozenset[int]]`,
    earlier ones whose results stay fresh unless a run says `--refresh`. With `takes_reply:
    ClassVar[bool] = True` a step respects `Tools.reply`; any other step may have no `reply`."""
    is_pure: ClassVar[bool] = False
    """Whether it may run during planning: it only reads files, and calls no model."""
    roles: ClassVar[frozenset[Role]] = frozenset()
    """Roles of the models that it calls. If parameters decide which of them its own model has, a
    static method `own_roles(written)` returns that; if they decide that it also calls the default
    model of another role, `roles_besides(written)` returns those, so that the run opens their pools
    before it starts."""

    facts: ClassVar[Facts] = Facts()

    def reads(self, params: P) -> Sequence[str]:
        """Return the files that the result depends on: those of parameters that are `InputContent`.

        Not those that are known only while it runs, as of a folder, a store, a tool or a command:
        these are recorded when they are read.
        """
        values = (getattr(params, name) for name in types_of(type(params)).names(InputContent))
        given = [value for value in values if value is not None]
        return [path for v in given for path in ([v] if isinstance(v, str) else v)]

    async def run(self, params: P, tools: Tools) -> O:
        """Do the work.

        Raises:
            StepError: the outside world failed.
            StepSkipped: there is nothing to do.
            EngineError: the pool could not do it.
        """

    async def foresee(self, params: P, tools: Tools) -> CallForecast:
        """Count the calls of its tree, during planning; only of a kind with `facts.calls.tree`.

        The pool estimates token counts and raises `ReplyNotCached`.
        """
        # Not abstract: few have one
        raise TypeError("not asked of a kind without `facts.calls.tree`")
