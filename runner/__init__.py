"""Command line, runs, ledger, Prefect flows, daemon, watches and schedules.

The Python API is `run`, `run_async`, `plan`, `plan_async` and `validate`; it is imported when one
of them is first asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers read it; importing `typing` is a tenth of `--version`

if TYPE_CHECKING:
    from .api import plan, plan_async, run, run_async, validate

__all__ = ["plan", "plan_async", "run", "run_async", "validate"]


def __getattr__(name: str) -> object:
    """Import a verb when it is first asked for."""
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
