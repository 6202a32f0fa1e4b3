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
from paddock.pipelines.pipeline_tests import ExpectKeys
from paddock.steps.registry import CHECK_FUNCTIONS, BrokenCheck


def test_claim_faults(pipeline: Pipeline, base: Path) -> Iterator[Fault]:
    for test in pipeline.tests:
        at = pipeline.place_of_test(test.name)
        for name in test.inputs:
            if name not in pipeline.inputs:
                gives = f"test '{test.name}' gives the input '{name}'"
                remedy = did_you_mean(name, pipeline.inputs, "It takes none.")
                mark = pipeline.document.key_mark((*at, "inputs", name))
                yield Fault(f"{gives}, which the pipeline does not have.", remedy, mark)
        for number, claim in enumerate(test.expect):
            for place, message, remedy in _claim_faults(claim, pipeline, base):
                mark = pipeline.mark((*at, "expect", number, *place))
                yield Fault(f"{message}.", remedy, mark)


def _claim_faults(
    claim: ExpectKeys, pipeline: Pipeline, base: Path
) -> Iterator[tuple[Place, str, str]]:
    if isinstance(claim.check, str):
        try:
            for message, remedy in Check.of(claim.check).faults(CHECK_FUNCTIONS):
                yield ("check",), f"`check`: {message}", remedy
        except ExpressionError:
            pass  # reported with the file
        except BrokenCheck as error:
            message, _, remedy = str(error).partition(". ")
            yield ("check",), message, remedy
    if claim.claim == "schema":
        for found in reply_schema.read_reply_schema(claim.schema_, base).faults:
            yield ("schema", *found.path), f"`schema`: {found.message}", found.remedy
    if (alias := claim.model) is None:
        return
    role, known = "embed" if claim.claim == "similar" else "chat", pipeline.models
    if alias not in known:
        remedy = did_you_mean(alias, known, "Add it under `models`.")
        yield ("model",), f"`{claim.claim}`: there is no model '{alias}' under `models`", remedy
    elif (has := known[alias].role) != role:
        what = f"`{claim.claim}` needs a model of the role '{role}', and '{alias}' has '{has}'"
        yield ("model",), what, "Name another one."
