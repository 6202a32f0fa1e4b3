"""What a run would do: the journey without its work. Runs pure steps only, such as `files.scan`.

What comes out of a step that would have to run is unknown, and so is all that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.inputs import WrongInput
from paddock.steps.pipeline import named
from paddock.steps.step import Foreseen

from .attempt import StepFailed, Stopped, is_skipped
from .binding.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from .binding.inner import given_to
from .binding.parameters import BindError
from .block_run import BlockRun
from .blocks import Blocks, is_block_skipped, plain_chunks
from .body import steps_of, steps_within
from .border import Border
from .foretold import (
    Asked,
    asked_before,
    asked_of,
    can_be_foretold,
    foretold,
    guessed,
    offered_again,
)
from .inside import entered
from .items import ItemRun
from .ledger.entries import Entry
from .renames import is_free
from .report import PlanItem, PlanReport, State
from .scope import Scope
from .session import Session
from .speed import workload
from .work import ItemWork

if TYPE_CHECKING:
    from paddock.engine.profile.choice import Workload


@dataclass
class _Cost:
    """Estimates that become unknown as soon as one part of them is."""

    calls: float | None = 0
    tokens: float | None = 0
    models: set[str] = field(default_factory=set)
    by_model: dict[str, list[float]] = field(default_factory=dict)
    """Calls and tokens, as far as they are one model's alone."""

    def add(
        self, refs: set[str], n_items: int, calls_each: float | None, tokens_each: float | None
    ) -> None:
        self.models |= refs
        self.calls = _sum(self.calls, calls_each, n_items)
        self.tokens = _sum(self.tokens, tokens_each, n_items)
        if len(refs) == 1 and calls_each is not None and tokens_each is not None:
            (ref,) = refs
            mine = self.by_model.setdefault(ref, [0.0, 0.0])
            mine[0] += calls_each * n_items
            mine[1] += tokens_each * n_items


async def foresee(session: Session) -> PlanReport:
    """Say what a run would do.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    return await _Foresight(session).report()


class _Foresight:
    def __init__(self, session: Session, prefix: str = "") -> None:
        self._session = session
        self._prefix = prefix
        """The steps that lead here, such as `clean.`."""
        self._work = session.work
        self._blocks = Blocks(session.work, session.toolbox, plain_chunks, Border())
        secrets = session.tally.secrets.of(session.bound.file)
        self._scope = Scope.of(session.bound.inputs, secrets)
        self._unknown: dict[str, str] = {}
        """Node → the one that must run before its outputs are known."""
        self._pending: dict[str, BlockRun] = {}
        """The blocks that have work to do; what they will offer can be guessed."""
        self._items: list[PlanItem] = []
        self._notes: list[str] = []
        self._cost = _Cost()

    async def report(self) -> PlanReport:
        for node in self._session.bound.nodes:
            await self._guarded(node)
        cost, tally = self._cost, self._session.tally
        is_vague = bool(self._notes)
        tokens = None if cost.tokens is None or is_vague else math.ceil(cost.tokens)
        return PlanReport(
            pipeline=tally.pipeline,
            items=tuple(self._items),
            calls=None if cost.calls is None or is_vague else math.ceil(cost.calls),
            tokens=tokens,
            loads=None if is_vague else len(cost.models),
            seconds=self._seconds(tokens),
            notes=tuple(self._notes),
            advice=tuple(self._advice()),
        )

    async def _guarded(self, node: BoundNode) -> None:
        try:
            await self._node(node)
        except (StepFailed, Stopped, ExpressionError) as error:
            raise PipelineError([Fault(str(error), mark=node.mark)]) from error
        except (BindError, WrongInput) as error:
            raise PipelineError([Fault(f"step '{node.id}': {error}", mark=node.mark)]) from error

    async def _node(self, node: BoundNode) -> None:
        before = self._session.bound.edges.get(node.id, frozenset())
        cause = next(
            (self._unknown[name] for name in sorted(before) if name in self._unknown), None
        )
        if isinstance(node, BoundBlock):
            await self._block(node, cause)
        elif node.kind.roles:
            await self._model_step(node, cause)
        elif node.inner is not None:
            await self._inner(node, node.inner, cause)
        elif cause is not None or not node.kind.is_pure or node.model is not None:
            self._unknown[node.id] = cause or node.id
        else:
            self._known(node, await self._blocks.items.step(node, self._scope, self._record(node)))

    def _unknown_until(self, name: str, cause: str) -> str:
        at = self._prefix
        return f"What '{at}{name}' has to do is unknown until '{at}{cause}' has run."

    def _known(self, node: BoundNode, outputs: object) -> None:
        assert outputs is None or isinstance(outputs, dict)
        self._scope = self._scope.with_step(node.id, outputs)

    def _record(self, step: BoundStep) -> ItemRun:
        scope = self._work.scope_id(step.id)
        outputs = self._session.toolbox.outputs(scope, step.id)
        return ItemRun(scope, step.id, "", step.id, None, (), outputs)

    async def _block(self, block: BoundBlock, cause: str | None) -> None:
        if cause is not None:
            self._unknown[block.id] = cause
            self._notes.append(self._unknown_until(block.id, cause))
            return
        if is_block_skipped(block, self._scope):
            self._known(block, None)
            return
        run = await self._blocks.settle(block, self._scope, keeps_results=True)
        for item in run.work.items:
            self._items.append(PlanItem(block.id, item.key, item.verdict.state, item.verdict.why))
        for entry in run.work.deleted:
            self._items.append(PlanItem(block.id, entry.key, "deleted", "its source is gone"))
        offered = offered_again(run, self._work.ledger)
        if offered is not None:
            self._known(block, offered)
            return
        self._unknown[block.id] = block.id
        self._pending[block.id] = run
        answered = self._answered(run)
        n_asking = sum(_needs_calls(item, block, answered) for item in run.todo())
        self._estimate(steps_of(block.body), _recorded(run), n_asking)

    def _answered(self, run: BlockRun) -> frozenset[Asked]:
        """Give of what items were made that were done before, under whatever name."""
        scope, wanted = run.work.scope, set(map(asked_of, run.todo()))
        entries = self._work.ledger.entries(scope)
        known = asked_before(self._work.ledger, scope, entries, wanted)
        is_as_read = self._work.evidence.is_as_read
        return frozenset(asked for asked, key in known if is_as_read(scope, entries[key]))

    async def _inner(self, step: BoundStep, inner: BoundPlan, cause: str | None) -> None:
        """Foresee the pipeline that a step runs, as far as what it is given is known."""
        if cause is not None:
            self._unknown[step.id] = cause
            self._notes.append(self._unknown_until(step.id, cause))
            return
        if is_skipped(step, self._scope):
            self._known(step, None)
            return
        params = step.params.render(self._scope)
        session = self._session
        bound = given_to(inner, params.inputs, session.bound.roots)
        record = self._record(step)
        work, toolbox = entered(step, record, bound, self._work, session.toolbox)
        within = _Foresight(
            replace(session, bound=bound, work=work, toolbox=toolbox), f"{self._prefix}{step.id}."
        )
        within._cost = self._cost
        for node in bound.nodes:
            await within._guarded(node)
        self._items += [replace(one, step=f"{step.id}.{one.step}") for one in within._items]
        self._notes += within._notes
        self._read_returns(step, bound, within)

    def _read_returns(self, step: BoundStep, bound: BoundPlan, within: _Foresight) -> None:
        """Give what a pipeline returns, where that reads nothing which is not known yet."""
        read = bound.returns.references if bound.returns is not None else frozenset()
        for path in sorted(read):
            if path[0] == "steps" and path[1:2] and path[1] in within._unknown:
                self._unknown[step.id] = f"{step.id}.{within._unknown[path[1]]}"
                return
        returned = bound.returns.render(within._scope) if bound.returns is not None else None
        outputs = named(returned)
        if step.returns is not None:
            outputs = step.returns.render(self._scope.with_step(step.id, outputs))
        self._known(step, outputs)

    async def _model_step(self, step: BoundStep, cause: str | None) -> None:
        if cause is not None:
            self._unknown[step.id] = cause
            entry = self._work.ledger.entries(self._work.scope_id(step.id)).get(step.id)
            state, why = (
                ("new", None)
                if entry is None
                else ("stale", f"it reads '{cause}', which has work to do")
            )
            scope = self._guessed_scope(step)
            seen = None if scope is None else await self._foretold(step, scope)
            self._add(step, entry, state, why, seen)  # type: ignore[arg-type]
            return
        if is_skipped(step, self._scope):
            self._known(step, None)
            return
        _, item = await self._work.step(step, self._scope)
        state, why = item.verdict.state, item.verdict.why
        if item.verdict.is_work or item.entry is None:
            self._unknown[step.id] = step.id
            self._add(step, item.entry, state, why, await self._foretold(step, self._scope))
        else:
            self._items.append(PlanItem(step.id, step.id, state, why))
            entry = item.entry
            self._known(step, self._work.ledger.value(entry.returns, entry.returns_object))

    async def _foretold(self, step: BoundStep, scope: Scope) -> Foreseen | None:
        scope_id = self._work.scope_id(step.id)
        return await foretold(step, scope, self._session.toolbox, scope_id)

    def _guessed_scope(self, step: BoundStep) -> Scope | None:
        """Give a scope in which what blocks will offer is guessed; None where more is missing."""
        before = self._session.bound.edges.get(step.id, frozenset())
        missing = [name for name in before if name in self._unknown]
        if not can_be_foretold(step) or any(name not in self._pending for name in missing):
            return None
        scope = self._scope
        for name in missing:
            scope = scope.with_step(name, guessed(self._pending[name]))
        return scope

    def _add(
        self,
        step: BoundStep,
        entry: Entry | None,
        state: State,
        why: str | None,
        seen: Foreseen | None,
    ) -> None:
        """Add a step that asks models: what it will ask, or else what it asked before."""
        if seen is None:
            self._items.append(PlanItem(step.id, step.id, state, why))
            self._estimate([step], [entry] if entry else [], 1)
            return
        n_new = seen.n_calls - seen.n_known
        if seen.n_known:
            told = f"{n_new} of its {seen.n_calls} calls are to be made"
            why = told if why is None else f"{why}; {told}"
        self._items.append(PlanItem(step.id, step.id, state, why))
        tokens = entry.tokens / entry.calls if entry is not None and entry.calls else None
        refs = {step.model.ref} if step.model is not None and n_new else set[str]()
        self._cost.add(refs, n_new, 1, 0 if not n_new else tokens)

    def _estimate(self, steps: Iterable[BoundStep], entries: Iterable[Entry], n_items: int) -> None:
        """Add the cost of so many items, by what earlier ones cost."""
        steps = list(steps)
        has_inner = any(step.inner is not None for step in steps)
        steps = [step for step in steps_within(steps) if step.kind.roles]
        if not steps or not n_items:
            return
        refs = {step.model.ref for step in steps if step.model is not None}
        known = [entry for entry in entries if entry.state == "done" and entry.calls]
        if known:
            calls = sum(entry.calls for entry in known) / len(known)
            self._cost.add(refs, n_items, calls, sum(entry.tokens for entry in known) / len(known))
        else:
            is_one_each = not has_inner and all(map(_asks_once, steps))
            self._cost.add(refs, n_items, len(steps) if is_one_each else None, None)

    def _seconds(self, tokens: int | None) -> float | None:
        """Tell how long so many tokens take: as measured of the models, else as the last run."""
        if tokens == 0 and not any(
            item.state in ("new", "changed", "stale") for item in self._items
        ):
            return 0.0
        last = self._work.ledger.last_summary(self._session.bound.file.name)
        if not tokens or last is None or not last.get("seconds"):
            return None
        measured = self._measured_s(tokens)
        if measured is not None:
            return round(measured, 1)
        then = last["tokens"]["prompt"] + last["tokens"]["completion"]
        return round(tokens * last["seconds"] / then, 1) if then else None

    def _measured_s(self, tokens: int) -> float | None:
        """Add up what the models' profiles say; None where one is missing."""
        speeds = self._session.speeds
        known = sum(n_tokens for _, n_tokens in self._cost.by_model.values())
        if speeds is None or math.ceil(known) != tokens:
            return None
        total = 0.0
        for ref, work in self._workloads():
            seconds = speeds.seconds(ref, work)
            if seconds is None:
                return None
            total += seconds
        return total

    def _workloads(self) -> Iterator[tuple[str, Workload]]:
        """Divide each model's tokens as the last run's were: read, shared, written."""
        last = self._work.ledger.last_summary(self._session.bound.file.name)
        shares = last["tokens"] if last is not None else {}
        then = shares.get("prompt", 0) + shares.get("completion", 0)
        for ref, (n_calls, n_tokens) in self._cost.by_model.items():
            if not then or not n_calls:
                continue
            read, written = shares["prompt"] / then, shares["completion"] / then
            reused = shares.get("prompt_reused", 0) / then
            yield ref, workload(n_calls, *(n_tokens * s for s in (read, written, reused)))

    def _advice(self) -> Iterator[str]:
        speeds = self._session.speeds
        if speeds is not None:
            known = dict(self._workloads())
            for ref in sorted(self._cost.models):
                gain = speeds.gain(ref, known.get(ref))
                if gain is not None:
                    yield gain.sentence()


def _recorded(run: BlockRun) -> list[Entry]:
    return [item.entry for item in run.work.items if item.entry is not None]


def _needs_calls(item: ItemWork, block: BoundBlock, answered: Collection[Asked]) -> bool:
    """Tell whether the replies to an item's calls may be unknown."""
    if not all(step.cache for step in steps_within(block.body) if step.kind.roles):
        return True
    entry = item.entry
    if entry is not None and entry.hash == item.hash and entry.state == "done":
        return not item.verdict.is_remade
    return asked_of(item) not in answered or not is_free(block)


def _asks_once(step: BoundStep) -> bool:
    """Tell whether a step is one call, as far as can be said: a long text may be read in parts."""
    divides = step.params.value.data.get("on_overflow") in ("map-reduce", "refine")
    return step.uses == "embed" or (step.uses == "chat" and not divides)


def _sum(total: float | None, each: float | None, n: int) -> float | None:
    return None if total is None or each is None else total + each * n
