"""The bound plan: steps with their classes and typed parameters, blocks, pools of models.

Its nodes are a tree: a block has a body, a step may run another bound plan (`BoundStep.inner`).
Everything is frozen; what is found out of a plan later makes a copy (`replace`).

| word | of a parameter |
|---|---|
| `StepNode.params` | the `Value` under `with`, with expressions |
| `BoundStep.params` | the same with the step's type: renders it for one item |
| `written` | plain data as it stands under `with`; in place of a file's name, its text |
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Flag, auto
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from paddock.engine.system.records import SelectiveFields, Struct, field, replace
from paddock.pipelines.errors import Mark
from paddock.pipelines.expressions import Expression, Value
from paddock.pipelines.input_values import FOLDER_TYPES
from paddock.pipelines.keys import OnError, RetryKeys, TimeoutKeys
from paddock.pipelines.model import EscalationSpec, Pipeline, ReplySpec, ReviewSpec
from paddock.pipelines.plan import all_before
from paddock.pipelines.references import UNSURE
from paddock.pipelines.triggers import BudgetKeys
from paddock.pipelines.typed_rows import ColumnType
from paddock.steps import registry
from paddock.steps.base import Roots, Step
from paddock.steps.effects import Destination, Effect, effects_of
from paddock.steps.facts import Facts
from paddock.steps.param_types import DecisionsParam, ParamType
from paddock.steps.run_pipeline import RESULT_OUTPUT

from .node_reads import BlockReads, StepReads
from .parameters import BoundParams
from .watches import BoundWatch

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec, Priority, Role
    from paddock.pipelines.label_choices import Choice

NO_TIMEOUT = TimeoutKeys.model_construct(total=None, idle=None)
NO_BUDGET = BudgetKeys.model_construct(time=None, tokens=None)
REVIEW_OF_SENT = ReviewSpec(Expression.of("output.unknown"))
"""Of a request that was sent: a person says whether it arrived, where that is unknown."""


class ListOrigin(Flag):
    """What a value is made of. Of a list of results alone no document leaves by being filed."""

    NEITHER = 0
    RESULTS = auto()
    """Of blocks or pipelines."""
    FOLDERS = auto()


class InputSource(Struct, frozen=True):
    """Where the value of a sub-pipeline's input comes from, in the pipeline that runs it."""

    origin: ListOrigin = ListOrigin.NEITHER
    follows_item: bool = False
    """Whether it is always the same for the item that the sub-pipeline is run for."""


class BoundEscalation(Struct, frozen=True):
    """Which answers another model gives in place of the step's own."""

    spec: EscalationSpec
    to: ModelSpec


class BoundStep(SelectiveFields, Struct, frozen=True, dict=True):
    uncompared = ("consumers",)

    id: str
    uses: str
    kind: type[Step[Any, Any]]
    mark: Mark
    reads: StepReads
    params: BoundParams
    """`render(scope)` gives the instance that `run` takes, or raises `RenderError`."""
    if_: Expression | None = None
    needs: frozenset[str] = frozenset()
    retry: RetryKeys | None = None
    timeout: TimeoutKeys = NO_TIMEOUT
    cache: bool = True
    returns: Value | None = None
    model: ModelSpec | None = None
    extra_models: tuple[ModelSpec, ...] = ()
    """Models that it asks besides `model`, such as the embedding model of an agent's memory."""
    reply: ReplySpec | None = None
    escalate: BoundEscalation | None = None
    review: ReviewSpec | None = None
    """When its answer waits for a person."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """The step as written, in one way only, template files' texts included (`specs`)."""
    untrusted: tuple[str, ...] = ()
    """The untrusted references of its parameters (`taint_analysis`), dotted: `steps.text.text`."""
    inner: BoundPlan | None = None
    """The pipeline that it runs, if it runs one; its inputs are those that are known by now."""
    consumers: tuple[BoundNode, ...] = ()
    """What uses its answer, which is not asked for where all of these are skipped; empty: it is
    in any case (`unused_answers`)."""
    known_by: frozenset[str] = frozenset()
    """The steps and blocks whose outputs tell whether all `consumers` are skipped."""

    @cached_property
    def written(self) -> Mapping[str, Any]:
        """Its parameters as they stand under `with`; in place of a file's name, its text."""
        return self.params.step.written

    @cached_property
    def facts(self) -> Facts:
        return registry.facts_of_kind(self.kind)

    @cached_property
    def effects(self) -> tuple[Effect, ...]:
        return tuple(effects_of(self.facts.types, self.written))

    @cached_property
    def destinations(self) -> tuple[Destination, ...]:
        return tuple(effect for effect in self.effects if isinstance(effect, Destination))

    def has(self, kind: type[ParamType]) -> bool:
        """Return whether it has a parameter of a type, written or not."""
        return bool(self.facts.types.names(kind))

    def given(self, kind: type[ParamType]) -> Any:
        """Return what is written at the first parameter of a type; None: nothing."""
        return self.written.get(self.facts.param(kind))

    @cached_property
    def takes_document(self) -> bool:
        """Whether a document leaves its folder by it."""
        return any(effect.takes_document for effect in self.effects)

    @cached_property
    def makes_output(self) -> bool:
        """Whether all that it does is to make a file of what it reads."""
        return bool(self.effects) and all(effect.makes_output for effect in self.effects)

    @cached_property
    def has_answer(self) -> bool:
        """Whether its answer is more than what it returns: chosen, checked, decided on."""
        looks = (self.reply, self.review, self.escalate)
        return self.is_taught or any(look is not None for look in looks)

    @property
    def is_taught(self) -> bool:
        """Whether its prompt has decisions of people as examples."""
        return bool(self.given(DecisionsParam))

    @property
    def has_readings(self) -> bool:
        """Whether a person is asked only about fields that no rule of decisions reads."""
        return self.review is not None and any(p[0] == UNSURE for p in self.review.when.references)

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The fields of its answer whose values are labels of a list."""
        return () if self.reply is None else self.reply.choices

    @property
    def has_trace(self) -> bool:
        """Whether it has an entry outside of blocks, too, as a block of one item."""
        return bool(self.kind.roles) or self.makes_output

    def mark_of(self, *at: str | int) -> Mark:
        return self.params.document.mark((*self.params.step.at, *at))

    @cached_property
    def escalated(self) -> BoundStep:
        assert self.escalate is not None
        params = self.params.with_model(self.escalate.spec.to)
        return replace(self, model=self.escalate.to, params=params, escalate=None)

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        escalated = None if self.escalate is None else self.escalate.to
        return tuple(
            spec for spec in (self.model, escalated, *self.extra_models) if spec is not None
        )


class BoundBlock(SelectiveFields, Struct, frozen=True):
    uncompared = ("consumers",)

    id: str
    mark: Mark
    var: str
    over: Expression
    body: tuple[BoundNode, ...]
    where: Expression | None = None
    """Which items of the list it is done for; None: all."""
    key: Expression | None = None
    max_parallel: int | None = None
    on_error: OnError = "quarantine"
    if_: Expression | None = None
    needs: frozenset[str] = frozenset()
    returns: Value | None = None
    reads: BlockReads = field(default_factory=BlockReads)
    keep: Expression | None = None
    """Whether an item has a result: it passed the block's filters. None: there are none."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    consumers: tuple[BoundNode, ...] = ()
    """As `BoundStep.consumers`; a block at the top has none: its items are what a run is about."""
    known_by: frozenset[str] = frozenset()
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    """The types of its results' columns, as far as schemas tell; an empty one is unknown."""

    @classmethod
    def of_step(cls, step: BoundStep) -> BoundBlock:
        """Return the block of one item that a step outside of blocks is."""
        over = Expression.of("[none]")
        return cls(step.id, step.mark, "", over, (step,), max_parallel=1, on_error="fail")


class BoundPool(Struct, frozen=True):
    urls: tuple[str, ...]
    key: Value | None
    """A text that may read secrets and inputs."""
    tokenizer: str | None
    """A stored model or a GGUF file, by whose vocabulary prompts are counted."""
    mark: Mark
    """Where the first model that names them does so."""


BoundNode: TypeAlias = BoundStep | BoundBlock


class BoundPlan(Struct, frozen=True, dict=True):
    pipeline: Pipeline
    file: Path
    nodes: tuple[BoundNode, ...]
    edges: Mapping[str, frozenset[str]]
    inputs: Mapping[str, Any]
    roots: Roots
    models: Mapping[str, ModelSpec]
    pools: Mapping[str, BoundPool]
    """The pools elsewhere, by the names that the models' specs have for them."""
    defaults: Mapping[Role, ModelSpec]
    """The model of a step that names none."""
    watches: tuple[BoundWatch, ...] = ()
    folders: tuple[Path, ...] = ()
    """Where documents arrive or are written, as far as it is known before a run."""
    documents: tuple[Path, ...] = ()
    """Those of them that steps and watches name themselves."""
    given: frozenset[str] = frozenset()
    """The names of the inputs that the caller gave."""
    later_inputs: frozenset[str] = frozenset()
    """Those whose values are known later; they are null until then."""
    tainted_inputs: frozenset[str] = frozenset()
    """Those that a caller may set, or that a step fills with untrusted text."""
    priority: Priority = "batch"
    """Whose requests the pool takes first."""
    moment: float = 0.0
    """When it was bound, in seconds since 1970: `now` and `today` of a whole run are of then."""
    input_sources: Mapping[str, InputSource] = field(default_factory=dict)
    """Of a sub-pipeline, by input."""

    @property
    def name(self) -> str:
        return self.pipeline.name

    @property
    def returns(self) -> Value | None:
        return self.pipeline.returns

    @property
    def budget(self) -> BudgetKeys:
        return self.pipeline.budget or NO_BUDGET

    @cached_property
    def secret_inputs(self) -> frozenset[str]:
        return frozenset(name for name, spec in self.pipeline.inputs.items() if spec.is_secret)

    @cached_property
    def input_types(self) -> Mapping[str, str]:
        return {name: spec.type for name, spec in self.pipeline.inputs.items()}

    @property
    def folder_inputs(self) -> dict[str, str]:
        """The `dir` and `path` inputs: they name what a run works on."""
        types = self.input_types
        return {n: str(v) for n, v in self.inputs.items() if types.get(n) in FOLDER_TYPES}

    @property
    def inputs_by_item(self) -> frozenset[str]:
        return frozenset(n for n, source in self.input_sources.items() if source.follows_item)

    @property
    def inputs_in_paths(self) -> frozenset[str]:
        """The inputs that may be named in the path of an output that belongs to its item."""
        paths = {name for name, kind in self.input_types.items() if kind in FOLDER_TYPES}
        return self.inputs_by_item | paths

    @property
    def output_names(self) -> tuple[str, ...]:
        data = {} if self.returns is None else self.returns.data
        return tuple(data) if isinstance(data, dict) else (RESULT_OUTPUT,)

    def before(self, name: str) -> list[BoundNode]:
        """Return the blocks and steps before a node that have entries, in order."""
        before = all_before(self.edges, name)
        nodes = (node for node in self.nodes if node.id in before)
        return [n for n in nodes if isinstance(n, BoundBlock) or n.has_trace or n.inner is not None]

    def is_alone(self, node: BoundNode) -> bool:
        """Return whether it is done in any case, for all of its items, whatever others have."""
        has_where = isinstance(node, BoundBlock) and node.where is not None
        return node.if_ is None and not has_where and not self.before(node.id)
