"""State of a block while its items run: results, counts, failures, and its outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.request import ModelSpec
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.bind.bound import BoundBlock
from paddock.runner.bind.inputs_and_parameters import Scope
from paddock.runner.bind.subpipelines import all_steps
from paddock.runner.progress.prefect_view import PrefectState, completed, quarantined
from paddock.runner.progress.report import STATES, ItemReport, State

from .retry_and_quarantine import StepFailed
from .staleness import NOT_ASKED, BlockWork, ItemWork


@dataclass(slots=True)
class BlockState:
    """A block's items, while they run."""

    block: BoundBlock
    work: BlockWork
    scope: Scope
    outer: tuple[str, ...]
    keeps_results: bool
    results: list[Any]
    failed: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    changed: list[dict[str, str]] = field(default_factory=list)
    passed: list[ItemWork] = field(default_factory=list)
    """Items that other machines hold at the moment."""
    ended: set[int] = field(default_factory=set)
    """Indexes of the items that ended in this run, done or failed."""
    around: tuple[str, str] | None = None
    """Scope and key of the item that a nested block belongs to."""
    is_within_item: bool = False
    """Its items are parts of an item that this walk has begun."""
    marks: dict[str, list[Any]] = field(default_factory=dict)
    """Recorded dependencies of its items, for the item around it."""
    attempts: int = 0
    """Above zero where items failed for a transient reason: the next run retries them."""

    def shown(self, key: str) -> str:
        """Return an item's key with those of the items around it."""
        return "/".join((*self.outer, key))

    @property
    def has_models(self) -> bool:
        """Whether any step calls a model, in sub-pipelines too."""
        return any(step.kind.roles for step in all_steps(self.block.body))

    @property
    def chat_models(self) -> tuple[ModelSpec, ...]:
        """The chat models of its steps."""
        steps = all_steps(self.block.body)
        models = {(one.pool, one.ref): one for step in steps for one in step.models}
        return tuple(one for one in models.values() if one.role == "chat")

    def hand_to_other_machine(self, item: ItemWork) -> None:
        """Forget what was done of an item that another machine has taken over."""
        self.passed.append(item)
        self.results[item.index] = None
        self.failed = [failure for failure in self.failed if failure[0] != item.index]

    def todo(self) -> list[ItemWork]:
        """Return the stale items."""
        return [item for item in self.work.items if item.verdict.is_work]

    @property
    def is_partial(self) -> bool:
        """Whether `--only` left out items that have work to do."""
        return any(item.verdict is NOT_ASKED for item in self.work.items)

    def offered(self) -> dict[str, Any]:
        """Return the value of `steps.<block>`; items without a result are not in `results`."""
        place = {item.key: item.index for item in self.work.items}
        last = len(place)
        return {
            "results": [result for result in self.results if result is not None],
            "counts": self.counts,
            # In the list's order, not by time: a prompt may read it.
            "changed": sorted(self.changed, key=lambda change: place.get(change["key"], last)),
            "failed": [failure for _, failure in sorted(self.failed, key=lambda pair: pair[0])],
        }

    def report(
        self, item: ItemWork, state: State, seconds: float, error: str | None = None
    ) -> ItemReport:
        """Return the report of an item."""
        shown = self.shown(item.key)
        return ItemReport(self.block.id, shown, state, seconds, error, item.verdict.why)

    def state_of(self, chunk: Sequence[ItemWork]) -> PrefectState:
        """Return the state of a chunk; items that the stop gate left out are not counted."""
        indexes = {item.index for item in chunk} & self.ended
        n_failed = sum(index in indexes for index, _ in self.failed)
        done = f"{len(indexes) - n_failed} done"
        return quarantined(f"{done}, {n_failed} quarantined") if n_failed else completed(done)


def item_result(block: BoundBlock, scope: Scope, last: Any) -> Any:
    """Return an item's result; `last` are the outputs of its last step.

    Raises:
        StepFailed: its `returns` cannot be evaluated.
    """
    if block.returns is None:
        return last
    try:
        return block.returns.render(scope)
    except ExpressionError as error:
        raise StepFailed(block.id, f"`returns`: {error}") from error


def batches_of(items: Sequence[ItemWork], size: int) -> Iterator[Sequence[ItemWork]]:
    """Yield the items in batches of this size."""
    for first in range(0, len(items), size):
        yield items[first : first + size]
