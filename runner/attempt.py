"""Run one step once, or again where its `retry` says so: `if`, skipping, rendering, time limits.

Knows no blocks and no ledger; gives the step's outputs as plain data.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from paddock.engine.errors import (
    Busy,
    DeadlineExceeded,
    EngineError,
    ModelBroken,
    ModelNotFound,
    ModelReplaced,
    ModelTooLarge,
    ModelUnusable,
    NoServer,
    WorkerLost,
)
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.steps.roots import OutsideRoots
from paddock.steps.step import StepError, StepSkipped, Tools
from paddock.steps.time_limits import time_limit

from .binding.bound import BoundStep
from .binding.parameters import BindError
from .border import BorderReached
from .ledger.entries import LedgerError
from .replying import AskedFor
from .retries import MISSING, pause_s, times
from .scope import Scope

HOPELESS = (ModelNotFound, ModelBroken, ModelReplaced, ModelTooLarge, ModelUnusable, NoServer)
"""What every other item would meet as well."""

UNFIT = (ModelNotFound, ModelBroken, ModelTooLarge)
"""Those of them that another model in the YAML would mend."""


class Stopped(Exception):
    """The run cannot go on: a full disk, a missing model, a ledger that cannot be written."""


class Failed(Stopped):
    """A step or an item failed. Of a pipeline that a step runs, only what it was run for has."""

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
        """As `retry.on` names it; it tells whether another try may well succeed."""
        super().__init__(f"step '{step}': {reason}")


async def attempt(
    step: BoundStep,
    scope: Scope,
    tools: Callable[[], Tools],
    reads: Callable[[Sequence[str]], None],
    unexpected: Callable[[str, BaseException], None],
) -> Any:
    """Run a step, as often as its `retry` allows; gives its outputs, None when it was skipped.

    `reads` is told the files that it is about to read, `unexpected` a bug with its place.

    Raises:
        StepFailed: it did not succeed.
        Stopped: nothing else will succeed either.
    """
    if is_skipped(step, scope):
        return None
    n_refused = 0
    for turn in itertools.count():
        try:
            return await _once(step, scope, _asking(step, scope, tools(), n_refused), reads)
        except StepSkipped:
            return None
        except (StepError, EngineError) as error:
            _stop_if_hopeless(error, step)
            cause = cause_of(error)
            if turn >= times(step.retry, cause):
                raise StepFailed(step.id, str(error), cause=cause) from error
            n_refused += cause == "check"
            await asyncio.sleep(pause_s(cause, turn, step.retry.backoff_s, random.random()))
        except (ExpressionError, BindError, OutsideRoots) as error:
            raise StepFailed(step.id, str(error)) from error
        except LedgerError as error:
            raise Stopped(str(error)) from error
        except (StepFailed, Stopped, BorderReached, PipelineError):  # of what the step runs
            raise
        except (Exception, SystemExit) as error:  # a step's own bug: told, its traceback kept
            unexpected(f"step '{step.id}'", error)
            cause = MISSING if isinstance(error, ModuleNotFoundError) else "other"
            what = f"{type(error).__name__}: {error}"
            raise StepFailed(step.id, what, cause=cause) from error
    raise AssertionError("unreachable")


def is_skipped(step: BoundStep, scope: Scope) -> bool:
    """Tell whether `if` says no, or the step reads more than `skipped` of a skipped one.

    Raises:
        StepFailed: the condition cannot be evaluated.
    """
    if reads_skipped(step.references, scope):
        return True
    if step.if_ is None:
        return False
    try:
        return not step.if_.evaluate(scope)
    except ExpressionError as error:
        raise StepFailed(step.id, str(error)) from error


def reads_skipped(references: frozenset[tuple[str, ...]], scope: Scope) -> bool:
    """Tell whether one of these references needs the outputs of a skipped step."""
    return any(
        path[0] == "steps"
        and len(path) > 1
        and path[2:3] != ("skipped",)
        and scope.is_skipped(path[1])
        for path in references
    )


def _asking(step: BoundStep, scope: Scope, tools: Tools, n_refused: int) -> Tools:
    """Give the tools of one try: what its answer must be, and how often it was refused."""
    if step.reply is not None:
        tools = replace(tools, reply=AskedFor(step.reply, scope))
    return replace(tools, n_refused=n_refused) if n_refused else tools


async def _once(
    step: BoundStep, scope: Scope, tools: Tools, reads: Callable[[Sequence[str]], None]
) -> Any:
    params = step.params.render(scope)
    kind = step.kind()
    reads(kind.reads(params))
    # A model's time counts from when the pool takes the request, so the pool enforces it.
    limit_s = None if step.kind.roles else step.timeout.total_s
    try:
        async with time_limit(limit_s):
            output = await kind.run(params, tools)
    except TimeoutError as error:
        if limit_s is None:
            raise
        raise DeadlineExceeded("total", limit_s) from error
    outputs = output.model_dump(mode="json")
    if step.returns is None:
        return outputs
    return step.returns.render(scope.with_step(step.id, outputs))


def cause_of(error: StepError | EngineError) -> str:
    """Give the word by which `retry.on` names an error."""
    if isinstance(error, StepError):
        return error.kind
    if isinstance(error, DeadlineExceeded):
        return "timeout"
    if isinstance(error, WorkerLost):
        return "worker"
    return "busy" if isinstance(error, Busy) else "other"


def _stop_if_hopeless(error: StepError | EngineError, step: BoundStep) -> None:
    is_fatal = error.is_fatal if isinstance(error, StepError) else False
    if is_fatal or isinstance(error, HOPELESS):
        at = f"{step.mark.file}:{step.mark.line}:{step.mark.column}: "
        raise Stopped(f"{at if isinstance(error, UNFIT) else ''}{error}") from error
