"""The step `pipeline`: run another pipeline file; its `returns` are the step's outputs.

Knows no runner: `Tools.pipelines` runs it. The file's name is a literal, so that inputs, outputs,
models and permissions are checked before anything runs.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from .base import Output, Params, Step, StepError, Tools
from .param_types import PipelineFile, PipelineInputs

RESULT_OUTPUT = "result"
"""The output for a `returns` that is a single expression."""


class PipelineParams(Params):
    file: Annotated[str, PipelineFile] = Field(
        min_length=1,
        description="The other YAML file, relative to this one; not an expression.",
        examples=["parts/clean.yaml"],
    )
    inputs: Annotated[dict[str, Any], PipelineInputs] = Field(
        default={}, description="Its inputs; paths are relative to this file."
    )


class PipelineOutput(Output):
    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class RunPipeline(Step[PipelineParams, PipelineOutput]):
    """Another pipeline file as a step: same models in memory, same ledger."""

    params = PipelineParams
    output = PipelineOutput

    async def run(self, params: PipelineParams, tools: Tools) -> PipelineOutput:
        if tools.calls.pipelines is None:
            raise StepError("no other pipeline can run from here.")
        return PipelineOutput(
            **named_outputs(await tools.calls.pipelines.run(params.file, params.inputs))
        )


def named_outputs(returned: Any) -> dict[str, Any]:
    """Return a pipeline's `returns` as a mapping.

    >>> named_outputs({"report": "a.md"}), named_outputs(3), named_outputs(None)
    ({'report': 'a.md'}, {'result': 3}, {})
    """
    if returned is None:
        return {}
    return returned if isinstance(returned, dict) else {RESULT_OUTPUT: returned}
