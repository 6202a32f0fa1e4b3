"""Open a block: judge its items, and count those that a run leaves as they are."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import replace
from paddock.engine.system.text import listed
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.item_events import EventKind
from paddock.runner.progress.item_states import (
    BAD,
    UNCHANGED,
    WAITS,
    WORK,
    ItemState,
    Phase,
    end_of,
)
from paddock.runner.progress.reasons import Why

from .block_state import OUTERMOST, BlockState, EnclosingItems
from .escalation import EscalationPass
from .failures import RunStopped
from .left_nodes import MAX_NAMED, LackingItems
from .outputs.path_obstacles import wait_for_obstacles
from .outputs.same_output_file import refuse_forbidden_paths, refuse_other_pipelines
from .traces.block_items import item_path
from .traces.block_work import ItemEnd, ItemWork
from .traces.verdicts import Case

if TYPE_CHECKING:
    from paddock.runner.ledger.entries import Entry
    from paddock.runner.ledger.filed_store import FiledRow
    from paddock.runner.ledger.ledger import Ledger

    from .run_context import RunContext


async def opened_block(
    context: RunContext,
    node: BoundNode,
    scope: Scope,
    *,
    enclosing: EnclosingItems = OUTERMOST,
    keeps_results: bool,
    lacks: Sequence[LackingItems] = (),
) -> BlockState:
    """Return a block, or a step outside of blocks, with its items judged.

    1. Its items are judged; `lacks`: what the block's list lacks.
    2. Those that would write what is another item's wait, as where something is in the way.
    3. The items that this job did before a crash, and those that are not stale, are counted, with
       their recorded results.

    Raises:
        PipelineError: two items have the same key, or a file cannot be written.
        RunStopped: an item was given up before a crash, with `on_error: fail`.
    """
    judge = context.judge
    if isinstance(node, BoundBlock):  # 1
        work = await judge.block(node, scope, enclosing.keys, lacks)
    else:
        work = await judge.step(node, scope, enclosing.keys)
    context.documents.note_unread(work)
    paths = await context.owners.open_block(judge, work, scope, enclosing.items)  # 2
    await wait_for_obstacles(context, work, scope, paths, enclosing.items)
    filed = read_results(work.filed.rows.values(), context.ledger) if keeps_results else {}
    state = BlockState(work, scope, keeps_results, enclosing, enclosing.parallel, filed)
    todo = state.items_to_do()
    if enclosing.escalation_pass is not None:
        state.escalation_pass = enclosing.escalation_pass
    elif isinstance(node, BoundBlock) and todo:
        state.escalation_pass = EscalationPass.first_pass(node.body)
    if isinstance(node, BoundBlock) and todo:
        refuse_forbidden_paths(context, todo, paths)
    elif isinstance(node, BoundStep) and todo:
        path = judge.output_path(node, scope)
        if path and context.index.owners.taken_by(path, work.scope_id):
            refuse_other_pipelines(context, node, [path])
    if left := [item.filed for item in todo if item.kept is not None and item.filed]:
        names = listed([f"'{row.target or row.path}'" for row in left], MAX_NAMED)
        context.stats.note(f"Gone or edited since it was filed, and left so: {names}.")
    for item in work.items:  # 3
        case, entry = item.verdict.case, item.entry
        if case in (Case.WAITS, Case.DECIDED) and entry and entry.state == ItemState.DONE:
            context.stats.decided_again.add((work.scope_id, item.key))
        if case is Case.SHARED and entry is not None:
            _count_done_before(context, state, item, entry)
        elif not item.verdict.is_work:
            _count_unchanged(context, state, item)
    return state


def read_results(rows: Collection[FiledRow], ledger: Ledger) -> dict[str, Any]:
    text = ",".join([row.returns or "null" for row in rows])
    values = ledger.parse_value(f"[{text}]")  # at once: for 100,000 half the time
    found = {row.key: value for row, value in zip(rows, values, strict=True) if value is not None}
    stored = (row for row in rows if row.returns_object is not None)
    return found | {row.key: ledger.load_value(None, row.returns_object) for row in stored}


def _count_unchanged(context: RunContext, state: BlockState, item: ItemWork) -> None:
    """Count an item that is not stale, or that the run leaves as it is."""
    entry, verdict, reviews = item.entry, item.verdict, context.judge.reviews
    place, found, reason = (state.work.scope_id, item.key), verdict.state, None
    if verdict.reasons:
        reason = verdict.reasons[0]
    if found is ItemState.WAITING:
        reviews.note_waiting(*place)
    is_told = found in (ItemState.QUARANTINED, ItemState.BLOCKED)
    report = state.report(item, found, 0.0, verdict.why or "" if is_told else None, is_known=True)
    if found is ItemState.BLOCKED:
        end = ItemEnd(Phase.WAITING, report, reason=reason)
    elif entry is None:
        end = ItemEnd(Phase.TO_DO, report)
    else:
        if found in WAITS and reviews.is_taken_back(*place):
            state.filed_results.pop(item.key, None)
        elif found not in BAD and entry.state == ItemState.SKIPPED and entry.error:
            # `on_error: skip`
            report = replace(report, state=ItemState.SKIPPED, error=entry.error)
        end = state.end_as_recorded(context, entry, found, report, reason)
        path, is_back = item_path(item.value), entry.is_deleted
        if entry.is_filed:  # its document lies where its list has it
            is_back = path is None or os.path.lexists(path)
        if item.filed is None and is_back:  # the next deletion is a new one
            run = context.stats.run
            context.ledger.append(EventKind.RETURNED, state.work.scope_id, item.key, run)
    state.note_end(context, item, end)
    if state.step:
        shown = report.state if report.state in UNCHANGED else ItemState.FRESH
        context.stats.item_state(state.block.id, "", shown, verdict.why)


def _count_done_before(
    context: RunContext, state: BlockState, item: ItemWork, entry: Entry
) -> None:
    """Count an item that a run of this job has done; a failure is not tried again.

    With the state from before it ran, so that all runs of the job count the same.
    """
    if entry.state in BAD:
        reported = ItemState.QUARANTINED
    elif entry.state != ItemState.DONE:
        reported = ItemState(entry.state)
    else:
        known = (*WORK, ItemState.HELD)
        reported = next((state for state in known if state == entry.was), ItemState.NEW)
    shown, error = state.shown_key(item.key), entry.error
    if reported is ItemState.QUARANTINED and state.block.on_error == "fail":
        raise RunStopped(f"'{shown}': {error}")
    if reported is ItemState.QUARANTINED and state.block.on_error == "skip":
        reported = ItemState.SKIPPED
    state.n_failures = max(state.n_failures, entry.n_failures, entry.state == ItemState.FAILED)
    report = state.report(item, reported, 0.0, error)
    end = state.end_as_recorded(context, entry, reported, report, Why.RECORDED(error or ""))
    state.note_end(context, item, end)
    context.stats.item_state(state.block.id, shown, end_of(reported), error)
