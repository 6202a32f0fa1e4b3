"""Webhook calls that become runs: stored first, then submitted; many that wait are one run.

A call is acknowledged when `webhook_queue` has it on the disk.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from paddock.pipelines.errors import PipelineError

from .run_manager import Deployment, RunManager
from .webhook_queue import AcceptedCall, CallReceipt, WebhookQueue
from .webhooks import MOST_INPUT_BYTES, WebhookQueueFull

MOST_HANDED_OVER = 50
"""Waiting runs of a pipeline in Prefect at which its webhook calls stay in their own table."""
MOST_TOGETHER = 200
"""Calls of one run. A run of its own costs Prefect and a process 1 to 3 s of processor time."""

MOST_LOOKED_AT = 500


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
        self._calls = calls

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
                continue
            n_free = MOST_HANDED_OVER - self._run_manager.n_waiting(deployment)
            if n_free <= 0:
                continue
            if deployment.triggered.rule.on_conflict != "queue":
                for call in await self._calls.oldest(key, n_free):
                    await self._submit_calls(deployment, [call])
                continue
            waiting = self._waiting_groups(deployment)
            group_of = partial(_group_of, deployment)
            for some in calls_together(await self._calls.oldest(key, MOST_LOOKED_AT), group_of):
                # The others wait here, to be one run when this one has begun.
                if (some[0].trigger, group_of(some[0])) not in waiting and n_free > 0:
                    n_free -= 1
                    await self._submit_calls(deployment, some)

    def _waiting_groups(self, deployment: Deployment) -> set[tuple[str, str]]:
        """Return triggers and groups of a pipeline's runs that have not begun."""
        runs = (run for run in self._run_manager.queue if run.deployment == deployment.id)
        return {
            (str(run.order.get("trigger")), _group_or_own(deployment, run.order.get("inputs")))
            for run in runs
        }

    async def _submit_calls(self, deployment: Deployment, calls: Sequence[AcceptedCall]) -> None:
        first = calls[0]
        extra: dict[str, Any] = {}
        if calls[1:]:
            extra["calls"] = [{"id": call.id, "inputs": dict(call.inputs)} for call in calls]
        made = await self._run_manager.submit(
            deployment,
            first.trigger,
            f"{deployment.id}:{first.id}",
            inputs=dict(first.inputs),
            at=datetime.fromtimestamp(first.received_at, UTC),
            words="called by its webhook",
            **extra,
        )
        # After a crash it may be the run that was made before, with fewer calls.
        taken = {str(call["id"]) for call in made.order.get("calls") or ()} | {first.id}
        await self._calls.queued([call for call in calls if call.id in taken], made.id)
        if made.phase == "waiting":
            self._run_manager.queue.append(made)
        self._run_manager.wake.set()


def _group_of(deployment: Deployment, call: AcceptedCall) -> str:
    return _group_or_own(deployment, call.inputs)


def _group_or_own(deployment: Deployment, inputs: Mapping[str, Any] | None) -> str:
    """Return the concurrency group of a run; one whose inputs are no longer right has its own."""
    try:
        return deployment.triggered.group(inputs or {})
    except PipelineError:
        return f"inputs {json.dumps(dict(inputs or {}), sort_keys=True)}"
