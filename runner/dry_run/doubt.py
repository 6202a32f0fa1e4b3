"""Doubt about a node of a plan, and its propagation to the nodes behind it.

A reply that the ledger does not have is in doubt. A placeholder stands for it, so that what reads
it can be tried too. It may also decide what is done at all: `DoubtPropagation` has the rules.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Flag, auto
from typing import Any

from paddock.engine.system.records import Struct, field, replace
from paddock.pipelines.expressions import Reference, steps_read
from paddock.runner.bind.bound import BoundNode, BoundStep
from paddock.runner.bind.plan_walks import all_steps, only_reads
from paddock.steps.base import CallForecast, Step
from paddock.steps.effects import SentRequest
from paddock.steps.param_types import InputContent, InputFolder, SearchedStore

from .call_bounds import NO_CALLS, CallBounds


class Doubt(Flag):
    """What a plan cannot know before the run. `|` joins the doubts about all that a node reads."""

    NONE = 0
    """It gives what it will give in the run."""
    VALUES = auto()
    """What it reads, or what it gives, is a placeholder or contains some."""
    FILES = auto()
    """The files, or rows of stores, that it reads may be others by then."""
    IF_DONE = auto()
    """It may not be done at all: its calls, and those of what reads it, are made at most."""


class Estimate(Struct, frozen=True):
    """Calls and outputs of one step or block; of one that cannot be tried, by the YAML alone."""

    calls: CallBounds = NO_CALLS
    outputs: dict[str, Any] | None = field(default_factory=dict)
    """None: it is skipped; empty where they are not known."""
    doubt: Doubt = Doubt.VALUES
    """About its outputs, and whether it is done."""
    call_forecast: CallForecast = field(default=CallForecast(0, 0))
    """Calls, and how many of them have replies; of a step that was tried."""
    may_fail: bool = False
    """It may fail for another reason than its checks, or, of a block, have no result."""
    within: DoubtPropagation | None = None
    """What is in doubt at the end of the pipeline that it runs, whose steps were walked."""

    def if_done(self) -> Estimate:
        return replace(self, calls=self.calls.at_most())


class ItemEnds(Exception):
    """The item surely ends here: it fails, or waits, for the reason of `error`."""

    def __init__(self, error: Exception, calls: CallBounds = NO_CALLS) -> None:
        """`calls`: what the step asks before."""
        self.error, self.calls = error, calls
        super().__init__(str(error))


class DoubtPropagation(Struct):
    """What is in doubt about the nodes of an item so far, and so about those behind them.

    The top level of a plan has one, too; only 5 is otherwise there.

    Doubt goes from a node to what reads it:

    1. Its `if`, or that of all that use its answer, is in doubt: it may not be done.
    2. It reads what may not be done: then it would be skipped too, and may not be done either.
    3. It reads placeholders: it is done, and its own outputs are in doubt.
    4. The list of a block is in doubt: so is how many items it has.

    What a node does matters to all behind it, whether they read it or not:

    5. An answer of it is in doubt and may fail checks, a person has to decide on one, or it fails
       if it is done: the item may end there, and what follows is not done. At the top level what
       reads it may not be done.
    6. It may change files or stores: what later steps find there is in doubt.
    """

    is_of_item: bool = True
    nodes: dict[str, Doubt] = field(default_factory=dict)
    """Those about which anything is in doubt."""
    may_have_ended: bool = False
    """5: what follows may not be done."""
    files: Doubt = Doubt.NONE
    """6: `FILES`, what follows may find others."""

    def of(self, references: Iterable[Reference]) -> Doubt:
        """Return the doubt about the values of these references."""
        doubt = Doubt.NONE
        for step in steps_read(references) & self.nodes.keys():
            doubt |= self.nodes[step]
        return doubt

    def of_condition(self, node: BoundNode) -> Doubt:
        return Doubt.NONE if node.if_ is None else self.of(node.if_.references)

    def of_use(self, node: BoundNode) -> Doubt:
        return self.of(("steps", name) for name in node.known_by)

    def is_sure(self, node: BoundNode) -> bool:
        """Return whether a node that is not surely skipped is done, by 1 and 2."""
        may_miss_input = Doubt.IF_DONE in self.of(node.reads.all)
        return not (may_miss_input or self.of_condition(node) or self.of_use(node))

    def note(self, node: BoundNode, estimated: Estimate) -> Estimate:
        """Note what is estimated of a node that is not surely skipped; return it by 1, 2 and 5.

        `ItemEstimator` and `StepEstimator` apply 3 and 4.
        """
        doubt, is_sure, steps = estimated.doubt, self.is_sure(node), [*all_steps([node])]
        if not is_sure and estimated.outputs is not None:  # 1, 2
            doubt |= Doubt.IF_DONE | Doubt.VALUES
        is_at_most = not is_sure or self.may_have_ended or Doubt.IF_DONE in doubt
        of_readers = doubt
        own = steps if self.is_of_item else [step for step in steps if step is node]
        may_refuse = (
            (step.review is not None and not step.has(SentRequest))
            or (doubt and step.reply and step.reply.checks)
            for step in own
        )
        if estimated.may_fail or any(may_refuse):  # 5
            if self.is_of_item:
                self.may_have_ended = True
            else:
                of_readers |= Doubt.IF_DONE
        if estimated.within is not None:  # 5 and 6 of a pipeline whose steps were walked
            self.may_have_ended |= estimated.within.may_have_ended
            self.files |= estimated.within.files
        elif doubt and not all(s.inner or only_reads(s) or s.facts.calls.tree for s in steps):  # 6
            self.files = Doubt.FILES
        if of_readers:
            self.nodes[node.id] = of_readers
        return replace(estimated.if_done() if is_at_most else estimated, doubt=doubt)


def may_read_files(step: BoundStep) -> bool:
    """Return whether a step reads files, or rows of a store, by what its author wrote."""
    facts, written = step.facts, step.written
    if step.kind.reads is not Step.reads and not facts.types.names(InputContent):
        return True
    named = written.keys() & {
        *facts.types.names(InputContent),
        facts.param(InputFolder),
        facts.param(SearchedStore),
    }
    return bool(named) or any(facts.tools(written))
