"""What is in doubt about a node of a plan, and how that spreads to the nodes behind it.

A reply that the ledger does not have is in doubt. A placeholder stands for it, so that what reads
it can be tried too. It may also decide what is done at all: `Spread` has the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any

from paddock.pipelines.expressions import Reference
from paddock.runner.bind.bound import BoundNode, BoundStep
from paddock.runner.bind.plan_walks import all_steps, only_reads
from paddock.steps.base import CallForecast, StepError

from .call_bounds import NO_CALLS, CallBounds


class Doubt(Flag):
    """What a plan cannot know before the run. `|` joins the doubts about all that a node reads."""

    NONE = 0
    """It gives what it will give in the run."""
    VALUES = auto()
    """What it reads, or what it gives, is a placeholder or contains some."""
    FILES = auto()
    """The files, or rows of stores, that it reads may be others by then."""
    ANSWERS = auto()
    """It asked for a reply that the ledger does not have."""
    EQUAL_ANSWERS = auto()
    """It asked for such a reply twice: what is asked about the two may be equal too."""
    IF_DONE = auto()
    """It may not be done at all: its calls, and those of what reads it, are made at most."""
    IF_PASSED = auto()
    """It may fail for another reason than its checks: then the item ends there."""

    READ = VALUES | FILES
    """Of what it reads."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """Calls and outputs of one step or block; of one that cannot be tried, by the YAML alone."""

    calls: CallBounds = NO_CALLS
    outputs: dict[str, Any] | None = field(default_factory=dict)
    """None: it is skipped; empty where they are not known."""
    doubt: Doubt = Doubt.VALUES
    """About its outputs, and whether it is done."""
    forecast: CallForecast = field(default=CallForecast(0, 0))
    """Calls, and how many of them have replies; of a step that was tried."""


class ItemEnds(Exception):
    """The item surely fails here, for the reason of `error`: what follows is not reached."""

    def __init__(self, error: Exception, calls: CallBounds = NO_CALLS) -> None:
        self.is_check = isinstance(error, StepError) and error.kind == "check"
        self.calls = calls
        """What the step that fails asks before."""
        super().__init__(str(error))


@dataclass(slots=True)
class Spread:
    """What is in doubt about the nodes of an item so far, and so about those behind them.

    Doubt goes from a node to what reads it:

    1. Its `if`, or that of all that use its answer, is in doubt: it may not be done.
    2. It reads what may not be done: then it would be skipped too, and may not be done either.
    3. It reads placeholders: it is done, and its own outputs are in doubt.
    4. The list of a block is in doubt: so is how many items it has.

    What a node does matters to all behind it, whether they read it or not:

    5. An answer of it is in doubt and may fail checks, a person has to decide on one, or it fails
       if it is done: the item may end there, and what follows is not done.
    6. It may change files or stores: what later steps find there is in doubt.
    """

    nodes: dict[str, Doubt] = field(default_factory=dict)
    """Those about which anything is in doubt."""
    behind: Doubt = Doubt.NONE
    """About all that follows: `IF_DONE` and `FILES`."""

    def of(self, references: Iterable[Reference]) -> Doubt:
        """Return what is in doubt about what these references read."""
        doubt = Doubt.NONE
        for path in references:
            if path[0] == "steps" and path[1:] and path[1] in self.nodes:
                doubt |= self.nodes[path[1]]
        return doubt

    def of_condition(self, node: BoundNode) -> Doubt:
        return Doubt.NONE if node.if_ is None else self.of(node.if_.references)

    def of_use(self, node: BoundNode) -> Doubt:
        """Return what is in doubt about whether a node's answer is used."""
        return self.of(("steps", name) for name in node.known_by)

    def note(self, node: BoundNode, estimated: Estimated) -> Estimated:
        """Note what is estimated of a node that is not surely skipped; return it by 1, 2 and 5.

        `ItemEstimate` and `StepEstimate` apply 3 and 4.
        """
        doubt, is_skipped = estimated.doubt, estimated.outputs is None
        may_miss_input = Doubt.IF_DONE in self.of(node.references) and not is_skipped
        may_be_unused = self.of_use(node) and not is_skipped
        if self.of_condition(node) or may_be_unused or may_miss_input:  # 1, 2
            doubt |= Doubt.IF_DONE | Doubt.VALUES
        is_at_most = Doubt.IF_DONE in doubt | self.behind
        if doubt:
            self.nodes[node.id] = doubt
        is_walked = isinstance(node, BoundStep) and node.inner is not None  # its steps were noted
        for step in all_steps([node]):
            may_refuse = doubt and step.reply is not None and bool(step.reply.checks)
            if may_refuse or step.review is not None or Doubt.IF_PASSED in doubt:  # 5
                self.behind |= Doubt.IF_DONE
            if doubt and not (is_walked or step.inner or can_try(step)):  # 6
                self.behind |= Doubt.FILES
        calls = estimated.calls.at_most() if is_at_most else estimated.calls
        return Estimated(calls, estimated.outputs, doubt, estimated.forecast)


def can_try(step: BoundStep) -> bool:
    """Return whether a dry run may carry out a step, with its own outputs and stores."""
    return only_reads(step) or bool(step.facts.fills) or step.facts.tree is not None
