"""One request inside the engine: its tokens, how far they are computed, what is left. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from paddock.engine.arrays import Tokens
from paddock.engine.request import Priority

State = Literal["waiting", "prefill", "decode", "finished"]
RANK: dict[Priority, int] = {"interactive": 0, "normal": 1, "batch": 2}


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and the answer that grows behind it.

    `seq_id` names its cells in the KV cache, -1 while it waits. `n_computed` tokens, counted from
    the beginning, have their cells. The newest token of an answer never has its cell yet: the
    next decode computes it.
    """

    request_id: int
    prompt: Tokens
    max_tokens: int
    priority: Priority = "normal"
    arrival: int = 0
    state: State = "waiting"
    seq_id: int = -1
    n_computed: int = 0
    n_reused: int = 0
    answer: list[int] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, int]:
        """What goes first: priority, then arrival."""
        return RANK[self.priority], self.arrival

    @property
    def n_missing(self) -> int:
        """Prompt tokens that are not computed yet."""
        return max(0, len(self.prompt) - self.n_computed)

    @property
    def n_owed_cells(self) -> int:
        """Cells that it may still take until it ends."""
        return len(self.prompt) + self.max_tokens - self.n_computed
