"""Answer where a file came from, and what changed since: ledgers are read, nothing is run.

The one door of this closet: `why(path, places)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.pipelines.errors import PipelineError
from paddock.runner.calls import Digests
from paddock.runner.former_outputs import paths_now
from paddock.runner.freshness import canonical
from paddock.runner.history.places import STATE_FOLDER, Place, places
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.origins import Origins
from paddock.runner.ledger.outputs import Condition, Index, sha256_of
from paddock.runner.settings import Settings, read_settings

from . import since
from .around import Around
from .before import Before, before
from .find import Trace, Traces
from .origin import Answer, Change, Origin, ReadFile, Step
from .steps import spec_of, steps_of

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec, Role
    from paddock.runner.binding.bound import BoundNode, BoundPlan


def why(path: Path, given: Sequence[Path] = ()) -> Answer:
    """Tell where a file, a folder's files or a store's rows came from.

    `given` are pipelines or folders with some; without, those around the path and around the
    current folder are asked, then those below it.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a link is what was written, not its target
    faults: list[str] = []
    near: dict[str, None] = {}
    same: dict[str, None] = {}
    for place in _places(path, given):
        try:
            with _opened(place) as ledger:
                case = _Case(ledger, place.folder.resolve(), path)
                answer = case.answer()
                if answer.is_known:
                    return answer
                near.update(dict.fromkeys(answer.near))
                same.update(dict.fromkeys(answer.same_as))
        except LedgerError as error:
            faults.append(str(error))
    return Answer(str(path), near=tuple(near), same_as=tuple(same), faults=tuple(faults))


def _places(path: Path, given: Sequence[Path]) -> Iterator[Place]:
    if given:
        yield from places(given)
        return
    seen: set[Path] = set()
    around = [path, *path.parents, Path.cwd(), *Path.cwd().parents]
    for folder in around:
        state = folder / STATE_FOLDER
        if state not in seen and (state / "ledger.sqlite").exists() | (state / "id").exists():
            seen.add(state)
            yield Place(state)
    for place in places([Path.cwd()]):
        if place.state not in seen:
            yield place


def _opened(place: Place) -> Ledger:
    url = read_settings(place.folder).ledger_url
    return Ledger(place.state, is_readonly=True, url=url)


class _Case:
    """One path in one ledger."""

    def __init__(self, ledger: Ledger, base: Path, path: Path) -> None:
        self._ledger = ledger
        self._base = base
        self._path = path
        self._traces = Traces(ledger, base)
        self._origins = Origins(ledger)
        self._index = Index(ledger, base, set())
        self._around = Around(ledger, base)
        self._before = Before()
        self._bounds: dict[str, BoundPlan] = {}

    def answer(self) -> Answer:
        stored = self._stored()
        trace = self._traces.written(stored)
        if trace is not None:
            return Answer(str(self._path), (self._origin(trace),))
        traces, n_more = self._traces.in_store(self._traces.store_around(stored) or stored)
        if not traces and self._path.is_dir():
            traces, n_more = self._traces.below(stored)
        if traces:
            origins = tuple(self._origin(one) for one in traces)
            return Answer(str(self._path), origins, n_more=n_more)
        read = self._traces.made_of(stored)
        if not read and self._path.is_dir():
            read, n_more = self._traces.made_below(stored)
        readers = tuple(map(self._reader, read))
        if readers:
            return Answer(str(self._path), read_by=readers, n_more=n_more)
        near = tuple(map(self._traces.absolute, self._traces.near(stored)))
        return Answer(str(self._path), near=near, same_as=tuple(self._same()))

    def _same(self) -> Iterator[str]:
        """Find the outputs that held what the file holds, as one does that was renamed."""
        with contextlib.suppress(OSError):
            if self._path.is_file():
                yield from map(self._traces.absolute, self._traces.same_as(sha256_of(self._path)))

    def _reader(self, trace: Trace) -> str:
        """Say in words which item a document is of, and what it wrote."""
        key = "/".join((*trace.place.outer, trace.key))
        stores = map(self._traces.stored, map(Path, since.kept_in(trace, self._base)))
        wrote = ", ".join([*trace.outputs, *(f"rows in {store}" for store in stores)])
        entry = trace.entry
        bad = f", {entry.state}: {entry.error}" if entry is not None and entry.error else ""
        return f"item '{key}' of '{trace.place.step}'{bad}" + (f" → {wrote}" if wrote else "")

    def _stored(self) -> str:
        """Write the path as the ledger does: by its real folder, as runs resolve theirs."""
        try:
            real = self._path.parent.resolve() / self._path.name
        except (OSError, RuntimeError):
            real = self._path
        return self._traces.stored(real)

    def _origin(self, trace: Trace) -> Origin:
        entry, base = trace.entry, self._base
        source, reads = since.source_of(trace, base), since.reads_of(trace, base)
        spec = spec_of(self._origins, trace)
        changes = list(self._of_file("its document", source)) if source is not None else []
        if entry is not None and entry.state == "done" and trace.n_rows is None:
            now = paths_now(entry)
            if trace.path not in now:
                others = ", ".join(sorted(now)) or "no file"
                changes.append(Change(f"it is no output any more: its item writes {others} now"))
        since_, notes = self._changes(trace, spec)
        changes += since_
        made_of = _made_of(spec)
        steps = list(steps_of(self._origins, trace))
        told = {trace.place.step}
        for name in made_of if not any(step.calls for step in steps) else ():
            # A step that only writes down what a model said: what was asked of it is told as well.
            other = self._traces.beside(trace.place, name)
            if other is not None:
                told.add(name)
                steps += steps_of(self._origins, other)
                changes += self._changes(other, spec_of(self._origins, other), f"'{name}'")[0]
        notes += _unwatched(steps)
        behind, unknown = self._behind(trace, told)
        changes += behind
        return Origin(
            path=self._traces.absolute(trace.path),
            pipeline=base / trace.place.file,
            step=trace.place.step,
            key="/".join((*trace.place.outer, trace.key)),
            run=trace.run,
            at=trace.at,
            state="done" if entry is None else entry.state,
            error=None if entry is None else entry.error,
            condition=self._condition(trace),
            source=source,
            reads=reads,
            looked_in=since.looked_in(trace, base),
            kept_in=since.kept_in(trace, base),
            steps=tuple(steps),
            made_of=made_of,
            outputs=tuple(map(self._traces.absolute, trace.outputs)),
            changes=tuple(dict.fromkeys(changes)),
            notes=(*notes, *unknown),
            n_rows=trace.n_rows,
        )

    def _of_file(self, what: str, file: ReadFile) -> Iterator[Change]:
        if file.state != "same":
            yield Change(f"{what} {_IS[file.state]}: {self._traces.stored(Path(file.path))}")

    def _condition(self, trace: Trace) -> Condition:
        if trace.n_rows is not None:
            return "same" if self._path.exists() else "missing"
        return self._index.condition(trace.place.scope, trace.path)

    def _changes(
        self, trace: Trace, spec: Mapping[str, Any], subject: str = "it"
    ) -> tuple[list[Change], list[str]]:
        """Compare the item with what the pipeline says now; `subject` names it."""
        notes: list[str] = []
        changes = [
            change
            for read in since.reads_of(trace, self._base)
            for change in self._of_file(f"a file that {subject} read", read)
        ]
        if not self._has_pipeline(trace):
            return [*changes, Change(f"the pipeline is gone: {trace.place.file}")], notes
        try:
            settings = read_settings(self._base)
            _, hidden = self._given(trace)
            bound = self._bound(trace, settings)
            node = since.node_of(bound, trace.place.step)
            if node is None:
                gone = Change(f"the pipeline has no '{trace.place.step}' any more")
                return [*changes, gone], notes
            parts, older = asyncio.run(_parts(bound, node, self._index, settings))
        except PipelineError as error:
            what = f"the pipeline cannot be used as it is now: {error.faults[0].message}"
            return [*changes, Change(what)], notes
        except EngineError as error:
            return [*changes, Change(f"a model cannot be used any more: {error}")], notes
        if _is_elsewhere(bound, settings):
            notes.append("its models are asked elsewhere: whether they changed is not looked at")
        known = {name: parts[name] for name in parts.keys() - {f"inputs.{one}" for one in hidden}}
        roots = since.owner_of(bound, node).roots
        changes += asyncio.run(self._around.changes(trace, roots, subject))
        changes += since.changed_words(trace, node, spec, known, older)
        for step in _made_of(spec):
            n_newer = self._traces.newer(trace.place.file, step, trace.at)
            if n_newer:
                results = "a newer result" if n_newer == 1 else f"{n_newer:,} newer results"
                changes.append(Change(f"'{step}', which it reads, has {results}"))
        return changes, notes

    def _behind(self, trace: Trace, told: Collection[str]) -> tuple[list[Change], list[str]]:
        """Tell what comes before it in the pipeline and has work to do; `told` are known already.

        That is asked of a plan, and so of nothing that servers elsewhere or secrets decide.
        """
        if not self._has_pipeline(trace):
            return [], []
        try:
            settings = read_settings(self._base)
            given, hidden = self._given(trace)
            bound = self._bound(trace, settings)
        except PipelineError:
            return [], []
        if not before(bound, trace.place.step):
            return [], []
        if _is_elsewhere(bound, settings) or hidden:
            return [], ["whether what comes before it is up to date is not looked at"]
        given = {name: value for name, value in given.items() if name in bound.inputs}
        return self._before.changes(bound, trace.place.step, given, settings, told), []

    def _has_pipeline(self, trace: Trace) -> bool:
        return bool(trace.place.file) and (self._base / trace.place.file).exists()

    def _given(self, trace: Trace) -> tuple[dict[str, Any], list[str]]:
        """Tell what its run was given by hand, and which inputs were, and are kept nowhere."""
        row = self._ledger.run(trace.run)
        given = json.loads(row.given) if row is not None and row.given else {}
        return given.get("inputs", {}), given.get("hidden", [])

    def _bound(self, trace: Trace, settings: Settings) -> BoundPlan:
        """Bind the pipeline with what its run was given, as far as it still takes it."""
        given, hidden = self._given(trace)
        name = canonical([trace.place.file, given, hidden])
        if name not in self._bounds:
            file = self._base / trace.place.file
            self._bounds[name] = _bound(file, settings, {**given, **dict.fromkeys(hidden, "")})
        return self._bounds[name]


def _bound(file: Path, settings: Settings, given: Mapping[str, Any]) -> BoundPlan:
    from paddock.runner.binding.bind import bind, plan_of

    plan = plan_of(file)
    kept = {name: value for name, value in given.items() if name in plan.pipeline.inputs}
    models: dict[Role, str] = {"chat": settings.chat_model, "embed": settings.embed_model}
    return bind(plan, kept, cwd=file.parent, default_models=models)


class _Unasked(Digests):
    """The models of servers elsewhere, which nobody asks for a question about the past."""

    def __init__(self) -> None:
        """Know none."""

    async def of(self, spec: ModelSpec) -> str:
        """Give nothing."""
        return ""


async def _parts(
    bound: BoundPlan, node: BoundNode, index: Index, settings: Settings
) -> tuple[dict[str, str], Mapping[str, frozenset[str]]]:
    """Give what the item's hash would consist of now, without what nobody looks at.

    And, by the version of a step, the earlier ones whose results are as good.
    """
    from paddock.runner.pools import LookedUp
    from paddock.runner.work import Options, Work

    is_elsewhere = _is_elsewhere(bound, settings)
    digests = _Unasked() if is_elsewhere else Digests(LookedUp(settings).facts)
    owner = since.owner_of(bound, node)
    work = Work(owner, index.ledger, index, digests, Options())
    parts = await work.parts_of(node)
    # What a step gives the pipeline that it runs may only show in a run.
    unknown = {f"inputs.{name}" for name, value in owner.inputs.items() if value is None}
    known = {
        name: parts[name]
        for name in parts.keys() - unknown
        if not (is_elsewhere and name.endswith(".model"))
    }
    return known, work.older


def _is_elsewhere(bound: BoundPlan, settings: Settings) -> bool:
    return bool(bound.pools or settings.pool_urls)


def _unwatched(steps: Sequence[Step]) -> Iterator[str]:
    """Say that what tools and commands looked at may have changed: nobody keeps what that was."""
    calls = [call for step in steps for call in step.calls if call.kind == "tool"]
    names = {call.model or "run" for call in calls} - _WATCHED
    if names:
        listed = ", ".join(f"'{name}'" for name in sorted(names))
        yield f"what {listed} looked at then is not looked at now"


_WATCHED = {"calculator", "files.read"}
"""Tools that look at nothing, or at files that are among what an item read."""
_IS = {"changed": "is another one now", "gone": "is gone"}


def _made_of(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the steps around an item whose outputs it reads, as its spec was written."""
    own = {*spec.get("steps", {}), *spec.get("blocks", {})}
    found = _REFERENCE.findall(json.dumps(spec))
    return tuple(dict.fromkeys(name for name in found if name not in own))


_REFERENCE = re.compile(r"\bsteps\.([a-z][a-z0-9_]*)")
