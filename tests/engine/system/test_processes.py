"""Subprocesses: their output, and how they end."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from paddock.engine.system.frame_processes import ordered_process
from paddock.engine.system.processes import OutputTooLarge, run, run_blocking, spawn_detached
from tests.optional import present
from tests.waiting import PATIENCE_S, is_alive, until


async def test_a_program_gets_its_input_and_returns_both_outputs() -> None:
    code = "import sys; print(sys.stdin.read()); print('err', file=sys.stderr); sys.exit(3)"
    command = [sys.executable, "-c", code]
    ended = await run(command, environ=os.environ, stdin=b"hello", most_bytes=100)
    assert (ended.code, ended.stdout, ended.stderr) == (3, b"hello\n", b"err\n")


async def test_too_much_output_and_a_missing_program_raise() -> None:
    with pytest.raises(OutputTooLarge):
        await run(["yes"], environ=os.environ, most_bytes=1000)
    with pytest.raises(FileNotFoundError) as failed:
        await run(["no-such-program"], environ=os.environ, most_bytes=1000)
    assert failed.value.filename is None


def test_a_process_that_outlives_us_holds_no_file_that_we_pass_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # as the lock of `flock FILE paddock run` is
    spawned = psutil.Process(spawn_detached(["/bin/sleep", "60"], tmp_path / "err"))
    try:
        os.close(writer)
        with open(reader, "rb") as pipe:  # noqa: PTH123 - a descriptor is wanted
            assert pipe.read() == b""
        assert spawned.is_running()
    finally:
        spawned.kill()
        spawned.wait()


def test_a_blocking_run_that_is_late_or_missing_is_none() -> None:
    assert run_blocking(["no-such-program"], timeout_s=5) is None
    assert run_blocking(["sleep", "60"], timeout_s=0.05) is None
    ended = present(run_blocking(["sh", "-c", "echo out; exit 2"], timeout_s=PATIENCE_S))
    assert (ended.code, ended.stdout) == (2, b"out\n")


ORDERED = """
import os, signal, sys, time
from paddock.engine.system.frame_processes import take_order
order, send = take_order()
send({"number": 1, "order": order["text"]})
print("in the log")
match order["do"]:
    case "die":
        os.kill(os.getpid(), signal.SIGKILL)
    case "half":
        os.write(4, (100).to_bytes(8, "little"))
    case "garbage":
        os.write(4, b"no frame at all, but longer than two lengths")
    case "close":
        os.closerange(3, 9)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("do", "within_s"),
    [("die", 60.0), ("garbage", 60.0), ("close", 60.0), ("hang", 0.5), ("half", 0.5)],
)
def test_an_ordered_process_that_answers_no_more_is_ended_and_told(
    do: str, within_s: float
) -> None:
    order = {"do": do, "text": "x" * 1_000_000 + "\udc80"}  # beyond a pipe; a name in no UTF-8
    with ordered_process([sys.executable, "-c", ORDERED], order) as ordered:
        assert ordered.next_answer() == {"number": 1, "order": order["text"]}
        ends = time.monotonic() + within_s

        def check() -> None:
            if time.monotonic() > ends:
                raise TimeoutError

        if do in ("hang", "half"):
            with pytest.raises(TimeoutError):
                ordered.next_answer(check)
        else:
            assert ordered.next_answer(check) is None
            assert ordered.exit_reason() == "the process was killed by SIGKILL (in the log)"
    assert not is_alive(ordered.process.pid)


def test_a_process_of_low_priority_gives_way_to_those_of_other_sessions_too() -> None:
    code = (
        "import os; from paddock.engine.system.processes import lower_priority; lower_priority(7); "
        "own = '/proc/self/autogroup'; "
        "print(os.nice(0), open(own).read().split()[-1] if os.path.exists(own) else 7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], start_new_session=True, capture_output=True, check=True
    )
    assert done.stdout.split() == [b"%d" % (os.nice(0) + 7), b"7"]


def test_a_program_whose_start_is_cancelled_halfway_is_ended_too(tmp_path: Path) -> None:
    me, pid = psutil.Process(), tmp_path / "pid"
    script = f"trap '' TERM; echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 600; sleep 600"

    async def cancelled() -> None:
        before = len(me.children())
        command = run(["sh", "-c", script], environ=os.environ, most_bytes=1000)
        starting = asyncio.create_task(command)
        while len(me.children()) == before:  # noqa: ASYNC110 - turn by turn, to meet the start
            await asyncio.sleep(0)
        while not pid.exists():
            time.sleep(0.01)  # noqa: ASYNC251 - the loop stands: not all pipes are open
        starting.cancel()
        await asyncio.wait({starting})

    asyncio.run(cancelled())
    until(lambda: not is_alive(int(pid.read_text())))  # it is killed, not waited for
