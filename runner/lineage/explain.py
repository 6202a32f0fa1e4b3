"""Explain where an output came from, and what changed since, for `paddock why`.

Reads ledgers and runs nothing. For an item without lineage, only the calls that it was the first to
make are known. What changed since an item was made is found by comparing the same parts as a plan
does (files, folders, vector stores, the pipeline's text, models, inputs), but all of them instead
of stopping at the first reason. For upstream steps a plan is made, once for each pipeline and
inputs, since an item does not record the documents behind them.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import canonical_json, listed, ordered_json
from paddock.pipelines.errors import PipelineError
from paddock.runner.api import plan_async
from paddock.runner.bind.bind import bind, read_plan
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    canonical_spec,
    find_in_plans,
    node_ids,
)
from paddock.runner.core import model_pools, run_records
from paddock.runner.core.call_cache import ModelDigests
from paddock.runner.core.dependencies import (
    ChosenLabels,
    Dependency,
    FolderListed,
    RowsKept,
    StoreSearched,
    Trace,
    World,
    current_paths,
    dependencies_of,
)
from paddock.runner.core.fingerprints import NodeParts
from paddock.runner.core.parts import (
    PLACE_IN_LIST,
    ModelPart,
    OuterValue,
    RulePart,
    change_reasons,
    part_of,
    stale_parts,
)
from paddock.runner.core.past_items import PastItems, compare_specs
from paddock.runner.folders.state_folders import find_ledgers, ledgers_around
from paddock.runner.ledger.entries import CallRow, LedgerError
from paddock.runner.ledger.filed_rows import FiledRows
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.ledger_tables import FILED
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.review_store import ReviewStore
from paddock.runner.ledger.run_history import (
    LedgerFolder,
    open_for_reading,
)
from paddock.runner.progress.reasons import Outdated, Why
from paddock.runner.progress.report import PlanItem, PlanReport
from paddock.runner.settings import Settings, read_settings
from paddock.steps.base import Roots

from .answer_records import review_outcome, reviews_of_item
from .traces import (
    ItemTrace,
    LedgerTraces,
    LineageCall,
    LineageChange,
    LineageFile,
    LineageStep,
    Origin,
    PathLineage,
    load_request,
)

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec


MAX_DIFFERENCE_LINES = 40


def item_steps(origins: LineageStore, trace: ItemTrace) -> tuple[LineageStep, ...]:
    """Return the steps of an item that made calls, in the order of running."""
    if trace.made is None or not trace.is_current:
        # The recorded calls of an item whose lineage is not known, as one step: it was interrupted
        # before its entry, or done again since
        is_of_block = trace.entry is not None and trace.key != trace.place.step
        shown = "/".join((*trace.place.outer, trace.key)) if is_of_block else ""
        hashes = origins.calls_of(trace.place.scope, shown)
        kept = [origins.ledger.call(hash_, is_whole=True) for hash_ in hashes]
        calls = tuple(
            _kept_call(call, call.run, None)
            for call in kept
            if call is not None and (trace.is_current or call.run == trace.run)
        )
        return (LineageStep(trace.place.step, "", None, None, (), calls),) if calls else ()
    _, steps = run_records.read_lineage(trace.made.made)
    checks: dict[str, tuple[str, ...]] = {}
    for name, step in recorded_spec(origins, trace).get("steps", {}).items():
        reply = step.get("reply")
        given = reply.get("check") if isinstance(reply, dict) else None
        checks[name] = (given,) if isinstance(given, str) else tuple(map(str, given or ()))
    return tuple(
        LineageStep(
            step.id,
            step.uses,
            step.model,
            step.seconds,
            checks.get(step.id, ()),
            tuple(_lineage_call(origins, call, trace.made.run) for call in step.calls),
        )
        for step in steps
    )


def _lineage_call(origins: LineageStore, call: run_records.CallRecord, run: str) -> LineageCall:
    kept = origins.ledger.call(call.hash, is_whole=True)
    if kept is not None:
        return _kept_call(kept, run, call)
    usage = {"prompt_tokens": call.prompt, "completion_tokens": call.completion}
    return LineageCall(
        call.hash, call.kind, "", "", "", call.is_known, call.began, call.seconds, run, {}, "",
        None, usage, is_gone=True,
    )  # fmt: skip


def _kept_call(kept: CallRow, run: str, call: run_records.CallRecord | None) -> LineageCall:
    reply = "" if kept.kind == "embed" else kept.reply.decode("utf-8", "replace")
    return LineageCall(
        hash=kept.hash,
        kind=kept.kind,
        model=kept.model,
        digest=kept.digest,
        served_digest=kept.served_digest,
        is_known=call is not None and call.is_known,
        at=kept.at if call is None else call.began,
        seconds=None if call is None else call.seconds,
        run=run,
        request=load_request(kept.request),
        reply=reply,
        done_reason=kept.done_reason,
        usage=kept.usage.get("usage", {}),
    )


def recorded_spec(origins: LineageStore, trace: ItemTrace) -> Mapping[str, Any]:
    """Return the recorded spec of the item's pipeline; empty if unknown."""
    digest = None if trace.made is None else trace.made.spec
    text = None if digest is None else origins.spec(digest)
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


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
        self._worlds: dict[str, World] = {}
        """By pipeline: its own outputs are ignored in listings."""
        self._before = UpstreamChanges()
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
        """Return which item read a document, and what that item wrote."""
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
        changes = list(self._of_file("its document", source)) if source is not None else []
        if not trace.is_current:
            changes.append(LineageChange(_no_output_text(trace)))
        elif (why := self._outdated(trace)) is not None:
            changes.append(LineageChange(f"it no longer applies: {why}"))
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
                behind = self._before.changes(now, trace.place.step, explained)
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
            state="done" if entry is None else entry.state,
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

    def _of_file(self, what: str, file: LineageFile) -> Iterator[LineageChange]:
        if file.state != "same":
            yield LineageChange(
                f"{what} {_FILE_STATE_TEXT[file.state]}: {self._index.stored(file.path)}"
            )

    def _changes(
        self, trace: ItemTrace, spec: Mapping[str, Any], subject: str = "it"
    ) -> tuple[list[LineageChange], list[str]]:
        """Compare the item with the current pipeline; `subject` names it in sentences."""
        changes: list[LineageChange] = []
        for read in trace.read_files(self._base):
            changes += self._of_file(f"a file that {subject} read", read)
        try:
            now = self._now(trace)
            if now is None:
                changes.append(LineageChange(f"the pipeline was deleted: {trace.place.file}"))
                return changes, []
            found = find_in_plans(now.bound, trace.place.step)
            if found is None:
                gone = f"the pipeline no longer has '{trace.place.step}'"
                return [*changes, LineageChange(gone)], []
            owner, node = found
            parts, older = asyncio.run(_hash_parts(now, owner, node, self._index))
        except PipelineError as error:
            what = f"the current pipeline is invalid: {error.faults[0].message}"
            return [*changes, LineageChange(what)], []
        except EngineError as error:
            return [*changes, LineageChange(f"a model is no longer usable: {error}")], []
        notes = [_ELSEWHERE_NOTE] if now.is_elsewhere else []
        hidden = {f"inputs.{name}" for name in now.hidden}
        known = {name: parts[name] for name in parts.keys() - hidden}
        changes += self._surroundings(trace, node, owner.roots, subject)
        changes += pipeline_changes(self._origins, trace, node, spec, known, older)
        for step in _upstream_references(spec):
            n_newer = self._traces.newer(trace.place.file, step, trace.at)
            if n_newer:
                results = "a newer result" if n_newer == 1 else f"{n_newer:,} newer results"
                changes.append(LineageChange(f"'{step}', which it reads, has {results}"))
        return changes, notes

    def _surroundings(
        self, trace: ItemTrace, node: BoundNode, roots: Roots, subject: str
    ) -> Iterator[LineageChange]:
        """Yield changes of folders that an item listed, and of stores."""
        entry, place = trace.entry, trace.place
        looked_at: list[Dependency] = dependencies_of(entry, *_SURROUNDINGS)
        if entry is None or not looked_at:
            return
        if place.file not in self._worlds:
            scopes = self._ledger.scopes_of(place.file)
            self._worlds[place.file] = World.of(OutputIndex(self._ledger, self._base, scopes))
        world = self._worlds[place.file]
        past = Trace(place.scope, entry, PastItems(self._ledger, place.scope, node))
        asyncio.run(world.prepare([past], roots))
        for dep in looked_at:
            if dep.reason(world, past) is not None:
                what, now = _SURROUNDINGS[type(dep)]
                path = dep.store if isinstance(dep, RowsKept) else dep.name.removesuffix("/")
                now = now if (self._base / path).is_dir() else "was deleted"
                yield LineageChange(f"{what.format(subject)} {now}: {path}")

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
        return self._before.own_changes(now, trace)

    def _outdated(self, trace: ItemTrace) -> str | None:
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
        why = self._before.outdated(now).get(trace.path)
        return None if why is None else _OUTDATED_TEXT.get(why, "nothing makes it any more")

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


@dataclass(frozen=True, slots=True)
class _PipelineNow:
    """A pipeline as it is now, with the inputs of an item's run that it still has."""

    bound: BoundPlan
    settings: Settings
    given: Mapping[str, Any]
    hidden: Sequence[str]
    """Names of the inputs that are secret, and so not recorded."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether other servers are asked."""
        return bool(self.bound.pools or self.settings.pool_urls)

    @property
    def can_be_planned(self) -> bool:
        return not (self.is_elsewhere or self.hidden)


_ELSEWHERE_NOTE = "its models are on other servers: whether they changed is not checked"
_OUTDATED_TEXT = {
    Outdated.SKIPPED: "its step is skipped now",
    Outdated.LEFT_OUT: "`where` leaves out its item now",
    Outdated.GONE: "its item is gone",
}


def _no_output_text(trace: ItemTrace) -> str:
    """Return why a path is no output of its item as it was done last."""
    entry, what = trace.entry, "it is no longer an output"
    if entry is None:
        return f"{what}: its step does not write it any more"
    if entry.state == "waiting":
        return f"it is of an earlier answer: since run '{entry.run}' its item waits for review"
    if entry.state == "failed":
        return f"it is of an earlier try: run '{entry.run}' failed, and the next one tries again"
    if entry.state in ("skipped", "quarantined"):
        return f"{what}: run '{entry.run}' {entry.state} its item"
    now = "" if trace.n_rows is not None else ", ".join(sorted(current_paths(entry)))
    return f"{what}: since run '{entry.run}' its item writes {now or 'nothing here'}"


class _NoRemoteDigests(ModelDigests):
    """Nothing about models, since servers elsewhere are not asked about the past."""

    def __init__(self) -> None:
        pass

    async def of(self, spec: ModelSpec) -> str:
        return ""

    async def default_context(self, spec: ModelSpec) -> int | None:
        return None


async def _hash_parts(
    now: _PipelineNow, owner: BoundPlan, node: BoundNode, index: OutputIndex
) -> tuple[dict[str, str], Mapping[str, frozenset[str]]]:
    """Return the current parts of the item's hash, as far as known.

    Also returns, by version of a step, the earlier versions whose results are as good.
    """
    digests: ModelDigests = _NoRemoteDigests()
    if not now.is_elsewhere:
        digests = ModelDigests(model_pools.LookupPool(now.settings).facts)
    maker = NodeParts(owner, index, digests, World.of(index).digest)
    parts = await maker.of(node)
    # Inputs of a sub-pipeline may be known only during a run.
    unknown = {f"inputs.{name}" for name, value in owner.inputs.items() if value is None}
    known = {
        name: parts[name]
        for name in parts.keys() - unknown
        if not (now.is_elsewhere and isinstance(part_of(name), ModelPart))
        and not name.startswith("steps.")
    }
    return known, maker.older


_WATCHED_TOOLS = {"calculator", "files.read"}
"""Tools that read nothing, or only files that are recorded."""
_FILE_STATE_TEXT = {"changed": "has changed", "gone": "was deleted"}


def _upstream_references(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the outer steps whose outputs an item reads, by its recorded spec."""
    own = {*spec.get("steps", {}), *spec.get("blocks", {})}
    found = _STEP_REFERENCE.findall(json.dumps(spec))
    return tuple(dict.fromkeys(name for name in found if name not in own))


_STEP_REFERENCE = re.compile(r"\bsteps\.([a-z][a-z0-9_]*)")


def pipeline_changes(
    origins: LineageStore,
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
        if before and ordered_json(before) != ordered_json(now):
            yield LineageChange("the step changed", lines)
        return
    recorded = json.loads(entry.parts)
    # Other parts are known only where other steps run.
    was = {
        name: recorded[name]
        for name in recorded
        if name in parts or isinstance(part_of(name), RulePart)
    }
    past = Trace(trace.place.scope, entry, PastItems(origins.ledger, trace.place.scope, node))
    names = stale_parts(was, parts, past.result(older))
    details = compare_specs(before, node).details if before else {}
    for number, reason in enumerate(change_reasons(names, was, parts, details)):
        yield LineageChange(str(reason), lines if number == 0 else ())


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


_SURROUNDINGS = {
    FolderListed: ("a folder that {} listed", "has other content now"),
    StoreSearched: ("a store that {} searched", "has other content now"),
    RowsKept: ("a store that {} kept rows in", "no longer has all of them unchanged"),
}


_WORK_STATES = frozenset(("new", "changed", "stale", "deleted"))
_MAX_NAMES = 3


class UpstreamChanges:
    """Changes of upstream steps, by plans that are made once."""

    def __init__(self) -> None:
        self._plans: dict[str, PlanReport | str] = {}

    def changes(
        self, now: _PipelineNow, step: str, explained: Collection[str] = ()
    ) -> list[LineageChange]:
        """Return upstream blocks and steps with work to do, except `explained` ones."""
        names = [name for name in upstream_names(now.bound, step) if name not in explained]
        if not names:
            return []
        planned = self._planned(now)
        if isinstance(planned, str):
            return [LineageChange(f"the steps before it cannot be checked: {planned}")]
        return [
            LineageChange(f"'{name}', which comes before it, is not up to date: {words}")
            for name in names
            for words in _work_text(
                [
                    item
                    for item in planned.items
                    if item.state in _WORK_STATES
                    and (item.step == name or item.step.startswith(f"{name}."))
                ]
            )
        ]

    def own_changes(self, now: _PipelineNow, trace: ItemTrace) -> list[LineageChange]:
        """Return why an item, or the one around it, would be done again."""
        planned, place = self._planned(now), trace.place
        if isinstance(planned, str):
            return [LineageChange(f"the steps before it cannot be checked: {planned}")]
        top = _top_level_name(now.bound, place.step), (*place.outer, trace.key)[0]
        return [
            LineageChange(item.why)
            for item in planned.items
            if (item.step, item.key) in (top, (place.step, trace.key))
            and item.state in ("changed", "stale")
            and item.why is not None
            and not any(reason.is_loss for reason in item.reasons)
        ]

    def outdated(self, now: _PipelineNow) -> Mapping[str, Outdated]:
        """Return the outputs that no longer apply, and why; none where no plan can be made."""
        planned = self._planned(now)
        return {} if isinstance(planned, str) else planned.outdated

    def _planned(self, now: _PipelineNow) -> PlanReport | str:
        name = canonical_json([str(now.bound.file), dict(now.given)])
        if name not in self._plans:
            pool = model_pools.LookupPool(now.settings)
            plan = plan_async(now.bound.file, now.given, settings=now.settings, pool=pool)
            try:
                self._plans[name] = asyncio.run(plan)
            except PipelineError as error:
                self._plans[name] = error.faults[0].message
            except (EngineError, LedgerError, OSError) as error:
                self._plans[name] = str(error)
        return self._plans[name]


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


def _work_text(items: Sequence[PlanItem]) -> Iterator[str]:
    """Yield the work to do; nothing for a step that only waits for others."""
    if len(items) == 1 and items[0].key == items[0].step.rpartition(".")[2]:
        if not any(reason.why is Why.READS_UNDONE for reason in items[0].reasons):
            yield items[0].why or items[0].state
        return
    if items:
        yield listed([f"{item.key} ({item.state})" for item in items], _MAX_NAMES)
