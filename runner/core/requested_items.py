"""What a run is asked to do: with a block, a step, and which of their items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from paddock.engine.system.records import Struct
from paddock.pipelines.errors import Fault, PipelineError
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from paddock.runner.bind.plan_walks import all_steps, node_ids
from paddock.runner.bind.scope import Scope
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Why
from paddock.steps.effects import OutputEffect

from .run_options import RunOptions
from .traces.block_items import item_strata, nearest_keys
from .traces.block_work import ItemWork
from .traces.verdicts import Case, ItemRequest, ItemVerdict

NOT_REQUESTED = ItemVerdict(ItemState.SKIPPED, (Why.NOT_REQUESTED(),), Case.NOT_REQUESTED)


class RequestedItems(Struct, eq=False):
    """What a run is asked to do with the items of one pipeline."""

    bound: BoundPlan
    options: RunOptions
    seen_keys: set[str]
    """Keys of all items, where only some are asked for."""
    job_runs: Callable[[], frozenset[str]] | None
    is_inner: bool
    """Whether a step runs this pipeline."""

    def of(self, node: BoundNode, keys_around: Sequence[str]) -> ItemRequest:
        options, sample, not_requested = self.options, self.options.sample, NOT_REQUESTED
        job_runs = frozenset[str]()
        if self.job_runs is not None and not keys_around:  # else the item around it is claimed
            job_runs = self.job_runs()
        if sample is not None:
            why = Why.NOT_AMONG_FIRST(sample.n_items) if sample.is_first else Why.NOT_SAMPLED()
            not_requested = ItemVerdict(ItemState.UNSAMPLED, (why,), Case.NOT_REQUESTED)
        if isinstance(node, BoundBlock):
            nodes = {node.id, *node_ids(node.body)}
            writes = [step for step in all_steps(node.body) if step.has(OutputEffect)]
            replaces = [step.written.get("on_edited") == "overwrite" for step in writes]
            overwrites = bool(replaces) and all(replaces)
        else:  # what is to fail on an edited file has to run
            nodes, overwrites = {node.id}, node.written.get("on_edited", "keep") != "keep"
        return ItemRequest(
            is_forced=not options.force.isdisjoint(nodes),
            takes_over=options.takes_over,
            overwrites=overwrites,
            retries_failed=options.retry_failed,
            is_of_step=isinstance(node, BoundStep),
            asks_people=options.review == "ask",
            not_requested=not_requested,
            is_of_variant=bool(options.variant_of),
            job_runs=job_runs,
        )

    def keys(
        self, block: BoundBlock, scope: Scope, items: Iterable[ItemWork]
    ) -> frozenset[str] | None:
        """Return the keys of a top-level block's items that the run is asked to do; None: all.

        Naming an item asks for everything within it.
        """
        sample, only = self.options.sample, self.options.only
        if sample is None and not only:
            return None
        keys = [item.key for item in items]
        if sample is not None:
            strata = item_strata(block, scope, [item.value for item in items], sample.by)
            return sample.chosen(keys, strata)
        self.seen_keys.update(keys)
        inner = (step.inner for step in self.bound.nodes if isinstance(step, BoundStep))
        n_blocks = sum(isinstance(node, BoundBlock) for node in self.bound.nodes)
        if not self.is_inner and n_blocks == 1 and all(plan is None for plan in inner):
            self.refuse_unknown()
        return only

    def refuse_unknown(self) -> None:
        """Refuse keys of `options.only` that no item has; call it when all items are known.

        Raises:
            PipelineError: a fault for each, with the nearest key.
        """
        faults = [
            Fault(f"no item has the key '{key}'.", nearest_keys(key, self.seen_keys))
            for key in sorted(self.options.only - self.seen_keys)
        ]
        if faults:
            raise PipelineError(faults)
