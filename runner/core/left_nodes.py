"""Steps and blocks that are left as they are, since items that they read are lacking.

Only some items were done (`--only`, a sample), a person has to decide first, items failed and none
has a result, all documents are missing (as on a share that is not mounted), or what they read was
left itself. What they made before stays, in place of something made of a part: the old output is
worth more than an empty one, and the next run, with the fault mended, makes it. Where some items
have a result, or wait for a person, tables are made of what there is, and the run says which items
are missing and why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING

from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import counted, listed
from paddock.pipelines.expressions import ExpressionError, steps_read
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.progress.item_states import WAITS, ItemState
from paddock.steps.param_types import RowsParam

if TYPE_CHECKING:
    from .failures import ItemWaits
    from .traces.block_work import BlockWork

MAX_NAMED = 5


class LeftBy(Enum):
    """What leaves a node as it is."""

    PARTIAL = auto()
    """Only some items of what it reads are done."""
    AWAITED = auto()
    """What it reads waits, or is left until a person may be asked."""
    WITHOUT_RESULTS = auto()
    """What it reads has no result."""


class LeftNode(Struct, frozen=True):
    """Why a node is left as it is, or why those that read it are."""

    by: LeftBy
    why: str = ""
    is_inherited: bool = False
    """What it reads is left for that reason itself."""
    wait: ItemWaits | None = None
    """`AWAITED`: what waits."""

    def text(self, node: str) -> str:
        return f"'{node}' is left as it is: {self.why}."


class StepsLeft(Struct):
    """Steps and blocks of one pipeline that are left as they are, and what makes others so."""

    note_lack: Callable[[str], None]
    """Called with a sentence for each node that is made without some items."""
    some_are: str = "were done"
    """How a sentence ends on items that `--only` or a sample asks for."""
    reasons: dict[str, LeftNode] = field(default_factory=dict)
    """Why those that read a node are left: itself is left, was done in part, or waits."""
    lacking: dict[str, LackingItems] = field(default_factory=dict)
    """Blocks of which items failed or wait, or all documents are missing."""
    missing_inputs: dict[str, tuple[LackingItems, ...]] = field(default_factory=dict)
    """By node, the items that its list lacks, or its outputs."""
    lacking_inputs: Collection[LackingItems] = ()
    """What the inputs of a sub-pipeline lack."""

    def first_left(self, by: LeftBy) -> LeftNode | None:
        return next((left for left in self.reasons.values() if left.by is by), None)

    def is_read_by(self, references: frozenset[tuple[str, ...]]) -> bool:
        left = self.reasons.keys()
        return any(path[0] == "steps" and left & {*(path[1:2] or left)} for path in references)

    def why(self, node: BoundNode, before: frozenset[str], scope: Scope) -> LeftNode | None:
        """Return why a node is left since those before it were; None if it runs.

        1. Only some items of one of those are done.
        2. One waits.
        3. One has no result.
        4. It would read results of which none is there, and is not skipped anyway.
        """
        if not (self.reasons or self.lacking):
            return None
        names = sorted(before & self.reasons.keys(), reverse=True)
        by = {self.reasons[name].by: name for name in names}  # of several, the first by name
        if name := by.get(LeftBy.PARTIAL):  # 1
            return LeftNode(LeftBy.PARTIAL, f"only some items of '{name}' {self.some_are}")
        if name := by.get(LeftBy.AWAITED):  # 2
            wait = self.reasons[name].wait
            state = None if wait is None else wait.state
            verb = "is left, as is its review" if state is None else WAITS[state].singular
            return LeftNode(LeftBy.AWAITED, f"'{name}' {verb}", wait=wait)
        if name := by.get(LeftBy.WITHOUT_RESULTS):  # 3
            why = f"'{name}' is, since {self.reasons[name].why}"
            return LeftNode(LeftBy.WITHOUT_RESULTS, why, is_inherited=True)
        for lack in self._lacking_of(node, scope):  # 4
            if lack.leaves_node(node):
                return LeftNode(LeftBy.WITHOUT_RESULTS, lack.left_reason())
        return None

    def note_missing(self, node: BoundNode, scope: Scope) -> None:
        if not (self.lacking or self.lacking_inputs):
            return
        for lack in self._lacking_of(node, scope):
            self.note_lack(lack.note(node.id))
        listed_from = node.over.references if isinstance(node, BoundBlock) else node.reads.all
        read = steps_read(listed_from)
        missing = {self.lacking[name] for name in read & self.lacking.keys()}
        missing.update(*(self.missing_inputs.get(name, ()) for name in read))
        if any(path[0] == "inputs" for path in listed_from):
            missing.update(self.lacking_inputs)
        self.missing_inputs[node.id] = (*missing,)

    def _lacking_of(self, node: BoundNode, scope: Scope) -> list[LackingItems]:
        """Return the blocks whose results a node lacks; none where it is skipped anyway.

        It is where `if` is false, and reads no results that lack items.
        """
        lacking = lacking_of(node.reads.all, self.lacking)
        if lacking and node.if_ is not None and not lacking_of(node.if_.references, self.lacking):
            with suppress(ExpressionError):
                return lacking if node.if_.evaluate(scope) else []
        return lacking


# --- what a block lacks


class LackingItems(Struct, frozen=True):
    block: str
    keys: frozenset[str] = frozenset()
    """Of the block's list; none: its documents are missing."""
    n_with_result: int = 0
    failed: tuple[str, ...] = ()
    """Keys of items that failed, but for those that a person rejected or decided on too late."""
    tried_again: frozenset[str] = frozenset()
    """Keys of failed items that the next run tries again."""
    waiting: tuple[tuple[str, ItemState], ...] = ()
    unasked: tuple[str, ...] = ()
    """Keys of items whose review is due, and that the run was told to leave."""
    expired: tuple[str, ...] = ()
    """Keys of items that no one decided on in time."""
    n_rejected: int = 0
    error: str = ""
    """Of the first that failed."""
    is_transient: bool = False
    documents: frozenset[tuple[str, str]] = frozenset()
    """Path and digest of each filed document that has no result any more, as a person decided."""

    def __bool__(self) -> bool:
        return any(self._kinds()) or not self.keys

    def leaves_node(self, node: BoundNode) -> bool:
        """Return whether a node that reads the results is left as it is.

        Not where no item failed; nor a table where some wait: `files.write` keeps what it has.
        """
        is_table = isinstance(node, BoundStep) and node.facts.param(RowsParam) in node.written
        is_only_waiting = self.keys and not (self.failed or self.expired)
        waits = self.waiting or self.unasked
        return not self.n_with_result and not (is_only_waiting or (is_table and waits))

    def _kinds(self) -> Iterator[tuple[Sequence[str], str]]:
        """Yield the keys that are missing, and why in words, most decisive first."""
        if self.failed:
            yield self.failed, f"{len(self.failed):,} failed"
        for state, wait in WAITS.items():
            if keys := [key for key, its_state in self.waiting if its_state is state]:
                yield keys, f"{len(keys):,} {wait.verb(len(keys))}"
        if self.unasked:
            yield self.unasked, f"{len(self.unasked):,} left since no one is asked"
        if self.expired:
            yield self.expired, f"{len(self.expired):,} not decided in time"

    def may_be_of(self, key: str, listed: Collection[str]) -> bool:
        """Return whether an item that another block lacks may be of one that is not decided here.

        `listed`: the keys that the other block has. Where they are other names, it always may, as
        where this block's documents are missing.
        """
        undecided = self.tried_again.union(self.unasked, (key for key, _ in self.waiting))
        is_of_other_names = not self.keys.issuperset(listed)
        return key in undecided or not self.keys or (bool(undecided) and is_of_other_names)

    def left_reason(self) -> str:
        if not self.keys:
            return f"the documents of '{self.block}' are missing"
        n_items = len(self.keys)
        if len(self.failed) == n_items:
            what = "the only item" if n_items == 1 else f"all {n_items:,} items"
            return f"{what} of '{self.block}' failed"
        parts = [words for _, words in self._kinds()]
        n_skipped = n_items - sum(len(keys) for keys, _ in self._kinds()) - self.n_rejected
        parts += [f"{self.n_rejected:,} rejected"] if self.n_rejected else []
        parts += [f"{n_skipped:,} skipped"] if n_skipped else []
        return f"no item of '{self.block}' has a result: {', '.join(parts)}"

    def note(self, step: str) -> str:
        n = sum(len(keys) for keys, _ in self._kinds())
        of = f"{n:,} of {counted(len(self.keys), 'item')} of '{self.block}'"
        parts = [f"{words} ({listed(keys, MAX_NAMED)})" for keys, words in self._kinds()]
        return f"'{step}' is made without {of}: {', '.join(parts)}."


def no_documents_of(work: BlockWork) -> LackingItems | None:
    """Return the lack of a block whose list is empty for a reason that a person has to confirm."""
    if work.items or work.filed.rows or not work.missing.doubts:
        return None
    error = str(work.missing.doubts[0].reason)
    return LackingItems(work.block.id, error=error, is_transient=True)


def lacking_of(
    references: frozenset[tuple[str, ...]], lacking: Mapping[str, LackingItems]
) -> list[LackingItems]:
    """Return the blocks whose results are read and lack items that the reader does not know.

    Items that wait are not missing to a reader of `steps.<block>.waiting`.
    """
    found: list[LackingItems] = []
    for block in sorted(blocks_read(references) & lacking.keys()) if lacking else ():
        lack = lacking[block]
        if lack.waiting and not references.isdisjoint(
            {("steps", block), ("steps", block, "waiting")}
        ):
            n_known = lack.n_with_result + len(lack.waiting)
            lack = replace(lack, waiting=(), n_with_result=n_known)
        found += [lack] if lack else []
    return found


def blocks_read(references: frozenset[tuple[str, ...]]) -> set[str]:
    return steps_read(path for path in references if path[2:3] in ((), ("results",)))
