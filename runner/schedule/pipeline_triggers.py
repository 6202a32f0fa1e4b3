"""The triggers of a pipeline: those of its file, and the decisions that it asks people for."""

from __future__ import annotations

from pathlib import Path

from paddock.engine.system import files
from paddock.engine.system.records import replace
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind_written_starts
from paddock.runner.config.setting_values import PERMISSIONS
from paddock.runner.review.page_server import asks_people
from paddock.runner.settings import Settings

from .decision_trigger import DecisionTrigger
from .folder_trigger import folder_triggers
from .plugin_triggers import plugin_triggers
from .schedule_trigger import ScheduleTrigger
from .triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from .triggers import Trigger
from .webhook_trigger import webhook_triggers


def triggers_of(pipeline: TriggeredPipeline, *, max_attempts: int, is_open: bool) -> list[Trigger]:
    """Return the triggers of a pipeline, as its file is now.

    `is_open`: other machines can reach the address of its webhooks.
    """
    found: list[Trigger] = [*map(ScheduleTrigger, pipeline.schedules)]
    found += folder_triggers(pipeline, max_attempts)
    found += webhook_triggers(pipeline, is_open=is_open)
    found += plugin_triggers(pipeline)
    found += [DecisionTrigger()] if asks_people(pipeline.pipeline) else []
    return found


def trigger_keys(file: Path, settings: Settings) -> list[str]:
    """Return the keys of a file's triggers, whatever it may do under `paddock up`.

    Raises:
        PipelineError: it is no pipeline, or a faulty one.
    """
    allowed = replace(settings, allow=frozenset(PERMISSIONS))
    made = read_triggered_pipeline(file, files.read_text(file, "utf-8-sig"), allowed)
    if made is None:
        bind_written_starts(read_plan(file))
        return []
    return [trigger.key for trigger in triggers_of(made, max_attempts=1, is_open=False)]
