"""Entrances and journeys: the command line, the ledger, Prefect flows, reports.

from paddock.runner import run
from paddock.runner import plan
from paddock.runner import validate
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers read it; importing `typing` is a tenth of `--version`

if TYPE_CHECKING:
    from .verbs import plan, plan_async, run, run_async, validate

__all__ = ["plan", "plan_async", "run", "run_async", "validate"]


def __getattr__(name: str) -> object:
    """Import a verb when it is first asked for."""
    if name in __all__:
        from . import verbs

        return getattr(verbs, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
