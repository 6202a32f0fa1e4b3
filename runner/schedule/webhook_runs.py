"""Webhook calls that become runs: stored first, then submitted; many that wait are one run.

A call is acknowledged when `webhook_queue` has it on the disk. It runs then, or is kept and
reported, whatever becomes of the pipeline's file.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paddock.engine.system.text import counted
from paddock.pipelines.errors import PipelineError

from .prefect_queue import QueuedRun
from .run_manager import Deployment, RunManager
from .triggered_pipeline import TriggeredPipeline
from .webhook_queue import AcceptedCall, CallReceipt, WebhookQueue, WebhookQueueBroken
from .webhooks import MOST_INPUT_BYTES, WebhookQueueFull, trigger_of

log = logging.getLogger("paddock.up")

MOST_HANDED_OVER = 50
"""Waiting runs of a pipeline in Prefect at which its webhook calls stay in their own table."""
MOST_TOGETHER = 200
"""Calls of one run. A run of its own costs Prefect and a process 1 to 3 s of processor time."""

MOST_LOOKED_AT = 500
_DONE = ("completed", "quarantined", "failed")
"""Statuses of runs that came to their own end."""


def calls_together(
    calls: Sequence[AcceptedCall], group_of: Callable[[AcceptedCall], str]
) -> list[list[AcceptedCall]]:
    """Return the calls that can be one run: of one trigger and concurrency group, in their order.

    Runs of one group go one after the other in any case. Prefect takes a bounded size.
    """
    found: dict[tuple[str, str], list[AcceptedCall]] = {}
    sizes = Counter[tuple[str, str]]()
    full: set[tuple[str, str]] = set()
    for call in calls:
        kind = (call.trigger, group_of(call))
        size = len(json.dumps(dict(call.inputs))) + len(call.id)
        some = found.setdefault(kind, [])
        is_full = len(some) >= MOST_TOGETHER or sizes[kind] + size > MOST_INPUT_BYTES / 2
        if some and (is_full or kind in full):
            full.add(kind)  # a later small one must not come before
            continue
        some.append(call)
        sizes[kind] += size
    return list(found.values())


class WebhookRuns:
    """Takes webhook calls, and makes runs of them."""

    def __init__(self, run_manager: RunManager, calls: WebhookQueue) -> None:
        self._run_manager = run_manager
        self._run_manager.over = self._over
        self._calls = calls
        self._is_known = False
        """Whether the pipelines in service are known."""
        self.kept: dict[str, str] = {}
        """By a pipeline's key: what is to be said about accepted calls that cannot run."""

    async def accept(self, call: AcceptedCall) -> CallReceipt:
        """Store a webhook's call.

        Raises:
            WebhookQueueFull: too many calls of this pipeline wait.
            WebhookQueueBroken: it cannot be written.
        """
        if self._run_manager.is_stopping:
            raise WebhookQueueFull("`paddock up` is stopping.")
        if self._calls.is_full(call.pipeline):
            raise WebhookQueueFull("too many calls of this pipeline wait already.")
        return await self._calls.put(call)

    def call_counts(self) -> dict[str, int]:
        """Return how many accepted calls wait, also in runs that wait, and are in runs at work."""
        served, jobs = self._run_manager.deployments.values(), self._run_manager.jobs.values()
        triggers = {trigger_of(hook) for made in served for hook in made.triggered.webhooks}
        waiting = [*self._run_manager.queue, *(j.tracked for j in jobs if j.running.waits_for)]
        at_work = [job.tracked for job in jobs if not job.running.waits_for]
        n_waiting, n_running = (
            sum(len(run.order.get("calls") or (run,)) for run in runs
                if run.order.get("trigger") in triggers)
            for runs in (waiting, at_work)
        )  # fmt: skip
        total = self._calls.waiting.total() + n_waiting
        return {"calls_waiting": total, "calls_running": n_running}

    async def hand_over(self) -> None:
        """Submit stored calls to Prefect, the oldest first.

        Those that wait together are one run where that changes nothing; calls that a newer one
        replaces, or that are skipped, are runs of their own. A run has the key of its first call,
        so calls that are submitted again after a crash are the same run. Prefect gets a few at a
        time: with hundreds of waiting runs each of its answers takes seconds.

        Raises:
            QueueError: Prefect is away; another call does the rest.
            WebhookQueueBroken: the table cannot be read or written.
        """
        self._calls.arrived.clear()
        for key in [key for key, n in self._calls.waiting.items() if n > 0]:
            deployment = self._run_manager.deployments.get(key)
            if deployment is None:  # its file may come back
                await self._hand_to_heirs(key)
                continue
            n_free = MOST_HANDED_OVER - self._run_manager.n_waiting(deployment)
            if n_free <= 0:
                continue
            if deployment.triggered.rule.on_conflict != "queue":
                for call in await self._oldest(deployment, n_free):
                    await self._submit_calls(deployment, [call])
                continue
            # Triggers and groups of a pipeline's runs that have not begun
            runs = (run for run in self._run_manager.queue if run.deployment == deployment.id)
            waiting = {
                (str(run.order.get("trigger")), _group_or_own(deployment, run.order.get("inputs")))
                for run in runs
            }

            def group_of(call: AcceptedCall, deployment: Deployment = deployment) -> str:
                return _group_or_own(deployment, call.inputs)

            for some in calls_together(await self._oldest(deployment, MOST_LOOKED_AT), group_of):
                # The others wait here, to be one run when this one has begun.
                if (some[0].trigger, group_of(some[0])) not in waiting and n_free > 0:
                    n_free -= 1
                    await self._submit_calls(deployment, some)
        # Report accepted calls that cannot run, each time that they change
        if not self._is_known:
            return
        found = {
            key: f"{counted(n, 'accepted webhook call')} of {key} cannot run: it is not in service."
            for key, n in self._calls.waiting.items()
            if n > 0 and key not in self._run_manager.deployments
        }
        for key, (n, why) in (await self._calls.aside()).items():
            found[key] = f"{counted(n, 'accepted webhook call')} of {key} cannot run: {why}"
        for key, words in found.items():
            if self.kept.get(key) != words:
                log.warning("%s They are kept, and run when its file is as it was.", words)
        self.kept = found

    async def pipelines_changed(self) -> None:
        """Look again at calls that no pipeline took: others are in service now.

        Raises:
            WebhookQueueBroken: the table cannot be written.
        """
        self._is_known = True
        await self._calls.take_up()
        self._calls.arrived.set()

    async def take_back(self, run: QueuedRun) -> int:
        """Put the calls of a flow run back that will not begin; return how many there are.

        Raises:
            WebhookQueueBroken: the table cannot be written.
        """
        return await self._calls.take_back(_root(run))

    async def _oldest(self, deployment: Deployment, n: int) -> list[AcceptedCall]:
        """Return the oldest calls that a pipeline takes; set the others among them aside."""
        calls = await self._calls.oldest(deployment.triggered.key, n)
        refused = [
            (call, why)
            for call in calls
            if (why := _refusal(deployment.triggered, call.trigger, call.inputs)) is not None
        ]
        if refused:
            await self._calls.set_aside(refused)
            self._calls.arrived.set()  # there may be others behind them
        return [call for call in calls if not any(call is other for other, _ in refused)]

    async def _hand_to_heirs(self, key: str) -> None:
        """Move the calls of a file that was renamed or removed to who has their webhooks now."""
        if not self._is_known or await asyncio.to_thread(Path(key).exists):
            return
        for trigger in await self._calls.triggers(key):
            for heir, deployment in self._run_manager.deployments.items():
                if trigger in map(trigger_of, deployment.triggered.webhooks):
                    n = await self._calls.hand_to(heir, key, trigger)
                    calls = counted(n, "accepted call")
                    log.info("%s: %s of %s go to %s", trigger, calls, key, heir)

    async def _over(self, run: QueuedRun, status: str) -> None:
        """Forget the inputs of a run's calls; those that a file which is gone cut off are kept."""
        file = str(run.order.get("path"))
        is_cut_off = status not in _DONE and file not in self._run_manager.deployments
        with suppress(WebhookQueueBroken):  # they are forgotten in a week
            await (self.take_back(run) if is_cut_off else self._calls.ended(_root(run)))

    async def _submit_calls(self, deployment: Deployment, calls: Sequence[AcceptedCall]) -> None:
        first = calls[0]
        key = f"{deployment.id}:{first.id}{f':{first.n_taken_back}' * bool(first.n_taken_back)}"
        extra: dict[str, Any] = {}
        if calls[1:]:
            extra["calls"] = [{"id": call.id, "inputs": dict(call.inputs)} for call in calls]
        made = await self._run_manager.submit(
            deployment,
            first.trigger,
            key,
            inputs=dict(first.inputs),
            at=datetime.fromtimestamp(first.received_at, UTC),
            words="called by its webhook",
            **extra,
        )
        # After a crash it may be the run that was made before, with fewer calls.
        taken = {str(call["id"]) for call in made.order.get("calls") or ()} | {first.id}
        await self._calls.queued([call for call in calls if call.id in taken], _root(made))
        if made.phase == "waiting":
            self._run_manager.queue.append(made)
        self._run_manager.wake.set()


def _root(run: QueuedRun) -> str:
    """Return the first of the flow runs that continued one another."""
    return str(run.order.get("root") or run.id)


def takes_call(triggered: TriggeredPipeline, order: Mapping[str, Any]) -> bool:
    """Return whether a pipeline, as its file is now, takes the calls of a run's order."""
    trigger, calls = str(order.get("trigger")), order.get("calls") or [order]
    return all(_refusal(triggered, trigger, call.get("inputs") or {}) is None for call in calls)


def _refusal(triggered: TriggeredPipeline, trigger: str, inputs: Mapping[str, Any]) -> str | None:
    """Return why a pipeline, as its file is now, does not take a call; None: it does."""
    if trigger not in map(trigger_of, triggered.webhooks):
        return f"its {trigger} is no more."
    try:
        triggered.inputs_from_elsewhere(inputs)
    except PipelineError as error:
        return error.faults[0].message
    return None


def _group_or_own(deployment: Deployment, inputs: Mapping[str, Any] | None) -> str:
    """Return the concurrency group of a run; one whose inputs are no longer right has its own."""
    try:
        return deployment.triggered.group(inputs or {})
    except PipelineError:
        return f"inputs {json.dumps(dict(inputs or {}), sort_keys=True)}"
