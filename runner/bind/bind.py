"""Bind a plan to the installed steps: classes, typed parameters, inputs, references.

The last place where the YAML's author can be wrong. Every fault is collected, so that one call
reports all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.errors import Fault, did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.keys import RetryKeys, TimeoutKeys
from paddock.pipelines.model import Block, Node, Pipeline, StepNode
from paddock.pipelines.plan import Plan, read_plan
from paddock.pipelines.references import BASE_NAMES, LOOP_NAMES, STEP_NAMES
from paddock.pipelines.validation import FaultCollector
from paddock.steps import python_step, registry
from paddock.steps.base import Step
from paddock.steps.effects import SentRequest, StoreRows
from paddock.steps.param_types import PipelineFile
from paddock.steps.tools.python_files import FunctionNotFound

from . import specs, trigger_plugins, unused_answers
from .bound import NO_TIMEOUT, REVIEW_OF_SENT, BoundBlock, BoundNode, BoundPlan, BoundStep
from .checks import plan_faults, reply_faults, tool_faults
from .checks.known_values import KnownValues
from .checks.read_checks import ReadChecker
from .inputs import GivenInputs, KnownInputs, read_inputs
from .known_paths import KnownPaths
from .node_reads import BlockReads, StepReads
from .parameters import ParameterBinder
from .pipeline_models import ModelBinder
from .plan_walks import nodes_of, steps_of, sub_plans
from .sub_pipelines import SharedPlans, SubPipelinePlace, SubPipelineReader
from .trust import command_words, protected_files, taint_analysis
from .watches import BoundWatch, WatchBinder

if TYPE_CHECKING:
    from paddock.engine.request import Role


def bind(
    plan: Plan,
    inputs: Mapping[str, Any],
    *,
    cwd: Path,
    default_models: Mapping[Role, str],
    later: Collection[str] = (),
) -> BoundPlan:
    """Return the plan with each step's class and typed parameters, and each input's value.

    The plan may have faults (`plan_with_faults`): all are reported at once. `later`: inputs that
    have a value which is not known.

    Raises:
        PipelineError: with every fault, those of the plan and its pipeline included.
    """
    place = SubPipelinePlace(later=frozenset(later))
    bound, checks = bind_with_faults(plan, inputs, cwd, default_models, place)
    checks.raise_faults()
    return bound


def bind_without_inputs(plan: Plan, shared: SharedPlans | None = None) -> BoundPlan:
    """Bind a plan as far as it can be known without the caller's inputs.

    The pipelines that its steps run are put into `shared`, also where there are faults.

    Raises:
        PipelineError: with every fault, those of the plan and its pipeline included.
    """
    bound, checks = bind_with_faults(plan, place=SubPipelinePlace(shared or SharedPlans()))
    checks.raise_faults()
    return bound


def bind_written_starts(plan: Plan, shared: SharedPlans | None = None) -> list[BoundPlan]:
    """Bind a plan as its file starts it: with its defaults, and with each trigger's inputs.

    This is what a person can consent to. Inputs that a caller gives are not the file's.
    The pipelines that its steps run are put into `shared`.

    Raises:
        PipelineError: with every fault of the plan.
    """
    bind_without_inputs(plan, shared)
    on = plan.pipeline.on
    starts: list[Mapping[str, Any]] = [{}]
    for inputs in on.written_inputs if on is not None else ():
        if inputs not in starts:
            starts.append(inputs)
    return [bind_with_faults(plan, inputs)[0] for inputs in starts]  # an input may have no value


def document_folders(file: Path, text: str | None = None) -> tuple[Path, ...]:
    """Return the folders where a pipeline's documents arrive or are written, by its defaults.

    It may have faults: what is known of it counts. `text` is as `read_plan` has it.

    Raises:
        PipelineError: it cannot be read as YAML, or is no mapping.
    """
    return bind_with_faults(read_plan(file, text))[0].folders


def bind_with_faults(
    plan: Plan,
    inputs: Mapping[str, Any] | None = None,
    cwd: Path | None = None,
    default_models: Mapping[Role, str] | None = None,
    place: SubPipelinePlace | None = None,
) -> tuple[BoundPlan, FaultCollector]:
    """Return the bound plan as far as faults let it be bound, and what is wrong.

    `inputs` None: they are not given yet.

    1. Read the inputs.
    2. Bind the models; then each step and block, in the file's order: class, parameters, model,
       inner pipeline.
    3. Mark what follows from all of them: untrusted text, answers that nothing may use.
    4. Check each reference, now that all outputs are known.
    5. Bind what starts the pipeline: schedules, and watches where no step runs it.
    6. Check paths: of stores the order, of files where they are written and read.
    7. Check the claims of tests.
    8. Check what untrusted text commands have, in inner pipelines too.
    """
    place = place or SubPipelinePlace()
    cwd = cwd or Path.cwd()
    pipeline = plan.pipeline
    file = Path(pipeline.document.file)
    base = (cwd / file).parent
    # 1
    given = read_inputs(pipeline, inputs, base=base, cwd=cwd, later=place.later)
    checks = FaultCollector(pipeline.document, pipeline.faults, plan.faults, given.faults)
    roots = given.roots(base)
    # 2
    binder = _NodeBinder(pipeline, given, cwd, default_models or {}, place, checks)
    nodes = binder.bind(plan.nodes)
    # 3
    tainted = taint_analysis.tainted_inputs(pipeline)
    nodes = taint_analysis.mark_tainted(nodes, tainted)
    if any(node.if_ is not None for node in nodes_of(nodes)):  # else none is skipped
        nodes = unused_answers.mark_unused(nodes, plan.edges, pipeline.returns)
    # 4
    for use in plan.uses:
        binder.reads.check_reference(use, binder.params)
    # 5
    within = (
        (inner.pipeline, KnownInputs(inner.inputs, inner.later_inputs), inner.roots.base)
        for inner in sub_plans(nodes)
    )
    paths = KnownPaths(pipeline, KnownInputs(given.values, given.later), roots, within)
    watches: tuple[BoundWatch, ...] = ()
    if pipeline.on is not None:
        plan_faults.check_schedules(pipeline, checks)
        plan_faults.check_webhooks(pipeline, checks)
        trigger_plugins.check_triggers(pipeline, checks)
        if place.is_outermost:
            watches = WatchBinder(pipeline, paths, checks).bind()
    # 6
    plan_faults.check_code_patterns(pipeline, checks)
    if any(step.has(StoreRows) for step in steps_of(nodes)):
        plan_faults.check_store_order(plan, checks)
    folders = paths.folders()
    protected_files.check_writes(pipeline, base, paths, folders, checks)
    for parameters in binder.params.values():
        paths.check(parameters.step, parameters.params_type, checks)
    # 7
    if pipeline.tests:  # few files have some, and their functions take time to import
        plan_faults.check_test_claims(pipeline, base, checks)
    bound = BoundPlan(
        pipeline=pipeline,
        file=file,
        nodes=nodes,
        edges=plan.edges,
        inputs=given.values,
        given=frozenset(given.by_hand),
        later_inputs=frozenset(given.later),
        tainted_inputs=tainted,
        roots=roots,
        models=binder.models.by_alias,
        pools=binder.models.pools,
        defaults=binder.models.defaults,
        watches=watches,
        folders=folders,
        documents=paths.folders(with_inputs=False),
        moment=place.shared.moment,
        priority=pipeline.concurrency.priority if pipeline.concurrency else "batch",
    )
    if place.is_outermost:  # inner pipelines are marked with what they are given
        checks.include(command_words.check_commands(bound))  # 8
        checks.include(command_words.check_accounts(bound))
    return bound, checks


class _NodeBinder:
    def __init__(
        self,
        pipeline: Pipeline,
        given: GivenInputs,
        cwd: Path,
        default_models: Mapping[Role, str],
        place: SubPipelinePlace,
        checks: FaultCollector,
    ) -> None:
        base = (cwd / pipeline.document.file).parent
        known = None if given.is_check else KnownInputs(given.values, given.later)
        self._pipeline = pipeline
        self._base = base
        self._cwd = cwd
        self._default_models = default_models
        self._cache = place.cache and pipeline.defaults.cache != "off"
        self._checks = checks
        self._inner_plans = SubPipelineReader(pipeline, known, given.roots(base), place, checks)
        self._known = KnownValues(pipeline, given.values)
        self.models = ModelBinder(pipeline, base.resolve(), default_models, given, place, checks)
        self.reads = ReadChecker(self._known, checks)
        self.params: dict[Place, ParameterBinder] = {}
        """By the place of each step, in the file's order."""

    def bind(self, nodes: Iterable[Node]) -> tuple[BoundNode, ...]:
        defaults = self._pipeline.defaults
        inherited = _InheritedKeys(defaults.retry, defaults.timeout, self._cache)
        return self._nodes(nodes, BASE_NAMES, inherited)

    def _nodes(
        self, nodes: Iterable[Node], names: frozenset[str], around: _InheritedKeys
    ) -> tuple[BoundNode, ...]:
        bound: list[BoundNode] = []
        for node in nodes:
            inherited = around.of(node)
            if isinstance(node, Block):
                bound.append(self._block(node, names, inherited))
            elif (step := self._step(node, names, inherited)) is not None:
                bound.append(step)
        return tuple(bound)

    def _step(
        self, step: StepNode, names: frozenset[str], inherited: _InheritedKeys
    ) -> BoundStep | None:
        """Return the bound step; None where its class is not known, which is a fault.

        1. Find its class. What it says of its answer is checked without a class, too.
        2. Bind its parameters, with the columns of the tables that earlier steps give.
        3. Check the values that it reads against the outputs of earlier steps.
        4. Resolve its tools, and the pipeline that it runs.
        5. Add its own outputs, for later steps.
        """
        # 1
        kind = self._kind(step)
        reply_faults.check_answer_keys(step, kind, self._checks)
        if kind is None:
            return None
        facts = registry.facts_of_kind(kind)
        # 2
        parameters = ParameterBinder(kind.params, step, facts, self._checks)
        columns = self._known.table_columns(step, facts)
        faults_before = self._checks.faults
        params = replace(parameters.bind(), columns=columns)
        if self._checks.faults == faults_before:
            for wrong in facts.table_faults(step.written, columns):
                at = (*step.at, "with", wrong.name)
                mark = self._checks.document.mark_within(at, wrong.start, wrong.length)
                fault = Fault(f"step '{step.id}': {wrong.message}.", wrong.remedy, mark)
                self._checks.include([fault])
        self.params[step.at] = parameters
        # 3
        self.reads.check_parameters(parameters, facts, params.templates)
        # 4
        tools_made_of = None
        if [*facts.tools(step.params.data)]:
            tool_faults.check_tools(step, self._pipeline, self._base, self._checks)
            tools_made_of = specs.tool_spec(step, self._pipeline, self._base)
        inner = self._inner(step, cache=inherited.cache) if facts.param(PipelineFile) else None
        # 5
        self._known.add_step(step, kind, inner)
        model = self.models.of(step, kind)
        return BoundStep(
            id=step.id,
            uses=registry.own_name(step.uses),
            kind=kind,
            mark=step.mark,
            reads=StepReads.of(step, names | STEP_NAMES),
            params=params,
            if_=step.if_,
            needs=frozenset(step.needs),
            retry=inherited.retry,
            # A limit on requests that is inherited is none on a whole pipeline.
            timeout=(inherited.timeout if inner is None else step.timeout) or NO_TIMEOUT,
            cache=inherited.cache,
            returns=step.returns,
            model=model,
            extra_models=self.models.extra_models(step, kind),
            reply=step.reply,
            escalate=self.models.escalation(step, step.escalate, model) if step.escalate else None,
            review=REVIEW_OF_SENT if facts.param(SentRequest) else step.review,
            spec=specs.step_spec(step, tools_made_of),
            inner=inner,
        )

    def _inner(self, step: StepNode, *, cache: bool) -> BoundPlan | None:
        """Bind the pipeline that a step runs; None where that is a fault."""
        read = self._inner_plans.read(step, cache=cache)
        if read is None:
            return None
        plan, inputs, place = read
        bound, checks = bind_with_faults(plan, inputs, self._cwd, self._default_models, place)
        self._checks.include(checks.faults)
        return bound

    def _block(self, block: Block, names: frozenset[str], inherited: _InheritedKeys) -> BoundBlock:
        defaults = self._pipeline.defaults
        self.reads.check_loop_list(block)
        self._known.enter_block(block)
        body = self._nodes(block.body, names | {block.var} | LOOP_NAMES, inherited)
        self._known.add_block(block)
        return BoundBlock(
            id=block.id,
            mark=block.mark,
            var=block.var,
            over=block.over,
            body=body,
            where=block.where,
            key=block.key,
            keep=block.keep,
            max_parallel=block.max_parallel or defaults.max_parallel,
            on_error=block.on_error or defaults.on_error or "quarantine",
            if_=block.if_,
            needs=frozenset(block.needs),
            returns=block.returns,
            reads=BlockReads.of(block, {node.id: node.reads for node in body}),
            spec=specs.block_spec(block),
            columns=self._known.outputs_of(block.id).columns.get("results", {}),
        )

    def _kind(self, step: StepNode) -> type[Step[Any, Any]] | None:
        if not step.uses:
            return None
        try:
            if registry.is_function_reference(step.uses):
                return python_step.step_of(step.uses, self._base)  # read, and not run
            return registry.load_step(step.uses)
        except FunctionNotFound as error:
            what, remedy = error.what, error.remedy
        except registry.UnknownStep as error:
            what = f"there is no step called '{step.uses}'"
            remedy = did_you_mean(step.uses, error.known)
            if step.uses.endswith(".py"):
                remedy = f"Name a function of that file: `uses: {step.uses}:name`."
            elif step.uses.endswith((".yaml", ".yml")):
                given = f"`with: {{file: {step.uses}}}`"
                remedy = f"Another pipeline is run so: `uses: pipeline`, {given}."
        except registry.BrokenStep as error:
            what, remedy = f"step '{error.name}' of '{error.package}' is broken: {error.why}", ""
        self._checks.add((*step.at, "uses"), what, remedy)
        return None


class _InheritedKeys(Struct, frozen=True):
    retry: RetryKeys | None = None
    timeout: TimeoutKeys | None = None
    cache: bool = True

    def of(self, node: Node) -> _InheritedKeys:
        own = node.timeout
        timeout = own or self.timeout
        if own is not None and self.timeout is not None:
            timeout = TimeoutKeys.model_construct(
                total=self.timeout.total if own.total is None else own.total,
                idle=self.timeout.idle if own.idle is None else own.idle,
            )
        cache = self.cache if node.cache is None else node.cache
        return _InheritedKeys(node.retry or self.retry, timeout, cache)
