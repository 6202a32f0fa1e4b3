"""What a block has to do: its items with their verdicts and entries, and the order to do them in.

A long item that is begun last has the batch to itself at the end, so the longest come first, by
the tokens of their last run. What an item that never ran will take is estimated from others with
the same kind of file, by tokens per byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from paddock.engine.system.text import canonical_json
from paddock.runner.bind.bound import BoundBlock, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import Entry
from paddock.runner.progress.report import ItemReport

from .block_items import loop_value
from .deleted_documents import DeletionDoubt, MissingSources
from .stale_reasons import ItemVerdict


@dataclass(frozen=True, slots=True)
class ItemWork:
    """One item with its verdict and its entry."""

    index: int
    key: str
    item: Any
    verdict: ItemVerdict
    hash: str
    parts: str
    entry: Entry | None
    place: tuple[int, int] = (0, 1)
    """Its index in the block's list, and the list's length."""
    is_shared: bool = False
    """Whether another machine has done it in this job: it counts as done now."""
    renamed_from: str | None = None
    """The key of a deleted item with the same content."""

    def seen(self, block: BoundBlock, scope: Scope) -> Scope:
        """Return the scope of the item, in which its steps run."""
        if not block.var:  # of a step outside of blocks
            return scope
        return scope.child({block.var: self.item, "loop": loop_value(*self.place)})

    @property
    def unchanged_entry(self) -> Entry | None:
        """Its entry, if the item is as it was then."""
        return self.entry if self.entry is not None and self.entry.hash == self.hash else None

    @property
    def attempts(self) -> int:
        """Failures in a row of this unchanged item, for transient reasons."""
        return 0 if self.unchanged_entry is None else self.unchanged_entry.attempts

    def cause(self, cause: str) -> str:
        """Return the cause under which its failure is recorded.

        A file that was not readable when it was listed is not retried in each run: once it is
        readable it has a digest, and so another hash.
        """
        is_unreadable = isinstance(self.item, Mapping) and self.item.get("sha256", "") is None
        return "other" if cause == "io" and is_unreadable else cause


LEFT_OUT_BY_WHERE = "left out by `where`"


@dataclass(frozen=True, slots=True)
class BlockWork:
    """All items of a block, in the order of its list."""

    block: BoundBlock
    outer: tuple[str, ...]
    """Keys of the items around a nested block."""
    scope: str
    items: tuple[ItemWork, ...]
    missing: MissingSources = field(default_factory=MissingSources)
    absences: Mapping[str, str] = field(default_factory=dict)
    """Key of each deleted item → why the list has it no more."""
    held: tuple[str, ...] = ()
    """Stored paths of edited outputs that are kept."""
    left_out: frozenset[str] = frozenset()
    """Keys of items that `where` leaves out."""
    dropped: tuple[Entry, ...] = ()
    """Entries from before `where` left them out."""
    unsettled: frozenset[str] = frozenset()
    """Keys of items that the watch passes on once they have settled."""
    step: BoundStep | None = None
    """The step outside of blocks that is its one item."""

    def shown(self, key: str) -> str:
        """Return an item's key with those of the items around it."""
        return "/".join((*self.outer, key))

    def deletion(self, key: str) -> ItemReport:
        """Return what is reported of a deleted item."""
        why = LEFT_OUT_BY_WHERE if key in self.left_out else self.absences.get(key)
        return ItemReport(self.block.id, self.shown(key), "deleted", why=why)

    @property
    def deleted(self) -> tuple[Entry, ...]:
        return self.missing.deleted

    @property
    def doubts(self) -> tuple[DeletionDoubt, ...]:
        """Why other missing sources do not count as deleted."""
        return self.missing.doubts


@dataclass(frozen=True, slots=True)
class OuterPipelines:
    """The pipelines around a sub-pipeline; empty for the outermost."""

    file: str
    """Name of the outermost pipeline's file."""
    steps: str
    """Ids of the steps that lead here, such as `clean.`."""
    places: tuple[Mapping[str, str], ...]
    """Their `dir` and `path` inputs, outermost first."""


def longest_first(todo: Sequence[ItemWork], sizes: Mapping[str, float]) -> list[ItemWork]:
    """Return the items to do, the longest first by powers of two, else in their own order.

    In a simulation with document lengths (24 to 64 items, log-normal, 8 slots) a batch takes 2 to
    6 % less time.
    """
    return sorted(todo, key=lambda item: -int(sizes[item.key]).bit_length())


def expected_tokens(todo: Sequence[ItemWork], items: Iterable[ItemWork]) -> dict[str, float]:
    """Return how long each item to do will be, by key: the tokens of its last run.

    Else its size times the tokens per byte of other items with the same kind of file.
    """
    rates = _tokens_per_byte(items)
    return {item.key: _expected_tokens(item, rates) for item in todo}


def _expected_tokens(item: ItemWork, rates: Mapping[str, float]) -> float:
    return _recorded_tokens(item) or _size_bytes(item) * rates.get(_file_kind(item), rates[""])


def _tokens_per_byte(items: Iterable[ItemWork]) -> dict[str, float]:
    """Return tokens per byte by kind of file; `""`: of all files."""
    found: dict[str, list[float]] = {}
    for item in items:
        if tokens := _recorded_tokens(item):
            rate = tokens / max(1, _size_bytes(item))
            for kind in {"", _file_kind(item)}:
                found.setdefault(kind, []).append(rate)
    return {"": 1.0} | {kind: median(rates) for kind, rates in found.items()}


def _recorded_tokens(item: ItemWork) -> int:
    return item.entry.tokens if item.entry is not None else 0


def _file_kind(item: ItemWork) -> str:
    return str(item.item.get("suffix", "")) if isinstance(item.item, Mapping) else ""


def _size_bytes(item: ItemWork) -> int:
    size = item.item.get("size") if isinstance(item.item, Mapping) else None
    return size if isinstance(size, int) else len(canonical_json(item.item))
