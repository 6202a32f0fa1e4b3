"""Processes of runs: what is ended with them."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time

import psutil
import pytest

from paddock.runner.schedule.run_executor import (
    ProcessEnd,
    RunProcess,
    is_process_alive,
    process_mark,
)

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
    assert process.wait(10) == -signal.SIGKILL
    until = time.monotonic() + 10
    while is_there(started) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_there(started)


def is_there(process: psutil.Process) -> bool:
    """Return whether it still runs; its status may not have been fetched yet."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_run_that_could_not_reach_prefect_is_started_again_and_one_that_failed_is_not() -> None:
    words = "All connection attempts failed"
    assert ProcessEnd(words=words, has_spoken=True).crash is None
    unreachable = ProcessEnd(words=words, has_spoken=True, is_unreachable=True)
    assert unreachable.crash == f"its process could not reach Prefect ({words})"


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
