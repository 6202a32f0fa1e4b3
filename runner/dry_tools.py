"""What a dry run gives to steps besides the pool: files and stores are read, nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.steps.step import Outputs
from paddock.steps.storage import EmbedModel, Hit, ItemName, Row, Store, Stores, Vector

from .dry_pool import DryPool
from .replying import AskedFor


@dataclass(frozen=True, slots=True)
class DryReply:
    """Implements `paddock.steps.step.ReplyForm`: an unknown answer passes its checks."""

    asked: AskedFor
    pool: DryPool

    @property
    def schema(self) -> Any:
        """The JSON Schema of the answer."""
        return self.asked.schema

    @property
    def repair(self) -> int:
        """How often an answer that is known is asked for again."""
        return 0 if self.pool.n_unknown else self.asked.repair

    async def failures(self, output: Any, text: str) -> list[str]:
        """Return which checks a known answer does not pass."""
        return [] if self.pool.n_unknown else await self.asked.failures(output, text)


@dataclass(frozen=True, slots=True)
class DryOutputs:
    """Implements `paddock.steps.step.Outputs`: knows what was written, and notes nothing."""

    real: Outputs

    def owned(self) -> frozenset[Path]:
        """Return every file that was written, absolute."""
        return self.real.owned()

    async def known_sha256(self, path: Path) -> frozenset[str]:
        """Return the digests that were written to this path."""
        return await self.real.known_sha256(path)

    def check_target(self, path: Path, *, is_new: bool = True) -> None:
        """Check it as a run does."""
        self.real.check_target(path, is_new=is_new)

    async def intend(self, path: Path, sha256: str) -> None:
        """Note nothing."""

    async def wrote(self, path: Path, sha256: str, size_bytes: int) -> None:
        """Note nothing."""

    @property
    def takes_over(self) -> bool:
        """Whether files of others are replaced."""
        return self.real.takes_over

    async def holds(self, path: Path, sha256: str) -> None:
        """Note nothing."""

    async def brings_away(self, path: Path) -> None:
        """Note nothing."""

    async def keeps_rows(self, store: Path) -> None:
        """Note nothing."""

    async def reads_file(self, path: Path) -> None:
        """Note nothing."""

    async def reads_rows(self, store: Path) -> None:
        """Note nothing."""


@dataclass(frozen=True, slots=True)
class DryStores:
    """Implements `paddock.steps.storage.Stores`: stores are read, and nothing is kept in them."""

    real: Stores

    async def open(
        self,
        path: Path,
        dimensions: int | None,
        model: EmbedModel,
        *,
        is_new_allowed: bool = True,
    ) -> Store:
        """Open a store to read it.

        Raises:
            StepError: as for a run.
        """
        store = await self.real.open(path, dimensions, model, is_new_allowed=is_new_allowed)
        return DryStore(store)


@dataclass(frozen=True, slots=True)
class DryStore:
    """Implements `paddock.steps.storage.Store` over one that is only read."""

    real: Store

    @property
    def path(self) -> Path:
        """The folder."""
        return self.real.path

    @property
    def dimensions(self) -> int | None:
        """How long each vector is."""
        return self.real.dimensions

    @property
    def n_rows(self) -> int:
        """How many rows it holds."""
        return self.real.n_rows

    async def known(self, item: ItemName, made: str = "") -> Mapping[str, Vector]:
        """Return the vectors that a step keeps for an item."""
        return await self.real.known(item, made)

    async def replace(self, item: ItemName, rows: Sequence[Row]) -> int:
        """Keep nothing."""
        return 0

    async def nearest(
        self, vector: Vector, k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[Hit]:
        """Return the nearest rows; none where the vector is a placeholder."""
        if len(vector) != self.real.dimensions:
            return []
        return await self.real.nearest(vector, k, where)

    async def matching(
        self, text: str, k: int, where: Mapping[str, Any] | str | None = None
    ) -> list[Hit]:
        """Return the rows whose words match the best."""
        return await self.real.matching(text, k, where)
