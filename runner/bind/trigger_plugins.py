"""Triggers: each `*_trigger.py` of `runner/schedule`, and entry points of `paddock.triggers`.

The name is the key under `on`: `on.watch` is `WatchTrigger` of `watch_trigger.py`. It is a class
with `Keys`, a model of one entry there; the contract is `paddock.runner.schedule.triggers.Trigger`.
It is imported when a file names it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import Path as Place
from paddock.pipelines.model import Pipeline
from paddock.pipelines.triggers import PLANNED_TRIGGERS, OnKeys
from paddock.pipelines.validation import FaultCollector
from paddock.steps.plugins import (
    TRIGGER_GROUP,
    BrokenPlugin,
    PluginImportError,
    lacking,
    load_only,
    package_of,
    plugins,
)


class BrokenTrigger(BrokenPlugin):
    kind = "trigger"


def trigger_points() -> Mapping[str, tuple[EntryPoint, ...]]:
    own = {}
    for file in (Path(__file__).parents[1] / "schedule").glob("*_trigger.py"):
        name, kind = file.stem.removesuffix("_trigger"), file.stem.title().replace("_", "")
        value = f"paddock.runner.schedule.{file.stem}:{kind}"
        own[name] = (EntryPoint(name, value, TRIGGER_GROUP),)
    return {**plugins(TRIGGER_GROUP), **own}


@cache
def load_trigger(name: str) -> Any:
    """Import the class of a trigger.

    Raises:
        KeyError: none of this name is installed.
        BrokenTrigger: with the package and the reason.
    """
    return load_only(name, trigger_points()[name], BrokenTrigger, _trigger_fault)


def _trigger_fault(kind: Any) -> str:
    keys = getattr(kind, "Keys", None)
    if not inspect.isclass(kind):
        return "is not a class"
    if not (inspect.isclass(keys) and issubclass(keys, BaseModel)):
        return "has no `Keys` that is a Pydantic model"
    return lacking(kind, ("kind",), ("run", "done", "status"))


def load_all_triggers() -> tuple[dict[str, Any], list[BrokenTrigger]]:
    """Return the triggers that plans do not know, and what is wrong with others."""
    kinds: dict[str, Any] = {}
    broken: list[BrokenTrigger] = []
    points = trigger_points()
    for name in sorted(points.keys() - PLANNED_TRIGGERS.keys()):
        try:
            load_trigger(name).Keys.model_json_schema()
            kinds[name] = load_trigger(name)
        except BrokenTrigger as error:
            broken.append(error)
        except Exception as error:  # Pydantic says so in many ways
            package = package_of(points[name][0])
            what = f"its `Keys` have no JSON Schema: {PluginImportError(error)}"
            broken.append(BrokenTrigger(name, package, what))
    return kinds, broken


def written_triggers(pipeline: Pipeline) -> Iterator[tuple[str, Place, Any]]:
    """Yield the name, the place and the entry of each; that of a planned one is its keys."""
    if pipeline.on is None:
        return
    planned = {name: getattr(pipeline.on, name) for name in PLANNED_TRIGGERS}
    for name, written in (planned | pipeline.on.plugins).items():
        if isinstance(written, list):
            yield from ((name, ("on", name, index), entry) for index, entry in enumerate(written))
        else:
            yield name, ("on", name), written


def check_triggers(pipeline: Pipeline, checks: FaultCollector) -> None:
    """Check what stands under `on` and no plan knows."""
    for name in pipeline.on.plugins if pipeline.on else ():
        try:
            table = load_trigger(name).Keys
            for kind, at, entry in written_triggers(pipeline):
                if kind == name:
                    checks.table(table, entry, at)
        except KeyError:
            known = [*OnKeys.model_fields, *trigger_points()]
            remedy = did_you_mean(name, known)
            checks.add(("on", name), f"unknown key '{name}'", remedy, is_key=True)
        except BrokenTrigger as error:
            checks.add(("on", name), error.message, error.remedy, is_key=True)
