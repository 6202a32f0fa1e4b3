"""The process that runs of `paddock up` are forked from.

A run begins 0.4 s after it is started; a fresh interpreter needs 2 s. It imports what runs need by
itself, so that `up` neither waits for Prefect (3 s of a processor) nor holds it (45 MB).
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
from functools import partial
from itertools import pairwise
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from paddock.engine.system.processes import show_as

PRELOAD = (
    "paddock.runner.workers.ordered_run",
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

    It is a fork of this process, which a new Python would share nothing with. Threads, loops and
    open connections must not be forked, so there must be none yet. What is asked of it waits until
    it has imported all. If it is killed, `multiprocessing` starts a new Python in its place.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # it would import from this folder; commands don't get this
    preload = [*PRELOAD, *modules]
    multiprocessing.get_context("forkserver").set_forkserver_preload(preload)
    gc.freeze()  # a page that the collector of one process writes to is shared no more
    gc.enable()
    resource_tracker.ensure_running()  # which unblocks the signal
    spawn = util.spawnv_passfds
    util.spawnv_passfds = partial(_fork, preload)
    try:
        # Ctrl-C at the terminal is for its parent, also in the first instant: what is forked from
        # it calls `take_interrupts`.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = spawn
        take_interrupts()


def _fork(
    preload: Sequence[str], path: bytes, arguments: Sequence[Any], descriptors: Sequence[int]
) -> int:
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
        gc.disable()
        for module in preload:
            importlib.import_module(module)
        gc.freeze()
        gc.enable()
        exec(arguments[-1], {})
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)


def call_in_fork(module: str, function: str, *arguments: Any) -> Any:
    """Return what a function returns in a process forked from the server. Blocks.

    For what needs a library that `up` does not hold.

    Raises:
        RuntimeError: with the words of the error that it raises.
    """
    answers, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("forkserver").Process(
        target=_answer, args=(sender, module, function, arguments)
    )
    with answers:
        with sender:
            process.start()
        try:
            answer, error = answers.recv()
        except EOFError:
            answer, error = None, "its process was killed"
        process.join()
    if error:
        raise RuntimeError(error)
    return answer


def _answer(sender: Connection, module: str, function: str, arguments: Sequence[Any]) -> None:
    try:
        sender.send((getattr(importlib.import_module(module), function)(*arguments), ""))
    except Exception as error:  # whatever it raises is its caller's
        sender.send((None, str(error) or type(error).__name__))


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
