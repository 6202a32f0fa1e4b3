"""The process that runs of `paddock up` are forked from.

A run begins 0.4 s after it is started; a fresh interpreter needs 2 s. It imports what runs need by
itself, so that `up` neither waits for Prefect (3 s of a processor) nor holds it (45 MB).

A request is the name of a function, with two open files: the socket that the function is called
with, and one that takes the process's id, and its exit status once it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from paddock.engine.system.frames import PipeClosed, pack_frame, read_frame
from paddock.engine.system.processes import python_command, show_as, start_in_group
from paddock.engine.system.records import Struct

PRELOAD = (
    "paddock.runner.workers.ordered_run",
    "paddock.runner.schedule.run_processes",
    "paddock.runner.cli.application",
    # Imported by most runs as they begin, which took 0.5 s of processor time.
    "anyio._backends._asyncio",
    "paddock.engine.backends.balancer",
    "paddock.runner.daemon.daemon_session",
    "paddock.steps.files.rows",
    "paddock.steps.files.write",
    "paddock.steps.llm.chat",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "pydantic.v1",
)
_NUMBER = struct.Struct("<q")
_MAX_NAME_BYTES = 1000


class ForkedProcess(Struct, frozen=True):
    pid: int
    status: socket.socket

    async def wait(self) -> int | None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.status, ended.set)
        with self.status:
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self.status)
            raw = self.status.recv(_NUMBER.size)
        return _NUMBER.unpack(raw)[0] if raw else None


class ForkServer:
    """Starts processes. Any thread may ask; what is asked waits until the server has imported all.

    It is a fork of the process that calls `fork`, with which it shares memory. One that was killed,
    or never forked, is a new Python.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._requests: socket.socket | None = None
        self._reap: Callable[[], object] = lambda: None

    def fork(self) -> None:
        """Start the server: there are no threads, loops or open connections yet, as in a fork."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # else what waits there is written twice
        gc.freeze()  # a page that the collector of one process writes to is shared no more
        gc.enable()
        self._requests, theirs = socket.socketpair()
        # Ctrl-C at the terminal is for its parent, also in the first instant.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if pid := os.fork():
            theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            self._reap = partial(os.waitpid, pid, 0)
            return
        try:
            os.closerange(3, theirs.fileno())  # also our end, which shows that we are gone
            os.closerange(theirs.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
            _serve(theirs)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)

    def start(self, function: str, link: socket.socket) -> ForkedProcess:
        """Fork a process that calls a function (`module:name`) with its end of a link.

        Raises:
            OSError: the machine cannot start another process.
        """
        status, theirs = socket.socketpair()
        with self._turn:
            with theirs:
                self._send(function.encode(), [link.fileno(), theirs.fileno()])
            raw = status.recv(_NUMBER.size)
        if not raw:
            raise OSError("the process that runs are forked from was killed")
        if (pid := _NUMBER.unpack(raw)[0]) < 0:
            raise OSError(-pid, os.strerror(-pid))
        return ForkedProcess(pid, status)

    def _send(self, name: bytes, descriptors: list[int]) -> None:
        if self._requests is not None:
            try:
                socket.send_fds(self._requests, [name], descriptors)
            except ConnectionError:  # it was killed
                self.close()
            else:
                return
        self._requests, theirs = socket.socketpair()
        with theirs:
            code = f"from {__name__} import serve_as_python; serve_as_python({theirs.fileno()})"
            command = python_command("-c", code)
            self._reap = start_in_group(command, [theirs.fileno()]).wait
        socket.send_fds(self._requests, [name], descriptors)

    def close(self) -> None:
        """End the server; the processes that it has forked go on."""
        if self._requests is not None:
            self._requests.close()
            self._reap()
            self._requests = None

    def call(self, function: str, *arguments: str) -> Any:
        """Call a function (`module:name`) in a process of its own, and return its result. Blocks.

        For what needs a library that this process does not hold.

        Raises:
            OSError: the machine cannot start another process.
            RuntimeError: with the words of the error that it raises.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = self.start(f"{__name__}:answer_call", theirs)
            process.status.close()
            ours.sendall(pack_frame({"function": function, "arguments": arguments}))
            try:
                answer = read_frame(ours.makefile("rb"))[0]
            except (PipeClosed, ConnectionError, ValueError):
                raise RuntimeError("its process was killed") from None
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


def serve_as_python(descriptor: int) -> None:
    _serve(socket.socket(fileno=descriptor))


def _serve(requests: socket.socket) -> None:
    """Fork processes until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    show_as("paddock forkserver")  # `pkill -f "paddock up"` is not for runs
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    gc.disable()
    for module in PRELOAD:
        importlib.import_module(module)
    gc.freeze()
    gc.enable()
    child_ended, wake = os.pipe()
    for end in (child_ended, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    """By process: the file that takes its exit status."""
    while True:
        ready, _, _ = select.select([requests.fileno(), child_ended], [], [])
        if child_ended in ready:
            os.read(child_ended, 4096)
            for pid, status in [*statuses.items()]:
                is_ended, how = os.waitpid(pid, os.WNOHANG)
                if is_ended:
                    _report(status, os.waitstatus_to_exitcode(how))
                    os.close(statuses.pop(pid))
        if requests.fileno() not in ready:
            continue
        name, descriptors, _, _ = socket.recv_fds(requests, _MAX_NAME_BYTES, 2)
        if not name:
            return
        link, status = descriptors
        try:
            pid = os.fork()
        except OSError as error:
            _report(status, -(error.errno or 1))
            os.close(status)
        else:
            if not pid:
                for unused in (requests.fileno(), child_ended, wake, status, *statuses.values()):
                    os.close(unused)
                _call_and_exit(name.decode(), link)
            _report(status, pid)
            statuses[pid] = status
        os.close(link)


def _report(status: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # its reader is gone, or does not ask how it ends
        os.write(status, _NUMBER.pack(number))


def _call_and_exit(function: str, link: int) -> NoReturn:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        _named(function)(socket.socket(fileno=link))
        sys.stdout.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _named(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def answer_call(link: socket.socket) -> None:
    """Carry out `ForkServer.call` in the forked process."""
    request = read_frame(link.makefile("rb"))[0]
    try:
        answer = {"result": _named(request["function"])(*request["arguments"])}
    except Exception as error:  # whatever it raises is its caller's
        answer = {"error": str(error) or type(error).__name__}
    link.sendall(pack_frame(answer))
