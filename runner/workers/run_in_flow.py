"""A run inside a flow run: its chunks are Prefect tasks, and what a person does there reaches it.

Prefect's engine writes all states. The work never waits for being shown: it goes on, exactly once,
whether a task of Prefect's could begin, end, or neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, cast
from uuid import UUID

import anyio
import httpx
from coolname.data import config as prefects_words
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogWorker
from prefect.states import Running as RunningState

from paddock.engine.system.process_marks import process_mark
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import TaskSet, running
from paddock.pipelines.keys import SecretKeys
from paddock.runner.bind.plan_walks import progress_line_names
from paddock.runner.config.pipeline_secrets import Redact, UnusableSecret, secret_place
from paddock.runner.core.execute import run
from paddock.runner.core.session import RunSession
from paddock.runner.progress.drain import StopGate, StopGateClosed
from paddock.runner.progress.events import MultiObserver, Observer, ShownWork
from paddock.runner.progress.item_states import BAD, ItemState
from paddock.runner.progress.prefect_view import (
    PROGRESS_DESCRIPTION,
    RUN_TAG,
    SUSPEND_REFUSED,
    PrefectState,
    ProgressMeter,
    StateWish,
    artifact_key,
    item_table,
    state_of_work,
    wish_of_parents,
    wish_of_state,
)
from paddock.runner.progress.report import Report

LOOK_S = 2.0  # each look costs the server some milliseconds
PROGRESS_S = 1.0
SENDING_S = 3.0  # of each queue; its server may be gone
SHOW_S = 30.0
"""How long the end of a run waits until its table is there. With 5 s, a run that a busy server took
late stayed at a quarter."""
BACK_S = 900.0
"""How long the end of a run waits for a server that is away: Prefect's worker gives up before."""
_UNREACHED = (PrefectException, httpx.HTTPError, OSError)


async def run_in_current_flow(session: RunSession) -> Report:
    """Run an open session inside the current flow run: steps and chunks are its tasks.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    stats, gate = session.context.stats, session.context.stop_gate
    logger = _RunLogger(stats.secrets.redact)
    meter = ProgressMeter(progress_line_names(session.context.bound.nodes))
    stats.observer = MultiObserver(stats.observer, logger, meter)
    key = artifact_key(session.context.bound.name)
    naming, artifacts = rename_and_tag_flow_run(stats.run), dict[str, str]()
    chunks = ChunkTasks(stats.secrets.redact)
    try:
        async with (
            running(follow_wishes(gate, stats.note, session.context.stop)),
            running(_show_progress(f"{key}-progress", meter, artifacts)),
        ):
            report = await run(replace(session.context, show_chunk=chunks))
        is_whole = report.status in ("completed", "quarantined")
        rows, description = item_table(report)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHOW_S):
                percent = 100.0 if is_whole else meter.percent
                await _show_artifact(f"{key}-progress", _progress(percent), artifacts)
                if rows:
                    table = {
                        "type": "table",
                        "description": description,
                        "data": json.dumps(rows, default=str),
                    }
                    await _show_artifact(f"{key}-results", table, artifacts)
        return report
    finally:
        with anyio.CancelScope(shield=True):  # a time limit of the flow cancels each wait
            await chunks.drain()
            await naming


class ChunkTasks:
    """Shows each chunk of a run as a task of the current flow run.

    Implements `paddock.runner.core.run_context.ShowChunk`. The task waits for the end of its chunk,
    in the flow's own loop; the chunk waits for nothing.
    """

    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self._tasks = TaskSet()

    @contextlib.contextmanager
    def __call__(self, block: str, keys: Sequence[str]) -> Iterator[ShownWork]:
        label = f"{keys[0]} and {len(keys) - 1} more" if keys[1:] else "".join(keys)
        shown, ended = ShownWork(), asyncio.get_running_loop().create_future()
        self._tasks.start(self._show(block, self._redact(label), ended))
        state = PrefectState("CANCELLED", "Cancelled", "interrupted")
        try:
            yield shown
            state = state_of_work(shown, is_chunk=bool(keys))
        except StopGateClosed:
            state = PrefectState("CANCELLED", "Cancelled", "left for the next run")
            raise
        except Exception as error:
            state = PrefectState("FAILED", "Failed", self._redact(str(error)))
            raise
        finally:
            ended.set_result(state)

    async def _show(self, block: str, label: str, ended: asyncio.Future[PrefectState]) -> None:
        async def wait_for_end() -> State[Any]:
            state = await asyncio.shield(ended)
            return State(type=StateType(state.type), name=state.name, message=state.message)

        chunk_task = task(
            name=block,
            task_run_name=(f"{block}: {label}" if label else block)
            .replace("{", "(")
            .replace("}", ")"),
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        shown: Any = chunk_task(wait_for_end)
        # The chunk is at work, whatever Prefect refuses, such as by a limit of 0
        with contextlib.suppress(Exception):
            await shown(return_state=True)

    async def drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHOW_S):
                await self._tasks.drain()
        await self._tasks.close()


async def _show_progress(key: str, meter: ProgressMeter, artifacts: dict[str, str]) -> None:
    shown = -1.0
    while True:
        await asyncio.sleep(PROGRESS_S)
        if meter.percent != shown:
            shown = meter.percent
            await _show_artifact(key, _progress(shown), artifacts)


def _progress(percent: float) -> dict[str, Any]:
    return {"type": "progress", "description": PROGRESS_DESCRIPTION, "data": percent}


async def _show_artifact(key: str, fields: Mapping[str, Any], artifacts: dict[str, str]) -> None:
    flow_run = current_flow_run()
    with contextlib.suppress(*_UNREACHED):
        async with get_client() as client:
            if id_ := artifacts.get(key):
                changed, path = {"data": fields["data"]}, {"id": id_}
                await client.request("PATCH", "/artifacts/{id}", path_params=path, json=changed)
            else:
                artifact = {"key": key, "flow_run_id": str(flow_run.id) if flow_run else None}
                answer = await client.request("POST", "/artifacts/", json={**artifact, **fields})
                artifacts[key] = str(answer.json()["id"])


def send_what_is_shown() -> None:
    for queue in (APILogWorker, EventsWorker):
        queue.drain_all(timeout=SENDING_S)


async def wait_for_server() -> None:
    """Wait, within bounds, while Prefect's server is away, which is to take a run's last state."""
    task, deadline, is_known = asyncio.current_task(), time.monotonic() + BACK_S, False
    while current_flow_run() and not (task and task.cancelling()) and time.monotonic() < deadline:
        # Not the engine's own client, which would try for a minute to reach it.
        async with get_client(httpx_settings={"timeout": SHOW_S}) as client:
            error = await client.api_healthcheck()
        is_failing = isinstance(error, httpx.HTTPStatusError) and error.response.is_server_error
        if not (is_failing or isinstance(error, httpx.TransportError)):
            return
        if not is_known:
            message = "Prefect's server is away; the end of this run is shown when it is back: %s"
            get_run_logger().warning(message, error)
        is_known = True
        await asyncio.sleep(LOOK_S)


def stored_secret(keys: SecretKeys) -> str:
    """Return the value of a Secret block or Variable on the current flow run's server. Blocks.

    Raises:
        UnusableSecret: there is none, it is no text, the server is away, or this is no flow run.
    """
    place, value = secret_place(keys), None
    if current_flow_run() is None:
        remedy = "Run it with `--prefect`, or set PREFECT_API_URL."
        raise UnusableSecret(f"{place} can be read in a flow run alone", remedy)
    kind, _, name = str(keys.prefect).partition("/")
    try:
        with get_client(sync_client=True) as client, contextlib.suppress(ObjectNotFound):
            if kind == "secret":
                value = client.read_block_document_by_name(name, "secret").data.get("value")
            elif variable := client.read_variable_by_name(name):
                value = variable.value
    except (*_UNREACHED, RuntimeError) as error:
        raise UnusableSecret(f"{place} cannot be read: {error}", "Run it again.") from None
    if not isinstance(value, str):
        why = f"{place} " + ("does not exist" if value is None else "is no text")
        raise UnusableSecret(why, "Make it on the server that the run uses, with a text as value.")
    return value


# --- what a person does with the flow run


async def follow_wishes(
    gate: StopGate, note: Callable[[str], None], stop: asyncio.Event | None = None
) -> None:
    """Close the gate once a person cancels, suspends or deletes the flow run; until cancelled.

    `stop` is set where that ends a run that was started by hand, as Ctrl-C does.
    """
    wish, message = await _wish_in_prefect()
    flow_run = current_flow_run()
    gate.is_cancelled = wish != "suspend" and not gate.is_closed
    if wish == "suspend":
        note(f"{message}; it goes on when that is resumed.")
        gate.close(message, "suspended")
    elif stop and flow_run and not (flow_run.deployment_id or flow_run.parent_task_run_id):
        gate.close(message, "interrupted")
        stop.set()
    else:
        note(f"{message}; items in flight are finished.")
        gate.close(message, "interrupted")


async def _wish_in_prefect() -> tuple[StateWish, str]:
    """Wait until the flow run's state, or a parent's, asks for its end.

    Returns a sentence without its full stop, too. Who made its deployment starts a suspended run
    again when it is resumed; without one it cannot be suspended.
    """
    flow_run = current_flow_run()
    assert flow_run is not None
    parents: list[UUID] | None = None
    while True:
        await asyncio.sleep(LOOK_S)
        with contextlib.suppress(*_UNREACHED):
            async with get_client() as client:
                try:
                    now = await client.read_flow_run(flow_run.id)
                except ObjectNotFound:
                    return "stop", "It was deleted in Prefect"
                state = now.state
                wish = wish_of_state(state.type.value, state.name or "") if state else None
                if wish is not None and wish[0] == "suspend" and now.deployment_id is None:
                    state = RunningState(message=SUSPEND_REFUSED)
                    await client.set_flow_run_state(flow_run.id, state, force=True)
                elif wish is not None:
                    return wish
                if parents is None:
                    parents, child = [], now
                    while child.parent_task_run_id is not None:
                        parent_task = await client.read_task_run(child.parent_task_run_id)
                        assert parent_task.flow_run_id is not None
                        child = await client.read_flow_run(parent_task.flow_run_id)
                        parents.append(child.id)
                found = [(await client.read_flow_run(id_)).state for id_ in parents]
                states = [(state.type.value, state.name or "") for state in found if state]
                if of_parents := wish_of_parents(states):
                    return of_parents


def current_flow_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context is not None else None


_named: ContextVar[UUID | None] = ContextVar("named", default=None)


def rename_and_tag_flow_run(name: str) -> asyncio.Task[None]:
    flow_run, named = current_flow_run(), _named.get()
    _named.set(flow_run.id if flow_run is not None else None)
    is_first = flow_run is not None and named != flow_run.id
    return asyncio.create_task(_rename(FlowRunContext.get() if is_first else None, name))


async def _rename(context: FlowRunContext | None, name: str) -> None:
    if context is not None and context.flow_run is not None:
        found, lists = context.flow_run, cast("dict[str, dict[str, Any]]", prefects_words)
        known = {word for words in lists.values() for word in words.get("words", ())}
        # A name of other words is a person's own.
        is_made_up = known.issuperset(words := found.name.split("-")) and len(words) == 2
        changes: dict[str, Any] = {"name": name} if is_made_up else {}
        if found.deployment_id is None:  # our own server looks whether it lives
            changes["infrastructure_pid"] = process_mark(os.getpid())
        tags = sorted({*found.tags, RUN_TAG})
        with contextlib.suppress(PrefectException, httpx.HTTPError):
            changed: Any = context.client.update_flow_run(found.id, tags=tags, **changes)
            await changed


class _RunLogger(Observer):
    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self._logger = get_run_logger()

    def step(self, step: str, total: int | None, fresh: int) -> None:
        if total is not None:
            self._log(logging.INFO, f"{step}: {total} items to do, {fresh} fresh")

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        if state in BAD:
            place = f"{step}: {key}" if key else step
            self._log(logging.WARNING, f"{place} {state}: {detail or ''}")

    def note(self, text: str) -> None:
        self._log(logging.INFO, text)

    def _log(self, level: int, text: str) -> None:
        self._logger.log(level, "%s", self._redact(text))
