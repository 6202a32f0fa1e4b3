"""Carry out an order: as a flow run of its pipeline's deployment, or without Prefect.

For `paddock up`, in a process of its own. Where a server answers when the run begins, Prefect's
engine runs it and shows it; where none does, it runs all the same, and `up` tells Prefect later.
What became of it is in its report, whatever Prefect could be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from paddock.engine.system.processes import RUN_PRIORITY, set_priority
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import encodable, map_texts
from paddock.runner.prefect import client_settings  # noqa: F401 - first, see there

# isort: split

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import refresh_global_settings_context
from prefect.exceptions import ObjectNotFound, Pause, PrefectException
from prefect.flow_engine import run_flow
from prefect.states import Pending

from paddock.runner import api
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.daemon.daemon_files import find_daemon
from paddock.runner.daemon.prefect_auth import CLIENT_VARIABLE
from paddock.runner.daemon.prefect_client import TrackingError, check_prefect_api
from paddock.runner.progress.command_logs import run_log
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.events import MultiObserver, Observer
from paddock.runner.progress.prefect_view import RUN_TAG
from paddock.runner.progress.report import Report
from paddock.runner.settings import read_settings

from .order import Order, OrderOutcome
from .pipeline_flow import RESERVED, flow_of

ANSWER_S = 10.0
"""How long a server may take until a run begins without it."""
SHOW_S = 30.0
"""How long a run that is over waits until Prefect shows its end; `paddock up` tells it later."""
LOOK_S = 2.0
"""How long it takes until a server that does not answer is asked whether it is there at all."""

_PREFIX = re.compile(r"^Flow run encountered an exception:(?: \w+:)? ?")
"""Prefect's prefix of an error's message."""


class RunControl(Struct):
    """How the process that starts a run steers and follows it."""

    text: str | None = None
    """The pipeline's text, if it was read before; otherwise its file is read."""
    flags: dict[str, object] = field(default_factory=dict)
    """The command line's settings."""
    needs_consent: bool = False
    stop_gate: StopGate = field(default_factory=StopGate)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    began: Callable[[str], None] = lambda run: None
    """Called with the run's name in the ledger."""
    waits: Callable[[str], None] = lambda message: None
    """Called with what it waits for; empty: it is at work."""
    shown_as: Callable[[str], None] = lambda flow_run: None
    """Called with the id of its flow run in Prefect."""
    is_continued: bool = False
    """If it stops, the same flow run is continued later, and must not end."""


async def run_order(order: Order, deployment: str, control: RunControl) -> OrderOutcome:
    """Carry out an order; `deployment` is Prefect's, empty where no server answers."""
    run, message, is_shown = _OrderRun(order, control), "", False
    try:
        flow_run = await _flow_run_of(order, deployment) if deployment else None
        if flow_run is not None and flow_run.state is not None and flow_run.state.is_final():
            why = f"it is {flow_run.state.name} in Prefect"
            return OrderOutcome(_ended_there(order, why), is_shown=True, is_cancelled=True)
        if flow_run is not None:
            control.shown_as(str(flow_run.id))
            message, is_shown = await run.in_flow(flow_run)
        if not run.has_begun and not message:
            with _without_server():
                await run.pipeline(Path(order.pipeline), order.inputs, run.options, run.environment)
    except ObjectNotFound:
        why = "it was deleted in Prefect"
        return OrderOutcome(_ended_there(order, why), is_shown=True, is_cancelled=True)
    except Exception as error:  # whatever ends a run is reported, and ends no other
        message = str(error) or type(error).__name__
    report = run.report and _small(run.report)
    return OrderOutcome(report, message, is_shown, control.stop_gate.is_cancelled)


def _ended_there(order: Order, message: str) -> Report:
    return Report("", Path(order.pipeline).stem, "interrupted", {}, message=f"Not run: {message}.")


def _small(report: Report) -> Report:
    missing = tuple(item for item in report.items if item.state == "missing")
    counted = report.quarantine()
    return replace(
        report, items=missing, returns=None, steps={}, models={}, tables={}, counted=counted
    )


async def _flow_run_of(order: Order, deployment: str) -> FlowRun | None:
    """Return the flow run in which Prefect shows an order; None: no server answers.

    Raises:
        ObjectNotFound: it was deleted there.
    """
    finding = asyncio.ensure_future(_find_flow_run(order, deployment))
    try:
        if await _is_done_in_time(finding, ANSWER_S):
            return finding.result()
    except ObjectNotFound:
        if order.flow_run:
            raise  # else its deployment was deleted, and is made again
    except (PrefectException, httpx.HTTPError, OSError, RuntimeError):
        pass
    finally:
        finding.cancel()
    return None


async def _is_done_in_time(task: asyncio.Future[Any], within_s: float) -> bool:
    """Wait for what asks Prefect's server, while that answers; return whether it is done."""
    deadline = time.monotonic() + within_s
    with contextlib.suppress(TrackingError):
        while not (await asyncio.wait({task}, timeout=LOOK_S))[0] and time.monotonic() < deadline:
            await check_prefect_api(os.environ)
    return task.done()


async def _find_flow_run(order: Order, deployment: str) -> FlowRun:
    async with get_client() as client:
        if order.flow_run:
            found: FlowRun = await client.read_flow_run(order.flow_run)  # type: ignore[arg-type]
            state = found.state
            if order.mark and state and state.is_final() and not state.is_cancelled():
                # The start before has left it, and it is not shown as waiting yet.
                await client.set_flow_run_state(found.id, Pending(), force=True)
                found = await client.read_flow_run(found.id)
            return found
        created: FlowRun = await client.create_flow_run_from_deployment(
            deployment,  # type: ignore[arg-type]
            parameters=map_texts(order.inputs, encodable),
            state=Pending(message=encodable(order.reason) or None),
            tags=[RUN_TAG, encodable(order.trigger)],
            idempotency_key=order.id,
        )
        return created


class _OrderRun:
    def __init__(self, order: Order, control: RunControl) -> None:
        self._order = order
        self._control = control
        self.options = RunOptions(
            retry_failed=order.retry_failed, trigger=order.trigger, job=order.id, text=control.text,
            needs_consent=control.needs_consent,
            ordered_files=order.files if order.files or order.gone else None,
        )  # fmt: skip
        self.environment = RunEnvironment(stop=control.stop, stop_gate=control.stop_gate)
        self.has_begun = False
        self.report: Report | None = None
        """Of its latest try; None: none has ended, but by an error."""
        self._has_report = asyncio.Event()

    async def in_flow(self, found: FlowRun) -> tuple[str, bool]:
        """Run it in Prefect's engine; return its final state's message, and if that is shown.

        It returns when the run is over, at most some seconds later: the server may be gone.
        """
        order, control = self._order, self._control
        file, is_continued = Path(order.pipeline), lambda: control.is_continued
        flow = flow_of(file, self.options, self.environment, self.pipeline, is_continued)
        parameters = {name: value for name, value in order.inputs.items() if name not in RESERVED}
        # Prefect takes those of the flow run where there are none, which others may have written.
        verified = found.model_copy(update={"parameters": parameters})
        coming: Any = run_flow(flow, flow_run=verified, parameters=parameters, return_type="state")
        running, over = map(asyncio.ensure_future, (coming, self._has_report.wait()))
        try:
            await asyncio.wait({running, over}, return_when=asyncio.FIRST_COMPLETED)
            if not await _is_done_in_time(running, SHOW_S):
                return "", False
            state: State[Any] = running.result()
        except Pause as pause:
            return f"{pause}.", False
        except (PrefectException, httpx.HTTPError, RuntimeError):
            # A server that went away: before the run has begun it goes on without, and `up` tells.
            if self.has_begun and self.report is None:
                raise
            return "", False
        finally:
            for task in (running, over):
                task.cancel()
        return _PREFIX.sub("", str(state.message or "")), state.is_final()

    async def pipeline(
        self,
        path: Path,
        inputs: Mapping[str, Any],
        options: RunOptions,
        environment: RunEnvironment,
    ) -> Report:
        """Run the pipeline, with those of the order's inputs that no flow can have as well."""
        self.has_begun = True
        reserved = {name: value for name, value in self._order.inputs.items() if name in RESERVED}
        settings = read_settings(path.parent, flags=self._control.flags)
        settings = replace(settings, is_prefect=False)  # it is `up` that decides it
        is_own_session = os.getsid(0) == os.getpid()
        if is_own_session and await asyncio.to_thread(find_daemon, settings) is not None:
            # Else this run may start the daemon, whose models would be as slow as it is
            set_priority(os.getpid(), max(RUN_PRIORITY, os.nice(0)))
        with run_log(settings, self._order.trigger) as lines:
            observer = MultiObserver(_ControlObserver(self._control), lines)
            environment = replace(environment, settings=settings, observer=observer)
            report = await api.run_async(path, {**inputs, **reserved}, options, environment)
        self.report = report
        self._has_report.set()
        return report


@contextlib.contextmanager
def _without_server() -> Any:
    """Remove Prefect's address from the environment, so that no run is a flow run."""
    url = os.environ.pop("PREFECT_API_URL", None)
    try:
        yield
    finally:
        if url is not None:
            os.environ["PREFECT_API_URL"] = url


def form_of(file: str, text: str) -> dict[str, Any]:
    return dict(flow_of(Path(file), RunOptions(text=text)).parameters.model_dump())


def use_server(api_url: str = "", auth_string: str = "") -> None:
    """Point Prefect's client to this server; empty: the one in the environment.

    Keeps the password out of the environment of child processes.
    """
    is_known = api_url in ("", os.environ.get("PREFECT_API_URL"))
    if api_url:
        os.environ["PREFECT_API_URL"] = api_url
    if auth_string:
        os.environ[CLIENT_VARIABLE] = auth_string
    if auth_string or not is_known:  # reading the settings takes 0.05 s of a processor
        refresh_global_settings_context()
    os.environ.pop(CLIENT_VARIABLE, None)  # Prefect's settings have it


class _ControlObserver(Observer):
    """Reports what the run waits for, and its name in the ledger, as the control asks."""

    def __init__(self, control: RunControl) -> None:
        self._control = control

    def waits(self, text: str) -> None:
        self._control.waits(text)

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        self._control.waits("")
        self._control.began(run)
