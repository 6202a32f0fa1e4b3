"""The queue of unattended runs in Prefect.

Deployments, waiting and running flow runs. One deployment for each pipeline file, of that
pipeline's flow. A waiting run is a scheduled flow run, which survives a restart. While a run has a
process, Prefect's engine there alone writes its state; this does before and after. Decides nothing:
`start_decisions` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from paddock.engine.system import http
from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.daemon.prefect_auth import CLIENT_VARIABLE
from paddock.runner.daemon.prefect_client import (
    NOT_FOUND,
    PrefectRefusal,
    ask_again,
    client_options,
)
from paddock.runner.daemon.run_signatures import Signer
from paddock.runner.progress.prefect_view import RUN_TAG, prefect_name
from paddock.runner.workers.flow_order import (
    as_parameters,
    deployment_name,
    entrypoint,
    file_of_entrypoint,
    order_of,
    without_defaults,
)

ANSWER_S = 30.0  # a server on a busy machine took up to 8 s
PAGE, MOST_READ = 200, 1_000
_OF_SCHEDULE = ("schedule", "active", "max_scheduled_runs", "parameters", "slug")
MOST_NAME_LETTERS = 200
HELD_STATE = "AwaitingConcurrencySlot"
RETRY_STATE = "AwaitingRetry"
PLANNED_STATE = "Planned"
"""Prefect shows `Scheduled` runs as late once their time has passed, also while `up` is stopped."""

RunPhase = Literal["waiting", "suspended", "running", "cancelling", "ended"]
RunEnd = Literal["", "completed", "budget", "interrupted", "skipped", "failed", "crashed"]
_OPEN = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED"]

ShownEnd = Literal["skipped", "interrupted", "budget", "completed", "failed", "crashed"]
_STATES: Mapping[ShownEnd, tuple[str, str]] = {
    "skipped": ("CANCELLED", "Skipped"),
    "interrupted": ("CANCELLED", "Cancelled"),
    "budget": ("COMPLETED", "Budget"),
    "completed": ("COMPLETED", "Completed"),
    "failed": ("FAILED", "Failed"),
    "crashed": ("CRASHED", "Crashed"),
}
"""Type and name of Prefect's state."""


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
    at: datetime
    """When it was due first."""
    next_at: datetime
    """When to look at it again."""
    state: str = ""
    """Prefect's name for its state."""
    words: str = ""
    """The state's message."""
    order: Mapping[str, Any] = field(default_factory=dict)
    """See `FlowOrder`; as anyone may have written it until it is admitted."""
    key: str = ""
    """Its idempotency key, unique in its flow."""
    end: RunEnd = ""
    """How it ended, as in a report; empty while it has not."""
    row: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """As Prefect's API has it."""

    @property
    def is_held(self) -> bool:
        return self.state == HELD_STATE


class PrefectQueue:
    """Client of Prefect's API for what `up` needs. One for each process; lives in its event loop.

    Its values are Prefect's, which others may have written; `triggered_pipeline` decides which
    count.
    """

    def __init__(self, signer: Signer | None, auth_string: str, stack: AsyncExitStack) -> None:
        """Send nothing yet: `move` opens the client, which `stack` closes."""
        self.api_url = ""
        self._signer = signer
        self._auth_string = auth_string
        self._stack = stack
        self._flows: dict[str, str] = {}

    async def move(self, api_url: str) -> None:
        """Use this address from now on: our own server may have restarted at another port.

        The old client stays open until the end, for requests in flight.
        """
        own = self._auth_string
        options = client_options(api_url, {CLIENT_VARIABLE: own} if own else os.environ)
        client = http.client(**options, trust_env=not own)
        self._api = await self._stack.enter_async_context(client)
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
        if name not in self._flows:
            flow = await self._ask("POST", "/flows/", {"name": prefect_name(name)})
            self._flows[name] = flow["id"]
        named, own = {"any_": [deployment_name(file)]}, {"any_": [self._flows[name]]}
        known = await self._found("deployments", {"name": named}, 1, flows={"id": own})
        about = {
            "flow_id": self._flows[name],
            "name": deployment_name(file),
            "version": version,
            "description": description,
            "parameters": {},  # the file's defaults count, whatever it had before
            "tags": [RUN_TAG],
            "entrypoint": entrypoint(file),
            # Where others use the server, what a person gives in the form is refused.
            "parameter_openapi_schema": (schema if self._auth_string else None) or {},
            "enforce_parameter_schema": False,
            # What a person has added in Prefect, which removes those that are not given
            "schedules": [
                {key: timed[key] for key in _OF_SCHEDULE}
                for timed in (known[0]["schedules"] if known else ())
            ],
        }
        return str((await self._ask("POST", "/deployments/", about))["id"])

    async def undeploy(self, deployment: str) -> None:
        with contextlib.suppress(DeletedInPrefect):
            await self._ask("DELETE", f"/deployments/{deployment}")

    async def submit(
        self, deployment: str, order: Mapping[str, Any], *, key: str, at: datetime, words: str
    ) -> QueuedRun:
        """Put a run into the queue, or return the one that has this key already.

        On a server that others use, its order is signed.

        Raises:
            DeletedInPrefect: there is no such deployment.
            QueueError: Prefect does not take it now.
        """
        plain = without_defaults(order)
        about = {
            "parameters": as_parameters(self._signer.signed(plain, key) if self._signer else plain),
            "state": _scheduled(PLANNED_STATE, at, words),
            "idempotency_key": key,
            "tags": [RUN_TAG, str(order.get("trigger", ""))],
        }
        made = await self._ask("POST", f"/deployments/{deployment}/create_flow_run", about)
        return _queued_run(made)

    async def deployments(self) -> dict[str, str]:
        """Return the file of each of our deployments, by its id."""
        found = await self._found("deployments", {"tags": {"all_": [RUN_TAG]}})
        return {row["id"]: file_of_entrypoint(row["entrypoint"] or "") for row in found}

    async def poll(self, deployments: Collection[str]) -> None:
        """Ask for their runs as Prefect's own runner does: it shows them as ready for a minute."""
        body = {"deployment_ids": [*deployments], "limit": 1}
        await self._ask("POST", "/deployments/get_scheduled_flow_runs", body)

    async def paused(self, deployments: Collection[str]) -> frozenset[str]:
        """Return which of these deployments a person has paused."""
        found = await self._found("deployments", {"id": {"any_": [*deployments]}})
        return frozenset(row["id"] for row in found if row["paused"])

    async def pause(self, deployment: str, *, is_paused: bool) -> None:
        """Hold back the runs of a deployment, or no longer, as a person does on Prefect's page."""
        await self._ask("PATCH", f"/deployments/{deployment}", {"paused": is_paused})

    async def open_runs(self, deployments: Collection[str]) -> list[QueuedRun]:
        """Return waiting and running runs, the oldest first."""
        if not deployments:
            return []
        conditions = {"deployment_id": {"any_": [*deployments]}, "state": {"type": {"any_": _OPEN}}}
        found = await self._found(
            "flow_runs", conditions, MOST_READ, sort="EXPECTED_START_TIME_ASC"
        )
        return [_queued_run(run) for run in found]

    async def last_before(self, deployment: str, trigger: str, now: datetime) -> datetime | None:
        """Return the time of the last run of a schedule that was due before now."""
        conditions = {
            "deployment_id": {"any_": [deployment]},
            "tags": {"all_": [trigger]},
            "expected_start_time": {"before_": now.isoformat()},
        }
        found = await self._found("flow_runs", conditions, 1, sort="EXPECTED_START_TIME_DESC")
        return _time(found[0]["expected_start_time"]) if found else None

    async def read(self, run: str) -> QueuedRun | None:
        """Return the current state of a run; None when it was deleted."""
        try:
            return _queued_run(await self._ask("GET", f"/flow_runs/{run}"))
        except DeletedInPrefect:
            return None

    async def delete(self, run: str) -> None:
        """Delete a run that has never begun."""
        with contextlib.suppress(DeletedInPrefect):
            await self._ask("DELETE", f"/flow_runs/{run}")

    async def hold(self, run: str, words: str, at: datetime | None = None) -> None:
        """Show that a run without a process waits, and why; `at`: it is started again then."""
        name = HELD_STATE if at is None else RETRY_STATE
        await self._state("flow_runs", run, _scheduled(name, at or datetime.now(UTC), words))

    async def finish(self, run: str, end: ShownEnd, words: str) -> None:
        """Show the end of a run that never begins, or whose process could not show it."""
        kind, name = _STATES[end]
        await self._state("flow_runs", run, {"type": kind, "name": name, "message": words})

    async def end_tasks(self, run: str, words: str) -> None:
        """Show the tasks as ended that a killed process left at work."""
        of_run = {"id": {"any_": [run]}}
        at_work = {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}
        for task in await self._found("task_runs", at_work, PAGE, flow_runs=of_run):
            state = {"type": "CRASHED", "name": "Crashed", "message": words}
            await self._state("task_runs", task["id"], state)

    async def _state(self, kind: str, id_: str, state: Mapping[str, Any]) -> None:
        with contextlib.suppress(DeletedInPrefect):
            body = {"state": state, "force": True}
            await self._ask("POST", f"/{kind}/{id_}/set_state", body)

    async def _found(
        self, kind: str, conditions: Mapping[str, Any], most: float = float("inf"), **filters: Any
    ) -> list[dict[str, Any]]:
        """Return objects of a kind by a filter, read in pages; about `most` of them."""
        found: list[dict[str, Any]] = []
        n_page = int(min(PAGE, most))
        while len(found) < most:
            body = {kind: conditions, "limit": n_page, "offset": len(found), **filters}
            page = await self._ask("POST", f"/{kind}/filter", body)
            found += page
            if len(page) < n_page:
                break
        return found

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        """Return what Prefect's API answers, in bounded time.

        Raises:
            DeletedInPrefect: the object does not exist.
            QueueError: it is away, slow or refuses.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                return await ask_again(self._api, method, path, body)
        except PrefectRefusal as error:
            kind = DeletedInPrefect if error.status == NOT_FOUND else QueueError
            raise kind(f"Prefect's API: {error}") from error
        except (http.HttpFailure, TimeoutError, ValueError) as error:
            why = str(error) or "it gives no answer in time"
            raise QueueError(f"Prefect's API: {why}") from error


@asynccontextmanager
async def open_queue(
    api_url: str, signer: Signer | None, auth_string: str = ""
) -> AsyncIterator[PrefectQueue]:
    """Open Prefect's API at this address; `auth_string` is of our own server, with no signer."""
    async with AsyncExitStack() as stack:
        opened = PrefectQueue(signer, auth_string, stack)
        await opened.move(api_url)
        yield opened


_PHASES: Mapping[str, RunPhase] = {
    "SCHEDULED": "waiting",
    "PAUSED": "suspended",
    "PENDING": "running",
    "RUNNING": "running",
    "CANCELLING": "cancelling",
}


_ENDS: Mapping[tuple[str, str], RunEnd] = {
    ("COMPLETED", ""): "completed", ("COMPLETED", "Budget"): "budget",
    ("CANCELLED", ""): "interrupted", ("CANCELLED", "Skipped"): "skipped",
    ("FAILED", ""): "failed", ("FAILED", "Quarantined"): "completed",
    ("CRASHED", ""): "crashed",
}  # fmt: skip
"""How a run ended, by type and name of its state; a drained run has done only a part."""


def _scheduled(name: str, at: datetime, words: str) -> dict[str, Any]:
    details = {"scheduled_time": at.isoformat()}
    return {"type": "SCHEDULED", "name": name, "message": words, "state_details": details}


def _time(written: str | None) -> datetime | None:
    return datetime.fromisoformat(written) if written else None


def _queued_run(run: Mapping[str, Any]) -> QueuedRun:
    kind, name, state = run["state_type"] or "SCHEDULED", run["state_name"] or "", run["state"]
    at = _time(run["expected_start_time"]) or _time(run["created"]) or datetime.now(UTC)
    return QueuedRun(
        id=run["id"],
        name="".join(filter(str.isprintable, run["name"]))[:MOST_NAME_LETTERS],
        deployment=run["deployment_id"] or "",
        phase=_PHASES.get(kind, "ended"),
        at=at,
        next_at=_time(run["next_scheduled_start_time"]) or at,
        state=name,
        words=(state or {}).get("message") or "",
        order=order_of(run["parameters"]),
        key=run["idempotency_key"] or "",
        end=_ENDS.get((kind, name)) or _ENDS.get((kind, ""), ""),
        row=run,
    )
