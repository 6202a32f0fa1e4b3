"""What the runner knows of a kind of step besides its types: the record `Step.facts`.

The defaults hold for a step of which nothing is known, such as one of another package that says
nothing. What a parameter is for is said at the parameter, by a `Use`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from paddock.engine.system.records import Struct, field

from .param_types import ParamType, ParamTypes

if TYPE_CHECKING:
    from paddock.pipelines.expressions import Path as Place

Written: TypeAlias = Mapping[str, Any]
"""Parameters as they stand under `with`."""
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

    # --- its parameters

    types: ParamTypes = ParamTypes()
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

    def param(self, kind: type[ParamType]) -> str:
        """Return the first parameter of a type; empty: there is none."""
        return next(iter(self.types.names(kind)), "")
