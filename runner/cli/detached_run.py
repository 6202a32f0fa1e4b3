"""A run in a process of its own that outlives the server that starts it: of agents, of the console.

The process has its order in a file without a name, its standard input, and answers there, a line of
JSON each: inputs may be secret, what a run returns may be large, and no server that is killed
leaves a file. The ledger has the run, whose name is the handle.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from paddock.engine.system.item_samples import ItemSample
from paddock.engine.system.processes import exit_status_text, python_command, spawn_detached
from paddock.engine.system.records import Struct, asdict
from paddock.engine.system.text import counted, fit_json
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner import api
from paddock.runner.bind.inputs import outside_path_faults, read_inputs
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.run_history import LedgerFolder, PastRun, recent_runs, runs_named
from paddock.runner.progress.events import Observer
from paddock.runner.settings import STATE_FOLDER, read_settings

from .exit_status import CommandError, status_and_message

TRIGGER, CONSOLE_TRIGGER = "mcp", "console"
_TOO_MANY = {
    TRIGGER: "of agents go on at once here, and no more may.\n"
    "  Wait until one has ended (`status`), or `stop` one.",
    CONSOLE_TRIGGER: "of the console go on at once here, and no more may.\n"
    "  Wait until one has ended, or stop one.",
}
BEGIN_S = 40.0
"""How long a run may take to begin; below the minute that clients wait for an answer."""
_WAIT_S = 5.0  # for another run on the same folders; then it is refused, with the reason
_POLL_S = 0.1
_MOST_KEPT = 32  # answers of runs that ended, for as long as the server lives
_MOST_RETURNS_BYTES = 128 * 1024  # more than an agent is shown
_N_SEARCHED = 200  # of the latest runs, when those that run are counted


class ToolRefusal(CommandError):
    """A call of an agent that is refused in words of ours and of the call alone."""


class DetachedRunRequest(Struct, frozen=True):
    """What an agent or a person asks for; plain JSON values."""

    file: str
    """The pipeline, absolute."""
    inputs: Mapping[str, Any]
    only: tuple[str, ...] = ()
    sample: int | None = None
    retry_failed: bool = False
    trigger: str = TRIGGER
    """Its first word says what starts the run, the others who."""
    is_again: bool = False


class _RunProcess(Struct):
    pid: int
    exchange: IO[bytes]
    """Its order, then what it says."""
    code: int | None = None
    """How it ended, as far as that is known."""

    def has_ended(self) -> bool:
        if self.code is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if ended else None
        return self.code is not None

    def answers(self) -> dict[str, Any]:
        """Return what it has said so far; its place in the file stays."""
        number, answers = self.exchange.fileno(), dict[str, Any]()
        for line in os.pread(number, os.fstat(number).st_size, 0).splitlines(keepends=True):
            answers |= json.loads(line) if line.endswith(b"\n") else {}
        return answers


class DetachedRuns:
    """Starts runs below one folder, and has the answers of those that it started. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        flags: Mapping[str, object],
        most: int,
        trigger: str = TRIGGER,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`flags` are the command line's settings; `most`: runs at once, also of former servers.

        `trigger` is the first word of theirs, `environ` their environment; None: ours.
        """
        self._folder = folder
        self._trigger = trigger
        self._environ = environ
        self._flags = dict(flags)
        self._most = most
        self._turn = threading.Lock()
        self._starting: set[int] = set()
        self._processes: dict[str, _RunProcess] = {}

    def start(self, order: DetachedRunRequest) -> str:
        """Start a run; return its name as soon as the ledger has it."""
        with self._turn:
            own, n_running = socket.gethostname(), len(self._starting)
            for past in recent_runs(find_ledgers([self._folder]), limit=_N_SEARCHED).runs:
                is_there = past.row.host != own or past.row.pid not in self._starting
                if past.status == "running" and past.row.trigger.split(" ")[0] == self._trigger:
                    n_running += is_there
            if n_running >= self._most:
                raise ToolRefusal(f"{counted(n_running, 'run')} {_TOO_MANY[self._trigger]}")
            exchange = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the run is known
            request = {**asdict(order), "flags": self._flags, "folder": str(self._folder)}
            exchange.write(json.dumps(request).encode())
            exchange.seek(0)
            command = python_command("-m", "paddock.runner.cli.detached_run")
            pid = spawn_detached(command, Path(os.devnull), exchange.fileno(), self._environ)
            process = _RunProcess(pid, exchange)
            self._starting.add(process.pid)
        file = Path(order.file)
        try:
            run = _wait_for_name(process, LedgerFolder(file.parent / STATE_FOLDER, file.name))
        except BaseException:
            process.exchange.close()
            with self._turn:
                self._starting.discard(process.pid)
            raise
        with self._turn:
            self._starting.discard(process.pid)
            self._processes[run] = process
            ended = [name for name, process in self._processes.items() if process.has_ended()]
            for name in ended[:-_MOST_KEPT]:
                self._processes.pop(name).exchange.close()
        return run

    def is_closing(self, run: str) -> bool:
        """Return whether the process of a run that this server started still lives."""
        with self._turn:
            process = self._processes.get(run)
            return process is not None and not process.has_ended()

    def returns(self, run: str) -> dict[str, Any]:
        """Return the `returns` of a run that was started here and has ended; `is_cut`: in part."""
        with self._turn:
            process = self._processes.get(run)
            answers = {} if process is None or process.exchange.closed else process.answers()
        return {name: answers[name] for name in ("returns", "is_cut") if name in answers}

    def close(self) -> None:
        """Forget what runs have said; they go on."""
        with self._turn:
            for process in self._processes.values():
                process.exchange.close()


def _wait_for_name(process: _RunProcess, place: LedgerFolder) -> str:
    deadline = time.monotonic() + BEGIN_S
    while time.monotonic() < deadline:
        has_ended = process.has_ended()  # before it is read: a quick run has ended by then
        answers = process.answers()
        run = str(answers.get("run", ""))
        if run and runs_named([place], run).runs:
            return run
        if has_ended:
            why = f"The run's process {exit_status_text(process.code or 0)}."
            raise CommandError(str(answers.get("error") or why))
        time.sleep(_POLL_S)
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    os.waitpid(process.pid, 0)
    raise ToolRefusal(
        f"The run did not begin within {BEGIN_S:g} s, and was ended.\n"
        f"  This machine may be busy: try again later."
    )


def stop_refusal(past: PastRun) -> str:
    """Return why `stop_run` cannot stop a run; empty: it can."""
    if past.status != "running" or past.row.pid is None:
        return "It has ended."
    if past.row.host != socket.gethostname():
        return f"It runs on {past.row.host}."
    # Without a handler the signal would kill: a program of the user's that calls our API, say.
    is_handled = _handles_signal(past.row.pid, signal.SIGUSR1)
    if is_handled is False or (is_handled is None and past.row.trigger == "hand"):
        return "Another program carries it out."
    return ""


def _handles_signal(pid: int, number: signal.Signals) -> bool | None:
    """Return whether a process has a handler for a signal; None where the system does not say."""
    with suppress(OSError, ValueError, StopIteration):
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
    return None


def stop_run(past: PastRun, *, now: bool) -> None:
    """Ask a run of this machine to end: after the items in flight, or at once.

    Asked twice to end at once, its process is ended.
    """
    if refusal := stop_refusal(past):
        raise ToolRefusal(f"Run '{past.row.run}' cannot be stopped here: {refusal}")
    if past.row.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(past.row.pid, signal.SIGTERM if now else signal.SIGUSR1)


def refuse_paths_outside(file: Path, inputs: Mapping[str, Any], folder: Path) -> None:
    """Refuse inputs that lead out of the folder that a person has opened to agents."""
    pipeline = read_plan(file).pipeline
    values = read_inputs(pipeline, inputs, base=file.parent, cwd=Path.cwd()).values
    if faults := outside_path_faults(pipeline, inputs, values, folder, "the folder that is shown"):
        raise PipelineError(faults)


def main() -> None:
    """Carry out the order in the file that is the standard input, and answer in its place."""
    order = json.loads(sys.stdin.buffer.read())
    answers = os.fdopen(os.dup(0), "w", encoding="utf-8")
    answers.truncate(0)
    answers.seek(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # not for what the run starts

    def say(**fields: Any) -> None:
        print(json.dumps(fields, default=str), file=answers, flush=True)

    class BeginObserver(Observer):
        def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
            say(run=run)

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        file = Path(order["file"])
        os.chdir(order["folder"])  # inputs are relative to what is shown
        if not order["is_again"]:
            refuse_paths_outside(file, order["inputs"], Path(order["folder"]))
        settings = read_settings(file.parent, flags=order["flags"])
        options = RunOptions(
            only=frozenset(order["only"]),
            sample=None if order["sample"] is None else ItemSample(order["sample"]),
            retry_failed=order["retry_failed"],
            wait_s=_WAIT_S,
            notify=False,
            # What the file reaches needs a person's consent, as under `up`.
            needs_consent=True,
            trigger=order["trigger"],
        )
        environment = RunEnvironment(settings=settings, observer=BeginObserver())
        report = api.run_until_end(file, order["inputs"], options, environment)
        returns = report.as_json()["returns"]
        kept = fit_json(returns, _MOST_RETURNS_BYTES)
        cut = {} if kept is returns else {"is_cut": True}
        say(returns=kept, error=report.message, **cut)
    except (Exception, KeyboardInterrupt) as error:  # the outermost frame
        say(error=status_and_message(error)[1])


if __name__ == "__main__":
    main()
