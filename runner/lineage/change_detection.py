"""Change detection: what changed since an item was made.

Compares the same parts as a plan does (files, folders, vector stores, the pipeline's text, models,
inputs), but all of them instead of stopping at the first reason. For upstream steps it makes a
plan, once for each pipeline and inputs, since an item does not record the documents behind them.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import canonical_json, listed
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan_async
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan
from paddock.runner.bind.subpipelines import (
    all_plans,
    blocks_of,
    canonical_spec,
    node_ids,
    steps_of,
)
from paddock.runner.core import model_pools, run_records
from paddock.runner.core.dependencies import LISTED, ROWS, STORE, DependencyIndex, is_file_mark
from paddock.runner.core.fingerprints import CONTENT, change_reasons, compare_specs, stale_parts
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.outputs import OutputIndex
from paddock.runner.progress.report import PlanItem
from paddock.runner.settings import Settings
from paddock.steps.base import Roots

from .traces import FileState, ItemTrace, LineageChange, LineageFile

MAX_DIFFERENCE_LINES = 40


def file_state(path: str, sha256: str) -> FileState:
    """Return a file's state; one that cannot be read is gone."""
    try:
        return "same" if sha256_of(Path(path)) == sha256 else "changed"
    except OSError:
        return "gone"


def source_file(trace: ItemTrace, base: Path) -> LineageFile | None:
    """Return the document of an item."""
    if trace.made is None:
        return None
    source, _ = run_records.read_lineage(trace.made.made)
    if source is None:
        return None
    path = str(base / source.path)
    return LineageFile(path, source.sha256, file_state(path, source.sha256))


def read_files(trace: ItemTrace, base: Path) -> tuple[LineageFile, ...]:
    """Return the other files that it read."""
    marks = entry_marks(trace).items()
    return tuple(marked_file(str(base / path), mark) for path, mark in marks if is_file_mark(mark))


def searched_paths(trace: ItemTrace, base: Path) -> tuple[str, ...]:
    """Return the folders that it listed and the stores that it searched."""
    marks = entry_marks(trace).items()
    return tuple(str(base / path) for path, mark in marks if mark[0] in (LISTED, STORE))


def containing_stores(trace: ItemTrace, base: Path) -> tuple[str, ...]:
    """Return the stores in which it has rows."""
    return tuple(str(base / mark[1]) for mark in entry_marks(trace).values() if mark[0] == ROWS)


def entry_marks(trace: ItemTrace) -> Mapping[str, Sequence[Any]]:
    """Return the recorded dependencies of an item: files, folders, stores, rows."""
    if trace.entry is None or not trace.entry.reads:
        return {}
    marks: dict[str, Sequence[Any]] = json.loads(trace.entry.reads)
    return marks


def marked_file(path: str, mark: Sequence[Any]) -> LineageFile:
    """Return a file with its state, compared with its recorded mark."""
    sha256 = str(mark[2])
    try:
        stat = os.stat(path)  # noqa: PTH116 - a path of the ledger is a text
    except OSError:
        return LineageFile(path, sha256, "gone")
    is_same = [stat.st_size, stat.st_mtime_ns] == list(mark[:2])
    return LineageFile(path, sha256, "same" if is_same else file_state(path, sha256))


def find_node(nodes: Sequence[BoundNode], step: str) -> BoundNode | None:
    """Return a block or step, also a nested one or one of a sub-pipeline (`clean.each`)."""
    for node in nodes:
        if node.id == step:
            return node
        found = None
        if isinstance(node, BoundBlock):
            found = find_node(node.body, step)
        elif node.inner is not None and step.startswith(f"{node.id}."):
            found = find_node(node.inner.nodes, step.removeprefix(f"{node.id}."))
        if found is not None:
            return found
    return None


def owning_plan(bound: BoundPlan, node: BoundNode) -> BoundPlan:
    """Return the plan that contains a block or step: this one, or that of a sub-pipeline."""
    for plan in all_plans(bound):
        if any(one is node for one in (*steps_of(plan.nodes), *plan.nodes, *blocks_of(plan.nodes))):
            return plan
    return bound


def pipeline_changes(
    trace: ItemTrace,
    node: BoundNode,
    before: Mapping[str, Any],
    parts: Mapping[str, str],
    older: Mapping[str, Collection[str]],
) -> Iterator[LineageChange]:
    """Yield changes of the pipeline's text, models and inputs."""
    entry, now = trace.entry, json.loads(canonical_spec(node))
    lines = tuple(_spec_difference(before, now)) if before else ()
    if entry is None:
        if before and _spec_digest(before) != _spec_digest(now):
            yield LineageChange("the step changed", lines)
        return
    recorded = json.loads(entry.parts)
    was = {name: recorded[name] for name in recorded if _is_comparable(name, parts)}
    names = stale_parts(was, parts, older, is_done=entry.state == "done")
    words = compare_specs(before, now, node.id).words if before else {}
    for number, reason in enumerate(change_reasons(names, was, parts, words)):
        yield LineageChange(reason, lines if number == 0 else ())


def _is_comparable(name: str, parts: Mapping[str, str]) -> bool:
    """Return whether a part is known without running other steps."""
    if name == CONTENT or name.startswith("steps."):
        return False
    return name in parts or name.endswith((".prompt", ".parameters", ".version"))


def _spec_digest(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _spec_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield removed and added lines of a spec."""
    lines = [
        line
        for line in difflib.unified_diff(_spec_lines(before), _spec_lines(now), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    yield from lines[:MAX_DIFFERENCE_LINES]
    if len(lines) > MAX_DIFFERENCE_LINES:
        yield f"… {len(lines) - MAX_DIFFERENCE_LINES} more lines"


def _spec_lines(spec: Mapping[str, Any]) -> list[str]:
    """Return a spec as lines, one for each line of a text, for a readable diff."""
    lines: list[str] = []
    for kind in ("blocks", "steps"):
        for name, step in sorted(spec.get(kind, {}).items()):
            for field, value in sorted(_step_fields(step)):
                texts = (
                    value.splitlines()
                    if isinstance(value, str)
                    else [json.dumps(value, ensure_ascii=False, sort_keys=True)]
                )
                lines += [f"{name}.{field}: {text}" for text in texts]
    return lines


def _step_fields(step: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in step.items():
        if isinstance(value, Mapping):
            yield from value.items()
        elif value is not None:
            yield name, value


class SurroundingChanges:
    """Changes of listed folders and stores, each read once for all items."""

    def __init__(self, ledger: Ledger, base: Path) -> None:
        self._ledger = ledger
        self._base = base
        self._evidence: dict[str, DependencyIndex] = {}

    async def changes(
        self, trace: ItemTrace, roots: Roots, subject: str = "it"
    ) -> list[LineageChange]:
        """Return changes since the item; `subject` names it in sentences."""
        marks = [(path, mark) for path, mark in entry_marks(trace).items() if mark[0] in _MARK_TEXT]
        if trace.entry is None or not marks:
            return []
        dependencies = self._of(trace.place.file)
        await dependencies.look([trace.entry], roots)
        return [
            LineageChange(self._words(path, mark, subject))
            for path, mark in marks
            if not dependencies.agrees(path, mark)
        ]

    def _of(self, file: str) -> DependencyIndex:
        """Return the index for items of one pipeline: its own outputs are ignored in listings."""
        if file not in self._evidence:
            scopes = self._ledger.scopes_of(file)
            self._evidence[file] = DependencyIndex(OutputIndex(self._ledger, self._base, scopes))
        return self._evidence[file]

    def _words(self, path: str, mark: Sequence[Any], subject: str) -> str:
        what, now = _MARK_TEXT[mark[0]]
        path = mark[1] if mark[0] == ROWS else path.removesuffix("/")
        is_there = (self._base / path).is_dir()
        return f"{what.format(subject)} {now if is_there else 'was deleted'}: {path}"


_MARK_TEXT = {
    LISTED: ("a folder that {} listed", "has other content now"),
    STORE: ("a store that {} searched", "has other content now"),
    ROWS: ("a store that {} kept rows in", "no longer has all of them unchanged"),
}


_WORK_STATES = frozenset(("new", "changed", "stale", "deleted"))
_MAX_NAMES = 3


class UpstreamChanges:
    """Changes of upstream steps, by plans that are made once."""

    def __init__(self) -> None:
        self._plans: dict[str, Sequence[PlanItem] | str] = {}

    def changes(
        self,
        bound: BoundPlan,
        step: str,
        given: Mapping[str, Any],
        settings: Settings,
        explained: Collection[str] = (),
    ) -> list[LineageChange]:
        """Return upstream blocks and steps with work to do, except `explained` ones."""
        names = [name for name in upstream_names(bound, step) if name not in explained]
        if not names:
            return []
        items = self._planned(bound.file, given, settings)
        if isinstance(items, str):
            return [LineageChange(f"the steps before it cannot be checked: {items}")]
        return [
            LineageChange(f"'{name}', which comes before it, is not up to date: {words}")
            for name in names
            for words in _work_text([one for one in items if _is_item_of(one, name)])
        ]

    def _planned(
        self, file: Path, given: Mapping[str, Any], settings: Settings
    ) -> Sequence[PlanItem] | str:
        name = canonical_json([str(file), dict(given)])
        if name not in self._plans:
            self._plans[name] = _plan_items(file, given, settings)
        return self._plans[name]


def _plan_items(
    file: Path, given: Mapping[str, Any], settings: Settings
) -> Sequence[PlanItem] | str:
    """Return the items of a plan, or the error."""
    try:
        pool = model_pools.LookupPool(settings)
        return asyncio.run(plan_async(file, given, settings=settings, pool=pool)).items
    except PipelineError as error:
        return error.faults[0].message
    except (EngineError, LedgerError, OSError) as error:
        return str(error)


def upstream_names(bound: BoundPlan, step: str) -> tuple[str, ...]:
    """Return the upstream blocks and steps with ledger entries, in order."""
    found: set[str] = set()
    waiting = [_top_level_name(bound, step)]
    while waiting:
        new = bound.edges.get(waiting.pop(), frozenset()) - found
        found |= new
        waiting += new
    return tuple(node.id for node in bound.nodes if node.id in found and _keeps_entries(node))


def _keeps_entries(node: BoundNode) -> bool:
    return isinstance(node, BoundBlock) or bool(node.kind.roles) or node.inner is not None


def _top_level_name(bound: BoundPlan, step: str) -> str:
    """Return the top-level block or step that contains a step."""
    for node in bound.nodes:
        within = (node.id, *(node_ids(node.body) if isinstance(node, BoundBlock) else ()))
        if any(step == one or step.startswith(f"{one}.") for one in within):
            return node.id
    return step


def _is_item_of(item: PlanItem, name: str) -> bool:
    return item.state in _WORK_STATES and (item.step == name or item.step.startswith(f"{name}."))


def _work_text(items: Sequence[PlanItem]) -> Iterator[str]:
    """Yield the work to do; nothing for a step that only waits for others."""
    if len(items) == 1 and items[0].key == items[0].step.rpartition(".")[2]:
        why = items[0].why or items[0].state
        if not why.startswith("it reads '"):
            yield why
        return
    if items:
        yield listed([f"{one.key} ({one.state})" for one in items], _MAX_NAMES)
