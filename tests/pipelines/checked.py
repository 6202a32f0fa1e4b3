"""A pipeline's text as a model and as a plan, without faults; what evidence was not found."""

from typing import Any

from paddock.engine.system.text import path_text
from paddock.pipelines import model, plan, yaml_source
from paddock.pipelines.checking.schema_parts import missing_keys
from paddock.pipelines.errors import PipelineError


def checked_pipeline(text: str, file: str) -> model.Pipeline:
    """Raise `PipelineError` with every fault of the file."""
    pipeline = model.parse_pipeline(yaml_source.parse_yaml(text, file))
    if pipeline.faults:
        raise PipelineError(pipeline.faults)
    return pipeline


def checked_plan(pipeline: model.Pipeline) -> plan.Plan:
    """Raise `PipelineError` with every fault of the plan."""
    made = plan.plan_with_faults(pipeline)
    if made.faults:
        raise PipelineError(made.faults)
    return made


def missing_paths(evidence: Any) -> list[str]:
    """Return the paths of values that are nowhere in the sources; what is only similar is missing.

    A dot of a name gets a backslash.
    """
    return [path_text(path) for path in missing_keys(evidence)]
