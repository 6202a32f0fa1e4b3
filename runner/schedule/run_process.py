"""The process of one run, forked from a server that has imported everything already.

A pipe brings the task and stop requests, and takes the run's name and its end. When `paddock up`
was killed and the other end is closed, the run continues: the ledger records its work, Prefect its
end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection

from paddock.runner.api import FILE_THREADS
from paddock.runner.workers import deployed_flow
from paddock.runner.workers.deployed_flow import RunOrders

from .run_messages import RunBegan, RunEnded, RunTask, RunWaits, StopRequest


def run_in_process(task: RunTask, link: Connection) -> None:
    """Carry out a run, and end the process."""
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C at the terminal is for `paddock up`, which sends us a request
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    asyncio.run(_run_task(task, link))
    sys.stdout.flush()
    os._exit(0)  # do not wait for Prefect's threads, whose server may be gone


async def _run_task(task: RunTask, link: Connection) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(FILE_THREADS))
    deployed_flow.use_server(task.api_url, task.auth_string)
    orders = RunOrders(text=task.text, flags=dict(task.flags), agreed=task.agreed)
    orders.began = lambda run: _send_message(link, RunBegan(run))
    orders.waits = lambda words: _send_message(link, RunWaits(words))
    is_unreachable = False
    with deployed_flow.with_orders(orders), _taking_stop_requests(link, orders):
        try:
            words = await deployed_flow.run_queued_flow(task.flow_run, task.parameters)
        except deployed_flow.PrefectUnreachable as error:
            words, is_unreachable = str(error), True
        except Exception as error:  # whatever ends a run is reported, and ends no other
            words = str(error) or type(error).__name__
    _send_message(link, RunEnded(orders.report, "" if orders.report else words, is_unreachable))


@contextmanager
def _taking_stop_requests(link: Connection, orders: RunOrders) -> Iterator[None]:
    """Handle stop requests from the pipe while its other end is open."""
    loop = asyncio.get_running_loop()

    def hear() -> None:
        try:
            said = link.recv()
        except (EOFError, OSError):
            loop.remove_reader(link.fileno())
            return
        if isinstance(said, StopRequest) and said.is_gentle:
            orders.is_handed_over = said.is_handed_over
            status = "interrupted" if said.is_interrupted else "budget"
            orders.stop_gate.close(said.words, status)  # type: ignore[arg-type]
        elif isinstance(said, StopRequest):
            orders.stop.set()

    loop.add_reader(link.fileno(), hear)
    try:
        yield
    finally:
        loop.remove_reader(link.fileno())


def _send_message(link: Connection, said: RunBegan | RunWaits | RunEnded) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        link.send(said)
