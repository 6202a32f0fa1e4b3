"""Command line, runs, ledger, Prefect flows, daemon, watches and schedules.

The Python API is `run`, `run_async`, `plan`, `plan_async` and `validate`, with `RunOptions` and
`RunEnvironment`, and `flow` for Prefect; each name is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def __getattr__(name: str) -> object:
    """Import a name when it is first asked for."""
    if name in ("RunEnvironment", "RunOptions"):
        from .core import run_options

        return getattr(run_options, name)
    if name in ("PipelineRunFailed", "flow"):
        from .workers import pipeline_flow

        return getattr(pipeline_flow, name)
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
