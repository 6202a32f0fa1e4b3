"""Bind a plan to the installed steps: classes, typed parameters, inputs, references.

The last place where the YAML's author can be wrong. Every fault is collected, so that one call
reports all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import field, record, replace
from paddock.pipelines.errors import Fault, did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.keys import RetryKeys, TimeoutKeys
from paddock.pipelines.model import Block, Node, Pipeline, StepNode
from paddock.pipelines.plan import Plan, read_plan
from paddock.pipelines.references import BASE_NAMES, LOOP_NAMES, STEP_NAMES
from paddock.pipelines.validation import FaultCollector
from paddock.steps import python_step, registry
from paddock.steps.base import Step
from paddock.steps.tools.python_files import FunctionNotFound

from . import specs, trigger_plugins, unused_answers
from .bound import NO_TIMEOUT, BoundBlock, BoundNode, BoundPlan, BoundStep
from .checks import plan_faults, reply_faults, tool_faults
from .checks.known_values import KnownValues
from .checks.read_checks import ReadChecker
from .inputs import KnownInputs, read_inputs
from .known_paths import KnownPaths
from .node_reads import BlockReads, StepReads
from .parameters import ParameterBinder
from .pipeline_models import ModelBinder
from .plan_walks import nodes_of, steps_of, sub_plans
from .sub_pipelines import BindContext, SharedPlans, SubPipelineReader
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
    context = BindContext(later=frozenset(later))
    bound, checks = bind_with_faults(plan, inputs, cwd, default_models, context)
    checks.raise_faults()
    return bound


def bind_without_inputs(plan: Plan, shared: SharedPlans | None = None) -> BoundPlan:
    """Bind a plan as far as it can be known without the caller's inputs.

    The pipelines that its steps run are put into `shared`, also where there are faults.

    Raises:
        PipelineError: with every fault, those of the plan and its pipeline included.
    """
    bound, checks = bind_with_faults(plan, context=BindContext(shared or SharedPlans()))
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
    given: list[Mapping[str, Any]] = [{}, *(on.written_inputs if on is not None else ())]
    starts = [inputs for n, inputs in enumerate(given) if inputs not in given[:n]]
    return [bind_with_faults(plan, inputs)[0] for inputs in starts]  # an input may have no value


def document_folders(file: Path, text: str | None = None) -> tuple[Path, ...]:
    """Return the folders where a pipeline's documents arrive or are written, by its defaults.

    It may have faults: what is known of it counts. `text` is as `read_plan` has it.

    Raises:
        PipelineError: it cannot be read as YAML, or is no mapping.
    """
    bound, _ = bind_with_faults(read_plan(file, text))
    return bound.folders


def bind_with_faults(
    plan: Plan,
    inputs: Mapping[str, Any] | None = None,
    cwd: Path | None = None,
    default_models: Mapping[Role, str] | None = None,
    context: BindContext | None = None,
) -> tuple[BoundPlan, FaultCollector]:
    """Return the bound plan as far as faults let it be bound, and what is wrong.

    `inputs` None: they are not given yet.

    1. Read the inputs, and bind the models.
    2. Bind each step and block, in the file's order: class, parameters, model, inner pipeline.
    3. Mark what follows from all of them: untrusted text, answers that nothing may use.
    4. Check each reference, now that all outputs are known.
    5. Bind what starts the pipeline: schedules, and watches where no step runs it.
    6. Check paths: of stores the order, of files where they are written and read.
    7. Check the claims of tests.
    8. Check what untrusted text commands have, in inner pipelines too.
    """
    # 1
    context, cwd = context or BindContext(), cwd or Path.cwd()
    pipeline, defaults = plan.pipeline, plan.pipeline.defaults
    file = Path(pipeline.document.file)
    base = (cwd / file).parent
    given = read_inputs(pipeline, inputs, base=base, cwd=cwd, later=context.later)
    checks = FaultCollector(pipeline.document, pipeline.faults, plan.faults, given.faults)
    models = ModelBinder(pipeline, base.resolve(), default_models or {}, given, context, checks)
    known, roots = KnownInputs(given.values, given.later), given.roots(base)
    known_now = None if inputs is None else known
    inner_plans = SubPipelineReader(pipeline, known_now, roots, context, checks)
    # 2
    values = KnownValues(pipeline, given.values)
    reads = ReadChecker(values, checks)
    binder = _NodeBinder(
        pipeline, base, cwd, default_models, models, inner_plans, values, reads, checks
    )
    controls = _InheritedKeys(
        defaults.retry, defaults.timeout, context.cache and defaults.cache != "off"
    )
    nodes = tuple(binder.nodes(plan.nodes, BASE_NAMES, controls))
    # 3
    tainted = taint_analysis.tainted_inputs(pipeline)
    nodes = taint_analysis.mark_tainted(nodes, tainted)
    if any(node.if_ is not None for node in nodes_of(nodes)):  # else none is skipped
        nodes = unused_answers.mark_unused(nodes, plan.edges, pipeline.returns)
    # 4
    for use in plan.uses:
        reads.check_reference(use, binder.params)
    # 5
    within = (
        (inner.pipeline, KnownInputs(inner.inputs, inner.later_inputs), inner.roots.base)
        for inner in sub_plans(nodes)
    )
    paths = KnownPaths(pipeline, known, roots, within)
    watches: tuple[BoundWatch, ...] = ()
    if pipeline.on is not None:
        plan_faults.check_schedules(pipeline, checks)
        plan_faults.check_webhooks(pipeline, checks)
        trigger_plugins.check_triggers(pipeline, checks)
        if context.is_outermost:
            watches = WatchBinder(pipeline, paths, checks).bind()
    # 6
    plan_faults.check_code_patterns(pipeline, checks)
    if any(step.facts.fills for step in steps_of(nodes)):
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
        models=models.by_alias,
        pools=models.pools,
        defaults=models.defaults,
        watches=watches,
        folders=folders,
        documents=paths.folders(with_inputs=False),
        moment=context.shared.moment,
        priority=pipeline.concurrency.priority if pipeline.concurrency else "batch",
    )
    if context.is_outermost:  # inner pipelines are marked with what they are given
        checks.include(command_words.check_commands(bound))  # 8
    return bound, checks


@record
class _NodeBinder:
    _pipeline: Pipeline
    _base: Path
    _cwd: Path
    _default_models: Mapping[Role, str] | None
    _models: ModelBinder
    _inner_plans: SubPipelineReader
    _known: KnownValues
    _reads: ReadChecker
    _checks: FaultCollector
    params: dict[Place, ParameterBinder] = field(default_factory=dict)
    """By the place of each step, in the file's order."""

    def nodes(
        self, nodes: Iterable[Node], names: frozenset[str], controls: _InheritedKeys
    ) -> Iterable[BoundNode]:
        for node in nodes:
            inherited = controls.of(node)
            if isinstance(node, Block):
                yield self._block(node, names, inherited)
            else:
                step = self._step(node, names, inherited)
                if step is not None:
                    yield step

    def _step(
        self, step: StepNode, names: frozenset[str], controls: _InheritedKeys
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
        if step.reply or step.escalate or step.review:
            reply_faults.check_answer(step, kind, self._checks)
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
        self._reads.check_parameters(parameters, facts, params.templates)
        # 4
        tools_made_of = None
        if [*facts.tools(step.params.data)]:
            tool_faults.check_tools(step, self._pipeline, self._base, self._checks)
            tools_made_of = specs.tool_spec(step, self._pipeline, self._base)
        inner = self._inner(step, cache=controls.cache) if facts.pipeline else None
        # 5
        self._known.add_step(step, kind, inner)
        model = self._models.of(step, kind)
        return BoundStep(
            id=step.id,
            uses=registry.own_name(step.uses),
            kind=kind,
            mark=step.mark,
            reads=StepReads.of(step, names | STEP_NAMES),
            params=params,
            if_=step.if_,
            needs=frozenset(step.needs),
            retry=controls.retry,
            # A limit on requests that is inherited is none on a whole pipeline.
            timeout=(controls.timeout if inner is None else step.timeout) or NO_TIMEOUT,
            cache=controls.cache,
            returns=step.returns,
            model=model,
            extra_models=self._models.extra_models(step, kind),
            reply=step.reply,
            escalate=self._models.escalation(step, step.escalate, model) if step.escalate else None,
            review=step.review,
            spec=specs.step_spec(step, tools_made_of),
            inner=inner,
        )

    def _inner(self, step: StepNode, *, cache: bool) -> BoundPlan | None:
        """Bind the pipeline that a step runs; None where that is a fault."""
        read = self._inner_plans.read(step, cache=cache)
        if read is None:
            return None
        plan, inputs, context = read
        bound, found = bind_with_faults(plan, inputs, self._cwd, self._default_models, context)
        self._checks.include(found.faults)
        return bound

    def _block(self, block: Block, names: frozenset[str], controls: _InheritedKeys) -> BoundBlock:
        defaults = self._pipeline.defaults
        self._reads.check_loop_list(block)
        self._known.enter_block(block)
        body = tuple(self.nodes(block.body, names | {block.var} | LOOP_NAMES, controls))
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


@record(frozen=True)
class _InheritedKeys:
    retry: RetryKeys | None = None
    timeout: TimeoutKeys | None = None
    cache: bool = True

    def of(self, node: Node) -> _InheritedKeys:
        timeout, inherited = node.timeout or self.timeout, self.timeout
        if node.timeout is not None and inherited is not None:
            timeout = TimeoutKeys.model_construct(
                total=inherited.total if node.timeout.total is None else node.timeout.total,
                idle=inherited.idle if node.timeout.idle is None else node.timeout.idle,
            )
        cache = self.cache if node.cache is None else node.cache
        return _InheritedKeys(node.retry or self.retry, timeout, cache)
