"""A server that is forked before `paddock up` has imported all: it serves once."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.waiting import until

pytestmark = pytest.mark.may_take(280, "starts two Prefect servers, one after the other")
UP = """
import asyncio, os, sys
from pathlib import Path
from paddock.engine.system.file_locks import lock_now
from paddock.runner.daemon.early_server import EarlyServer
from paddock.runner.daemon.prefect_server import TUNED, PrefectServer

folder = Path(sys.argv[1])
unneeded, early = EarlyServer(TUNED), EarlyServer(TUNED)

async def main():
    async with PrefectServer(folder, 3601.0, early=early) as server:
        first = await server.ready()
        async with PrefectServer(folder, 3601.0, early=unneeded) as other:  # while one serves
            assert (await other.ready()).pid == first.pid
        os.kill(early.pid, 9)
        while server.status.pid in (None, early.pid) or server.status.state != "ready":
            await asyncio.sleep(0.1)
        is_same = server.status.url == first.url
        print(first.pid == early.pid, is_same, unneeded.pid, server.status.pid)
        sys.stdout.flush()
        os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def test_it_serves_until_it_ends_and_then_a_python_of_its_own_does_at_the_same_address(
    tmp_path: Path,
) -> None:
    up = subprocess.run(
        [sys.executable, "-c", UP, str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert up.stdout, up.stderr
    is_early, is_same_address, *pids = up.stdout.split()
    assert (is_early, is_same_address) == ("True", "True")
    until(lambda: not any(psutil.pid_exists(int(pid)) for pid in pids))
