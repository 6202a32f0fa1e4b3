"""The triggers of a pipeline that packages bring; see `paddock.runner.bind.trigger_plugins`."""

from __future__ import annotations

import logging
import os
from typing import Any

from pydantic import ValidationError

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import Value
from paddock.pipelines.validation import faults_of
from paddock.runner.bind.trigger_plugins import BrokenTrigger, load_trigger, written_triggers
from paddock.runner.config import pipeline_secrets
from paddock.runner.core.other_runs.group_names import rendered_value

from .triggered_pipeline import TriggeredPipeline
from .triggers import Trigger, UnservedTrigger

log = logging.getLogger("paddock.up")


def plugin_triggers(triggered: TriggeredPipeline) -> list[Trigger]:
    """Return the triggers that packages bring; one that cannot be made says why."""
    made: dict[str, Trigger] = {}
    for name, at, entry in written_triggers(triggered.pipeline):
        place = ".".join(map(str, at))
        try:
            trigger = load_trigger(name)(_keys(triggered, name, at, entry), triggered)
            if not (isinstance(trigger.key, str) and trigger.key.startswith(name)):
                message = f"`{place}`: its `key` {trigger.key!r} does not begin with '{name}'."
                trigger = UnservedTrigger(place, message)
            elif trigger.key in made:
                message = f"`{place}`: another entry has the key '{trigger.key}'."
                trigger = UnservedTrigger(place, message)
        except (PipelineError, BrokenTrigger) as error:
            trigger = UnservedTrigger(place, str(error))
        except Exception as error:  # of the package's code
            log.exception("%s: `%s` cannot be made", triggered.file, place)
            message = f"`{place}` cannot be made: {type(error).__name__}: {error}"
            trigger = UnservedTrigger(place, message)
        made[trigger.key] = trigger
    return [*made.values()]


def _keys(triggered: TriggeredPipeline, name: str, at: tuple[str | int, ...], entry: Any) -> Any:
    """Return the keys of an entry, with the values of its expressions.

    Raises:
        PipelineError: one cannot be filled in.
    """
    pipeline, read = triggered.pipeline, Value.of(entry).references
    scope: dict[str, object] = {}
    if any(path[0] == "inputs" for path in read):
        scope["inputs"] = triggered.inputs({})
    if any(path[0] == "secrets" for path in read):
        scope["secrets"] = pipeline_secrets.read_secrets(pipeline, os.environ).values
    rendered, table = rendered_value(pipeline, entry, scope, at), load_trigger(name).Keys
    try:
        return table.model_validate(rendered)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise PipelineError(
            faults_of(details, table, rendered, pipeline.document, at, is_rendered=True)
        ) from error
