"""Link to Prefect of `paddock up`: deployments, what people do there, ends that Prefect lacks.

Nothing waits for it, and it decides nothing: a run that is started, cancelled, suspended or resumed
in Prefect is an order that is put, ended, or waits. While a run has a process, Prefect's engine
there writes its state; this writes it before and after. On our own server, which asks for this
user's password, inputs are checked as a webhook's are; on a server that others use a run may have
none, since consents were given for the pipeline as its file stands here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system import http
from paddock.engine.system.records import replace
from paddock.engine.system.text import counted, encodable, map_texts, one_line
from paddock.pipelines.errors import PipelineError
from paddock.runner.daemon import prefect_client
from paddock.runner.daemon.prefect_auth import CLIENT_VARIABLE
from paddock.runner.daemon.prefect_client import NOT_FOUND, PREFECT_ERRORS, PrefectRefusal
from paddock.runner.progress.prefect_view import RUN_TAG, prefect_name, wish_of_state
from paddock.runner.workers import flow_names
from paddock.runner.workers.fork_server import ForkServer
from paddock.runner.workers.order import FROM_PREFECT, Order, OrderEnd

from .order_queue import KEPT_S, OrderQueue, QueueBroken
from .triggered_pipeline import TriggeredPipeline

if TYPE_CHECKING:
    import httpx

log = logging.getLogger("paddock.up")

ROUND_S, PAUSE_S = 10.0, 1.0
"""Between rounds, and between two of which the second is asked for: each costs Prefect 0.1 s.

What it has not been asked for within 60 s Prefect shows as not ready."""
ANSWER_S = 30.0  # a server on a busy machine took up to 8 s
PAGE = 200
MOST_TOLD = 50  # in a round: each costs Prefect 30 ms
FORM = "paddock.runner.workers.ordered_run:form_of"  # which imports Prefect
_OF_SCHEDULE = ("schedule", "active", "max_scheduled_runs", "parameters", "slug")
_OURS = {"tags": {"all_": [RUN_TAG]}}
_OF_OBJECT, _GONE = {400, 409, 413, 422}, {NOT_FOUND}
"""Statuses of what a server refuses of one object alone, and of one that was deleted."""
_CANCELLED = {"CANCELLING", "CANCELLED"}
_FINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
_STATES: Mapping[OrderEnd, tuple[str, str]] = {
    "skipped": ("CANCELLED", "Skipped"),
    "interrupted": ("CANCELLED", "Cancelled"),
    "cancelled": ("CANCELLED", "Cancelled"),
    "budget": ("COMPLETED", "Budget"),
    "suspended": ("COMPLETED", "Suspended"),
    "completed": ("COMPLETED", "Completed"),
    "quarantined": ("FAILED", "Quarantined"),
    "failed": ("FAILED", "Failed"),
    "crashed": ("CRASHED", "Crashed"),
}
"""Type and name of Prefect's state."""


class PrefectLink:
    """The link. Lives in one event loop."""

    def __init__(
        self,
        queue: OrderQueue,
        pipelines: Callable[[], Mapping[str, TriggeredPipeline]],
        *,
        is_own_server: bool,
        forks: ForkServer,
        auth_string: str = "",
        folders: Sequence[Path] = (),
    ) -> None:
        """Ask nothing yet: `move` says where the server is, which may be our own.

        `pipelines` returns those in service, by their keys; deployments of files below `folders`
        that are gone are deleted.
        """
        self.api_url = ""
        self.auth_string = auth_string
        self.is_there: bool | None = None
        """Whether it answers; None: it was not asked yet."""
        self.wake = asyncio.Event()
        """Set when something has changed here."""
        self._queue = queue
        self._pipelines = pipelines
        self._is_own_server = is_own_server
        self._folders = folders
        self._forks = forks
        self._api: httpx.AsyncClient | None = None
        self._asked_url = ""
        self._deployed: dict[str, tuple[TriggeredPipeline, str]] = {}
        """By pipeline: its form when it was deployed, and the deployment's id."""
        self._new: set[str] = set()
        """Pipelines whose deployment is new: flow runs that are missing are of another server."""
        self._shown: dict[str, tuple[tuple[str, int], str]] = {}
        """By flow run that waits: the last start of its order, and why it waits."""
        self._warned: set[str] = set()

    def move(self, api_url: str) -> None:
        """Use this address from now on: our own server may have restarted at another port."""
        if api_url != self.api_url:
            self.api_url = api_url
            self.wake.set()

    def note_ended(self, order: Order) -> None:
        """Show an end that Prefect lacks; where its flow run began, Prefect has gone away since.

        Runs begin without it then until it has answered again.
        """
        if not order.is_told:
            if order.flow_run and self.is_there:
                self.is_there = None
            self.wake.set()

    def deployment_of(self, pipeline: str) -> str:
        """Return the id of a pipeline's deployment; empty while it is not known."""
        return self._deployed[pipeline][1] if pipeline in self._deployed else ""

    async def keep(self) -> None:
        try:
            while True:
                self.wake.clear()
                if not await self._try_round():
                    await asyncio.sleep(PAUSE_S)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(ROUND_S - PAUSE_S):
                            await self.wake.wait()
        finally:
            await self._close()

    async def _try_round(self) -> bool:
        """Do one round; return whether there is more to do at once."""
        try:
            await self._give_up_old()
            if not self.api_url:
                return False
            await self._connect()
            await self._queue.flush()
            await self._deploy_all()
            await self._share_pauses()
            await self._look_at_waiting()
            await self._take_due()
            has_more = await self._tell()
        except QueueBroken:  # the status says so
            return False
        except Exception as error:  # whatever answers there, runs go on
            is_usual = isinstance(error, (*PREFECT_ERRORS, OSError, ValueError))
            why = one_line(str(error)) or "it gives no answer in time"
            if self.is_there is not False:
                log.warning("Prefect at %s cannot be asked; runs go on without it: %s",
                            self.api_url, why, exc_info=not is_usual)  # fmt: skip
            self.is_there = False
            return False
        if self.is_there is False:
            log.info("Prefect at %s answers again", self.api_url)
        self.is_there = True
        return has_more

    # --- deployments

    async def _deploy_all(self) -> None:
        pipelines = dict(self._pipelines())
        for key in self._deployed.keys() - pipelines.keys():
            await self._delete_deployment(self._deployed[key][1])
            del self._deployed[key]
        changed = [
            triggered
            for key, triggered in pipelines.items()
            if key not in self._deployed or self._deployed[key][0] is not triggered
        ]
        for triggered in changed:
            with self._passing(_OF_OBJECT, f"{triggered.key}: Prefect refuses its deployment"):
                self._deployed[triggered.key] = triggered, await self._deploy(triggered)
        for row in await self._rows("deployments", _OURS) if changed else ():
            file, id_ = flow_names.file_of_entrypoint(row["entrypoint"] or ""), row["id"]
            if file in self._deployed:  # its pipeline had another name
                is_named = row["name"] == flow_names.deployment_name(file)
                is_gone = is_named and id_ != self.deployment_of(file)
            else:
                is_ours = any(
                    Path(file).is_relative_to(place.absolute()) for place in self._folders
                )
                is_gone = is_ours and await asyncio.to_thread(
                    lambda path: path.parent.exists() and not path.exists(), Path(file)
                )
            if is_gone:
                await self._delete_deployment(id_)

    async def _deploy(self, triggered: TriggeredPipeline) -> str:
        file, pipeline = triggered.key, triggered.pipeline
        name, flow_name = flow_names.deployment_name(file), prefect_name(pipeline.name)
        flow = (await self._ask("POST", "/flows/", {"name": flow_name}))["id"]
        of_flow = {"id": {"any_": [flow]}}
        known = await self._rows("deployments", {"name": {"any_": [name]}}, flows=of_flow)
        schema: dict[str, Any] = {}
        if self._is_own_server:  # elsewhere a run with inputs is refused
            try:
                schema = await asyncio.to_thread(
                    self._forks.call, FORM, triggered.key, triggered.text
                )
            except Exception as error:  # of Prefect or Pydantic; its runs say so as well
                self._warn(f"{file}: Prefect's form for a run does not show its inputs: {error}")
        deployment = {
            "flow_id": flow,
            "name": name,
            "version": triggered.version,
            "description": pipeline.description,
            "parameters": {},  # the file's defaults count, whatever it had before
            "tags": [RUN_TAG],
            "entrypoint": flow_names.entrypoint(file),
            "parameter_openapi_schema": schema,
            "enforce_parameter_schema": False,
            # What a person has added in Prefect, which removes those that are not given
            "schedules": [
                {key: timed[key] for key in _OF_SCHEDULE}
                for timed in (known[0]["schedules"] if known else ())
            ],
        }
        return str((await self._ask("POST", "/deployments/", deployment))["id"])

    async def _delete_deployment(self, id_: str) -> None:
        with self._passing(_GONE):
            await self._ask("DELETE", f"/deployments/{id_}")

    # --- pauses

    async def _share_pauses(self) -> None:
        """Take over pauses that a person has changed in Prefect, and send what was changed here.

        1. A deployment that is seen first: paused if it is so there or here.
        2. Changed there since the last look: as there.
        3. Else: as here.
        """
        keys = {id_: key for key, (_, id_) in self._deployed.items()}
        rows = await self._rows("deployments", {"id": {"any_": [*keys]}}) if keys else []
        there = {keys[row["id"]]: bool(row["paused"]) for row in rows}
        for key in self._deployed.keys() - there.keys():  # deleted there; it is made again
            del self._deployed[key]
            self.wake.set()
        await self._queue.read_pauses()
        for key, is_paused in there.items():
            id_, is_here = self.deployment_of(key), (key, "") in self._queue.pauses
            seen = await self._queue.remembered(key, FROM_PREFECT)
            if seen.get("deployment") != id_:
                self._new.add(key)
                is_wanted = is_paused or is_here
            else:
                is_wanted = is_paused if is_paused != seen["paused"] else is_here
            if is_wanted != is_here:
                await self._queue.pause(key, is_paused=is_wanted)
            if is_wanted != is_paused:
                await self._ask("PATCH", f"/deployments/{id_}", {"paused": is_wanted})
            agreed = {"deployment": id_, "paused": is_wanted}
            if agreed != seen:
                await self._queue.remember(key, FROM_PREFECT, agreed)

    # --- what people do with runs

    async def _look_at_waiting(self) -> None:
        """Do with orders that wait, or are suspended, what was done with their flow runs."""
        waiting = [
            order
            for order in self._queue.orders.values()
            if order.flow_run and order.state in ("waiting", "suspended")
        ]
        rows = await self._flow_runs(order.flow_run for order in waiting)
        ids = {order.flow_run for order in waiting}
        self._shown = {id_: shown for id_, shown in self._shown.items() if id_ in ids}
        for old in waiting:
            order, row = self._queue.orders.get(old.id), rows.get(old.flow_run)
            if order is None or order.state != old.state or order.pipeline not in self._deployed:
                continue  # it has begun or ended meanwhile, or its pipeline is not in service
            if row is None and order.pipeline in self._new:
                self._queue.note(order.id, flow_run="")
                continue
            if row is None:
                self._end(order, "It was deleted in Prefect.", is_told=True)
                continue
            start, message = self._shown.get(order.flow_run, (None, ""))
            is_new, is_suspended = start != (order.mark, order.attempt), order.state == "suspended"
            kind, wish = _kind(row), wish_of_state(_kind(row), row["state_name"] or "")
            # A start that failed may have left any state, but not that of a cancelled run.
            is_left = is_new and bool(order.mark) and not is_suspended
            if wish is not None and wish[0] == "stop" and (kind in _CANCELLED or not is_left):
                self._end(order, f"{wish[1]}.", is_told=kind in _FINAL)
            elif is_suspended:
                is_due = _time(row["next_scheduled_start_time"]) <= time.time()
                if kind in ("PENDING", "RUNNING") or (kind == "SCHEDULED" and is_due):
                    self._queue.note(order.id, state="waiting", message="", not_before=0.0)
                    self._queue.changed.set()
            elif kind == "PAUSED" and not is_left:
                self._queue.note(order.id, state="suspended")
            elif is_new or kind != "PENDING" or message != order.message:
                if is_left:
                    await self._end_tasks(order)
                await self._show_waiting(order)
        self._new.clear()

    def _end(self, order: Order, message: str, *, is_told: bool) -> None:
        name = self._deployed[order.pipeline][0].pipeline.name
        log.info("%s: order %s has ended: %s", name, order.id, message)
        self._queue.note(order.id, state="ended", end="cancelled", message=message,
                         ended_at=time.time(), is_told=is_told)  # fmt: skip
        self._queue.changed.set()

    async def _show_waiting(self, order: Order) -> None:
        """Show that a run waits, and why; a scheduled one is for others to take, and late."""
        state = {"type": "PENDING", "name": "Pending", "message": order.message or None}
        await self._set_state("flow_runs", order.flow_run, state)
        self._shown[order.flow_run] = (order.mark, order.attempt), order.message

    async def _take_due(self) -> None:
        """Put orders for runs that people, automations and schedules of theirs have started."""
        pipelines = {id_: triggered for triggered, id_ in self._deployed.values()}
        while pipelines:
            now = datetime.now(UTC).isoformat()
            body = {"deployment_ids": [*pipelines], "scheduled_before": now, "limit": PAGE}
            rows = await self._ask("POST", "/deployments/get_scheduled_flow_runs", body)
            taken = [await self._take(row, pipelines[row["deployment_id"]]) for row in rows]
            if len(rows) < PAGE or not any(taken):
                return

    async def _take(self, row: Mapping[str, Any], triggered: TriggeredPipeline) -> bool:
        id_, last = row["id"], await self._queue.by_flow_run(row["id"])
        if last is not None and not (last.state == "ended" and last.is_told):
            return False  # it is looked at, or told, in its turn
        inputs, retries_failed = flow_names.inputs_of_flow_form(row["parameters"])
        try:
            if last is not None:  # a person tries it again
                inputs, retries_failed = dict(last.inputs), last.retry_failed
            elif self._is_own_server:
                inputs = triggered.inputs_from_elsewhere(inputs)
            elif inputs or retries_failed:
                what = "on a Prefect server that others use a run may have no parameters."
                raise PipelineError.of(what, "start it without, or with `paddock run -i`")
        except PipelineError as error:
            why = " ".join(fault.message for fault in error.faults)
            shown = "".join(filter(str.isprintable, row["name"]))
            name = triggered.pipeline.name
            log.warning("%s: run '%s' of Prefect is refused: %s", name, shown, why)
            await self._finish(id_, "failed", f"Refused: {why}")
            return True
        receipt = await self._queue.put(
            Order(
                "", f"prefect {id_}" if last is None else f"prefect {id_} {row['state_id']}",
                triggered.key, FROM_PREFECT, inputs, retry_failed=retries_failed,
                is_promised=True, due_at=_time(row["expected_start_time"]), flow_run=id_,
            )
        )  # fmt: skip
        if receipt.order.state == "waiting":
            await self._show_waiting(receipt.order)
        return True

    # --- telling

    async def _give_up_old(self) -> None:
        """Note ends of which Prefect could not be told for a week."""
        last = time.time() - KEPT_S
        old = [order for order in await self._queue.orders_to_tell(PAGE) if order.ended_at < last]
        for order in old:
            self._queue.note_ended(order.id, is_told=True)
        if old:
            runs = counted(len(old), "run")
            log.warning("Prefect will not show %s that ended more than a week ago.", runs)

    async def _tell(self) -> bool:
        """Show ends that Prefect lacks; return whether there may be more."""
        orders = await self._queue.orders_to_tell(MOST_TOLD)
        rows = await self._flow_runs(order.flow_run for order in orders if order.flow_run)
        n_told = 0
        for order in orders:
            row, deployed = rows.get(order.flow_run), self._deployed.get(order.pipeline)
            if not order.flow_run and deployed is None:
                continue
            with self._passing(_OF_OBJECT, f"Prefect does not show run {order.run or order.id}"):
                if not order.flow_run and deployed is not None:
                    row = await self._make_flow_run(order, *deployed)
                    order = replace(order, flow_run=row["id"])
                if row is not None and _kind(row) not in _FINAL:  # None: it was deleted there
                    if order.mark:
                        await self._end_tasks(order)
                    await self._finish(order.flow_run, order.end, order.message)
            self._queue.note_ended(order.id, is_told=True, flow_run=order.flow_run)
            n_told += 1
        await self._queue.flush()
        return n_told == MOST_TOLD and not self._queue.fault

    async def _make_flow_run(
        self, order: Order, triggered: TriggeredPipeline, deployment: str
    ) -> dict[str, Any]:
        """Make the flow run of a run that is over; return the one that it has, if it has one."""
        secret = {name for name, spec in triggered.pipeline.inputs.items() if spec.is_secret}
        inputs = {key: order.inputs[key] for key in order.inputs.keys() - secret}
        kind, state = _STATES[order.end]
        at = f"{datetime.fromtimestamp(order.ended_at, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
        message = ". ".join(filter(None, (order.message.rstrip("."), f"It ended at {at}.")))
        body = {
            "parameters": json.loads(json.dumps(inputs), parse_constant=str),  # NaN is no JSON
            "tags": [RUN_TAG, order.trigger],
            "idempotency_key": order.id,
            "state": {"type": kind, "name": state, "message": message},
        }
        body |= {"name": order.run} if order.run else {}
        row = await self._ask("POST", f"/deployments/{deployment}/create_flow_run", body)
        return dict(row)

    async def _finish(self, flow_run: str, end: OrderEnd, message: str) -> None:
        kind, name = _STATES[end]
        await self._set_state(
            "flow_runs", flow_run, {"type": kind, "name": name, "message": message}
        )

    async def _end_tasks(self, order: Order) -> None:
        """Show the tasks as ended that a killed process left, or one that Prefect did not hear."""
        at_work = {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}
        of_run = {"id": {"any_": [order.flow_run]}}
        kind, name = _STATES["completed" if order.end == "completed" else "crashed"]
        state = {"type": kind, "name": name, "message": order.message or None}
        for task in await self._rows("task_runs", at_work, flow_runs=of_run):
            await self._set_state("task_runs", task["id"], state)

    # --- Prefect's API

    async def _connect(self) -> None:
        if self._asked_url == self.api_url:
            return
        await self._close()
        environ = {CLIENT_VARIABLE: self.auth_string} if self.auth_string else os.environ
        options = prefect_client.client_options(self.api_url, environ)
        self._api = http.client(**options, trust_env=not self.auth_string)
        self._asked_url = self.api_url
        self._deployed = {}
        self._shown = {}

    async def _close(self) -> None:
        api, self._api, self._asked_url = self._api, None, ""
        if api is not None:
            await api.aclose()

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        """Return what Prefect's API answers, in bounded time.

        Raises:
            HttpFailure, TimeoutError: it is away or slow.
            PrefectRefusal: it refuses.
        """
        assert self._api is not None
        async with asyncio.timeout(ANSWER_S):
            sent = map_texts(body, encodable)  # names of files are in messages and inputs
            return await prefect_client.ask_again(self._api, method, path, sent)

    async def _rows(
        self, kind: str, conditions: Mapping[str, Any], **filters: Any
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        while len(rows) % PAGE == 0:
            body = {kind: conditions, "limit": PAGE, "offset": len(rows), **filters}
            page = await self._ask("POST", f"/{kind}/filter", body)
            if not page:
                break
            rows += page
        return rows

    async def _flow_runs(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return flow runs by their ids; deleted ones are missing."""
        rest, rows = [*ids], list[dict[str, Any]]()
        while rest:
            rows += await self._rows("flow_runs", {"id": {"any_": rest[:PAGE]}})
            rest = rest[PAGE:]
        return {row["id"]: row for row in rows}

    async def _set_state(self, kind: str, id_: str, state: Mapping[str, Any]) -> None:
        with self._passing(_GONE):
            body = {"state": state, "force": True}
            await self._ask("POST", f"/{kind}/{id_}/set_state", body)

    @contextmanager
    def _passing(self, statuses: Collection[int], what: str = "") -> Iterator[None]:
        """Go on after a refusal with one of these statuses; log `what` is refused, once."""
        try:
            yield
        except PrefectRefusal as error:
            if error.status not in statuses:
                raise
            if what:
                self._warn(f"{what}: {error}")

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning("%s", message)


def _kind(row: Mapping[str, Any]) -> str:
    return row["state_type"] or "SCHEDULED"


def _time(written: str | None) -> float:
    return datetime.fromisoformat(written).timestamp() if written else time.time()
