"""Reconcile deployments, planned cron runs, watches and webhooks with the pipeline files."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from paddock.engine.system.text import counted
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.triggers import WebhookKeys
from paddock.runner.config import pipeline_secrets
from paddock.runner.core.other_runs.group_names import rendered_value
from paddock.runner.core.run_options import RunOptions
from paddock.runner.workers.pipeline_flow import flow_of

from .folder_locks import FolderLocks
from .prefect_queue import PrefectQueue, QueueError
from .run_manager import Deployment, RunManager
from .schedule_planner import SchedulePlanner
from .triggered_pipeline import TriggeredPipeline
from .watch_manager import WatchManager
from .webhook_queue import WebhookQueueBroken
from .webhook_runs import WebhookRuns, takes_call
from .webhooks import Webhooks, webhook_table

log = logging.getLogger("paddock.up")


class Reconciler:
    """Keeps the pipelines in service, with their schedules, watches and webhooks."""

    def __init__(
        self,
        queue: PrefectQueue,
        run_manager: RunManager,
        watching: WatchManager,
        folder_locks: FolderLocks,
        webhook_runs: WebhookRuns,
        *,
        is_open: bool,
    ) -> None:
        """`is_open`: other machines can reach the address for webhooks."""
        self.hooks = Webhooks(webhook_runs.accept)
        self.planner = SchedulePlanner(queue, run_manager)
        self.watching = watching
        self._prefect_queue = queue
        self._run_manager = run_manager
        self._webhook_runs = webhook_runs
        self._folder_locks = folder_locks
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
        with suppress(WebhookQueueBroken):  # the status says so; the next change looks again
            await self._webhook_runs.pipelines_changed()

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
        if old is not None:  # with another name it is another deployment
            what = "its pipeline has changed"
            is_gone = old.id != made
            new = None if is_gone else triggered
            await self._end_runs(old.id, old, what, is_gone=is_gone, triggered=new)
        await self.planner.forget(deployment, await self._prefect_queue.open_runs([made]))
        deployments[key] = deployment
        await self.watching.put(deployment)

    async def _withdraw(
        self, deployment: Deployment, served: Mapping[str, TriggeredPipeline]
    ) -> None:
        """Take a pipeline out of service; a running run continues to its end."""
        key = deployment.triggered.key
        await self.watching.drop(key)
        await self._end_runs(deployment.id, deployment, "its pipeline no longer exists")
        self._run_manager.deployments.pop(key, None)
        folder = deployment.triggered.file.parent.resolve()
        if not any(pipeline.file.parent.resolve() == folder for pipeline in served.values()):
            self._folder_locks.release(folder)

    async def _end_runs(
        self,
        id_: str,
        deployment: Deployment | None,
        words: str,
        *,
        is_gone: bool = True,
        triggered: TriggeredPipeline | None = None,
    ) -> None:
        """Delete a deployment with the runs that wait; accepted webhook calls of these are kept.

        If it is not gone, only the runs of such calls end that `triggered`, the pipeline as its
        file is now, does not take.
        """
        for run in await self._prefect_queue.open_runs([id_]):
            is_taken = triggered is not None and takes_call(triggered, run.order)
            if is_taken or not self._run_manager.is_left(run):
                continue
            try:
                n = await self._webhook_runs.take_back(run)
            except WebhookQueueBroken as error:
                raise QueueError(str(error)) from error  # as Prefect's absence: tried again
            why = f"{words}; {counted(n, 'webhook call')} kept" if n else words
            if not (is_gone or n):
                continue
            if deployment is not None:
                await self._run_manager.skip_run(run, deployment, why)
            else:
                await self._prefect_queue.finish(run.id, "skipped", why)
        if is_gone:
            await self._prefect_queue.undeploy(id_)

    async def forget_gone(
        self, folders: Sequence[Path], served: Mapping[str, TriggeredPipeline]
    ) -> None:
        """Delete deployments of files below our folders that no longer exist.

        Accepted webhook calls of those, and of files that are not in service, are kept.

        Raises:
            QueueError: Prefect is away.
        """
        for id_, file in (await self._prefect_queue.deployments()).items():
            is_ours = any(Path(file).is_relative_to(folder.absolute()) for folder in folders)
            if not is_ours or file in served:
                continue
            is_there, has_folder = await asyncio.to_thread(
                lambda path: (path.exists(), path.parent.exists()), Path(file)
            )
            is_gone = has_folder and not is_there
            await self._end_runs(id_, None, "its pipeline is not in service", is_gone=is_gone)

    def _secret(self, triggered: TriggeredPipeline, webhook: WebhookKeys) -> str | None:
        at = ("on", "webhook", triggered.webhooks.index(webhook), "secret")
        if webhook.secret is None:
            if not self._is_open:
                return None
            what = f"webhook '{webhook.path}' has no secret, and other machines may call it."
            raise PipelineError.of(what, "Add a `secret`.", triggered.pipeline.mark(at[:-1]))
        scope: dict[str, object] = {"inputs": {}}
        if "secrets" in webhook.secret:
            scope["secrets"] = pipeline_secrets.read_secrets(triggered.pipeline, os.environ).values
        return str(rendered_value(triggered.pipeline, webhook.secret, scope, at))
