"""A run in a process of its own, forked from one that has imported everything already.

Told through a pipe what to do, when to stop and why; tells through it how the run is called and how
it ended. When nobody holds the other end any more (`paddock up` was killed), the run goes on: the
ledger has what it does, and Prefect how it ends.
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

from paddock.runner import deployed
from paddock.runner.deployed import Orders
from paddock.runner.report import Report
from paddock.runner.verbs import FILE_THREADS


@dataclass(frozen=True, slots=True)
class Task:
    """One run to carry out."""

    flow_run: str
    parameters: Mapping[str, Any]
    """As they were checked. The flow run's own are not read again: who reaches Prefect's API may
    have changed them since."""
    text: str
    flags: Mapping[str, object] = field(default_factory=dict)
    """Settings given by hand; the rest is read when the run begins, what it may reach too."""
    api_url: str = ""
    """Prefect's API, as `paddock up` reaches it. The process that runs are forked from may have
    been started when it was elsewhere; empty: as in the environment."""
    auth_string: str = field(default="", repr=False)
    """What our own Prefect server asks for."""
    agreed: frozenset[str] = frozenset()
    """What a person agreed to for the file: code that changed since is not run."""


@dataclass(frozen=True, slots=True)
class Began:
    """The run has this name."""

    run: str


@dataclass(frozen=True, slots=True)
class Waits:
    """The run waits for this, for machines that are to do it; empty words: no longer."""

    words: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over; `report` is None where it ended by an error, which `words` tell."""

    report: Report | None
    words: str = ""
    is_unreachable: bool = False
    """Prefect could not be reached, and nothing was begun."""


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop: at an item's border, or at once."""

    words: str
    is_gentle: bool
    is_interrupted: bool = False
    """It was cancelled for good, rather than held back for a while."""
    is_passed_on: bool = False
    """`paddock up` ends; what other machines do of the run goes on."""


def carry_out(task: Task, link: Connection) -> None:
    """Carry out a run, and end the process."""
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C at the terminal is for `paddock up`, which tells us what it means
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    asyncio.run(_carried_out(task, link))
    sys.stdout.flush()
    os._exit(0)  # threads of Prefect's that wait for a server which is gone hold up nobody


async def _carried_out(task: Task, link: Connection) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(FILE_THREADS))
    deployed.use_server(task.api_url, task.auth_string)
    orders = Orders(text=task.text, flags=dict(task.flags), agreed=task.agreed)
    orders.began = lambda run: _send(link, Began(run))
    orders.waits = lambda words: _send(link, Waits(words))
    is_unreachable = False
    with deployed.under(orders), _listening(link, orders):
        try:
            words = await deployed.carry_out(task.flow_run, task.parameters)
        except deployed.PrefectUnreachable as error:
            words, is_unreachable = str(error), True
        except Exception as error:  # whatever ends a run is told, and ends no one else
            words = str(error) or type(error).__name__
    _send(link, Ended(orders.report, "" if orders.report else words, is_unreachable))


@contextmanager
def _listening(link: Connection, orders: Orders) -> Iterator[None]:
    """Do what comes through the pipe, as long as somebody holds its other end."""
    loop = asyncio.get_running_loop()

    def hear() -> None:
        try:
            said = link.recv()
        except (EOFError, OSError):
            loop.remove_reader(link.fileno())
            return
        if isinstance(said, Halt) and said.is_gentle:
            orders.is_passed_on = said.is_passed_on
            status = "interrupted" if said.is_interrupted else "budget"
            orders.border.close(said.words, status)  # type: ignore[arg-type]
        elif isinstance(said, Halt):
            orders.stop.set()

    loop.add_reader(link.fileno(), hear)
    try:
        yield
    finally:
        loop.remove_reader(link.fileno())


def _send(link: Connection, said: Began | Waits | Ended) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        link.send(said)
