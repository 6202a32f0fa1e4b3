"""Steps that are skipped: `if` is false, or what they read was skipped."""

from __future__ import annotations

from paddock.pipelines.expressions import ExpressionError
from paddock.runner.bind.bound import BoundStep
from paddock.runner.bind.scope import Scope

from .failures import StepFailed


def is_step_skipped(step: BoundStep, scope: Scope) -> bool:
    """Return whether `if` is false, or the step reads more than `skipped` of a skipped step.

    Raises:
        StepFailed: the condition cannot be evaluated.
    """
    if reads_skipped(step.references - step.after_answer, scope):
        return True
    if step.if_ is None:
        return False
    try:
        return not step.if_.evaluate(scope)
    except ExpressionError as error:
        raise StepFailed(step.id, str(error)) from error


def reads_skipped(references: frozenset[tuple[str, ...]], scope: Scope) -> bool:
    """Return whether one of these references needs the outputs of a skipped step."""
    return any(
        path[0] == "steps"
        and len(path) > 1
        and path[2:3] != ("skipped",)
        and scope.is_skipped(path[1])
        for path in references
    )
