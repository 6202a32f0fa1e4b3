"""Pool events for metrics and logs, and the load counters.

Every method is called in the pool's event loop and must return at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from paddock.engine.request import DoneReason, Usage


@dataclass(slots=True)
class LoadCount:
    """How often a model was loaded, and how long that took."""

    loads: int = 0
    load_s: float = 0.0


UnloadReason = Literal["idle", "room", "died", "closed"]
"""Why a model went: unused for its `keep_alive`, to make room, its worker died, the pool closed."""

RefusalReason = Literal["busy", "too_large", "late"]
"""Why a request was not taken: a full queue, a model without room, a wait without an end."""


class PoolEvents(Protocol):
    """Hears of a pool. Models are told by their names."""

    def loaded(self, model: str, seconds: float) -> None:
        """A model is ready; it took so long."""
        ...

    def unloaded(self, model: str, why: UnloadReason) -> None:
        """A model has gone; `room` is what is called an eviction."""
        ...

    def died(self, model: str, reason: str) -> None:
        """A worker ended unasked, or was killed because it made no step."""
        ...

    def widened(self, model: str, n_ctx_tokens: int) -> None:
        """A worker made its context anew over the same weights, for longer sequences."""
        ...

    def waited(self, model: str, seconds: float) -> None:
        """A request was let into a model's worker after so long outside of it."""
        ...

    def requeued(self, model: str) -> None:
        """A request whose worker died is sent again."""
        ...

    def refused(self, model: str, why: RefusalReason) -> None:
        """A request was not taken."""
        ...

    def turn(self, model: str, told: Mapping[str, Any]) -> None:
        """A worker made a step; `told` is the frame of `decoding.loop.Told`, not to be changed."""
        ...

    def answered(self, model: str, reason: DoneReason, usage: Usage, first_s: float) -> None:
        """A chat has ended; its first token came `first_s` after the pool took it."""
        ...

    def embedded(self, model: str, n_texts: int, n_tokens: int, seconds: float) -> None:
        """A request for vectors was answered."""
        ...


class NoPoolEvents:
    """Hears nothing: the default."""

    def loaded(self, model: str, seconds: float) -> None:
        """Let it pass."""

    def unloaded(self, model: str, why: UnloadReason) -> None:
        """Let it pass."""

    def died(self, model: str, reason: str) -> None:
        """Let it pass."""

    def widened(self, model: str, n_ctx_tokens: int) -> None:
        """Let it pass."""

    def waited(self, model: str, seconds: float) -> None:
        """Let it pass."""

    def requeued(self, model: str) -> None:
        """Let it pass."""

    def refused(self, model: str, why: RefusalReason) -> None:
        """Let it pass."""

    def turn(self, model: str, told: Mapping[str, Any]) -> None:
        """Let it pass."""

    def answered(self, model: str, reason: DoneReason, usage: Usage, first_s: float) -> None:
        """Let it pass."""

    def embedded(self, model: str, n_texts: int, n_tokens: int, seconds: float) -> None:
        """Let it pass."""
