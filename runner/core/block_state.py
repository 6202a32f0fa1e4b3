"""A block while it runs: the states of its items, and the results that other nodes see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct, field, replace
from paddock.pipelines.expressions import Expression, ExpressionError
from paddock.pipelines.typed_rows import TypedRows
from paddock.runner.bind.bound import BoundBlock, BoundStep
from paddock.runner.bind.plan_walks import all_steps
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.filed_store import list_order
from paddock.runner.progress.item_states import BAD, OF_LIST, OF_RUN, OPEN, WAITS, ItemState, Phase
from paddock.runner.progress.reasons import Reason, Why
from paddock.runner.progress.report import ItemReport
from paddock.runner.progress.report_table import ITEM_COLUMNS, ReportTable

from .escalation import EscalationPass
from .failures import ItemWaits
from .left_nodes import LackingItems
from .traces.block_work import BlockWork, ItemEnd, ItemWork
from .traces.dependencies import Dependencies, current_paths, with_outputs
from .traces.document_places import document_of
from .traces.verdicts import Case

if TYPE_CHECKING:
    from paddock.runner.ledger.entries import Entry

    from .run_context import RunContext
    from .traces.scopes import ItemKey


class EnclosingItems(Struct, frozen=True):
    """The items around a block, or around a pipeline that a step runs, and what these hand on.

    `is_of_item` is asked of a walk, a block, an attempt at an item, and means the same of each:

        a top-level step or block, also of a pipeline that such a step runs     False
        the steps of an item, and the blocks among them                         True
        all of a pipeline that a step of an item runs                           True
    """

    items: tuple[ItemKey, ...] = ()
    """Outermost first."""
    parallel: int = 1
    """How many items may be in flight, of the blocks of these."""
    is_of_document: bool = False
    """Whether one of them is a document, of which the others are parts."""
    escalation_pass: EscalationPass | None = None
    """The pass over the outermost, of which a nested block is a part; None: they are around a
    pipeline, whose blocks have passes of their own."""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for _, key in self.items)

    @property
    def is_of_item(self) -> bool:
        return bool(self.items)


OUTERMOST = EnclosingItems()
_ENDS = {Phase.DONE: ItemState.DONE, Phase.SKIPPED: ItemState.SKIPPED}
"""Where what is reported tells of the run."""


class BlockState(Struct):
    """A block, or a step outside of blocks as a block of one item, while it runs."""

    work: BlockWork
    scope: Scope
    keeps_results: bool
    enclosing: EnclosingItems = OUTERMOST
    parallel: int = 1
    """How many items may be in flight, of this block or of one around it."""
    filed_results: dict[str, Any] = field(default_factory=dict)
    """By key, what filed items came to before; only where the block's results are read."""
    escalation_pass: EscalationPass = field(default_factory=EscalationPass)
    """The pass over the items of the outermost block."""
    put_off: list[ItemWork] = field(default_factory=list)
    """Items for which a larger model has to be asked, in the next pass over the block."""
    gone: list[str] = field(default_factory=list)
    """Keys of deleted items, which the list no longer has."""
    noted: dict[str, Dependencies] = field(default_factory=dict)
    """Recorded dependencies of its items by their keys, for the item around it."""
    has_failures: bool = False
    """Whether an item failed, or something within one."""
    n_failures: int = 0
    """The most failures in a row of an item for transient reasons; 0: none is retried."""

    @property
    def block(self) -> BoundBlock:
        return self.work.block

    @property
    def step(self) -> BoundStep | None:
        return self.work.step

    @property
    def is_of_item(self) -> bool:
        return self.enclosing.is_of_item

    @property
    def dependencies(self) -> Dependencies:
        """What its items depend on, in the order of the list."""
        found: Dependencies = {}
        for item in self.work.items if self.noted else ():
            found |= self.noted.get(item.key, {})
        return found

    @property
    def has_models(self) -> bool:
        return any(step.kind.roles for step in all_steps(self.block.body))

    # --- its items

    def items_to_do(self) -> list[ItemWork]:
        return [item for item in self.work.items if item.verdict.is_work]

    @property
    def has_ended(self) -> bool:
        return all(item.has_ended for item in self.items_to_do())

    def in_phase(self, *phases: Phase) -> list[ItemWork]:
        return [item for item in self.work.items if item.phase in phases]

    @property
    def wait(self) -> ItemWaits | None:
        """Why the last item waits, or is not asked about; None: no item does."""
        if not (waiting := self.in_phase(*OPEN)):
            return None
        last = waiting[-1]
        state = last.reported if last.phase is Phase.WAITING else None
        return ItemWaits(last.reason or Why.RECORDED(""), state)

    def refuse_waiting(self) -> None:
        """Raise `ItemWaits` where an item waits: so does the one around a nested block.

        But where it waits for a path, and is no part of a document, the others are done.
        """
        block = self.block.id
        waiting = [item.reported for item in self.in_phase(Phase.WAITING) if item.reported]
        if ItemState.BLOCKED in waiting and self.wait is not None:
            if self.enclosing.is_of_document or not any(i.has_result for i in self.work.items):
                raise self.wait
            waiting = [state for state in waiting if state is not ItemState.BLOCKED]
        if waiting:
            n, state = len(waiting), waiting[-1]
            verb, is_one = WAITS[state].verb(n), n == 1
            why = Why.ITEM_WAITS_IN(block, verb) if is_one else Why.ITEMS_WAIT_IN(block, n, verb)
            raise ItemWaits(why, state)
        if self.in_phase(Phase.UNASKED):
            raise ItemWaits(Why.REVIEW_DUE_IN(block), None)

    def lacking(self, context: RunContext) -> LackingItems | None:
        failed = [item for item in self.work.items if item.has_failed]
        waiting, unasked = self.in_phase(Phase.WAITING), self.in_phase(Phase.UNASKED)
        without = [row for row in self.work.filed.rows.values() if not row.has_result]
        if not (failed or waiting or unasked or without):
            return None
        ended = context.judge.reviews.ended(self.work.scope_id) if failed else {}
        rejected, expired = ended.get("rejected", ()), ended.get("expired", ())
        undone = (*waiting, *(item for item in failed if item.key in rejected))
        documents = {document_of(item, context.index) for item in undone}
        keys = [item.key for item in failed]
        lacking = LackingItems(
            self.block.id,
            frozenset((*(item.key for item in self.work.items), *(row.key for row in without))),
            sum(item.has_result for item in self.work.items) + len(self.filed_results),
            failed=tuple(key for key in keys if key not in rejected and key not in expired),
            waiting=tuple((item.key, item.reported) for item in waiting if item.reported),
            unasked=tuple(item.key for item in unasked),
            expired=tuple(key for key in keys if key in expired),
            n_rejected=sum(key in rejected for key in keys),
            tried_again=frozenset(item.key for item in failed if item.is_tried_again),
            error=next((str(item.reason) for item in self.in_phase(Phase.FAILED)), ""),
            is_transient=self.n_failures > 0,
            documents=frozenset(filter(None, documents))
            | {(row.path, row.sha256) for row in without},
        )
        return lacking if lacking or lacking.documents else None

    @property
    def is_partial(self) -> bool:
        return any(item.verdict.case is Case.NOT_REQUESTED for item in self.work.items)

    # --- what others see

    def outputs(self) -> dict[str, Any]:
        """Return the value of `steps.<block>`; items without a result are not in `results`."""
        items, rows = self.work.items, self.work.filed.rows
        ends = Counter(_ENDS.get(item.phase, item.reported) for item in items)
        ends += Counter(item.reported for item in items if item.phase is Phase.DONE)
        ends[ItemState.DELETED] += len(self.gone)
        keeps = self.block.keep is not None
        for key in rows.keys() - {*self.gone, *(item.key for item in items)}:
            has_none = not rows[key].has_result
            ends[ItemState.SKIPPED if keeps and has_none else ItemState.DONE] += 1
        results, (_, types, zones) = self._results(), self._columns()
        return {
            "results": TypedRows(results, types, zones) if zones else results,
            # plain values
            "counts": {state.value: ends[state] for state in (*OF_LIST, *OF_RUN)},
            # In the list's order, not by time: a prompt may read it.
            "changed": [
                *({"key": i.key, "state": i.changed.value} for i in items if i.changed),
                *({"key": key, "state": "deleted"} for key in self.gone),
            ],
            "failed": [{"key": i.key, "error": str(i.reason)} for i in self.in_phase(Phase.FAILED)],
            "waiting": [item.key for item in self.in_phase(Phase.WAITING)],
        }

    def _results(self) -> list[Any]:
        """Return results in the list's order; by key where documents leave the list when done."""
        work, filed = self.work, self.filed_results
        steps, sources = all_steps(self.block.body), work.missing.sources
        moves = any(step.takes_document for step in steps)
        if not (moves or filed or any(source.is_hot for source in sources)):
            return [item.result for item in work.items if item.result is not None]
        places = {key: (list_order(work.filed.rows[key].name, key), filed[key]) for key in filed}
        done = (item for item in work.items if item.result is not None)
        places |= {item.key: (list_order(item.name, item.key), item.result) for item in done}
        return [result for _, result in sorted(places.values(), key=itemgetter(0))]

    def _columns(self) -> tuple[dict[str, Expression], dict[str, str], dict[str, str]]:
        """Return of the results' columns what the item alone tells, types and time zones."""
        block, of_item_alone, zones = self.block, dict[str, Expression](), dict[str, str]()
        types = {name: kind for name, kind in block.columns.items() if kind}
        for name in block.columns:
            compiled = None if block.returns is None else block.returns.expressions.get((name,))
            if compiled is not None and {root for root, *_ in compiled.references} <= {block.var}:
                of_item_alone[name] = compiled
        columns = {name: of.chain[-1] for name, of in of_item_alone.items() if of.chain}
        listed = block.over.evaluate(self.scope, keeps_types=True) if columns else None
        if isinstance(listed, TypedRows):
            for name, column in columns.items():
                if column in listed.types:
                    types.setdefault(name, listed.types[column])
                zones |= {name: listed.zones[column]} if column in listed.zones else {}
        return of_item_alone, types, zones

    def table(self) -> ReportTable:
        """Return a row for each item: key, state, error, and its result.

        Of an item without a result there is what `returns` takes of the item alone.
        """
        block = self.block
        of_item_alone, types, zones = self._columns()
        types = {**dict.fromkeys(ITEM_COLUMNS, "str"), **dict.fromkeys(block.columns, ""), **types}
        rows_of_items = list[tuple[str, str | None, str | None, Any]]()
        filed, names = {**self.filed_results}, self.work.filed.rows
        for item in self.work.items:
            scope = item.scope_in(block, self.scope)
            result = filed.pop(item.key, item.result)
            if result is None:
                result = dict.fromkeys(block.columns)
                for name, compiled in of_item_alone.items():
                    with suppress(ExpressionError):
                        result[name] = compiled.evaluate(scope)
            why = None if item.reason is None else str(item.reason)
            rows_of_items.append((item.key, item.reported and item.reported.value, why, result))
        for key in sorted(filed, key=lambda key: list_order(names[key].name, key)):
            rows_of_items.append((key, ItemState.FILED.value, None, filed[key]))
        rows = []
        for *columns, result in rows_of_items:
            values = result if isinstance(result, dict) else {"result": result}
            rows.append({**dict(zip(ITEM_COLUMNS, columns, strict=True)), **values})
        return ReportTable(TypedRows(rows, types, zones), [*types])

    def shown_key(self, key: str) -> str:
        return "/".join(self.enclosing.keys) if self.step else self.work.shown_key(key)

    def report(
        self,
        item: ItemWork,
        state: ItemState,
        seconds: float = 0.0,
        error: str | None = None,
        *,
        is_known: bool = False,
    ) -> ItemReport:
        shown = self.work.shown_key(item.key)
        reasons = item.verdict.reasons
        return ItemReport(self.block.id, shown, state, seconds, error, reasons, is_known)

    def note_end(self, context: RunContext, item: ItemWork, end: ItemEnd) -> None:
        """Note how an item ended, and count it."""
        assert item.end is None, (item.key, item.phase, end.phase)
        if end.result is not None and not self.keeps_results:
            end = replace(end, result=None)
        item.end = end
        has_to_count = item.is_counted or end.report.state in (ItemState.HELD, ItemState.BLOCKED)
        if end.is_counted and has_to_count:
            context.stats.item(end.report)

    def end_as_recorded(
        self,
        context: RunContext,
        entry: Entry,
        found: ItemState,
        report: ItemReport,
        reason: Reason | None = None,
    ) -> ItemEnd:
        """Return how an item ended by its entry; it was found so, and for this `reason`."""
        self.has_failures |= found in BAD or entry.has_inner_failures
        if self.is_of_item:
            self.noted[entry.key] = with_outputs(entry, self.work.scope_id)
        state, result = ItemState(entry.state), None
        if found in BAD:
            return ItemEnd(Phase.FAILED, report, state, reason)
        if found in WAITS:
            return ItemEnd(Phase.WAITING, report, state, reason)
        if entry.state != ItemState.DONE:
            reason = Why.RECORDED(entry.error) if entry.error else None
            return ItemEnd(Phase.SKIPPED, report, state, reason)
        if entry.has_result and self.keeps_results:
            result = context.ledger.load_value(entry.returns, entry.returns_object)
            step, paths = self.step, current_paths(entry)
            outputs_of = None if step is None else step.facts.outputs_where_written
            if step is not None and step.makes_output and paths and outputs_of is not None:
                # It may be in another place now
                result = outputs_of(context.index.absolute(min(paths)))
                if step.returns is not None:
                    result = step.returns.render(self.scope.with_step(step.id, result))
        return ItemEnd(Phase.DONE, report, state, result=result, has_result=entry.has_result)

    def ends_of(self, chunk: Iterable[ItemWork]) -> Counter[str]:
        """Count how these items ended, each as done, skipped, waiting or quarantined."""
        of_phase = {Phase.FAILED: ItemState.QUARANTINED, Phase.WAITING: ItemState.WAITING}
        ends = Counter[str]()
        for item in chunk:
            if item.has_ended:
                is_skipped = item.reported is ItemState.SKIPPED
                end = ItemState.SKIPPED if is_skipped else ItemState.DONE
                ends[of_phase.get(item.phase, end)] += 1
        return ends
