"""One request inside the engine: its tokens, how far they are computed, what is left. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from paddock.engine.arrays import Tokens
from paddock.engine.request import Priority

State = Literal["waiting", "prefill", "decode", "finished"]
RANK: dict[Priority, int] = {"interactive": 0, "normal": 1, "batch": 2}

# Ageing: so many seconds of waiting make up for the priority. A batch job that has waited for a
# minute is served before a chat that comes just then; chats have a place of their own besides.
PATIENCE_S: dict[Priority, float] = {"interactive": 0.0, "normal": 15.0, "batch": 60.0}

# An answer that may go on to the context's end is given room for so many tokens first: most are
# shorter, and room for all of it would be 100 MB for each of a small model's answers.
LIKELY_ANSWER_TOKENS = 512


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and the answer that grows behind it.

    `seq_id` names its cells in the KV cache, -1 while it waits. `n_computed` tokens, counted from
    the beginning, have their cells. The newest token of an answer never has its cell yet, nor do
    those before it that were forced: the next decode computes them, and with them the `drafts`,
    tokens that are guessed to follow.
    """

    request_id: int
    prompt: Tokens
    max_tokens: int
    priority: Priority = "normal"
    arrived_s: float = 0.0
    arrival: int = 0
    state: State = "waiting"
    seq_id: int = -1
    n_computed: int = 0
    n_reused: int = 0
    n_preempted: int = 0
    n_resident: int = 0
    """Of its prompt, what was in the cache, or about to be, when that was last looked at."""
    resident_since: int = 0
    """How many sequences had been placed before that was so."""
    n_overtaken: int = 0
    """How many later jobs of its priority went first, since their beginning was in the cache."""
    answer: list[int] = field(default_factory=list)
    """What was said since the prompt; on a preemption it becomes a part of the prompt."""
    drafts: list[int] = field(default_factory=list)
    is_open: bool = False
    """`max_tokens` is where the context ends, not what anybody expects."""

    @property
    def due(self) -> tuple[float, int]:
        """What is admitted first: who has waited longest for its priority."""
        return self.arrived_s + PATIENCE_S[self.priority], self.arrival

    @property
    def rank(self) -> tuple[int, int]:
        """Who keeps its place when cells run out: the priority, then the older one."""
        return RANK[self.priority], self.arrival

    @property
    def n_missing(self) -> int:
        """Prompt tokens that are not computed yet."""
        return max(0, len(self.prompt) - self.n_computed)

    @property
    def n_pending(self) -> int:
        """Tokens of prompt and answer that are not computed yet."""
        return len(self.prompt) + len(self.answer) - self.n_computed

    @property
    def n_most_tokens(self) -> int:
        """Length of prompt and answer when it ends at the latest."""
        return len(self.prompt) + self.max_tokens

    @property
    def n_likely_tokens(self) -> int:
        """Length of prompt and answer for which room is made."""
        if not self.is_open:
            return self.n_most_tokens
        n_slices = 1 + len(self.answer) // LIKELY_ANSWER_TOKENS
        return len(self.prompt) + min(self.max_tokens, n_slices * LIKELY_ANSWER_TOKENS)

    @property
    def n_owed_cells(self) -> int:
        """Cells that it will likely take until it ends."""
        return self.n_likely_tokens - self.n_computed
