"""Run a step for one item: its tries, its larger model, what a person decides on its answer."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from random import SystemRandom
from typing import Any

from paddock.engine.errors import DeadlineExceeded, EngineError
from paddock.engine.system.os_errors import is_transient
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.bind.bound import BoundStep
from paddock.runner.bind.parameters import RenderError
from paddock.runner.bind.plan_walks import only_reads
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.trust.command_words import refuse_misplaced
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.progress.drain import StopGateClosed
from paddock.runner.progress.item_states import ItemState
from paddock.steps.base import OutsideRoots, StepError, StepSkipped, SubPipelines
from paddock.steps.param_types import CommandParam, InputFolder
from paddock.steps.paths import os_refusal

from .calls.recorded_calls import PutOff
from .failures import (
    FATAL_ERRORS,
    UNUSABLE_MODEL_ERRORS,
    Cause,
    ItemWaits,
    OutputTaken,
    RunStopped,
    StepFailed,
    cause_of,
    max_retries,
    retry_pause_s,
)
from .item_attempt import ItemAttempt, StepAttempt
from .run_context import RunContext
from .step_answers import StepAnswers
from .step_tools import carry_out, item_tools, limit_s
from .traces.dependencies import note_listing
from .walk import step_outputs

SubPipelinesFor = Callable[[StepAttempt], SubPipelines]
_OF_INNER = (StepFailed, RunStopped, StopGateClosed, PipelineError, ItemWaits, PutOff)
"""What a pipeline that a step runs may end with."""


class StepRunner:
    def __init__(self, context: RunContext, sub_pipelines: SubPipelinesFor | None = None) -> None:
        """`sub_pipelines`: None while planning, where the pipelines of steps do not run."""
        self.context = context
        self._sub_pipelines = sub_pipelines

    @cached_property
    def _answers(self) -> StepAnswers:
        return StepAnswers(self.context)

    async def run(self, step: BoundStep, scope: Scope, item: ItemAttempt) -> Any:
        """Run a step with its retries; return its outputs, None if it skipped itself.

        1. It is noted as begun, with the answers to it that a person has rejected.
        2. Its tools. Its parameters; the files that they name are marked before it reads them.
        3. What it makes, where its answer is looked at as `StepAnswers` has it; its `returns`.
        4. It failed: 2 and 3 are tried again, or not (`_cause_of_retry`).
        5. A folder that it listed for this item alone is marked.

        Raises:
            StepFailed: it did not succeed.
            RunStopped: nothing else will succeed.
            ItemWaits, PutOff, StopGateClosed, PipelineError: of it, or of what it runs.
        """
        context, result = self.context, None
        with self._recorded(StepAttempt.begin(context, step, scope, item)) as attempt:  # 1
            if step.has_answer:
                attempt.n_refused = self._answers.n_rejected(attempt)
            if (kept := item.kept.get(step.id)) is not None:
                return kept
            for n_retries in itertools.count():
                try:
                    tools = item_tools(attempt, item.outputs)  # 2
                    if step.inner is not None and self._sub_pipelines is not None:
                        calls = replace(tools.calls, pipelines=self._sub_pipelines(attempt))
                        tools = replace(tools, calls=calls)
                    params = step.params.render(scope)
                    if step.untrusted and step.has(CommandParam):
                        refuse_misplaced(step, scope)
                    await item.note_files(context, step.kind().reads(params), tools.files.roots)
                    if step.has_answer:
                        outputs = await self._answers.outputs(attempt, params, tools)  # 3
                    else:
                        outputs = (await carry_out(step, params, tools)).model_dump(mode="json")
                    attempt.record.note_answer(outputs)
                    result = step_outputs(step, scope, outputs)
                    break
                except StepSkipped:
                    break
                except _OF_INNER:
                    raise
                except (Exception, SystemExit) as error:  # 4: of any kind, also a bug
                    cause = self._cause_of_retry(attempt, error, n_retries)
                    attempt.n_refused += cause is Cause.CHECK
                    chance = SystemRandom().random()
                    await asyncio.sleep(retry_pause_s(step.retry, cause, n_retries, chance))
            if item.is_of_item and step.has(InputFolder) and result is not None:  # 5
                files = None if step.returns is not None else result["files"]
                params, roots = step.params.render(scope), context.bound.roots
                owned = context.index.owned(roots.base) if files is None else frozenset()
                noted, world = item.dependencies, context.world
                await asyncio.to_thread(note_listing, noted, world, params, files, roots, owned)
            attempt.record.state = "skipped" if result is None else "done"
        return result

    @contextmanager
    def _recorded(self, attempt: StepAttempt) -> Iterator[StepAttempt]:
        step, item, record, stats = attempt.step, attempt.item, attempt.record, self.context.stats
        since = time.monotonic()
        if step.kind.roles:
            stats.item_state(item.node.id, item.shown_key, ItemState.RUNNING, step.id)
        item.callers.append(attempt.caller)
        item.steps.append(record)
        try:
            yield attempt
        except ItemWaits:  # it is done, but for what a person decides
            record.state = "done"
            raise
        except (StepFailed, RunStopped, PipelineError):
            record.state = "failed"
            raise
        finally:
            record.seconds = round(time.monotonic() - since, 4)
            stats.add_step(record)
            if step.inner is None and (not only_reads(step) or any(step.facts.tools(step.written))):
                stats.effect_times.append((record.began, time.time()))

    def _cause_of_retry(self, attempt: StepAttempt, error: BaseException, n_retries: int) -> Cause:
        """Return the cause by which a step is tried again, as its `retry` says.

        Raises:
            StepFailed: it is not.
            ItemWaits: what it writes is another item's.
            RunStopped: every other item would meet the error, too.
        """
        if isinstance(error, OutputTaken):
            raise ItemWaits(error.why, ItemState.BLOCKED) from error
        step, most_s = attempt.step, limit_s(attempt.step)
        if isinstance(error, TimeoutError) and most_s is not None:
            error = DeadlineExceeded("total", most_s)
        if isinstance(error, OSError) and is_transient(error):
            error = os_refusal("the step failed", error)
        if isinstance(error, StepError | EngineError):
            is_fatal = isinstance(error, StepError) and error.is_fatal
            if is_fatal or isinstance(error, FATAL_ERRORS):
                at = f"{step.mark.file}:{step.mark.line}:{step.mark.column}: "
                place = at if isinstance(error, UNUSABLE_MODEL_ERRORS) else ""
                raise RunStopped(f"{place}{error}") from error
            cause = cause_of(error)
            if n_retries < max_retries(step.retry, cause):
                return cause
            raise StepFailed(step.id, str(error), cause=cause) from error
        if isinstance(error, ExpressionError | RenderError | OutsideRoots):
            raise StepFailed(step.id, str(error)) from error
        damage = error if isinstance(error, LedgerError) else None
        if (damage := damage or self.context.ledger.damage_behind(error)) is not None:
            raise RunStopped(str(damage)) from error
        self.context.stats.log_unexpected_error(
            f"{attempt.item.shown_key}, step '{step.id}'", error
        )
        is_missing = isinstance(error, ModuleNotFoundError)
        cause, why = Cause.MISSING if is_missing else Cause.OTHER, type(error).__name__
        raise StepFailed(step.id, f"{why}: {error}", cause=cause) from error
