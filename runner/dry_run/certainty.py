"""What a plan knows of the steps of an item, and how what it does not know spreads to others.

An answer that the ledger does not have is a placeholder, so that what reads it can be tried too. It
may also decide what is done: `Spread` has the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from paddock.pipelines.expressions import Reference
from paddock.runner.bind.bound import BoundNode, BoundStep
from paddock.runner.bind.plan_walks import only_reads
from paddock.steps.base import CallForecast, StepError

from .plan_cost import NO_CALLS, CallBounds


class Certainty(IntEnum):
    """How much a plan knows of a step or block. Of several that are read the greatest counts."""

    KNOWN = 0
    """It gives what it will give in the run."""
    UNKNOWN = 1
    """It is done, but what it gives is not known: its outputs are, or contain, placeholders."""
    AT_MOST = 2
    """It may not be done at all: its calls, and those of what reads it, are made at most."""


NO_FORECAST = CallForecast(0, 0)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Calls and outputs of one step or block; of one that cannot be tried, by the YAML alone."""

    calls: CallBounds = NO_CALLS
    outputs: dict[str, Any] | None = field(default_factory=dict)
    """None: it is skipped; empty where they are not known."""
    certainty: Certainty = Certainty.UNKNOWN
    call_forecast: CallForecast = NO_FORECAST
    """Calls, and how many of them have replies; of a step that was tried."""
    may_fail: bool = False
    """Whether the item may end there for what is known, beside its checks and reviews."""


SKIPPED = Foreseen(outputs=None, certainty=Certainty.KNOWN)


class ItemEnds(Exception):
    """The item surely fails here, for the reason of `error`: what follows is not reached."""

    def __init__(self, error: Exception) -> None:
        self.is_check = isinstance(error, StepError) and error.kind == "check"
        self.calls = NO_CALLS
        """What the step that fails asks before."""
        super().__init__(str(error))


@dataclass(slots=True)
class Spread:
    """What is known of the nodes of an item so far, and what follows for those behind them.

    A node is as certain as what it reads:

    1. Its `if`, or that of all that use its answer, reads what is not known: it may not be done.
    2. It reads what may not be done: then it would be skipped too, and may not be done either.
    3. It reads placeholders: it is done, and its own outputs are not known.
    4. The list of a block is one: so is how many items it has.

    What it does matters to all behind it, whether they read it or not:

    5. Its answer is not known and may fail checks, a person has to decide on it, or it fails if it
       is done: the item may end there, and what follows is not done.
    6. It may change files or stores: what later steps find there is not known.
    """

    nodes: dict[str, Certainty] = field(default_factory=dict)
    """Those that are not `KNOWN`."""
    is_at_most: bool = False
    """Whether the calls of what follows are made at most: it may not be reached, or be fresh."""
    has_changed: bool = False
    """Whether files or stores may be others by then."""

    def of(self, references: Iterable[Reference]) -> Certainty:
        """Return how certain what these references read is."""
        names = (path[1] for path in references if path[0] == "steps" and path[1:])
        known = Certainty.KNOWN
        return max((self.nodes.get(name, known) for name in names), default=known)

    def of_condition(self, node: BoundNode) -> Certainty:
        return self.of(() if node.if_ is None else node.if_.references)

    def of_use(self, node: BoundNode) -> Certainty:
        """Return how certain it is whether a node's answer is used."""
        return self.of(("steps", name) for name in node.known_by)

    def note(self, node: BoundNode, foreseen: Foreseen) -> Foreseen:
        """Note what is foreseen of a node that is not surely skipped; return it by 1, 2 and 5.

        Who foresees a node has applied 3 and 4.
        """
        is_read_at_most = self.of(node.references) is Certainty.AT_MOST
        if self.of_condition(node) or (
            foreseen.outputs is not None and (is_read_at_most or self.of_use(node))
        ):  # 1, 2
            foreseen = replace(foreseen, certainty=Certainty.AT_MOST)
        certainty = foreseen.certainty
        if certainty is Certainty.AT_MOST or self.is_at_most:
            foreseen = replace(foreseen, calls=foreseen.calls.at_most())
        if certainty:
            self.nodes[node.id] = certainty
        if isinstance(node, BoundStep):
            may_refuse = certainty and node.reply is not None and bool(node.reply.checks)
            self.is_at_most |= foreseen.may_fail or may_refuse or node.review is not None  # 5
            self.has_changed |= bool(certainty) and not (can_try(node) or node.inner)  # 6
        return foreseen


def can_try(step: BoundStep) -> bool:
    """Return whether a dry run may carry out a step, with its own outputs and stores."""
    return only_reads(step) or bool(step.facts.fills) or step.facts.tree is not None
