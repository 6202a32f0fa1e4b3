"""Triggers of other packages: entry points of the group `paddock.triggers`.

The entry point's name is the key under `on`. It is a class with `Keys`, a model of one entry there,
and is made with the entry and the pipeline: `Class(keys, triggered)`; what is made is a `Trigger`.
"""

from __future__ import annotations

from .triggered_pipeline import TriggeredPipeline
from .triggers import Trigger


def plugin_triggers(triggered: TriggeredPipeline) -> list[Trigger]:
    return []
