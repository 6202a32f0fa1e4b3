"""Failures of steps and runs, and the errors that stop a run: every other item would meet them."""

from __future__ import annotations

from paddock.engine.errors import (
    EngineError,
    ModelBroken,
    ModelNotFound,
    ModelReplaced,
    ModelTooLarge,
    ModelUnusable,
    NoServer,
)
from paddock.runner.bind.bound import BoundStep
from paddock.steps.base import StepError

FATAL_ERRORS = (ModelNotFound, ModelBroken, ModelReplaced, ModelTooLarge, ModelUnusable, NoServer)
"""Errors that every other item would meet."""

UNUSABLE_MODEL_ERRORS = (ModelNotFound, ModelBroken, ModelTooLarge)
"""Those that another model in the YAML would fix."""


class RunStopped(Exception):
    """The run cannot go on: a full disk, a missing model, a ledger that cannot be written."""


class RunFailed(RunStopped):
    """A step or an item failed. In a sub-pipeline, only the item around it fails."""

    def __init__(self, words: str, *, cause: str = "other") -> None:
        self.cause = cause
        """As `retry.on` names it."""
        super().__init__(words)


class StepFailed(Exception):
    """A step did not succeed, after its retries: the sentence names the step."""

    def __init__(self, step: str, reason: str, *, cause: str = "other") -> None:
        self.step = step
        self.reason = reason
        self.cause = cause
        """As `retry.on` names it; decides whether another try may succeed."""
        super().__init__(f"step '{step}': {reason}")


class LeftByReview(StepFailed):
    """No one decided in time, and `on_expiry` says that the item is skipped."""


def stop_if_fatal(error: StepError | EngineError, step: BoundStep) -> None:
    """Raise `RunStopped` for an error that every other item would meet, too."""
    is_fatal = error.is_fatal if isinstance(error, StepError) else False
    if is_fatal or isinstance(error, FATAL_ERRORS):
        at = f"{step.mark.file}:{step.mark.line}:{step.mark.column}: "
        raise RunStopped(
            f"{at if isinstance(error, UNUSABLE_MODEL_ERRORS) else ''}{error}"
        ) from error
