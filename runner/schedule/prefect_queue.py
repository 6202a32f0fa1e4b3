"""The queue of unattended runs in Prefect.

Deployments, waiting and running flow runs, their states. One deployment for each pipeline file,
all of one static flow. A waiting run is a scheduled flow run, which survives a restart. Decides
nothing: `dispatch` does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal
from uuid import UUID

import httpx

from paddock.runner.prefect import client_settings  # noqa: F401 - first, see there

# isort: split

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import get_current_settings
from prefect.states import (
    AwaitingConcurrencySlot,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Pending,
    Scheduled,
)

from paddock.runner.daemon.prefect_auth import Signer
from paddock.runner.progress.prefect_view import RUN_TAG, prefect_name
from paddock.runner.workers.delegation import ENTRYPOINT, deployment_name

from .triggered_pipeline import deployed_parameters

ANSWER_S = 30.0  # a server on a busy machine took up to 8 s
PAGE, MOST_READ = 200, 1_000
MOST_NAME_LETTERS = 200
HELD_STATE = "AwaitingConcurrencySlot"
AGAIN_SUFFIX = ":again"
"""Suffix of a run's id: the key of the run that continues it."""

RunPhase = Literal["waiting", "suspended", "running", "cancelling", "ended"]
RunEnd = Literal["", "completed", "budget", "interrupted", "skipped", "failed", "crashed"]
_OPEN = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING,
         StateType.PAUSED]  # fmt: skip


ShownState = Literal[
    "starting", "skipped", "interrupted", "budget", "completed", "failed", "crashed"
]
_STATES: Mapping[ShownState, Callable[..., State[Any]]] = {
    "starting": Pending,
    "skipped": partial(Cancelled, name="Skipped"),
    "interrupted": Cancelled,
    "budget": partial(Completed, name="Budget"),
    "completed": Completed,
    "failed": Failed,
    "crashed": Crashed,
}


class QueueError(Exception):
    """Prefect's API failed; it may be away for a moment."""


class DeletedInPrefect(QueueError):
    """The object was deleted in Prefect."""


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """A flow run in Prefect."""

    id: str
    name: str
    deployment: str
    phase: RunPhase
    shown: str
    """The state's name and message, to be changed only when it differs."""
    at: datetime
    """When it was due first."""
    next_at: datetime
    """When to look at it again."""
    is_held: bool = False
    process: str = ""
    """`host:pid:since:signature` of the process that runs it."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    """Its idempotency key, unique in its flow."""
    end: RunEnd = ""
    """How it ended, as in a report; empty while it has not."""


class PrefectQueue:
    """Client of Prefect's API for what `up` needs. One for each process; lives in its event loop.

    Its values are Prefect's, which others may have written; `triggered_pipeline` decides which
    count.
    """

    def __init__(
        self, api_url: str, signer: Signer, auth_string: str, stack: AsyncExitStack
    ) -> None:
        """Send nothing yet: `move` opens the client, which `stack` closes."""
        self.api_url = api_url
        self._signer = signer
        self._auth_string = auth_string
        self._stack = stack
        self._flows: dict[str, UUID] = {}

    async def move(self, api_url: str) -> None:
        """Use this address from now on: our own server may have restarted at another port.

        The old client stays open until the end, for requests in flight.
        """
        api = get_current_settings().api
        key = api.key.get_secret_value() if api.key and not self._auth_string else None
        theirs = api.auth_string.get_secret_value() if api.auth_string else None
        client = PrefectClient(api_url, api_key=key, auth_string=self._auth_string or theirs)
        self._client = await self._stack.enter_async_context(client)
        self.api_url = api_url

    async def deploy(
        self,
        file: str,
        name: str,
        version: str,
        description: str,
        schema: dict[str, Any] | None = None,
    ) -> str:
        """Make or change the deployment of a pipeline's file; return its id."""
        async with _as_queue_error():
            flow = self._flows.get(name) or await self._client.create_flow_from_name(
                prefect_name(name)
            )
            self._flows[name] = flow
            made = await self._client.create_deployment(
                flow,
                deployment_name(file),
                version=version,
                description=description,
                parameters=deployed_parameters(file),
                tags=[RUN_TAG],
                entrypoint=ENTRYPOINT,
                # Where others use the server, what a person gives in the form is refused.
                parameter_openapi_schema=schema if self._auth_string else None,
                enforce_parameter_schema=False,
            )
        return str(made)

    async def undeploy(self, deployment: str) -> None:
        """Delete a deployment; ignore a missing one."""
        async with _as_queue_error():
            with contextlib.suppress(ObjectNotFound):
                await self._client.delete_deployment(UUID(deployment))

    async def submit(
        self, deployment: str, parameters: Mapping[str, Any], *, key: str, at: datetime, words: str
    ) -> QueuedRun:
        """Sign a run and put it into the queue, or return the one that has this key already.

        Raises:
            DeletedInPrefect: there is no such deployment.
            QueueError: Prefect does not take it now.
        """
        # A run that continues another one was not planned by a schedule.
        trigger = [] if parameters.get("parent") else [str(parameters.get("trigger", ""))]
        async with _as_queue_error():
            made = await self._client.create_flow_run_from_deployment(
                UUID(deployment),
                parameters=self._signer.signed(parameters, key),
                state=Scheduled(scheduled_time=at, message=words),
                idempotency_key=key,
                tags=[RUN_TAG, *trigger],
            )
        return _queued_run(made)

    async def deployments(self) -> dict[str, str]:
        """Return the file of each of our deployments, by its id."""
        found = await self._read_deployments(
            DeploymentFilter(tags=DeploymentFilterTags(all_=[RUN_TAG]))
        )
        return {str(one.id): str(one.parameters.get("path", "")) for one in found}

    async def paused(self, deployments: Collection[str]) -> frozenset[str]:
        """Return which of these deployments a person has paused."""
        ids = DeploymentFilterId(any_=[UUID(one) for one in deployments])
        found = await self._read_deployments(DeploymentFilter(id=ids))
        return frozenset(str(one.id) for one in found if one.paused)

    async def pause(self, deployment: str, *, is_paused: bool) -> None:
        """Hold back the runs of a deployment, or no longer, as a person does on Prefect's page."""
        async with _as_queue_error():
            if is_paused:
                await self._client.pause_deployment(deployment)
            else:
                await self._client.resume_deployment(deployment)

    async def _read_deployments(self, wanted: DeploymentFilter) -> list[DeploymentResponse]:
        found: list[DeploymentResponse] = []
        async with _as_queue_error():
            while True:
                page = await self._client.read_deployments(
                    deployment_filter=wanted, limit=PAGE, offset=len(found)
                )
                found += page
                if len(page) < PAGE:
                    return found

    async def open_runs(self, deployments: Collection[str]) -> list[QueuedRun]:
        """Return waiting and running runs, the oldest first."""
        if not deployments:
            return []
        wanted = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[UUID(one) for one in deployments]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_OPEN)),
        )
        found: list[FlowRun] = []
        async with _as_queue_error():
            while len(found) < MOST_READ:
                page = await self._client.read_flow_runs(
                    flow_run_filter=wanted,
                    sort=FlowRunSort.EXPECTED_START_TIME_ASC,
                    limit=PAGE,
                    offset=len(found),
                )
                found += page
                if len(page) < PAGE:
                    break
        return [_queued_run(one) for one in found]

    async def last_before(self, deployment: str, trigger: str, now: datetime) -> datetime | None:
        """Return the time of the last run of a schedule that was due before now."""
        wanted = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[UUID(deployment)]),
            tags=FlowRunFilterTags(all_=[trigger]),
            expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"before_": now}),
        )
        async with _as_queue_error():
            found = await self._client.read_flow_runs(
                flow_run_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1
            )
        return found[0].expected_start_time if found else None

    async def successor(self, run: str) -> QueuedRun | None:
        """Return the run that was queued to continue another one."""
        key = FlowRunFilterIdempotencyKey(any_=[f"{run}{AGAIN_SUFFIX}"])
        async with _as_queue_error():
            found = await self._client.read_flow_runs(
                flow_run_filter=FlowRunFilter(idempotency_key=key), limit=1
            )
        return _queued_run(found[0]) if found else None

    async def read(self, run: str) -> QueuedRun | None:
        """Return the current state of a run; None when it was deleted."""
        async with _as_queue_error():
            try:
                return _queued_run(await self._client.read_flow_run(UUID(run)))
            except ObjectNotFound:
                return None

    async def delete(self, run: str) -> None:
        """Delete a run that has never begun."""
        async with _as_queue_error():
            with contextlib.suppress(ObjectNotFound):
                await self._client.delete_flow_run(UUID(run))

    async def started(self, run: str, process: str) -> None:
        """Record the signed mark of a run's process, which may be signalled by its number."""
        signed = self._signer.signed_process(run, process)
        async with _as_queue_error():
            await self._client.update_flow_run(UUID(run), infrastructure_pid=signed)

    async def hold(self, run: str, words: str, until: datetime | None) -> None:
        """Show why a run waits."""
        at = until or datetime.now(UTC)
        await self._state(run, AwaitingConcurrencySlot(scheduled_time=at, message=words))

    async def show(self, run: str, state: ShownState, words: str) -> None:
        """Set the state of a run: before it starts, or at its end if it could not do so itself."""
        await self._state(run, _STATES[state](message=words))

    async def _state(self, run: str, state: State[Any]) -> None:
        async with _as_queue_error():
            with contextlib.suppress(ObjectNotFound):  # it was deleted
                await self._client.set_flow_run_state(UUID(run), state, force=True)


@asynccontextmanager
async def open_queue(
    api_url: str, signer: Signer, auth_string: str = ""
) -> AsyncIterator[PrefectQueue]:
    """Open Prefect's API at this address; `auth_string` is of our own server."""
    async with AsyncExitStack() as stack:
        opened = PrefectQueue(api_url, signer, auth_string, stack)
        await opened.move(api_url)
        yield opened


@asynccontextmanager
async def _as_queue_error() -> AsyncIterator[None]:
    """Raise every error of the API as a `QueueError`, and bound the time."""
    try:
        async with asyncio.timeout(ANSWER_S):
            yield
    except ObjectNotFound as error:
        raise DeletedInPrefect("Prefect's API: the object does not exist") from error
    except (PrefectException, httpx.HTTPError, TimeoutError) as error:
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 404:
            raise DeletedInPrefect("Prefect's API: the object does not exist") from error
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        raise QueueError(f"Prefect's API: {words}") from error


_PHASES: Mapping[StateType, RunPhase] = {
    StateType.SCHEDULED: "waiting",
    StateType.PAUSED: "suspended",
    StateType.PENDING: "running",
    StateType.RUNNING: "running",
    StateType.CANCELLING: "cancelling",
}


def _run_end(kind: StateType, name: str) -> RunEnd:
    """Return how a run ended; a drained run has done only a part."""
    if kind == StateType.COMPLETED:
        return "budget" if name == "Budget" else "completed"
    if kind == StateType.CANCELLED:
        return "skipped" if name == "Skipped" else "interrupted"
    if kind == StateType.FAILED:
        return "completed" if name == "Quarantined" else "failed"
    return "crashed" if kind == StateType.CRASHED else ""


def _queued_run(run: FlowRun) -> QueuedRun:
    kind = run.state_type or StateType.SCHEDULED
    at = run.expected_start_time or run.created or datetime.now(UTC)
    return QueuedRun(
        id=str(run.id),
        name="".join(filter(str.isprintable, run.name))[:MOST_NAME_LETTERS],
        deployment=str(run.deployment_id or ""),
        phase=_PHASES.get(kind, "ended"),
        shown=f"{run.state_name}: {run.state.message or ''}" if run.state else "",
        at=at,
        next_at=run.next_scheduled_start_time or at,
        is_held=run.state_name == HELD_STATE,
        process=run.infrastructure_pid or "",
        parameters=dict(run.parameters),
        key=run.idempotency_key or "",
        end=_run_end(kind, run.state_name or ""),
    )
