"""What is said of a share that an error ended: which machine that was, and what to do there.

It is read where the job was asked for, and shown by Prefect.
"""

from __future__ import annotations

from paddock.engine.errors import EngineError
from paddock.pipelines.errors import PipelineError
from paddock.runner.consent import NotAllowed
from paddock.runner.ledger.entries import LedgerError
from paddock.steps.step import StepError

TOLD = (EngineError, LedgerError, PipelineError, StepError)
"""Errors that speak for themselves; of any other the traceback is wanted."""


def words_of(error: Exception, machine: str) -> str:
    """Say what was in the way, and on which machine."""
    if isinstance(error, NotAllowed):
        return _not_allowed(error, machine)
    return f"on {machine}: {error}"


def _not_allowed(error: NotAllowed, machine: str) -> str:
    wants = "; ".join(dict.fromkeys(f"{need.what} ('{need.name}')" for need in error.needs))
    names = error.names
    return (
        f"The worker on {machine} does not allow what the pipeline wants to do: {wants}. Each "
        f"machine allows for itself: start `paddock worker --allow {names}` there, or write "
        f'`allow = "{names}"` into its ~/.config/paddock/paddock.toml.'
    )
