"""Start runs, each in a forked process, and follow them to their end.

Adopts the processes of a killed `paddock up`. A run begins 0.4 s after it is started (a fresh
interpreter needs 2 s), and none can take another down. Lives in the event loop that starts it. A
run's process is forked from a server that has imported everything. A pipe brings it the task and
stop requests, and takes the run's name and its end. When `paddock up` was killed and the other end
is closed, the run continues: the ledger records its work, Prefect its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import psutil

from paddock.engine.system.processes import how_it_ended
from paddock.engine.system.tasks import TaskSet
from paddock.runner.api import FILE_THREADS
from paddock.runner.progress.report import Report, Status
from paddock.runner.workers import queued_run
from paddock.runner.workers.flow_order import FlowOrder
from paddock.runner.workers.queued_run import RunControl

from .process_marks import is_process_alive, process_mark


@dataclass(frozen=True, slots=True)
class RunTask:
    """One run to carry out."""

    flow_run: str
    order: FlowOrder
    """As verified. The flow run's parameters are not read again: others may have changed them."""
    text: str
    flags: Mapping[str, object] = field(default_factory=dict)
    """The command line's settings; the rest, permissions too, is read when the run begins."""
    api_url: str = ""
    """Prefect's API, as `paddock up` reaches it. The process that runs are forked from may have
    been started when it was elsewhere; empty: as in the environment."""
    auth_string: str = field(default="", repr=False)
    """Password of our own Prefect server."""
    agreed: frozenset[str] = frozenset()
    """What a person consented to for the file: code that changed since does not run."""


@dataclass(frozen=True, slots=True)
class RunBegan:
    """The run's name."""

    run: str


@dataclass(frozen=True, slots=True)
class RunWaits:
    """What the run waits for on other machines; empty: it no longer waits."""

    words: str


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
    is_handed_over: bool = False
    """`paddock up` ends; other machines continue their part of the run."""


def run_in_process(task: RunTask, link: Connection) -> None:
    """Carry out a run, and end the process."""
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C at the terminal is for `paddock up`, which sends us a request
    signal.signal(signal.SIGINT, signal.default_int_handler)
    queued_run.take_interrupts()
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    asyncio.run(_run_task(task, link))
    sys.stdout.flush()
    os._exit(0)  # do not wait for Prefect's threads, whose server may be gone


async def _run_task(task: RunTask, link: Connection) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(FILE_THREADS))
    queued_run.use_server(task.api_url, task.auth_string)
    control = RunControl(text=task.text, flags=dict(task.flags), agreed=task.agreed)
    control.began = lambda run: _send_message(link, RunBegan(run))
    control.waits = lambda words: _send_message(link, RunWaits(words))
    is_unreachable = False
    with _taking_stop_requests(link, control, task.api_url):
        try:
            words = await queued_run.run_queued_flow(task.flow_run, task.order, control)
        except queued_run.PrefectUnreachable as error:
            words, is_unreachable = str(error), True
        except Exception as error:  # whatever ends a run is reported, and ends no other
            words = str(error) or type(error).__name__
    words = "" if control.report else words
    _send_message(link, ProcessEnd(control.report, words, True, is_unreachable))


@contextmanager
def _taking_stop_requests(link: Connection, control: RunControl, api_url: str) -> Iterator[None]:
    """Handle stop requests from the pipe while its other end is open."""
    loop = asyncio.get_running_loop()
    alone: list[asyncio.Task[None]] = []

    def hear() -> None:
        try:
            message = link.recv()
        except (EOFError, OSError):
            loop.remove_reader(link.fileno())
            control.is_continued = True  # by the next `paddock up`
            alone.append(asyncio.create_task(_end_without_prefect(api_url, control)))
            return
        control.is_continued = True  # unless it was cancelled for good
        if isinstance(message, StopRequest) and message.is_gentle:
            control.is_handed_over = message.is_handed_over
            control.stop_gate.close(message.words, message.status)
        elif isinstance(message, StopRequest):
            control.stop.set()

    loop.add_reader(link.fileno(), hear)
    try:
        yield
    finally:
        loop.remove_reader(link.fileno())
        for task in alone:
            task.cancel()


_AWAY_S = 15.0  # longer than the next `paddock up` takes to start its server
_DRAIN_S = 30.0


async def _end_without_prefect(api_url: str, control: RunControl) -> None:
    """End this process if Prefect's server stays away, now that its `paddock up` is gone.

    The next one may have its server at another port, since a program took the one it had; Prefect's
    client would ask there for minutes. It takes the run for one that was killed, and continues it.
    """
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


def _send_message(link: Connection, message: RunBegan | RunWaits | ProcessEnd) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        link.send(message)


_POLL_S = 1.0


class RunProcess:
    """One running process."""

    def __init__(self, pid: int, process: Any = None, link: Connection | None = None) -> None:
        self.pid = pid
        self.mark = process_mark(pid)
        self.run = ""
        """The run's name in the ledger, as soon as it is known."""
        self.waits_for = ""
        """What it waits for."""
        self.ended: asyncio.Future[ProcessEnd] = asyncio.get_running_loop().create_future()
        self._process = process
        self._link = link

    def halt(self, request: StopRequest) -> None:
        """Ask it to stop, after the current item or at once."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.send(request)
        else:
            self.signal(signal.SIGUSR1 if request.is_gentle else signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still exists."""
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
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=run_in_process, args=(task, theirs), daemon=False)
        try:
            await asyncio.to_thread(process.start)
        except (OSError, EOFError) as error:
            ours.close()
            raise OSError(f"a run's process could not be started: {error}") from error
        finally:
            theirs.close()
        running = RunProcess(process.pid or 0, process, ours)
        self._listen(running, process, ours)
        return running

    def adopt(self, mark: str) -> RunProcess | None:
        """Adopt a process that another `paddock up` started; return None when it is gone."""
        if not is_process_alive(mark):
            return None
        running = RunProcess(int(mark.split(":")[1]))
        self._watched.start(self._watch(running))
        return running

    def _listen(self, running: RunProcess, process: Any, link: Connection) -> None:
        """Read a process's messages until it ends."""
        loop = asyncio.get_running_loop()
        end: ProcessEnd | None = None

        def hear() -> None:
            nonlocal end
            try:
                while link.poll():
                    message = link.recv()
                    if isinstance(message, RunBegan):
                        running.run = message.run
                        self._began(running)
                    elif isinstance(message, RunWaits):
                        running.waits_for = message.words
                    else:
                        end = message
            except (EOFError, OSError):
                loop.remove_reader(link.fileno())  # the process has closed its end

        def gone() -> None:
            loop.remove_reader(process.sentinel)
            hear()
            loop.remove_reader(link.fileno())
            link.close()
            process.join(1.0)
            running.ended.set_result(end or ProcessEnd(exitcode=process.exitcode))

        loop.add_reader(link.fileno(), hear)
        loop.add_reader(process.sentinel, gone)

    async def _watch(self, running: RunProcess) -> None:
        """Wait for a process that is not our child."""
        while is_process_alive(running.mark):  # noqa: ASYNC110 - no event tells of another's child
            await asyncio.sleep(_POLL_S)
        running.ended.set_result(ProcessEnd())
