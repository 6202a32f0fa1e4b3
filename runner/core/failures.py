"""Failures of a step, an item, a run; retries in the run and by the next one.

A failure is transient where another try may succeed with nothing changed: a time-out, a lost
worker, a full queue, a busy machine, a disk or network folder that failed. A fault of the
document itself is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

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
    TrialTimeout,
    WorkerLost,
)
from paddock.pipelines.keys import RetryKeys
from paddock.runner.progress.item_states import ItemState, Phase
from paddock.runner.progress.reasons import Reason
from paddock.steps.base import StepError

FATAL_ERRORS = (ModelNotFound, ModelBroken, ModelReplaced, ModelTooLarge, ModelUnusable, NoServer)
"""Errors that every other item would meet."""

UNUSABLE_MODEL_ERRORS = (ModelNotFound, ModelBroken, ModelTooLarge)
"""Those that another model in the YAML would fix."""
MAX_RETRY_PAUSE_S = 60.0
# A full queue is not the document's fault: by default it is retried for 1 + 2 + 4 + 8 + 16 s.
MAX_BUSY_RETRIES, DEFAULT_BACKOFF_S = 5, 1.0


class Cause(StrEnum):
    """Why a step or an item failed. `retry.on` names the first five."""

    TIMEOUT = "timeout"
    WORKER = "worker"
    BUSY = "busy"
    """The model's queue is full, or the machine is busy."""
    IO = "io"
    """A disk, a network folder or a server failed."""
    CHECK = "check"
    """An answer failed its checks."""
    MISSING = "missing"
    """This machine lacks a package or a program; never counted against the item."""
    REVIEW = "review"
    """A review is due, and the run was told to ask no one; the next run may."""
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Cause:
        return cls.OTHER  # of a step of another package

    @property
    def is_transient(self) -> bool:
        return self in (Cause.TIMEOUT, Cause.WORKER, Cause.BUSY, Cause.IO)


# How a pause grows with each try. After a deadline the time has passed already, and a failed
# check asks again with its faults: there is nothing to wait for.
_GROWTH: Mapping[Cause, float] = MappingProxyType({Cause.TIMEOUT: 1.0, Cause.CHECK: 0.0})
_DEFAULT_GROWTH = 2.0


class RunStopped(Exception):
    """The run cannot go on: a full disk, a missing model, a ledger that cannot be written."""


class RunFailed(RunStopped):
    """A step or an item failed. In a sub-pipeline, only the item around it fails."""

    def __init__(self, message: str, *, cause: Cause = Cause.OTHER) -> None:
        self.cause = cause
        super().__init__(message)


class StepFailed(Exception):
    """A step did not succeed, after its retries: the sentence names the step."""

    def __init__(self, step: str, reason: str, *, cause: Cause = Cause.OTHER) -> None:
        self.step = step
        self.reason = reason
        self.cause = cause
        super().__init__(f"step '{step}': {reason}")


class ItemWaits(Exception):
    """An item has no result yet: nothing behind the step that has to wait is carried out."""

    def __init__(self, reason: Reason, state: ItemState | None = ItemState.WAITING) -> None:
        """`state`: one of `WAITS`, None if the run was told to ask no one."""
        self.reason = reason
        self.state = state
        super().__init__(str(reason))

    @property
    def phase(self) -> Phase:
        return Phase.UNASKED if self.state is None else Phase.WAITING


class OutputTaken(StepError):
    """A step would write a path of another item: its own item waits."""

    def __init__(self, why: Reason) -> None:
        self.why = why
        super().__init__(f"{why}.")


class SkippedByReview(StepFailed):
    """No one decided in time, and `on_expiry` says that the item is skipped."""


def max_retries(retry: RetryKeys | None, cause: Cause) -> int:
    """Return the maximum number of retries of a step for a cause of failure.

    >>> max_retries(None, Cause.BUSY), max_retries(None, Cause.TIMEOUT)
    (5, 0)
    >>> given = RetryKeys.model_validate({"times": 2})
    >>> max_retries(given, Cause.BUSY), max_retries(given, Cause.IO)
    (2, 0)
    """
    if retry is None:
        return MAX_BUSY_RETRIES if cause is Cause.BUSY else 0
    return retry.times if cause in retry.on else 0


def retry_pause_s(retry: RetryKeys | None, cause: Cause, n_retries: int, chance: float) -> float:
    """Return the pause after so many retries; `chance`, 0 to 1, spreads those that failed at once.

    >>> [retry_pause_s(None, Cause.BUSY, n, 1.0) for n in (0, 1, 2, 9)]
    [1.0, 2.0, 4.0, 60.0]
    >>> retry_pause_s(None, Cause.BUSY, 2, 0.0)
    2.0
    >>> [retry_pause_s(None, cause, 2, 1.0) for cause in (Cause.TIMEOUT, Cause.CHECK)]
    [1.0, 0.0]
    """
    backoff_s = DEFAULT_BACKOFF_S if retry is None else retry.backoff
    growth = _GROWTH.get(cause, _DEFAULT_GROWTH)
    whole = min(backoff_s * growth**n_retries, MAX_RETRY_PAUSE_S) if growth else 0.0
    return whole * (0.5 + chance / 2)


def cause_of(error: StepError | EngineError) -> Cause:
    if isinstance(error, StepError):
        return Cause(error.kind)
    if isinstance(error, DeadlineExceeded) or (isinstance(error, TrialTimeout) and error.is_costly):
        return Cause.TIMEOUT
    if isinstance(error, WorkerLost):
        return Cause.WORKER
    return Cause.BUSY if isinstance(error, Busy) else Cause.OTHER


def failure_state(n_before: int, most: int, cause: Cause) -> tuple[ItemState, int]:
    """Return the state of a failed item, and its failures in a row for transient causes.

    `failed` is retried by the next run; `quarantined` only when it, or its steps, have changed, or
    with `--retry-failed`.

    >>> [(str(state), n) for state, n in (failure_state(n, 3, Cause.IO) for n in (1, 2))]
    [('failed', 2), ('quarantined', 3)]
    >>> failure_state(1, 3, Cause.OTHER)[1], failure_state(0, 3, Cause.MISSING)[1]
    (0, 0)
    """
    if cause in (Cause.MISSING, Cause.REVIEW):
        return ItemState.FAILED, n_before
    if not cause.is_transient:
        return ItemState.QUARANTINED, 0
    n_now = n_before + 1
    return (ItemState.QUARANTINED if n_now >= most else ItemState.FAILED), n_now
