"""Processes of runs: what is ended with them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from paddock.engine.system.process_marks import is_process_alive, process_mark
from paddock.engine.wire import from_plain, to_plain
from paddock.runner.schedule.run_processes import PrefectPlace, RunProcess, RunTask
from paddock.runner.workers.order import Order
from tests.fakes.foreign_modules import add_foreign_modules
from tests.waiting import PATIENCE_S, until

STARTS = """
import subprocess, time
print(subprocess.Popen(["sleep", "300"], start_new_session=True).pid, flush=True)
time.sleep(300)
"""


def test_what_a_run_started_is_ended_by_force_with_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    with process.stdout:
        started = psutil.Process(int(process.stdout.readline()))

    async def killed() -> None:
        RunProcess(process.pid).kill()

    asyncio.run(killed())
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
    until(lambda: not is_there(started))


def is_there(process: psutil.Process) -> bool:
    """Return whether it still runs; its status may not have been fetched yet."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


HOSTILE = """
import asyncio, json, os, signal, subprocess, time
from paddock.engine.system.frames import pack_frame, read_frame
from paddock.engine.wire import from_plain, to_plain
from paddock.runner.progress.item_states import ItemState
from paddock.pipelines.typed_rows import TypedRows
from paddock.runner.progress.report import ItemReport, Report
from paddock.runner.progress.report_table import ReportTable
from paddock.runner.schedule import run_processes
from paddock.runner.schedule.run_processes import PrefectPlace, RunExecutor, RunTask, StopRequest
from paddock.runner.workers.fork_server import ForkServer
from paddock.runner.workers.order import Order
from paddock.runner.workers.ordered_run import OrderOutcome, _small

GONE = ItemState.MISSING
MISSING = tuple(ItemReport("each", f"{n}.md", GONE, error="gone" * 20) for n in range(50_000))
REPORT = Report("r", "p", "completed", {"new": 2}, returns={1, 2}, items=MISSING, message="\\udc80",
                tables={"each": ReportTable(TypedRows([{"a": 1}]))})

def act(link):
    do = read_frame(link.makefile("rb"))[0]["text"]
    half = pack_frame({"began": "x" * 1000})[:500]
    match do:
        case "dies within a frame":
            link.sendall(half)
            os.kill(os.getpid(), signal.SIGKILL)
        case "outlives what forked it":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(3)
            end = OrderOutcome(_small(REPORT))
            link.sendall(pack_frame({"ended": to_plain(end)}, errors="surrogatepass"))
            os._exit(0)
        case "leaves a child with its pipe":
            no = subprocess.DEVNULL  # it would hold the test's own pipes as well
            subprocess.Popen(["sleep", "60"], pass_fds=[link.fileno()], stdout=no, stderr=no)
            os._exit(3)
        case "reports":
            end = OrderOutcome(_small(REPORT))
            link.sendall(pack_frame({"ended": to_plain(end)}, errors="surrogatepass"))
            os._exit(0)
    link.sendall({"stops within a frame": half, "sends garbage": b"\\xff" * 64,
                  "sends another object": pack_frame({"odd": 1})}.get(do, b""))
    time.sleep(600)

class Events:
    def __init__(self):
        self.ends, self.over_at = {}, {}
    def began(self, process, run): ...
    def shown_as(self, process, flow_run): ...
    def ended(self, process, outcome):
        self.ends[process.pid] = from_plain(OrderOutcome, outcome).report
    def over(self, process, crash):
        self.over_at.setdefault(process.pid, asyncio.Future()).set_result(crash)

async def follow(events, executor, do):
    running = await executor.start(RunTask(Order("", "", "", ""), PrefectPlace(), do))
    if do in ("stops within a frame", "reads nothing"):
        for _ in range(10_000):  # more than a pipe holds
            running.halt(StopRequest("x" * 1000, True))
        await asyncio.sleep(0.2)
        running.kill()
    crash = await events.over_at.setdefault(running.pid, asyncio.Future())
    if report := events.ends.get(running.pid):
        return [report.message, len(report.items), report.effects_in_words(), report.exit_status()]
    return crash

async def main():
    events = Events()
    executor = RunExecutor(events, forks)
    deeds = ["dies within a frame", "stops within a frame", "sends garbage", "reports",
             "sends another object", "leaves a child with its pipe", "reads nothing"]
    async with asyncio.timeout(280):
        ends = await asyncio.gather(*(follow(events, executor, do) for do in deeds))
        last = "outlives what forked it"  # nothing is forked after it
        done = {**dict(zip(deeds, ends)), last: await follow(events, executor, last)}
        print(json.dumps(done))

run_processes.run_in_process = act
forks = ForkServer()
forks.fork()
asyncio.run(main())
"""


def test_a_run_is_told_the_settings_of_ups_command_line() -> None:
    flags = {"allow": ["run"], "step_timeout": "5s", "max_parallel": 2, "offline": True}
    task = RunTask(Order("", "", "", ""), PrefectPlace(), "steps: []", flags)
    assert from_plain(RunTask, to_plain(task)) == task


def test_up_knows_the_end_of_a_run_whose_process_dies_hangs_or_sends_garbage() -> None:
    command = [sys.executable, "-c", HOSTILE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    killed = "its process was killed by SIGKILL"
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "dies within a frame": killed,
        "stops within a frame": killed,
        "sends garbage": killed,
        "sends another object": killed,
        "reads nothing": killed,
        "leaves a child with its pipe": "its process ended with status 3",
        "reports": ["\udc80", 50_000, "nothing to do", 0],
        "outlives what forked it": ["\udc80", 50_000, "nothing to do", 0],
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells it so")
def test_a_process_is_known_again_after_the_machines_clock_was_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            mark = process_mark(process.pid)
            monkeypatch.setattr(psutil.Process, "create_time", lambda self: 1.0)
            assert is_process_alive(mark)
        finally:
            process.kill()
    assert not is_process_alive(mark)


FORKS = """
from paddock.runner.workers.fork_server import ForkServer
forks = ForkServer()
forks.fork()
print(forks.call("os.path:basename", "/a/forked"))
"""


def test_the_process_that_runs_are_forked_from_outlives_ctrl_c_and_imports_nothing_of_the_folder(
    tmp_path: Path,
) -> None:
    mark = add_foreign_modules(tmp_path)
    late = (
        "import os, pathlib, signal, time\n"
        "def late():\n"
        "    signal.signal(2, signal.default_int_handler)\n"
        "    pathlib.Path('began').touch()\n"
        "    while not pathlib.Path('go').exists(): time.sleep(0.05)\n"
        "os.register_at_fork(after_in_child=late)\n"
        "signal.signal(2, lambda *_: None)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-P", "-c", late + FORKS], cwd=tmp_path, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        try:
            while not (tmp_path / "began").exists() and running.poll() is None:
                time.sleep(0.05)
            os.killpg(running.pid, signal.SIGINT)
            (tmp_path / "go").touch()
            out, err = running.communicate(timeout=PATIENCE_S)
        finally:
            running.kill()
    assert (running.returncode, out) == (0, "forked\n"), err
    assert "Traceback" not in err
    assert not mark.exists()
