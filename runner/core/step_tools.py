"""Tools of a step: models, files, calls, labels to choose from, examples, an inner pipeline.

A sub-pipeline has the same pool, ledger and stop gate, with scopes of its own. Its steps are
reported under the name of the step that runs it: `each` within `clean` is `clean.each`. Where the
step runs once for each item of a block, they are details of that item.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.request import ModelSpec, Pool, Role
from paddock.engine.system.crash_isolation import SuspectRoom
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.tasks import time_limit
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.label_choices import chosen_labels
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.answers.text_vectors import embedded
from paddock.runner.bind.bound import BoundBlock, BoundPlan, BoundStep
from paddock.runner.bind.item_paths import called_plan
from paddock.runner.bind.plan_walks import callable_names, node_ids
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.sub_pipelines import with_inputs
from paddock.runner.bind.trust.tainted_paths import guarded_roots
from paddock.runner.ledger.entries import is_variant
from paddock.runner.ledger.reviews.reviews import review_id
from paddock.steps.base import (
    CallCache,
    CallTools,
    Effects,
    FileTools,
    ModelTools,
    Output,
    OutputFiles,
    StepError,
    TimeLimits,
    Tools,
    Toolset,
    Vector,
)
from paddock.steps.param_types import SearchedStore
from paddock.steps.tools.tool import ToolContext

from .calls.call_cache import LedgerPool
from .calls.recorded_calls import CallOrigin, ClaimedRequests, PutOff, ToolCallCache
from .item_toolset import ItemToolset, NoToolset
from .reviews.prompt_examples import TaughtItem
from .traces.dependencies import ChosenLabels, NarrowedLabels, UsedExamples, dependencies_of

if TYPE_CHECKING:
    from paddock.runner.ledger.ledger import Ledger

    from .calls.run_models import RunModels
    from .item_attempt import ItemAttempt, StepAttempt
    from .run_context import RunContext
    from .run_stats import RunStats
    from .traces.block_work import ItemWork


def item_tools(attempt: StepAttempt, outputs: OutputFiles) -> Tools:
    context, step, caller = attempt.context, attempt.step, attempt.caller
    bound, roots = context.bound, context.bound.roots
    if step.untrusted:
        roots = guarded_roots(roots, step, attempt.scope, attempt.item.own_path)
    log = ItemLog(context, caller.step, caller.key, step.id)
    pool, ledger, stats = context.pool, context.ledger, context.stats
    memo: CallCache = ToolCallCache(ledger, stats, caller)
    toolset: Toolset = NoToolset()
    if not step.kind.is_pure:  # else it makes no calls
        if step.has(SearchedStore) and context.queries is not None:
            pool = context.queries[bound.file, step.id]
        models = context.world.models
        pool = LedgerPool(pool, ledger, models, stats, caller)
        if context.tool_runtime is not None:
            within = ToolContext(roots, log, context.readers)
            toolset = ItemToolset(bound, context.tool_runtime, memo, within)
        if context.tape is not None:
            memo, toolset = context.tape.memo(memo), context.tape.toolset(toolset)
    effects = None
    if context.at_end is not None:
        claims = ClaimedRequests(ledger, stats, caller)
        effects = Effects(context.at_end, ledger.folder, claims, context.world.tables)
    return Tools(
        log,
        ModelTools(
            pool,
            BoundModels(bound.models, bound.defaults, step.model),
            bound.priority,
            n_refused=attempt.n_refused,
        ),
        FileTools(roots, outputs, context.readers),
        CallTools(toolset, memo, untrusted=step.untrusted),
        context.world.stores,
        effects=effects,
        timeout=TimeLimits(step.timeout.total, step.timeout.idle),
        item=attempt.item_name,
    )


async def carry_out(step: BoundStep, params: Any, tools: Tools) -> Output:
    """Return what a step makes of its parameters, within its time limit."""
    async with time_limit(limit_s(step)):
        output: Output = await step.kind().run(params, tools)
    return output


def limit_s(step: BoundStep) -> float | None:
    """Return the time limit of a step; a model's begins when the pool has the request."""
    return None if step.kind.roles else step.timeout.total


class BoundModels(Struct, frozen=True):
    """Implements `paddock.steps.base.ModelResolver` over a pipeline's aliases and the defaults."""

    models: Mapping[str, ModelSpec]
    defaults: Mapping[Role, ModelSpec]
    own: ModelSpec | None

    def resolve(self, alias: str | None, role: Role) -> ModelSpec:
        """Return the model of this alias, else the step's own, else the default of this role."""
        if alias is not None:
            if alias in self.models:
                return self.models[alias]
            raise StepError(f"there is no model '{alias}' under `models`.")
        if self.own is not None and self.own.role == role:
            return self.own
        if role in self.defaults:
            return self.defaults[role]
        raise StepError(f"there is no model to {role} with.", remedy="Name one under `models`.")


class ItemLog(Struct, frozen=True):
    """Implements `paddock.steps.base.StepLog`: prefixes notes with the item."""

    context: RunContext
    block: str
    key: str
    step: str

    def note(self, text: str) -> None:
        self.context.stats.note(f"{self.key or self.block}: {text}")

    def tally(self, noun: str, what: str) -> None:
        self.context.stats.tally(self.step, self.key, noun, what)

    def scanned(self, taken: Collection[str], not_taken: Collection[str]) -> None:
        """Count the files that no pattern takes, but for what Paddock wrote or the pipeline is."""
        context, index, parts = self.context, self.context.index, self.context.protected.folded
        context.stats.taken.update(taken, context.bound.folder_inputs.values())
        context.stats.not_taken.update(
            path
            for path in not_taken
            if path.casefold() not in parts and not index.rows_at(index.stored(path))
        )


class LabelEmbedder(Struct, frozen=True):
    pool: Pool
    ledger: Ledger
    models: RunModels
    stats: RunStats
    bound: BoundPlan
    may_ask: bool

    async def __call__(
        self, step: BoundStep, texts: Sequence[str]
    ) -> tuple[str, Sequence[Vector]] | None:
        """Return the model of a step and the vectors of labels.

        None: no model is asked while planning, or it failed; which items are stale is not known.
        """
        caller = CallOrigin("", step.id, "", looks_up=True, may_ask=self.may_ask)
        pool = LedgerPool(self.pool, self.ledger, self.models, self.stats, caller)
        try:
            models = BoundModels(self.bound.models, self.bound.defaults, step.model)
            model = models.resolve(None, "embed")
            identity = (await pool.facts(model)).identity
            return identity, await embedded(pool, model, texts, self.bound.priority)
        except (PutOff, StepError, EngineError):
            return None


def mark_labels(attempt: StepAttempt, outputs: Mapping[str, Any] | None) -> None:
    step, item, judge = attempt.step, attempt.item, attempt.context.judge
    answer = None if outputs is None else outputs.get("output")
    for place, found in judge.labels.of_step(step, attempt.scope).items():
        name = judge.scopes.list_name(step, place)
        item.lists[name] = found
        chosen = None if answer is None else sorted({*chosen_labels(answer, place)})
        decision = (outputs or {}).get("review") or {}
        is_decided = decision.get("at") is not None
        item.note(ChosenLabels(name, found.recorded_digest, chosen, is_decided))


async def labelled_tools(attempt: StepAttempt, tools: Tools) -> Tools:
    assert isinstance(tools.reply, ScopedReply)
    step, item, judge = attempt.step, attempt.item, attempt.context.judge
    entry = item.work.entry
    last = {lab.list_name: lab.chosen or () for lab in dependencies_of(entry, ChosenLabels)}
    before = {
        choice.field: last.get(judge.scopes.list_name(step, choice.field), ())
        for choice in step.choices
    }
    mark_labels(attempt, None)  # if it fails, any other list may help
    labels = await judge.labels.offered(step, attempt.scope, tools, before)
    for place, near in ({} if labels is None else labels.nearest).items():
        name = judge.scopes.list_name(step, place)
        item.note(NarrowedLabels(name, near.least, near.model, near.vector))
    return replace(tools, reply=replace(tools.reply, labels=labels))


async def taught_tools(attempt: StepAttempt, params: Any, tools: Tools) -> Tools:
    """Return tools with the decisions that are nearest to an item's text, and mark the item."""
    if not params.examples.k:
        return tools
    context, step, item = attempt.context, attempt.step, attempt.item
    own_id = review_id(item.scope_id, item.key, step.id)
    entry = item.work.entry
    used = dependencies_of(entry, UsedExamples)
    last = next((examples for examples in used if examples.id == own_id), None)
    shown = (item.shown_key or item.key) if is_variant(context.judge.scopes.file) else ""
    taught = TaughtItem(
        context.judge.scopes.taught_as(step),
        own_id,
        attempt.document_digest,
        attempt.item_name.path,
        last,
        shown,
    )
    chosen = await context.judge.reviews.examples(step, params, tools, taught)
    if chosen is None:
        return tools
    examples, used_now = chosen
    item.note(used_now)
    item.vectors[step.id] = {"model": used_now.model, "vector": used_now.vector}
    return replace(tools, llm=replace(tools.llm, examples=examples))


def expect_queries(
    context: RunContext, block: BoundBlock, todo: Sequence[ItemWork], scope: Scope
) -> None:
    inner = {("steps", name) for name in node_ids(block.body)}
    for step in block.body:
        if (
            not isinstance(step, BoundStep)
            or not step.has(SearchedStore)
            or context.queries is None
        ):
            continue
        written = step.written
        query = Value.of(written.get("query"))
        if written.get("mode") == "text" or inner & {path[:2] for path in query.references}:
            continue
        new = (item for item in todo if item.entry is None)  # of others the ledger may know it
        queries = _rendered(query, (item.scope_in(block, scope) for item in new))
        context.queries[context.bound.file, step.id].expect(queries)


def _rendered(value: Value, scopes: Iterable[Scope]) -> Iterator[str]:
    for scope in scopes:
        with contextlib.suppress(ExpressionError):  # told where the item is done
            yield str(value.render(scope))


def sub_pipeline_context(
    outer: RunContext, step: BoundStep, attempt: ItemAttempt, inputs: Mapping[str, Any]
) -> RunContext:
    """Return the context of the pipeline that a step runs: the run's, with its own plan.

    Raises:
        WrongInput: an input is unknown, missing, of another kind, or leads outside.
    """
    called = called_plan(outer.bound, step)
    assert called is not None
    bound = with_inputs(called, inputs, outer.bound.roots)
    bound = replace(bound, watches=outer.bound.watches, priority=outer.bound.priority)
    is_of_item = attempt.is_of_item
    item = (attempt.node.id, attempt.shown_key) if is_of_item else None
    # Forcing the step forces everything in it.
    prefix, options = f"{step.id}.", outer.options
    force = {name.removeprefix(prefix) for name in options.force if name.startswith(prefix)}
    if step.id in options.force:
        force.update(callable_names(bound.nodes))
    options = replace(options, force=frozenset(force), variant_of="")
    if is_of_item:  # the item around it is asked for
        options = replace(options, only=frozenset(), sample=None)
    scopes = outer.judge.scopes.within(step.id, bound)
    return replace(
        outer,
        judge=replace(outer.judge, bound=bound, options=options, scopes=scopes),
        stats=outer.stats.within(step.id, item),
        room=SuspectRoom() if is_of_item else outer.room,
    )
