"""Which concurrency group a run is in: by the rule of its file, and a hashed name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.input_values import FOLDER_TYPES

if TYPE_CHECKING:
    from paddock.pipelines.model import Pipeline
    from paddock.pipelines.triggers import ConcurrencyKeys


def has_turns(rule: ConcurrencyKeys) -> bool:
    """Return whether runs take turns; else the lock on their folder is enough."""
    return rule.group is not None or rule.on_conflict != "queue"


def group_name(pipeline: Pipeline, file: Path, inputs: Mapping[str, Any]) -> str:
    """Return the hashed name of a run's group, by default that of its file and folders.

    Raises:
        PipelineError: the name cannot be made.
    """
    rule = pipeline.concurrency
    if rule is not None and rule.group is not None:
        at = ("concurrency", "group")
        written = str(rendered_value(pipeline, rule.group, {"inputs": inputs}, at))
    else:
        of_folders = {name for name, spec in pipeline.inputs.items() if spec.type in FOLDER_TYPES}
        folders = {name: str(inputs[name]) for name in inputs if name in of_folders}
        written = canonical_json([str(file), folders])
    return hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def rendered_value(
    pipeline: Pipeline, written: Any, scope: Mapping[str, Any], at: tuple[str | int, ...]
) -> Any:
    """Render the value at `at`, outside of the steps.

    Raises:
        PipelineError: it cannot be filled in.
    """
    try:
        return Value.of(written).render(scope)
    except ExpressionError as error:
        what = f"`{'.'.join(str(part) for part in (*at, *error.path))}`: {error.message}."
        fault = Fault(what, error.remedy, pipeline.mark((*at, *error.path)))
        raise PipelineError([fault]) from error
