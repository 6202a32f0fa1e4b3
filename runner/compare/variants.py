"""Variants of a pipeline: other models, prompts and parameters of its steps, as changed YAML.

A variant is the pipeline's data with some values replaced. What is run of it is a part: the step
whose answers are compared, and what that step reads. So nothing is written, and nothing behind the
step is done. The part has a file name of its own in the ledger, hence scopes of its own; a model
call is found by its request, also where another variant or the pipeline itself made it.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import Fault, PipelineError, did_you_mean
from paddock.pipelines.expressions import Expression
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.keys import StepKeys
from paddock.pipelines.model import Block, Node, StepNode
from paddock.pipelines.plan import Plan
from paddock.pipelines.yaml_source import parse_yaml

Option = Literal["model", "prompt", "set"]
MOST_VARIANTS = 100
ANSWERING_STEPS = ("chat", "summarise", "summarize", "reduce")
_NOT_RUN = ("on", "tests", "returns", "gold", "concurrency", "budget", "mcpServers")
"""Of a pipeline: what its compared part has no use for."""
_ABOUT_STEP = frozenset(field.alias or name for name, field in StepKeys.model_fields.items())


@dataclass(frozen=True, slots=True)
class Change:
    """One value of a pipeline that a variant replaces."""

    option: Option
    target: str
    """As written: an alias, a step, or a step with a path."""
    at: Place
    value: Any

    @property
    def name(self) -> str:
        value = self.value["file"] if self.option == "prompt" else self.value
        return f"{self.target}={value}"


@dataclass(frozen=True, slots=True)
class Variant:
    """The pipeline with some values replaced."""

    name: str
    """The changes in which variants differ."""
    changes: tuple[Change, ...]

    def data(self, written: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole pipeline's data."""
        made = copy.deepcopy(dict(written))
        for change in self.changes:
            _replace(made, change.at, change.value)
        return made


def _replace(data: Any, at: Place, value: Any) -> None:
    for name in at[:-1]:
        if isinstance(data, dict) and data.get(name) is None:
            data[name] = {}
        data = data[name]
    data[at[-1]] = value


@dataclass(frozen=True, slots=True)
class VariantOptions:
    """What the command line varies: `NAME=VALUE,VALUE`, as written."""

    models: Sequence[str] = ()
    prompts: Sequence[str] = ()
    settings: Sequence[str] = ()

    def variants(self, plan: Plan) -> list[Variant]:
        """Return each combination, ordered so that those with the same models follow each other.

        Without options, the pipeline as it is.

        Raises:
            PipelineError: with every option that names nothing of the pipeline.
        """
        faults: list[Fault] = []
        dimensions: list[list[Change]] = []
        given: list[tuple[Option, Sequence[str]]] = [
            ("model", self.models), ("prompt", self.prompts), ("set", self.settings)
        ]  # fmt: skip
        for option, texts in given:
            for text in texts:
                try:
                    dimensions.append(_changes(option, text, plan))
                except PipelineError as error:
                    faults += error.faults
        if faults:
            raise PipelineError(faults)
        n = len(list(itertools.product(*dimensions))) if len(dimensions) < 8 else MOST_VARIANTS + 1
        if n > MOST_VARIANTS:
            raise _fault(f"these are more than {MOST_VARIANTS} variants.", "Compare fewer values.")
        return [_variant(changes, dimensions) for changes in itertools.product(*dimensions)]


def _variant(changes: Sequence[Change], dimensions: Sequence[Sequence[Change]]) -> Variant:
    differing = [
        change.name for change, values in zip(changes, dimensions, strict=True) if values[1:]
    ]
    shown = differing or [change.name for change in changes]
    return Variant(" ".join(shown) or "as it is", tuple(changes))


def _fault(message: str, remedy: str) -> PipelineError:
    return PipelineError([Fault(message, remedy)])


def _changes(option: Option, text: str, plan: Plan) -> list[Change]:
    """Return the changes of one option.

    Raises:
        PipelineError: it is not `NAME=VALUE,…`, or names nothing of the pipeline.
    """
    target, equals, values = text.partition("=")
    words = [word.strip() for word in values.split(",") if word.strip()]
    target = target.strip()
    if not equals or not target or not words:
        example = {"model": "clerk=qwen3:8b,llama3.2:3b", "prompt": "bill=a.md,b.md"}
        shown = example.get(option, "bill.params.temperature=0,0.7")
        raise _fault(f"'--{option} {text}' is no NAME=VALUE,….", f"Write for example {shown}.")
    at = _place(option, target, plan)
    return [Change(option, target, at, _value(option, word)) for word in dict.fromkeys(words)]


def _value(option: Option, word: str) -> Any:
    if option != "set":
        return {"file": word} if option == "prompt" else word
    try:
        value = parse_yaml(word, "--set").data
    except PipelineError:
        return word
    is_text = isinstance(value, str | dict | list) and word[0] not in "[{'\""
    return word if is_text else value


def _place(option: Option, target: str, plan: Plan) -> Place:
    """Return where a target's value stands in the pipeline's data.

    Raises:
        PipelineError: there is no such model, or step.
    """
    if option == "model":
        models = plan.pipeline.models
        if target not in models:
            remedy = did_you_mean(target, models) if models else "Declare it under `models`."
            raise _fault(f"there is no model '{target}' under `models`.", remedy)
        written = plan.pipeline.document.data["models"][target]
        return ("models", target) if isinstance(written, str) else ("models", target, "ref")
    step, *path = target.split(".")
    node = next((one for one in _steps(plan) if one.id == step), None)
    if node is None:
        names = [one.id for one in _steps(plan) if one.has_own_id]
        raise _fault(f"there is no step '{step}'.", did_you_mean(step, names))
    if option == "prompt":
        return (*node.at, "with", "prompt")
    if not path:
        raise _fault(f"'--set {target}' names no key of the step.", "Write `STEP.KEY=VALUE`.")
    inner = path if path[0] in _ABOUT_STEP else ["with", *path]
    return (*node.at, *inner)


def _steps(plan: Plan) -> Iterator[StepNode]:
    return (node for node in plan.pipeline.nodes() if isinstance(node, StepNode))


def compared_step(plan: Plan, variants: Sequence[Variant], named: str | None) -> str:
    """Return the step whose answers are compared: as named, that of the options, the only one.

    Raises:
        PipelineError: there is none, or several.
    """
    steps = {one.id: one for one in _steps(plan) if one.uses in ANSWERING_STEPS and one.has_own_id}
    if named is not None:
        if named not in steps:
            raise _fault(f"there is no step '{named}' that answers.", did_you_mean(named, steps))
        return named
    changed = {
        change.target.partition(".")[0]
        for variant in variants
        for change in variant.changes
        if change.option != "model"
    }
    aliases = {
        change.target for one in variants for change in one.changes if change.option == "model"
    }
    using = {id_ for id_, one in steps.items() if one.params.data.get("model") in aliases}
    for found in (changed & steps.keys(), using, steps.keys()):
        if len(found) == 1:
            return next(iter(found))
    if not steps:
        kinds = ", ".join(f"`{name}`" for name in ANSWERING_STEPS if name != "summarize")
        raise _fault("no step answers: there is nothing to compare.", f"Add one of {kinds}.")
    known = ", ".join(f"'{name}'" for name in steps)
    raise _fault(f"several steps answer: {known}.", "Name one: `--step NAME`, or `gold.step`.")


# --- the part of a variant that is run


@dataclass(frozen=True, slots=True)
class ComparedPart:
    """What is run of a variant."""

    data: Mapping[str, Any]
    block: str
    """The block with the compared step; empty for a step at the top."""
    step: str
    skipped: tuple[str, ...] = ()
    """Steps that `needs` names and that are not run: what they made before is used."""

    def file(self, whole: Path, inputs: Mapping[str, Any]) -> Path:
        """Return the file name under which the ledger has this part; there is no such file."""
        digest = hashlib.sha256(canonical_json([self.data, dict(inputs)]).encode()).hexdigest()
        return whole.with_name(f"{whole.stem}.{digest[:10]}.compare.yaml")


def compared_part(plan: Plan, step: str, key: str | None, gold: str | None) -> ComparedPart:
    """Return the step with all that it reads; an item's result has its answer, key and gold.

    `key`, `gold`: bare expressions that are evaluated for each item, if any.

    Raises:
        PipelineError: the step is in a block within a block, or an expression names no step.
    """
    homes = {node.id: block for node, block in _with_blocks(plan.pipeline.steps, ())}
    if len(homes[step]) > 1:
        what = f"step '{step}' is in a block within a block."
        raise _fault(what, "Compare a step of a block that is in no other.")
    block = homes[step][0] if homes[step] else None
    roots = [step, *_steps_named(gold)]
    if unknown := [name for name in roots if name not in homes]:
        raise _fault(f"`gold.from` names step '{unknown[0]}'.", did_you_mean(unknown[0], homes))
    kept = _read_by(plan, roots, homes)
    data = copy.deepcopy(plan.pipeline.document.data)
    results = {"answer": f"steps.{step}", "key": key, "gold": gold}
    results = {name: text for name, text in results.items() if text is not None}
    skipped: list[str] = []
    for node, _ in _with_blocks(plan.pipeline.steps, ()):
        written = _at(data, node.at)
        written.pop("review", None)  # answers are compared as the model gave them
        if "needs" in written:
            written["needs"] = [name for name in node.needs if name in kept]
            skipped += [name for name in node.needs if name not in kept and node.id in kept]
        if block is not None and node.id == block.id:
            written |= {"returns": results, "on_error": "quarantine"}
        elif node.id == step:
            written.pop("returns", None)
            written |= {} if block is not None else {"returns": results}
    data["steps"] = _kept_steps(data["steps"], plan.pipeline.steps, kept)
    for name in _NOT_RUN:
        data.pop(name, None)
    home = "" if block is None else block.id
    return ComparedPart(data, home, step, tuple(dict.fromkeys(skipped)))


def _steps_named(expression: str | None) -> list[str]:
    if expression is None:
        return []
    references = Expression.of(expression).references
    return sorted({path[1] for path in references if path[0] == "steps" and len(path) > 1})


def _with_blocks(
    nodes: Iterable[Node], around: tuple[Block, ...]
) -> Iterator[tuple[Node, tuple[Block, ...]]]:
    """Yield every node with the blocks around it, the innermost last."""
    for node in nodes:
        yield node, around
        if isinstance(node, Block):
            yield from _with_blocks(node.body, (*around, node))


def _read_by(
    plan: Plan, roots: Iterable[str], homes: Mapping[str, tuple[Block, ...]]
) -> frozenset[str]:
    """Return the ids of steps, of what they read, and of the blocks around them."""
    nodes = {node.id: node for node in plan.pipeline.nodes()}
    kept: set[str] = set()
    waiting = [(name, True) for name in roots]
    while waiting:
        name, is_read = waiting.pop()
        if name in kept and not (is_read and isinstance(nodes[name], Block)):
            continue
        kept.add(name)
        node = nodes[name]
        waiting += [(one, True) for one in _reads_of(plan, node, with_results=is_read)]
        waiting += [(block.id, False) for block in homes[name] if block.id not in kept]
    return frozenset(kept)


def _reads_of(plan: Plan, node: Node, *, with_results: bool) -> Iterator[str]:
    """Yield the steps that a node reads; of a block, its own keys, and what makes its results."""
    n = len(node.at)
    for use in plan.uses:
        if use.at[:n] != node.at or use.reference[0] != "steps" or len(use.reference) < 2:
            continue
        key = use.at[n]
        is_block = isinstance(node, Block)
        if key in ("needs", "review") or (is_block and key == "do"):
            continue
        if not is_block or key != "returns" or with_results:
            yield use.reference[1]
    if isinstance(node, Block) and with_results and node.returns is None:
        yield node.body[-1].id


def _at(data: Any, place: Place) -> Any:
    for name in place:
        data = data[name]
    return data


def _kept_steps(written: Sequence[Any], nodes: Iterable[Node], kept: frozenset[str]) -> list[Any]:
    """Return the written steps that are kept, with what is kept of their bodies."""
    found = []
    for node in nodes:
        if node.id not in kept:
            continue
        own = written[int(node.at[-1])]
        if isinstance(node, Block):
            own["do"] = _kept_steps(own["do"], node.body, kept)
        found.append(own)
    return found
