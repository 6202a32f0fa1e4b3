"""Reconcile deployments, planned cron runs, watches and webhooks with the pipeline files."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.triggers import WebhookKeys
from paddock.runner.config import pipeline_secrets
from paddock.runner.core.concurrency_groups import rendered_value
from paddock.runner.core.run_options import RunOptions
from paddock.runner.workers.pipeline_flow import flow_of

from .folder_locks import FolderLocks
from .prefect_queue import PrefectQueue
from .run_manager import Deployment, RunManager
from .schedule_planner import SchedulePlanner
from .triggered_pipeline import TriggeredPipeline
from .watch_manager import WatchManager
from .webhook_queue import AcceptedCall, CallReceipt, WebhookQueue
from .webhooks import MOST_INPUT_BYTES, WebhookQueueFull, Webhooks, webhook_table

log = logging.getLogger("paddock.up")


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


class Reconciler:
    """Keeps the pipelines in service, with their schedules, watches and webhooks."""

    def __init__(
        self,
        queue: PrefectQueue,
        run_manager: RunManager,
        watching: WatchManager,
        folder_locks: FolderLocks,
        calls: WebhookQueue,
        *,
        is_open: bool,
    ) -> None:
        """`is_open`: other machines can reach the address for webhooks."""
        self.hooks = Webhooks(self._called)
        self.planner = SchedulePlanner(queue, run_manager)
        self.watching = watching
        self._prefect_queue = queue
        self._run_manager = run_manager
        self._folder_locks = folder_locks
        self._calls = calls
        self._is_open = is_open
        self._warned: set[str] = set()

    async def reconcile(
        self, served: Mapping[str, TriggeredPipeline], *, is_forced: bool = False
    ) -> None:
        """Put these pipelines in service, and no others; `is_forced`: even those that seem to be.

        Raises:
            QueueError: Prefect is away; another call does the rest.
        """
        deployments = self._run_manager.deployments
        for key in [key for key in deployments if key not in served]:
            await self._withdraw(deployments[key], served)
        for key, triggered in served.items():
            if is_forced or key not in deployments or deployments[key].triggered is not triggered:
                await self._put(key, triggered)
        self.serve_hooks([deployment.triggered for deployment in deployments.values()])

    def serve_hooks(self, triggered: Sequence[TriggeredPipeline]) -> None:
        """Accept webhook calls of these pipelines, and no others; not all are in service yet."""
        hooks, paths = webhook_table(triggered, self._secret)
        self.hooks.hooks = hooks
        for words in paths:
            self.warn(words)

    def warn(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            log.warning("%s", words)

    async def _put(self, key: str, triggered: TriggeredPipeline) -> None:
        """Put a pipeline in service, or replace its old form."""
        deployments, pipeline = self._run_manager.deployments, triggered.pipeline
        schema = None
        try:
            flow = flow_of(triggered.file, RunOptions(text=triggered.text))
            schema = flow.parameters.model_dump()
        except Exception as error:  # of Prefect or Pydantic; its runs say so as well
            self.warn(f"{key}: Prefect's form for a run does not show its inputs: {error}")
        made = await self._prefect_queue.deploy(
            key, pipeline.name, triggered.version, pipeline.description, schema
        )
        old, deployment = deployments.get(key), Deployment(triggered, made)
        if old is not None and old.id != made:  # it has another name now
            await self._prefect_queue.undeploy(old.id)
        await self.planner.forget(deployment, await self._prefect_queue.open_runs([made]))
        deployments[key] = deployment
        await self.watching.put(deployment)

    async def _withdraw(
        self, deployment: Deployment, served: Mapping[str, TriggeredPipeline]
    ) -> None:
        """Take a pipeline out of service; a running run continues to its end."""
        key = deployment.triggered.key
        await self.watching.drop(key)
        for run in await self._prefect_queue.open_runs([deployment.id]):
            if run.phase == "waiting":
                await self._run_manager.skip_run(run, deployment, "its pipeline no longer exists")
        await self._prefect_queue.undeploy(deployment.id)
        self._run_manager.deployments.pop(key, None)
        folder = deployment.triggered.file.parent.resolve()
        if not any(pipeline.file.parent.resolve() == folder for pipeline in served.values()):
            self._folder_locks.release(folder)

    async def forget_gone(self, folders: Sequence[Path]) -> None:
        """Delete deployments of files below our folders that no longer exist.

        Raises:
            QueueError: Prefect is away.
        """
        for id_, file in (await self._prefect_queue.deployments()).items():
            if await asyncio.to_thread(_is_file_gone, Path(file), folders):
                await self._prefect_queue.undeploy(id_)

    async def _called(self, call: AcceptedCall) -> CallReceipt:
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

    def _secret(self, triggered: TriggeredPipeline, webhook: WebhookKeys) -> str | None:
        at = ("on", "webhook", triggered.webhooks.index(webhook), "secret")
        if webhook.secret is None:
            if not self._is_open:
                return None
            what = f"webhook '{webhook.path}' has no secret, and other machines may call it."
            raise PipelineError([Fault(what, "Add a `secret`.", triggered.pipeline.mark(at[:-1]))])
        scope: dict[str, object] = {"inputs": {}}
        if "secrets" in webhook.secret:
            scope["secrets"] = pipeline_secrets.read_secrets(triggered.pipeline, os.environ).values
        return str(rendered_value(triggered.pipeline, webhook.secret, scope, at))


def _group_of(deployment: Deployment, call: AcceptedCall) -> str:
    return _group_or_own(deployment, call.inputs)


def _group_or_own(deployment: Deployment, inputs: Mapping[str, Any] | None) -> str:
    """Return the concurrency group of a run; one whose inputs are no longer right has its own."""
    try:
        return deployment.triggered.group(inputs or {})
    except PipelineError:
        return f"inputs {json.dumps(dict(inputs or {}), sort_keys=True)}"


def _is_file_gone(file: Path, folders: Sequence[Path]) -> bool:
    """Return whether a file is gone rather than its whole folder."""
    is_ours = any(file.is_relative_to(folder.absolute()) for folder in folders)
    return is_ours and not file.exists() and file.parent.exists()
