"""Items of a block that failed, so that what reads its results lacks theirs.

An output over the results of a block is not made again where all items behind it failed: the old
one is worth more than an empty one, and the next run, with the fault mended, makes it. So it is
where the list is empty since its documents are missing, as on a share that is not mounted. Where
some failed, the run says which are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from paddock.engine.system.text import listed

from .block_work import BlockWork
from .failures import StepFailed

MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class LackingItems:
    """Items of a block that failed, so that what reads its results lacks theirs."""

    block: str
    keys: tuple[str, ...]
    n_all: int
    """Of failed items and those with a result; skipped and waiting ones are not counted."""
    error: str
    """Of the first one."""
    is_transient: bool

    @property
    def has_nothing(self) -> bool:
        """Whether no item has a result."""
        return len(self.keys) == self.n_all

    def why_left(self) -> str:
        """Return why a step that reads the results is left as it is."""
        if not self.keys:
            return f"the documents of '{self.block}' are missing"
        if self.n_all == 1:
            return f"the only item of '{self.block}' failed"
        return f"all {self.n_all:,} items of '{self.block}' failed"

    def note(self, step: str) -> str:
        """Return what a step lacks that was made of the other items."""
        n, named = len(self.keys), listed(self.keys, MAX_NAMED)
        of = f"{n:,} of {self.n_all:,} items of '{self.block}', which failed"
        return f"'{step}' is made without {of}: {named}"


def no_documents_of(work: BlockWork) -> LackingItems | None:
    """Return what a block lacks whose list is empty, and of which a person is asked why."""
    if work.items or not work.doubts:
        return None
    return LackingItems(work.block.id, (), 0, work.doubts[0].text, is_transient=True)


def lacking_of(
    references: frozenset[tuple[str, ...]], lacking: Mapping[str, LackingItems]
) -> list[LackingItems]:
    """Return the blocks whose results are read and lack items; `failed` and `counts` tell it."""
    if not lacking:
        return []
    return [lacking[block] for block in sorted(blocks_read(references) & lacking.keys())]


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
        if lack.has_nothing:
            cause = "io" if lack.is_transient else "other"
            raise StepFailed(step, f"{lack.why_left()}: {lack.error}", cause=cause)
