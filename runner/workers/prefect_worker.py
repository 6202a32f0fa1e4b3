"""Prefect worker that carries out only runs that Paddock signed.

Prefect's own worker runs any command, environment and code that a deployment or a work pool names:
every client of Prefect's API could run code on every machine. This one calls a fixed function for
each run, which verifies the signature of its order with the key of the common ledger and carries
out the pipeline's flow. Its process is forked from one that has imported everything: a new
interpreter takes 4 s of processor time for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from . import queued_run  # sets what Prefect reads when it is imported, so it comes first

# isort: split

import anyio.abc
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import refresh_global_settings_context
from prefect.engine import handle_engine_signals
from prefect.flow_engine import load_flow_run, run_flow
from prefect.flows import Flow
from prefect.runner import _starter_engine, runner
from prefect.settings import PREFECT_WORKER_HEARTBEAT_SECONDS, PREFECT_WORKER_PREFETCH_SECONDS
from prefect.states import Failed
from prefect.utilities.processutils import setup_signal_handlers_worker
from prefect.workers import process

from paddock.pipelines.errors import PipelineError
from paddock.runner.daemon.run_signatures import SIGNATURE, signer_for
from paddock.runner.progress.prefect_view import REFUSED, SHARE_TAG
from paddock.runner.settings import read_settings

from .delegation import WORKER_LABEL, failure_message
from .flow_order import FlowOrder, order_of, without_defaults
from .run_in_flow import send_what_is_shown

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.client.schemas.responses import WorkerFlowRunResponse

MODULE = "paddock.runner.workers.prefect_worker"
NOT_SIGNED = (
    "It was not put into the queue by `paddock up` or `paddock cluster run`, or its "
    "parameters were changed since. Machines whose runs are refused use another ledger."
)

log = logging.getLogger(__name__)


class FixedCommandConfiguration(process.ProcessJobConfiguration):
    """Starts a run's process as set here, whatever the deployment and the work pool say."""

    def prepare_for_flow_run(self, flow_run: FlowRun, *positional: Any, **named: Any) -> None:
        """Set command, folder and environment; the command is not used, see `_run_forked`."""
        self.command = MODULE
        self.working_dir = None
        self.env = {}
        super().prepare_for_flow_run(flow_run, *positional, **named)


class SignedRunWorker(process.ProcessWorker):
    """Takes runs from a work pool of type `process`.

    It takes one share of a job at a time, and none of a job that this machine has refused.
    """

    job_configuration = FixedCommandConfiguration
    _jobs: Mapping[UUID, str] = {}
    """The jobs of the shares that it was offered last, by the ids of their flow runs."""

    async def _submit_scheduled_flow_runs(
        self, flow_run_response: list[WorkerFlowRunResponse]
    ) -> list[FlowRun]:
        busy, taken = self.limiter.statistics().borrowers, set[str]()
        if any(SHARE_TAG in entry.flow_run.tags for entry in flow_run_response):
            shares = FlowRunFilter.model_validate(
                {"tags": {"all_": [SHARE_TAG]}, "state": {"name": {"any_": [REFUSED]}}}
            )
            newest = FlowRunSort.EXPECTED_START_TIME_DESC
            for run in await self.client.read_flow_runs(flow_run_filter=shares, sort=newest):
                if run.labels.get(WORKER_LABEL) == self.name:
                    taken.add(_job_of(run))
        offered = {run: job for run, job in self._jobs.items() if run in busy}
        taken.update(offered.values())
        entries = []
        for entry in flow_run_response:
            run, is_share = entry.flow_run, SHARE_TAG in entry.flow_run.tags
            if is_share and _job_of(run) in taken:
                continue
            entries.append(entry)
            if is_share:
                offered[run.id] = _job_of(run)
                taken.add(_job_of(run))
        self._jobs = offered
        return await super()._submit_scheduled_flow_runs(entries)


def _job_of(share: FlowRun) -> str:
    return str(order_of(share.parameters).get("job"))


async def serve(pool: str, name: str, max_runs: int) -> None:
    # Prefect would load the deployment's code for crash hooks; this does not.
    for module in (process, runner):
        module.load_flow_from_flow_run = _without_hooks  # type: ignore[attr-defined]
    _starter_engine.run_process = _run_forked  # type: ignore
    worker = SignedRunWorker(
        name=name,
        work_pool_name=pool,
        limit=max_runs,
        prefetch_seconds=PREFECT_WORKER_PREFETCH_SECONDS.value(),
        heartbeat_interval_seconds=int(PREFECT_WORKER_HEARTBEAT_SECONDS.value()),
    )
    setup_signal_handlers_worker(os.getpid(), f"the worker {name}", log.info)
    with contextlib.suppress(asyncio.CancelledError):
        await worker.start()


async def _without_hooks(*_: object, **__: object) -> Flow[..., Any]:
    return Flow(_without_hooks)


class _ForkedRun:
    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode


async def _run_forked(
    *,
    env: Mapping[str, str],
    cwd: Path,
    task_status: anyio.abc.TaskStatus[Any],
    task_status_handler: Callable[[Any], Any],
    **_: Any,
) -> None:
    """Carry out a run in a process of its own, in place of Prefect's `run_process`."""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_run_in_fork, args=(dict(env), str(cwd)), daemon=False)
    await asyncio.to_thread(process.start)
    task_status.started(task_status_handler(_ForkedRun(process)))
    await queued_run.wait_until_ended(process)


def _run_in_fork(environ: dict[str, str], folder: str) -> None:
    queued_run.take_interrupts()
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    refresh_global_settings_context()
    try:
        run_in_this_process(UUID(environ["PREFECT__FLOW_RUN_ID"]))
    finally:
        send_what_is_shown()


def run_in_this_process(flow_run: UUID) -> None:
    """Carry out one run in this process, or refuse it."""
    with contextlib.suppress(ImportError):  # how Prefect's worker signals a cancellation
        from prefect._internal.control_listener import configure_from_env

        configure_from_env()
    with handle_engine_signals(flow_run):
        found = load_flow_run(flow_run_id=flow_run)
        settings = read_settings()  # not those next to the pipeline, whose path is not verified yet
        signer = signer_for(settings.state_dir, settings.ledger_url)
        queued_run.use_server()
        order = without_defaults(order_of(found.parameters))
        words = NOT_SIGNED
        if signer.has_signed(order, found.idempotency_key or ""):
            order.pop(SIGNATURE)
            try:
                asyncio.run(
                    queued_run.run_ordered(found, FlowOrder(**order), queued_run.RunControl())
                )
            except PipelineError as error:
                words = failure_message(error, socket.gethostname())
            else:
                return

        async def refuse() -> State[Any]:
            return Failed(name=REFUSED, message=words)

        plain = found.model_copy(update={"parameters": {}})  # which others may have written
        refusal: Any = run_flow(Flow(refuse), flow_run=plain, parameters={}, return_type="state")
        asyncio.run(refusal)


def main() -> None:
    """Be the worker, with the arguments `POOL NAME LIMIT`."""
    pool, name, max_runs = sys.argv[1:]
    queued_run.start_fork_server(MODULE, "paddock.runner.ledger.sharing.coordination")
    asyncio.run(serve(pool, name, int(max_runs)))
