"""The bound plan: typed steps, blocks, pools, and the plan that a run walks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from paddock.pipelines.errors import Mark
from paddock.pipelines.expressions import Expression, Reference, Value
from paddock.pipelines.keys import OnError
from paddock.pipelines.model import Pipeline, ReviewSpec
from paddock.runner.ledger.budget import RunBudget
from paddock.steps.base import Roots, Step

from .inputs_and_parameters import BoundParams
from .reply import BoundReply
from .watch_folders import BoundWatch

if TYPE_CHECKING:
    from paddock.engine.request import ModelSpec, Priority, Role


@dataclass(frozen=True, slots=True)
class BoundRetry:
    """How often a step is tried again, after which kinds of failure, and after how long."""

    times: int = 0
    on: frozenset[str] = frozenset(("timeout", "worker", "busy"))
    backoff_s: float = 1.0
    is_given: bool = field(default=False, compare=False)
    """Whether the author said so."""


@dataclass(frozen=True, slots=True)
class BoundTimeout:
    """The longest a request may take, and the longest without a new token; None: no limit."""

    total_s: float | None = None
    idle_s: float | None = None


@dataclass(frozen=True)
class BoundStep:
    """One step with its class and its parameters, compiled."""

    id: str
    uses: str
    kind: type[Step[Any, Any]]
    mark: Mark
    params: BoundParams
    """`render(scope)` gives the instance that `run` takes, or raises `BindError`."""
    if_: Expression | None = None
    needs: frozenset[str] = frozenset()
    retry: BoundRetry = BoundRetry()
    timeout: BoundTimeout = BoundTimeout()
    cache: bool = True
    returns: Value | None = None
    model: ModelSpec | None = None
    besides: tuple[ModelSpec, ...] = ()
    """Models that it asks besides `model`, such as the embedding model of an agent's memory."""
    reply: BoundReply | None = None
    """What its answer must be."""
    references: frozenset[Reference] = frozenset()
    """What it reads of inputs, other steps and loop variables, in template files too."""
    after_answer: frozenset[Reference] = frozenset()
    """Those of `references` that only the sources of `reply.evidence` or `review.when` read."""
    review: ReviewSpec | None = None
    """When its answer waits for a person."""
    spec: str = ""
    """The step as written, in one way only, template files' texts included."""
    untrusted: tuple[str, ...] = ()
    """The untrusted references of its parameters (`taint_analysis`), dotted: `steps.text.text`."""
    inner: BoundPlan | None = None
    """The pipeline that it runs, if it runs one; its inputs are those that are known by now."""

    @property
    def written(self) -> Mapping[str, Any]:
        """What stands under `with`, as the file has it."""
        written: Mapping[str, Any] = self.params.step.params.data
        return written

    def mark_of(self, *at: str | int) -> Mark:
        """Return the place of one of its keys in the file."""
        return self.params.document.mark((*self.params.step.at, *at))

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        return self.besides if self.model is None else (self.model, *self.besides)


@dataclass(frozen=True)
class BoundBlock:
    """A `for_each` with its body, in order. `references` are of things outside the block."""

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
    references: frozenset[Reference] = frozenset()
    item_attributes: frozenset[str] | None = None
    """The attributes of the loop variable that are read; None: the whole item is used."""
    loop_attributes: frozenset[str] = frozenset()
    """The attributes of `loop` that are read: an item whose place changes is then done again."""
    spec: str = ""


@dataclass(frozen=True, slots=True)
class BoundPool:
    """Servers elsewhere that serve one or several of a pipeline's models."""

    urls: tuple[str, ...]
    key: Value | None
    """A text that may read secrets and inputs."""
    tokenizer: str | None
    """A stored model or a GGUF file, by whose vocabulary prompts are counted."""
    mark: Mark
    """Where the first model that names them does so."""


BoundNode: TypeAlias = BoundStep | BoundBlock


@dataclass(frozen=True)
class BoundPlan:
    """Everything that a run needs to know of the YAML."""

    pipeline: Pipeline
    file: Path
    name: str
    nodes: tuple[BoundNode, ...]
    edges: Mapping[str, frozenset[str]]
    inputs: Mapping[str, Any]
    secret_inputs: frozenset[str]
    input_types: Mapping[str, str]
    roots: Roots
    models: Mapping[str, ModelSpec]
    pools: Mapping[str, BoundPool]
    """The pools elsewhere, by the names that the models' specs have for them."""
    defaults: Mapping[Role, ModelSpec]
    """The model of a step that names none."""
    returns: Value | None = None
    watches: tuple[BoundWatch, ...] = ()
    """The folders whose changes start it."""
    folders: tuple[Path, ...] = ()
    """Where documents arrive or are written, as far as it is known before a run."""
    budget: RunBudget = field(default_factory=RunBudget)
    given: frozenset[str] = frozenset()
    """The names of the inputs that the caller gave."""
    priority: Priority = "batch"
    """Whose requests the pool takes first."""

    @property
    def folder_inputs(self) -> dict[str, str]:
        """The `dir` and `path` inputs: they name what a run works on."""
        types = self.input_types
        return {n: str(v) for n, v in self.inputs.items() if types.get(n) in ("dir", "path")}
