"""Tests may only claim what the pipeline can have: functions of checks, schemas, models, inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from paddock.pipelines import reply_schema
from paddock.pipelines.checking.check import Check
from paddock.pipelines.errors import Fault, did_you_mean
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Pipeline
from paddock.pipelines.pipeline_tests import ExpectKeys, TestKeys
from paddock.steps.registry import CHECK_FUNCTIONS, BrokenCheck


def test_claim_faults(pipeline: Pipeline, base: Path) -> Iterator[Fault]:
    """Yield what is wrong with the tests of a pipeline; `base` is its folder."""
    for test in pipeline.tests:
        at = pipeline.place_of_test(test.name)
        yield from _test_input_faults(pipeline, test, at)
        for number, claim in enumerate(test.expect):
            for place, message, remedy in _claim_faults(claim, pipeline, base):
                mark = pipeline.mark((*at, "expect", number, *place))
                yield Fault(f"{message}.", remedy, mark)


def _test_input_faults(pipeline: Pipeline, test: TestKeys, at: Place) -> Iterator[Fault]:
    for name in test.inputs:
        if name not in pipeline.inputs:
            what = f"test '{test.name}' gives the input '{name}', which the pipeline does not have."
            remedy = did_you_mean(name, pipeline.inputs) if pipeline.inputs else "It takes none."
            yield Fault(what, remedy, pipeline.document.key_mark((*at, "inputs", name)))


def _claim_faults(
    claim: ExpectKeys, pipeline: Pipeline, base: Path
) -> Iterator[tuple[Place, str, str]]:
    if isinstance(claim.check, str):
        yield from ((("check",), *fault) for fault in _check_function_faults(claim.check))
    if claim.claim == "schema":
        for found in reply_schema.read_reply_schema(claim.schema_, base).faults:
            yield ("schema", *found.path), f"`schema`: {found.message}", found.remedy
    if claim.model is not None:
        yield from _model_claim_faults(claim, claim.model, pipeline)


def _check_function_faults(written: str) -> Iterator[tuple[str, str]]:
    try:
        for message, remedy in Check.of(written).faults(CHECK_FUNCTIONS):
            yield f"`check`: {message}", remedy
    except ExpressionError:
        return  # reported with the file
    except BrokenCheck as error:
        message, _, remedy = str(error).partition(". ")
        yield message, remedy


def _model_claim_faults(
    claim: ExpectKeys, alias: str, pipeline: Pipeline
) -> Iterator[tuple[Place, str, str]]:
    role = "embed" if claim.claim == "similar" else "chat"
    keys = pipeline.models.get(alias)
    if keys is None:
        remedy = (
            did_you_mean(alias, pipeline.models) if pipeline.models else "Add it under `models`."
        )
        yield ("model",), f"`{claim.claim}`: there is no model '{alias}' under `models`", remedy
    elif keys.role != role:
        what = (
            f"`{claim.claim}` needs a model of the role '{role}', and '{alias}' has '{keys.role}'"
        )
        yield ("model",), what, "Name another one."
