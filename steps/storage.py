"""What a vector store is to a step: rows of items, kept and found again. Plain types, no library.

A store is a folder. Its rows belong to items: what one item keeps replaces what it kept before,
in one commit, and what is equal is not written again. Knows no LanceDB (`steps/stores/` does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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
class Row:
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
class Hit:
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


class Store(Protocol):
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
        """Give the vectors that a step keeps for an item, by text, so that none is made twice.

        Only those that were made in the same way.
        """
        ...

    async def replace(self, item: ItemName, rows: Sequence[Row]) -> int:
        """Let a step keep exactly these rows for an item, in one commit; gives how many are new.

        What is equal is not written again. It is on the disk when this returns, or not at all.

        Raises:
            StepError: a vector has another length; the store cannot be written.
        """
        ...

    async def nearest(
        self, vector: Vector, k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[Hit]:
        """Give the `k` rows whose vectors are the most alike (cosine), nearest first.

        `where`: see `steps/stores/filters.py`; `{"item": key}` keeps to one item.

        Raises:
            StepError: `where` is no filter; the store cannot be read.
        """
        ...

    async def matching(
        self, text: str, k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[Hit]:
        """Give the `k` rows whose words match the best (BM25), best first.

        Raises:
            StepError: `where` is no filter; the store cannot be read.
        """
        ...


class Stores(Protocol):
    """The stores of a run: each path is opened once, and has one writer at a time."""

    async def open(
        self,
        path: Path,
        dimensions: int | None,
        model: EmbedModel,
        *,
        is_new_allowed: bool = True,
    ) -> Store:
        """Open the store in a folder; one that is not there is made when a row is kept in it.

        `path` is absolute and was resolved (`Tools.roots`). `dimensions` None: whatever it has,
        or what its first vector has. Not closed by the caller: it lives as long as the run.

        Raises:
            StepError: it is missing though it must be there, broken, of another model, or of
                other dimensions.
        """
        ...
