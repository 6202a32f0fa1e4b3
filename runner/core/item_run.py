"""One item while its steps run: their records, and what becomes of it in the ledger."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import canonical_json
from paddock.pipelines.label_choices import LabelList
from paddock.runner.bind.bound import BoundNode, follows_time
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.output_index import OutputIndex
from paddock.steps.base import ItemName

from .block_work import ItemWork
from .call_cache import CallOrigin
from .deadly_items import ItemPlace
from .dependencies import (
    ChosenLabels,
    Dependencies,
    Dependency,
    OutputWithin,
    UsedExamples,
    by_name,
    dependencies_of,
    kept_paths,
)
from .documents_in_use import DocumentInUse
from .escalation import EscalationPass
from .fingerprints import (
    CONTENT,
    file_path_of,
    is_file_value,
    item_content,
    item_path,
    part_digest,
)
from .run_context import ItemOutputs, RunContext
from .run_records import CallRecord, StepRecord


@dataclass
class ItemRun:
    """Records of one item's steps, collected while they run."""

    scope: str
    key: str
    shown_key: str
    block: str
    own_path: str | None
    outer: tuple[str, ...]
    outputs: ItemOutputs
    made_by: str = ""
    """Digest of what it has in common with the other items of its block."""
    file_key: str = ""
    """Its document's key, where its own has a number."""
    document: DocumentInUse | None = None
    with_filed: Any = None
    """Of its last step that runs a pipeline, then of itself: the result with what that filed."""
    attempt: str = ""
    """Id of this attempt: see `ItemName`."""
    node: BoundNode | None = None
    """The item's block or step; None: no lineage is recorded."""
    item: Any = None
    renamed_from: str | None = None
    steps: list[StepRecord] = field(default_factory=list)
    callers: list[CallOrigin] = field(default_factory=list)
    reads: Dependencies = field(default_factory=dict)
    lists: dict[str, LabelList] = field(default_factory=dict)
    """The lists of labels that its answers were chosen from, by name."""
    last_labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The labels of its last answers, by the list's name."""
    vectors: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """By step, the vector of the text for which examples were chosen."""
    last_examples: Mapping[str, UsedExamples] = field(default_factory=dict)
    """The examples of its last answers, by the id of its review."""
    has_news: bool = True
    """Whether a pipeline of it had anything but filed items, if it has any of those."""
    has_inner_failures: bool = False
    entry: Entry | None = None
    """The entry sent to the ledger; it may not be durable yet."""
    attempts: int = 0
    """Failures in a row for a transient reason, of the item or one within it."""
    last: Any = None
    has_run: bool = False
    """A step of it, or a nested block, was not skipped."""
    around: tuple[ItemPlace, ...] = ()
    """The items around it, outermost first."""
    values_read: str = ""
    """Digest of what a top-level step reads, which has no document."""
    is_decided: bool = False
    """A person has decided on an answer of the unchanged item since its last run."""
    is_repeated_crash: bool = False
    parallel: int = 1
    """How many items may be in flight, of its block or of one around it."""
    """It is given up untried: several processes died of it."""
    turn: EscalationPass = field(default_factory=EscalationPass)
    """The pass over the items of the outermost block."""
    before: Sequence[StepRecord] = ()
    """Its steps in this run before it was put off."""

    def __post_init__(self) -> None:
        self.outputs.items = self.with_outer_items

    def calls_before(self, step: str) -> dict[str, list[CallRecord]]:
        """Return by hash what a step had asked before the item was put off."""
        found: dict[str, list[CallRecord]] = {}
        for made in self.before:
            for call in made.calls if made.id == step else ():
                found.setdefault(call.hash, []).append(call)
        return found

    @classmethod
    def of(cls, context: RunContext, node: BoundNode, outer: tuple[str, ...] = ()) -> ItemRun:
        """Return the records of a top-level step or block as an item of its own."""
        scope, key = context.judge.scope_id(node.id, outer), node.id
        outputs = ItemOutputs(
            context, scope, key, may_shrink=follows_time(context.bound.nodes, node)
        )
        return cls(scope, key, "/".join(outer), key, None, outer, outputs, node=node)

    @property
    def with_outer_items(self) -> tuple[ItemPlace, ...]:
        """The items around it, and itself."""
        return (*self.around, (self.scope, self.key))

    def note(self, dependency: Dependency) -> None:
        self.reads[dependency.name] = dependency

    def dependencies(self) -> Dependencies:
        """Return what it depended on and its outputs, for the item around it."""
        within = (OutputWithin(path, self.scope, self.key) for path in self.outputs.written)
        return self.reads | self.outputs.searched | by_name(within)

    def name(self, step: str, scope: Scope, index: OutputIndex) -> ItemName:
        """Return the item as a step knows it; its file is the innermost loop variable with one."""
        files = (value for value in reversed(scope.values()) if file_path_of(value) is not None)
        file: Mapping[str, Any] = next(files, {})
        path, relpath = file.get("path"), file.get("relpath")
        stored = index.stored(path) if isinstance(path, str) else ""
        source = relpath if isinstance(relpath, str) and relpath else stored
        owner = f"{self.scope}\n{self.key}"
        return ItemName(step, self.shown_key or self.key, source, stored, owner, self.attempt)

    def wrote(self) -> list[str]:
        """Return the stored paths of the files that it wrote or kept."""
        return [*self.outputs.written, *kept_paths(self.outputs.searched)]

    def held(self) -> list[str]:
        """Return the stored paths of edited outputs that were kept."""
        return kept_paths(self.reads | self.outputs.searched)


def attempt_name(item: ItemWork) -> str:
    """Return the id of an attempt: the same until it is done, also over kills and failures."""
    entry = item.entry
    return f"{item.hash} {entry.run if entry is not None and entry.state == 'done' else ''}"


def last_labels(item: ItemWork) -> Mapping[str, Sequence[str]]:
    """Return the labels of an item's last answers, by the list's name."""
    chosen = dependencies_of(item.entry, ChosenLabels)
    return {labels.list_name: labels.chosen or () for labels in chosen}


def last_examples(item: ItemWork) -> Mapping[str, UsedExamples]:
    """Return the examples of an item's last answers, by the id of its review."""
    return {used.id: used for used in dependencies_of(item.entry, UsedExamples)}


def document_digest(scope: Scope, record: ItemRun) -> str:
    """Return what tells a changed document from an unchanged one."""
    files = (value for value in reversed(scope.values()) if is_file_value(value))
    file = next(files, None)
    if file is not None and file is record.item:
        return str(file["sha256"])
    parts = [] if file is None else [file["sha256"]]
    return part_digest([*parts, item_content(record.item, None), record.values_read])


def was_touched(item: Any, since: float) -> bool:
    """Return whether a document may have changed since then; what is gone, the next run misses."""
    try:
        is_file = is_file_value(item) and item_path(item) is not None
        return is_file and os.stat(item["path"]).st_ctime > since - _CLOCK_SLACK_S  # noqa: PTH116 - for each item
    except (OSError, ValueError):
        return False


_CLOCK_SLACK_S = 2.0  # a file system's clock goes in steps of up to two seconds


def as_of_its_content(item: ItemWork) -> ItemWork:
    """Return an item; with the content of none, if its document changed since it was listed."""
    with contextlib.suppress(OSError):
        if sha256_of(item.item["path"]) != item.item["sha256"]:
            parts = canonical_json(json.loads(item.parts) | {CONTENT: ""})
            return replace(item, parts=parts, hash=hashlib.sha256(parts.encode()).hexdigest())
    return item
