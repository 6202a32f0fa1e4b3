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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.system.files import sha256_of
from paddock.engine.system.text import canonical_json, ordered_json
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.bind import bind, read_plan
from paddock.runner.bind.bound import BoundNode, BoundPlan
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.specs import canonical_spec, find_in_plans
from paddock.runner.core.dependencies import ChosenLabels, Trace, current_paths, dependencies_of
from paddock.runner.core.parts import KEYED, PLACE_IN_LIST, ModelPart, OuterValue, RulePart, part_of
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
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.reasons import Reason, Why
from paddock.runner.review.answer_records import review_outcome, reviews_of_item
from paddock.runner.settings import read_settings

from .path_lineage import LineageChange, LineageFile, Origin, PathLineage
from .pipeline_now import PipelineNow
from .recorded_items import RecordedItem, RecordedItems, item_steps, recorded_spec

MAX_DIFFERENCE_LINES = 40
_ELSEWHERE_NOTE = "its models are on other servers: whether they changed is not checked"
_WATCHED_TOOLS = {"calculator", "files.read"}
"""Tools that read nothing, or only files that are recorded."""
_SURROUNDINGS = {
    Why.FOLDER: (Why.LISTED_CHANGED, Why.LISTED_GONE),
    Why.STORE: (Why.SEARCHED_CHANGED, Why.SEARCHED_GONE),
    Why.ROWS_LOST: (Why.ROWS_CHANGED, Why.ROWS_GONE),
}
"""What a plan says of a folder or store → what is said here, where that is there and is gone."""
_NOT_OF_RULE = frozenset(why for both in _SURROUNDINGS.values() for why in both)
_STEP_REFERENCE = re.compile(r"\bsteps\.([a-z][a-z0-9_]*)")


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
    """What one ledger knows of a path: first what wrote it, then what it is kept in, or read by."""

    def __init__(self, ledger: Ledger, base: Path, path: Path) -> None:
        self._ledger = ledger
        self._base = base
        self._path = path
        self._items = RecordedItems(ledger, base)
        self._lineage = LineageStore(ledger)
        self._filed = FiledRows(ledger)
        self._index = OutputIndex(ledger, base, set())
        self._pipelines: dict[str, PipelineNow | Reason] = {}

    def answer(self) -> PathLineage:
        """Return what the path is.

        1. A file that an item wrote: its origin.
        2. A vector store, or within one: the origins of its items.
        3. A folder: the origins of its files.
        4. A document, or a folder of them: what read it, also where it went since.
        5. Unknown: outputs with a similar name, or the same content as before a rename.
        """
        try:  # as the ledger stores it: with its real folder
            real = self._path.parent.resolve() / self._path.name
        except (OSError, RuntimeError):
            real = self._path
        stored, is_folder = self._index.stored(real), self._path.is_dir()
        came_from = self._filed.came_from(stored)
        item = self._items.written(stored)
        if item is not None and not came_from:  # 1
            return PathLineage(str(self._path), (self._origin(item),))
        items, n_more = self._items.in_store(self._items.store_around(stored) or stored)  # 2
        if not items and is_folder:
            items, n_more = self._items.below(stored)  # 3
        if items:
            origins = tuple(map(self._origin, items))
            return PathLineage(str(self._path), origins, n_more=n_more)
        read = [item for path in (stored, *came_from) for item in self._items.made_of(path)]  # 4
        if not read and is_folder:
            below, n_more = self._items.made_below(stored)
            read = [*below]
        same: Sequence[str] = ()
        with contextlib.suppress(OSError):
            if not read and self._path.is_file():
                content = sha256_of(self._path)
                filed = self._filed.of_content(content)  # and were moved on since
                places = {(scope, key) for scope, key, _ in filed}
                paths = dict.fromkeys(path for _, _, path in filed)
                found = (item for path in paths for item in self._items.made_of(path))
                read = [item for item in found if (item.owner.scope, item.key) in places]
                same = self._items.same_as(content)
        if read:
            readers = tuple(map(self._reader, read))
            return PathLineage(str(self._path), read_by=readers, n_more=n_more)
        near, same_as = (map(self._index.absolute, p) for p in (self._items.near(stored), same))
        return PathLineage(str(self._path), near=tuple(near), same_as=tuple(same_as))  # 5

    def _reader(self, item: RecordedItem) -> str:
        stores = map(self._index.stored, item.containing_stores(self._base))
        wrote = ", ".join([*item.outputs, *(f"rows in {store}" for store in stores)])
        entry = item.entry
        notes = [f"{entry.state}: {entry.error}"] if entry is not None and entry.error else []
        if entry is not None and entry.gone == FILED:
            notes.append(" at ".join(["filed", *self._filed.targets(item.owner.scope, item.key)]))
        reviews = ReviewStore(self._ledger).of_scope(item.owner.scope, [item.key])
        notes += [f"'{step}' {review_outcome(head)}" for (_, step), head in sorted(reviews.items())]
        state = "".join(f", {note}" for note in notes)
        name = f"item '{item.shown_key}' of '{item.owner.step}'{state}"
        return name + (f" → {wrote}" if wrote else "")

    def _origin(self, item: RecordedItem) -> Origin:
        """Return where an item's output comes from, and what changed since.

        1. Its document, and what became of the output itself.
        2. Its step, verified by the pipeline of now.
        3. If it only writes what the steps before it answered: these, and their changes.
        4. What is left by a plan of the whole pipeline; notes on what is not checked.
        """
        entry, base, owner = item.entry, self._base, item.owner
        spec, now = recorded_spec(self._lineage, item), self._now(item)
        steps, made_of = list(item_steps(self._lineage, item)), _upstream_references(spec)
        changes, source = list[LineageChange](), item.source(base) if item.is_current else None  # 1
        if source is not None and source.state != "same":
            why = Why.DOCUMENT_CHANGED if source.state == "changed" else Why.DOCUMENT_GONE
            changes.append(LineageChange(why(self._index.stored(source.path))))
        outdated = now.outdated(item) if isinstance(now, PipelineNow) else None
        if not item.is_current:
            changes.append(LineageChange(_no_output(item)))
        elif outdated is not None:
            changes.append(LineageChange(outdated))
        changes += self._changes(item, spec, now)  # 2
        explained = {owner.step}
        for name in made_of if not any(step.calls for step in steps) else ():  # 3
            other = self._items.beside(owner, name)
            if other is not None:
                explained.add(name)
                steps += item_steps(self._lineage, other)
                of_other = recorded_spec(self._lineage, other), self._now(other)
                changes += self._changes(other, *of_other, f"'{name}'")
        notes: list[str] = []  # 4
        calls = [call for step in steps for call in step.calls if call.kind == "tool"]
        if tools := {call.model or "run" for call in calls} - _WATCHED_TOOLS:
            names = ", ".join(f"'{name}'" for name in sorted(tools))
            notes.append(f"what {names} read then is not checked")
        behind: Sequence[LineageChange] = ()
        if isinstance(now, PipelineNow):
            if now.is_elsewhere and find_in_plans(now.bound, owner.step) is not None:
                notes.insert(0, _ELSEWHERE_NOTE)
            if now.can_be_planned:
                behind = now.behind(owner.step, explained)
                if not (behind or changes) and _may_differ_by_plan(item, source):
                    changes += now.own_changes(item)
            elif now.upstream(owner.step):  # other servers or secrets are involved
                notes.append("whether the steps before it are up to date is not checked")
        if item.n_rows is None:
            condition = self._index.condition(owner.scope, item.path)
        else:
            condition = "same" if self._path.exists() else "missing"
        return Origin(
            path=self._index.absolute(item.path),
            pipeline=base / owner.file,
            step=owner.step,
            key=item.shown_key,
            run=item.run,
            at=item.at,
            state=ItemState.DONE if entry is None else entry.state,
            error=None if entry is None else entry.error,
            condition=condition,
            source=source,
            reads=item.read_files(base),
            looked_in=item.searched_paths(base),
            kept_in=item.containing_stores(base),
            steps=tuple(steps),
            made_of=made_of,
            outputs=tuple(map(self._index.absolute, item.outputs)),
            changes=tuple(dict.fromkeys([*changes, *behind])),
            notes=tuple(notes),
            n_rows=item.n_rows,
            reviewed=reviews_of_item(self._ledger, owner.scope, item.key),
        )

    def _changes(
        self,
        item: RecordedItem,
        spec: Mapping[str, Any],
        now: PipelineNow | Reason,
        subject: str = "it",
    ) -> list[LineageChange]:
        """Verify an item by the pipeline of now; `subject` names it in sentences."""
        changes: list[LineageChange] = []
        for read in item.read_files(self._base):
            if read.state != "same":
                why = Why.READ_CHANGED if read.state == "changed" else Why.READ_GONE
                changes.append(LineageChange(why(subject, self._index.stored(read.path))))
        if isinstance(now, Reason):
            return [*changes, LineageChange(now)]
        found = find_in_plans(now.bound, item.owner.step)
        if found is None:
            return [*changes, LineageChange(Why.PIPELINE_LACKS(item.owner.step))]
        try:
            reasons = asyncio.run(self._differences(item, now, *found, subject))
        except PipelineError as error:
            return [*changes, LineageChange(Why.PIPELINE_INVALID(error.faults[0].message))]
        except EngineError as error:
            return [*changes, LineageChange(Why.MODEL_UNUSABLE(str(error)))]
        new = json.loads(canonical_spec(found[1]))
        if item.entry is None and spec and ordered_json(spec) != ordered_json(new):
            reasons = [Why.STEP()]
        lines = tuple(_spec_difference(spec, new)) if spec else ()
        for reason in reasons:
            is_of_rule = reason.why not in _NOT_OF_RULE
            changes.append(LineageChange(reason, lines if is_of_rule else ()))
            lines = () if is_of_rule else lines
        for step in _upstream_references(spec):
            if n_newer := self._items.newer(item.owner.file, step, item.at):
                newer = Why.NEWER_RESULTS(step, n_newer)
                changes.append(LineageChange(newer if n_newer > 1 else Why.NEWER_RESULT(step)))
        return changes

    async def _differences(
        self,
        item: RecordedItem,
        now: PipelineNow,
        plan: BoundPlan,
        node: BoundNode,
        subject: str,
    ) -> list[Reason]:
        """Verify an item's trace; what is not known without the steps before counts as it was."""
        entry, scope_id = item.entry, item.owner.scope
        if entry is None:
            return []
        self._index.own_scopes = self._ledger.scopes_of(item.owner.file)
        judge = Judge(plan, RunOptions(), self._index, now.model_digests)
        trace = Trace(scope_id, entry, PastItems(self._ledger, scope_id, node))
        scope = Scope.of(plan.inputs, moment=plan.moment)
        world = await judge.world_of([node], scope, [trace])
        # Inputs of a sub-pipeline may be known only during a run.
        inputs = {f"inputs.{n}" for n in plan.inputs if n in now.hidden or plan.inputs[n] is None}

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
        item_now = ItemNow(hash_, json.dumps(parts), older=judge.parts.older)
        reasons = []
        for reason in differences(trace, item_now, world):
            if reason.why in _SURROUNDINGS:
                (path,) = reason.about
                changed, gone = _SURROUNDINGS[reason.why]
                is_there = (self._base / str(path)).is_dir()
                reasons.append((changed if is_there else gone)(subject, path))
            elif not reason.is_loss and reason.why not in (Why.FILE, Why.FILE_GONE):
                reasons.append(reason)
        return reasons

    def _now(self, item: RecordedItem) -> PipelineNow | Reason:
        """Return the pipeline of an item as it is now; a reason: it is gone, or invalid."""
        file = self._base / item.owner.file
        if not item.owner.file or not file.exists():
            return Why.PIPELINE_GONE(item.owner.file)
        row = self._ledger.run(item.run)
        recorded = json.loads(row.given) if row is not None and row.given else {}
        given, hidden = recorded.get("inputs", {}), recorded.get("hidden", [])
        name = canonical_json([item.owner.file, given, hidden])
        if name not in self._pipelines:
            try:
                settings, plan = read_settings(self._base), read_plan(file)
                inputs = plan.pipeline.inputs
                known = {name: given[name] for name in given.keys() & inputs.keys()}
                secret = {n: [] if inputs[n].type == "rows" else "" for n in hidden if n in inputs}
                models = settings.default_models
                bound = bind(plan, {**known, **secret}, cwd=file.parent, default_models=models)
                self._pipelines[name] = PipelineNow(bound, settings, known, hidden)
            except PipelineError as error:
                self._pipelines[name] = Why.PIPELINE_INVALID(error.faults[0].message)
        return self._pipelines[name]


def _may_differ_by_plan(item: RecordedItem, source: LineageFile | None) -> bool:
    """Return whether values of other steps may tell that an item would be done again."""
    if item.entry is None:
        return False
    parts = json.loads(item.entry.parts)
    values = (part for part in map(part_of, parts) if isinstance(part, OuterValue))
    reads_more = PLACE_IN_LIST.name in parts or any(part.root == "steps" for part in values)
    return source is None or reads_more or bool(dependencies_of(item.entry, ChosenLabels))


def _no_output(item: RecordedItem) -> Reason:
    """Return why a path is no output of its item as it was done last."""
    entry = item.entry
    if entry is None:
        return Why.WRITTEN_NO_MORE()
    if entry.state == ItemState.WAITING:
        return Why.EARLIER_ANSWER(entry.run)
    if entry.state == ItemState.FAILED:
        return Why.EARLIER_TRY(entry.run)
    if entry.state in (ItemState.SKIPPED, ItemState.QUARANTINED):
        return Why.ITEM_ENDED(entry.run, entry.state)
    now = "" if item.n_rows is not None else ", ".join(sorted(current_paths(entry)))
    return Why.ITEM_WRITES(entry.run, now or "nothing here")


def _upstream_references(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the outer steps whose outputs an item reads, by its recorded spec."""
    own = {*spec.get("steps", {}), *spec.get("blocks", {})}
    found = _STEP_REFERENCE.findall(json.dumps(spec))
    return tuple(dict.fromkeys(name for name in found if name not in own))


# --- the difference of two specs, as lines


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
