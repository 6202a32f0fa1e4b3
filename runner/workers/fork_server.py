"""The process that runs of `paddock up` are forked from.

A run begins 0.4 s after it is started; a fresh interpreter needs 2 s.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.process import BaseProcess
from typing import Any

from paddock.engine.system.processes import show_as

PRELOAD = (
    "paddock.runner.cli.application",
    # Imported by most runs as they begin, which took 0.5 s of processor time.
    "anyio._backends._asyncio",
    "paddock.engine.backends.balancer",
    "paddock.runner.prefect.local_service",
    "paddock.steps.files.rows",
    "paddock.steps.files.write",
    "paddock.steps.llm.chat",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "pydantic.v1",
)


def start_fork_server(*modules: str) -> None:
    """Start the process that runs are forked from, with today's imports and environment.

    It is a fork of this process, which is there in milliseconds: a new Python needs a second of a
    processor for its imports, and 80 MB. Threads, loops and open connections must not be forked, so
    there must be none yet. If it is killed, `multiprocessing` starts a new Python in its place.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # it would import from this folder; commands don't get this
    for module in (*PRELOAD, *modules):
        importlib.import_module(module)
    multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOAD, *modules])
    gc.freeze()  # a page that the collector of one process writes to is shared no more
    gc.enable()
    spawn, util.spawnv_passfds = util.spawnv_passfds, _fork  # type: ignore[assignment]
    try:
        resource_tracker.ensure_running()  # which unblocks the signal
        # Ctrl-C at the terminal is for its parent, also in the first instant: what is forked from
        # it calls `take_interrupts`.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = spawn
        take_interrupts()


def _fork(path: bytes, arguments: Sequence[Any], descriptors: Sequence[int]) -> int:
    """Carry out the code of a Python's command line in a fork of this process; return its id."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else what waits there is written twice
    if pid := os.fork():
        return pid
    try:
        for kept, next_kept in pairwise((2, *sorted(descriptors), os.sysconf("SC_OPEN_MAX"))):
            os.closerange(kept + 1, next_kept)  # also the end of the pipe by which our end is seen
        show_as("paddock forkserver")  # `pkill -f "paddock up"` is not for runs
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        exec(arguments[-1], {})
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)


def take_interrupts() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


async def wait_until_ended(process: BaseProcess) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)
