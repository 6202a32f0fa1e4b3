"""Whether an item is still as its entry says, and whether a run may act on that.

`verify` compares what was recorded with what there is, and knows no option of a run; `permit`
applies what the run was asked for. Both are pure: `preparation` has looked at all that they ask.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import canonical_json
from paddock.runner.ledger.entries import Entry
from paddock.runner.progress.item_states import WAITS, WORK, ItemState
from paddock.runner.progress.reasons import Reason, Why

from .dependencies import (
    OTHER_LABELS,
    ChosenLabels,
    KeptOutput,
    LimitedContext,
    TakenPath,
    Trace,
    dependencies_of,
)
from .parts import Older, PreviousResult, changed_parts, parts_hash, renewed_parts, stale_parts
from .verdicts import FINAL, FRESH, NEW, Case, ItemRequest, ItemVerdict
from .world import PreparedWorld

if TYPE_CHECKING:
    pass


class CurrentItem(Struct, frozen=True):
    hash: str
    parts: str
    """JSON: part of the hash → its digest."""
    item: Any = None
    older: Older = None
    key: str = ""


def verify(trace: Trace | None, now: CurrentItem, world: PreparedWorld) -> ItemVerdict:
    """Compare an item with its trace.

    1. It was never done: `new`.
    2. A part differs, and the result would not be equivalent: `changed` where the content is
       another one, as far as it was read then; else `stale`.
    3. It failed, or something within it did, for a reason that may pass, or waits for a path:
       `stale`.
    4. It waits, or a person has decided since: `stale` where what it depended on changed, but for
       lists of labels behind a decision; else `waiting`, or, once more, what it was before, with
       the decision; or without one where it waited for a path, which may be free now.
    5. It was given up: `stale` where a list of labels changed or an edited output is no longer in
       its way; else `quarantined`.
    6. What it depended on changed (files, folders and stores; else labels; else examples): `stale`.
    7. An output of it is lost, or another item has written its path since: `stale`, to be made
       again without a call.
    8. A person edited an output: `held`.
    9. A run of another pipeline has taken over an output: `fresh`.
    10. `fresh`.
    """
    # 1
    if trace is None:
        return NEW
    entry = trace.entry
    # 2
    if reasons := _of_parts(trace, now):
        state = ItemState.CHANGED if Why.CONTENT() in reasons else ItemState.STALE
        return ItemVerdict(state, reasons, Case.PARTS)
    # 3
    is_done = entry.state == ItemState.DONE
    if not is_done and entry.state == ItemState.FAILED:
        failed = Why.FAILED_BEFORE(str(entry.error))
        return ItemVerdict(ItemState.STALE, (failed,), Case.FAILED)
    if is_done and entry.n_failures:
        return ItemVerdict(ItemState.STALE, (Why.FAILED_WITHIN(),), Case.FAILED)
    taken = [dep.path for dep in trace.dependencies if isinstance(dep, TakenPath)]
    if taken and is_done:
        return ItemVerdict(ItemState.STALE, (*map(Why.PATH_WITHIN, taken),), Case.FAILED)
    # 4
    pending = world.pending(trace.scope_id, entry.key)
    if pending is not None or entry.state in WAITS:
        reason, _ = _difference(trace, world)
        is_decided = pending is not None and not pending.is_open
        if reason is not None and not (is_decided and reason.why in OTHER_LABELS):
            return ItemVerdict(ItemState.STALE, (reason,), _case_of(reason))
        if pending is not None and pending.is_open:
            return ItemVerdict(ItemState.WAITING, (pending.why,), Case.WAITS)
        if pending is None and entry.state == ItemState.BLOCKED:
            return ItemVerdict(ItemState.STALE, (*map(Why.PATH_FREE, taken),), Case.WAITS)
        return _decided(entry, () if pending is None else (pending.why,))
    # 5
    if not is_done and entry.state == ItemState.QUARANTINED:
        kept_outputs = [dep for dep in trace.dependencies if isinstance(dep, KeptOutput)]
        labels = [dep for dep in trace.dependencies if isinstance(dep, ChosenLabels)]
        for reason in (dep.reason(world, trace) for dep in (*labels, *kept_outputs)):
            if reason is not None and reason.why is not Why.OUTPUT_EDITED:
                return ItemVerdict(ItemState.STALE, (reason,), Case.GIVEN_UP)
        why, paths = (Why.RECORDED(entry.error or ""),), tuple(dep.path for dep in kept_outputs)
        return ItemVerdict(ItemState.QUARANTINED, why, Case.GIVEN_UP, paths)
    # 6, 7
    reason, kept = _difference(trace, world)
    if reason is not None:
        return ItemVerdict(ItemState.STALE, (reason,), _case_of(reason))
    # 8
    if paths := tuple(str(out.about[0]) for out in kept if out.why is Why.OUTPUT_EDITED):
        return ItemVerdict(ItemState.HELD, (Why.OUTPUTS_KEPT(paths),), Case.EDITED, paths)
    # 9, 10
    return ItemVerdict(ItemState.FRESH, tuple(kept), Case.HANDED_OVER) if kept else FRESH


def differences(
    trace: Trace, now: CurrentItem, world: PreparedWorld, unknown: Collection[str]
) -> tuple[Sequence[Reason], Sequence[Reason]]:
    """Return all that `verify` compares, in place of the first: by 2, then by 6, 7 and 8.

    `unknown`: names of parts that are not known now, and count as they were.
    """
    dependencies = (*trace.outputs, *trace.dependencies)
    within = (dependency.reason(world, trace) for dependency in dependencies)
    return _of_parts(trace, now, unknown), [*filter(None, within)]


def _of_parts(
    trace: Trace, now: CurrentItem, unknown: Collection[str] | None = None
) -> tuple[Reason, ...]:
    """Return the reasons why parts make an item stale; none: its result is equivalent."""
    entry = trace.entry
    if entry.hash == now.hash:
        return ()
    before, parts = json.loads(entry.parts), json.loads(now.parts)
    if unknown is not None:
        parts = {name: parts[name] for name in parts if name not in unknown}
        parts |= {name: before[name] for name in before if name in unknown}
        if parts == before:
            return ()
    has_fitted = entry.state == "done" and not dependencies_of(entry, LimitedContext)
    stale = stale_parts(before, parts, PreviousResult(entry, has_fitted, now.older))
    if not stale and changed_parts(before, parts):
        return ()
    return trace.past.changes(entry.key).reasons(stale, before, parts, now.item)


def _difference(trace: Trace, world: PreparedWorld) -> tuple[Reason | None, list[Reason]]:
    """Return the change of an item's dependencies and outputs, and the outputs that others keep.

    A changed dependency comes before a lost output, which can be made again without a call.
    """
    loss, kept = None, list[Reason]()
    # In most runs every file is as it was
    outputs = trace.outputs if world.seen.reasons else ()
    for dependency in (*outputs, *trace.dependencies):
        reason = dependency.reason(world, trace)
        if reason is not None and not reason.is_loss:
            return reason, []
        if reason is not None and reason.why in (Why.OUTPUT_EDITED, Why.OUTPUT_HANDED_OVER):
            kept.append(reason)
        elif reason is not None:
            loss = loss or reason
    return loss, kept


def _decided(entry: Entry, why: tuple[Reason, ...]) -> ItemVerdict:
    was = next((state for state in WORK if state == entry.was), ItemState.STALE)
    return ItemVerdict(was, why, Case.DECIDED)


def _case_of(reason: Reason) -> Case:
    return Case.LOSS if reason.is_loss else Case.DEPENDENCY


def permit(
    verdict: ItemVerdict, trace: Trace | None, now: CurrentItem, request: ItemRequest
) -> ItemVerdict:
    """Return the verdict that a run acts on: that of `verify`, unless its options say otherwise.

    1. Another run of the job has done it as it is now: it is done.
    2. What its parts decide stands, since no option changes that.
    3. `--force`: it is stale.
    4. `--retry-failed`: so is what was given up, or something within it; a step outside of blocks
       is so in any case.
    5. `--review accept` and the like: what waits goes on.
    6. `--take`, `on_edited: overwrite`: an edited output does not keep it; with `--take` one that
       another pipeline took over is taken back.
    7. `--only`, a sample: what is not asked for is not done.
    """
    if verdict is FRESH and not request.concerns_fresh:
        return verdict
    is_asked_for = request.asks_for(now.key)
    may_replace = request.overwrites or (request.takes_over and is_asked_for)
    if trace is not None and trace.entry.run in request.job_runs and trace.entry.hash == now.hash:
        verdict = replace(FRESH, case=Case.SHARED)  # 1
    elif trace is not None and verdict.case not in FINAL:  # 2
        entry, is_given_up = trace.entry, trace.entry.state == ItemState.QUARANTINED
        if request.is_forced and is_asked_for:
            verdict = ItemVerdict(ItemState.STALE, (Why.FORCED(),), Case.REQUESTED)  # 3
        elif request.retries_failed and (is_given_up or entry.has_inner_failures):
            verdict = ItemVerdict(ItemState.STALE, (Why.RETRIED(),), Case.REQUESTED)  # 4
        elif request.is_of_step and verdict.state is ItemState.QUARANTINED:
            failed = Why.FAILED_BEFORE(str(entry.error))
            verdict = ItemVerdict(ItemState.STALE, (failed,), Case.REQUESTED)
        elif verdict.state is ItemState.WAITING and not request.asks_people:
            verdict = _decided(entry, verdict.reasons)  # 5
        elif (edited := verdict.edited_paths) and may_replace:
            why = tuple(map(Why.OUTPUT_EDITED, edited))
            verdict = ItemVerdict(ItemState.STALE, why, Case.TAKEN)  # 6
        elif verdict.case is Case.HANDED_OVER and request.takes_over and is_asked_for:
            verdict = ItemVerdict(ItemState.STALE, verdict.reasons, Case.TAKEN)
    if not is_asked_for and (verdict.is_work or request.is_of_variant):
        return request.not_requested  # 7
    return verdict


def renewed_entry(trace: Trace, now: CurrentItem, verdict: ItemVerdict) -> Entry | None:
    """Return the entry of an item that is equivalent, with secrets of now; None: it has these.

    So that their next changes show.
    """
    entry = trace.entry
    if entry.hash == now.hash or verdict.case in FINAL:
        return None
    before, parts = json.loads(entry.parts), json.loads(now.parts)
    new = renewed_parts(before, parts)
    text = now.parts if parts == before | new else canonical_json(before | new)
    return replace(entry, parts=text, hash=parts_hash(text)) if new else None
