"""What a walk over a plan knows so far, over all its pipelines, and when it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from itertools import islice

from paddock.runner.progress.report import PlanItem

from .plan_cost import PlanCost

MAX_WALK_S = 5.0
"""A plan does not walk longer than that; what is left is bounded by the YAML, or estimated."""
_KEPT_FOR_STEPS_S = 1.0
"""Of that, for top-level steps: by the YAML alone, nothing bounds a `reduce` behind many items."""


@dataclass
class AskedPrompts:
    """What a dry run has asked for so far."""

    has_history: bool
    """Whether the ledger has any reply at all."""
    counts_exactly: bool = True
    """Tokens are counted on this machine; no text is sent elsewhere."""
    items: dict[str, tuple[str, str] | None] = field(default_factory=dict)
    """By the request's hash: the item that asked for it first; None: its reply serves all items."""

    def as_of(self, n_prompts: int) -> AskedPrompts:
        """Return what the first so many prompts were, to go on from in another way."""
        return replace(self, items=dict(islice(self.items.items(), n_prompts)))


@dataclass(slots=True)
class PlanSoFar:
    """What is foreseen of a plan, with the pipelines that its steps run."""

    fills_stores: bool
    """The run may make a store that is not there yet."""
    prompts: AskedPrompts
    cost: PlanCost = field(default_factory=PlanCost)
    items: list[PlanItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What cannot be foreseen."""
    _ends_at: float | None = None

    def deadline(self) -> float:
        """Return when the walk ends, by the loop's clock.

        It begins when this is first asked for: to read a folder before takes time.
        """
        if self._ends_at is None:
            self._ends_at = asyncio.get_running_loop().time() + MAX_WALK_S
        return self._ends_at

    def deadline_of_items(self) -> float:
        return self.deadline() - _KEPT_FOR_STEPS_S
