"""Mirror runs in Prefect's REST API: they report, and what they report is sent at its pace.

The daemon does so for its own server. It outlives the runs, so no run waits for Prefect. A run
whose process goes away without reporting its end is shown as crashed. Ended runs that are not shown
yet are kept on disk. For a server at `PREFECT_API_URL` the run's own process does it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.engine.system.retry import Backoff, Pauses
from paddock.engine.system.tasks import (
    StopRequested,
    TaskSet,
    run_concurrently,
    unless,
    wait_for_event,
)
from paddock.runner.progress.prefect_view import (
    LATE_S,
    PROGRESS_DESCRIPTION,
    RUN_TAG,
    SUSPEND_REFUSED,
    PrefectState,
    artifact_key,
    crashed_end,
    dated,
    prefect_name,
    stop_of_parents,
    wish_of_state,
)

from . import prefect_backlog
from .prefect_client import PREFECT_ERRORS, PrefectRefusal, ask, is_passing

if TYPE_CHECKING:
    import httpx

GIVE_UP_S = 900.0
"""Time after the end of a run; then the next daemon tries again."""
BACKOFF = Backoff(1.0, 15.0, factor=2.5)  # a server that has just started may refuse connections
MOST_REFUSED = 4
MOST_AWAY = 3  # so often in a row, while a command waits for it: 3.5 s
CLOSE_S = 2.0
REQUESTS_AT_ONCE = 4  # 80 a second where one takes 50 ms
FEW_TASKS = 32
"""So many go one by one: with two writers at once, SQLite answers that it is locked (503)."""
TASKS_AFTER_END_S = 120.0
"""How long tasks are still sent after a run's end, by a daemon, which outlives it."""
STATE_POLL_S = 2.0
_ENDED = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")
_RUNNING = {"type": "RUNNING", "name": "Running"}

log = logging.getLogger(__name__)


class PrefectMirrors:
    """All runs that are mirrored."""

    def __init__(
        self,
        open_client: Callable[[], AbstractAsyncContextManager[httpx.AsyncClient]],
        state_dir: Path | None = None,
    ) -> None:
        """`open_client` waits until the server is there; without `state_dir` nothing is kept."""
        self._open_client = open_client
        self._state_dir = state_dir
        self._is_reached = False
        self._trouble = ""
        self._runs: dict[str, _RunMirror] = {}
        self._tasks = TaskSet()
        self._room = asyncio.Semaphore(REQUESTS_AT_ONCE)

    @property
    def n_ended(self) -> int:
        """Number of runs that have ended and are not shown yet."""
        return sum(mirror.end is not None for mirror in self._runs.values())

    def take(self, update: dict[str, Any]) -> bool:
        """Take an update; return whether it is the run's first."""
        mirror = self._runs.get(str(update["id"]))
        is_new = mirror is None
        if mirror is None:
            mirror = self._runs[str(update["id"])] = _RunMirror(str(update["id"]), update)
            self._tasks.start(self._show(mirror))
        has_ended = mirror.take(update)
        if has_ended and self._state_dir is not None:
            asyncio.get_running_loop().call_later(TASKS_AFTER_END_S, mirror.too_late.set)
        if self._state_dir is not None and (is_new or mirror.end is not None):
            try:
                prefect_backlog.keep_run(self._state_dir, {**update, "tasks": mirror.tasks})
            except OSError as error:
                log.warning("cannot write run %s to the backlog: %s", update.get("run"), error)
        return is_new

    def stop_of(self, update: dict[str, Any]) -> str:
        """Return why a run must stop, as a person wants in Prefect; empty: it need not."""
        mirror = self._runs.get(str(update["id"]))
        return mirror.wish.stop if mirror is not None else ""

    async def stop_while_waiting(self, place: Mapping[str, Any]) -> str:
        """Wait until a run that waits to begin must stop, as `stop_of`; return why.

        `place`: its flow run, and whether that is resumable.
        """
        wish = _Wish(is_resumable=place["is_resumable"])
        while not wish.stop:
            await asyncio.sleep(STATE_POLL_S)
            with suppress(*PREFECT_ERRORS, OSError, KeyError, TypeError, ValueError):
                async with self._open_client() as client:
                    await wish.look(_PrefectRest(client, self._room), place["flow_run"])
        return wish.stop

    def take_kept(self) -> None:
        """Take the backlog: runs of earlier daemons, and runs that had none."""
        assert self._state_dir is not None
        for update in prefect_backlog.kept_runs(self._state_dir):
            if str(update["id"]) not in self._runs:
                self.take(update)

    def crashed(self, lease_id: str, pid: int) -> None:
        """Show the run of a dead process as crashed, unless it has reported its end."""
        for mirror in self._runs.values():
            if mirror.lease == lease_id and mirror.end is None:
                end = crashed_end(pid)
                self.take({**mirror.head, "tasks": {}, "percent": mirror.percent, "end": end})

    async def close(self) -> None:
        """Stop; the next daemon shows the ended runs that are left after a moment."""
        if self.n_ended and self._is_reached:
            await self.finish(CLOSE_S)
        await self._tasks.close()

    async def finish(self, within_s: float) -> str:
        """Wait until all ends are shown, within bounds; return why one is not, or nothing.

        Half of the time is for tasks, if no daemon shows the rest of them.
        """
        if self._state_dir is None:
            for mirror in self._runs.values():
                asyncio.get_running_loop().call_later(within_s / 2, mirror.too_late.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._tasks.drain()
        return self._trouble or ("it was not there in time" if self._runs else "")

    async def _show(self, mirror: _RunMirror) -> None:
        """Update Prefect until the run's end is shown; retry when the server goes away."""
        pauses = Pauses(BACKOFF)
        while not mirror.is_over:
            try:
                async with self._open_client() as client:
                    api = _PrefectRest(client, self._room)
                    while not mirror.is_over:
                        await mirror.changed.wait()
                        mirror.changed.clear()
                        await mirror.show(api)
                        self._trouble, self._is_reached = mirror.missing_words, True
                        mirror.n_refused = 0
                        pauses.succeeded()
            except (*PREFECT_ERRORS, OSError, KeyError, TypeError, ValueError) as error:
                self._trouble, self._is_reached = str(error) or type(error).__name__, False
                if self._gives_up(mirror, error):
                    if self._state_dir is not None:  # else the run's report says so
                        log.warning("Prefect does not show run %s: %s", mirror.head["run"], error)
                    break
                mirror.changed.set()
                # Wait before the next attempt; the run's end cuts it short.
                if mirror.ended.is_set():
                    await pauses.wait()
                elif await wait_for_event(mirror.ended, pauses.failed()):
                    pauses.succeeded()
        if mirror.missing_words and self._state_dir is not None:
            log.warning("Prefect, run %s: %s", mirror.head["run"], mirror.missing_words)
        self._runs.pop(mirror.id, None)
        if mirror.is_over and self._state_dir is not None:
            prefect_backlog.forget_run(self._state_dir, mirror.id)

    def _gives_up(self, mirror: _RunMirror, error: Exception) -> bool:
        """Return whether an update that failed is the last; a refused run is over."""
        # After the end of the run a process of its own does not ask for the same again.
        has_waiter = self._state_dir is None and mirror.end is not None
        mirror.n_refused += not is_passing(error)
        mirror.n_away += has_waiter
        most_refused = 0 if has_waiter else MOST_REFUSED
        is_refused = mirror.n_refused > most_refused and not is_passing(error)
        mirror.is_over |= is_refused
        return is_refused or mirror.n_away == MOST_AWAY or mirror.is_given_up


class _PrefectRest:
    """The part of Prefect's REST API that a run needs."""

    def __init__(self, client: httpx.AsyncClient, room: asyncio.Semaphore) -> None:
        self._client = client
        self._room = room

    async def post(self, path: str, body: dict[str, Any], method: str = "POST") -> Any:
        async with self._room:
            return await ask(self._client, method, path, body)

    async def set_state(self, path: str, state: dict[str, Any]) -> None:
        await self.post(f"{path}/set_state", {"state": state, "force": True})


@dataclass(eq=False)
class _Wish:
    """What a person wants with a run that goes on, by the state of its flow run."""

    is_resumable: bool
    stop: str = ""
    """Why it must stop; empty: it need not."""
    _looked_at: float = 0.0
    _ids: list[str] = field(default_factory=list)
    """The flow run and its parents, once they were looked at."""

    async def look(self, api: _PrefectRest, flow_run: str) -> None:
        """Read the state, unless that was just done; a run may not be resumable."""
        if self.stop or time.monotonic() - self._looked_at < STATE_POLL_S:
            return
        self._looked_at = time.monotonic()
        states = await self._family(api, flow_run)
        state = states.pop(flow_run, {"type": "DELETED", "name": "deleted"})
        wish = wish_of_state(state["type"], state["name"]) if state else None
        if wish is not None and wish[0] == "suspend" and not self.is_resumable:
            await api.set_state(f"flow_runs/{flow_run}", {**_RUNNING, "message": SUSPEND_REFUSED})
        elif wish is not None:
            self.stop = wish[1]
        else:
            found = ((state["type"], state["name"]) for state in states.values() if state)
            self.stop = stop_of_parents(found)

    async def _family(self, api: _PrefectRest, flow_run: str) -> dict[str, Any]:
        """Return the states of the flow run and of its parents, by id, in one request.

        The first time it takes one request for each, to find them.
        """
        is_known, ids = bool(self._ids), self._ids or [flow_run]
        found = batch = await api.post("flow_runs/filter", {"flow_runs": {"id": {"any_": ids}}})
        while not is_known and batch and (task := batch[0]["parent_task_run_id"]):
            batch = await api.post("flow_runs/filter", {"task_runs": {"id": {"any_": [task]}}})
            found = [*found, *batch]
        self._ids = [run["id"] for run in found]
        return {run["id"]: run["state"] for run in found}


@dataclass(eq=False)
class _RunMirror:
    """One run: what is known of it, and what Prefect shows already."""

    id: str
    head: dict[str, Any]
    lease: str = ""
    tasks: dict[str, list[str]] = field(default_factory=dict)
    """By task number: name, and the state's type, name and message."""
    percent: float = 0.0
    end: dict[str, Any] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    too_late: asyncio.Event = field(default_factory=asyncio.Event)
    """Once set, tasks are left out, so that the end is sent."""
    is_over: bool = False
    """Prefect shows the end."""
    missing_words: str = ""
    """How many tasks were left out at its end."""
    n_refused: int = 0
    """Updates that Prefect has refused since the last that it took."""
    n_away: int = 0
    """Updates that failed while a process waited for the end to be shown."""
    _ended_at: float = 0.0
    _flow_run: str = ""
    _task_runs: dict[str, str] = field(default_factory=dict)
    _shown: dict[str, list[str]] = field(default_factory=dict)
    _is_late: bool = False
    """The run began long before Prefect's server was reached."""
    _artefact: str = ""
    _shown_percent: float = -1.0
    _is_contended: bool = False
    """The server was busy: tasks go one by one."""

    @property
    def is_given_up(self) -> bool:
        """Whether Prefect has refused the end for so long that another daemon must try."""
        return self.end is not None and time.monotonic() - self._ended_at > GIVE_UP_S

    def __post_init__(self) -> None:
        self.wish = _Wish(is_resumable=bool(self.head.get("is_resumable")))

    def take(self, update: dict[str, Any]) -> bool:
        """Take an update; return whether it is the first with the run's end."""
        self.lease = str(update.get("lease", ""))
        self.tasks |= update["tasks"]
        self.percent = update["percent"]
        if update["end"] is not None and self.end is None:
            self.end, self._ended_at = update["end"], time.monotonic()
        has_ended = self.end is not None and not self.ended.is_set()
        if has_ended:
            self.ended.set()
        self.changed.set()
        return has_ended

    async def show(self, api: _PrefectRest) -> None:
        """Bring Prefect up to date; after an error, the next call sends what is missing.

        Raises:
            HttpFailure: its server does not answer.
            PrefectRefusal: it answers with an error.
        """
        end = self.end
        if not self._flow_run and await self._begin(api):
            self.is_over = end is not None
            return
        until = self.ended if end is None else self.too_late
        n_missing = await self._show_tasks(api, self._states(end), until)
        if self.percent != self._shown_percent:
            await self._show_progress(api)
        if end is not None:
            await self._show_end(api, end)
            self.is_over = True
            if n_missing:
                self.missing_words = f"{n_missing:,} of its {len(self.tasks):,} tasks are missing"
        else:
            await self.wish.look(api, self._flow_run)

    async def _begin(self, api: _PrefectRest) -> bool:
        """Find or make the flow run; return whether Prefect already shows its end."""
        head = self.head
        if given := head.get("flow_run"):
            self._artefact, self._flow_run = await self._artefact_of(api, given), given
            return False
        flow = await api.post("flows/", {"name": prefect_name(head["pipeline"])})
        about = {"name": head["run"], "parameters": head["parameters"], "flow_id": flow["id"]}
        about["tags"] = [RUN_TAG]
        # A daemon that ended in the middle may have made it.
        made = await api.post("flow_runs/", {**about, "idempotency_key": self.id})
        state = (made.get("state") or {}).get("type")
        if state != "RUNNING" and state not in _ENDED:
            await api.set_state(f"flow_runs/{made['id']}", _RUNNING)  # Prefect's start is its time
            self._is_late = time.time() - head["began"] > LATE_S
        if state == "RUNNING":
            self._artefact = await self._artefact_of(api, made["id"])
        self._flow_run = made["id"]
        return state in _ENDED and state != "CRASHED"

    async def _artefact_of(self, api: _PrefectRest, flow_run: str) -> str:
        """Return the id of the progress artefact that an earlier daemon made, if any."""
        conditions = {"flow_run_id": {"any_": [flow_run]}, "type": {"any_": ["progress"]}}
        found = await api.post("artifacts/filter", {"artifacts": conditions})
        return str(found[0]["id"]) if found else ""

    def _states(self, end: dict[str, Any] | None) -> dict[str, list[str]]:
        """Return the tasks; at the run's end, running tasks get the run's state."""
        if end is None:
            return dict(self.tasks)
        state = [end["state"]["type"], end["state"]["name"], end["state"]["message"]]
        return {
            number: [task[0], *state] if task[1] == "RUNNING" else task
            for number, task in self.tasks.items()
        }

    async def _show_tasks(
        self, api: _PrefectRest, states: dict[str, list[str]], until: asyncio.Event
    ) -> int:
        """Send tasks until an event, those that are shown as running first.

        Returns how many Prefect does not show as they are.
        """

        async def show(number: str) -> None:
            if until.is_set():  # a request that is cancelled and sent again is a conflict
                return
            try:
                await self._show_task(api, number, states[number])
            except PrefectRefusal as error:
                self._is_contended |= error.is_busy
                if error.is_general:
                    raise
            else:
                self._shown[number] = states[number]

        changed = [number for number, task in states.items() if self._shown.get(number) != task]
        changed.sort(key=lambda number: number not in self._task_runs)
        is_serial = self._is_contended or len(changed) <= FEW_TASKS
        n_at_once = 1 if is_serial else REQUESTS_AT_ONCE
        with suppress(StopRequested):
            await unless(run_concurrently(show, changed, n_at_once), self.too_late)
        return sum(self._shown.get(number) != task for number, task in states.items())

    async def _show_task(self, api: _PrefectRest, number: str, task: list[str]) -> None:
        name, type_, state, message = task
        is_over = type_ != "RUNNING"
        now = {"type": type_, "name": state, "message": message} if is_over else _RUNNING
        shown = "RUNNING"
        if number not in self._task_runs:
            about = {
                "name": name,
                "task_key": name.partition(": ")[0],
                "dynamic_key": f"{self.head['run']}-{number}",
            }
            made = await api.post(
                "task_runs/", {**about, "flow_run_id": self._flow_run, "state": now}
            )
            self._task_runs[number] = made["id"]
            shown = made["state"]["type"]  # an earlier daemon may have made it
        if type_ != shown:
            await api.set_state(f"task_runs/{self._task_runs[number]}", now)

    async def _show_progress(self, api: _PrefectRest) -> None:
        percent = self.percent
        if self._artefact:
            await api.post(f"artifacts/{self._artefact}", {"data": percent}, "PATCH")
        else:
            about = {"key": f"{artifact_key(self.head['pipeline'])}-progress", "type": "progress"}
            about |= {"description": PROGRESS_DESCRIPTION, "flow_run_id": self._flow_run}
            self._artefact = (await api.post("artifacts/", {**about, "data": percent}))["id"]
        self._shown_percent = percent

    async def _show_end(self, api: _PrefectRest, end: dict[str, Any]) -> None:
        """Send the table, if there is one, and the final state."""
        if end["rows"]:
            about = {"key": f"{artifact_key(self.head['pipeline'])}-results", "type": "table"}
            about |= {"description": end["description"], "flow_run_id": self._flow_run}
            await api.post("artifacts/", {**about, "data": json.dumps(end["rows"])})
        if self.head.get("flow_run"):
            return  # it sets its own state
        state = PrefectState(**end["state"])
        if self._is_late or time.time() - end["ended"] > LATE_S:
            state = dated(state, self.head["began"], end["ended"])
        await api.set_state(f"flow_runs/{self._flow_run}", asdict(state))
