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
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from paddock.runner.api import FILE_THREADS
from paddock.runner.progress.report import Report
from paddock.runner.workers import deployed_flow
from paddock.runner.workers.deployed_flow import RunOrders


@dataclass(frozen=True, slots=True)
class RunTask:
    """One run to carry out."""

    flow_run: str
    parameters: Mapping[str, Any]
    """As verified. The flow run's own are not read again: others may have changed them."""
    text: str
    flags: Mapping[str, object] = field(default_factory=dict)
    """The command line's settings; the rest, permissions too, is read when the run begins."""
    api_url: str = ""
    """Prefect's API, as `paddock up` reaches it. The process that runs are forked from may have
    been started when it was elsewhere; empty: as in the environment."""
    auth_string: str = field(default="", repr=False)
    """Password of our own Prefect server."""
    agreed: frozenset[str] = frozenset()
    """What a person consented to for the file: code that changed since does not run."""


@dataclass(frozen=True, slots=True)
class RunBegan:
    """The run's name."""

    run: str


@dataclass(frozen=True, slots=True)
class RunWaits:
    """What the run waits for on other machines; empty: it no longer waits."""

    words: str


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over; without a `report`, `words` is the error that ended it."""

    report: Report | None
    words: str = ""
    is_unreachable: bool = False
    """Prefect could not be reached, and nothing was begun."""


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Stop, after the current item or at once."""

    words: str
    is_gentle: bool
    is_interrupted: bool = False
    """It was cancelled for good, rather than held for a while."""
    is_handed_over: bool = False
    """`paddock up` ends; other machines continue their part of the run."""


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
