"""The step `pipeline`: run another pipeline file; its `returns` are the step's outputs.

Knows no runner: the function that runs a pipeline is handed in. The file's name is a literal, so
that inputs, outputs, models and permissions are checked before anything runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, Field

from .base import Output, Params, StepError, Tools

if TYPE_CHECKING:
    from paddock.engine.request import Role

RESULT_OUTPUT = "result"
"""The output that holds a `returns` which is one expression, not several with names."""


class PipelineParams(Params):
    """Parameters of `pipeline`."""

    file: str = Field(
        min_length=1,
        description="The other YAML file, relative to this one; no expression.",
        examples=["parts/clean.yaml"],
    )
    inputs: dict[str, Any] = Field(
        default={}, description="What it is given; paths are relative to this file."
    )


class PipelineOutput(Output):
    """Outputs of `pipeline`: whatever the other file's `returns` name."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)


class RunPipeline:
    """Another pipeline file as a step: same models in memory, same ledger; gives its `returns`."""

    params: ClassVar[type[PipelineParams]] = PipelineParams
    output: ClassVar[type[PipelineOutput]] = PipelineOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: PipelineParams) -> Sequence[str]:
        """Name nothing: the file's text is part of what its steps are known by."""
        return ()

    async def run(self, params: PipelineParams, tools: Tools) -> PipelineOutput:
        """Run it to its end.

        Raises:
            StepError: an input that only shows now is wrong.
        """
        if tools.pipelines is None:
            raise StepError("no other pipeline can be run from here.")
        return PipelineOutput(
            **named_outputs(await tools.pipelines.run(params.file, params.inputs))
        )


def named_outputs(returned: Any) -> dict[str, Any]:
    """Return what a pipeline returned by names.

    >>> named_outputs({"report": "a.md"}), named_outputs(3), named_outputs(None)
    ({'report': 'a.md'}, {'result': 3}, {})
    """
    if returned is None:
        return {}
    return returned if isinstance(returned, dict) else {RESULT_OUTPUT: returned}
