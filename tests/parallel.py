"""`-n 10` runs files of tests in ten processes, forked from the one that has collected them.

A process takes the next file when it is done with one. The tests of a file, or of a group of files,
stay together, with the servers and models that they share. Collecting takes 7 s of a processor,
which each process would pay, and memory holds the modules once.
"""

import os
import signal
import sys
import time
import traceback
import warnings
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from _pytest.config import create_terminal_writer

# Files whose tests ask one Prefect server run in one process, which starts it once: a start takes
# 4 s of a processor, and what waits for it the rest of 12. Groups, so that none is the end.
WITH_PREFECT = {
    "up": (
        "runner/schedule/test_up_killed.py", "runner/schedule/test_up_reviews.py",
        "runner/schedule/test_up.py", "runner/test_no_secret_in_a_command_line.py",
        "runner/daemon/test_prefect_client.py",
    ),
    "flows": (
        "runner/prefect/test_flow.py", "runner/prefect/test_states_by_hand.py",
        "runner/prefect/test_pipeline_flow.py",
    ),
    "link": (
        "runner/schedule/test_prefect_link.py", "runner/workers/test_ordered_run.py",
        "runner/daemon/test_prefect_retention.py",
    ),
}  # fmt: skip

GROUPS = {f"tests/{file}": name for name, files in WITH_PREFECT.items() for file in files}

_END_S = 60
"""How long processes that are interrupted may take to end what they have started."""


def group_of(nodeid: str) -> str:
    """Return what a test stays together with: its file, or a group of files."""
    file = nodeid.partition("::")[0]
    return GROUPS.get(file, file)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("terminal reporting")
    group._addoption("-n", dest="processes", type=int, default=0, help="run in so many processes")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    n_processes = session.config.getoption("processes")
    if not n_processes or session.testsfailed or session.config.option.collectonly:
        return None
    groups: dict[str, list[int]] = {}
    for number, item in enumerate(session.items):
        groups.setdefault(group_of(item.nodeid), []).append(number)
    if reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
        reporter.showfspath = False  # files run at the same time
    _Parent(session, list(groups.values())).run(min(n_processes, len(groups)))
    return True


class _Worker:
    def __init__(self, name: str, pid: int, connection: Connection) -> None:
        self.name, self.pid, self.connection = name, pid, connection
        self.group: list[int] = []
        """The tests of its group that are not done."""


class _Parent:
    """Hands out groups of tests, and reports what becomes of them."""

    def __init__(self, session: pytest.Session, groups: list[list[int]]) -> None:
        self._session = session
        self._groups = groups[::-1]
        self._workers: list[_Worker] = []
        self._n_started = 0
        self._folder = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]

    def run(self, n_processes: int) -> None:
        try:
            for _ in range(n_processes):
                self._start()
            while self._workers:
                self._listen()
        finally:
            self._interrupt()

    def _listen(self) -> None:
        """Take what has come within a second."""
        ready = wait([worker.connection for worker in self._workers], timeout=1)
        for worker in [worker for worker in self._workers if worker.connection in ready]:
            with suppress(EOFError, OSError):
                self._take(worker, worker.connection.recv())
            if self._session.shouldfail:
                raise self._session.Failed(self._session.shouldfail)
            if self._session.shouldstop:
                raise self._session.Interrupted(self._session.shouldstop)
        for worker in [*self._workers]:  # not by its end of the pipe: what it started may hold it
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._bury(worker, status)

    def _start(self) -> None:
        """Fork a process, which asks for its first group."""
        name = f"gw{self._n_started}"
        self._n_started += 1
        ours, theirs = Pipe()
        sys.stdout.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that libraries have
            pid = os.fork()
        if not pid:
            for worker in self._workers:
                worker.connection.close()
            ours.close()
            _work(self._session, theirs, self._folder / name)
        theirs.close()
        self._workers.append(_Worker(name, pid, ours))

    def _take(self, worker: _Worker, message: Any) -> None:
        hook = self._session.config.hook
        if message is None:  # it is done with its group
            worker.group = self._groups.pop() if self._groups else []
            worker.connection.send(worker.group)
            return
        number, event, data = message
        item = self._session.items[number]
        if event == "begun":
            hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        elif event == "report":
            report = pytest.TestReport._from_json(data)
            gateway = SimpleNamespace(id=worker.name)
            node = SimpleNamespace(gateway=gateway, _workerinfocache="")
            vars(report)["node"] = node  # by which pytest knows that files run at the same time
            hook.pytest_runtest_logreport(report=report)
        elif event == "done":
            worker.group.remove(number)
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        else:
            self._fail(data)

    def _bury(self, worker: _Worker, status: int) -> None:
        """Report the test that has ended its process; another one goes on with its group."""
        with suppress(EOFError, OSError):
            while worker.connection.poll():
                self._take(worker, worker.connection.recv())
        worker.connection.close()
        self._workers.remove(worker)
        end = f"process {worker.name} of tests ended with {os.waitstatus_to_exitcode(status)}"
        if worker.group:
            item = self._session.items[worker.group.pop(0)]
            report = pytest.TestReport(item.nodeid, item.location, {}, "failed", end, "call")
            self._session.config.hook.pytest_runtest_logreport(report=report)
            if worker.group:
                self._groups.append(worker.group)
            if self._groups:
                self._start()
        elif status:
            self._fail(end)

    def _fail(self, reason: str) -> None:
        """Fail for what no test is to blame for, such as a server's end."""
        self._session.testsfailed += 1
        sys.stderr.write(f"\n{reason}\n")

    def _interrupt(self) -> None:
        """Interrupt the processes that are left, and wait until they have ended their servers."""
        left = [worker.pid for worker in self._workers]
        for pid in left:
            os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + _END_S
        while left := [pid for pid in left if not os.waitpid(pid, os.WNOHANG)[0]]:
            if time.monotonic() > deadline:
                os.kill(left[0], signal.SIGKILL)
            time.sleep(0.05)


def _work(session: pytest.Session, connection: Connection, folder: Any) -> NoReturn:
    """Run the groups of tests that the parent hands out, as a process of its own."""
    config, status = session.config, 1
    try:
        capture = config.pluginmanager.get_plugin("capturemanager")
        assert capture is not None
        # Files of its own. The parent's stay open: modules may have kept `sys.stderr`.
        _still_open = capture._global_capturing
        capture._global_capturing = None
        capture.start_global_capturing()
        capture.suspend_global_capture()
        errors = os.fdopen(os.dup(2), "w", buffering=1)
        terminal = SimpleNamespace(_tw=create_terminal_writer(config, errors))
        config.pluginmanager.unregister(name="terminalreporter")
        config.pluginmanager.register(terminal, "terminalreporter")  # of a test that hangs
        config.pluginmanager.register(_Reports(connection))
        folder.mkdir(mode=0o700)
        config._tmp_path_factory._basetemp = folder  # type: ignore[attr-defined]
        _run_groups(session, connection)
        status = 0
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        pass  # the parent ends early
    except BaseException as error:
        with suppress(OSError):
            connection.send((0, "error", "".join(traceback.format_exception(error))))
    finally:
        with suppress(BaseException):
            session._setupstate.teardown_exact(None)
        os._exit(status)


def _run_groups(session: pytest.Session, connection: Connection) -> None:
    # At a group's end the next one is not known: what only the group needs ends
    next_group: Any = SimpleNamespace(nodeid="", listchain=lambda: [session])
    while True:
        connection.send(None)
        if not (group := connection.recv()):
            break
        for number, following in zip(group, [*group[1:], None], strict=True):
            _Reports.number = number
            item = session.items[number]
            after = next_group if following is None else session.items[following]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            connection.send((number, "done", None))
    session._setupstate.teardown_exact(None)


class _Reports:
    """Sends what pytest reports in this process."""

    number = 0
    """The test that runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def pytest_runtest_logstart(self) -> None:
        self._connection.send((self.number, "begun", None))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._connection.send((self.number, "report", report._to_json()))
