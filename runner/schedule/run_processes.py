"""Start runs in forked processes, and follow them to their end.

Adopts the processes of a killed `paddock up`. A run begins 0.4 s after it is started (a fresh
interpreter needs 2 s), and none can take another down. Lives in the event loop that starts it. A
process carries out one order after the other, as it is given them: frames bring it orders and stop
requests, and take each run's name and its end; a process that sends anything else is killed. When
`paddock up` was killed and the other end is closed, the run at work continues to its end, which the
ledger records.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import psutil

from paddock.engine.system.frames import (
    FrameHead,
    FrameTooLarge,
    PipeClosed,
    pack_frame,
    read_frame_async,
)
from paddock.engine.system.process_marks import is_process_alive, process_mark
from paddock.engine.system.processes import exit_status_text
from paddock.engine.system.records import SelectiveFields, Struct, field
from paddock.engine.system.tasks import TaskSet, end, running
from paddock.engine.wire import from_plain, to_plain
from paddock.runner.api import FILE_THREADS
from paddock.runner.progress.report import Status
from paddock.runner.workers.fork_server import ForkedProcess, ForkServer
from paddock.runner.workers.order import Order

RUN = f"{__name__}:run_in_process"

log = logging.getLogger("paddock.up")


class PrefectPlace(Struct, frozen=True):
    api_url: str = ""
    deployment: str = ""


class RunTask(SelectiveFields, Struct, frozen=True):
    """The first frame that a run's process is sent."""

    hidden = ("auth_string",)

    order: Order
    place: PrefectPlace
    text: str
    """The pipeline's, of all orders that it is given."""
    flags: Mapping[str, object] = field(default_factory=dict)
    """The command line's settings; the rest, permissions too, is read when a run begins."""
    auth_string: str = ""
    """Password of our own Prefect server."""


class StopRequest(Struct, frozen=True):
    message: str
    is_gentle: bool
    status: Status = "budget"
    """Of the run that stops: cancelled for good, or held for a while."""


def run_in_process(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C at the terminal is for `paddock up`, which sends us a request
    has_prefect = asyncio.run(_run_orders(link))
    from paddock.runner.workers import run_in_flow

    if has_prefect:
        run_in_flow.send_what_is_shown()


class _OrderReader:
    """In a run's process: the orders that come, and the stop requests for the one at work."""

    def __init__(self, task: RunTask) -> None:
        self.orders = asyncio.Queue[tuple[Order, PrefectPlace] | None]()
        self.orders.put_nowait((task.order, task.place))
        self.control: Any = None

    async def read(self, requests: asyncio.StreamReader) -> None:
        """Read until the other end is closed; then what is at work goes on, and nothing else."""
        try:
            while True:
                match (await read_frame_async(requests))[0]:
                    case {"order": order, "place": place}:
                        given = from_plain(Order, order), from_plain(PrefectPlace, place)
                        self.orders.put_nowait(given)
                    case {"stop": request}:
                        self._stop(from_plain(StopRequest, request))
                    case _:
                        break
        except (PipeClosed, ValueError):
            pass
        if self.control is not None:
            self.control.is_continued = True  # by the next `paddock up`
        while not self.orders.empty():
            self.orders.get_nowait()
        self.orders.put_nowait(None)

    def _stop(self, request: StopRequest) -> None:
        if self.control is None:
            return
        self.control.is_continued = True  # unless it was cancelled for good
        if request.is_gentle:
            self.control.stop_gate.close(request.message, request.status)
        else:
            self.control.stop.set()


async def _run_orders(link: socket.socket) -> bool:
    """Carry out orders until the other end is closed; return whether Prefect shows them."""
    from paddock.runner.workers.ordered_run import RunControl, run_order, use_server

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(FILE_THREADS))
    requests, answers = await asyncio.open_connection(sock=link)
    try:
        task = from_plain(RunTask, (await read_frame_async(requests))[0])
    except PipeClosed:  # `paddock up` was killed just now
        return False

    def send(head: FrameHead) -> None:
        answers.write(pack_frame(head, errors="surrogatepass"))

    reader = _OrderReader(task)
    async with running(reader.read(requests)):
        while (given := await reader.orders.get()) is not None:
            order, place = given
            use_server(place.api_url, task.auth_string)
            reader.control = control = RunControl(
                text=task.text, flags=dict(task.flags), needs_consent=True,
                began=lambda run: send({"began": run}),
                waits=lambda message: send({"waits": message}),
                shown_as=lambda flow_run: send({"flow_run": flow_run}),
            )  # fmt: skip
            outcome = await run_order(order, place.deployment, control)
            reader.control = None
            send({"ended": to_plain(outcome)})
    answers.close()
    with contextlib.suppress(OSError):  # the other end is closed
        await answers.wait_closed()
    return bool(task.place.api_url)


_POLL_S = 1.0
_LEFT_OPEN_S = 1.0  # how long what a run started may hold its pipe once the run itself has ended


class RunProcess:
    def __init__(self, pid: int, requests: asyncio.StreamWriter | None = None) -> None:
        self.pid = pid
        self.mark = process_mark(pid)
        self.waits_for = ""
        self.is_over = False
        self.n_orders = 1
        """That it was given."""
        self._requests = requests

    @property
    def can_take_orders(self) -> bool:
        """Whether it lives, and was started by this `paddock up`."""
        return self._requests is not None and not self.is_over

    def give_order(self, order: Order, place: PrefectPlace) -> None:
        self.waits_for = ""
        self.n_orders += 1
        self._send({"order": to_plain(order), "place": to_plain(place)})

    def finish(self) -> None:
        """End it once it is idle: it gets no more orders."""
        if self._requests is not None:
            self._requests.close()

    def halt(self, request: StopRequest) -> None:
        if self._requests is not None:
            self._send({"stop": to_plain(request)})
        else:
            self.signal(signal.SIGUSR1 if request.is_gentle else signal.SIGTERM)

    def _send(self, head: FrameHead) -> None:
        if self._requests is not None and not self._requests.is_closing():
            self._requests.write(pack_frame(head, errors="surrogatepass"))

    def signal(self, number: signal.Signals) -> None:
        if not self.is_over and is_process_alive(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with all its children: commands have process groups of their own."""
        started: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            if is_process_alive(self.mark):
                started = psutil.Process(self.pid).children(recursive=True)
        self.signal(signal.SIGKILL)  # first, so that it starts nothing more
        for process in started:
            with contextlib.suppress(psutil.Error):
                process.kill()


class RunEvents(Protocol):
    """Takes what processes report: `RunManager`, and lists of tests."""

    def began(self, process: RunProcess, run: str) -> None: ...
    def shown_as(self, process: RunProcess, flow_run: str) -> None: ...
    def ended(self, process: RunProcess, outcome: Mapping[str, Any]) -> None: ...
    def over(self, process: RunProcess, crash: str) -> None: ...


class RunExecutor:
    """Starts runs. Processes survive it unless they are stopped."""

    def __init__(self, events: RunEvents, forks: ForkServer) -> None:
        self._events = events
        self._forks = forks
        self._watched = TaskSet()

    async def start(self, task: RunTask) -> RunProcess:
        """Start a run; return its process at once.

        Raises:
            OSError: the machine cannot start another process.
        """
        ours, theirs = socket.socketpair()
        answers, requests = await asyncio.open_connection(sock=ours)
        try:
            with theirs:
                process = await asyncio.to_thread(self._forks.start, RUN, theirs)
        except OSError as error:
            requests.close()
            raise OSError(f"a run's process could not be started: {error}") from error
        requests.write(pack_frame(to_plain(task), errors="surrogatepass"))
        started = RunProcess(process.pid, requests)
        self._watched.start(self._follow(started, process, answers, requests))
        return started

    def adopt(self, mark: str) -> RunProcess | None:
        """Adopt a process that another `paddock up` started; return None when it is gone."""
        if not is_process_alive(mark):
            return None
        adopted = RunProcess(int(mark.split(":")[1]))
        self._watched.start(self._watch(adopted))
        return adopted

    async def _follow(
        self,
        started: RunProcess,
        process: ForkedProcess,
        answers: asyncio.StreamReader,
        requests: asyncio.StreamWriter,
    ) -> None:
        reading = asyncio.create_task(self._read_frames(started, answers))
        code = await process.wait()
        while is_process_alive(started.mark):  # noqa: ASYNC110 - what forked it was killed: no event
            await asyncio.sleep(_POLL_S)
        await asyncio.wait({reading}, timeout=_LEFT_OPEN_S)
        await end(reading)
        requests.close()
        if code is None:
            message = "its process is gone"
        else:
            message = f"its process {'was ' if code < 0 else ''}{exit_status_text(code)}"
        started.is_over = True
        self._events.over(started, message)

    async def _read_frames(self, started: RunProcess, answers: asyncio.StreamReader) -> None:
        try:
            while True:
                match (await read_frame_async(answers))[0]:
                    case {"began": run}:
                        self._events.began(started, str(run))
                    case {"waits": message}:
                        started.waits_for = str(message)
                    case {"flow_run": flow_run}:
                        self._events.shown_as(started, str(flow_run))
                    case {"ended": dict(outcome)}:
                        self._events.ended(started, outcome)
                    case _:
                        break
        except (FrameTooLarge, ValueError):
            pass
        except PipeClosed:
            return
        log.warning("process %d: what it sends is no frame: killed", started.pid)
        started.kill()

    async def _watch(self, adopted: RunProcess) -> None:
        while is_process_alive(adopted.mark):  # noqa: ASYNC110 - no event tells of another's child
            await asyncio.sleep(_POLL_S)
        adopted.is_over = True
        self._events.over(adopted, "its process is gone")
