"""A block's items, while they run: what has ended how, and what others see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from paddock.runner.bind.bound import BoundBlock, BoundStep, all_steps
from paddock.runner.bind.scope import Scope, WithFiled
from paddock.runner.ledger.filed_rows import Place, place_of
from paddock.runner.progress.prefect_view import PrefectState, completed, quarantined
from paddock.runner.progress.report import LISTED_STATES, ItemReport, State

from .block_work import BlockWork, ItemWork
from .dependencies import Dependencies
from .escalation import EscalationPass
from .lacking_items import LackingItems
from .run_records import StepRecord
from .run_reviews import AwaitingReview, RunReviews

# Few enough that progress shows where each item takes seconds; many where one takes a millisecond.
MODEL_CHUNK_ITEMS, PLAIN_CHUNK_ITEMS = 4, 50


@dataclass(slots=True)
class BlockState:
    """A block's items, while they run."""

    work: BlockWork
    scope: Scope
    keeps_results: bool
    results: list[Any]
    filed: dict[str, tuple[Place, Any]] = field(default_factory=dict)
    """By key, the places and results of filed items, where the block's results are read."""
    wholes: dict[str, Any] = field(default_factory=dict)
    """By key, the results of this run with what pipelines of the items had filed."""
    idle: set[str] = field(default_factory=set)
    """Keys of items that were done, and whose pipelines had filed items alone."""
    failed: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    waiting: list[tuple[int, str]] = field(default_factory=list)
    """Index and key of each item that waits for a person's decision."""
    skipped: set[str] = field(default_factory=set)
    """Keys of skipped items."""
    skipped_reviews: set[int] = field(default_factory=set)
    """Indexes of items that a person has to look at, and that the run was told to leave."""
    wait: AwaitingReview | None = None
    """Why the last one waits, or was left."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LISTED_STATES, 0))
    changed: list[dict[str, str]] = field(default_factory=list)
    passed: list[ItemWork] = field(default_factory=list)
    """Items that other machines hold at the moment."""
    ended: set[int] = field(default_factory=set)
    """Indexes of the items that ended in this run, done or failed."""
    with_result: set[int] = field(default_factory=set)
    """Indexes of the items that have a result, of this run or an earlier one."""
    skipped_failures: list[str] = field(default_factory=list)
    """Keys of the items that failed and count as skipped, by `on_error: skip`."""
    around: tuple[tuple[str, str], ...] = ()
    """Scope and key of each item that a nested block is within, outermost first."""
    is_within_item: bool = False
    """Its items are parts of an item that this walk has begun."""
    parallel: int = 1
    """How many items may be in flight, of this block or of one around it."""
    reads: Dependencies = field(default_factory=dict)
    """Recorded dependencies of its items, for the item around it."""
    attempts: int = 0
    """Above zero where items failed for a transient reason: the next run retries them."""
    turn: EscalationPass = field(default_factory=EscalationPass)
    """The pass over the items of the outermost block."""
    put_off: list[ItemWork] = field(default_factory=list)
    """Items that are done in the next pass."""
    begun: dict[int, list[StepRecord]] = field(default_factory=dict)
    """By index, the steps that were done of items that were put off."""

    @property
    def block(self) -> BoundBlock:
        return self.work.block

    @property
    def step(self) -> BoundStep | None:
        return self.work.step

    @property
    def outer(self) -> tuple[str, ...]:
        return self.work.outer

    @property
    def is_outermost(self) -> bool:
        """Whether it is a block that is in no item of another one."""
        return not self.outer and self.step is None

    @property
    def has_models(self) -> bool:
        """Whether any step calls a model, in sub-pipelines too."""
        return any(step.kind.roles for step in all_steps(self.block.body))

    @property
    def chunk_items(self) -> int:
        return MODEL_CHUNK_ITEMS if self.has_models else PLAIN_CHUNK_ITEMS

    def hand_to_other_machine(self, item: ItemWork) -> None:
        """Forget what was done of an item that another machine has taken over."""
        self.passed.append(item)
        self.put_off = [other for other in self.put_off if other is not item]
        self.results[item.index] = None
        self.with_result.discard(item.index)
        self.failed = [failure for failure in self.failed if failure[0] != item.index]
        self.waiting = [pair for pair in self.waiting if pair[0] != item.index]

    def done(self) -> set[int]:
        """Return the indexes of the items whose result stands."""
        known = (item for item in self.work.items if item.verdict.state in ("fresh", "held"))
        indexes = self.ended.union(item.index for item in known)
        return indexes.difference(index for index, _ in self.failed)

    async def lacking(self, reviews: RunReviews) -> LackingItems | None:
        """Return the items whose results others will miss; none of what a person rejected."""
        if not (self.failed or self.skipped_failures or self.waiting or self.skipped_reviews):
            return None
        failed = [*(failure["key"] for _, failure in self.failed), *self.skipped_failures]
        ended = await reviews.ended(self.work.scope) if failed else {}
        rejected, expired = ended.get("rejected", ()), ended.get("expired", ())
        found = LackingItems(
            self.block.id,
            len(self.work.items),
            len(self.with_result),
            failed=tuple(key for key in failed if key not in rejected and key not in expired),
            waiting=tuple(key for _, key in sorted(self.waiting)),
            unasked=tuple(i.key for i in self.work.items if i.index in self.skipped_reviews),
            expired=tuple(key for key in failed if key in expired),
            n_rejected=sum(key in rejected for key in failed),
            error=self.failed[0][1]["error"] if self.failed else "",
            is_transient=self.attempts > 0,
        )
        return found or None

    def next_pass(self) -> list[ItemWork]:
        """Return the items that were put off, to be done in the next pass."""
        if self.is_within_item or not self.put_off:
            return []
        left, self.put_off = self.put_off, []
        self.turn = self.turn.next()
        return left

    def todo(self) -> list[ItemWork]:
        return [item for item in self.work.items if item.verdict.is_work]

    @property
    def has_news(self) -> bool | None:
        """Whether any item is new, or has something new; None: nothing is filed."""
        filed = self.work.filed
        if not (filed.rows or filed.parts or self.idle):
            return None
        known = self.idle.union(key for key in filed.parts if key in self.filed)
        return any(item.key not in known for item in self.work.items)

    @property
    def is_partial(self) -> bool:
        """Whether `--only` or a sample left out items that have work to do."""
        return any(item.verdict.is_left_out for item in self.work.items)

    def offered(self) -> dict[str, Any]:
        """Return the value of `steps.<block>`; items without a result are not in `results`."""
        place = {item.key: item.index for item in self.work.items}
        last = len(place)
        new = [result for result in self.results if result is not None]
        outputs = {
            "results": new,
            "counts": self.counts,
            # In the list's order, not by time: a prompt may read it.
            "changed": sorted(self.changed, key=lambda change: place.get(change["key"], last)),
            "failed": [failure for _, failure in sorted(self.failed, key=lambda pair: pair[0])],
            "waiting": [key for _, key in sorted(self.waiting)],
        }
        work, places = self.work, self.work.filed.places
        moves = (step for step in all_steps(self.block.body) if step.uses == "files.move")
        is_filing = places or any(step.written.get("mode") != "copy" for step in moves)
        if not (self.filed or is_filing or any(source.is_hot for source in work.missing.sources)):
            return outputs
        whole = dict(self.filed)
        for item in work.items:  # those of this run come in place of filed ones
            key, result = item.key, self.wholes.get(item.key, self.results[item.index])
            if result is not None and not (key in work.filed.parts and key in self.filed):
                whole[key] = places.get(key) or place_of(work.names.get(key, key), key), result
        results = [result for _, result in sorted(whole.values(), key=itemgetter(0))]
        return WithFiled(outputs, {**outputs, "results": results})

    def shown(self, key: str) -> str:
        """Return an item's key as progress shows it: none of a step outside of blocks."""
        return "/".join(self.outer) if self.step else self.work.shown(key)

    def report(
        self,
        item: ItemWork,
        state: State,
        seconds: float,
        error: str | None = None,
        *,
        is_known: bool = False,
    ) -> ItemReport:
        shown = self.work.shown(item.key)
        reasons = item.verdict.reasons
        return ItemReport(self.block.id, shown, state, seconds, error, reasons, is_known)

    def state_of(self, chunk: Sequence[ItemWork]) -> PrefectState:
        """Return the state of a chunk; items that the stop gate left out are not counted."""
        indexes = {item.index for item in chunk} & self.ended
        n_failed = sum(index in indexes for index, _ in self.failed)
        n_waiting = sum(index in indexes for index, _ in self.waiting)
        n_skipped = sum(i.key in self.skipped for i in chunk if i.index in indexes)
        done = f"{len(indexes) - n_failed - n_waiting - n_skipped} done"
        done += f", {n_skipped} skipped" if n_skipped else ""
        done += f", {n_waiting} waiting" if n_waiting else ""
        return quarantined(f"{done}, {n_failed} quarantined") if n_failed else completed(done)
