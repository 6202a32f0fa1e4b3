"""Items of a block without a result, so that what reads its results lacks theirs.

An output over the results of a block is not made again where items failed and none has a result:
the old one is worth more than an empty one, and the next run, with the fault mended, makes it. So
it is where the list is empty since its documents are missing, as on a share that is not mounted.
Where some have a result, or wait for a person, tables are made of what there is, and the run says
which items are missing and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from paddock.engine.system.text import counted, listed
from paddock.runner.bind.bound import BoundNode, BoundStep

from .block_work import BlockWork
from .failures import StepFailed

MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class LackingItems:
    """Items of a block without a result that may yet have one, by why they have none."""

    block: str
    n_items: int = 0
    """Of the block's list."""
    n_with_result: int = 0
    failed: tuple[str, ...] = ()
    """Keys; none that a person rejected, which is decided, or that no one decided on in time."""
    waiting: tuple[str, ...] = ()
    """Keys of items that wait for a decision."""
    unasked: tuple[str, ...] = ()
    """Keys of items whose review is due, and that the run was told to leave."""
    expired: tuple[str, ...] = ()
    """Keys of items that no one decided on in time."""
    n_rejected: int = 0
    error: str = ""
    """Of the first that failed."""
    is_transient: bool = False

    def __bool__(self) -> bool:
        return any(self._kinds()) or not self.n_items

    def leaves(self, node: BoundNode) -> bool:
        """Return whether a node that reads the results is left as it is.

        Not where no item failed; nor a table where some wait: `files.write` keeps what it has.
        """
        is_table = isinstance(node, BoundStep) and node.facts.table in node.written
        is_only_waiting = self.n_items and not (self.failed or self.expired)
        waits = self.waiting or self.unasked
        return not self.n_with_result and not (is_only_waiting or (is_table and waits))

    def _kinds(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the keys that are missing, and why in words, most decisive first."""
        for keys, single, many in (
            (self.failed, "failed", "failed"),
            (self.waiting, "waits for review", "wait for review"),
            (self.unasked, "left since no one is asked", "left since no one is asked"),
            (self.expired, "not decided in time", "not decided in time"),
        ):
            if keys:
                yield keys, f"{len(keys):,} {single if len(keys) == 1 else many}"

    def why_left(self) -> str:
        """Return why a step that reads the results is left as it is."""
        if not self.n_items:
            return f"the documents of '{self.block}' are missing"
        if len(self.failed) == self.n_items:
            what = "the only item" if self.n_items == 1 else f"all {self.n_items:,} items"
            return f"{what} of '{self.block}' failed"
        parts = [words for _, words in self._kinds()]
        n_skipped = self.n_items - sum(len(keys) for keys, _ in self._kinds()) - self.n_rejected
        parts += [f"{self.n_rejected:,} rejected"] if self.n_rejected else []
        parts += [f"{n_skipped:,} skipped"] if n_skipped else []
        return f"no item of '{self.block}' has a result: {', '.join(parts)}"

    def note(self, step: str) -> str:
        """Return what a step lacks that was made of the other items."""
        n = sum(len(keys) for keys, _ in self._kinds())
        of = f"{n:,} of {counted(self.n_items, 'item')} of '{self.block}'"
        parts = [f"{words} ({listed(keys, MAX_NAMED)})" for keys, words in self._kinds()]
        return f"'{step}' is made without {of}: {', '.join(parts)}."


def no_documents_of(work: BlockWork) -> LackingItems | None:
    """Return what a block lacks whose list is empty, and of which a person is asked why."""
    if work.items or not work.missing.doubts:
        return None
    error = str(work.missing.doubts[0].reason)
    return LackingItems(work.block.id, error=error, is_transient=True)


def lacking_of(
    references: frozenset[tuple[str, ...]], lacking: Mapping[str, LackingItems]
) -> list[LackingItems]:
    """Return the blocks whose results are read and lack items that the reader does not know.

    Who reads `steps.<block>.waiting` knows what waits, and has it to show.
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
    """Return the blocks whose `results` are among these references."""
    return {
        path[1]
        for path in references
        if path[:1] == ("steps",) and len(path) > 1 and path[2:3] in ((), ("results",))
    }


def refuse_empty_results(
    step: str, references: frozenset[tuple[str, ...]], lacking: Mapping[str, LackingItems]
) -> None:
    """Raise `StepFailed` where a step would read a nested block's results, and all items failed."""
    for lack in lacking_of(references, lacking):
        if not lack.n_with_result:
            cause = "io" if lack.is_transient else "other"
            raise StepFailed(step, f"{lack.why_left()}: {lack.error}", cause=cause)
