"""Start runs, each in a forked process, and follow them to their end.

Adopts the processes of a killed `paddock up`. A run begins 0.4 s after it is started (a fresh
interpreter needs 2 s), and none can take another down. Lives in the event loop that starts it. A
run's process is forked from a server that has imported everything. Frames bring it stop requests,
and take the run's name and its end; a process that sends anything else is killed. When `paddock up`
was killed and the other end is closed, the run continues: the ledger records its work, Prefect its
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from paddock.engine.system.frames import (
    FrameHead,
    FrameTooLarge,
    PipeClosed,
    pack_frame,
    read_frame_async,
)
from paddock.engine.system.light_dataclasses import dataclass, field, replace
from paddock.engine.system.process_marks import is_process_alive, process_mark
from paddock.engine.system.processes import how_it_ended
from paddock.engine.system.tasks import TaskSet, end, running
from paddock.engine.wire import from_plain, to_plain
from paddock.runner.api import FILE_THREADS
from paddock.runner.progress.report import Report, Status
from paddock.runner.workers import queued_run, run_in_flow
from paddock.runner.workers.flow_order import FlowOrder
from paddock.runner.workers.queued_run import RunControl

log = logging.getLogger("paddock.up")


@dataclass(frozen=True, slots=True)
class RunTask:
    """One run to carry out."""

    flow_run: Mapping[str, Any]
    """As Prefect's API has it."""
    order: FlowOrder
    """As verified. The flow run's parameters do not count: others may have changed them."""
    text: str
    flags: Mapping[str, object] = field(default_factory=dict)
    """The command line's settings; the rest, permissions too, is read when the run begins."""
    api_url: str = ""
    """Prefect's API, as `paddock up` reaches it. The process that runs are forked from may have
    been started when it was elsewhere; empty: as in the environment."""
    auth_string: str = field(default="", repr=False)
    """Password of our own Prefect server."""


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How a process ended."""

    report: Report | None = None
    words: str = ""
    """The error that ended the run, if there is no report."""
    has_spoken: bool = False
    """It reported its end; a run without a report has crashed."""
    is_unreachable: bool = False
    """It could not reach Prefect, and began nothing."""
    exitcode: int | None = None

    @property
    def crash(self) -> str | None:
        """Return why the run must be restarted; None: it ended by itself."""
        if self.is_unreachable:
            return f"its process could not reach Prefect ({self.words})"
        if self.has_spoken:
            return None
        if self.exitcode is None:
            return "its process is gone"
        return f"its process {'was ' if self.exitcode < 0 else ''}{how_it_ended(self.exitcode)}"


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Stop, after the current item or at once."""

    words: str
    is_gentle: bool
    status: Status = "budget"
    """Of the run that stops: cancelled for good, or held for a while."""


def run_in_process(task: RunTask, link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C at the terminal is for `paddock up`, which sends us a request
    signal.signal(signal.SIGINT, signal.default_int_handler)
    queued_run.take_interrupts()
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    asyncio.run(_run_task(task, link))
    run_in_flow.send_what_is_shown()
    sys.stdout.flush()
    os._exit(0)  # do not wait for Prefect's threads, whose server may be gone


async def _run_task(task: RunTask, link: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(FILE_THREADS))
    queued_run.use_server(task.api_url, task.auth_string)
    requests, answers = await asyncio.open_connection(sock=link)
    control = RunControl(text=task.text, flags=dict(task.flags), needs_consent=True)

    def send(head: FrameHead) -> None:
        answers.write(pack_frame(head, errors="surrogatepass"))

    control.began = lambda run: send({"began": run})
    control.waits = lambda words: send({"waits": words})
    is_unreachable, words = False, ""
    async with running(_take_stop_requests(requests, control, task.api_url)):
        try:
            words = await queued_run.run_queued_flow(task.flow_run, task.order, control)
        except queued_run.PrefectUnreachable as error:
            words, is_unreachable = str(error), True
        except Exception as error:  # whatever ends a run is reported, and ends no other
            words = str(error) or type(error).__name__
    send({"ended": to_plain(_process_end(control, words, is_unreachable))})
    answers.close()
    with contextlib.suppress(OSError):  # the other end is closed
        await answers.wait_closed()


def _process_end(control: RunControl, words: str, is_unreachable: bool) -> ProcessEnd:
    """Return the end of a run as `paddock up` needs it, which is small: the ledger has it all."""
    if (report := control.report) is None:
        return ProcessEnd(words=words, has_spoken=True, is_unreachable=is_unreachable)
    missing = tuple(item for item in report.items if item.state == "missing")
    counted = report.quarantine()
    report = replace(
        report, items=missing, returns=None, steps={}, models={}, tables={}, counted=counted
    )
    return ProcessEnd(report, has_spoken=True, is_unreachable=is_unreachable)


async def _take_stop_requests(
    requests: asyncio.StreamReader, control: RunControl, api_url: str
) -> None:
    """Handle stop requests until the other end is closed; then see that the run can end."""
    try:
        while True:
            request = from_plain(StopRequest, (await read_frame_async(requests))[0])
            control.is_continued = True  # unless it was cancelled for good
            if request.is_gentle:
                control.stop_gate.close(request.words, request.status)
            else:
                control.stop.set()
    except (PipeClosed, ValueError):
        control.is_continued = True  # by the next `paddock up`
        # End this process if Prefect's server stays away, now that its `paddock up` is gone
        loop = asyncio.get_running_loop()
        until = loop.time() + _AWAY_S
        while loop.time() < until:
            await asyncio.sleep(1)
            if await queued_run.is_reachable(api_url):
                until = loop.time() + _AWAY_S
        control.stop_gate.close("Prefect's server is gone", "budget")
        until = loop.time() + _DRAIN_S
        while control.report is None and loop.time() < until:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.5)
        os._exit(1)


_AWAY_S = 15.0  # longer than the next `paddock up` takes to start its server
_DRAIN_S = 30.0


_POLL_S = 1.0
_LEFT_OPEN_S = 1.0  # how long what a run started may hold its pipe once the run itself has ended


class RunProcess:
    """One running process."""

    def __init__(
        self,
        pid: int,
        process: BaseProcess | None = None,
        requests: asyncio.StreamWriter | None = None,
    ) -> None:
        self.pid = pid
        self.mark = process_mark(pid)
        self.run = ""
        """The run's name in the ledger, as soon as it is known."""
        self.waits_for = ""
        """What it waits for."""
        self.ended: asyncio.Future[ProcessEnd] = asyncio.get_running_loop().create_future()
        self._process = process
        self._requests = requests

    def halt(self, request: StopRequest) -> None:
        if self._requests is not None:
            self._requests.write(pack_frame(to_plain(request)))
        else:
            self.signal(signal.SIGUSR1 if request.is_gentle else signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        if not self.ended.done() and (self._process is not None or is_process_alive(self.mark)):
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


class RunExecutor:
    """Starts runs. Processes survive it unless they are stopped."""

    def __init__(self, began: Callable[[RunProcess], None]) -> None:
        self._began = began
        self._context = multiprocessing.get_context("forkserver")
        self._watched = TaskSet()

    async def start(self, task: RunTask) -> RunProcess:
        """Start a run; return its process at once.

        Raises:
            OSError: the machine cannot start another process.
        """
        ours, theirs = socket.socketpair()
        process = self._context.Process(target=run_in_process, args=(task, theirs), daemon=False)
        answers, requests = await asyncio.open_connection(sock=ours)
        try:
            with theirs:
                await asyncio.to_thread(process.start)
        except (OSError, EOFError) as error:
            requests.close()
            raise OSError(f"a run's process could not be started: {error}") from error
        started = RunProcess(process.pid or 0, process, requests)
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
        process: BaseProcess,
        answers: asyncio.StreamReader,
        requests: asyncio.StreamWriter,
    ) -> None:
        """Read a process's frames until it ends, however it does."""
        reading = asyncio.create_task(self._read_frames(started, answers))
        await queued_run.wait_until_ended(process)
        while is_process_alive(started.mark):  # noqa: ASYNC110 - what forked it was killed: no event
            await asyncio.sleep(_POLL_S)
        await asyncio.wait({reading}, timeout=_LEFT_OPEN_S)
        reported = reading.result() if reading.done() else None
        await end(reading)
        requests.close()
        process.join(1.0)
        started.ended.set_result(reported or ProcessEnd(exitcode=process.exitcode))

    async def _read_frames(
        self, started: RunProcess, answers: asyncio.StreamReader
    ) -> ProcessEnd | None:
        """Return how it says that it ended; None: it has closed its pipe before."""
        try:
            while True:
                match (await read_frame_async(answers))[0]:
                    case {"began": run}:
                        started.run = str(run)
                        self._began(started)
                    case {"waits": words}:
                        started.waits_for = str(words)
                    case {"ended": reported}:
                        return from_plain(ProcessEnd, reported)
                    case _:
                        break
        except (FrameTooLarge, ValueError):
            pass
        except PipeClosed:
            return None
        log.warning("run %s: what its process sends is no frame: killed", started.run)
        started.kill()
        return None

    async def _watch(self, adopted: RunProcess) -> None:
        while is_process_alive(adopted.mark):  # noqa: ASYNC110 - no event tells of another's child
            await asyncio.sleep(_POLL_S)
        adopted.ended.set_result(ProcessEnd())
