"""What a dry run has in place of replies, files and stores: nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.core.item_attempt import ItemAttempt
from paddock.runner.core.outputs.item_outputs import ItemOutputs
from paddock.runner.core.run_context import RunContext
from paddock.steps.base import EmbedModel, ItemName, SearchHit, Vector, VectorRow
from paddock.steps.vectors.open_stores import OpenStores, StoreHandle
from paddock.steps.vectors.where_filter import Where

from .dry_pool import DryPool


@dataclass(frozen=True, kw_only=True)
class DryReply(ScopedReply):
    """The step's `reply`: an unknown answer passes its checks."""

    pool: DryPool

    @property
    def repair(self) -> int:
        """How often an answer that is known is asked for again."""
        return 0 if self.pool.has_unknown else super().repair

    async def checked(self, output: Any, text: str) -> list[str]:
        return [] if self.pool.has_unknown else await super().checked(output, text)

    async def evidence(self, output: Any) -> Any:
        return None if self.pool.has_unknown else await super().evidence(output)


class DryOutputs(ItemOutputs):
    """The files of one item: knows what was written, and notes nothing."""

    async def _ignore(self, *_: Any, **__: Any) -> None: ...

    intend = wrote = holds = sync = note_removed = _ignore
    note_rows_kept = note_file_read = note_rows_read = _ignore

    def _ignore_at_once(self, *_: Any, **__: Any) -> None: ...

    will_move = record_written = _ignore_at_once

    def _allow(self, *_: Any, **__: Any) -> bool:
        return True

    delete_when_done = may_lose_rows = _allow


def without_effects(context: RunContext, attempt: ItemAttempt) -> None:
    """Replace the outputs of an attempt, so that it writes nothing."""
    attempt.outputs = DryOutputs(context, attempt.outputs.items)


@dataclass(frozen=True, slots=True)
class DryStores:
    """Implements `paddock.steps.base.VectorStores`: stores are read, never written."""

    real: OpenStores

    async def open(
        self, path: Path, dimensions: int | None, model: EmbedModel, *, is_new_allowed: bool = True
    ) -> DryStore:
        store = await self.real.open(path, dimensions, model, is_new_allowed=is_new_allowed)
        return DryStore(store.writer, store.model, store.home, store.requested_dimensions)


class DryStore(StoreHandle):
    """A store that is only read."""

    async def replace(self, item: ItemName, rows: Sequence[VectorRow]) -> int:
        return 0

    async def nearest(
        self, vectors: Sequence[Vector], k: int, where: Where = None
    ) -> list[list[SearchHit]]:
        """Return the nearest rows; none where the vector is a placeholder."""
        is_other = any(len(vector) != self.dimensions for vector in vectors)
        return [[] for _ in vectors] if is_other else await super().nearest(vectors, k, where)
