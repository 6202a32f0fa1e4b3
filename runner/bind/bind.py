"""Bind a plan to the installed steps: classes, typed parameters, inputs, references.

The last place where the YAML's author can be wrong. Every fault is collected, so that one call
reports all of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.pipelines import model, yaml_source
from paddock.pipelines import plan as plans
from paddock.pipelines.errors import Fault, PipelineError, did_you_mean
from paddock.pipelines.expressions import LIST_ELEMENT, ExpressionError, Reference, Template, Value
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.input_values import WrongInput
from paddock.pipelines.keys import RetryKeys, TimeoutKeys
from paddock.pipelines.model import Block, Node, Pipeline
from paddock.pipelines.model import StepNode as WrittenStep
from paddock.pipelines.plan import Plan
from paddock.pipelines.references import BASE_NAMES, LOOP_NAMES, STEP_NAMES
from paddock.pipelines.template_sandbox import METHODS
from paddock.steps import python_step, registry
from paddock.steps.base import Roots, Step
from paddock.steps.facts import Facts
from paddock.steps.tools.python_files import FunctionNotFound

from . import (
    plan_faults,
    protected_files,
    specs,
    step_reads,
    taint_analysis,
    tool_faults,
    unused_answers,
    variations,
)
from . import reply as replies
from .bound import (
    NO_BUDGET,
    NO_TIMEOUT,
    BindContext,
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    SharedPlans,
    outputs_of,
    sub_plans,
)
from .document_folders import WatchBinder
from .inputs import checked_input, read_inputs
from .parameters import ParameterBinder
from .pipeline_models import ModelBinder
from .scope import ABOUT_FIELDS, NAMES_OF_WHOLE
from .value_kinds import BLOCK_OUTPUTS, KIND_NAMES, ValueKinds

if TYPE_CHECKING:
    from paddock.engine.request import Role

# A file that runs two others, each of which runs two others: more is a mistake.
MAX_PIPELINES, MAX_LEVELS = 100, 8
_RESULTS = re.compile(r"steps\.([a-z][a-z0-9_]*)\.results")


def bind(
    plan: Plan, inputs: Mapping[str, Any], *, cwd: Path, default_models: Mapping[Role, str]
) -> BoundPlan:
    """Return the plan with each step's class and typed parameters, and each input's value.

    The plan may have faults (`plan_with_faults`): all are reported at once.

    Raises:
        PipelineError: with every fault, those of the plan and its pipeline included.
    """
    return PlanBinder(plan, inputs, cwd, default_models).checked()


def bind_without_inputs(plan: Plan, shared: SharedPlans | None = None) -> BoundPlan:
    """Bind a plan as far as it can be known without the caller's inputs.

    The pipelines that its steps run are put into `shared`, also where there are faults.

    Raises:
        PipelineError: with every fault, those of the plan and its pipeline included.
    """
    return PlanBinder(plan, None, Path.cwd(), {}, BindContext(shared or SharedPlans())).checked()


def bind_for_comparison(plan: Plan) -> BoundPlan:
    """Bind a plan as `bind_without_inputs` does; `compare` and `gold` must be sound too.

    Raises:
        PipelineError: with every fault; those of values under `compare` where there is no other.
    """
    binder = PlanBinder(plan, None, Path.cwd(), {})
    bound = binder.bound()
    faults = binder.faults
    if plan.pipeline.compare is not None or plan.pipeline.gold is not None:
        faults += variations.varied_name_faults(plan.pipeline)
        faults = faults or [*variations.variation_faults(plan.pipeline, _faults_in)]
    if faults:
        raise PipelineError(faults)
    return bound


def _faults_in(document: yaml_source.YamlDocument) -> list[Fault]:
    binder = PlanBinder(
        plans.plan_with_faults(model.parse_pipeline(document)), None, Path.cwd(), {}
    )
    binder.bound()
    return binder.faults


def document_folders(file: Path, text: str | None = None) -> tuple[Path, ...]:
    """Return the folders where a pipeline's documents arrive or are written, by its defaults.

    It may have faults: what is known of it counts. `text` is as `read_plan` has it.

    Raises:
        PipelineError: it cannot be read as YAML, or is no mapping.
    """
    return PlanBinder(plans.read_plan(file, text), None, Path.cwd(), {}).bound().folders


@dataclass(frozen=True, slots=True)
class _KnownOutputs:
    """What is known of the outputs of a step or block before a run; None: only a run shows it."""

    names: tuple[str, ...] | None = None
    answer: tuple[str, ...] | None = None
    """The fields of a step's answer, where its schema tells them."""
    absent: frozenset[str] = frozenset()
    """What of `ABOUT_FIELDS` its `reply` does not ask for."""
    results: tuple[str, ...] | None = None
    """The fields of a block's results, where they are written down."""


class PlanBinder:
    """Binds one plan; what is wrong stands in `faults`."""

    def __init__(
        self,
        plan: Plan,
        inputs: Mapping[str, Any] | None,
        cwd: Path,
        default_models: Mapping[Role, str],
        context: BindContext | None = None,
    ) -> None:
        self._context = context or BindContext()
        self._plan = plan
        self._pipeline: Pipeline = plan.pipeline
        self._file = Path(self._pipeline.document.file)
        self._base = base = (cwd / self._file).parent
        self._given = read_inputs(
            self._pipeline, inputs, base=base, cwd=cwd, later=self._context.later
        )
        self._models = ModelBinder(
            self._pipeline,
            base.resolve(),
            default_models,
            self._given.values,
            self._context,
            is_check=inputs is None,
        )
        self._inner = SubPipelineBinder(
            self._pipeline,
            None if inputs is None else self._given.values,
            self._given.roots(base),
            self._context,
            cwd,
            default_models,
        )
        self._columns = {
            name: spec.columns or getattr(self._given.values.get(name), "types", {})
            for name, spec in self._pipeline.inputs.items()
            if spec.type == "rows"
        }
        self._kinds = ValueKinds(self._columns)
        self._known: dict[str, _KnownOutputs] = {}
        """By step and block."""
        self._over_results: list[tuple[Place, str, str]] = []
        """Blocks that go over another one's results: their places, variables, and that other."""
        self._params: dict[Place, ParameterBinder] = {}
        self._fills_store = False
        self._own: list[Fault] = []
        self._reported: set[tuple[Place, str]] = set()

    @property
    def faults(self) -> list[Fault]:
        """Every fault of the file and of what was given to it."""
        before = (*self._pipeline.faults, *self._plan.faults)
        own = (*self._given.faults, *self._models.faults, *self._own)
        # Two steps may run the same file, whose faults are told once.
        return list(dict.fromkeys((*before, *own, *self._inner.faults)))

    def checked(self) -> BoundPlan:
        """Return the bound plan.

        Raises:
            PipelineError: with every fault.
        """
        bound = self.bound()
        if self.faults:
            raise PipelineError(self.faults)
        return bound

    def bound(self) -> BoundPlan:
        """Bind every step, then check what is read of them."""
        pipeline = self._pipeline
        defaults = pipeline.defaults
        cache = self._context.cache and defaults.cache != "off"
        controls = _InheritedKeys(defaults.retry, defaults.timeout, cache)
        nodes = tuple(self._nodes(self._plan.nodes, BASE_NAMES, controls))
        nodes = taint_analysis.mark_tainted(nodes, taint_analysis.tainted_inputs(pipeline))
        nodes = unused_answers.mark_unused(nodes, self._plan.edges, pipeline.returns)
        # Check what is read of each step, and the names in texts that steps render
        for use in self._plan.uses:
            reference = use.reference
            if reference[0] == "steps":
                self._check_output(use.at, reference)
            elif reference[0] == "loop" and "loop" in use.names:
                known = step_reads.LOOP_ATTRIBUTES
                if len(reference) > 1 and reference[1] not in known:
                    what = f"`loop` of a block has no '{reference[1]}'"
                    self._fault(use.at, what, did_you_mean(reference[1], known))
            elif len(reference) > 1 and (over := self._goes_over(use.at, reference[0])) is not None:
                self._check_item(use.at, over, reference[1])
            elif use.is_open and reference[0] not in use.names and "with" in use.at:
                self._check_name(use.at, reference[0], use.names)
        roots = self._given.roots(self._base)
        within = ((plan.pipeline, plan.inputs, plan.roots.base) for plan in sub_plans(nodes))
        watches = WatchBinder(pipeline, self._given.values, roots, within)
        # What starts a pipeline does not count where a step of another one does.
        found = watches.bound() if pipeline.on is not None and not self._context.files else ()
        folders = watches.folders()
        self._own += [
            *watches.faults,
            *(plan_faults.schedule_faults(pipeline) if pipeline.on is not None else ()),
            *(plan_faults.store_order_faults(self._plan) if self._fills_store else ()),
        ]
        self._own += self._refused_targets(watches, folders)
        steps = [(parameters.step, parameters.table) for parameters in self._params.values()]
        self._own += watches.path_faults(steps, are_folders_known=self._are_folders_known)
        if pipeline.tests:  # few files have some, and their functions take time to import
            self._own += plan_faults.test_claim_faults(pipeline, self._base)
        return BoundPlan(
            pipeline=pipeline,
            file=self._file,
            name=pipeline.name,
            nodes=nodes,
            edges=self._plan.edges,
            inputs=self._given.values,
            given=frozenset(self._given.by_hand),
            secret_inputs=frozenset(n for n, spec in pipeline.inputs.items() if spec.is_secret),
            input_types={name: spec.type for name, spec in pipeline.inputs.items()},
            roots=roots,
            models=self._models.by_alias,
            pools=self._models.pools,
            defaults=self._models.defaults,
            returns=pipeline.returns,
            watches=found,
            folders=folders,
            budget=pipeline.budget or NO_BUDGET,
            moment=self._context.shared.moment,
            priority=pipeline.concurrency.priority if pipeline.concurrency else "batch",
        )

    @property
    def _are_folders_known(self) -> bool:
        """Whether no caller opens another folder, or file, for this pipeline."""
        values = self._given.values
        return not any(
            declared.type in ("dir", "path") and values.get(name) is None
            for name, declared in self._pipeline.inputs.items()
        )

    def _refused_targets(self, watches: WatchBinder, folders: tuple[Path, ...]) -> Iterable[Fault]:
        """Yield which steps would write what no step may, as far as their paths are known."""
        own = protected_files.ProtectedFiles.of([(self._pipeline, self._base)], folders)
        for place in watches.written():
            refusal = own.refusal(place.path, is_new=place.is_new)
            if refusal is not None:
                what = f"step '{place.step.id}' may not write '{place.text}': it {refusal.why}."
                mark = self._pipeline.mark((*place.step.at, "with", place.param))
                yield Fault(what, refusal.remedy, mark)

    def _nodes(
        self, nodes: Iterable[Node], names: frozenset[str], controls: _InheritedKeys
    ) -> Iterable[BoundNode]:
        for node in nodes:
            own = controls.of(node)
            if isinstance(node, Block):
                yield self._block(node, names, own)
            else:
                step = self._step(node, names, own)
                if step is not None:
                    yield step

    def _step(
        self, step: WrittenStep, names: frozenset[str], controls: _InheritedKeys
    ) -> BoundStep | None:
        kind = self._kind(step)
        if step.reply is not None:
            self._own += replies.reply_faults(self._pipeline.document, step, step.reply, kind)
        if step.escalate is not None and kind is not None:
            self._own += replies.escalate_faults(self._pipeline.document, step, kind)
        if step.review is not None:
            self._own += replies.review_faults(self._pipeline.document, step, step.review, kind)
        if kind is None:
            return None
        facts = registry.facts_of_kind(kind)
        self._fills_store |= bool(facts.fills)
        parameters = ParameterBinder(kind.params, step, self._pipeline.document, facts.table)
        columns = self._columns_of(step, facts) if facts.table in step.params.data else {}
        params = replace(parameters.bound(), columns=columns)
        self._own += parameters.faults
        for fault in facts.table_faults(step.written, columns) if not parameters.faults else ():
            at = (*step.at, "with", fault.name)
            mark = self._pipeline.document.mark_within(at, fault.start, fault.length)
            self._own.append(Fault(f"step '{step.id}': {fault.message}.", fault.remedy, mark))
        self._params[step.at] = parameters
        self._kinds.add_step(step.id, kind, step.reply, step.returns, step.written)
        self._check_values(step, facts, parameters, params.templates)
        servers = None
        if [*facts.tools(step.params.data)]:
            self._own += tool_faults.tool_faults(step, self._pipeline, self._base)
            servers = tool_faults.tool_spec(step, self._pipeline, self._base)
        inner = self._inner.bound(step, cache=controls.cache) if facts.pipeline else None
        self._known[step.id] = _known_outputs(step, kind, inner)
        reads = step_reads.StepReads.of(step)
        return BoundStep(
            id=step.id,
            uses=registry.own_name(step.uses),
            kind=kind,
            mark=step.mark,
            params=params,
            if_=step.if_,
            needs=frozenset(step.needs),
            retry=controls.retry,
            # A limit on requests that is inherited is none on a whole pipeline.
            timeout=(controls.timeout if inner is None else step.timeout) or NO_TIMEOUT,
            cache=controls.cache,
            returns=step.returns,
            model=self._models.of(step, kind),
            besides=self._models.besides(step, kind),
            reply=step.reply,
            references=reads.named(names | STEP_NAMES),
            after_answer=reads.after_answer(names) if reads.answer else frozenset(),
            of_lists=reads.only_lists(names) if reads.lists else frozenset(),
            escalate=self._models.escalation(step, step.escalate, kind) if step.escalate else None,
            review=step.review,
            shown=step_reads.shown_references(step, reads),
            spec=specs.step_spec(step, servers),
            inner=inner,
        )

    def _columns_of(
        self, step: WrittenStep, facts: Facts
    ) -> Mapping[tuple[str | int, ...], Mapping[str, str]]:
        """Return the columns of the tables that a step takes, as far as they are known."""
        found = {}
        for path in step.params.places():
            compiled = step.params.compiled(path) if path[0] == facts.table else None
            columns = None if compiled is None else self._kinds.columns_of(compiled.tree)
            if columns is not None:
                found[path] = columns
        return found

    def _check_values(
        self,
        step: WrittenStep,
        facts: Facts,
        parameters: ParameterBinder,
        templates: Mapping[str, Template],
    ) -> None:
        """Check what the step would refuse only in a run, behind the model calls before it."""
        at, written = (*step.at, "with"), step.params.data
        places = (path for path in step.params.places() if len(path) == 1)
        kinds = {str(path[0]): self._kinds.of(step.params, path) for path in places}
        self._own += parameters.kind_faults(kinds)
        names = {**written, **written["vars"]} if isinstance(written.get("vars"), dict) else written
        blocks = {
            name: found[1]
            for name, text in names.items()
            if isinstance(text, str) and (found := _RESULTS.fullmatch(text.strip("{ }")))
        }
        table, group_by = facts.table, facts.group_by
        item = self._kinds.items.get(blocks.get(table, ""))
        if item not in (None, dict):
            what = f"each result of '{blocks[table]}' is {KIND_NAMES[item]}, not a row"
            self._fault((*at, table), what, "Give the block `returns: {name: …}`.")
        by = written.get(group_by)
        if isinstance(by, str) and re.fullmatch(r"[\w.]+", by):
            self._check_item((*at, group_by), blocks.get("over", ""), by.partition(".")[0])
        for name, template in templates.items():
            for path in sorted(template.element_reads(blocks)):
                self._check_item((*at, name), blocks[path[0]], path[2])

    def _block(self, block: Block, names: frozenset[str], controls: _InheritedKeys) -> BoundBlock:
        defaults = self._pipeline.defaults
        self._kinds.enter_block(block.var, block.over.tree)
        for name, columns in self._kinds.unknown_columns(block.over.tree):
            what = f"the rows that block '{block.id}' unnests have no column '{name}'"
            self._fault((*block.at, "for_each"), what, did_you_mean(name, columns))
        body = tuple(self._nodes(block.body, names | {block.var} | LOOP_NAMES, controls))
        self._kinds.add_block(block.id, block.returns)
        if (over := self._kinds.of_expression(block.over.tree)) in (str, float, bool):
            what = f"block '{block.id}' goes over {KIND_NAMES[over]}, which is no list"
            self._fault((*block.at, "for_each"), what, "Name a list, such as `steps.docs.files`.")
        results = self._fields_of(block)
        self._known[block.id] = _KnownOutputs(tuple(BLOCK_OUTPUTS), results=results)
        if found := _RESULTS.fullmatch(block.over.source.strip()):
            self._over_results.append((block.at, block.var, found[1]))
        match block.over.chain:
            case ("inputs", name) if self._columns.get(name):
                source = f"inputs.{name}"
                self._over_results.append((block.at, block.var, source))
                self._known[source] = _KnownOutputs(results=tuple(self._columns[name]))
        made = BoundBlock(
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
            spec=specs.block_spec(block),
            columns=self._kinds.columns.get((block.id, "results"), {}),
        )
        return step_reads.with_reads(made, names)

    def _fields_of(self, block: Block) -> tuple[str, ...] | None:
        """Return the fields of a block's result for an item; None where only a run shows them."""
        if block.returns is None:
            last = block.body[-1].id if block.body else ""
            return self._known.get(last, _KnownOutputs()).names
        written = block.returns.data
        return tuple(written) if isinstance(written, dict) else None

    def _kind(self, step: WrittenStep) -> type[Step[Any, Any]] | None:
        at = (*step.at, "uses")
        if not step.uses:
            return None
        try:
            if registry.is_function_reference(step.uses):
                return python_step.step_of(step.uses, self._base)  # read, and not run
            return registry.load_step(step.uses)
        except FunctionNotFound as error:
            self._fault(at, error.what, error.remedy)
        except registry.UnknownStep as error:
            remedy = _of_a_file(step.uses) or did_you_mean(step.uses, error.known)
            self._fault(at, f"there is no step called '{step.uses}'", remedy)
        except registry.BrokenStep as error:
            self._fault(at, f"step '{error.name}' of '{error.package}' is broken: {error.why}", "")
        return None

    def _check_output(self, at: Place, reference: Reference) -> None:
        if len(reference) < 2:
            return
        _, step, *path = reference
        found = self._known.get(step, _KnownOutputs())
        outputs = found.names
        is_source = at[-2:] == ("reply", "evidence") and not path
        if is_source and outputs is not None and not {"text", "hits"} & {*outputs}:
            remedy = "Name a step that reads a document, such as 'files.read', or one of its texts."
            self._fault(at, f"`evidence`: step '{step}' has no text", remedy)
        if not path or path[0] == "skipped":
            return
        name, *within = path
        if path[:2] == ["results", LIST_ELEMENT]:
            self._check_item(at, step, path[2])
        if outputs is not None and name not in outputs:
            self._fault(at, f"step '{step}' has no output '{name}'", did_you_mean(name, outputs))
        if name in found.absent:
            added = "schema" if name == "output" else name
            remedy = f"Add `{added}` under the `reply` of step '{step}'."
            remedy += " Without one, read `text`." if name == "output" else ""
            self._fault(at, f"`steps.{step}.{name}` is null", remedy)
        answer = found.answer if name in ("output", *ABOUT_FIELDS) else None
        known = (*(answer or ()), *NAMES_OF_WHOLE.get(name, ()))
        if answer is not None and within and within[0] not in known:
            what = f"the answer of step '{step}' has no field '{within[0]}'"
            self._fault(at, what, did_you_mean(within[0], known))

    def _goes_over(self, at: Place, name: str) -> str | None:
        """Return the block whose results a loop variable stands for, at a place of the file."""
        over = ((place, block) for place, var, block in self._over_results if var == name)
        return next((block for place, block in over if at[: len(place)] == place), None)

    def _check_item(self, at: Place, block: str, field: str) -> None:
        fields = self._known.get(block, _KnownOutputs()).results
        if fields is not None and field not in (*fields, *METHODS[dict]):
            what = f"the results of '{block}' have no field '{field}'"
            self._fault(at, what, did_you_mean(field, fields))

    def _check_name(self, at: Place, name: str, names: frozenset[str]) -> None:
        split = at.index("with")
        parameters = self._params.get(at[:split])
        added = parameters.reads_names(str(at[split + 1])) if parameters else None
        if added is not None and name not in added:
            remedy = did_you_mean(name, sorted(names | added))
            self._fault(at, f"'{name}' is not known here", remedy)

    def _fault(self, at: Place, message: str, remedy: str) -> None:
        if (at, message) not in self._reported:
            self._reported.add((at, message))
            self._own.append(Fault(f"{message}.", remedy, self._pipeline.mark(at)))


@dataclass
class SubPipelineBinder:
    """Binds what the `pipeline` steps of one file run; faults stand in `faults`."""

    _pipeline: Pipeline
    _inputs: Mapping[str, Any] | None
    _roots: Roots
    _context: BindContext
    _cwd: Path
    _default_models: Mapping[Role, str]
    faults: list[Fault] = field(default_factory=list)

    def bound(self, step: WrittenStep, *, cache: bool) -> BoundPlan | None:
        """Bind the pipeline that a step names; None where that is a fault."""
        at = (*step.at, "with", "file")
        name = step.params.data.get("file")
        path = self._path(name, at) if isinstance(name, str) and name else None
        if path is None or not self._may_go_on(path, at):
            return None
        plan = self._plan(path, str(name), at)
        if plan is None:
            return None
        values, later = self._given(step, plan.pipeline, str(name))
        context = replace(
            self._context,
            files=(*self._files, path),
            steps=(*self._context.steps, step.id),
            later=later,
            cache=cache,
        )
        known = None if self._inputs is None else values
        binder = PlanBinder(plan, known, self._cwd, self._default_models, context)
        made = binder.bound()
        self.faults += binder.faults
        return made

    # --- the file

    @property
    def _files(self) -> tuple[Path, ...]:
        """The files that lead here, resolved, with this one."""
        own = self._roots.base / Path(self._pipeline.document.file).name
        return self._context.files or (own,)

    def _path(self, name: str, at: Place) -> Path | None:
        """Find the file; it must lie in the folder of the one that names it."""
        if "{{" in name or "{%" in name:
            what = f"the file of a pipeline must stand there as it is, not as '{name}'"
            self._fault(at, what, "Choose between files with `if` on two steps.")
            return None
        try:
            path = (self._roots.base / name).resolve()
        except (OSError, RuntimeError, ValueError):  # too long, a circle of symlinks, a zero byte
            self._fault(at, f"the file '{name[:60]}' cannot be used as a path", "Name another one.")
            return None
        if not path.is_relative_to(self._roots.base):
            what = f"the file '{name}' lies outside the pipeline's folder"
            self._fault(at, what, "Move or copy it there.")
            return None
        if path.is_file():
            return path
        if path.is_dir():
            self._fault(at, f"'{name}' is a folder", "Name the YAML file in it.")
        else:
            remedy = "Paths are relative to the YAML; create or correct it."
            self._fault(at, f"there is no file '{name}'", remedy)
        return None

    def _may_go_on(self, path: Path, at: Place) -> bool:
        """Refuse circles, and too many pipelines."""
        files, found = self._files, self._context.shared
        found.n_bound += 1
        if path in files:
            circle = (*files[files.index(path) :], path)
            names = " → ".join(f"'{file.name}'" for file in circle)
            what = f"these pipelines run one another without end: {names}"
            self._fault(at, what, "Remove one of the steps.")
            return False
        if len(files) > MAX_LEVELS:
            what = f"pipelines run one another more than {MAX_LEVELS} levels deep"
            self._fault(at, what, "Make it flatter.")
            return False
        if found.n_bound > MAX_PIPELINES:
            if found.n_bound == MAX_PIPELINES + 1:
                what = f"more than {MAX_PIPELINES} steps run other pipelines"
                self._fault(at, what, "Use `for_each` with one of them in `do`.")
            return False
        return True

    def _plan(self, path: Path, name: str, at: Place) -> Plan | None:
        """Read it once; its faults are reported at their own places."""
        known = self._context.shared.plans
        if path not in known:
            shown = Path(os.path.normpath(Path(self._pipeline.document.file).parent / name))
            try:
                known[path] = plans.read_plan(shown)
            except PipelineError as error:
                self.faults += error.faults
                return None
        return known[path]

    # --- what it is given

    def _given(
        self, step: WrittenStep, pipeline: Pipeline, name: str
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """Return the inputs that are known by now, and the names of those that are not."""
        written = step.params.data.get("inputs")
        written = written if isinstance(written, dict) else {}
        values: dict[str, Any] = {}
        later: set[str] = set()
        for key, item in written.items():
            at = (*step.at, "with", "inputs", key)
            if key.startswith("x-"):
                continue
            if key not in pipeline.inputs:
                remedy = did_you_mean(key, pipeline.inputs, "It takes none.")
                mark = self._pipeline.document.key_mark(at)
                self.faults.append(Fault(f"'{name}' has no input '{key}'.", remedy, mark))
                continue
            is_known, value = self._known(item)
            if not is_known:
                later.add(key)
                continue
            try:
                values[key] = checked_input(pipeline.inputs[key], value, self._roots)
            except WrongInput as error:
                what = f"input '{key}' of '{name}' {error.message}"
                self._fault(at, what, error.remedy)
                later.add(key)
        for key, declared in pipeline.inputs.items():
            if declared.is_required and not declared.has_default and key not in written:
                remedy = f"Add `{key}: …` under `inputs`."
                self._fault((*step.at, "with"), f"'{name}' needs the input '{key}'", remedy)
                later.add(key)
        return values, frozenset(later)

    def _known(self, item: Any) -> tuple[bool, Any]:
        """Return a value that is written out, or made of the run's own inputs alone."""
        value, errors = Value.scan(item)
        if errors:
            return False, None  # told with the file
        if value.is_constant:
            return True, item
        inputs = self._inputs or {}
        if any(p[0] != "inputs" or inputs.get((*p, "")[1]) is None for p in value.references):
            return False, None
        try:
            return True, value.render({"inputs": inputs})
        except ExpressionError:
            return False, None  # the run says why, at its place

    def _fault(self, at: Place, message: str, remedy: str) -> None:
        self.faults.append(Fault(f"{message}.", remedy, self._pipeline.mark(at)))


@dataclass(frozen=True)
class _InheritedKeys:
    """What a step inherits from the blocks around it and from `defaults`."""

    retry: RetryKeys | None = None
    timeout: TimeoutKeys | None = None
    cache: bool = True

    def of(self, node: Node) -> _InheritedKeys:
        return _InheritedKeys(
            node.retry or self.retry,
            _merged(node.timeout, self.timeout),
            self.cache if node.cache is None else node.cache,
        )


def _merged(own: TimeoutKeys | None, inherited: TimeoutKeys | None) -> TimeoutKeys | None:
    if own is None or inherited is None:
        return own or inherited
    return TimeoutKeys.model_construct(
        total=inherited.total if own.total is None else own.total,
        idle=inherited.idle if own.idle is None else own.idle,
    )


def _of_a_file(uses: str) -> str:
    """Return how to use a file as a step, for one that is named alone."""
    if uses.endswith(".py"):
        return f"Name a function of that file: `uses: {uses}:name`."
    if uses.endswith((".yaml", ".yml")):
        return f"Another pipeline is run so: `uses: pipeline`, `with: {{file: {uses}}}`."
    return ""


def _known_outputs(
    step: WrittenStep, kind: type[Step[Any, Any]], inner: BoundPlan | None
) -> _KnownOutputs:
    if step.returns is not None:
        return _KnownOutputs(
            tuple(step.returns.data) if isinstance(step.returns.data, dict) else None
        )
    is_open = kind.output.model_config.get("extra") == "allow"
    names = None if is_open else tuple(kind.output.model_fields)
    answer, absent = None, frozenset[str]()
    # What stops at the groups has an answer for each of them, by keys that only a run shows.
    if step.reply is not None and step.params.data.get("fold", "all") == "all":
        answer = replies.reply_fields(step.reply)
    if getattr(kind, "takes_reply", False):
        spec = replies.reply_spec(step.reply) if step.reply is not None else {}
        absent = frozenset(ABOUT_FIELDS) - spec.keys()
        value = kind.output.model_fields.get("output")
        is_null = value is not None and value.default is None and spec.get("schema") is None
        if is_null and step.params.data.get("fold", "all") == "all":
            absent |= {"output"}
    return _KnownOutputs(names if inner is None else outputs_of(inner), answer, absent)
