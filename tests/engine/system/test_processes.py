"""Subprocesses: their output, and how they end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from paddock.engine.system.processes import OutputTooLarge, run, run_blocking
from tests.waiting import is_alive, until


def test_a_program_gets_its_input_and_returns_both_outputs() -> None:
    code = "import sys; print(sys.stdin.read()); print('err', file=sys.stderr); sys.exit(3)"
    ended = asyncio.run(
        run([sys.executable, "-c", code], environ=os.environ, stdin=b"hello", most_bytes=100)
    )
    assert (ended.code, ended.stdout, ended.stderr) == (3, b"hello\n", b"err\n")


def test_too_much_output_and_a_missing_program_raise() -> None:
    with pytest.raises(OutputTooLarge):
        asyncio.run(run(["yes"], environ=os.environ, most_bytes=1000))
    with pytest.raises(FileNotFoundError) as failed:
        asyncio.run(run(["no-such-program"], environ=os.environ, most_bytes=1000))
    assert failed.value.filename is None


def test_a_blocking_run_that_is_late_or_missing_is_none() -> None:
    assert run_blocking(["no-such-program"], timeout_s=5) is None
    assert run_blocking(["sleep", "60"], timeout_s=0.05) is None
    ended = run_blocking(["sh", "-c", "echo out; exit 2"], timeout_s=60)
    assert ended is not None
    assert (ended.code, ended.stdout) == (2, b"out\n")


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
        async with asyncio.timeout(120):
            await asyncio.wait({starting})

    asyncio.run(cancelled())
    until(lambda: not is_alive(int(pid.read_text())))  # it is killed, not waited for
