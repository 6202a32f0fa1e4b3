"""Bind a plan to the installed steps: classes, typed parameters, inputs, references.

The last place where the YAML's author can be wrong. Every fault is collected, so that one call
reports all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.pipelines.errors import Fault, PipelineError, did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.keys import RetryKeys, TimeoutKeys
from paddock.pipelines.model import Block, Node, StepNode
from paddock.pipelines.plan import Plan, read_plan
from paddock.pipelines.references import BASE_NAMES, LOOP_NAMES, STEP_NAMES
from paddock.pipelines.validation import FaultCollector
from paddock.steps import python_step, registry
from paddock.steps.base import Step
from paddock.steps.tools.python_files import FunctionNotFound

from . import specs, unused_answers
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
from .trust import protected_files, taint_analysis
from .watches import BoundWatch, WatchBinder

if TYPE_CHECKING:
    from paddock.engine.request import Role


def bind(
    plan: Plan,
    inputs: Mapping[str, Any],
    *,
    cwd: Path,
    default_models: Mapping[Role, str],
    unknown: Collection[str] = (),
) -> BoundPlan:
    """Return the plan with each step's class and typed parameters, and each input's value.

    The plan may have faults (`plan_with_faults`): all are reported at once. `unknown`: inputs that
    have a value which is not known.

    Raises:
        PipelineError: with every fault, those of the plan and its pipeline included.
    """
    context = BindContext(later=frozenset(unknown))
    return PlanBinder(plan, inputs, cwd, default_models, context).checked()


def bind_without_inputs(plan: Plan, shared: SharedPlans | None = None) -> BoundPlan:
    """Bind a plan as far as it can be known without the caller's inputs.

    The pipelines that its steps run are put into `shared`, also where there are faults.

    Raises:
        PipelineError: with every fault, those of the plan and its pipeline included.
    """
    return PlanBinder(plan, context=BindContext(shared or SharedPlans())).checked()


def document_folders(file: Path, text: str | None = None) -> tuple[Path, ...]:
    """Return the folders where a pipeline's documents arrive or are written, by its defaults.

    It may have faults: what is known of it counts. `text` is as `read_plan` has it.

    Raises:
        PipelineError: it cannot be read as YAML, or is no mapping.
    """
    return PlanBinder(read_plan(file, text)).bind().folders


class PlanBinder:
    """Binds one plan. `checks`: what is wrong with its file, and with what was given to it.

    All that help to bind it add to these.
    """

    def __init__(
        self,
        plan: Plan,
        inputs: Mapping[str, Any] | None = None,
        cwd: Path | None = None,
        default_models: Mapping[Role, str] | None = None,
        context: BindContext | None = None,
    ) -> None:
        """`inputs` None: they are not given yet."""
        self._context = context or BindContext()
        self._cwd = cwd = cwd or Path.cwd()
        self._default_models = default_models or {}
        self._plan = plan
        self._pipeline = plan.pipeline
        self._file = Path(self._pipeline.document.file)
        self._base = base = (cwd / self._file).parent
        self._given = read_inputs(
            self._pipeline, inputs, base=base, cwd=cwd, later=self._context.later
        )
        document = self._pipeline.document
        self.checks = FaultCollector(
            document, self._pipeline.faults, plan.faults, self._given.faults
        )
        self._models = ModelBinder(
            self._pipeline,
            base.resolve(),
            self._default_models,
            self._given,
            self._context,
            self.checks,
        )
        self._known_inputs = KnownInputs(self._given.values, self._given.later)
        known = None if inputs is None else self._known_inputs
        self._roots = self._given.roots(base)
        self._inner = SubPipelineReader(
            self._pipeline, known, self._roots, self._context, self.checks
        )
        self._known = KnownValues(self._pipeline, self._given.values)
        self._reads = ReadChecker(self._known, self.checks)
        self._params: dict[Place, ParameterBinder] = {}
        """By the place of each step, in the file's order."""

    def checked(self) -> BoundPlan:
        """Return the bound plan.

        Raises:
            PipelineError: with every fault.
        """
        bound = self.bind()
        if self.checks.faults:
            raise PipelineError(self.checks.faults)
        return bound

    def bind(self) -> BoundPlan:
        """Return the bound plan, as far as faults let it be bound.

        1. Bind each step and block, in the file's order: class, parameters, model, inner pipeline.
        2. Mark what follows from all of them: untrusted text, answers that nothing may use.
        3. Check each reference, now that all outputs are known.
        4. Bind what starts the pipeline: schedules, and watches where no step runs it.
        5. Check paths: of stores the order, of files where they are written and read.
        6. Check the claims of tests.
        """
        pipeline, defaults = self._pipeline, self._pipeline.defaults
        # 1
        cache = self._context.cache and defaults.cache != "off"
        controls = _InheritedKeys(defaults.retry, defaults.timeout, cache)
        nodes = tuple(self._nodes(self._plan.nodes, BASE_NAMES, controls))
        # 2
        nodes = taint_analysis.mark_tainted(nodes, taint_analysis.tainted_inputs(pipeline))
        if any(node.if_ is not None for node in nodes_of(nodes)):  # else none is skipped
            nodes = unused_answers.mark_unused(nodes, self._plan.edges, pipeline.returns)
        # 3
        for use in self._plan.uses:
            self._reads.check_reference(use, self._params)
        # 4
        within = (
            (plan.pipeline, KnownInputs(plan.inputs, plan.later_inputs), plan.roots.base)
            for plan in sub_plans(nodes)
        )
        paths = KnownPaths(pipeline, self._known_inputs, self._roots, within)
        watches: tuple[BoundWatch, ...] = ()
        if pipeline.on is not None:
            plan_faults.check_schedules(pipeline, self.checks)
            if self._context.is_outermost:
                watches = WatchBinder(pipeline, paths, self.checks).bind()
        # 5
        if any(step.facts.fills for step in steps_of(nodes)):
            plan_faults.check_store_order(self._plan, self.checks)
        folders = paths.folders()
        protected_files.check_writes(pipeline, self._base, paths, folders, self.checks)
        for binder in self._params.values():
            paths.check(binder.step, binder.params_type, self.checks)
        # 6
        if pipeline.tests:  # few files have some, and their functions take time to import
            plan_faults.check_test_claims(pipeline, self._base, self.checks)
        return BoundPlan(
            pipeline=pipeline,
            file=self._file,
            nodes=nodes,
            edges=self._plan.edges,
            inputs=self._given.values,
            given=frozenset(self._given.by_hand),
            later_inputs=frozenset(self._given.later),
            roots=self._roots,
            models=self._models.by_alias,
            pools=self._models.pools,
            defaults=self._models.defaults,
            watches=watches,
            folders=folders,
            moment=self._context.shared.moment,
            priority=pipeline.concurrency.priority if pipeline.concurrency else "batch",
        )

    def _nodes(
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
            reply_faults.check_answer(step, kind, self.checks)
        if kind is None:
            return None
        facts = registry.facts_of_kind(kind)
        # 2
        parameters = ParameterBinder(kind.params, step, facts, self.checks)
        columns = self._known.table_columns(step, facts)
        faults_before = self.checks.faults
        params = replace(parameters.bind(), columns=columns)
        if self.checks.faults == faults_before:
            for wrong in facts.table_faults(step.written, columns):
                at = (*step.at, "with", wrong.name)
                mark = self.checks.document.mark_within(at, wrong.start, wrong.length)
                fault = Fault(f"step '{step.id}': {wrong.message}.", wrong.remedy, mark)
                self.checks.include([fault])
        self._params[step.at] = parameters
        # 3
        self._reads.check_parameters(parameters, facts, params.templates)
        # 4
        tools_made_of = None
        if [*facts.tools(step.params.data)]:
            tool_faults.check_tools(step, self._pipeline, self._base, self.checks)
            tools_made_of = specs.tool_spec(step, self._pipeline, self._base)
        inner = self._sub_pipeline(step, cache=controls.cache) if facts.pipeline else None
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
            besides=self._models.besides(step, kind),
            reply=step.reply,
            escalate=self._models.escalation(step, step.escalate, model) if step.escalate else None,
            review=step.review,
            spec=specs.step_spec(step, tools_made_of),
            inner=inner,
        )

    def _sub_pipeline(self, step: StepNode, *, cache: bool) -> BoundPlan | None:
        """Bind the pipeline that a step runs; None where that is a fault."""
        read = self._inner.read(step, cache=cache)
        if read is None:
            return None
        plan, inputs, context = read
        binder = PlanBinder(plan, inputs, self._cwd, self._default_models, context)
        bound = binder.bind()
        self.checks.include(binder.checks.faults)
        return bound

    def _block(self, block: Block, names: frozenset[str], controls: _InheritedKeys) -> BoundBlock:
        defaults = self._pipeline.defaults
        self._reads.check_loop_list(block)
        self._known.enter_block(block)
        body = tuple(self._nodes(block.body, names | {block.var} | LOOP_NAMES, controls))
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
        self.checks.add((*step.at, "uses"), what, remedy)
        return None


@dataclass(frozen=True)
class _InheritedKeys:
    """What a step inherits from the blocks around it and from `defaults`."""

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
