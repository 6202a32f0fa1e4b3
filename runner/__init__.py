"""Command line, runs, ledger, Prefect flows, daemon, watches and schedules.

The Python API is `run`, `run_async`, `plan`, `plan_async` and `validate`, with `RunOptions` and
`RunEnvironment`, and `flow` for Prefect; each name is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paddock.engine.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from .api import plan, plan_async, run, run_async, validate
    from .core.run_options import RunEnvironment, RunOptions
    from .workers.pipeline_flow import PipelineRunFailed, flow

__all__ = [
    "PipelineRunFailed",
    "RunEnvironment",
    "RunOptions",
    "flow",
    "plan",
    "plan_async",
    "run",
    "run_async",
    "validate",
]

_PLACES = {
    **{"RunEnvironment": "core.run_options", "RunOptions": "core.run_options"},
    **{"PipelineRunFailed": "workers.pipeline_flow", "flow": "workers.pipeline_flow"},
    **dict.fromkeys(("plan", "plan_async", "run", "run_async", "validate"), "api"),
}


__getattr__ = lazy_names(__name__, _PLACES)
