"""What items depended on besides their parts: a class for each kind, and the ledger's codec.

An item has each dependency once, by its `name`. As JSON it is a list that begins with its kind; the
list of a file that was read has none. `preparation` looks at all that some traces need, at once;
what a dependency says then is pure. A capability that makes outputs depend on something else is one
class here, and one answer of the world.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from paddock.engine.system.files import content_stamp
from paddock.engine.system.records import Struct, StructABCMeta, replace
from paddock.engine.system.text import canonical_json
from paddock.runner import rules
from paddock.runner.answers.text_vectors import Vector8, similarities
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import Entry, LedgerError, read_written
from paddock.runner.ledger.output_conditions import condition_of_item
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Reason, Why, quoted
from paddock.steps.base import Roots, StepError
from paddock.steps.files.scan import SOURCES, FilesScanParams

from .world import LabelVectors, PreparedWorld, World, listing_digest, scan_digest

if TYPE_CHECKING:
    from paddock.runner.ledger.ledger import Ledger
    from paddock.runner.rules.decision_rules import DocumentReadings

    from .past_decisions import StepDecisions
    from .past_items import PastItems
    from .scopes import StepName

_SAME_LABEL = 1e-3
"""Similarities that differ by less may be the same: texts are embedded in other batches."""
_SAME_EXAMPLE = 1e-6
"""Similarities that differ by less are the same."""
_ORDER = attrgetter("order")
OTHER_LABELS = frozenset((Why.LABELS, Why.LABEL_NEW, Why.LABEL_NEW_NEAR, Why.LABEL_UNDECIDED))
"""Why a list of labels may have a better one than the answer has."""


class Dependency(Struct, frozen=True):
    """What an item depended on: its fields are its JSON, behind its kind.

    So the order of a subclass's fields is the ledger's format: a new one is the last, and optional.
    """

    kind: ClassVar[str] = ""
    prefix: ClassVar[str] = ""
    """Prefix of its name, before its first field."""
    is_named: ClassVar[bool] = False
    """Whether its first field stands in its name alone."""
    order: ClassVar[int] = 0
    """The reason of the dependency with the lowest order is the one that counts."""
    begins: ClassVar[str] = "["
    """How its JSON begins."""

    def __init_subclass__(cls) -> None:
        cls.begins = f'["{cls.kind}"' if cls.kind else "["

    @property
    def name(self) -> str:
        first, *_ = type(self).__match_args__
        return f"{self.prefix}{getattr(self, first)}"

    def as_json(self) -> list[Any]:
        values = [getattr(self, field) for field in type(self).__match_args__]
        return [*filter(None, (self.kind,)), *values[self.is_named :]]

    @classmethod
    def of_json(cls: Any, name: str, values: Sequence[Any]) -> Dependency:
        """Return a dependency; `values` are those behind its kind."""
        first = (name.removeprefix(cls.prefix),) if cls.is_named else ()
        return cls(*first, *values)  # type: ignore[no-any-return]

    def reason(self, world: PreparedWorld, trace: Trace) -> Reason | None:
        """Return why the item of a trace is stale, or its output is kept; None: it is as it was."""
        return None


class FileDependency(Dependency, frozen=True, metaclass=StructABCMeta):
    """What the disk tells; `preparation` looks at it."""

    def reason(self, world: PreparedWorld, trace: Trace) -> Reason | None:
        reasons = world.seen.reasons
        return reasons.get(self) if reasons else None

    @abstractmethod
    def find_change(self, world: World) -> Reason | None:
        """Return the result of `reason` by a look at the disk. Blocks."""


# --- what an item read


class FileRead(FileDependency, frozen=True):
    is_named = True
    path: str
    size: int
    mtime_ns: int
    sha256: str
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, world: World, path: str) -> FileRead:
        """Return a file that a step is about to read. Blocks."""
        (size, mtime_ns, ctime_ns, inode), sha256 = world.content(path)
        return cls(world.index.stored(path), size, mtime_ns, sha256, ctime_ns, inode)

    def find_change(self, world: World) -> Reason | None:
        path = world.index.absolute(self.path)
        if self.is_at(path, world.digest):
            return None
        return (Why.FILE if os.path.lexists(path) else Why.FILE_GONE)(self.path)

    def is_at(self, path: str, digest: Callable[[str], str]) -> bool:
        """Return whether a path has what was read; `digest` is asked where its stamp differs."""
        with suppress(OSError):
            stamp = content_stamp(os.stat(path))  # noqa: PTH116 - 10,000 times in a run
            is_untouched = stamp == (self.size, self.mtime_ns, self.ctime_ns, self.inode)
            return is_untouched or (stamp[0] == self.size and digest(path) == self.sha256)
        return False


class FolderListed(Dependency, frozen=True):
    kind = "listed"
    folder: str
    listings: tuple[tuple[str, str], ...] = ()
    """Parameters of each scan as JSON, and the digest of what it found."""

    @property
    def name(self) -> str:
        return f"{self.folder}/"

    def as_json(self) -> list[Any]:
        return [self.kind, *self.listings]

    @classmethod
    def of_json(cls, name: str, values: Sequence[Any]) -> Dependency:
        return cls(name.removesuffix("/"), tuple((params, digest) for params, digest in values))

    def reason(self, world: PreparedWorld, trace: Trace) -> Reason | None:
        is_same = all(world.seen.listings.get((self.folder, g)) == was for g, was in self.listings)
        return None if is_same else Why.FOLDER(self.folder)


class StoreSearched(Dependency, frozen=True):
    kind, is_named = "store", True
    path: str
    content: str

    def reason(self, world: PreparedWorld, trace: Trace) -> Reason | None:
        now = world.stores.content(Path(world.index.absolute(self.path)))
        return None if now == self.content else Why.STORE(self.path)


class MovedAway(FileDependency, frozen=True):
    kind, is_named = "away", True
    path: str

    def find_change(self, world: World) -> Reason | None:
        return Why.THERE_AGAIN(self.path) if world.is_there(self.path) else None


class LimitedContext(Dependency, frozen=True):
    kind, prefix = "limited", "limited "
    step: str


class ChosenLabels(Dependency, frozen=True):
    """A list of labels, and which of them are in the answer.

    The recorded spec has the whole list. So a changed list makes only those items stale whose label
    is gone, or has another description, or that a new label may fit.
    """

    kind, prefix, is_named = "labels", "labels ", True
    order = 1
    list_name: str
    digest: str
    chosen: Sequence[str] | None
    """Labels that the answer has; None: there is none yet."""
    is_decided: bool = False
    """Whether a person decided on them: then no new label fits better."""

    def as_json(self) -> list[Any]:
        values = Dependency.as_json(self)
        return values if self.is_decided else values[:-1]

    def reason(self, world: PreparedWorld, trace: Trace) -> Reason | None:
        name = self.list_name
        before = trace.past.lists(trace.entry.key).get(name)
        now, step = world.lists.get(name), name.partition("/")[0]
        if now is None or self.digest in (now.digest, now.ordered_digest):
            return None
        if before is None or self.chosen is None:
            return Why.LABELS(now.source, step)
        gone = [label for label in self.chosen if label in before and label not in now.labels]
        if gone:
            return Why.LABEL_GONE(quoted(gone), step)
        other = [lab for lab in self.chosen if before.get(lab, "") != now.labels.get(lab, "")]
        if other:
            return Why.LABEL_DESCRIPTION(quoted(other), step)
        if self.is_decided and not now.relabels_all:
            return None
        new = [label for label in now.labels if label not in before]
        texts = dependencies_of(trace.entry, NarrowedLabels)
        text = next((offered for offered in texts if offered.list_name == name), None)
        vectors = world.label_vectors.get(name)
        near = None if text is None or vectors is None else text.near(vectors)
        if near is not None:
            new = [label for label in new if label in near]
        if new:
            why = Why.LABEL_NEW if near is None else Why.LABEL_NEW_NEAR
            if text is not None and near is None and not now.relabels_all:
                why = Why.LABEL_UNDECIDED
            return why(now.source, quoted(new), step)
        return Why.LABELS(now.source, step) if now.relabels_all else None


class NarrowedLabels(Dependency, frozen=True):
    """A text for which the nearest labels of a list were offered."""

    kind, prefix, is_named = "nearest", "nearest ", True
    list_name: str
    least: float
    """How near the farthest of them is."""
    model: str
    """Identity of the model that made `vector`."""
    vector: Vector8

    def near(self, new: LabelVectors) -> frozenset[str] | None:
        """Return which labels are among the nearest to the text; None: that is not known."""
        near = similarities(self.vector, new.rows) if new.model == self.model else None
        if near is None:
            return None
        pairs = zip(new.labels, near, strict=True)
        return frozenset(label for label, how in pairs if how > self.least - _SAME_LABEL)


class UsedExamples(Dependency, frozen=True):
    """A prompt with decisions of people as examples.

    A later run knows without a model whether others would be chosen now.
    """

    kind = "examples"
    order = 2
    step: Sequence[str]
    """The `StepName` of the step, as `scopes` has it."""
    id: str
    """The id that the item's own review has, or would have."""
    own_document: Sequence[str]
    """The `own_document` of the `TaughtItem`."""
    pool: str
    """The digest of all decisions at that time."""
    used: Mapping[str, str]
    """The digests of the decisions in the prompt, by id."""
    least: float
    """How near a better one must be."""
    model: str
    vector: Vector8

    @property
    def name(self) -> str:
        return f"{self.kind} {self.id}"

    def reason(self, world: PreparedWorld, trace: Trace) -> Reason | None:
        file, step = self.step
        now = world.decisions[file, step]
        if now.digest == self.pool or self.id in now.ids:  # a person's own decision stays
            return None
        if not now.has(self.used):
            return Why.EXAMPLES_GONE(step)
        decisions, rows = now.with_vectors.get(self.model, ((), None))
        near = similarities(self.vector, rows) or ()
        for decision, how in zip(decisions, near, strict=False):
            is_other = decision.id not in self.used and not decision.is_of(*self.own_document)
            if is_other and how > self.least + _SAME_EXAMPLE:
                return Why.EXAMPLES_NEARER(step)
        return None


class UsedRules(Dependency, frozen=True):
    """What rules that decisions teach read in an item's document, and of which fields they did not.

    A later run knows without it whether they read the same.
    """

    kind = "rules"
    order = 2
    step: Sequence[str]
    id: str
    pool: str
    """The digest of all that taught rules at that time."""
    offers: str
    """What the document offers to rules, packed."""
    readings: Mapping[str, Sequence[Any]]
    """By field, the value, the decision that it rests on, and the label before it.

    An e-invoice rests on none, so that the decision's id is empty."""
    decided: Sequence[str]
    """Fields on which a person decided for this document: no rule changes these."""
    shown: Mapping[str, Any] = {}
    """What rules had read of others when they did: a later decision does not open these again."""
    read_at: float = 0.0
    """When the document was first read: its run began then, in seconds since the epoch."""
    doubts: Mapping[str, Mapping[str, Any]] = {}
    """By field, in what it differed from all papers of its sender then. Later ones add none."""

    @property
    def name(self) -> str:
        return f"{self.kind} {self.id}"

    @classmethod
    def of(
        cls,
        known: StepDecisions,
        step: StepName,
        id_: str,
        offers: rules.Offers,
        decided: Iterable[str],
        shown: Mapping[str, Any],
    ) -> tuple[UsedRules, DocumentReadings]:
        """Return what is kept of how rules read a document, and all that they read now."""
        own, packed, read = sorted(decided), offers.pack(), known.rules.read(offers)
        found = {**read.sure} if packed else {}
        if packed and shown.keys() - found.keys():
            before = known.rules_before(id_, offers).read(offers).sure
            found = {n: r for n, r in before.items() if shown.get(n) == r.value} | found
        names = sorted(found.keys() - {*own})
        readings = {n: [(r := found[n]).value, r.decision, r.label] for n in names}
        return cls([*step], id_, known.rules_digest, packed, readings, own, shown), read

    def field_readings(self) -> dict[str, rules.Reading]:
        """Return `readings` as records; those of an older ledger may lack the label."""
        return {
            name: rules.Reading(value, "rule", (decision,), *label[:1])
            if decision
            else rules.Reading(value, "xml")
            for name, (value, decision, *label) in self.readings.items()
        }

    def reason(self, world: PreparedWorld, trace: Trace) -> Reason | None:
        file, step = self.step
        known = world.decisions[file, step]
        if known.rules_digest == self.pool:
            return None
        if self.offers and not rules.Offers.is_packed(self.offers):  # of an earlier version
            gone = [n for n, how in self.field_readings().items() if {*how.decisions} - known.ids]
            return Why.READINGS(quoted(gone), step) if gone else None
        own = (rules.Offers.unpack(self.offers), self.decided, self.shown)
        (now, _), was = self.of(known, (file, step), self.id, *own), self.readings
        names = {**was, **now.readings}
        changed = [n for n in names if [*was.get(n, ())][:2] != now.readings.get(n, ())[:2]]
        return Why.READINGS(quoted(changed), step) if changed else None


def known_papers(
    ledger: Ledger, step: StepName, known: StepDecisions, kinds: Collection[str]
) -> rules.SenderPapers:
    """Return the papers of a step that are done, or decided, with what they came to.

    `kinds`: fields of a few values, but for currencies.
    """
    papers, taught = list[rules.KnownPaper](), {t.id: t for t in known.taught}
    for reads, state in ledger.rows(queries.READS_NAMING, name=UsedRules.begins):
        for dep in read_dependencies(reads, UsedRules):
            if (*dep.step,) != step or (state != ItemState.DONE and dep.id not in taught):
                continue
            answer = {name: value for name, (value, *_) in dep.readings.items()}
            offers = dep.offers
            if (decided := taught.get(dep.id)) is not None:  # maybe on what it said before
                answer, offers = {**answer, **decided.answer}, decided.packed
            papers.append(rules.KnownPaper.of(dep.id, answer, kinds, offers, dep.read_at))
    return rules.SenderPapers(sorted(papers, key=lambda paper: (paper.read_at, paper.id)), kinds)


# --- what an item made


class OutputWithin(FileDependency, frozen=True):
    """A file that an item wrote: of a trace's own outputs, or a nested item."""

    kind, is_named = "written", True
    order = 3
    path: str
    scope_id: str
    key: str
    sha256: str = ""
    """Of what it wrote; empty: it is not known."""

    def find_change(self, world: World) -> Reason | None:
        index, scope_id, path = world.index, self.scope_id, self.path
        if (taker := index.owners.taken_by(path, scope_id)) is not None:
            return Why.OUTPUT_HANDED_OVER(path, taker)
        condition = condition_of_item(index, scope_id, self.key, path, self.sha256)
        if condition == "replaced":
            return Why.OUTPUT_REPLACED(path, index.last_writer(path, scope_id))
        if condition in ("missing", "interrupted"):
            return Why.OUTPUT_LOST(path)
        return Why.OUTPUT_EDITED(path) if condition == "edited" else None


class RowsKept(Dependency, frozen=True):
    """Rows of an item, or of one within it, in a vector store."""

    kind = "rows"
    order = 3
    store: str
    """Path of the store, as stored in the ledger."""
    owner: str
    sum: str
    """The number and the digest of the rows, as `RowSum.text`."""
    scope_id: str
    key: str

    @property
    def name(self) -> str:
        return f"{self.store}#{self.owner}"

    def reason(self, world: PreparedWorld, trace: Trace) -> Reason | None:
        path = Path(world.index.absolute(self.store))
        now = world.rows_at(path).holds(path, self.owner)
        return None if now.text == self.sum else Why.ROWS_LOST(self.store)


class KeptOutput(FileDependency, frozen=True):
    """A file that a person edited, or that is not ours, and what would have been written.

    The item is held until the file is as it was, or as it would have become, is gone, or a run
    replaces it (`--take`).
    """

    kind, prefix = "held", "held "
    order = 3
    path: str
    sha256: str

    def find_change(self, world: World) -> Reason | None:
        try:
            sha256 = world.index.content(self.path)  # not `digest`: this run may write it
        except OSError:
            sha256 = None
        except StepError:  # it cannot be asked now
            return None
        if sha256 is None:
            return Why.OUTPUT_LOST(self.path)
        if sha256 == self.sha256:
            return None
        path = Path(world.index.absolute(self.path))
        is_edited = sha256 not in world.index.owners.known_sha256(path)
        return (Why.OUTPUT_EDITED if is_edited else Why.OUTPUT_NO_LONGER_EDITED)(self.path)


class TakenPath(Dependency, frozen=True):
    """A path that an item would have written, and that is another item's: each run asks again."""

    kind, prefix, is_named = "taken", "taken ", True
    path: str


# --- the ledger's codec

_KINDS: Mapping[Any, type[Dependency]] = {
    kind.kind: kind
    for kind in (
        FolderListed, StoreSearched, MovedAway, LimitedContext, ChosenLabels, NarrowedLabels,
        UsedExamples, UsedRules, OutputWithin, RowsKept, KeptOutput, TakenPath,
    )
}  # fmt: skip
NEED_A_RULE = (FolderListed, ChosenLabels, NarrowedLabels, UsedExamples, UsedRules)
"""Kinds of which only a bound rule tells what there is now."""
MADE = (OutputWithin, RowsKept, KeptOutput, TakenPath)
"""Kinds of what an item makes, each time that it runs."""
_Kind = TypeVar("_Kind", bound=Dependency)
Dependencies = dict[str, Dependency]
"""Dependencies by name, in the order in which they came."""


def dependencies_of(entry: Entry | None, *kinds: type[_Kind]) -> list[_Kind]:
    """Return what an entry recorded: all, or those of some kinds.

    Quick where there are none of these: a run asks this of 10,000 entries.
    """
    return read_dependencies(entry.reads, *kinds) if entry is not None and entry.reads else []


def read_dependencies(reads: str | None, *kinds: type[_Kind]) -> list[_Kind]:
    """Return the dependencies in an entry's `reads`.

    Raises:
        LedgerError: a newer Paddock recorded one of a kind that is not known here.
    """
    if not reads or (kinds and not any(kind.begins in reads for kind in kinds)):
        return []
    dependencies: list[Any] = []
    for name, values in json.loads(reads).items():
        kind = _KINDS.get(values[0]) if isinstance(values[0], str) else FileRead
        if kind is None:
            what = f"an item of this ledger depends on '{name}' in a way ('{values[0]}') that"
            remedy = "a newer one wrote it. Run it with that version, which loses nothing."
            raise LedgerError(f"{what} this Paddock does not know: {remedy}")
        if not kinds or kind in kinds:
            dependencies.append(kind.of_json(name, values[1:] if kind.kind else values))
    return dependencies


def as_json(dependencies: Dependencies) -> str | None:
    values = {name: dependency.as_json() for name, dependency in dependencies.items()}
    return json.dumps(values) if values else None


def by_name(dependencies: Iterable[Dependency]) -> Dependencies:
    return {dependency.name: dependency for dependency in dependencies}


def note_listing(
    noted: Dependencies,
    world: World,
    params: FilesScanParams,
    files: Sequence[Mapping[str, Any]] | None,
    roots: Roots,
    owned: frozenset[str],
) -> None:
    """Add a folder that was listed for one item. Blocks.

    Without `files` it is listed again, without the `owned` files: a step's `returns` may leave out
    what its items depend on.
    """
    folder = str(roots.resolve(params.root))
    scan_params = canonical_json(params.model_dump(mode="json", exclude={"root", *SOURCES}))
    listed = FolderListed(world.index.stored(folder))
    before = noted.get(listed.name)
    others = before.listings if isinstance(before, FolderListed) else ()
    if files is None:
        digest = scan_digest(folder, scan_params, roots, owned)
    else:
        digest = listing_digest((file["relpath"], file["sha256"]) for file in files)
    listings = (*(row for row in others if row[0] != scan_params), (scan_params, digest))
    noted[listed.name] = replace(listed, listings=listings)


def with_outputs(entry: Entry, scope_id: str) -> Dependencies:
    return by_name([*dependencies_of(entry), *_outputs(scope_id, entry)])


def _outputs(scope_id: str, entry: Entry) -> list[OutputWithin]:
    written = read_written(entry.outputs).items()
    return [OutputWithin(path, scope_id, entry.key, sha256) for path, sha256 in written]


def current_paths(entry: Entry) -> set[str]:
    within: list[OutputWithin | KeptOutput] = dependencies_of(entry, OutputWithin, KeptOutput)
    return {*entry.output_paths, *(output.path for output in within)}


def kept_paths(dependencies: Dependencies) -> list[str]:
    kept = (dep for dep in dependencies.values() if isinstance(dep, KeptOutput))
    return [output.path for output in kept]


class Trace:
    __slots__ = ("dependencies", "entry", "past", "scope_id")

    def __init__(self, scope_id: str, entry: Entry, past: PastItems) -> None:
        self.scope_id, self.entry, self.past = scope_id, entry, past
        self.dependencies: Sequence[Dependency]
        self.dependencies = sorted(dependencies_of(entry), key=_ORDER) if entry.reads else ()
        """Dependencies, in the order in which their reasons count."""

    @property
    def outputs(self) -> list[OutputWithin]:
        """The outputs of the item itself, without those of items within it."""
        return _outputs(self.scope_id, self.entry)
