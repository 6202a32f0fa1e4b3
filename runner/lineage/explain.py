"""Explain where an output came from, and what changed since, for `paddock why`.

Reads ledgers and runs nothing. What changed since is what `verify` compares, all of it: the item's
trace with what is known without the steps before it. What is not known then counts as it was: what
other steps give, models on other servers, secrets. For the steps before it a plan is made, once for
each pipeline and inputs.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import canonical_json, listed, ordered_json
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan_async
from paddock.runner.bind.bind import bind, read_plan
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, node_ids
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.specs import canonical_spec, find_in_plans
from paddock.runner.core import model_pools
from paddock.runner.core.call_cache import ModelDigests
from paddock.runner.core.dependencies import ChosenLabels, Trace, current_paths, dependencies_of
from paddock.runner.core.parts import (
    KEYED,
    PLACE_IN_LIST,
    ModelPart,
    OuterValue,
    RulePart,
    part_of,
)
from paddock.runner.core.past_items import PastItems
from paddock.runner.core.run_options import RunOptions
from paddock.runner.core.staleness import Judge
from paddock.runner.core.verify import ItemNow, differences
from paddock.runner.folders.state_folders import find_ledgers, ledgers_around
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.filed_rows import FiledRows
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.ledger_tables import FILED
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.review_store import ReviewStore
from paddock.runner.ledger.run_history import LedgerFolder, open_for_reading
from paddock.runner.progress.item_states import WORK, ItemState
from paddock.runner.progress.reasons import Outdated, Reason, Why
from paddock.runner.progress.report import PlanItem, PlanReport
from paddock.runner.settings import Settings, read_settings

from .answer_records import review_outcome, reviews_of_item
from .traces import (
    ItemTrace,
    LedgerTraces,
    LineageChange,
    LineageFile,
    Origin,
    PathLineage,
    item_steps,
    recorded_spec,
)

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec


MAX_DIFFERENCE_LINES = 40


def explain_path(path: Path, given: Sequence[Path] = ()) -> PathLineage:
    """Return where a file, a folder's files or a vector store's rows came from.

    `given` are pipelines or folders; by default the ledgers around the path and the current folder
    are searched, then those below it.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link itself may be the output
    faults: list[str] = []
    near: dict[str, None] = {}
    same: dict[str, None] = {}
    for place in _ledgers_around(path, given, faults.append):
        try:
            with open_for_reading(place) as ledger:
                case = _PathInLedger(ledger, place.folder.resolve(), path)
                answer = case.answer()
                if answer.is_known:
                    return answer
                near.update(dict.fromkeys(answer.near))
                same.update(dict.fromkeys(answer.same_as))
        except LedgerError as error:
            faults.append(str(error))
    return PathLineage(
        str(path), near=tuple(near), same_as=tuple(same), faults=tuple(dict.fromkeys(faults))
    )


def _ledgers_around(
    path: Path, given: Sequence[Path], note: Callable[[str], None]
) -> Iterator[LedgerFolder]:
    if given:
        yield from find_ledgers(given, note)
        return
    around = ledgers_around([path, Path.cwd()], note)
    yield from around
    yield from (place for place in find_ledgers([Path.cwd()], note) if place not in around)


class _PathInLedger:
    def __init__(self, ledger: Ledger, base: Path, path: Path) -> None:
        self._ledger = ledger
        self._base = base
        self._path = path
        self._traces = LedgerTraces(ledger, base)
        self._origins = LineageStore(ledger)
        self._filed = FiledRows(ledger)
        self._index = OutputIndex(ledger, base, set())
        self._pipelines: dict[str, _PipelineNow] = {}

    def answer(self) -> PathLineage:
        # The path as the ledger stores it: with its real folder
        try:
            real = self._path.parent.resolve() / self._path.name
        except (OSError, RuntimeError):
            real = self._path
        stored = self._index.stored(real)
        came_from = self._filed.came_from(stored)
        trace = self._traces.written(stored)
        if trace is not None and not came_from:
            return PathLineage(str(self._path), (self._origin(trace),))
        traces, n_more = self._traces.in_store(self._traces.store_around(stored) or stored)
        if not traces and self._path.is_dir():
            traces, n_more = self._traces.below(stored)
        if traces:
            origins = tuple(self._origin(trace) for trace in traces)
            return PathLineage(str(self._path), origins, n_more=n_more)
        read = [trace for path in (stored, *came_from) for trace in self._traces.made_of(path)]
        if not read and self._path.is_dir():
            below, n_more = self._traces.made_below(stored)
            read = [*below]
        same: Sequence[str] = ()
        with contextlib.suppress(OSError):
            if not read and self._path.is_file():
                content = sha256_of(self._path)
                filed = self._filed.of_content(content)  # and were moved on since
                found = {path: self._traces.made_of(path) for _, _, path in filed}
                places = {(scope, key) for scope, key, _ in filed}
                read = [t for traces in found.values() for t in traces
                        if (t.place.scope, t.key) in places]  # fmt: skip
                same = self._traces.same_as(content)  # outputs, as before a rename
        readers = tuple(map(self._reader, read))
        if readers:
            return PathLineage(str(self._path), read_by=readers, n_more=n_more)
        near = map(self._index.absolute, self._traces.near(stored))
        same_as = tuple(map(self._index.absolute, same))
        return PathLineage(str(self._path), near=tuple(near), same_as=same_as)

    def _reader(self, trace: ItemTrace) -> str:
        key = "/".join((*trace.place.outer, trace.key))
        stores = map(self._index.stored, trace.containing_stores(self._base))
        wrote = ", ".join([*trace.outputs, *(f"rows in {store}" for store in stores)])
        entry = trace.entry
        notes = [f"{entry.state}: {entry.error}"] if entry is not None and entry.error else []
        if entry is not None and entry.gone == FILED:
            notes.append(" at ".join(["filed", *self._filed.targets(trace.place.scope, trace.key)]))
        reviews = ReviewStore(self._ledger).of_scope(trace.place.scope, [trace.key])
        notes += [f"'{step}' {review_outcome(head)}" for (_, step), head in sorted(reviews.items())]
        state = "".join(f", {note}" for note in notes)
        return f"item '{key}' of '{trace.place.step}'{state}" + (f" → {wrote}" if wrote else "")

    def _origin(self, trace: ItemTrace) -> Origin:
        entry, base = trace.entry, self._base
        source = trace.source(base) if trace.is_current else None
        spec = recorded_spec(self._origins, trace)
        changes: list[LineageChange] = []
        if source is not None and source.state != "same":
            why = Why.DOCUMENT_CHANGED if source.state == "changed" else Why.DOCUMENT_GONE
            changes.append(LineageChange(why(self._index.stored(source.path))))
        if not trace.is_current:
            changes.append(LineageChange(_no_output(trace)))
        elif (reason := self._outdated(trace)) is not None:
            changes.append(LineageChange(reason))
        since_, notes = self._changes(trace, spec)
        changes += since_
        made_of = _upstream_references(spec)
        steps = list(item_steps(self._origins, trace))
        explained = {trace.place.step}
        for name in made_of if not any(step.calls for step in steps) else ():
            # A step that only writes a model's reply: include the calls of the step before.
            other = self._traces.beside(trace.place, name)
            if other is not None:
                explained.add(name)
                steps += item_steps(self._origins, other)
                changes += self._changes(other, recorded_spec(self._origins, other), f"'{name}'")[0]
        calls = [call for step in steps for call in step.calls if call.kind == "tool"]
        if tools := {call.model or "run" for call in calls} - _WATCHED_TOOLS:
            names = ", ".join(f"'{name}'" for name in sorted(tools))
            notes.append(f"what {names} read then is not checked")
        behind: Sequence[LineageChange] = ()
        now = self._valid_now(trace)
        if now is not None and upstream_names(now.bound, trace.place.step):
            if now.can_be_planned:
                behind = now.behind(trace.place.step, explained)
            else:  # other servers or secrets are involved
                notes.append("whether the steps before it are up to date is not checked")
        changes += behind or ([] if changes else self._own_verdict(trace, source))
        if trace.n_rows is None:
            condition = self._index.condition(trace.place.scope, trace.path)
        else:
            condition = "same" if self._path.exists() else "missing"
        return Origin(
            path=self._index.absolute(trace.path),
            pipeline=base / trace.place.file,
            step=trace.place.step,
            key="/".join((*trace.place.outer, trace.key)),
            run=trace.run,
            at=trace.at,
            state=ItemState.DONE if entry is None else entry.state,
            error=None if entry is None else entry.error,
            condition=condition,
            source=source,
            reads=trace.read_files(base),
            looked_in=trace.searched_paths(base),
            kept_in=trace.containing_stores(base),
            steps=tuple(steps),
            made_of=made_of,
            outputs=tuple(map(self._index.absolute, trace.outputs)),
            changes=tuple(dict.fromkeys(changes)),
            notes=tuple(notes),
            n_rows=trace.n_rows,
            reviewed=reviews_of_item(self._ledger, trace.place.scope, trace.key),
        )

    def _changes(
        self, trace: ItemTrace, spec: Mapping[str, Any], subject: str = "it"
    ) -> tuple[list[LineageChange], list[str]]:
        """Verify the item by the current pipeline; `subject` names it in sentences."""
        place, reasons = trace.place, list[Reason]()
        for read in trace.read_files(self._base):
            if read.state != "same":
                why = Why.READ_CHANGED if read.state == "changed" else Why.READ_GONE
                reasons.append(why(subject, self._index.stored(read.path)))
        changes = list(map(LineageChange, reasons))
        try:
            now = self._now(trace)
            found = None if now is None else find_in_plans(now.bound, place.step)
            if now is None:
                return [*changes, LineageChange(Why.PIPELINE_GONE(place.file))], []
            if found is None:
                return [*changes, LineageChange(Why.PIPELINE_LACKS(place.step))], []
            reasons = asyncio.run(self._differences(trace, now, *found, subject))
        except PipelineError as error:
            return [*changes, LineageChange(Why.PIPELINE_INVALID(error.faults[0].message))], []
        except EngineError as error:
            return [*changes, LineageChange(Why.MODEL_UNUSABLE(str(error)))], []
        new = json.loads(canonical_spec(found[1]))
        if trace.entry is None and spec and ordered_json(spec) != ordered_json(new):
            reasons = [Why.STEP()]
        lines = tuple(_spec_difference(spec, new)) if spec else ()
        for reason in reasons:
            is_of_rule = reason.why not in _NOT_OF_RULE
            changes.append(LineageChange(reason, lines if is_of_rule else ()))
            lines = () if is_of_rule else lines
        for step in _upstream_references(spec):
            if n_newer := self._traces.newer(place.file, step, trace.at):
                newer = Why.NEWER_RESULTS(step, n_newer)
                changes.append(LineageChange(newer if n_newer > 1 else Why.NEWER_RESULT(step)))
        return changes, [_ELSEWHERE_NOTE] if now.is_elsewhere else []

    async def _differences(
        self, trace: ItemTrace, now: _PipelineNow, owner: BoundPlan, node: BoundNode, subject: str
    ) -> list[Reason]:
        """Verify a trace; what is not known without the steps before it counts as it was."""
        entry, place = trace.entry, trace.place
        if entry is None:
            return []
        self._index.own_scopes = self._ledger.scopes_of(place.file)
        digests: ModelDigests = _NoRemoteDigests()
        if not now.is_elsewhere:
            digests = ModelDigests(model_pools.LookupPool(now.settings).facts)
        judge = Judge(owner, RunOptions(), self._index, digests)
        past = Trace(place.scope, entry, PastItems(self._ledger, place.scope, node))
        scope = Scope.of(owner.inputs, moment=owner.moment)
        world = await judge.world_of([node], scope, [past])
        # Inputs of a sub-pipeline may be known only during a run.
        inputs = {f"inputs.{n}" for n in owner.inputs if n in now.hidden or owner.inputs[n] is None}

        def is_unknown(name: str) -> bool:
            part = part_of(name)
            if isinstance(part, OuterValue):
                return part.root == "steps" or name in inputs
            return isinstance(part, ModelPart) and now.is_elsewhere

        before, made = json.loads(entry.parts), await judge.parts.of(node)
        parts = {name: made[name] for name in made if not is_unknown(name)}
        for name in before.keys() - parts.keys():
            is_of_rule = isinstance(part_of(name), RulePart)
            if not is_of_rule or is_unknown(name) or before[name].startswith(KEYED):
                parts[name] = before[name]
        hash_ = entry.hash if parts == before else ""
        item = ItemNow(hash_, json.dumps(parts), older=judge.parts.older)
        reasons = []
        for reason in differences(past, item, world):
            if reason.why in _SURROUNDINGS:
                (path,) = reason.about
                changed, gone = _SURROUNDINGS[reason.why]
                is_there = (self._base / str(path)).is_dir()
                reasons.append((changed if is_there else gone)(subject, path))
            elif not reason.is_loss and reason.why not in (Why.FILE, Why.FILE_GONE):
                reasons.append(reason)
        return reasons

    def _own_verdict(self, trace: ItemTrace, source: LineageFile | None) -> Sequence[LineageChange]:
        """Return why a plan would do the item again, where values of other steps may tell."""
        entry, now = trace.entry, self._valid_now(trace)
        if entry is None or now is None or not now.can_be_planned:
            return ()
        parts = json.loads(entry.parts)
        values = (part for part in map(part_of, parts) if isinstance(part, OuterValue))
        reads_more = PLACE_IN_LIST.name in parts or any(part.root == "steps" for part in values)
        if source is not None and not reads_more and not dependencies_of(entry, ChosenLabels):
            return ()
        return now.own_changes(trace)

    def _outdated(self, trace: ItemTrace) -> Reason | None:
        """Return why an output is none any more by a plan, where the pipeline may say so."""
        now = self._valid_now(trace)
        if now is None or not now.can_be_planned:
            return None
        name = _top_level_name(now.bound, trace.place.step)
        node = next((node for node in now.bound.nodes if node.id == name), None)
        if node is None:
            return None
        is_always_done = node.if_ is None and not upstream_names(now.bound, name)
        if is_always_done and not (isinstance(node, BoundBlock) and node.where):
            return None
        if isinstance(now.planned, str) or trace.path not in now.planned.outdated:
            return None
        words = _OUTDATED_TEXT.get(now.planned.outdated[trace.path], "nothing makes it any more")
        return Why.OUTDATED(words)

    def _valid_now(self, trace: ItemTrace) -> _PipelineNow | None:
        with contextlib.suppress(PipelineError):
            return self._now(trace)
        return None

    def _now(self, trace: ItemTrace) -> _PipelineNow | None:
        """Return the pipeline of an item as it is now; None: it was deleted.

        Raises:
            PipelineError: it is invalid.
        """
        file = self._base / trace.place.file
        if not trace.place.file or not file.exists():
            return None
        row = self._ledger.run(trace.run)
        recorded = json.loads(row.given) if row is not None and row.given else {}
        given, hidden = recorded.get("inputs", {}), recorded.get("hidden", [])
        name = canonical_json([trace.place.file, given, hidden])
        if name not in self._pipelines:
            settings, plan = read_settings(self._base), read_plan(file)
            known = {name: given[name] for name in given if name in plan.pipeline.inputs}
            secret = dict.fromkeys((name for name in hidden if name in plan.pipeline.inputs), "")
            models = settings.default_models
            bound = bind(plan, {**known, **secret}, cwd=file.parent, default_models=models)
            self._pipelines[name] = _PipelineNow(bound, settings, known, hidden)
        return self._pipelines[name]


@dataclass(frozen=True)
class _PipelineNow:
    """A pipeline as it is now, with the inputs of an item's run that it still has."""

    bound: BoundPlan
    settings: Settings
    given: Mapping[str, Any]
    hidden: Sequence[str]
    """Names of the inputs that are secret, and so not recorded."""

    @property
    def is_elsewhere(self) -> bool:
        return bool(self.bound.pools or self.settings.pool_urls)

    @property
    def can_be_planned(self) -> bool:
        return not (self.is_elsewhere or self.hidden)

    @cached_property
    def planned(self) -> PlanReport | str:
        """What a run would do; a text: why that cannot be said."""
        pool = model_pools.LookupPool(self.settings)
        plan = plan_async(self.bound.file, self.given, settings=self.settings, pool=pool)
        try:
            return asyncio.run(plan)
        except PipelineError as error:
            return error.faults[0].message
        except (EngineError, LedgerError, OSError) as error:
            return str(error)

    def behind(self, step: str, explained: Collection[str]) -> list[LineageChange]:
        """Return upstream blocks and steps with work to do, except `explained` ones."""
        names = [name for name in upstream_names(self.bound, step) if name not in explained]
        if not names:
            return []
        if isinstance(self.planned, str):
            return [LineageChange(Why.BEHIND_UNKNOWN(self.planned))]
        work = [item for item in self.planned.items if item.state in (*WORK, ItemState.DELETED)]
        found = ((n, [i for i in work if f"{i.step}.".startswith(f"{n}.")]) for n in names)
        return [
            LineageChange(Why.BEHIND(name, words))
            for name, items in found
            if (words := _work_text(items))
        ]

    def own_changes(self, trace: ItemTrace) -> list[LineageChange]:
        """Return why an item, or the one around it, would be done again."""
        if isinstance(self.planned, str):
            return [LineageChange(Why.BEHIND_UNKNOWN(self.planned))]
        place = trace.place
        top = _top_level_name(self.bound, place.step), (*place.outer, trace.key)[0]
        return [
            LineageChange(Why.RECORDED(item.why))
            for item in self.planned.items
            if (item.step, item.key) in (top, (place.step, trace.key))
            and item.state in (ItemState.CHANGED, ItemState.STALE)
            and item.why is not None
            and not any(reason.is_loss for reason in item.reasons)
        ]


_ELSEWHERE_NOTE = "its models are on other servers: whether they changed is not checked"
_OUTDATED_TEXT = {
    Outdated.SKIPPED: "its step is skipped now",
    Outdated.LEFT_OUT: "`where` leaves out its item now",
    Outdated.GONE: "its item is gone",
}


def _no_output(trace: ItemTrace) -> Reason:
    """Return why a path is no output of its item as it was done last."""
    entry = trace.entry
    if entry is None:
        return Why.WRITTEN_NO_MORE()
    if entry.state == ItemState.WAITING:
        return Why.EARLIER_ANSWER(entry.run)
    if entry.state == ItemState.FAILED:
        return Why.EARLIER_TRY(entry.run)
    if entry.state in (ItemState.SKIPPED, ItemState.QUARANTINED):
        return Why.ITEM_ENDED(entry.run, entry.state)
    now = "" if trace.n_rows is not None else ", ".join(sorted(current_paths(entry)))
    return Why.ITEM_WRITES(entry.run, now or "nothing here")


class _NoRemoteDigests(ModelDigests):
    """Nothing about models, since servers elsewhere are not asked about the past."""

    def __init__(self) -> None:
        pass

    async def of(self, spec: ModelSpec) -> str:
        return ""

    async def default_context(self, spec: ModelSpec) -> int | None:
        return None


_WATCHED_TOOLS = {"calculator", "files.read"}
"""Tools that read nothing, or only files that are recorded."""
_SURROUNDINGS = {
    Why.FOLDER: (Why.LISTED_CHANGED, Why.LISTED_GONE),
    Why.STORE: (Why.SEARCHED_CHANGED, Why.SEARCHED_GONE),
    Why.ROWS_LOST: (Why.ROWS_CHANGED, Why.ROWS_GONE),
}
"""What a plan says of a folder or store → what is said here, where that is there and is gone."""
_NOT_OF_RULE = frozenset(why for both in _SURROUNDINGS.values() for why in both)


def _upstream_references(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the outer steps whose outputs an item reads, by its recorded spec."""
    own = {*spec.get("steps", {}), *spec.get("blocks", {})}
    found = _STEP_REFERENCE.findall(json.dumps(spec))
    return tuple(dict.fromkeys(name for name in found if name not in own))


_STEP_REFERENCE = re.compile(r"\bsteps\.([a-z][a-z0-9_]*)")


def _spec_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
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
            fields: list[tuple[str, Any]] = []
            for field, value in step.items():
                if isinstance(value, Mapping):
                    fields += value.items()
                elif value is not None:
                    fields.append((field, value))
            for field, value in sorted(fields):
                is_text = isinstance(value, str)
                texts = value.splitlines() if is_text else [json.dumps(value, ensure_ascii=False)]
                lines += [f"{name}.{field}: {text}" for text in texts]
    return lines


_MAX_NAMES = 3


def upstream_names(bound: BoundPlan, step: str) -> tuple[str, ...]:
    """Return the upstream blocks and steps with ledger entries, in order."""
    found: set[str] = set()
    waiting = [_top_level_name(bound, step)]
    while waiting:
        new = bound.edges.get(waiting.pop(), frozenset()) - found
        found |= new
        waiting += new
    return tuple(
        node.id
        for node in bound.nodes
        if node.id in found
        and (isinstance(node, BoundBlock) or node.has_trace or node.inner is not None)
    )


def _top_level_name(bound: BoundPlan, step: str) -> str:
    for node in bound.nodes:
        within = (node.id, *(node_ids(node.body) if isinstance(node, BoundBlock) else ()))
        if any(step == node_id or step.startswith(f"{node_id}.") for node_id in within):
            return node.id
    return step


def _work_text(items: Sequence[PlanItem]) -> str | None:
    """Return the work to do; None: there is none, or a step only waits for others."""
    if len(items) == 1 and items[0].key == items[0].step.rpartition(".")[2]:
        is_waiting = any(reason.why is Why.READS_UNDONE for reason in items[0].reasons)
        return None if is_waiting else items[0].why or items[0].state
    return listed([f"{item.key} ({item.state})" for item in items], _MAX_NAMES) if items else None
