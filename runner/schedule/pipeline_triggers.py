"""The triggers of a pipeline: those of its file, and the decisions that it asks people for."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from paddock.engine.system import files
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import Value
from paddock.pipelines.plan import read_plan
from paddock.pipelines.triggers import TriggerKeys
from paddock.pipelines.validation import faults_of
from paddock.runner.bind.bind import bind_written_starts
from paddock.runner.bind.trigger_plugins import BrokenTrigger, load_trigger, written_triggers
from paddock.runner.config import pipeline_secrets
from paddock.runner.config.setting_values import PERMISSIONS
from paddock.runner.core.other_runs.group_names import rendered_value
from paddock.runner.review.page_server import asks_people
from paddock.runner.settings import Settings

from .decision_orders import DecisionTrigger
from .triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from .triggers import NothingToWaitFor, Trigger, UnservedTrigger

log = logging.getLogger("paddock.up")


def triggers_of(triggered: TriggeredPipeline) -> list[Trigger]:
    """Return the triggers of a pipeline, as its file is now; one that cannot be made says why."""
    triggers: dict[str, Trigger] = {}
    for name, at, entry in written_triggers(triggered.pipeline):
        place = ".".join(map(str, at))
        try:
            trigger = load_trigger(name)(_keys(triggered, name, at, entry), triggered)
            if not (isinstance(trigger.key, str) and trigger.key.startswith(name)):
                message = f"`{place}`: its `key` {trigger.key!r} does not begin with '{name}'."
                trigger = UnservedTrigger(place, message)
            elif trigger.key in triggers:
                message = f"`{place}`: another entry has the key '{trigger.key}'."
                trigger = UnservedTrigger(place, message)
        except NothingToWaitFor as error:
            trigger = UnservedTrigger(error.key, str(error))
        except (PipelineError, BrokenTrigger) as error:
            trigger = UnservedTrigger(place, str(error))
        except Exception as error:  # of the package's code
            log.exception("%s: `%s` cannot be made", triggered.file, place)
            message = f"`{place}` cannot be made: {type(error).__name__}: {error}"
            trigger = UnservedTrigger(place, message)
        triggers[trigger.key] = trigger
    return [*triggers.values(), *([DecisionTrigger()] if asks_people(triggered.pipeline) else [])]


def trigger_keys(file: Path, settings: Settings) -> list[str]:
    """Return the keys of a file's triggers, whatever it may do under `paddock up`.

    Raises:
        PipelineError: it is no pipeline, or a faulty one.
    """
    allowed = replace(settings, allow=frozenset(PERMISSIONS))
    triggered = read_triggered_pipeline(file, files.read_text(file, "utf-8-sig"), allowed)
    if triggered is None:
        bind_written_starts(read_plan(file))
        return []
    return [trigger.key for trigger in triggers_of(triggered)]


def _keys(triggered: TriggeredPipeline, name: str, at: tuple[str | int, ...], entry: Any) -> Any:
    """Return the keys of an entry, with the values of its expressions; built-in ones are read.

    Raises:
        PipelineError: one cannot be filled in.
    """
    if isinstance(entry, TriggerKeys):
        return entry
    pipeline = triggered.pipeline
    names = {path[0] for path in Value.of(entry).references}
    scope: dict[str, object] = {}
    if "inputs" in names:
        scope["inputs"] = triggered.inputs({})
    if "secrets" in names:
        scope["secrets"] = pipeline_secrets.read_secrets(pipeline, os.environ).values
    rendered = rendered_value(pipeline, entry, scope, at)
    table = load_trigger(name).Keys
    try:
        return table.model_validate(rendered)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise PipelineError(
            faults_of(details, table, rendered, pipeline.document, at, is_rendered=True)
        ) from error
