"""One attempt at an item, or at a step outside of blocks.

`ItemAttempt` is what its steps ask, read and write, `StepAttempt` one of these steps.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from paddock.engine.system.records import SelectiveFields, Struct, field, replace
from paddock.engine.system.tasks import in_left_thread
from paddock.pipelines.label_choices import LabelList
from paddock.runner.bind.bound import BoundNode, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.progress.item_states import ItemState, Phase
from paddock.runner.progress.reasons import Why
from paddock.runner.progress.report import ItemReport
from paddock.steps.base import ItemName, Roots
from paddock.steps.paths import resolve_path

from .block_state import OUTERMOST, BlockState, EnclosingItems
from .calls.recorded_calls import CallOrigin
from .documents_in_use import DocumentInUse
from .failures import ItemWaits, SkippedByReview, StepFailed, failure_state
from .outputs.item_outputs import ItemOutputs
from .run_context import RunContext
from .run_records import CallRecord, StepRecord
from .traces.block_items import file_path_of, is_file_value, item_content, item_path
from .traces.block_work import ItemEnd, ItemWork
from .traces.dependencies import (
    MADE,
    Dependencies,
    Dependency,
    FileRead,
    OutputWithin,
    by_name,
    dependencies_of,
    kept_paths,
)
from .traces.parts import part_digest
from .traces.scopes import owner_of
from .traces.verdicts import Case


class ItemAttempt(SelectiveFields, Struct, kw_only=True):
    """What becomes known of an item while its steps run."""

    hidden = ("_since",)

    scope_id: str
    shown_key: str
    node: BoundNode
    """Its block, or the step outside of blocks that it is."""
    enclosing: EnclosingItems
    """The items around what its steps run: it is the last, unless it is a step."""
    outputs: ItemOutputs
    work: ItemWork
    """Its item; of a step that has no trace, one that no block has."""
    values_read: str = ""
    """Digest of what a top-level step reads, which has no document."""
    is_repeated_crash: bool = False
    """It is given up untried: several processes died of it."""
    document: DocumentInUse | None = None
    steps: list[StepRecord] = field(default_factory=list)
    callers: list[CallOrigin] = field(default_factory=list)
    dependencies: Dependencies = field(default_factory=dict)
    lists: dict[str, LabelList] = field(default_factory=dict)
    """The lists of labels that its answers were chosen from, by name."""
    vectors: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """By step, the vector of the text for which examples were chosen."""
    reviews: dict[str, Review] = field(default_factory=dict)
    """By step, what was asked about its answer when the item began."""
    upheld: frozenset[str] = frozenset()
    """Nodes that decisions hold up: their `if` skips none of these."""
    applied: list[Review] = field(default_factory=list)
    """Decisions with which its steps went on."""
    has_inner_failures: bool = False
    n_failures: int = 0
    """Failures in a row for a transient reason, of the item or one within it."""
    has_run: bool = False
    """A step of it, or a nested block, was not skipped."""
    entry: Entry | None = None
    """The entry sent to the ledger; it may not be durable yet."""
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def of(
        cls, context: RunContext, step: BoundStep, enclosing: EnclosingItems = OUTERMOST
    ) -> ItemAttempt:
        scope_id = context.judge.scopes.register(step.id, enclosing.keys)
        items = (*enclosing.items, (scope_id, step.id))
        return cls(
            scope_id=scope_id,
            shown_key="/".join(enclosing.keys),
            node=step,
            enclosing=enclosing,
            outputs=ItemOutputs(context, items, step),
            work=ItemWork(key=step.id, name=step.id, value=None, is_counted=False),
        )

    @classmethod
    def of_item(cls, context: RunContext, state: BlockState, item: ItemWork) -> ItemAttempt:
        work, step = state.work, state.step
        items = (*state.enclosing.items, (work.scope_id, item.key))
        enclosing = state.enclosing
        if step is None:
            is_of_document = enclosing.is_of_document or is_file_value(item.value)
            enclosing = EnclosingItems(items, state.parallel, is_of_document, state.escalation_pass)
        attempt = cls(
            scope_id=work.scope_id,
            shown_key=state.shown_key(item.key),
            node=step or state.block,
            enclosing=enclosing,
            outputs=ItemOutputs(context, items, step),
            work=item,
            values_read="" if step is None else item.values_digest,
        )
        if attempt.is_decided:  # its answers may not be asked for again, but it writes again
            recorded: list[Dependency] = dependencies_of(item.entry)
            attempt.dependencies |= by_name(d for d in recorded if not isinstance(d, MADE))
        return attempt

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._since

    @property
    def is_of_item(self) -> bool:
        return self.enclosing.is_of_item

    @property
    def key(self) -> str:
        return self.work.key

    @property
    def own_path(self) -> str | None:
        return item_path(self.work.value)

    @property
    def kept(self) -> Mapping[str, Any]:
        """As `ItemWork.kept`; empty where its document is as it was listed."""
        return self.work.kept or {}

    @property
    def is_decided(self) -> bool:
        return self.work.verdict.case is Case.DECIDED

    # --- what steps and others see of it

    def document_digest(self, scope: Scope) -> str:
        """Return the digest of what a decision in this scope is about."""
        file = next((value for value in reversed(scope.values()) if is_file_value(value)), None)
        if file is not None and file is self.work.value:
            return str(file["sha256"])
        parts = [] if file is None else [file["sha256"]]
        return part_digest([*parts, item_content(self.work.value, None), self.values_read])

    def merge_nested(self, inner: Dependencies, n_failures: int, *, has_failures: bool) -> None:
        """Merge dependencies and failures of a nested block, or of a pipeline that a step runs."""
        self.dependencies |= inner
        self.has_inner_failures |= has_failures
        self.n_failures = max(self.n_failures, n_failures)

    def note(self, dependency: Dependency) -> None:
        self.dependencies[dependency.name] = dependency

    async def note_files(self, context: RunContext, texts: Sequence[str], roots: Roots) -> None:
        """Note files before a step reads them; the item's own file is in its hash.

        Raises:
            StepError: a path may not be used.
        """
        for text in texts:
            if text == self.own_path:
                continue
            # A link is noted itself: it may lead elsewhere later.
            path = str(resolve_path(roots, text))
            if ".." not in PurePath(text).parts:
                path = os.path.normpath(os.path.join(roots.base, text))  # noqa: PTH118, ASYNC240 - touches no disk
            context.stats.taken.add(str(path))
            with contextlib.suppress(OSError):  # the step reports the error
                self.note(await in_left_thread(FileRead.of, context.world, path))

    def with_outputs(self) -> Dependencies:
        written, place = self.outputs.written, (self.scope_id, self.key)
        within = (OutputWithin(path, *place, sha256) for path, sha256 in written.items())
        return self.dependencies | self.outputs.dependencies | by_name(within)

    def wrote(self) -> list[str]:
        """Return stored paths, with those of edited files that were kept."""
        return [*self.outputs.written, *kept_paths(self.outputs.dependencies)]

    def edited_paths(self) -> list[str]:
        return kept_paths(self.dependencies | self.outputs.dependencies)


class StepAttempt(Struct, kw_only=True):
    context: RunContext
    step: BoundStep
    """With the model that is asked: of an answer that is escalated, the larger one."""
    scope: Scope
    item: ItemAttempt
    caller: CallOrigin
    record: StepRecord
    is_forced: bool = False
    n_refused: int = 0
    """How many of its answers a person, or its checks, refused."""

    @classmethod
    def begin(
        cls, context: RunContext, step: BoundStep, scope: Scope, item: ItemAttempt
    ) -> StepAttempt:
        options, block = context.options, item.node.id
        is_forced = not options.force.isdisjoint({step.id, block})
        looks_up = step.cache and not options.no_cache and not is_forced
        before: dict[str, list[CallRecord]] = {}
        for begun in item.work.begun:
            for call in begun.calls if begun.id == step.id else ():
                before.setdefault(call.hash, []).append(call)
        caller = CallOrigin(item.scope_id, block, item.shown_key, looks_up, before=before)
        record = StepRecord.begin(step, caller.calls)
        return cls(
            context=context,
            step=step,
            scope=scope,
            item=item,
            caller=caller,
            record=record,
            is_forced=is_forced,
        )

    @property
    def item_name(self) -> ItemName:
        """The item as the step knows it; its file is the innermost loop variable with one."""
        item, values = self.item, reversed(self.scope.values())
        file: Mapping[str, Any] = next((v for v in values if file_path_of(v) is not None), {})
        path, relpath = file.get("path"), file.get("relpath")
        stored = self.context.index.stored(path) if isinstance(path, str) else ""
        source = relpath if isinstance(relpath, str) and relpath else stored
        work, entry = item.work, item.work.entry
        run = entry.run if entry is not None and entry.state == "done" else ""
        # The same until it is done, also over kills and failures
        attempt_id = f"{work.hash} {run}" if work.hash else ""
        owner = owner_of((item.scope_id, item.key))
        former = owner_of((item.scope_id, work.renamed_from)) if work.renamed_from else ""
        key = item.shown_key or item.key
        return ItemName(self.step.id, key, source, stored, owner, former, attempt_id)

    @property
    def document_digest(self) -> str:
        return self.item.document_digest(self.scope)

    def with_larger_model(self) -> StepAttempt:
        return replace(self, step=self.step.escalated)


def waiting_end(wait: ItemWaits, report: ItemReport) -> ItemEnd:
    error = str(wait.reason) if wait.state is ItemState.BLOCKED else None
    state = wait.state or ItemState.SKIPPED
    report = replace(report, state=state, reasons=(wait.reason,), error=error)
    return ItemEnd(wait.phase, report, wait.state, wait.reason)


def failed_end(
    item: ItemWork, error: StepFailed, report: ItemReport, on_error: str, max_attempts: int
) -> ItemEnd:
    """Return how an item ended that failed; `report`: it as quarantined.

    1. `on_error: skip`, or no one decided in time: it is skipped; where the next run tries it
       again, its entry says so.
    2. `on_error: fail`: the next run tries it again, and this run ends.
    3. `on_error: quarantine`: it is, unless the next run tries it again.
    """
    state, n_failures = failure_state(item.n_failures, max_attempts, item.cause(error.cause))
    why, phase, stops_run = str(error), Phase.FAILED, None
    if state is ItemState.QUARANTINED and n_failures > 1:
        why += f" (failed {n_failures} times in a row)"
    report = replace(report, error=why)  # 3, unless 1 or 2
    if on_error == "skip" or isinstance(error, SkippedByReview):  # 1
        report = replace(report, state=ItemState.SKIPPED, is_known=False)
        phase = Phase.SKIPPED
        state = ItemState.SKIPPED if state is ItemState.QUARANTINED else state
    elif on_error == "fail":  # 2
        if state is ItemState.QUARANTINED:  # counted for a watch, which retries it
            n_failures = item.n_failures + 1
        state, stops_run = ItemState.FAILED, error
        report = replace(report, state=state, is_known=False)
    reason = Why.RECORDED(why)
    return ItemEnd(phase, report, state, reason, n_failures=n_failures, stops_run=stops_run)
