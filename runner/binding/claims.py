"""What the tests of a pipeline claim, checked before anything runs; carries no test out.

Functions of checks, schemas, models, inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from paddock.pipelines import reply
from paddock.pipelines.checking.check import Check
from paddock.pipelines.claims import Expect, Test
from paddock.pipelines.errors import Fault, known
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.tree import Pipeline
from paddock.steps.answers.functions import FUNCTIONS, BrokenCheck


def faults(pipeline: Pipeline, base: Path) -> Iterator[Fault]:
    """Tell what is wrong with the tests of a pipeline; `base` is its folder."""
    for test in pipeline.tests:
        at = _place(pipeline, test)
        yield from _inputs(pipeline, test, at)
        for number, claim in enumerate(test.expect):
            for more, message, remedy in _claim(claim, pipeline, base):
                mark = pipeline.mark((*at, "expect", number, *more))
                yield Fault(f"{message}.", remedy, mark)


def _place(pipeline: Pipeline, test: Test) -> Place:
    """Find a test in the file: those that are faulty are not among the pipeline's."""
    for index, written in enumerate(pipeline.document.data["tests"]):
        if isinstance(written, dict) and written.get("name") == test.name:
            return ("tests", index)
    return ("tests",)


def _inputs(pipeline: Pipeline, test: Test, at: Place) -> Iterator[Fault]:
    for name in test.inputs:
        if name not in pipeline.inputs:
            what = f"test '{test.name}' gives the input '{name}', which the pipeline does not have."
            remedy = known(name, pipeline.inputs) if pipeline.inputs else "It takes none."
            yield Fault(what, remedy, pipeline.document.key_mark((*at, "inputs", name)))


def _claim(claim: Expect, pipeline: Pipeline, base: Path) -> Iterator[tuple[Place, str, str]]:
    if isinstance(claim.check, str):
        yield from ((("check",), *fault) for fault in _check(claim.check))
    if claim.claim == "schema":
        for found in reply.read(claim.schema_, base).faults:
            yield ("schema", *found.path), f"`schema`: {found.message}", found.remedy
    if claim.model is not None:
        yield from _model(claim, claim.model, pipeline)


def _check(written: str) -> Iterator[tuple[str, str]]:
    try:
        for message, remedy in Check.of(written).faults(FUNCTIONS):
            yield f"`check`: {message}", remedy
    except ExpressionError:
        return  # told before, with the file
    except BrokenCheck as error:
        message, _, remedy = str(error).partition(". ")
        yield message, remedy


def _model(claim: Expect, alias: str, pipeline: Pipeline) -> Iterator[tuple[Place, str, str]]:
    role = "embed" if claim.claim == "similar" else "chat"
    keys = pipeline.models.get(alias)
    if keys is None:
        remedy = known(alias, pipeline.models) if pipeline.models else "Add it under `models`."
        yield ("model",), f"`{claim.claim}`: there is no model '{alias}' under `models`", remedy
    elif keys.role != role:
        what = (
            f"`{claim.claim}` needs a model of the role '{role}', and '{alias}' has '{keys.role}'"
        )
        yield ("model",), what, "Name another one."
