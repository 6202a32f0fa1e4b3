"""A Prefect server for runs with `--prefect`, in a process of its own that ends when it is idle.

`python -m paddock.runner.daemon.prefect_host STATE_DIR KEEP_S IDLE_S`: `prefect_server` starts it.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.tasks import wait_for_event

from .daemon_files import daemon_folder
from .prefect_client import PREFECT_ERRORS, ask
from .prefect_retention import own_client
from .prefect_server import PrefectServer

LOOK_S = 15.0
_AT_WORK = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}


async def host(state_dir: Path, keep_s: float, idle_s: float) -> None:
    """Keep a server until a signal comes, or no run is at work for `idle_s`; unless one does."""
    stop = asyncio.Event()
    with suppress(LockTaken), lock_now(daemon_folder(state_dir) / "prefect-host.lock"):
        await _keep_server(stop, state_dir, keep_s, idle_s)


async def _keep_server(stop: asyncio.Event, state_dir: Path, keep_s: float, idle_s: float) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with PrefectServer(state_dir, keep_s, is_host=True) as server:
        busy_at = time.monotonic()
        while not stop.is_set():
            status = await server.ready()
            try:
                async with own_client(status.url, state_dir) as api:
                    if await ask(api, "POST", "/flow_runs/count", _AT_WORK):
                        busy_at = time.monotonic()
            except PREFECT_ERRORS:
                busy_at = time.monotonic()  # it is away, and a run may need it
            if time.monotonic() - busy_at >= idle_s:  # right after the look: a run may have begun
                return
            await wait_for_event(stop, min(LOOK_S, idle_s))


if __name__ == "__main__":
    asyncio.run(host(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
