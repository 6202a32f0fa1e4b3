"""What the runner knows of a kind of step besides its types: the record `Step.facts`.

The defaults hold for a step of which nothing is known, such as one of another package that says
nothing. What a parameter is for is said at the parameter, by a `Use`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from paddock.engine.system.records import Struct, field

if TYPE_CHECKING:
    from paddock.pipelines.expressions import Path as Place

Written: TypeAlias = Mapping[str, Any]
KnownTables: TypeAlias = Mapping[tuple[str | int, ...], Mapping[str, str]]
"""By the place of a table in the parameters: the types of its columns; empty: not known."""


class TextFault(NamedTuple):
    name: str
    message: str
    remedy: str = ""
    start: int = 0
    length: int = 0


Missing: TypeAlias = tuple[tuple[str | int, ...], str, str]
"""The place in the parameters of what this machine lacks; a sentence, its remedy."""


class ToolUse(Struct, frozen=True):
    path: Place
    """The path of its name in the step's parameters."""
    name: str
    server: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    is_written: bool = True
    """Whether it is a literal, not an expression."""
    entry: Place = ()
    """The path of its entry in a list, from which a model chooses; empty: the step calls it."""
    args: tuple[str, Any] | None = None
    """The parameter with what the step gives it, and its value."""


class TreeBounds(NamedTuple):
    """The most calls of a tree while its form is not known."""

    in_parts: int
    """Where its texts are read in parts."""
    in_groups: int = 0
    """Where each item may be a group of its own; 0: it has no groups."""


def brings_none(written: Written) -> bool:
    return False


class TextFacts(Struct, frozen=True):
    """What taint analysis asks: which outputs have text that is not from the parameters."""

    brings: Callable[[Written], bool] = lambda written: True
    """Whether any has: of a file, a tool's result."""
    without: tuple[str, ...] = ()
    """Outputs that hold no text, whatever the others hold."""


class CallFacts(Struct, frozen=True):
    """What a plan asks: how often it calls a model, as far as its parameters tell."""

    most: Callable[[Written, bool], int | None] = lambda written, has_reply: None
    """At most, before repairs; None: that depends on its texts."""
    is_sized: Callable[[Written], bool] = lambda written: False
    """Whether how often it asks depends on the lengths of texts."""
    tree: Callable[[Any], TreeBounds] | None = None
    """It asks a tree of calls, which its `foresee` counts; bounds of that by its parameters."""
    most_repeats: Callable[[Written, Written], int] = lambda written, of_model: 0
    """How often it asks once more, at most, for an answer that ended at its limit.

    The second are the sampling values of its model."""


class Use(StrEnum):
    """What a parameter is for, said at it: `path: Annotated[str, Use.WRITES]`.

    Its value is the field of `Facts` that has the parameter's name.
    """

    PROMPT = auto()
    """The template that it sends as one prompt, once for each item."""
    GROUP_BY = auto()
    """The field by which it groups the items of a list."""
    GROUPED = auto()
    """That list."""
    CONTENTS = auto()
    """Files whose content alone decides the result, whatever their names."""
    LISTS = auto()
    """The folder whose files are its output `files`."""
    SOURCES = auto()
    """A source, such as a mailbox, whose documents it copies into that folder first."""
    TARGETS = auto()
    """A bucket to which it sends outputs."""
    HOSTS = auto()
    """The servers to which it sends what changes something there, at most once."""
    DATABASE = auto()
    """The account of a server in whose table an item has rows."""
    DATABASE_FILE = auto()
    """The same in a file."""
    DOORS = auto()
    """Its secrets only open a door: another value makes nothing stale."""
    WRITES = auto()
    """The file that it writes, and does nothing else: outside of blocks, too, it runs only where
    that or what it reads is not as it was."""
    TABLE = auto()
    """Rows, or several tables by name, with typed columns."""
    TAKES_AWAY = auto()
    """The file that it moves or deletes, unless its `mode` is `copy`."""
    MOVES_TO = auto()
    """The file or folder where that is found then."""
    FILLS = auto()
    """The vector store to which it adds rows."""
    SEARCHES = auto()
    """The vector store that it searches."""
    COMMAND = auto()
    """The program that it starts, with arguments."""
    PIPELINE = auto()
    """The pipeline file that it runs."""
    INPUTS = auto()
    """What it gives that pipeline."""
    EXAMPLES = auto()
    """Which decisions of people its prompt has as examples."""
    PATHS = auto()
    """A file or a folder, which must be in the pipeline's folders."""


class Facts(Struct, frozen=True):
    """Facts about a kind of step."""

    # --- how it may be treated

    only_reads: bool = False
    """It changes nothing, though it may ask a model. Steps that are pure need not say so."""
    is_repeatable: bool = False
    """Its outputs follow from what it reads, with the same replies: it sees no clock."""
    only_answers: bool = False
    """It does nothing but ask, so that another model can be asked the same."""
    only_measures: bool = False
    """It asks whether a prompt fits, and takes no other notice of the model's context."""
    compares: bool = False
    """It compares given answers, which not every server can."""
    is_template: bool = False
    """Its output is text of its author with values filled in."""
    shows_path: bool = False
    """Its output `path` is the name of the file whose content decides."""
    outputs_where_written: Callable[[str], Mapping[str, Any]] | None = None
    """Its outputs where the file that it would make is there already, by the path of that; None:
    they are as recorded, though the folder may have moved."""

    # --- the parameters that have a `Use`

    prompt: str = ""
    group_by: str = ""
    grouped: str = ""
    contents: tuple[str, ...] = ()
    lists: str = ""
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    hosts: str = ""
    database: str = ""
    database_file: str = ""
    doors: tuple[str, ...] = ()
    writes: str = ""
    table: str = ""
    takes_away: str = ""
    moves_to: str = ""
    fills: str = ""
    searches: str = ""
    command: str = ""
    pipeline: str = ""
    inputs: str = ""
    examples: str = ""
    paths: tuple[str, ...] = ()
    names: str = "vars"
    """Names that its templates see besides, with their values."""

    # --- what follows from the schema of its answer, or from the parameters as written

    schema_fault: Callable[[Any], str] = lambda schema: ""
    """What is wrong with `reply.schema` for it, None without one; empty: nothing."""

    is_one_answer: Callable[[Written], bool] = lambda written: True
    """Whether its answer is a single one, and not one for each group by keys that a run shows."""
    readers: Callable[[Written], Iterable[str]] = lambda written: ()
    """The versions of what reads documents for it here: with others its result may differ."""
    texts: TextFacts = TextFacts()
    tools: Callable[[Written], Iterable[ToolUse]] = lambda written: ()
    missing: Callable[[str, Written, Path], Iterable[Missing]] = lambda step, written, folder: ()
    """What the step of this id needs and this machine lacks; its commands start in the folder."""
    table_faults: Callable[[Written, KnownTables], Iterable[TextFault]] = lambda written, known: ()
    """What is wrong with its parameters, as far as the columns of its tables are known."""
    calls: CallFacts = CallFacts()

    def takes_file(self, written: Written) -> bool:
        return bool(self.takes_away) and written.get("mode") != "copy"

    def keeps_rows(self, written: Written) -> bool:
        names = {self.fills, self.database, self.database_file}
        return not names.isdisjoint(written)

    @property
    def output(self) -> str:
        """The parameter that says where it writes, moves a file or adds rows."""
        return self.writes or self.moves_to or self.fills
