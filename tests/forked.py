"""Processes forked from one that has imported the runner.

A start takes some milliseconds of a processor; that of a new Python, with its imports, a second.
"""

import contextlib
import gc
import importlib
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from paddock.runner.cli import application
from paddock.runner.prefect import client_settings
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
# What runs import as they begin.
PRELOAD = (
    "paddock.engine.backends.balancer", "paddock.runner.cli.commands.run",
    "paddock.runner.ledger.database.postgres",
    "paddock.runner.daemon.daemon_session",
    "paddock.runner.prefect.run_tracking", "paddock.runner.render.run_page",
    "paddock.runner.review.decisions", "paddock.steps.files.rows", "paddock.steps.files.write",
    "paddock.steps.llm.chat", "tests.runner.world",
)  # fmt: skip

FLOWS = ("paddock.runner.workers.ordered_run", "paddock.runner.workers.pipeline_flow")


class Forked:
    def __init__(self, pid: int, ended: int, out: Path, err: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended
        self._out, self._err = out, err

    def said(self) -> str:
        """Return what it has written to its standard output until now."""
        return self._out.read_text()

    def poll(self) -> int | None:
        return self._wait(0)

    def wait(self, timeout: float = PATIENCE_S) -> int:
        if (status := self._wait(timeout)) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return status

    def communicate(self, timeout: float = PATIENCE_S) -> tuple[str, str]:
        """Wait until it ends; return all that it wrote to its two outputs."""
        self.wait(timeout)
        return self.said(), self._err.read_text()

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout_s: float) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout_s)[0]:
            self.returncode = int(os.read(self._ended, 16))
            os.close(self._ended)
        return self.returncode


class ForkServer:
    """The process that others are forked from."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._n_started = folder, 0
        self._asking = threading.Lock()
        """One process at a time is asked for: two answers may else be read as one."""
        self._door, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
                cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
            )  # fmt: skip

    def start(
        self,
        work: Callable[..., object],
        *arguments: object,
        imports: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        log: Path | None = None,
    ) -> Forked:
        """Call a function of a module in a new process, with today's environment.

        What it returns is the process's status, where that is a number. The modules `imports` are
        imported before it is forked. Both outputs are added to `log`, where there is one.
        """
        with self._asking:
            return self._start(work, arguments, imports, environ or os.environ, cwd, log)

    def _start(
        self,
        work: Callable[..., object],
        arguments: tuple[object, ...],
        imports: tuple[str, ...],
        environ: Mapping[str, str],
        cwd: Path,
        log: Path | None,
    ) -> Forked:
        self._n_started += 1
        task, out, err = (
            self._folder / f"{self._n_started}.{kind}" for kind in ("in", "out", "err")
        )
        out, err = log or out, log or err
        asked = (dict(environ), cwd, imports, work, arguments)
        task.write_bytes(pickle.dumps(asked))
        ended, tells = os.pipe()
        with task.open() as work_file, out.open("a") as out_file, err.open("a") as err_file:
            ours = [work_file.fileno(), out_file.fileno(), err_file.fileno(), tells]
            socket.send_fds(self._door, [b"."], ours)
        os.close(tells)
        return Forked(int(self._door.recv(16)), ended, out, err)

    def paddock(
        self,
        *words: str,
        imports: tuple[str, ...] = (),
        environ: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        log: Path | None = None,
    ) -> Forked:
        return self.start(carry_out, words, imports=imports, environ=environ, cwd=cwd, log=log)

    def python(
        self,
        code: str,
        *words: object,
        environ: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        log: Path | None = None,
    ) -> Forked:
        own = (code, tuple(map(str, words)))
        return self.start(run_code, *own, imports=FLOWS, environ=environ, cwd=cwd, log=log)

    def close(self) -> None:
        self._door.close()
        self._process.wait(PATIENCE_S)


def carry_out(words: tuple[str, ...]) -> None:
    """Carry out a command of Paddock's in this process."""
    sys.argv = ["paddock", *words]
    # `up` clears them itself, after it has forked what runs are forked from.
    restore_imported_state(clears_log_handlers=words[0] != "up")
    application.main()


def restore_imported_state(*, clears_log_handlers: bool = True) -> None:
    """Have environment and log as after the imports of a fresh interpreter."""
    for name, value in client_settings.SHIPPED.items():  # as it has set when it was imported
        os.environ.setdefault(name, value)
    if clears_log_handlers:
        logging.root.handlers.clear()  # Prefect adds one where its import finds none


def run_code(code: str, words: tuple[str, ...]) -> None:
    sys.argv = ["-c", *words]
    exec(code, {"__name__": "__main__"})


def _serve(door: socket.socket) -> None:
    """Fork a process for each task, and write to its pipe how it ended."""
    for module in PRELOAD:
        importlib.import_module(module)
    gc.freeze()  # else each forked process copies the pages of all modules when it collects
    gc.set_threshold(50_000, 20, 100)
    died, dies = os.pipe()
    os.set_blocking(dies, False)
    signal.set_wakeup_fd(dies)
    tells: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the number of the signal is written to `dies`
    while True:
        ready = select.select([door.fileno(), died], [], [])[0]
        if died in ready:
            os.read(died, 100)
            for pid in list(tells):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    os.write(tells[pid], str(os.waitstatus_to_exitcode(status)).encode())
                    os.close(tells.pop(pid))
        if door.fileno() in ready:
            message, descriptors, *_ = socket.recv_fds(door, 1, 4)
            if not message:
                return
            task, *outputs, tell = descriptors
            with os.fdopen(task, "rb") as file:
                environ, cwd, imports, work, arguments = pickle.load(file)
            for module in imports:
                importlib.import_module(module)
            if not (pid := os.fork()):
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.set_wakeup_fd(-1)
                for descriptor in (died, dies, tell, door.detach(), *tells.values()):
                    os.close(descriptor)
                os.chdir(cwd)
                _work(environ, work, arguments, outputs)
            for descriptor in outputs:
                os.close(descriptor)
            tells[pid] = tell
            door.send(str(pid).encode())


def _work(
    environ: dict[str, str],
    work: Callable[..., object],
    arguments: tuple[object, ...],
    outputs: list[int],
) -> NoReturn:
    """Do the work of a forked process, and end as Python does."""
    for number, descriptor in enumerate(outputs, 1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environ)
    added = environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [path for path in added if path and path not in sys.path]
    if "prefect" in sys.modules:  # which read the environment when it was imported
        sys.modules["prefect.context"].refresh_global_settings_context()
    status = work(*arguments)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as our_door:
        _serve(our_door)
