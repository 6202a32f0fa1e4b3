"""Runs that agents and the console start, forked from a process that has imported what they need.

A fresh interpreter takes 0.6 s of a processor in place of 0.1. Servers in processes of their own
start theirs as they ship.
"""

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from paddock.runner.cli import detached_run
from tests.forked import Forked, ForkServer, restore_imported_state


def fork_runs(forks: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the runs that this process starts forked until the test ends."""
    forked: dict[int, Forked] = {}
    turn, has_child_ended = threading.Lock(), detached_run._RunProcess.has_ended

    def spawn(
        command: Sequence[str],
        stderr_file: Path,
        stdin: int,
        environ: Mapping[str, str] | None = None,
    ) -> int:
        exchange, imports = f"/proc/{os.getpid()}/fd/{stdin}", (detached_run.__name__,)
        with turn:
            process = forks.start(
                carry_out, exchange, imports=imports, environ=environ, cwd=Path.cwd()
            )
        forked[process.pid] = process
        return process.pid

    def has_ended(process: detached_run._RunProcess) -> bool:
        if process.pid not in forked:
            return has_child_ended(process)
        process.code = forked[process.pid].poll()
        return process.code is not None

    monkeypatch.setattr(detached_run, "spawn_detached", spawn)
    monkeypatch.setattr(detached_run._RunProcess, "has_ended", has_ended)


def carry_out(exchange: str) -> None:
    """Carry out the order in a file, in a session of its own."""
    os.setsid()
    file = os.open(exchange, os.O_RDWR)
    os.dup2(file, 0)
    os.close(file)
    restore_imported_state()
    detached_run.main()
