"""Variations: values of a pipeline that `compare` and `test` replace, and their faults.

A variant is the pipeline's data with some values replaced: a combination of the variations.
A change is a value with its place in the pipeline's data. Changes of the command line and of the
file are made by the same code.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import string
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, get_args

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.comparison_keys import CompareKeys
from paddock.pipelines.errors import Fault, PipelineError, did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.keys import StepKeys
from paddock.pipelines.model import Pipeline, StepNode, step_nodes
from paddock.pipelines.validation import FaultCollector
from paddock.pipelines.yaml_source import parse_yaml
from paddock.steps.registry import facts_of

VariedOption = Literal["model", "prompt", "set"]
"""What `paddock compare` varies."""
MOST_VARIANTS = 100


class Change(Struct, frozen=True):
    option: VariedOption
    target: str
    """As written: an alias, a step, or a step with a path."""
    at: Place
    value: Any

    @property
    def name(self) -> str:
        value = self.value["file"] if self.option == "prompt" else self.value
        return f"{self.target}={value if isinstance(value, str) else json.dumps(value)}"


def changed(data: Mapping[str, Any], changes: Iterable[Change]) -> dict[str, Any]:
    data_of_variant = copy.deepcopy(dict(data))
    for change in changes:
        part: Any = data_of_variant
        for name in change.at[:-1]:
            if isinstance(part, dict) and part.get(name) is None:
                part[name] = {}
            part = part[name]
        part[change.at[-1]] = change.value
    return data_of_variant


def dimensions(keys: CompareKeys, pipeline: Pipeline) -> list[list[Change]]:
    """Return the changes of each place that is varied.

    Raises:
        PipelineError: with every entry that names nothing of the pipeline, or no value.
    """
    by_place: dict[Place, dict[str, Change]] = {}
    faults: list[Fault] = []
    document = pipeline.document if keys is pipeline.compare else None
    for option in get_args(VariedOption):
        for target, written in getattr(keys, option).items():
            values = written if isinstance(written, list) else [written]
            try:
                at = varied_place(option, target, pipeline)
                if not values:
                    remedy = "Write a value, or a list of them."
                    raise PipelineError.of(f"'{target}' names no value.", remedy)
            except PipelineError as error:
                mark = document.key_mark(("compare", option, target)) if document else None
                faults += (replace(fault, mark=mark) for fault in error.faults)
                continue
            for value in values:
                data = {"file": value} if option == "prompt" else value
                change = Change(option, target, at, data)
                by_place.setdefault(at, {}).setdefault(change.name, change)
    if faults:
        raise PipelineError(faults)
    varied = [[*changes.values()] for changes in by_place.values()]
    if math.prod(map(len, varied)) > MOST_VARIANTS:
        mark = document.key_mark(("compare",)) if document else None
        what = f"these are more than {MOST_VARIANTS} variants."
        raise PipelineError.of(what, "Compare fewer values.", mark)
    return varied


class Variant(Struct, frozen=True):
    name: str
    """The changes in which variants differ."""
    changes: tuple[Change, ...]


def variants_of(keys: CompareKeys, pipeline: Pipeline) -> list[Variant]:
    """Return each combination of values, those with the same models behind each other.

    Without values: the pipeline as it is.

    Raises:
        PipelineError: with every entry that names nothing of the pipeline, or no value.
    """
    varied = dimensions(keys, pipeline)
    is_differing = [len(values) > 1 for values in varied]
    variants: list[Variant] = []
    for changes in itertools.product(*varied):
        names = [change.name for change in changes]
        shown = [*itertools.compress(names, is_differing)] or names
        variants.append(Variant(" ".join(shown) or "as it is", changes))
    return variants


def varied_options(
    models: Iterable[str] | None, prompts: Iterable[str] | None, settings: Iterable[str] | None
) -> dict[str, dict[str, list[Any]]]:
    """Return the values of the options that were given, as `compare` in a file has them.

    Raises:
        PipelineError: with every text that is no NAME=VALUE,….
    """
    options: dict[str, dict[str, list[Any]]] = {}
    faults: list[Fault] = []
    examples = ("clerk=qwen3:8b,llama3.2:3b", "bill=a.md,b.md", "bill.params.temperature=0,0.7")
    for option, texts, example in zip(
        get_args(VariedOption), (models, prompts, settings), examples, strict=True
    ):
        for text in texts or ():
            target, equals, values = text.partition("=")
            target = target.strip()
            read = [*_values(option, values)]
            if equals and target and read:
                options.setdefault(option, {}).setdefault(target, []).extend(read)
            else:
                what = f"'--{option} {text}' is no NAME=VALUE,…."
                faults.append(Fault(what, f"Write for example {example}."))
    if faults:
        raise PipelineError(faults)
    return options


def _values(option: VariedOption, text: str) -> Iterator[Any]:
    """Yield the values between commas. Those of `set` are YAML; only in brackets, not plain text.

    >>> [*_values("set", "0, [1, 2], {a: 1, b: 2}, x: y, [0.1")]
    [0, [1, 2], {'a': 1, 'b': 2}, 'x: y', '[0.1']
    """
    parts = text.split(",")
    while parts:
        word = parts[0].strip()
        value: Any = word
        n_parts = 1
        is_flow = word[:1] in ("[", "{", "'", '"')
        for n in range(1, len(parts) + 1 if is_flow else 2) if option == "set" else ():
            with suppress(PipelineError):  # such as a bracket that is closed behind a later comma
                read = parse_yaml(",".join(parts[:n]), "--set").data
                if is_flow or not isinstance(read, dict | list):
                    value, n_parts = read, n
                break
        del parts[:n_parts]
        if word:
            yield value


def varied_place(option: VariedOption, target: str, pipeline: Pipeline) -> Place:
    """Return where a value that `paddock compare` varies stands in the pipeline's data.

    Raises:
        PipelineError: there is no such model, or step.
    """
    if option == "model":
        if target not in pipeline.models:
            remedy = did_you_mean(target, pipeline.models, "Declare it under `models`.")
            raise PipelineError.of(f"there is no model '{target}' under `models`.", remedy)
        written = pipeline.document.data["models"][target]
        return ("models", target) if isinstance(written, str) else ("models", target, "ref")
    name, *path = target.split(".")
    node = next((node for node in pipeline.nodes() if node.id == name), None)
    if not isinstance(node, StepNode):
        names = [node.id for node in step_nodes(pipeline) if node.has_own_id]
        what = f"there is no step '{name}'."
        if node is not None:
            what = f"'{name}' is a block, and only steps can be varied."
        raise PipelineError.of(what, did_you_mean(name, names))
    if option == "prompt":
        return (*node.at, "with", "prompt")
    if not path:
        raise PipelineError.of(f"'{target}' names no key of the step.", "Write `STEP.KEY`.")
    about_step = {field.alias or key for key, field in StepKeys.model_fields.items()}
    inner = path if path[0] in about_step else ["with", *path]
    return (*node.at, *inner)


def letters(names: Iterable[str]) -> dict[str, str]:
    """Return a short name for each variant: A, B, … Z, A2, …, by its name."""
    return {
        name: f"{string.ascii_uppercase[n % 26]}{n // 26 + 1 if n >= 26 else ''}"
        for n, name in enumerate(names)
    }


def answering_steps(pipeline: Pipeline) -> dict[str, StepNode]:
    nodes = (node for node in step_nodes(pipeline) if node.has_own_id)
    return {node.id: node for node in nodes if facts_of(node.uses).only_answers}


def not_answering(named: str, pipeline: Pipeline) -> Fault:
    remedy = did_you_mean(named, answering_steps(pipeline))
    return Fault(f"there is no step '{named}' that answers.", remedy)


def check_varied_names(pipeline: Pipeline, checks: FaultCollector) -> None:
    answering = answering_steps(pipeline)
    for key, keys in (("compare", pipeline.compare), ("gold", pipeline.gold)):
        if keys is not None and keys.step is not None and keys.step not in answering:
            fault = not_answering(keys.step, pipeline)
            checks.add((key, "step"), fault.message, fault.remedy)
    if pipeline.compare is not None:
        try:
            dimensions(pipeline.compare, pipeline)
        except PipelineError as error:
            checks.include(error.faults)


def comparison_notes(pipeline: Pipeline) -> Iterator[str]:
    """Yield a note for each name under `compare` and `gold` that leads nowhere.

    It is no fault for commands other than `compare`.
    """
    checks = FaultCollector(pipeline.document)
    check_varied_names(pipeline, checks)
    for fault in checks.faults:
        yield f"`paddock compare` would refuse this file: {fault.in_one_line()}"
