"""A pipeline's text as a model and as a plan, where it must have no faults."""

from paddock.pipelines import model, plan, yaml_source
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
