"""One attempt at an item, or at a step outside of blocks: what its steps ask, read and write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.system.tasks import in_left_thread
from paddock.pipelines.label_choices import LabelList
from paddock.runner.bind.bound import BoundNode
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.step_reads import follows_time
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.output_index import OutputIndex
from paddock.steps.base import ItemName, Roots
from paddock.steps.paths import resolve_path

from .block_state import BlockState
from .calls.call_cache import CallOrigin
from .documents_in_use import DocumentInUse
from .escalation import EscalationPass
from .item_judge import values_digest
from .outputs.item_outputs import ItemOutputs
from .run_context import RunContext
from .run_records import CallRecord, StepRecord
from .traces.block_items import (
    file_path_of,
    is_file_value,
    item_content,
    item_path,
)
from .traces.block_work import ItemWork
from .traces.dependencies import (
    Dependencies,
    Dependency,
    FileRead,
    OutputWithin,
    by_name,
    kept_paths,
)
from .traces.parts import part_digest
from .traces.scopes import ItemKey
from .traces.verify import Case


@dataclass(slots=True)
class ItemAttempt:
    """What becomes known of an item while its steps run."""

    scope: str
    key: str
    shown_key: str
    node: BoundNode
    """Its block, or the step outside of blocks that it is."""
    outer: tuple[str, ...]
    outputs: ItemOutputs
    work: ItemWork | None = None
    """Its item; None: it is a step outside of blocks that calls no model."""
    made_by: str = ""
    """Digest of what it has in common with the other items of its block."""
    file_key: str = ""
    """Its document's key, where its own has a number."""
    values_read: str = ""
    """Digest of what a top-level step reads, which has no document."""
    around: tuple[ItemKey, ...] = ()
    """The items around it, outermost first."""
    is_repeated_crash: bool = False
    """It is given up untried: several processes died of it."""
    parallel: int = 1
    """How many items may be in flight, of its block or of one around it."""
    escalation_pass: EscalationPass = field(default_factory=EscalationPass)
    """The pass over the items of the outermost block."""
    document: DocumentInUse | None = None
    steps: list[StepRecord] = field(default_factory=list)
    callers: list[CallOrigin] = field(default_factory=list)
    dependencies: Dependencies = field(default_factory=dict)
    lists: dict[str, LabelList] = field(default_factory=dict)
    """The lists of labels that its answers were chosen from, by name."""
    vectors: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """By step, the vector of the text for which examples were chosen."""
    with_filed: Any = None
    """Of its last step that runs a pipeline, then of itself: the result with what that filed."""
    has_news: bool = True
    """Whether a pipeline of it had anything but filed items, if it has any of those."""
    has_inner_failures: bool = False
    n_failures: int = 0
    """Failures in a row for a transient reason, of the item or one within it."""
    last: Any = None
    """The outputs of its last step."""
    has_run: bool = False
    """A step of it, or a nested block, was not skipped."""
    entry: Entry | None = None
    """The entry sent to the ledger; it may not be durable yet."""

    @classmethod
    def of(
        cls,
        context: RunContext,
        node: BoundNode,
        outer: tuple[str, ...] = (),
        around: tuple[ItemKey, ...] = (),
    ) -> ItemAttempt:
        """Return the attempt at a top-level step or block as an item of its own."""
        scope, key = context.judge.scopes.id(node.id, outer), node.id
        may_shrink = follows_time(context.bound.nodes, node)
        outputs = ItemOutputs(context, (*around, (scope, key)), may_shrink=may_shrink)
        return cls(scope, key, "/".join(outer), node, outer, outputs, around=around)

    @classmethod
    def of_item(cls, context: RunContext, state: BlockState, item: ItemWork) -> ItemAttempt:
        """Return the attempt at an item of a block."""
        work, is_step = state.work, state.step is not None
        may_shrink = state.step is None or follows_time(context.bound.nodes, state.step)
        items = (*state.around, (work.scope_id, item.key))
        return cls(
            work.scope_id,
            item.key,
            state.shown_key(item.key),
            state.step or state.block,
            state.outer if is_step else (*state.outer, item.key),
            ItemOutputs(context, items, may_shrink=may_shrink),
            item,
            work.made_by,
            item.name,
            values_digest(item) if is_step else "",
            state.around,
            parallel=state.parallel,
            escalation_pass=state.escalation_pass,
        )

    @property
    def item(self) -> Any:
        return None if self.work is None else self.work.item

    @property
    def own_path(self) -> str | None:
        return None if self.work is None else item_path(self.work.item)

    # --- what was so before

    @property
    def renamed_from(self) -> str | None:
        return None if self.work is None else self.work.renamed_from

    @property
    def is_decided(self) -> bool:
        """Whether a person has decided on an answer of the unchanged item since its last run."""
        return self.work is not None and self.work.verdict.case is Case.DECIDED

    def calls_before(self, step: str) -> dict[str, list[CallRecord]]:
        """Return by hash what a step had asked before the item was put off."""
        by_hash: dict[str, list[CallRecord]] = {}
        for record in () if self.work is None else self.work.begun:
            for call in record.calls if record.id == step else ():
                by_hash.setdefault(call.hash, []).append(call)
        return by_hash

    # --- what steps and others see of it

    def name(self, step: str, scope: Scope, index: OutputIndex) -> ItemName:
        """Return the item as a step knows it; its file is the innermost loop variable with one."""
        files = (value for value in reversed(scope.values()) if file_path_of(value) is not None)
        file: Mapping[str, Any] = next(files, {})
        path, relpath = file.get("path"), file.get("relpath")
        stored = index.stored(path) if isinstance(path, str) else ""
        source = relpath if isinstance(relpath, str) and relpath else stored
        attempt_id = ""
        if self.work is not None:  # the same until it is done, also over kills and failures
            entry = self.work.entry
            run = entry.run if entry is not None and entry.state == "done" else ""
            attempt_id = f"{self.work.hash} {run}"
        owner = f"{self.scope}\n{self.key}"
        return ItemName(step, self.shown_key or self.key, source, stored, owner, attempt_id)

    def document_digest(self, scope: Scope) -> str:
        """Return what tells a changed document from an unchanged one."""
        file = next((value for value in reversed(scope.values()) if is_file_value(value)), None)
        if file is not None and file is self.item:
            return str(file["sha256"])
        parts = [] if file is None else [file["sha256"]]
        return part_digest([*parts, item_content(self.item, None), self.values_read])

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
            if ".." not in text:
                path = os.path.normpath(os.path.join(roots.base, text))  # noqa: PTH118, ASYNC240 - touches no disk
            context.stats.taken.add(str(path))
            with contextlib.suppress(OSError):  # the step reports the error
                self.note(await in_left_thread(FileRead.of, context.judge.world, path))

    def with_outputs(self) -> Dependencies:
        """Return its dependencies with its outputs, for the item around it."""
        within = (OutputWithin(path, self.scope, self.key) for path in self.outputs.written)
        return self.dependencies | self.outputs.dependencies | by_name(within)

    def wrote(self) -> list[str]:
        """Return stored paths, with those of edited files that were kept."""
        return [*self.outputs.written, *kept_paths(self.outputs.dependencies)]

    def edited_paths(self) -> list[str]:
        """Return the stored paths of edited outputs that were kept."""
        return kept_paths(self.dependencies | self.outputs.dependencies)
